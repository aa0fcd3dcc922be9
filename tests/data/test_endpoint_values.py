"""Endpoints from raw outcome columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from theracast_data.endpoint_values import derive_endpoints, endpoint_columns, event_within, read_endpoints
from theracast_data.endpoints import DAYS_PER, Endpoint
from theracast_data.errors import SchemaError

ENDPOINT: TypeAdapter[Endpoint] = TypeAdapter(Endpoint)


def endpoint(**fields: Any) -> Endpoint:
    return ENDPOINT.validate_python({"name": "y"} | fields)


def derive(raw: dict[str, list[Any]], one: Endpoint, **more: Any) -> pd.DataFrame:
    return derive_endpoints(pd.DataFrame(raw, dtype=object), [one], **more)


RECIST = ["CR", "pr ", "SD", "PD", "NE", ".", None]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"not_evaluable": ["NE", "."]}, [1, 1, 0, 0, np.nan, np.nan, np.nan]),
        ({"not_evaluable": ["NE", "."], "not_evaluable_as": "negative"}, [1, 1, 0, 0, 0, 0, np.nan]),
        ({"not_evaluable": ["NE"], "negative": ["SD", "PD"]}, [1, 1, 0, 0, np.nan, np.nan, np.nan]),
        ({}, [1, 1, 0, 0, 0, np.nan, np.nan]),
    ],
)
def test_response_from_recist(more: dict[str, Any], expected: list[float]) -> None:
    one = endpoint(kind="binary", column="BOR", positive=["CR", "PR"], **more)
    np.testing.assert_array_equal(derive({"BOR": RECIST}, one, missing=["."])["y"], expected)


def test_undeclared_cells_are_named_as_cells_with_no_patient() -> None:
    one = endpoint(kind="binary", column="BOR", positive=["CR", "PR"], negative=["SD", "PD"])
    with pytest.raises(
        SchemaError, match=r"BOR has cells that are not declared: \., NE \(2 rows\)\. Say what they mean"
    ):
        derive({"BOR": RECIST}, one)


def test_a_mark_that_never_occurs_is_not_silently_no() -> None:
    with pytest.raises(SchemaError, match=r"Response has the cells No, Yes; none of them means yes.*declared is 1"):
        derive({"Response": ["Yes", "No"]}, endpoint(kind="binary", column="Response"))
    with pytest.raises(SchemaError, match=r"none of them marks an event \(`marks`\), declared is 1"):
        derive({"t": [1, 2], "e": ["dead", "alive"]}, endpoint(kind="time_to_event", time="t", event="e"))
    none_yet = derive({"Response": [0, "0"]}, endpoint(kind="binary", column="Response"))
    assert none_yet["y"].tolist() == [0.0, 0.0], "nobody responded: possible"


@pytest.mark.parametrize("unit", list(DAYS_PER))
@pytest.mark.parametrize("flag", ["event", "censored"])
def test_time_to_event_in_every_unit_and_either_direction(unit: str, flag: str) -> None:
    one = endpoint(kind="time_to_event", time="t", unit=unit, **{flag: "f"})
    frame = derive({"t": ["2", 3.0, ".", 1], "f": [1, "0", 1, None]}, one, missing={"t": ["."]})
    days = DAYS_PER[unit]  # type: ignore[index]
    np.testing.assert_allclose(frame["y.time"], [2 * days, 3 * days, np.nan, np.nan])
    np.testing.assert_array_equal(
        frame["y.event"], [1.0, 0.0, np.nan, np.nan] if flag == "event" else [0.0, 1.0, np.nan, np.nan]
    )


def test_other_marks_mean_events_too() -> None:
    one = endpoint(kind="time_to_event", time="t", event="f", marks=["DEAD", 2])
    assert derive({"t": [1, 1, 1], "f": ["dead", "ALIVE", 2.0]}, one)["y.event"].tolist() == [1.0, 0.0, 1.0]


def test_a_horizon_leaves_out_nobody_in_silence() -> None:
    followed = {"time": "t", "event": "e", "unit": "month"}
    raw = {"t": [3, 3, 6, 6, 9, 9, None], "e": [1, 0, 1, 0, 1, 0, 1]}
    dead = derive(raw, endpoint(kind="binary", follow_up=followed, horizon=6))
    np.testing.assert_array_equal(dead["y"], [1, np.nan, 1, 0, 0, 0, np.nan])
    alive = derive(raw, endpoint(kind="binary", follow_up=followed, horizon=6, positive="event_free"))
    np.testing.assert_array_equal(alive["y"], 1 - dead["y"])
    assert list(dead.columns) == ["y", "y.time", "y.event"]
    assert dead["y.time"].iloc[0] == 3 * 30.4375
    assert dead["y.event"].iloc[1] == 0, "censored before the horizon: its time stays, for the weights"


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1])), min_size=1, max_size=30), st.integers(1, 7))
def test_the_horizon_rule_equals_its_words(patients: list[tuple[int, int]], horizon: int) -> None:
    time, event = (np.array(column, dtype=float) for column in zip(*patients, strict=True))
    for (days, happened), value in zip(patients, event_within(time, event, horizon), strict=True):
        if happened and days <= horizon:
            assert value == 1
        elif days >= horizon:
            assert value == 0
        else:
            assert np.isnan(value)
            assert not happened


def test_ordinal_counts_from_the_worst() -> None:
    one = endpoint(kind="ordinal", column="BOR", levels=["PD", "SD", "PR", "CR"])
    np.testing.assert_array_equal(derive({"BOR": ["CR", "pd", "SD", "."]}, one, missing=["."])["y"], [3, 0, 1, np.nan])
    with pytest.raises(SchemaError, match="not declared: NE"):
        derive({"BOR": ["NE", "CR"]}, one)


def test_continuous_and_all_faults_at_once() -> None:
    endpoints = [
        endpoint(name="change", kind="continuous", column="delta"),
        endpoint(name="os", kind="time_to_event", time="t", event="gone"),
        endpoint(name="r", kind="binary", column="Respons"),
    ]
    raw = pd.DataFrame({"delta": ["-12.5", "<3"], "t": [-1, 4], "Response": [1, 0]}, dtype=object)
    with pytest.raises(SchemaError) as caught:
        derive_endpoints(raw, endpoints)
    message = str(caught.value)
    for part in (
        "column 'delta': 1 of 2 cells are not numbers",
        "1 times are below 0",
        "no column 'gone'",
        "Did you mean 'Response'?",
    ):
        assert part in message
    assert "12.5" not in message
    lenient = read_endpoints(raw, endpoints)
    np.testing.assert_array_equal(lenient.frame["change"], [-12.5, np.nan])
    assert {note.kind for note in lenient.notes} == {"unreadable-value", "absent-column"}


def test_the_columns_that_endpoints_need() -> None:
    endpoints = [
        endpoint(kind="binary", column="R"),
        endpoint(kind="binary", follow_up={"time": "t", "censored": "c"}, horizon=6),
        endpoint(kind="time_to_event", time="t", event="e"),
    ]
    assert endpoint_columns(endpoints) == ["R", "t", "c", "e"]


def test_a_change_is_counted_from_its_baseline() -> None:
    change = endpoint(name="change", kind="continuous", column="later", baseline="first")
    raw = pd.DataFrame({"later": ["5", "NA", "1.5", "7"], "first": ["2", "3", "4", ""]}, dtype=object)
    found = derive_endpoints(raw, [change])["change"].tolist()
    assert found[0] == 3
    assert found[2] == -2.5
    assert np.isnan([found[1], found[3]]).all()
    assert endpoint_columns([change]) == ["later", "first"]
    with pytest.raises(SchemaError, match="there is no column 'first'"):
        derive_endpoints(raw[["later"]], [change])


def test_a_competing_event_is_told_apart_from_censoring() -> None:
    cells = ["relapsed", "died", "alive", ".", "Died"]
    one = endpoint(kind="time_to_event", time="t", event="f", unit="day", marks=["relapsed"], competing=["died"])
    frame = derive({"t": [1, 2, 3, 4, 5], "f": cells}, one, missing=["."])
    np.testing.assert_array_equal(frame["y.event"], [1.0, 2.0, 0.0, np.nan, 2.0])
    followed = {"time": "t", "event": "f", "unit": "day", "marks": ["relapsed"], "competing": ["died"]}
    within = derive(
        {"t": [9, 9, 9, 9, 12], "f": cells}, endpoint(kind="binary", follow_up=followed, horizon=10), missing=["."]
    )
    np.testing.assert_array_equal(within["y"], [1.0, 0.0, np.nan, np.nan, 0.0])
    codes = endpoint(kind="time_to_event", time="t", event="f", competing=[2, 3])
    assert derive({"t": [1, 1, 1, 1], "f": ["1", 2, 3.0, 0]}, codes)["y.event"].tolist() == [1.0, 2.0, 2.0, 0.0]


def test_a_misspelt_competing_event_is_not_censoring_in_silence() -> None:
    one = endpoint(kind="time_to_event", time="t", event="f", marks=["relapsed"], competing=["dead"])
    with pytest.raises(SchemaError, match=r"none of them marks a competing event \(`competing`\), declared is dead"):
        derive({"t": [1, 2, 3], "f": ["relapsed", "died", "alive"]}, one)
    nobody = derive({"t": [1, 2], "f": ["relapsed", "alive"]}, one)
    assert nobody["y.event"].tolist() == [1.0, 0.0], "nobody died: possible"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "time_to_event", "time": "t", "censored": "f", "competing": [2]}, "say `event`, not `censored`"),
        ({"kind": "time_to_event", "time": "t", "event": "f", "competing": [2, "1"]}, "means one of the two"),
        (
            {
                "kind": "binary",
                "follow_up": {"time": "t", "event": "f", "competing": [2]},
                "horizon": 6,
                "positive": "event_free",
            },
            "say positive: event",
        ),
    ],
)
def test_competing_events_that_make_no_sense_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        endpoint(**more)
