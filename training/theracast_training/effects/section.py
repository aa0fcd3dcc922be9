"""What a study says of its treatments: the `treatment` section of a study file."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from theracast_data.decisions.windows import DAY, parse_duration
from theracast_data.section import Section
from theracast_data.sources import Cell, NumberRange

Learner = Literal["dr", "x", "t"]
Base = Literal["linear", "boosting"]
LEAST_JUSTIFICATION = 40
"""Characters below which a justification says nothing that a reader could dispute."""


class Subgroup(Section):
    """Patients named before the outcome was seen, in whom the average effect is shown beside the others."""

    column: str = Field(description="Column by its name inside Theracast, e.g. blood_tmb.")
    values: tuple[str, ...] = Field((), description="Categories that belong to it; for a boolean column 0 or 1.")
    at_least: float | None = Field(None, description="Least number, in the column's unit; not capped.")
    at_most: float | None = Field(None, description="Greatest number.")
    label: str | None = Field(None, description="What the report prints.")

    @model_validator(mode="after")
    def _check_rule(self) -> Subgroup:
        if bool(self.values) == (self.at_least is not None or self.at_most is not None):
            raise ValueError("give `values`, or `at_least` and `at_most`")
        return self

    @property
    def name(self) -> str:
        """What the report prints."""
        if self.label:
            return self.label
        rule = ", ".join(self.values) or str(NumberRange(at_least=self.at_least, at_most=self.at_most))
        return f"{self.column}: {rule}"


class TreatmentSection(Section):
    """Which treatments are compared, how they were assigned, and what is asked of the comparison."""

    column: str = Field(
        "$treatment",
        description="`$treatment`: the treatment of the decision; `$site`: the site; or a column by its header or name.",
    )
    arms: dict[str, tuple[Cell, ...]] = Field(
        description="Arm to the cells that mean it; patients of no arm take no part."
    )
    control: str = Field(description="The arm with which every other one is compared.")
    assignment: Literal["randomised", "observational"] = Field(
        description="`randomised` only where chance alone chose the arm. It is never assumed."
    )
    justification: str | None = Field(
        None,
        description="For observational data: why the features control confounding. Without it no effect is printed.",
    )
    probability: dict[str, float] = Field(
        {}, description="Known share of each arm under randomisation; by default the shares that are found."
    )
    strata: tuple[str, ...] = Field((), description="Columns by which the hazard ratio is stratified.")
    endpoint: str | None = Field(None, description="Endpoint that is compared; by default the one that is trained.")
    better: Literal["higher", "lower"] = Field(
        "higher",
        description="Which values are good for the patient: `lower` where the endpoint, or what it calls positive, is a harm. "
        "Of a time to event, the time free of it.",
    )
    horizon: str | None = Field(
        None, description="For a time to event: restricted mean time up to then, e.g. 730d; required there."
    )
    summary: Literal["restricted_mean", "survival"] = Field(
        "restricted_mean",
        description="For a time to event: mean time free of the event up to the horizon (days), or the share free of it.",
    )
    learners: tuple[Learner, ...] = Field(
        ("dr", "x", "t"), min_length=1, description="The first one's verdict counts, the others are shown beside it."
    )
    metric: Literal["autoc", "qini"] = Field(
        "autoc",
        description="The rank metric whose interval decides, chosen before the data are seen: `autoc` sees effects of a few "
        "patients better, `qini` differences that are spread over all.",
    )
    base: Base = Field("linear", description="Models inside the learners: ridge regression or boosted trees.")
    folds: int = Field(5, ge=2, le=20, description="Folds of the cross-fitting.")
    repeats: int = Field(20, ge=1, le=200, description="Random splits into folds; results are medians over them.")
    groups: int = Field(4, ge=2, le=10, description="Groups by predicted effect in which the observed one is shown.")
    subgroups: tuple[Subgroup, ...] = Field((), description="Subgroups named beforehand.")
    seed: int = Field(7, ge=0)

    @model_validator(mode="after")
    def _check_arms(self) -> TreatmentSection:
        if len(self.arms) < 2:
            raise ValueError("`arms` needs two or more, each with the cells that mean it")
        if self.control not in self.arms:
            raise ValueError(f"control: no arm is named {self.control!r}; there are {', '.join(self.arms)}")
        cells = [str(cell) for found in self.arms.values() for cell in found]
        twice = sorted({cell for cell in cells if cells.count(cell) > 1})
        if twice:
            raise ValueError(f"arms: {', '.join(twice)} stands in more than one arm")
        if len(set(self.learners)) != len(self.learners):
            raise ValueError("learners: one is named twice")
        return self

    @model_validator(mode="after")
    def _check_assignment(self) -> TreatmentSection:
        if self.probability:
            if self.assignment != "randomised":
                raise ValueError("probability: only randomised arms have known shares; remove it")
            if set(self.probability) != set(self.arms) or min(self.probability.values()) <= 0:
                raise ValueError("probability: give every arm a share above 0")
            if not math.isclose(sum(self.probability.values()), 1.0, abs_tol=1e-3):
                raise ValueError("probability: the shares must add up to 1")
        if self.justification is not None:
            if self.assignment == "randomised":
                raise ValueError(
                    "justification: randomised arms need none; remove it, or say assignment: observational"
                )
            if len(self.justification) < LEAST_JUSTIFICATION:
                raise ValueError(
                    "justification: say in a sentence what decided the treatment in practice and which features hold it"
                )
        if self.horizon is not None and parse_duration(self.horizon) / DAY <= 0:
            raise ValueError("horizon: must be longer than no time")
        return self

    @property
    def horizon_days(self) -> float | None:
        """The horizon in days."""
        return None if self.horizon is None else parse_duration(self.horizon) / DAY

    @property
    def allows_effects(self) -> bool:
        """Whether a difference between the arms may be called an effect of the treatment."""
        return self.assignment == "randomised" or self.justification is not None

    def arm_of(self, cell: str) -> str | None:
        """Return the arm that a cell means."""
        return next((arm for arm, cells in self.arms.items() if cell in map(str, cells)), None)
