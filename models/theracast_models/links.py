"""From a score to answers: calibrated, additive on one scale, then probabilities at horizons or levels, or a number.

Every kind of endpoint gives `linear = intercept + slope * score` and K answers `inverse(offset[k] + linear)`: one for yes or
no and for a number, one per horizon for time to an event, one per level but the worst for ordered levels. So one
explanation, exact on the linear scale, holds for all K answers of a patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from theracast_data.errors import ArtifactError
from theracast_models.calibration import LARGEST_SLOPE, LEAST_SLOPE, AffineCalibration
from theracast_models.outcomes import Binary, Continuous, Floats, Kind, Ordinal, Outcome, Survival

GRID = 60
"""Steps at which a baseline hazard is kept."""
FARTHEST = 30.0
"""An offset beyond which a probability is 0 or 1 for every score."""


class Link(Protocol):
    """The calibration of a score, and the answers that follow from it."""

    kind: ClassVar[Kind]

    @property
    def intercept(self) -> float:
        """What is added to the scaled score."""
        ...

    @property
    def slope(self) -> float:
        """By which the score is scaled, above 0."""
        ...

    @property
    def offsets(self) -> Floats:
        """(K,) by which the linear score is moved for each answer."""
        ...

    def apply(self, score: Floats) -> Floats:
        """Return (n,) calibrated linear scores."""
        ...

    def inverse(self, value: Floats) -> Floats:
        """Return probabilities, or numbers, of values on the linear scale."""
        ...

    def scale_of(self, answer: Floats) -> Floats:
        """Return the values on the linear scale of which these are the answers."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the link as plain JSON values."""
        ...


@dataclass(frozen=True)
class HazardLink:
    """The log-hazard, and the probability of the event by each horizon: `1 - exp(-exp(offset + linear))`.

    Attributes:
        horizons: days, the main one first.
        log_hazards: log of the baseline cumulative hazard at each horizon.
        grid, grid_hazards: days and baseline cumulative hazard over the whole follow-up, for curves. Even steps, so that no
            patient's time is told.
    """

    intercept: float
    slope: float
    horizons: tuple[float, ...]
    log_hazards: tuple[float, ...]
    grid: tuple[float, ...]
    grid_hazards: tuple[float, ...]

    kind: ClassVar[Kind] = "time_to_event"

    @property
    def offsets(self) -> Floats:
        """(horizons,) log of the baseline cumulative hazard."""
        return np.array(self.log_hazards)

    def apply(self, score: Floats) -> Floats:
        """Return (n,) calibrated log-hazards."""
        return self.intercept + self.slope * score

    def inverse(self, value: Floats) -> Floats:
        """Return the probability of the event for a log cumulative hazard."""
        found: Floats = -np.expm1(-np.exp(np.minimum(value, FARTHEST)))
        return found

    def scale_of(self, answer: Floats) -> Floats:
        """Return the log cumulative hazard of a probability."""
        found: Floats = np.log(-np.log1p(-answer))
        return found

    def by(self, days: Floats, linear: Floats) -> Floats:
        """Return (n, m) probabilities of the event by each of m days, read off the grid."""
        hazards = np.interp(days, np.array(self.grid), np.array(self.grid_hazards))
        found: Floats = -np.expm1(-np.exp(np.minimum(linear, FARTHEST))[:, None] * hazards)
        return found

    def knots(self) -> tuple[Floats, Floats]:
        """Return rising days, those of the grid and the horizons, and the baseline cumulative hazard by each."""
        days, first = np.unique(np.array([*self.horizons, *self.grid]), return_index=True)
        hazards = np.array([*np.exp(self.log_hazards), *self.grid_hazards])[first]
        return days, np.maximum.accumulate(hazards)

    def to_json(self) -> dict[str, Any]:
        """Return the link as plain JSON values."""
        return {"kind": self.kind} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class IncidenceLink(HazardLink):
    """The log-hazard of an event that another one may forestall; its probability needs the other's hazard: `incidence`."""

    def by(self, days: Floats, linear: Floats) -> Floats:
        """Raise TypeError: one hazard alone tells the probability as if the other event did not exist."""
        raise TypeError("the probability of an event with a competing one needs both hazards: see links.incidence")

    def to_json(self) -> dict[str, Any]:
        """Return the link as plain JSON values, of a kind of its own: who does not know it must not answer."""
        return super().to_json() | {"kind": "competing"}


