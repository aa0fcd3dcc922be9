"""Pseudo-values: what stands for each patient's own time or survival where some are censored."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Summary = Literal["restricted_mean", "survival"]


class KaplanMeier(NamedTuple):
    """Moments of events (k,), patients at risk and events there, and survival just after."""

    moment: Floats
    at_risk: Floats
    events: Floats
    survival: Floats


def kaplan_meier(time: Floats, event: Floats) -> KaplanMeier:
    """Return the Kaplan-Meier curve; a patient censored at the moment of an event is still at risk then."""
    moment, events = np.unique(time[event == 1], return_counts=True)
    at_risk = len(time) - np.searchsorted(np.sort(time), moment, side="left")
    survival = np.cumprod(1 - events / at_risk).astype(np.float64)
    return KaplanMeier(moment, at_risk.astype(np.float64), events.astype(np.float64), survival)


def curve_summary(time: Floats, event: Floats, *, horizon: float, summary: Summary) -> float:
    """Return the mean time free of the event up to the horizon (days), or the share free of it then."""
    curve = kaplan_meier(time, event)
    if summary == "survival":
        reached = np.flatnonzero(curve.moment <= horizon)
        return float(curve.survival[reached[-1]]) if len(reached) else 1.0
    inside = curve.moment < horizon
    edges = np.concatenate([[0.0], curve.moment[inside], [horizon]])
    return float(np.diff(edges) @ np.concatenate([[1.0], curve.survival[inside]]))


def pseudo_values(time: Floats, event: Floats, *, horizon: float, summary: Summary = "restricted_mean") -> Floats:
    """Return (n,) jackknife pseudo-values `n theta - (n - 1) theta without i` of a Kaplan-Meier summary.

    Their mean is the summary and their spread its uncertainty; where nobody is censored before the horizon, a patient's
    pseudo-value is the patient's own time up to it. All n curves without one patient cost one pass: before the patient's
    time they share the factors `1 - d / (Y - 1)`, after it those of the whole curve.

    Args:
        time: (n,) days to event or censoring, n at least 2.
        event: (n,) 0/1.
        horizon: days; no later than follow-up lasts, else the last level of the curve is carried on.
        summary: what is summarised.

    Source: Andersen, Hansen, Klein, Lifetime Data Anal 2004;10:335-350.
    """
    n = len(time)
    whole = curve_summary(time, event, horizon=horizon, summary=summary)
    # What happens after the horizon changes nothing; an event at it counts for the survival alone.
    event = np.where((time < horizon) | ((time == horizon) & (summary == "survival")), event, 0.0)
    curve = kaplan_meier(time, event)
    others = curve.at_risk - 1
    before = np.divide(others - curve.events, others, out=np.zeros_like(others), where=others > 0)
    shared = np.concatenate([[1.0], np.cumprod(before)])  # (k + 1,) without i, after each moment before i's own
    start = np.concatenate([[0.0], curve.moment])
    tail = _tails(curve, horizon, summary)
    lengths = np.diff(np.concatenate([start, [horizon]]))
    area = np.concatenate([[0.0], np.cumsum(lengths * shared)])  # up to each moment, then to the horizon

    place = np.searchsorted(curve.moment, time, side="right")  # moments at or before the patient's time
    own = (event == 1).astype(bool)
    last = np.maximum(place - 1, 0)
    if len(curve.moment):
        left = others[last]
        kept = np.divide(left - curve.events[last] + 1, left, out=np.ones(n), where=left > 0)
    else:
        kept = np.ones(n)
    level = np.where(own, shared[last] * kept, shared[place])
    gone = area[place] if summary == "restricted_mean" else 0.0
    without = gone + level * tail[place]
    return n * whole - (n - 1) * without


def _tails(curve: KaplanMeier, horizon: float, summary: Summary) -> Floats:
    """Return (k + 1,) for each moment (and the start) the area, or the level, of the curve from there, from level 1."""
    k = len(curve.moment)
    factor = 1 - curve.events / curve.at_risk
    tail = np.zeros(k + 1)
    tail[k] = 1.0 if summary == "survival" else horizon - (curve.moment[-1] if k else 0.0)
    for j in range(k - 1, -1, -1):
        here = curve.moment[j - 1] if j else 0.0
        step = 0.0 if summary == "survival" else curve.moment[j] - here
        tail[j] = step + factor[j] * tail[j + 1]
    return tail
