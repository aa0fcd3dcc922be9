"""Invented patients that travel with a model, so that every way of asking it can be checked against its own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from theracast_data.decisions.section import LANDMARK, AttributeColumn, EventSelector
from theracast_data.events.access import EVENTS_COLUMN
from theracast_data.events.concepts import Concept
from theracast_data.sources import Cell, ColumnSpec, Inputs, OneHotSpec, snake_case
from theracast_features.specs import FeatureSpec
from theracast_models.reference import RARE_LEVELS, FeatureReference, Reference

TYPICAL = 6
ASKED_AT = "2024-06-01T12:00:00"
ASKED = datetime.fromisoformat(ASKED_AT)
UNKNOWN_CATEGORY = "a category never seen"

Row = dict[str, Any]


def invented_rows(
    inputs: Inputs, catalogue: Sequence[FeatureSpec], reference: Reference, *, seed: int = 0
) -> list[Row]:
    """Return raw rows of patients who never were: each column is drawn for itself from its development quantiles.

    After six complete ones (every second tells its attributes by events, where decisions come from events): one with every
    second column missing, one with nothing known, one with an unseen category, and one with numbers written as text. All
    rows have the same columns; None is missing.
    """
    rng = np.random.default_rng([seed, 51])
    about = {
        spec.columns[0]: reference.features[spec.name]
        for spec in catalogue
        if spec.role == "value" and len(spec.columns) == 1
    }
    rows = [_complete(inputs, about, rng) for _ in range(TYPICAL + 4)]
    halved, empty, unseen, spelt = rows[TYPICAL:]
    columns = list(_feature_columns(inputs))
    halved |= dict.fromkeys(columns[::2])
    empty |= dict.fromkeys(columns)
    unseen |= _unseen_categories(inputs)
    for source in inputs.tables:
        numbers = [raw for raw, spec in source.columns.items() if spec.resolved_kind == "numeric"]
        spelt |= {raw: _as_text(spelt[raw], source.decimal) for raw in numbers if spelt.get(raw) is not None}
    first = inputs.tables[0]
    if inputs.events is not None:
        asked = {} if first.index_time is None else {first.index_time: ASKED_AT}
        moment = first.asked_at if first.index_time is None and first.asked_at else ASKED
        courses = invented_events(
            inputs.events.concepts, catalogue, reference, rng, asked_at=moment, patients=len(rows)
        )
        rows = [row | asked | {EVENTS_COLUMN: events} for row, events in zip(rows, courses, strict=True)]
    if inputs.decisions is not None:
        # Every second of the complete ones tells its attributes by events, and that the treatment has begun.
        told = range(1, TYPICAL, 2)
        rows = [_told_by_events(row, inputs, ASKED) if place in told else row for place, row in enumerate(rows)]
    return [{first.subject: f"example-{number}"} | row for number, row in enumerate(rows, start=1)]


def invented_events(
    concepts: Mapping[str, Concept],
    catalogue: Sequence[FeatureSpec],
    reference: Reference,
    rng: np.random.Generator,
    *,
    asked_at: datetime,
    patients: int,
) -> list[list[Row]]:
    """Return a course of events for each invented patient; the last but two has none, the last but one every second.

    Three values a concept, drawn from the development quantiles of its first numeric aggregate in the concept's unit.
    """
    about = {
        name: next(
            (
                reference.features[spec.name]
                for spec in catalogue
                if spec.columns == (name,) and spec.unit == concept.unit and reference.features[spec.name].quantiles
            ),
            None,
        )
        for name, concept in concepts.items()
    }
    courses = []
    for patient in range(patients):
        told = list(concepts)[:: 2 if patient == patients - 2 else 1] if patient != patients - 3 else []
        courses.append(
            [event for name in told for event in _course(concepts[name], about[name], rng, asked_at=asked_at)]
        )
    return courses


def _course(
    concept: Concept, known: FeatureReference | None, rng: np.random.Generator, *, asked_at: datetime
) -> list[Row]:
    code = concept.codes[0].replace("*", "0")
    hours = sorted(int(hour) for hour in np.exp(rng.uniform(0, np.log(60 * 24), 3)))
    moments = [(asked_at - timedelta(hours=hour)).isoformat() for hour in reversed(hours)]
    if known is None:
        return [{"time": moment, "code": code} for moment in moments]
    points = [known.quantiles[name] for name in ("p05", "p25", "p50", "p75", "p95")]
    values = np.interp(rng.uniform(0.05, 0.95, 3), [0.05, 0.25, 0.5, 0.75, 0.95], points)
    return [
        {"time": moment, "code": code, "numeric_value": float(f"{value:.3g}"), "unit": concept.unit}
        for moment, value in zip(moments, values, strict=True)
    ]


def _told_by_events(row: Row, inputs: Inputs, asked_at: datetime) -> Row:
    """Return the row with events in place of the cells of its attributes, so far as an event can say them."""
    assert inputs.decisions is not None
    assert inputs.events is not None
    section, meanings = inputs.decisions, inputs.meanings
    events: list[Row] = []
    cells: Row = {}
    for name, attribute in section.attributes.items():
        codes = _codes_of(attribute, inputs.events.concepts)
        spec = meanings[name]
        unit = spec.unit if isinstance(spec, ColumnSpec) else None
        event = None if row.get(name) is None else _saying(attribute, codes, row[name], unit, asked_at=asked_at)
        if event is not None:
            events.append(event)
            cells[name] = None
    days = row.get(LANDMARK) or 0.0
    if section.trigger.value is None and not section.trigger.texts:
        code = _codes_of(section.trigger, inputs.events.concepts)[0].replace("*", "0")
        events.append({"time": (asked_at - timedelta(days=float(days))).isoformat(), "code": code})
        cells |= {LANDMARK: None} if LANDMARK in row else {}
    return row | cells | {EVENTS_COLUMN: [*row[EVENTS_COLUMN], *events]}


def _codes_of(selector: EventSelector, concepts: Mapping[str, Concept]) -> tuple[str, ...]:
    return concepts[selector.concept].codes if selector.concept is not None else selector.codes


def _saying(
    attribute: AttributeColumn, codes: tuple[str, ...], cell: Any, unit: str | None, *, asked_at: datetime
) -> Row | None:
    """Return an event that says the cell, None where the attribute's rules leave open how it would be said."""
    if attribute.value is not None or attribute.texts or cell == attribute.missing:
        return None
    at = {"time": (asked_at - timedelta(hours=1)).isoformat(), "code": codes[0].replace("*", "0")}
    if attribute.take == "years_since":
        return at | {"time": (asked_at - timedelta(days=365.25 * float(cell))).isoformat()}
    if attribute.take == "number":
        return at | {"numeric_value": float(cell), "unit": unit}
    if attribute.take == "text":
        return at | {"text_value": str(cell)}
    fitting = [code for code in codes if code.endswith("//*") or code.rsplit("//", 1)[-1] == str(cell)]
    return at | {"code": fitting[0].replace("*", str(cell))} if fitting else None


