"""What became of the development decisions most like this one, told of groups only: no row is kept, none is given back.

Usage, in training, with the contributions of the final model to the development decisions (`CalibratedModel.explain`):

    near = Neighbours.learn(phi, Outcomes.binary(y), names=names, patients=patient_numbers(table.decisions))
    near.like(phi_of_one_decision, wanted=50)   # Alike: decisions, patients, rate with interval

Alike means alike in what the model made of them: the distance is that of the contributions (log-odds, one number per
feature). What moves the answer counts as much as it moves it; what the model does not use does not count.

To search, something must travel in the artefact, and the design asks that nothing in it tell of fewer than ten patients.
So the decisions are merged beforehand into small groups of neighbours, each of at least ten patients (microaggregation,
MDAV: k-anonymity with k = 10), of which the mean contributions and the mean outcome are kept. A query merges the nearest
groups until there are as many decisions as wanted. Tried against the ways out: rows with noise still tell of one patient;
a clustering of few large groups is coarse; a second model of the rate would be the first model again. The price is
measured by `bench/neighbours.py`: in four cohorts the rate among 50 differed from that of the true 50 nearest by 4 to 6
points (root mean square; two samples of 50 would by 6 to 8), and as a prediction was as good, to 0.002 in Brier score.

Like every k-anonymous table it does not hide what all members of a group have in common; a group is nobody's record, and
whoever does not know a patient's contributions cannot place the patient.

A time to event is kept as the mean of pseudo-observations on a fixed grid of horizons (`pseudo.py`), so that no step of
a curve is one patient's date, and groups are larger. Horizons at which fewer than ten of all are at risk are left out.
Numbers at risk are kept where they are at least ten in the group: their sum is a lower bound. Where most have died that
may be blank though the share is well known; the curve is blank only where it says no more than ten patients would.

Decisions of one patient may lie in several groups. A group has at least ten patients; the intervals count patients, not
decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theracast_models.logodds import Floats
from theracast_models.pseudo import survival_shares
from theracast_models.reference import SMALLEST_CELL
from theracast_models.thresholds import outwards

Kind = Literal["binary", "ordinal", "continuous", "time_to_event"]
Z_95 = 1.959963984540054
WANTED = 50
WANTED_OVER_TIME = 100
SIZE_OVER_TIME = 25
"""Patients in a group where the outcome is a time: at least ten are then at risk until three fifths have left."""
MOST_GROUPS = 1_000
KEPT_VARIANCE = 0.999


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of n decisions as numbers whose mean over a group says what became of it.

    Attributes:
        kind: of the endpoint.
        values: (n, q) binary: 0/1; ordinal: one column per level; continuous: the outcome; time to event:
            pseudo-observations of being without the event at each horizon.
        at_risk: (n, q) 1 where still under observation at the horizon, for a time to event; else None.
        horizons: days, for a time to event.
    """

    kind: Kind
    values: Floats
    at_risk: Floats | None = None
    horizons: tuple[float, ...] = ()

    @classmethod
    def binary(cls, y: Floats) -> Outcomes:
        """Return the outcomes of an endpoint that is 0 or 1."""
        return cls("binary", np.asarray(y, dtype=np.float64)[:, None])

    @classmethod
    def ordinal(cls, level: Floats, *, levels: int) -> Outcomes:
        """Return the outcomes of an endpoint with levels 0..levels-1."""
        values = np.where(np.isnan(level)[:, None], np.nan, level[:, None] == np.arange(levels)).astype(np.float64)
        return cls("ordinal", values)

    @classmethod
    def continuous(cls, y: Floats) -> Outcomes:
        """Return the outcomes of an endpoint that is a number."""
        return cls("continuous", np.asarray(y, dtype=np.float64)[:, None])

    @classmethod
    def survival(cls, time: Floats, event: Floats, *, horizons: Sequence[float]) -> Outcomes:
        """Return the outcomes of a time to event (days; 1 event, 0 censored) on a grid of horizons."""
        shares = survival_shares(time, event, horizons=horizons)
        at_risk = (time[:, None] >= np.asarray(horizons)).astype(np.float64)
        return cls("time_to_event", shares, at_risk, tuple(float(one) for one in horizons))


