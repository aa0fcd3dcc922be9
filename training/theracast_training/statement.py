"""What only people can tell of a study: the `statement` section, from which reporting checklists are answered."""

from __future__ import annotations

from pydantic import Field

from theracast_data.section import Section


class StatementSection(Section):
    """Sentences that go into the report as they stand; what is left out is told as not answered."""

    context: str | None = Field(None, description="Why the model is developed, and which models there are already.")
    intended_use: str | None = Field(None, description="For whom the model is meant, where in care, and who uses it.")
    inequalities: str | None = Field(None, description="Known inequalities of health between groups of such patients.")
    design: str | None = Field(None, description="What the data are: a trial, a cohort, a registry; and why these.")
    setting: str | None = Field(None, description="Kind, number and places of the centres.")
    accrual: str | None = Field(None, description="First and last day of accrual, and the end of follow-up.")
    eligibility: str | None = Field(None, description="Who was eligible, beyond what `include` says.")
    treatments: str | None = Field(None, description="Which treatments were given, and how they were dealt with.")
    outcome_assessment: str | None = Field(
        None, description="How, when and by whom the outcome was assessed, and whether alike for all."
    )
    outcome_blinded: str | None = Field(None, description="Whether the outcome was assessed without the predictors.")
    predictor_assessment: str | None = Field(None, description="How, when and by whom predictors were measured.")
    predictors_blinded: str | None = Field(None, description="Whether predictors were measured without the outcome.")
    predictor_choice: str | None = Field(None, description="Why these predictors were looked at.")
    ethics: str | None = Field(None, description="Committee that approved the study, and consent or its waiver.")
    funding: str | None = Field(None, description="Who paid, and what part they had.")
    conflicts: str | None = Field(None, description="Conflicts of interest of the authors.")
    protocol: str | None = Field(None, description="Where the protocol is, or that there is none.")
    registration: str | None = Field(None, description="Register and number, or that it is not registered.")
    data_sharing: str | None = Field(None, description="Where the data can be had.")
    code_sharing: str | None = Field(None, description="Where the code can be had.")
    involvement: str | None = Field(None, description="What part patients and the public had, or that they had none.")
    interpretation: str | None = Field(None, description="What the results mean beside those of other studies.")
    users: str | None = Field(None, description="What users must do and know to use the model.")
    next_steps: str | None = Field(None, description="What is to be done before and after the model is used.")
