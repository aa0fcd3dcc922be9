"""How good predictions of time to event are: ranking, accuracy and calibration under censoring and competing events.

`time` (n,) are days, `event` (n,) is 0 where censored, 1 where the event asked about came (`cause`), another number where
one came that precludes it. Weights count: 2 equals the row twice. What cannot be estimated is NaN, never an error. The
forms ending in `_each` take decisions laid out by `Followed` and R rows of weights (R, n), and return (R, ...).

Ties, held alike everywhere: on one day events come before censorings. So an event is weighed by the chance to be seen at
risk on its day, the limit from the left of the censoring curve, as in R's `survival::concordance` and `timeROC`;
scikit-survival takes the curve's value on the day, which differs where someone else is censored on the day of an event.
And who is censored on the day of the horizon is known to be free of the event at it (scikit-survival: not known), so that
trials that end at their horizon can be judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import metrics
from theracast_training.observed import FOLLOWED_ENOUGH, Curve
from theracast_training.observed import censoring as censoring_curve
from theracast_training.survival_loops import concordance, monotone, newton

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Followed:
    """Decisions in order of time, events before censorings on one day.

    Attributes:
        order: (n,) where each came from: `given[order]` is in this order. All else is in this order.
        time: (n,) days.
        event: (n,) 0 censored, 1 the event asked about, 2 a competing one.
        bounds: (g + 1,) where each of the g distinct times begins, and n.
    """

    order: Integers
    time: Floats
    event: Integers
    bounds: Integers

    @classmethod
    def over(cls, time: ArrayLike, event: ArrayLike, *, cause: int = 1) -> Followed:
        """Return the decisions laid out; events other than `cause` compete."""
        days, number = np.asarray(time, dtype=np.float64), np.asarray(event).astype(np.int64)
        kind = np.where(number == 0, 0, np.where(number == cause, 1, 2))
        order = np.lexsort((kind == 0, days)).astype(np.int64)
        starts = np.flatnonzero(np.r_[True, np.diff(days[order]) > 0][: len(days)])
        return cls(order, days[order], kind[order].astype(np.int64), np.r_[starts, len(days)].astype(np.int64))

    @property
    def times(self) -> Floats:
        """The g distinct times."""
        return self.time[self.bounds[:-1]]

    @property
    def place(self) -> Integers:
        """(n,) which distinct time each decision has."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds)).astype(np.int64)

    def totals_each(self, weights: Floats, chosen: NDArray[np.bool_] | None = None) -> Floats:
        """Return (R, g) weight of the chosen decisions at each distinct time."""
        drawn = weights if chosen is None else weights * chosen
        return np.asarray(np.add.reduceat(drawn, self.bounds[:-1], axis=1), dtype=np.float64)

    def until(self, horizon: float) -> int:
        """Return how many distinct times are at most the horizon."""
        return int(np.searchsorted(self.times, horizon, side="right"))


@dataclass(frozen=True)
class Seen:
    """The chance of not having been censored before each distinct time, (R or 1, g + 1), the last after all of them."""

    before: Floats
    followed: Followed
    reference: Curve | None = None

    @classmethod
    def each(cls, followed: Followed, weights: Floats) -> Seen:
        """Return the chances estimated from the decisions themselves, for each row of weights."""
        censored = followed.totals_each(weights, followed.event == 0)
        at_risk = _from_the_end(followed.totals_each(weights)) - followed.totals_each(weights, followed.event > 0)
        share = np.divide(censored, at_risk, out=np.zeros_like(censored), where=censored > 0)
        value = np.cumprod(np.clip(1 - share, 0.0, 1.0), axis=1)
        value[value < FOLLOWED_ENOUGH] = 0.0
        return cls(np.hstack([np.ones((len(weights), 1)), value]), followed)

    @classmethod
    def by(cls, followed: Followed, reference: Curve) -> Seen:
        """Return the chances by a censoring curve of other decisions, the same for every resample."""
        before = np.r_[reference.before(followed.times), reference.value[-1:]]
        return cls(before[None, :], followed, reference)

    def decisions(self) -> Floats:
        """Return (R or 1, n) the chance of each decision to be seen at risk on its day."""
        return self.before[:, self.followed.place]

    def at(self, when: Floats) -> Floats:
        """Return (R or 1, T) the chance to be seen at risk on these days."""
        if self.reference is not None:
            return self.reference.before(when)[None, :]
        return self.before[:, np.searchsorted(self.followed.times, when, side="left")]


