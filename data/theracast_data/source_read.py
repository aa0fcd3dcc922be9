"""One source of a study as it stands in its files: its sheets, typed, one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from theracast_data.cohort import ReadingNote
from theracast_data.columns import TypedTable, type_table
from theracast_data.files import read_raw
from theracast_data.rows import TableRows, decision_columns, keep_decisions
from theracast_data.sources import TableSource
from theracast_data.spelling import Headers, listed, parse_number


@dataclass(frozen=True)
class SheetRead:
    """One sheet (or file) of a source: its rows, typed columns and, of the first source, its decisions."""

    where: str
    headers: Headers
    rows: TableRows
    typed: TypedTable
    decisions: Mapping[str, npt.NDArray[Any]]
    notes: tuple[ReadingNote, ...]


@dataclass(frozen=True)
class SourceRead:
    """All sheets of a source, one below the other."""

    source: TableSource
    sheets: tuple[SheetRead, ...]

    def stacked(self, column: str) -> npt.NDArray[Any]:
        """Return a typed column over all sheets."""
        return np.concatenate([sheet.typed.values[column] for sheet in self.sheets])

    def raw(self, header: str) -> list[Any] | None:
        """Return the raw cells of a column over all sheets, None in sheets without it; None if no sheet has it."""
        found = [sheet.headers.find(header) for sheet in self.sheets]
        if not any(found):
            return None
        cells: list[Any] = []
        for sheet, one in zip(self.sheets, found, strict=True):
            cells += [None] * len(sheet.rows.sites) if one is None else sheet.rows.frame[one.header].tolist()
        return [_with_point(cell, self.source.decimal) for cell in cells] if self.source.decimal != "." else cells

    @property
    def sites(self) -> npt.NDArray[np.object_]:
        """Site of each row."""
        return np.concatenate([sheet.rows.sites for sheet in self.sheets])

    @property
    def subjects(self) -> npt.NDArray[np.object_]:
        """Patient id of each row."""
        return np.concatenate([sheet.rows.subjects for sheet in self.sheets])

    @property
    def notes(self) -> list[ReadingNote]:
        """Notes of all sheets; rows count over the stacked sheets."""
        shifted: list[ReadingNote] = []
        start = 0
        for sheet in self.sheets:
            shifted += [replace(note, rows=tuple(row + start for row in note.rows)) for note in sheet.notes]
            start += len(sheet.rows.sites)
        return shifted


def read_source(source: TableSource, base: Path, faults: list[str]) -> SourceRead:
    """Return a source as it stands in its files; columns that the study needs and that are not there go to `faults`."""
    sheets: list[SheetRead] = []
    for sheet, frame in read_raw(source, base=base).items():
        name = source.name or Path(source.path).stem
        where = f"{Path(source.path).name}, sheet {sheet}" if source.sheets else Path(source.path).name
        headers = Headers(frame.columns, claimed=[*source.columns, source.subject])
        subject = headers.find(source.subject)
        if subject is None:
            faults.append(_no_column(where, source.subject, "subject", headers, source))
            continue
        if source.site not in (None, "$sheet") and headers.find(str(source.site)) is None:
            faults.append(_no_column(where, str(source.site), "site", headers, source))
        rows = keep_decisions(
            frame, source, headers, subject=subject.header, default_site=sheet if source.site == "$sheet" else name
        )
        typed = type_table(rows.frame, source, rows.sites, headers=headers)
        decisions, decision_notes = decision_columns(rows.frame, source, headers)
        faults += [f"{where}: {note.message}" for note in rows.notes if note.kind == "absent-column"]
        only = str(rows.sites[0]) if len(set(rows.sites)) == 1 else None
        notes = tuple(replace(note, site=note.site or only) for note in (*rows.notes, *typed.notes, *decision_notes))
        sheets.append(SheetRead(where, headers, rows, typed, decisions, notes))
    for key in ("index_time", "treatment", "calendar"):
        wanted = getattr(source, key)
        if wanted is not None and sheets and not any(sheet.headers.find(wanted) for sheet in sheets):
            faults.append(_no_column(Path(source.path).name, wanted, key, sheets[0].headers, source))
    return SourceRead(source, tuple(sheets))


def _no_column(where: str, wanted: str, key: str, headers: Headers, source: TableSource) -> str:
    return f"{where}: there is no column {wanted!r} for `{key}`.{header_hint(headers, wanted, source)}"


def header_hint(headers: Headers, wanted: str, source: TableSource | None) -> str:
    """Return what may help with a header that is not there: the nearest one, or why there is none."""
    near = headers.nearest(wanted)
    if near is not None:
        return f" Did you mean {near!r}?"
    if source is not None and len(headers.names) == 1:
        return f" Only one column was read: is `delimiter` ({source.delimiter!r}) right?"
    unnamed = sum(name.startswith("(column ") for name in headers.names)
    if unnamed * 2 > len(headers.names):
        return " The first row has mostly empty cells: remove title rows above the header."
    return f" The columns are {listed(headers.names, most=12)}."


def _with_point(cell: Any, decimal: str) -> Any:
    number = parse_number(cell.strip(), decimal) if isinstance(cell, str) else None
    return cell if number is None else number