@dataclass(frozen=True)
class Alike:
    """The development decisions most like one decision, together.

    Attributes:
        kind: of the endpoint.
        decisions: how many.
        patients: of how many patients, at least ten; one with decisions in several groups is counted in each.
        estimate: binary: rate; ordinal: share of each level; continuous: mean; time to event: share without the event at
            each horizon of `Neighbours.horizons`, None where it is known no better than from ten patients.
        low, high: their 95 % intervals (Wilson for shares).
        spread: standard deviation of a continuous outcome, else None.
        at_risk: at each horizon, at least this many under observation; None below ten. Empty for the other kinds.
        far: the decision lies farther from the nearest group than 95 % of the development decisions from their own.
    """

    kind: Kind
    decisions: int
    patients: int
    estimate: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    spread: float | None
    at_risk: tuple[int | None, ...]
    far: bool

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Groups of at least ten patients.

    Attributes:
        kind, horizons: of the endpoint.
        names: (c,) features whose contributions are kept: those that differ among patients.
        places: (c,) their positions among the model's features.
        usual: distance within which 95 % of the development decisions lie from the middle of their group.
        centres: (m, c) mean contributions.
        decisions, patients: (m,) counts.
        means, squares: (m, q) mean outcome, and mean of its square.
        at_risk: (m, q) decisions under observation at each horizon, 0 where fewer than ten; (m, 0) for other kinds.
    """

    kind: Kind
    horizons: tuple[float, ...]
    names: tuple[str, ...]
    places: NDArray[np.intp]
    usual: float
    centres: Floats
    decisions: NDArray[np.intp]
    patients: NDArray[np.intp]
    means: Floats
    squares: Floats
    at_risk: NDArray[np.intp]

    @classmethod
    def learn(
        cls,
        phi: Floats,
        outcomes: Outcomes,
        *,
        names: Sequence[str],
        patients: NDArray[np.intp] | None = None,
        weight: Floats | None = None,
        size: int | None = None,
    ) -> Neighbours:
        """Return the groups of n development decisions.

        Args:
            phi: (n, p) contributions of the model that will be asked, on its calibrated link scale.
            names: p features.
            patients: (n,) a number for each patient.
            weight: (n,); decisions of weight 0, and those without an outcome, do not count. The others count alike.
            size: patients in a group, at least ten; by default ten, more for a time to event, and more where there would be
                more than a thousand groups.

        Raises:
            ValueError: fewer than ten patients have an outcome, or a group would be smaller.
        """
        n = len(phi)
        outcomes = _observed(outcomes)
        counted = np.isfinite(outcomes.values).all(axis=1) & (np.ones(n) if weight is None else weight > 0).astype(bool)
        own = (np.arange(n) if patients is None else np.asarray(patients))[counted]
        count = len(np.unique(own))
        least = SIZE_OVER_TIME if outcomes.kind == "time_to_event" else SMALLEST_CELL
        size = min(max(least, -(-count // MOST_GROUPS)), max(count, SMALLEST_CELL)) if size is None else size
        if size < SMALLEST_CELL or count < size:
            raise ValueError(
                f"{count} patients with an outcome do not make a group of {size}; a group is at least {SMALLEST_CELL}. "
                "Leave the comparison with like patients out of this model."
            )
        places = _telling(phi[counted])
        points, values = phi[counted][:, places], outcomes.values[counted]
        group = microaggregate(points, own, size=size)
        total = np.bincount(group)
        centres = _means(points, group)
        at_risk = np.zeros((len(total), 0), dtype=np.intp)
        if outcomes.at_risk is not None:
            under = np.rint(_means(outcomes.at_risk[counted], group) * total[:, None]).astype(np.intp)
            at_risk = np.where(under >= SMALLEST_CELL, under, 0)
        distance = np.linalg.norm(points - centres[group], axis=1)
        return cls(
            kind=outcomes.kind,
            horizons=outcomes.horizons,
            names=tuple(names[place] for place in places),
            places=places,
            usual=outwards(float(np.quantile(distance, 0.95)), digits=2),
            centres=centres.round(4),
            decisions=total,
            patients=np.array([len(np.unique(own[group == one])) for one in range(len(total))], dtype=np.intp),
            means=_means(values, group).round(6),
            squares=_means(values**2, group).round(6),
            at_risk=at_risk,
        )

    def like(self, phi: Floats, *, wanted: int | None = None) -> Alike:
        """Return what became of the decisions nearest to one with contributions `phi` (p,).

        Args:
            wanted: decisions at least, if there are so many; by default 50, and 100 for a time to event.
        """
        if wanted is None:
            wanted = WANTED_OVER_TIME if self.kind == "time_to_event" else WANTED
        distance = np.sqrt(((self.centres - phi[self.places]) ** 2).sum(axis=1))
        order = np.argsort(distance, kind="stable")
        enough = int(np.searchsorted(np.cumsum(self.decisions[order]), wanted)) + 1
        nearest = order[:enough]
        counts = self.decisions[nearest]
        decisions, patients = int(counts.sum()), int(self.patients[nearest].sum())
        mean, square = (counts @ table[nearest] / decisions for table in (self.means, self.squares))
        at_risk = self.at_risk[nearest].sum(axis=0)
        variance = np.maximum(square - mean**2, 0.0)
        spread = None
        if self.kind == "continuous":
            spread = float(np.sqrt(variance[0]))
            half = Z_95 * np.sqrt(variance / max(patients - 1, 1))
            low, high = mean - half, mean + half
            shown = np.ones(1, dtype=bool)
        else:
            mean = np.minimum.accumulate(np.clip(mean, 0.0, 1.0)) if self.kind == "time_to_event" else mean
            effective = _effective(mean, variance, patients)
            low, high = wilson(mean, effective)
            shown = effective >= SMALLEST_CELL
        return Alike(
            kind=self.kind,
            decisions=decisions,
            patients=patients,
            estimate=_shown(mean, shown),
            low=_shown(low, shown),
            high=_shown(high, shown),
            spread=spread,
            at_risk=tuple(int(one) if one >= SMALLEST_CELL else None for one in at_risk),
            far=bool(distance[order[0]] > self.usual),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the groups as plain JSON values."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: one.tolist() if isinstance(one, np.ndarray) else one for name, one in record.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Neighbours:
        """Return the groups that `to_json` wrote."""
        counts = {name: np.array(record[name], dtype=np.intp) for name in ("places", "decisions", "patients")}
        m = len(counts["decisions"])

        def numbers(name: str) -> Floats:
            return np.array(record[name], dtype=np.float64).reshape(m, -1)

        return cls(
            kind=record["kind"],
            horizons=tuple(record["horizons"]),
            names=tuple(record["names"]),
            usual=record["usual"],
            centres=numbers("centres"),
            means=numbers("means"),
            squares=numbers("squares"),
            at_risk=numbers("at_risk").astype(np.intp),
            places=counts["places"],
            decisions=counts["decisions"],
            patients=counts["patients"],
        )


def _observed(outcomes: Outcomes) -> Outcomes:
    """Return the outcomes without horizons at which fewer than ten are at risk."""
    if outcomes.at_risk is None:
        return outcomes
    kept = outcomes.at_risk.sum(axis=0) >= SMALLEST_CELL
    horizons = tuple(np.array(outcomes.horizons)[kept].tolist())
    return Outcomes(outcomes.kind, outcomes.values[:, kept], outcomes.at_risk[:, kept], horizons)


def microaggregate(points: Floats, patients: NDArray[np.intp], *, size: int) -> NDArray[np.intp]:
    """Return (n,) the number of each decision's group; every group has at least `size` patients.

    While there are enough for two groups, the decision farthest from the middle of those left takes its nearest ones,
    until they are of `size` patients; the rest is the last group.

    Args:
        points: (n, c).
        patients: (n,) at least `size` different ones.

    Source: Domingo-Ferrer, Torra, Data Min Knowl Discov 2005;11:195-212 (MDAV), one group a step.
    """
    _, own = np.unique(patients, return_inverse=True)
    group = np.full(len(points), -1, dtype=np.intp)
    remaining = np.bincount(own)
    total, left, number = points.sum(axis=0), len(points), 0
    while (remaining > 0).sum() >= 2 * size:
        away = _squared_distances(points, total / left)
        farthest = np.where(group < 0, away, -1.0).argmax()
        near = np.where(group < 0, _squared_distances(points, points[farthest]), np.inf)
        members = _nearest_of_patients(near, own, size=size)
        group[members] = number
        remaining -= np.bincount(own[members], minlength=len(remaining))
        total, left, number = total - points[members].sum(axis=0), left - len(members), number + 1
    group[group < 0] = number
    return group


def _squared_distances(points: Floats, place: Floats) -> Floats:
    # Not by a matrix product: its last bits, and so the ties, would hang on the number of cores.
    away = points - place
    result: Floats = np.einsum("ij,ij->i", away, away)
    return result


def _nearest_of_patients(distance: Floats, patients: NDArray[np.intp], *, size: int) -> NDArray[np.intp]:
    """Return the positions of smallest distance up to the first decision of the `size`-th patient."""
    tried = 2 * size
    while True:
        limit = np.inf if tried >= len(distance) else np.partition(distance, tried)[tried]
        within = np.flatnonzero((distance <= limit) & (distance < np.inf))
        order = within[np.argsort(distance[within], kind="stable")]
        _, first = np.unique(patients[order], return_index=True)
        if len(first) >= size:
            return order[: np.sort(first)[size - 1] + 1]
        tried *= 4


def wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % Wilson interval of shares out of n, which may be fractional."""
    z = Z_95**2 / n
    middle = (share + z / 2) / (1 + z)
    half = np.sqrt(np.maximum(z * share * (1 - share) + z**2 / 4, 0.0)) / (1 + z)
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def _effective(share: Floats, variance: Floats, patients: int) -> Floats:
    """Return the number of fully observed patients that would tell as much: fewer where pseudo-observations vary more."""
    pure = share * (1 - share)
    ratio = np.divide(pure, variance, out=np.ones_like(pure), where=variance > 0)
    return np.clip(ratio, 1e-3, 1.0) * patients


def _telling(phi: Floats) -> NDArray[np.intp]:
    """Return the positions of the features whose contributions hold 99.9 % of the variance."""
    variance = phi.var(axis=0)
    order = np.argsort(-variance, kind="stable")
    reached = np.cumsum(variance[order]) >= KEPT_VARIANCE * variance.sum()
    return np.sort(order[: int(reached.argmax()) + 1])


def _means(values: Floats, group: NDArray[np.intp]) -> Floats:
    """Return (m, q) means over the groups of values (n, q)."""
    total = np.bincount(group)
    sums = [np.bincount(group, weights=column, minlength=len(total)) for column in values.T]
    return np.column_stack(sums) / total[:, None]


def _shown(values: Floats, shown: NDArray[np.bool_]) -> tuple[float | None, ...]:
    return tuple(float(value) if told else None for value, told in zip(values, shown, strict=True))
