"""Concepts: one quantity or fact under one name, however many codes say it. The `concepts` section of a study file."""

from __future__ import annotations

from pydantic import Field, model_validator

from theracast_data.modality import Modality
from theracast_data.section import Section


class Concept(Section):
    """A group of codes that mean the same, in one unit."""

    codes: tuple[str, ...] = Field(min_length=1, description="Codes as SYSTEM//CODE; a final * stands for any ending.")
    label: str | None = Field(None, description="What the tumour board reads.")
    modality: Modality = Field("lab", description="Kind of data.")
    unit: str | None = Field(None, description="UCUM unit in which the model works.")
    assume_unit: str | None = Field(None, description="UCUM unit of values whose source names none.")
    quantity: str | None = Field(
        None, description="Analyte, for conversions between mass and substance, e.g. creatinine."
    )
    reference_range: tuple[float | None, float | None] | None = Field(None, description="Normal range in `unit`.")
    plausible: tuple[float, float] | None = Field(
        None, description="Possible range in `unit`; values outside are not used."
    )

    @model_validator(mode="after")
    def _check_codes(self) -> Concept:
        wrong = [code for code in self.codes if "//" not in code and not code.startswith("MEDS_")]
        if wrong:
            raise ValueError(f"write codes as SYSTEM//CODE, e.g. LOINC//1751-7 (found {', '.join(wrong)})")
        return self

    def matches(self, code: str) -> bool:
        """Return whether an event's code belongs to this concept."""
        return any(code == own or (own.endswith("*") and code.startswith(own[:-1])) for own in self.codes)
