"""Net benefit by a horizon where follow-up is censored, and interventions avoided.

Two ways lead from censored follow-up to net benefit. `curves.decision_curve` on a binary outcome weighs who is known by
the inverse probability of being known, from the censoring of all. Here the risk of those named positive is their own
Kaplan-Meier estimate, which also holds where censoring depends on the score. Without censoring both are the same.

Source: Vickers & Elkin, Med Decis Making 2006;26:565-574; Vickers, Cronin, Elkin, Gonen, BMC Med Inform Decis Mak
2008;8:53 (extensions: censored outcomes, interventions avoided).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theracast_training.curves import threshold_grid
from theracast_training.resampling import Floats, number, percentile_interval, resample_counts

PER = 100
"""Interventions avoided are counted among this many decisions."""


def survival_decision_curve(
    time: ArrayLike,
    event: ArrayLike,
    p: ArrayLike,
    *,
    horizon: float,
    weight: ArrayLike | None = None,
    decision_range: tuple[float, float] = (0.05, 0.6),
    bootstrap: int = 500,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the decision curve of probabilities of an event by the horizon, as plain JSON, thresholds 0.01 apart.

    Lists of one length: `threshold`, `net_benefit`, `treat_all` and `interventions_avoided` (among 100 decisions, against
    treating all, at no loss of events found), each with `_low` and `_high`; None where the named are not followed as far as
    the horizon. `n`, and `events` by the horizon, are plain counts.

    Args:
        time: (n,) follow-up in days.
        event: (n,) 1 where it ended with the event, 0 censored. Competing events: count them as event-free to the end of
            follow-up: a time beyond the horizon and event 0, not the time at which they happened.
        p: (n,) probabilities of the event by the horizon.
        horizon: days.
        weight: (n,) non-negative.
        decision_range: first and last threshold.
        bootstrap, seed, group: as in `evaluate_binary`.
    """
    when, happened, score = (np.asarray(one, dtype=np.float64) for one in (time, event, p))
    mass = np.ones_like(when) if weight is None else np.asarray(weight, dtype=np.float64)
    keep = ~(np.isnan(when) | np.isnan(happened) | np.isnan(score))
    when, happened, score, mass = when[keep], happened[keep], score[keep], mass[keep]
    if (
        not len(when)
        or not np.isin(happened, (0.0, 1.0)).all()
        or (when < 0).any()
        or ((score < 0) | (score > 1)).any()
    ):
        raise ValueError("a decision curve needs decisions with times from 0 on, events of 0 or 1 and probabilities")
    members = None if group is None else np.asarray(group)[keep]
    thresholds = threshold_grid(decision_range)
    drawn = [counts * mass for counts in resample_counts(len(when), resamples=bootstrap, seed=seed, group=members)]
    weights = np.concatenate([mass[None, :], *drawn])
    order = np.argsort(when, kind="stable")
    data = when[order], happened[order], score[order], weights[:, order]
    odds = thresholds / (1 - thresholds)
    of_all = event_probability_each(data[0], data[1], data[3], horizon=horizon)[:, None]
    values = {
        "net_benefit": np.column_stack(
            [_net_benefit(*data, horizon=horizon, threshold=float(one)) for one in thresholds]
        ),
        "treat_all": of_all - (1 - of_all) * odds,
    }
    values["interventions_avoided"] = PER * (values["net_benefit"] - values["treat_all"]) / odds
    result: dict[str, Any] = {
        "n": len(when),
        "events": int(((happened == 1) & (when <= horizon)).sum()),
        "horizon": float(horizon),
        "threshold": thresholds.tolist(),
    }
    for name, found in values.items():
        bounds = [percentile_interval(column) for column in found[1:].T]
        result[name] = [number(one) for one in found[0]]
        result[f"{name}_low"] = [low for low, _ in bounds] if drawn else []
        result[f"{name}_high"] = [high for _, high in bounds] if drawn else []
    return result


def event_probability_each(time: Floats, event: Floats, weights: Floats, *, horizon: float) -> Floats:
    """Return (R,) Kaplan-Meier probabilities of an event by the horizon, for rows of weights (R, n).

    `time` rises. NaN where all weight ends before the horizon, the last of it censored; 0 where there is no weight.
    """
    total = weights.sum(axis=1)
    moments, starts = np.unique(time, return_index=True)
    if not len(moments):
        return np.zeros(len(weights))
    inside = moments <= horizon
    dead = np.add.reduceat(weights * event, starts, axis=1)[:, inside]
    gone = np.add.reduceat(weights, starts, axis=1)
    at_risk = (total[:, None] - np.cumsum(gone, axis=1) + gone)[:, inside]
    hazard = np.divide(dead, at_risk, out=np.zeros_like(dead), where=at_risk > 1e-12)
    survival = np.prod(1 - np.minimum(hazard, 1.0), axis=1)
    followed = (weights * (time >= horizon)).sum(axis=1) > 0
    known = followed | (survival < 1e-12) | (total <= 0)
    return np.where(total <= 0, 0.0, np.where(known, 1 - survival, np.nan))


def _net_benefit(
    time: Floats, event: Floats, p: Floats, weights: Floats, *, horizon: float, threshold: float
) -> Floats:
    named = p >= threshold
    share: Floats = weights[:, named].sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    risk = event_probability_each(time[named], event[named], weights[:, named], horizon=horizon)
    return share * (risk - (1 - risk) * threshold / (1 - threshold))
