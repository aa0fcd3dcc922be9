"""The columns of one raw table as a source declares them: typed, in the model's units, with notes on what was met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.cells import TypedCells, codes_text, type_categories, type_column, type_flags
from theracast_data.cohort import ReadingNote
from theracast_data.events.molar import analyte_scale
from theracast_data.sources import ColumnSpec, NumberRange, OneHotSpec, TableSource, snake_case
from theracast_data.spelling import CellTable, Headers, is_empty, listed, parse_number

_EXPECTED = {"numeric": "numbers", "boolean": "0/1 or yes/no", "categorical": "categories"}


@dataclass(frozen=True)
class TypedTable:
    """The typed columns of one raw table.

    Attributes:
        values: name inside Theracast to (n,) float64, or str with NaN.
        notes: what was met; rows are positions in the table.
        absent: names of columns that the table does not have.
    """

    values: dict[str, npt.NDArray[Any]]
    notes: tuple[ReadingNote, ...]
    absent: frozenset[str]


def type_table(
    frame: pd.DataFrame, source: TableSource, sites: npt.NDArray[np.object_], *, headers: Headers, by_name: bool = False
) -> TypedTable:
    """Return the columns of `source` found in a raw frame.

    Args:
        frame: (n, ...) raw cells; the index counts the rows of the file from 0.
        sites: (n,) site of each row, for units that differ between sites.
        headers: the frame's headers.
        by_name: whether a column may also arrive under its name inside Theracast, as when scoring.
    """
    values: dict[str, npt.NDArray[Any]] = {}
    notes: list[ReadingNote] = []
    absent: set[str] = set()
    for raw, spec in source.columns.items():
        name = spec.name or snake_case(raw)
        found = headers.find(raw, *spec.aliases, *([name] if by_name else []))
        if found is None:
            absent.add(name)
            values[name] = _all_missing(len(frame), spec)
            continue
        if found.other:
            notes.append(_spelling_note(name, raw, found.header))
        if f"{found.header} (repeated 2)" in headers:
            message = f"the column {found.header!r} stands more than once in the header. Rename or remove the others."
            notes.append(ReadingNote("repeated-header", name, None, (), message))
        cells = frame[found.header]
        typed = type_column(cells, spec, missing=source.missing, decimal=source.decimal)
        notes += _cell_notes(typed, name, found.header, spec, frame.index)
        converted, unit_notes = _in_unit(typed.values, name, spec, sites)
        values[name] = converted
        notes += unit_notes
    for group in source.one_hot:
        folded = _fold(frame, group, source, headers, by_name=by_name)
        if folded is None:
            absent.add(group.name)
            values[group.name] = np.full(len(frame), np.nan, dtype=object)
            continue
        values[group.name], group_notes = folded
        notes += group_notes
    return TypedTable(values, tuple(notes), frozenset(absent))


def rows_text(rows: Iterable[int], index: pd.Index, *, most: int = 5) -> str:
    """Return positions as row numbers of the file (its header is row 1) for a message."""
    numbers = [str(int(index[row]) + 2) for row in rows]
    return ("row " if len(numbers) == 1 else "rows ") + listed(numbers, most=most)


def _all_missing(length: int, spec: ColumnSpec) -> npt.NDArray[Any]:
    return np.full(length, np.nan, dtype=object if spec.resolved_kind == "categorical" else np.float64)


def _spelling_note(name: str, wanted: str, header: str) -> ReadingNote:
    message = f"the column {wanted!r} is not there; {header!r} was read in its place."
    return ReadingNote("other-spelling", name, None, (), message)


def _cell_notes(typed: TypedCells, name: str, header: str, spec: ColumnSpec, index: pd.Index) -> list[ReadingNote]:
    notes = []
    if typed.unreadable:
        message = (
            f"column {header!r}: {len(typed.unreadable)} of {len(typed.values)} cells are not "
            f"{_EXPECTED[spec.resolved_kind]}{codes_text(typed.codes)}, {rows_text(typed.unreadable, index)}. "
            "Correct them in the source, or list what they say under `missing` if it means not known."
        )
        notes.append(ReadingNote("unreadable-value", name, None, typed.unreadable, message))
    if typed.unknown:
        kept = "read as not known" if spec.resolved_kind == "boolean" else "kept as they are"
        message = (
            f"column {header!r}: {len(typed.unknown)} cells are not among its `levels`{codes_text(typed.codes)}, "
            f"{rows_text(typed.unknown, index)}; {kept}. Add them to `levels`, or to `missing`."
        )
        notes.append(ReadingNote("unknown-level", name, None, typed.unknown, message))
    return notes


def _in_unit(
    values: npt.NDArray[Any], name: str, spec: ColumnSpec, sites: npt.NDArray[np.object_]
) -> tuple[npt.NDArray[Any], list[ReadingNote]]:
    """Return values in the model's unit, converted site by site where the file's unit differs."""
    if spec.unit is None or (spec.source_unit is None and not spec.site_units):
        return values, []
    notes = []
    converted = values.copy()
    for site in dict.fromkeys(sites):
        unit = spec.site_units.get(site, spec.source_unit or spec.unit)
        if unit == spec.unit:
            continue
        rows = np.flatnonzero(sites == site)
        slope, offset = analyte_scale(
            unit, spec.unit, quantity=name
        )  # by the molar mass too, where the name says of what
        converted[rows] = slope * values[rows] + offset
        message = f"the values were converted from {unit} to {spec.unit}."
        notes.append(ReadingNote("converted-unit", name, str(site), tuple(rows.tolist()), message))
    return converted, notes


def _fold(
    frame: pd.DataFrame, group: OneHotSpec, source: TableSource, headers: Headers, *, by_name: bool
) -> tuple[npt.NDArray[Any], list[ReadingNote]] | None:
    """Return the category of each row from the group's 0/1 columns, else from a text column of one of its aliases."""
    notes: list[ReadingNote] = []
    found = {raw: header.header for raw in group.columns if (header := headers.find(raw)) is not None}
    text = headers.find(*group.aliases, *([group.name] if by_name else [])) if group.aliases or by_name else None
    if not found and text is None:
        return None
    values = np.full(len(frame), np.nan, dtype=object)
    if found:
        flags = np.zeros((len(frame), len(found)))
        unreadable: set[int] = set()
        for position, raw_header in enumerate(found.values()):
            typed = type_flags(frame[raw_header], missing=source.missing)
            flags[:, position] = typed.values
            unreadable |= set(typed.unreadable)
        count = np.nansum(flags, axis=1)
        names = np.array([group.columns[raw] for raw in found], dtype=object)
        one = np.flatnonzero(count == 1)
        values[one] = names[np.nanargmax(flags[one], axis=1)] if len(one) else names[:0]
        notes += _group_notes(group, found, np.flatnonzero(count > 1), sorted(unreadable), frame.index)
        open_rows = np.flatnonzero(count == 0)
    else:
        open_rows = np.arange(len(frame))
    if text is not None and len(open_rows):
        levels = tuple(dict.fromkeys(group.columns.values()))
        typed = type_categories(frame[text.header].iloc[open_rows], levels, missing=source.missing)
        values[open_rows] = typed.values
        if typed.unknown:
            rows = tuple(open_rows[list(typed.unknown)].tolist())
            message = (
                f"column {text.header!r}: {len(rows)} cells are no category of {group.name}{codes_text(typed.codes)}, "
                f"{rows_text(rows, frame.index)}; kept as they are."
            )
            notes.append(ReadingNote("unknown-level", group.name, None, rows, message))
    return values, notes


