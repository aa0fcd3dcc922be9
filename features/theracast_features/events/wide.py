"""The final wide table, one row per decision, written shard by shard; only what changed is computed again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import empty_events
from theracast_features.events import duckdb_engine
from theracast_features.events.catalogue import plan_features
from theracast_features.events.cells import BITS
from theracast_features.events.section import EventFeatures
from theracast_features.events.sql import DUCKDB, event_sql
from theracast_features.specs import FeatureTable

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise it where the same events give other cells than before: parts in caches are then made anew."""

ROWS_WITHOUT_EVENTS = 10_000
"""Decisions written at a time that belong to no shard."""

Engine = Callable[[pa.Table, pd.DataFrame, Sequence[EventFeatures], Mapping[str, Concept]], FeatureTable]


class ShardedEvents(Protocol):
    """What is asked of an event store."""

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        ...

    def read_shard(self, shard: int, /) -> pa.Table:
        """Return all events of some patients."""
        ...

    def shard_hash(self, shard: int, /) -> str:
        """Return what changes with the content of the shard."""
        ...

    def subject_ids(self, shard: int, /) -> pa.Array:
        """Return the patients of the shard."""
        ...


@dataclass(frozen=True)
class WideReport:
    """What was written.

    Attributes:
        path: the Parquet file; the catalogue lies beside it as `STEM.catalogue.json`.
        rows: decisions.
        columns: features.
        built: parts that were computed.
        reused: parts that were taken from the cache.
    """

    path: Path
    rows: int
    columns: int
    built: int
    reused: int


def write_wide(
    store: ShardedEvents,
    decisions: pd.DataFrame,
    features: Sequence[EventFeatures],
    concepts: Mapping[str, Concept],
    *,
    path: Path,
    cache: Path | None = None,
    engine: Engine = duckdb_engine.event_features,
    progress: Callable[[int, int], None] | None = None,
) -> WideReport:
    """Write one Parquet file: the columns of `decisions`, then the features; one shard is in memory at a time.

    Rows come shard by shard, in each as in `decisions`, at last those whose patient has no event. Features are float32
    where all values keep their magnitude in it, otherwise float64.

    Args:
        store: events by patient.
        decisions: `subject_id`, `index_time` and whatever else the rows shall carry.
        features: concepts, windows, aggregates.
        concepts: name to concept.
        path: file to write; it is replaced as a whole, at the end.
        cache: folder for parts, found again by the content of shard, features and decisions; it may be deleted at any time.
        engine: computes one shard.
        progress: called with the number of shards done and of all.

    Raises:
        StudyError: as for `event_features`, before anything is read.
    """
    plan = plan_features(features, concepts)
    keys = pa.Schema.from_pandas(decisions, preserve_index=False).remove_metadata()
    recipe = _recipe(features, concepts, event_sql(plan, DUCKDB), str(keys))
    parts: list[Path] = []
    built = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = cache or Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent, prefix=".theracast-wide-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        for shard, rows in _portions(store, decisions):
            part = folder / f"{_part_key(recipe, store.shard_hash(shard) if shard is not None else '', rows)}.arrow"
            if not part.exists():
                events = empty_events() if shard is None else store.read_shard(shard)
                normal, _ = concept_events(events, {one.concept: concepts[one.concept] for one in features})
                _write_part(engine(normal, rows[["subject_id", "index_time"]], features, concepts), rows, keys, part)
                built += 1
            parts.append(part)
            if progress is not None:
                progress(store.shard_count if shard is None else shard + 1, store.shard_count)
        names = [spec.name for spec in plan.catalogue]
        _join(parts, keys, names, path)
    catalogue = json.dumps([spec.to_json() for spec in plan.catalogue], indent=1, ensure_ascii=False)
    path.with_suffix(".catalogue.json").write_text(catalogue + "\n", encoding="utf-8")
    logger.info(
        "%s: %d decisions, %d features; %d of %d parts computed", path, len(decisions), len(names), built, len(parts)
    )
    return WideReport(path, len(decisions), len(names), built, len(parts) - built)


def _portions(store: ShardedEvents, decisions: pd.DataFrame) -> Iterator[tuple[int | None, pd.DataFrame]]:
    """Yield each shard that holds patients of the decisions with its rows, then the rows of patients without events."""
    subjects = decisions["subject_id"].astype("str")
    waiting = np.ones(len(decisions), dtype=bool)
    for shard in range(store.shard_count):
        own = waiting & subjects.isin(store.subject_ids(shard).to_pylist()).to_numpy()
        if own.any():
            waiting &= ~own
            yield shard, decisions.loc[own].reset_index(drop=True)
    rest = np.flatnonzero(waiting)
    for start in range(0, len(rest), ROWS_WITHOUT_EVENTS):
        yield None, decisions.iloc[rest[start : start + ROWS_WITHOUT_EVENTS]].reset_index(drop=True)


def _recipe(features: Sequence[EventFeatures], concepts: Mapping[str, Concept], text: str, keys: str) -> str:
    used = {one.concept: concepts[one.concept].model_dump(mode="json") for one in features}
    asked = [one.model_dump(mode="json") for one in features]
    return json.dumps([FORMAT, BITS, asked, used, text, keys], sort_keys=True)


def _part_key(recipe: str, shard: str, rows: pd.DataFrame) -> str:
    digest = hashlib.sha256(f"{recipe}\n{shard}\n".encode())
    digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _write_part(table: FeatureTable, rows: pd.DataFrame, keys: pa.Schema, path: Path) -> None:
    columns: list[Any] = pa.Table.from_pandas(rows, schema=keys, preserve_index=False).columns
    columns += [pa.array(_narrow(table.frame[name].to_numpy()), from_pandas=True) for name in table.frame.columns]
    whole = pa.table(columns, names=[*keys.names, *table.frame.columns])
    # Arrow's own format costs a fraction of Parquet's encoding, which the final file pays once.
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with _replaced(path) as draft, pa.ipc.new_file(draft, whole.schema, options=options) as writer:
        writer.write_table(whole)


def _narrow(values: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the values as float32 unless one of them is too large or too small for it.

    The others are rounded all the same: a cell must not hang on which values share its shard.
    """
    limits = np.finfo(np.float32)
    size = np.abs(values)
    fits = np.isnan(values) | (values == 0) | ((size <= float(limits.max)) & (size >= float(limits.tiny)))
    if fits.all():
        return values.astype(np.float32)
    return np.where(fits, np.where(fits, values, 0.0).astype(np.float32).astype(np.float64), values)


def _join(parts: Sequence[Path], keys: pa.Schema, names: Sequence[str], path: Path) -> None:
    wide: set[str] = set()
    for part in parts:
        with pa.ipc.open_file(part) as reader:
            wide.update(field.name for field in list(reader.schema)[len(keys) :] if field.type == pa.float64())
    kinds = [pa.field(name, pa.float64() if name in wide else pa.float32()) for name in names]
    schema = pa.schema([*keys, *kinds])
    with (
        _replaced(path) as draft,
        pq.ParquetWriter(
            draft, schema, compression="zstd", use_dictionary=keys.names, write_statistics=keys.names
        ) as writer,
    ):
        for part in parts:
            with pa.ipc.open_file(part) as reader:
                writer.write_table(reader.read_all().cast(schema))


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Give a draft beside the file, which takes its place if nothing fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
