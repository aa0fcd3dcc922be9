"""How far a decision lies from the development decisions: the columns, the covariance and the distance of `novelty.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.logodds import Floats
from theracast_models.preprocess import level_codes, numeric_values, text_values, transformed
from theracast_models.reference import SMALLEST_CELL

MOST_COLUMNS = 150
KEPT_REACH = 0.999
LEAST_SHRINKING = 0.02
MOST_PATTERNS = 64
_ENOUGH = SMALLEST_CELL - 1e-9


@dataclass(frozen=True)
class Column:
    """How one feature becomes columns, in units of what it can do to the answer.

    A number: `reach * (transformed - mean) / scale`, missing as NaN. A category: one column per level, and one for all
    rare and unseen levels, each `reach * (1 if it is the level - share) / scale`, so that their variances add up to
    `reach ** 2`; all NaN where missing.

    Attributes:
        name, modality, transform: of the feature.
        reach: standard deviation of its contributions.
        mean, scale: of a number on the transformed scale; of a category 0 and the root of the sum of the level variances.
        levels, shares: of at least ten patients each; the last share is that of the others, at least ten in n. None for a
            number.
    """

    name: str
    modality: str
    transform: Literal["none", "log1p"]
    reach: float
    mean: float
    scale: float
    levels: tuple[str, ...] | None = None
    shares: tuple[float, ...] | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Column:
        """Return the column of a record of its fields."""
        lists = {key: None if record[key] is None else tuple(record[key]) for key in ("levels", "shares")}
        return cls(**(dict(record) | lists))


@dataclass(frozen=True)
class Layout:
    """The columns of several features side by side."""

    columns: tuple[Column, ...]

    @cached_property
    def owner(self) -> NDArray[np.intp]:
        """(w,) position of the feature of each column."""
        widths = [1 if column.levels is None else len(column.levels) + 1 for column in self.columns]
        return np.repeat(np.arange(len(self.columns)), np.array(widths, dtype=np.intp))

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.owner)

    @cached_property
    def within(self) -> Floats:
        """(w, w) covariances of the columns of one feature, which follow from its shares; 0 between features."""
        result = np.zeros((self.width, self.width))
        for number, column in enumerate(self.columns):
            own = np.flatnonzero(self.owner == number)
            shares = np.array([0.5] if column.shares is None else column.shares)
            block = np.diag(shares) - np.outer(shares, shares)
            result[np.ix_(own, own)] = column.reach**2 * block / np.trace(block)
        return result

    def values(self, table: FeatureTable) -> Floats:
        """Return (n, w), NaN where missing."""
        result = np.full((len(table), self.width), np.nan)
        numbers, places, logged, mean, scale = self._numbers
        if numbers:
            raw = table.numbers(numbers)
            raw = np.where(np.isfinite(raw), raw, np.nan)
            result[:, places] = (np.where(logged, transformed(raw, "log1p"), raw) - mean) * scale
        for number, column in enumerate(self.columns):
            if column.levels is None or column.shares is None:
                continue
            texts = text_values(table.frame, column.name)
            codes = level_codes(texts, column.levels)
            codes[codes < 0] = len(column.levels)
            hit = codes[:, None] == np.arange(len(column.shares))
            known = np.array([one is not None for one in texts], dtype=bool)
            own = column.reach * (hit - np.array(column.shares)) / column.scale
            result[:, self.owner == number] = np.where(known[:, None], own, np.nan)
        return result

    @cached_property
    def _numbers(self) -> tuple[list[str], NDArray[np.intp], NDArray[np.bool_], Floats, Floats]:
        own = [column for column in self.columns if column.levels is None]
        places = np.searchsorted(self.owner, [n for n, column in enumerate(self.columns) if column.levels is None])
        logged = np.array([column.transform == "log1p" for column in own], dtype=bool)
        mean = np.array([column.mean for column in own])
        return [column.name for column in own], places, logged, mean, np.array([one.reach / one.scale for one in own])


def layout_of(table: FeatureTable, reach: Floats, share: Floats) -> Layout:
    """Return the columns of the features that reach far enough to count, at most 150 columns.

    Args:
        reach: (p,) standard deviation of each feature's contributions.
        share: (n,) 1 / decisions of the patient.
    """
    order = np.argsort(-reach, kind="stable")
    enough = int((np.cumsum(reach[order] ** 2) >= KEPT_REACH * (reach**2).sum()).argmax()) + 1
    kept: dict[int, Column] = {}
    width = 0
    for place in order[:enough].tolist():
        column = _column(table.catalogue[place], table, float(reach[place]), share) if reach[place] > 0 else None
        needed = 0 if column is None else 1 if column.levels is None else len(column.levels) + 1
        if column is not None and width + needed <= MOST_COLUMNS:
            kept[place] = column
            width += needed
    return Layout(tuple(kept[place] for place in sorted(kept)))


def _column(spec: FeatureSpec, table: FeatureTable, reach: float, share: Floats) -> Column | None:
    """Return what is learned of one feature; None where fewer than ten patients have it, or all have the same."""
    if spec.kind == "categorical":
        return _category(spec, text_values(table.frame, spec.name), reach, share)
    values = numeric_values(table.frame, spec.name)
    known = np.isfinite(values)
    found, weight = transformed(values[known], spec.transform), share[known]
    if weight.sum() < _ENOUGH or np.ptp(found) == 0:
        return None
    mean = float(np.average(found, weights=weight))
    scale = float(np.sqrt(np.average((found - mean) ** 2, weights=weight)))
    distinct = np.unique(found)
    if len(distinct) == 2:
        counts = np.array([weight[found == one].sum() for one in distinct])
        if counts.min() < _ENOUGH:  # fewer than ten patients: told as ten, around the value of the others
            rare = min(SMALLEST_CELL / weight.sum(), 0.5)
            mean, scale = float(distinct[counts.argmax()]), float(np.ptp(distinct)) * float(np.sqrt(rare * (1 - rare)))
    return Column(spec.name, spec.modality, spec.transform, reach, _digits(mean), _digits(scale))


def _category(spec: FeatureSpec, values: NDArray[Any], reach: float, share: Floats) -> Column | None:
    known = np.array([one is not None for one in values], dtype=bool)
    total = float(share[known].sum())
    if total < _ENOUGH:
        return None
    texts = values[known].astype(str)
    names = np.unique(texts)
    counts = np.array([share[known][texts == name].sum() for name in names])
    large = counts >= _ENOUGH
    others = max(float(counts[~large].sum()), float(SMALLEST_CELL))
    mass = np.r_[counts[large], others]
    shares = mass / mass.sum()
    scale = float(np.sqrt((shares * (1 - shares)).sum()))
    if not large.any() or scale == 0:
        return None
    levels = tuple(str(name) for name in names[large])
    return Column(spec.name, spec.modality, "none", reach, 0.0, _digits(scale), levels, tuple(map(_digits, shares)))


def shrunk_covariance(
    values: Floats, share: Floats, *, owner: NDArray[np.intp], within: Floats
) -> tuple[Floats, tuple[float, float]]:
    """Return (w, w) the shrunk covariance of columns (n, w) with holes, and how it was shrunk: (kept, added).

    `kept * covariance + added * identity`. Pairs known together in fewer than ten patients, and pairs of two-valued
    columns one of whose four combinations has fewer than ten, count as unrelated. Where holes make the covariance
    impossible, all that is off the diagonal is drawn in until it is possible.

    Args:
        share: (n,) weight of each decision, 1 / decisions of its patient.
        owner: (w,) feature of each column.
        within: (w, w) covariances between columns of one feature, which are not estimated anew.

    Source: Ledoit, Wolf, J Multivariate Anal 2004;88:365-411, with missing values at their mean.
    """
    if not len(owner):
        return within, (1.0, 0.0)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    together = (known * share[:, None]).T @ known
    sums = (filled * share[:, None]).T @ filled
    covariance = np.divide(sums, together, out=np.zeros_like(sums), where=together >= _ENOUGH)
    covariance[_telling_of_few(values, known, share)] = 0.0
    covariance = np.where(owner[:, None] == owner, within, covariance)
    variance = np.diag(covariance)
    covariance = _possible(covariance, variance)
    mean = float(variance.mean())
    n, kept_apart = len(values), covariance - mean * np.eye(len(covariance))
    sample = filled.T @ filled / n
    noise = float(((filled**2).T @ (filled**2) / n - sample**2).sum()) / n
    apart = float((kept_apart**2).sum())
    shrinking = 1.0 if apart == 0 else float(np.clip(noise / apart, LEAST_SHRINKING, 1.0))
    kept, added = _digits(1.0 - shrinking), _digits(shrinking * mean)
    rounded = np.array([_digits(one) for one in (kept * covariance).ravel()]).reshape(covariance.shape)
    return rounded + added * np.eye(len(rounded)), (kept, added)


def _telling_of_few(values: Floats, known: NDArray[np.bool_], share: Floats) -> NDArray[np.bool_]:
    """Return (w, w) pairs of columns whose covariance would tell of fewer than ten patients."""
    low = np.nanmin(np.where(known, values, np.inf), axis=0)
    high = np.nanmax(np.where(known, values, -np.inf), axis=0)
    two = np.array([len(np.unique(column[np.isfinite(column)])) <= 2 for column in values.T], dtype=bool)
    sides = [known & (values == low), known & (values == high)]
    few = np.zeros((len(two), len(two)), dtype=np.bool_)
    for one in sides:
        weighed = (one * share[:, None]).T
        few |= two[:, None] & (weighed @ known < _ENOUGH)
        for other in sides:
            few |= two[:, None] & two & (weighed @ other < _ENOUGH)
    result: NDArray[np.bool_] = few | few.T
    return result


def _possible(covariance: Floats, variance: Floats) -> Floats:
    """Return the covariance with correlations drawn in so far that no direction has a negative variance."""
    scale = np.sqrt(variance)
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    lowest = float(np.linalg.eigvalsh(correlation)[0])
    if lowest < 0:
        correlation = correlation / (1.0 - lowest)
        np.fill_diagonal(correlation, 1.0)
    result: Floats = correlation * np.outer(scale, scale)
    return result


class Distances:
    """Distances on one scale for any set of known columns.

    Args:
        covariance: (w, w) shrunk.
        ridge: (kept, added) of `shrunk_covariance`.
    """

    def __init__(self, covariance: Floats, ridge: tuple[float, float]) -> None:
        self.covariance = covariance
        self.ridge = ridge
        self._inverses: dict[bytes, tuple[Floats, float, float]] = {}

    def standard(self, values: Floats, places: NDArray[np.intp]) -> Floats:
        """Return (n,) distances over these columns, about standard normal among like decisions; NaN where none is known.

        Source: Wilson, Hilferty, Proc Natl Acad Sci USA 1931;17:684-688, for a sum of squares whose mean and variance are
        those of the columns that are known.
        """
        part = values[:, places]
        known = np.isfinite(part)
        result = np.full(len(values), np.nan)
        patterns, inverse = (
            np.unique(known, axis=0, return_inverse=True)
            if len(known) > 1
            else (known, np.zeros(len(known), dtype=int))
        )
        for number, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            rows = np.flatnonzero(inverse.ravel() == number)
            precision, mean, degrees = self._inverse(places[pattern])
            own = part[np.ix_(rows, np.flatnonzero(pattern))]
            squared = ((own @ precision) * own).sum(axis=1)
            width = 2.0 / (9.0 * degrees)
            result[rows] = (np.cbrt(squared / mean) - (1.0 - width)) / np.sqrt(width)
        return result

    def drops(self, values: Floats, places: NDArray[np.intp], owner: NDArray[np.intp]) -> dict[int, float]:
        """Return by how much the squared distance of one decision falls without each feature, `places` being known."""
        precision = self._inverse(places)[0]
        pull = precision @ values[places]
        drops = {}
        for feature in dict.fromkeys(owner[places].tolist()):
            own = np.flatnonzero(owner[places] == feature)
            drops[feature] = float(pull[own] @ np.linalg.solve(precision[np.ix_(own, own)], pull[own]))
        return drops

    def _inverse(self, places: NDArray[np.intp]) -> tuple[Floats, float, float]:
        """Return the inverse over these columns, and mean and degrees of freedom of the squared distance."""
        key = places.tobytes()
        found = self._inverses.get(key)  # read once: another thread may empty it
        if found is None:
            precision: Floats = np.linalg.inv(self.covariance[np.ix_(places, places)]).astype(np.float64)
            kept, added = self.ridge
            product = np.eye(len(places)) if kept <= 0 else (np.eye(len(places)) - added * precision) / kept
            mean = float(np.trace(product))
            found = (precision, mean, mean**2 / float((product**2).sum()))
            if len(self._inverses) >= MOST_PATTERNS:
                self._inverses.clear()
            self._inverses[key] = found
        return found


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
