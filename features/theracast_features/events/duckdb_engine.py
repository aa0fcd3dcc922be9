"""Features of events on one machine: the SQL text on DuckDB, over one shard of patients in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from theracast_data.events.concepts import Concept
from theracast_features.events.catalogue import EventPlan, plan_features
from theracast_features.events.cells import engine_decisions, engine_events, feature_table
from theracast_features.events.section import EventFeatures
from theracast_features.events.sql import DUCKDB, event_sql
from theracast_features.specs import FeatureTable

SMALL = 20_000
"""Events below which one thread answers sooner than several."""


def event_features(
    events: pa.Table, decisions: pd.DataFrame, features: Sequence[EventFeatures], concepts: Mapping[str, Concept]
) -> FeatureTable:
    """Return one row per decision: each concept's aggregates over its windows, as of the decision's index time.

    What lies or became known after `index_time` is dropped here; the caller is not trusted to. At one timestamp, `last`
    is the largest and `first` the smallest value. `mean`, `std` and `slope` are given to 2**-24 of the range of the
    values, so that no order of rows, split into shards or engine shows in a cell.

    Args:
        events: all events of the decisions' patients, with `concept` and `value` as `concept_events` gives them.
        decisions: `subject_id` and `index_time`; a patient may have several. One without index time sees nothing.
        features: concepts, windows, aggregates.
        concepts: name to concept, for units, labels and reference ranges.

    Raises:
        StudyError: an unknown concept, or a feature twice.
        SchemaError: a column is missing or of another kind.
    """
    plan = plan_features(features, concepts)
    return feature_table(_grouped(events, decisions, plan), decisions, plan)


def _grouped(events: pa.Table, decisions: pd.DataFrame, plan: EventPlan) -> pa.Table:
    small = events.num_rows < SMALL
    with _database(os.getpid(), 1 if small else 0).cursor() as cursor:
        cursor.register("events", engine_events(events))
        cursor.register("decisions", engine_decisions(decisions))
        cursor.register("wanted", plan.wanted)
        query = event_sql(plan, DUCKDB)
        if not small:
            return cursor.sql(query).to_arrow_table()
        # `sql` plans a query twice; `execute` does it once but has only numpy's way out, which copies.
        found = cursor.execute(query).fetchnumpy()
    return pa.table(
        {name: np.ma.filled(column, np.nan) if column.dtype.kind == "f" else column for name, column in found.items()}
    )


@lru_cache(maxsize=2)
def _database(_process: int, threads: int) -> duckdb.DuckDBPyConnection:
    """Return the empty in-memory database of this process; opening one takes longer than the features of a patient."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    return duckdb.connect(config=settings | ({"threads": threads} if threads else {}))
