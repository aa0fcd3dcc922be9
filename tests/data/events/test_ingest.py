"""Declared sources on their way into a store."""

from __future__ import annotations

import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from theracast_data.errors import SchemaError, StudyError
from theracast_data.events.ingest import READERS, IngestSpec, content_sha256, ingest, read_spec, reader_of
from theracast_data.events.readers.long_table import LongTableOptions
from theracast_data.events.report import IngestReport
from theracast_data.events.store import EventStore
from theracast_data.section import describe_faults

NOW = datetime(2024, 5, 31, 12, tzinfo=UTC)
SPEC = """
sources:
  - kind: long_table
    name: chemistry
    path: labs.csv
    subject: id
    time: {column: day}
    code: local//{test}
    value: {column: result}
    unit: g/dL
  - kind: meds
    path: dataset
  - kind: wearables
    path: ${WATCHES}/watch.csv
    subject: id
    time: minute
    heart_rate: bpm
    minimum_wear_minutes: 2
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IngestSpec:
    """Three sources, of which the first has a line that is none."""
    (tmp_path / "labs.csv").write_text("id,day,test,result\n1,2024-05-30,albumin,3.9\n1,2024-05-30\n2,,albumin,4\n")
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    row = {"subject_id": [3], "time": [None], "code": ["MEDS_BIRTH"], "numeric_value": [None]}
    schema = pa.schema(
        {"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string(), "numeric_value": pa.float32()}
    )
    pq.write_table(pa.table(row, schema=schema), tmp_path / "dataset" / "data" / "0.parquet")
    (tmp_path / "watch.csv").write_text("id,minute,bpm\n1,2024-05-30 10:00,60\n1,2024-05-30 10:01,70\n")
    monkeypatch.setenv("WATCHES", str(tmp_path))
    return IngestSpec(**yaml.safe_load(SPEC))


def events(store: EventStore) -> list[tuple[Any, ...]]:
    """Return patient, code and value of all events."""
    tables = pa.concat_tables([store.read_shard(shard) for shard in range(store.shard_count)])
    return sorted((row["subject_id"], row["code"], row["numeric_value"]) for row in tables.to_pylist())


def test_sources_enter_the_store(tmp_path: Path, spec: IngestSpec) -> None:
    store = EventStore.create(tmp_path / "store", shards=2)
    reports = ingest(spec, base=tmp_path, store=store, now=NOW)
    assert events(store) == [
        ("1", "local//albumin", 3.9),
        ("1", "wearable//heart_rate_mean", 65),
        ("1", "wearable//heart_rate_min", 60),
        ("1", "wearable//wear_minutes", 2),
        ("3", "MEDS_BIRTH", None),
    ]
    assert [(report.source, report.read, report.written) for report in reports] == [
        ("chemistry", 3, 1),
        ("dataset", 1, 1),
        ("watch", 2, 3),
    ]
    sources = store.manifest["sources"]
    assert [(one["name"], one["kind"], one["rows"], one["refused"]) for one in sources] == [
        ("chemistry", "long_table", 1, 2),
        ("dataset", "meds", 1, 0),
        ("watch", "wearables", 3, 0),
    ]
    assert {one["time"] for one in sources} == {"2024-05-31T12:00:00+00:00"}
    assert sources[0]["sha256"] == content_sha256(tmp_path / "labs.csv")
    json.dumps(reports[0].to_json())


def test_doing_it_again_finishes_and_doubles_nothing(tmp_path: Path, spec: IngestSpec) -> None:
    (tmp_path / "watch.csv").rename(tmp_path / "later.csv")
    store = EventStore.create(tmp_path / "store", shards=2)
    with pytest.raises(SchemaError, match=r"watch\.csv: there is no such file"):
        ingest(spec, base=tmp_path, store=store, now=NOW)
    assert len(events(store)) == 2
    (tmp_path / "later.csv").rename(tmp_path / "watch.csv")
    first = ingest(spec, base=tmp_path, store=store, now=NOW)
    assert [report.note for report in first] == ["in the store already, read in the same way; passed over"] * 2 + [""]
    assert "passed over" in first[0].to_text()
    whole = events(store)
    assert len(whole) == 5
    assert all(report.note for report in ingest(spec, base=tmp_path, store=store, now=NOW))
    assert events(store) == whole

    # The same file read in another way, and another state of the file, are sources of their own.
    assert isinstance(spec.sources[0], LongTableOptions)
    other = IngestSpec(sources=(spec.sources[0].model_copy(update={"code": "lab2//{test}"}),))
    assert ingest(other, base=tmp_path, store=store, now=NOW)[0].written == 1
    with (tmp_path / "labs.csv").open("a") as file:
        file.write("4,2024-05-30,albumin,3\n")
    assert ingest(other, base=tmp_path, store=store, now=NOW)[0].written == 2


def test_changed_origins_are_another_way_to_read(tmp_path: Path) -> None:
    (tmp_path / "labs.csv").write_text("id,offset\n1,60\n")
    origin = {"table": "stays.csv", "key": "id", "column": "admitted"}
    time = {"column": "offset", "unit": "minute", "origin": origin}
    source = {"kind": "long_table", "path": "labs.csv", "subject": "id", "code": "A//b", "time": time}
    store = EventStore.create(tmp_path / "store", shards=1)
    for admitted in ("2024-05-30", "2024-05-30", "2024-05-31"):
        (tmp_path / "stays.csv").write_text(f"id,admitted\n1,{admitted}\n")
        ingest(IngestSpec(sources=[source]), base=tmp_path, store=store, now=NOW)
    assert [one.isoformat() for one in store.read_shard(0)["time"].to_pylist()] == [
        "2024-05-30T01:00:00",
        "2024-05-31T01:00:00",
    ]


def test_a_database_is_known_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(path: str, *, report: IngestReport) -> list[pa.Table]:
        report.read = 1
        return []

    monkeypatch.setattr("theracast_data.events.readers.omop.read_omop", reader)
    store = EventStore.create(tmp_path / "store", shards=1)
    notes = []
    for address in ("me:secret@db/a", "you@db/a", "you@db/b"):
        spec = IngestSpec(sources=[{"kind": "omop", "path": f"postgresql://{address}"}])
        notes += [ingest(spec, base=tmp_path, store=store, now=NOW)[0].note]
    assert [bool(note) for note in notes] == [False, True, False]
    assert "Make a new store" in notes[1]
    assert "secret" not in (tmp_path / "store" / "manifest.json").read_text()


def test_read_spec(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(SPEC)
    assert [source.kind for source in read_spec(path).sources] == ["long_table", "meds", "wearables"]
    for text, message in [
        ("sources: [", "not valid YAML"),
        ("sources: []", "at least 1 item"),
        ("source: []", "Did you mean 'sources'"),
    ]:
        path.write_text(text)
        with pytest.raises(StudyError, match=message):
            read_spec(path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_spec(tmp_path / "nothing.yaml")


def test_faults_of_the_declaration(tmp_path: Path, spec: IngestSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as caught:
        IngestSpec(sources=[{"kind": "long_table", "path": "a.csv", "subjct": "id", "code": "A//b"}])
    text = describe_faults(caught.value, IngestSpec)
    assert "unknown key 'subjct'. Did you mean 'subject'?" in text
    with pytest.raises(ValidationError, match="'long_table'"):
        IngestSpec(sources=[{"kind": "cobol", "path": "a"}])
    monkeypatch.delenv("WATCHES")
    with pytest.raises(StudyError, match="WATCHES is not set"):
        ingest(spec, base=tmp_path, store=EventStore.create(tmp_path / "store"), now=NOW)


@pytest.mark.parametrize("kind", READERS)
def test_every_kind_has_its_reader(kind: str) -> None:
    if kind == "fhir" and importlib.util.find_spec("fhir") is None:
        pytest.skip("fhir.resources is not installed")
    assert callable(reader_of(kind))
