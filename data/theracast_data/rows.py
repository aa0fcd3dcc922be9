"""The decisions of one raw table: who, where, when, and which rows are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.cells import TypedCells, subject_ids, type_calendar, type_categories, type_times
from theracast_data.cohort import AttritionStep, ReadingNote
from theracast_data.columns import include_rows, include_text, rows_text
from theracast_data.sources import TableSource
from theracast_data.spelling import Headers, listed

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class TableRows:
    """The rows of one raw table that are decisions.

    Attributes:
        frame: (n, ...) raw cells of the rows kept.
        subjects: (n,) patient ids; None where there is none (when scoring only).
        sites: (n,) site of each row.
        attrition: rows left out.
        notes: what was met; rows are positions among the rows kept.
    """

    frame: pd.DataFrame
    subjects: Texts
    sites: Texts
    attrition: tuple[AttritionStep, ...]
    notes: tuple[ReadingNote, ...]


def keep_decisions(
    frame: pd.DataFrame, source: TableSource, headers: Headers, *, subject: str, default_site: str
) -> TableRows:
    """Return the rows that have a patient id and meet the source's `include`; the others are counted.

    Args:
        subject: header of the patient id.
        default_site: site of rows for which the source's `site` names no column.
    """
    sites = site_of_rows(frame, source, headers, default=default_site)
    subjects = subject_ids(frame[subject], missing=source.missing)
    keep = np.array([one is not None for one in subjects], dtype=bool)
    attrition = attrition_steps(sites, np.ones(len(frame), dtype=bool), keep, f"no patient id in {subject!r}")
    notes: list[ReadingNote] = []
    for raw, allowed in source.include.items():
        found = headers.find(raw)
        if found is None:
            message = f"`include` names the column {raw!r}, which is not there.{_near(headers, raw)}"
            notes.append(ReadingNote("absent-column", raw, None, (), message))
            continue
        left = keep & include_rows(frame[found.header], allowed)
        attrition += attrition_steps(sites, keep, left, f"{raw} is not {include_text(allowed)}")
        keep = left
    if not keep.all():
        frame, subjects, sites = frame.iloc[np.flatnonzero(keep)], subjects[keep], sites[keep]
    notes += _without_site(sites, source, frame.index) + _duplicates(frame, subjects, sites, source, headers)
    return TableRows(frame, subjects, sites, tuple(attrition), tuple(notes))


def site_of_rows(frame: pd.DataFrame, source: TableSource, headers: Headers, *, default: str) -> Texts:
    """Return the site of each row: the source's site column where it names one that is there, else the default."""
    found = headers.find(source.site) if source.site is not None and source.site != "$sheet" else None
    if found is None:
        return np.full(len(frame), default, dtype=object)
    typed = type_categories(frame[found.header], missing=source.missing)
    return np.array([one if isinstance(one, str) else "" for one in typed.values], dtype=object)


def decision_columns(
    frame: pd.DataFrame, source: TableSource, headers: Headers
) -> tuple[dict[str, npt.NDArray[Any]], list[ReadingNote]]:
    """Return index time, treatment and calendar year of each row, and notes on cells that are none."""
    length = len(frame)
    columns: dict[str, npt.NDArray[Any]] = {
        "index_time": np.full(length, np.datetime64("NaT"), dtype="datetime64[us]"),
        "treatment": np.full(length, np.nan, dtype=object),
        "calendar": np.full(length, np.nan),
    }
    notes: list[ReadingNote] = []
    wanted = {"index_time": source.index_time, "treatment": source.treatment, "calendar": source.calendar}
    for name, raw in wanted.items():
        found = headers.find(raw) if raw is not None else None
        if found is None:
            continue
        cells = frame[found.header]
        typed = {"index_time": type_times, "calendar": type_calendar, "treatment": type_categories}[name](
            cells, missing=source.missing
        )
        columns[name] = typed.values
        notes += _unreadable(typed, name, found.header, frame.index)
    if source.asked_at is not None:
        without = np.isnat(columns["index_time"])
        columns["index_time"] = np.where(without, np.datetime64(source.asked_at, "us"), columns["index_time"])
    if source.calendar is None and source.index_time is not None:
        times = pd.Series(columns["index_time"])
        columns["calendar"] = type_calendar(times).values
    return columns, notes


def _unreadable(typed: TypedCells, name: str, header: str, index: pd.Index) -> list[ReadingNote]:
    if not typed.unreadable:
        return []
    what = "years (such as 2018) or dates" if name == "calendar" else "dates"
    message = (
        f"column {header!r}: {len(typed.unreadable)} of {len(typed.values)} cells are not {what}, "
        f"{rows_text(typed.unreadable, index)}. Write dates as YYYY-MM-DD, or list missing codes under `missing`."
    )
    return [ReadingNote("unreadable-value", name, None, typed.unreadable, message)]


def attrition_steps(
    sites: Texts, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], reason: str
) -> list[AttritionStep]:
    """Return a step for each site that lost rows."""
    return [
        AttritionStep(
            str(site), reason, int((before & ~after & (sites == site)).sum()), int((after & (sites == site)).sum())
        )
        for site in dict.fromkeys(sites[before & ~after])
    ]


def _without_site(sites: Texts, source: TableSource, index: pd.Index) -> list[ReadingNote]:
    rows = tuple(np.flatnonzero(sites == "").tolist())
    if source.site is None or source.site == "$sheet" or not rows:
        return []
    message = (
        f"column {source.site!r}: {len(rows)} rows name no site, {rows_text(rows, index)}. "
        "Complete them in the source, or leave them out with `include`."
    )
    return [ReadingNote("unreadable-value", "site", None, rows, message)]


def _duplicates(
    frame: pd.DataFrame, subjects: Texts, sites: Texts, source: TableSource, headers: Headers
) -> list[ReadingNote]:
    """Return a note if a patient stands in several rows; with an index time, in several rows of the same time."""
    keys = pd.DataFrame({"site": sites, "subject": subjects})
    found = headers.find(source.index_time) if source.index_time is not None else None
    if found is not None:
        keys["time"] = type_times(frame[found.header], missing=source.missing).values
    rows = np.flatnonzero(keys.duplicated(keep=False).to_numpy())
    if not len(rows):
        return []
    names: Sequence[str] = list(dict.fromkeys(subjects[rows]))
    message = (
        f"{len(names)} patients stand in more than one row (ids {listed(names, most=5)}; "
        f"{rows_text(rows, frame.index)}). Keep one row a decision: remove the others, "
        "choose with `include`, or name the date column as `index_time`."
    )
    return [ReadingNote("duplicate-subject", source.subject, None, tuple(rows.tolist()), message)]


def _near(headers: Headers, raw: str) -> str:
    near = headers.nearest(raw)
    return f" Did you mean {near!r}?" if near else ""
