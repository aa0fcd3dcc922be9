"""How FHIR resources become events: the same for a bulk export and for the bundle of one patient."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from theracast_data.section import Section


class FhirReading(Section):
    """Which codings, names of code systems and clock FHIR resources are read with."""

    preferred_systems: tuple[str, ...] = Field(
        ("LOINC", "SNOMED", "RXNORM", "ATC", "HGNC", "ICD10CM", "ICD10"),
        description="Which coding is taken where a concept has several: the first system in this order.",
    )
    systems: dict[str, str] = Field(
        {}, description="Names of the hospital's own code systems: {address: NAME}, for NAME//CODE."
    )
    timezone: str = Field(
        "UTC", description="Clock of the events, e.g. Europe/Berlin; times with an offset are turned."
    )

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError, below
            raise ValueError("write a time zone such as Europe/Berlin or UTC") from error
        except KeyError as error:
            raise ValueError("no such time zone; write one such as Europe/Berlin or UTC") from error
        return name
