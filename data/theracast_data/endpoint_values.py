"""From raw outcome columns to endpoints: 0/1, days and event, order, or a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.cells import MissingCodes, TypedCells, codes_text, type_numbers
from theracast_data.cohort import ReadingNote
from theracast_data.endpoints import (
    DAYS_PER,
    BinaryEndpoint,
    ContinuousEndpoint,
    Endpoint,
    FollowUp,
    OrdinalEndpoint,
    TableEndpoint,
    TimeToEventEndpoint,
)
from theracast_data.errors import SchemaError
from theracast_data.sources import Cell
from theracast_data.spelling import CellTable, cell_key, cell_text, is_empty, listed, nearest

Floats = npt.NDArray[np.float64]
_ZERO_ONE = frozenset({"0", "1"})


@dataclass(frozen=True)
class DerivedEndpoints:
    """Endpoint columns of n decisions, and what could not be read of them.

    Attributes:
        frame: (n, ...) as `Cohort.endpoints`.
        notes: `unreadable-value`, `unknown-level` and `absent-column`; rows are positions.
    """

    frame: pd.DataFrame
    notes: tuple[ReadingNote, ...]


def derive_endpoints(
    raw: pd.DataFrame,
    endpoints: Sequence[TableEndpoint],
    *,
    missing: Sequence[Cell] | Mapping[str, Sequence[Cell]] = (),
) -> pd.DataFrame:
    """Return the endpoints of n decisions: `NAME`, `NAME.time` in days, `NAME.event`, as `Cohort.endpoints`.

    Args:
        raw: (n, ...) raw outcome columns under the headers that the endpoints name.
        missing: cells that mean `not known`, for all columns or by header.

    Raises:
        SchemaError: a column is not there, or cells are neither declared nor missing; all faults in one message.
    """
    derived = read_endpoints(raw, endpoints, missing=missing)
    if derived.notes:
        raise SchemaError(
            "The endpoints cannot be derived:\n" + "\n".join(f"  {note.message}" for note in derived.notes)
        )
    return derived.frame


def read_endpoints(
    raw: pd.DataFrame,
    endpoints: Sequence[TableEndpoint],
    *,
    missing: Sequence[Cell] | Mapping[str, Sequence[Cell]] = (),
) -> DerivedEndpoints:
    """Return the endpoints with notes on what could not be read, which is missing; see `derive_endpoints`."""
    reader = _Reader(raw, missing)
    columns: dict[str, Floats] = {}
    for endpoint in endpoints:
        reader.endpoint = endpoint.name
        if isinstance(endpoint, TimeToEventEndpoint):
            columns |= reader.follow_up(endpoint)
        elif isinstance(endpoint, OrdinalEndpoint):
            columns[endpoint.name] = reader.ordinal(endpoint)
        elif isinstance(endpoint, ContinuousEndpoint):
            columns[endpoint.name] = reader.numbers(endpoint.column)
            if endpoint.baseline is not None:
                columns[endpoint.name] = columns[endpoint.name] - reader.numbers(endpoint.baseline)
        elif endpoint.follow_up is not None and endpoint.horizon is not None:
            followed = reader.follow_up(endpoint.follow_up)
            days = endpoint.horizon * DAYS_PER[endpoint.follow_up.unit]
            time, event = followed[f"{endpoint.name}.time"], followed[f"{endpoint.name}.event"]
            within = event_within(time, event, days)
            columns[endpoint.name] = 1.0 - within if "event_free" in endpoint.positives else within
            columns |= followed
        else:
            columns[endpoint.name] = reader.binary(endpoint)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(raw)), dtype=np.float64)
    return DerivedEndpoints(frame, tuple(reader.notes))


def event_within(time: Floats, event: Floats, horizon: float) -> Floats:
    """Return 1 where the event came within the horizon, 0 where it did not, NaN where censored before.

    It did not where the patient was followed past the horizon, or where a competing event came first.

    Args:
        time: (n,) days to event or censoring.
        event: (n,) 1 event, 0 censored, 2 a competing event.
        horizon: days; an event on that very day counts as within, censoring on it as followed past.
    """
    happened = (event == 1) & (time <= horizon)
    free = ~happened & ((time >= horizon) | (event == 2))
    known = np.isfinite(time) & np.isfinite(event)
    return np.where(known & happened, 1.0, np.where(known & free, 0.0, np.nan))


def endpoint_columns(endpoints: Iterable[Endpoint]) -> list[str]:
    """Return the raw headers that the endpoints need, each once."""
    headers: list[str] = []
    for endpoint in endpoints:
        followed = endpoint if isinstance(endpoint, FollowUp) else getattr(endpoint, "follow_up", None)
        if followed is not None:
            headers += [followed.time, followed.event or followed.censored or ""]
        else:
            headers += [getattr(endpoint, key, None) or "" for key in ("column", "baseline")]
    return list(dict.fromkeys(header for header in headers if header))


class _Reader:
    """Reads outcome columns and keeps what could not be read."""

    def __init__(self, raw: pd.DataFrame, missing: Sequence[Cell] | Mapping[str, Sequence[Cell]]) -> None:
        self.raw = raw
        self.missing = missing
        self.endpoint = ""
        self.notes: list[ReadingNote] = []

    def binary(self, endpoint: BinaryEndpoint) -> Floats:
        """Return 1 yes, 0 no, NaN not known."""
        column = endpoint.column or ""
        not_evaluable = 0.0 if endpoint.not_evaluable_as == "negative" else np.nan
        meanings: dict[Any, float] = dict.fromkeys(endpoint.not_evaluable, not_evaluable)
        meanings |= dict.fromkeys(endpoint.negative or (), 0.0) | dict.fromkeys(endpoint.positives, 1.0)
        rest = None if endpoint.negative is not None else 0.0
        values = self._cells(column, meanings, rest)
        if rest is not None and not np.any(values == 1):
            self._check_marks(column, endpoint.positives, f"none of them means yes to {endpoint.name!r} (`positive`)")
        return values

    def follow_up(self, followed: FollowUp) -> dict[str, Floats]:
        """Return time in days and event 0/1, 2 where it is a competing one; both NaN where either is not known."""
        flag, at_mark = (followed.event, 1.0) if followed.event is not None else (followed.censored or "", 0.0)
        time = self.numbers(followed.time) * DAYS_PER[followed.unit]
        negative = np.flatnonzero(time < 0)
        if len(negative):
            message = (
                f"endpoint {self.endpoint!r}, column {followed.time!r}: {len(negative)} times are below 0, before "
                "the decision. Correct them in the source, or leave those rows out with `include`."
            )
            self._note("unreadable-value", followed.time, negative, message)
        competing = followed.competing
        meanings: dict[Any, float] = dict.fromkeys(competing, 2.0) | dict.fromkeys(followed.marks, at_mark)
        event = self._cells(flag, meanings, 1.0 - at_mark)
        if not np.any(event == at_mark):
            what = "an event" if at_mark else "censoring"
            self._check_marks(flag, followed.marks, f"none of them marks {what} (`marks`)")
        if competing and not np.any(event == 2):
            self._check_marks(
                flag, competing, "none of them marks a competing event (`competing`)", spare=followed.marks
            )
        known = np.isfinite(time) & np.isfinite(event) & ~(time < 0)
        return {
            f"{self.endpoint}.time": np.where(known, time, np.nan),
            f"{self.endpoint}.event": np.where(known, event, np.nan),
        }

    def ordinal(self, endpoint: OrdinalEndpoint) -> Floats:
        """Return the position of each cell among the levels, 0 = worst."""
        meanings: dict[Any, float] = dict.fromkeys(endpoint.not_evaluable, np.nan)
        meanings |= {cell: float(place) for place, cell in enumerate(endpoint.levels)}
        return self._cells(endpoint.column, meanings, None)

    def numbers(self, column: str) -> Floats:
        """Return the numbers of a column."""
        if not self._has(column):
            return np.full(len(self.raw), np.nan)
        typed = type_numbers(self.raw[column], missing=self._missing_of(column))
        if typed.unreadable:
            self._note("unreadable-value", column, typed.unreadable, self._unreadable_text(column, typed))
        return np.asarray(typed.values, dtype=np.float64)

    def _cells(self, column: str, meanings: Mapping[Any, float], rest: float | None) -> Floats:
        """Return the meaning of each cell; of known cells without one `rest`, or a note where that is None."""
        if not self._has(column):
            return np.full(len(self.raw), np.nan)
        table, missing = CellTable(meanings), MissingCodes(self._missing_of(column))
        raw = self.raw[column].tolist()
        meaning: dict[Any, float] = {}
        undeclared: dict[Any, str] = {}
        for cell in dict.fromkeys(raw):
            found = None if is_empty(cell) else table.get(cell)
            if found is not None:
                meaning[cell] = found
            elif is_empty(cell) or cell in missing:
                meaning[cell] = np.nan
            else:
                meaning[cell] = np.nan if rest is None else rest
                undeclared[cell] = cell_text(cell)
        if undeclared and rest is None:
            rows = [row for row, cell in enumerate(raw) if cell in undeclared]
            cells = (
                listed(sorted(set(undeclared.values())))
                if len(undeclared) <= 30
                else f"{len(undeclared)} different ones"
            )
            message = (
                f"endpoint {self.endpoint!r}: {column} has cells that are not declared: {cells} ({len(rows)} rows). "
                "Say what they mean in the endpoint, or list them under the source's `missing`."
            )
            self._note("unknown-level", column, rows, message)
        return np.array([meaning[cell] for cell in raw], dtype=np.float64)

    def _check_marks(self, column: str, marks: Sequence[Cell], what: str, *, spare: Sequence[Cell] = ()) -> None:
        """Note a column in which no declared mark occurs although its cells are no plain 0/1.

        Args:
            spare: marks of something else; where these and one more cell are all that there is, nothing is amiss.
        """
        if column not in self.raw.columns:
            return
        missing = MissingCodes(self._missing_of(column))
        known = {cell_text(cell) for cell in self.raw[column].tolist() if not is_empty(cell) and cell not in missing}
        keys = {cell_key(text) for text in known}
        if keys <= _ZERO_ONE or (spare and len(keys - {cell_key(cell) for cell in spare}) < 2):
            return
        cells = listed(sorted(known)) if len(known) <= 30 else f"{len(known)} different ones"
        message = (
            f"endpoint {self.endpoint!r}: {column} has the cells {cells}; {what}, declared is {listed(list(marks))}. "
            "Declare the cells as they are written in the file."
        )
        self._note("unknown-level", column, (), message)

    def _has(self, column: str) -> bool:
        if column in self.raw.columns:
            return True
        near = nearest(column, self.raw.columns)
        hint = f" Did you mean {near!r}?" if near else ""
        message = f"endpoint {self.endpoint!r}: there is no column {column!r}.{hint}"
        self._note("absent-column", column, (), message)
        return False

    def _missing_of(self, column: str) -> Sequence[Cell]:
        return self.missing.get(column, ()) if isinstance(self.missing, Mapping) else self.missing

    def _unreadable_text(self, column: str, typed: TypedCells) -> str:
        return (
            f"endpoint {self.endpoint!r}, column {column!r}: {len(typed.unreadable)} of {len(typed.values)} cells are "
            f"not numbers{codes_text(typed.codes)}. Correct them, or list what they say under the source's `missing`."
        )

    def _note(self, kind: str, column: str, rows: Iterable[int], message: str) -> None:
        self.notes.append(ReadingNote(kind, column, None, tuple(int(row) for row in rows), message))
