"""The road of a study with events: store, features as of each decision, training, the same answer from raw events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_features.build import build_features
from theracast_training.prepare import prepare
from theracast_training.study import read_study

STUDY = """
study: courses
question: Do laboratory courses tell who responds?
sources:
  - path: patients.csv
    subject: patient
    site: hospital
    index_time: decided
    columns:
      age: {modality: clinical, unit: a}
events:
  store: store
  concepts:
    albumin: {codes: [LOINC//1751-7], unit: g/dL, assume_unit: g/dL, label: Albumin}
    ldh: {codes: ["LOINC//2532-0", "LOCAL//LDH*"], unit: U/L, reference_range: [120, 250]}
endpoints:
  - {name: response, kind: binary, column: response}
features:
  events:
    - {concept: albumin, windows: [30d, all], aggregates: [last, slope, count, relative_change]}
    - {concept: ldh, windows: [90d], aggregates: [last, outside, since_last], transform: log1p}
validation: {development: [A, B], external: [C], scheme: {outer: 2, inner: 3}}
search: {families: [elasticnet, lightgbm], trials: 3, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""


def _courses(n: int = 240) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients whose falling albumin and high LDH before the decision speak against response; values after it lie."""
    rng = np.random.default_rng(5)
    trend, level = rng.normal(0, 1, n), rng.normal(0, 1, n)
    response = rng.random(n) < 1 / (1 + np.exp(0.3 - 1.6 * trend + 1.2 * level))
    decided = pd.Timestamp("2024-03-01T12:00") + pd.to_timedelta(rng.integers(0, 300, n), unit="D")
    patients = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(n)],
            "hospital": np.array(["A", "B", "C"])[np.arange(n) % 3],
            "decided": decided,
            "age": rng.integers(40, 85, n),
            "response": response.astype(int),
        }
    )
    rows = []
    for number in range(n):
        for day in (-60, -40, -20, -5, 10):
            late = day > 0
            albumin = 3.8 + 0.02 * trend[number] * day + rng.normal(0, 0.05) if not late else 9.0 * response[number]
            grams = number % 3 == 1
            unit = "g/L" if grams else "g/dL"
            moment = decided[number] + pd.Timedelta(days=day)
            rows.append((f"P{number}", moment, "LOINC//1751-7", albumin * (10 if grams else 1), unit))
        for day in (-30, -3, 5):
            value = np.exp(5.3 + 0.3 * level[number] + rng.normal(0, 0.05)) if day < 0 else 1000.0
            rows.append((f"P{number}", decided[number] + pd.Timedelta(days=day), "LOCAL//LDH-serum", value, "U/L"))
    events = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value", "unit"])
    return patients, events.assign(text_value=None, available_time=pd.NaT)


def _table(events: pd.DataFrame) -> pa.Table:
    typed = events.astype({"time": "datetime64[us]", "available_time": "datetime64[us]", "text_value": object})
    return pa.Table.from_pandas(typed[EVENT_SCHEMA.names], schema=EVENT_SCHEMA, preserve_index=False)


@pytest.fixture(scope="module")
def courses(new_workplace: Callable[..., Any]) -> tuple[Any, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    place = new_workplace(patients=60)
    patients, events = _courses()
    patients.to_csv(place.folder / "patients.csv", index=False)
    store = EventStore.create(place.folder / "store", shards=3)
    store.append(SourceRecord(name="made", kind="test"), [_table(events)])
    (place.folder / "courses.yaml").write_text(STUDY, encoding="utf-8")
    return place, patients, events, place.json("train", "courses.yaml")


def _with_events(patients: pd.DataFrame, events: pd.DataFrame) -> list[dict[str, Any]]:
    records = patients.assign(decided=patients["decided"].dt.strftime("%Y-%m-%dT%H:%M:%S")).to_dict("records")
    wire = events.assign(time=events["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    by_patient = dict(list(wire[["subject_id", "time", "code", "numeric_value", "unit"]].groupby("subject_id")))
    return [
        {key: value for key, value in record.items() if key != "response"}
        | {"events": by_patient[record["patient"]].drop(columns="subject_id").to_dict("records")}
        for record in records
    ]


def test_the_courses_are_learned_from(courses: Any) -> None:
    _, _, _, result = courses
    assert result["external"]["C"]["auc"] > 0.75


def test_the_feature_table_has_one_row_per_decision_and_names_from_the_spec(courses: Any) -> None:
    place, patients, _, _ = courses
    place.run("features", "courses.yaml", "--out", "wide.parquet")
    wide = pd.read_parquet(place.folder / "wide.parquet")
    assert list(wide["subject_id"]) == list(patients["patient"]), "in the order of the study"
    assert {"lab.albumin.last.30d", "lab.albumin.slope.all", "lab.ldh.outside.90d"} <= set(wide.columns)
    assert (wide["lab.albumin.count.all"] == 4).all(), "the fifth value comes after the decision"
    assert wide["lab.albumin.last.30d"].between(2, 6).all(), "g/L became g/dL, and nothing from the future came in"


def test_training_and_features_compute_a_shard_once_between_them(courses: Any, tmp_path: Path) -> None:
    place, _, _, _ = courses
    report = place.json("features", "courses.yaml", "--out", tmp_path / "a.parquet")
    assert (report["rows"], report["built"], report["reused"]) == (240, 0, 3), "the training built them"
    told = place.run("features", "courses.yaml", "--out", tmp_path / "b.parquet", "--no-cache").stderr
    assert "3 parts built, 0 as they were" in told
    own = place.run("features", "courses.yaml", "--out", tmp_path / "c.parquet", "--cache", tmp_path / "own").stderr
    assert "3 parts built" in own
    assert len(list((tmp_path / "own").glob("*.arrow"))) == 3
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_training_reads_the_cells_that_scoring_computes(courses: Any, tmp_path: Path) -> None:
    """To the last bit, although the file for reading elsewhere is float32."""
    place, _, _, _ = courses
    study = read_study(place.folder / "courses.yaml")
    first, again = (prepare(study, base=place.folder, cache=tmp_path) for _ in range(2))
    computed = build_features(first.cohort, first.section)
    assert computed.frame["lab.albumin.slope.all"].notna().any()
    assert (computed.frame["lab.albumin.slope.all"] != computed.frame["lab.albumin.slope.all"].astype("float32")).any()
    for prepared in (first, again, prepare(study, base=place.folder)):
        pd.testing.assert_frame_equal(prepared.table.frame, computed.frame, check_exact=True)
        assert prepared.table.catalogue == computed.catalogue


def test_raw_events_in_a_request_give_the_answer_of_the_store(courses: Any, tmp_path: Path) -> None:
    place, patients, events, _ = courses
    external = patients[patients["hospital"] == "C"].head(20)
    file = tmp_path / "asked.json"
    file.write_text(json.dumps(_with_events(external, events)), encoding="utf-8")
    scored = place.json("score", "courses", file)
    without_future = events[events["time"] <= events["subject_id"].map(patients.set_index("patient")["decided"])]
    file.write_text(json.dumps(_with_events(external, without_future)), encoding="utf-8")
    again = place.json("score", "courses", file)
    for one, other in zip(scored["rows"], again["rows"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-12)
    empty = [row | {"events": []} for row in _with_events(external.head(1), events)]
    file.write_text(json.dumps(empty), encoding="utf-8")
    assert "lab.albumin.last.30d" in place.json("score", "courses", file)["rows"][0]["missing"]


def test_verify_replays_courses_on_every_road(courses: Any) -> None:
    place, _, _, _ = courses
    assert place.json("verify", "models:/courses/1")["passed"]


def _bundle(patient: str, events: pd.DataFrame) -> dict[str, Any]:
    """A FHIR bundle with the laboratory values of one patient, as a hospital's server would send it."""
    observations = [
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": event.code.removeprefix("LOINC//")}]},
            "subject": {"reference": f"Patient/{patient}"},
            "effectiveDateTime": event.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "valueQuantity": {"value": event.numeric_value, "code": event.unit, "system": "http://unitsofmeasure.org"},
        }
        for event in events.itertuples()
        if event.code.startswith("LOINC//")
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in observations]}


def test_a_fhir_bundle_is_scored_as_its_events_are(courses: Any, tmp_path: Path) -> None:
    place, patients, events, _ = courses
    patient = patients["patient"].iloc[2]
    own = events[(events["subject_id"] == patient) & events["code"].str.startswith("LOINC//")]
    own = own[own["time"] <= patients["decided"].iloc[2]]
    bundle, rows = tmp_path / "bundle.json", tmp_path / "rows.json"
    bundle.write_text(json.dumps(_bundle(patient, own)), encoding="utf-8")
    wire = own.assign(time=own["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"))[["time", "code", "numeric_value", "unit"]]
    rows.write_text(json.dumps([{"patient": patient, "events": wire.to_dict("records")}]), encoding="utf-8")
    by_bundle = place.json("score", "courses", bundle)["rows"][0]
    by_rows = place.json("score", "courses", rows)["rows"][0]
    assert by_bundle["subject_id"] == patient
    assert by_bundle["contributions"] == pytest.approx(by_rows["contributions"], abs=1e-9)
    refused = place.run("score", "models:/courses/1", tmp_path / "none.json", code=1)
    assert "cannot be read" in refused.stderr


def test_features_explain_shows_the_rows_that_were_seen(courses: Any) -> None:
    place, _, _, _ = courses
    told = place.run("features", "explain", "lab.albumin.last.30d", "--study", "courses.yaml", "--patient", "P4").stdout
    assert "LOINC//1751-7" in told
    assert told.count("LOINC//1751-7") == 3, "the definition, and the two values of the last 30 days"
    unknown = place.run("features", "explain", "lab.albumin.lst.30d", "--study", "courses.yaml", code=1)
    assert "lab.albumin.last.30d" in unknown.stderr
