"""Answers that hold the truth with a stated probability: sets of outcomes, intervals, and a bound on the time to an event.

Usage, in training, with the out-of-fold scores that are there anyway:

    sets = BinarySets.learn(probability, y, patients=patient_numbers(decisions), groups=sites, source="out_of_fold")
    sets.sets(model.probability(table), groups=table.decisions["site"], coverage=0.9)   # (n, 2) no, yes

Each class holds `Thresholds` alone (`thresholds.py` says what they promise, and how groups and patients with several
decisions count): a few rounded quantiles and counts, of no fewer than ten patients. `to_json` and `from_json` keep
them; `conformal_from_json` finds the class.

An outcome by a horizon of a follow-up: `BinarySets` with the weights of inverse probability of being uncensored
(`Target.weight`). The decisions whose outcome at the horizon is known then stand for all, in the scores as in the rest
of the evaluation. The time itself: `EventTimes`.

Measured at 90 % on a third of the patients that nothing was learned from (`bench/conformal.py`, 100 splits): ICB 90.2,
I-SPY2 90.1, OAK 90.5, TransNEO 91.1 %. At the four larger sites of ICB it is 84 to 93 % with the thresholds of all, and
90 to 91 % with those of the site. Where the outcome is rare, sets with one threshold for both outcomes hold nearly every
absence and few presences (OAK 29 %): there `by_outcome` is what a board should see. At a site that took no part nothing is
promised (83.7 to 93.4 % were measured).

Out-of-fold probabilities should be calibrated by the line that the model uses. That line was fitted to the same
out-of-fold scores: two numbers from n outcomes, which the measured coverage does not notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from theracast_models.logodds import Floats
from theracast_models.thresholds import COVERAGES, FEWEST_PER_GROUP, Scores, Source, Thresholds

Groups = Sequence[str | None] | None
Bools = NDArray[np.bool_]

SET_WORDS = {
    (False, True): "yes",
    (True, False): "no",
    (True, True): "yes or no: the data cannot tell",
    (False, False): "neither: unlike the development patients of either outcome",
}


@dataclass(frozen=True)
class _Conformal:
    """What the four have in common."""

    kind: ClassVar[str]
    thresholds: Thresholds

    def to_json(self) -> dict[str, Any]:
        """Return all that was learned as plain JSON values."""
        return {"kind": self.kind, "thresholds": self.thresholds.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(Thresholds.from_json(record["thresholds"]))


@dataclass(frozen=True)
class BinarySets(_Conformal):
    """Sets {yes}, {no}, {yes, no} or {}: the outcomes whose probability is large enough.

    The score of an outcome is 1 - its probability (Sadinle, Lei, Wasserman, J Am Stat Assoc 2019;114:223-234). A set is
    empty where both outcomes would be stranger than most were, which needs a model that is mostly surer than this.
    """

    kind: ClassVar[str] = "binary"

    @classmethod
    def learn(
        cls,
        probability: Floats,
        y: Floats,
        *,
        source: Source,
        weight: Floats | None = None,
        patients: NDArray[np.intp] | None = None,
        groups: Groups = None,
        by_outcome: bool = False,
        coverages: Sequence[float] = COVERAGES,
        fewest: int = FEWEST_PER_GROUP,
    ) -> BinarySets:
        """Return the sets learned from n development decisions.

        Args:
            probability: (n,) calibrated, out of fold or of held-out decisions; NaN does not count.
            y: (n,) 0/1; where the weight is 0 it may be NaN.
            weight: (n,) such as inverse probability of being uncensored.
            patients, groups: see `Scores`.
            by_outcome: promise the coverage among those with and among those without the outcome. Without it a rare
                outcome may be missed more often, as long as the common one makes up for it.
        """
        strange = np.where(y > 0, 1.0 - probability, probability)
        labels = (y > 0).astype(np.intp) if by_outcome else None
        scores = Scores(strange, weight, patients, groups, labels)
        return cls(Thresholds.learn(scores, source=source, coverages=coverages, fewest=fewest))

    @property
    def by_outcome(self) -> bool:
        """Whether the coverage is promised for each outcome."""
        return any(cell.label is not None for cell in self.thresholds.cells)

    def sets(self, probability: Floats, *, coverage: float = 0.9, groups: Groups = None) -> Bools:
        """Return (n, 2) whether no, and whether yes, is in the set."""
        inside = [
            strange <= self.thresholds.limits(len(probability), coverage=coverage, groups=groups, label=own)
            for strange, own in zip(
                (probability, 1.0 - probability), (0, 1) if self.by_outcome else (None, None), strict=True
            )
        ]
        return np.column_stack(inside)


@dataclass(frozen=True)
class OrdinalSets(_Conformal):
    """Runs of neighbouring levels around the most probable one; never empty.

    The run grows from the most probable level to whichever neighbour is more probable (the upper one at a tie). The score
    of a level is the probability of the run to which it is added, 0 for the most probable level itself.

    Source: Lu, Angelopoulos, Pomerantz, MICCAI 2022 (ordinal adaptive prediction sets), without randomisation.
    """

    kind: ClassVar[str] = "ordinal"

    @classmethod
    def learn(
        cls,
        probability: Floats,
        level: Floats,
        *,
        source: Source,
        weight: Floats | None = None,
        patients: NDArray[np.intp] | None = None,
        groups: Groups = None,
        coverages: Sequence[float] = COVERAGES,
        fewest: int = FEWEST_PER_GROUP,
    ) -> OrdinalSets:
        """Return the sets learned from n decisions: (n, K) probabilities of the levels, (n,) true level 0..K-1."""
        known = np.isfinite(level) & np.isfinite(probability).all(axis=1)
        place = np.where(known, level, 0).astype(np.intp)
        strange = np.where(known, run_scores(probability)[np.arange(len(place)), place], np.nan)
        scores = Scores(strange, weight, patients, groups)
        return cls(Thresholds.learn(scores, source=source, coverages=coverages, fewest=fewest))

    def sets(self, probability: Floats, *, coverage: float = 0.9, groups: Groups = None) -> Bools:
        """Return (n, K) whether each level is in the set, given (n, K) probabilities."""
        limits = self.thresholds.limits(len(probability), coverage=coverage, groups=groups)
        inside: Bools = run_scores(probability) <= limits[:, None]
        return inside


@dataclass(frozen=True)
class Intervals(_Conformal):
    """Intervals of a continuous outcome.

    Attributes:
        score: `absolute`: as wide for everybody; `normalised`: as wide as the spread that is expected of the decision (Lei et
            al. 2018); `quantile`: around two predicted quantiles (CQR; Romano, Patterson, Candes, NeurIPS 2019).
    """

    kind: ClassVar[str] = "continuous"
    score: Literal["absolute", "normalised", "quantile"] = "absolute"

    @classmethod
    def learn(
        cls,
        prediction: Floats,
        y: Floats,
        *,
        source: Source,
        spread: Floats | None = None,
        weight: Floats | None = None,
        patients: NDArray[np.intp] | None = None,
        groups: Groups = None,
        coverages: Sequence[float] = COVERAGES,
        fewest: int = FEWEST_PER_GROUP,
    ) -> Intervals:
        """Return the intervals learned from n decisions.

        Args:
            prediction: (n,) out of fold; or (n, 2) a lower and an upper quantile.
            spread: (n,) positive, how far outcomes are expected to lie from the prediction, for instance a model of the
                absolute residuals; learned without the decision, like the prediction.
        """
        score: Literal["absolute", "normalised", "quantile"] = "absolute" if spread is None else "normalised"
        if prediction.ndim == 2:
            score = "quantile"
            strange = np.maximum(prediction[:, 0] - y, y - prediction[:, 1])
        else:
            strange = np.abs(y - prediction) / (1.0 if spread is None else _positive(spread))
        scores = Scores(strange, weight, patients, groups)
        return cls(Thresholds.learn(scores, source=source, coverages=coverages, fewest=fewest), score)

    def sets(
        self, prediction: Floats, *, spread: Floats | None = None, coverage: float = 0.9, groups: Groups = None
    ) -> Floats:
        """Return (n, 2) lower and upper end, infinite where nothing can be said; NaN where an end would pass the other.

        Raises:
            ValueError: the prediction is not of the kind that was learned.
        """
        given = "quantile" if prediction.ndim == 2 else "absolute" if spread is None else "normalised"
        if given != self.score:
            raise ValueError(f"the intervals were learned from {self.score} residuals; these predictions are {given}.")
        low, high = prediction.T if prediction.ndim == 2 else (prediction, prediction)
        width = self.thresholds.limits(len(prediction), coverage=coverage, groups=groups)
        width = width if spread is None else width * _positive(spread)
        ends = np.column_stack([low - width, high + width])
        ends[ends[:, 0] > ends[:, 1]] = np.nan
        return ends

    def to_json(self) -> dict[str, Any]:
        """Return all that was learned as plain JSON values."""
        return super().to_json() | {"score": self.score}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(Thresholds.from_json(record["thresholds"]), record["score"])


@dataclass(frozen=True)
class EventTimes(_Conformal):
    """A time that the event will not precede, with a stated probability.

    The bound is the time at which the event's predicted probability reaches a threshold, and no later than the last
    horizon: what happens after it is not asked, so nothing is assumed of it, and the weights stay bounded. The score of a
    decision is 1 - the predicted probability at its own event; it is 0 for who passed the last horizon without an event.
    Decisions that were censored before the horizon have weight 0, the others the inverse of their probability of not
    having been. This is weighted conformal prediction from the observed patients to all; censoring must not depend on
    the outcome but through what its model sees. Candes, Lei, Ren (J R Stat Soc B 2023;85:24-45) need the censoring time of
    everybody, also of those with an event, which follow-up does not give; with weights it is not needed (Davidov et al.,
    ICLR 2025). An upper bound is not offered: where most are event-free at the end of follow-up there is none.

    Attributes:
        horizons: (K,) days, rising.
    """

    kind: ClassVar[str] = "time_to_event"
    horizons: tuple[float, ...] = ()

    @classmethod
    def learn(
        cls,
        curve: Floats,
        time: Floats,
        event: Floats,
        *,
        horizons: Sequence[float],
        source: Source,
        weight: Floats,
        patients: NDArray[np.intp] | None = None,
        groups: Groups = None,
        coverages: Sequence[float] = COVERAGES,
        fewest: int = FEWEST_PER_GROUP,
    ) -> EventTimes:
        """Return the bounds learned from n development decisions.

        Args:
            curve: (n, K) predicted probability of the event by each horizon, out of fold, not falling.
            time, event: (n,) days; 1 event, 0 censored.
            horizons: K days; the last should leave a fair share under observation.
            weight: (n,) inverse probability of being uncensored at min(time, last horizon); 0 where censored before it.
        """
        inside = (event == 1) & (time <= horizons[-1])
        at = probability_at(curve, time, horizons=horizons)
        scores = Scores(np.where(inside, 1.0 - at, 0.0), weight, patients, groups)
        return cls(Thresholds.learn(scores, source=source, coverages=coverages, fewest=fewest), tuple(horizons))

    def sets(self, curve: Floats, *, coverage: float = 0.9, groups: Groups = None) -> Floats:
        """Return (n,) days before which there will be no event; 0 where nothing can be said, at most the last horizon."""
        limits = self.thresholds.limits(len(curve), coverage=coverage, groups=groups)
        return time_at(curve, np.clip(1.0 - limits, 0.0, 1.0), horizons=self.horizons)

    def to_json(self) -> dict[str, Any]:
        """Return all that was learned as plain JSON values."""
        return super().to_json() | {"horizons": list(self.horizons)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(Thresholds.from_json(record["thresholds"]), tuple(record["horizons"]))


Conformal = BinarySets | OrdinalSets | Intervals | EventTimes
_CLASSES: dict[str, type[Conformal]] = {one.kind: one for one in (BinarySets, OrdinalSets, Intervals, EventTimes)}


def conformal_from_json(record: Mapping[str, Any]) -> Conformal:
    """Return what any `to_json` of this module wrote."""
    if record["kind"] not in _CLASSES:
        raise ValueError(f"there is no conformal answer of kind {record['kind']!r}. Known: {', '.join(_CLASSES)}.")
    return _CLASSES[record["kind"]].from_json(record)


def run_scores(probability: Floats) -> Floats:
    """Return (n, K) the probability of the run of levels to which each level is added; see `OrdinalSets`."""
    n, levels = probability.shape
    rows = np.arange(n)
    low = high = probability.argmax(axis=1)
    padded = np.pad(probability, ((0, 0), (1, 1)), constant_values=-1.0)
    scores, run = np.zeros((n, levels)), probability[rows, low].copy()
    for _ in range(levels - 1):
        up = padded[rows, high + 2] >= padded[rows, low]
        new = np.where(up, high + 1, low - 1)
        scores[rows, new] = run
        run += probability[rows, new]
        low, high = np.where(up, low, new), np.where(up, new, high)
    return scores


def probability_at(curve: Floats, time: Floats, *, horizons: Sequence[float]) -> Floats:
    """Return (n,) the probability of the event by each decision's time; cumulative hazard linear between horizons."""
    hazard, days = _hazard(curve, horizons)
    found = [np.interp(own, days, row) for own, row in zip(time, hazard, strict=True)]
    return -np.expm1(-np.array(found, dtype=np.float64))


