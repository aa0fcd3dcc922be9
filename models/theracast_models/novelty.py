"""Whether patients like this one were rarely seen in development, and what it is that was rarely seen.

Usage, in training, with the contributions of the final model (`CalibratedModel.explain`), and then at every answer:

    novelty = Novelty.learn(table, phi, patients=patient_numbers(table.decisions))
    novelty.of(asked)   # one Unusual per decision: rare, parts with how unusual, features that make it so

The distance is Mahalanobis's on the features as they came, in units of what they can do to the answer: each is
standardised and scaled to the spread of its contributions, and the covariance is shrunk towards a multiple of the
identity. A feature that the model hardly uses so fades out, and one that it uses counts also beyond the limits to which
the model winsorises it. Contributions themselves would not do: a value that is cut off, or filled in, contributes as if
it were common.

What is missing is left out of the distance, which is then compared with what is to be expected of the features that are
there (Wilson and Hilferty's cube root brings distances of few and of many features to one scale). Missing is told of
elsewhere (`caution.py`). A category of fewer than ten patients and one never seen are the same here: one held by at
most ten of n.

The whole and each modality of several features are looked at; the largest of them, each measured by its own spread in
development, decides, with a limit that 1 % of like patients exceed. Limits come from distances to patients of other
folds: to those from whom the covariance was learned a patient always lies nearer. What lies beyond the ten most unusual
patients is extrapolated from them together (exponential tail), so that no limit is one patient's distance.

Kept are means, standard deviations, shares and covariances, each of at least ten patients; a covariance of two yes-or-no
columns that would tell of fewer than ten with both is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.logodds import Floats
from theracast_models.rarity import Column, Distances, Layout, layout_of, shrunk_covariance
from theracast_models.reference import SMALLEST_CELL
from theracast_models.sentences import listed

WHOLE = "whole"
LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
RARE = 0.99
FOLDS = 10
FEWEST = 50
"""Patients below which nothing is said: the tail would be drawn from too few."""
MOST_TRIED = 2_000
MOST_REASONS = 3
FAR_ALONE = 2.5
"""Standard deviations beyond which a value is unusual by itself; otherwise it is so beside the other values."""


HOW_WORDS = {
    "high": "unusually high",
    "low": "unusually low",
    "rare category": "a rare category",
    "together": "unusual beside the other values",
}


class Reason(NamedTuple):
    """A feature that makes a decision unusual.

    Attributes:
        name: of the feature.
        how: `high`, `low`, `rare category`, or `together`: unusual only beside the other values.
    """

    name: str
    how: str


class Unusual(NamedTuple):
    """How unusual one decision is.

    Attributes:
        rare: at most 1 % of the development decisions were as unusual.
        beyond: largest of `LEVELS` that it exceeds as a whole verdict, 0 below the first.
        parts: `whole` and each modality of several features with known values: largest of `LEVELS` that it exceeds.
        leading: the part that is most unusual; None where nothing is known.
        reasons: up to three features of that part, the weightiest first; empty unless `rare`.
    """

    rare: bool
    beyond: float
    parts: dict[str, float]
    leading: str | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Part:
    """Limits of the whole or of one modality: the distances that shares `LEVELS` of the development decisions stay below."""

    name: str
    limits: tuple[float, ...]

    @property
    def spread(self) -> float:
        """From the middle to the limit of the rare."""
        return max(self.limits[-1] - self.limits[0], 0.1)


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the development patients were like together.

    Attributes:
        patients: how many.
        columns: how features become columns.
        covariance: (w, w) shrunk.
        ridge: how it was shrunk: share kept of the covariance, and what was added to its diagonal.
        parts: with limits; the whole first.
        verdict: limits of the largest of the parts.
    """

    patients: int
    columns: tuple[Column, ...]
    covariance: Floats
    ridge: tuple[float, float]
    parts: tuple[Part, ...]
    verdict: tuple[float, ...]

    @classmethod
    def learn(
        cls,
        table: FeatureTable,
        phi: Floats,
        *,
        patients: NDArray[np.intp] | None = None,
        weight: Floats | None = None,
        seed: int = 0,
    ) -> Novelty:
        """Return what is usual among n development decisions.

        Args:
            phi: (n, p) contributions, only to learn how far each feature moves the answer.
            patients: (n,) a number for each patient; each counts once.
            weight: (n,); decisions of weight 0 do not count, the others count alike.

        Raises:
            ValueError: fewer than 50 patients.
        """
        counted = np.arange(len(table)) if weight is None else np.flatnonzero(weight > 0)
        own = counted if patients is None else np.asarray(patients)[counted]
        table, phi = table.take(counted), phi[counted]
        _, own, decisions = np.unique(own, return_inverse=True, return_counts=True)
        if len(decisions) < FEWEST:
            raise ValueError(
                f"{len(decisions)} patients are too few to say what is usual; {FEWEST} are needed. Leave it out of this model."
            )
        share, reach = 1.0 / decisions[own], phi.std(axis=0)
        layout, distances = _learned(table, reach, share)
        names = list(_named_parts(layout))
        fold = np.random.default_rng([seed, 61]).permutation(len(decisions))[own] % FOLDS
        tried = np.sort(np.random.default_rng([seed, 62]).permutation(len(own))[:MOST_TRIED])
        found = np.full((len(own), len(names)), np.nan)
        for one in range(FOLDS):
            rest, test = np.flatnonzero(fold != one), tried[fold[tried] == one]
            others, apart = _learned(table.take(rest), reach, share[rest])
            found[test] = _part_distances(apart, _named_parts(others), others.values(table.take(test)), names)
        limits = [_limits(column, share) for column in found.T]
        kept = np.array([len(one) > 0 for one in limits], dtype=bool)
        parts = tuple(Part(name, own) for name, own in zip(names, limits, strict=True) if own)
        largest = _largest(found[:, kept], parts)
        return cls(
            patients=len(decisions),
            columns=layout.columns,
            covariance=distances.covariance,
            ridge=distances.ridge,
            parts=parts,
            verdict=_limits(largest, share),
        )

    def of(self, table: FeatureTable) -> list[Unusual]:
        """Return how unusual each decision is."""
        if not self.parts or not len(table):
            return [Unusual(False, 0.0, {}, None, ()) for _ in range(len(table))]
        values = self._layout.values(table)
        found = _part_distances(self._distances, self._places, values, [part.name for part in self.parts])
        largest = _largest(found, self.parts)
        return [self._unusual(*one) for one in zip(values, found, largest, strict=True)]

    def _unusual(self, values: Floats, found: Floats, largest: float) -> Unusual:
        beyond = _beyond(largest, self.verdict)
        pairs = [(part, away) for part, away in zip(self.parts, found.tolist(), strict=True) if np.isfinite(away)]
        parts = {part.name: _beyond(away, part.limits) for part, away in pairs}
        if not pairs:
            return Unusual(False, 0.0, parts, None, ())
        leading = max(pairs, key=lambda pair: (pair[1] - pair[0].limits[0]) / pair[0].spread)[0].name
        rare = beyond >= RARE
        return Unusual(rare, beyond, parts, leading, self._reasons(values, leading) if rare else ())

    def _reasons(self, values: Floats, part: str) -> tuple[Reason, ...]:
        """Return the features without which the distance would fall most."""
        places = self._places[part][np.isfinite(values[self._places[part]])]
        drops = self._distances.drops(values, places, self._layout.owner)
        order = sorted(drops, key=lambda one: -drops[one])[:MOST_REASONS]
        least = 0.1 * sum(drops.values())
        return tuple(self._reason(one, values) for one in order if drops[one] >= least or one == order[0])

    def _reason(self, feature: int, values: Floats) -> Reason:
        column, own = self.columns[feature], values[self._layout.owner == feature]
        if column.levels is not None:
            return Reason(column.name, "rare category" if own.argmax() == len(column.levels) else "together")
        away = float(own[0]) / column.reach
        how = "together" if abs(away) < FAR_ALONE else "high" if away > 0 else "low"
        return Reason(column.name, how)

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.columns)

    @cached_property
    def _places(self) -> dict[str, NDArray[np.intp]]:
        return _named_parts(self._layout)

    @cached_property
    def _distances(self) -> Distances:
        return Distances(self.covariance, self.ridge)

    def to_json(self) -> dict[str, Any]:
        """Return what is usual as plain JSON values; of the covariance the lower triangle."""
        rows, columns = np.tril_indices(len(self.covariance))
        return {
            "patients": self.patients,
            "columns": [asdict(column) for column in self.columns],
            "covariance": self.covariance[rows, columns].tolist(),
            "ridge": list(self.ridge),
            "parts": [{"name": part.name, "limits": list(part.limits)} for part in self.parts],
            "verdict": list(self.verdict),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Novelty:
        """Return what `to_json` wrote."""
        columns = tuple(Column.from_json(one) for one in record["columns"])
        width = Layout(columns).width
        covariance = np.zeros((width, width))
        rows, places = np.tril_indices(width)
        covariance[rows, places] = covariance[places, rows] = record["covariance"]
        kept, added = record["ridge"]
        return cls(
            patients=record["patients"],
            columns=columns,
            covariance=covariance,
            ridge=(kept, added),
            parts=tuple(Part(one["name"], tuple(one["limits"])) for one in record["parts"]),
            verdict=tuple(record["verdict"]),
        )


def unusual_sentence(found: Unusual, catalogue: Sequence[FeatureSpec]) -> str | None:
    """Return what a doctor should read of an unusual decision, without the patient's values; None if it is not rare."""
    if not found.rare:
        return None
    labels = {spec.name: spec.label for spec in catalogue}
    told = listed([f"{labels.get(one.name, one.name)} ({HOW_WORDS[one.how]})" for one in found.reasons])
    return f"Patients like this were rarely seen in development, at most 1 in 100 were as unusual. What makes it so: {told}."


def _named_parts(layout: Layout) -> dict[str, NDArray[np.intp]]:
    """Return the columns of the whole, and of each modality of several features beside another.

    A modality of one feature is not looked at by itself: how rare its category is, or how far its value, is no finding
    about a patient as a whole, and what was never seen is told by `caution.py`.
    """
    parts = {WHOLE: np.arange(layout.width)}
    names = list(dict.fromkeys(column.modality for column in layout.columns))
    for name in names if len(names) > 1 else []:
        features = [number for number, column in enumerate(layout.columns) if column.modality == name]
        if len(features) > 1:
            parts[name] = np.flatnonzero(np.isin(layout.owner, features))
    return parts


def _learned(table: FeatureTable, reach: Floats, share: Floats) -> tuple[Layout, Distances]:
    """Return the columns and the distances of decisions, each of which counts with its share of the patient."""
    layout = layout_of(table, reach, share)
    covariance = shrunk_covariance(layout.values(table), share, owner=layout.owner, within=layout.within)
    return layout, Distances(*covariance)


def _part_distances(
    distances: Distances, named: Mapping[str, NDArray[np.intp]], values: Floats, names: Sequence[str]
) -> Floats:
    """Return (n, names) distances, NaN where nothing of the part is known."""
    nothing = np.full(len(values), np.nan)
    return np.column_stack([distances.standard(values, named[name]) if name in named else nothing for name in names])


def _largest(found: Floats, parts: Sequence[Part]) -> Floats:
    """Return (n,) the largest of the parts, each from its middle in its own spread; NaN where nothing is known."""
    if not parts:
        return np.full(len(found), np.nan)
    middle, spread = np.array([part.limits[0] for part in parts]), np.array([part.spread for part in parts])
    result: Floats = np.fmax.reduce((found - middle) / spread, axis=1)
    return result


def _limits(values: Floats, share: Floats) -> tuple[float, ...]:
    """Return the values that shares `LEVELS` of the patients stay below, rounded up to hundredths.

    Beyond the ten most unusual patients they follow an exponential of the same mean. A longer tail would be steadier, but
    wrong where a category held by some per cent makes a clump at its end (measured in I-SPY2).
    """
    known = np.isfinite(values)
    order = np.argsort(values[known], kind="stable")
    found, weight = values[known][order], share[known][order]
    total = float(weight.sum())
    if total < FEWEST:
        return ()
    below = (np.cumsum(weight) - weight / 2) / total
    from_here = min(RARE, 1.0 - SMALLEST_CELL / total)
    corner = float(np.interp(from_here, below, found))
    tail = found >= corner
    excess = float(np.average(found[tail] - corner, weights=weight[tail]))
    limits = [
        float(np.interp(level, below, found))
        if level <= from_here
        else corner + excess * float(np.log((1.0 - from_here) / (1.0 - level)))
        for level in LEVELS
    ]
    return tuple(float(np.ceil(limit * 100.0) / 100.0) for limit in limits)


def _beyond(value: float, limits: Sequence[float]) -> float:
    """Return the largest of `LEVELS` whose limit is exceeded, 0 where none is."""
    exceeded = [level for level, limit in zip(LEVELS, limits, strict=True) if value > limit]
    return exceeded[-1] if exceeded else 0.0
