"""Event features on DuckDB against a slow, obvious loop; and what must never change a cell."""

from __future__ import annotations

import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import SchemaError, StudyError
from theracast_data.events.concepts import Concept
from theracast_features.events.catalogue import event_catalogue, plan_features
from theracast_features.events.cells import ENGINE_SCHEMA
from theracast_features.events.duckdb_engine import SMALL, event_features
from theracast_features.events.section import Aggregate, EventFeatures, window_microseconds
from theracast_features.events.sql import DUCKDB, SPARK, event_sql

ORIGIN = datetime(2024, 1, 1)  # noqa: DTZ001 - events carry the hospital's own time
AGGREGATES = get_args(Aggregate)
WINDOWS = ("12h", "7d", "1w", "2w", "all")
CONCEPTS = {
    "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", reference_range=(0.6, 1.2)),
    "ldh": Concept(codes=("LOINC//1", "LOINC//2"), label="LDH", unit="U/L", reference_range=(None, 250)),
    'it\'s "odd"; drop table events': Concept(codes=("ATC//L01*",), modality="treatment"),
}
FEATURES = tuple(EventFeatures(concept=name, windows=WINDOWS, aggregates=AGGREGATES) for name in CONCEPTS)
EVENT = tuple[str, datetime | None, datetime | None, str, float | None]


