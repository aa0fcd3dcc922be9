"""The road of pictures: scans to pictures in the events, a network, an answer to a request that brings its own."""

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
search: {families: [cnn], trials: 2, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""
SHARE = "image.ct.patch"


@pytest.mark.slow
def test_scans_to_pictures_to_a_network_to_an_answer(new_workplace: Callable[..., Any], write_scan: Write) -> None:
    """Stripes across the tumour tell who responds (but for some), and neither its size nor its mean does."""
    place, n = new_workplace(patients=60), 48
    patients = _write_patients(place, write_scan, n)
    (place.folder / "pictures.yaml").write_text(STUDY, encoding="utf-8")
    place.json("images", "extract", "pictures.yaml", "images", "--to", "store", "--jobs", "1")
    trained = place.json("train", "pictures.yaml")
    assert trained["family"] == "cnn"
    assert trained["external"]["B"]["auc"] > 0.7
    seen = [_asked(place, patients, number) for number in range(10)]
    blind = [
        row | {"patient": f"B{row['patient']}", "events": [one for one in row["events"] if not _is_picture(one)]}
        for row in seen
    ]
    (place.folder / "asked.json").write_text(json.dumps([*seen, *blind]), encoding="utf-8")
    rows = place.json("score", "pictures", "asked.json")["rows"]
    shares = np.array([row["contributions"][SHARE] for row in rows[:10]])
    assert shares.all()
    for row, other, share in zip(rows[:10], rows[10:], shares, strict=True):
        assert _logit(row["probability"]) - _logit(other["probability"]) == pytest.approx(share, abs=1e-6)
        assert other["contributions"][SHARE] == 0
        assert not any("picture of the region" in text for text in row["warnings"])
        assert any("does without it: CT of the tumour, picture of the region" in text for text in other["warnings"])
    responds = patients["response"].iloc[:10].to_numpy() == 1
    assert shares[responds].mean() > shares[~responds].mean()


def _write_patients(place: Any, write_scan: Write, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    response = rng.permutation(np.arange(n) % 2)
    striped = np.where(rng.random(n) < 0.12, 1 - response, response)
    for number in range(n - 4):  # the last have no scan
        column = np.arange(10) if striped[number] else np.arange(8)[:, None]
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
    return patients


def _asked(place: Any, patients: pd.DataFrame, number: int) -> dict[str, Any]:
    """Return the row of a patient with the events of the store."""
    store = EventStore.open(place.folder / "store")
    events = pd.concat([store.read_shard(shard).to_pandas() for shard in range(store.shard_count)])
    own = events[events["subject_id"] == f"P{number}"].drop(columns="subject_id")
    own["time"], own["available_time"] = own["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"), None
    own = own.astype(object).where(own.notna(), None)
    record = patients.drop(columns="response").astype(object).iloc[number].to_dict()
    return record | {"age": int(record["age"]), "events": own.to_dict("records")}


def _is_picture(event: dict[str, Any]) -> bool:
    return str(event["code"]).endswith("//patch")


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
