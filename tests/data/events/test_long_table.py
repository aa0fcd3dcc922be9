"""Long tables as events: what is understood, and what is told about the rest."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_data.errors import SchemaError
from theracast_data.events.readers.long_table import LongTableOptions, read_long_table
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

OPTIONS: dict[str, Any] = {
    "path": "labs.csv",
    "subject": "patient",
    "time": {"column": "drawn"},
    "code": "LOINC//{loinc}",
    "value": {"column": "result"},
    "unit_column": "unit",
}
HEADER = "patient,drawn,loinc,result,unit\n"


def read(path: Path, options: Mapping[str, Any], **others: Any) -> tuple[list[dict[str, Any]], IngestReport]:
    """Return events and report of a file."""
    report = IngestReport(path.name)
    tables = list(read_long_table(path, options=LongTableOptions(**options), report=report, **others))
    assert all(table.schema == EVENT_SCHEMA for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert report.written == len(rows)
    return rows, report


def read_text(folder: Path, text: str, **changes: Any) -> tuple[list[dict[str, Any]], IngestReport]:
    """Return events and report of a CSV text."""
    path = folder / "labs.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return read(path, OPTIONS | changes)


def moment(text: str) -> datetime:
    """Return a moment without zone."""
    return datetime.fromisoformat(text)


def test_a_row_is_an_event(tmp_path: Path) -> None:
    rows, report = read_text(tmp_path, HEADER + "007,2024-05-31T08:30:00,1751-7, 3.5 ,g/dL\n")
    assert rows == [
        {
            "subject_id": "007",
            "time": moment("2024-05-31T08:30:00"),
            "code": "LOINC//1751-7",
            "numeric_value": 3.5,
            "text_value": None,
            "unit": "g/dL",
            "available_time": None,
        }
    ]
    assert (report.read, report.refused) == (1, {})


def test_a_date_without_clock_is_known_at_the_end_of_its_day(tmp_path: Path) -> None:
    text = HEADER + "1,2024-05-31,a,1,\n1,2024-05-31 00:00:00,a,1,\n1,2024-05-31T23:30:00-02:00,a,1,\n"
    rows, _ = read_text(tmp_path, text)
    assert [row["time"] for row in rows] == [
        moment("2024-05-31"),
        moment("2024-05-31"),
        moment("2024-06-01T01:30:00"),  # zones become UTC
    ]
    assert [row["available_time"] for row in rows] == [moment("2024-05-31T23:59:59.999999"), None, None]

    rows, _ = read_text(tmp_path, HEADER + "1,31.05.2024,a,1,\n", time={"column": "drawn", "format": "%d.%m.%Y"})
    assert (rows[0]["time"], rows[0]["available_time"]) == (
        moment("2024-05-31"),
        moment("2024-05-31T23:59:59.999999"),
    )
    clock = {"column": "drawn", "format": "%d.%m.%Y %H:%M"}
    rows, _ = read_text(tmp_path, HEADER + "1,31.05.2024 00:00,a,1,\n", time=clock)
    assert (rows[0]["time"], rows[0]["available_time"]) == (moment("2024-05-31"), None)


def test_a_month_is_no_moment(tmp_path: Path) -> None:
    cells = ["2024-05", "2024", "202405", "20240531", "2024-05-31T10"]
    rows, report = read_text(tmp_path, HEADER + "".join(f"1,{cell},a,1,\n" for cell in cells))
    assert [row["time"] for row in rows] == [moment("2024-05-31"), moment("2024-05-31T10:00")]
    assert [row["available_time"] for row in rows] == [moment("2024-05-31T23:59:59.999999"), None]
    assert report.refused == {("LOINC//a", "drawn is no moment of the form ISO 8601"): 3}


def test_available_time_column(tmp_path: Path) -> None:
    text = (
        "patient,drawn,loinc,result,unit,known\n1,2024-05-31,a,1,,2024-06-02\n1,2024-05-31,a,1,,\n1,2024-05-31,a,1,,x\n"
    )
    rows, report = read_text(tmp_path, text, available_time={"column": "known"})
    assert [row["available_time"] for row in rows] == [
        moment("2024-06-02T23:59:59.999999"),
        moment("2024-05-31T23:59:59.999999"),
    ]
    assert report.first == {("LOINC//a", "known is no moment of the form ISO 8601"): "labs.csv line 4"}


def test_numbers_texts_and_limits(tmp_path: Path) -> None:
    cells = ["5", "-1.5e3", "+.5", "<5", ">= 3", "positive", "1e999", "1,5", "nan", "5 mg", "1_000"]
    body = "".join(f'1,2024-05-31,a,"{cell}",\n' for cell in cells)
    rows, report = read_text(tmp_path, HEADER + body, value={"column": "result", "kind": "numeric"})
    assert [row["numeric_value"] for row in rows] == [5, -1500, 0.5, *[None] * 8]
    assert [row["text_value"] for row in rows] == [None, None, None, *cells[3:]]
    assert report.refused == {
        ("LOINC//a", "value beyond a limit, kept as text"): 2,
        ("LOINC//a", "value is no number, kept as text"): 6,
    }
    assert report.first["LOINC//a", "value beyond a limit, kept as text"] == "labs.csv line 5"
    rows, report = read_text(tmp_path, HEADER + body)
    assert report.refused == {("LOINC//a", "value beyond a limit, kept as text"): 2}
    rows, report = read_text(tmp_path, HEADER + body, value={"column": "result", "kind": "text"})
    assert ([row["text_value"] for row in rows], report.refused) == (cells, {})
    rows, _ = read_text(tmp_path, HEADER + body, value={"column": "result", "decimal": ","})
    assert [row["numeric_value"] for row in rows] == [5, *[None] * 6, 1.5, *[None] * 3]


def test_rows_that_lack_something_are_told(tmp_path: Path) -> None:
    body = ",2024-05-31,a,1,\n1,,a,1,\n1,yesterday,a,1,\n1,2024-05-31,,1,\n"
    body += "1,2024-05-31,a, ,\n1,2024-02-30,b,1,\n2,2024-05-31,a,NA,\n"
    rows, report = read_text(tmp_path, HEADER + body, missing=("NA",))
    assert rows == []
    assert report.read == 7
    assert report.refused == {
        ("LOINC//a", "no patient"): 1,
        ("LOINC//a", "no time"): 1,
        ("LOINC//a", "drawn is no moment of the form ISO 8601"): 1,
        ("(no code)", "no code"): 1,
        ("LOINC//a", "no value"): 2,
        ("LOINC//b", "drawn is no moment of the form ISO 8601"): 1,
    }
    assert report.first["LOINC//a", "no value"] == "labs.csv line 6"
    assert "yesterday" not in report.to_text()
    rows, _ = read_text(tmp_path, HEADER + body, value={"column": "result", "empty": "keep"}, missing=("NA",))
    assert [row["subject_id"] for row in rows] == ["1", "2"]


def test_malformed_lines_are_told_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    lines = [
        b"1,2024-05-31,a,1,",
        b"1,2024-05-31,a",  # line 3
        b'1,2024-05-31,a,"two\nlines",',
        b"",
        b"1,2024-05-31,a,1,,,",  # line 7
        b'1,2024-05-31,a,"never closed,',  # line 8
        b"1,2024-05-31,a,\xff,",  # line 9
        b'1,2024-05-31,a,5" and more,',
        b'1,2024-05-31,a,"say ""2""",',
        b"1,2024-05-31,a,9,",
    ]
    path = tmp_path / "labs.csv"
    path.write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n".join(lines))
    rows, report = read(path, OPTIONS)
    values = [row["text_value"] if row["numeric_value"] is None else row["numeric_value"] for row in rows]
    assert values == [1, "two\nlines", '5" and more', 'say "2"', 9]
    assert report.read == 9
    assert report.first == {
        ("(line)", "the line has fewer cells than the header"): "labs.csv line 3",
        ("(line)", "the line has more cells than the header"): "labs.csv line 7",
        ("(line)", "the line is not valid utf-8, or its quotes do not close"): "labs.csv line 8",
    }
    assert sum(report.refused.values()) == 4