def _group_notes(
    group: OneHotSpec, found: dict[str, str], several: npt.NDArray[np.intp], unreadable: list[int], index: pd.Index
) -> list[ReadingNote]:
    notes = []
    lacking = [raw for raw in group.columns if raw not in found]
    if lacking:
        message = f"the columns {listed(lacking)} of {group.name} are not there; read as 0."
        notes.append(ReadingNote("absent-column", group.name, None, (), message))
    if len(several):
        rows = tuple(several.tolist())
        message = (
            f"{group.name}: {len(rows)} patients have a 1 in several of its columns, {rows_text(rows, index)}; "
            "read as not known. Correct them in the source."
        )
        notes.append(ReadingNote("contradictory-one-hot", group.name, None, rows, message))
    if unreadable:
        message = (
            f"{group.name}: {len(unreadable)} rows hold cells that are not 0/1, {rows_text(unreadable, index)}. "
            "Correct them in the source, or list what they say under `missing` if it means not known."
        )
        notes.append(ReadingNote("unreadable-value", group.name, None, tuple(unreadable), message))
    return notes


def include_text(allowed: tuple[Any, ...] | NumberRange) -> str:
    """Return what an `include` rule asks for, in words."""
    return str(allowed) if isinstance(allowed, NumberRange) else " or ".join(str(cell) for cell in allowed)


def include_rows(cells: pd.Series, allowed: tuple[Any, ...] | NumberRange) -> npt.NDArray[np.bool_]:
    """Return which raw cells are among the allowed ones; a cell that is no number is in no range."""
    if isinstance(allowed, NumberRange):
        numbers = [parse_number(cell) if isinstance(cell, str) else cell for cell in cells.tolist()]
        found = pd.to_numeric(pd.Series(numbers, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
        low = -np.inf if allowed.at_least is None else allowed.at_least
        high = np.inf if allowed.at_most is None else allowed.at_most
        return np.asarray((found >= low) & (found <= high), dtype=bool)
    table = CellTable.of(allowed)
    return np.array([not is_empty(cell) and cell in table for cell in cells.tolist()], dtype=bool)
