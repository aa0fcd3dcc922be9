"""Tumour growth from serial diameters: growth rate, regression-growth model, and the course by RECIST's thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_data.events.report import IngestReport
from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import column_of, concept_meanings, concept_step, concept_values, named_columns
from theracast_features.events.start import TreatmentStart, start_step, with_start
from theracast_features.events.visible import (
    by_decision,
    dated,
    groups,
    require_columns,
    start_times,
    visible_events,
)
from theracast_features.specs import FeatureSpec

Floats = NDArray[np.float64]
DAYS_PER_MONTH = 365.25 / 12
DAY = pd.Timedelta(days=1)

GrowthColumn = Literal[
    "points",
    "baseline_mm",
    "last_mm",
    "nadir_mm",
    "change_percent",
    "best_change_percent",
    "from_nadir_percent",
    "tgr_percent_per_month",
    "progressed",
    "days_to_progression",
    "growth_per_day",
    "decay_per_day",
]
_RECIST = "RECIST 1.1, Eisenhauer EA et al. Eur J Cancer 2009;45:228-247"
_STEIN = "Stein WD et al. Clin Cancer Res 2011;17:907-917"
_FERTE = "Ferte C et al. Clin Cancer Res 2014;20:246-252"
# Label, unit, kind, publication of each.
_MEANINGS: Mapping[GrowthColumn, tuple[str, str | None, Kind, str | None]] = {
    "points": ("measurements", None, "numeric", None),
    "baseline_mm": ("baseline", "mm", "numeric", None),
    "last_mm": ("last", "mm", "numeric", None),
    "nadir_mm": ("smallest", "mm", "numeric", _RECIST),
    "change_percent": ("change from baseline", "%", "numeric", _RECIST),
    "best_change_percent": ("best change from baseline", "%", "numeric", _RECIST),
    "from_nadir_percent": ("change from the smallest before", "%", "numeric", _RECIST),
    "tgr_percent_per_month": ("growth rate of the volume", "%/mo", "numeric", _FERTE),
    "progressed": ("progressed, target lesions", None, "boolean", _RECIST),
    "days_to_progression": ("days to progression, target lesions", "d", "numeric", _RECIST),
    "growth_per_day": ("growth rate of the regression-growth model", "/d", "numeric", _STEIN),
    "decay_per_day": ("decay rate of the regression-growth model", "/d", "numeric", _STEIN),
}
GROWTH: tuple[GrowthColumn, ...] = tuple(_MEANINGS)
_MODEL = ("growth_per_day", "decay_per_day")


class GrowthSection(Section):
    """Course and growth of the tumour from serial sums of diameters. Features are called `image.CONCEPT.nadir_mm`, ..."""

    concept: str = Field(description="Name of a concept with unit mm: the sum of the target lesions' diameters.")
    name: str | None = Field(None, description="Name in the features; by default that of the concept.")
    growth: tuple[GrowthColumn, ...] = Field(GROWTH, min_length=1, description="Which become features.")
    start: TreatmentStart | None = Field(
        None, description="Start of the treatment, for the baseline; by default the first sum is the baseline."
    )


def tumour_growth_rate(first_mm: ArrayLike, later_mm: ArrayLike, days: ArrayLike) -> Floats:
    """Return the tumour growth rate in percent of volume per month: 100 * (exp(TG) - 1), TG = 3 ln(Dt / D0) / months.

    A month is 365.25 / 12 days. A sum that is missing or 0 (all lesions gone) has no rate, nor has a time of 0.

    Args:
        first_mm, later_mm: sums of the diameters of the same target lesions, mm.
        days: d from the first to the later, above 0.

    Source: Ferte C et al. Clin Cancer Res 2014;20:246-252; Champiat S et al. Clin Cancer Res 2017;23:1920-1928.
    """
    first, later, time = (np.asarray(given, dtype=np.float64) for given in (first_mm, later_mm, days))
    usable = (first > 0) & (later > 0) & (time > 0)
    # Divided before the logarithm: the rate then depends on nothing but the ratio, whatever the unit of length.
    ratio = np.where(usable, later, np.nan) / np.where(usable, first, np.nan)
    rate = 3.0 * np.log(ratio) / (np.where(usable, time, np.nan) / DAYS_PER_MONTH)
    return np.asarray(100.0 * np.expm1(rate), dtype=np.float64)


@dataclass(frozen=True)
class RegressionGrowth:
    """Fit of f(t) = exp(-d t) + exp(g t) - 1 to the size relative to baseline.

    Attributes:
        growth: g, 1/d, at least 0; NaN where there were too few measurements.
        decay: d, 1/d, at least 0.
        rmse: root mean squared error of the relative size.
        points: measurements after the baseline.
    """

    growth: float
    decay: float
    rmse: float
    points: int


MAX_RATE = 0.2  # 1/d: a size that halves or doubles in 3.5 days; beyond it the data cannot tell rates apart
_STEPS = 150
_NO_RATE = 1e-6  # 1/d: a doubling in 1,900 years
_MAX_GROWTH = 50.0  # g times the length of observation: exp(50) is no tumour, and squares of it still are numbers
_STARTS = ((1e-3, 1e-2), (1e-3, 1e-4), (5e-3, 1e-3), (1e-4, 5e-2))


def fit_regression_growth(days: ArrayLike, relative: ArrayLike, *, min_points: int = 2) -> RegressionGrowth:
    """Return the regression-growth fit of one patient, by least squares with both rates between 0 and `MAX_RATE`.

    The rates end at 0 where the data show no growth, or no regression; f is then the publication's simpler model.

    Args:
        days: (n,) d after the baseline, above 0.
        relative: (n,) size divided by the baseline's, same order; missing values are left out.
        min_points: measurements after the baseline that are needed; the model has two unknowns.

    Source: Stein WD et al. Clin Cancer Res 2011;17:907-917 (equation 1).
    """
    time, size = np.asarray(days, dtype=np.float64), np.asarray(relative, dtype=np.float64)
    usable = np.isfinite(time) & np.isfinite(size) & (time > 0)
    time, size = time[usable], size[usable]
    if len(time) < max(min_points, 2):
        return RegressionGrowth(np.nan, np.nan, np.nan, len(time))
    # Rates are fitted times the length of observation, so that both unknowns are of the order of one.
    span = float(time.max())
    upper = np.array([min(MAX_RATE * span, _MAX_GROWTH), MAX_RATE * span])
    rates, costs = _least_squares(time / span, size, np.minimum(np.array(_STARTS) * span, 0.9 * upper), upper)
    best = int(costs.argmin())
    # A rate that moves nothing in a lifetime is none.
    growth, decay = (float(rate) / span if rate > _NO_RATE * span else 0.0 for rate in rates[best])
    return RegressionGrowth(growth, decay, float(np.sqrt(costs[best] / len(time))), len(time))


def regression_growth(days: ArrayLike, *, growth: float, decay: float) -> Floats:
    """Return f(t) = exp(-d t) + exp(g t) - 1, the size relative to baseline. Time in d, rates in 1/d."""
    return _relative_size(np.array([growth, decay]), np.asarray(days, dtype=np.float64))


@dataclass(frozen=True)
class Course:
    """One patient's sums of diameters by the thresholds of RECIST 1.1, from target lesions alone.

    Attributes:
        points: measurements, the baseline among them.
        baseline_mm, last_mm: mm.
        nadir_mm: smallest sum, baseline included, mm.
        change_percent: last against baseline.
        best_change_percent: smallest change after baseline.
        from_nadir_percent: last against the smallest sum before it; NaN where that was 0 and lesions came back.
        progressed: whether any sum was at least 20 % and 5 mm above the smallest before it.
        days_to_progression: d from baseline to the first such sum; NaN without one.
    """

    points: int
    baseline_mm: float
    last_mm: float
    nadir_mm: float
    change_percent: float
    best_change_percent: float
    from_nadir_percent: float
    progressed: float
    days_to_progression: float


def course(days: ArrayLike, sums_mm: ArrayLike) -> Course:
    """Return the course of sums of diameters; the first is the baseline.

    New lesions and non-target lesions are not seen here, so progression is that of target lesions only.

    Args:
        days: (n,) d, ascending.
        sums_mm: (n,) mm, no missing values.

    Source: RECIST 1.1, Eisenhauer EA et al. Eur J Cancer 2009;45:228-247.
    """
    time, size = np.asarray(days, dtype=np.float64), np.asarray(sums_mm, dtype=np.float64)
    if len(size) == 0:
        return Course(0, *([np.nan] * 8))
    if len(size) == 1:
        return Course(1, size[0], size[0], size[0], *([np.nan] * 5))
    smallest = np.minimum.accumulate(size)[:-1]
    increase = size[1:] - smallest
    # A rise from 0 is progression by the absolute rule alone. The tolerance keeps 20 % of a decimal number 20 %.
    worse = (increase >= 5.0) & (increase >= 0.2 * smallest - 1e-9)
    changes = 100.0 * (size[1:] / size[0] - 1.0) if size[0] > 0 else np.full(len(size) - 1, np.nan)
    back = np.nan if increase[-1] else 0.0
    from_nadir = 100.0 * float(increase[-1] / smallest[-1]) if smallest[-1] > 0 else back
    return Course(
        points=len(size),
        baseline_mm=float(size[0]),
        last_mm=float(size[-1]),
        nadir_mm=float(size.min()),
        change_percent=float(changes[-1]),
        best_change_percent=float(changes.min()),
        from_nadir_percent=from_nadir,
        progressed=float(worse.any()),
        days_to_progression=float(time[1:][worse][0] - time[0]) if worse.any() else np.nan,
    )


@dataclass(frozen=True)
class GrowthBuilder:
    """One of the `features.growth` of a study; see `EventBuilder`."""

    section: GrowthSection
    concepts: Mapping[str, Concept]

    def __post_init__(self) -> None:
        found = self.concepts[self.section.concept].unit
        if found != "mm":
            raise StudyError(
                f"features.growth: the concept {self.section.concept!r} must have the unit mm, for RECIST counts "
                f"millimetres (found {found or 'none'}). Write `unit: mm` there; values in cm are converted."
            )

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        section = self.section
        return concept_meanings(section.concept, section.name, section.growth, _MEANINGS, self.concepts)

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return course and growth as of each decision."""
        asked = with_start(events, decisions, self.section.start, self.concepts)
        fit = any(column in self.section.growth for column in _MODEL)
        return named_columns(growth_features(self._sums(events), asked, since="start", fit=fit), self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return what is measured, from when, and the rule."""
        spec = self._meanings[column_of(name, self._meanings)]
        steps = (
            concept_step(self.section.concept, self.concepts[self.section.concept]),
            "seen: those up to the decision that were available by then",
            start_step(self.section.start, self.concepts) + (", or the first" if self.section.start else ""),
        )
        return steps if spec.source is None else (*steps, f"rule: {spec.source}")

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the sums from the baseline on; of the growth rate the last two, of the last sum that one alone."""
        column = column_of(name, self._meanings)
        seen = dated(visible_events(self._sums(events), decisions)).dropna(subset=["value"])
        starts = start_times(with_start(events, decisions, self.section.start, self.concepts), "start")
        parts = [seen.iloc[:0]]
        for number, group in groups(seen):
            moments, start = group["time"].drop_duplicates(), starts[number]
            first = 0 if start is None else max(int((moments <= start).sum()) - 1, 0)
            used = {"tgr_percent_per_month": moments.iloc[-2:], "last_mm": moments.iloc[-1:]}.get(
                column, moments[first:]
            )
            parts.append(group[group["time"].isin(used.iloc[:1] if column == "baseline_mm" else used)])
        return pd.concat(parts)

    def _sums(self, events: pa.Table) -> pd.DataFrame:
        return concept_values(events, self.section.concept, self.concepts)


def growth_features(
    sums: pd.DataFrame, decisions: pd.DataFrame, *, since: str | None = None, fit: bool = True
) -> pd.DataFrame:
    """Return (n, 12) `GROWTH` as of each decision.

    The growth rate is that between the last two sums, so before a first treatment it is the rate the tumour had.

    Args:
        sums: subject_id, time, value: sum of the target lesions' diameters in mm; optionally available_time. Several
            sums of one moment are replaced by their mean.
        since: column of `decisions` with the start of treatment: the baseline is the last sum at or before it. Without
            it, or where there is none before it, the first sum is the baseline.
        fit: whether to fit the regression-growth model, milliseconds a decision; otherwise its columns are missing.
    """
    require_columns(sums, ("value",), what="sums")
    seen = dated(visible_events(sums, decisions)).dropna(subset=["value"])
    starts = start_times(decisions, since)
    rows = {decision: _summary(group, starts[decision], fit=fit) for decision, group in groups(seen)}
    table = by_decision(pd.DataFrame.from_dict(rows, orient="index", columns=list(GROWTH), dtype=np.float64), decisions)
    table["points"] = table["points"].fillna(0.0)
    return table


def _summary(group: pd.DataFrame, start: pd.Timestamp | None, *, fit: bool) -> tuple[float, ...]:
    """Return `GROWTH` of one decision."""
    size = group.groupby("time")["value"].mean()
    days = np.asarray((size.index - group["index_time"].iloc[0]) / DAY, dtype=np.float64)
    millimetres = size.to_numpy(dtype=np.float64)
    rate = float(tumour_growth_rate(millimetres[-2], millimetres[-1], days[-1] - days[-2])) if len(days) > 1 else np.nan
    if start is not None:
        first = max(int((size.index <= start).sum()) - 1, 0)
        days, millimetres = days[first:], millimetres[first:]
    found = course(days, millimetres)
    model = RegressionGrowth(np.nan, np.nan, np.nan, 0)
    if fit and found.baseline_mm > 0:
        model = fit_regression_growth(days[1:] - days[0], millimetres[1:] / found.baseline_mm)
    return (
        float(found.points),
        found.baseline_mm,
        found.last_mm,
        found.nadir_mm,
        found.change_percent,
        found.best_change_percent,
        found.from_nadir_percent,
        rate,
        found.progressed,
        found.days_to_progression,
        model.growth,
        model.decay,
    )


def _relative_size(rates: Floats, time: Floats) -> Floats:
    """Return (..., n) f(t) of rates (..., 2): growth, decay."""
    growth, decay = rates[..., :1], rates[..., 1:]
    return np.asarray(np.exp(-decay * time) + np.exp(growth * time) - 1.0, dtype=np.float64)


def _least_squares(time: Floats, size: Floats, starts: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Return (k, 2) rates between 0 and `upper`, and (k,) sums of squares, from k starts at once.

    Levenberg and Marquardt's steps, cut at the bounds; a rate that leans against a bound stands still. A patient has a
    dozen measurements, where a general solver spends ten times as long on its own book-keeping.
    """
    rates, damping = starts.copy(), np.full(len(starts), 1e-2)
    errors = _relative_size(rates, time) - size
    costs = (errors**2).sum(axis=1)
    for _ in range(_STEPS):
        growing = time * np.exp(rates[:, :1] * time)
        decaying = -time * np.exp(-rates[:, 1:] * time)
        slope = np.stack([(growing * errors).sum(axis=1), (decaying * errors).sum(axis=1)], axis=1)
        held = ((rates <= 0) & (slope > 0)) | ((rates >= upper) & (slope < 0))
        slope[held] = 0.0
        first, second = (growing**2).sum(axis=1), (decaying**2).sum(axis=1)
        across = np.where(held.any(axis=1), 0.0, (growing * decaying).sum(axis=1))
        # (A + damping * diag A) step = -slope, two by two, by Cramer's rule.
        first, second = first * (1 + damping) + 1e-300, second * (1 + damping) + 1e-300
        determinant = first * second - across**2
        step = np.stack(
            [across * slope[:, 1] - second * slope[:, 0], across * slope[:, 0] - first * slope[:, 1]], axis=1
        )
        step /= np.maximum(determinant, 1e-300)[:, None]
        tried = np.clip(rates + step, 0.0, upper)
        tried_errors = _relative_size(tried, time) - size
        tried_costs = (tried_errors**2).sum(axis=1)
        better = tried_costs < costs
        rates[better], errors[better], costs[better] = tried[better], tried_errors[better], tried_costs[better]
        damping = np.where(better, damping / 5, damping * 4)
        if ((np.abs(step).max(axis=1) < 1e-9) | (damping > 1e8)).all():
            break
    return rates, costs


def read_diameters(
    path: Path,
    *,
    subject: str = "Patient_Anonmyized",
    day: str = "Treatment_Day",
    diameter: str = "TargetLesionLongDiam_mm",
    within: tuple[str, ...] = ("study",),
    too_small_mm: float = 5.0,
) -> tuple[pd.DataFrame, IngestReport]:
    """Return serial diameters of target lesions from a CSV file, one row a patient and day, and what was not understood.

    The defaults are the columns of the five-trial file of Ghaffari Laleh N et al. PLoS Comput Biol 2022;18:e1009822,
    which has one diameter a visit.

    Args:
        within: columns that go before the patient's number in `subject_id`: the same number in two studies is two
            patients.
        too_small_mm: what TOO SMALL TO MEASURE counts, mm; 5 by RECIST 1.1 (section 4.2.3 of Eisenhauer 2009).

    Returns:
        subject_id, day (d from the start of treatment), value (mm), too_small (whether it stands for such a word), and
        the columns `within`; sorted by subject_id and day. Rows of one patient and day that agree become one; where
        they differ, the mean is taken. Both are in the report, as is every row left out.

    Raises:
        SchemaError: a column is missing.
    """
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    require_columns(raw, (subject, day, diameter, *within), what=path.name)
    report = IngestReport(source=path.name, read=len(raw))
    words = raw[diameter].str.strip().str.upper()
    too_small = words == "TOO SMALL TO MEASURE"
    value = pd.to_numeric(words.mask(too_small, str(too_small_mm)), errors="coerce")
    days = pd.to_numeric(raw[day], errors="coerce")
    refusals = {
        "no patient": raw[subject].str.strip() == "",
        "no day, or one that is not a number": ~np.isfinite(days),
        "no diameter": words == "",
        "not evaluable": words == "NOT EVALUABLE",
        "not a diameter": ~(np.isfinite(value) & (value >= 0)),
    }
    kept = np.ones(len(raw), dtype=bool)
    for reason, wrong in refusals.items():
        _refuse(report, reason, wrong.to_numpy(dtype=bool) & kept, diameter)
        kept &= ~wrong.to_numpy(dtype=bool)
    tidy = pd.DataFrame(
        {
            "subject_id": raw[[*within, subject]].agg("//".join, axis=1),
            "day": days,
            "value": value,
            "too_small": too_small,
            **{name: raw[name] for name in within},
        }
    )[kept]
    same = tidy.duplicated(["subject_id", "day"], keep=False)
    again = tidy.duplicated(["subject_id", "day", "value"])
    other = tidy.duplicated(["subject_id", "day"]) & ~again
    for reason, rows in (("said twice", again), ("two values on one day, mean taken", other)):
        _refuse(report, reason, rows.reindex(raw.index, fill_value=False).to_numpy(dtype=bool), diameter)
    if same.any():
        keys = ["subject_id", "day"]
        mean = tidy[~again].groupby(keys)["value"].transform("mean")
        tidy = tidy[~again].assign(value=mean).drop_duplicates(keys)
    tidy = tidy.sort_values(["subject_id", "day"], kind="stable").reset_index(drop=True)
    report.written = len(tidy)
    return tidy, report


def diameter_events(diameters: pd.DataFrame, *, origin: pd.Timestamp) -> pd.DataFrame:
    """Return diameters of `read_diameters` with `time`: `origin` for the start of treatment (day 0) of every patient."""
    require_columns(diameters, ("subject_id", "day", "value"), what="diameters")
    time = origin + pd.to_timedelta(diameters["day"], unit="D")
    return diameters[["subject_id", "value"]].assign(time=time.astype("datetime64[us]"))


def _refuse(report: IngestReport, reason: str, rows: NDArray[np.bool_], code: str) -> None:
    """Count the rows; the position is the line of the file, the header being line 1."""
    if rows.any():
        report.refuse(code, reason, position=f"{report.source} line {int(rows.argmax()) + 2}", count=int(rows.sum()))
