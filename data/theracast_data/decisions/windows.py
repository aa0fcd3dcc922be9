"""Windows in time relative to a decision, and which events lie in them. Ends are open or closed as written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.errors import SchemaError
from theracast_data.events.schema import EVENT_SCHEMA

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

DAY = 86_400_000_000
"""Microseconds in a day."""
UNDATED = np.iinfo(np.int64).min
"""Time of an event that is true at all times."""
SameDay = Literal["hidden", "visible"]

_UNIT = {"h": DAY // 24, "d": DAY, "w": 7 * DAY, "y": 365 * DAY + DAY // 4}
_END = r"[+-]?\d+(?:\.\d+)?[hdwy]|[+-]inf"
_WINDOW = re.compile(rf"([\[(])\s*({_END})\s*,\s*({_END})\s*([\])])")


@dataclass(frozen=True)
class Window:
    """An interval of microseconds around the index time.

    Attributes:
        start: None for no start.
        end: None for no end.
        closed_start: whether an event exactly at the start belongs to the window.
        closed_end: the same for the end.
    """

    start: int | None
    end: int | None
    closed_start: bool
    closed_end: bool

    @property
    def looks_ahead(self) -> bool:
        """Whether the window reaches past the index time."""
        return self.end is None or self.end > 0


def parse_window(text: str) -> Window:
    """Return the window that `(-365d, 0d]` and its like describe; units h, d, w, y (365.25 days), ends -inf and +inf.

    Raises:
        ValueError: it is written otherwise, or holds no moment.
    """
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            "write a window with both ends, each with its unit, round brackets for open and square ones for closed "
            f'ends, in quotes: "(-365d, 0d]" or "(-inf, 0d]" (found {text!r})'
        )
    start, end = _moment(found[2]), _moment(found[3])
    closed_start, closed_end = found[1] == "[", found[4] == "]"
    if (found[2].endswith("inf") and (closed_start or found[2][0] == "+")) or (
        found[3].endswith("inf") and (closed_end or found[3][0] == "-")
    ):
        raise ValueError(f"-inf can only be an open start and +inf an open end (found {text!r})")
    if start is not None and end is not None and (start > end or (start == end and not (closed_start and closed_end))):
        raise ValueError(f"the window holds no moment; write the earlier end first (found {text!r})")
    return Window(start, end, closed_start, closed_end)


def parse_duration(text: str) -> int:
    """Return a length such as `180d` in microseconds; units h, d, w, y (365.25 days)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy])", text.strip())
    if found is None:
        raise ValueError(f"write a length of time as a number with h, d, w or y, e.g. 180d (found {text!r})")
    return round(float(found[1]) * _UNIT[found[2]])


def _moment(text: str) -> int | None:
    return None if text.endswith("inf") else round(float(text[:-1]) * _UNIT[text[-1]])


@dataclass(frozen=True)
class EventArrays:
    """n events of one shard as arrays, sorted by patient and time (undated first).

    Attributes:
        subjects: (m,) identifiers, sorted.
        row: (n,) position of the event in the given table.
        subject: (n,) position in `subjects`.
        time: (n,) microseconds since 1970, `UNDATED` where true at all times.
        known: (n,) when the value was known, never before its time.
        available: (n,) when the source says that it was known, `UNDATED` where it says nothing.
        date_only: (n,) whether `time` is a date without clock time: at midnight, and known at the end of the day or
            nothing said.
        code: (n,) position in `codes`.
        codes: distinct codes, sorted.
        number: (n,) float64, NaN where the event has none.
    """

    subjects: npt.NDArray[np.object_]
    row: npt.NDArray[np.intp]
    subject: Integers
    time: Integers
    known: Integers
    available: Integers
    date_only: Booleans
    code: Integers
    codes: tuple[str, ...]
    number: npt.NDArray[np.float64]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.time)

    def texts(self, at: Integers) -> npt.NDArray[np.object_]:
        """Return the texts of these events, None where there is none."""
        return np.asarray(self.table["text_value"].take(pa.array(self.row[at])).to_pylist(), dtype=object)

    def units(self, at: Integers) -> npt.NDArray[np.object_]:
        """Return the units of these events as the source wrote them, None where it wrote none."""
        return np.asarray(self.table["unit"].take(pa.array(self.row[at])).to_pylist(), dtype=object)


