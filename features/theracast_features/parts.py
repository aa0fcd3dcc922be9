"""The feature table of a cohort in parts on disk: a patient shard each, built a block at a time and found again by content.

Parts hold what `build_features` gives, bit by bit. A training that reads them sees the very cells that scoring computes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

import theracast_data
import theracast_features
from theracast_data.cohort import Cohort
from theracast_data.errors import ArtifactError
from theracast_data.events.access import KEY, CohortEvents, GivenEvents
from theracast_data.events.schema import empty_events
from theracast_features.build import build_features
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable

logger = logging.getLogger(__name__)

FORMAT = 2
"""Of the files of parts. Other code gives other parts in any case: its text is part of their key."""

BLOCK_CELLS = 12_000_000
"""Cells built at a time, some 100 MB and a few times that on the way; a shard may hold more."""
CHUNK_CELLS = 500_000
"""Cells compressed as one and read as one: 4 MB, of which the writer of a whole table holds one a part."""
UNUSED_DAYS = 14
"""Parts that no table has needed for so long are removed."""

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Texts = NDArray[np.object_]
Progress = Callable[[int, int], None]

_SCHEMA = pa.schema(
    [
        pa.field("rows", pa.int64()),  # of the chunk, which is one row of the file
        pa.field("numbers", pa.large_list(pa.float64())),  # column by column; missing is NaN
        pa.field("texts", pa.large_list(pa.string())),  # column by column
        pa.field("beyond", pa.list_(pa.string())),  # features with a value here that float32 cannot hold
    ]
)


@dataclass(frozen=True)
class Part:
    """Some rows of the table.

    Attributes:
        path: the file.
        rows: (n,) their positions in the cohort, ascending.
    """

    path: Path
    rows: Rows


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a part.

    Attributes:
        rows: (n,) positions in the cohort, ascending.
        numbers: (n_numeric, n) numeric and boolean features, in the order of the catalogue.
        texts: (n_categorical, n) str, None where missing.
    """

    rows: Rows
    numbers: Floats
    texts: Texts

    def cut(self, place: int) -> tuple[Chunk, Chunk]:
        """Return the first rows, and the others."""
        return (
            Chunk(self.rows[:place], self.numbers[:, :place], self.texts[:, :place]),
            Chunk(self.rows[place:], self.numbers[:, place:], self.texts[:, place:]),
        )


@dataclass(frozen=True)
class PartedTable:
    """A feature table on disk.

    Attributes:
        catalogue: p specs.
        decisions: (n, ...) the cohort's `decisions`.
        parts: together, every decision once.
        built: parts that were computed.
        reused: parts that were there.
    """

    catalogue: tuple[FeatureSpec, ...]
    decisions: pd.DataFrame
    parts: tuple[Part, ...]
    built: int
    reused: int

    @property
    def numeric(self) -> list[str]:
        """Names of the features that are numbers, boolean ones among them."""
        return [spec.name for spec in self.catalogue if spec.kind != "categorical"]

    @property
    def categorical(self) -> list[str]:
        """Names of the features that are categories."""
        return [spec.name for spec in self.catalogue if spec.kind == "categorical"]

    def chunks(self, part: Part) -> Iterator[Chunk]:
        """Yield the rows of a part in their order.

        Raises:
            ArtifactError: the file is gone or damaged.
        """
        place = 0
        try:
            with pa.OSFile(str(part.path)) as file, pa.ipc.open_file(file) as reader:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    count = batch["rows"][0].as_py()
                    numbers = batch["numbers"].flatten().to_numpy().reshape(-1, count)
                    texts = np.array(batch["texts"].flatten().to_pylist(), dtype=object).reshape(-1, count)
                    yield Chunk(part.rows[place : place + count], numbers, texts)
                    place += count
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(
                f"{part.path}: this part of the feature table is gone or damaged. Start again; it is built anew."
            ) from error

    def read(self) -> FeatureTable:
        """Return the table in memory, as `build_features` gives it."""
        numbers = np.empty((len(self.numeric), len(self.decisions)))
        texts = np.empty((len(self.categorical), len(self.decisions)), dtype=object)
        for part in self.parts:
            for chunk in self.chunks(part):
                numbers[:, chunk.rows] = chunk.numbers
                texts[:, chunk.rows] = chunk.texts
        frame = pd.DataFrame(numbers.T, columns=self.numeric, copy=False)
        if self.categorical:
            categories = {name: pd.array(row, dtype="str") for name, row in zip(self.categorical, texts, strict=True)}
            frame = pd.concat([frame, pd.DataFrame(categories)], axis=1)[[spec.name for spec in self.catalogue]]
        return FeatureTable(frame=frame, catalogue=self.catalogue, decisions=self.decisions)

    def beyond_float32(self) -> set[str]:
        """Return the features with a value that is too large or too small for float32."""
        return {name for part in self.parts for name in _beyond(part.path)}


