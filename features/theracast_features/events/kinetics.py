"""Kinetics of a serum tumour marker: doubling time, half-life, and declines such as PSA50.

The CA-125 elimination rate KELIM is not here: it is an empirical Bayes estimate under a population model whose published
parameters would have to be reproduced exactly. The log-linear `half_life_days` is its simple relative, not its equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from theracast_features.events.visible import by_decision, groups, require_columns, start_times, visible_events

Floats = NDArray[np.float64]
DAY = pd.Timedelta(days=1)

KINETICS = (
    "points",
    "slope_per_day",
    "doubling_days",
    "half_life_days",
    "change_percent",
    "best_change_percent",
    "fell_by_half",
    "fell_by_half_confirmed",
)


@dataclass(frozen=True)
class LogLinearFit:
    """Least-squares line through the natural logarithm of a marker.

    Attributes:
        slope: 1/d; NaN where it cannot be told.
        points: measurements above zero that were used.
    """

    slope: float
    points: int

    @property
    def doubling_days(self) -> float:
        """ln 2 / slope, in days; NaN unless the marker rises."""
        return float(np.log(2.0) / self.slope) if self.slope > 0 else np.nan

    @property
    def half_life_days(self) -> float:
        """Ln 2 / -slope, in days; NaN unless the marker falls."""
        return float(np.log(2.0) / -self.slope) if self.slope < 0 else np.nan


def log_linear_fit(days: ArrayLike, values: ArrayLike, *, min_points: int = 3) -> LogLinearFit:
    """Return the fit of ln(value) on time.

    Values that are missing or not above zero have no logarithm and are left out. There is no slope from fewer than
    `min_points` values, or from values of one moment alone.

    Args:
        days: (n,) d, from any origin.
        values: (n,) in any unit, the same for all.

    Source: PSA doubling time, PSA Working Group: Arlen PM et al. J Urol 2008;179:2181-2186 (three or more values).
    """
    times, levels = np.asarray(days, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(times) & np.isfinite(levels) & (levels > 0)
    times, levels = times[usable], levels[usable]
    if len(times) < max(min_points, 2) or np.ptp(times) == 0:
        return LogLinearFit(slope=np.nan, points=len(times))
    centred = times - times.mean()
    logs = np.log(levels)
    # A constant marker has slope 0 and no doubling time; rounding must not make one of millions of days.
    slope = 0.0 if np.ptp(logs) == 0 else float(centred @ (logs - logs.mean()) / (centred @ centred))
    return LogLinearFit(slope=slope, points=len(times))


def percent_change(values: ArrayLike, baseline: float) -> Floats:
    """Return 100 * (value / baseline - 1) of each value; NaN where the baseline is not above zero."""
    if not baseline > 0:
        return np.full(np.shape(np.asarray(values)), np.nan)
    return np.asarray(100.0 * (np.asarray(values, dtype=np.float64) / baseline - 1.0), dtype=np.float64)


def decline_confirmed(days: ArrayLike, changes: ArrayLike, *, decline: float = 50.0, after_days: float = 21.0) -> bool:
    """Return whether a fall by `decline` percent is met again by the next value at least `after_days` later.

    Every value between the two must meet it as well.

    Source: PCWG3, Scher HI et al. J Clin Oncol 2016;34:1402-1418 (PSA50 confirmed by a second value 3 or more weeks later).
    """
    times, met = np.asarray(days, dtype=np.float64), np.asarray(changes, dtype=np.float64) <= -decline
    for start in np.flatnonzero(met):
        later = start + 1
        while later < len(met) and met[later]:
            if times[later] - times[start] >= after_days:
                return True
            later += 1
    return False


def marker_kinetics(
    values: pd.DataFrame,
    decisions: pd.DataFrame,
    *,
    since: str | None = None,
    window_days: float | None = None,
    min_points: int = 3,
) -> pd.DataFrame:
    """Return (n, 8) `KINETICS` of one marker as of each decision; percentages of the baseline, times in days.

    `fell_by_half` is 1 where the best change is -50 % or below (PSA50 for PSA), 0 where it is not, missing where there
    is no baseline or nothing after it.

    Args:
        values: subject_id, time, value (one marker, one unit), optionally available_time. Values of one moment are
            replaced by their mean.
        since: column of `decisions` with the start of treatment. The baseline is the last value at or before it; fit and
            changes use what came after the baseline, and the baseline itself. Without it, or where it is missing, the
            first value is the baseline.
        window_days: the fit uses only values with `index_time - window_days < time`; changes use all.
        min_points: values that a slope needs.
    """
    require_columns(values, ("value",), what="values")
    seen = visible_events(values, decisions).dropna(subset=["time", "value"])
    starts = start_times(decisions, since)
    rows = {decision: _course(group, starts[decision], window_days, min_points) for decision, group in groups(seen)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(KINETICS), dtype=np.float64)
    table = by_decision(table, decisions)
    table["points"] = table["points"].fillna(0.0)
    return table


def _course(
    group: pd.DataFrame, start: pd.Timestamp | None, window_days: float | None, min_points: int
) -> tuple[float, ...]:
    """Return `KINETICS` of one decision."""
    index_time = group["index_time"].iloc[0]
    level = group.groupby("time")["value"].mean()
    if start is not None:
        before = int((level.index <= start).sum())
        # Without a baseline, what came after the start compares with nothing.
        level = level.iloc[before - 1 :] if before else level.iloc[:0]
    days = np.asarray((level.index - index_time) / DAY, dtype=np.float64)
    marker = level.to_numpy(dtype=np.float64)
    recent = slice(None) if window_days is None else days > -window_days
    fit = log_linear_fit(days[recent], marker[recent], min_points=min_points)
    if len(marker) > 1:
        changes = percent_change(marker[1:], float(marker[0]))
        last, best = float(changes[-1]), float(changes.min())
        half = np.nan if np.isnan(best) else float(best <= -50.0)
        confirmed = np.nan if np.isnan(best) else float(decline_confirmed(days[1:], changes))
    else:
        last = best = half = confirmed = np.nan
    return (
        float(fit.points),
        fit.slope,
        fit.doubling_days,
        fit.half_life_days,
        last,
        best,
        half,
        confirmed,
    )
