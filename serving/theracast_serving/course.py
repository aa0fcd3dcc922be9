"""The course of one patient: what the model would have answered at each earlier decision, and how the measurements moved."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.decisions.section import LANDMARK, DecisionSection
from theracast_data.decisions.selection import Selection
from theracast_data.decisions.trigger import find_triggers
from theracast_data.decisions.windows import event_arrays, subject_positions
from theracast_data.events.access import KEY
from theracast_data.table import cohort_from_frame
from theracast_features.build import event_builders
from theracast_features.events.builder import asked_decisions, shards_of
from theracast_features.events.section import window_microseconds
from theracast_features.specs import FeatureSpec
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving.answer_text import Told
from theracast_serving.change import Change, change_between

US_PER_DAY = 86_400_000_000
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
    """Answers at the decisions so far, the present one last, the measurements that weigh most now, and what changed.

    Attributes:
        answers: oldest first; without those that were not given.
        series: measurements.
        changes: since the last decision and, where that was another one, since the first.
    """

    answers: tuple[Answer, ...]
    series: tuple[Measured, ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Earlier:
    """What the model answers for n rows as of their earlier decisions.

    Attributes:
        day: (n,) days since the treatment began, NaN where that is not known.
        begun: (n,) when it began, NaT where that is not known.
        days: of each row, the days of its earlier decisions that were asked again.
        places: of each row, their positions in `past`.
        past: the answers; None where no row has an earlier decision.
    """

    day: NDArray[np.float64]
    begun: NDArray[np.datetime64]
    days: list[list[float]]
    places: list[list[int]]
    past: Prediction | None


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
    own = raw.iloc[[row]]
    cohort = _asked_again(model, own, site)
    earlier = None if cohort is None else _earlier(model, own, cohort, site=site, ends_only=False)
    if cohort is None or earlier is None or earlier.past is None:
        return None
    answers = [
        Answer(day, *(float(part[place, 0]) for part in (asked.estimates, asked.low, asked.high)))
        for asked in [earlier.past.answer]
        for day, place in zip(earlier.days[0], earlier.places[0], strict=True)
        if asked.abstains(place) is None
    ]
    now = [float(part[row]) for part in (prediction.probability, prediction.low, prediction.high)]
    return Course(
        (*answers, Answer(float(earlier.day[0]), *now)),
        tuple(_series(model, cohort, prediction, row, begun=pd.Timestamp(earlier.begun[0]))),
        tuple(_changes(model, earlier, 0, prediction, row, number=0)),
    )


def with_changes(
    model: ResponseModel, raw: pd.DataFrame, prediction: Prediction, *, site: str | None = None
) -> list[dict[str, Any]]:
    """Return the records of all answers, each with `change` where the patient had earlier decisions.

    `change` holds what changed `since_last_decision` and, where that was not the first one, `since_start`, for each endpoint.
    """
    rows = prediction.rows()
    cohort = _asked_again(model, raw, site)
    earlier = None if cohort is None else _earlier(model, raw, cohort, site=site, ends_only=True)
    if earlier is None or earlier.past is None:
        return rows
    for row, record in enumerate(rows):
        for number, answer in enumerate(prediction.answers):
            found = [change.to_json() for change in _changes(model, earlier, row, prediction, row, number=number)]
            if found:
                told = record if number == 0 else record["endpoints"][answer.endpoint]
                told["change"] = dict(zip(("since_last_decision", "since_start"), found, strict=False))
    return rows


def _asked_again(model: ResponseModel, raw: pd.DataFrame, site: str | None) -> Cohort | None:
    """Return the rows as decisions, None where the model asks once."""
    section = model.inputs.decisions
    if section is None or section.landmarks is None:
        return None
    return cohort_from_frame(raw, model.inputs, site=site)


def _earlier(
    model: ResponseModel, raw: pd.DataFrame, cohort: Cohort, *, site: str | None, ends_only: bool
) -> Earlier | None:
    """Return the answers as of earlier decisions, of all of them or of the first and the last."""
    section = model.inputs.decisions
    assert section is not None
    assert section.landmarks is not None
    day = cohort.values[LANDMARK].to_numpy(dtype=np.float64)
    asked = cohort.decisions["index_time"].to_numpy().astype("datetime64[us]")
    begun = _begun(cohort, section, asked=asked, days=day)
    keys = model.inputs.tables[0]
    days: list[list[float]] = []
    places: list[list[int]] = []
    records: list[dict[str, Any]] = []
    for row, (today, start) in enumerate(zip(day, begun, strict=True)):
        known = not (np.isnan(today) or np.isnat(start))
        own = [float(one) for one in section.landmarks.days if known and one < today]
        own = own[:1] + own[1:][-1:] if ends_only else own
        days.append(own)
        places.append(list(range(len(records), len(records) + len(own))))
        cells: dict[str, Any] = {str(name): cell for name, cell in raw.iloc[row].items()}
        moments = [(pd.Timestamp(start) + pd.Timedelta(days=one)).isoformat() for one in own]
        records += [
            cells | {str(keys.index_time): moment, LANDMARK: int(one)} for one, moment in zip(own, moments, strict=True)
        ]
    past = model.predict(pd.DataFrame(records), site=site) if records else None
    return Earlier(day, begun, days, places, past)


def _changes(
    model: ResponseModel, earlier: Earlier, asked: int, prediction: Prediction, row: int, *, number: int
) -> list[Change]:
    """Return what changed for one endpoint since the last decision and, where that is another one, since the first.

    Args:
        asked: position of the patient in `earlier`, `row` that in `prediction`.
        number: of the endpoint, the primary one first.
    """
    past, answer = earlier.past, prediction.answers[number]
    if past is None or answer.abstains(row) is not None:
        return []
    head, then = model.heads[number], past.answers[number]
    both = list(zip(earlier.days[asked], earlier.places[asked], strict=True))
    given = [(day, place) for day, place in both if then.abstains(place) is None]
    return [
        change_between(
            Told(head, then, place, past.features),
            Told(head, answer, row, prediction.features),
            from_day=day,
            day=float(earlier.day[asked]),
        )
        for day, place in ([given[-1]] + ([given[0]] if len(given) > 1 else []) if given else [])
    ]


def _begun(
    cohort: Cohort,
    section: DecisionSection,
    *,
    asked: NDArray[np.datetime64],
    days: NDArray[np.float64],
) -> NDArray[np.datetime64]:
    """Return the moments of the triggers, from which the days of decisions count; whole days back where a row alone says it."""
    known = ~(np.isnat(asked) | np.isnan(days))
    begun = np.full(len(asked), np.datetime64("NaT"), dtype="datetime64[us]")
    begun[known] = asked[known] - (days[known] * US_PER_DAY).astype("timedelta64[us]")
    if cohort.events is None:
        return begun
    keys = cohort.decisions[KEY].to_numpy(dtype=object)
    day = np.timedelta64(1, "D")
    for shard in shards_of(cohort):
        selection = Selection(event_arrays(shard, same_day=section.same_day), cohort.events.concepts)
        triggers = find_triggers(selection, section.trigger)
        moments = triggers.time.astype("datetime64[us]")
        for row in np.flatnonzero((subject_positions(selection.arrays, keys) >= 0) & known):
            own = moments[triggers.subject == subject_positions(selection.arrays, keys[[row]])[0]]
            near = own[(own > begun[row] - day) & (own <= begun[row])]
            if len(near):
                begun[row] = near.max()
    return begun


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