def raw_columns(inputs: Inputs) -> list[str]:
    """Return the headers that a raw table for scoring may have: the patient's, then every column that is read."""
    first = inputs.tables[0]
    named = [first.subject, first.index_time, first.treatment, first.calendar]
    named.append(None if first.site == "$sheet" else first.site)
    named.append(None if inputs.events is None else EVENTS_COLUMN)
    return list(dict.fromkeys([name for name in named if name is not None] + _feature_columns(inputs)))


def _feature_columns(inputs: Inputs) -> list[str]:
    """Return raw headers of everything that is not a mere covariate."""
    found: list[str] = []
    for source in inputs.tables:
        found += [raw for raw, spec in source.columns.items() if spec.role == "feature"]
        groups = [group for group in source.one_hot if group.role == "feature"]
        found += [raw for group in groups for raw in (*group.columns, *group.aliases[:1])]
    return list(dict.fromkeys(found))


def _unseen_categories(inputs: Inputs) -> Row:
    """Return the cells of a patient whose every category is one that nobody had."""
    cells: Row = {}
    for source in inputs.tables:
        for raw, spec in source.columns.items():
            if spec.role == "feature" and spec.resolved_kind == "categorical":
                cells[raw] = UNKNOWN_CATEGORY
        for group in source.one_hot:
            if group.role == "feature" and group.aliases:
                cells |= dict.fromkeys(group.columns, 0) | {group.aliases[0]: UNKNOWN_CATEGORY}
    return cells


def _complete(inputs: Inputs, about: dict[str, FeatureReference], rng: np.random.Generator) -> Row:
    row: Row = {}
    for source in inputs.tables:
        for raw, spec in source.columns.items():
            if spec.role == "feature":
                name = spec.name or snake_case(raw)
                row[raw] = _cell(name, spec, about.get(name), rng)
        for group in source.one_hot:
            if group.role == "feature":
                row |= _one_hot(group, about.get(group.name), rng)
    return row


def _cell(name: str, spec: ColumnSpec, known: FeatureReference | None, rng: np.random.Generator) -> Any:
    """Return one raw cell as the source would write it; None for a column of which nothing is known."""
    if known is None:
        return None
    if spec.resolved_kind == "categorical":
        level = _draw(known, rng)
        return None if level is None else _cell_of_level(spec, level)
    if not known.quantiles:
        return None
    if spec.resolved_kind == "boolean":
        return _cell_of_answer(spec, rng.random() < known.levels.get("1", 0.5 if not known.cells else 0.0))
    return _number(name, spec, known, rng)


def _number(name: str, spec: ColumnSpec, known: FeatureReference, rng: np.random.Generator) -> float:
    points = [known.quantiles[name] for name in ("p05", "p25", "p50", "p75", "p95")]
    drawn = float(np.interp(rng.uniform(0.05, 0.95), [0.05, 0.25, 0.5, 0.75, 0.95], points))
    if spec.source_unit is not None and spec.unit is not None and spec.source_unit != spec.unit:
        from theracast_data.events.molar import analyte_scale

        slope, offset = analyte_scale(spec.source_unit, spec.unit, quantity=name)
        drawn = (drawn - offset) / slope
    whole = all(float(point).is_integer() for point in known.quantiles.values())
    return float(round(drawn)) if whole and spec.source_unit is None else float(f"{drawn:.3g}")


def _draw(known: FeatureReference, rng: np.random.Generator) -> str | None:
    levels = {level: share for level, share in known.levels.items() if level != RARE_LEVELS}
    if not levels:
        return None
    shares = np.array(list(levels.values()))
    return str(rng.choice(list(levels), p=shares / shares.sum()))


def _cell_of_level(spec: ColumnSpec, level: str) -> Cell:
    if isinstance(spec.levels, dict):
        return next((cell for cell, category in spec.levels.items() if str(category) == level), level)
    return level


def _cell_of_answer(spec: ColumnSpec, yes: bool) -> Cell:
    if isinstance(spec.levels, dict):
        return next((cell for cell, category in spec.levels.items() if bool(category) == yes), int(yes))
    return int(yes)


def _one_hot(group: OneHotSpec, known: FeatureReference | None, rng: np.random.Generator) -> Row:
    level = None if known is None else _draw(known, rng)
    cells: Row = {raw: None if level is None else int(category == level) for raw, category in group.columns.items()}
    return cells | dict.fromkeys(group.aliases[:1])


def _as_text(number: Any, decimal: str) -> str:
    return f" {number} ".replace(".", decimal)
