"""Events in the cells of a request: read as they are, refused a patient at a time."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from theracast_data.events.access import events_of_cells
from theracast_data.events.schema import EVENT_SCHEMA

EVENT = {"time": "2024-05-31T08:30:00", "code": "LOINC//1751-7", "numeric_value": 3.9, "unit": "g/dL"}


def test_lists_and_their_json_are_the_same_and_missing_is_none() -> None:
    events, faults = events_of_cells([[EVENT], json.dumps([EVENT]), None, float("nan"), "", []])
    assert not faults
    assert events.schema == EVENT_SCHEMA
    rows = events.to_pylist()
    assert [row.pop("subject_id") for row in rows] == ["0", "1"]
    assert rows[0] == rows[1]
    assert rows[0]["time"] == pd.Timestamp("2024-05-31T08:30:00")
    assert rows[0]["available_time"] is None


def test_times_with_an_offset_become_utc_and_numbers_may_be_text() -> None:
    event = {"time": "2024-05-31T10:30:00+02:00", "code": "A//1", "numeric_value": "4.5", "text_value": 7}
    events, _ = events_of_cells([[event, {"code": "A//2", "numeric_value": "high"}]])
    first, second = events.to_pylist()
    assert first["time"] == pd.Timestamp("2024-05-31T08:30:00")
    assert (first["numeric_value"], first["text_value"]) == (4.5, "7")
    assert (second["time"], second["numeric_value"]) == (None, None)


@pytest.mark.parametrize(
    "cell", ["{not json", "7", {"code": "A//1"}, [1], [{"time": "2024-01-01"}], [{"code": None}], [EVENT, {"code": 3}]]
)
def test_what_is_no_list_of_events_is_told_by_row_and_nothing_of_it_is_used(cell: object) -> None:
    events, faults = events_of_cells([[EVENT], cell])
    assert events["subject_id"].to_pylist() == ["0"]
    assert list(faults) == [1]


def test_a_time_that_is_none_costs_the_patient_s_events_alone() -> None:
    events, faults = events_of_cells([[EVENT, EVENT | {"time": "soon"}], [EVENT], [EVENT | {"available_time": "x"}]])
    assert events["subject_id"].to_pylist() == ["1"]
    assert "time is not a date" in faults[0]
    assert "available_time is not a date" in faults[2]
    assert "soon" not in str(faults)
