"""The events of a cohort, shard by shard: from a store in training, from the request in scoring."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
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


@dataclass(frozen=True)
class CohortEvents:
    """Events of the patients of a cohort.

    Attributes:
        concepts: name to concept.
        shards: gives the events, whole patients at a time; `subject_id` is the `event_key` of the decisions.
        engine: what computes features from them.
    """

    concepts: Mapping[str, Concept]
    shards: Callable[[], Iterator[pa.Table]]
    engine: Literal["duckdb", "spark"] = "duckdb"


def stored_events(folder: Path, section: EventSection) -> CohortEvents:
    """Return the events of a store, of which one shard at a time is in memory.

    Raises:
        ArtifactError: there is no store, or it is damaged.
    """
    from theracast_data.events.store import EventStore

    store = EventStore.open(folder)

    def shards() -> Iterator[pa.Table]:
        for number in range(store.shard_count):
            yield store.read_shard(number)

    return CohortEvents(section.concepts, shards, section.engine)


def given_events(events: pa.Table, concepts: Mapping[str, Concept]) -> CohortEvents:
    """Return events that came with the decisions."""
    return CohortEvents(concepts, lambda: iter([events]))


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
        listed = _parsed(cell)
        if listed is None or not all(isinstance(one, dict) and isinstance(one.get("code"), str) for one in listed):
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
        arrays[name] = pa.array([None if _unknown(text) else str(text) for text in columns[name]], pa.string())
    numbers = pd.to_numeric(pd.Series(columns["numeric_value"], dtype=object), errors="coerce")
    arrays["numeric_value"] = pa.array(numbers.to_numpy(dtype=np.float64, na_value=np.nan), from_pandas=True)
    events = pa.table({name: arrays[name] for name in COLUMNS}, schema=EVENT_SCHEMA)
    if faults:
        events = events.filter(pa.array([int(row) not in faults for row in owners]))
    return events, faults


def _moments(cells: list[Any]) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the moments, and where a cell is none although it is not empty."""
    known = np.array([not _unknown(cell) for cell in cells], dtype=bool)
    if not known.any():
        return pa.nulls(len(cells), pa.timestamp("us")), known
    found = pd.to_datetime(pd.Series(cells, dtype=object), errors="coerce", format="ISO8601", utc=True)
    moments = found.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return pa.array(moments, pa.timestamp("us")), known & np.isnat(moments)


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
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _parsed(cell: Any) -> list[Any] | None:
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
