"""The curves of a report (ROC, precision-recall, calibration, net benefit) with bootstrap bands, as plain JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import metrics
from theracast_training.loess import Loess
from theracast_training.resampling import Floats, resample_counts

ROC_POINTS = 200
BAND_POINTS = 51
HISTOGRAM_BINS = 40
LEAST_IN_GROUP = 10


def curves(
    y: ArrayLike,
    p: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    decision_range: tuple[float, float] = (0.05, 0.6),
    bootstrap: int = 500,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return `{"n", "events", "roc", "pr", "calibration", "histogram", "decision"}` of probabilities against outcomes.

    Bands are pointwise 95 % percentile intervals over resamples. Decisions without outcome or score (NaN) are left out.
    Curves that need both outcomes are None where there is only one.
    """
    outcome, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    keep = ~np.isnan(outcome) & ~np.isnan(score)
    outcome, score, mass = outcome[keep], score[keep], mass[keep]
    metrics.check(outcome, score, mass)
    members = None if group is None else np.asarray(group)[keep]
    result: dict[str, Any] = {"n": len(outcome), "events": int(outcome.sum())}
    result |= dict.fromkeys(("roc", "pr", "calibration", "decision"))
    result["histogram"] = _histogram(outcome, score)
    if not len(outcome):
        return result
    blocks = list(resample_counts(len(outcome), resamples=bootstrap, seed=seed, group=members))
    drawn = np.concatenate(blocks) * mass if blocks else np.empty((0, len(outcome)))
    result["decision"] = decision_curve(outcome, score, mass, drawn, decision_range=decision_range)
    result["calibration"] = {"groups": calibration_points(outcome, score, weight=mass), "smooth": None}
    if 0 < outcome.sum() < len(outcome):
        result["roc"] = _roc(outcome, score, mass, drawn)
        result["pr"] = _precision_recall(outcome, score, mass, drawn)
        result["calibration"]["smooth"] = _smooth_line(outcome, score, mass, drawn)
    return result


def roc_points(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return false and true positive rates, rising from (0, 0) to (1, 1), one point for each distinct score."""
    outcome, score, mass = metrics.check(y, p, weight)
    positive, negative = _cumulative(outcome, score, mass)
    return negative / negative[-1], positive / positive[-1]


def pr_points(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return recall (rising to 1) and precision, one point for each distinct score that finds anyone."""
    outcome, score, mass = metrics.check(y, p, weight)
    positive, negative = _cumulative(outcome, score, mass)
    named = positive + negative
    some = named > 0
    return positive[some] / positive[-1], positive[some] / named[some]


def calibration_points(
    y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None, groups: int = 10
) -> list[dict[str, float | int]]:
    """Return groups of rising probability with mean probability, observed frequency and its Wilson interval.

    Groups hold about equally many decisions, at least some 10, and ties stay together, so that there may be fewer than
    `groups`.
    """
    outcome, score, mass = metrics.check(y, p, weight)
    count = max(1, min(groups, len(outcome) // LEAST_IN_GROUP))
    inner = np.quantile(score, np.linspace(0, 1, count + 1)[1:-1]) if len(outcome) else np.empty(0)
    place = np.searchsorted(np.unique(inner), score, side="right")
    points: list[dict[str, float | int]] = []
    for index in np.unique(place):
        rows = (place == index) & (mass > 0)
        if not rows.any():
            continue
        drawn = mass[rows]
        effective = float(drawn.sum() ** 2 / (drawn**2).sum())
        observed = float(drawn @ outcome[rows] / drawn.sum())
        low, high = metrics.wilson(observed * effective, effective)
        points.append(
            {
                "n": int(rows.sum()),
                "events": int(outcome[rows].sum()),
                "mean_probability": float(drawn @ score[rows] / drawn.sum()),
                "observed": observed,
                "low": low,
                "high": high,
            }
        )
    return points


def decision_curve(
    y: Floats, p: Floats, weight: Floats, drawn: Floats, *, decision_range: tuple[float, float]
) -> dict[str, list[float]]:
    """Return net benefit of the model and of treating all, thresholds 0.01 apart, with bands from resamples (R, n).

    `interventions_avoided` are those among 100 decisions that the model spares against treating all, at no loss of
    events found (Vickers et al., BMC Med Inform Decis Mak 2008;8:53).
    """
    threshold = threshold_grid(decision_range)
    odds = threshold / (1 - threshold)
    named = (p[:, None] >= threshold).astype(np.float64)
    gain = named * y[:, None] - named * (1 - y)[:, None] * odds
    gain_of_all = y[:, None] - (1 - y)[:, None] * odds
    curve = {"threshold": threshold.tolist()}
    avoided = 100 * (gain - gain_of_all) / odds
    for name, value in (("net_benefit", gain), ("treat_all", gain_of_all), ("interventions_avoided", avoided)):
        curve[name] = _plain(weight @ value / weight.sum())
        curve |= _band(drawn @ value / np.maximum(drawn.sum(axis=1), 1e-300)[:, None], prefix=f"{name}_")
    return curve


def threshold_grid(decision_range: tuple[float, float]) -> Floats:
    """Return thresholds 0.01 apart from the first to the last of a range, between 0.01 and 0.99."""
    start, stop = (round(100 * end) for end in decision_range)
    return np.arange(max(start, 1), min(stop, 99) + 1, dtype=np.float64) / 100


def _cumulative(y: Floats, p: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return (g + 1,) weight of events and of non-events named, from nobody to everybody, ties together."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    event = np.cumsum(weight[order] * y[order])[ends]
    other = np.cumsum(weight[order] * (1 - y[order]))[ends]
    return np.r_[0.0, event], np.r_[0.0, other]


def _roc(y: Floats, p: Floats, weight: Floats, drawn: Floats) -> dict[str, list[float]]:
    fpr, tpr = roc_points(y, p, weight=weight)
    grid = np.linspace(0, 1, BAND_POINTS)
    lines = [np.interp(grid, *roc_points(y, p, weight=row)) for row in drawn[_both(y, drawn)]]
    kept = _corners(fpr, tpr)
    curve = {"fpr": _plain(fpr[kept]), "tpr": _plain(tpr[kept]), "grid": _plain(grid)}
    return curve | _band(np.asarray(lines).reshape(-1, len(grid)))


def _precision_recall(y: Floats, p: Floats, weight: Floats, drawn: Floats) -> dict[str, Any]:
    """Return the points at which recall rises: steps before them, as average precision counts."""
    recall, precision = pr_points(y, p, weight=weight)
    grid = np.linspace(0, 1, BAND_POINTS)
    lines = []
    for row in drawn[_both(y, drawn)]:
        found, share = pr_points(y, p, weight=row)
        lines.append(share[np.minimum(np.searchsorted(found, grid - 1e-12), len(found) - 1)])
    steps = np.flatnonzero(np.diff(recall, prepend=0.0) > 0)
    kept = steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), ROC_POINTS)).round().astype(np.intp))]
    curve: dict[str, Any] = {
        "recall": _plain(recall[kept]),
        "precision": _plain(precision[kept]),
        "grid": _plain(grid),
    }
    curve["prevalence"] = float(weight @ y / weight.sum())
    return curve | _band(np.asarray(lines).reshape(-1, len(grid)))


