"""Faults of the files of a series, gathered and told together: what, in how many files, which, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from theracast_data.errors import ImageError

NAMED = 3


class Faults:
    """Faults found so far in the files of one place."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._found: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, what: str, remedy: str, where: Sequence[str] | str = ()) -> None:
        """Note a fault of files; the same fault of other files joins it."""
        files = self._found.setdefault((what, remedy), [])
        files += [where] if isinstance(where, str) else list(where)

    def lines(self) -> list[str]:
        """Return one line a fault."""
        return [f"{what}{_named(files)}. {remedy}" for (what, remedy), files in self._found.items()]

    def stop(self) -> None:
        """Raise what was found, if anything.

        Raises:
            ImageError: with all faults.
        """
        if not self._found:
            return
        lines = self.lines()
        if len(lines) == 1:
            raise ImageError(f"{self.place}: {lines[0]}")
        raise ImageError(f"{self.place}: {len(lines)} faults.\n" + "\n".join(f"  {line}" for line in lines))


def _named(files: list[str]) -> str:
    if not files:
        return ""
    shown = ", ".join(files[:NAMED])
    return f" ({shown})" if len(files) <= NAMED else f" ({len(files)} files: {shown}, ...)"
