"""Performance of predictions of an ordered outcome with bootstrap intervals, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import ordinal_metrics as measures
from theracast_training.evaluation import evaluate_binary
from theracast_training.metrics import wilson
from theracast_training.resampling import Floats, number, resample_counts, with_difference, with_interval

FEW = 10
"""A level held by fewer decisions is noted."""

_METRICS = ("c_ordinal", "somers_d", "rps", "rps_null", "rps_scaled", "kappa_quadratic", "calibration_slope")


def evaluate_ordinal(
    level: ArrayLike,
    probability: ArrayLike,
    *,
    score: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the performance of level probabilities (n, K) against levels (n,) with 95 % intervals, as plain JSON.

    Every metric stands beside its `_low` and `_high` (percentile bootstrap). `cuts` holds for level 1 or more, 2 or more,
    ... what `evaluate_binary` says of it, on the same resamples. `levels` compares how often each level was observed
    (Wilson's interval) and expected, `confusion[i][j]` counts decisions of level i for whom j was the most probable. What
    cannot be estimated is None and `notes` says why.

    Args:
        level: 0..K-1, the higher the more; NaN leaves the decision out, which `notes` tells.
        probability: of each level, adding up to 1; NaN leaves the decision out, which `notes` tells.
        score: (n,) log-odds that rank the decisions and whose slope is judged; by default the mean of the cumulative
            log-odds, which is a proportional odds model's own linear predictor.
        weight: (n,) non-negative; `n` and counts stay plain.
        bootstrap: resamples; 0 gives no intervals.
        seed: same seed, same intervals.
        group: (n,) patients, where a patient may have several decisions: whole patients are then drawn.
    """
    observed, p, linear, mass, groups, notes = _known(level, probability, score, weight, group)
    n, levels = p.shape
    notes += _few_notes(observed, levels)
    named = p.argmax(axis=1).astype(np.int64)
    result: dict[str, Any] = {"n": n, "levels_count": levels}
    estimates: dict[str, Floats] = {}
    resampled: list[dict[str, Floats]] = []
    if n:
        estimates = _all_metrics(observed, p, linear, named, mass[None, :])
        resampled = [
            _all_metrics(observed, p, linear, named, counts * mass)
            for counts in resample_counts(n, resamples=bootstrap, seed=seed, group=groups)
        ]
    for name in _METRICS:
        result |= with_interval(name, _value(estimates, name), _joined(resampled, name))
    confusion = np.zeros((levels, levels), dtype=np.int64)
    np.add.at(confusion, (observed, named), 1)
    result["levels"] = _level_rows(observed, p, mass)
    result["confusion"] = confusion.tolist()
    reached = measures.at_least(p)
    result["cuts"] = [
        {"cut": cut}
        | evaluate_binary(
            (observed >= cut).astype(np.float64),
            reached[:, cut - 1],
            weight=mass,
            thresholds=(),
            bootstrap=bootstrap,
            seed=seed,
            group=groups,
        )
        for cut in range(1, levels)
    ]
    if n and bootstrap:
        bare = [name for name in _METRICS if result[name] is not None and result[f"{name}_low"] is None]
        notes += [f"too few usable resamples for an interval of: {', '.join(bare)}"] if bare else []
    return result | {"bootstrap": bootstrap, "notes": notes}