@given(
    cells=st.lists(
        st.lists(st.text(st.sampled_from("ab1,\"\n '<é"), max_size=5), min_size=3, max_size=3), min_size=1, max_size=60
    ),
    batch_rows=st.sampled_from([1, 200_000]),
)
def test_any_csv_is_read_as_by_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], batch_rows: int
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    # Rows enough for several blocks, and each with a patient and a code.
    table = [[f"p{number}", *row] for number, row in enumerate(cells * (100 if batch_rows == 1 else 1))]
    writer.writerows([["patient", "code", "result", "other"], *table])
    path = tmp_path_factory.mktemp("csv") / "any.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    options = {"path": "any.csv", "subject": "patient", "code": "X//{patient}"}
    value = {"column": "result", "kind": "text", "empty": "keep"}
    rows, report = read(path, options | {"value": value}, batch_rows=batch_rows)
    assert [(row["subject_id"], row["text_value"]) for row in rows] == [
        (row[0], row[2].strip() or None) for row in table
    ]
    assert report.refused == {}


def test_blocks_do_not_change_rows_or_places(tmp_path: Path) -> None:
    path = tmp_path / "labs.csv.gz"
    lines = [f"{number},2024-05-31,a,{number},g/dL" for number in range(3000)]
    lines[2222] = "2222,2024-05-31,a"
    lines[1111] = '1111,2024-05-31,a,"1\n1",'
    lines[2500] = "2500,never,a,1,"
    path.write_bytes(gzip.compress((HEADER + "\n".join(lines)).encode()))
    report = IngestReport("labs")
    tables = list(read_long_table(path, options=LongTableOptions(**OPTIONS), report=report, batch_rows=10))
    assert len(tables) > 5
    assert [one for table in tables for one in table["subject_id"].to_pylist()] == [
        str(number) for number in range(3000) if number not in (2222, 2500)
    ]
    assert sorted(report.first.values()) == ["labs.csv.gz line 2225", "labs.csv.gz line 2503"]


