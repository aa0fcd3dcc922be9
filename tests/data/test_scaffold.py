"""Drafted study files: valid, able to read their own table, and honest about what is a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint, TimeToEventEndpoint
from theracast_data.errors import SchemaError, StudyError
from theracast_data.scaffold import draft_study
from theracast_data.table import read_cohort
from theracast_training.study import Study, read_study


def drafted(table: Path, folder: Path) -> tuple[str, Study, Cohort]:
    text = draft_study("my-study", table, base=folder)
    path = folder / "my-study.yaml"
    path.write_text(text, encoding="utf-8")
    study = read_study(path)
    return text, study, read_cohort(study.inputs, study.endpoints, base=folder)


def hospital(rng: np.random.Generator, count: int = 60) -> pd.DataFrame:
    kind = rng.integers(0, 3, count)
    return pd.DataFrame(
        {
            "Patient ID": [f"{number:04d}" for number in range(count)],
            "Name": [f"Name {number}" for number in rng.permutation(count)],
            "Albumin": rng.normal(38, 4, count).round(1).astype(str),
            "HGB (g/dL)": rng.normal(12, 1, count).round(1),
            "CRP": ["<5", "TOO SMALL TO MEASURE", "."] + [f"{value:.1f}" for value in rng.gamma(2, 10, count - 3)],
            "Sex": rng.choice(["male", "female"], count),
            "ER.status": rng.choice([-1, 1], count),
            "Score": rng.choice([1, 2, 3], count),
            "weird": [-99, *rng.normal(50, 5, count - 1).round(2)],
            "site_lung": (kind == 0).astype(int),
            "site_liver": (kind == 1).astype(int),
            "site_bone": (kind == 2).astype(int),
            "Smoker": rng.choice(["yes", "no", "."], count),
            "constant": 1,
            "nothing": None,
            "Best response (RECIST)": rng.choice(["CR", "PR", "SD", "PD", "NE"], count),
            "PFS_days": rng.integers(20, 900, count),
            "PFS_CNSR": rng.choice([0, 1], count),
            "OS_Months": rng.normal(20, 4, count).round(1),
            "OS_Event": rng.choice([0, 1], count),
            "date_of_death": "",
        }
    )


def test_a_hospital_s_table_is_understood(tmp_path: Path) -> None:
    table = tmp_path / "export.csv"
    hospital(np.random.default_rng(3)).to_csv(table, index=False)
    text, study, cohort = drafted(table, tmp_path)
    source = study.sources[0]
    assert source.path == "export.csv", "relative to where the study stands"
    assert source.subject == "Patient ID"
    assert set(source.columns) == {"Albumin", "HGB (g/dL)", "CRP", "Sex", "ER.status", "Score", "weird", "Smoker"}
    albumin = source.columns["Albumin"]
    assert (albumin.unit, albumin.source_unit, albumin.code) == ("g/dL", "g/L", "LOINC:1751-7")
    assert 3 < cohort.values["albumin"].median() < 5
    assert source.columns["HGB (g/dL)"].unit == "g/dL"
    assert set(source.columns["CRP"].missing) == {"<5", "TOO SMALL TO MEASURE"}
    assert source.missing == (".",)
    assert source.columns["Sex"].levels == ("female", "male")
    assert set(cohort.values["er_status"]) == {0.0, 1.0}
    assert "# missing: [-99] # CHECK" in text
    assert source.one_hot[0].columns == {"site_lung": "lung", "site_liver": "liver", "site_bone": "bone"}
    assert cohort.values["site"].notna().all()
    response, *timed = study.endpoints
    assert isinstance(response, BinaryEndpoint)
    assert response.positives == ("CR", "PR")
    assert response.not_evaluable == ("NE",)
    os, pfs = sorted(timed, key=lambda one: one.name)
    assert isinstance(os, TimeToEventEndpoint)
    assert isinstance(pfs, TimeToEventEndpoint)
    assert (os.time, os.event, os.unit) == ("OS_Months", "OS_Event", "month")
    assert (pfs.time, pfs.censored, pfs.unit) == ("PFS_days", "PFS_CNSR", "day")
    for left_out in ("Name (text that differs", "constant (the same in every row)", "nothing (no values)"):
        assert f"# left out: {left_out}" in text


def test_a_draft_holds_no_patient(tmp_path: Path) -> None:
    frame = hospital(np.random.default_rng(4))
    frame.to_csv(tmp_path / "t.csv", index=False)
    text = draft_study("s", tmp_path / "t.csv")
    for column in ("Patient ID", "Name", "Albumin", "weird", "PFS_days"):
        for value in frame[column].astype(str)[1:]:
            assert f" {value}\n" not in text
            assert f"'{value}'" not in text


def test_sheets_become_sites_and_those_without_the_outcome_stay_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        for sheet in ("Basel", "Bern", "Untreated"):
            frame = hospital(rng)
            if sheet == "Untreated":
                frame = frame.drop(columns="Best response (RECIST)").assign(extra=rng.normal(size=len(frame)))
            if sheet == "Bern":
                frame["later"] = rng.normal(size=len(frame))
            frame.to_excel(book, sheet_name=sheet, index=False)
        pd.DataFrame({"note": ["read me"]}).to_excel(book, sheet_name="About", index=False)
    text, study, cohort = drafted(tmp_path / "book.xlsx", tmp_path)
    assert study.sources[0].sheets == ("Basel", "Bern")
    assert (study.validation.development, study.validation.external) == (("Basel",), ("Bern",))
    assert cohort.sites == ["Basel", "Bern"]
    assert "# sheet Untreated is left out: no Best response (RECIST)" in text
    assert "# sheet About is left out: other columns" in text
    assert "# left out: later (the first sheet, taken for development, does not have it)" in text


def test_the_way_a_file_is_written_is_kept(tmp_path: Path) -> None:
    rows = [f"{number};{number / 7:.3f};{number % 2}".replace(".", ",") for number in range(1, 40)]
    (tmp_path / "t.csv").write_bytes("\n".join(["Kürzel;Größe;Antwort_response", *rows]).encode("cp1252"))
    _, study, cohort = drafted(tmp_path / "t.csv", tmp_path)
    source = study.sources[0]
    assert (source.delimiter, source.decimal, source.encoding) == (";", ",", "cp1252")
    assert cohort.values.iloc[0, 0] == pytest.approx(0.143)


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        ({"time": [400, 20, 700] * 9, "status": [1, 0, 1] * 9}, "event_1y"),
        ({"arm": [0, 1, 1] * 9}, "response"),
        ({"x": [1.5, 2.5, 3.5] * 9}, "outcome"),
        ({"pCR": ["yes", "no", "no"] * 9}, "pcr"),
        ({"pCR": ["1", "0", "."] * 9}, "pcr"),
        ({"Response": [1, 0, 0] * 9, "response at week 12": [1, 0, 1] * 9}, "response"),
    ],
)
def test_every_table_gets_an_endpoint(tmp_path: Path, columns: dict[str, list[Any]], first: str) -> None:
    frame = pd.DataFrame({"id": range(27), "age": np.arange(27) + 40.5} | columns)
    frame.to_parquet(tmp_path / "t.parquet")
    text, study, cohort = drafted(tmp_path / "t.parquet", tmp_path)
    assert study.endpoint.name == first
    assert not set(columns) & set(study.sources[0].columns)
    assert cohort.endpoints.notna().any().all()
    assert ("no outcome was recognised" in text) == (first in ("response", "outcome") and "Response" not in columns)


HEADERS = [
    "ID",
    "age",
    "Albumin",
    "no",
    "1",
    "x: y",
    "# c",
    "a,b",
    "a\nb",
    "Größe",
    "年齢",
    "OS",
    "OS_Event",
    "status",
    "",
]
HEADERS += ["Response", "time", "T1", "T2", "T3", "Date", "year", "site", "{a}", "- c", "NA", "&x", "@at", "a'b", 'a"b']
CELLS = [
    st.floats(0, 100), st.integers(0, 1), st.sampled_from(["yes", "no"]), st.sampled_from(["Yes", "NO", "."]),
    st.sampled_from(["null", "~", "2018-01-02", "1e3", "1_000", "<5", "=A1"]), st.sampled_from([None, "", "NE", 3]),
    st.sampled_from(["CR", "PR", "SD", "PD", "NE", None]), st.integers(2015, 2019), st.booleans(),
    st.sampled_from(["a: b", "#x", "[1]", "{", "yes", "'q'", '"']), st.sampled_from([-99, 1.5, 2.5]),
    st.sampled_from(["3,5", "4,5"]), st.sampled_from([-1, 1]), st.sampled_from(["NA", "N/A", "x"]),
]  # fmt: skip


@st.composite
def strange_tables(draw: st.DrawFn) -> pd.DataFrame:
    count = draw(st.integers(1, 12))
    headers = draw(st.lists(st.sampled_from(HEADERS), min_size=1, max_size=8, unique=True))
    columns = {
        header: draw(st.lists(draw(st.sampled_from(CELLS)), min_size=count, max_size=count)) for header in headers
    }
    return pd.DataFrame(columns | {"pid": [f"p{row}" for row in range(count)]}, dtype=object)


@given(frame=strange_tables(), suffix=st.sampled_from(["csv", "json"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_draft_always_reads_its_own_table(tmp_path: Path, frame: pd.DataFrame, suffix: str) -> None:
    table = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        frame.to_csv(table, index=False, sep=";")
    else:
        frame.to_json(table, orient="records")
    try:
        _, study, cohort = drafted(table, tmp_path)
    except SchemaError as error:
        if "no column" not in str(error):
            raise
    else:
        assert len(cohort) <= len(frame)
        assert study.sources[0].subject


def test_what_cannot_be_drafted_is_said(tmp_path: Path) -> None:
    pd.DataFrame({"a": ["x", "x"], "b": [1.5, 2.5]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SchemaError, match="no column identifies the patients"):
        draft_study("s", tmp_path / "t.csv")
    with pytest.raises(StudyError, match="is no name for a study"):
        draft_study("my study!", tmp_path / "t.csv")
    pd.DataFrame({"id": [1, 2], "note": ["long text", "other text"]}).to_csv(tmp_path / "u.csv", index=False)
    with pytest.raises(SchemaError, match="no column could be an outcome"):
        draft_study("s", tmp_path / "u.csv")


@pytest.mark.parametrize(
    "table", ["icb/icb_cohorts.xlsx", "oak/clinical.csv", "ispy2/clinical.csv", "transneo/training.csv"]
)
def test_the_real_cohorts_are_drafted(shared_cohorts: Path, tmp_path: Path, table: str) -> None:
    text, study, cohort = drafted(shared_cohorts / table, tmp_path)
    assert isinstance(study.endpoint, BinaryEndpoint)
    assert len(cohort) > 100
    assert cohort.endpoints[study.endpoint.name].mean() == pytest.approx(0.25, abs=0.12)
    assert not {"Response", "OS_Months", "OS", "PFS", "BCOR", "pCR", "RCB.score"} & set(study.sources[0].columns)
    assert yaml.safe_load(text)["study"] == "my-study"