def incidence(
    own: HazardLink, rival: HazardLink, linear: Floats, against: Floats, days: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return (n, m) by each of m days: the chance of the event, of the competing one, and of neither; they add up to 1.

    Both baselines are kept at even steps; between these the hazards count as constant, for which the integral of survival
    against hazard is exact: of what happens in a step, each event has the share of its hazard.

    Args:
        linear, against: (n,) calibrated log-hazards of the event and of the competing one.

    Source: Prentice et al., Biometrics 1978;34:541-554; Benichou and Gail, Biometrics 1990;46:813-826.
    """
    edges = np.unique(np.concatenate([[0.0], days, *(one.knots()[0] for one in (own, rival))]))
    edges = edges[edges <= days.max(initial=0.0)]
    steps = [
        np.exp(np.minimum(score, FARTHEST))[:, None] * np.diff(np.interp(edges, *one.knots()))
        for one, score in ((own, linear), (rival, against))
    ]
    both = steps[0] + steps[1]
    free = np.exp(-np.cumsum(np.hstack([np.zeros((len(both), 1)), both]), axis=1))
    happens = free[:, :-1] * -np.expm1(-both)
    share = np.divide(steps[0], both, out=np.zeros_like(both), where=both > 0)
    at = np.searchsorted(edges, days)

    def summed(parts: Floats) -> Floats:
        whole: Floats = np.hstack([np.zeros((len(parts), 1)), np.cumsum(parts, axis=1)])[:, at]
        return whole

    return summed(happens * share), summed(happens * (1 - share)), free[:, at]


@dataclass(frozen=True)
class OrdinalLink:
    """Cumulative log-odds: the probability of each level or a better one, from the second worst to the best.

    Attributes:
        thresholds: (levels - 1,) rising.
        main: position of the answer that leads.
    """

    intercept: float
    slope: float
    thresholds: tuple[float, ...]
    main: int

    kind: ClassVar[Kind] = "ordinal"

    @property
    def offsets(self) -> Floats:
        """(levels - 1,) the thresholds, turned, the leading one first."""
        return -np.array([self.thresholds[place] for place in self.order])

    @property
    def order(self) -> list[int]:
        """Positions of the thresholds in the order of the answers: the leading one, then the others from worst to best."""
        return [self.main, *(place for place in range(len(self.thresholds)) if place != self.main)]

    def apply(self, score: Floats) -> Floats:
        """Return (n,) calibrated scores."""
        return self.intercept + self.slope * score

    def inverse(self, value: Floats) -> Floats:
        """Return the probability of log-odds."""
        found: Floats = expit(value)
        return found

    def scale_of(self, answer: Floats) -> Floats:
        """Return the log-odds of a probability."""
        found: Floats = logit(answer)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the link as plain JSON values."""
        return {"kind": self.kind} | vars(self) | {"thresholds": list(self.thresholds)}


@dataclass(frozen=True)
class NumberLink:
    """The number itself; `spread` is the standard deviation of what happened around it, out of fold."""

    intercept: float
    slope: float
    spread: float

    kind: ClassVar[Kind] = "continuous"

    @property
    def offsets(self) -> Floats:
        """One answer, not moved."""
        return np.zeros(1)

    def apply(self, score: Floats) -> Floats:
        """Return (n,) calibrated numbers."""
        return self.intercept + self.slope * score

    def inverse(self, value: Floats) -> Floats:
        """Return the numbers."""
        return value

    def scale_of(self, answer: Floats) -> Floats:
        """Return the numbers."""
        return answer

    def to_json(self) -> dict[str, Any]:
        """Return the link as plain JSON values."""
        return {"kind": self.kind} | vars(self)


@dataclass(frozen=True)
class Asked:
    """What is asked of an endpoint beyond its kind.

    Attributes:
        horizons: days, the main one first, of a time to an event.
        main_level: of ordered levels, counted from 0: the answer that leads is the chance of this level or better.
    """

    horizons: tuple[float, ...] = ()
    main_level: int = 1


def fit_link(score: Floats, outcome: Outcome, asked: Asked) -> Link:
    """Return the calibration of largest likelihood of (n,) scores, which should be out of fold; NaN does not count.

    Like that of yes or no it never turns a ranking round: a slope below 0.05 becomes 0.05, one above 25 becomes 25.
    """
    known = np.flatnonzero(np.isfinite(score) & (outcome.weight > 0))
    score, outcome = score[known], outcome.take(known)
    if isinstance(outcome, Binary):
        return AffineCalibration.fit(score, outcome.y, outcome.weight)
    if isinstance(outcome, Continuous):
        return _number_link(score, outcome)
    slope = _slope(score, outcome)
    intercept = -slope * float(np.average(score, weights=outcome.weight))
    if isinstance(outcome, Ordinal):
        thresholds = outcome.thresholds(intercept + slope * score)
        return OrdinalLink(
            intercept, slope, tuple(np.clip(thresholds, -FARTHEST, FARTHEST).tolist()), asked.main_level - 1
        )
    assert isinstance(outcome, Survival)
    return _hazard_link(intercept, slope, score, outcome, asked.horizons)


def link_from_json(record: Mapping[str, Any]) -> Link:
    """Return the link that `to_json` wrote."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
    kind = fields.pop("kind", "binary")
    makers: dict[str, Any] = {
        "binary": AffineCalibration,
        "time_to_event": HazardLink,
        "competing": IncidenceLink,
        "ordinal": OrdinalLink,
        "continuous": NumberLink,
    }
    if kind not in makers:
        raise ArtifactError(
            f"the model answers an endpoint of the kind {kind!r}, which this version of Theracast does not know. Use the "
            "version that saved it."
        )
    link: Link = makers[kind](**fields)
    return link


def answers(link: Link, linear: Floats) -> Floats:
    """Return (n, K) answers of calibrated linear scores.

    Raises:
        TypeError: there is a competing event, whose model must be asked too: `CalibratedModel.answers_of` does.
    """
    if isinstance(link, IncidenceLink):
        raise TypeError("the probability of an event with a competing one needs both hazards: see links.incidence")
    return link.inverse(linear[:, None] + link.offsets)


def level_probabilities(reached: Floats, *, main: int) -> Floats:
    """Return (n, levels) probabilities of each level from (n, levels - 1) of a level or a better one.

    Args:
        reached: in the order of `OrdinalLink.order`: the leading one first.
        main: position of the leading one among them, from worst to best.
    """
    order = [main, *(place for place in range(reached.shape[1]) if place != main)]
    ordered = np.empty_like(reached)
    ordered[:, order] = reached
    return of_each_level(ordered)


def of_each_level(reached: Floats) -> Floats:
    """Return (n, levels) the probability of each level from (n, levels - 1) of level 1 or more, 2 or more, ..."""
    ends = np.ones((len(reached), 1))
    whole = np.hstack([ends, reached, 0 * ends])
    found: Floats = whole[:, :-1] - whole[:, 1:]
    return found


def _slope(score: Floats, outcome: Outcome) -> float:
    """Return the slope of largest likelihood within its limits: the root of a rising function."""
    if np.ptp(score) < 1e-9:
        return 1.0

    def derivative(slope: float) -> float:
        return float(outcome.slopes(slope * score)[0] @ score)

    if derivative(LEAST_SLOPE) >= 0:
        return LEAST_SLOPE
    if derivative(LARGEST_SLOPE) <= 0:
        return LARGEST_SLOPE
    return float(brentq(derivative, LEAST_SLOPE, LARGEST_SLOPE, xtol=1e-12, rtol=1e-12))


def _number_link(score: Floats, outcome: Continuous) -> NumberLink:
    w = outcome.weight
    centre, middle = float(np.average(score, weights=w)), float(np.average(outcome.y, weights=w))
    moment = float(w @ (score - centre) ** 2)
    slope = float(w @ ((score - centre) * (outcome.y - middle)) / moment) if np.ptp(score) >= 1e-9 else 1.0
    slope = min(max(slope, LEAST_SLOPE), LARGEST_SLOPE)
    intercept = middle - slope * centre
    residual = outcome.y - intercept - slope * score
    return NumberLink(intercept, slope, float(np.sqrt(np.average(residual**2, weights=w))))


def _round_up(days: float) -> float:
    """Return the next number of two significant digits."""
    step = 10.0 ** (np.floor(np.log10(max(days, 1e-9))) - 1)
    return float(np.ceil(days / step) * step)


def _hazard_link(
    intercept: float, slope: float, score: Floats, outcome: Survival, horizons: Sequence[float]
) -> HazardLink:
    linear = intercept + slope * score
    hazards = outcome.cumulative_hazard(linear, np.array(horizons))
    # Up to where ten are still followed, in round numbers: beyond, a curve would tell of single patients.
    followed = np.sort(outcome.time)[::-1]
    last = max(_round_up(float(followed[min(10, len(followed)) - 1])), *horizons)
    grid = np.linspace(0.0, last, GRID + 1)
    return (HazardLink if outcome.competing is None else IncidenceLink)(
        intercept,
        slope,
        tuple(map(float, horizons)),
        tuple(np.maximum(np.log(np.maximum(hazards, 1e-300)), -FARTHEST).tolist()),
        tuple(grid.tolist()),
        tuple(outcome.cumulative_hazard(linear, grid).tolist()),
    )