def c_harrell(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, *, cause: int = 1, weight: ArrayLike | None = None
) -> float:
    """Return the chance that of two decisions the one with the earlier event has the higher risk, ties counting half.

    Pairs whose order is known count. A competing event means that the event asked about never comes.

    Source: Harrell, Lee & Mark, Stat Med 1996;15:361-387; with competing events Wolbers et al., Epidemiology
    2009;20:555-561.
    """
    followed, mass = _laid_out(time, event, weight, cause=cause)
    return float(c_harrell_each(followed, _taken(risk, followed), mass)[0])


def c_uno(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    *,
    tau: float = np.inf,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    cause: int = 1,
    weight: ArrayLike | None = None,
) -> float:
    """Return Harrell's C freed of the censoring by inverse probability weights, for events before `tau` days.

    `reference` are the (time, event) from which censoring is estimated; without it these decisions.

    Source: Uno et al., Stat Med 2011;30:1105-1117; with competing events Wolbers et al., Biostatistics 2014;15:526-539.
    """
    followed, mass = _laid_out(time, event, weight, cause=cause)
    return float(c_uno_each(followed, _taken(risk, followed), mass, seen_each(followed, mass, reference), tau=tau)[0])


def cox_slope(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, *, cause: int = 1, weight: ArrayLike | None = None
) -> float:
    """Return the coefficient of `risk` (a log-hazard) in a Cox model: 1 is ideal, below 1 too extreme.

    Breslow's form for ties; competing events count as censorings. Infinite where every event had the highest risk (or
    lowest: minus infinite) of those at risk.

    Source: van Houwelingen, Stat Med 2000;19:3401-3415; Royston & Altman, BMC Med Res Methodol 2013;13:33.
    """
    followed, mass = _laid_out(time, event, weight, cause=cause)
    return float(cox_slope_each(followed, _taken(risk, followed), mass)[0])


def status_at(
    time: ArrayLike,
    event: ArrayLike,
    horizon: float,
    *,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    cause: int = 1,
) -> tuple[Floats, Floats]:
    """Return (n,) whether the event came by the horizon, NaN where not known, and (n,) weights for those who are known.

    Weights are inverse chances of being known, 0 for the others: with them `evaluate_binary` judges probabilities by the
    horizon as binary ones. A chance of 0 (`reference` was not followed so far) makes the state NaN too.
    """
    followed, ones = _laid_out(time, event, None, cause=cause)
    y, weight = np.full(len(followed.time), np.nan), np.zeros(len(followed.time))
    if not len(y):
        return y, weight
    when = np.asarray([horizon], dtype=np.float64)
    seen = seen_each(followed, ones, reference)
    status, inverse = _status_each(followed, seen, when)
    known = np.isfinite(inverse[0]) & (inverse[0] > 0)
    y[followed.order] = np.where(known, status, np.nan)
    weight[followed.order] = np.where(known, inverse[0], 0.0)
    return y, weight


def seen_each(followed: Followed, weights: Floats, reference: tuple[ArrayLike, ArrayLike] | None = None) -> Seen:
    """Return the chances of being seen, by the decisions themselves or by a reference (time, event)."""
    return Seen.each(followed, weights) if reference is None else Seen.by(followed, censoring_curve(*reference))


def c_harrell_each(followed: Followed, risk: Floats, weights: Floats) -> Floats:
    """Return (R,) `c_harrell`, one for each row of weights (R, n)."""
    return _concordance(followed, risk, weights, np.ones((1, len(risk))), tau=np.inf)


def c_uno_each(followed: Followed, risk: Floats, weights: Floats, seen: Seen, *, tau: float) -> Floats:
    """Return (R,) `c_uno`, one for each row of weights (R, n)."""
    return _concordance(followed, risk, weights, seen.decisions(), tau=tau)


