"""Whether a model serves subgroups equally well: performance in each, and the gaps between them with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import metrics
from theracast_training.evaluation import THRESHOLDS, evaluate_binary
from theracast_training.resampling import Floats, number, percentile_interval, resample_counts
from theracast_training.subgroups import NOT_KNOWN, FairnessSection, Subgroup, subgroup_labels

__all__ = ["FairnessSection", "Subgroup", "fairness", "subgroup_labels"]

OVERALL = (
    "auc",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "observed_expected",
    "prevalence",
    "mean_probability",
)
AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "named", "net_benefit")
Key = tuple[str, float | None]
"""A metric, and the threshold where it has one."""

CHANCE_NOTE = (
    "the widest gap between groups lies above 0 even where they do not differ: hold it against `by_chance`, the 95th "
    "percentile of the gap when the groups are dealt out at random"
)


def fairness(
    y: ArrayLike,
    p: ArrayLike,
    subgroups: Mapping[str, ArrayLike],
    *,
    weight: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    minimum_n: int = 50,
    minimum_events: int = 10,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return performance by subgroup and the gaps between subgroups, as plain JSON.

    Per column of `subgroups`: `groups` (each with `n`; `performance`, as of `evaluate_binary`, or None with the `reason`),
    `reference` (the largest group that is shown), `differences` (each other group minus the reference, with `_low` and
    `_high` from resamples of whole patients that all groups share) and `gaps` (highest minus lowest group, with its
    interval, the names of both, `NAME_by_chance` and `NAME_p_value` from groups dealt out at random among patients).
    At each threshold, a gap in `sensitivity` is one of equal opportunity, in `ppv` of predictive parity, in `named` (share
    named positive) of demographic parity; `equalised_odds` is the wider of sensitivity and specificity. Decisions whose
    group is not known are shown and not compared. Groups that differ in prevalence cannot have equal predictive values and
    equal error rates at once (Chouldechova, Big Data 2017;5:153-163), which makes the criteria a choice.

    Args:
        y: 0/1; NaN (not known) leaves the decision out.
        p: probabilities; NaN leaves the decision out.
        subgroups: column to (n,) labels; see `subgroup_labels`.
        weight: (n,) non-negative.
        thresholds: probabilities from which on a decision is named positive.
        minimum_n, minimum_events: decisions, and decisions of the rarer outcome, below which nothing else is told.
        bootstrap: resamples, and as many random dealings; 0 gives no intervals.
        seed: of both.
        group: (n,) patients, where a patient may have several decisions.

    Source: Hardt, Price, Srebro, NeurIPS 2016 (equal opportunity, equalised odds); Collins et al., BMJ 2024;385:e078378
    (TRIPOD+AI, items on fairness).
    """
    outcome, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    keep = ~np.isnan(outcome) & ~np.isnan(score)
    outcome, score, mass = metrics.check(outcome[keep], score[keep], mass[keep])
    patients = None if group is None else np.unique(np.asarray(group)[keep], return_inverse=True)[1]
    result: dict[str, Any] = {
        "n": len(outcome),
        "minimum_n": minimum_n,
        "minimum_events": minimum_events,
        "thresholds": [float(one) for one in thresholds],
        "bootstrap": bootstrap,
        "subgroups": {},
    }
    options: dict[str, Any] = {"thresholds": thresholds, "bootstrap": bootstrap, "seed": seed}
    for column, labels in subgroups.items():
        own = np.asarray(labels, dtype=object)
        if own.shape != keep.shape:
            raise ValueError(f"subgroups of {column}: {len(own)} labels for {len(keep)} decisions")
        result["subgroups"][column] = _of_column(
            outcome, score, mass, own[keep], patients, minimum=(minimum_n, minimum_events), **options
        )
    return result


