"""Whether a model holds as time goes on: performance by calendar period, forward chaining, and drift of calibration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from theracast_data.errors import CohortError
from theracast_training import metrics
from theracast_training.evaluation import THRESHOLDS, evaluate_binary
from theracast_training.refits import Fit, Rows
from theracast_training.resampling import Floats, number, percentile_interval, resample_counts, two_sided_p
from theracast_training.splits import make_folds

LEAST_N = 50
LEAST_EVENTS = 10
STEPS = 30
LARGEST = 30.0
"""A coefficient beyond this is that of outcomes that are separated: it has no estimate."""


def by_period(
    y: ArrayLike,
    p: ArrayLike,
    calendar: ArrayLike,
    *,
    edges: Sequence[float] | None = None,
    weight: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return performance by calendar period and the drift of calibration over time, as plain JSON.

    `periods`: `start`, `end` (years; a decision at `end` belongs to the next), `n`, `events` and `performance`, as of
    `evaluate_binary`. `drift`: what a year changes in calibration-in-the-large (`intercept_per_year`: log-odds by which
    the observed frequency moves away from the predicted one) and in the calibration slope (`slope_per_year`), with
    intervals and two-sided p values from resamples of whole patients.

    Args:
        y: 0/1; NaN (not known) leaves the decision out.
        p: probabilities by a model that has not seen the decisions; NaN leaves the decision out.
        calendar: (n,) years with decimals; NaN leaves the decision out, which `notes` tells.
        edges: beginnings of the periods and the end of the last; by default whole calendar years, joined until each holds
            50 decisions and 10 of the rarer outcome.
        weight: (n,) non-negative.
        thresholds, bootstrap, seed, group: as in `evaluate_binary`.

    Source: Davis et al., J Am Med Inform Assoc 2017;24:1052-1061 (calibration drift); Steyerberg, Clinical Prediction
    Models, 2nd edition 2019, chapter 19 (recalibration with an interaction).
    """
    outcome, score, when = (np.asarray(one, dtype=np.float64) for one in (y, p, calendar))
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    judged = ~np.isnan(outcome) & ~np.isnan(score)
    undated = int((judged & np.isnan(when)).sum())
    keep = judged & ~np.isnan(when)
    notes = [f"{undated} decisions have no date and are left out"] if undated else []
    outcome, score, mass = metrics.check(outcome[keep], score[keep], mass[keep])
    when, members = when[keep], None if group is None else np.asarray(group)[keep]
    if not len(outcome):
        return {
            "periods": [],
            "drift": None,
            "notes": [*notes, "no decision has a date: name the column as `calendar`"],
        }
    bounds = period_edges(when, outcome) if edges is None else _checked(edges)
    periods = []
    for start, end in pairwise(bounds):
        rows = (when >= start) & (when < end)
        performance = evaluate_binary(
            outcome[rows],
            score[rows],
            weight=mass[rows],
            thresholds=thresholds,
            bootstrap=bootstrap,
            seed=seed,
            group=None if members is None else members[rows],
        )
        periods.append(
            {
                "start": float(start),
                "end": float(end),
                "n": int(rows.sum()),
                "events": int(outcome[rows].sum()),
                "performance": performance if rows.any() else None,
            }
        )
    outside = int(((when < bounds[0]) | (when >= bounds[-1])).sum())
    notes += [f"{outside} decisions lie outside the periods"] if outside else []
    notes += ["all decisions fall into one period: nothing is compared"] if len(periods) < 2 else []
    drift = calibration_drift(outcome, score, when, weight=mass, bootstrap=bootstrap, seed=seed, group=members)
    return {"periods": periods, "drift": drift, "notes": notes}


