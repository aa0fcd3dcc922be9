"""The board sheet: one patient's explained answer on one page, read in a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from theracast_features.specs import FeatureSpec
from theracast_models.logodds import expit, logit
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving import sheet_svg as svg
from theracast_serving.clinical_text import (
    hundredth,
    number_text,
    of_hundred,
    outcome_verb,
    percent_text,
    points_text,
    range_of_hundred,
    unit_text,
)
from theracast_serving.course import Course
from theracast_serving.describe import Development, development, feature_range, level_share
from theracast_serving.performance import performance_rows
from theracast_serving.sheet_page import Driver, Group, Panel, SheetContent, fitted

DRIVERS = 8
DRIVERS_BESIDE_A_COURSE = 6
MISSING_SIGNS = 110
LONGEST_LABEL = 60
LONGEST = 200


def board_sheet(
    model: ResponseModel, prediction: Prediction, row: int, *, as_of: date, course: Course | None = None
) -> str:
    """Return the board sheet of one patient as one self-contained HTML page that prints on one A4 page.

    Args:
        model: the model that answered.
        prediction: its answers.
        row: position of the patient in `prediction`.
        as_of: the date that stands on the sheet.
        course: the patient's answers and measurements so far, see `course_of`.

    Raises:
        IndexError: there is no such row.
    """
    if not 0 <= row < len(prediction):
        raise IndexError(f"row {row} is not among the {len(prediction)} answers")
    content = fitted(sheet_content(model, prediction, row, as_of=as_of, course=course))
    return _template().render(sheet=content, colour_for=svg.FOR, colour_against=svg.AGAINST)


def sheet_content(
    model: ResponseModel, prediction: Prediction, row: int, *, as_of: date, course: Course | None = None
) -> SheetContent:
    """Return what the sheet of one patient says, before it is laid out."""
    probability, low, high = (float(part[row]) for part in (prediction.probability, prediction.low, prediction.high))
    decision = prediction.features.decisions.iloc[row]
    site = _known(decision.get("site"))
    label = model.endpoint.label or model.endpoint.name.replace("_", " ")
    base = development(model)
    average = None if base is None else base.rate
    missing = _missing_labels(prediction, row)
    unsaid = [label for label in missing if not any(label in text for text in prediction.warnings[row])]
    shown_missing = _fitting(unsaid)
    drivers, rest = _drivers(model, prediction, row, most=DRIVERS if course is None else DRIVERS_BESIDE_A_COURSE)
    groups = _groups(prediction, row)
    title, question = label[:1].upper() + label[1:], str(model.card.get("question") or "")
    rows, note = performance_rows(model.evaluations, site, developed_at=model.reference.sites)
    index_time = decision.get("index_time")
    return SheetContent(
        title=title,
        question=question,
        patient=prediction.subject_id[row],
        treatment=_treatment(model, _known(decision.get("treatment"))),
        site=site,
        index_day=None if pd.isna(index_time) else pd.Timestamp(index_time).date().isoformat(),
        as_of=as_of.isoformat(),
        verb=outcome_verb(label),
        count=of_hundred(probability),
        range=range_of_hundred(low, high),
        percent=percent_text(probability),
        average=None if average is None else of_hundred(average),
        average_text=None if base is None else base.text,
        icons=svg.icon_array(hundredth(probability), label=f"{of_hundred(probability)} of 100 dots are filled"),
        scale=svg.probability_scale(
            probability,
            low,
            high,
            average,
            label=f"{of_hundred(probability)} of 100, 95 % interval {range_of_hundred(low, high)}",
        ),
        start=of_hundred(float(expit(prediction.base[row]))),
        drivers=drivers,
        rest=rest,
        groups=groups,
        missing=shown_missing,
        missing_more=len(unsaid) - len(shown_missing),
        measured_count=_input_count(prediction) - len(missing),
        input_count=_input_count(prediction),
        warnings=[_shorten(text) for text in prediction.warnings[row]],
        performance=rows,
        auc_axis=svg.auc_axis(),
        performance_note=note,
        limits=_limits(model, base),
        identity=_identity(model, prediction.model),
        course=[] if course is None else _course_panels(course),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("theracast_serving", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("board_sheet.html.j2")


def _drivers(
    model: ResponseModel, prediction: Prediction, row: int, *, most: int
) -> tuple[list[Driver], Driver | None]:
    """Return the strongest contributions, strongest first, and the sum of all others."""
    phi = prediction.contributions.iloc[row].to_numpy(dtype=np.float64)
    order = np.argsort(-np.abs(phi), kind="stable")
    shown = [int(place) for place in order[:most] if phi[place] != 0]
    others = [place for place in range(len(phi)) if place not in shown]
    rest = float(phi[others].sum()) if others else 0.0
    largest = max([abs(float(phi[place])) for place in shown] + [abs(rest), 1e-9])
    log_odds = float(logit(prediction.probability[row]))
    drivers = [_driver(model, prediction, row, place, largest=largest, log_odds=log_odds) for place in shown]
    if not any(phi[place] != 0 for place in others):
        return drivers, None
    points, direction = _effect(rest, log_odds)
    spoken = sum(1 for place in others if phi[place] != 0)
    return drivers, Driver(
        label=f"{spoken} further {'entry' if spoken == 1 else 'entries'} together",
        group="",
        value="",
        unit="",
        measured=True,
        strip=Markup(),
        bar=svg.diverging_bar(rest, largest, label=f"{points} points"),
        points=points,
        direction=direction,
    )


def _driver(
    model: ResponseModel,
    prediction: Prediction,
    row: int,
    place: int,
    *,
    largest: float,
    log_odds: float,
) -> Driver:
    spec = prediction.features.catalogue[place]
    phi = float(prediction.contributions.to_numpy(dtype=np.float64)[row, place])
    cell = prediction.features.frame[spec.name].iloc[row]
    measured = not pd.isna(cell)
    points, direction = _effect(phi, log_odds)
    return Driver(
        label=spec.label,
        group=_modality_label(spec.modality),
        value=_value_text(model, spec, cell) if measured else "not measured",
        unit=unit_text(spec.unit) if measured else "",
        measured=measured,
        strip=_strip(model, spec, cell if measured else None),
        bar=svg.diverging_bar(phi, largest, label=f"{points} points"),
        points=points,
        direction=direction,
    )


def _effect(phi: float, log_odds: float) -> tuple[str, str]:
    """Return the percentage points by which the chance would change without this entry, sign turned, and the side."""
    points = 100 * float(expit(log_odds) - expit(log_odds - phi))
    return points_text(points), "for" if phi > 0 else "against" if phi < 0 else "none"


def _value_text(model: ResponseModel, spec: FeatureSpec, cell: Any) -> str:
    if spec.kind == "categorical":
        return str(cell)
    value = float(cell)
    if spec.kind == "boolean" or spec.role == "indicator":
        return "yes" if value else "no"
    return _cap_sign(model, spec, value) + number_text(value)


def _cap_sign(model: ResponseModel, spec: FeatureSpec, value: float) -> str:
    """Return `≥` where the value stands at the study's cap, so that the measured one may lie beyond it."""
    meaning = model.inputs.meanings.get(spec.columns[0]) if spec.role == "value" and spec.columns else None
    lower, upper = getattr(meaning, "cap_range", (None, None))
    if upper is not None and value >= upper:
        return "≥ "
    return "≤ " if lower is not None and value <= lower else ""


