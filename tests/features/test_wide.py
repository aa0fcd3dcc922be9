"""The feature table on disk: the same cells as in memory, and only changed shards are computed again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from theracast_data.cohort import Cohort, ReadingNote
from theracast_data.errors import ArtifactError, StudyError
from theracast_data.events.access import KEY, CohortEvents, given_events
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import ColumnSpec
from theracast_features import parts
from theracast_features.build import build_features
from theracast_features.parts import build_parts, remove_unused
from theracast_features.section import FeatureSection
from theracast_features.wide import read_features, write_features

CONCEPTS = {
    "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", quantity="creatinine", reference_range=(0.6, 1.2)),
    "copies": Concept(codes=("LOINC//20447-9",)),
}
COLUMNS = {
    "age": ColumnSpec(unit="a", cap=90),
    "weight": ColumnSpec(unit="kg"),
    "height": ColumnSpec(unit="m"),
    "stage": ColumnSpec(levels=("I", "II", "III")),
}
SECTION = FeatureSection.model_validate(
    {
        "events": [
            {
                "concept": "creatinine",
                "windows": ["30d", "all"],
                "aggregates": ["last", "mean", "std", "slope", "count", "change"],
            },
            {"concept": "copies", "aggregates": ["max", "exists"]},
        ],
        "derived": [
            {
                "kind": "ratio",
                "name": "weight_per_height",
                "numerator": "weight",
                "denominator": "height",
                "unit": "kg/m",
            }
        ],
        "missing_indicators": ["age", "stage"],
    }
)


def some_events(n: int = 3_000) -> pa.Table:
    rng = np.random.default_rng(21)
    copies = rng.random(n) < 0.2
    return pa.table(
        {
            "subject_id": rng.integers(0, 80, n).astype(str),
            "time": np.datetime64("2024-01-01", "us") + rng.integers(0, 90 * 24, n) * np.timedelta64(1, "h"),
            "code": np.where(copies, "LOINC//20447-9", "LOINC//2160-0"),
            "numeric_value": np.round(rng.normal(1, 0.3, n), 2),
            "text_value": pa.nulls(n, pa.string()),
            "unit": pa.array(["mg/dL"] * n, mask=copies),
            "available_time": pa.nulls(n, pa.timestamp("us")),
        }
    ).cast(EVENT_SCHEMA)


def some_cohort() -> Cohort:
    """Decisions of ninety patients in no order, two of each; the last ten have no event. Every kind of column."""
    rng = np.random.default_rng(4)
    subjects = rng.permutation([str(number) for number in range(90) for _ in range(2)])
    n = len(subjects)
    times = np.datetime64("2024-02-01", "us") + rng.permutation(n) * np.timedelta64(7, "h")
    decisions = pd.DataFrame({"subject_id": pd.array(subjects, dtype="str"), "site": ["north", "south"] * (n // 2)})
    decisions = decisions.assign(index_time=times, treatment=None, calendar=2024.1, **{KEY: decisions["subject_id"]})
    values = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.2, np.nan, rng.integers(30, 99, n)),
            "weight": rng.normal(80, 10, n),
            "height": rng.normal(1.7, 0.1, n),
            "stage": pd.array(rng.choice(np.array(["I", "II", "III", None], dtype=object), n), dtype="str"),
        }
    )
    note = ReadingNote("unreadable-value", "age", None, (3, 4), "age: not a number")
    return Cohort(decisions, values, pd.DataFrame(index=values.index), COLUMNS, notes=(note,))


def in_store(folder: Path, events: pa.Table, *, shards: int = 4) -> Cohort:
    """Return the cohort with its events in a store."""
    store = EventStore.create(folder, shards=shards)
    store.append(SourceRecord(name="made up", kind="test"), [events])
    return replace(some_cohort(), events=CohortEvents(CONCEPTS, EventStore.open(folder)))


def in_memory(events: pa.Table | None = None) -> Cohort:
    return replace(some_cohort(), events=given_events(some_events() if events is None else events, CONCEPTS))


def expected_file(cohort: Cohort) -> pd.DataFrame:
    frame = build_features(cohort, SECTION).frame
    numbers = {name: "float32" for name in frame.columns if frame[name].dtype == np.float64}
    return pd.concat([cohort.decisions[["subject_id", "index_time", "site"]], frame.astype(numbers)], axis=1)


@pytest.mark.parametrize("shards", [1, 3, 16])
@pytest.mark.parametrize("small_blocks", [False, True])
def test_the_file_and_the_parts_hold_what_the_builders_give(
    tmp_path: Path, shards: int, small_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_blocks:  # blocks of seven decisions, chunks of sixteen, row groups of eleven
        monkeypatch.setattr("theracast_features.parts.BLOCK_CELLS", 7 * 22)
        monkeypatch.setattr("theracast_features.parts.CHUNK_CELLS", 3 * 22)
        monkeypatch.setattr("theracast_features.wide.GROUP_CELLS", 11 * 22)
    cohort = in_store(tmp_path / "store", some_events(), shards=shards)
    report = write_features(cohort, SECTION, path=tmp_path / "out" / "wide.parquet")
    assert (report.rows, report.columns) == (180, 21)
    pd.testing.assert_frame_equal(pd.read_parquet(report.path), expected_file(in_memory()), check_exact=True)
    table, built = read_features(cohort, SECTION), build_features(in_memory(), SECTION)
    pd.testing.assert_frame_equal(table.frame, built.frame, check_exact=True)
    assert (table.frame.dtypes == built.frame.dtypes).all()
    assert table.catalogue == built.catalogue
    pd.testing.assert_frame_equal(table.decisions, built.decisions)
    written = json.loads((tmp_path / "out" / "wide.catalogue.json").read_text())
    assert written == json.loads(json.dumps([spec.to_json() for spec in built.catalogue]))
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["wide.catalogue.json", "wide.parquet"]


def test_a_study_without_events_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theracast_features.parts.BLOCK_CELLS", 50 * 7)
    cohort, section = some_cohort(), SECTION.model_copy(update={"events": ()})
    report = write_features(cohort, section, path=tmp_path / "wide.parquet", cache=tmp_path / "cache")
    assert (report.rows, report.columns, report.built) == (180, 7, 4)
    again = write_features(cohort.take(np.arange(160)), section, path=tmp_path / "b.parquet", cache=tmp_path / "cache")
    assert (again.rows, again.built, again.reused) == (160, 1, 3)
    table = read_features(cohort, section, cache=tmp_path / "cache")
    pd.testing.assert_frame_equal(table.frame, build_features(cohort, section).frame, check_exact=True)


def test_only_what_changed_is_computed_again(tmp_path: Path) -> None:
    events, calls = some_events(), list[tuple[int, int]]()
    cohort = in_store(tmp_path / "store", events)
    cache = tmp_path / "cache"

    def write(cohort: Cohort, name: str, section: FeatureSection = SECTION) -> tuple[int, int]:
        path = tmp_path / name
        report = write_features(
            cohort, section, path=path, cache=cache, progress=lambda done, all_: calls.append((done, all_))
        )
        return report.built, report.reused

    assert write(cohort, "a.parquet") == (4, 0)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert write(cohort, "b.parquet") == (0, 4)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    store = EventStore.open(tmp_path / "store")
    store.append(SourceRecord(name="one more", kind="test"), [events.slice(0, 1)])
    touched = replace(cohort, events=CohortEvents(CONCEPTS, EventStore.open(tmp_path / "store")))
    assert write(touched, "c.parquet") == (1, 3)
    store.compact()
    cohort = replace(cohort, events=CohortEvents(CONCEPTS, EventStore.open(tmp_path / "store")))
    spark = replace(cohort, events=CohortEvents(CONCEPTS, EventStore.open(tmp_path / "store"), "spark"))
    assert write(spark, "d.parquet") == (0, 4), "neither compaction nor the engine is a change"
    own = cohort.decisions["subject_id"] == "7"
    later = cohort.decisions["index_time"].mask(own, pd.Timestamp("2024-03-03"))
    assert write(replace(cohort, decisions=cohort.decisions.assign(index_time=later)), "e.parquet") == (1, 3)
    older = cohort.values["age"].mask(own, 55.0)
    assert write(replace(cohort, values=cohort.values.assign(age=older)), "f.parquet") == (1, 3)
    assert write(cohort, "g.parquet", SECTION.model_copy(update={"missing_indicators": ()})) == (4, 0)
    wider = CONCEPTS | {"copies": Concept(codes=("LOINC//20447-9",), plausible=(0, 2))}
    assert write(replace(cohort, events=replace(cohort.events, concepts=wider)), "h.parquet") == (4, 0)


def test_other_code_takes_no_cells_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = in_store(tmp_path / "store", some_events())
    assert build_parts(cohort, SECTION, folder=tmp_path / "cache").built == 4
    monkeypatch.setattr("theracast_features.parts._code", lambda: "another release")
    assert build_parts(cohort, SECTION, folder=tmp_path / "cache").reused == 0


def test_a_value_beyond_float32_keeps_its_column_in_float64(tmp_path: Path) -> None:
    rows = some_events().to_pylist()
    rows.append(rows[0] | {"code": "LOINC//20447-9", "numeric_value": 1e60, "unit": None})
    big = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    frames = []
    for shards in (4, 1):
        cohort = in_store(tmp_path / f"store{shards}", big, shards=shards)
        late = cohort.decisions.assign(index_time=pd.Timestamp("2024-12-31"))
        path = tmp_path / f"{shards}.parquet"
        write_features(replace(cohort, decisions=late), SECTION, path=path)
        frames.append(pd.read_parquet(path))
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    schema = pq.read_schema(tmp_path / "4.parquet")
    assert schema.field("lab.copies.max.all").type == pa.float64()
    assert schema.field("lab.creatinine.mean.all").type == pa.float32()
    assert frames[0]["lab.copies.max.all"].max() == 1e60
    others = frames[0]["lab.copies.max.all"].loc[lambda column: column < 1e30]
    assert (others == others.astype("float32")).all(), "a cell does not hang on what shares its column"


def test_a_failure_leaves_the_former_file(tmp_path: Path) -> None:
    path, cohort = tmp_path / "wide.parquet", in_store(tmp_path / "store", some_events())
    path.write_bytes(b"former")
    unknown = SECTION.model_validate({"events": [{"concept": "copie"}], "missing_indicators": []})
    with pytest.raises(StudyError, match="did you mean 'copies'"):
        write_features(cohort, unknown, path=path)
    for file in (tmp_path / "store").rglob("*.parquet"):
        file.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="not what was written"):
        write_features(cohort, SECTION, path=path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["store", "wide.parquet"]
    assert path.read_bytes() == b"former"


def test_a_killed_writer_leaves_the_former_file_and_the_next_goes_on(tmp_path: Path) -> None:
    cohort = in_store(tmp_path / "store", some_events())
    path, cache = tmp_path / "wide.parquet", tmp_path / "cache"
    path.write_bytes(b"former")
    script = f"""
