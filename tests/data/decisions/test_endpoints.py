"""Endpoints of a few patients, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from theracast_data.decisions import EventEndpoints, derive_event_endpoints
from theracast_data.errors import SchemaError, StudyError

Table = Callable[..., pa.Table]
START = "2020-01-01 12:00"
DEATH = {"codes": ["MEDS_DEATH"], "on_index_day": True}
PROGRESSION = {"codes": ["PROGRESSION//*"]}


def endpoint(events: pa.Table, subjects: str, /, *, treatment: str = "A", **section: Any) -> pd.DataFrame:
    decisions = pd.DataFrame(
        {"subject_id": list(subjects), "index_time": pd.Timestamp(START), "treatment": treatment, "site": "all"}
    )
    wanted = EventEndpoints.model_validate({"endpoints": [{"name": "y"} | section]})
    return derive_event_endpoints(events, decisions, wanted)


def test_progression_free_survival_is_the_first_of_both(table: Table) -> None:
    events = table(
        ("a", "2020-01-11 12:00", "PROGRESSION//1"),
        ("a", "2020-02-11 12:00", "MEDS_DEATH"),
        ("b", "2020-01-21 12:00", "MEDS_DEATH"),
        ("c", "2019-12-01 12:00", "PROGRESSION//1"),
        ("c", "2020-01-31 12:00", "VISIT//1"),
        ("d", "2020-01-01", "PROGRESSION//1"),
        ("d", "2020-01-04 00:00", "VISIT//1"),
        ("e", "2020-01-01", "MEDS_DEATH"),
        ("f", "2019-01-01", "VISIT//1"),
    )
    found = endpoint(events, "abcdefg", kind="first_event", events=[PROGRESSION, DEATH], horizon="20d")
    assert found["y.time"].tolist() == [10.0, 20.0, 30.0, 2.5, 0.0, 0.0, 0.0]
    assert found["y.event"].tolist() == [1, 1, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(found["y"], [1, 1, 0, np.nan, 1, np.nan, np.nan])
    free = endpoint(
        events, "abc", kind="first_event", events=[PROGRESSION, DEATH], horizon="20d", positive="event_free"
    )
    assert free["y"].tolist() == [0, 0, 1]


def test_last_contact_and_end_of_follow_up(table: Table) -> None:
    events = table(
        ("a", "2020-01-11 12:00", "VISIT//1"),
        ("a", "2021-01-11 12:00", "BILL//1"),
        ("b", "2020-01-21 12:00", "MEDS_DEATH"),
        ("b", "2020-01-30 12:00", "PROGRESSION//1"),
        ("c", "2020-01-21 12:00", "MEDS_DEATH"),
        ("c", "2020-01-21 12:00", "PROGRESSION//1"),
    )
    found = endpoint(
        events,
        "abc",
        kind="first_event",
        events=[PROGRESSION],
        ends_follow_up={"codes": ["MEDS_DEATH"]},
        last_contact={"codes": ["VISIT//*"]},
    )
    assert found.to_numpy().tolist() == [[10.0, 0.0], [20.0, 0.0], [20.0, 1.0]]


def test_next_line_is_another_drug_or_the_same_after_a_pause(table: Table) -> None:
    events = table(
        *[(one, START, "RX//a") for one in "abcd"],
        ("a", "2020-01-15 12:00", "RX//b"),  # within the grace
        ("a", "2020-03-01 12:00", "RX//b"),
        ("b", "2020-01-22 12:00", "RX//a"),
        ("b", "2020-08-09 12:00", "RX//a"),
        ("c", "2020-01-22 12:00", "RX//a"),
        ("d", "2020-02-22 12:00", "RX//a2"),
    )
    line = {"kind": "next_line", "codes": ["RX//*"], "treatment": {"RX//a*": "A", "RX//b": "B"}}
    found = endpoint(events, "abcd", kind="first_event", events=[line | {"pause": "180d"}])
    assert found["y.time"].tolist() == [60.0, 221.0, 21.0, 52.0]
    assert found["y.event"].tolist() == [1, 1, 0, 0]
    assert endpoint(events, "b", kind="first_event", events=[line])["y.event"].tolist() == [0]
    both = endpoint(events, "a", treatment="A + B", kind="first_event", events=[line])
    assert both["y.event"].tolist() == [0]
    with pytest.raises(StudyError, match="Map codes to treatments there as in the trigger"):
        endpoint(events, "a", treatment="C", kind="first_event", events=[line])


RECIST = {
    "kind": "best_response",
    "categories": {
        "RECIST//x=CR": "CR",
        "RECIST//x=PR": "PR",
        "RECIST//x=SD": "SD",
        "RECIST//PD": "PD",
        "RECIST//x=NE": "NE",
    },
    "window": "(0d, 180d]",
}


@pytest.mark.parametrize(
    ("visits", "best"),
    [
        ([(42, "SD"), (84, "PR"), (126, "SD")], 2),
        ([(42, "SD"), (84, "PD"), (126, "CR")], 1),
        ([(42, "PD"), (84, "CR")], 0),
        ([(42, "PR"), (42, "PD"), (84, "CR")], 0),
        ([(42, "PR"), (84, "CR"), (85, "PD")], 3),
        ([(181, "CR")], None),
        ([(180, "CR")], 3),
        ([(0, "CR")], None),
        ([(-5, "PD"), (42, "PR")], 2),
        ([(42, "NE"), (84, "NE")], None),
        ([(20, "SD")], None),
        ([(20, "PR")], 2),
        ([], None),
    ],
)
def test_best_overall_response(table: Table, visits: list[tuple[int, str]], best: int | None) -> None:
    rows = [
        ("a", pd.Timestamp(START) + pd.Timedelta(days=day), "RECIST//PD" if said == "PD" else "RECIST//x", None, said)
        for day, said in visits
    ]
    rule = RECIST | {"least_days": {"SD": 35}}
    wanted = np.nan if best is None else float(best)
    np.testing.assert_array_equal(endpoint(table(*rows), "a", **rule)["y"], [wanted])
    positive = endpoint(table(*rows), "a", **rule, positive=["PR", "CR"])["y"]
    np.testing.assert_array_equal(positive, [np.nan if best is None else float(best >= 2)])


def test_next_therapy_stops_the_assessment_and_death_without_one_is_failure(table: Table) -> None:
    events = table(
        ("a", "2020-02-01 12:00", "RX//b"),
        ("a", "2020-03-01 12:00", "RECIST//x", None, "cr "),
        ("b", "2020-02-01 12:00", "MEDS_DEATH"),
        ("c", "2020-02-01 12:00", "RECIST//x", None, "SD"),
        ("c", "2020-02-03 12:00", "MEDS_DEATH"),
        ("d", "2020-08-01 12:00", "MEDS_DEATH"),
    )
    rule = RECIST | {"stop": [{"codes": ["RX//*"]}], "failure": [{"codes": ["MEDS_DEATH"]}]}
    np.testing.assert_array_equal(endpoint(events, "abcd", **rule)["y"], [np.nan, 0, 1, np.nan])
    np.testing.assert_array_equal(endpoint(events, "abcd", **RECIST)["y"], [3, np.nan, 1, np.nan])


def test_unnamed_categories_are_an_error_with_the_way_out(table: Table) -> None:
    events = table(("a", "2020-02-01 12:00", "RECIST//x", None, "mixed"))
    with pytest.raises(SchemaError, match="1 assessments say something that `categories` does not name"):
        endpoint(events, "a", **RECIST)
    named = RECIST | {"categories": RECIST["categories"] | {"RECIST//x": "NE"}}  # type: ignore[operator]
    assert endpoint(events, "a", **named)["y"].isna().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window": "(-30d, 180d]"}, "begins at or after 0d"),
        ({"window": "(0d, +inf)"}, "has an end"),
        ({"positive": ["XX"]}, "XX: neither among `levels` nor NE"),
    ],
)
def test_sections_say_how_to_mend_them(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EventEndpoints.model_validate({"endpoints": [{"name": "y"} | RECIST | change]})


def test_a_death_before_progression_competes_with_it(table: Table) -> None:
    events = table(
        ("a", "2020-01-11 12:00", "PROGRESSION//1"),
        ("a", "2020-02-11 12:00", "MEDS_DEATH"),
        ("b", "2020-01-21 12:00", "MEDS_DEATH"),
        ("b", "2020-01-30 12:00", "PROGRESSION//1"),
        ("c", "2020-01-21 12:00", "MEDS_DEATH"),
        ("c", "2020-01-21 12:00", "PROGRESSION//1"),
        ("d", "2020-01-16 12:00", "MOVED"),
        ("d", "2020-01-21 12:00", "MEDS_DEATH"),
        ("e", "2020-01-31 12:00", "VISIT//1"),
        ("f", "2020-01-06 12:00", "SECOND_CANCER"),
        ("f", "2020-01-21 12:00", "MEDS_DEATH"),
        ("g", "2020-01-01", "MEDS_DEATH"),
    )
    asked: dict[str, Any] = {
        "kind": "first_event",
        "events": [PROGRESSION],
        "competing": [{"codes": ["MEDS_DEATH"]}, {"codes": ["SECOND_CANCER"]}],
        "ends_follow_up": {"codes": ["MOVED"]},
    }
    found = endpoint(events, "abcdefg", **asked)
    assert found["y.time"].tolist() == [10.0, 20.0, 20.0, 15.0, 30.0, 5.0, 0.0]
    assert found["y.event"].tolist() == [1, 2, 1, 0, 0, 2, 2]
    within = endpoint(events, "abcdefg", **asked, horizon="25d")
    np.testing.assert_array_equal(within["y"], [1, 0, 1, np.nan, 0, 0, 0])
    with pytest.raises(ValidationError, match="say positive: event"):
        endpoint(events, "a", **asked, horizon="25d", positive="event_free")