def _strip(model: ResponseModel, spec: FeatureSpec, cell: Any) -> Markup:
    """Return where the patient stands in the development cohort."""
    if spec.kind == "numeric" and spec.role != "indicator":
        quantiles = feature_range(model, spec.name)
        if quantiles is None:
            return Markup()
        low, _, high = quantiles
        texts = (number_text(low), number_text(high))
        value = None if cell is None else float(cell)
        return svg.range_strip(value, quantiles, texts, label=f"development cohort: {texts[0]} to {texts[1]}")
    share = None if cell is None else level_share(model, spec, cell)
    if share is None:
        return Markup()
    text = f"{hundredth(share)} %"
    return svg.share_strip(share, f"in {text}", label=f"the same in {text} of the development cohort")


def _course_panels(course: Course) -> list[Panel]:
    """Return the picture of the answers so far, then one for each measurement, all over the same days."""
    moments = [answer.day for answer in course.answers] + [day for one in course.series for day, _ in one.points]
    days = (min(moments), max(moments))
    chances = [(answer.day, answer.probability) for answer in course.answers]
    panels = [
        Panel(
            "Chance at each decision",
            svg.course_panel(
                chances,
                label="; ".join(f"day {day:.0f}: {percent_text(chance)}" for day, chance in chances),
                days=days,
                texts=[percent_text(chance) for _, chance in chances],
                intervals=[(answer.low, answer.high) for answer in course.answers],
                ends=(0.0, 1.0),
                end_texts=("0 %", "100 %"),
            ),
        )
    ]
    for one in course.series:
        texts = [number_text(value) for _, value in one.points]
        unit = unit_text(one.unit)
        heading = one.label + (f", {unit}" if unit else "")
        told = "; ".join(f"day {day:.0f}: {text}" for (day, _), text in zip(one.points, texts, strict=True))
        panels.append(
            Panel(heading, svg.course_panel(one.points, label=f"{one.label}: {told}", days=days, texts=texts))
        )
    return panels


