"""What the figures of a time to event show: curves by risk group, calibration, AUC over time, incidence, as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import survival_metrics as measures
from theracast_training.observed import Curve, aalen_johansen, kaplan_meier, numbers_at_risk
from theracast_training.resampling import Floats, resample_counts
from theracast_training.survival_calibration import calibration_groups, smooth_each
from theracast_training.survival_evaluation import FEW, checked_horizons, known_sample
from theracast_training.survival_metrics import Followed, seen_each

GROUP_NAMES = {2: ("low", "high"), 3: ("low", "middle", "high"), 4: ("lowest", "lower", "higher", "highest")}
DAYS_PER_MONTH = 30.4375
CURVE_POINTS = 300
AUC_POINTS = 25
SMOOTH_POINTS = 60
HISTOGRAM_BINS = 40
SHOWN = 0.1
"""Curves by risk group end where less than this share is at risk, but not before the last horizon.

Source: Pocock, Clayton & Altman, Lancet 2002;359:1686-1689.
"""


def survival_curves(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    *,
    horizons: Sequence[float],
    probability: ArrayLike,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    group: ArrayLike | None = None,
    cause: int = 1,
    survival_grid: tuple[ArrayLike, ArrayLike] | None = None,
    risk_groups: int = 3,
    cuts: Sequence[float] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Return `{"n", "events", "axis", "risk_groups", "at_risk", "calibration", "auc", "incidence"}` for the figures.

    Arguments are those of `evaluate_survival`; `cuts` are risks that part the groups (those of the development decisions,
    to show other decisions by), by default the quantiles of these risks that make `risk_groups` groups. Bands of curves
    by risk group and of the incidence are log-log, all others pointwise percentiles of resamples. With competing events
    the groups show the cumulative incidence (`kind`) instead of the survival. `auc` is by the grid's probabilities, or by
    the risk where there is no grid. What does not exist is None.
    """
    at = checked_horizons(horizons)
    sample, _ = known_sample(
        time, event, [risk], at, probability, group=group, cause=cause, grid=survival_grid, reference=reference
    )
    followed = sample.followed
    n = len(followed.time)
    result: dict[str, Any] = {"n": n, "events": int((followed.event == 1).sum())}
    result |= dict.fromkeys(("axis", "risk_groups", "at_risk", "auc", "incidence"))
    if not n:
        return result | {"calibration": []}
    end = shown_until(followed.time, last_horizon=float(at[-1]))
    axis = time_axis(end)
    place = risk_group_of(sample.risks[0], groups=risk_groups, cuts=cuts)
    names = GROUP_NAMES.get(int(place.max()) + 1) or tuple(f"{one + 1}" for one in range(int(place.max()) + 1))
    competing = bool((followed.event == 2).any())
    result |= {"axis": axis, "kind": "incidence" if competing else "survival"}
    result["risk_groups"] = [
        {"name": name, "n": int((place == one).sum())} | _curve_of(followed, place == one, end=end, competing=competing)
        for one, name in enumerate(names)
    ]
    counts = [numbers_at_risk(followed.time[place == one], axis["ticks"]).tolist() for one in range(len(names))]
    result["at_risk"] = {"time": axis["ticks"], "counts": counts}
    ones = np.ones((1, n))
    blocks = list(resample_counts(n, resamples=bootstrap, seed=seed, group=sample.group))
    drawn = np.concatenate(blocks) if blocks else np.empty((0, n))
    rows = [(ones, seen_each(followed, ones, sample.reference)), (drawn, seen_each(followed, drawn, sample.reference))]
    result["calibration"] = [
        _calibration(followed, sample.probability[:, one], rows, horizon=float(day)) for one, day in enumerate(at)
    ]
    result["auc"] = _auc_over_time(followed, sample.risks[0], sample.grid, sample.grid_probability, rows, end=at[-1])
    result["incidence"] = _incidence(followed, sample.grid, sample.grid_probability, end=float(at[-1]))
    return result


def shown_until(time: Floats, *, last_horizon: float) -> float:
    """Return the day at which curves by group end: the last horizon, or later while enough are at risk."""
    enough = float(np.sort(time)[max(int(np.floor(len(time) * (1 - SHOWN))) - 1, 0)])
    return min(max(enough, last_horizon), float(time.max())) or 1.0


def time_axis(end: float) -> dict[str, Any]:
    """Return unit, days per unit and the days of some four to eight ticks from 0."""
    unit, days = ("Months", DAYS_PER_MONTH) if end > 120 else ("Days", 1.0)
    steps = (1, 2, 3, 6, 12, 24, 36, 60, 120, 240) if unit == "Months" else (1, 2, 5, 7, 14, 21, 28)
    step = next((one for one in steps if end / days / one <= 8), steps[-1])
    ticks = np.arange(0, end / days + 1e-9, step) * days
    return {"unit": unit, "days_per_unit": days, "end": float(end), "ticks": [float(one) for one in ticks]}


