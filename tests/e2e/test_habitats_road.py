"""The road of habitats: fitted on the development hospital, measured everywhere, features, and a model that holds the fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Write = Callable[..., Path]
FRAME = "1.2.826.0.1.3680043.8.498.7001"
SHAPE = (6, 8, 10)
STUDY = """
study: parts
question: Does the active part of the tumour before treatment tell who responds?
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
      habitats:
        maps: {suv: {modality: PT, suv: bw}, hu: {modality: CT}}
        counts: [2]
        fitted: habitats.json
      keep: ['habitat_*_fraction', habitat_2_ml]
validation: {development: [A], external: [C], scheme: {outer: 0, inner: 3}}
search: {families: [elasticnet], trials: 2, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""
SUV_PER_STORED = 70e3 / (3.7e8 * 0.5 ** (3600 / 6586.2))


def _write(folder: Path, write_scan: Write, number: int, *, split: int, hot: float = 8.0) -> None:
    draw = np.random.default_rng(number)
    late = np.arange(SHAPE[2]) >= split
    patient = f"P{number}"
    common = {"patient": patient, "FrameOfReferenceUID": FRAME}
    hu = np.where(late, 60, 20) + draw.normal(0, 3, SHAPE) + 1024
    suv = np.where(late, hot, 2.0) + draw.normal(0, 0.1, SHAPE)
    region = {"GTV-1": ((1, 4), (2, 6), (3, 8))}
    write_scan(folder, name=f"{patient}-ct", regions=region, values=hu.round().astype(np.uint16), **common)
    stored = (suv / SUV_PER_STORED).round().astype(np.uint16)
    elements = {"values": stored, "slope": 1.0, "intercept": 0.0, "bits": 16}
    write_scan(folder, name=f"{patient}-pet", kind="PT", **common, **elements)


@pytest.fixture(scope="module")
def place(new_workplace: Callable[..., Any], write_scan: Write) -> Any:
    place = new_workplace(patients=60)
    draw = np.random.default_rng(2)
    n = 48
    split = draw.integers(4, 8, n)
    patients = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(n)],
            "hospital": np.where(np.arange(n) % 4 == 3, "C", "A"),
            "decided": "2024-02-01T12:00:00",
            "age": draw.integers(40, 80, n),
            "response": (draw.random(n) < 1 / (1 + np.exp(-3.0 * (split - 5.5)))).astype(int),
        }
    )
    patients.to_csv(place.folder / "patients.csv", index=False)
    (place.folder / "parts.yaml").write_text(STUDY, encoding="utf-8")
    for number in range(n):
        _write(place.folder / "images", write_scan, number, split=int(split[number]))
    _write(place.folder / "images", write_scan, 99, split=5, hot=25.0)  # in no table
    return place


def _fitted(place: Any, out: str, *more: str) -> dict[str, Any]:
    place.run("images", "habitats", "parts.yaml", "images", "--out", out, *more)
    found: dict[str, Any] = json.loads((place.folder / out).read_text(encoding="utf-8"))
    return found


def test_the_road(place: Any, write_scan: Write) -> None:
    for verb in (["features", "parts.yaml", "--out", "x.parquet"], ["check", "parts.yaml"]):
        assert "theracast images habitats" in place.run(*verb, code=1).stderr
    found = _fitted(place, "habitats.json")
    assert found["patients"] == {"fitted": 36, "not_development": 13, "faults": 0}
    assert found["levels"][1]["suv"] == pytest.approx(8, abs=0.2)
    report = place.json("images", "extract", "parts.yaml", "images", "--to", "store", "--jobs", "1")
    assert (report["measured"], report["faults"]) == (49, [])
    place.run("features", "parts.yaml", "--out", "wide.parquet")
    wide = pd.read_parquet(place.folder / "wide.parquet").set_index("subject_id")
    parts = wide[[f"image.ct.habitat_{number}_fraction.last.all" for number in (1, 2)]]
    np.testing.assert_allclose(parts.sum(axis=1), 1)
    told = place.run(
        "features", "explain", "image.ct.habitat_2_ml.last.all", "--study", "parts.yaml", "--patient", "P3"
    ).stdout
    assert "habitat 2 (suv about 8" in told
    assert "habitats of suv, hu fitted on 36 development patients" in told
    assert str(wide.loc["P3", "image.ct.habitat_2_ml.last.all"])[:5] in told

    trained = place.json("train", "parts.yaml")
    assert trained["external"]["C"]["auc"] > 0.75
    assert place.json("verify", "models:/parts/1")["passed"]
    held = [path for path in place.folder.rglob("*.json") if '"centroids"' in path.read_text(encoding="utf-8")]
    assert [path for path in held if path.name != "habitats.json"], "the model holds what was learnt"

    # The external hospital's images, and those of a patient of no hospital, change nothing in the fit.
    for number in (3, 7, 99):
        _write(place.folder / "images", write_scan, number, split=4, hot=60.0)
    assert _fitted(place, "again.json") == found
    (place.folder / "few.txt").write_text("P0\nP1\nP2\nP3\n", encoding="utf-8")
    few = _fitted(place, "few.json", "--patients", "few.txt")
    assert few["patients"]["fitted"] == 3
    refused = ["--set", "features.images.ct.habitats.maps.suv.suv=lbm_james"]
    assert "fitted for the maps suv, hu" in place.run("check", "parts.yaml", *refused, code=1).stderr
