"""Cohorts from tables, with the faults that real exports have."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint, Endpoint
from theracast_data.errors import CohortError, SchemaError, StudyError
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame, read_cohort, read_file
from theracast_data.units import UnitError

RESPONSE = BinaryEndpoint(name="response", kind="binary", column="Response", positive=1, negative=(0,))
COLUMNS: dict[str, Any] = {
    "Albumin": {"modality": "lab", "unit": "g/dL"},
    "Sex": {"levels": {1: "male", 2: "female"}},
    "Smoker": {"kind": "boolean"},
}


def inputs_of(path: str, **more: Any) -> Inputs:
    source = {"kind": "table", "path": path, "subject": "ID", "columns": COLUMNS} | more
    return Inputs.model_validate({"sources": [source]})


def write(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> str:
    (folder / name).write_bytes(text.encode(encoding))
    return name


def write_xlsx(folder: Path, sheets: dict[str, list[list[Any]]], name: str = "t.xlsx") -> str:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(folder / name)
    return name


def read(folder: Path, inputs: Inputs, endpoints: tuple[Endpoint, ...] = (RESPONSE,), **more: Any) -> Cohort:
    return read_cohort(inputs, endpoints, base=folder, **more)


def kinds(cohort: Cohort) -> set[str]:
    return {note.kind for note in cohort.notes}


def test_an_export_with_its_faults_is_read(tmp_path: Path) -> None:
    text = (
        "\ufeffID ; Albumin;Sex;Smoker;Response;\r\n"
        "\r\n"
        " 1.0;3,8;1;yes;1;\r\n"
        "2;n.d.;2.0; No ;0;\r\n"
        ";;;;;\r\n"
        "3;;9;TRUE;0;\r\n"
    )
    path = write(tmp_path, text)
    cohort = read(tmp_path, inputs_of(path, delimiter=";", decimal=",", missing=["n.d.", 9]))
    assert list(cohort.decisions["subject_id"]) == ["1", "2", "3"]
    assert list(cohort.decisions["site"]) == ["t", "t", "t"]
    np.testing.assert_array_equal(cohort.values["albumin"], [3.8, np.nan, np.nan])
    assert cohort.values["sex"].fillna("?").tolist() == ["male", "female", "?"]
    assert cohort.values["smoker"].tolist() == [1.0, 0.0, 1.0]
    assert cohort.endpoints["response"].tolist() == [1.0, 0.0, 0.0]
    assert cohort.notes == ()


def test_dtypes_are_those_of_the_contract(tmp_path: Path) -> None:
    cohort = read(tmp_path, inputs_of(write(tmp_path, "ID,Albumin,Sex,Smoker,Response\n7,3.8,1,1,0\n")))
    assert cohort.decisions.dtypes.astype(str).to_dict() == {
        "subject_id": "str", "site": "str", "index_time": "datetime64[us]", "treatment": "str", "calendar": "float64"
    }  # fmt: skip
    assert cohort.values.dtypes.astype(str).to_dict() == {"albumin": "float64", "sex": "str", "smoker": "float64"}
    for table in (cohort.decisions, cohort.values, cohort.endpoints):
        assert isinstance(table.index, pd.RangeIndex)


def test_sheets_are_sites_and_excel_ids_are_whole(tmp_path: Path) -> None:
    header = ["ID", "Albumin", "Sex", "Smoker", "Response"]
    path = write_xlsx(
        tmp_path,
        {
            "A": [header, [1.0, 38, 1, True, 1], [2.0, None, 2, False, 0], [None] * 5],
            "B": [["ID", "Albumin", "Smoker", "Response"], [1, 4.1, "#N/A", 0], [None, 4.0, 1, 0]],
        },
    )
    columns = COLUMNS | {"Albumin": {"unit": "g/dL", "site_units": {"A": "g/L"}}}
    cohort = read(tmp_path, inputs_of(path, sheets=["A", "B"], site="$sheet", columns=columns))
    assert list(zip(cohort.decisions["site"], cohort.decisions["subject_id"], strict=True)) == [
        ("A", "1"), ("A", "2"), ("B", "1")
    ]  # fmt: skip
    np.testing.assert_allclose(cohort.values["albumin"], [3.8, np.nan, 4.1])
    assert cohort.absent == {"B": frozenset({"sex"})}
    assert [(step.site, step.dropped, step.left) for step in cohort.attrition] == [("B", 1, 1)]
    assert [(note.kind, note.site, note.rows) for note in cohort.notes] == [("converted-unit", "A", (0, 1))]


def test_all_faults_of_a_table_stand_in_one_message_without_a_value(tmp_path: Path) -> None:
    rows = ["ID,Albumine,Sex,Smoker,Response"] + [f"{i},<{i}.37,1,{'perhaps'},XX" for i in range(1, 5)]
    path = write(tmp_path, "\n".join([*rows, "4,3.9,1,1,1"]))
    columns = COLUMNS | {"Albumine": {"name": "alb2"}}
    with pytest.raises(SchemaError) as caught:
        read(tmp_path, inputs_of(path, columns=columns))
    message = str(caught.value)
    for part in (
        "no sheet has the column 'Albumin'. Did you mean 'Albumine'?",
        "column 'Albumine': 4 of 5 cells are not numbers, rows 2, 3, 4, 5.",
        "column 'Smoker': 4 of 5 cells are not 0/1 or yes/no (among them 'perhaps' 4 times)",
        "1 patients stand in more than one row (ids 4; rows 5, 6)",
        "Response has cells that are not declared: XX (4 rows)",
    ):
        assert part in message
    assert ".37" not in message


def test_without_strictness_the_same_faults_are_notes(tmp_path: Path) -> None:
    path = write(tmp_path, "ID,Sex,Smoker,Response\n1,3,x,1\n1,1,1,7\n2,1,0,0\n")
    cohort = read(tmp_path, inputs_of(path), strict=False)
    assert kinds(cohort) == {"unreadable-value", "unknown-level", "duplicate-subject", "absent-column"}
    assert cohort.values["sex"].tolist() == ["3", "male", "male"], "an unknown level keeps its own text"
    assert len(cohort) == 3
    assert cohort.absent == {"t": frozenset({"albumin"})}
    np.testing.assert_array_equal(cohort.endpoints["response"], [1, np.nan, 0])


def test_a_level_wins_over_the_codes_of_the_source_not_over_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, "ID,a,b,c,Response\n1,NA,NA,NA,1\n2,UNKNOWN,UNKNOWN,UNKNOWN,0\n")
    columns = {
        "a": {"levels": ["NA", "UNKNOWN"]},
        "b": {"levels": ["UNKNOWN"], "missing": ["UNKNOWN"]},
        "c": {"kind": "categorical"},
    }
    values = read(tmp_path, inputs_of(path, columns=columns, missing=["UNKNOWN"])).values
    assert values["a"].tolist() == ["NA", "UNKNOWN"]
    assert values[["b", "c"]].isna().all().all()


def test_one_hot_columns_fold_back(tmp_path: Path) -> None:
    path = write(
        tmp_path, "ID,T1,T2,Type,Response\n1,1,0,,1\n2,0,1,,0\n3,0,0,,0\n4,1,1,,1\n5,0,0,lung,0\n6,0,0,Skin,0\n"
    )
    group = {"name": "type", "columns": {"T1": "Lung", "T2": "Bladder", "T3": "Gut"}, "aliases": ["Type"]}
    cohort = read(tmp_path, inputs_of(path, columns={}, one_hot=[group]))
    assert cohort.values["type"].fillna("?").tolist() == ["Lung", "Bladder", "?", "?", "Lung", "Skin"]
    assert {(note.kind, note.rows) for note in cohort.notes} == {
        ("absent-column", ()),
        ("contradictory-one-hot", (3,)),
        ("unknown-level", (5,)),
    }


def test_include_is_counted_site_by_site(tmp_path: Path) -> None:
    path = write(tmp_path, "ID,Hospital,BEP,Response\n1,A,Y,1\n2,A,N,0\n3,B,y ,0\n4,B,,0\n5,B,N,1\n")
    cohort = read(tmp_path, inputs_of(path, columns={}, site="Hospital", include={"BEP": ["Y"]}))
    assert cohort.sites == ["A", "B"]
    assert [(step.site, step.reason, step.dropped, step.left) for step in cohort.attrition] == [
        ("A", "BEP is not Y", 1, 1),
        ("B", "BEP is not Y", 2, 1),
    ]


def two_sources(folder: Path, second: str, **more: Any) -> Inputs:
    write(folder, "ID,Response\nP1,1\nP2,0\nP3,0\n", "first.csv")
    write(folder, second, "second.csv")
    return Inputs.model_validate(
        {
            "sources": [
                {"path": "first.csv", "subject": "ID"},
                {"path": "second.csv", "subject": "Patient", "columns": {"Volume": {}}} | more,
            ]
        }
    )


def test_sources_are_joined_by_patient(tmp_path: Path) -> None:
    inputs = two_sources(tmp_path, "Patient,Volume,late\nP3,7.5,1\nP9,1,0\nP1,x,0\n")
    late = BinaryEndpoint(name="late", kind="binary", column="late", positive=1)
    cohort = read(tmp_path, inputs, (RESPONSE, late), strict=False)
    np.testing.assert_array_equal(cohort.values["volume"], [np.nan, np.nan, 7.5])
    np.testing.assert_array_equal(cohort.endpoints["late"], [0, np.nan, 1])
    notes = {note.kind: note for note in cohort.notes}
    assert notes["unreadable-value"].rows == (0,), "the row of the decision, not of the second file"
    assert "ids P9" in notes["unmatched-subject"].message


def test_a_patient_twice_in_a_further_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"1 patients stand in more than one row \(ids P1\).*Keep one row a patient"):
        read(tmp_path, two_sources(tmp_path, "Patient,Volume\nP1,1\nP1,2\n"), strict=False)


def test_an_empty_cohort_says_where_its_patients_went(tmp_path: Path) -> None:
    path = write(tmp_path, "ID,BEP,Response\n1,N,1\nNA,Y,0\n.,Y,0\n")
    with pytest.raises(CohortError, match=r"no patient is left \(2 no patient id in 'ID', 1 BEP is not Y\)"):
        read(tmp_path, inputs_of(path, columns={}, include={"BEP": ["Y"]}, missing=["."]))


def test_headers_in_any_script_are_told_apart(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ID": [1], "年齢": [61], "体重": [70], "Gro\u0308\u00dfe": [180]})
    columns = {"年齢": {"name": "age"}, "身長": {"name": "height"}, "Gr\u00f6\u00dfe": {"name": "size"}}
    values = cohort_from_frame(frame, inputs_of("t.csv", columns=columns)).values
    assert values["age"].tolist() == [61]
    assert values["height"].isna().all()
    assert values["size"].tolist() == [180]


def test_dates_years_and_treatment(tmp_path: Path) -> None:
    text = "ID,start,Arm,Response\n1,2018-07-02,A,1\n2,2019-01-01T08:30:00+02:00,,0\n1,,B,0\n"
    inputs = inputs_of(write(tmp_path, text), columns={}, index_time="start", treatment="Arm")
    decisions = read(tmp_path, inputs).decisions
    assert decisions["index_time"].astype(str).tolist()[:2] == ["2018-07-02 00:00:00", "2019-01-01 08:30:00"]
    assert decisions["index_time"].isna().tolist() == [False, False, True]
    np.testing.assert_allclose(decisions["calendar"], [2018 + 182 / 365, 2019 + 8.5 / 24 / 365, np.nan])
    assert decisions["treatment"].fillna("?").tolist() == ["A", "?", "B"]
    wrong = inputs_of(write(tmp_path, "ID,start,Response\n1,02.07.2018,1\n"), columns={}, index_time="start")
    with pytest.raises(SchemaError, match="Write dates as YYYY-MM-DD"):
        read(tmp_path, wrong)
    absent = inputs_of(write(tmp_path, "ID,Response\n1,1\n"), columns={}, calendar="year")
    with pytest.raises(SchemaError, match="there is no column 'year' for `calendar`"):
        read(tmp_path, absent)
    serial = inputs_of(write(tmp_path, "ID,year,Response\n1,43283,1\n"), columns={}, calendar="year")
    with pytest.raises(SchemaError, match=r"not years \(such as 2018\) or dates"):
        read(tmp_path, serial)


@pytest.mark.parametrize(
    ("write_it", "message"),
    [
        (lambda folder: write(folder, "ID;Albumin\n1;2\n"), "Only one column was read: is `delimiter`"),
        (lambda folder: write(folder, "ID,Albumin\n1,2,3\n"), "the rows do not fit the header"),
        (lambda folder: write(folder, ""), "the file is empty"),
        (lambda folder: write(folder, "ID,Größe\n1,2\n", encoding="cp1252"), "Give the source's `encoding`"),
        (lambda folder: write(folder, "PK\x03\x04 not a zip", "t.xlsx"), "no XLSX file, or it is damaged"),
        (lambda folder: write(folder, "PAR1", "t.parquet"), "no Parquet file, or it is damaged"),
        (lambda folder: write(folder, "[{]", "t.json"), r"not valid JSON \(line 1, column 3"),
        (lambda folder: write(folder, "[1]", "t.json"), "expected a list of records"),
        (lambda folder: write(folder, "x", "t.xls"), r"Save it as \.xlsx"),
        (lambda folder: "T.csv.gz", "there is no such file"),
        (lambda folder: write_xlsx(folder, {"A": [["Trial 7", None, None], ["ID", "x", "y"]]}), "remove title rows"),
        (lambda folder: write(folder, "ID,Response,Smoker,Smoker\n1,1,1,0\n"), "stands more than once in the header"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, write_it: Any, message: str) -> None:
    path = write_it(tmp_path)
    with pytest.raises(SchemaError, match=message):
        read(tmp_path, inputs_of(path))


def test_an_unknown_sheet_or_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_xlsx(tmp_path, {"Train": [["ID"], [1]], "Test": [["ID"], [1]]})
    with pytest.raises(SchemaError, match=r"no sheet Trian\. Did you mean 'Train'\? The sheets are Train, Test"):
        read(tmp_path, inputs_of(path, sheets=["Trian"]))
    monkeypatch.delenv("MY_DATA", raising=False)
    with pytest.raises(StudyError, match=r"MY_DATA is not set\. Set it to the folder"):
        read(tmp_path, inputs_of("${MY_DATA}/t.csv"))
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    assert len(read(tmp_path / "elsewhere", inputs_of("${MY_DATA}/t.xlsx", columns={}), ())) == 1


def test_every_format_says_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ID": ["a", "b"], "Albumin": [3.8, None], "Sex": [1, 2], "Smoker": [True, False]})
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t", encoding="utf-16")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    frame.set_index("ID").to_parquet(tmp_path / "t.parquet")
    records = json.loads(frame.to_json(orient="records"))
    (tmp_path / "t.json").write_text(json.dumps({"rows": records}))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    wanted = cohort_from_frame(frame, inputs_of("t.csv"), site="S")
    assert wanted.values["sex"].tolist() == ["male", "female"]
    for suffix in ("csv", "tsv", "xlsx", "parquet", "json", "jsonl"):
        cohort = cohort_from_frame(read_file(tmp_path / f"t.{suffix}"), inputs_of("t.csv"), site="S")
        pd.testing.assert_frame_equal(cohort.values, wanted.values)
        pd.testing.assert_frame_equal(cohort.decisions, wanted.decisions)


def test_scoring_takes_what_is_there(tmp_path: Path) -> None:
    columns = COLUMNS | {"Age.at.diagnosis": {"name": "age", "aliases": ["Alter"]}}
    inputs = inputs_of("t.csv", columns=columns, site="Clinic", include={"BEP": ["Y"]})
    frame = pd.DataFrame({"ALBUMIN": ["3.9", "<2"], "Alter": [61, 62], "sex": ["Male", {"a": 1}], "BEP": ["Y", "N"]})
    cohort = cohort_from_frame(frame, inputs, site="Basel")
    assert cohort.decisions["subject_id"].tolist() == ["1", "2"]
    assert cohort.decisions["site"].tolist() == ["Basel", "Basel"]
    np.testing.assert_array_equal(cohort.values["albumin"], [3.9, np.nan])
    assert cohort.values["age"].tolist() == [61, 62]
    assert cohort.values["sex"].iloc[0] == "male"
    assert cohort.values["smoker"].isna().all()
    assert kinds(cohort) == {
        "absent-column",
        "other-spelling",
        "unreadable-value",
        "unknown-level",
        "outside-inclusion",
    }
    with pytest.raises(SchemaError, match="no column 'ID' with the patient ids"):
        cohort_from_frame(frame, inputs, require_subject=True)
    with pytest.raises(SchemaError, match="stand more than once"):
        cohort_from_frame(pd.concat([frame, frame], axis=1), inputs)


def test_scoring_with_endpoints_is_a_cohort_with_the_study_s_inclusion() -> None:
    inputs = inputs_of("t.csv", include={"BEP": ["Y"]})
    frame = pd.DataFrame({"ID": [1, 2], "Albumin": [4, 4], "BEP": ["Y", "N"], "Response": [1, 0]})
    cohort = cohort_from_frame(frame, inputs, endpoints=(RESPONSE,), site="X")
    assert cohort.endpoints["response"].tolist() == [1.0]
    assert [step.dropped for step in cohort.attrition] == [1]
    with pytest.raises(SchemaError, match="there is no column 'Response'"):
        cohort_from_frame(frame.drop(columns="Response"), inputs, endpoints=(RESPONSE,))


CELLS = st.sampled_from(["3.8", "4", "<2", "", ".", "NE", None, 3.5, 7, True, "n.d."])


@given(
    rows=st.lists(
        st.tuples(CELLS, st.sampled_from(["1", 2, "2.0", "male", "x", None]), CELLS), min_size=1, max_size=12
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_permuting_rows_permutes_the_cohort_and_one_by_one_is_all_at_once(rows: list[Any], seed: int) -> None:
    inputs = inputs_of("t.csv", missing=["n.d.", "."])
    frame = pd.DataFrame(rows, columns=["Albumin", "Sex", "Smoker"], dtype=object)
    frame.insert(0, "ID", [f"P{row}" for row in range(len(frame))])
    order = np.random.default_rng(seed).permutation(len(frame))
    cohort = cohort_from_frame(frame, inputs)
    shuffled = cohort_from_frame(frame.iloc[order], inputs)
    pd.testing.assert_frame_equal(shuffled.values, cohort.take(order).values)
    pd.testing.assert_frame_equal(shuffled.decisions, cohort.take(order).decisions)
    singles = pd.concat([cohort_from_frame(frame.iloc[[row]], inputs).values for row in range(len(frame))])
    pd.testing.assert_frame_equal(singles.reset_index(drop=True), cohort.values)


def test_reading_for_training_and_for_scoring_types_cells_alike(tmp_path: Path) -> None:
    text = "ID,Albumin,Sex,Smoker,Response\n1,3.8,1,yes,1\n2,.,2,no,0\n3,4.25,9,,0\n"
    path = write(tmp_path, text)
    inputs = inputs_of(path, missing=["."])
    trained = read(tmp_path, inputs)
    scored = cohort_from_frame(read_file(tmp_path / path), inputs, endpoints=(RESPONSE,), site="t")
    for part in ("values", "decisions", "endpoints"):
        pd.testing.assert_frame_equal(getattr(trained, part), getattr(scored, part))


def test_many_rows_take_about_a_second() -> None:
    rng = np.random.default_rng(5)
    count = 100_000
    frame = pd.DataFrame(
        {
            "ID": np.arange(count),
            "Albumin": rng.normal(4, 0.5, count).round(2).astype(str),
            "Sex": rng.choice(["1", "2"], count),
            "Smoker": rng.choice(["yes", "no", "."], count),
        }
    )
    began = time.process_time()
    cohort = cohort_from_frame(frame, inputs_of("t.csv", missing=["."]))
    assert len(cohort) == count
    assert time.process_time() - began < 10, "vectorised: measured 0.3 s; a loop over rows would take minutes"


def test_mass_and_substance_are_converted_by_the_analyte_that_the_name_tells(tmp_path: Path) -> None:
    path = tmp_path / "labs.csv"
    path.write_text("id,site,Creatinine,Marker\n1,A,1.0,2\n2,B,88.4,3\n")
    source = {"path": str(path), "subject": "id", "site": "site"}
    creatinine = {"unit": "mg/dL", "site_units": {"B": "umol/L"}}
    inputs = Inputs.model_validate({"sources": [source | {"columns": {"Creatinine": creatinine}}]})
    cohort = read_cohort(inputs, (), base=tmp_path)
    assert cohort.values["creatinine"].tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    unknown = Inputs.model_validate({"sources": [source | {"columns": {"Marker": creatinine}}]})
    with pytest.raises(UnitError, match="marker"):
        read_cohort(unknown, (), base=tmp_path)
