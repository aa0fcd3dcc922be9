"""The events of a cohort as features, one row per decision, one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.cohort import Cohort
from theracast_data.events.access import KEY
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import empty_events
from theracast_features.events import duckdb_engine
from theracast_features.events.catalogue import event_catalogue
from theracast_features.events.section import EventFeatures
from theracast_features.specs import FeatureTable


def event_table(cohort: Cohort, features: Sequence[EventFeatures]) -> FeatureTable:
    """Return the aggregates of every concept over its windows, as of each decision's index time.

    Only what was known at the index time is seen; a decision without index time sees nothing.
    """
    if cohort.events is None:
        raise ValueError("the cohort was read without its events")
    catalogue = event_catalogue(features, cohort.events.concepts)
    concepts = {one.concept: cohort.events.concepts[one.concept] for one in features}
    compute = _engine(cohort.events.engine)
    keys = cohort.decisions[KEY].astype("str")
    waiting = np.ones(len(cohort), dtype=bool)
    parts: list[pd.DataFrame] = []

    def build(events: pa.Table, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> FeatureTable:
        normal, _ = concept_events(events, concepts)
        asked = pd.DataFrame({"subject_id": keys.iloc[rows], "index_time": cohort.decisions["index_time"].iloc[rows]})
        return compute(normal, asked.reset_index(drop=True), features, concepts)

    for shard in cohort.events.shards():
        rows = np.flatnonzero(waiting & keys.isin(pc.unique(shard["subject_id"]).to_pylist()).to_numpy())
        if len(rows):
            waiting[rows] = False
            parts.append(build(shard, rows).frame.set_axis(rows))
    if waiting.any() or not parts:
        without = np.flatnonzero(waiting)
        parts.append(build(empty_events(), without).frame.set_axis(without))
    frame = parts[0] if len(parts) == 1 else pd.concat(parts).sort_index()
    return FeatureTable(frame=frame.reset_index(drop=True), catalogue=catalogue, decisions=cohort.decisions)


def _engine(name: Literal["duckdb", "spark"]) -> Callable[..., FeatureTable]:
    if name == "spark":
        from theracast_features.events import spark_engine  # an extra that most installations lack

        return spark_engine.event_features
    return duckdb_engine.event_features
