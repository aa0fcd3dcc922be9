"""Answers that are not given because the patient is no longer at risk: the event of the endpoint has come already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from theracast_data.cohort import NO_LONGER_AT_RISK, Cohort
from theracast_data.decisions.section import LANDMARK
from theracast_models.prediction import Answer


def no_longer_at_risk(cohort: Cohort) -> dict[int, str]:
    """Return the rows that are no longer at risk at their decision, each with a sentence that says so."""
    rows = sorted({row for note in cohort.notes if note.kind == NO_LONGER_AT_RISK for row in note.rows})
    days = cohort.values[LANDMARK].to_numpy(dtype=np.float64) if rows else np.empty(0)
    return {
        row: f"No answer: on day {days[row]:.0f} this patient is no longer at risk, for an event of the endpoint came before."
        for row in rows
    }


def without(answer: Answer, refused: Mapping[int, str]) -> Answer:
    """Return the answers without those that are not given; nothing else is said of them."""
    if not refused:
        return answer
    more = answer.more or [{} for _ in range(len(answer.base))]
    told = [{"abstained": refused[row]} if row in refused else dict(record) for row, record in enumerate(more)]
    return replace(answer, more=told)
