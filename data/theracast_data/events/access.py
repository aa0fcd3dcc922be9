"""The events of a cohort, shard by shard: from a store in training, from the request in scoring."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    records: list[dict[str, Any]] = []
    faults: dict[int, str] = {}
    for row, cell in enumerate(cells):
        listed = _parsed(cell)
        if listed is None or not all(isinstance(one, dict) and isinstance(one.get("code"), str) for one in listed):
            faults[row] = "the events are not a list of records that each have a code"
            continue
        records += [{name: one.get(name) for name in COLUMNS} | {"subject_id": str(row)} for one in listed]
    if not records:
        return empty_events(), faults
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    for name in _TIMES:
        moments = pd.to_datetime(frame[name], errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None)
        for row in frame.loc[frame[name].notna() & moments.isna(), "subject_id"].unique():
            faults[int(row)] = f"an event's {name} is not a date, e.g. 2024-05-31T08:30:00"
        frame[name] = moments.astype("datetime64[us]")
    frame["numeric_value"] = pd.to_numeric(frame["numeric_value"], errors="coerce").astype("float64")
    for name in _TEXTS:
        frame[name] = frame[name].map(str, na_action="ignore").astype(object).where(frame[name].notna(), None)
    kept = frame[~frame["subject_id"].isin([str(row) for row in faults])]
    return pa.Table.from_pandas(kept, schema=EVENT_SCHEMA, preserve_index=False), faults


def _parsed(cell: Any) -> list[Any] | None:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return []
    if isinstance(cell, str):
        if not cell.strip():
            return []
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError:
            return None
    return list(cell) if isinstance(cell, list | tuple) else None
