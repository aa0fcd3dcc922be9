"""A table of a report as plain words, which the page prints as HTML and the card as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from theracast_training.content import NESTED
from theracast_training.wording import site_label


@dataclass(frozen=True)
class Row:
    """One row: its cells, or a single one that heads those below it; `style` is a class of the page, such as `own`,
    `colour` that of its site in the figures."""

    cells: Sequence[str]
    style: str = ""
    verdict: str = ""
    colour: str = ""

    @classmethod
    def of(cls, site: str, *cells: str, verdict: str = "") -> Row:
        """Return the row of a site; that of nested cross-validation is set apart."""
        return cls((site_label(site), *cells), "own" if site == NESTED else "", verdict)

    @classmethod
    def heading(cls, words: str) -> Row:
        """Return a row that heads those below it."""
        return cls((words,), "head")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, and how it is read.
        head: column headings; those from `numbers` on are numbers, set to the right.
        rows: its rows.
        verdicts: the heading of a last column of words on calibration, None without it.
        style: classes of the page.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    numbers: int = 1
    verdicts: str | None = None
    style: str = "compact"
    notes: Sequence[str] = field(default=())

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.head) + (self.verdicts is not None)


def site_notes(performance: Mapping[str, Mapping[str, object]], *, part: str | None = None) -> list[str]:
    """Return what the records of sites note of themselves, each with the site's name."""
    found = []
    for site, record in performance.items():
        own = record.get(part) if part else record
        notes = own.get("notes") if isinstance(own, Mapping) else None
        found += [f"{site_label(site)}: {note}." for note in notes] if isinstance(notes, Sequence) else []
    return found