def time_at(curve: Floats, probability: Floats, *, horizons: Sequence[float]) -> Floats:
    """Return (n,) the first days by which the event's probability is reached; the last horizon where it is not.

    The hazard lies a hair above the predicted one, and the time so a hair early: `probability_at` it is never above.
    """
    hazard, days = _hazard(curve, horizons)
    wanted = -np.log1p(-np.minimum(probability, 1.0 - 1e-15)) * (1.0 - 1e-9)
    after = (hazard < wanted[:, None]).sum(axis=1)  # the first of the days by which it is reached
    rows, beyond = np.arange(len(hazard)), after == len(days)
    after = np.clip(after, 1, len(days) - 1)
    low, high = hazard[rows, after - 1], hazard[rows, after]
    share = np.divide(wanted - low, high - low, out=np.zeros_like(low), where=high > low)
    found = days[after - 1] + np.maximum(share, 0.0) * (days[after] - days[after - 1])
    return np.where(beyond, days[-1], np.where(wanted <= 0, 0.0, found))


def _hazard(curve: Floats, horizons: Sequence[float]) -> tuple[Floats, Floats]:
    """Return (n, K + 1) cumulative hazards and (K + 1,) days, both from 0."""
    hazard = -np.log1p(-np.minimum(np.maximum.accumulate(curve, axis=1), 1.0 - 1e-15))
    return np.column_stack([np.zeros(len(curve)), hazard]), np.r_[0.0, np.asarray(horizons, dtype=np.float64)]


def _positive(spread: Floats) -> Floats:
    if not (spread > 0).all():
        raise ValueError("a spread must be above 0 for every decision. Give it a floor where the model of it has none.")
    return spread
