"""Features of decisions from events: the store's are the request's, and the future changes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame, read_cohort
from theracast_features.build import build_features
from theracast_features.section import FeatureSection

SECTION = FeatureSection.model_validate(
    {
        "events": [
            {
                "concept": "crp",
                "windows": ["30d", "all"],
                "aggregates": ["last", "min", "slope", "count", "since_last"],
            },
            {"concept": "fever", "windows": ["7d"], "aggregates": ["exists"]},
        ],
        "missing_indicators": ["age", "stage"],
    }
)


def inputs(same_day: str = "hidden") -> Inputs:
    concepts = {
        "crp": {"codes": ["LOINC//1988-5"], "unit": "mg/L", "assume_unit": "mg/L"},
        "fever": {"codes": ["SNOMED//386661006"], "modality": "clinical"},
    }
    decisions = {
        "trigger": {"codes": ["RX//1"], "occurrence": "each", "washout": "20d"},
        "landmarks": {"days": [0, 14], "ends": [{"codes": ["MEDS_DEATH"]}]},
        "attributes": {
            "age": {"codes": ["MEDS_BIRTH"], "take": "years_since", "cap": [20, 90]},
            "stage": {"codes": ["STAGE//*"], "take": "code"},
        },
        "same_day": same_day,
    }
    return Inputs.model_validate({"events": {"store": "store", "concepts": concepts}, "decisions": decisions})


def course(seed: int, patients: int, *, start: str = "2023-01-01", days: int = 120) -> pd.DataFrame:
    """Random events on a grid of twelve hours, so that midnights and ties at the decision are met often."""
    rng = np.random.default_rng(seed)
    n = 40 * patients
    time = pd.Timestamp(start) + pd.to_timedelta(rng.integers(0, 2 * days, n) * 12, unit="h")
    delay = pd.to_timedelta(rng.integers(0, 4, n) * 12, unit="h")
    events = pd.DataFrame(
        {
            "subject_id": [f"p{number}" for number in rng.integers(0, patients, n)],
            "time": time.where(rng.random(n) > 0.03),
            "code": rng.choice(
                ["LOINC//1988-5", "SNOMED//386661006", "RX//1", "STAGE//3", "STAGE//4", "MEDS_BIRTH"],
                n,
                p=[0.5, 0.15, 0.15, 0.08, 0.08, 0.04],
            ),
            "numeric_value": rng.integers(1, 90, n).astype(float),
            "text_value": None,
            "unit": rng.choice(["mg/L", "mg/dL"], n),
        }
    )
    late = (time + delay).where((rng.random(n) < 0.3) & events["time"].notna())
    return events.assign(available_time=late)


def rows_of(asked: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    wire = events.copy()
    for name in ("time", "available_time"):
        wire[name] = wire[name].dt.strftime("%Y-%m-%dT%H:%M:%S")
    wire = wire.astype(object).where(wire.notna(), None)
    own: dict[str, list[dict[Any, Any]]] = {
        str(name): part.drop(columns="subject_id").to_dict("records") for name, part in wire.groupby("subject_id")
    }
    return asked.assign(events=[own.get(name, []) for name in asked["subject_id"]])


@pytest.mark.parametrize("same_day", ["hidden", "visible"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_request_gives_the_features_of_the_store(tmp_path: Path, same_day: str, seed: int) -> None:
    events = course(seed, 25)
    typed = events.astype({"time": "datetime64[us]", "available_time": "datetime64[us]", "text_value": object})
    table = pa.Table.from_pandas(typed[EVENT_SCHEMA.names], schema=EVENT_SCHEMA, preserve_index=False)
    EventStore.create(tmp_path / "store", shards=4).append(SourceRecord(name="made", kind="test"), [table])
    stored = read_cohort(inputs(same_day), [], base=tmp_path)
    asked = stored.decisions[["subject_id", "index_time"]].assign(index_time=stored.decisions["index_time"].astype(str))
    told = cohort_from_frame(rows_of(asked, events), inputs(same_day))
    features = build_features(stored, SECTION).frame
    pd.testing.assert_frame_equal(features, build_features(told, SECTION).frame)
    assert len(features) > 50
    assert features["lab.crp.last.30d"].notna().mean() > 0.5
    pd.testing.assert_series_equal(stored.decisions["treatment"], told.decisions["treatment"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), future=st.integers(0, 10_000), same_day=st.sampled_from(["hidden", "visible"]))
def test_what_comes_later_changes_no_feature(seed: int, future: int, same_day: str) -> None:
    events = course(seed, 4)
    moment = pd.Timestamp("2023-03-01T12:00")
    asked = pd.DataFrame({"subject_id": [f"p{number}" for number in range(4)], "index_time": moment.isoformat()})
    later = course(future, 4, start="2023-03-02").dropna(subset="time")  # what has no time is true at all times
    known_late = course(future + 1, 4).assign(available_time=moment + pd.Timedelta(hours=1))
    known_late = known_late[known_late["code"] != "RX//1"]  # a treatment that was begun is asked about at once
    before = cohort_from_frame(rows_of(asked, events), inputs(same_day))
    after = cohort_from_frame(rows_of(asked, pd.concat([events, later, known_late])), inputs(same_day))
    pd.testing.assert_frame_equal(build_features(before, SECTION).frame, build_features(after, SECTION).frame)
