"""The `events` section of a study file: where the dated facts of its patients lie, and what their codes mean."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from theracast_data.events.concepts import Concept
from theracast_data.events.fhir_reading import FhirReading
from theracast_data.section import Section


class EventSection(Section):
    """Dated facts of the study's patients; they are joined to the decisions by the patient's identifier."""

    store: str = Field(description="Folder of an event store, made by `theracast ingest`; ${VARIABLE} as in sources.")
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="What computes the features of the study; the results are the same, cell by cell."
    )
    concepts: dict[str, Concept] = Field(
        {}, description="Name of a concept to its codes, unit and ranges; variants, diagnoses and drugs need none."
    )

    fhir: FhirReading = Field(
        FhirReading(), description="How the FHIR bundle of a patient to be scored is read: as the store was ingested."
    )

    @field_validator("concepts")
    @classmethod
    def _check_names(cls, concepts: dict[str, Concept]) -> dict[str, Concept]:
        wrong = [name for name in concepts if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
        if wrong:
            raise ValueError(f"name concepts in small letters, digits and _ (found {', '.join(wrong)})")
        return concepts