def calibration_drift(
    y: ArrayLike,
    p: ArrayLike,
    calendar: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return by how much calibration moves in a year, as plain JSON; all values known, see `by_period`.

    `intercept_per_year` is the coefficient of time beside the offset logit(p); `slope_per_year` that of time times
    logit(p) in a regression on logit(p), time and both. `sentence` puts the first into words.
    """
    outcome, score, mass = metrics.check(y, p, weight)
    when = np.asarray(calendar, dtype=np.float64)
    keys = ("intercept_per_year", "slope_per_year")
    result: dict[str, Any] = {"n": len(outcome), "years": float(np.ptp(when)) if len(when) else 0.0}
    result |= {f"{key}{end}": None for key in keys for end in ("", "_low", "_high", "_p_value")}
    if not len(when) or np.ptp(when) < 1e-9 or not 0 < outcome.sum() < len(outcome):
        return result | {"sentence": None, "note": "needs decisions at different times, with both outcomes"}
    lp = np.asarray(logit(np.clip(score, metrics.SMALLEST_PROBABILITY, 1 - metrics.SMALLEST_PROBABILITY)))
    time = when - np.average(when, weights=mass)
    ones = np.ones_like(time)
    shift, tilt = np.column_stack([ones, time]), np.column_stack([ones, lp, time, lp * time])

    def each(weights: Floats) -> tuple[Floats, Floats]:
        level = logistic_each(shift, outcome, weights, offset=lp)[:, 1]
        return level, logistic_each(tilt, outcome, weights, offset=np.zeros_like(lp))[:, 3]

    point = each(mass[None, :])
    blocks = [
        each(counts * mass) for counts in resample_counts(len(outcome), resamples=bootstrap, seed=seed, group=group)
    ]
    for place, key in enumerate(keys):
        estimate = number(float(point[place][0]))
        values = np.concatenate([block[place] for block in blocks]) if blocks else np.empty(0)
        low, high = percentile_interval(values) if estimate is not None else (None, None)
        result |= {key: estimate, f"{key}_low": low, f"{key}_high": high, f"{key}_p_value": two_sided_p(values)}
    return result | {"sentence": _sentence(result), "note": None}


def forward_chain(
    fit: Fit,
    y: Floats,
    decisions: pd.DataFrame,
    *,
    steps: int = 4,
    weight: Floats | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    bootstrap: int = 1000,
    seed: int = 0,
    group: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return performance when the procedure learns from all that was and is judged on what came next, as plain JSON.

    `steps`: what was learnt from (`learnt`, `learnt_events`), what was judged (`n`, `events`, `start`, `end` in years
    where the calendar is known) and its `performance`; `pooled`: all judged decisions together.

    Args:
        fit: the procedure; see `refits.recipe_fit`.
        y: (n,) 0/1, all known.
        decisions: (n, ...) with `index_time` or `calendar` known for all; `subject_id`, `site`.
        steps: judged blocks, of about equally many decisions; the first block is only learnt from.
        weight, thresholds, bootstrap, seed, group: as in `evaluate_binary`.

    Raises:
        CohortError: there are no dates, all are the same, or a beginning holds one outcome only.
    """
    mass = np.ones_like(y) if weight is None else weight
    members = None if group is None else np.asarray(group)
    calendar = _years(decisions)
    judged: list[Rows] = []
    probability: list[Floats] = []
    told: list[dict[str, Any]] = []
    for train, test in make_folds(decisions, y, by="time", folds=steps, seed=seed):
        try:
            p = fit(train)(test)
        except CohortError as error:
            told.append({"learnt": len(train), "n": len(test), "performance": None, "note": str(error)})
            continue
        judged.append(test)
        probability.append(p)
        told.append(
            {
                "learnt": len(train),
                "learnt_events": int(y[train].sum()),
                "n": len(test),
                "events": int(y[test].sum()),
                "start": number(float(calendar[test].min())),
                "end": number(float(calendar[test].max())),
                "performance": evaluate_binary(
                    y[test],
                    p,
                    weight=mass[test],
                    thresholds=thresholds,
                    bootstrap=bootstrap,
                    seed=seed,
                    group=None if members is None else members[test],
                ),
                "note": None,
            }
        )
    if not judged:
        return {"steps": told, "pooled": None, "drift": None}
    rows, p = np.concatenate(judged), np.concatenate(probability)
    own = None if members is None else members[rows]
    options: dict[str, Any] = {"weight": mass[rows], "bootstrap": bootstrap, "seed": seed, "group": own}
    pooled = evaluate_binary(y[rows], p, thresholds=thresholds, **options)
    drift = calibration_drift(y[rows], p, calendar[rows], **options) if np.isfinite(calendar[rows]).all() else None
    return {"steps": told, "pooled": pooled, "drift": drift}


def period_edges(
    calendar: Floats, y: Floats, *, least_n: int = LEAST_N, least_events: int = LEAST_EVENTS
) -> list[float]:
    """Return beginnings of periods, and the end of the last: whole years joined until each is large enough.

    A last period that is too small joins the one before it.
    """
    first, last = int(np.floor(calendar.min())), int(np.floor(calendar.max())) + 1
    edges = [float(first)]
    for end in range(first + 1, last + 1):
        rows = (calendar >= edges[-1]) & (calendar < end)
        events = y[rows].sum()
        if rows.sum() >= least_n and min(events, rows.sum() - events) >= least_events:
            edges.append(float(end))
    if edges[-1] != last:
        edges = [*edges[:-1], float(last)] if len(edges) > 1 else [float(first), float(last)]
    return edges


def logistic_each(X: Floats, y: Floats, weights: Floats, *, offset: Floats) -> Floats:
    """Return (R, k) coefficients of logistic regressions on X (n, k) with an offset (n,), for rows of weights (R, n).

    NaN where no finite estimate exists (outcomes separated, or a column without spread).
    """
    beta = np.zeros((len(weights), X.shape[1]))
    active = np.arange(len(weights))
    done = np.zeros(len(weights), dtype=bool)
    for _ in range(STEPS):
        own = weights[active]
        fitted = expit(beta[active] @ X.T + offset)
        gradient = (own * (y - fitted)) @ X
        hessian = np.einsum("rn,nk,nl->rkl", own * fitted * (1 - fitted), X, X, optimize=True)
        usable = np.linalg.cond(hessian) < 1e12
        active, gradient, hessian = active[usable], gradient[usable], hessian[usable]
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        beta[active] += step
        arrived = np.abs(step).max(axis=1) <= 1e-9
        done[active[arrived]] = True
        active = active[~arrived]
        if not len(active):
            break
    beta[~done | (np.abs(beta).max(axis=1) > LARGEST)] = np.nan
    return beta


def _checked(edges: Sequence[float]) -> list[float]:
    found = [float(one) for one in edges]
    if len(found) < 2 or found != sorted(set(found)):
        raise ValueError("edges of periods: at least two years, rising")
    return found


def _years(decisions: pd.DataFrame) -> NDArray[np.float64]:
    """Return (n,) years with decimals: `calendar`, or the index time where that is not known."""
    calendar = decisions["calendar"].to_numpy(dtype=np.float64)
    if not np.isnan(calendar).any():
        return calendar
    moment = pd.to_datetime(decisions["index_time"])
    if moment.isna().any():
        return calendar
    return np.asarray(moment.dt.year + (moment.dt.day_of_year - 1) / 365.25, dtype=np.float64)


def _sentence(drift: dict[str, Any]) -> str | None:
    value, low, high = (drift[f"intercept_per_year{end}"] for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return None
    bounds = f"{low:+.2f} to {high:+.2f}".replace("-", "−")
    if low <= 0 <= high:
        amount = f"{value:+.2f}".replace("-", "−")
        return f"No drift of calibration is seen: {amount} log-odds a year ({bounds})."
    side = "rises above" if value > 0 else "falls below"
    return f"The observed frequency {side} the predicted one by {abs(value):.2f} log-odds a year ({bounds})."
