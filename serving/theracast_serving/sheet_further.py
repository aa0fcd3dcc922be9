"""The compact panel of the other endpoints: response, progression-free and overall survival, toxicity together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving.answer_text import Told, strongest
from theracast_serving.clinical_text import of_hundred, range_of_hundred, unit_text
from theracast_serving.describe import head_development
from theracast_serving.performance import closest_test
from theracast_serving.sheet_drivers import value_text

DRIVERS = 2
HORIZONS = 3
SHORT_CELL = 24


@dataclass(frozen=True)
class Reason:
    """One of the strongest contributions: its sign for what is shown, and the feature with its value."""

    sign: str
    text: str


@dataclass(frozen=True)
class FurtherLine:
    """One endpoint on one line.

    Attributes:
        label: of the endpoint.
        answers: the leading answer with its interval, then those at other horizons.
        average: of the development cohort, for the leading answer.
        tested: how well patients were told apart, and where.
        reasons: the two strongest.
        refused: why there is no answer, None where there is one.
    """

    label: str
    answers: list[str]
    average: str
    tested: list[str]
    reasons: list[Reason]
    refused: str | None = None


def further_lines(
    model: ResponseModel,
    prediction: Prediction,
    row: int,
    *,
    site: str | None,
) -> list[FurtherLine]:
    """Return a line for each endpoint but the primary one."""
    lines = []
    for head, answer in zip(model.further, prediction.further, strict=True):
        told = Told(head, answer, row, prediction.features)
        refused = answer.abstains(row)
        refused = None if refused is None else refused.removeprefix("No answer: ")
        line = FurtherLine(head.label[:1].upper() + head.label[1:], [], "–", _tested(told, site), [], refused=refused)
        if refused is None:
            line = replace(
                line, answers=_answers(told), average=_average(told), reasons=_reasons(model, prediction, told)
            )
        lines.append(line)
    return lines


def _answers(told: Told) -> list[str]:
    if told.answer.kind == "time_to_event":
        leading, *others = (_spared_at(told, place) for place in range(min(HORIZONS, len(told.answer.asked))))
        return [leading, "; ".join(others)] if others else [leading]
    if told.is_number:
        return [f"{told.said()} ({told.said_range()})"]
    doing = f" {told.verb()}" if told.answer.kind == "ordinal" or told.verb() == "respond" else ""
    return [f"{told.said()}{doing} ({told.said_range()})"]


def _spared_at(told: Told, place: int) -> str:
    """Return how many of 100 have had no event by one horizon; the words stand at the leading one alone.

    Where another event may come first it is told how many have the event.
    """
    answer, row = told.answer, told.row
    if told.competes:
        how = f"of 100 have {told.event} " if place == 0 else ""
        chance = of_hundred(told.estimate if place == 0 else float(answer.estimates[row, place]))
        return f"{chance} {how}within {answer.asked[place].name} ({told.said_range(place)})"
    spared, low, high = (1.0 - float(part[row, place]) for part in (answer.estimates, answer.high, answer.low))
    how = f"of 100 {told.spared} " if place == 0 else ""
    return f"{of_hundred(spared)} {how}at {answer.asked[place].name} ({range_of_hundred(low, high)})"


def _is_spared(told: Told) -> bool:
    """Return whether it is told how many have no event."""
    return told.answer.kind == "time_to_event" and not told.competes


def _average(told: Told) -> str:
    base = head_development(told.head)
    if base is None:
        return "–"
    if told.is_number:
        return told.number(base.rate)
    return of_hundred(1.0 - base.rate if _is_spared(told) else base.rate)


def _tested(told: Told, site: str | None) -> list[str]:
    found = closest_test(told.head.evaluations, site, developed_at=told.head.reference.sites, kind=told.answer.kind)
    if found is None:
        return ["not tested"]
    name, figures = found
    short = {"rank correlation": "r"}.get(figures.name, figures.name)
    return [f"{short} {figures.text}", name]


def _reasons(model: ResponseModel, prediction: Prediction, told: Told) -> list[Reason]:
    """Return the two strongest, `+` where they raise what is shown (of a time: the share without the event)."""
    phi = told.answer.contributions.iloc[told.row].to_numpy(dtype=np.float64)
    turned = -1.0 if _is_spared(told) else 1.0
    reasons = []
    for place in strongest(phi, DRIVERS):
        spec = prediction.features.catalogue[place]
        value = value_text(model, spec, prediction.features.frame[spec.name].iloc[told.row])
        unit = unit_text(spec.unit) if value != "not measured" else ""
        label = spec.label if len(spec.label) <= SHORT_CELL else spec.label[: SHORT_CELL - 1].rstrip() + "…"
        reasons.append(Reason("+" if turned * phi[place] > 0 else "−", f"{label} {value} {unit}".strip()))
    return reasons
