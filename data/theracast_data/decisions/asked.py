"""A question that comes with its own events: what the rules of the decisions say of it, as of the moment it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.decisions.attributes import PAST, attribute_cells
from theracast_data.decisions.section import LANDMARK, AttributeSection, DecisionSection, LandmarkSection
from theracast_data.decisions.selection import Selection
from theracast_data.decisions.trigger import Triggers, find_triggers, meets_rule, observed_before, site_names
from theracast_data.decisions.windows import (
    DAY,
    UNDATED,
    Booleans,
    EventArrays,
    Integers,
    Window,
    event_arrays,
    pairs_in_window,
    subject_positions,
)
from theracast_data.events.concepts import Concept

Cells = npt.NDArray[np.object_]


@dataclass(frozen=True)
class AskedDecisions:
    """What n rows' own events say of the rows as decisions.

    Attributes:
        index_time: (n,) datetime64[us]: as given, else the moment of the latest fact; NaT without either.
        treatment: (n,) of the trigger event at or before the index time, None without one.
        site: (n,) from the events, "" where they do not say it or the study does not ask them.
        cells: (n, ...) attributes as cells, and `landmark` (whole days since the trigger) where landmarks are declared.
        unmet: rule in words to the positions of the rows that do not meet it.
        ended: positions of rows that are no longer at risk: an event of the endpoint lies between start and question.
        late: positions of rows asked a day or more after the last day for which the study asks.
        early: positions of rows whose events hold no trigger and which count as asked on day 0.
    """

    index_time: npt.NDArray[np.datetime64]
    treatment: Cells
    site: Cells
    cells: pd.DataFrame
    unmet: Mapping[str, tuple[int, ...]]
    ended: tuple[int, ...]
    late: tuple[int, ...]
    early: tuple[int, ...]


def ask(
    events: pa.Table, asked: pd.DataFrame, section: DecisionSection, *, concepts: Mapping[str, Concept] | None = None
) -> AskedDecisions:
    """Return what the events of each row say of it, by the rules with which the decisions of a training are made.

    Only what was known at the index time is used. The trigger is the last one at or before it; rules are judged at the
    trigger or, without one, at the index time. Rules that look ahead cannot be judged and are passed over.

    Args:
        events: events of the rows, `subject_id` being the row's key.
        asked: (n, 2) `key` and `index_time` (NaT where the row does not say it).
        section: the decisions of the study.
        concepts: concepts of the study by name.
    """
    selection = Selection(event_arrays(events, same_day=section.same_day), concepts or {})
    arrays = selection.arrays
    subject = subject_positions(arrays, asked["key"].to_numpy())
    index_time = _asked_now(arrays, subject, asked["index_time"].to_numpy().astype("datetime64[us]"))
    unknown = np.isnat(index_time)
    subject = np.where(unknown, -1, subject)
    index = np.where(unknown, np.datetime64(0, "us"), index_time).astype(np.int64)
    triggers = find_triggers(selection, section.trigger)
    decision, trigger = pairs_in_window(subject, index, triggers.subject, triggers.time, PAST)
    last = np.full(len(index), -1, np.int64)
    np.maximum.at(last, decision, trigger)
    begun = last >= 0
    start = index.copy()
    start[begun] = triggers.time[last[begun]]
    treatment = np.full(len(index), None, dtype=object)
    treatment[begun] = triggers.treatment[last[begun]]
    judged = Triggers(subject, start, treatment)
    cells = pd.DataFrame(
        {name: attribute_cells(selection, one, subject, index) for name, one in section.attributes.items()},
        index=pd.RangeIndex(len(index)),
        dtype=object,
    )
    days = (index - start) // DAY
    known = begun & ~unknown
    early: Booleans = np.zeros(len(index), np.bool_)
    if section.landmarks is not None:
        early = ~begun & (subject >= 0) & (0 in section.landmarks.days)
        said = known | early
        cells[LANDMARK] = pd.Series(
            [int(day) if told else None for day, told in zip(days, said, strict=True)], dtype=object
        )
    final = 0 if section.landmarks is None else max(section.landmarks.days)
    return AskedDecisions(
        index_time=index_time,
        treatment=treatment,
        site=_site(selection, section.site, judged),
        cells=cells,
        unmet=_unmet(selection, section, judged),
        ended=() if section.landmarks is None else _rows(known & _ended(selection, section.landmarks, judged, index)),
        late=_rows(known & (days > final)),
        early=_rows(early),
    )


def _asked_now(
    arrays: EventArrays, subject: Integers, index_time: npt.NDArray[np.datetime64]
) -> npt.NDArray[np.datetime64]:
    """Return the index times; of a row that does not say it, the first moment at which all its facts are known."""
    latest = np.full(len(arrays.subjects) + 1, UNDATED)  # one more: rows without events
    np.maximum.at(latest, arrays.subject, arrays.known)
    now = latest[subject].view("datetime64[us]")  # UNDATED is NaT
    return np.where(np.isnat(index_time), now, index_time)


def _site(selection: Selection, site: AttributeSection | str, judged: Triggers) -> Cells:
    if isinstance(site, str):
        return np.full(len(judged.time), "", dtype=object)
    return site_names(selection, site, judged.subject, judged.time, missing="")


def _unmet(selection: Selection, section: DecisionSection, judged: Triggers) -> dict[str, tuple[int, ...]]:
    """Return each rule of the study that can be judged now, with the rows that do not meet it."""
    found: dict[str, Booleans] = {}
    for rule in section.include:
        if not rule.looks_ahead:
            found[rule.name] = ~meets_rule(selection, rule, judged)
    for rule in section.exclude:
        if not rule.looks_ahead:
            found[f"not: {rule.name}"] = meets_rule(selection, rule, judged)
    before = section.observation.before if section.observation is not None else None
    if section.observation is not None and before is not None:
        found[f"observed for {before} before the trigger"] = ~observed_before(
            selection, section.observation, judged, before
        )
    return {rule: _rows(rows) for rule, rows in found.items() if rows.any()}


def _ended(selection: Selection, landmarks: LandmarkSection, judged: Triggers, index: Integers) -> Booleans:
    """Return which rows have an event of the endpoint between trigger and index time."""
    arrays = selection.arrays
    chosen = np.zeros(len(arrays), np.bool_)
    for selector in landmarks.ends:
        chosen |= selection.of(selector)
    at = np.flatnonzero(chosen)
    since = Window(0, None, closed_start=False, closed_end=False)
    decision, event = pairs_in_window(judged.subject, judged.time, arrays.subject[at], arrays.time[at], since)
    seen = arrays.known[at[event]] <= index[decision]
    ended = np.zeros(len(index), np.bool_)
    ended[decision[seen]] = True
    return ended


def _rows(chosen: Booleans) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())
