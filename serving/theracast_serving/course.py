"""The course of one patient: what the model would have answered at each earlier decision, and how the measurements moved."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.decisions.section import LANDMARK, DecisionSection
from theracast_data.decisions.selection import Selection
from theracast_data.decisions.trigger import find_triggers
from theracast_data.decisions.windows import event_arrays
from theracast_data.table import cohort_from_frame
from theracast_features.build import event_builders
from theracast_features.events.builder import asked_decisions, shards_of
from theracast_features.events.section import window_microseconds
from theracast_features.specs import FeatureSpec
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel

SERIES = 2
"""Measurements that are drawn: those that weigh most in the answer."""


@dataclass(frozen=True)
class Answer:
    """The answer at one decision: days since the treatment began, probability with its interval."""

    day: float
    probability: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """One measurement over time: its label, unit, and (day, value) of each that the decision may see, oldest first."""

    label: str
    unit: str | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Course:
    """Answers at the decisions so far, the present one last, and the measurements that weigh most now."""

    answers: tuple[Answer, ...]
    series: tuple[Measured, ...]
    changes: tuple[Any, ...] = ()


def course_of(
    model: ResponseModel, raw: pd.DataFrame, prediction: Prediction, row: int, *, site: str | None = None
) -> Course | None:
    """Return the course of one patient; None where the model asks once, or this is the first decision.

    Each earlier answer is the model's own, asked as of that day with the same raw row: it sees what was known then.

    Args:
        raw: the raw rows that were scored.
        prediction: their answers.
        row: position of the patient in both.
        site: as it was given for scoring.
    """
    section = model.inputs.decisions
    if section is None or section.landmarks is None:
        return None
    cohort = cohort_from_frame(raw.iloc[[row]], model.inputs, site=site)
    asked, now = cohort.decisions["index_time"].iloc[0], float(cohort.values[LANDMARK].iloc[0])
    earlier = [day for day in section.landmarks.days if day < now]
    if pd.isna(asked) or np.isnan(now) or not earlier:
        return None
    begun = _begun(cohort, section, asked=pd.Timestamp(asked), days=now)
    keys = model.inputs.tables[0]
    record: dict[str, Any] = {str(name): cell for name, cell in raw.iloc[row].items()}
    then = pd.DataFrame(
        [
            record | {str(keys.index_time): (begun + pd.Timedelta(days=day)).isoformat(), LANDMARK: day}
            for day in earlier
        ]
    )
    past = model.predict(then, site=site)
    days = [*map(float, earlier), now]
    parts = [np.append(getattr(past, name), getattr(prediction, name)[row]) for name in ("probability", "low", "high")]
    answers = [Answer(day, *map(float, figures)) for day, *figures in zip(days, *parts, strict=True)]
    return Course(tuple(answers), tuple(_series(model, cohort, prediction, row, begun=begun)))


def _begun(cohort: Cohort, section: DecisionSection, *, asked: pd.Timestamp, days: float) -> pd.Timestamp:
    """Return the moment of the trigger, from which the days of decisions count; whole days back where the row alone says it."""
    back = asked - pd.Timedelta(days=days)
    concepts = cohort.events.concepts if cohort.events is not None else {}
    for shard in shards_of(cohort) if cohort.events is not None else ():
        triggers = find_triggers(Selection(event_arrays(shard, same_day=section.same_day), concepts), section.trigger)
        for moment in sorted(triggers.time.astype("datetime64[us]"), reverse=True):
            if back - pd.Timedelta(days=1) < pd.Timestamp(moment) <= back:
                return pd.Timestamp(moment)
    return back


def _series(
    model: ResponseModel, cohort: Cohort, prediction: Prediction, row: int, *, begun: pd.Timestamp
) -> list[Measured]:
    """Return the event measurements that weigh most, as far as they moved."""
    if not model.section.reads_events or cohort.events is None:
        return []
    weight: defaultdict[tuple[int, str], float] = defaultdict(float)
    chosen: dict[tuple[int, str], FeatureSpec] = {}
    builders = event_builders(model.section, cohort.events)
    phi = prediction.contributions.iloc[row].abs()
    for place, builder in enumerate(builders):
        for spec in builder.catalogue:
            key = (place, spec.columns[0])
            weight[key] += float(phi[spec.name])
            if spec.kind == "numeric" and spec.name.rsplit(".", 2)[1] == "last":
                chosen[key] = max(chosen.get(key, spec), spec, key=_window)
    found: list[Measured] = []
    asked = asked_decisions(cohort)
    for key in sorted(chosen, key=lambda one: -weight[one]):
        spec = chosen[key]
        rows = pd.concat([builders[key[0]].rows(spec.name, shard, asked) for shard in shards_of(cohort)])
        told = rows.dropna(subset=["value"]).sort_values("time", kind="stable")
        if told["time"].nunique() > 1:
            days = (told["time"] - begun) / pd.Timedelta(days=1)
            points = tuple(zip(map(float, days), map(float, told["value"]), strict=True))
            found.append(Measured(spec.label.rpartition(", last")[0], spec.unit, points))
        if len(found) == SERIES:
            break
    return found


def _window(spec: FeatureSpec) -> float:
    """Return the length of a feature's window in microseconds."""
    length = window_microseconds(spec.name.rsplit(".", 1)[1])
    return math.inf if length is None else length
