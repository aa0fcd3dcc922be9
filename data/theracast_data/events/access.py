"""The events of a cohort, shard by shard: from a store in training, from the request in scoring."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.events.concepts import Concept
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA, empty_events
from theracast_data.events.section import EventSection

EVENTS_COLUMN = "events"
"""Column of a raw table for scoring whose cells hold the events of the row's patient."""
KEY = "event_key"
"""Column of a cohort's decisions by which its events are found."""

_TIMES = ("time", "available_time")
_TEXTS = ("code", "text_value", "unit")


class EventShards(Protocol):
    """Events cut by patient into shards, each of which fits in memory; an `EventStore` is one."""

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        ...

    def shards_of(self, subjects: Sequence[str], /) -> npt.NDArray[np.int64]:
        """Return the shard in which the events of each patient lie, if there are any."""
        ...

    def read_shard(self, shard: int, /) -> pa.Table:
        """Return all events of the shard's patients."""
        ...

    def shard_hash(self, shard: int, /) -> str:
        """Return what changes with the events of the shard."""
        ...


@dataclass(frozen=True)
class CohortEvents:
    """Events of the patients of a cohort.

    Attributes:
        concepts: name to concept.
        source: gives the events, whole patients at a time; `subject_id` is the `event_key` of the decisions.
        engine: what computes features from them.
    """

    concepts: Mapping[str, Concept]
    source: EventShards
    engine: Literal["duckdb", "spark"] = "duckdb"

    def shards(self) -> Iterator[pa.Table]:
        """Yield the events of each shard."""
        for shard in range(self.source.shard_count):
            yield self.source.read_shard(shard)


@dataclass(frozen=True)
class GivenEvents:
    """Events in memory: one shard."""

    events: pa.Table
    shard_count: int = 1

    def shards_of(self, subjects: Sequence[str], /) -> npt.NDArray[np.int64]:
        """Return 0 for each."""
        return np.zeros(len(subjects), dtype=np.int64)

    def read_shard(self, _shard: int, /) -> pa.Table:
        """Return the events."""
        return self.events

    def shard_hash(self, _shard: int, /) -> str:
        """Return the hash of the events in their order."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.events.schema) as stream:
            stream.write_table(self.events.combine_chunks())
        return hashlib.sha256(sink.getvalue()).hexdigest()


def stored_events(folder: Path, section: EventSection) -> CohortEvents:
    """Return the events of a store, of which one shard at a time is in memory.

    Raises:
        ArtifactError: there is no store, or it is damaged.
    """
    from theracast_data.events.store import EventStore

    return CohortEvents(section.concepts, EventStore.open(folder), section.engine)


def given_events(events: pa.Table, concepts: Mapping[str, Concept]) -> CohortEvents:
    """Return events that came with the decisions."""
    return CohortEvents(concepts, GivenEvents(events))


def events_of_cells(cells: Sequence[Any]) -> tuple[pa.Table, dict[int, str]]:
    """Return the events in the cells of a raw table's `events` column, `subject_id` being the row's number.

    A cell is a list of events (`time`, `code`, and any of `numeric_value`, `text_value`, `unit`, `available_time`) or the
    JSON of one; missing means none.

    Returns:
        The events, and row to what is wrong with its cell; nothing of such a cell is used.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    faults: dict[int, str] = {}
    for row, cell in enumerate(cells):
        listed = listed_events(cell)
        if listed is None or not _are_events(listed):
            faults[row] = "the events are not a list of records that each have a code"
            continue
        for name, column in columns.items():
            column.extend([str(row)] * len(listed) if name == "subject_id" else [one.get(name) for one in listed])
    if not columns["code"]:
        return empty_events(), faults
    owners = np.array(columns["subject_id"], dtype=object)
    arrays: dict[str, pa.Array] = {"subject_id": pa.array(owners, pa.string())}
    for name in _TIMES:
        arrays[name], wrong = _moments(columns[name])
        for row in dict.fromkeys(owners[wrong]):
            faults[int(row)] = f"an event's {name} is not a date, e.g. 2024-05-31T08:30:00"
    for name in _TEXTS:
        arrays[name] = _texts(columns[name])
    arrays["numeric_value"] = pa.array(_numbers(columns["numeric_value"]), from_pandas=True)
    events = pa.table({name: arrays[name] for name in COLUMNS}, schema=EVENT_SCHEMA)
    if faults:
        events = events.filter(pa.array([int(row) not in faults for row in owners]))
    return events, faults


