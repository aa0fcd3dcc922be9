"""The main road by its commands: source files, audit, training, registry, scores, board sheet, REST."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Trained = tuple[Any, dict[str, Any]]


@pytest.fixture(scope="session")
def new_patients(trained: Trained) -> Path:
    """The raw rows of the external site, joined into one table, without outcomes."""
    place, _ = trained
    data = place.folder / "data"
    clinic = pd.read_excel(data / "clinic.xlsx", sheet_name="Lakeside", dtype=str)
    labs = pd.read_csv(data / "labs.csv", dtype=str).rename(columns={"patient": "Patient"})
    genomics = pd.read_csv(data / "genomics.csv", dtype=str).rename(columns={"patient": "Patient"})
    outcomes = [column for column in clinic.columns if column.startswith(("PFS", "OS", "Best"))]
    assert outcomes
    joined = clinic.drop(columns=outcomes).merge(labs.drop(columns="hospital"), on="Patient", how="left")
    path = place.folder / "new.csv"
    joined.merge(genomics, on="Patient", how="left").to_csv(path, index=False)
    return path


def test_check_finds_no_error_in_the_clean_cohort(trained: Trained) -> None:
    place, _ = trained
    report = place.json("check", place.study)
    assert not [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert {"check", "severity", "site", "column", "message", "remedy"} <= set(report["findings"][0])


def test_train_keeps_its_contract(trained: Trained) -> None:
    _, result = trained
    assert result["model"] == "models:/demo/1"
    assert set(result["external"]) == {"Lakeside"}
    site = result["external"]["Lakeside"]
    wanted = {
        "n",
        "events",
        "auc",
        "auc_low",
        "auc_high",
        "auprc",
        "brier",
        "calibration_intercept",
        "calibration_slope",
    }
    assert wanted <= set(site)
    assert site["auc_low"] <= site["auc"] <= site["auc_high"]
    assert "Lakeside" in result["baselines"]["loris"]
    assert {"lab", "genomic", "clinical"} <= set(result["single_modality"])
    assert result["seconds"] > 0


def test_the_model_finds_what_truly_matters_and_the_shift_of_the_third_site(trained: Trained) -> None:
    _, result = trained
    assert result["external"]["Lakeside"]["auc"] > 0.7
    assert result["external"]["Lakeside"]["calibration_intercept"] < -0.3, "the planted shift is -0.8"
    assert abs(result["cv"]["calibration_intercept"]) < 0.3


def test_features_are_written_with_their_catalogue(trained: Trained) -> None:
    place, _ = trained
    place.run("features", place.study, "--out", "features.parquet")
    frame = pd.read_parquet(place.folder / "features.parquet")
    catalogue = json.loads((place.folder / "features.catalogue.json").read_text())
    assert list(frame.columns[:3]) == ["subject_id", "index_time", "site"]
    assert [spec["name"] for spec in catalogue] == list(frame.columns[3:])
    refused = place.run("features", place.study, "--out", "features.parquet", code=1)
    assert "--overwrite" in refused.stderr


def test_scores_add_up_and_say_what_was_missing(trained: Trained, new_patients: Path) -> None:
    place, _ = trained
    answer = place.json("score", "models:/demo/1", new_patients)
    assert answer["model"] == "models:/demo/1"
    assert len(answer["rows"]) == len(pd.read_csv(new_patients))
    for row in answer["rows"]:
        p = row["probability"]
        total = row["base"] + sum(row["contributions"].values())
        assert total == pytest.approx(np.log(p / (1 - p)), abs=1e-6)
        assert sum(row["modalities"].values()) == pytest.approx(sum(row["contributions"].values()), abs=1e-9)
        assert row["low"] <= p <= row["high"]
    assert any("wear.daily_steps" in row["missing"] for row in answer["rows"])


def test_a_score_file_is_whole_and_not_overwritten(trained: Trained, new_patients: Path) -> None:
    place, _ = trained
    place.run("score", "demo", new_patients, "--out", "scores.csv")
    assert len(pd.read_csv(place.folder / "scores.csv")) == len(pd.read_csv(new_patients))
    assert "scores.csv exists" in place.run("score", "demo", new_patients, "--out", "scores.csv", code=1).stderr


def test_the_board_sheet_is_one_page_of_its_own(trained: Trained, new_patients: Path) -> None:
    place, _ = trained
    patient = str(pd.read_csv(new_patients, dtype=str)["Patient"].iloc[3])
    place.run("report", "demo", new_patients, "--patient", patient, "--out", "sheet.html")
    text = (place.folder / "sheet.html").read_text()
    assert patient in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "no patient with the identifier" in place.run(
        "report", "demo", new_patients, "--patient", "nobody", "--out", "x.html", code=1
    ).stderr.replace("no patient with", "no patient with")
    assert not (place.folder / "x.html").exists()


def test_verify_passes_on_every_road(trained: Trained) -> None:
    place, _ = trained
    report = place.json("verify", "models:/demo/1")
    assert report["passed"]


def test_evaluate_judges_a_file_with_outcomes(trained: Trained) -> None:
    place, result = trained
    figures = place.json("evaluate", "models:/demo/1", "data/clinic.xlsx", "--sheet", "Lakeside")
    assert figures["n"] == result["external"]["Lakeside"]["n"]
    assert figures["auc"] is not None


def test_the_registry_promotes_records_and_rolls_back(trained: Trained) -> None:
    place, _ = trained
    move = place.json("models", "alias", "demo", 1, "champion", "--by", "an engineer", "--override", "end-to-end test")
    assert (move["alias"], move["from_version"], move["to_version"], move["who"]) == (
        "champion",
        None,
        1,
        "an engineer",
    )
    listing = place.json("models", "list")
    assert listing["models"][0]["aliases"] == {"champion": 1, "challenger": 1}
    place.run("models", "rollback", "demo")
    assert place.json("models", "list")["models"][0]["aliases"] == {"challenger": 1}
    kinds = [one["kind"] for one in place.json("models", "list")["models"][0]["moves"]]
    assert kinds == ["set", "set", "rollback"]


def test_serve_answers_as_score_does(trained: Trained, new_patients: Path) -> None:
    place, _ = trained
    server = place.start("serve", "models:/demo/1", "--port", 8765)
    try:
        health = _wait_for("http://127.0.0.1:8765/health", server)
        assert health["status"] == "ok"
        row = json.loads(pd.read_csv(new_patients, dtype=str).head(1).to_json(orient="records"))
        request = urllib.request.Request(
            "http://127.0.0.1:8765/v1/score",
            data=json.dumps({"rows": row}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            served = json.load(response)
    finally:
        server.terminate()
        server.communicate(timeout=20)
    scored = place.json("score", "models:/demo/1", new_patients)
    assert served["rows"][0]["probability"] == pytest.approx(scored["rows"][0]["probability"], abs=1e-9)


def _wait_for(url: str, server: Any) -> dict[str, Any]:
    for _ in range(200):
        assert server.poll() is None, server.stderr.read()
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return dict(json.load(response))
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def test_mistakes_exit_with_1_and_a_remedy(trained: Trained, tmp_path: Path) -> None:
    place, _ = trained
    assert "Check the path" in place.run("train", tmp_path / "none.yaml", code=1).stderr
    unknown = place.run("score", "dem", "new.csv", code=1)
    assert "demo" in unknown.stderr
    assert unknown.stdout == ""
    assert "Traceback" not in unknown.stderr
    place.run("score", code=2)
