"""When a prediction is made, for whom, and what is predicted, all from events: part of the study file."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from theracast_data.decisions.windows import DAY, Window, parse_duration, parse_window
from theracast_data.modality import Modality
from theracast_data.section import Section

Bound = Annotated[float, Field(allow_inf_nan=False)]
LANDMARK = "landmark"
"""Name of the column that says on which day after the trigger the question is asked, where landmarks are declared."""


class ValueCondition(Section):
    """Limits for the number of an event; all that are given must hold. An event without a number never meets them."""

    below: Bound | None = None
    at_most: Bound | None = None
    above: Bound | None = None
    at_least: Bound | None = None
    unit: str | None = Field(None, description="UCUM unit of the limits; values are converted to it.")
    assume_unit: str | None = Field(None, description="UCUM unit of values whose source names none.")
    quantity: str | None = Field(None, description="Analyte, for conversions between mass and substance.")

    @model_validator(mode="after")
    def _check_limits(self) -> ValueCondition:
        if all(limit is None for limit in (self.below, self.at_most, self.above, self.at_least)):
            raise ValueError("give at least one of below, at_most, above and at_least")
        if self.unit is None and self.assume_unit is not None:
            raise ValueError("`assume_unit` needs `unit`, the unit of the limits")
        return self


class EventSelector(Section):
    """Which events are meant: by their codes or by a concept of the study, and by what they say."""

    codes: tuple[str, ...] = Field((), description="Codes as SYSTEM//CODE; a final * stands for any ending.")
    concept: str | None = Field(None, description="Name of a concept of the study, instead of codes.")
    value: ValueCondition | None = Field(None, description="Limits of the number, e.g. {below: 3.5, unit: g/dL}.")
    texts: tuple[str, ...] = Field((), description="Allowed texts of the event, e.g. [Expired]; case is not regarded.")

    @field_validator("codes", mode="before")
    @classmethod
    def _one_code(cls, codes: object) -> object:
        return (codes,) if isinstance(codes, str) else codes

    @field_validator("codes")
    @classmethod
    def _check_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if not code or "*" in code[:-1] or code == "*":
                raise ValueError(f"a code is SYSTEM//CODE, with * at most as its last sign (found {code!r})")
        return codes

    @model_validator(mode="after")
    def _check_one_source(self) -> EventSelector:
        if bool(self.codes) == (self.concept is not None):
            raise ValueError("give exactly one of `codes` and `concept`")
        return self


class TriggerSection(EventSelector):
    """The event that makes a decision due. Events at one moment are one occurrence."""

    occurrence: Literal["first", "each"] | Annotated[int, Field(ge=1)] = Field(
        "first", description="first, each, or the number n of the n-th."
    )
    washout: str | None = Field(
        None, description="e.g. 180d: an occurrence counts only if no trigger event lies less than this before it."
    )
    treatment: dict[str, str] | str | None = Field(
        None, description="Code (a final * stands for any ending) to treatment, or one name; by default the code."
    )

    @field_validator("washout")
    @classmethod
    def _check_washout(cls, washout: str | None) -> str | None:
        return _checked_duration(washout)


class WindowRule(EventSelector):
    """A condition on how many events lie in a window around the trigger. Only what was known by then is counted."""

    name: str = Field(description="What the attrition table says, e.g. albumin below 3.5 g/dL.")
    window: str = Field(description='Both ends written out, e.g. "(-365d, 0d]"; units h, d, w, y; -inf and +inf.')
    at_least: int | None = Field(None, ge=0, description="Fewest events; 1 where neither limit is given.")
    at_most: int | None = Field(None, ge=0, description="Most events; 0: none may be there.")
    distinct: Literal["events", "days"] = Field("events", description="Whether events are counted, or their days.")
    looks_ahead: bool = Field(
        False,
        description="The window may reach past the trigger. Such a rule cannot be checked when a patient is scored, "
        "and selecting by the future makes patients look immortal: for sensitivity analyses only.",
    )

    @model_validator(mode="after")
    def _check_window(self) -> WindowRule:
        if parse_window(self.window).looks_ahead and not self.looks_ahead:
            raise ValueError(
                f"the window {self.window} reaches past the trigger, so the rule would know the future; end it at 0d, "
                "or say `looks_ahead: true` and why that is right"
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("`at_least` is greater than `at_most`; no patient meets that")
        return self

    @property
    def interval(self) -> Window:
        """The window, parsed."""
        return parse_window(self.window)

    @property
    def limits(self) -> tuple[int, int | None]:
        """Fewest and most events."""
        return (1 if self.at_most is None else 0) if self.at_least is None else self.at_least, self.at_most


class ObservationSection(Section):
    """How long a patient must have been observed: from the first to the last dated event, unless codes say it."""

    before: str | None = Field(None, description="Least observation before the trigger, e.g. 365d.")
    after: str | None = Field(
        None, description="Least observation after it. Selects by follow-up: better left to censoring."
    )
    start: EventSelector | None = Field(None, description="Events that open a period of observation.")
    end: EventSelector | None = Field(None, description="Events that close it.")
    complete: EventSelector | None = Field(
        None, description="Events after which nothing is left to observe, such as death: they fulfil `after`."
    )
    ignore: tuple[str, ...] = Field(
        ("MEDS_BIRTH",), description="Codes that do not show that the patient was observed, such as birth."
    )

    @field_validator("before", "after")
    @classmethod
    def _check_duration(cls, length: str | None) -> str | None:
        return _checked_duration(length)


class LandmarkSection(Section):
    """Later days on which the prediction is renewed, for the patients still at risk."""

    days: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="Days after the trigger; 0 is the trigger itself."
    )
    ends: tuple[EventSelector, ...] = Field(
        min_length=1, description="Events of the endpoint: after one of them a patient is no longer at risk."
    )
    last_contact: EventSelector | None = Field(
        None, description="Events that show that the patient is followed; by default every dated event."
    )
    label: str | None = Field(None, description="What the tumour board reads, e.g. Days since the first dose.")

    @field_validator("days")
    @classmethod
    def _sorted_days(cls, days: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(days)))


class AttributeSection(EventSelector):
    """One fact about a patient as known at the decision: what the last visible event of these codes says."""

    take: Literal["text", "number", "code", "years_since"] = Field(
        "text",
        description="code: what follows the last // of the code, e.g. MEDS_GENDER//F gives F; years_since: years of "
        "365.25 days from the first event to the decision, e.g. the age from MEDS_BIRTH.",
    )
    levels: dict[str, str | int | float | bool] = Field(
        {}, description="What was found to what it is called, or to 0/1 for kind: boolean."
    )
    missing: str | None = Field(None, description="The word for not known; by default it stays missing.")


class AttributeColumn(AttributeSection):
    """One fact about a patient as a column of the cohort, like a column of a table.

    A row to be scored may hold a column of that name: a cell that says something is used in place of the events, and is
    read as a cell of a table is, numbers in `unit`.
    """

    label: str | None = Field(None, description="What the tumour board reads; by default made from the name.")
    modality: Modality = Field("clinical", description="Kind of data; models and explanations are grouped by it.")
    role: Literal["feature", "covariate"] = Field(
        "feature", description="`covariate`: kept for audit, subgroups and splits, never given to a model."
    )
    kind: Literal["numeric", "boolean", "categorical"] | None = Field(
        None, description="By default numeric for take: number and years_since, boolean where all `levels` are 0/1."
    )
    unit: str | None = Field(
        None, description="UCUM unit in which the model works; by default the concept's, `a` for years_since."
    )
    assume_unit: str | None = Field(None, description="UCUM unit of values whose source names none.")
    quantity: str | None = Field(None, description="Analyte, for conversions between mass and substance.")
    aliases: tuple[str, ...] = Field((), description="Other headers under which a row to be scored may hold it.")
    cap: float | tuple[float, float] | None = Field(
        None, description="Upper cap, or [lower, upper], in `unit`; features are clipped to it, the audit sees all."
    )
    plausible: tuple[float, float] | None = Field(
        None, description="Clinically possible range in `unit`, for the audit."
    )
    transform: Literal["none", "log1p"] = Field("none", description="Scale on which linear models see the column.")

    @model_validator(mode="after")
    def _check_kind(self) -> AttributeColumn:
        measured = self.take in ("number", "years_since")
        if measured and (self.levels or self.missing is not None or self.kind not in (None, "numeric")):
            raise ValueError(f"take: {self.take} gives a number; remove `levels`, `missing` and `kind`")
        if not measured and self.resolved_kind == "numeric":
            raise ValueError("kind: numeric needs take: number or years_since")
        if not measured and (self.unit is not None or self.assume_unit is not None or self.cap is not None):
            raise ValueError("`unit`, `assume_unit` and `cap` belong to numbers: say take: number, or remove them")
        if self.take == "years_since" and (self.unit is not None or self.assume_unit is not None):
            raise ValueError("take: years_since counts years; remove `unit` and `assume_unit`")
        if self.kind == "boolean" and not self._zero_one:
            raise ValueError("kind: boolean needs `levels` that map what is found to 0 and 1, e.g. {F: 0, M: 1}")
        if self.resolved_kind == "boolean" and self.missing is not None:
            raise ValueError("a boolean attribute has no word for not known; remove `missing`")
        return self

    @property
    def resolved_kind(self) -> Literal["numeric", "boolean", "categorical"]:
        """The type of the column."""
        if self.kind is not None:
            return self.kind
        if self.take in ("number", "years_since"):
            return "numeric"
        return "boolean" if self._zero_one else "categorical"

    @property
    def _zero_one(self) -> bool:
        return bool(self.levels) and all(not isinstance(one, str) and one in (0, 1) for one in self.levels.values())


class DecisionSection(Section):
    """Who is asked about, when: trigger, rules at the trigger, observation, landmarks, site."""

    trigger: TriggerSection
    include: tuple[WindowRule, ...] = Field((), description="A decision must meet all of them.")
    exclude: tuple[WindowRule, ...] = Field((), description="A decision must meet none of them.")
    observation: ObservationSection | None = None
    landmarks: LandmarkSection | None = None
    site: AttributeSection | str = Field("all", description="Where the decision is made: from events, or one name.")
    attributes: dict[str, AttributeColumn] = Field(
        {}, description="Name inside Theracast to a fact of the patient, e.g. age, sex, stage: columns of the cohort."
    )
    same_day: Literal["hidden", "visible"] = Field(
        "hidden", description="Whether what carries a date without clock time is known on the index day itself."
    )

    @field_validator("site")
    @classmethod
    def _check_site(cls, site: AttributeSection | str) -> AttributeSection | str:
        if isinstance(site, AttributeSection) and site.take not in ("text", "code"):
            raise ValueError("a site is a name: say take: text or code")
        return site

    @field_validator("attributes")
    @classmethod
    def _check_names(cls, attributes: dict[str, AttributeColumn]) -> dict[str, AttributeColumn]:
        taken = sorted(
            set(attributes) & {"subject_id", "index_time", "treatment", "site", "calendar", LANDMARK, "events"}
        )
        if taken:
            raise ValueError(f"the decisions have columns of the name {', '.join(taken)} already; choose another")
        wrong = [name for name in attributes if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
        if wrong:
            raise ValueError(f"name attributes in small letters, digits and _ (found {', '.join(wrong)})")
        return attributes


class EndpointEvent(EventSelector):
    """Events that are the outcome when they come after the decision."""

    on_index_day: bool = Field(
        False,
        description="An event of the index day that carries no clock time counts as after the decision: right for "
        "death, wrong for a progression that is the reason of the treatment.",
    )


class NextLine(EventSelector):
    """The next line of therapy: another drug than the decision's treatment, or the same after a pause."""

    kind: Literal["next_line"]
    treatment: dict[str, str] = Field({}, description="Code to treatment, as in the trigger; by default the code.")
    grace: str = Field("28d", description="Drugs begun within this time of the decision belong to the same line.")
    pause: str | None = Field(None, description="e.g. 180d: therapy begun again after so long is a new line.")

    @field_validator("grace", "pause")
    @classmethod
    def _check_duration(cls, length: str | None) -> str | None:
        return _checked_duration(length)


