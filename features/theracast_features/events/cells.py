"""From one row per decision and concept to one row per decision: the step that all engines share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from theracast_data.errors import SchemaError
from theracast_features.events.catalogue import EventPlan
from theracast_features.events.section import Aggregate
from theracast_features.events.sql import MICROSECONDS_A_DAY
from theracast_features.specs import FeatureTable

Floats = NDArray[np.float64]
Column = Callable[[str], Floats]

ENGINE_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.string()),
        pa.field("time", pa.timestamp("us")),
        pa.field("available_time", pa.timestamp("us")),
        pa.field("concept", pa.string()),
        pa.field("value", pa.float64()),
    ]
)
BITS = 24
"""Means, standard deviations and slopes are given to 2**-24 of the values' range, about the precision of float32.

Sums of floating-point numbers depend in their last bits on the order of summation, which differs between engines, threads
and shards. Rounding to a grid that depends on the values alone takes this away from the result.
"""


def engine_events(events: pa.Table) -> pa.Table:
    """Return the columns that the engines read, in the types that they expect.

    Raises:
        SchemaError: a column is missing or of another kind.
    """
    lacking = [name for name in ENGINE_SCHEMA.names if name not in events.column_names]
    if lacking:
        raise SchemaError(
            f"the events have no column {', '.join(lacking)}. Pass events as concept_events returns them: with `concept` "
            "and `value`."
        )
    chosen = events.select(ENGINE_SCHEMA.names)
    if chosen.schema.equals(ENGINE_SCHEMA):
        return chosen
    return chosen.cast(ENGINE_SCHEMA, safe=False)


def engine_decisions(decisions: pd.DataFrame) -> pa.Table:
    """Return the decisions with their number; one without index time stays and sees nothing.

    Raises:
        SchemaError: `index_time` is no date, or carries a time zone that events do not have.
    """
    times = decisions["index_time"]
    if len(times) and times.isna().all():
        times = pd.Series(np.full(len(times), np.datetime64("NaT"), dtype="datetime64[us]"))
    if len(times) and not pd.api.types.is_datetime64_dtype(times):
        raise SchemaError(
            f"index_time of the decisions must be a date without time zone (found {times.dtype}). Events are in the "
            "hospital's own time: use dt.tz_localize(None) on it."
        )
    subjects = decisions["subject_id"].astype("str")
    return pa.table(
        {
            "decision": pa.array(np.arange(len(decisions)), pa.int64()),
            "subject_id": pa.array(subjects, pa.string(), from_pandas=True),
            "index_time": pa.array(times.to_numpy(dtype="datetime64[us]"), pa.timestamp("us")),
        }
    )


def feature_table(grouped: pa.Table, decisions: pd.DataFrame, plan: EventPlan) -> FeatureTable:
    """Return one row per decision, in their order, from the rows that the SQL text gives in any order."""
    count = len(decisions)
    values = np.full((len(plan.cells), count), np.nan)
    values[plan.nought] = 0.0
    flat = values.reshape(-1)
    # Sorted once, each column of the result is filled from its top to its end.
    order = np.argsort(grouped["place"].to_numpy().astype(np.int64) * count + grouped["decision"].to_numpy())
    rows = grouped["decision"].to_numpy()[order]
    place = grouped["place"].to_numpy()[order]
    since = grouped["since"].to_numpy()[order]
    for window, targets in enumerate(plan.targets):
        # A short window sees few of the rows; the others have nothing to say in it.
        inside = np.flatnonzero(since * MICROSECONDS_A_DAY < plan.windows[window] - 0.5)
        own, own_rows, own_place = order[inside], rows[inside], place[inside]
        column = _columns(grouped, own)
        for aggregate, target_of in targets:
            found = _computed(aggregate, window, column)
            target = target_of[own_place]
            asked = target >= 0
            if asked.all():
                flat[target * count + own_rows] = found
            else:
                flat[target[asked] * count + own_rows[asked]] = found[asked]
    frame = pd.DataFrame(values.T, columns=[spec.name for spec in plan.catalogue], copy=False)
    return FeatureTable(frame=frame, catalogue=plan.catalogue, decisions=decisions.reset_index(drop=True))


def _columns(grouped: pa.Table, rows: NDArray[np.intp]) -> Column:
    """Return what gives these rows of a column of the result, null as NaN; each is made once."""

    @cache
    def column(name: str) -> Floats:
        taken: Floats = grouped[name].to_numpy()[rows]
        return taken

    return column


def _computed(aggregate: Aggregate, place: int, column: Column) -> Floats:
    """Return one aggregate in one window for the decisions and concepts of which it sees an event."""
    if aggregate == "since_last":
        return column("since")
    if aggregate == "exists":
        return np.ones(len(column("since")))
    if aggregate == "interval":
        return column(f"days_{place}")
    if aggregate in ("change", "relative_change", "change_per_day"):
        return _change(aggregate, place, column)
    found = column(f"{aggregate}_{place}")
    if aggregate == "outside":
        return _ratio(found, column(f"count_{place}"))
    if aggregate in ("mean", "std", "slope"):
        low, high = column(f"min_{place}"), column(f"max_{place}")
        if aggregate == "mean":
            return _on_grid(found, low, high - low)
        if aggregate == "std":
            return _on_grid(found, 0.0, high - low)
        return _on_grid(found, 0.0, _ratio(high - low, column(f"days_{place}")))
    return found + 0.0  # -0.0 and 0.0 are one value, and which of them comes first is chance


def _change(aggregate: Aggregate, place: int, column: Column) -> Floats:
    """Return how the last value differs from the first; missing where all values are of one moment."""
    first, days = column(f"first_{place}"), column(f"days_{place}")
    change = np.where(days > 0, column(f"last_{place}") - first, np.nan) + 0.0
    if aggregate == "change":
        return change
    if aggregate == "change_per_day":
        return _ratio(change, days)
    with np.errstate(over="ignore"):
        relative = _ratio(change, first)
    return np.where(np.isfinite(relative), relative, np.nan)


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _on_grid(found: Floats, origin: Floats | float, scale: Floats) -> Floats:
    """Return the numbers rounded to steps of 2**-BITS of the power of two at or above `scale`, counted from `origin`."""
    _, exponent = np.frexp(scale)
    step = np.ldexp(1.0, np.maximum(exponent - BITS, -1074))
    with np.errstate(invalid="ignore", divide="ignore"):
        near = origin + np.round((found - origin) / step) * step
    # Without range all values are the same: that value is the mean, and nothing varies.
    return np.where(scale > 0, near, found * 0.0 + origin) + 0.0
