"""Performance of predictions of time to event, and of two on the same patients, with bootstrap intervals, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_training import survival_metrics as measures
from theracast_training.observed import aalen_johansen, follow_up_median
from theracast_training.resampling import Floats, number, resample_counts, with_difference, with_interval
from theracast_training.survival_calibration import calibration_groups, errors_each
from theracast_training.survival_metrics import Followed, Seen, seen_each

FEW = 10
"""Fewer events, or fewer decisions followed to a horizon, are noted: intervals from so few are rough."""

_ONCE = ("c_harrell", "c_uno", "calibration_slope", "ibs", "ibs_null", "ibs_scaled")
_AT_HORIZON = ("observed", "observed_expected", "auc", "brier", "brier_null", "scaled_brier", "ici", "e50", "e90")
_DISTANCES = ("ici", "e50", "e90")


@dataclass(frozen=True)
class Sample:
    """Decisions in order of time with all that is predicted of them."""

    followed: Followed
    risks: list[Floats]
    probability: Floats
    grid: Floats
    grid_probability: Floats
    group: NDArray[Any] | None
    reference: tuple[Floats, NDArray[Any]] | None


def evaluate_survival(
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
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the performance of risks and event probabilities against times to event, with 95 % intervals, as JSON.

    Every metric stands beside its `_low` and `_high` (percentile bootstrap; `observed`: log-log on the delta method's
    variance, with `group` the bootstrap). What cannot be estimated is None and `notes` says why. Without `reference` the
    censoring is estimated anew in every resample. The distances `ici`, `e50` and `e90` of few patients are too high even
    for a perfect model, and resampling adds as much again: their intervals reach as far below the estimate as the upper
    percentile lies above it, at most to 0, as in `evaluate_binary`.

    Competing events (`event` neither 0 nor `cause`): `observed` is Aalen-Johansen's, AUC and Brier score are Blanche's,
    C Wolbers's; `calibration_slope` is of the cause-specific hazard.

    Args:
        time: (n,) days from the index time to the event or to censoring; NaN leaves the decision out.
        event: (n,) 0 censored, `cause` the event asked about, any other number a competing one.
        risk: (n,) log-hazard score, higher is earlier; ranks for C, and its Cox slope is the calibration slope.
        horizons: H days, rising; C of Uno counts events before the last.
        probability: (n, H) probability of the event by each horizon.
        reference: (time, event) of the decisions from which the chance of being censored is estimated instead.
        group: (n,) patients, where a patient may have several decisions: whole patients are then drawn.
        survival_grid: (T,) days and (n, T) event probabilities for the Brier score integrated over the days up to the
            last horizon; without it `ibs` is None.
        bootstrap: resamples; 0 gives no intervals.
        seed: same seed, same intervals.
    """
    at = checked_horizons(horizons)
    sample, notes = known_sample(
        time, event, [risk], at, probability, group=group, cause=cause, grid=survival_grid, reference=reference
    )
    followed = sample.followed
    n, events = len(followed.time), int((followed.event == 1).sum())
    result: dict[str, Any] = {"n": n, "events": events, "competing": int((followed.event == 2).sum())}
    result["follow_up_median"] = number(follow_up_median(followed.time, followed.event)) if n else None
    estimates: dict[str, Floats] = {}
    resampled: dict[str, Floats] = {}
    if n:
        estimates = _all_metrics(sample, np.ones((1, n)), at)
        blocks = resample_counts(n, resamples=bootstrap, seed=seed, group=sample.group)
        resampled = _joined([_all_metrics(sample, counts, at) for counts in blocks])
    for name in _ONCE:
        result |= _estimated(name, name, estimates, resampled)
    result["horizons"] = [_at_horizon(sample, place, day, estimates, resampled) for place, day in enumerate(at)]
    notes += _notes(result, n=n, events=events, grid=survival_grid is not None, bootstrap=bootstrap)
    return result | {"bootstrap": bootstrap, "notes": notes}