class _EventEndpoint(Section):
    name: str = Field(description="Short name, e.g. response, os.")
    label: str | None = Field(None, description="What the tumour board reads.")
    rule_version: str = Field("1", description="Raise it when the rule changes; stored with the model.")


class FirstEvent(_EventEndpoint):
    """Time from the decision to the first of several events, censored at the last contact."""

    kind: Literal["first_event"]
    events: tuple[NextLine | EndpointEvent, ...] = Field(min_length=1, description="e.g. progression and death.")
    ends_follow_up: EventSelector | None = Field(
        None, description="Events that end follow-up by chance, without being the outcome, such as a move abroad."
    )
    competing: tuple[EventSelector, ...] = Field(
        (),
        description="Events after which the outcome cannot come any more, such as death for progression alone: the answer "
        "is then the chance that the outcome comes by the horizon, before any of these.",
    )
    last_contact: EventSelector | None = Field(
        None, description="Events that show that the patient was followed; by default every dated event."
    )
    horizon: str | None = Field(None, description="e.g. 180d: also the binary endpoint `event within`.")
    positive: Literal["event", "event_free"] = Field("event", description="What 1 means at the horizon.")
    horizons: tuple[str, ...] = Field(
        (), description="Without `horizon`: the times by which the probability of the event is told, e.g. [365d, 180d]."
    )
    event_label: str | None = Field(
        None, description="What happens, as the tumour board reads it, e.g. death; by default `the event`."
    )

    @field_validator("horizon")
    @classmethod
    def _check_duration(cls, length: str | None) -> str | None:
        return _checked_duration(length)

    @field_validator("horizons")
    @classmethod
    def _check_durations(cls, lengths: tuple[str, ...]) -> tuple[str, ...]:
        for length in lengths:
            _checked_duration(length)
        return lengths

    @model_validator(mode="after")
    def _check_competing(self) -> FirstEvent:
        if self.competing and self.horizon is not None and self.positive == "event_free":
            raise ValueError("who had a competing event is not free of the event; say positive: event")
        return self

    @property
    def horizon_days(self) -> float | None:
        """The horizon in days."""
        return None if self.horizon is None else parse_duration(self.horizon) / DAY

    @property
    def horizons_days(self) -> tuple[float, ...]:
        """The horizons in days."""
        return tuple(parse_duration(length) / DAY for length in self.horizons)


