"""The study: one YAML file, the whole question. Sections live beside the code they configure; here they come together."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from theracast_data.audit.section import Acceptance
from theracast_data.endpoints import Endpoint
from theracast_data.errors import StudyError
from theracast_data.section import Section, describe_faults
from theracast_data.sources import Inputs, TableSource
from theracast_features.section import FeatureSection

FamilyName = Literal["elasticnet", "lightgbm", "stack"]


class SchemeSection(Section):
    """How the development decisions are split for tuning (inner) and for judging the whole procedure (outer)."""

    outer: int = Field(5, ge=0, description="Outer folds; 0 leaves nested cross-validation out.")
    inner: int = Field(5, ge=2, description="Inner folds.")
    repeats: int = Field(1, ge=1, description="Repeats of the outer split.")
    by: Literal["subject", "site", "time"] = Field(
        "subject",
        description="`subject`: stratified, a patient in one fold only; `site`: leave sites out; `time`: forward.",
    )


class ValidationSection(Section):
    """Who develops the model and who judges it."""

    development: tuple[str, ...] = Field((), description="Sites; by default all that are not external.")
    external: tuple[str, ...] = Field((), description="Sites never seen in development.")
    scheme: SchemeSection = Field(SchemeSection())


class SearchSection(Section):
    """What is tried."""

    families: tuple[FamilyName, ...] = Field(("elasticnet", "lightgbm", "stack"), min_length=1)
    trials: int = Field(50, ge=1, description="Trials a family.")
    seed: int = Field(7, ge=0)
    one_standard_error: bool = Field(
        True, description="Prefer the simplest family within one standard error of the best."
    )
    replicates: int = Field(40, ge=10, description="Bootstrap refits behind the interval of each probability.")


class GateSection(Section):
    """What a version must show before it may become champion; what is not given comes from mlflow/gates.yaml."""

    auc_lower: float | None = Field(
        None, ge=0, le=1, description="Least lower bound of the AUC, pooled over external sites."
    )
    calibration_slope: tuple[float, float] | None = Field(None, description="Allowed calibration slope.")
    calibration_intercept: tuple[float, float] | None = Field(None, description="Allowed calibration intercept.")
    beats: Literal["champion", "none"] | None = Field(None, description="Must not be worse than the present champion.")


class ReportSection(Section):
    """What the reports show."""

    thresholds: tuple[float, ...] = Field((0.2, 0.3, 0.5), description="Probabilities at which decisions are judged.")
    decision_range: tuple[float, float] = Field((0.05, 0.6), description="Range of the decision curve.")
    bootstrap: int = Field(1000, ge=100, description="Resamples behind every interval of a metric.")


class Study(Section):
    """One question, asked of one cohort."""

    study: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name; also the model's name in the registry."
    )
    question: str = Field(description="The question in a sentence.")
    sources: tuple[TableSource, ...] = Field(min_length=1)
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, description="The first one is trained unless `primary` says so."
    )
    primary: str | None = Field(None, description="Name of the endpoint that is trained.")
    features: FeatureSection = Field(FeatureSection())
    validation: ValidationSection = Field(ValidationSection())
    search: SearchSection = Field(SearchSection())
    baselines: tuple[str, ...] = Field((), description="Published scores to compare with, e.g. [loris].")
    gates: GateSection = Field(GateSection())
    report: ReportSection = Field(ReportSection())
    accept: tuple[Acceptance, ...] = Field(
        (), description="Audit findings that are known and accepted, with the reason."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Study:
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("two endpoints have the same name")
        if self.primary is not None and self.primary not in names:
            raise ValueError(f"primary: no endpoint is named {self.primary!r}; there are {', '.join(names)}")
        both = set(self.validation.development) & set(self.validation.external)
        if both:
            raise ValueError(f"validation: {', '.join(sorted(both))} cannot be both development and external")
        return self

    @property
    def inputs(self) -> Inputs:
        """The part that travels inside the model."""
        return Inputs(sources=self.sources)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is trained."""
        return next((one for one in self.endpoints if one.name == self.primary), self.endpoints[0])