def incidence_each(followed: Followed, weights: Floats, when: Floats) -> Floats:
    """Return (R, T) the cumulative incidence (Aalen-Johansen) by each day, NaN after the end of follow-up."""
    at_risk = _from_the_end(followed.totals_each(weights))
    hazards = [
        np.divide(total, at_risk, out=np.zeros_like(total), where=total > 0)
        for total in (
            followed.totals_each(weights, followed.event == 1),
            followed.totals_each(weights, followed.event > 0),
        )
    ]
    survival = np.cumprod(np.clip(1 - hazards[1], 0.0, 1.0), axis=1)
    first = np.ones((len(weights), 1))
    incidence = np.cumsum(np.hstack([first, survival[:, :-1]]) * hazards[0], axis=1)
    after = np.searchsorted(followed.times, when, side="right")
    on = np.searchsorted(followed.times, when, side="left")
    value = np.hstack([0 * first, incidence])[:, after]
    known = (np.hstack([at_risk, 0 * first])[:, on] > 0) | (np.hstack([first, survival])[:, after] < FOLLOWED_ENOUGH)
    return np.where(known, value, np.nan)


def horizon_auc_each(followed: Followed, score: Floats, weights: Floats, seen: Seen, *, horizon: float) -> Floats:
    """Return (R,) the cumulative/dynamic AUC at the horizon: events by it against all others, weighed for censoring.

    Who had a competing event by the horizon is among the others.

    Source: Uno et al., J Am Stat Assoc 2007;102:527-537; Blanche, Dartigues & Jacqmin-Gadda, Stat Med 2013;32:5381-5397,
    second definition of controls.
    """
    status, inverse = _status_each(followed, seen, np.asarray([horizon]))
    weighed = weights * np.where(np.isinf(inverse), 0.0, inverse)
    value = metrics.auc_each(status.astype(np.float64), score, weighed)
    return np.where(_usable(weights, inverse), value, np.nan)


def brier_each(followed: Followed, probability: Floats, weights: Floats, seen: Seen, *, when: Floats) -> Floats:
    """Return (R, T) Brier scores of event probabilities (n, T) by each day, weighed for censoring; NaN where not known.

    Source: Graf et al., Stat Med 1999;18:2529-2545; with competing events Blanche et al., Biometrics 2015;71:102-113.
    """
    came, followed_past = _by(followed, when)
    outcome = came & (followed.event == 1)[:, None]
    lost = np.square(outcome - probability)
    inverse, beyond = _inverse(seen.decisions()), _inverse(seen.at(when))
    value = (weights * inverse) @ (lost * came) + beyond * (weights @ (lost * followed_past))
    return _known_only(value / weights.sum(axis=1)[:, None], followed, weights, seen, when)


def null_brier_each(followed: Followed, weights: Floats, seen: Seen, *, when: Floats) -> Floats:
    """Return (R, T) Brier scores of telling everyone the observed incidence by each day."""
    came, followed_past = _by(followed, when)
    inverse, beyond = _inverse(seen.decisions()), _inverse(seen.at(when))
    everyone = incidence_each(followed, weights, when)
    of_cause = (followed.event == 1)[:, None]
    events = (weights * inverse) @ (came & of_cause).astype(np.float64)
    others = (weights * inverse) @ (came & ~of_cause).astype(np.float64)
    others = others + beyond * (weights @ followed_past.astype(np.float64))
    value = events * (1 - everyone) ** 2 + others * everyone**2
    return _known_only(value / weights.sum(axis=1)[:, None], followed, weights, seen, when)


def integrated(values: Floats, when: Floats) -> Floats:
    """Return (R,) the mean over the days of values (R, T), by the trapezoidal rule."""
    if len(when) < 2:
        return np.full(len(values), np.nan)
    return np.asarray(np.trapezoid(values, when, axis=1) / (when[-1] - when[0]), dtype=np.float64)


def cox_slope_each(followed: Followed, risk: Floats, weights: Floats) -> Floats:
    """Return (R,) `cox_slope`, one for each row of weights (R, n)."""
    centre, spread = float(risk.mean()), float(risk.std()) or 1.0
    x = ((risk - centre) / spread)[:, None]
    groups = len(followed.bounds) - 1
    coefficient, _ = cox_each(followed, x, weights, until=groups)
    direction = np.empty(len(weights))
    for row, drawn in enumerate(weights):
        direction[row] = monotone(followed.bounds, followed.event, x[:, 0], drawn)
    endless = np.copysign(np.inf, direction)
    endless[np.isnan(direction)] = np.nan
    return np.where(direction == 0, coefficient[:, 0] / spread, endless)


