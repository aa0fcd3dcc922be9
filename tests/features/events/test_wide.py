"""The wide table: the same cells however it is sharded, and only changed shards are computed again."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_features.events.duckdb_engine import event_features
from theracast_features.events.section import EventFeatures
from theracast_features.events.wide import write_wide
from theracast_features.specs import FeatureTable

CONCEPTS = {
    "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", quantity="creatinine", reference_range=(0.6, 1.2)),
    "copies": Concept(codes=("LOINC//20447-9",)),
}
FEATURES = [
    EventFeatures(concept="creatinine", windows=("30d", "all"), aggregates=("last", "mean", "std", "slope", "count")),
    EventFeatures(concept="copies", aggregates=("max", "exists")),
]


class Shards:
    """Events in memory, cut into shards as a store does it."""

    def __init__(self, events: pa.Table, shard_count: int) -> None:
        self.shard_count = shard_count
        numbers = [zlib.crc32(subject.encode()) % shard_count for subject in events["subject_id"].to_pylist()]
        self._shards = [events.filter(pa.array([number == own for number in numbers])) for own in range(shard_count)]

    def read_shard(self, shard: int) -> pa.Table:
        return self._shards[shard]

    def shard_hash(self, shard: int) -> str:
        return hashlib.sha256(json.dumps(self._shards[shard].to_pylist(), default=str).encode()).hexdigest()

    def subject_ids(self, shard: int) -> pa.Array:
        return self._shards[shard]["subject_id"].unique()


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


def some_decisions() -> pd.DataFrame:
    subjects = [str(number) for number in range(90) for _ in range(2)]  # the last ten have no event
    times = np.datetime64("2024-02-01", "us") + np.arange(len(subjects)) * np.timedelta64(7, "h")
    return pd.DataFrame({"subject_id": subjects, "index_time": times, "site": ["north", "south"] * 90})


def sorted_frame(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).sort_values(["subject_id", "index_time"], ignore_index=True)


def test_the_file_holds_what_the_engine_gives_however_it_is_sharded(tmp_path: Path) -> None:
    events, decisions = some_events(), some_decisions()
    expected = event_features(concept_events(events, CONCEPTS)[0], decisions, FEATURES, CONCEPTS).frame
    whole = pd.concat([decisions, expected.astype("float32")], axis=1)
    whole = whole.sort_values(["subject_id", "index_time"], ignore_index=True)
    for shards in (1, 3, 16):
        report = write_wide(Shards(events, shards), decisions, FEATURES, CONCEPTS, path=tmp_path / f"{shards}.parquet")
        assert (report.rows, report.columns) == (180, 12)
        pd.testing.assert_frame_equal(sorted_frame(report.path), whole, check_exact=True)
    assert [spec["name"] for spec in json.loads((tmp_path / "3.catalogue.json").read_text())] == list(expected.columns)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        f"{shards}.{ending}" for shards in (1, 3, 16) for ending in ("parquet", "catalogue.json")
    )


def test_only_what_changed_is_computed_again(tmp_path: Path) -> None:
    events, decisions = some_events(), some_decisions()
    calls: list[tuple[int, int]] = []

    def write(events: pa.Table, decisions: pd.DataFrame, features: list[EventFeatures], name: str) -> tuple[int, int]:
        report = write_wide(
            Shards(events, 4), decisions, features, CONCEPTS,
            path=tmp_path / name, cache=tmp_path / "cache", progress=lambda done, all_: calls.append((done, all_)),
        )  # fmt: skip
        return report.built, report.reused

    assert write(events, decisions, FEATURES, "a.parquet") == (5, 0)
    assert calls[:5] == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]
    assert write(events, decisions, FEATURES, "b.parquet") == (0, 5)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert write(pa.concat_tables([events, events.slice(0, 1)]), decisions, FEATURES, "c.parquet") == (1, 4)
    later = decisions.assign(
        index_time=decisions["index_time"].mask(decisions["subject_id"] == "7", pd.Timestamp("2024-03-03"))
    )
    assert write(events, later, FEATURES, "d.parquet") == (1, 4)
    assert write(events, decisions, FEATURES[:1], "e.parquet") == (5, 0)


def test_a_value_beyond_float32_keeps_its_column_in_float64(tmp_path: Path) -> None:
    events = some_events()
    rows = events.to_pylist()
    rows.append(rows[0] | {"code": "LOINC//20447-9", "numeric_value": 1e60, "unit": None})
    big = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    decisions = some_decisions().assign(index_time=pd.Timestamp("2024-12-31"))
    for shards, name in ((4, "wide.parquet"), (1, "one.parquet")):
        write_wide(Shards(big, shards), decisions, FEATURES, CONCEPTS, path=tmp_path / name)
    frames = [sorted_frame(tmp_path / name) for name in ("wide.parquet", "one.parquet")]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    schema = pq.read_schema(tmp_path / "wide.parquet")
    assert schema.field("lab.copies.max.all").type == pa.float64()
    assert schema.field("lab.creatinine.mean.all").type == pa.float32()
    assert pd.read_parquet(tmp_path / "wide.parquet")["lab.copies.max.all"].max() == 1e60


def test_a_real_store(tmp_path: Path) -> None:
    events, decisions = some_events(500), some_decisions()
    store = EventStore.create(tmp_path / "store", shards=4)
    store.append(SourceRecord(name="made up", kind="test"), [events])
    write_wide(store, decisions, FEATURES, CONCEPTS, path=tmp_path / "wide.parquet")
    write_wide(Shards(events, 2), decisions, FEATURES, CONCEPTS, path=tmp_path / "other.parquet")
    pd.testing.assert_frame_equal(
        sorted_frame(tmp_path / "wide.parquet"), sorted_frame(tmp_path / "other.parquet"), check_exact=True
    )


def test_a_failure_leaves_the_former_file(tmp_path: Path) -> None:
    def broken(
        events: pa.Table, decisions: pd.DataFrame, features: Sequence[EventFeatures], concepts: Mapping[str, Concept]
    ) -> FeatureTable:
        raise RuntimeError("the disk is full")

    path = tmp_path / "wide.parquet"
    path.write_bytes(b"former")
    with pytest.raises(RuntimeError, match="disk"):
        write_wide(Shards(some_events(), 2), some_decisions(), FEATURES, CONCEPTS, path=path, engine=broken)
    with pytest.raises(StudyError, match="did you mean 'copies'"):
        write_wide(Shards(some_events(), 2), some_decisions(), [EventFeatures(concept="copie")], CONCEPTS, path=path)
    assert [one.name for one in tmp_path.iterdir()] == ["wide.parquet"]
    assert path.read_bytes() == b"former"