def _groups(prediction: Prediction, row: int) -> list[Group]:
    phi = prediction.modalities.iloc[row]
    largest = max([abs(float(value)) for value in phi] + [1e-9])
    log_odds = float(logit(prediction.probability[row]))
    groups = []
    for name, value in phi.items():
        points, direction = _effect(float(value), log_odds)
        groups.append(
            Group(
                label=_modality_label(str(name)),
                bar=svg.diverging_bar(float(value), largest, label=f"{points} points", width=96),
                points=points,
                direction=direction,
            )
        )
    return groups


def _missing_labels(prediction: Prediction, row: int) -> list[str]:
    """Return the labels of what was not measured, the heaviest contribution first."""
    specs = {spec.name: spec for spec in prediction.features.catalogue}
    phi = prediction.contributions.iloc[row].abs()
    names = sorted(prediction.missing[row], key=lambda name: -float(phi.get(name, 0.0)))
    return [specs[name].label if name in specs else name for name in names]


def _fitting(labels: Sequence[str]) -> list[str]:
    """Return the first labels, as many as two lines of the sheet hold, at least one."""
    shown: list[str] = []
    for label in labels:
        short = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1].rstrip() + "…"
        if shown and sum(map(len, shown)) + 2 * len(shown) + len(short) > MISSING_SIGNS:
            break
        shown.append(short)
    return shown


def _input_count(prediction: Prediction) -> int:
    return sum(spec.role != "indicator" for spec in prediction.features.catalogue)


def _limits(model: ResponseModel, base: Development | None) -> list[str]:
    sites = [str(site) for site in model.card.get("development") or ()]
    learned = "" if base is None else f" from {base.n} patients"
    where = f" at {', '.join(sites[:3])}{' and elsewhere' if len(sites) > 3 else ''}" if sites else ""
    source = f"Learned{learned}{where}." if learned or where else ""
    return [text for text in (_shorten(source), "Patients unlike those are answered less reliably.") if text]


def _identity(model: ResponseModel, answered: str) -> list[tuple[str, str]]:
    card: Mapping[str, Any] = model.card
    endpoint = model.endpoint
    pairs = [
        ("Model", answered),
        ("Endpoint", f"{endpoint.label or endpoint.name} (rule {endpoint.rule_version})"),
        ("Family", str(card.get("family") or "")),
        ("Trained", str(card.get("created") or "")[:10]),
        ("Data", str(card.get("data_fingerprint") or "")[:16]),
    ]
    return [(name, text) for name, text in pairs if text]


def _modality_label(modality: str) -> str:
    return {"patient_reported": "Patient-reported", "lab": "Laboratory"}.get(modality, modality.capitalize())


def _treatment(model: ResponseModel, cell: str | None) -> str | None:
    """Return the treatment in words, where the study gives a name to its code."""
    source = model.inputs.tables[0]
    levels = getattr(source.columns.get(source.treatment or ""), "levels", None)
    if cell is None or not isinstance(levels, dict):
        return cell
    return next((str(level) for code, level in levels.items() if str(code) == cell), cell)


def _known(cell: Any) -> str | None:
    return None if cell is None or pd.isna(cell) or not str(cell).strip() else str(cell)


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
