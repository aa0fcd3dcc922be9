"""Dose, enhancement and ADC from a folder of DICOM to the table of features, through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast.main import main

Write = Callable[..., Path]
BOX = ((1, 4), (2, 6), (3, 8))
SHAPE = (6, 8, 10)
TIMES = ("101000", "101230", "101820")

STUDY = """
study: measured
question: Do dose, enhancement and diffusion tell who responds?
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
    plan:
      modality: CT
      regions: GTV
      dose: {dx_percent: [95], vx_gy: 20, geud_a: 1}
      keep: ['dose_*']
    dce:
      modality: MR
      series: ['*dynamic*']
      regions: tumour
      enhancement: {early: 150s, late: last, ftv: {enhancement_percent: 70}}
      keep: [early_percent.mean, ser.p50, ftv_ml]
      aggregates: [last, relative_change]
    adc:
      modality: MR
      series: ['*ADC*']
      regions: tumour
      map: {label: ADC, unit: um2/s, percentiles: [10]}
      keep: [map_mean, map_p10]
      aggregates: [last, change]
validation: {development: [A], external: [B], scheme: {outer: 0, inner: 3}}
"""


@pytest.fixture
def folder(tmp_path: Path, write_scan: Write, write_dose: Write, write_dynamic: Write) -> Path:
    """Two patients with a CT, of which P2's has no dose, and dynamic and diffusion MR on three days."""
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    patients = pd.DataFrame({"patient": ["P1", "P2"], "hospital": ["A", "B"], "age": 60, "response": [1, 0]})
    patients.assign(decided="2024-03-01T12:00:00").to_csv(tmp_path / "patients.csv", index=False)
    for number, patient in enumerate(patients["patient"], start=1):
        own = tmp_path / "images" / patient
        scan = write_scan(own, patient=patient, name="ct", regions={"GTV": BOX})
        if patient == "P1":
            write_dose(scan, np.full((6, 7, 9), 15.0))
        for day, early in (("20240110", 300), ("20240215", 200), ("20240401", 900)):  # the last is after the decision
            levels = np.array([100.0, early + 10 * number, 150])
            phases = np.broadcast_to(levels[:, None, None, None], (3, *SHAPE))
            common = {"patient": patient, "day": day, "regions": {"tumour": BOX}}
            told = {"description": "T1 dynamic", "name": f"dce-{day}"} | common
            write_dynamic(own, phases, apart={"AcquisitionTime": TIMES}, **told)
            adc = np.full(SHAPE, 1000 + early, dtype=np.uint16)
            write_scan(own, kind="MR", description="ADC", name=f"adc-{day}", values=adc, **common)
    return tmp_path


def test_a_folder_of_dose_dynamic_and_diffusion_becomes_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("THERACAST_HOME", str(folder / "state"))
    assert main(["images", "extract", "study.yaml", "images", "--to", "store", "--jobs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["measured"] == 13
    assert len(report["faults"]) == 1
    assert "plan: patient P2" in report["faults"][0]
    assert "no RTDOSE" in report["faults"][0]
    assert main(["features", "study.yaml", "--out", "wide.parquet"]) == 0
    wide = pd.read_parquet("wide.parquet").set_index("subject_id")
    expected = {
        "image.plan.dose_gy.d95.last.all": (15.0, np.nan),
        "image.plan.dose_gy.geud_1.last.all": (15.0, np.nan),
        "image.plan.dose_percent.v20.last.all": (0.0, np.nan),
        "image.dce.early_percent.mean.last.all": (110.0, 120.0),
        "image.dce.early_percent.mean.relative_change.all": (110 / 210 - 1, 120 / 220 - 1),
        "image.dce.ser.p50.last.all": (110 / 50, 120 / 50),
        "image.dce.ftv_ml.last.all": (60 * 2.5 * 1.5 * 1.25 / 1000,) * 2,
        "image.adc.map_mean.last.all": (1200.0, 1200.0),
        "image.adc.map_p10.change.all": (-100.0, -100.0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(wide.loc[["P1", "P2"], name], values, rtol=1e-5, err_msg=name)
    catalogue = {one["name"]: one for one in json.loads(Path("wide.catalogue.json").read_text(encoding="utf-8"))}
    assert catalogue["image.plan.dose_gy.d95.last.all"]["unit"] == "Gy"
    assert catalogue["image.adc.map_p10.change.all"]["unit"] == "um2/s"
    assert "functional tumour volume" in catalogue["image.dce.ftv_ml.last.all"]["label"]
