"""What is to be predicted: the `endpoints` section of a study file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from theracast_data.decisions.section import BestResponse, FirstEvent
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


TableEndpoint = BinaryEndpoint | TimeToEventEndpoint | OrdinalEndpoint | ContinuousEndpoint
"""From raw columns of a table."""
EventEndpoint = FirstEvent | BestResponse
"""From the events after a decision."""
Endpoint = Annotated[TableEndpoint | EventEndpoint, Field(discriminator="kind")]
TrainableEndpoint = BinaryEndpoint | FirstEvent | BestResponse
"""May be yes or no: a first event if it has a horizon, a best response if it says which levels are positive."""

_ENDPOINT: TypeAdapter[Endpoint] = TypeAdapter(Endpoint)


def endpoint_from_json(record: object) -> Endpoint:
    """Return the endpoint of a record that `model_dump` made."""
    return _ENDPOINT.validate_python(record)


def is_binary(endpoint: Endpoint) -> bool:
    """Return whether the endpoint is yes or no."""
    if isinstance(endpoint, FirstEvent):
        return endpoint.horizon is not None
    if isinstance(endpoint, BestResponse):
        return endpoint.positive is not None
    return isinstance(endpoint, BinaryEndpoint)


def event_endpoints(endpoints: Iterable[Endpoint]) -> list[EventEndpoint]:
    """Return those of the endpoints that come from events."""
    return [one for one in endpoints if isinstance(one, FirstEvent | BestResponse)]


def table_endpoints(endpoints: Iterable[Endpoint]) -> list[TableEndpoint]:
    """Return those of the endpoints that come from columns of a table."""
    return [one for one in endpoints if not isinstance(one, FirstEvent | BestResponse)]


def as_table_endpoint(endpoint: Endpoint) -> TableEndpoint:
    """Return an endpoint of the same meaning and format in `Cohort.endpoints`, as if it came from columns of a table."""
    about: dict[str, Any] = {"name": endpoint.name, "label": endpoint.label, "rule_version": endpoint.rule_version}
    if isinstance(endpoint, BestResponse):
        if endpoint.positive is None:
            return OrdinalEndpoint(kind="ordinal", column=endpoint.name, levels=endpoint.levels, **about)
        return BinaryEndpoint(kind="binary", column=endpoint.name, **about)
    if not isinstance(endpoint, FirstEvent):
        return endpoint
    followed = FollowUp(time=f"{endpoint.name}.time", event=f"{endpoint.name}.event", unit="day")
    if endpoint.horizon_days is None:
        return TimeToEventEndpoint(kind="time_to_event", **followed.model_dump(), **about)
    return BinaryEndpoint(
        kind="binary", follow_up=followed, horizon=endpoint.horizon_days, positive=(endpoint.positive,), **about
    )
