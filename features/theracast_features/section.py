"""Which features a study uses: the `features` section of a study file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from theracast_data.modality import Modality
from theracast_data.section import Section
from theracast_features.events.comorbidity import ComorbiditySection
from theracast_features.events.genes import GeneSection
from theracast_features.events.growth import GrowthSection
from theracast_features.events.kelim import KelimSection
from theracast_features.events.kinetics import MarkerSection
from theracast_features.events.recist import RecistSection
from theracast_features.events.section import EventFeatures
from theracast_features.events.therapy import TherapySection
from theracast_features.imaging.section import ImageFeatures


class RatioSpec(Section):
    """One column divided by another, e.g. neutrophils by lymphocytes. Missing where either is, or the divisor is 0."""

    kind: Literal["ratio"]
    name: str
    numerator: str = Field(description="Name of a column inside Theracast.")
    denominator: str = Field(description="Name of a column inside Theracast.")
    label: str | None = None
    modality: Modality = "lab"
    unit: str | None = None
    cap: float | tuple[float, float] | None = Field(None, description="Upper cap, or [lower, upper].")
    transform: Literal["none", "log1p"] = "none"
    source: str | None = Field(None, description="Publication.")

    @property
    def cap_range(self) -> tuple[float | None, float | None]:
        """Lower and upper cap; None where there is none."""
        return self.cap if isinstance(self.cap, tuple) else (None, self.cap)


class ScoreSpec(Section):
    """A published score, e.g. loris, as a feature."""

    kind: Literal["score"]
    score: str = Field(description="Name of a built-in published score.")
    inputs: dict[str, str] = Field({}, description="Input of the score to the name of a column, where they differ.")


class ClinicalSpec(Section):
    """A clinical formula, e.g. egfr_ckd_epi_2021, from columns or event features; units are converted."""

    kind: Literal["clinical"]
    score: str = Field(description="Name of a formula: nlr, plr, lipi, grim, egfr_ckd_epi_2021, albi, fib4, bmi, ...")
    name: str | None = Field(None, description="Name of the feature; by default that of the formula.")
    inputs: dict[str, str] = Field(
        {}, description="Input to a column, or an event feature such as creatinine.last.30d."
    )
    constants: dict[str, float] = Field({}, description="Inputs that are one number for all, e.g. {ldh_uln: 250}.")
    transform: Literal["none", "log1p"] = "none"


class InteractionSpec(Section):
    """What a column means under one treatment (or in any one category): it less `centre` there, and 0 elsewhere.

    A linear model gives a column the same weight under every treatment unless it is told so. Of a column that linear models
    see on another scale, both are put on that scale. Missing where the category is unknown, or the column is in that category.
    """

    kind: Literal["interaction"]
    name: str
    column: str = Field(description="Name of a numeric or yes/no column inside Theracast, or of an event feature.")
    category: str = Field(description="Name of the column that says the category, e.g. arm.")
    level: str = Field(description="The category in which the column counts, e.g. atezolizumab.")
    centre: float = Field(
        0.0, description="A usual value, in the unit of the column: whoever lacks the column counts as near it."
    )
    label: str | None = None
    modality: Modality = "treatment"


class HarmoniseSpec(Section):
    """Features that are harmonised over one kind of scanner."""

    batch: str = Field(
        description="Column with the name of the scanner, or images.NAME for that of the last such image."
    )
    features: tuple[str, ...] = Field(
        min_length=1, description="Names of features, * for any ending, e.g. [image.ct.*]; numbers only."
    )


ImageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Derived = Annotated[RatioSpec | ScoreSpec | ClinicalSpec | InteractionSpec, Field(discriminator="kind")]


class FeatureSection(Section):
    """Which columns become features, and which are computed from them."""

    include: tuple[str, ...] | None = Field(None, description="Names of columns; by default all with role `feature`.")
    exclude: tuple[str, ...] = Field((), description="Names of columns to leave out.")
    derived: tuple[Derived, ...] = Field((), description="Ratios, published scores and formulas, interactions.")
    events: tuple[EventFeatures, ...] = Field((), description="Aggregates of events over windows before the decision.")
    therapy: TherapySection | None = Field(None, description="Lines of therapy before the decision, from drug events.")
    markers: tuple[MarkerSection, ...] = Field((), description="Kinetics of tumour markers: doubling time, PSA50, ...")
    kelim: KelimSection | None = Field(None, description="CA-125 elimination rate under chemotherapy.")
    recist: tuple[RecistSection, ...] = Field(
        (), description="Response by RECIST 1.1 so far, from events of single lesions."
    )
    growth: tuple[GrowthSection, ...] = Field((), description="Course and growth of the tumour, from serial diameters.")
    comorbidity: ComorbiditySection | None = Field(None, description="Charlson index, from ICD-10 diagnoses.")
    genes: GeneSection | None = Field(None, description="Mutated genes and pathways, tumour mutational burden.")
    images: dict[ImageName, ImageFeatures] = Field(
        {},
        description="Name of a kind of image (a-z, 0-9, _) to what is measured in it, and what of that becomes a feature.",
    )
    harmonise: tuple[HarmoniseSpec, ...] = Field(
        (), description="Features from which differences between scanners are taken out, inside the training fold."
    )
    missing_indicators: Literal["auto", "none"] | tuple[str, ...] = Field(
        "auto",
        description="Columns for which `was not measured` is a feature of its own; `auto`: those missing in 2 to 98 % "
        "of the development decisions.",
    )

    @property
    def reads_events(self) -> tuple[str, ...]:
        """The keys of this section whose features are made from events."""
        keys = ("events", "therapy", "markers", "kelim", "recist", "growth", "comorbidity", "genes", "images")
        return tuple(key for key in keys if getattr(self, key))

    @property
    def concepts(self) -> dict[str, str]:
        """The concepts that features are made from, each with the key that names it first."""
        starts = [(f"{key}.start", one.start) for key in ("markers", "recist", "growth") for one in getattr(self, key)]
        named = [(key, one.concept) for key in ("events", "markers", "growth") for one in getattr(self, key)]
        named += [(key, start.concept) for key, start in starts if start is not None]
        if self.kelim is not None:
            named += [("kelim", self.kelim.concept), ("kelim.chemotherapy", self.kelim.chemotherapy.concept)]
        return {concept: f"features.{key}" for key, concept in reversed(named)}
