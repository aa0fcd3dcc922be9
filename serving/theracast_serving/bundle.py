"""A FHIR bundle as raw rows: one row per patient, with the patient's events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_data.errors import SchemaError
from theracast_data.events.access import EVENTS_COLUMN, cells_of_events
from theracast_data.events.report import IngestReport
from theracast_models.response_model import ResponseModel


def is_bundle(content: object) -> bool:
    """Return whether parsed JSON is a FHIR bundle."""
    return isinstance(content, dict) and content.get("resourceType") == "Bundle"


def rows_of_bundle(bundle: Mapping[str, Any], model: ResponseModel) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per patient of a FHIR R4 bundle, asked as of the latest fact in it, and what was not understood.

    Raises:
        SchemaError: the model was not made from events, or the bundle tells of no patient.
    """
    from theracast_data.events.readers.fhir import FhirOptions, fhir_events

    if model.inputs.events is None:
        raise SchemaError(
            "this model is made from tables alone; it cannot read a FHIR bundle. Send its columns as rows."
        )
    report = IngestReport("bundle")
    events = fhir_events([bundle], options=FhirOptions(path="request", validation="none"), report=report)
    told = [
        f"{count} x {kind} not understood: {reason} (first: {report.first[kind, reason]})."
        for (kind, reason), count in report.refused.items()
    ]
    if not events.num_rows:
        raise SchemaError(f"the bundle tells of no patient that could be read. {' '.join(told)}".strip())
    subject = model.inputs.tables[0].subject
    return [{subject: patient, EVENTS_COLUMN: own} for patient, own in cells_of_events(events).items()], told
