"""What an event store holds: its parts, where they came from, and how one such record replaces another.

The manifest is the store: a file that it does not name is not part of it. It is replaced as a whole, so that whoever
opens the store, also after a crash at any moment, sees either what was there before an append or all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from theracast_data.errors import ArtifactError

MANIFEST = "manifest.json"
PARTS = "parts"
FORMAT = "theracast-events"
VERSION = 1


@dataclass(frozen=True)
class Part:
    """One Parquet file of one shard.

    Attributes:
        shard: number of the shard.
        file: name in the folder of parts.
        rows: events in it.
        size: bytes.
        sha256: of the file.
        content: sha256 of the files as first written whose events it holds; compaction does not change them.
        sorted: whether the events stand in the order of the store.
    """

    shard: int
    file: str
    rows: int
    size: int
    sha256: str
    content: tuple[str, ...]
    sorted: bool


@dataclass(frozen=True)
class Source:
    """What one append brought.

    Attributes:
        name: name of the source.
        kind: kind of reader, e.g. `long_table`.
        sha256: of the file or folder that was read; empty where there is none, e.g. for a database.
        options: sha256 of how it was read.
        rows: events written.
        refused: records that were not understood.
        time: when, ISO 8601.
    """

    name: str
    kind: str
    sha256: str
    options: str
    rows: int
    refused: int
    time: str


@dataclass(frozen=True)
class Manifest:
    """All parts and sources of a store; `generation` counts its changes."""

    shards: int
    generation: int = 0
    parts: tuple[Part, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def rows(self) -> int:
        """Events in the store."""
        return sum(part.rows for part in self.parts)

    def of_shard(self, shard: int) -> tuple[Part, ...]:
        """Return the parts of one shard, oldest first."""
        return tuple(part for part in self.parts if part.shard == shard)

    def contents(self, shard: int) -> list[str]:
        """Return what stands for the events of a shard, whatever files they lie in."""
        return sorted(sha for part in self.of_shard(shard) for sha in part.content)

    def grown(self, parts: tuple[Part, ...], source: Source) -> Manifest:
        """Return the manifest after an append."""
        return replace(
            self,
            generation=self.generation + 1,
            parts=self.parts + parts,
            sources=(*self.sources, source),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "shards": self.shards,
            "generation": self.generation,
            "rows": self.rows,
            "sources": [asdict(source) for source in self.sources],
            "parts": [asdict(part) | {"content": list(part.content)} for part in self.parts],
        }


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store whose parts are all there.

    Raises:
        ArtifactError: there is no store, it is newer than this Theracast, damaged, or a part is missing.
    """
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{folder}: there is no event store here. Make one with `theracast ingest`, or correct the path."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ArtifactError(f"{path}: this is not the manifest of an event store. Name the folder of one.")
    if raw.get("version") != VERSION:
        raise ArtifactError(
            f"{path}: the event store has format version {raw.get('version')}, this Theracast reads {VERSION}. "
            "Open it with the Theracast that wrote it, or ingest the sources again."
        )
    try:
        manifest = Manifest(
            shards=int(raw["shards"]),
            generation=int(raw["generation"]),
            parts=tuple(Part(**part | {"content": tuple(part["content"])}) for part in raw["parts"]),
            sources=tuple(Source(**source) for source in raw["sources"]),
        )
        sound = manifest.shards > 0 and raw["rows"] == manifest.rows
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "a key is missing or wrong") from error
    if not sound:
        raise _damaged(path, "its row counts contradict each other")
    _check_parts(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the former one, in one step, and on the disk before this returns."""
    beside = folder / f"{MANIFEST}.new"
    with beside.open("wb") as file:
        file.write(json.dumps(manifest.to_json(), indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MANIFEST)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_parts(folder: Path, manifest: Manifest) -> None:
    for part in manifest.parts:
        path = folder / PARTS / part.file
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{path}: this part of the event store is missing. Restore the folder from a copy, "
                "or ingest the sources again into a new store."
            ) from error
        if size != part.size:
            raise ArtifactError(
                f"{path}: this part of the event store has {size} bytes, not the {part.size} that were written. "
                "Restore the folder from a copy, or ingest the sources again into a new store."
            )


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: the manifest of the event store is damaged: {reason}. "
        "Restore it from a copy, or ingest the sources again into a new store."
    )