def test_offsets_from_an_origin(tmp_path: Path) -> None:
    text = HEADER + "1,90,a,1,\n2,-0.5,a,1,\n3,1,a,1,\n1,soon,a,1,\n1,1e30,a,1,\n"
    time = {"column": "drawn", "unit": "minute", "origin": "2020-01-01T00:00:00"}
    rows, report = read_text(tmp_path, text, time=time)
    assert [row["time"] for row in rows] == [
        moment("2020-01-01T01:30"),
        moment("2019-12-31T23:59:30"),
        moment("2020-01-01T00:01"),
    ]
    assert report.refused == {("LOINC//a", "drawn is no number of minutes, or the patient has no origin"): 2}

    (tmp_path / "stays.csv").write_text("stay,admitted\n1,2024-05-31T10:00:00\n2,2024-06-30\n3,\n")
    time["origin"] = {"table": "stays.csv", "key": "stay", "column": "admitted"}
    rows, report = read_text(tmp_path, text, time=time)
    assert [row["time"] for row in rows] == [moment("2024-05-31T11:30"), moment("2024-06-29T23:59:30")]
    assert report.first == {
        ("LOINC//a", "drawn is no number of minutes, or the patient has no origin"): "labs.csv line 4"
    }
    rows, _ = read_text(tmp_path, HEADER + "1,2,a,1,\n", time=time | {"unit": "day"})
    assert rows[0]["available_time"] == moment("2024-06-02T23:59:59.999999")  # a day has no clock

    (tmp_path / "stays.csv").write_text("stay,admitted\n1,2024-05-31\n1,2024-06-30\n")
    with pytest.raises(SchemaError, match=r"stays.csv line 3: .* a second time .* one moment per patient"):
        read_text(tmp_path, text, time=time)


