"""The same SQL text on Spark, with two worker processes, gives the same cells as on DuckDB."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.events.concepts import Concept
from theracast_features.events import duckdb_engine, spark_engine
from theracast_features.events.cells import ENGINE_SCHEMA
from theracast_features.events.section import Aggregate, EventFeatures

CONCEPTS = {
    "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", reference_range=(0.6, 1.2)),
    "ldh": Concept(codes=("LOINC//1",), reference_range=(None, 250)),
    'drug\'s "name"': Concept(codes=("ATC//L01*",), modality="treatment"),
}
FEATURES = [
    EventFeatures(concept=name, windows=("12h", "7d", "30d", "all"), aggregates=get_args(Aggregate))
    for name in CONCEPTS
]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """A local cluster of two worker processes; skipped where pyspark or Java are absent."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed (extra theracast[spark])")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java 17, which is not installed")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local-cluster[2,1,1024]").appName("theracast-tests")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "3",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "Europe/Berlin",  # has hours that occur twice; the engine must not care
    }.items():
        builder = builder.config(key, value)
    running = builder.getOrCreate()
    yield running
    running.stop()


def awkward_events() -> pa.Table:
    """Ties, single values, constants, NaN, infinities, missing values, times and availability, a change of clocks."""
    rng = np.random.default_rng(11)
    n = 4_000
    start = np.datetime64("2024-03-25", "us")
    times = start + rng.integers(0, 10 * 24 * 4, n) * np.timedelta64(15, "m")
    values = np.round(rng.normal(100, 60, n), 1)
    special = rng.random(n)
    values[special < 0.05] = np.nan
    values[(special > 0.05) & (special < 0.06)] = math.inf
    values[(special > 0.06) & (special < 0.2)] = 0.1
    values[(special > 0.2) & (special < 0.25)] = -0.0
    available = times + rng.integers(-20, 40, n) * np.timedelta64(1, "h")
    subjects = rng.integers(0, 60, n).astype(str)
    values[np.isin(subjects, ["3", "4"])] = 0.3  # constants
    table = pa.table(
        {
            "subject_id": subjects,
            "time": pa.array(times, mask=rng.random(n) < 0.02),
            "available_time": pa.array(available, mask=rng.random(n) < 0.6),
            "concept": pa.array([*CONCEPTS, "other"]).take(pa.array(rng.integers(0, 4, n))),
            "value": pa.array(values, mask=rng.random(n) < 0.05),
        }
    ).cast(ENGINE_SCHEMA)
    single = {
        "subject_id": "single",
        "time": start.astype(object),
        "available_time": None,
        "concept": "ldh",
        "value": 5.0,
    }
    return pa.concat_tables([table, pa.Table.from_pylist([single], schema=ENGINE_SCHEMA)])


@pytest.mark.slow
def test_no_cell_differs_from_duckdb(session: Any) -> None:
    rng = np.random.default_rng(12)
    subjects = [*map(str, rng.integers(0, 60, 150)), "single", "unknown"]
    moments = np.datetime64("2024-03-25", "us") + rng.integers(0, 10 * 24, len(subjects)) * np.timedelta64(1, "h")
    moments[5] = np.datetime64("NaT")
    moments[-2] = np.datetime64("2024-03-25T00:00:00", "us")
    decisions = pd.DataFrame({"subject_id": subjects, "index_time": moments})
    events = awkward_events()
    wanted = duckdb_engine.event_features(events, decisions, FEATURES, CONCEPTS)
    found = spark_engine.event_features(events, decisions, FEATURES, CONCEPTS, session=session)
    assert found.catalogue == wanted.catalogue
    assert wanted.frame.notna().to_numpy().mean() > 0.5
    pd.testing.assert_frame_equal(found.frame, wanted.frame, check_exact=True)
