"""Thirteen kinds of leaks and faults planted into clean events: each is found alone, and the clean cohorts raise nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.preprocessing import StandardScaler

from theracast_data.audit.events import audit_events
from theracast_data.audit.events_folds import check_preprocessing
from theracast_data.audit.findings import Finding
from theracast_data.audit.section import OutcomeCodes
from theracast_data.errors import CohortError
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA

CONCEPTS = {
    "albumin": Concept(codes=("LOINC//1751-7",), unit="g/dL", quantity="albumin", plausible=(0.8, 7.0)),
    "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", quantity="creatinine", plausible=(0.1, 25.0)),
}
OUTCOMES = (
    OutcomeCodes(
        name="progression",
        codes=("PROGRESSION//*",),
        synonyms=("SNOMED//246450006",),
        follow_up=("ATC//L01CD02", "PROCEDURE//palliative*"),
    ),
)
DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Given:
    """What the auditor is given: changed by a fault, one part at a time."""

    events: pd.DataFrame
    decisions: pd.DataFrame
    features: pd.DataFrame
    label: np.ndarray
    folds: np.ndarray
    compute: Callable[[pa.Table, pd.DataFrame], pd.DataFrame]
    fit: Callable[[pd.DataFrame, np.ndarray], Any]
    rng: np.random.Generator

    def audit(self) -> list[Finding]:
        return audit_events(
            arrow(self.events),
            concepts=CONCEPTS,
            outcomes=OUTCOMES,
            decisions=self.decisions,
            features=self.features,
            label=self.label,
            splits=self.splits,
            compute=self.compute,
            fit=self.fit,
        )

    @property
    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(self.folds != one), np.flatnonzero(self.folds == one)) for one in np.unique(self.folds)]

    def first(self, code: str, *, count: int = 7) -> pd.Index:
        return self.events.index[self.events["code"] == code][:count]

    def events_with(self, extra: pd.DataFrame) -> Given:
        return replace(self, events=pd.concat([self.events, extra], ignore_index=True))

    def new(self, code: str, *, days: float, count: int = 5) -> pd.DataFrame:
        """Events of the first patients, so many days after their first decision."""
        first = self.decisions.drop_duplicates("subject_id").head(count)
        return pd.DataFrame(
            {"subject_id": first["subject_id"], "time": first["index_time"] + days * DAY, "code": code}
        ).reindex(columns=list(COLUMNS))


def arrow(events: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(events[list(COLUMNS)], schema=EVENT_SCHEMA, preserve_index=False)


def lab_features(events: pa.Table, decisions: pd.DataFrame, *, slack_days: float = 0.0) -> pd.DataFrame:
    """Last and mean value as known at the decision; with a slack, a few days later."""
    rows = decisions.reset_index(names="row").merge(events.to_pandas(), on="subject_id")
    limit = rows["index_time"] + slack_days * DAY
    rows = rows[(rows["time"] <= limit) & (rows["available_time"] <= limit)].sort_values(["row", "time"])
    columns = {}
    for name, concept in CONCEPTS.items():
        values = rows[rows["code"].isin(concept.codes)].groupby("row")["numeric_value"]
        columns |= {f"lab.{name}.last": values.last(), f"lab.{name}.mean": values.mean()}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(decisions)))


def scaled(features: pd.DataFrame, train: np.ndarray) -> StandardScaler:
    return StandardScaler().fit(features.iloc[train])


def clean(seed: int) -> Given:
    return replace(drawn_cohort(seed), rng=np.random.default_rng(seed))


@cache
def drawn_cohort(seed: int) -> Given:
    """120 patients of two sites with labs twice a month, two decisions each, then progression, the next line, death."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    label: list[float] = []
    numbers = rng.permutation(100_000)[:120]
    for number in range(120):
        subject, site = f"{numbers[number]:05d}", "North" if number % 2 else "South"
        start = pd.Timestamp("2019-01-01 08:00") + rng.uniform(0, 700) * DAY
        frailty = rng.normal() + (0.9 if site == "North" else -0.9)
        rows.append({"time": start.normalize() - rng.integers(14_000, 30_000) * DAY, "code": "MEDS_BIRTH"})
        rows += [{"time": start, "code": "ATC//L01FF02"}, {"code": "SITE//1", "text_value": site}]
        for day in np.arange(-90, 60, 15) + rng.uniform(0, 1):
            drawn = start + day * DAY
            for code, value, unit in (
                ("LOINC//1751-7", 3.9 - 0.3 * frailty + rng.normal(0, 0.3), "g/dL"),
                ("LOINC//2160-0", 80 * np.exp(rng.normal(0, 0.3)), "umol/L"),
            ):
                reported = drawn + rng.uniform(0.05, 2.0) * DAY
                rows.append(
                    {"time": drawn, "code": code, "numeric_value": value, "unit": unit, "available_time": reported}
                )
        progression = start + (70 + rng.exponential(200)) * DAY
        rows += [{"time": progression, "code": code} for code in ("PROGRESSION//1", "SNOMED//246450006")]
        rows.append({"time": progression + 20 * DAY, "code": "ATC//L01CD02"})
        rows.append({"time": (progression + 90 * DAY).normalize(), "code": "MEDS_DEATH"})
        for row in rows:
            row.setdefault("subject_id", subject)
        for landmark in (0, 42):
            decisions.append(
                {"subject_id": subject, "index_time": start + landmark * DAY, "treatment": "ICI", "site": site}
            )
            label.append(float(rng.random() < 1 / (1 + np.exp(-1.5 * frailty))))
    events = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    decided = pd.DataFrame(decisions)
    features = lab_features(arrow(events), decided)
    features["treat.line"] = rng.integers(1, 4, len(decided)).astype(np.float64)
    features["clin.histology"] = rng.choice(["adeno", "squamous"], len(decided))
    fold = dict(zip(decided["subject_id"].unique(), rng.integers(0, 5, 120), strict=True))
    return Given(
        events=events,
        decisions=decided,
        features=features,
        label=np.array(label),
        folds=decided["subject_id"].map(fold).to_numpy(),
        compute=lab_features,
        fit=lambda table, train: scaled(table.select_dtypes("number"), train),
        rng=rng,
    )


