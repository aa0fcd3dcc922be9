"""What must always hold for decisions and endpoints from events, against a slow and obvious loop."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from theracast_data.decisions import DecisionSection, EventEndpoints, derive_decisions, derive_event_endpoints
from theracast_data.decisions.windows import parse_window
from theracast_data.events.schema import EVENT_SCHEMA

EPOCH = datetime(2020, 1, 1)  # noqa: DTZ001
HOURS = 8
"""Times lie on a grid of eight hours, so that ends of windows, midnights and ties are met often."""
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

moments = st.integers(-60, 60).map(lambda step: EPOCH + timedelta(hours=HOURS * step))
rows = st.tuples(
    st.sampled_from("abc"),
    st.one_of(st.none(), moments, moments, moments),
    st.sampled_from(["RX//1", "LAB//1", "LAB//2", "DX//1", "PROGRESSION//1", "RECIST//PR", "RECIST//SD", "MEDS_DEATH"]),
    st.one_of(st.none(), st.integers(0, 6).map(float)),
    st.sampled_from([None, "North", "South"]),
    st.none(),
    st.one_of(st.none(), moments),
)
"""Patient, time, code, number, text, unit, available."""
streams = st.lists(rows, max_size=25)


def dense_stream(seed: int) -> list[tuple[Any, ...]]:
    """Events so close together that many lie exactly at the end of a window, or at the decision itself."""
    rng = np.random.default_rng(seed)
    days = [EPOCH + timedelta(days=float(half) / 2) for half in rng.integers(-8, 6, 24)]
    late = [timedelta(days=float(half) / 2) for half in rng.integers(0, 4, 24)]
    return [
        (
            "ab"[rng.integers(2)],
            None if rng.random() < 0.1 else day,
            str(rng.choice(["RX//1", "LAB//1", "LAB//2"])),
            *(None, None, None),
            day + delay if rng.random() < 0.3 else None,
        )
        for day, delay in zip(days, late, strict=True)
    ]


dense = st.integers(0, 2**32 - 1).map(dense_stream)
windows = st.tuples(
    st.sampled_from("[("), st.integers(-4, -1), st.integers(-3, 0), st.sampled_from("])"), st.booleans()
).filter(lambda drawn: drawn[1] < drawn[2])


def table(stream: list[tuple[Any, ...]]) -> pa.Table:
    columns = {name: [row[place] for row in stream] for place, name in enumerate(EVENT_SCHEMA.names)}
    return pa.table(columns, schema=EVENT_SCHEMA)


def written(drawn: tuple[str, int, int, str, bool]) -> str:
    left, start, end, right, endless = drawn
    return f"(-inf, {end}d{right}" if endless else f"{left}{start}d, {end}d{right}"


SECTION = {
    "trigger": {"codes": ["RX//*"], "occurrence": "each"},
    "site": {"codes": ["LAB//*"]},
    "attributes": {"number": {"codes": ["LAB//1"], "take": "number"}},
    "include": [{"name": "lab", "codes": ["LAB//*"], "window": "[-8d, 0d]", "value": {"at_most": 4}}],
    "exclude": [{"name": "dx", "codes": ["DX//1"], "window": "(-5d, -1d)", "distinct": "days", "at_least": 2}],
    "observation": {"before": "2d"},
}
ENDPOINTS = EventEndpoints.model_validate(
    {
        "endpoints": [
            {
                "name": "pfs",
                "kind": "first_event",
                "events": [{"codes": ["PROGRESSION//*"]}, {"codes": ["MEDS_DEATH"], "on_index_day": True}],
                "horizon": "10d",
            },
            {
                "name": "bor",
                "kind": "best_response",
                "categories": {"RECIST//PR": "PR", "RECIST//SD": "SD", "PROGRESSION//1": "PD"},
                "window": "(0d, 10d]",
                "stop": [{"codes": ["DX//1"]}],
                "failure": [{"codes": ["MEDS_DEATH"]}],
            },
        ]
    }
)


def visible(row: tuple[Any, ...], index: datetime) -> bool:
    time, available = row[1], row[6]
    if time is None:
        return available is None or available <= index
    midnight = (time.hour, time.minute) == (0, 0)
    known = available or (time + timedelta(days=1) if midnight else time)
    return time <= index and known <= index


@settings(quick, max_examples=200)
@given(dense, windows, st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3)), st.sampled_from(["events", "days"]))
def test_window_rules_are_those_of_a_slow_loop(
    stream: list[tuple[Any, ...]], drawn: tuple[str, int, int, str, bool], fewest: int, most: int | None, distinct: str
) -> None:
    if most is not None and most < fewest:
        fewest, most = most, fewest
    limits = {"at_least": fewest} | ({} if most is None else {"at_most": most})
    rule = {"name": "rule", "codes": ["LAB//*"], "window": written(drawn), "distinct": distinct} | limits
    section = {"trigger": {"codes": ["RX//1"], "occurrence": "each"}, "include": [rule]}
    found = derive_decisions(table(stream), DecisionSection.model_validate(section)).frame
    left, start, end, right, endless = drawn
    expected = []
    for subject, index in sorted({(row[0], row[1]) for row in stream if row[2] == "RX//1" and row[1] is not None}):
        counted: list[Any] = []
        for row in stream:
            if row[0] != subject or not row[2].startswith("LAB") or not visible(row, index):
                continue
            if row[1] is None:
                inside = endless
            else:
                days = (row[1] - index) / timedelta(days=1)
                after = endless or days > start or (days == start and left == "[")
                inside = after and (days < end or (days == end and right == "]"))
            if inside:
                counted.append(None if row[1] is None else row[1].date())
        count = len(set(counted)) if distinct == "days" else len(counted)
        if fewest <= count <= (99 if most is None else most):
            expected.append((subject, pd.Timestamp(index)))
    assert list(zip(found["subject_id"], found["index_time"], strict=True)) == expected


@quick
@given(streams, st.randoms(use_true_random=False))
def test_the_order_of_the_events_decides_nothing(stream: list[tuple[Any, ...]], random: Any) -> None:
    shuffled = list(stream)
    random.shuffle(shuffled)
    section = DecisionSection.model_validate(
        SECTION | {"landmarks": {"days": [0, 3], "ends": [{"codes": ["PROGRESSION//*"]}]}}
    )
    one, other = (derive_decisions(table(rows), section) for rows in (stream, shuffled))
    pd.testing.assert_frame_equal(one.frame, other.frame)
    assert one.attrition == other.attrition
    pd.testing.assert_frame_equal(
        derive_event_endpoints(table(stream), one.frame, ENDPOINTS),
        derive_event_endpoints(table(shuffled), one.frame, ENDPOINTS),
    )


@quick
@given(streams, st.lists(rows, max_size=8))
def test_what_comes_after_the_decision_does_not_change_it(
    stream: list[tuple[Any, ...]], later: list[tuple[Any, ...]]
) -> None:
    section = DecisionSection.model_validate(SECTION)
    before = derive_decisions(table(stream), section).frame
    late = [(row[0], (row[1] or EPOCH) + timedelta(days=41), *row[2:6], None) for row in later if row[2] != "RX//1"]
    pd.testing.assert_frame_equal(derive_decisions(table(stream + late), section).frame, before)
    # Known late though dated early: just as little.
    unreported = [(*row[:6], EPOCH + timedelta(days=41)) for row in later if row[2].startswith(("LAB", "DX"))]
    without_observation = DecisionSection.model_validate({k: v for k, v in SECTION.items() if k != "observation"})
    pd.testing.assert_frame_equal(
        derive_decisions(table(stream + unreported), without_observation).frame,
        derive_decisions(table(stream), without_observation).frame,
    )


@quick
@given(streams, st.lists(rows, max_size=8))
def test_what_comes_after_the_horizon_changes_no_response(
    stream: list[tuple[Any, ...]], later: list[tuple[Any, ...]]
) -> None:
    followed = [(subject, EPOCH + timedelta(days=35), "VISIT//1", None, None, None, None) for subject in "abc"]
    section = DecisionSection.model_validate({"trigger": {"codes": ["RX//1"], "occurrence": "each"}})
    stream += followed
    decisions = derive_decisions(table(stream), section).frame
    before = derive_event_endpoints(table(stream), decisions, ENDPOINTS)
    late = [(row[0], (row[1] or EPOCH) + timedelta(days=60), *row[2:6], None) for row in later]
    after = derive_event_endpoints(table(stream + late), decisions, ENDPOINTS)
    pd.testing.assert_frame_equal(before[["pfs", "bor"]], after[["pfs", "bor"]])
    had = before["pfs.event"] == 1
    pd.testing.assert_frame_equal(before[had], after[had])


@quick
@given(streams)
def test_first_event_is_that_of_a_slow_loop(stream: list[tuple[Any, ...]]) -> None:
    section = DecisionSection.model_validate({"trigger": {"codes": ["RX//1"], "occurrence": "each"}})
    decisions = derive_decisions(table(stream), section).frame
    found = derive_event_endpoints(table(stream), decisions, ENDPOINTS)
    for place, (subject, stamp) in enumerate(zip(decisions["subject_id"], decisions["index_time"], strict=True)):
        index = stamp.to_pydatetime()
        own = [row for row in stream if row[0] == subject and row[1] is not None]
        outcome = [row[1] for row in own if row[2] in ("PROGRESSION//1", "MEDS_DEATH") and row[1] > index]
        midnight = index.replace(hour=0)
        outcome += [index for row in own if row[2] == "MEDS_DEATH" and row[1] == midnight]
        end = min(outcome) if outcome else max(row[1] for row in own)
        days = max((end - index) / timedelta(days=1), 0.0)
        assert found.loc[place, "pfs.time"] == pytest.approx(days)
        assert found.loc[place, "pfs.event"] == bool(outcome)
        expected = float(min(outcome) <= index + timedelta(days=10)) if outcome else (0.0 if days >= 10 else np.nan)
        np.testing.assert_equal(found.loc[place, "pfs"], expected)


@given(windows)
def test_windows_say_whether_they_look_ahead(drawn: tuple[str, int, int, str, bool]) -> None:
    assert not parse_window(written(drawn)).looks_ahead
    assert parse_window(written(drawn).replace(f", {drawn[2]}d", ", 1d")).looks_ahead


@settings(quick, max_examples=150)
@given(streams)
def test_best_response_is_that_of_a_slow_loop(stream: list[tuple[Any, ...]]) -> None:
    section = DecisionSection.model_validate({"trigger": {"codes": ["RX//1"], "occurrence": "each"}})
    decisions = derive_decisions(table(stream), section).frame
    found = derive_event_endpoints(table(stream), decisions, ENDPOINTS)["bor"]
    level = {"RECIST//PR": 2, "RECIST//SD": 1, "PROGRESSION//1": 0}
    for place, (subject, stamp) in enumerate(zip(decisions["subject_id"], decisions["index_time"], strict=True)):
        index = stamp.to_pydatetime()
        own = [row for row in stream if row[0] == subject and row[1] is not None]
        horizon = index + timedelta(days=10)
        never = EPOCH + timedelta(days=999)
        stop = min([row[1] for row in own if row[2] == "DX//1" and row[1] > index], default=never)
        deaths = [row[1] for row in own if row[2] == "MEDS_DEATH" and index < row[1] <= horizon]
        deaths += [index for row in own if row[2] == "MEDS_DEATH" and row[1] == index.replace(hour=0)]
        best = None
        for moment in sorted({row[1] for row in own if row[2] in level and index < row[1] <= horizon}):
            if moment > min([stop, *deaths]):
                break
            said = min(level[row[2]] for row in own if row[1] == moment and row[2] in level)
            best = said if best is None else max(best, said)
            if said == 0:
                break
        if best is None and deaths:
            best = 0
        np.testing.assert_equal(found[place], np.nan if best is None else float(best))
