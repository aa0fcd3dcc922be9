"""The road of images: a folder of DICOM to measurements, to a model harmonised over scanners, to answers and the sheet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_data.events.store import EventStore

Write = Callable[..., Path]

STUDY = """
study: scans
question: Does the tumour on CT before treatment tell who responds?
sources:
  - path: patients.csv
    subject: patient
    site: hospital
    index_time: decided
    columns:
      age: {modality: clinical, unit: a}
events: {store: store, concepts: {}}
endpoints:
  - {name: response, kind: binary, column: response}
features:
  images:
    ct:
      modality: CT
      label: CT of the tumour
      regions: [GTV*]
      intensity: true
      keep: [volume_ml, intensity_mean, intensity_sd]
      log: [volume_ml]
  harmonise:
    - {batch: images.ct, features: [image.ct.*]}
validation: {development: [A, B], external: [C], scheme: {outer: 0, inner: 3}}
search: {families: [elasticnet, stack], trials: 2, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""


def _write_patients(place: Any, write_scan: Write, n: int = 90) -> pd.DataFrame:
    """Write patients whose tumours are dark where they respond; scanner B measures everything much brighter."""
    rng = np.random.default_rng(8)
    bright = rng.normal(0, 1, n)
    response = (rng.random(n) < 1 / (1 + np.exp(2.5 * bright))).astype(int)
    hospital = np.array(["A", "B", "C"])[np.arange(n) % 3]
    for number in range(n):
        shift = {"A": 0, "B": 900, "C": 0}[hospital[number]]
        values = 1000 + shift + 120 * bright[number] + rng.normal(0, 20, (6, 8, 10))
        common = {
            "patient": f"P{number}",
            "name": f"P{number}",
            "Manufacturer": "Maker B" if hospital[number] == "B" else "Maker A",
        }
        edge = int(rng.integers(5, 8))
        write_scan(
            place.folder / "images",
            day="20240110",
            regions={"GTV-1": ((1, 5), (2, edge), (3, 8)), "Lung": ((0, 2), (0, 2), (0, 2))},
            values=values.clip(0, 4095).astype(np.uint16),
            **common,
        )
        if number < 6:  # a scan after the decision, of another look
            later = {**common, "name": f"P{number}-later"}
            dark = np.zeros((6, 8, 10), dtype=np.uint16)
            write_scan(
                place.folder / "images",
                day="20240401",
                regions={"GTV-1": ((1, 5), (2, 5), (3, 8))},
                values=dark,
                **later,
            )
    patients = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(n)],
            "hospital": hospital,
            "decided": "2024-02-01T12:00:00",
            "age": rng.integers(40, 80, n),
            "response": response,
        }
    )
    patients.to_csv(place.folder / "patients.csv", index=False)
    return patients


@pytest.fixture(scope="module")
def scans(new_workplace: Callable[..., Any], write_scan: Write) -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    place = new_workplace(patients=60)
    patients = _write_patients(place, write_scan)
    (place.folder / "scans.yaml").write_text(STUDY, encoding="utf-8")
    place.json("images", "extract", "scans.yaml", "images", "--to", "store", "--jobs", "1")
    return place, patients, place.json("train", "scans.yaml")


def test_the_series_of_a_folder_are_listed(scans: Any) -> None:
    place, _, _ = scans
    listed = place.json("images", "series", "images/P0", "--out", "series.parquet")
    assert [one["region_names"] for one in listed["series"]] == [["GTV-1", "Lung"]]
    assert (place.folder / "series.parquet").is_file()
    assert "P0" in place.run("images", "series", "images/P0").stdout
    assert "--overwrite" in place.run("images", "series", "images/P0", "--out", "series.parquet", code=1).stderr


def test_measured_again_adds_nothing(scans: Any) -> None:
    place, patients, _ = scans
    again = place.json("images", "extract", "scans.yaml", "images", "--to", "store", "--jobs", "1")
    assert (again["measured"], again["known"], again["faults"]) == (0, len(patients) + 6, [])
    refused = place.run("images", "extract", "scans.yaml", "nowhere", "--to", "store", code=1)
    assert "no such folder" in refused.stderr


