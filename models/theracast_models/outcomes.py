"""What a model learns from: yes or no, time to an event, ordered levels or a number, each with its likelihood.

Every family learns every kind, for all that it needs is the loss of a score and the slopes of that loss. A score is additive
over features: log-odds, log-hazard, cumulative log-odds, or the number itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from theracast_data.errors import CohortError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Kind = Literal["binary", "time_to_event", "ordinal", "continuous"]
SCALES: dict[Kind, str] = {
    "binary": "log-odds",
    "time_to_event": "log-hazard",
    "ordinal": "cumulative log-odds",
    "continuous": "number",
}


class Outcome(Protocol):
    """The outcomes of n decisions, all known, with weights."""

    kind: ClassVar[Kind]
    has_intercept: ClassVar[bool]
    """False where adding a constant to all scores changes nothing: the baseline or the thresholds take it up."""

    @property
    def weight(self) -> Floats:
        """(n,) non-negative."""
        ...

    @property
    def strata(self) -> Floats:
        """(n,) 0/1, by which folds are balanced."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows: Rows) -> Self:
        """Return the outcomes of these decisions."""
        ...

    def check(self) -> None:
        """Raise CohortError where nothing can be learned from these outcomes."""
        ...

    def start(self) -> float:
        """Return the constant score of least loss; 0 where scores have no intercept."""
        ...

    def loss(self, score: Floats) -> float:
        """Return the negative log-likelihood of (n,) scores, summed with weights, at the best baseline or thresholds."""
        ...

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """Return gradient and curvature (n,) of that loss: its first and the diagonal of its second derivatives."""
        ...

    @property
    def amount(self) -> float:
        """By which a loss is divided to compare folds of different size: total weight, or weight of the events."""
        ...


Learnable = Floats | Outcome
"""What `fit` takes: 0/1 floats, or outcomes of any kind."""


@dataclass(frozen=True, eq=False)
class Binary:
    """Yes or no; the score is the log-odds of yes."""

    y: Floats
    weight: Floats

    kind: ClassVar[Kind] = "binary"
    has_intercept: ClassVar[bool] = True

    @property
    def strata(self) -> Floats:
        """The outcomes themselves."""
        return self.y

    @property
    def amount(self) -> float:
        """The total weight."""
        return float(self.weight.sum())

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Rows) -> Self:
        """Return the outcomes of these decisions."""
        return type(self)(self.y[rows], self.weight[rows])

    def check(self) -> None:
        """Raise CohortError unless `y` is 0/1 with both outcomes."""
        strange = int((~np.isin(self.y, (0.0, 1.0))).sum())
        if strange:
            raise CohortError(
                f"{strange} of {len(self.y)} decisions have an outcome that is neither 0 nor 1. Leave decisions without a "
                "known outcome out before fitting."
            )
        if not 0 < self.y.sum() < len(self.y):
            raise CohortError(
                f"all {len(self.y)} decisions have the same outcome, so nothing can be learned. Check the endpoint's rule "
                "in the study, and which sites develop the model."
            )

    def start(self) -> float:
        """Return the log-odds of the weighted share of yes."""
        return float(logit(np.average(self.y, weights=self.weight)))

    def loss(self, score: Floats) -> float:
        """Return the weighted logistic loss."""
        return float(np.sum(self.weight * (np.logaddexp(0.0, score) - self.y * score)))

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """Return gradient and curvature of the logistic loss."""
        p = expit(score)
        return self.weight * (p - self.y), self.weight * p * (1 - p)


