"""What was observed over time, with censoring: survival, cumulative incidence, follow-up, each as a step function.

`time` (n,) are days from the index time to the event or to censoring, `event` (n,) is 0 where censored, else the number
of the event (1, 2, ...). Of an event and a censoring at one time the event comes first: who is censored on a day was
still at risk on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Z95 = 1.959963984540054
FOLLOWED_ENOUGH = 1e-12
"""A survival below this is 0: rounding leaves a little of a product that ends at 0."""


@dataclass(frozen=True)
class Curve:
    """A step function from `start`: at times (g,), rising, it takes `value` (g,), with a pointwise 95 % interval.

    Attributes:
        at_risk: (g,) weight of the decisions with `time` at least this.
        low, high: NaN where the interval has no bound.
        last: the time after which nothing is known; infinite where the last one followed had an event.
    """

    times: Floats
    value: Floats
    low: Floats
    high: Floats
    at_risk: Floats
    start: float
    last: float

    def at(self, when: ArrayLike) -> Floats:
        """Return the value at each time, NaN after the end of follow-up."""
        return self._taken(self.value, when, start=self.start)

    def interval_at(self, when: ArrayLike) -> tuple[Floats, Floats]:
        """Return the lower and upper bound at each time, NaN where there is none."""
        return self._taken(self.low, when, start=self.start), self._taken(self.high, when, start=self.start)

    def before(self, when: ArrayLike) -> Floats:
        """Return the limit from the left at each time; the last value goes on after the end."""
        place = np.searchsorted(self.times, np.asarray(when, dtype=np.float64), side="left")
        return np.asarray(np.r_[self.start, self.value][place], dtype=np.float64)

    def quantile_time(self, level: float) -> float:
        """Return the first time at which a falling curve is at `level` or below, NaN where it never is."""
        reached = np.flatnonzero(self.value <= level + FOLLOWED_ENOUGH)
        return float(self.times[reached[0]]) if len(reached) else float("nan")

    def _taken(self, values: Floats, when: ArrayLike, *, start: float) -> Floats:
        asked = np.asarray(when, dtype=np.float64)
        taken = np.r_[start, values][np.searchsorted(self.times, asked, side="right")]
        return np.asarray(np.where(asked > self.last, np.nan, taken), dtype=np.float64)


def kaplan_meier(time: ArrayLike, event: ArrayLike, *, weight: ArrayLike | None = None) -> Curve:
    """Return the probability of no event of any kind, with log-log intervals on Greenwood's variance.

    Where nobody has had an event yet, the upper bound is 1 and the lower one that of Clopper & Pearson for those still
    at risk, which errs on the wide side.

    Source: Kaplan & Meier, J Am Stat Assoc 1958;53:457-481; Kalbfleisch & Prentice, The Statistical Analysis of Failure
    Time Data, 2nd ed. 2002, section 1.4.
    """
    incidence = aalen_johansen(time, np.asarray(event) != 0, weight=weight)
    return Curve(
        incidence.times,
        1 - incidence.value,
        1 - incidence.high,
        1 - incidence.low,
        incidence.at_risk,
        start=1.0,
        last=incidence.last,
    )


def aalen_johansen(time: ArrayLike, event: ArrayLike, *, cause: int = 1, weight: ArrayLike | None = None) -> Curve:
    """Return the cumulative incidence of `cause` while other events compete; with one kind of event 1 - Kaplan-Meier.

    Intervals are symmetric on log(-log(1 - incidence)), with the variance of the delta method (for one kind of event:
    Greenwood's).

    Source: Aalen & Johansen, Scand J Stat 1978;5:141-150; Dinse & Larson, Biometrika 1986;73:379-386, equation 6; Beyersmann,
    Allignol & Schumacher, Competing Risks and Multistate Models with R, 2012, section 4.2.
    """
    table = _table(time, event, cause=cause, weight=weight)
    at_risk, any_event, of_cause = table["at_risk"], table["events"], table["cause"]
    survival = _survival(at_risk, any_event)
    earlier = np.r_[1.0, survival[:-1]]
    incidence = np.cumsum(earlier * _share(of_cause, at_risk))
    variance = _variance(at_risk, any_event, of_cause, earlier, incidence)
    low, high = _log_log(incidence, variance, at_risk)
    resolved = len(survival) > 0 and survival[-1] < FOLLOWED_ENOUGH
    last = float(table["times"][-1]) if len(survival) and not resolved else (np.inf if resolved else -np.inf)
    return Curve(table["times"], incidence, low, high, at_risk, start=0.0, last=last)


def censoring(time: ArrayLike, event: ArrayLike, *, weight: ArrayLike | None = None) -> Curve:
    """Return the probability of not having been censored, any event ending what is known of it.

    Who has an event on a day can no longer be censored on it. `before(t)` is the chance of being seen at risk on day t.
    No intervals.
    """
    table = _table(time, event, cause=0, weight=weight)
    exposed = table["at_risk"] - table["events"]
    value = _survival(exposed, table["cause"])
    none = np.full_like(value, np.nan)
    return Curve(table["times"], value, none, none, exposed, start=1.0, last=np.inf)


def follow_up_median(time: ArrayLike, event: ArrayLike) -> float:
    """Return the median follow-up in days by the reverse Kaplan-Meier method, NaN where it is not reached.

    Source: Schemper & Smith, Control Clin Trials 1996;17:343-346.
    """
    return censoring(time, event).quantile_time(0.5)


def numbers_at_risk(time: ArrayLike, when: ArrayLike) -> NDArray[np.int64]:
    """Return how many decisions have `time` at least each of `when`."""
    known = np.sort(np.asarray(time, dtype=np.float64))
    return np.asarray(len(known) - np.searchsorted(known, np.asarray(when), side="left"), dtype=np.int64)


def _table(time: ArrayLike, event: ArrayLike, *, cause: int, weight: ArrayLike | None) -> dict[str, Floats]:
    """Return at each distinct time the weight at risk, with any event, and with `cause` (0: censored)."""
    days, kind = np.asarray(time, dtype=np.float64), np.asarray(event).astype(np.int64)
    mass = np.ones_like(days) if weight is None else np.asarray(weight, dtype=np.float64)
    times, place = np.unique(days[mass > 0], return_inverse=True)
    days, kind, mass = days[mass > 0], kind[mass > 0], mass[mass > 0]

    def total(rows: NDArray[Any]) -> Floats:
        return np.bincount(place[rows], weights=mass[rows], minlength=len(times)).astype(np.float64)

    everyone = total(np.ones(len(days), dtype=bool))
    return {
        "times": times,
        "at_risk": np.cumsum(everyone[::-1])[::-1],
        "events": total(kind != 0),
        "cause": total(kind == cause),
    }


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=part > 0)


def _survival(at_risk: Floats, ended: Floats) -> Floats:
    return np.asarray(np.cumprod(np.clip(1 - _share(ended, at_risk), 0.0, 1.0)), dtype=np.float64)


def _variance(at_risk: Floats, events: Floats, of_cause: Floats, earlier: Floats, incidence: Floats) -> Floats:
    """Return the variance (g,) of the incidence; the squares over all pairs of times are multiplied out to sums."""
    left = at_risk - events
    hazard = np.divide(events, at_risk * left, out=np.zeros_like(events), where=left > FOLLOWED_ENOUGH * at_risk)
    own = earlier**2 * of_cause * (at_risk - of_cause) / at_risk**3
    cross = earlier * of_cause / at_risk**2
    rising = (
        incidence**2 * np.cumsum(hazard)
        - 2 * incidence * np.cumsum(hazard * incidence)
        + np.cumsum(hazard * incidence**2)
    )
    paired = incidence * np.cumsum(cross) - np.cumsum(cross * incidence)
    return np.asarray(np.maximum(rising + np.cumsum(own) - 2 * paired, 0.0), dtype=np.float64)


def _log_log(incidence: Floats, variance: Floats, at_risk: Floats) -> tuple[Floats, Floats]:
    survival = 1 - incidence
    inside = (incidence > 0) & (survival > FOLLOWED_ENOUGH)
    s, error = np.where(inside, survival, 0.5), np.sqrt(variance)
    reach = np.exp(Z95 * error / (s * np.abs(np.log(s))))
    low, high = 1 - s ** (1 / reach), 1 - s**reach
    nobody = incidence <= 0
    exact = 1 - 0.025 ** (1 / np.maximum(at_risk, 1e-9))
    low = np.where(inside, low, np.where(nobody, 0.0, np.nan))
    high = np.where(inside, high, np.where(nobody, exact, np.nan))
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