import os, signal, sys
sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
import test_wide as t
def progress(done, _):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
from theracast_data.events.access import CohortEvents
from theracast_data.events.store import EventStore
from dataclasses import replace
cohort = replace(t.some_cohort(), events=CohortEvents(t.CONCEPTS, EventStore.open(Path({str(tmp_path / "store")!r}))))
t.write_features(cohort, t.SECTION, path=Path({str(path)!r}), cache=Path({str(cache)!r}), progress=progress)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert path.read_bytes() == b"former"
    report = write_features(cohort, SECTION, path=path, cache=cache)
    assert (report.built, report.reused) == (1, 3)
    pd.testing.assert_frame_equal(pd.read_parquet(path), expected_file(in_memory()), check_exact=True)


def test_a_damaged_part_is_built_anew(tmp_path: Path) -> None:
    cohort = in_store(tmp_path / "store", some_events())
    build_parts(cohort, SECTION, folder=tmp_path / "cache")
    first, second, *_ = sorted((tmp_path / "cache").iterdir())
    first.write_bytes(first.read_bytes()[:-20])
    second.write_bytes(b"")
    table = build_parts(cohort, SECTION, folder=tmp_path / "cache")
    assert (table.built, table.reused) == (2, 2)
    pd.testing.assert_frame_equal(table.read().frame, build_features(in_memory(), SECTION).frame, check_exact=True)
    first.unlink()
    with pytest.raises(ArtifactError, match="Start again"):
        table.read()


def test_parts_that_nothing_needed_for_long_are_removed(tmp_path: Path) -> None:
    cohort = in_store(tmp_path / "store", some_events())
    cache = tmp_path / "cache"
    build_parts(cohort, SECTION, folder=cache)
    old, *_ = files = list(cache.glob("*.arrow"))
    now = old.stat().st_mtime
    draft = cache / ".part.arrow.1.draft"
    draft.write_bytes(b"")
    for path in (old, draft):
        os.utime(path, (now, now - 86_400 * (parts.UNUSED_DAYS + 1)))
    assert remove_unused(cache, now=now) == 2
    assert sorted(cache.iterdir()) == sorted(set(files) - {old})


def test_one_decision_and_none(tmp_path: Path) -> None:
    cohort = in_store(tmp_path / "store", some_events())
    for count in (0, 1):
        own = cohort.take(np.arange(count))
        write_features(own, SECTION, path=tmp_path / "wide.parquet")
        assert len(pd.read_parquet(tmp_path / "wide.parquet")) == count
        assert len(read_features(own, SECTION)) == count