@dataclass(frozen=True, eq=False)
class Survival:
    """Time to an event with right censoring; the score is the log-hazard of Cox's model, ties by Breslow's rule.

    Args:
        time: (n,) days.
        event: (n,) 1 event, 0 censored.
        competing: (n,) 1 where another event came that rules this one out, 0 elsewhere and where the event came; None
            where there is no such thing. The hazard is then that of the event among those who had neither: for it, who had
            the other is censored.

    Source: Cox, J R Stat Soc B 1972;34:187-220; Breslow, Biometrics 1974;30:89-99.
    """

    time: Floats
    event: Floats
    weight: Floats
    competing: Floats | None = None

    kind: ClassVar[Kind] = "time_to_event"
    has_intercept: ClassVar[bool] = False

    @property
    def strata(self) -> Floats:
        """Who had the event."""
        return self.event

    @property
    def amount(self) -> float:
        """The weight of the events."""
        return max(float(self.weight @ self.event), 1e-12)

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Rows) -> Self:
        """Return the outcomes of these decisions."""
        competing = None if self.competing is None else self.competing[rows]
        return type(self)(self.time[rows], self.event[rows], self.weight[rows], competing)

    @property
    def rival(self) -> Self | None:
        """The competing event as the event, with this one as its rival; None where nobody had it."""
        if self.competing is None or not self.weight @ self.competing > 0:
            return None
        return type(self)(self.time, self.competing, self.weight, self.event)

    def check(self) -> None:
        """Raise CohortError unless times are finite and not negative, and some patient had the event."""
        strange = int((~np.isfinite(self.time) | (self.time < 0) | ~np.isin(self.event, (0.0, 1.0))).sum())
        if strange:
            raise CohortError(
                f"{strange} of {len(self.time)} decisions have no valid follow-up (a time of 0 or more, and whether the "
                "event came). Leave them out before fitting."
            )
        if not self.event.sum() > 0:
            raise CohortError(
                f"none of {len(self.time)} decisions had the event, so nothing can be learned. Check `event` or "
                "`censored` of the endpoint, and its `marks`."
            )

    def start(self) -> float:
        """Return 0: the baseline hazard takes up any constant."""
        return 0.0

    def loss(self, score: Floats) -> float:
        """Return the negative log partial likelihood."""
        if not len(score):
            return 0.0
        high = float(score.max())
        at_risk = self._ordered.sum_from(self.weight * np.exp(score - high))
        deaths = self.weight * self.event
        return float(deaths @ (np.log(np.maximum(at_risk, 1e-300)) + high - score))

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """Return gradient and diagonal curvature of the negative log partial likelihood."""
        if not len(score):
            return np.zeros(0), np.zeros(0)
        risk = self.weight * np.exp(score - score.max())
        deaths = self.weight * self.event
        at_risk = np.maximum(self._ordered.sum_from(risk), 1e-300)
        first = self._ordered.sum_until(deaths / at_risk)
        second = self._ordered.sum_until(deaths / at_risk**2)
        expected = risk * first
        return expected - deaths, np.maximum(expected - risk**2 * second, 0.0)

    def hessian(self, score: Floats, z: Floats) -> Floats:
        """Return (p, p) second derivatives of the loss over the coefficients of (n, p) columns."""
        risk = self.weight * np.exp(score - score.max())
        deaths = self.weight * self.event
        at_risk = np.maximum(self._ordered.sum_from(risk), 1e-300)
        expected = risk * self._ordered.sum_until(deaths / at_risk)
        died = np.flatnonzero(deaths)
        means = self._ordered.sums_from(risk[:, None] * z)[died] / at_risk[died, None]
        found: Floats = z.T @ (expected[:, None] * z) - means.T @ (deaths[died, None] * means)
        return found

    def cumulative_hazard(self, score: Floats, at: Floats) -> Floats:
        """Return Breslow's baseline cumulative hazard of a patient with score 0 at the times `at` (m,) in days."""
        at_risk = np.maximum(self._ordered.sum_from(self.weight * np.exp(score)), 1e-300)
        order = np.argsort(self.time, kind="stable")
        steps = np.concatenate([[0.0], np.cumsum((self.weight * self.event / at_risk)[order])])
        found: Floats = steps[np.searchsorted(self.time[order], at, side="right")]
        return found

    @cached_property
    def _ordered(self) -> _Ordered:
        return _Ordered.of(self.time)