class BestResponse(_EventEndpoint):
    """Best overall response within an assessment window: its category, or yes and no.

    Source: RECIST 1.1, Eisenhauer et al., Eur J Cancer 2009;45:228-247, section 4.4.
    """

    kind: Literal["best_response"]
    levels: tuple[str, ...] = Field(("PD", "SD", "PR", "CR"), min_length=2, description="Worst first.")
    categories: dict[str, str] = Field(
        description="Code (a final * stands for any ending), or CODE=TEXT, to a level or NE."
    )
    positive: tuple[str, ...] | None = Field(None, description="Levels that mean 1, e.g. [PR, CR]; else ordinal.")
    window: str = Field(description='Assessments that count, e.g. "(0d, 180d]".')
    least_days: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="Level to the least days from the decision, e.g. {SD: 42}; earlier ones are not evaluable."
    )
    stop_at_worst: bool = Field(True, description="Assessments after the first of the worst level do not count.")
    stop: tuple[EventSelector, ...] = Field((), description="Later assessments do not count, e.g. the next therapy.")
    failure: tuple[EventSelector, ...] = Field(
        (),
        description="Before the window ends and without an assessment before: the worst level, e.g. death. Later "
        "assessments do not count.",
    )

    @model_validator(mode="after")
    def _check_rule(self) -> BestResponse:
        window = parse_window(self.window)
        if window.start is None or window.start < 0 or window.end is None:
            raise ValueError('the assessment window begins at or after 0d and has an end, e.g. "(0d, 180d]"')
        unknown = {*self.categories.values(), *(self.positive or ()), *self.least_days} - {*self.levels, "NE"}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: neither among `levels` nor NE")
        return self


EventEndpoint = Annotated[FirstEvent | BestResponse, Field(discriminator="kind")]


class EventEndpoints(Section):
    """What is predicted, from events after the decision."""

    endpoints: tuple[EventEndpoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> EventEndpoints:
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("two endpoints have the same name; give one of them another")
        return self


def _checked_duration(length: str | None) -> str | None:
    if length is not None:
        parse_duration(length)
    return length
