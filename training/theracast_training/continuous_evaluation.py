"""Performance of estimates of a continuous outcome with bootstrap intervals, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from theracast_training.resampling import Floats, number, resample_counts, with_difference, with_interval

FEW = 10
"""Fewer decisions than this are noted."""
LEAST_IN_GROUP = 10

_METRICS = ("r2", "rmse", "mae", "mean_bias", "spearman", "calibration_slope", "calibration_intercept", "coverage")
_COMPARED = ("rmse", "mae", "r2", "spearman")


def evaluate_continuous(
    y: ArrayLike,
    estimate: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the performance of estimates (n,) against outcomes `y` (n,) with 95 % intervals, as plain JSON.

    Every metric stands beside its `_low` and `_high` (percentile bootstrap). `r2` is 1 - squared error / squared
    distance from the mean (below 0 where the mean is the better estimate), `mean_bias` estimate minus outcome;
    `calibration_slope` and `calibration_intercept` are of the straight line of the outcome on the estimate (ideal: 1
    and 0); `coverage` how often the outcome lies within `low` to `high`, where given. `groups` of rising estimate have
    their mean estimate and mean outcome, with Student's interval. What cannot be estimated is None and `notes` says why.

    Args:
        y: outcomes, in their unit; NaN leaves the decision out, which `notes` tells.
        estimate: in the same unit; NaN leaves the decision out, which `notes` tells.
        low: (n,) lower ends of intervals for the outcome; with `high`.
        high: (n,) upper ends.
        weight: (n,) non-negative; `n` stays a plain count.
        bootstrap: resamples; 0 gives no intervals.
        seed: same seed, same intervals.
        group: (n,) patients, where a patient may have several decisions: whole patients are then drawn.
    """
    if (low is None) != (high is None):
        raise ValueError("give both low and high of the intervals, or neither")
    intervals = (low, high) if low is not None and high is not None else ()
    outcome, guess, ends, mass, groups, notes = _known(y, estimate, others=intervals, weight=weight, group=group)
    inside = _inside(outcome, ends)
    n = len(outcome)
    estimates: dict[str, Floats] = {}
    resampled: list[dict[str, Floats]] = []
    if n:
        estimates = metrics_each(outcome, guess, mass[None, :], inside=inside)
        resampled = [
            metrics_each(outcome, guess, counts * mass, inside=inside)
            for counts in resample_counts(n, resamples=bootstrap, seed=seed, group=groups)
        ]
    total = float(mass.sum())
    result: dict[str, Any] = {
        "n": n,
        "mean_outcome": number(float(mass @ outcome) / total) if total > 0 else None,
        "mean_estimate": number(float(mass @ guess) / total) if total > 0 else None,
    }
    for name in _METRICS:
        result |= with_interval(name, _value(estimates, name), _joined(resampled, name))
    result["groups"] = calibration_groups(outcome, guess, weight=mass)
    return result | {"bootstrap": bootstrap, "notes": notes + _few_notes(result, outcome, guess, bootstrap)}