def event_arrays(
    events: pa.Table | pd.DataFrame, *, same_day: SameDay = "hidden", assume_dates: bool = True
) -> EventArrays:
    """Return the events as sorted arrays.

    Readers say of a date without clock time that it was known at the end of its day.

    Args:
        events: with the columns of `EVENT_SCHEMA`; others are passed over.
        same_day: whether what carries only a date is known at the start or at the end of its day.
        assume_dates: whether a time at midnight of which nothing says when it was known is a date without clock time.

    Raises:
        SchemaError: a column is missing or of another type, or an event has no patient or code.
    """
    table = _checked(events)
    subjects, subject = _encoded(table["subject_id"])
    codes, code = _encoded(table["code"])
    time = _microseconds(table["time"])
    available = _microseconds(table["available_time"])
    end = np.where(time != UNDATED, time, 0) + DAY - 1
    unsaid = available == UNDATED
    date_only = (time != UNDATED) & (time % DAY == 0) & (unsaid | (available == end))
    known = np.maximum(time, available)
    if same_day == "visible":
        known = np.where(date_only, time, known)
    elif assume_dates:
        known = np.where(date_only & unsaid, end, known)
    order = np.lexsort((code, time, subject))
    number = table["numeric_value"].to_numpy().astype(np.float64)
    return EventArrays(
        subjects=subjects,
        row=order,
        subject=subject[order],
        time=time[order],
        known=known[order],
        available=available[order],
        date_only=date_only[order],
        code=code[order],
        codes=tuple(codes.tolist()),
        number=number[order],
        table=table,
    )


def with_known_times(events: pa.Table, same_day: SameDay) -> pa.Table:
    """Return the events with the `available_time` that `same_day` gives to what carries a date without clock time."""
    time, available = _microseconds(events["time"]), _microseconds(events["available_time"])
    end = np.where(time != UNDATED, time, 0) + DAY - 1
    date_only = (time != UNDATED) & (time % DAY == 0) & ((available == UNDATED) | (available == end))
    known = np.where(date_only, time if same_day == "visible" else end, available)
    column = pa.array(known, mask=known == UNDATED).cast(pa.timestamp("us"))
    return events.set_column(events.column_names.index("available_time"), "available_time", column)


def subject_positions(arrays: EventArrays, subject_ids: npt.ArrayLike) -> Integers:
    """Return where these patients stand in `arrays.subjects`, -1 for those without events."""
    return np.asarray(pd.Index(arrays.subjects).get_indexer(pd.Index(np.asarray(subject_ids, dtype=object))), np.int64)


def pairs_in_window(
    subject: Integers, index: Integers, event_subject: Integers, event_time: Integers, window: Window
) -> tuple[Integers, Integers]:
    """Return the positions (decision, event) of all events of a decision's patient inside its window.

    Undated events belong to windows without start. Visibility is not asked here.

    Args:
        subject: (n,) patient of each decision, -1 for none.
        index: (n,) index times, microseconds.
        event_subject: (k,) patients of the events, with `event_time` in ascending order.
        event_time: (k,) microseconds.
        window: relative to the index time.
    """
    if not len(event_time) or not len(index):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    times, rank = np.unique(event_time, return_inverse=True)
    width = len(times) + 1
    keys = event_subject * width + rank
    first = np.zeros(len(index), np.int64)
    last = np.full(len(index), len(times), np.int64)
    if window.start is not None:
        first = np.searchsorted(times, index + window.start, side="left" if window.closed_start else "right")
    if window.end is not None:
        last = np.searchsorted(times, index + window.end, side="right" if window.closed_end else "left")
    begin = np.searchsorted(keys, subject * width + first, side="left")
    stop = np.searchsorted(keys, subject * width + last, side="left")
    count = np.where(subject >= 0, np.maximum(stop - begin, 0), 0)
    decision = np.repeat(np.arange(len(index)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return decision, np.repeat(begin, count) + within


def _encoded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.object_], Integers]:
    """Return the distinct texts, sorted, and each row's position among them."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=pa.string())
    encoded = whole.dictionary_encode()
    distinct = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(distinct)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return distinct[order], place[np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)]


def _microseconds(column: pa.ChunkedArray) -> Integers:
    return np.asarray(pc.fill_null(column.cast(pa.int64()), UNDATED).to_numpy(), dtype=np.int64)


def _checked(events: pa.Table | pd.DataFrame) -> pa.Table:
    names = events.column_names if isinstance(events, pa.Table) else list(events.columns)
    absent = [name for name in EVENT_SCHEMA.names if name not in names]
    if absent:
        raise SchemaError(
            f"events: the columns {', '.join(absent)} are missing. Read events with a reader of `theracast ingest`, "
            "or give every column of the event schema (null where nothing is known)."
        )
    nullable = pa.schema([field.with_nullable(True) for field in EVENT_SCHEMA])
    try:
        if isinstance(events, pa.Table):
            table = events.select(EVENT_SCHEMA.names).cast(nullable)
        else:
            table = pa.Table.from_pandas(events[list(EVENT_SCHEMA.names)], schema=nullable, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SchemaError(
            "events: a column has another type than the event schema (text identifiers and codes, timestamps in "
            "microseconds without time zone, float64 values). Convert it before."
        ) from error
    for name in ("subject_id", "code"):
        if table[name].null_count:
            raise SchemaError(f"events: {table[name].null_count} rows have no {name}. Refuse them in the reader.")
    return table
