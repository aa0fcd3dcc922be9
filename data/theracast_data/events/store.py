"""The event store: Parquet files by patient shard, appended to as a whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from theracast_data.errors import ArtifactError
from theracast_data.events.manifest import (
    MANIFEST,
    PARTS,
    Manifest,
    Part,
    Source,
    file_sha256,
    read_manifest,
    sync_folder,
    write_manifest,
)
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA, empty_events

logger = logging.getLogger(__name__)

# Events held back until they are cut into shards: some 100 MB, and row groups of some 60,000 events with 16 shards.
_BUFFER_ROWS = 1_000_000
_LOCK = "writer.lock"
_ORDER = [(name, "ascending", "at_start") for name in COLUMNS]


@dataclass(frozen=True)
class SourceRecord:
    """Where the events of one append come from.

    Attributes:
        name: name of the source.
        kind: kind of reader.
        sha256: of the file or folder that is read; empty where there is none.
        options: sha256 of how it is read.
        time: when.
        report: filled by the reader while it streams; its refusals enter the manifest.
    """

    name: str
    kind: str
    sha256: str = ""
    options: str = ""
    time: datetime | None = None
    report: IngestReport | None = None


class EventStore:
    """An event store as it stood when it was opened, or after its own last append.

    All events of a patient lie in one shard, and a shard is meant to fit in memory whatever the total.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self._manifest = manifest

    @classmethod
    def create(cls, folder: Path, *, shards: int = 16) -> EventStore:
        """Return a new, empty store in a folder that does not exist or is empty.

        Raises:
            ArtifactError: something is there already.
        """
        if shards < 1:
            raise ArtifactError(f"{folder}: an event store needs at least 1 shard (found {shards}).")
        # An empty folder of parts without a manifest is what a crash of this very function leaves behind.
        begun = {PARTS, f"{MANIFEST}.new"}
        if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - begun):
            raise ArtifactError(f"{folder}: something is here already. Append to that store, or name a new folder.")
        if (folder / PARTS).is_dir() and any((folder / PARTS).iterdir()):
            raise ArtifactError(f"{folder}: there are files in {PARTS}/ already. Name a new folder.")
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        write_manifest(folder, Manifest(shards))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> EventStore:
        """Return the store in a folder.

        Raises:
            ArtifactError: there is none, it is newer than this Theracast, damaged, or a part is missing.
        """
        return cls(folder, read_manifest(folder))

    @property
    def manifest(self) -> dict[str, Any]:
        """Format, version, shards, rows, sources and parts, as plain JSON."""
        return self._manifest.to_json()

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return self._manifest.shards

    def shard_files(self, shard: int) -> list[Path]:
        """Return the Parquet files of one shard.

        Raises:
            ArtifactError: the shard has changed since the store was opened, or a file is missing.
        """
        return [self.folder / PARTS / part.file for part in self._parts(shard)]

    def shard_hash(self, shard: int) -> str:
        """Return what changes when the events of a shard change; the order of appends and compaction do not matter."""
        contents = self._manifest.contents(shard)
        return hashlib.sha256("\n".join([str(self.shard_count), *contents]).encode()).hexdigest()

    def shards_of(self, subjects: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the shard in which the events of each patient lie, if there are any."""
        return shard_numbers(pa.chunked_array([pa.array(subjects, pa.string())]), shards=self.shard_count)

    def read_shard(self, shard: int, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all events of one shard, by subject_id, time (null first), code, values, unit, available_time.

        Args:
            columns: only these, in this order.

        Raises:
            ArtifactError: a part cannot be read, or the shard has changed since the store was opened.
        """
        parts = self._parts(shard)
        wanted = list(COLUMNS if columns is None else columns)
        if not parts:
            return empty_events().select(wanted)
        if len(parts) == 1 and parts[0].sorted:
            return _read_part(self.folder / PARTS / parts[0].file, wanted)
        table = pa.concat_tables([_read_part(self.folder / PARTS / part.file, list(COLUMNS)) for part in parts])
        order = pc.sort_indices(table, sort_keys=_ORDER)
        return table.select(wanted).take(order).combine_chunks()

    def subject_ids(self, shard: int) -> pa.Array:
        """Return the patients of one shard, sorted."""
        seen = [pc.unique(_read_part(path, ["subject_id"])["subject_id"]) for path in self.shard_files(shard)]
        return pc.unique(pa.concat_arrays([*seen, pa.array([], pa.string())])).sort()

    def append(self, source: SourceRecord, batches: Iterable[pa.Table]) -> int:
        """Add events, all or none of them, and return their number.

        Batches are written as they come. If anything fails, also in the source, the store stays as it was.

        Raises:
            ArtifactError: another process is writing.
        """
        with self._writing() as manifest:
            generation = manifest.generation + 1
            parts = _write_parts(self.folder, batches, shards=manifest.shards, generation=generation)
            rows = sum(part.rows for part in parts)
            refused = sum(source.report.refused.values()) if source.report is not None else 0
            time = source.time.isoformat() if source.time is not None else ""
            entry = Source(source.name, source.kind, source.sha256, source.options, rows, refused, time)
            self._commit(manifest.grown(parts, entry))
        logger.info("%s: %d events of %s appended", self.folder, rows, source.name)
        return rows

    def compact(self) -> int:
        """Rewrite every shard as one sorted file and return how many were rewritten; the events stay the same.

        Whoever has the store open reads the new files from then on.

        Raises:
            ArtifactError: another process is writing.
        """
        with self._writing() as manifest:
            self._manifest = manifest
            generation = manifest.generation + 1
            parts, rewritten = list(manifest.parts), 0
            for shard in range(manifest.shards):
                former = manifest.of_shard(shard)
                if not former or (len(former) == 1 and former[0].sorted):
                    continue
                with _ShardWriters(self.folder, generation=generation) as writers:
                    table = self.read_shard(shard)
                    for start in range(0, table.num_rows, _BUFFER_ROWS):
                        writers.write(shard, table.slice(start, _BUFFER_ROWS))
                [part] = writers.parts
                content = tuple(sha for one in former for sha in one.content)
                parts = [one for one in parts if one.shard != shard]
                parts.append(replace(part, content=content, sorted=True))
                rewritten += 1
            if rewritten:
                sync_folder(self.folder / PARTS)
                self._commit(replace(manifest, generation=generation, parts=tuple(parts)))
                _remove_orphans(self.folder, self._manifest)
        return rewritten

    def verify(self) -> None:
        """Read every file and compare it with what was written.

        Raises:
            ArtifactError: a file has changed.
        """
        for part in self._manifest.parts:
            path = self.folder / PARTS / part.file
            if file_sha256(path) != part.sha256:
                raise _unreadable(path)

    def _parts(self, shard: int) -> tuple[Part, ...]:
        if not 0 <= shard < self.shard_count:
            raise IndexError(f"{self.folder}: there is no shard {shard}; the store has 0 to {self.shard_count - 1}")
        parts = self._manifest.of_shard(shard)
        if all((self.folder / PARTS / part.file).exists() for part in parts):
            return parts
        # Compaction has replaced the files since the store was opened, which does not matter while the events are the same.
        now = read_manifest(self.folder)
        if now.contents(shard) != self._manifest.contents(shard):
            raise ArtifactError(
                f"{self.folder}: events were added to shard {shard} and its files replaced since the store was opened. "
                "Start again; do not compact a store that is being read."
            )
        return now.of_shard(shard)

    def _commit(self, manifest: Manifest) -> None:
        write_manifest(self.folder, manifest)
        self._manifest = manifest

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Manifest]:
        """Hold the store against other writers; gives the manifest as it is now, without what a crash left behind."""
        with (self.folder / _LOCK).open("ab") as lock:
            try:
                # The system drops the lock with the process, so that a killed writer blocks nobody.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ArtifactError(
                    f"{self.folder}: another process is writing to this event store. Wait until it has finished."
                ) from error
            manifest = read_manifest(self.folder)
            _remove_orphans(self.folder, manifest)
            try:
                yield manifest
            except BaseException:
                _remove_orphans(self.folder, read_manifest(self.folder))
                raise


