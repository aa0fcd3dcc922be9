"""Raw cells as typed values: the one place where text becomes numbers, flags, categories and dates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.errors import StudyError
from theracast_data.sources import Cell, ColumnSpec
from theracast_data.spelling import MACHINE_MISSING, CellTable, cell_text, is_empty, listed, parse_number

Rows = tuple[int, ...]
_NAN = math.nan
_YES_NO = CellTable(
    dict.fromkeys(["1", "yes", "y", "true", "pos", "positive", "present"], 1.0)
    | dict.fromkeys(["0", "no", "n", "false", "neg", "negative", "absent"], 0.0)
)


@dataclass(frozen=True)
class TypedCells:
    """n typed values, and the positions of cells that could not be read or are no declared level.

    Attributes:
        values: (n,) float64, or str with NaN for categories.
        unreadable: positions of cells that say something, but nothing of the column's kind; their value is NaN.
        unknown: positions of cells that are not among the declared levels.
        codes: the unreadable or unknown cells that are codes rather than one patient's value, with their counts.
    """

    values: npt.NDArray[Any]
    unreadable: Rows = ()
    unknown: Rows = ()
    codes: dict[str, int] = field(default_factory=dict)


class MissingCodes:
    """The cells that mean `not known`: the declared ones, and by default what programs write for an empty cell."""

    def __init__(self, cells: Iterable[Cell] = (), *, by_programs: bool = True) -> None:
        declared = list(cells)
        self._table = CellTable.of(declared)
        texts = [cell_text(cell) for cell in declared]
        self._by_programs = MACHINE_MISSING if by_programs else frozenset()
        self.numbers = frozenset(number for number in map(parse_number, texts) if number is not None)

    def __contains__(self, cell: Any) -> bool:
        return cell in self._table or cell_text(cell).casefold() in self._by_programs


def type_column(cells: pd.Series, spec: ColumnSpec, *, missing: Sequence[Cell], decimal: str = ".") -> TypedCells:
    """Return the cells of one raw column as its spec says; units are not converted yet.

    Declared levels win over the source's missing codes, the column's own missing codes over both.

    Args:
        missing: missing codes of the source.
        decimal: decimal sign of cells that are text.
    """
    if spec.resolved_kind == "numeric":
        return type_numbers(cells, missing=(*missing, *spec.missing), decimal=decimal)
    if spec.resolved_kind == "boolean":
        return type_flags(cells, spec.levels, missing=missing, own_missing=spec.missing)
    return type_categories(cells, spec.levels, missing=missing, own_missing=spec.missing)


def type_numbers(cells: pd.Series, *, missing: Sequence[Cell] = (), decimal: str = ".") -> TypedCells:
    """Return numbers as float64. Text such as `<5`, `1,234` or `12 mg` is unreadable unless declared as missing."""
    codes = MissingCodes(missing)
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "fiub":
        values = cells.to_numpy(dtype=np.float64, copy=True)
        for number in codes.numbers:
            values[values == number] = _NAN
        infinite = np.flatnonzero(np.isinf(values))
        values[infinite] = _NAN
        return TypedCells(values, unreadable=tuple(infinite.tolist()))

    def read(cell: Any) -> tuple[float, str]:
        if isinstance(cell, str):
            number = parse_number(cell.strip(), decimal)
        elif isinstance(cell, (bool, int, float, np.number, np.bool_, Decimal)):
            number = None if is_empty(cell) or math.isinf(cell) else float(cell)
        else:
            number = None
        if number is not None:
            return (_NAN, "") if number in codes.numbers else (number, "")
        return _NAN, "" if is_empty(cell) or cell in codes else "unreadable"

    return _typed(cells, read, dtype=np.float64)


def type_flags(
    cells: pd.Series, levels: Any = None, *, missing: Sequence[Cell] = (), own_missing: Sequence[Cell] = ()
) -> TypedCells:
    """Return flags as 1.0 and 0.0: by the mapping of the study, else 0/1, yes/no, true/false, positive/negative."""
    if isinstance(levels, tuple):
        raise StudyError("a boolean column takes a mapping as `levels`, e.g. {M: 1, F: 0}, or none; found a list.")
    known = _YES_NO if levels is None else _mapping(levels)
    own, general = MissingCodes(own_missing, by_programs=False), MissingCodes(missing)

    def read(cell: Any) -> tuple[float, str]:
        if is_empty(cell) or cell in own:
            return _NAN, ""
        value = known.get(cell)
        if value is not None:
            return float(value), ""
        return _NAN, "" if cell in general else ("unreadable" if levels is None else "unknown")

    return _typed(cells, read, dtype=np.float64)


def type_categories(
    cells: pd.Series, levels: Any = None, *, missing: Sequence[Cell] = (), own_missing: Sequence[Cell] = ()
) -> TypedCells:
    """Return categories as text in the study's spelling. A cell that is no declared level keeps its own text."""
    known = CellTable({}) if levels is None else _mapping(levels) if isinstance(levels, dict) else CellTable.of(levels)
    own, general = MissingCodes(own_missing, by_programs=False), MissingCodes(missing)

    def read(cell: Any) -> tuple[Any, str]:
        if is_empty(cell) or cell in own:
            return _NAN, ""
        value = known.get(cell)
        if value is not None:
            return cell_text(value), ""
        if cell in general:
            return _NAN, ""
        return cell_text(cell), "" if levels is None else "unknown"

    return _typed(cells, read, dtype=object)