def risk_group_of(risk: Floats, *, groups: int, cuts: Sequence[float] | None) -> NDArray[np.int64]:
    """Return (n,) the risk group, 0 the lowest; a risk equal to a cut is in the group above. Empty groups vanish."""
    inner = np.quantile(risk, np.linspace(0, 1, groups + 1)[1:-1]) if cuts is None else np.sort(np.asarray(cuts))
    place = np.searchsorted(np.unique(inner), risk, side="right")
    return (
        np.asarray(np.unique(place, return_inverse=True)[1], dtype=np.int64) if cuts is None else place.astype(np.int64)
    )


def _curve_of(followed: Followed, members: NDArray[np.bool_], *, end: float, competing: bool) -> dict[str, Any]:
    time, event = followed.time[members], followed.event[members]
    curve = aalen_johansen(time, event) if competing else kaplan_meier(time, event)
    days = _days(time[event > 0], end=min(end, float(time.max())) if len(time) else 0.0)
    return _stepped(curve, days)


def _days(events: Floats, *, end: float) -> Floats:
    """Return 0, the days of events until the end, thinned, and the end."""
    days = np.unique(events[events <= end])
    if len(days) > CURVE_POINTS:
        days = days[np.unique(np.linspace(0, len(days) - 1, CURVE_POINTS).round().astype(np.intp))]
    return np.unique(np.r_[0.0, days, end])


def _stepped(curve: Curve, days: Floats) -> dict[str, list[float | None]]:
    low, high = curve.interval_at(days)
    return {"time": _plain(days), "value": _plain(curve.at(days)), "low": _plain(low), "high": _plain(high)}


def _calibration(followed: Followed, p: Floats, rows: list[tuple[Floats, Any]], *, horizon: float) -> dict[str, Any]:
    """Return groups, smooth line and histogram at one horizon; the line between the 1st and 99th percentile of p."""
    came = (followed.time <= horizon) & (followed.event == 1)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    found: dict[str, Any] = {
        "horizon": horizon,
        "groups": calibration_groups(followed, p, horizon=horizon),
        "smooth": None,
        "histogram": {
            "edges": edges.tolist(),
            "events": np.histogram(p[came], bins=edges)[0].tolist(),
            "others": np.histogram(p[~came], bins=edges)[0].tolist(),
        },
    }
    if came.sum() < FEW or followed.time[-1] < horizon:
        return found
    shown = np.linspace(float(np.quantile(p, 0.01)), float(np.quantile(p, 0.99)), SMOOTH_POINTS)
    line, band = (
        smooth_each(followed, p, weights, seen, horizon=horizon, at=shown)
        if len(weights)
        else np.empty((0, len(shown)))
        for weights, seen in rows
    )
    if np.isnan(line).all():
        return found
    return found | {"smooth": {"p": _plain(shown), "observed": _plain(line[0])} | _band(band)}


def _auc_over_time(
    followed: Followed, risk: Floats, grid: Floats, over_time: Floats, rows: list[tuple[Floats, Any]], *, end: float
) -> dict[str, Any] | None:
    """Return the AUC by each of some days, from the one by which a few events have come."""
    events = followed.time[followed.event == 1]
    if len(events) < FEW:
        return None
    days = grid if len(grid) else np.linspace(float(events[FEW - 1]), end, AUC_POINTS)
    chosen = np.flatnonzero((days >= events[FEW - 1]) & (days <= end))
    if len(chosen) > AUC_POINTS:
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, AUC_POINTS).round().astype(np.intp))]
    lines = [
        np.column_stack(
            [
                measures.horizon_auc_each(
                    followed, over_time[:, one] if len(grid) else risk, weights, seen, horizon=float(days[one])
                )
                for one in chosen
            ]
        )
        if len(chosen) and len(weights)
        else np.empty((0, len(chosen)))
        for weights, seen in rows
    ]
    if not len(chosen) or np.isnan(lines[0]).all():
        return None
    return {"time": _plain(days[chosen]), "auc": _plain(lines[0][0])} | _band(lines[1])


def _incidence(followed: Followed, grid: Floats, over_time: Floats, *, end: float) -> dict[str, Any]:
    """Return the observed cumulative incidence with band, and the mean predicted one at the days of the grid."""
    curve = aalen_johansen(followed.time, followed.event)
    days = _days(followed.time[followed.event == 1], end=min(end, float(followed.time[-1])))
    predicted = {"time": _plain(grid), "value": _plain(over_time.mean(axis=0))} if len(grid) else None
    return {"observed": _stepped(curve, days), "predicted": predicted}


def _plain(values: Floats) -> list[float | None]:
    """Return a list for JSON, to five decimals, None where there is no value."""
    return [float(value) if np.isfinite(value) else None for value in np.round(values, 5)]


def _band(values: Floats) -> dict[str, list[float | None]]:
    """Return pointwise 2.5th and 97.5th percentiles of (R, m) values; empty lists without resamples."""
    if not len(values):
        return {"low": [], "high": []}
    bounds = np.full((2, values.shape[1]), np.nan)
    some = ~np.isnan(values).all(axis=0)
    bounds[:, some] = np.nanquantile(values[:, some], [0.025, 0.975], axis=0)
    return {"low": _plain(bounds[0]), "high": _plain(bounds[1])}
