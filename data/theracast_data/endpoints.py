"""What is to be predicted: the `endpoints` section of a study file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from theracast_data.decisions.section import BestResponse, FirstEvent
from theracast_data.section import Section
from theracast_data.sources import Cell
from theracast_data.spelling import cell_key

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
    competing: tuple[Cell, ...] = Field(
        (),
        description="Cells of the `event` column that mark a competing event, after which the event cannot come any more, "
        "e.g. [2] or [died of other causes].",
    )

    @model_validator(mode="after")
    def _check_competing(self) -> FollowUp:
        if self.competing and self.event is None:
            raise ValueError("`competing` names cells of the `event` column; say `event`, not `censored`")
        both = {cell_key(cell) for cell in self.competing} & {cell_key(cell) for cell in self.marks}
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: among `marks` and `competing`; a cell means one of the two")
        return self

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
        if self.follow_up is not None and self.follow_up.competing and "event_free" in self.positives:
            raise ValueError("who had a competing event is not free of the event; say positive: event")
        return self

    @property
    def positives(self) -> tuple[Cell, ...]:
        """The cells that mean yes."""
        if isinstance(self.positive, tuple):
            return ("event",) if self.follow_up is not None and self.positive == (1,) else self.positive
        return (self.positive,)


class TimeToEventEndpoint(_Endpoint, FollowUp):
    """Time to an event with right censoring, and with competing events where some are named.

    With competing events the answer is the chance that the event comes by the horizon and nothing else came before it: a
    patient who died cannot progress any more, and is not one whose follow-up ended by chance.
    """

    kind: Literal["time_to_event"]
    horizons: tuple[float, ...] = Field(
        (),
        description="In the unit of the times, e.g. [12, 24]: the probability of the event by then is told, and judged; the "
        "first one leads. By default a year, half a year and two years, as far as patients were followed.",
    )
    event_label: str | None = Field(
        None,
        description="What happens, as the tumour board reads it, e.g. death; by default death for the name os, progression or "
        "death for pfs, else `the event`.",
    )

    @model_validator(mode="after")
    def _check_horizons(self) -> TimeToEventEndpoint:
        if any(horizon <= 0 for horizon in self.horizons) or len(set(self.horizons)) < len(self.horizons):
            raise ValueError("`horizons` are times after the decision, each once")
        return self


class OrdinalEndpoint(_Endpoint):
    """Ordered categories, worst first."""

    kind: Literal["ordinal"]
    column: str
    levels: tuple[Cell, ...] = Field(min_length=2, description="Cells from worst to best, e.g. [PD, SD, PR, CR].")
    not_evaluable: tuple[Cell, ...] = Field((), description="Cells such as NE, which tell nothing.")
    at_least: Cell | None = Field(
        None, description="The chance of this level or a better one leads; by default that of the better half, e.g. PR."
    )

    @model_validator(mode="after")
    def _check_at_least(self) -> OrdinalEndpoint:
        if self.at_least is not None and self.at_least not in self.levels[1:]:
            raise ValueError("`at_least` is one of the `levels` but the worst")
        return self


class ContinuousEndpoint(_Endpoint):
    """A number, or the change from one at the decision to a later one."""

    kind: Literal["continuous"]
    column: str
    baseline: str | None = Field(
        None, description="Raw column of the same number at the decision: the endpoint is the change from it."
    )
    unit: str | None = None


TableEndpoint = BinaryEndpoint | TimeToEventEndpoint | OrdinalEndpoint | ContinuousEndpoint
"""From raw columns of a table."""
EventEndpoint = FirstEvent | BestResponse
"""From the events after a decision."""
Endpoint = Annotated[TableEndpoint | EventEndpoint, Field(discriminator="kind")]
EndpointKind = Literal["binary", "time_to_event", "ordinal", "continuous"]

_EVENTS = {"os": "death", "pfs": "progression or death", "dfs": "recurrence or death"}
"""What ends the times that every oncologist calls by these names."""
_ENDPOINT: TypeAdapter[Endpoint] = TypeAdapter(Endpoint)


def endpoint_from_json(record: object) -> Endpoint:
    """Return the endpoint of a record that `model_dump` made."""
    return _ENDPOINT.validate_python(record)


def kind_of(endpoint: Endpoint) -> EndpointKind:
    """Return what is predicted: a first event with a horizon, or a best response with positive levels, is yes or no."""
    return as_table_endpoint(endpoint).kind


def is_binary(endpoint: Endpoint) -> bool:
    """Return whether the endpoint is yes or no."""
    return kind_of(endpoint) == "binary"


def horizon_days(endpoint: Endpoint) -> tuple[float, ...]:
    """Return the horizons in days that a time to an event asks for; none for other endpoints."""
    if isinstance(endpoint, TimeToEventEndpoint):
        return tuple(horizon * DAYS_PER[endpoint.unit] for horizon in endpoint.horizons)
    return endpoint.horizons_days if isinstance(endpoint, FirstEvent) else ()


def event_label(endpoint: Endpoint) -> str:
    """Return what happens at the end of a time to an event, in words: `death`, `progression or death`, `the event`."""
    given = getattr(endpoint, "event_label", None)
    return given or _EVENTS.get(endpoint.name.lower(), "the event")


def level_names(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the ordered levels, worst first; none for other endpoints."""
    table = as_table_endpoint(endpoint)
    return tuple(map(str, table.levels)) if isinstance(table, OrdinalEndpoint) else ()


def main_level(endpoint: Endpoint) -> int:
    """Return the position of the level that the leading answer reaches: the chance of it or a better one is told first."""
    table = as_table_endpoint(endpoint)
    if not isinstance(table, OrdinalEndpoint):
        return 1
    return (len(table.levels) + 1) // 2 if table.at_least is None else table.levels.index(table.at_least)


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
    competing = (2,) if endpoint.competing else ()
    followed = FollowUp(time=f"{endpoint.name}.time", event=f"{endpoint.name}.event", unit="day", competing=competing)
    if endpoint.horizon_days is None:
        return TimeToEventEndpoint(
            kind="time_to_event", event_label=endpoint.event_label, **followed.model_dump(), **about
        )
    return BinaryEndpoint(
        kind="binary", follow_up=followed, horizon=endpoint.horizon_days, positive=(endpoint.positive,), **about
    )