def _are_events(listed: list[Any]) -> bool:
    if not set(map(type, listed)) <= {dict}:
        return False
    return set(map(type, [one.get("code") for one in listed])) <= {str}


# Cells of the types that JSON gives are taken as they stand, all at once; others are looked at one by one. A patient of a
# thousand events is asked about while somebody waits.


def _texts(cells: list[Any]) -> pa.Array:
    if not set(map(type, cells)) <= {str, type(None)}:
        cells = [None if _unknown(text) else str(text) for text in cells]
    return pa.array(cells, pa.string())


def _numbers(cells: list[Any]) -> npt.NDArray[np.float64]:
    if set(map(type, cells)) <= {float, int, type(None)}:
        with contextlib.suppress(OverflowError):
            return np.array(cells, dtype=np.float64)
    return np.array([_number(cell) for cell in cells], dtype=np.float64)


def _number(cell: Any) -> float:
    if not isinstance(cell, str | int | float | np.number):
        return math.nan
    try:
        return float(pd.to_numeric(pd.Series([cell]), errors="coerce").iloc[0])
    except OverflowError:
        return math.inf


def _moments(cells: list[Any]) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Return the moments, and where a cell is none although it is not empty."""
    kinds = set(map(type, cells))
    if kinds <= {type(None)}:
        return pa.nulls(len(cells), pa.timestamp("us")), np.zeros(len(cells), dtype=bool)
    if kinds <= {str, type(None)}:
        with contextlib.suppress(pa.ArrowInvalid):  # not all of them are written plainly
            return pa.array(cells, pa.string()).cast(pa.timestamp("us")), np.zeros(len(cells), dtype=bool)
    moments = [None if _unknown(cell) else _moment(cell) for cell in cells]
    wrong = [moment is None and not _unknown(cell) for moment, cell in zip(moments, cells, strict=True)]
    return pa.array(moments, pa.timestamp("us")), np.array(wrong, dtype=bool)


def _moment(cell: Any) -> datetime | None:
    """Return one moment, in UTC where it has a zone; None for what is no date.

    Each on its own: pandas reads a column in one resolution, so that one cell would decide whether another is in range.
    """
    try:
        if isinstance(cell, str):
            moment = datetime.fromisoformat(cell)
        elif isinstance(cell, date | np.datetime64) and not pd.isna(cell):
            moment = pd.Timestamp(cell).floor("us").to_pydatetime()
        else:
            return None
    except (ValueError, OverflowError):
        found = pd.to_datetime([cell], errors="coerce", format="ISO8601", utc=True)[0]  # e.g. a month alone
        return None if pd.isna(found) else found.floor("us").tz_localize(None).to_pydatetime()
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return None


def cells_of_events(events: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return patient to events as `events_of_cells` reads them: plain JSON values, what is not known left out."""
    frame = events.to_pandas()
    for name in _TIMES:
        frame[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%f").astype(object).where(frame[name].notna(), None)
    frame = frame.astype(object).where(frame.notna(), None)
    names = [name for name in COLUMNS if name != "subject_id"]
    rows = zip(*(frame[name] for name in names), strict=True)
    cells: dict[str, list[dict[str, Any]]] = {}
    for patient, row in zip(frame["subject_id"], rows, strict=True):
        own = {name: cell for name, cell in zip(names, row, strict=True) if cell is not None}
        cells.setdefault(str(patient), []).append(own)
    return cells


def _unknown(cell: Any) -> bool:
    return cell is None or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))


def listed_events(cell: Any) -> list[Any] | None:
    """Return the events of a cell, itself a list or the JSON of one; None if it is neither."""
    if _unknown(cell):
        return []
    if isinstance(cell, str):
        if not cell.strip():
            return []
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError:
            return None
    return list(cell) if isinstance(cell, list | tuple) else None
