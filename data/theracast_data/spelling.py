"""When two cells, or two headers, are the same in another spelling."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

# Written by programs for an empty cell; a study that lists one of them as a level gets the level.
MACHINE_MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "null", "nat"})
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def parse_number(text: str, decimal: str = ".") -> float | None:
    """Return the number that a text says, or None: no thousands separators, no `<5`, no infinities."""
    if decimal != ".":
        if "." in text:
            return None
        text = text.replace(decimal, ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text or not math.isfinite(number) else number


def is_empty(cell: Any) -> bool:
    """Return whether a raw cell holds nothing at all: None, NaN, NaT, NA or blanks."""
    if isinstance(cell, str):
        return not cell or cell.isspace()
    return (
        cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, (float, np.floating)) and math.isnan(cell))
    )


def cell_text(cell: Any) -> str:
    """Return a cell as it is shown: trimmed, and 1.0 as `1` since spreadsheets turn whole numbers into floats."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, (bool, np.bool_)):
        return "1" if cell else "0"
    if isinstance(cell, (float, np.floating)):
        return str(int(cell)) if float(cell).is_integer() else repr(float(cell))
    return str(cell)


def cell_key(cell: Any) -> str:
    """Return what two cells have in common that mean the same: `1`, 1, 1.0 and True; ` head & neck` and `Head&Neck`."""
    text = cell_text(cell)
    number = parse_number(text)
    if number is not None:
        return str(int(number)) if number.is_integer() else repr(number)
    folded = _one_form(text).casefold()
    return "".join(folded.split()) if any(sign.isalpha() for sign in folded) else " ".join(folded.split())


def declared_keys(cell: Any) -> tuple[str, ...]:
    """Return the keys under which a declared cell is met; YAML reads `yes`, `no`, `on`, `off` as booleans."""
    if isinstance(cell, bool):
        return _TRUE if cell else _FALSE
    return (cell_key(cell),)


class CellTable:
    """Finds what a study declares for a cell: the exact text first, then the common key if it is unambiguous."""

    def __init__(self, meanings: Mapping[Any, Any]) -> None:
        self._exact: dict[str, Any] = {cell_text(cell): meaning for cell, meaning in meanings.items()}
        self._by_key: dict[str, Any] = {}
        ambiguous: set[str] = set()
        for cell, meaning in meanings.items():
            for key in declared_keys(cell):
                if key in self._by_key and self._by_key[key] != meaning:
                    ambiguous.add(key)
                self._by_key[key] = meaning
        for key in ambiguous:
            del self._by_key[key]

    def __contains__(self, cell: Any) -> bool:
        return self.get(cell, self) is not self

    def get(self, cell: Any, default: Any = None) -> Any:
        """Return the meaning of the cell, or the default."""
        if not self._exact:
            return default
        text = cell_text(cell)
        if text in self._exact:
            return self._exact[text]
        return self._by_key.get(cell_key(cell), default)

    @classmethod
    def of(cls, cells: Iterable[Any]) -> CellTable:
        """Return a table in which each cell means itself."""
        return cls({cell: cell_text(cell) for cell in cells})


def header_key(header: Any) -> str:
    """Return a header without case, punctuation and blanks; `%`, `+` and a last `-` stay, for they carry meaning."""
    text = _one_form(str(header)).strip().casefold()
    return "".join(sign for sign in text if sign.isalnum() or sign in "%+") + ("-" if text.endswith("-") else "")


def _one_form(text: str) -> str:
    """Return the text with letters and their accents composed in one way."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def nearest(name: str, known: Iterable[Any]) -> str | None:
    """Return the known name that is spelt most like `name`, if one is near."""
    by_key = {header_key(one): str(one) for one in known}
    found = difflib.get_close_matches(header_key(name), list(by_key), n=1, cutoff=0.6)
    return by_key[found[0]] if found else None


@dataclass(frozen=True)
class FoundHeader:
    """The header under which a column arrived; `other` where it is not spelt as the study or an alias has it."""

    header: str
    other: bool = False


class Headers:
    """The headers of one table, looked up as a study, its aliases, or a near spelling name them."""

    def __init__(self, headers: Iterable[Any], *, claimed: Iterable[str] = ()) -> None:
        self.names: list[str] = [str(header) for header in headers]
        self._exact = set(self.names)
        taken = self._exact & set(claimed)
        self._by_key: dict[str, list[str]] = {}
        for name in self.names:
            if name not in taken:
                self._by_key.setdefault(header_key(name), []).append(name)

    def __contains__(self, header: str) -> bool:
        return header in self._exact

    def find(self, *wanted: str) -> FoundHeader | None:
        """Return the first of these headers that is there; only then one that differs in case or punctuation alone.

        A header that the study names exactly for another column is never taken for this one.
        """
        for header in wanted:
            if header in self._exact:
                return FoundHeader(header)
        for header in wanted:
            near = self._by_key.get(header_key(header), [])
            if len(near) == 1 and header_key(header):
                return FoundHeader(near[0], other=True)
        return None

    def nearest(self, header: str) -> str | None:
        """Return the header spelt most like this one."""
        return nearest(header, self.names)


def listed(names: Sequence[Any], *, most: int = 8) -> str:
    """Return names for a message, the first few of many."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
