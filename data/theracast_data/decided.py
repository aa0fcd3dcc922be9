"""The decisions of a study whose events say who is asked about and when, read from a store shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.cells import type_calendar
from theracast_data.cohort import NO_LONGER_AT_RISK, AttritionStep, Cohort, ReadingNote
from theracast_data.decisions.asked import AskedDecisions, ask
from theracast_data.decisions.attributes import type_attributes, with_words_for_missing
from theracast_data.decisions.attrition import merge_attrition
from theracast_data.decisions.endpoints import derive_event_endpoints
from theracast_data.decisions.section import LANDMARK, DecisionSection, EventEndpoints
from theracast_data.decisions.trigger import derive_decisions
from theracast_data.decisions.windows import SameDay, with_known_times
from theracast_data.endpoints import Endpoint, event_endpoints
from theracast_data.errors import CohortError
from theracast_data.events.access import EVENTS_COLUMN, KEY, CohortEvents, EventShards
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import empty_events
from theracast_data.sources import Inputs
from theracast_data.spelling import listed


@dataclass(frozen=True)
class DecidedRows:
    """n decisions that follow from events, by patient and index time.

    Attributes:
        decisions: as in `Cohort`, with the `event_key`.
        values: attributes and landmark by name, as in `Cohort.values`.
        endpoints: (n, ...) those endpoints of the study that come from events.
        attrition: patients without the trigger, then rule by rule.
        notes: what was met.
    """

    decisions: pd.DataFrame
    values: Mapping[str, npt.NDArray[Any]]
    endpoints: pd.DataFrame
    attrition: tuple[AttritionStep, ...]
    notes: tuple[ReadingNote, ...]

    @property
    def subjects(self) -> npt.NDArray[np.object_]:
        """Patient of each decision."""
        return self.decisions["subject_id"].to_numpy(dtype=object)

    @property
    def sites(self) -> npt.NDArray[np.object_]:
        """Site of each decision."""
        return self.decisions["site"].to_numpy(dtype=object)


def decided_rows(
    inputs: Inputs,
    endpoints: Sequence[Endpoint],
    events: CohortEvents,
    *,
    store: Path | str,
    as_of: datetime | None = None,
) -> DecidedRows:
    """Return the decisions of all shards with their attributes and endpoints; one shard is in memory at a time.

    The order does not depend on how the patients lie in the shards.

    Args:
        inputs: with `decisions` and `events`.
        endpoints: of the study; those from tables are passed over.
        events: the events of the store.
        store: where they lie, for messages.
        as_of: a moment at which the patients are known to be followed, whatever their last event.

    Raises:
        CohortError: no decision is left.
        StudyError: a concept is not declared, or a treatment that an endpoint needs.
        SchemaError: the events are not what the event schema says.
    """
    section = inputs.decisions
    assert section is not None
    frames, outcomes, attrition = [], [], []
    told: Counter[str] = Counter()
    for shard in events.shards():
        found = derive_decisions(shard, section, concepts=events.concepts, as_of=as_of)
        frames.append(found.frame)
        outcomes.append(_outcomes(shard, found.frame, endpoints, events.concepts))
        attrition.append(found.attrition)
        told.update(found.notes)
    steps = merge_attrition(attrition)
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if not len(frame):
        reasons = listed([f"{step.reason}: {step.left} left" for step in steps if step.dropped])
        raise CohortError(
            f"{Path(store).name}: no decision is left ({reasons or 'the store holds no event'}). Check the codes of the "
            "trigger, and the rules of `decisions`."
        )
    order = np.lexsort((frame["index_time"].to_numpy(), frame["subject_id"].to_numpy(dtype=object).astype(str)))
    frame = frame.iloc[order].reset_index(drop=True)
    typed = type_attributes(frame, section.attributes, inputs.meanings)
    values = with_words_for_missing(typed.values, section.attributes)
    if section.landmarks is not None:
        values[LANDMARK] = frame[LANDMARK].to_numpy(dtype=np.float64)
    decisions = frame[["subject_id", "site", "index_time", "treatment"]].assign(
        calendar=type_calendar(frame["index_time"]).values, **{KEY: frame["subject_id"]}
    )
    notes = tuple(
        ReadingNote("not-compared", EVENTS_COLUMN, None, (), f"{words} ({count} events).")
        for words, count in sorted(told.items())
    )
    return DecidedRows(
        decisions=decisions,
        values=values,
        endpoints=pd.concat(outcomes, ignore_index=True).iloc[order].reset_index(drop=True),
        attrition=steps,
        notes=(*typed.notes, *notes),
    )


def with_asked_events(cohort: Cohort, events: pa.Table, inputs: Inputs) -> Cohort:
    """Return rows to be scored with what their own events say: index time, treatment, site, attributes, notes.

    A cell of the row itself that says something is kept. `events` has the `event_key` of the decisions as `subject_id`.
    """
    section, concepts = inputs.decisions, inputs.events.concepts if inputs.events is not None else {}
    assert section is not None
    decisions = cohort.decisions
    asked = pd.DataFrame({"key": decisions[KEY], "index_time": decisions["index_time"]})
    found = ask(events, asked, section, concepts=concepts)
    typed = type_attributes(found.cells, section.attributes, inputs.meanings)
    derived = dict(typed.values)
    if section.landmarks is not None:
        derived[LANDMARK] = found.cells[LANDMARK].to_numpy(dtype=np.float64, na_value=np.nan)
    own = {name: cohort.values[name].to_numpy(dtype=column.dtype) for name, column in derived.items()}
    filled = {name: np.where(pd.isna(own[name]), column, own[name]) for name, column in derived.items()}
    filled = with_words_for_missing(filled, section.attributes)
    values = cohort.values.assign(
        **{name: pd.array(cells, dtype="str") if cells.dtype == object else cells for name, cells in filled.items()}
    )
    site = decisions["site"].to_numpy(dtype=object)
    treatment = decisions["treatment"].to_numpy(dtype=object)
    index_time = pd.Series(found.index_time)
    decisions = decisions.assign(
        site=pd.array(np.where(site == "", found.site, site), dtype="str"),
        treatment=pd.array(np.where(pd.isna(treatment), found.treatment, treatment), dtype="str"),
        index_time=found.index_time,
        calendar=type_calendar(index_time).values,
    )
    from_events = {name: pd.isna(column) for name, column in own.items()}
    notes = [_within(note, from_events[note.column]) for note in typed.notes]
    return replace(
        cohort,
        decisions=decisions,
        values=values,
        notes=(*cohort.notes, *(note for note in notes if note.rows), *_notes_of(found, section, values)),
    )


def _within(note: ReadingNote, rows: npt.NDArray[np.bool_]) -> ReadingNote:
    return replace(note, rows=tuple(row for row in note.rows if rows[row]))


def _notes_of(found: AskedDecisions, section: DecisionSection, values: pd.DataFrame) -> list[ReadingNote]:
    """Return what should be said of rows that the study would not have asked about, or not then."""
    notes = [
        ReadingNote(
            "outside-inclusion", EVENTS_COLUMN, None, rows, f"rows would not have been part of the study: {rule}."
        )
        for rule, rows in found.unmet.items()
    ]
    if found.ended:
        message = "An event of the endpoint came before: no longer at risk at this decision."
        notes.append(ReadingNote(NO_LONGER_AT_RISK, EVENTS_COLUMN, None, found.ended, message))
    if found.late:
        message = (
            "Asked a day or more after the last moment for which the model was made: the start of the treatment."
            if section.landmarks is None
            else "Asked a day or more after the last day for which the model was made: "
            f"day {max(section.landmarks.days)}."
        )
        notes.append(ReadingNote("asked-late", EVENTS_COLUMN, None, found.late, message))
    early = tuple(row for row in found.early if values[LANDMARK].iloc[row] == 0)
    if early:
        message = "No start of the treatment is among the events; taken as asked before it."
        notes.append(ReadingNote("asked-before-trigger", EVENTS_COLUMN, None, early, message))
    return notes


def seen_as_decided(events: CohortEvents, section: DecisionSection) -> CohortEvents:
    """Return the events as features may see them: what carries a date alone is known when `same_day` says so."""
    return replace(events, source=_KnownShards(events.source, section.same_day))


@dataclass(frozen=True)
class _KnownShards:
    """Shards whose events are known when `same_day` says so."""

    source: EventShards
    same_day: SameDay

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return self.source.shard_count

    def shards_of(self, subjects: Sequence[str], /) -> npt.NDArray[np.int64]:
        """Return the shard of each patient."""
        return self.source.shards_of(subjects)

    def read_shard(self, shard: int, /) -> pa.Table:
        """Return the events of a shard with the times at which they are known."""
        return with_known_times(self.source.read_shard(shard), self.same_day)

    def shard_hash(self, shard: int, /) -> str:
        """Return what changes with the events of the shard or the rule."""
        return f"{self.source.shard_hash(shard)} {self.same_day}"


def outcomes_of_events(cohort: Cohort, endpoints: Sequence[Endpoint]) -> pd.DataFrame:
    """Return those endpoints that come from events, for decisions that have an `event_key`, (n, ...).

    A decision without index time or without events has none.
    """
    assert cohort.events is not None
    decisions = cohort.decisions
    columns = list(_outcomes(empty_events(), decisions.iloc[:0], endpoints, cohort.events.concepts))
    frame = pd.DataFrame(np.nan, index=pd.RangeIndex(len(cohort)), columns=columns)
    dated = decisions["index_time"].notna().to_numpy()
    for shard in cohort.events.shards():
        present = decisions[KEY].isin(pc.unique(shard["subject_id"]).to_pylist()).to_numpy()
        rows = np.flatnonzero(dated & present)
        if len(rows):
            keyed = decisions.iloc[rows].assign(subject_id=decisions[KEY].iloc[rows]).reset_index(drop=True)
            frame.iloc[rows] = _outcomes(shard, keyed, endpoints, cohort.events.concepts).to_numpy()
    return frame


def _outcomes(
    events: pa.Table, decisions: pd.DataFrame, endpoints: Sequence[Endpoint], concepts: Mapping[str, Concept]
) -> pd.DataFrame:
    wanted = event_endpoints(endpoints)
    if not wanted:
        return pd.DataFrame(index=pd.RangeIndex(len(decisions)))
    return derive_event_endpoints(events, decisions, EventEndpoints(endpoints=tuple(wanted)), concepts=concepts)
