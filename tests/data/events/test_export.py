"""The synthetic cohort as a hospital exports it: valid FHIR R4, and the same values when it is ingested."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fhir.resources.R4B import get_fhir_model_class

from theracast_data.events.codes import code_faults
from theracast_data.events.ingest import ingest, read_spec
from theracast_data.events.report import IngestReport
from theracast_data.events.store import EventStore
from theracast_data.synthetic import Truth, export, generate
from theracast_data.synthetic.export import REFUSALS
from theracast_data.synthetic.export_fhir import MAKERS
from theracast_data.synthetic.files import LABS, TIMES_TEN

DAYS_PER_MONTH = 30.4375

# What of the cohort is in which code, as numbers or as the last part of a coded text.
NUMBERS = {
    "bmi": "LOINC//39156-5",
    "tmb": "LOINC//94076-7",
    "pdl1_tps": "LOINC//83053-9",
    "tumour_volume": "theracast-demo//tumour-volume",
    "sum_of_diameters": "theracast-demo//sum-of-diameters",
    "ecog": "LOINC//89247-1",
    "fatigue": "QLQ-C30//FA",
    "quality_of_life": "QLQ-C30//QL2",
}
WORDS = {
    "stage": ("LOINC//21908-9", {"III": "AJCC//III", "IV": "AJCC//IV"}),
    "driver_mutation": (
        "theracast-demo//driver-mutation",
        {name: f"theracast-demo//{name}" for name in ("none", "KRAS", "BRAF", "other")},
    ),
    "msi": ("LOINC//81695-9", {0.0: "theracast-demo//MSS", 1.0: "theracast-demo//MSI-H"}),
}


# Codes that come again after the decision.
REPEATED = ("tumour_volume", "sum_of_diameters", "fatigue", "quality_of_life")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("cohort"), patients=150, seed=5)


@pytest.fixture(scope="module")
def exported(truth: Truth) -> Path:
    export(truth, truth.folder / "export", faults=False)
    return truth.folder / "export"


def ingested(
    folder: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[pd.DataFrame, list[IngestReport]]:
    """What `studies/ingest/demo.yaml` makes of the export below a folder, every resource validated."""
    monkeypatch.setenv("THERACAST_DATA", str(folder))
    spec = read_spec(repository / "studies" / "ingest" / "demo.yaml")
    hospital = spec.sources[0].model_copy(update={"validation": "all"})
    spec = spec.model_copy(update={"sources": (hospital, *spec.sources[1:])})
    store = EventStore.create(folder / "store", shards=2)
    reports = ingest(spec, base=folder, store=store, now=datetime(2026, 1, 1, tzinfo=UTC))
    return pa.concat_tables([store.read_shard(0), store.read_shard(1)]).to_pandas(), reports


@pytest.fixture(scope="module")
def events(truth: Truth, exported: Path, repository: Path) -> pd.DataFrame:
    """The events of the export, on the hospitals' clock; every record was validated and understood."""
    with pytest.MonkeyPatch.context() as patch:
        table, reports = ingested(truth.folder, repository, patch)
    assert [report.source for report in reports] == ["hospital", "laboratory", "wearables"]
    assert not any(report.refused for report in reports), [report.to_text() for report in reports]
    assert sum(report.written for report in reports) == len(table)
    return table


