"""Predicted against observed event probability at a horizon: a smooth line, its distances, and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_training.metrics import SMALLEST_PROBABILITY
from theracast_training.observed import aalen_johansen
from theracast_training.resampling import number
from theracast_training.survival_metrics import Followed, Seen, cox_each

Floats = NDArray[np.float64]

KNOTS = (0.1, 0.5, 0.9)
"""Quantiles of the knots of the spline: Harrell, Regression Modeling Strategies, 2nd ed. 2015, table 2.3."""
LEAST_IN_GROUP = 20


def smooth_each(
    followed: Followed, probability: Floats, weights: Floats, seen: Seen, *, horizon: float, at: Floats | None = None
) -> Floats:
    """Return (R, n) the observed event probability by the horizon, smoothed over the predicted one (n,).

    A Cox model of a restricted cubic spline (3 knots) of log(-log(1 - p)); where events compete, Fine & Gray's. Events
    after the horizon are left out of the fit, so that proportional hazards are needed no further than the horizon. `at`
    (m,): probabilities at which to evaluate instead. NaN where the model cannot be fitted.

    Source: Austin, Harrell & van Klaveren, Stat Med 2020;39:2714-2742; competing events: Austin et al., Diagn Progn Res
    2022;6:2.
    """
    score = _complementary(probability)
    knots = np.quantile(score, KNOTS)
    x = _spline(score, knots)
    shown = x if at is None else _spline(_complementary(at), knots)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    varying = spread > 1e-9 * (1 + np.abs(centre))
    if not varying.any():
        return np.full((len(weights), len(shown)), np.nan)
    x, shown = ((values - centre)[:, varying] / spread[varying] for values in (x, shown))
    competing = seen if (followed.event == 2).any() else None
    coefficient, hazard = cox_each(followed, x, weights, until=followed.until(horizon), seen=competing)
    with np.errstate(over="ignore"):
        return np.asarray(-np.expm1(-hazard[:, None] * np.exp(coefficient @ shown.T)), dtype=np.float64)


def errors_each(
    followed: Followed, probability: Floats, weights: Floats, seen: Seen, *, horizon: float
) -> dict[str, Floats]:
    """Return (R,) ici, e50 and e90: mean, median and 90th percentile of the distance of predicted and smoothed."""
    error = np.abs(smooth_each(followed, probability, weights, seen, horizon=horizon) - probability)
    ici = np.einsum("rn,rn->r", weights, error) / weights.sum(axis=1)
    return {"ici": ici, "e50": _quantile_each(error, weights, 0.5), "e90": _quantile_each(error, weights, 0.9)}


def calibration_groups(
    followed: Followed, probability: Floats, *, horizon: float, groups: int = 10
) -> list[dict[str, Any]]:
    """Return groups of rising probability with mean predicted and observed (Aalen-Johansen) probability by the horizon.

    Groups hold about equally many decisions, at least some 20, and ties stay together. `observed`, `low` and `high` are
    None where nobody of the group was followed to the horizon.
    """
    count = max(1, min(groups, len(probability) // LEAST_IN_GROUP))
    inner = np.quantile(probability, np.linspace(0, 1, count + 1)[1:-1]) if len(probability) else np.empty(0)
    place = np.searchsorted(np.unique(inner), probability, side="right")
    rows: list[dict[str, Any]] = []
    for index in np.unique(place):
        members = place == index
        curve = aalen_johansen(followed.time[members], followed.event[members])
        low, high = curve.interval_at(horizon)
        came = (followed.time[members] <= horizon) & (followed.event[members] == 1)
        rows.append(
            {
                "n": int(members.sum()),
                "events": int(came.sum()),
                "predicted": float(probability[members].mean()),
                "observed": number(float(curve.at(horizon))),
                "low": number(float(low)),
                "high": number(float(high)),
            }
        )
    return rows


def _complementary(probability: Floats) -> Floats:
    p = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(-np.log1p(-p)), dtype=np.float64)


def _spline(score: Floats, knots: Floats) -> Floats:
    """Return (n, 2) restricted cubic spline basis: the score, and one term linear beyond the outer knots."""
    first, middle, last = knots
    if not first < middle < last:
        return np.column_stack([score, np.zeros_like(score)])
    cubes = [np.clip(score - knot, 0, None) ** 3 for knot in knots]
    bent = cubes[0] - cubes[1] * (last - first) / (last - middle) + cubes[2] * (middle - first) / (last - middle)
    return np.column_stack([score, bent / (last - first) ** 2])


def _quantile_each(values: Floats, weights: Floats, quantile: float) -> Floats:
    """Return (R,) the least of the values (R, n) within which the fraction `quantile` of the weight lies."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    place = (reached >= quantile * reached[:, -1:] - 1e-9).argmax(axis=1)
    return np.take_along_axis(values, np.take_along_axis(order, place[:, None], axis=1), axis=1)[:, 0]