def result_before_specimen(given: Given) -> Given:
    events, at = given.events.copy(), given.first("LOINC//1751-7")
    events.loc[at, ["time", "available_time"]] = events.loc[at, ["available_time", "time"]].to_numpy()
    return replace(given, events=events)


def missing_available_time(given: Given) -> Given:
    events = given.events.copy()
    events.loc[given.first("LOINC//2160-0"), "available_time"] = pd.NaT
    return replace(given, events=events, compute=lambda events, decisions: pd.DataFrame(index=decisions.index))


def after_death(given: Given) -> Given:
    return given.events_with(given.new("VISIT//1", days=4000))


def before_birth(given: Given) -> Given:
    return given.events_with(given.new("VISIT//1", days=-36_000))


def outcome_in_lookback(given: Given) -> Given:
    return given.events_with(given.new("PROGRESSION//2", days=-30))


def synonym_in_lookback(given: Given) -> Given:
    return given.events_with(given.new("SNOMED//246450006", days=-30))


def follow_up_in_lookback(given: Given) -> Given:
    return given.events_with(given.new("PROCEDURE//palliative radiotherapy", days=-3))


def future_rows(given: Given) -> Given:
    return replace(given, compute=lambda events, decisions: lab_features(events, decisions, slack_days=3))


def unreported_rows(given: Given) -> Given:
    def compute(events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        at = events.column_names.index("available_time")
        return lab_features(events.set_column(at, "available_time", events["time"]), decisions)

    late = given.events.copy()
    late["available_time"] += 10 * DAY
    return replace(given, events=late, compute=compute)


def patient_in_two_folds(given: Given) -> Given:
    return replace(given, folds=given.rng.integers(0, 5, len(given.decisions)))


def preprocessing(given: Given) -> Given:
    return replace(given, fit=lambda table, train: table["lab.albumin.mean"].mean())


def selected_on_all_rows(given: Given) -> Given:
    def fit(table: pd.DataFrame, train: np.ndarray) -> dict[str, Any]:
        numbers = table.select_dtypes("number")
        return {"kept": numbers.columns[numbers.var() > numbers.var().median()], "scale": scaled(numbers, train)}

    return replace(given, fit=fit)


def running_number(given: Given) -> Given:
    number = given.rng.permutation(120) + 5000.0
    features = given.features.assign(record=np.repeat(number, 2))
    return replace(given, features=features)


def order_of_enrolment(given: Given) -> Given:
    days = (given.decisions["index_time"] - pd.Timestamp("2010-01-01")) / DAY
    return replace(given, features=given.features.assign(age_of_kit=days * 1.7 + given.rng.normal(0, 20, len(days))))


def text_identifier(given: Given) -> Given:
    return replace(given, features=given.features.assign(record="K" + given.decisions["subject_id"]))


def site_by_value(given: Given) -> Given:
    offset = (given.decisions["site"] == "North") * 40.0
    return replace(given, features=given.features.assign(ldh=offset + given.rng.normal(200, 4, len(offset))))


def site_by_missingness(given: Given) -> Given:
    values = pd.Series(np.round(given.rng.normal(1, 1, len(given.features)), 1))
    return replace(given, features=given.features.assign(crp=values.mask(given.decisions["site"] == "North")))


def site_by_level(given: Given) -> Given:
    scanner = given.decisions["site"].map({"North": "Siemens", "South": "GE"})
    return replace(given, features=given.features.assign(scanner=scanner))


def duplicates(given: Given) -> Given:
    return given.events_with(given.events.loc[given.first("LOINC//1751-7")])


def implausible(given: Given) -> Given:
    events = given.events.copy()
    events.loc[given.first("LOINC//2160-0"), "unit"] = "mg/dL"
    return replace(given, events=events)


PLANTED = [
    (result_before_specimen, "result-before-specimen", 7),
    (missing_available_time, "missing-available-time", 7),
    (after_death, "after-death", 5),
    (before_birth, "before-birth", 5),
    (outcome_in_lookback, "outcome-in-lookback", 10),
    (synonym_in_lookback, "outcome-synonym-in-lookback", 10),
    (follow_up_in_lookback, "outcome-follow-up-in-lookback", 10),
    (future_rows, "needs-the-future", None),
    (unreported_rows, "needs-the-future", None),
    (patient_in_two_folds, "patient-in-two-folds", None),
    (preprocessing, "preprocessing-across-folds", 5),
    (selected_on_all_rows, "preprocessing-across-folds", 5),
    (running_number, "identifier-as-feature", 120),
    (order_of_enrolment, "identifier-as-feature", 120),
    (text_identifier, "identifier-as-feature", 120),
    (site_by_value, "site-proxy", 120),
    (site_by_missingness, "site-proxy", 120),
    (site_by_level, "site-proxy", 120),
    (duplicates, "duplicated-result", 7),
    (implausible, "implausible-value", 7),
]


@pytest.mark.parametrize("seed", range(8))
def test_clean_cohorts_raise_nothing(seed: int) -> None:
    assert [(one.check, one.column, one.message) for one in clean(seed).audit()] == []


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize(("plant", "check", "count"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED])
def test_planted_leak_is_found_and_nothing_else(
    plant: Callable[[Given], Given], check: str, count: int | None, seed: int
) -> None:
    findings = plant(clean(seed)).audit()
    assert {one.check for one in findings} == {check}
    assert all(one.why and one.remedy for one in findings)
    if count is not None:
        assert findings[0].count == count


def test_all_leaks_at_once_are_all_found() -> None:
    given = clean(13)
    undone_by_others = {missing_available_time, unreported_rows, text_identifier}
    plants = [plant for plant, _, _ in PLANTED if plant not in undone_by_others]
    for plant in plants:
        given = plant(given)
    expected = {check for plant, check, _ in PLANTED if plant in plants}
    assert expected <= {one.check for one in given.audit()}


def test_patients_are_named_for_the_reader() -> None:
    given = clean(14)
    found = after_death(given).audit()[0]
    assert sorted(found.subjects) == sorted(given.decisions["subject_id"].unique()[:5])
    assert "5 events of 5 patients after the patient's death: VISIT//1 (5)" in found.message


def test_fit_that_cannot_be_repeated_is_told_apart() -> None:
    given, rng = clean(15), np.random.default_rng(1)
    found = check_preprocessing(given.features, given.splits, lambda table, train: rng.random())
    assert [one.check for one in found] == ["preprocessing-not-repeatable"]


def test_compute_with_lost_rows_is_refused() -> None:
    given = clean(16)
    with pytest.raises(CohortError, match="one row for each decision"):
        replace(given, compute=lambda events, decisions: decisions.head(3)).audit()
