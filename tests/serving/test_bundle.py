"""A FHIR bundle to be scored is read as the study says its store was ingested."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from theracast_data.errors import SchemaError
from theracast_data.events.access import EVENTS_COLUMN
from theracast_data.events.concepts import Concept
from theracast_data.events.fhir_reading import FhirReading
from theracast_data.events.section import EventSection
from theracast_models.response_model import ResponseModel
from theracast_serving.bundle import is_bundle, rows_of_bundle

BUNDLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "subject": {"reference": "Patient/7"},
                "code": {"coding": [{"system": "https://lab.example/codes", "code": "ALB"}]},
                "effectiveDateTime": "2024-05-31T23:30:00+00:00",
                "valueQuantity": {"value": 3.5, "code": "g/dL", "system": "http://unitsofmeasure.org"},
            }
        }
    ],
}


def with_events(model: ResponseModel, **reading: Any) -> ResponseModel:
    section = EventSection(
        store="store", concepts={"albumin": Concept(codes=("lab//ALB",), unit="g/dL")}, fhir=FhirReading(**reading)
    )
    return replace(model, inputs=model.inputs.model_copy(update={"events": section}))


def test_clock_and_names_of_code_systems_are_those_of_the_study(model: ResponseModel) -> None:
    told = {"timezone": "Europe/Berlin", "systems": {"https://lab.example/codes": "lab"}}
    [row], refused = rows_of_bundle(BUNDLE, with_events(model, **told))
    [event] = row[EVENTS_COLUMN]
    assert event["code"] == "lab//ALB"
    assert str(event["time"]).startswith("2024-06-01T01:30")
    assert not refused
    [row], _ = rows_of_bundle(BUNDLE, with_events(model))
    assert str(row[EVENTS_COLUMN][0]["time"]).startswith("2024-05-31T23:30")
    assert row[EVENTS_COLUMN][0]["code"] != "lab//ALB"


def test_a_model_of_tables_alone_reads_no_bundle(model: ResponseModel) -> None:
    assert is_bundle(BUNDLE)
    with pytest.raises(SchemaError, match="Send its columns as rows"):
        rows_of_bundle(BUNDLE, model)
