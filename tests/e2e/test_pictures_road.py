"""The road of pictures: scans to pictures in the events, a network in the stack, an answer to a request that brings its own."""

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
study: pictures
question: Does the sight of the tumour on CT tell who responds?
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
      keep: [volume_ml]
      patch: {voxels: 8, spacing_mm: 1.5, window: [-200, 600]}
  harmonise:
    - {batch: images.ct, features: [image.ct.volume_ml.*]}
validation: {development: [A], external: [B], scheme: {outer: 0, inner: 2}}
search: {families: [cnn, stack], trials: 2, seed: 3, replicates: 10, one_standard_error: false}
report: {bootstrap: 100}
"""
SHARE = "image.ct.patch"


@pytest.fixture(scope="module")
def pictures(new_workplace: Callable[..., Any], write_scan: Write) -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    """A workplace where stripes across the tumour, and neither its size nor its mean, tell who responds; a model of it."""
    place, n = new_workplace(patients=60), 56
    rng = np.random.default_rng(8)
    response = rng.permutation(np.arange(n) % 2)
    for number in range(n - 4):  # the last have no scan
        column = np.arange(10) if response[number] else np.arange(8)[:, None]
        stripes = 150 * np.sin(2 * np.pi * (column / 5 + rng.random()))
        values = 1200 + stripes + rng.normal(0, 30, (6, 8, 10))
        write_scan(
            place.folder / "images",
            regions={"GTV-1": ((1, 5), (1, int(rng.integers(6, 8))), (2, 8))},
            values=values.clip(0, 4095).astype(np.uint16),
            patient=f"P{number}",
            name=f"P{number}",
        )
    patients = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(n)],
            "hospital": np.where(np.arange(n) % 3 == 2, "B", "A"),
            "decided": "2024-02-01T12:00:00",
            "age": rng.integers(40, 80, n),
            "response": response,
        }
    )
    patients.to_csv(place.folder / "patients.csv", index=False)
    (place.folder / "pictures.yaml").write_text(STUDY, encoding="utf-8")
    place.json("images", "extract", "pictures.yaml", "images", "--to", "store", "--jobs", "1")
    return place, patients, place.json("train", "pictures.yaml")


def _asked(place: Any, patients: pd.DataFrame, number: int) -> dict[str, Any]:
    """Return the row of a patient with the events of the store."""
    store = EventStore.open(place.folder / "store")
    events = pd.concat([store.read_shard(shard).to_pandas() for shard in range(store.shard_count)])
    own = events[events["subject_id"] == f"P{number}"].drop(columns="subject_id")
    own["time"], own["available_time"] = own["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"), None
    own = own.astype(object).where(own.notna(), None)
    record = patients.drop(columns="response").astype(object).iloc[number].to_dict()
    return record | {"age": int(record["age"]), "events": own.to_dict("records")}


@pytest.mark.slow
def test_a_network_finds_at_another_hospital_what_no_measurement_tells(pictures: Any) -> None:
    place, _, result = pictures
    assert result["external"]["B"]["auc"] > 0.75
    recipe = next(json.loads(path.read_text())["recipe"] for path in place.folder.rglob("calibrated.json"))
    families = [member["family"] for member in recipe["params"].get("members", [recipe])]
    assert "cnn" in families
    assert not list(place.folder.rglob("response_model/**/*.pkl"))
    assert place.json("verify", "models:/pictures/1")["passed"]


@pytest.mark.slow
def test_a_request_that_brings_its_picture_is_answered_by_it(pictures: Any) -> None:
    place, patients, _ = pictures
    seen = [_asked(place, patients, number) for number in range(8)]
    blind = [
        row | {"patient": f"B{row['patient']}", "events": [one for one in row["events"] if not _is_picture(one)]}
        for row in seen
    ]
    (place.folder / "asked.json").write_text(json.dumps([*seen, *blind]), encoding="utf-8")
    rows = place.json("score", "pictures", "asked.json")["rows"]
    shares = np.array([row["contributions"][SHARE] for row in rows[:8]])
    assert shares.all()
    for row, other, share in zip(rows[:8], rows[8:], shares, strict=True):
        assert _logit(row["probability"]) - _logit(other["probability"]) == pytest.approx(share, abs=1e-6)
        assert other["contributions"][SHARE] == 0
        assert not any("picture of the region" in text for text in row["warnings"])
        assert any("does without it: CT of the tumour, picture of the region" in text for text in other["warnings"])
    responds = patients["response"].iloc[:8].to_numpy() == 1
    assert shares[responds].mean() > shares[~responds].mean()


def _is_picture(event: dict[str, Any]) -> bool:
    return str(event["code"]).endswith("//patch")


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
