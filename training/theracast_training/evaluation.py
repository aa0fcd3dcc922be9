"""Performance of one set of probabilities, and of two on the same patients, with bootstrap intervals, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import metrics
from theracast_training.curves import curves
from theracast_training.loess import Loess
from theracast_training.resampling import Floats, number, percentile_interval, resample_counts, two_sided_p

__all__ = ["compare_paired", "curves", "evaluate_binary"]

THRESHOLDS = (0.2, 0.3, 0.5)
FEW = 10
"""Fewer events or non-events than this are noted: intervals from so few are rough."""

_METRICS: dict[str, Any] = {
    "auc": metrics.auc_each,
    "auprc": metrics.average_precision_each,
    "brier": metrics.brier_each,
    "scaled_brier": metrics.scaled_brier_each,
    "calibration_intercept": metrics.calibration_intercept_each,
    "calibration_slope": metrics.calibration_slope_each,
    "ici": metrics.ici_each,
    "observed_expected": metrics.observed_expected_each,
}
_NEEDS_BOTH = ("auc", "auprc", "scaled_brier", "calibration_intercept", "calibration_slope", "ici")
_PROPORTIONS = {"sensitivity": "events", "specificity": "others", "ppv": "named", "npv": "unnamed"}


def evaluate_binary(
    y: ArrayLike,
    p: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the performance of probabilities `p` (n,) against outcomes `y` (n,) with 95 % intervals, as plain JSON.

    Every metric stands beside its `_low` and `_high` (percentile bootstrap; sensitivity, specificity and predictive
    values: Wilson, which holds at 0 and 100 % too; with weights: on Kish's effective number). What cannot be
    estimated is None and `notes` says why.

    The ICI of few patients is too high even for a perfect model, and resampling adds as much again: its interval reaches
    as far below the estimate as the upper percentile lies above it, at most to 0 (in simulations of 60 to 600 patients
    it held the truth in 78 to 99 % of cohorts, the plain percentile interval in 0 to 95 %).

    Args:
        y: 0/1; NaN (outcome not known) leaves the decision out, which `notes` tells.
        p: probabilities in [0, 1]; NaN (no score) leaves the decision out, which `notes` tells.
        weight: (n,) non-negative, e.g. inverse probability of being observed; `n` and `events` stay plain counts.
        thresholds: probabilities from which on a decision is named positive.
        bootstrap: resamples; 0 gives no intervals.
        seed: same seed, same intervals.
        group: (n,) patients, where a patient may have several decisions: whole patients are then drawn.
    """
    outcome, probability, mass, groups, notes = _known(y, (p,), weight, group)
    (score,) = probability
    notes += _few_notes(outcome)
    total, whole = float(mass.sum()), mass[None, :]
    result: dict[str, Any] = {
        "n": len(outcome),
        "events": int(outcome.sum()),
        "prevalence": number(float(mass @ outcome) / total) if total > 0 else None,
        "mean_probability": number(float(mass @ score) / total) if total > 0 else None,
    }
    measures = dict(_METRICS)
    estimates: dict[str, Floats] = {}
    resampled: dict[str, list[Floats]] = {}
    if len(outcome):
        measures["ici"] = partial(metrics.ici_each, loess=Loess.over(score, weight=mass))
        estimates = _all_metrics(outcome, score, whole, measures, thresholds)
        for counts in resample_counts(len(outcome), resamples=bootstrap, seed=seed, group=groups):
            for name, values in _all_metrics(outcome, score, counts * mass, measures, thresholds).items():
                resampled.setdefault(name, []).append(values)
    for name in measures:
        result |= _with_interval(name, estimates, resampled)
    result["ici_low"], result["ici_high"] = _ici_interval(result)
    result["e90"] = (
        number(metrics.calibration_error_quantile(outcome, score, 0.9, weight=mass)) if len(outcome) else None
    )
    result["thresholds"] = [
        _at_threshold(threshold, outcome, score, mass, estimates=estimates, resampled=resampled)
        for threshold in thresholds
    ]
    result |= {"bootstrap": bootstrap, "notes": notes + _interval_notes(result, bootstrap)}
    return result


