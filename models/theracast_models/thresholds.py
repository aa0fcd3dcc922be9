"""How strange an outcome may be before it is left out of a conformal answer: quantiles of scores, per group, as an aggregate.

A score tells how badly an outcome fits what the model said of a decision. The outcomes of a new decision whose score does
not exceed the threshold form its set. What may be promised hangs on where the scores come from:

`held_out`: from decisions that took no part in fitting or calibrating. For a new patient from the same source the set
    holds the truth with a probability of at least the coverage asked for, whatever the model (split conformal; Vovk,
    Gammerman, Shafer 2005; Lei et al., J Am Stat Assoc 2018;113:1094-1111).
`out_of_fold`: from models that did not see the decision, while the model that answers was fitted to all of them. This
    is K-fold conformal with one model. It is no theorem but holds where leaving out a fold hardly moves the model
    (Steinberger, Leeb, Ann Stat 2023;51:290-311). The versions that are proved, cross-conformal prediction and CV+, need
    the models of all folds at every answer and promise no more than about 1 - 2 alpha (Vovk, Ann Math Artif Intell
    2015;74:9-28; Barber, Candes, Ramdas, Tibshirani, Ann Stat 2021;49:486-507). `bench/conformal.py` measures the
    coverage on patients who were never seen.

Both promise it on average over patients like those of development, not for each kind of patient. A threshold of its own
for each group (Mondrian) promises it within the group; a group with too few patients is judged by the threshold of all,
and `basis` says so.

Several decisions of a patient are no independent witnesses. Each patient counts once, shared among their decisions:
the promise is for one decision, drawn at random, of a new patient (Lee, Barber, Willett, arXiv 2306.06342).
Weights (inverse probability of being uncensored) make the patients who were followed up stand for those who were not
(Tibshirani, Barber, Candes, Ramdas, NeurIPS 2019); the new patient takes the largest weight there can be, which errs on
the side of larger sets, and the promise is then as good as the model of censoring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theracast_models.logodds import Floats
from theracast_models.reference import SMALLEST_CELL

Source = Literal["held_out", "out_of_fold"]
COVERAGES = (0.8, 0.9, 0.95)
FEWEST_PER_GROUP = 50
"""Patients below which a group is judged by all: with n, the coverage that one learning happens to reach varies with a
standard deviation of sqrt(alpha (1 - alpha) / (n + 2)) (Vovk, PMLR 2012;25:475-490), which is 4 points at 50."""


@dataclass(frozen=True)
class Scores:
    """What thresholds are learned from: n scores of the true outcomes, and whose they are.

    Attributes:
        values: (n,) the larger, the worse the true outcome fits; NaN does not count.
        weight: (n,) non-negative, 0 does not count; None for 1.
        patients: (n,) a number for each patient; None where every decision is another patient.
        groups: (n,) site or declared subgroup; None (also for one decision) is in no group.
        labels: (n,) number of the true outcome, where each outcome is to have its own threshold; else None.
        largest_weight: that any decision can have; by default the largest there is.
    """

    values: Floats
    weight: Floats | None = None
    patients: NDArray[np.intp] | None = None
    groups: Sequence[str | None] | None = None
    labels: NDArray[np.intp] | None = None
    largest_weight: float | None = None


@dataclass(frozen=True)
class Cell:
    """The thresholds of one group.

    Attributes:
        group: its name, None for all.
        label: the outcome to which they belong, None for every outcome.
        patients: from how many they come, at least ten.
        limits: one per coverage; None: no limit, for there are too few patients for this coverage. Empty: the group has
            fewer patients than a group needs and is judged by all.
    """

    group: str | None
    label: int | None
    patients: int
    limits: tuple[float | None, ...]


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of all groups. Each is rounded outwards to three digits, so that no patient's score is told.

    Attributes:
        source: of the scores, which says what may be promised.
        coverages: rising, each between 0 and 1.
        fewest: patients that a group needs for thresholds of its own.
        cells: those of at least ten patients.
    """

    source: Source
    coverages: tuple[float, ...]
    fewest: int
    cells: tuple[Cell, ...]

    @classmethod
    def learn(
        cls,
        scores: Scores,
        *,
        source: Source,
        coverages: Sequence[float] = COVERAGES,
        fewest: int = FEWEST_PER_GROUP,
    ) -> Thresholds:
        """Return the thresholds from the scores of n development decisions.

        Raises:
            ValueError: a coverage is not between 0 and 1, or scores and their attributes differ in length.
        """
        if not coverages or not all(0 < one < 1 for one in coverages):
            raise ValueError(f"coverages lie between 0 and 1, such as 0.9 for 90 %; found {tuple(coverages)}.")
        mass, patients, largest = _masses(scores)
        cells = []
        for group, label, rows in _cells(scores, mass > 0):
            count = len(np.unique(patients[rows]))
            if count < SMALLEST_CELL:
                continue
            own = group is None or count >= fewest
            limits = _limits(scores.values[rows], mass[rows], patients[rows], largest, coverages) if own else ()
            cells.append(Cell(group, label, count, limits))
        return cls(source, tuple(sorted(coverages)), fewest, tuple(cells))

    def limits(
        self, n: int, *, coverage: float, groups: Sequence[str | None] | None = None, label: int | None = None
    ) -> Floats:
        """Return (n,) the largest score that an outcome in the set may have; infinite where everything is in it.

        Args:
            groups: (n,) of the decisions; None for none.
            label: the outcome, where each has thresholds of its own.

        Raises:
            ValueError: nothing was learned for the coverage.
        """
        if coverage not in self.coverages:
            raise ValueError(f"no thresholds were learned for a coverage of {coverage}; there are {self.coverages}.")
        place = self.coverages.index(coverage)
        known = {cell.group: cell.limits[place] for cell in self.cells if cell.label == label and cell.limits}
        found = [known.get(group, known.get(None)) for group in (groups if groups is not None else [None] * n)]
        return np.array([np.inf if limit is None else limit for limit in found], dtype=np.float64)

    def basis(self, group: str | None) -> str:
        """Return in words on which patients the set of a decision in this group rests."""
        own = [cell for cell in self.cells if cell.group == group and group is not None]
        pooled = [cell for cell in self.cells if cell.group is None]
        n = sum(cell.patients for cell in pooled)
        if own and all(cell.limits for cell in own) and len(own) == len(pooled):
            return f"{sum(cell.patients for cell in own)} development patients of the group {group}"
        everyone = f"all {n} development patients" if pooled else f"no threshold: fewer than {SMALLEST_CELL} patients"
        if group is None:
            return everyone
        return (
            f"{everyone}, since the group {group} has fewer than {self.fewest}; the coverage holds on average over all of "
            "them, not for the group"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the thresholds as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Thresholds:
        """Return the thresholds that `to_json` wrote."""
        cells = tuple(Cell(**(dict(one) | {"limits": tuple(one["limits"])})) for one in record["cells"])
        return cls(record["source"], tuple(record["coverages"]), record["fewest"], cells)


def outwards(value: float, *, digits: int = 3) -> float:
    """Return the next number of this many significant digits that is not smaller."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(repr(float(value)))))


def weighted_quantile(values: Floats, mass: Floats, *, beyond: float, level: float) -> float:
    """Return the smallest value up to which lies `level` of the mass, of which `beyond` lies at infinity.

    With mass 1 each and 1 beyond, it is the ceil((n + 1) level)-th smallest of n values.
    """
    order = np.argsort(values, kind="stable")
    share = np.cumsum(mass[order]) / (mass.sum() + beyond)
    reached = share >= level - 1e-12
    return float(values[order][int(reached.argmax())]) if reached.any() else np.inf


def _masses(scores: Scores) -> tuple[Floats, NDArray[np.intp], float]:
    """Return (n,) weights (0 where a score does not count), patient numbers, and the largest weight there can be."""
    n = len(scores.values)
    weight = np.ones(n) if scores.weight is None else np.asarray(scores.weight, dtype=np.float64)
    patients = np.arange(n) if scores.patients is None else np.asarray(scores.patients)
    told = {"weight": weight, "patients": patients, "groups": scores.groups, "labels": scores.labels}
    wrong = [f"{name} ({len(one)})" for name, one in told.items() if one is not None and len(one) != n]
    if wrong or (weight < 0).any():
        raise ValueError(f"{n} scores need as many of {', '.join(wrong) or 'weight'}, and no weight below 0.")
    mass = np.where(np.isnan(scores.values), 0.0, weight)
    largest = float(mass.max(initial=0.0)) if scores.largest_weight is None else scores.largest_weight
    return mass, patients, max(largest, float(mass.max(initial=0.0)))


def _cells(scores: Scores, counted: NDArray[np.bool_]) -> Iterator[tuple[str | None, int | None, NDArray[np.intp]]]:
    """Yield group, label and positions: all first, then each group; in each, every label by itself."""
    names = np.array(scores.groups if scores.groups is not None else [None] * len(counted), dtype=object)
    labels = [None] if scores.labels is None else np.unique(scores.labels[counted]).tolist()
    for group in (None, *sorted({str(one) for one in names[counted] if one is not None})):
        inside = counted if group is None else counted & (names == group)
        for label in labels:
            yield group, label, np.flatnonzero(inside if label is None else inside & (scores.labels == label))


def _limits(
    values: Floats, weight: Floats, patients: NDArray[np.intp], largest: float, coverages: Sequence[float]
) -> tuple[float | None, ...]:
    _, own, decisions = np.unique(patients, return_inverse=True, return_counts=True)
    mass = weight / decisions[own]
    found = [weighted_quantile(values, mass, beyond=largest, level=level) for level in sorted(coverages)]
    return tuple(None if limit == np.inf else outwards(limit) for limit in found)
