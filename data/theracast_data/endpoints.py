"""What is to be predicted: the `endpoints` section of a study file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from theracast_data.section import Section
from theracast_data.sources import Cell

TimeUnit = Literal["day", "week", "month", "year"]
DAYS_PER: dict[TimeUnit, float] = {"day": 1.0, "week": 7.0, "month": 30.4375, "year": 365.25}


class _Endpoint(Section):
    name: str = Field(description="Short name, e.g. response, os.")
    label: str | None = Field(None, description="What the tumour board reads, e.g. objective response (CR or PR).")
    rule_version: str = Field("1", description="Raise it when the rule of the endpoint changes; stored with the model.")


class FollowUp(Section):
    """Time to an event with right censoring, as raw columns. Exactly one of `event` and `censored` is given."""

    time: str = Field(description="Raw column with the time from the decision to event or censoring.")
    unit: TimeUnit = Field("month", description="Unit of that column; times are kept in days.")
    event: str | None = Field(None, description="Raw column that marks the event.")
    censored: str | None = Field(None, description="Raw column that marks censoring instead.")
    marks: tuple[Cell, ...] = Field((1,), description="Cells of that column which mean event (or censored).")

    @model_validator(mode="after")
    def _check_one_flag(self) -> FollowUp:
        if (self.event is None) == (self.censored is None):
            raise ValueError(
                "give exactly one of `event` (the cell marks an event) and `censored` (it marks censoring)"
            )
        return self


class BinaryEndpoint(_Endpoint):
    """Yes or no: from the cells of a column, or from a follow-up time and a horizon.

    From a follow-up: `event` (or, with `positive: [event_free]`, its absence) within the horizon. A patient censored
    before the horizon is neither; training and evaluation weight the others by the inverse probability of
    censoring instead of dropping that patient in silence.
    """

    kind: Literal["binary"]
    column: str | None = Field(None, description="Raw column, e.g. Response or a RECIST category.")
    positive: tuple[Cell, ...] | Cell = Field((1,), description="Cells that mean yes, e.g. [CR, PR].")
    negative: tuple[Cell, ...] | None = Field(
        None, description="Cells that mean no; by default every other known cell."
    )
    not_evaluable: tuple[Cell, ...] = Field((), description="Cells such as NE.")
    not_evaluable_as: Literal["missing", "negative"] = Field("missing", description="How those count.")
    follow_up: FollowUp | None = Field(None, description="Instead of `column`: time and event columns.")
    horizon: float | None = Field(None, description="Horizon in the unit of the follow-up.")

    @model_validator(mode="after")
    def _check_rule(self) -> BinaryEndpoint:
        if (self.column is None) == (self.follow_up is None):
            raise ValueError("give exactly one of `column` and `follow_up`")
        if (self.follow_up is None) != (self.horizon is None):
            raise ValueError("`follow_up` and `horizon` go together")
        if self.follow_up is not None and not set(self.positives) <= {"event", "event_free"}:
            raise ValueError("with a follow-up, `positive` is event or event_free")
        return self

    @property
    def positives(self) -> tuple[Cell, ...]:
        """The cells that mean yes."""
        if isinstance(self.positive, tuple):
            return ("event",) if self.follow_up is not None and self.positive == (1,) else self.positive
        return (self.positive,)


class TimeToEventEndpoint(_Endpoint, FollowUp):
    """Time to an event with right censoring."""

    kind: Literal["time_to_event"]


class OrdinalEndpoint(_Endpoint):
    """Ordered categories, worst first."""

    kind: Literal["ordinal"]
    column: str
    levels: tuple[Cell, ...] = Field(min_length=2, description="Cells from worst to best, e.g. [PD, SD, PR, CR].")


class ContinuousEndpoint(_Endpoint):
    """A number, e.g. a change from baseline."""

    kind: Literal["continuous"]
    column: str
    unit: str | None = None


Endpoint = Annotated[
    BinaryEndpoint | TimeToEventEndpoint | OrdinalEndpoint | ContinuousEndpoint, Field(discriminator="kind")
]
