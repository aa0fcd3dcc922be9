"""The board sheet: one patient's explained answer on one page, read in a minute."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from theracast_models.prediction import Answer, Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving import sheet_svg as svg
from theracast_serving.answer_text import Told
from theracast_serving.clinical_text import number_text, unit_text
from theracast_serving.course import Course
from theracast_serving.describe import Development, development
from theracast_serving.performance import performance_rows
from theracast_serving.sheet_drivers import drivers_of, groups_of
from theracast_serving.sheet_further import further_lines
from theracast_serving.sheet_headline import headline
from theracast_serving.sheet_page import BUDGETS, SheetContent, within
from theracast_serving.sheet_panels import refusal, trust_lines
from theracast_serving.sheet_rows import Panel

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
    for budget in BUDGETS:
        content = sheet_content(model, prediction, row, as_of=as_of, course=course, drivers=budget.drivers)
        laid_out = within(content, budget)
        if laid_out is not None:
            break
    assert laid_out is not None  # the last budget holds all
    return _template().render(sheet=laid_out, colour_for=svg.FOR, colour_against=svg.AGAINST)


def sheet_content(
    model: ResponseModel,
    prediction: Prediction,
    row: int,
    *,
    as_of: date,
    course: Course | None = None,
    drivers: int = DRIVERS,
) -> SheetContent:
    """Return what the sheet of one patient says, before it is laid out."""
    decision = prediction.features.decisions.iloc[row]
    site = _known(decision.get("site"))
    told = Told(model.head, prediction.answer, row, prediction.features)
    own = _record(prediction.answer, row)
    refused = refusal(own)
    base = development(model)
    missing = _missing_labels(prediction, row)
    unsaid = [label for label in missing if not any(label in text for text in prediction.warnings[row])]
    shown_missing = _fitting(unsaid)
    label = told.head.label
    rows, note = performance_rows(
        model.evaluations, site, developed_at=model.reference.sites, kind=told.answer.kind, unit=told.unit
    )
    index_time = decision.get("index_time")
    shown, rest = drivers_of(
        model, prediction, told, most=drivers if course is None else min(drivers, DRIVERS_BESIDE_A_COURSE)
    )
    answers = refused is None
    return SheetContent(
        title=label[:1].upper() + label[1:],
        question=str(model.card.get("question") or ""),
        patient=prediction.subject_id[row],
        treatment=_treatment(model, _known(decision.get("treatment"))),
        site=site,
        index_day=None if pd.isna(index_time) else pd.Timestamp(index_time).date().isoformat(),
        as_of=as_of.isoformat(),
        headline=headline(told, base) if answers else None,
        refused=refused,
        start=told.start(),
        end=told.said(),
        headings=told.headings(),
        drivers=shown if answers else [],
        rest=rest if answers else None,
        groups=groups_of(told) if answers else [],
        missing=shown_missing,
        missing_more=len(unsaid) - len(shown_missing),
        measured_count=_input_count(prediction) - len(missing),
        input_count=_input_count(prediction),
        warnings=[_shorten(text) for text in prediction.warnings[row]],
        performance=rows,
        performance_heads=_performance_heads(told),
        auc_axis=svg.auc_axis(),
        performance_note=note,
        limits=_limits(model, base),
        identity=_identity(model, prediction.model),
        further=further_lines(model, prediction, row, site=site) if answers else [],
        trust=trust_lines(told, own if answers else {"rarely_seen": own.get("rarely_seen")}),
        course=[] if course is None or not answers else _course_panels(course, told),
        changes=[] if course is None or not answers else [change.sentence for change in course.changes],
    )


def _record(answer: Answer, row: int) -> Mapping[str, Any]:
    return answer.more[row] if answer.more else {}


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


def _performance_heads(told: Told) -> tuple[str, str, str]:
    """Return the headings of the table of tested sites."""
    if told.is_number:
        return "Patients", "Rank correlation", "Average: predicted → observed"
    asked = told.answer.asked[0].name
    if told.answer.kind == "time_to_event":
        return "Patients (events)", "Earlier or later: C", f"Of 100 by {asked}: predicted → observed"
    if told.answer.kind == "ordinal":
        return "Patients (reached)", "Better or worse: C", "Of 100: predicted → observed"
    return "Patients (outcome)", "Telling apart: AUC", "Of 100: predicted → observed"


def _course_panels(course: Course, told: Told) -> list[Panel]:
    """Return the picture of the answers so far, then one for each measurement, all over the same days."""
    moments = [answer.day for answer in course.answers] + [day for one in course.series for day, _ in one.points]
    days = (min(moments), max(moments))
    chances = [(answer.day, answer.probability) for answer in course.answers]
    texts = [told.said_short(chance) for _, chance in chances]
    intervals = [(answer.low, answer.high) for answer in course.answers]
    reach = [end for interval in intervals for end in interval]
    panels = [
        Panel(
            f"Number at each decision, {told.unit}".removesuffix(", ") if told.is_number else "Chance at each decision",
            svg.course_panel(
                chances,
                label="; ".join(f"day {day:.0f}: {text}" for (day, _), text in zip(chances, texts, strict=True)),
                days=days,
                texts=texts,
                intervals=intervals,
                ends=(min(reach), max(reach)) if told.is_number else (0.0, 1.0),
                end_texts=None if told.is_number else ("0 %", "100 %"),
            ),
        )
    ]
    for one in course.series:
        texts = [number_text(value) for _, value in one.points]
        unit = unit_text(one.unit)
        heading = one.label + (f", {unit}" if unit else "")
        spoken = "; ".join(f"day {day:.0f}: {text}" for (day, _), text in zip(one.points, texts, strict=True))
        panels.append(
            Panel(heading, svg.course_panel(one.points, label=f"{one.label}: {spoken}", days=days, texts=texts))
        )
    return panels


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
    section = model.inputs.decisions
    asked_again = section is not None and section.landmarks is not None
    learned = "" if base is None else f" from {base.n} {'decisions' if asked_again else 'patients'}"
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


def _treatment(model: ResponseModel, cell: str | None) -> str | None:
    """Return the treatment in words, where the study gives a name to its code."""
    source = model.inputs.tables[0]
    levels = getattr(source.columns.get(source.treatment or ""), "levels", None)
    if cell is None:
        return None
    if not isinstance(levels, dict):
        return re.sub(r"[^\s/]+//", "", cell)  # a code of an event, or several, without their system
    return next((str(level) for code, level in levels.items() if str(code) == cell), cell)


def _known(cell: Any) -> str | None:
    return None if cell is None or pd.isna(cell) or not str(cell).strip() else str(cell)


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