def test_the_model_tells_them_apart_where_scanners_differ(scans: Any) -> None:
    place, _, result = scans
    assert result["external"]["C"]["auc"] > 0.75
    recipes = [json.loads(path.read_text())["recipe"] for path in place.folder.rglob("calibrated.json")]
    assert recipes
    for recipe in recipes:
        members = recipe["params"].get("members", [recipe])
        assert all(member["harmonise"] for member in members)
    assert place.json("verify", "models:/scans/1")["passed"]


def _row(place: Any, patients: pd.DataFrame, number: int, **more: Any) -> dict[str, Any]:
    store = EventStore.open(place.folder / "store")
    events = pd.concat([store.read_shard(shard).to_pandas() for shard in range(store.shard_count)])
    own = events[events["subject_id"] == f"P{number}"].drop(columns="subject_id")
    own["time"] = own["time"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    own["available_time"] = None
    own = own.astype(object).where(own.notna(), None)
    record = patients.drop(columns="response").astype(object).iloc[number].to_dict()
    return record | {"age": int(record["age"]), "events": own.to_dict("records")} | more


def test_a_request_that_brings_its_scans_gets_the_features_of_the_training(scans: Any) -> None:
    place, patients, _ = scans
    place.run("features", "scans.yaml", "--out", "wide.parquet")
    wide = pd.read_parquet(place.folder / "wide.parquet").set_index("subject_id")
    (place.folder / "asked.json").write_text(json.dumps([_row(place, patients, 2)]), encoding="utf-8")
    scored = place.json("score", "scans", "asked.json")["rows"][0]
    assert not [name for name in scored["missing"] if name.startswith("image.")]
    assert not [text for text in scored["warnings"] if "scanner" in text]
    told = place.run("features", "explain", "image.ct.volume_ml.last.all", "--study", "scans.yaml", "--patient", "P2")
    assert "measured in CT, region GTV*" in told.stdout
    assert str(wide.loc["P2", "image.ct.volume_ml.last.all"])[:5] in told.stdout


def test_a_folder_of_images_is_measured_when_a_patient_is_scored(scans: Any) -> None:
    place, patients, _ = scans
    bare = patients.drop(columns="response").head(8)
    bare.to_csv(place.folder / "bare.csv", index=False)
    brought = place.json("score", "models:/scans/1", "bare.csv", "--images", "images")
    given = [_row(place, patients, number) for number in range(8)]
    (place.folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    expected = place.json("score", "models:/scans/1", "given.json")
    for name in ("probability", "contributions", "missing"):
        assert [row[name] for row in brought["rows"]] == [row[name] for row in expected["rows"]]
    without = place.json("score", "models:/scans/1", "bare.csv")
    assert all(any("image.ct" in name for name in row["missing"]) for row in without["rows"])
    refused = place.run("score", "models:/scans/1", "bare.csv", "--images", "nowhere", code=1)
    assert "no such folder" in refused.stderr


def test_a_scan_after_the_decision_is_not_seen(scans: Any) -> None:
    place, _, _ = scans
    place.run("features", "scans.yaml", "--out", "future.parquet")
    wide = pd.read_parquet(place.folder / "future.parquet").set_index("subject_id")
    assert (wide.loc[[f"P{number}" for number in range(6)], "image.ct.intensity_mean.last.all"] > -500).all()


def test_a_scanner_that_the_model_does_not_know_is_told(scans: Any) -> None:
    place, patients, _ = scans
    known, new = _row(place, patients, 0), _row(place, patients, 0)
    for one in new["events"]:
        if one["code"].endswith("//scanner"):
            one["text_value"] = "a scanner of tomorrow"
    (place.folder / "asked.json").write_text(json.dumps([known]), encoding="utf-8")
    before = place.json("score", "scans", "asked.json")["rows"][0]
    (place.folder / "asked.json").write_text(json.dumps([new]), encoding="utf-8")
    after = place.json("score", "scans", "asked.json")["rows"][0]
    assert not any("scanner is not known" in text for text in before["warnings"])
    assert any("The scanner is not known" in text and "CT of the tumour, volume" in text for text in after["warnings"])
    place.run("report", "scans", "asked.json", "--patient", "P0", "--out", "sheet.html")
    assert "The scanner is not known" in (place.folder / "sheet.html").read_text(encoding="utf-8")


def test_stability_is_measured_and_named_in_the_study(scans: Any) -> None:
    place, _, _ = scans
    text = STUDY.replace(
        "      log: [volume_ml]", "      log: [volume_ml]\n      icc: icc.json\n      icc_at_least: 0.5"
    )
    (place.folder / "stable.yaml").write_text(text, encoding="utf-8")
    missing = place.run("features", "stable.yaml", "--out", "stable.parquet", code=1)
    assert "theracast images stability" in missing.stderr
    place.run("images", "stability", "stable.yaml", "images", "--patients", "8", "--out", "icc.json")
    found = {one["feature"]: one["icc"] for one in json.loads((place.folder / "icc.json").read_text())["features"]}
    kept = [one for one in ("volume_ml", "intensity_mean", "intensity_sd") if found[one] and found[one] >= 0.5]
    assert "intensity_mean" in kept, "the tumours differ more than a shift of their edges"
    place.run("features", "stable.yaml", "--out", "stable.parquet")
    columns = pd.read_parquet(place.folder / "stable.parquet").columns
    assert [name for name in columns if name.startswith("image.")] == [f"image.ct.{one}.last.all" for one in kept]
    catalogue = json.loads((place.folder / "stable.catalogue.json").read_text())
    assert {one["icc"] for one in catalogue if one["modality"] == "imaging"} == {found[one] for one in kept}
    other = ["--set", "features.images.ct.regions=[Lung]"]
    assert "other settings" in place.run("features", "stable.yaml", "--out", "x.parquet", *other, code=1).stderr


TABLE = """
study: scanners
question: Do measurements of two scanners tell who responds?
sources:
  - path: measured.csv
    subject: patient
    site: hospital
    columns:
      volume: {modality: imaging, unit: mL, transform: log1p}
      entropy: {modality: imaging}
      albumin: {modality: lab, unit: g/dL}
      scanner: {role: covariate, kind: categorical}
endpoints:
  - {name: response, kind: binary, column: response}
features:
  harmonise: [{batch: scanner, features: [image.*]}]
validation: {development: [A], external: [B], scheme: {outer: 2, inner: 3}}
search: {families: [elasticnet, lightgbm, stack], trials: 2, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""


@pytest.mark.slow
def test_a_table_with_a_column_of_scanners_trains_and_verifies(new_workplace: Callable[..., Any]) -> None:
    place, n = new_workplace(patients=60), 260
    rng = np.random.default_rng(4)
    truth, scanner = rng.normal(size=n), np.array(["one", "two"])[rng.integers(0, 2, n)]
    seen = np.where(scanner == "two", 2.5 + 1.5 * truth, truth)
    frame = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(n)],
            "hospital": np.where(np.arange(n) % 3 == 0, "B", "A"),
            "volume": np.exp(3 + 0.4 * seen).round(3),
            "entropy": (seen + rng.normal(0, 0.3, n)).round(3),
            "albumin": rng.normal(4, 0.4, n).round(2),
            "scanner": scanner,
            "response": (rng.random(n) < 1 / (1 + np.exp(-2 * truth))).astype(int),
        }
    )
    frame.to_csv(place.folder / "measured.csv", index=False)
    (place.folder / "scanners.yaml").write_text(TABLE, encoding="utf-8")
    trained = place.json("train", "scanners.yaml")
    (place.folder / "plain.yaml").write_text(
        TABLE.replace("  harmonise: [{batch: scanner, features: [image.*]}]", "  missing_indicators: none").replace(
            "study: scanners", "study: plain"
        ),
        encoding="utf-8",
    )
    plain = place.json("train", "plain.yaml")
    assert trained["external"]["B"]["auc"] > plain["external"]["B"]["auc"] + 0.02
    assert place.json("verify", "models:/scanners/1")["passed"]
    asked = frame.drop(columns="response").head(3).assign(scanner=["one", "three", None])
    asked.to_csv(place.folder / "asked.csv", index=False)
    told = [
        [text for text in row["warnings"] if "scanner is not known" in text]
        for row in place.json("score", "scanners", "asked.csv")["rows"]
    ]
    assert [len(one) for one in told] == [0, 1, 1]