@dataclass(frozen=True)
class _Ordered:
    """Sums over everybody still followed at one's own time, and over all times up to it; ties belong to both."""

    order: Rows
    back: Rows
    first: Rows
    last: Rows

    @classmethod
    def of(cls, time: Floats) -> _Ordered:
        order = np.argsort(time, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        ordered = time[order]
        return cls(
            order,
            back,
            np.searchsorted(ordered, ordered, side="left"),
            np.searchsorted(ordered, ordered, side="right") - 1,
        )

    def sum_from(self, values: Floats) -> Floats:
        """Return (n,) sums of `values` over decisions whose time is not before one's own."""
        tail = np.cumsum(values[self.order][::-1])[::-1]
        found: Floats = tail[self.first][self.back]
        return found

    def sums_from(self, values: Floats) -> Floats:
        """Return (n, p) `sum_from` of each column."""
        tail = np.cumsum(values[self.order][::-1], axis=0)[::-1]
        found: Floats = tail[self.first][self.back]
        return found

    def sum_until(self, values: Floats) -> Floats:
        """Return (n,) sums of `values` over decisions whose time is not after one's own."""
        head = np.cumsum(values[self.order])
        found: Floats = head[self.last][self.back]
        return found


@dataclass(frozen=True, eq=False)
class Ordinal:
    """Ordered levels; the score moves all cumulative log-odds alike: `logit P(level >= k) = score - threshold[k]`.

    Args:
        level: (n,) 0 worst to `levels - 1` best, as floats.
        levels: how many there are.

    Source: McCullagh, J R Stat Soc B 1980;42:109-142.
    """

    level: Floats
    levels: int
    weight: Floats

    kind: ClassVar[Kind] = "ordinal"
    has_intercept: ClassVar[bool] = False

    @property
    def strata(self) -> Floats:
        """Who is in the better half of the levels that occur."""
        return (self.level > np.median(self.level)).astype(float) if len(self.level) else self.level

    @property
    def amount(self) -> float:
        """The total weight."""
        return float(self.weight.sum())

    def __len__(self) -> int:
        return len(self.level)

    def take(self, rows: Rows) -> Self:
        """Return the outcomes of these decisions."""
        return type(self)(self.level[rows], self.levels, self.weight[rows])

    def check(self) -> None:
        """Raise CohortError unless at least two levels occur."""
        if len(np.unique(self.level[self.weight > 0])) < 2:
            raise CohortError(
                f"all {len(self.level)} decisions have the same level, so nothing can be learned. Check `levels` of the "
                "endpoint."
            )

    def start(self) -> float:
        """Return 0: the thresholds take up any constant."""
        return 0.0

    def loss(self, score: Floats) -> float:
        """Return the negative log-likelihood at the best thresholds."""
        return self._loss(score, self._dense_thresholds(score))

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """Return gradient and curvature at the best thresholds."""
        upper, lower = self._sides(score, self._dense_thresholds(score))
        above, below = expit(upper), expit(lower)
        return self.weight * (above + below - 1), self.weight * (above * (1 - above) + below * (1 - below))

    def hessian(self, score: Floats, z: Floats) -> Floats:
        """Return (p, p) second derivatives of the loss over the coefficients of (n, p) columns, the thresholds following."""
        upper, lower = self._sides(score, self._dense_thresholds(score))
        above, below = expit(upper) * expit(-upper), expit(lower) * expit(-lower)
        _, own = _threshold_slopes(upper, lower, self._place, self.weight, len(self._present))
        mixed = np.zeros((len(self._present) + 1, z.shape[1]))
        np.add.at(mixed, self._place, -(self.weight * above)[:, None] * z)
        np.add.at(mixed, self._place + 1, -(self.weight * below)[:, None] * z)
        mixed = mixed[1:-1]
        found: Floats = z.T @ ((self.weight * (above + below))[:, None] * z) - mixed.T @ np.linalg.solve(own, mixed)
        return found

    def thresholds(self, score: Floats) -> Floats:
        """Return the (levels - 1,) thresholds of least loss for (n,) scores, never falling; Newton on a convex loss.

        A level that nobody has gets no room between its thresholds; infinite ones lie at 40 beside the scores.
        """
        dense = self._dense_thresholds(score)
        present = self._present
        middle = float(np.average(score, weights=self.weight))
        found = np.empty(self.levels - 1)
        for k in range(1, self.levels):
            place = int(np.searchsorted(present, k))  # the lowest level that occurs and is k or better
            found[k - 1] = middle - 40.0 if place == 0 else middle + 40.0 if place == len(present) else dense[place - 1]
        return found

    @cached_property
    def _present(self) -> Rows:
        return np.unique(self.level[self.weight > 0].astype(int))

    @cached_property
    def _place(self) -> Rows:
        """(n,) position of each level among those that occur."""
        return np.minimum(np.searchsorted(self._present, self.level.astype(int)), len(self._present) - 1)

    def _dense_thresholds(self, score: Floats) -> Floats:
        """Return the thresholds between the levels that occur."""
        weights = np.bincount(self._place, self.weight, len(self._present))
        theta: Floats = -logit(np.cumsum(weights[::-1])[::-1][1:] / weights.sum())
        theta += float(np.average(score, weights=self.weight)) if len(score) else 0.0
        value = self._loss(score, theta)
        for _ in range(100):
            upper, lower = self._sides(score, theta)
            gradient, hessian = _threshold_slopes(upper, lower, self._place, self.weight, len(self._present))
            if np.abs(gradient).max(initial=0.0) <= 1e-11 * self.amount:
                break
            step = np.linalg.solve(hessian, gradient)
            size, found = 1.0, np.inf
            while size > 1e-8:
                moved = theta - size * step
                if np.all(np.diff(moved) > 0):
                    found = self._loss(score, moved)
                    if found <= value + 1e-13 * abs(value):
                        break
                size /= 2
            if size <= 1e-8:
                break
            theta, value = moved, found
        return theta

    def _sides(self, score: Floats, theta: Floats) -> tuple[Floats, Floats]:
        """Return per decision the log-odds of its level or better, and of better than its level."""
        edges = np.concatenate([[-np.inf], theta, [np.inf]])
        return score - edges[self._place], score - edges[self._place + 1]

    def _loss(self, score: Floats, theta: Floats) -> float:
        upper, lower = self._sides(score, theta)
        # expit(upper) - expit(lower), without the difference of two numbers near 1
        log_likelihood = log_expit(upper) + log_expit(-lower) + np.log(-np.expm1(lower - upper))
        return float(-(self.weight @ log_likelihood))


def _threshold_slopes(upper: Floats, lower: Floats, place: Rows, weight: Floats, levels: int) -> tuple[Floats, Floats]:
    """Return gradient and Hessian of the negative log-likelihood over the thresholds, given both log-odds of each level."""
    room = -np.expm1(lower - upper)
    # The densities at both thresholds over the probability of the level between them.
    u = expit(-upper) / (expit(-lower) * room)
    v = expit(lower) / (expit(upper) * room)
    size = levels + 1  # thresholds 0 and `levels` are infinite and drop out
    gradient = np.bincount(place, weight * u, size) - np.bincount(place + 1, weight * v, size)
    own = weight * (u**2 - u * (1 - 2 * expit(upper)))
    next_one = weight * (v**2 + v * (1 - 2 * expit(lower)))
    diagonal = np.bincount(place, own, size) + np.bincount(place + 1, next_one, size)
    beside = -np.bincount(place, weight * u * v, size)
    hessian = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    return np.asarray(gradient[1:-1], dtype=np.float64), np.asarray(hessian[1:-1, 1:-1], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Continuous:
    """A number; the score is the number. Losses are in units of the spread, so that penalties mean the same everywhere.

    Args:
        y: (n,) numbers.
        scale: spread of the numbers from which all is learned; by default that of these.
    """

    y: Floats
    weight: Floats
    scale: float = field(default=0.0)

    kind: ClassVar[Kind] = "continuous"
    has_intercept: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.scale == 0.0 and len(self.y):
            centre = float(np.average(self.y, weights=self.weight))
            spread = float(np.sqrt(np.average((self.y - centre) ** 2, weights=self.weight)))
            object.__setattr__(self, "scale", spread or 1.0)

    @property
    def strata(self) -> Floats:
        """Who lies above the median."""
        return (self.y > np.median(self.y)).astype(float) if len(self.y) else self.y

    @property
    def amount(self) -> float:
        """The total weight."""
        return float(self.weight.sum())

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Rows) -> Self:
        """Return the outcomes of these decisions; the scale is kept."""
        return type(self)(self.y[rows], self.weight[rows], self.scale)

    def check(self) -> None:
        """Raise CohortError unless the numbers are finite and differ."""
        strange = int((~np.isfinite(self.y)).sum())
        if strange:
            raise CohortError(
                f"{strange} of {len(self.y)} decisions have no finite outcome. Leave them out before fitting."
            )
        if not np.ptp(self.y) > 0:
            raise CohortError(
                f"all {len(self.y)} decisions have the same outcome, so nothing can be learned. Check the endpoint's column."
            )

    def start(self) -> float:
        """Return the weighted mean."""
        return float(np.average(self.y, weights=self.weight))

    def loss(self, score: Floats) -> float:
        """Return half the weighted sum of squares, in squared units of the spread."""
        return float(0.5 * self.weight @ ((self.y - score) / self.scale) ** 2)

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """Return gradient and curvature."""
        return self.weight * (score - self.y) / self.scale**2, self.weight / self.scale**2


def as_outcome(y: Learnable, weight: Floats | None = None) -> Outcome:
    """Return outcomes as they are, or 0/1 floats as yes or no.

    Raises:
        ValueError: weights beside outcomes that have their own.
    """
    if isinstance(y, np.ndarray):
        y = np.asarray(y, dtype=np.float64)
        return Binary(y, np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64))
    if weight is not None:
        raise ValueError("these outcomes have weights of their own; give them there")
    return y


def require_binary(y: Learnable, weight: Floats | None, *, family: str) -> Binary:
    """Return the outcomes if they are yes or no.

    Raises:
        CohortError: the family cannot learn another kind.
    """
    outcome = as_outcome(y, weight)
    if not isinstance(outcome, Binary):
        raise CohortError(
            f"the family {family} learns yes or no, and the endpoint is {outcome.kind}. Leave the family out of "
            "search.families, or give the endpoint a horizon."
        )
    return outcome
