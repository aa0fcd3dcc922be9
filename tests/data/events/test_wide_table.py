"""Wide tables as events: one for each measurement that a row tells, known at the end of its day."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from theracast_data.errors import SchemaError
from theracast_data.events.readers.wide_table import WideTableOptions, read_wide_table
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

TEXT = "patient,ftv_0,ftv_1,arm\n7,12.5,,control\n8, 3.25 ,1.5,n.d.\n,9,9,control\n"
OPTIONS: dict[str, Any] = {
    "path": "visits.csv",
    "subject": "patient",
    "origin": "2000-01-01",
    "missing": ["n.d."],
    "columns": {
        "ftv_0": {"code": "trial//ftv", "day": 0, "unit": "cm3"},
        "ftv_1": {"code": "trial//ftv", "day": 21, "unit": "cm3"},
        "arm": {"code": "trial_arm//{cell}", "day": 0},
    },
}


def read(folder: Path, text: str = TEXT, **changes: Any) -> tuple[list[dict[str, Any]], IngestReport]:
    path = folder / "visits.csv"
    path.write_text(text, encoding="utf-8")
    report = IngestReport(path.name)
    tables = list(read_wide_table(path, options=WideTableOptions(**(OPTIONS | changes)), report=report, batch_rows=2))
    assert all(table.schema == EVENT_SCHEMA for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert report.written == len(rows)
    return rows, report


def moment(text: str) -> datetime:
    """Return a moment without zone."""
    return datetime.fromisoformat(text)


def test_each_told_cell_is_an_event_at_its_day(tmp_path: Path) -> None:
    rows, report = read(tmp_path)
    found = sorted((row["subject_id"], row["time"], row["code"], row["numeric_value"], row["unit"]) for row in rows)
    day_0, day_21 = moment("2000-01-01"), moment("2000-01-22")
    assert found == [
        ("7", day_0, "trial//ftv", 12.5, "cm3"),
        ("7", day_0, "trial_arm//control", None, None),
        ("8", day_0, "trial//ftv", 3.25, "cm3"),
        ("8", day_21, "trial//ftv", 1.5, "cm3"),
    ]
    assert all(
        row["available_time"] == row["time"].replace(hour=23, minute=59, second=59, microsecond=999999) for row in rows
    )
    assert {reason for _, reason in report.refused} == {"no patient"}
    assert report.refused["trial//ftv", "no patient"] == 2
    assert report.first["trial//ftv", "no patient"].endswith("line 4")


def test_one_column_may_tell_several_measurements(tmp_path: Path) -> None:
    both = {"ftv_0": [{"code": "trial//ftv", "day": 0}, {"code": "trial//screened", "day": -3}]}
    rows, _ = read(tmp_path, columns=both)
    assert {(row["code"], row["time"]) for row in rows} == {
        ("trial//ftv", moment("2000-01-01")),
        ("trial//screened", moment("1999-12-29")),
    }


def test_an_origin_of_each_patient(tmp_path: Path) -> None:
    (tmp_path / "starts.csv").write_text("patient,start\n7,2021-03-01\n", encoding="utf-8")
    rows, report = read(tmp_path, origin={"table": "starts.csv", "key": "patient", "column": "start"})
    assert {(row["subject_id"], row["time"]) for row in rows} == {("7", moment("2021-03-01"))}
    assert sum(report.refused.values()) == 5  # two measurements of patient 8, three of nobody


def test_a_cell_that_is_no_number_stays_text_and_a_decimal_comma_is_read(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, 'patient,ftv_0,ftv_1,arm\n7,"12,5",not done,control\n', decimal=",")
    assert {(row["numeric_value"], row["text_value"]) for row in rows if row["code"] == "trial//ftv"} == {
        (12.5, None),
        (None, "not done"),
    }


def test_faults_of_the_declaration_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="SYSTEM//CODE"):
        WideTableOptions(**(OPTIONS | {"columns": {"ftv_0": {"code": "ftv", "day": 0}}}))
    with pytest.raises(SchemaError, match="ftv_9"):
        read(tmp_path, columns={"ftv_9": {"code": "trial//ftv", "day": 0}})