def shard_numbers(subjects: pa.ChunkedArray, *, shards: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the shard of each patient: crc32 of the identifier modulo the number of shards, on every machine."""
    coded = pc.dictionary_encode(subjects)
    numbers: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    for chunk in coded.chunks if isinstance(coded, pa.ChunkedArray) else [coded]:
        of_subject = np.array([zlib.crc32(name.encode()) % shards for name in chunk.dictionary.to_pylist()], np.int64)
        numbers.append(of_subject[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(numbers) if numbers else np.empty(0, np.int64)


class _ShardWriters:
    """Open Parquet files of one generation, one a shard, made when the first of its events comes."""

    def __init__(self, folder: Path, *, generation: int) -> None:
        self.parts: tuple[Part, ...] = ()
        self._folder = folder / PARTS
        self._generation = generation
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._rows: dict[int, int] = {}

    def __enter__(self) -> _ShardWriters:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        for writer in self._writers.values():
            writer.close()
        if kind is None:
            self.parts = tuple(self._finished(shard) for shard in sorted(self._writers))

    def write(self, shard: int, events: pa.Table) -> None:
        """Add a row group to a shard."""
        if shard not in self._writers:
            self._rows[shard] = 0
            self._writers[shard] = pq.ParquetWriter(self._path(shard), EVENT_SCHEMA, compression="zstd")
        self._writers[shard].write_table(events)
        self._rows[shard] += events.num_rows

    def _path(self, shard: int) -> Path:
        return self._folder / f"{self._generation:06d}-{shard:04d}.parquet"

    def _finished(self, shard: int) -> Part:
        path = self._path(shard)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        sha256 = file_sha256(path)
        return Part(shard, path.name, self._rows[shard], path.stat().st_size, sha256, (sha256,), sorted=False)


def _write_parts(folder: Path, batches: Iterable[pa.Table], *, shards: int, generation: int) -> tuple[Part, ...]:
    with _ShardWriters(folder, generation=generation) as writers:
        for events in _buffered(batches):
            numbers = shard_numbers(events["subject_id"], shards=shards)
            order = np.argsort(numbers, kind="stable")
            grouped = events.take(pa.array(order))
            ends = np.searchsorted(numbers[order], np.arange(shards + 1))
            for shard in range(shards):
                if ends[shard + 1] > ends[shard]:
                    writers.write(shard, grouped.slice(ends[shard], ends[shard + 1] - ends[shard]))
    sync_folder(folder / PARTS)
    return writers.parts


def _buffered(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for batch in batches:
        held.append(batch.select(COLUMNS).cast(EVENT_SCHEMA))
        if sum(table.num_rows for table in held) >= _BUFFER_ROWS:
            yield pa.concat_tables(held)
            held = []
    if any(table.num_rows for table in held):
        yield pa.concat_tables(held)


def _read_part(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path) from error


def _remove_orphans(folder: Path, manifest: Manifest) -> None:
    named = {part.file for part in manifest.parts}
    for path in (folder / PARTS).iterdir():
        if path.name not in named:
            path.unlink()
    (folder / f"{MANIFEST}.new").unlink(missing_ok=True)


def _unreadable(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path}: this part of the event store is not what was written. Restore the folder from a copy, "
        "or ingest the sources again into a new store."
    )