def _of_column(
    y: Floats,
    p: Floats,
    mass: Floats,
    labels: NDArray[Any],
    patients: NDArray[np.intp] | None,
    *,
    minimum: tuple[int, int],
    thresholds: Sequence[float],
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    names = sorted(set(labels) - {NOT_KNOWN}) + ([NOT_KNOWN] if NOT_KNOWN in labels else [])
    groups, members = [], {}
    for name in names:
        rows = np.flatnonzero(labels == name)
        reason = _too_few(y[rows], minimum)
        record: dict[str, Any] = {"group": name, "n": len(rows), "reason": reason, "performance": None}
        if reason is None:
            record["performance"] = evaluate_binary(
                y[rows],
                p[rows],
                weight=mass[rows],
                thresholds=thresholds,
                bootstrap=bootstrap,
                seed=seed,
                group=None if patients is None else patients[rows],
            )
            if name != NOT_KNOWN:
                members[name] = rows
        groups.append(record)
    result: dict[str, Any] = {"groups": groups, "reference": None, "differences": [], "gaps": None, "notes": []}
    if len(members) < 2:
        result["notes"].append("fewer than two groups are large enough to be compared")
        return result
    return result | _compared(y, p, mass, members, patients, thresholds=thresholds, bootstrap=bootstrap, seed=seed)


def _too_few(y: Floats, minimum: tuple[int, int]) -> str | None:
    if len(y) < minimum[0]:
        return f"fewer than {minimum[0]} decisions"
    if min(y.sum(), len(y) - y.sum()) < minimum[1]:
        return f"fewer than {minimum[1]} decisions of the rarer outcome"
    return None


def _compared(
    y: Floats,
    p: Floats,
    mass: Floats,
    members: Mapping[str, NDArray[np.intp]],
    patients: NDArray[np.intp] | None,
    *,
    thresholds: Sequence[float],
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Return reference, differences, gaps and notes for groups large enough."""
    names = list(members)
    reference = max(names, key=lambda name: len(members[name]))
    whole = [_values(y[rows], p[rows], mass[None, rows], thresholds) for rows in members.values()]
    point = {key: np.concatenate([one[key] for one in whole])[:, None] for key in whole[0]}
    drawn: dict[Key, list[Floats]] = {key: [] for key in point}
    for counts in resample_counts(len(y), resamples=bootstrap, seed=seed, group=patients):
        found = [_values(y[rows], p[rows], counts[:, rows] * mass[rows], thresholds) for rows in members.values()]
        for key, parts in drawn.items():
            parts.append(np.stack([one[key] for one in found]))
    spread = {
        key: np.concatenate(parts, axis=1) if parts else np.empty((len(names), 0)) for key, parts in drawn.items()
    }
    notes = [CHANCE_NOTE] if bootstrap else []
    chance = _by_chance(y, p, mass, members, patients, thresholds=thresholds, bootstrap=bootstrap, seed=seed)
    if chance is None:
        notes = ["a patient's decisions fall into several groups: what gaps chance alone gives is not told"]
        chance = {}
    place = names.index(reference)
    differences = []
    for other in (name for name in names if name != reference):
        gap = {key: value[names.index(other)] - value[place] for key, value in point.items()}
        gaps = {key: value[names.index(other)] - value[place] for key, value in spread.items()}
        rows = {key: _with_bounds(key, gap[key], gaps[key]) for key in gap}
        differences.append({"group": other, "against": reference} | _nested(rows, thresholds))
    widest = {key: _gap(key, point[key], spread[key], names, chance.get(key)) for key in point}
    return {"reference": reference, "differences": differences, "gaps": _nested(widest, thresholds), "notes": notes}


def _values(y: Floats, p: Floats, weights: Floats, thresholds: Sequence[float]) -> dict[Key, Floats]:
    """Return (R,) of every metric, by name and threshold, for rows of weights (R, n)."""
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: dict[Key, Floats] = {
            ("auc", None): metrics.auc_each(y, p, weights),
            ("brier", None): metrics.brier_each(y, p, weights),
            ("calibration_intercept", None): metrics.calibration_intercept_each(y, p, weights),
            ("calibration_slope", None): metrics.calibration_slope_each(y, p, weights),
            ("observed_expected", None): metrics.observed_expected_each(y, p, weights),
            ("prevalence", None): weights @ y / total,
            ("mean_probability", None): weights @ p / total,
        }
        for threshold in thresholds:
            at = metrics.threshold_each(y, p, weights, threshold=threshold)
            at["named"] = weights @ (p >= threshold) / total
            at["net_benefit"] = np.asarray(at["net_benefit"])
            found |= {(name, float(threshold)): at[name] for name in AT_THRESHOLD}
    slope = found["calibration_slope", None]
    found["calibration_slope", None] = np.where(np.isfinite(slope), slope, np.nan)
    return found


def _by_chance(
    y: Floats,
    p: Floats,
    mass: Floats,
    members: Mapping[str, NDArray[np.intp]],
    patients: NDArray[np.intp] | None,
    *,
    thresholds: Sequence[float],
    bootstrap: int,
    seed: int,
) -> dict[Key, Floats] | None:
    """Return (R,) gaps of each metric with groups dealt out at random among patients; None where patients are in several."""
    rows = np.concatenate(list(members.values()))
    label = np.repeat(np.arange(len(members)), [len(one) for one in members.values()])
    owner = np.arange(len(rows)) if patients is None else np.unique(patients[rows], return_inverse=True)[1]
    first = np.full(owner.max() + 1, -1)
    first[owner] = label
    if (first[owner] != label).any():
        return None
    gaps: dict[Key, list[Floats]] = {}
    for dealt in _dealings(first, times=bootstrap, seed=seed, width=len(rows)):
        found = [
            _values(y[rows], p[rows], (dealt[:, owner] == number) * mass[rows], thresholds)
            for number in range(len(members))
        ]
        for key in found[0]:
            values = np.stack([one[key] for one in found])
            gaps.setdefault(key, []).append(values.max(axis=0) - values.min(axis=0))
    return {key: np.concatenate(parts) for key, parts in gaps.items()}


def _dealings(label: NDArray[np.intp], *, times: int, seed: int, width: int) -> Iterator[NDArray[np.intp]]:
    rng = np.random.default_rng([seed, 2])
    block = max(1, 2_000_000 // max(width, 1))
    for start in range(0, times, block):
        yield rng.permuted(np.tile(label, (min(block, times - start), 1)), axis=1)


def _with_bounds(key: Key, gap: Floats, gaps: Floats) -> dict[str, Any]:
    name, estimate = key[0], number(float(gap[0]))
    low, high = percentile_interval(gaps) if estimate is not None else (None, None)
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def _gap(key: Key, point: Floats, spread: Floats, names: Sequence[str], chance: Floats | None) -> dict[str, Any]:
    name, values = key[0], point[:, 0]
    found: dict[str, Any] = _with_bounds(key, np.ptp(point, axis=0), np.ptp(spread, axis=0))
    if found[name] is None:
        return found | dict.fromkeys((f"{name}_highest", f"{name}_lowest", f"{name}_by_chance", f"{name}_p_value"))
    found |= {f"{name}_highest": names[int(values.argmax())], f"{name}_lowest": names[int(values.argmin())]}
    known = np.empty(0) if chance is None else chance[np.isfinite(chance)]
    if not len(known):
        return found | {f"{name}_by_chance": None, f"{name}_p_value": None}
    reached = int((known >= found[name] - 1e-12).sum())
    return found | {
        f"{name}_by_chance": float(np.quantile(known, 0.95)),
        f"{name}_p_value": (reached + 1) / (len(known) + 1),
    }


def _nested(rows: Mapping[Key, dict[str, Any]], thresholds: Sequence[float]) -> dict[str, Any]:
    """Return the metrics side by side, those at thresholds in a list of their own."""
    result: dict[str, Any] = {}
    for name in OVERALL:
        result |= rows[name, None]
    result["thresholds"] = []
    for threshold in thresholds:
        row: dict[str, Any] = {"threshold": float(threshold)}
        for name in AT_THRESHOLD:
            row |= rows[name, float(threshold)]
        if "sensitivity_highest" in row:
            both = (row["sensitivity"], row["specificity"])
            row["equalised_odds"] = None if None in both else max(both)
        result["thresholds"].append(row)
    return result
