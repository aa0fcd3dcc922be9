"""The event store: appended to as a whole or not at all, whatever happens to the writer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from theracast_data.errors import ArtifactError
from theracast_data.events import store as store_module
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord

LABS = SourceRecord("labs", "long_table")
DAY = datetime.fromisoformat("2024-01-01")


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return events with what is not given null."""
    return pa.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in rows], schema=EVENT_SCHEMA)


def some(count: int, *, seed: int = 0, subjects: int = 40) -> list[dict[str, Any]]:
    """Return random events with many ties and gaps."""
    rng = random.Random(seed)
    return [
        {
            "subject_id": f"p{rng.randrange(subjects)}",
            "time": rng.choice([None, DAY + timedelta(rng.randrange(28))]),
            "code": rng.choice(["LOINC//1751-7", "eicu//BUN"]),
            "numeric_value": rng.choice([None, 1.5, 2.0, -1.0]),
            "text_value": rng.choice([None, "<5", "positive"]),
            "unit": rng.choice([None, "g/dL"]),
        }
        for _ in range(count)
    ]


def everything(store: EventStore) -> list[dict[str, Any]]:
    """Return all events, shard after shard."""
    return [row for shard in range(store.shard_count) for row in store.read_shard(shard).to_pylist()]


def order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key of the store's order, null first."""
    return tuple((row[name] is not None, row[name]) if row[name] is not None else (False,) for name in COLUMNS)


def test_what_is_appended_is_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_BUFFER_ROWS", 50)
    rows = [dict.fromkeys(COLUMNS) | row for row in some(300)]
    store = EventStore.create(tmp_path / "store", shards=4)
    assert store.append(LABS, (table(rows[start : start + 30]) for start in range(0, 180, 30))) == 180
    store.append(LABS, [table(rows[180:])])

    again = EventStore.open(tmp_path / "store")
    assert again.manifest == store.manifest
    assert (again.manifest["rows"], again.shard_count) == (300, 4)
    for shard in range(4):
        own = [row for row in rows if zlib.crc32(row["subject_id"].encode()) % 4 == shard]
        assert again.read_shard(shard).to_pylist() == sorted(own, key=order)
        assert again.read_shard(shard).schema == EVENT_SCHEMA
        assert again.subject_ids(shard).to_pylist() == sorted({row["subject_id"] for row in own})
        some_columns = again.read_shard(shard, columns=["code", "subject_id"])
        assert some_columns.equals(again.read_shard(shard).select(["code", "subject_id"]))


def test_order_of_appends_changes_nothing(tmp_path: Path) -> None:
    first, second = table(some(80, seed=1)), table(some(80, seed=2))
    one, other = (EventStore.create(tmp_path / name, shards=3) for name in ("one", "other"))
    for part in (first, second):
        one.append(LABS, [part])
    for part in (second, first):
        other.append(LABS, [part])
    for shard in range(3):
        assert one.read_shard(shard).equals(other.read_shard(shard))
        assert one.shard_hash(shard) == other.shard_hash(shard)