def compare_continuous(
    y: ArrayLike,
    estimate_a: ArrayLike,
    estimate_b: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return how much better `estimate_a` is than `estimate_b` on the same decisions, as plain JSON.

    For `rmse`, `mae` (a minus b, below 0 favours a), `r2` and `spearman` (above 0 favours a): `_a`, `_b`, `_difference`
    with `_difference_low`, `_difference_high` and two-sided `_p_value`, every resample used for both. Decisions that lack
    either are left out and `notes` tells how many.
    """
    outcome, first_of, other, mass, groups, notes = _known(
        y, estimate_a, others=(estimate_b,), weight=weight, group=group
    )
    result: dict[str, Any] = {"n": len(outcome)}
    estimates: list[dict[str, Floats]] = [{}, {}]
    differences: list[dict[str, Floats]] = []
    if len(outcome):
        pair = (first_of, other[0])
        estimates = [metrics_each(outcome, guess, mass[None, :]) for guess in pair]
        for counts in resample_counts(len(outcome), resamples=bootstrap, seed=seed, group=groups):
            first, second = (metrics_each(outcome, guess, counts * mass) for guess in pair)
            differences.append({name: first[name] - second[name] for name in _COMPARED})
    for name in _COMPARED:
        values = [_value(found, name) for found in estimates]
        result |= with_difference(name, values[0], values[1], _joined(differences, name))
    few = [f"only {len(outcome)} decisions: read every figure here as an indication only"] if len(outcome) < FEW else []
    return result | {"bootstrap": bootstrap, "notes": notes + few}


def metrics_each(y: Floats, estimate: Floats, weights: Floats, *, inside: Floats | None = None) -> dict[str, Floats]:
    """Return every metric (R,) for rows of weights (R, n); NaN where it does not exist. `inside`: 1 where covered."""
    total = weights.sum(axis=1)
    shifted, guess = y - y.mean(), estimate - estimate.mean()
    mean_y, mean_x = weights @ shifted / total, weights @ guess / total
    var_y = np.maximum(weights @ shifted**2 / total - mean_y**2, 0.0)
    var_x = np.maximum(weights @ guess**2 / total - mean_x**2, 0.0)
    together = weights @ (shifted * guess) / total - mean_x * mean_y
    squared = weights @ (y - estimate) ** 2 / total
    slope = _ratio(together, np.where(var_x > 1e-12 * max(float(guess.var()), 1e-300), var_x, 0.0))
    return {
        "r2": 1 - _ratio(squared, np.where(var_y > 1e-12 * max(float(shifted.var()), 1e-300), var_y, 0.0)),
        "rmse": np.sqrt(squared),
        "mae": weights @ np.abs(y - estimate) / total,
        "mean_bias": weights @ (estimate - y) / total,
        "spearman": spearman_each(y, estimate, weights),
        "calibration_slope": slope,
        "calibration_intercept": mean_y + y.mean() - slope * (mean_x + estimate.mean()),
        "coverage": np.full(len(weights), np.nan) if inside is None else weights @ inside / total,
    }


def spearman_each(y: Floats, estimate: Floats, weights: Floats) -> Floats:
    """Return (R,) the correlation of ranks (ties: their mean), a weight of 2 counting as two rows.

    Source: Spearman, Am J Psychol 1904;15:72-101.
    """
    total = weights.sum(axis=1)
    first, second = (_ranks_each(values, weights) for values in (y, estimate))
    first, second = (ranks - (total / 2)[:, None] for ranks in (first, second))
    covariance = np.einsum("rn,rn,rn->r", weights, first, second)
    spread = [np.einsum("rn,rn,rn->r", weights, ranks, ranks) for ranks in (first, second)]
    product = np.sqrt(spread[0] * spread[1])
    return _ratio(covariance, np.where(product > 1e-9 * total, product, 0.0))


def calibration_groups(
    y: Floats, estimate: Floats, *, weight: Floats | None = None, groups: int = 10
) -> list[dict[str, Any]]:
    """Return groups of rising estimate with mean estimate, mean outcome and its Student interval.

    Groups hold about equally many decisions, at least some 10, and ties stay together.
    """
    mass = np.ones_like(y) if weight is None else weight
    count = max(1, min(groups, len(y) // LEAST_IN_GROUP))
    inner = np.quantile(estimate, np.linspace(0, 1, count + 1)[1:-1]) if len(y) else np.empty(0)
    place = np.searchsorted(np.unique(inner), estimate, side="right")
    rows: list[dict[str, Any]] = []
    for index in np.unique(place):
        members = (place == index) & (mass > 0)
        if not members.any():
            continue
        drawn, values = mass[members], y[members]
        effective = float(drawn.sum() ** 2 / (drawn**2).sum())
        mean = float(np.average(values, weights=drawn))
        reach = float("nan")
        if effective > 1:
            variance = float(np.average((values - mean) ** 2, weights=drawn)) * effective / (effective - 1)
            reach = float(student.ppf(0.975, effective - 1)) * float(np.sqrt(variance / effective))
        predicted = float(np.average(estimate[members], weights=drawn))
        bounds = {"low": number(mean - reach), "high": number(mean + reach)}
        rows.append({"n": int(members.sum()), "predicted": predicted, "observed": mean, **bounds})
    return rows


def _known(
    y: ArrayLike,
    estimate: ArrayLike,
    *,
    others: Sequence[ArrayLike],
    weight: ArrayLike | None,
    group: ArrayLike | None,
) -> tuple[Floats, Floats, list[Floats], Floats, NDArray[Any] | None, list[str]]:
    """Return outcomes, estimates, other columns, weights and groups of the decisions with all, and notes on the rest."""
    outcome = np.asarray(y, dtype=np.float64)
    columns = [np.asarray(one, dtype=np.float64) for one in (estimate, *others)]
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    if outcome.ndim != 1 or any(column.shape != outcome.shape for column in [*columns, mass]):
        raise ValueError(
            f"outcomes, estimates, ends and weights must be flat and of one length, not {outcome.shape}, "
            f"{', '.join(str(column.shape) for column in columns)} and {mass.shape}"
        )
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    no_outcome = np.isnan(outcome)
    no_score = np.any([np.isnan(column) for column in columns], axis=0) & ~no_outcome
    keep = ~no_outcome & ~no_score
    notes = [
        f"{int(left_out.sum())} of {len(outcome)} decisions have no {what} and are left out"
        for left_out, what in ((no_outcome, "known outcome"), (no_score, "estimate"))
        if left_out.any()
    ]
    outcome, mass, columns = outcome[keep], mass[keep], [column[keep] for column in columns]
    if not (np.isfinite(outcome).all() and np.isfinite(columns[0]).all()):
        raise ValueError("outcomes and estimates must be finite; give NaN where there is none")
    return outcome, columns[0], columns[1:], mass, None if group is None else np.asarray(group)[keep], notes


def _inside(y: Floats, ends: list[Floats]) -> Floats | None:
    """Return (n,) 1 where the outcome lies in its interval, both ends included; None without intervals."""
    if not ends:
        return None
    low, high = ends
    if (low > high).any():
        raise ValueError("an interval's low end must not lie above its high end")
    return ((y >= low) & (y <= high)).astype(np.float64)


def _ranks_each(values: Floats, weights: Floats) -> Floats:
    """Return (R, n) weight below plus half the weight at each value."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(totals, axis=1) - totals / 2
    place = np.empty(len(values), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return np.asarray(middle[:, place], dtype=np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _value(estimates: Mapping[str, Floats], name: str) -> float | None:
    return number(float(estimates[name][0])) if name in estimates else None


def _joined(blocks: list[dict[str, Floats]], name: str) -> Floats:
    return np.concatenate([block[name] for block in blocks]) if blocks else np.empty(0)


def _few_notes(result: Mapping[str, Any], y: Floats, estimate: Floats, bootstrap: int) -> list[str]:
    if not len(y):
        return ["no decision has both an outcome and an estimate: nothing can be estimated"]
    notes = [f"only {len(y)} decisions: read every figure here as an indication only"] if len(y) < FEW else []
    if np.ptp(y) == 0:
        notes.append("the outcome does not vary: r2 and ranking cannot be estimated")
    if np.ptp(estimate) == 0:
        notes.append("the estimate does not vary: ranking and the calibration line cannot be estimated")
    bare = [name for name in _METRICS if result[name] is not None and result[f"{name}_low"] is None]
    if bootstrap and bare:
        notes.append(f"too few usable resamples for an interval of: {', '.join(bare)}")
    return notes
