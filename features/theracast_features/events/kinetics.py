"""Kinetics of a serum tumour marker: doubling time, half-life, and declines such as PSA50.

The CA-125 elimination rate KELIM is in `kelim.py`. The log-linear `half_life_days` is its simple relative, not its equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from theracast_data.events.concepts import Concept
from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import column_of, concept_meanings, concept_step, concept_values, named_columns
from theracast_features.events.start import TreatmentStart, start_step, with_start
from theracast_features.events.visible import (
    by_decision,
    dated,
    groups,
    require_columns,
    since_baseline,
    start_times,
    visible_events,
)
from theracast_features.specs import FeatureSpec

Floats = NDArray[np.float64]
DAY = pd.Timedelta(days=1)

Kinetic = Literal[
    "points",
    "slope_per_day",
    "doubling_days",
    "half_life_days",
    "change_percent",
    "best_change_percent",
    "fell_by_half",
    "fell_by_half_confirmed",
]
KINETICS: tuple[Kinetic, ...] = (
    "points",
    "slope_per_day",
    "doubling_days",
    "half_life_days",
    "change_percent",
    "best_change_percent",
    "fell_by_half",
    "fell_by_half_confirmed",
)
_FITTED = KINETICS[:4]
_ARLEN = "Arlen PM et al. J Urol 2008;179:2181-2186 (PSA Working Group)"
_PCWG3 = "Scher HI et al. J Clin Oncol 2016;34:1402-1418 (PCWG3)"
# Label, unit, kind, publication of each.
_MEANINGS: Mapping[Kinetic, tuple[str, str | None, Kind, str | None]] = {
    "points": ("values in the fit", None, "numeric", None),
    "slope_per_day": ("slope of the logarithm", "/d", "numeric", _ARLEN),
    "doubling_days": ("doubling time", "d", "numeric", _ARLEN),
    "half_life_days": ("half-life", "d", "numeric", _ARLEN),
    "change_percent": ("change from baseline", "%", "numeric", _PCWG3),
    "best_change_percent": ("best change from baseline", "%", "numeric", _PCWG3),
    "fell_by_half": ("fell by half", None, "boolean", _PCWG3),
    "fell_by_half_confirmed": ("fell by half, confirmed", None, "boolean", _PCWG3),
}


class MarkerSection(Section):
    """Kinetics of one tumour marker up to the decision. Features are called `lab.MARKER.doubling_days`, ..."""

    concept: str = Field(description="Name of a concept of the study: the marker, in one unit.")
    name: str | None = Field(None, description="Name in the features; by default that of the concept.")
    kinetics: tuple[Kinetic, ...] = Field(KINETICS, min_length=1, description="Which become features.")
    start: TreatmentStart | None = Field(
        None, description="Start of the treatment, for the baseline; by default the first value is the baseline."
    )
    window_days: float | None = Field(
        None, gt=0, description="The fit uses values of the last so many days (d); changes use all. By default all."
    )
    min_points: int = Field(3, ge=2, description="Values above zero that a slope needs.")


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


@dataclass(frozen=True)
class MarkerBuilder:
    """One of the `features.markers` of a study; see `EventBuilder`."""

    section: MarkerSection
    concepts: Mapping[str, Concept]

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        section = self.section
        return concept_meanings(section.concept, section.name, section.kinetics, _MEANINGS, self.concepts)

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the kinetics as of each decision."""
        table = marker_kinetics(
            self._values(events),
            with_start(events, decisions, self.section.start, self.concepts),
            since="start",
            window_days=self.section.window_days,
            min_points=self.section.min_points,
        )
        return named_columns(table, self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return what the marker and its baseline are, and what is fitted."""
        column = column_of(name, self._meanings)
        steps = [
            concept_step(self.section.concept, self.concepts[self.section.concept]),
            "seen: those up to the decision that were available by then",
            start_step(self.section.start, self.concepts),
        ]
        if column in _FITTED:
            days = self.section.window_days
            steps.append(
                f"fitted: the logarithm of at least {self.section.min_points} values from the baseline on"
                f"{'' if days is None else f', of the last {days:g} d'}"
            )
        return tuple(steps)

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the values from the baseline on; for what is fitted, those that the fit uses."""
        seen = dated(visible_events(self._values(events), decisions)).dropna(subset=["value"])
        starts = start_times(with_start(events, decisions, self.section.start, self.concepts), "start")
        used = pd.concat([seen.iloc[:0], *(since_baseline(group, starts[number]) for number, group in groups(seen))])
        if column_of(name, self._meanings) not in _FITTED:
            return used
        days = self.section.window_days
        return dated(used[used["value"] > 0], window=None if days is None else pd.Timedelta(days=days))

    def _values(self, events: pa.Table) -> pd.DataFrame:
        return concept_values(events, self.section.concept, self.concepts)


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
    seen = dated(visible_events(values, decisions)).dropna(subset=["value"])
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
    level = since_baseline(group, start).groupby("time")["value"].mean()
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