def table(rows: list[EVENT]) -> pa.Table:
    """Events as the engines take them."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, ENGINE_SCHEMA, strict=True)], schema=ENGINE_SCHEMA)


def asked(rows: list[tuple[str, datetime | None]]) -> pd.DataFrame:
    """Decisions."""
    frame = pd.DataFrame(rows, columns=["subject_id", "index_time"]).astype({"subject_id": "str"})
    return frame.assign(index_time=frame["index_time"].astype("datetime64[us]"))


moments = st.one_of(
    st.integers(0, 40).map(lambda hours: ORIGIN + timedelta(hours=12 * hours)),
    st.integers(0, 20 * 24 * 60).map(lambda minutes: ORIGIN + timedelta(minutes=minutes)),
)
values = st.one_of(
    st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1.2, 1e300]),
    st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    st.floats(0.1, 300).map(lambda value: round(value, 1)),
)
subjects = st.sampled_from(["a", "b", "c"])
events = st.lists(
    st.tuples(
        subjects,
        st.one_of(st.none(), moments),
        st.one_of(st.none(), moments),
        st.sampled_from([*CONCEPTS, "other"]),
        values,
    ),
    max_size=40,
)
decisions = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "unknown"]), moments), min_size=1, max_size=6)


def by_hand(rows: list[EVENT], decision: tuple[str, datetime], *, name: str, window: str, aggregate: str) -> float:
    """One cell, written as one would say it."""
    subject, index = decision
    length = window_microseconds(window)
    seen = [
        (time, value)
        for who, time, available, concept, value in rows
        if (who, concept) == (subject, name) and time is not None and time <= index and (available or time) <= index
        if length is None or time > index - timedelta(microseconds=length)
    ]
    if aggregate == "exists":
        return float(bool(seen))
    if aggregate == "since_last":
        return (index - max(time for time, _ in seen)) / timedelta(days=1) if seen else math.nan
    numbers = sorted((time, value) for time, value in seen if value is not None and abs(value) <= 1e100)
    found = [value for _, value in numbers]
    if aggregate == "count":
        return float(len(found))
    low, high = CONCEPTS[name].reference_range or (None, None)
    if not found or (aggregate == "outside" and low is None and high is None):
        return math.nan
    if aggregate == "outside":
        return sum((low is not None and v < low) or (high is not None and v > high) for v in found) / len(found)
    if aggregate == "interval":
        return (numbers[-1][0] - numbers[0][0]) / timedelta(days=1)
    if aggregate in ("change", "change_per_day", "relative_change"):
        return _change(numbers, aggregate)
    if aggregate == "std":
        return statistics.stdev(map(Fraction, found)) if len(found) > 1 else math.nan
    if aggregate == "slope":
        return _slope(
            [Fraction((time - ORIGIN) // timedelta(microseconds=1), 86_400_000_000) for time, _ in numbers], found
        )
    simple: dict[str, Any] = {"last": found[-1], "first": found[0], "min": min(found), "max": max(found)}
    return float(statistics.mean(map(Fraction, found)) if aggregate == "mean" else simple[aggregate])


def _change(numbers: list[tuple[datetime, float]], aggregate: str) -> float:
    (start, first), (end, last) = numbers[0], numbers[-1]
    if start == end:
        return math.nan
    if aggregate == "change_per_day":
        return (last - first) / ((end - start) / timedelta(days=1))
    if aggregate == "relative_change":
        return (last - first) / first if first > 0 else math.nan
    return last - first


def _slope(days: list[Fraction], found: list[float]) -> float:
    centre, level = statistics.mean(days), statistics.mean(map(Fraction, found))
    spread = sum((day - centre) ** 2 for day in days)
    if spread == 0:
        return math.nan
    return float(sum((d - centre) * (Fraction(v) - level) for d, v in zip(days, found, strict=True)) / spread)


@settings(max_examples=60, deadline=None)
@given(rows=events, wanted=decisions)
def test_every_cell_equals_the_slow_loop(rows: list[EVENT], wanted: list[tuple[str, datetime]]) -> None:
    result = event_features(table(rows), asked(wanted), FEATURES, CONCEPTS)
    cells = [(name, window, aggregate) for name in CONCEPTS for window in WINDOWS for aggregate in AGGREGATES]
    for row, decision in enumerate(wanted):
        for column, (name, window, aggregate) in enumerate(cells):
            expected = by_hand(rows, decision, name=name, window=window, aggregate=aggregate)
            found = result.frame.iat[row, column]
            if aggregate in ("mean", "std", "slope"):
                ends = [by_hand(rows, decision, name=name, window=window, aggregate=end) for end in ("min", "max")]
                grid = (ends[1] - ends[0]) * 2.0**-24
                # A slope is given to the range of values over the range of times, here at least a minute.
                bound = grid * 1440 if aggregate == "slope" else grid
                assert found == pytest.approx(expected, rel=1e-7, abs=bound or 0.0, nan_ok=True), (
                    name,
                    window,
                    aggregate,
                )
            else:
                assert found == pytest.approx(expected, rel=1e-15, abs=0, nan_ok=True), (name, window, aggregate)


@settings(max_examples=60, deadline=None)
@given(rows=events, wanted=decisions, data=st.data())
def test_future_rows_order_and_shards_change_no_cell(
    rows: list[EVENT], wanted: list[tuple[str, datetime]], data: st.DataObject
) -> None:
    before = event_features(table(rows), asked(wanted), FEATURES, CONCEPTS).frame
    latest = {subject: max(index for who, index in wanted if who == subject) for subject, _ in wanted}
    name = data.draw(st.sampled_from(list(CONCEPTS)))
    late = timedelta(microseconds=data.draw(st.integers(1, 10**12)))
    future: list[EVENT] = [(who, index + late, None, name, 7.0) for who, index in latest.items()]
    future += [(who, index - timedelta(days=1), index + late, name, -7.0) for who, index in latest.items()]
    future += [(who, index + late, index - late, name, 70.0) for who, index in latest.items()]
    more = data.draw(st.permutations([*rows, *future]))
    order = data.draw(st.permutations(range(len(wanted))))
    after = event_features(table(more), asked([wanted[row] for row in order]), FEATURES, CONCEPTS).frame
    pd.testing.assert_frame_equal(after, before.iloc[order].reset_index(drop=True), check_exact=True)
    for who in {subject for subject, _ in wanted}:
        own = [row for row, (subject, _) in enumerate(wanted) if subject == who]
        alone = event_features(
            table([event for event in more if event[0] == who]), asked([wanted[row] for row in own]), FEATURES, CONCEPTS
        )
        pd.testing.assert_frame_equal(alone.frame, before.iloc[own].reset_index(drop=True), check_exact=True)


def test_permuting_a_large_shard_changes_no_cell() -> None:
    """More rows than one thread takes, so that sums are made in pieces."""
    rng = np.random.default_rng(4)
    n = 6 * SMALL
    large = pa.table(
        {
            "subject_id": pa.array(rng.integers(0, 200, n).astype(str)),
            "time": pa.array(np.datetime64(ORIGIN, "us") + rng.integers(0, 400 * 24 * 60, n) * np.timedelta64(1, "m")),
            "available_time": pa.nulls(n, pa.timestamp("us")),
            "concept": pa.array(np.array(["creatinine", "ldh"])[rng.integers(0, 2, n)]),
            "value": np.round(rng.normal(100, 30, n), 1),
        }
    )
    wanted = asked([(str(who), ORIGIN + timedelta(days=int(day))) for who in range(200) for day in (100, 399)])
    before = event_features(large, wanted, FEATURES[:2], CONCEPTS).frame
    after = event_features(large.take(rng.permutation(n)), wanted, FEATURES[:2], CONCEPTS).frame
    pd.testing.assert_frame_equal(after, before, check_exact=True)
    part = large.filter(pa.compute.equal(large["subject_id"], "17"))
    alone = event_features(part, wanted[wanted["subject_id"] == "17"], FEATURES[:2], CONCEPTS).frame
    own = before[wanted["subject_id"] == "17"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, own, check_exact=True)


def test_threads_of_a_server_do_not_see_each_others_events() -> None:
    def last(number: int) -> float:
        events = table([("a", ORIGIN, None, "ldh", float(number))])
        found: float = event_features(events, asked([("a", ORIGIN)]), FEATURES[1:2], CONCEPTS).frame[
            "lab.ldh.last.all"
        ][0]
        return found

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(last, range(40))) == list(range(40))


def test_a_window_is_open_at_its_start_and_closed_at_the_decision() -> None:
    index = ORIGIN + timedelta(days=30)
    rows: list[EVENT] = [("a", index - timedelta(days=7), None, "ldh", 1.0), ("a", index, None, "ldh", 2.0)]
    found = event_features(table(rows), asked([("a", index)]), FEATURES, CONCEPTS).frame.iloc[0]
    assert found["lab.ldh.count.7d"] == 1
    assert found["lab.ldh.first.7d"] == 2
    assert found["lab.ldh.count.2w"] == 2
    assert found["lab.ldh.slope.2w"] == pytest.approx(1 / 7)


def test_a_decision_without_index_time_sees_nothing() -> None:
    rows: list[EVENT] = [("a", ORIGIN, None, "ldh", 1.0)]
    result = event_features(table(rows), asked([("a", None), ("a", ORIGIN)]), FEATURES, CONCEPTS)
    assert result.frame["lab.ldh.count.all"].tolist() == [0, 1]
    assert result.frame["lab.ldh.exists.all"].tolist() == [0, 1]
    assert math.isnan(result.frame["lab.ldh.last.all"][0])
    assert len(event_features(table([]), asked([]), FEATURES, CONCEPTS)) == 0


def test_the_slope_of_constant_values_is_nought_and_of_one_moment_missing() -> None:
    rows: list[EVENT] = [("a", ORIGIN + timedelta(days=day), None, "ldh", 0.1) for day in range(9)]
    rows += [("b", ORIGIN, None, "ldh", value) for value in (1.0, 2.0)]
    wanted = asked([("a", ORIGIN + timedelta(days=9)), ("b", ORIGIN)])
    found = event_features(table(rows), wanted, FEATURES, CONCEPTS).frame
    assert found.loc[0, ["lab.ldh.slope.all", "lab.ldh.std.all", "lab.ldh.mean.all"]].tolist() == [0, 0, 0.1]
    assert math.isnan(found["lab.ldh.slope.all"][1])
    assert found.loc[1, ["lab.ldh.last.all", "lab.ldh.first.all"]].tolist() == [2, 1]


def test_the_catalogue_says_what_each_column_means() -> None:
    specs = {spec.name: spec for spec in event_catalogue(FEATURES, CONCEPTS)}
    last, slope = specs["lab.creatinine.last.7d"], specs["lab.ldh.slope.all"]
    assert (last.label, last.unit, last.columns, last.code) == (
        "Creatinine, last within 7 d",
        "mg/dL",
        ("creatinine",),
        "LOINC:2160-0",
    )
    assert (slope.label, slope.unit, slope.code, slope.role) == ("LDH, slope per day", "U/L/d", None, "derived")
    assert specs["lab.ldh.since_last.all"].unit == "d"
    assert specs["lab.ldh.count.12h"].unit is None
    assert specs["lab.ldh.exists.12h"].kind == "boolean"
    units = {
        name: specs[f"lab.ldh.{name}.2w"].unit for name in ("change", "relative_change", "change_per_day", "interval")
    }
    assert units == {"change": "U/L", "relative_change": None, "change_per_day": "U/L/d", "interval": "d"}


def test_change_is_from_the_first_value_to_the_last_and_needs_two_moments() -> None:
    rows: list[EVENT] = [
        ("a", ORIGIN + timedelta(days=day), None, "ldh", value) for day, value in ((0, 200.0), (4, 150.0))
    ]
    rows += [("b", ORIGIN, None, "ldh", 100.0), ("b", ORIGIN, None, "ldh", 120.0)]
    rows += [("c", ORIGIN, None, "ldh", 0.0), ("c", ORIGIN + timedelta(days=2), None, "ldh", 5.0)]
    wanted = asked([(who, ORIGIN + timedelta(days=5)) for who in "abc"])
    names = ("change", "relative_change", "change_per_day", "interval")
    found = event_features(table(rows), wanted, FEATURES[1:2], CONCEPTS).frame[
        [f"lab.ldh.{name}.all" for name in names]
    ]
    assert found.iloc[0].tolist() == [-50, -0.25, -12.5, 4]
    assert found.iloc[1].isna().tolist() == [True, True, True, False], "two values of one moment have no first and last"
    assert found.iloc[1].iloc[3] == 0
    assert (found.iloc[2].iloc[0], found.iloc[2].iloc[2]) == (5, 2.5)
    assert math.isnan(found.iloc[2].iloc[1]), "nothing can be told by a part of 0"


def test_the_text_holds_no_name_of_the_study_and_is_always_the_same() -> None:
    plan = plan_features(FEATURES, CONCEPTS)
    assert "drop table" not in event_sql(plan, DUCKDB)
    assert event_sql(plan, DUCKDB) == event_sql(plan_features(FEATURES, dict(reversed(CONCEPTS.items()))), DUCKDB)
    assert event_sql(plan, SPARK).replace(
        "unix_micros(cast(d.index_time as timestamp))", "epoch_us(d.index_time)"
    ).replace("unix_micros(cast(e.time as timestamp))", "epoch_us(e.time)").replace(
        "struct(-age as t, v as v)", "struct_pack(t := -age, v := v)"
    ) == event_sql(plan, DUCKDB)


def test_errors_say_how_to_mend_them() -> None:
    one = EventFeatures(concept="creatinin")
    with pytest.raises(StudyError, match="did you mean 'creatinine'"):
        plan_features([one], CONCEPTS)
    with pytest.raises(StudyError, match=r"lab\.ldh\.last\.all would be made twice"):
        plan_features([EventFeatures(concept="ldh"), EventFeatures(concept="ldh")], CONCEPTS)
    with pytest.raises(SchemaError, match="as concept_events returns them"):
        event_features(table([]).drop_columns(["value"]), asked([("a", ORIGIN)]), FEATURES, CONCEPTS)
    zoned = asked([("a", ORIGIN)])
    zoned["index_time"] = zoned["index_time"].dt.tz_localize("UTC")
    with pytest.raises(SchemaError, match="tz_localize"):
        event_features(table([]), zoned, FEATURES, CONCEPTS)
