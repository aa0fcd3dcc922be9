"""Features of events on a cluster: the same SQL text on Spark (extra `theracast[spark]`, Java 17)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_features.events.catalogue import EventPlan, plan_features
from theracast_features.events.cells import engine_decisions, engine_events, feature_table
from theracast_features.events.section import EventFeatures
from theracast_features.events.sql import SPARK, event_sql
from theracast_features.specs import FeatureTable

SCRATCH = "spark.theracast.scratch"
"""Setting of Spark, so that `spark-submit --conf` can say where a cluster has its shared storage."""


def event_features(
    events: pa.Table,
    decisions: pd.DataFrame,
    features: Sequence[EventFeatures],
    concepts: Mapping[str, Concept],
    *,
    session: Any = None,
    scratch: Path | None = None,
) -> FeatureTable:
    """Return what `duckdb_engine.event_features` returns, computed by Spark: cell by cell the same.

    Args:
        events: as for DuckDB.
        decisions: as for DuckDB.
        features: as for DuckDB.
        concepts: as for DuckDB.
        session: the SparkSession; by default the one that runs (as under `spark-submit`), or a local one.
        scratch: folder for exchange that the driver and all executors can reach; by default what the session's setting
            `spark.theracast.scratch` names, else this machine's own.

    Raises:
        StudyError: pyspark is not installed; or as for DuckDB.
        SchemaError: as for DuckDB.
    """
    plan = plan_features(features, concepts)
    session = session or _session()
    scratch = scratch or session.conf.get(SCRATCH, None)
    tables = {"events": engine_events(events), "decisions": engine_decisions(decisions), "wanted": plan.wanted}
    with tempfile.TemporaryDirectory(dir=scratch, prefix="theracast-spark-") as folder:
        grouped = _grouped(tables, plan, session=session, folder=Path(folder))
    return feature_table(grouped, decisions, plan)


def _grouped(tables: Mapping[str, pa.Table], plan: EventPlan, *, session: Any, folder: Path) -> pa.Table:
    own = session.newSession()  # views and settings of its own, on the same cluster
    own.conf.set("spark.sql.session.timeZone", "UTC")  # events are in the hospital's own time: no hour may be moved
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        pq.write_table(table, path)
        own.read.parquet(path.as_uri()).createOrReplaceTempView(name)
    # By Parquet and not by toArrow(), which asks for a pandas that Spark knows.
    out = folder / "grouped"
    own.sql(event_sql(plan, SPARK)).write.parquet(out.as_uri())
    return pq.read_table(out)


def _session() -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise StudyError(
            "engine: spark needs pyspark, which is not installed. Run pip install 'theracast[spark]' (and install Java 17), "
            "or choose engine: duckdb."
        ) from error
    return SparkSession.builder.appName("theracast").getOrCreate()