def compare_survival(
    time: ArrayLike,
    event: ArrayLike,
    risk_a: ArrayLike,
    risk_b: ArrayLike,
    *,
    tau: float = np.inf,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    group: ArrayLike | None = None,
    cause: int = 1,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how much better `risk_a` ranks than `risk_b` on the same decisions, every resample used for both, as JSON.

    For `c_harrell` and `c_uno` (events before `tau` days): `_a`, `_b`, `_difference` (a minus b) with `_difference_low`,
    `_difference_high` and two-sided `_p_value`. Decisions that lack either risk are left out and `notes` tells how many.
    """
    nothing = np.empty((len(np.asarray(time)), 0))
    sample, notes = known_sample(
        time, event, [risk_a, risk_b], np.empty(0), nothing, group=group, cause=cause, grid=None, reference=reference
    )
    followed = sample.followed
    n, events = len(followed.time), int((followed.event == 1).sum())
    result: dict[str, Any] = {"n": n, "events": events, "competing": int((followed.event == 2).sum())}
    estimates: list[dict[str, Floats]] = [{}, {}]
    differences: dict[str, Floats] = {}
    if n:
        estimates = _both_rankings(sample, np.ones((1, n)), tau=tau)
        pairs = (
            _both_rankings(sample, counts, tau=tau)
            for counts in resample_counts(n, resamples=bootstrap, seed=seed, group=sample.group)
        )
        differences = _joined([{name: first[name] - second[name] for name in first} for first, second in pairs])
    for name in ("c_harrell", "c_uno"):
        first, second = (_value(found, name) for found in estimates)
        result |= with_difference(name, first, second, differences.get(name, np.empty(0)))
    return result | {"bootstrap": bootstrap, "notes": notes + _few_notes(n, events)}


def checked_horizons(horizons: Sequence[float]) -> Floats:
    """Return the horizons in days as an array, or say why they cannot be meant."""
    at = np.asarray(horizons, dtype=np.float64)
    if at.ndim != 1 or not len(at) or not (at > 0).all() or not (np.diff(at) > 0).all():
        raise ValueError(f"horizons must be days above 0, at least one, rising; not {list(at.ravel())}")
    return at


def known_sample(
    time: ArrayLike,
    event: ArrayLike,
    risks: Sequence[ArrayLike],
    horizons: Floats,
    probability: ArrayLike,
    *,
    group: ArrayLike | None,
    cause: int,
    grid: tuple[ArrayLike, ArrayLike] | None,
    reference: tuple[ArrayLike, ArrayLike] | None,
) -> tuple[Sample, list[str]]:
    """Return the decisions with all that is needed, in order of time, and notes on those left out."""
    days, kind = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=np.float64)
    columns = [np.asarray(risk, dtype=np.float64) for risk in risks]
    n = len(days)
    when = np.empty(0) if grid is None else np.asarray(grid[0], dtype=np.float64)
    predicted = _probabilities(probability, n, len(horizons), what="probability")
    over_time = _probabilities(np.empty((n, 0)) if grid is None else grid[1], n, len(when), what="survival_grid")
    if any(column.shape != (n,) for column in [kind, *columns]) or (group is not None and len(np.asarray(group)) != n):
        raise ValueError(f"times, events, risks and groups must be flat and of one length, {n} as the times")
    if len(when) and not (np.diff(when) > 0).all():
        raise ValueError("the days of survival_grid must rise")
    no_outcome = np.isnan(days) | np.isnan(kind)
    every = np.column_stack([*columns, predicted, over_time])
    no_score = np.isnan(every).any(axis=1) & ~no_outcome
    keep = ~no_outcome & ~no_score
    notes = [
        f"{int(left_out.sum())} of {n} decisions have no {what} and are left out"
        for left_out, what in ((no_outcome, "known time and event"), (no_score, "score"))
        if left_out.any()
    ]
    _check_outcomes(days[keep], kind[keep])
    if not np.isfinite(every[keep]).all():
        raise ValueError("risks must be finite; leave decisions without a score out or give NaN")
    within = when <= horizons[-1] if len(horizons) else np.zeros(len(when), dtype=bool)
    followed = Followed.over(days[keep], kind[keep], cause=cause)
    rows = np.flatnonzero(keep)[followed.order]
    sample = Sample(
        followed,
        [column[rows] for column in columns],
        predicted[rows],
        when[within],
        over_time[rows][:, within],
        None if group is None else np.asarray(group)[rows],
        _reference(reference),
    )
    return sample, notes


def _probabilities(values: ArrayLike, n: int, columns: int, *, what: str) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim == 1 and columns == 1:
        found = found[:, None]
    if found.shape != (n, columns):
        raise ValueError(f"{what} must have one row a decision and one column a day, {(n, columns)}, not {found.shape}")
    if ((found < 0) | (found > 1)).any():
        raise ValueError(f"{what} must lie in [0, 1]: the probability of the event by each day, not of its absence")
    return found


def _check_outcomes(time: Floats, event: Floats) -> None:
    if not (np.isfinite(time) & (time >= 0)).all():
        raise ValueError("times must be finite days, 0 or more; leave decisions without follow-up out first")
    if not ((event >= 0) & (event == np.floor(event))).all():
        raise ValueError("events must be 0 (censored) or the whole number of an event")


def _reference(reference: tuple[ArrayLike, ArrayLike] | None) -> tuple[Floats, NDArray[Any]] | None:
    if reference is None:
        return None
    time, event = (np.asarray(values, dtype=np.float64) for values in reference)
    known = ~np.isnan(time) & ~np.isnan(event)
    if time.shape != event.shape or not known.any():
        raise ValueError("reference must be times and events of one length, at least one of them known")
    _check_outcomes(time[known], event[known])
    return time[known], event[known].astype(np.int64)


def _all_metrics(sample: Sample, weights: Floats, horizons: Floats) -> dict[str, Floats]:
    """Return every metric (R,) for rows of weights (R, n); those of a horizon under `name@place`."""
    followed, (risk,) = sample.followed, sample.risks
    seen = seen_each(followed, weights, sample.reference)
    values = {
        "c_harrell": measures.c_harrell_each(followed, risk, weights),
        "c_uno": measures.c_uno_each(followed, risk, weights, seen, tau=float(horizons[-1])),
        "calibration_slope": measures.cox_slope_each(followed, risk, weights),
    }
    grid, over_time = sample.grid, sample.grid_probability
    values["ibs"] = measures.integrated(measures.brier_each(followed, over_time, weights, seen, when=grid), grid)
    values["ibs_null"] = measures.integrated(measures.null_brier_each(followed, weights, seen, when=grid), grid)
    values["ibs_scaled"] = _improvement(values["ibs"], values["ibs_null"])
    observed = measures.incidence_each(followed, weights, horizons)
    brier = measures.brier_each(followed, sample.probability, weights, seen, when=horizons)
    null = measures.null_brier_each(followed, weights, seen, when=horizons)
    expected = weights @ sample.probability / weights.sum(axis=1)[:, None]
    for place, horizon in enumerate(horizons):
        p = sample.probability[:, place]
        found = _one_horizon(followed, p, weights, seen, horizon=float(horizon))
        found |= {"observed": observed[:, place], "brier": brier[:, place], "brier_null": null[:, place]}
        found["scaled_brier"] = _improvement(brier[:, place], null[:, place])
        with np.errstate(divide="ignore", invalid="ignore"):
            found["observed_expected"] = observed[:, place] / expected[:, place]
        values |= {f"{name}@{place}": value for name, value in found.items()}
    return values


def _one_horizon(followed: Followed, p: Floats, weights: Floats, seen: Seen, *, horizon: float) -> dict[str, Floats]:
    found = {"auc": measures.horizon_auc_each(followed, p, weights, seen, horizon=horizon)}
    came = (followed.time <= horizon) & (followed.event == 1)
    if came.sum() >= FEW and followed.time[-1] >= horizon:
        return found | errors_each(followed, p, weights, seen, horizon=horizon)
    return found | {name: np.full(len(weights), np.nan) for name in _DISTANCES}


def _both_rankings(sample: Sample, weights: Floats, *, tau: float) -> list[dict[str, Floats]]:
    seen = seen_each(sample.followed, weights, sample.reference)
    return [
        {
            "c_harrell": measures.c_harrell_each(sample.followed, risk, weights),
            "c_uno": measures.c_uno_each(sample.followed, risk, weights, seen, tau=tau),
        }
        for risk in sample.risks
    ]


def _improvement(value: Floats, null: Floats) -> Floats:
    return 1.0 - np.divide(value, null, out=np.full_like(value, np.nan), where=null > 0)


def _joined(blocks: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def _value(estimates: Mapping[str, Floats], key: str) -> float | None:
    return number(float(estimates[key][0])) if key in estimates else None


def _estimated(
    name: str, key: str, estimates: Mapping[str, Floats], resampled: Mapping[str, Floats]
) -> dict[str, float | None]:
    found = with_interval(name, _value(estimates, key), resampled.get(key, np.empty(0)))
    estimate, high = found[name], found[f"{name}_high"]
    if name in _DISTANCES and estimate is not None and high is not None:
        high = max(high, estimate)
        found |= {f"{name}_low": max(0.0, 2 * estimate - high), f"{name}_high": high}
    return found


def _at_horizon(
    sample: Sample, place: int, horizon: float, estimates: Mapping[str, Floats], resampled: Mapping[str, Floats]
) -> dict[str, Any]:
    """Return the row of one horizon."""
    followed, p = sample.followed, sample.probability[:, place]
    row: dict[str, Any] = {
        "horizon": float(horizon),
        "n_at_risk": int((followed.time >= horizon).sum()),
        "events": int(((followed.time <= horizon) & (followed.event == 1)).sum()),
        "predicted": number(float(p.mean())) if len(p) else None,
    }
    for name in _AT_HORIZON:
        row |= _estimated(name, f"{name}@{place}", estimates, resampled)
    if sample.group is None and len(p):
        low, high = aalen_johansen(followed.time, followed.event).interval_at(horizon)
        row |= {"observed_low": number(float(low)), "observed_high": number(float(high))}
    return row | {"groups": calibration_groups(followed, p, horizon=float(horizon))}


def _few_notes(n: int, events: int) -> list[str]:
    if not n:
        return ["no decision has time, event and score: nothing can be estimated"]
    if not events:
        return [f"none of {n} decisions had the event: ranking and calibration cannot be estimated"]
    if events < FEW:
        return [f"only {events} events: read every figure here as an indication only"]
    return []


def _notes(result: Mapping[str, Any], *, n: int, events: int, grid: bool, bootstrap: int) -> list[str]:
    notes = _few_notes(n, events)
    if not n or not events:
        return notes
    if grid and result["ibs"] is None:
        notes.append(
            "the integrated Brier score is missing: it needs two days of the grid or more, all within follow-up"
        )
    if result["calibration_slope"] is None:
        notes.append("risk does not vary or orders every event: the calibration slope has no finite estimate")
    rows: list[tuple[Mapping[str, Any], Sequence[str], str]] = [(result, _ONCE, "")]
    for row in result["horizons"]:
        day = f"at {row['horizon']:g} days: "
        rows.append((row, _AT_HORIZON, day))
        if row["observed"] is None:
            notes.append(f"{day}nobody was followed so far, nothing can be estimated")
            continue
        if row["n_at_risk"] < FEW:
            notes.append(f"{day}only {row['n_at_risk']} decisions were still followed")
        if row["brier"] is None:
            notes.append(
                f"{day}by the reference, none would have been followed so far: AUC and Brier score are missing"
            )
        elif row["auc"] is None:
            notes.append(f"{day}all had the event or none had: there is no AUC")
        if row["events"] < FEW:
            notes.append(f"{day}only {row['events']} events, too few for a smooth calibration line")
        elif row["ici"] is None:
            notes.append(f"{day}no smooth calibration line can be fitted to these probabilities")
    for row, names, where in rows if bootstrap else []:
        bare = [
            one for one in names if row[one] is not None and (row[f"{one}_low"] is None or row[f"{one}_high"] is None)
        ]
        if bare:
            notes.append(f"{where}too few usable resamples for an interval of: {', '.join(bare)}")
    return notes
