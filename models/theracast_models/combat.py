"""Harmonisation of features over scanners: ComBat with a fit, a rule for scanners never seen, and plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_models.logodds import Floats

FEWEST_PER_BATCH = 3
"""A batch with fewer values of a feature says too little of its spread; it is left as it is, like one never seen."""

_TOLERANCE = 1e-6
_MOST_STEPS = 500


@dataclass(frozen=True)
class Combat:
    """Shift and scale of each feature in each batch, shrunk towards what the batch does to all features.

    A value becomes `centre + (value - centre - scale * shift) / spread`, in which `centre` and `scale` belong to the
    feature, `shift` and `spread` to the feature in its batch. A batch that was not learned leaves the value as it is.

    Attributes:
        features: names, p.
        batches: names, b, sorted.
        centre, scale: (p,) grand mean over the batches, and pooled standard deviation within them; scale 0: no spread.
        shift, spread: (b, p) in units of `scale`; 0 and 1 where the batch had too few values of the feature.
    """

    features: tuple[str, ...]
    batches: tuple[str, ...]
    centre: Floats
    scale: Floats
    shift: Floats
    spread: Floats

    @classmethod
    def learn(cls, values: Floats, batch: Sequence[str | None], *, features: Sequence[str]) -> Combat:
        """Return the harmonisation of n decisions by parametric empirical Bayes; missing values are passed over.

        Args:
            values: (n, p), NaN where missing.
            batch: (n,) names; None where not known, such decisions are not learned from.
            features: p names.

        Source: Johnson WE, Li C, Rabinovic A, Biostatistics 2007;8:118-127; for imaging features Fortin JP et al.,
        NeuroImage 2017;161:149-170. Moments are taken feature by feature over the values that are there.
        """
        names = sorted({one for one in batch if one is not None})
        members = np.array([[one == name for one in batch] for name in names], dtype=bool).reshape(len(names), -1)
        count, mean = _moments(values, members)
        counted = np.where(count >= FEWEST_PER_BATCH, count, 0)
        total = counted.sum(axis=0)
        some = np.maximum(total, 1)
        centre = np.where(total > 0, (counted * mean).sum(axis=0) / some, 0.0)
        within = np.zeros(values.shape[1])
        for own, middle, enough in zip(members, mean, counted > 0, strict=True):
            within += np.where(enough, np.nansum((values[own] - middle) ** 2, axis=0), 0.0)
        scale = np.sqrt(within / some)
        useful = (scale > 0) & np.isfinite(scale)
        standard = (values - centre) / np.where(useful, scale, 1.0)
        shift, spread = np.zeros_like(mean), np.ones_like(mean)
        for number, own in enumerate(members):
            here = useful & (counted[number] > 0)
            shift[number, here], spread[number, here] = _shrunk(standard[own][:, here])
        return cls(tuple(features), tuple(names), centre, np.where(useful, scale, 0.0), shift, spread)

    def apply(self, values: Floats, batch: Sequence[str | None]) -> Floats:
        """Return the harmonised values (n, p); what is passed over stays as it is."""
        rows = self._places(batch)
        shift, spread = self.shift[rows], self.spread[rows]
        moved: Floats = self.centre + (values - self.centre - self.scale * shift) / spread
        return np.where(self.passed_over(batch), values, moved)

    def passed_over(self, batch: Sequence[str | None]) -> NDArray[np.bool_]:
        """Return (n, p) whether nothing was learned of a feature in a decision's batch: one never seen, not known or small.

        A feature without any spread within the batches is passed over everywhere.
        """
        rows = self._places(batch)
        learned = (self.shift != 0) | (self.spread != 1)
        left: NDArray[np.bool_] = ~((rows >= 0)[:, None] & learned[rows])
        return left

    def _places(self, batch: Sequence[str | None]) -> NDArray[np.intp]:
        """Return (n,) the position of each decision's batch; -1 where it was never seen or is not known."""
        place = {name: number for number, name in enumerate(self.batches)}
        return np.array([-1 if one is None else place.get(one, -1) for one in batch], dtype=np.intp)

    def to_json(self) -> dict[str, Any]:
        """Return the harmonisation as plain JSON values."""
        arrays = {name: getattr(self, name).tolist() for name in ("centre", "scale", "shift", "spread")}
        return {"features": list(self.features), "batches": list(self.batches)} | arrays

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Combat:
        """Return the harmonisation that `to_json` wrote."""
        shape = (len(record["batches"]), len(record["features"]))
        arrays = {name: np.array(record[name], dtype=np.float64) for name in ("centre", "scale")}
        arrays |= {name: np.array(record[name], dtype=np.float64).reshape(shape) for name in ("shift", "spread")}
        return cls(tuple(record["features"]), tuple(record["batches"]), **arrays)


def _moments(values: Floats, members: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return number and mean of the known values of each feature in each batch, (b, p) each."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    count = members.astype(np.float64) @ known
    mean = (members.astype(np.float64) @ filled) / np.maximum(count, 1.0)
    return count, mean


def _shrunk(standard: Floats) -> tuple[Floats, Floats]:
    """Return shift and spread of one batch, (p,) each: posterior means under priors taken from all its features.

    The shift has a normal prior, the variance an inverse gamma one; both by the method of moments.
    """
    count = np.isfinite(standard).sum(axis=0)
    shift = np.nanmean(standard, axis=0)
    variance = np.nanvar(standard, axis=0, ddof=1)
    if standard.shape[1] < 2:  # one feature has nothing to borrow from
        return shift, np.sqrt(np.where(variance > 0, variance, 1.0))
    prior_mean, prior_variance = float(shift.mean()), float(shift.var(ddof=1))
    middle, width = float(variance.mean()), float(variance.var(ddof=1))
    if prior_variance == 0 or width == 0:
        return shift, np.sqrt(np.where(variance > 0, variance, 1.0))
    shape = (2 * width + middle**2) / width
    rate = (middle * width + middle**3) / width
    new_shift, new_variance = shift, variance
    for _ in range(_MOST_STEPS):
        old_shift, old_variance = new_shift, new_variance
        weight = count * prior_variance
        new_shift = (weight * shift + old_variance * prior_mean) / (weight + old_variance)
        squares = np.nansum((standard - new_shift) ** 2, axis=0)
        new_variance = (rate + squares / 2) / (count / 2 + shape - 1)
        moved = max(_relative(new_shift, old_shift), _relative(new_variance, old_variance))
        if moved < _TOLERANCE:
            break
    return new_shift, np.sqrt(new_variance)


def _relative(new: Floats, old: Floats) -> float:
    return float(np.max(np.abs(new - old) / np.maximum(np.abs(old), 1e-12)))
