"""The start of a treatment as of a decision, told by the events of a concept: its first dose, or that of its last course."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
from pydantic import Field

from theracast_data.events.concepts import Concept
from theracast_data.section import Section
from theracast_features.events.builder import concept_values
from theracast_features.events.visible import by_decision, dated, visible_events


class TreatmentStart(Section):
    """When a treatment began: the first event of a concept, or of its last course."""

    concept: str = Field(description="Name of a concept of the study whose events are doses of the treatment.")
    pause_days: float | None = Field(
        None,
        gt=0,
        description="A pause of more days (d) than this ends a course, and the last course counts. Without it all doses "
        "are one course.",
    )


def course_doses(
    events: pa.Table, decisions: pd.DataFrame, start: TreatmentStart, concepts: Mapping[str, Concept]
) -> pd.DataFrame:
    """Return the visible doses of the last course of each decision, as `visible_events` gives them, oldest first."""
    doses = dated(visible_events(concept_values(events, start.concept, concepts), decisions))
    if start.pause_days is None or doses.empty:
        return doses
    paused = doses.groupby("decision")["time"].diff() > pd.Timedelta(days=start.pause_days)
    course = paused.groupby(doses["decision"]).cumsum()
    return doses[course == course.groupby(doses["decision"]).transform("max")]


def with_start(
    events: pa.Table, decisions: pd.DataFrame, start: TreatmentStart | None, concepts: Mapping[str, Concept]
) -> pd.DataFrame:
    """Return the decisions with the column `start`: the first dose of the last course, missing where none is visible."""
    if start is None:
        return decisions.assign(start=pd.Series(pd.NaT, index=decisions.index, dtype="datetime64[us]"))
    first = course_doses(events, decisions, start, concepts).groupby("decision")["time"].min()
    return decisions.assign(start=by_decision(first.to_frame(), decisions)["time"])


def start_step(start: TreatmentStart | None, concepts: Mapping[str, Concept]) -> str:
    """Return what the baseline is, as a sentence of a lineage."""
    if start is None:
        return "baseline: the first value"
    course = "" if start.pause_days is None else f" after the last pause of more than {start.pause_days:g} d"
    codes = ", ".join(concepts[start.concept].codes)
    return f"baseline: the last value at or before the first {start.concept} ({codes}){course}"
