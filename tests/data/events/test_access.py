"""Events in the cells of a request: read as they are, refused a patient at a time."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.events.access import GivenEvents, events_of_cells
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


times = st.one_of(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(datetime.isoformat),  # noqa: DTZ001
    st.dates().map(str),
    st.sampled_from(
        [
            None,
            "",
            "2024-05-31 08:30",
            "2024-05-31T08:30:00Z",
            "2024-05-31T10:30:00+02:00",
            "2024-05-31T08:30:00.123456789",
            "20240531",
            "2024-05",
            "2024-13-01",
            "soon",
            7,
        ]
    ),
)
numbers = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.sampled_from(["1.5", "n/a", True]))
texts = st.one_of(st.none(), st.text(max_size=3), st.integers(), st.just(float("nan")))
events = st.fixed_dictionaries(
    {"code": st.just("X"), "time": times, "numeric_value": numbers, "text_value": texts, "unit": texts}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=6))
def test_an_event_is_read_the_same_alone_and_among_others(listed: list[dict[str, Any]]) -> None:
    """Among others of its kind it is taken at once, beside cells of other types one by one."""
    together, wrong = events_of_cells([[one] for one in listed])
    for row, one in enumerate(listed):
        alone, fault = events_of_cells([[one]])
        assert bool(fault) == (row in wrong)
        own = together.filter(pa.array([owner == str(row) for owner in together["subject_id"].to_pylist()], pa.bool_()))
        columns = ["time", "code", "numeric_value", "text_value", "unit"]
        assert own.select(columns).to_pylist() == alone.select(columns).to_pylist()


def test_given_events_are_one_shard_known_by_their_content() -> None:
    found, _ = events_of_cells([[{"code": "X", "numeric_value": 1.0}]])
    other, _ = events_of_cells([[{"code": "X", "numeric_value": 2.0}]])
    assert GivenEvents(found).shard_hash(0) == GivenEvents(found.slice(0)).shard_hash(0)
    assert GivenEvents(found).shard_hash(0) != GivenEvents(other).shard_hash(0)
    assert GivenEvents(found).shards_of(["a", "b"]).tolist() == [0, 0]
