"""What is measured of a dose, of a dynamic series and of a quantitative map: parts of `features.images.NAME`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from theracast_data.section import Section

Percent = Annotated[float, Field(gt=0, le=100)]
Rank = Annotated[float, Field(gt=0, lt=100)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
After = Annotated[str, Field(pattern=r"^\d+(\.\d+)?s$")]
PhaseChoice = Annotated[int, Field(ge=1)] | Literal["last"] | After


class PlannedDose(Section):
    """Dose of radiotherapy in the region: points of its dose-volume histogram, from the RTDOSE over the image.

    Lowest, mean and highest dose are always measured. The dose is interpolated at the centres of the region's voxels.
    """

    dx_percent: tuple[Percent, ...] = Field(
        (2, 95), description="Dx: dose (Gy) that at least so many percent of the region receive."
    )
    dx_ml: tuple[Positive, ...] = Field(
        (), description="Dx cc: dose (Gy) that at least so many mL receive, e.g. [0.1]."
    )
    vx_gy: tuple[Positive, ...] = Field((), description="Vx: percent of the region that receive at least so many Gy.")
    geud_a: tuple[float, ...] = Field(
        (), description="Equivalent uniform dose (Gy) for each a: 1 or more for organs, below 0 for tumours."
    )
    outside: Literal["refuse", "zero"] = Field(
        "refuse", description="What becomes of a region that lies in part beyond the dose grid; zero counts 0 Gy there."
    )
    summation: tuple[Literal["PLAN", "MULTI_PLAN", "PLAN_OVERVIEW"], ...] = Field(
        ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW"),
        min_length=1,
        description="DoseSummationType of the doses that count; several that fit are refused.",
    )
    known: Literal["dose", "scan"] = Field(
        "dose",
        description="From when a decision sees it: dose, when the RTDOSE was made; scan, with the image, where files have lost "
        "their date or were written anew.",
    )

    @field_validator("dx_percent", "dx_ml", "vx_gy", "geud_a", "summation", mode="before")
    @classmethod
    def _one(cls, several: object) -> object:
        return (several,) if isinstance(several, str | int | float) else several

    @field_validator("geud_a")
    @classmethod
    def _check_a(cls, several: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in several:
            raise ValueError("a is not 0: take a < 0 for tumours, a >= 1 for organs")
        return several


class FunctionalVolume(Section):
    """Which voxels count as functional tumour; the defaults are those of I-SPY 2."""

    enhancement_percent: float = Field(70.0, description="Least early enhancement (%).")
    min_ser: float = Field(0.0, description="Least signal enhancement ratio; 0.9 in earlier work.")


class DynamicContrast(Section):
    """Enhancement by a contrast agent between three phases of a dynamic series, and the functional tumour volume.

    The phases are those of the series that carries the region, or the series that `series` names. In the first case all else
    (intensity, radiomics, picture) is measured in the early phase.
    """

    series: tuple[str, ...] = Field(
        (),
        description="Descriptions of the series that are a phase each, * for any ending; by default one series holds them all.",
    )
    pre: int = Field(1, ge=1, description="Number in time, from 1, of the phase before contrast.")
    early: PhaseChoice = Field(
        2, description="Number of the early phase, or seconds after the start of `pre`, e.g. 150s: the nearest counts."
    )
    late: PhaseChoice = Field("last", description="Number of the late phase, `last`, or seconds, e.g. 450s.")
    within_s: float = Field(
        60.0, gt=0, description="How far (s) the nearest phase may lie from the seconds asked for; else it is refused."
    )
    percentiles: tuple[Rank, ...] = Field((10, 50, 90), description="Of the maps of enhancement in the region.")
    ftv: FunctionalVolume | None = Field(
        FunctionalVolume(), description="Functional tumour volume and its parts; null leaves it out."
    )

    @field_validator("series", mode="before")
    @classmethod
    def _one_pattern(cls, patterns: object) -> object:
        return (patterns,) if isinstance(patterns, str) else patterns

    @model_validator(mode="after")
    def _check_order(self) -> DynamicContrast:
        numbers = [self.pre, *(one for one in (self.early, self.late) if isinstance(one, int))]
        if self.early == "last" or numbers != sorted(set(numbers)):
            raise ValueError("`pre`, `early` and `late` are three phases in this order")
        return self


class QuantitativeMap(Section):
    """A map whose voxels are a quantity with a unit, such as ADC or blood flow: mean, spread and percentiles in the region."""

    label: str = Field(description="Name of the quantity for people, e.g. ADC.")
    unit: str | None = Field(None, description="UCUM unit after `factor`, e.g. um2/s for ADC (10^-6 mm2/s).")
    factor: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="What the values of the files are multiplied by to be in `unit`."
    )
    percentiles: tuple[Rank, ...] = Field((10, 50, 90), description="e.g. [10, 50, 90].")
    plausible: tuple[float, float] | None = Field(
        None,
        description="Range in `unit` of the median of a region, e.g. [100, 4000]; an image beyond it is refused, as its files "
        "are probably in another unit.",
    )

    @field_validator("plausible")
    @classmethod
    def _check_plausible(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"the range ends where it begins, or before: {limits[0]:g} to {limits[1]:g}")
        return limits
