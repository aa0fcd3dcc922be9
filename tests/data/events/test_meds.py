"""MEDS datasets as events."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from theracast_data.errors import SchemaError
from theracast_data.events.readers.meds import read_meds
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

NOON = datetime.fromisoformat("2024-05-31T12:00:00")


def write(path: Path, **changes: pa.Array) -> None:
    """Write three events as MEDS 0.4 has them."""
    columns = {
        "subject_id": pa.array([1, 1, 2], pa.int64()),
        "time": pa.array([None, NOON, NOON], pa.timestamp("us")),
        "code": pa.array(["GENDER//F", "LOINC//1751-7", "MEDS_DEATH"]),
        "numeric_value": pa.array([None, 3.7, None], pa.float32()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | changes), path)


def test_events_of_a_dataset(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train" / "0.parquet")
    write(
        tmp_path / "data" / "tuning" / "0.parquet",
        subject_id=pa.array([7, None, 8], pa.int64()),
        code=pa.array(["A//b", "A//c", None]).dictionary_encode(),
        text_value=pa.array(["x", "y", "z"], pa.large_string()),
        unit=pa.array(["g/dL", None, None]),
        hadm_id=pa.array([1, 2, 3]),
    )
    (tmp_path / "data" / "held_out").mkdir()
    (tmp_path / "data" / "held_out" / "0.parquet").write_bytes(b"PAR1 cut off")
    write(tmp_path / "data" / "held_out" / "1.parquet", code=pa.array([1, 2, 3]))
    pq.write_table(pa.table({"subject_id": [1]}), tmp_path / "data" / "held_out" / "2.parquet")
    report = IngestReport("meds")
    tables = list(read_meds(tmp_path, report=report, batch_rows=2))
    assert all(table.schema == EVENT_SCHEMA for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    assert [(row["subject_id"], row["code"]) for row in rows] == [
        ("1", "1"),
        ("1", "2"),
        ("2", "3"),
        ("1", "GENDER//F"),
        ("1", "LOINC//1751-7"),
        ("2", "MEDS_DEATH"),
        ("7", "A//b"),
    ]
    assert [row["time"] for row in rows[3:6]] == [None, NOON, NOON]
    assert rows[4]["numeric_value"] == float(np.float32(3.7))
    assert (rows[6]["text_value"], rows[6]["unit"], rows[6]["available_time"]) == ("x", "g/dL", None)
    assert (report.read, report.written) == (9, 7)
    assert report.refused == {
        ("(file)", "the file is not Parquet or is damaged"): 1,
        ("(file)", "the file has no column time, code"): 1,
        ("column hadm_id", "the column is no part of an event and was not read"): 3,
        ("(row)", "no patient"): 1,
        ("(row)", "no code"): 1,
    }
    assert report.first["(row)", "no patient"] == "data/tuning/0.parquet row 2"
    assert report.first["(row)", "no code"] == "data/tuning/0.parquet row 3"


def test_zoned_and_nanosecond_times(tmp_path: Path) -> None:
    zoned = pa.array([None, NOON, NOON], pa.timestamp("ns", "Europe/Berlin"))
    write(tmp_path / "data" / "0.parquet", time=zoned)
    [table] = read_meds(tmp_path, report=IngestReport("meds"))
    assert table["time"].to_pylist() == [None, NOON, NOON]  # stored in UTC


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"no data/\*\*/\*.parquet. Name the folder that holds data/"):
        list(read_meds(tmp_path, report=IngestReport("meds")))