def test_several_entries_in_a_cell(tmp_path: Path) -> None:
    text = HEADER + '1,2024-05-31,"253.2, E23.0",1,\n2,2024-05-31,,1,\n3,2024-05-31,"C34,",2,\n'
    rows, report = read_text(tmp_path, text, split={"loinc": ","}, code="ICD//{loinc}")
    assert [(row["subject_id"], row["code"], row["numeric_value"]) for row in rows] == [
        ("1", "ICD//253.2", 1),
        ("1", "ICD//E23.0", 1),
        ("3", "ICD//C34", 2),
    ]
    assert (report.read, report.refused) == (3, {("(no code)", "no code"): 2})
    assert report.first["(no code)", "no code"] == "labs.csv line 3"


def test_parquet_with_its_own_types(tmp_path: Path) -> None:
    path = tmp_path / "labs.parquet"
    table = pa.table(
        {
            "patient": pa.array([17.0, None, 18.0]),
            "drawn": pa.array([moment("2024-05-31T08:30:00.25")] * 3, pa.timestamp("ns")),
            "loinc": pa.array(["a", "b", "c"]).dictionary_encode(),
            "result": pa.array([1.5, 2.5, 0.1]),
            "unit": pa.array([None, None, "g/dL"]),
        }
    )
    pq.write_table(table, path)
    rows, report = read(path, OPTIONS | {"path": "labs.parquet"}, batch_rows=2)
    assert [(row["subject_id"], row["code"], row["numeric_value"]) for row in rows] == [
        ("17", "LOINC//a", 1.5),
        ("18", "LOINC//c", 0.1),
    ]
    assert rows[0]["time"] == moment("2024-05-31T08:30:00.25")
    assert report.first == {("LOINC//b", "no patient"): "labs.parquet row 2"}
    path.write_bytes(b"PAR1")
    with pytest.raises(SchemaError, match="not a Parquet file"):
        read(path, OPTIONS)


def test_faults_of_the_file_and_its_options(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no such file"):
        read(tmp_path / "labs.csv", OPTIONS)
    with pytest.raises(SchemaError, match=r"no column result\. Did you mean 'results'"):
        read_text(tmp_path, "patient,drawn,loinc,results,unit\n")
    with pytest.raises(SchemaError, match="several columns are called unit"):
        read_text(tmp_path, "patient,drawn,loinc,result,unit,unit\n")
    with pytest.raises(SchemaError, match="the file is empty"):
        read_text(tmp_path, "")
    assert read_text(tmp_path, HEADER)[0] == []
    for change, message in [
        ({"code": "albumin"}, "write the code as SYSTEM//CODE"),
        ({"code": "X//{}"}, r"write columns of the code as \{column\}"),
        ({"time": {"column": "drawn", "format": "%m/%Y"}}, "a moment needs a day"),
        ({"time": {"column": "drawn", "unit": "minute"}}, "`unit` and `origin` together"),
    ]:
        with pytest.raises(ValidationError, match=message):
            LongTableOptions(**(OPTIONS | change))


def test_eicu_laboratory(shared_cohorts: Path) -> None:
    folder = shared_cohorts / "ehr" / "eicu_demo"
    offset = {"unit": "minute", "origin": "2015-01-01"}
    options = {
        "path": "lab.csv",
        "subject": "patientunitstayid",
        "time": {"column": "labresultoffset"} | offset,
        "available_time": {"column": "labresultrevisedoffset"} | offset,
        "code": "eicu//{labname}",
        "value": {"column": "labresult", "otherwise": "labresulttext"},
        "unit_column": "labmeasurenamesystem",
    }
    rows, report = read(folder / "lab.csv", options, batch_rows=20_000)
    with (folder / "lab.csv").open(encoding="utf-8", newline="") as file:
        raw = list(csv.DictReader(file))
    assert (report.read, len(rows)) == (29_961, len(raw))
    assert [row["subject_id"] for row in rows] == [row["patientunitstayid"] for row in raw]
    assert [row["numeric_value"] for row in rows if row["numeric_value"] is not None] == [
        float(row["labresult"] or row["labresulttext"])
        for row in raw
        if (row["labresult"] or row["labresulttext"]).strip().replace(".", "").removeprefix("-").isdigit()
    ]
    start = moment("2015-01-01")
    assert [(row["time"] - start).total_seconds() for row in rows] == [
        60 * float(row["labresultoffset"]) for row in raw
    ]
