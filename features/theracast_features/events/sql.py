"""The one SQL text of event features: from events and decisions to one row per decision and concept, in every engine.

An event is visible to a decision where `index_time - window < time <= index_time` and it was available by `index_time`.
The text holds numbers and names of its own making only: names of concepts are data, in the table `wanted`.
"""

from __future__ import annotations

from dataclasses import dataclass

from theracast_features.events.catalogue import EVER, EventPlan
from theracast_features.events.section import Aggregate

LARGEST = 1e100
"""Values beyond it are missing, like NaN: no quantity is so large, and their squares would not be numbers."""

MICROSECONDS_A_DAY = 86_400_000_000

_CHANGES: frozenset[Aggregate] = frozenset({"change", "relative_change", "change_per_day"})
_LAST: frozenset[Aggregate] = _CHANGES | {"last"}
_FIRST: frozenset[Aggregate] = _CHANGES | {"first"}


@dataclass(frozen=True)
class Dialect:
    """The two places in which engines word things differently.

    Attributes:
        micros: a timestamp as integer microseconds.
        pair: two values that order as (t, v).
    """

    micros: str
    pair: str


DUCKDB = Dialect(micros="epoch_us({})", pair="struct_pack(t := {}, v := {})")
SPARK = Dialect(micros="unix_micros(cast({} as timestamp))", pair="struct({} as t, {} as v)")


def event_sql(plan: EventPlan, dialect: Dialect) -> str:
    """Return the query over the tables `events`, `decisions` and `wanted`.

    It gives `decision`, `place` (of the concept), `since` (days from the last event) and for each window i that needs it
    `last_i, first_i, min_i, max_i, mean_i, std_i, slope_i, count_i, outside_i` (a number of values) and `days_i` (from the
    first value to the last). Only pairs of decision and concept with a visible event have a row.
    """
    before = f"{dialect.micros.format('d.index_time')} - {dialect.micros.format('e.time')}"
    bounded = [(place, length) for place, length in enumerate(plan.windows) if length < EVER]
    values = [
        f"case when age < {length} then v end as v{place}, case when age < {length} and v is not null then age end as a{place}"
        for place, length in bounded
    ] + [f"v as v{place}, case when v is not null then age end as a{place}" for place in _unbounded(plan)]
    sums = [sum_ for place, need in enumerate(plan.needs) for sum_ in _aggregates(place, need, dialect)]
    newest = any(need & _LAST for need in plan.needs)
    # The windows all end at the decision, so the last value of a window is the last of all, if it is young enough.
    lasts = [
        f"case when newest.t > -{length} then newest.v end as last_{place}"
        for place, length in enumerate(plan.windows)
        if plan.needs[place] & _LAST
    ]
    firsts = [f"oldest_{place}.v as first_{place}" for place, need in enumerate(plan.needs) if need & _FIRST]
    plain = [sum_.rsplit(" as ", 1)[1] for sum_ in sums if " as oldest_" not in sum_]
    return f"""with seen as (
  select d.decision, w.place, w.low, w.high, {before} as age,
    case when abs(e.value) <= {LARGEST!r} then e.value end as v
  from decisions d
  join events e on e.subject_id = d.subject_id
  join wanted w on w.concept = e.concept
  where e.time <= d.index_time and coalesce(e.available_time, e.time) <= d.index_time
    and {before} < w.reach
), windowed as (
  select decision, place, low, high, age, {dialect.pair.format("-age", "v")} as dated, v,
    {_lines(values)}
  from seen
), grouped as (
  select decision, place, min(age) as youngest{", max(case when v is not null then dated end) as newest" if newest else ""}
    {"".join(f", {sum_}" + chr(10) + "    " for sum_ in sums).rstrip()}
  from windowed
  group by decision, place
)
select decision, place, cast(youngest as double) / {MICROSECONDS_A_DAY}.0 as since
    {"".join(f", {column}" + chr(10) + "    " for column in [*lasts, *firsts, *plain]).rstrip()}
from grouped
"""


def _unbounded(plan: EventPlan) -> list[int]:
    return [place for place, length in enumerate(plan.windows) if length >= EVER]


def _lines(parts: list[str]) -> str:
    return ",\n    ".join(parts)


def _aggregates(place: int, need: frozenset[Aggregate], dialect: Dialect) -> list[str]:
    """Return the aggregates of one window, in an order of their own so that the text is the same for the same needs."""
    v, a = f"v{place}", f"a{place}"
    ranged = bool(need & {"mean", "std", "slope"})  # what is rounded needs the range of the values
    parts = []
    if need & _FIRST:
        parts.append(f"min(case when {v} is not null then dated end) as oldest_{place}")
    if "min" in need or ranged:
        parts.append(f"min({v}) as min_{place}")
    if "max" in need or ranged:
        parts.append(f"max({v}) as max_{place}")
    if "mean" in need:
        parts.append(f"avg({v}) as mean_{place}")
    if "std" in need:
        parts.append(f"stddev_samp({v}) as std_{place}")
    if "slope" in need:
        # Microseconds are whole numbers, exact as doubles; both engines centre them before they multiply.
        slope = f"regr_slope({v}, cast(-{a} as double)) * {MICROSECONDS_A_DAY}.0"
        parts.append(f"case when min({a}) < max({a}) then {slope} end as slope_{place}")
    if need & {"slope", "interval", *_CHANGES}:
        parts.append(f"cast(max({a}) - min({a}) as double) / {MICROSECONDS_A_DAY}.0 as days_{place}")
    if need & {"count", "outside"}:
        parts.append(f"cast(count({v}) as double) as count_{place}")
    if "outside" in need:
        parts.append(f"cast(count(case when {v} < low or {v} > high then 1 end) as double) as outside_{place}")
    return parts