def compare_ordinal(
    level: ArrayLike,
    probability_a: ArrayLike,
    probability_b: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return how much better `probability_a` is than `probability_b` on the same decisions, as plain JSON.

    For `c_ordinal` (a minus b, above 0 favours a) and `rps` (below 0 favours a): `_a`, `_b`, `_difference` with
    `_difference_low`, `_difference_high` and two-sided `_p_value`, every resample used for both. Decisions that lack
    either are left out and `notes` tells how many.
    """
    p_a, p_b = (np.asarray(p, dtype=np.float64) for p in (probability_a, probability_b))
    if p_a.shape != p_b.shape:
        raise ValueError(f"both probabilities must have the same shape, not {p_a.shape} and {p_b.shape}")
    unknown = np.asarray(np.isnan(np.hstack([p_a, p_b])).any(axis=1))
    both = [np.where(unknown[:, None], np.nan, p) for p in (p_a, p_b)]
    known = [_known(level, p, None, weight, group) for p in both]
    observed, _, _, mass, groups, notes = known[0]
    result: dict[str, Any] = {"n": len(observed)}
    estimates: list[dict[str, Floats]] = [{}, {}]
    differences: list[dict[str, Floats]] = []
    if len(observed):
        pair = [(one[1], one[2]) for one in known]
        estimates = [_compared(observed, p, linear, mass[None, :]) for p, linear in pair]
        for counts in resample_counts(len(observed), resamples=bootstrap, seed=seed, group=groups):
            first, second = (_compared(observed, p, linear, counts * mass) for p, linear in pair)
            differences.append({name: first[name] - second[name] for name in first})
    for name in ("c_ordinal", "rps"):
        values = [_value(found, name) for found in estimates]
        result |= with_difference(name, values[0], values[1], _joined(differences, name))
    return result | {"bootstrap": bootstrap, "notes": notes + _few_notes(observed, p_a.shape[1])}


def _known(
    level: ArrayLike, probability: ArrayLike, score: ArrayLike | None, weight: ArrayLike | None, group: ArrayLike | None
) -> tuple[NDArray[np.int64], Floats, Floats, Floats, NDArray[Any] | None, list[str]]:
    """Return levels, probabilities, scores, weights and groups of the decisions with all, and notes on the others."""
    observed, p = np.asarray(level, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or observed.shape != (len(p),):
        raise ValueError(
            f"probability must have one row a decision ({len(observed)}) and one column a level (two or more), "
            f"not {p.shape}; `links.of_each_level` makes it from cumulative ones"
        )
    mass = np.ones(len(p)) if weight is None else np.asarray(weight, dtype=np.float64)
    linear = None if score is None else np.asarray(score, dtype=np.float64)
    if mass.shape != observed.shape or (linear is not None and linear.shape != observed.shape):
        raise ValueError(f"weights and scores must be flat and of one length with the levels, {len(observed)}")
    no_level = np.isnan(observed)
    missing = np.isnan(p).any(axis=1) | (np.isnan(linear) if linear is not None else False)
    no_score = missing & ~no_level
    keep = ~no_level & ~no_score
    notes = [
        f"{int(left_out.sum())} of {len(observed)} decisions have no {what} and are left out"
        for left_out, what in ((no_level, "known level"), (no_score, "score"))
        if left_out.any()
    ]
    observed, p, mass = observed[keep], p[keep], mass[keep]
    if not np.isin(observed, np.arange(p.shape[1])).all():
        raise ValueError(f"levels must be 0 to {p.shape[1] - 1}, the columns of probability")
    if (p < -1e-9).any() or (np.abs(p.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError("probabilities of a decision must be 0 or more and add up to 1 over the levels")
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    p = np.clip(p, 0.0, 1.0)
    linear = measures.linear_score(p) if linear is None else linear[keep]
    if not np.isfinite(linear).all():
        raise ValueError("scores must be finite; give NaN for a decision without one")
    groups = None if group is None else np.asarray(group)[keep]
    return observed.astype(np.int64), p, linear, mass, groups, notes


def _all_metrics(
    level: NDArray[np.int64], p: Floats, linear: Floats, named: NDArray[np.int64], weights: Floats
) -> dict[str, Floats]:
    c = measures.c_ordinal_each(level, linear, weights)
    rps = measures.ranked_probability_score_each(level, p, weights)
    null = measures.null_ranked_probability_score_each(level, p.shape[1], weights)
    return {
        "c_ordinal": c,
        "somers_d": 2 * c - 1,
        "rps": rps,
        "rps_null": null,
        "rps_scaled": 1 - np.divide(rps, null, out=np.full_like(rps, np.nan), where=null > 0),
        "kappa_quadratic": measures.quadratic_kappa_each(level, named, weights),
        "calibration_slope": measures.calibration_slope_each(level, linear, weights),
    }


def _compared(level: NDArray[np.int64], p: Floats, linear: Floats, weights: Floats) -> dict[str, Floats]:
    return {
        "c_ordinal": measures.c_ordinal_each(level, linear, weights),
        "rps": measures.ranked_probability_score_each(level, p, weights),
    }


def _value(estimates: Mapping[str, Floats], name: str) -> float | None:
    return number(float(estimates[name][0])) if name in estimates else None


def _joined(blocks: list[dict[str, Floats]], name: str) -> Floats:
    return np.concatenate([block[name] for block in blocks]) if blocks else np.empty(0)


def _level_rows(level: NDArray[np.int64], p: Floats, mass: Floats) -> list[dict[str, Any]]:
    """Return for each level its count, observed share with Wilson's interval (weights: Kish's number), and expected."""
    total = float(mass.sum())
    effective = total**2 / float((mass**2).sum()) if total > 0 else 0.0
    rows: list[dict[str, Any]] = []
    for one in range(p.shape[1]):
        share = float(mass[level == one].sum()) / total if total > 0 else float("nan")
        low, high = wilson(share * effective, effective) if total > 0 else (float("nan"), float("nan"))
        expected = float(mass @ p[:, one]) / total if total > 0 else float("nan")
        rows.append(
            {
                "level": one,
                "n": int((level == one).sum()),
                "observed": number(share),
                "low": number(low),
                "high": number(high),
                "predicted": number(expected),
            }
        )
    return rows


def _few_notes(level: NDArray[np.int64], levels: int) -> list[str]:
    if not len(level):
        return ["no decision has both a level and a score: nothing can be estimated"]
    counts = np.bincount(level, minlength=levels)
    if (counts > 0).sum() == 1:
        return [f"all {len(level)} decisions are of level {int(level[0])}: ranking and calibration cannot be estimated"]
    rare = [f"{place} ({count})" for place, count in enumerate(counts) if count < FEW]
    return [f"few decisions at level {', '.join(rare)}: read what depends on it as an indication only"] if rare else []