def _smooth_line(y: Floats, p: Floats, weight: Floats, drawn: Floats) -> dict[str, list[float]]:
    """Return the smoothed line with its band between the 1st and 99th percentile of `p`; single patients lie beyond."""
    loess = Loess.over(p, weight=weight)
    low, high = np.quantile(p, [0.01, 0.99])
    shown = (loess.grid >= low) & (loess.grid <= high)
    line = {"p": _plain(loess.grid[shown]), "observed": _plain(loess.fit_each(y, weight[None, :])[0][shown])}
    return line | _band(loess.fit_each(y, drawn)[:, shown])


def _histogram(y: Floats, p: Floats) -> dict[str, list[float] | list[int]]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counted = {
        name: np.histogram(p[y == value], bins=edges)[0].tolist() for name, value in (("events", 1), ("others", 0))
    }
    return {"edges": edges.tolist(), **counted}


def _plain(values: Floats) -> list[float]:
    """Return a list for JSON, to five decimals: finer than any page can draw."""
    return [float(value) for value in np.round(values, 5)]


def _both(y: Floats, drawn: Floats) -> NDArray[np.bool_]:
    return np.asarray((drawn @ y > 0) & (drawn @ (1 - y) > 0))


def _band(values: Floats, *, prefix: str = "") -> dict[str, list[float]]:
    """Return pointwise 2.5th and 97.5th percentiles of (R, m) values; empty lists without resamples."""
    if not len(values):
        return {f"{prefix}low": [], f"{prefix}high": []}
    low, high = np.nanquantile(values, [0.025, 0.975], axis=0)
    return {f"{prefix}low": _plain(low), f"{prefix}high": _plain(high)}


def _corners(x: Floats, y: Floats) -> NDArray[np.intp]:
    """Return positions of a polyline's corners, thinned to about ROC_POINTS."""
    if len(x) < 3:
        return np.arange(len(x), dtype=np.intp)
    before, after = np.diff(x)[:-1] * np.diff(y)[1:], np.diff(x)[1:] * np.diff(y)[:-1]
    corners = np.r_[0, np.flatnonzero(~np.isclose(before, after, rtol=0, atol=1e-12)) + 1, len(x) - 1]
    if len(corners) > ROC_POINTS:
        corners = corners[np.unique(np.linspace(0, len(corners) - 1, ROC_POINTS).round().astype(np.intp))]
    return np.asarray(corners, dtype=np.intp)
