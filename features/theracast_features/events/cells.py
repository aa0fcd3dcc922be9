"""From one row per decision and concept to one row per decision: the step that all engines share."""

from __future__ import annotations

from collections.abc import Callable

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
    values = np.full((len(plan.cells), len(decisions)), np.nan)
    for row, cell in enumerate(plan.cells):
        if cell.aggregate in ("count", "exists"):
            values[row] = 0.0
    # Sorted once, each column of the result is filled from its top to its end.
    order = np.argsort(grouped["place"].to_numpy().astype(np.int64) * len(decisions) + grouped["decision"].to_numpy())
    rows = grouped["decision"].to_numpy()[order]
    place = grouped["place"].to_numpy()[order]
    for aggregate, window, targets in plan.targets:
        found = _computed(aggregate, window, lambda name: grouped[name].to_numpy(), plan.windows[window])[order]
        target = targets[place]
        asked = target >= 0
        values[target[asked], rows[asked]] = found[asked]
    frame = pd.DataFrame(values.T, columns=[spec.name for spec in plan.catalogue], copy=False)
    return FeatureTable(frame=frame, catalogue=plan.catalogue, decisions=decisions.reset_index(drop=True))


def _computed(aggregate: Aggregate, place: int, column: Column, window: int) -> Floats:
    """Return one aggregate in one window for every decision and concept of which it sees an event."""
    if aggregate in ("since_last", "exists"):
        since = column("since")
        inside = since * MICROSECONDS_A_DAY < window - 0.5
        return inside.astype(np.float64) if aggregate == "exists" else np.where(inside, since, np.nan)
    found = column(f"{aggregate}_{place}")
    if aggregate == "outside":
        count = column(f"count_{place}")
        return _ratio(found, count)
    if aggregate in ("mean", "std", "slope"):
        low, high = column(f"min_{place}"), column(f"max_{place}")
        if aggregate == "mean":
            return _on_grid(found, low, high - low)
        if aggregate == "std":
            return _on_grid(found, 0.0, high - low)
        days = column(f"days_{place}")
        return _on_grid(found, 0.0, _ratio(high - low, days))
    return found + 0.0  # -0.0 and 0.0 are one value, and which of them comes first is chance


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