def build_parts(
    cohort: Cohort, section: FeatureSection, *, folder: Path, progress: Progress | None = None
) -> PartedTable:
    """Return the feature table of a cohort on disk; of a shard that is known, nothing is read or computed again.

    At most one shard of events and one block of rows are in memory. A part is known by the content of its shard, its
    decisions and their values, the section, the meaning of columns and concepts, and the code; the engine is no part of it.

    Args:
        section: resolved (`missing_indicators` by name).
        folder: where the parts lie; any of them may be deleted at any time.
        progress: called with the number of parts done and of all.

    Raises:
        StudyError: as for `build_features`, before any events are read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cohort = replace(cohort, notes=())  # no feature hangs on them, and taking rows of them costs time
    catalogue = _catalogue(cohort, section)
    height = max(1, BLOCK_CELLS // max(1, len(catalogue)))
    keys = _PartKeys.of(cohort, section)
    parts: list[Part] = []
    built = 0
    portions = list(_portions(cohort, height))
    for shard, rows in portions:
        path = folder / f"{keys.key(shard, rows)}.arrow"
        if _sound(path, len(rows)):
            os.utime(path)
        else:
            _build(cohort, section, shard=shard, rows=rows, height=height, catalogue=catalogue, path=path)
            built += 1
        parts.append(Part(path, rows))
        if progress is not None:
            progress(len(parts), len(portions))
    logger.info("%d decisions, %d features: %d of %d parts computed", len(cohort), len(catalogue), built, len(parts))
    return PartedTable(catalogue, cohort.decisions, tuple(parts), built, len(parts) - built)


def remove_unused(folder: Path, *, now: float) -> int:
    """Return how many parts were removed because no table has needed them for `UNUSED_DAYS`.

    Args:
        now: seconds since 1970.
    """
    ours = [*folder.glob("*.arrow"), *folder.glob(".*.draft")]  # a draft is what a killed writer leaves
    old = [path for path in ours if now - path.stat().st_mtime > UNUSED_DAYS * 86_400]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a draft beside the file, which takes its place if nothing fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _portions(cohort: Cohort, height: int) -> Iterator[tuple[int | None, Rows]]:
    """Yield each shard that may hold patients of the cohort with its rows; without events, blocks of rows."""
    if cohort.events is None:
        for start in range(0, len(cohort), height):
            yield None, np.arange(start, min(start + height, len(cohort)))
        return
    keys, names = pd.factorize(cohort.decisions[KEY].astype("str").fillna(""))
    shard_of_row = cohort.events.source.shards_of([str(name) for name in names])[keys]
    order = np.argsort(shard_of_row, kind="stable")
    ends = np.searchsorted(shard_of_row[order], np.arange(cohort.events.source.shard_count + 1))
    for shard in range(cohort.events.source.shard_count):
        if ends[shard + 1] > ends[shard]:
            yield shard, order[ends[shard] : ends[shard + 1]]


@dataclass(frozen=True)
class _PartKeys:
    """What the names of parts are made from."""

    recipe: str
    rows: NDArray[np.uint64]
    events: CohortEvents | None

    @classmethod
    def of(cls, cohort: Cohort, section: FeatureSection) -> _PartKeys:
        """Return the keys of a cohort."""
        concepts = cohort.events.concepts if cohort.events is not None else {}
        known = pd.concat([cohort.decisions, cohort.values.add_prefix("value.")], axis=1)
        recipe = [
            FORMAT,
            _code(),
            section.model_dump(mode="json"),
            {name: concept.model_dump(mode="json") for name, concept in concepts.items()},
            {name: spec.model_dump_json() for name, spec in cohort.columns.items()},
            [f"{name} {dtype}" for name, dtype in known.dtypes.items()],
        ]
        hashes = pd.util.hash_pandas_object(known, index=False).to_numpy().astype(np.uint64, copy=False)
        return cls(json.dumps(recipe, sort_keys=True), hashes, cohort.events)

    def key(self, shard: int | None, rows: Rows) -> str:
        """Return the name of one part."""
        content = self.events.source.shard_hash(shard) if self.events is not None and shard is not None else ""
        digest = hashlib.sha256(f"{self.recipe}\n{content}\n".encode())
        digest.update(self.rows[rows].tobytes())
        return digest.hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Return the hash of the code that makes features: cells of other code are never taken for those of this one."""
    digest = hashlib.sha256()
    for package in (theracast_data, theracast_features):
        root = Path(next(iter(package.__path__)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _catalogue(cohort: Cohort, section: FeatureSection) -> tuple[FeatureSpec, ...]:
    """Return what the columns will be, by building them for a decision of which nothing is known."""
    one = _block(cohort, np.arange(len(cohort))[:1], empty_events())
    if one.events is not None:  # a cluster need not start for it
        one = replace(one, events=replace(one.events, engine="duckdb"))
    return build_features(one, section).catalogue


def _block(cohort: Cohort, rows: Rows, events: pa.Table) -> Cohort:
    """Return these decisions with these events alone."""
    own = cohort.take(rows)
    if cohort.events is None:
        return own
    return replace(own, events=replace(cohort.events, source=GivenEvents(events)))


def _build(
    cohort: Cohort,
    section: FeatureSection,
    *,
    shard: int | None,
    rows: Rows,
    height: int,
    catalogue: tuple[FeatureSpec, ...],
    path: Path,
) -> None:
    """Write one part."""
    events = empty_events()
    if shard is not None and cohort.events is not None:
        events = cohort.events.source.read_shard(shard)
    with replaced(path) as draft, _writer(draft, len(rows)) as writer:
        for block, own in _cut(cohort, rows, events, height=height):
            table = build_features(_block(cohort, block, own), section)
            if table.catalogue != catalogue:
                raise ValueError("a feature builder gives other features for other decisions")
            _write_block(table, writer)


def _cut(cohort: Cohort, rows: Rows, events: pa.Table, *, height: int) -> Iterator[tuple[Rows, pa.Table]]:
    """Yield blocks of the rows, each with the events of its patients."""
    if len(rows) <= height or not events.num_rows:
        yield from ((rows[start : start + height], events) for start in range(0, len(rows), height))
        return
    coded = events["subject_id"].combine_chunks().dictionary_encode()
    owner = coded.indices.to_numpy()
    known = pd.Index(coded.dictionary.to_pylist())
    place = known.get_indexer(cohort.decisions[KEY].iloc[rows])
    for start in range(0, len(rows), height):
        wanted = np.zeros(len(known) + 1, dtype=bool)  # the last is for patients without events
        wanted[place[start : start + height]] = True
        wanted[-1] = False
        yield rows[start : start + height], events.filter(pa.array(wanted[owner]))


@contextmanager
def _writer(path: Path, rows: int) -> Iterator[Any]:
    # lz4 costs a fraction of Parquet's encoding, which the final file pays once.
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    schema = _SCHEMA.with_metadata({"rows": str(rows)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema, options=options) as writer:
        yield writer


def _write_block(table: FeatureTable, writer: Any) -> None:
    """Write some rows."""
    numeric = [spec.name for spec in table.catalogue if spec.kind != "categorical"]
    categorical = [spec.name for spec in table.catalogue if spec.kind == "categorical"]
    numbers = np.ascontiguousarray(table.frame[numeric].to_numpy(dtype=np.float64, na_value=np.nan).T)
    texts = [table.frame[name].astype(object).where(table.frame[name].notna(), None).to_numpy() for name in categorical]
    height = max(16, CHUNK_CELLS // max(1, len(table.catalogue)))
    for start in range(0, len(table), height):
        stop = min(start + height, len(table))
        own = np.ascontiguousarray(numbers[:, start:stop])
        flat = own.ravel()
        fits = fits_float32(own).all(axis=1)
        words = pa.array([word for column in texts for word in column[start:stop]], pa.string())
        chunk = [
            pa.array([stop - start], pa.int64()),
            pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), pa.array(flat)),
            pa.LargeListArray.from_arrays(pa.array([0, len(words)], pa.int64()), words),
            pa.array([[numeric[place] for place in np.flatnonzero(~fits)]], pa.list_(pa.string())),
        ]
        writer.write_batch(pa.record_batch(chunk, schema=_SCHEMA))


def fits_float32(values: Floats) -> NDArray[np.bool_]:
    """Return which values keep their magnitude in float32: missing, 0, or neither too large nor too small."""
    limits = np.finfo(np.float32)
    size = np.abs(values)
    fits: NDArray[np.bool_] = (
        np.isnan(values) | (values == 0) | ((size <= float(limits.max)) & (size >= float(limits.tiny)))
    )
    return fits


def _beyond(path: Path) -> set[str]:
    """Return the features of a part that float32 cannot hold."""
    options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index("beyond")])
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file, options=options) as reader:
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        return {name for batch in batches for name in batch["beyond"][0].as_py()}


def _sound(path: Path, rows: int) -> bool:
    """Return whether a part is there and whole: what ends a file of Arrow's was written last."""
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            return bool(reader.schema.metadata == {b"rows": str(rows).encode()})
    except (OSError, pa.ArrowException):
        return False
