"""What a decision may see, against the rule read aloud row by row."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import SchemaError
from theracast_features.events.visible import dated, visible_events

INDEX = pd.Timestamp("2024-06-01")


def _frame(days: list[tuple[str, int | None, int | None]]) -> pd.DataFrame:
    def times(values: list[int | None]) -> pd.Series:
        return pd.Series(
            [pd.NaT if day is None else INDEX + pd.Timedelta(days=day) for day in values], dtype="datetime64[us]"
        )

    return pd.DataFrame(
        {
            "subject_id": pd.Series([row[0] for row in days], dtype="str"),
            "time": times([row[1] for row in days]),
            "available_time": times([row[2] for row in days]),
            "row": range(len(days)),
        }
    )


DAYS = st.one_of(st.none(), st.integers(-2, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), DAYS, DAYS), max_size=12))
def test_every_row_by_the_rule(days: list[tuple[str, int | None, int | None]]) -> None:
    """Two decisions of one patient and one of another; rows without time, and known at once or later."""
    decisions = pd.DataFrame(
        {"subject_id": ["a", "b", "a"], "index_time": [INDEX, INDEX, INDEX + pd.Timedelta(days=1)]}, index=[7, 8, 9]
    )
    found = visible_events(_frame(days), decisions)
    seen = set(zip(found["decision"], found["row"], strict=True))
    for decision, (subject, index_day) in enumerate([("a", 0), ("b", 0), ("a", 1)]):
        for row, (owner, day, available) in enumerate(days):
            known = available if available is not None else day
            expected = owner == subject and (day is None or day <= index_day) and (known is None or known <= index_day)
            assert ((decision, row) in seen) == expected
    assert found["decision"].is_monotonic_increasing
    assert len(found) == len(seen)


def test_a_decision_without_index_time_sees_nothing() -> None:
    """Not even what is true at all times: as the aggregates have it."""
    events = _frame([("a", 0, None), ("a", None, None)])
    found = visible_events(events, pd.DataFrame({"subject_id": ["a", "a"], "index_time": [pd.NaT, INDEX]}))
    assert found["decision"].tolist() == [1, 1]
    assert dated(found)["row"].tolist() == [0]


def test_events_without_a_time_column_are_refused() -> None:
    events = _frame([("a", 0, None)])
    with pytest.raises(SchemaError, match="column time is missing"):
        visible_events(events.drop(columns="time"), pd.DataFrame({"subject_id": ["a"], "index_time": [INDEX]}))