def type_times(cells: pd.Series, *, missing: Sequence[Cell] = ()) -> TypedCells:
    """Return dates as datetime64[us]: date cells, or ISO 8601 text. A time zone is dropped, the clock stays."""
    codes = MissingCodes(missing)

    def read(cell: Any) -> tuple[Any, str]:
        if is_empty(cell) or cell in codes:
            return None, ""
        time = _time_of(cell)
        return time, "" if time is not None else "unreadable"

    return _typed(cells, read, dtype="datetime64[us]")


def type_calendar(cells: pd.Series, *, missing: Sequence[Cell] = ()) -> TypedCells:
    """Return years as float64, with decimals where the cell is a date; numbers outside 1900 to 2200 are unreadable."""
    codes = MissingCodes(missing)

    def read(cell: Any) -> tuple[float, str]:
        if is_empty(cell) or cell in codes:
            return _NAN, ""
        number = parse_number(cell_text(cell)) if isinstance(cell, (str, int, float, np.number)) else None
        if number is not None:
            return (number, "") if 1900 <= number <= 2200 else (_NAN, "unreadable")
        time = _time_of(cell)
        if time is None:
            return _NAN, "unreadable"
        start = datetime(time.year, 1, 1)  # noqa: DTZ001 - hospital clocks carry no zone
        length = datetime(time.year + 1, 1, 1) - start  # noqa: DTZ001
        return time.year + (time - start) / length, ""

    return _typed(cells, read, dtype=np.float64)


def subject_ids(cells: pd.Series, *, missing: Sequence[Cell] = ()) -> npt.NDArray[np.object_]:
    """Return patient ids as text, None where there is none; `17.0`, as a spreadsheet writes 17, is `17`.

    Args:
        missing: missing codes of the source; numbers among them may be ids and are kept.
    """
    codes = MissingCodes(code for code in missing if parse_number(cell_text(code)) is None)

    def read(cell: Any) -> tuple[Any, str]:
        if is_empty(cell) or cell in codes:
            return None, ""
        text = cell_text(cell)
        whole, dot, rest = text.partition(".")
        return (whole if dot and whole.isdigit() and set(rest) == {"0"} else text), ""

    return _typed(cells, read, dtype=object).values


def _time_of(cell: Any) -> datetime | None:
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell)
    if isinstance(cell, pd.Timestamp):
        cell = cell.to_pydatetime(warn=False)
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=None)
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - hospital clocks carry no zone
    if not isinstance(cell, str) or "-" not in cell:
        return None
    try:
        return datetime.fromisoformat(cell.strip()).replace(tzinfo=None)
    except ValueError:
        return None


def _mapping(levels: dict[Any, Any]) -> CellTable:
    """Return the study's mapping; a category may also arrive under its new name, unless that is a code itself."""
    targets = {target: target for target in levels.values() if parse_number(cell_text(target)) is None}
    first = CellTable(levels)
    return CellTable(levels | {target: same for target, same in targets.items() if target not in first})


def _typed(cells: pd.Series, read: Callable[[Any], tuple[Any, str]], *, dtype: Any) -> TypedCells:
    """Return the cells as `read` gives them, each different cell read once."""
    raw = cells.tolist()
    try:
        different = dict.fromkeys(raw)
    except TypeError:  # lists and records in JSON: no cell of a table
        raw = [cell if cell.__hash__ is not None else str(type(cell)) for cell in raw]
        different = dict.fromkeys(raw)
    meaning = {cell: read(cell) for cell in different}
    values = np.array([meaning[cell][0] for cell in raw], dtype=dtype)
    faulty = {cell: fault for cell, (_, fault) in meaning.items() if fault}
    if not faulty:
        return TypedCells(values)
    places: dict[str, list[int]] = {"unreadable": [], "unknown": []}
    for position, cell in enumerate(raw):
        if cell in faulty:
            places[faulty[cell]].append(position)
    counts = Counter(cell_text(raw[position]) for rows in places.values() for position in rows)
    return TypedCells(values, tuple(places["unreadable"]), tuple(places["unknown"]), _codes(counts))


def _codes(counts: Counter[str]) -> dict[str, int]:
    """Return the cells that may be named in a message: no digits, short, and shared by at least three patients."""
    return {
        text: count
        for text, count in counts.most_common()
        if count >= 3 and len(text) <= 40 and not any(sign.isdigit() for sign in text)
    }


def codes_text(codes: dict[str, int]) -> str:
    """Return the codes for a message: ` (among them '.' 12 times)`."""
    return f" (among them {listed([f'{code!r} {count} times' for code, count in codes.items()])})" if codes else ""