def test_compaction_keeps_events_and_hashes(tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store", shards=3)
    for seed in range(3):
        store.append(LABS, [table(some(50, seed=seed))])
    before = [(store.read_shard(shard), store.shard_hash(shard)) for shard in range(3)]
    reader = EventStore.open(tmp_path / "store")
    assert store.compact() == 3
    assert store.compact() == 0
    for shard in range(3):
        assert store.read_shard(shard).equals(before[shard][0])
        assert store.shard_hash(shard) == before[shard][1]
        assert len(store.shard_files(shard)) == 1
    store.verify()
    store.append(LABS, [table([{"subject_id": "p1", "code": "A//b"}])])
    changed = [shard for shard in range(3) if store.shard_hash(shard) != before[shard][1]]
    assert changed == [zlib.crc32(b"p1") % 3]
    for shard in range(3):
        if shard in changed:
            with pytest.raises(ArtifactError, match="replaced since the store was opened"):
                reader.read_shard(shard)
        else:
            assert reader.read_shard(shard).equals(before[shard][0])


def test_reader_goes_on_after_compaction(tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store", shards=2)
    for seed in range(2):
        store.append(LABS, [table(some(50, seed=seed))])
    reader = EventStore.open(tmp_path / "store")
    store.compact()
    assert everything(reader) == everything(store)


def test_empty_source_and_empty_store(tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store")
    assert store.append(LABS, []) == 0
    assert store.append(LABS, [EVENT_SCHEMA.empty_table()]) == 0
    assert store.read_shard(0).equals(EVENT_SCHEMA.empty_table())
    assert store.subject_ids(15).to_pylist() == []
    assert [source["rows"] for source in store.manifest["sources"]] == [0, 0]
    with pytest.raises(IndexError, match="0 to 15"):
        store.read_shard(16)


def test_source_that_fails_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_BUFFER_ROWS", 10)
    store = EventStore.create(tmp_path / "store", shards=2)
    store.append(LABS, [table(some(20))])
    before, files = store.manifest, sorted((tmp_path / "store" / "parts").iterdir())

    def broken() -> Iterator[pa.Table]:
        yield table(some(40, seed=5))
        raise RuntimeError("the line is cut")

    with pytest.raises(RuntimeError, match="the line is cut"):
        store.append(LABS, broken())
    assert EventStore.open(tmp_path / "store").manifest == before
    assert sorted((tmp_path / "store" / "parts").iterdir()) == files
    nobody = pa.table(table(some(1)).set_column(0, "subject_id", pa.nulls(1, pa.string())))
    with pytest.raises(ValueError, match="subject_id"):
        store.append(LABS, [nobody])


def test_manifest_names_the_sources(tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store", shards=2)
    report = IngestReport("labs")

    def batches() -> Iterator[pa.Table]:
        yield table(some(5))
        report.refuse("LOINC//1", "no time", position="labs.csv line 3", count=4)

    record = SourceRecord("labs", "long_table", sha256="ab", time=datetime(2024, 5, 31, tzinfo=UTC), report=report)
    store.append(record, batches())
    [source] = store.manifest["sources"]
    assert (source["name"], source["kind"], source["sha256"]) == ("labs", "long_table", "ab")
    assert (source["rows"], source["refused"], source["time"]) == (5, 4, "2024-05-31T00:00:00+00:00")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store", shards=2)
    other = EventStore.open(tmp_path / "store")

    def batches() -> Iterator[pa.Table]:
        with pytest.raises(ArtifactError, match=r"another process is writing.*Wait until it has finished"):
            other.append(LABS, [table(some(5))])
        yield table(some(7))

    store.append(LABS, batches())
    assert other.append(LABS, [table(some(5))]) == 5  # starts from the store as it is now
    assert EventStore.open(tmp_path / "store").manifest["rows"] == 12


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no event store here\. Make one with `theracast ingest`"):
        EventStore.open(tmp_path / "nothing")
    store = EventStore.create(tmp_path / "store", shards=2)
    with pytest.raises(ArtifactError, match="something is here already"):
        EventStore.create(tmp_path / "store")
    (tmp_path / "begun" / "parts").mkdir(parents=True)
    assert EventStore.create(tmp_path / "begun").shard_count == 16  # what a killed `create` left behind
    (tmp_path / "foreign" / "parts").mkdir(parents=True)
    (tmp_path / "foreign" / "parts" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="files in parts/ already"):
        EventStore.create(tmp_path / "foreign")
    store.append(LABS, [table(some(30))])
    manifest = tmp_path / "store" / "manifest.json"
    sound = manifest.read_text()

    for text, message in [
        (sound[:-40], "damaged: it is not JSON"),
        ("[]", "not the manifest of an event store"),
        (sound.replace('"version": 1', '"version": 2'), "has format version 2, this Theracast reads 1"),
        (sound.replace('"rows": 30', '"rows": 31', 1), "row counts contradict"),
        (sound.replace('"generation"', '"generations"'), "a key is missing or wrong"),
    ]:
        manifest.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            EventStore.open(tmp_path / "store")
    manifest.write_text(sound)

    part = store.shard_files(0)[0]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="not what was written"):
        EventStore.open(tmp_path / "store").verify()
    part.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match="bytes, not the"):
        EventStore.open(tmp_path / "store")
    part.unlink()
    with pytest.raises(ArtifactError, match=r"is missing\. Restore the folder"):
        EventStore.open(tmp_path / "store")


# Every round forks a writer of its own: what is heavy to import is imported once.
WRITERS = """
import os
import sys
from pathlib import Path
import pyarrow as pa
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord

def write():
    store = EventStore.open(Path(sys.argv[1]))
    number = len(store.manifest["sources"])
    while True:
        people = [f"p{one}" for one in range(50)]
        columns = {"subject_id": people, "code": [f"run//{number}"] * 50}
        table = pa.table([columns.get(name, [None] * 50) for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)
        store.append(SourceRecord(f"{number}", "test"), [table])
        number += 1
        print("written", number, flush=True)
        if number % 3 == 0:
            store.compact()

for _ in sys.stdin:
    writer = os.fork()
    if writer == 0:
        write()
    print("writer", writer, flush=True)
    _, status = os.waitpid(writer, 0)
    print("killed", os.WTERMSIG(status), flush=True)
"""


def kill_a_writer(writers: subprocess.Popen[str], *, after: float) -> int:
    """Return how many appends a writer told of until it was killed, some seconds after the first."""
    assert writers.stdin is not None
    assert writers.stdout is not None
    writers.stdin.write("next\n")
    writers.stdin.flush()
    told: dict[str, int] = {}
    while not {"writer", "killed"} <= set(told):
        what, number = writers.stdout.readline().split()
        told[what] = int(number)
        if {"writer", "written"} == set(told):
            time.sleep(after)
            os.kill(told["writer"], signal.SIGKILL)
            told["sent"] = signal.SIGKILL
    assert told["killed"] == told["sent"]
    return told["written"]


def test_killed_writer_leaves_the_old_or_the_new_store(tmp_path: Path) -> None:
    EventStore.create(tmp_path / "store", shards=4)
    rng, orphans = random.Random(7), 0
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        for _ in range(20):
            told = kill_a_writer(writers, after=rng.uniform(0, 0.06))
            orphans += check_killed(tmp_path / "store", told)
    assert orphans  # otherwise no kill met a writer at work
    store = EventStore.open(tmp_path / "store")
    store.append(LABS, [])
    named = {part["file"] for part in json.loads((tmp_path / "store" / "manifest.json").read_text())["parts"]}
    assert {path.name for path in (tmp_path / "store" / "parts").iterdir()} == named


def check_killed(folder: Path, told: int) -> bool:
    """Check that the store holds what was told and at most one append more; return whether a half one lies beside it."""
    store = EventStore.open(folder)
    store.verify()
    appended = len(store.manifest["sources"])
    assert told <= appended <= told + 1
    codes = pa.concat_tables([store.read_shard(shard) for shard in range(4)])["code"].value_counts().to_pylist()
    assert {one["values"]: one["counts"] for one in codes} == {f"run//{number}": 50 for number in range(appended)}
    begun = {int(path.name.split("-")[0]) for path in (folder / "parts").iterdir()}
    return max(begun) > store.manifest["generation"]