def compare_paired(
    y: ArrayLike,
    p_a: ArrayLike,
    p_b: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    thresholds: Sequence[float] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return how much better `p_a` is than `p_b` on the same decisions, every resample used for both, as plain JSON.

    `auc_difference` (a minus b) with `low`, `high` and two-sided `p_value`; `brier_difference` (a minus b, below 0
    favours a) with `brier_low`, `brier_high`, `brier_p_value`; per threshold the net benefit difference. Decisions that
    lack either score are left out and `notes` tells how many. A score that only ranks has no fair Brier score or net
    benefit: leave these unread for it.
    """
    outcome, scores, mass, groups, notes = _known(y, (p_a, p_b), weight, group)
    notes += _few_notes(outcome)
    measured = {"auc": metrics.auc_each, "brier": metrics.brier_each}
    estimates: list[dict[str, Floats]] = [{}, {}]
    differences: dict[str, list[Floats]] = {}
    if len(outcome):
        estimates = [_all_metrics(outcome, score, mass[None, :], measured, thresholds) for score in scores]
        for counts in resample_counts(len(outcome), resamples=bootstrap, seed=seed, group=groups):
            drawn = counts * mass
            first, second = (_all_metrics(outcome, score, drawn, measured, thresholds) for score in scores)
            for name in first:
                differences.setdefault(name, []).append(first[name] - second[name])
    first, second = estimates
    result: dict[str, Any] = {"n": len(outcome), "events": int(outcome.sum())}
    for name in measured:
        result |= {f"{name}_a": _value(first, name), f"{name}_b": _value(second, name)}
        values = _joined(differences, name)
        low, high = percentile_interval(values)
        prefix = "" if name == "auc" else f"{name}_"
        result |= {
            f"{name}_difference": _difference(first, second, name),
            f"{prefix}low": low,
            f"{prefix}high": high,
            f"{prefix}p_value": two_sided_p(values),
        }
    result["thresholds"] = []
    for threshold in thresholds:
        name = _key("net_benefit", threshold)
        low, high = percentile_interval(_joined(differences, name))
        result["thresholds"].append(
            {
                "threshold": float(threshold),
                "net_benefit_difference": _difference(first, second, name),
                "net_benefit_difference_low": low,
                "net_benefit_difference_high": high,
            }
        )
    return result | {"bootstrap": bootstrap, "notes": notes}


def _known(
    y: ArrayLike, scores: Sequence[ArrayLike], weight: ArrayLike | None, group: ArrayLike | None
) -> tuple[Floats, list[Floats], Floats, NDArray[Any] | None, list[str]]:
    """Return outcomes, scores, weights and groups of the decisions with all of them, and notes on those left out."""
    outcome = np.asarray(y, dtype=np.float64)
    columns = [np.asarray(score, dtype=np.float64) for score in scores]
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    if any(column.shape != outcome.shape for column in [*columns, mass]):
        raise ValueError(
            f"outcomes, probabilities and weights must be of one length, not {len(outcome)}, "
            f"{', '.join(str(len(column)) for column in columns)} and {len(mass)}"
        )
    no_outcome = np.isnan(outcome)
    no_score = np.any([np.isnan(column) for column in columns], axis=0) & ~no_outcome
    keep = ~no_outcome & ~no_score
    notes = [
        f"{int(left_out.sum())} of {len(outcome)} decisions have no {what} and are left out"
        for left_out, what in ((no_outcome, "known outcome"), (no_score, "score"))
        if left_out.any()
    ]
    for column in columns:
        metrics.check(outcome[keep], column[keep], mass[keep])
    groups = None if group is None else np.asarray(group)[keep]
    return outcome[keep], [column[keep] for column in columns], mass[keep], groups, notes


def _all_metrics(
    y: Floats, p: Floats, weights: Floats, measures: dict[str, Any], thresholds: Sequence[float]
) -> dict[str, Floats]:
    values = {name: measure(y, p, weights) for name, measure in measures.items()}
    for threshold in thresholds:
        at = metrics.threshold_each(y, p, weights, threshold=threshold)
        values |= {_key(name, threshold): found for name, found in at.items()}
    return values


def _key(name: str, threshold: float) -> str:
    return f"{name}@{threshold!r}"


def _joined(resampled: dict[str, list[Floats]], name: str) -> Floats:
    return np.concatenate(resampled[name]) if name in resampled else np.empty(0)


def _value(estimates: dict[str, Floats], name: str) -> float | None:
    return number(float(estimates[name][0])) if name in estimates else None


def _difference(first: dict[str, Floats], second: dict[str, Floats], name: str) -> float | None:
    return number(float(first[name][0] - second[name][0])) if name in first else None


def _with_interval(
    name: str, estimates: dict[str, Floats], resampled: dict[str, list[Floats]]
) -> dict[str, float | None]:
    low, high = percentile_interval(_joined(resampled, name))
    estimate = _value(estimates, name)
    if estimate is None:
        low = high = None
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def _ici_interval(result: Mapping[str, Any]) -> tuple[float | None, float | None]:
    estimate, high = result["ici"], result["ici_high"]
    if estimate is None or high is None:
        return None, None
    return max(0.0, 2 * estimate - max(high, estimate)), max(high, estimate)


def _at_threshold(
    threshold: float,
    y: Floats,
    p: Floats,
    mass: Floats,
    *,
    estimates: dict[str, Floats],
    resampled: dict[str, list[Floats]],
) -> dict[str, float | int | None]:
    """Return the row of one threshold."""
    named = p >= threshold
    row: dict[str, float | int | None] = {"threshold": float(threshold), "named": int(named.sum())}
    members = {"events": y == 1, "others": y == 0, "named": named, "unnamed": ~named}
    for name, denominator in _PROPORTIONS.items():
        value = _value(estimates, _key(name, threshold))
        drawn = mass[members[denominator]]
        effective = float(drawn.sum() ** 2 / (drawn**2).sum()) if drawn.any() else 0.0
        bounds = metrics.wilson((value or 0.0) * effective, effective)
        row |= {name: value, f"{name}_low": number(bounds[0]), f"{name}_high": number(bounds[1])}
    key = _key("net_benefit", threshold)
    low, high = percentile_interval(_joined(resampled, key))
    row |= {"net_benefit": _value(estimates, key), "net_benefit_low": low, "net_benefit_high": high}
    return row | {"treat_all": _value(estimates, _key("treat_all", threshold))}


def _few_notes(y: Floats) -> list[str]:
    events = int(y.sum())
    others = len(y) - events
    if not len(y):
        return ["no decision has both an outcome and a score: nothing can be estimated"]
    if events == 0 or others == 0:
        return [f"all {len(y)} outcomes are the same: ranking and calibration cannot be estimated"]
    if min(events, others) < FEW:
        return [f"only {events} events and {others} non-events: read every figure here as an indication only"]
    return []


def _interval_notes(result: dict[str, Any], bootstrap: int) -> list[str]:
    """Return notes on metrics that have an estimate and no interval."""
    if not bootstrap:
        return []
    open_ended = [
        name
        for name in _NEEDS_BOTH
        if result[name] is not None and (result[f"{name}_low"] is None or result[f"{name}_high"] is None)
    ]
    if result["calibration_slope"] is None and result["auc"] in (0.0, 1.0):
        return ["the probabilities separate the outcomes: the calibration slope has no finite estimate"]
    return [f"too few usable resamples for an interval of: {', '.join(open_ended)}"] if open_ended else []
