"""How long one patient with many events takes from the request's rows to the explained answer.

    python bench/score_events.py

Trains nothing: the model is an elastic net on made-up courses. Prints the median, beside the floor of building no event
feature at all (the same model's patient without events).
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pandas as pd
import pyarrow as pa

from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint
from theracast_data.events.access import KEY, given_events
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.section import EventSection
from theracast_data.sources import ColumnSpec, Inputs, TableSource
from theracast_features.build import build_features
from theracast_features.events.section import EventFeatures
from theracast_features.section import FeatureSection
from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_models.response_model import ResponseModel

CONCEPTS = {f"lab_{n}": Concept(codes=(f"LOINC//{n}",), unit="g/dL", reference_range=(2, 6)) for n in range(20)}
FEATURES = tuple(
    EventFeatures(concept=name, windows=("30d", "180d", "all"), aggregates=("last", "mean", "slope", "count"))
    for name in CONCEPTS
)
ASKED = pd.Timestamp("2024-06-01T12:00:00")


def courses(patients: int, events_each: int, rng: np.random.Generator) -> pa.Table:
    """Return random laboratory courses."""
    n = patients * events_each
    days = pd.to_timedelta(rng.uniform(0, 400, n), unit="D")
    frame = pd.DataFrame(
        {
            "subject_id": np.repeat([str(one) for one in range(patients)], events_each),
            "time": (ASKED - days).astype("datetime64[us]"),
            "code": [f"LOINC//{one}" for one in rng.integers(0, 20, n)],
            "numeric_value": rng.normal(4, 1, n),
            "text_value": pd.Series([None] * n, dtype=object),
            "unit": "g/dL",
            "available_time": pd.Series(pd.NaT, index=range(n), dtype="datetime64[us]"),
        }
    )
    return pa.Table.from_pandas(frame, schema=EVENT_SCHEMA, preserve_index=False)


def make_model(rng: np.random.Generator) -> ResponseModel:
    """Return a model of 20 concepts x 3 windows x 4 aggregates."""
    n = 120
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": ASKED})
    decisions = decisions.assign(treatment=None, calendar=2024.4, **{KEY: decisions["subject_id"]})
    source = TableSource(path="t.csv", subject="id", index_time="asked", columns={"age": ColumnSpec()})
    inputs = Inputs(sources=(source,), events=EventSection(store="s", concepts=CONCEPTS))
    values = pd.DataFrame({"age": rng.uniform(30, 80, n)})
    events = given_events(courses(n, 60, rng), CONCEPTS)
    cohort = Cohort(decisions, values, pd.DataFrame(index=range(n)), inputs.meanings, events=events)
    section = FeatureSection(events=FEATURES, missing_indicators=())
    table = build_features(cohort, section)
    y = (rng.random(n) < 0.4).astype(float)
    folds = patient_folds(table, y, folds=3, seed=0)
    fitted = fit_calibrated(Recipe("elasticnet", {"c": 0.05}), table, y, folds=folds, replicates=20, seed=0)
    endpoint = BinaryEndpoint(kind="binary", name="response", column="response")
    return ResponseModel.build(
        card={}, inputs=inputs, section=section, endpoint=endpoint, calibrated=fitted, table=table, y=y
    )


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(1)
    model = make_model(rng)
    print(f"{len(model.catalogue)} features\n{'events of the patient':>24}{'median ms':>12}")
    for count in (0, 100, 1_000, 5_000):
        frame = courses(1, count, rng).to_pandas().drop(columns="subject_id")
        frame["time"] = frame["time"].dt.strftime("%Y-%m-%dT%H:%M:%S")
        records = frame[["time", "code", "numeric_value", "unit"]].to_dict("records")
        row = pd.DataFrame([{"id": "a", "asked": str(ASKED), "age": 60, "events": records}])
        times = []
        for _ in range(25):
            started = time.perf_counter()
            model.predict(row)
            times.append(1000 * (time.perf_counter() - started))
        print(f"{count:24d}{statistics.median(times):12.1f}")


if __name__ == "__main__":
    main()
