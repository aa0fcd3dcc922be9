"""A FHIR bundle as raw rows: one row per patient, with the patient's events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from theracast_data.errors import SchemaError
from theracast_data.events.access import EVENTS_COLUMN, cells_of_events
from theracast_data.events.report import IngestReport
from theracast_models.response_model import ResponseModel


def is_bundle(content: object) -> bool:
    """Return whether parsed JSON is a FHIR bundle."""
    return isinstance(content, dict) and content.get("resourceType") == "Bundle"


def rows_of_bundle(
    bundle: Mapping[str, Any], model: ResponseModel, *, index_time: str | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per patient of a FHIR R4 bundle, and what was not understood.

    Args:
        bundle: the bundle.
        model: the model that is asked.
        index_time: ISO 8601 moment of the question; by default that of the patient's latest fact.

    Raises:
        SchemaError: the model was not made from events or has one moment for all, `index_time` is none, or the bundle
            tells of no patient.
    """
    from theracast_data.events.readers.fhir import FhirOptions, fhir_events

    if model.inputs.events is None:
        raise SchemaError(
            "this model is made from tables alone; it cannot read a FHIR bundle. Send its columns as rows."
        )
    asked = _asked_at(model, index_time)
    report = IngestReport("bundle")
    reading = model.inputs.events.fhir.model_dump()
    options = FhirOptions(path="request", validation="none", **reading)
    events = fhir_events([bundle], options=options, report=report)
    told = [
        f"{count} x {kind} not understood: {reason} (first: {report.first[kind, reason]})."
        for (kind, reason), count in report.refused.items()
    ]
    if not events.num_rows:
        raise SchemaError(f"the bundle tells of no patient that could be read. {' '.join(told)}".strip())
    subject = model.inputs.tables[0].subject
    return [{subject: patient} | asked | {EVENTS_COLUMN: own} for patient, own in cells_of_events(events).items()], told


def _asked_at(model: ResponseModel, index_time: str | None) -> dict[str, Any]:
    """Return the cell that says when the question is asked."""
    if index_time is None:
        return {}
    column = model.inputs.tables[0].index_time
    if column is None:
        raise SchemaError("this model asks at one moment that its study sets for all; leave `index_time` out.")
    try:
        datetime.fromisoformat(index_time.strip())
    except ValueError as error:
        raise SchemaError("index_time is no moment. Write it as 2024-05-31T08:30:00 or 2024-05-31.") from error
    return {column: index_time}
