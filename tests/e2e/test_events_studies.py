"""Real events on the whole road: the blood variants of OAK to a model, serial diameters of five trials to growth features."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_features.events.growth import fit_regression_growth, tumour_growth_rate


@pytest.fixture
def home(tmp_path: Path, shared_cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stores and state; the studies' variables name it and the real cohorts."""
    monkeypatch.setenv("THERACAST_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    monkeypatch.setenv("OAK_STORE", str(tmp_path / "oak"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def _run(*arguments: object) -> str:
    """Run a verb as its user does and return what it printed."""
    command = [sys.executable, "-m", "theracast", *map(str, arguments)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _answer(asked: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(_run("score", "oak-blood-response", asked, "--json"))["rows"][0]
    return row


def test_oak_with_its_blood_variants(home: Path, repository: Path, shared_cohorts: Path) -> None:
    """Ingested, the published burden comes out; trained, a request with the same variants is answered the same."""
    study = repository / "studies" / "oak_blood.yaml"
    _run("ingest", repository / "studies" / "ingest" / "oak.yaml", "--to", home / "oak")
    _run("features", study, "--out", home / "wide.parquet")
    wide = pd.read_parquet(home / "wide.parquet").set_index("subject_id")
    clinical = pd.read_csv(shared_cohorts / "oak" / "clinical.csv", dtype=str).set_index("PtID").loc[wide.index]
    published = pd.to_numeric(clinical["btmb"], errors="coerce")
    pd.testing.assert_series_equal(wide["gen.blood.tmb_count"], published, check_names=False, check_dtype=False)
    raw = pd.read_csv(shared_cohorts / "oak" / "blood_variants.csv", dtype={"PtID": str})
    mutated = raw.loc[(raw["gene_name"] == "KEAP1") & (raw["effect"] != "synonymous"), "PtID"]
    tested = published.notna()
    assert (wide.loc[tested, "gen.blood.KEAP1.mutated"] == wide.index[tested].isin(mutated)).all()
    assert wide.loc[~tested, "gen.blood.KEAP1.mutated"].isna().all()
    told = _run("features", "explain", "gen.blood.tmb_count", "--study", study, "--patient", "1097")
    assert told.count("NM_") == published["1097"]

    overrides = ["--set", "search.families=[elasticnet]", "--set", "validation.scheme.outer=2", "--trials", "2"]
    overrides += ["--set", "report={bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}"]
    _run("train", study, *overrides)
    patient = "1097"
    events = [
        {
            "code": f"VARIANT//{row.gene_name}//{row.effect}{'//driver' if row.omitted_driver_mutation == 'yes' else ''}",
            "numeric_value": row.af,
            "text_value": f"{row.transcript_name}:{row.cds_syntax}",
        }
        for row in raw[raw["PtID"] == patient].itertuples()
    ]
    asked = clinical.loc[patient].to_dict() | {"PtID": patient, "events": [*events, {"code": "ASSAY//btmb"}]}
    (home / "asked.json").write_text(json.dumps([asked]), encoding="utf-8")
    row = _answer(home / "asked.json")
    assert not [name for name in row["missing"] if name.startswith("gen.blood")]
    (home / "asked.json").write_text(json.dumps([asked | {"events": []}]), encoding="utf-8")
    without = _answer(home / "asked.json")
    assert "gen.blood.tmb" in without["missing"]
    # A sister trial's table under other headers, and nothing of its blood assay.
    plain = {"TRT01P": "Arm", "BAGE": "Age", "blSLD": "SLD", "ECOGGR": "ECOG PS", "PtID": "ptid"}
    table = (
        clinical.loc[[patient]].rename_axis("PtID").reset_index().rename(columns=plain).drop(columns=["btmb", "MSAF"])
    )
    table.to_csv(home / "sister.csv", index=False)
    sister = _answer(home / "sister.csv")
    assert "gen.blood.tmb" in sister["missing"]
    assert sister["probability"] == without["probability"]
    assert set(sister["endpoints"]) == {"os", "pfs"}


DIAMETERS = """
sources:
  - kind: long_table
    path: ${THERACAST_DATA}/oak/lesion_diameters_five_trials.csv
    subject: Patient_Anonmyized
    time: {column: Treatment_Day, unit: day, origin: 2020-01-01}
    code: RECIST//longest_diameter
    value: {column: TargetLesionLongDiam_mm}
    unit: mm
"""
GROWTH = """
study: growth
question: Will the target lesion grow, asked at day 90?
sources:
  - path: patients.csv
    subject: patient
    asked_at: 2020-03-31
    columns: {study: {kind: categorical, role: covariate}}
events:
  store: store
  concepts:
    diameter: {codes: [RECIST//longest_diameter], unit: mm, modality: imaging, label: Target lesion}
endpoints:
  - {name: grew, kind: binary, column: grew}
features:
  growth:
    - {concept: diameter, growth: [points, last_mm, change_percent, tgr_percent_per_month, growth_per_day, decay_per_day]}
"""


def test_growth_of_five_trials_as_of_day_90(home: Path, shared_cohorts: Path) -> None:
    """Each patient's features from the raw file by a plain loop; what was measured later is not seen."""
    raw = pd.read_csv(shared_cohorts / "oak" / "lesion_diameters_five_trials.csv", dtype={"Patient_Anonmyized": str})
    raw = raw.assign(mm=pd.to_numeric(raw["TargetLesionLongDiam_mm"], errors="coerce")).dropna(subset=["mm"])
    patients = raw.groupby("Patient_Anonmyized")["study"].first().iloc[::12]
    table = pd.DataFrame(
        {"patient": patients.index, "study": patients.to_numpy(), "grew": np.arange(len(patients)) % 2}
    )
    table.to_csv(home / "patients.csv", index=False)
    (home / "sources.yaml").write_text(DIAMETERS, encoding="utf-8")
    (home / "growth.yaml").write_text(GROWTH, encoding="utf-8")
    _run("ingest", home / "sources.yaml", "--to", home / "store")
    _run("features", home / "growth.yaml", "--out", home / "wide.parquet")
    wide = pd.read_parquet(home / "wide.parquet").set_index("subject_id").filter(like="image.diameter.")
    fitted = 0
    for patient, row in wide.iterrows():
        mine = raw[(raw["Patient_Anonmyized"] == patient) & (raw["Treatment_Day"] <= 90)]
        course = mine.groupby("Treatment_Day")["mm"].mean()
        days, sizes = course.index.to_numpy(float), course.to_numpy(float)
        assert row["image.diameter.points"] == len(days)
        if len(days) < 2:
            assert np.isnan(row["image.diameter.change_percent"])
            continue
        assert row["image.diameter.last_mm"] == np.float32(sizes[-1])  # as the file holds it
        assert row["image.diameter.change_percent"] == pytest.approx(100 * (sizes[-1] / sizes[0] - 1))
        rate = float(tumour_growth_rate(sizes[-2], sizes[-1], days[-1] - days[-2]))
        assert row["image.diameter.tgr_percent_per_month"] == pytest.approx(rate, nan_ok=True)
        model = fit_regression_growth(days[1:] - days[0], sizes[1:] / sizes[0])
        assert row["image.diameter.growth_per_day"] == pytest.approx(model.growth, nan_ok=True)
        assert row["image.diameter.decay_per_day"] == pytest.approx(model.decay, nan_ok=True)
        fitted += not np.isnan(model.growth)
    assert fitted > 20
    longest = str(wide["image.diameter.points"].idxmax())
    explained = ["features", "explain", "image.diameter.growth_per_day", "--study", home / "growth.yaml"]
    told = _run(*explained, "--patient", longest)
    assert told.count("RECIST//longest_diameter") == 1 + wide["image.diameter.points"].max()
    assert "2020-04" not in told