def cox_each(
    followed: Followed, x: Floats, weights: Floats, *, until: int, seen: Seen | None = None
) -> tuple[Floats, Floats]:
    """Return (R, q) coefficients of Cox models on x (n, q) and (R,) their baseline cumulative hazard at the end.

    Only events at the first `until` distinct times count, as if all were censored after them. With `seen`, who had a
    competing event stays at risk with a falling weight, which models the hazard of the cumulative incidence itself. NaN
    where the estimate does not exist. Columns of x should be of about unit spread.

    Source: Breslow, Biometrics 1974;30:89-99; Fine & Gray, J Am Stat Assoc 1999;94:496-509.
    """
    coefficients, hazards = np.empty((len(weights), x.shape[1])), np.empty(len(weights))
    before = np.ones((1, len(followed.bounds))) if seen is None else seen.before
    laid_out = (followed.bounds, followed.event, np.ascontiguousarray(x))
    pooled = newton(
        *laid_out, weights.mean(axis=0), before.mean(axis=0), seen is not None, until, np.zeros(x.shape[1])
    )[0]
    start = np.nan_to_num(pooled)
    for row, drawn in enumerate(np.ascontiguousarray(weights)):
        left = before[row if len(before) > 1 else 0]
        coefficients[row], hazards[row] = newton(*laid_out, drawn, left, seen is not None, until, start)
    return coefficients, hazards


def _laid_out(time: ArrayLike, event: ArrayLike, weight: ArrayLike | None, *, cause: int) -> tuple[Followed, Floats]:
    followed = Followed.over(time, event, cause=cause)
    mass = np.ones(len(followed.time)) if weight is None else np.asarray(weight, dtype=np.float64)[followed.order]
    return followed, mass[None, :]


def _taken(values: ArrayLike, followed: Followed) -> Floats:
    return np.asarray(values, dtype=np.float64)[followed.order]


def _from_the_end(totals: Floats) -> Floats:
    return np.asarray(np.cumsum(totals[:, ::-1], axis=1)[:, ::-1], dtype=np.float64)


def _inverse(chance: Floats) -> Floats:
    """Return 1 / chance, 0 where it is 0: such rows are left out by `_known_only`."""
    return np.divide(1.0, chance, out=np.zeros_like(chance), where=chance > 0)


def _by(followed: Followed, when: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (n, T) whether any event came by each day, and whether a decision was followed past it without one."""
    came = (followed.time[:, None] <= when) & (followed.event > 0)[:, None]
    past = (followed.time[:, None] > when) | ((followed.time[:, None] == when) & (followed.event == 0)[:, None])
    return came, past


def _status_each(followed: Followed, seen: Seen, when: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Return (n,) whether the event came by the one day, and (R or 1, n) inverse chances, infinite where never seen."""
    came, past = (rows[:, 0] for rows in _by(followed, when))
    chance = np.where(came, seen.decisions(), np.where(past, seen.at(when), np.inf))
    with np.errstate(divide="ignore"):
        return came & (followed.event == 1), np.asarray(1.0 / chance, dtype=np.float64)


def _usable(weights: Floats, inverse: Floats) -> NDArray[np.bool_]:
    """Return (R,) whether every decision that counts had a chance of being seen."""
    return np.asarray(~((weights > 0) & np.isinf(inverse)).any(axis=1))


def _known_only(value: Floats, followed: Followed, weights: Floats, seen: Seen, when: Floats) -> Floats:
    """Return (R, T) the values where follow-up reaches the day and each that counts had a chance of being seen."""
    at_risk = np.hstack([_from_the_end(followed.totals_each(weights)), np.zeros((len(weights), 1))])
    reached = at_risk[:, np.searchsorted(followed.times, when, side="left")] > 0
    known = ~np.isnan(incidence_each(followed, weights, when)) & ((seen.at(when) > 0) | ~reached)
    unseen = (weights > 0) & (seen.decisions() <= 0) & (followed.event > 0)
    if unseen.any():
        known &= ~((unseen[:, :, None] & (followed.time[:, None] <= when)).any(axis=1))
    return np.where(known, value, np.nan)


def _concordance(followed: Followed, risk: Floats, weights: Floats, chance: Floats, *, tau: float) -> Floats:
    rank = np.unique(risk, return_inverse=True)[1].astype(np.int64)
    stop = int(np.searchsorted(followed.times, tau, side="left"))
    value = np.empty(len(weights))
    for row, drawn in enumerate(weights):
        value[row] = concordance(
            followed.bounds, followed.event, rank, drawn, chance[row if len(chance) > 1 else 0], stop
        )
    return value