def before(events: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """The events known when the patient's decision was made, with `index_time`."""
    own = events.merge(truth.decisions, on="subject_id")
    known = own["available_time"].fillna(own["time"])
    return own[known < own["index_time"] + pd.Timedelta(hours=10)]


def follow_up_days(truth: Truth, column: str) -> pd.Series[Any]:
    """Days of a follow-up by patient."""
    days = (truth.outcomes[column] * DAYS_PER_MONTH).round()
    return pd.Series(days.to_numpy(), index=truth.decisions["subject_id"])


def by_patient(events: pd.DataFrame, code: str, column: str, truth: Truth) -> pd.Series[Any]:
    """Return the value of a code that each patient has at most once, in the order of the cohort."""
    rows = events[events["code"] == code].set_index("subject_id")[column]
    assert rows.index.is_unique
    return rows.reindex(truth.decisions["subject_id"]).reset_index(drop=True)


def test_every_resource_is_valid_by_itself_with_a_unique_id(exported: Path) -> None:
    """Checked without the reader."""
    names = sorted(path.name for path in (exported / "fhir").iterdir())
    assert names == sorted(f"{name}.ndjson" for name in MAKERS)
    for name in MAKERS:
        lines = (exported / "fhir" / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
        resources = [json.loads(line) for line in lines]
        assert {resource["resourceType"] for resource in resources} == {name}
        assert len({resource["id"] for resource in resources}) == len(resources) > 0
        for resource in resources:
            get_fhir_model_class(name).model_validate(resource)


def test_the_same_truth_gives_the_same_bytes(truth: Truth, exported: Path, tmp_path: Path) -> None:
    export(truth, tmp_path, faults=False)
    files = [path for path in exported.rglob("*.*") if path.is_file()]
    assert len(files) == len(MAKERS) + 2
    for path in files:
        assert (tmp_path / path.relative_to(exported)).read_bytes() == path.read_bytes()


def test_planted_faults_are_refused_and_nothing_else(
    truth: Truth, events: pd.DataFrame, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted with their reasons; all other events are those of the export without faults."""
    assert export(truth, tmp_path / "export") == REFUSALS
    table, reports = ingested(tmp_path, repository, monkeypatch)
    refused = {
        (report.source, code, reason): count for report in reports for (code, reason), count in report.refused.items()
    }
    assert refused == {(one.source, one.code, one.reason): 1 for one in REFUSALS}
    rows = [Counter(one.astype(object).fillna("").itertuples(index=False, name=None)) for one in (table, events)]
    [added] = rows[0] - rows[1]
    assert (added[2], added[4]) == ("demo_lab//LDH", "haemolysed")
    assert not rows[1] - rows[0]


def test_codes_have_right_check_digits(events: pd.DataFrame) -> None:
    coded = [text for text in events["text_value"].dropna() if "//" in text]
    assert code_faults([*events["code"], *coded]) == {}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back(truth: Truth, events: pd.DataFrame, name: str) -> None:
    """Exactly, with missing ones missing, and known before the decision."""
    own = before(events, truth) if name in REPEATED else events
    found = by_patient(own, NUMBERS[name], "numeric_value", truth)
    np.testing.assert_array_equal(found.to_numpy(float), truth.values[name].to_numpy(float))
    known = by_patient(own, NUMBERS[name], "available_time", truth)
    times = known.fillna(by_patient(own, NUMBERS[name], "time", truth))
    assert (times.dropna() < truth.decisions["index_time"][times.notna()]).all()


@pytest.mark.parametrize("name", WORDS)
def test_words_come_back(truth: Truth, events: pd.DataFrame, name: str) -> None:
    code, words = WORDS[name]
    found = by_patient(events, code, "text_value", truth)
    expected = truth.values[name].map(words)
    assert (found.fillna("") == expected.fillna("")).all()


def test_persons_and_first_doses_come_back(truth: Truth, events: pd.DataFrame) -> None:
    """Age, sex, hospital, and the drugs of the regimen on the day of the decision."""
    index_time = truth.decisions["index_time"]
    birth = by_patient(events, "MEDS_BIRTH", "time", truth)
    ages = np.floor((index_time - birth).dt.days / 365.25)
    np.testing.assert_array_equal(ages, truth.values["age"])
    sex = events[events["code"].str.startswith("Gender//")].set_index("subject_id")["text_value"]
    assert list(sex.reindex(truth.decisions["subject_id"])) == list(truth.values["sex"])
    site = events[events["code"].str.startswith("Organization//")].set_index("subject_id")["text_value"]
    assert list(site.reindex(truth.decisions["subject_id"])) == list(truth.decisions["site"])
    given = events[events["text_value"] == "administered"].merge(truth.decisions, on="subject_id")
    first = given[given["time"].dt.normalize() == given["index_time"]]
    assert (first["time"] - first["index_time"] == pd.Timedelta(hours=10)).all()
    drugs = first.groupby("subject_id")["code"].agg(frozenset)
    expected = {
        "anti-PD-1": {"ATC//L01FF02"},
        "anti-PD-1 + chemotherapy": {"ATC//L01FF02", "ATC//L01XA02"},
        "anti-PD-1 + anti-CTLA-4": {"ATC//L01FF02", "ATC//L01FX04"},
    }
    regimens = truth.values["regimen"].map(lambda name: frozenset(expected[name]))
    assert list(drugs.reindex(truth.decisions["subject_id"])) == list(regimens)


def test_earlier_therapy_tells_lines_from_adjuvant_treatment(truth: Truth, events: pd.DataFrame) -> None:
    """Lines are the days with another drug within the year before; older ones are adjuvant, none is none at all."""
    given = events[events["text_value"] == "administered"].merge(truth.decisions, on="subject_id")
    earlier = given[given["time"] < given["index_time"]].set_index("subject_id")
    ago = (earlier["index_time"] - earlier["time"]).dt.days
    patients = truth.decisions["subject_id"]
    lines = 1 + ago[ago < 365].groupby(level=0).size().reindex(patients, fill_value=0)
    np.testing.assert_array_equal(lines, truth.values["line_of_therapy"])
    np.testing.assert_array_equal(patients.isin(earlier.index), truth.values["systemic_therapy_history"] == 1)
    first = given.loc[given["time"] >= given["index_time"], "code"]
    assert not set(earlier["code"]) & set(first)


def test_deaths_and_last_contacts_are_those_of_the_truth(truth: Truth, events: pd.DataFrame) -> None:
    """To the day, and nothing happens after them."""
    index_time = truth.decisions.set_index("subject_id")["index_time"]
    ends = events[events["code"].isin(["MEDS_DEATH", "theracast-demo//last-contact"])].set_index("subject_id")
    assert ends.index.is_unique
    days = (ends["time"] - index_time).dt.days
    pd.testing.assert_series_equal(
        days.reindex(index_time.index).astype(float), follow_up_days(truth, "os_months"), check_names=False
    )
    died = truth.decisions["subject_id"][truth.outcomes["os_event"] == 1]
    assert set(ends.index[ends["code"] == "MEDS_DEATH"]) == set(died)
    dated = events[events["time"].notna()].merge(ends["time"].rename("end"), left_on="subject_id", right_index=True)
    assert (dated["time"] < dated["end"] + pd.Timedelta(days=1)).all()


def test_progression_and_best_response_are_those_of_the_truth(truth: Truth, events: pd.DataFrame) -> None:
    """By RECIST rules written out here, on the status after the decision."""
    patients, outcomes = truth.decisions["subject_id"], truth.outcomes.set_axis(truth.decisions["subject_id"])
    index_time = truth.decisions.set_index("subject_id")["index_time"]
    status = events[events["code"].isin(["LOINC//97509-4", "theracast-demo//clinical-progression"])]
    status = status.assign(day=(status["time"] - status["subject_id"].map(index_time)).dt.days)
    assert (status["day"] > 0).all()
    worse = status[status["text_value"] == "SNOMED//271299001"].set_index("subject_id")
    assert worse.index.is_unique
    alone = (outcomes["os_event"] == 1) & (outcomes["os_months"] <= outcomes["pfs_months"])
    progressed = outcomes.index[(outcomes["pfs_event"] == 1) & ~alone]
    expected = follow_up_days(truth, "pfs_months")[progressed]
    pd.testing.assert_series_equal(worse["day"].reindex(progressed).astype(float), expected, check_names=False)
    assert set(worse.index) == set(progressed)
    meant = {"260415000": "CR", "268910001": "PR", "359746009": "SD", "271299001": "PD", "709137006": "NE"}
    seen = status[status["code"] == "LOINC//97509-4"].assign(level=lambda own: own["text_value"].str[8:].map(meant))
    order = ["PD", "NE", "SD", "PR", "CR"]
    best = seen.groupby("subject_id")["level"].agg(lambda levels: max(levels, key=order.index)).reindex(patients)
    never = best.isna()  # died or was lost before a scan
    assert (outcomes["recist"][never] == "PD").all()
    assert list(best[~never]) == list(outcomes["recist"][~never])


def test_lesions_shrink_and_grow_as_the_status_says(truth: Truth, events: pd.DataFrame) -> None:
    own = events[events["code"] == "theracast-demo//sum-of-diameters"].sort_values("time")
    per_patient = own.groupby("subject_id")["numeric_value"].agg(["first", "min", "size"])
    outcomes = truth.outcomes.set_axis(truth.decisions["subject_id"])
    share = (per_patient["min"] / per_patient["first"])[per_patient["size"] > 1]
    level = outcomes["recist"][share.index]
    assert (share[level == "CR"] == 0).all()
    assert (share[level == "PR"] <= 0.7).all()
    assert (share[level == "SD"] > 0.7).all()
    assert {"CR", "PR", "SD", "PD"} <= set(level)


@pytest.mark.parametrize(
    ("name", "code"),
    [("daily_steps", "wearable//steps"), ("resting_heart_rate", "wearable//heart_rate_min")],
)
def test_the_mean_of_the_days_before_the_decision_is_the_cohorts(
    truth: Truth, events: pd.DataFrame, name: str, code: str
) -> None:
    days = events[events["code"] == code].merge(truth.decisions, on="subject_id")
    earlier = days[days["time"] < days["index_time"]]
    assert (earlier["index_time"] - earlier["time"]).dt.days.between(1, 28).all()
    means = earlier.groupby("subject_id")["numeric_value"].mean().reindex(truth.decisions["subject_id"])
    np.testing.assert_allclose(means.to_numpy(), truth.values[name].to_numpy(float), rtol=1e-12)
    assert (days["time"] >= days["index_time"]).any()
    assert earlier.groupby("subject_id")["numeric_value"].std().min() > 0


@pytest.mark.parametrize("name", LABS)
def test_the_last_laboratory_value_before_the_decision_is_the_cohorts(
    truth: Truth, events: pd.DataFrame, name: str
) -> None:
    """In the unit of the hospital; a course before and after it, and nothing at all where the cohort knows nothing."""
    own = events[events["code"] == f"demo_lab//{LABS[name]}"]
    known = before(own, truth).sort_values("time")
    last = known.groupby("subject_id").last().reindex(truth.decisions["subject_id"])
    tenfold = (truth.decisions["site"] == TIMES_TEN.get(name)).to_numpy()
    numbers = last["numeric_value"].to_numpy(float)
    np.testing.assert_allclose(np.where(tenfold, numbers / 10, numbers), truth.values[name].to_numpy(float))
    assert set(last["unit"][tenfold].dropna()) <= {"g/L"}
    assert set(own["subject_id"]) == set(truth.decisions["subject_id"][truth.values[name].notna()])
    assert len(known) > 1.8 * len(truth.decisions)
    assert len(own) > len(known)
