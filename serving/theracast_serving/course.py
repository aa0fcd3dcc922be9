"""The course of one patient: what the model would have answered at each earlier decision, and how the measurements moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.decisions.section import LANDMARK
from theracast_data.table import cohort_from_frame
from theracast_features.build import event_builders
from theracast_features.events.builder import asked_decisions, shards_of
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
    begun = pd.Timestamp(asked) - pd.Timedelta(days=now)
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


def _series(
    model: ResponseModel, cohort: Any, prediction: Prediction, row: int, *, begun: pd.Timestamp
) -> list[Measured]:
    """Return the event measurements that weigh most, as far as they moved."""
    if not model.section.reads_events:
        return []
    weight: dict[tuple[int, str], float] = {}
    builders = event_builders(model.section, cohort.events)
    chosen: dict[tuple[int, str], FeatureSpec] = {}
    phi = prediction.contributions.iloc[row].abs()
    for place, builder in enumerate(builders):
        for spec in builder.catalogue:
            if ".last." in spec.name and spec.kind == "numeric":
                key = (place, spec.columns[0])
                chosen.setdefault(key, spec)
            for key in [(place, column) for column in spec.columns[:1]]:
                weight[key] = weight.get(key, 0.0) + float(phi.get(spec.name, 0.0))
    found = []
    asked = asked_decisions(cohort)
    for key in sorted(chosen, key=lambda one: -weight.get(one, 0.0)):
        spec = chosen[key]
        rows = pd.concat([builders[key[0]].rows(spec.name, shard, asked) for shard in shards_of(cohort)])
        told = rows.dropna(subset=["value"]).sort_values("time", kind="stable")
        if told["time"].nunique() > 1:
            days = (told["time"] - begun) / pd.Timedelta(days=1)
            label = spec.label.removesuffix(", last")
            found.append(
                Measured(label, spec.unit, tuple(zip(map(float, days), map(float, told["value"]), strict=True)))
            )
        if len(found) == SERIES:
            break
    return found
