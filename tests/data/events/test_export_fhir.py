"""The synthetic cohort as a hospital exports it: valid FHIR R4, and the same values when it is read again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fhir.resources.R4B import get_fhir_model_class

from theracast_data.events.codes import code_faults
from theracast_data.events.readers.fhir import FhirOptions, read_fhir
from theracast_data.events.report import IngestReport
from theracast_data.synthetic import Truth, generate
from theracast_data.synthetic.export_fhir import RESOURCES, TIMEZONE, export_fhir
from theracast_data.synthetic.files import LABS, NOT_KNOWN, TIMES_TEN

# What of the cohort is in which code, as numbers or as the last part of a coded text.
NUMBERS = {
    "bmi": "LOINC//39156-5",
    "tmb": "LOINC//94076-7",
    "pdl1_tps": "LOINC//83053-9",
    "tumour_volume": "theracast-demo//tumour-volume",
    "sum_of_diameters": "theracast-demo//sum-of-diameters",
    "daily_steps": "LOINC//41950-7",
    "resting_heart_rate": "LOINC//40443-4",
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


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("cohort"), patients=90, seed=5)


@pytest.fixture(scope="module")
def exported(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_fhir(truth, folder)
    return folder


@pytest.fixture(scope="module")
def events(exported: Path) -> pd.DataFrame:
    """The events of the export, on the hospitals' clock; every resource was validated and understood."""
    report = IngestReport("export")
    options = FhirOptions(path="fhir", timezone=TIMEZONE, validation="all")
    table = pa.concat_tables(read_fhir(exported / "fhir", options=options, report=report))
    assert not report.refused, report.to_text()
    assert report.written == table.num_rows
    return table.to_pandas()


def by_patient(events: pd.DataFrame, code: str, column: str, truth: Truth) -> pd.Series[Any]:
    """Return the value of a code that each patient has at most once, in the order of the cohort."""
    rows = events[events["code"] == code].set_index("subject_id")[column]
    assert rows.index.is_unique
    return rows.reindex(truth.decisions["subject_id"]).reset_index(drop=True)


def test_every_resource_is_valid_by_itself_with_a_unique_id(exported: Path) -> None:
    """Checked without the reader."""
    names = sorted(path.name for path in (exported / "fhir").iterdir())
    assert names == sorted(f"{name}.ndjson" for name in RESOURCES)
    for name in RESOURCES:
        lines = (exported / "fhir" / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
        resources = [json.loads(line) for line in lines]
        assert {resource["resourceType"] for resource in resources} == {name}
        assert len({resource["id"] for resource in resources}) == len(resources) > 0
        for resource in resources:
            get_fhir_model_class(name).model_validate(resource)


def test_the_same_truth_gives_the_same_bytes(truth: Truth, exported: Path, tmp_path: Path) -> None:
    export_fhir(truth, tmp_path)
    for path in exported.rglob("*.*"):
        assert (tmp_path / path.relative_to(exported)).read_bytes() == path.read_bytes()


def test_codes_have_right_check_digits(events: pd.DataFrame) -> None:
    coded = [text for text in events["text_value"].dropna() if "//" in text]
    assert code_faults([*events["code"], *coded]) == {}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back(truth: Truth, events: pd.DataFrame, name: str) -> None:
    """Exactly, with missing ones missing, and known before the decision."""
    found = by_patient(events, NUMBERS[name], "numeric_value", truth)
    np.testing.assert_array_equal(found.to_numpy(float), truth.values[name].to_numpy(float))
    known = by_patient(events, NUMBERS[name], "available_time", truth)
    times = known.fillna(by_patient(events, NUMBERS[name], "time", truth))
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


def test_outcomes_lie_after_the_decision(truth: Truth, events: pd.DataFrame) -> None:
    """Deaths and progressions are those of the truth, to the day."""
    days = (by_patient(events, "MEDS_DEATH", "time", truth) - truth.decisions["index_time"]).dt.days
    died = truth.outcomes["os_event"] == 1
    expected = (truth.outcomes["os_months"] * 30.4375).round().where(died)
    np.testing.assert_array_equal(days.to_numpy(float), expected.to_numpy(float))
    status = events[events["code"] == "LOINC//97509-4"].merge(truth.decisions, on="subject_id")
    assert (status["time"] > status["index_time"]).all()
    worse = Counter(status.loc[status["text_value"] == "SNOMED//271299001", "subject_id"])
    alone = died & (truth.outcomes["os_months"] <= truth.outcomes["pfs_months"])
    progressed = truth.decisions["subject_id"][(truth.outcomes["pfs_event"] == 1) & ~alone]
    assert worse == Counter(progressed)


@pytest.mark.parametrize("name", LABS)
def test_the_last_laboratory_value_before_the_decision_is_the_cohorts(truth: Truth, exported: Path, name: str) -> None:
    """In the unit of the hospital, with words where there is no result; values before and after it are there too."""
    labs = pd.read_csv(exported / "labs.csv", parse_dates=["collected", "reported"], dtype={"result": str})
    assert list(labs.columns) == ["patient", "hospital", "test", "result", "unit", "collected", "reported"]
    own = labs[labs["test"] == LABS[name]].merge(truth.decisions, left_on="patient", right_on="subject_id")
    before = own[own["reported"] <= own["index_time"]].sort_values("collected")
    last = before.groupby("patient").last().reindex(truth.decisions["subject_id"])
    numbers = pd.to_numeric(last["result"], errors="coerce").to_numpy(float)
    tenfold = (truth.decisions["site"] == TIMES_TEN.get(name)).to_numpy()
    np.testing.assert_allclose(np.where(tenfold, numbers / 10, numbers), truth.values[name].to_numpy(float))
    assert set(last["unit"][tenfold]) <= {"g/L"}
    assert set(last["result"][np.isnan(numbers)].dropna()) <= {NOT_KNOWN.get(name)}
    assert len(before) > 1.8 * len(truth.decisions)
    assert (own["reported"] > own["index_time"]).any()
