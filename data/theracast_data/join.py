"""Further sources beside the first: one row a patient, joined to the decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from theracast_data.cohort import ReadingNote
from theracast_data.sources import TableSource
from theracast_data.spelling import listed


class StackedSource(Protocol):
    """A source whose sheets were read and stand one below the other."""

    @property
    def source(self) -> TableSource: ...
    @property
    def sites(self) -> npt.NDArray[np.object_]: ...
    @property
    def subjects(self) -> npt.NDArray[np.object_]: ...
    @property
    def notes(self) -> list[ReadingNote]: ...
    def stacked(self, column: str) -> npt.NDArray[Any]: ...
    def raw(self, header: str) -> list[Any] | None: ...


class Asked(Protocol):
    """Decisions to which a source is joined."""

    @property
    def sites(self) -> npt.NDArray[np.object_]: ...
    @property
    def subjects(self) -> npt.NDArray[np.object_]: ...


@dataclass(frozen=True)
class Joined:
    """A further source in the order of the decisions.

    Attributes:
        other: the source as it was read.
        places: (n,) row of `other` that belongs to each decision, -1 where there is none.
        values: name inside Theracast to (n,) values, NaN where there is no row.
        notes: notes of the source, rows being positions of decisions.
    """

    other: StackedSource
    places: npt.NDArray[np.intp]
    values: dict[str, npt.NDArray[Any]]
    notes: tuple[ReadingNote, ...]

    @property
    def source(self) -> TableSource:
        """The source's section of the study."""
        return self.other.source

    def raw(self, header: str) -> list[Any] | None:
        """Return the raw cells of a column for each decision; None if the source does not have it."""
        cells = self.other.raw(header)
        return None if cells is None else [None if place < 0 else cells[place] for place in self.places.tolist()]


def join_source(first: Asked, other: StackedSource, faults: list[str], *, among: str = "in the first source") -> Joined:
    """Return `other` in the order of the decisions of `first`: by patient, and by site where `other` names sites.

    Patients in several rows of `other`, and patients of several sites that `other` cannot tell apart, go to `faults`.
    """
    name = other.source.name or other.source.path
    by_site = other.source.site is not None
    keys: Sequence[Any] = list(zip(other.sites, other.subjects, strict=True)) if by_site else list(other.subjects)
    wanted: Sequence[Any] = list(zip(first.sites, first.subjects, strict=True)) if by_site else list(first.subjects)
    place_of = {key: place for place, key in enumerate(keys)}
    if len(place_of) < len(keys):
        repeated = sorted({str(subject) for subject in _repeated(keys, other.subjects)})
        faults.append(
            f"{name}: {len(repeated)} patients stand in more than one row (ids {listed(repeated, most=5)}), so the "
            "rows cannot be joined to the decisions. Keep one row a patient, or choose with `include`."
        )
    if not by_site:
        sites_of: dict[str, set[str]] = {}
        for subject, site in zip(first.subjects, first.sites, strict=True):
            sites_of.setdefault(subject, set()).add(site)
        shared = [subject for subject, sites in sites_of.items() if len(sites) > 1 and subject in place_of]
        if shared:
            faults.append(
                f"{name}: {len(shared)} patient ids are used at several sites (first {shared[0]}), and this source "
                "does not say which is meant. Give it a `site`."
            )
    places = np.array([place_of.get(key, -1) for key in wanted], dtype=np.intp)
    known = set(wanted)
    unmatched = sorted({str(subject) for key, subject in zip(keys, other.subjects, strict=True) if key not in known})
    notes = _moved(other.notes, places)
    if unmatched:
        message = (
            f"{name}: {len(unmatched)} patients are not {among} and were left out (ids {listed(unmatched, most=5)})."
        )
        notes.append(ReadingNote("unmatched-subject", other.source.subject, None, (), message))
    values = {column: _taken(other.stacked(column), places) for column in other.source.meanings}
    return Joined(other, places, values, tuple(notes))


def _repeated(keys: Sequence[Any], subjects: npt.NDArray[np.object_]) -> list[str]:
    seen: set[Any] = set()
    repeated = []
    for key, subject in zip(keys, subjects, strict=True):
        if key in seen:
            repeated.append(subject)
        seen.add(key)
    return repeated


def _taken(column: npt.NDArray[Any], places: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    taken = np.full(len(places), np.nan, dtype=column.dtype)
    there = places >= 0
    taken[there] = column[places[there]]
    return taken


def _moved(notes: Sequence[ReadingNote], places: npt.NDArray[np.intp]) -> list[ReadingNote]:
    """Return notes with the decisions in place of the source's rows; notes on rows of nobody fall away."""
    moved = []
    for note in notes:
        rows = tuple(np.flatnonzero(np.isin(places, note.rows)).tolist()) if note.rows else ()
        if rows or not note.rows:
            moved.append(replace(note, rows=rows))
    return moved
