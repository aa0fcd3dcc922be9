"""The demonstration: from what hospitals export to a board sheet, and the same patient by rows and by FHIR bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from theracast_data.synthetic import Truth, generate
from theracast_data.synthetic.export import REFUSALS
from theracast_data.synthetic.export_fhir import MAKERS


def theracast(folder: Path, *arguments: object) -> str:
    """Standard output of the command, run as its user runs it, with the state of the demonstration."""
    own = {"THERACAST_HOME": str(folder / "state"), "THERACAST_DATA": str(folder / "data")}
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "theracast", *map(str, arguments)]
    done = subprocess.run(command, env=rest | own, cwd=folder.parent, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demonstration, and what it printed."""
    folder = tmp_path_factory.mktemp("work") / "demo"
    return folder, theracast(folder, "demo", "--to", folder)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("truth"))


def test_it_ends_with_its_outputs_and_the_faults_of_the_export(demo: tuple[Path, str]) -> None:
    folder, told = demo
    for name in (
        "audit.html",
        "study_report.html",
        "board_sheet.html",
        "scores.csv",
        "new_patients.json",
        "ingest.yaml",
    ):
        assert (folder / name).stat().st_size > 0
        assert str(folder / name) in told or name == "new_patients.json"
    assert told.count("not understood: 1 x") == len(REFUSALS)
    assert "0 errors, 0 warnings" in told
    assert "images measured" in told
    assert "not measured" not in told


def test_the_images_add_to_laboratory_clinic_and_genes(demo: tuple[Path, str]) -> None:
    """The texture of the CT speaks, in the true direction, and the report shows imaging alone and beside the rest."""
    folder, _ = demo
    report = (folder / "study_report.html").read_text(encoding="utf-8")
    assert "What each modality adds" in report
    asked = json.loads((folder / "new_patients.json").read_text(encoding="utf-8"))
    texture = next(one for row in asked for one in row["events"] if one["code"].endswith("cm_joint_entr_3D_comb"))
    [row] = [row for row in asked if texture in row["events"]]
    (folder / "smooth.json").write_text(json.dumps([_with_texture(row, texture["code"], 0.5)]), encoding="utf-8")
    (folder / "uneven.json").write_text(json.dumps([_with_texture(row, texture["code"], 1.5)]), encoding="utf-8")
    [smooth], [uneven] = (scored(folder, folder / f"{name}.json").values() for name in ("smooth", "uneven"))
    assert smooth["probability"] > uneven["probability"]


def _with_texture(row: dict[str, Any], code: str, times: float) -> dict[str, Any]:
    """The patient's row with another measurement of one code."""
    return row | {
        "events": [
            one | {"numeric_value": one["numeric_value"] * times} if one["code"] == code else one
            for one in row["events"]
        ]
    }


def test_the_model_comes_close_to_the_best_possible(demo: tuple[Path, str], truth: Truth) -> None:
    """At the external hospital, within what 162 patients can tell."""
    folder, _ = demo
    shown = json.loads(theracast(folder, "models", "show", "demo@champion", "--json"))
    assert shown["evaluations"]["external"]["Lakeside"]["auc"] > truth.bayes_auc["Lakeside"] - 0.06


def scored(folder: Path, file: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads(theracast(folder, "score", "models:/demo@champion", file, "--json"))["rows"]
    return {row["subject_id"]: row for row in rows}


def test_new_patients_are_asked_with_what_was_known(demo: tuple[Path, str], tmp_path: Path) -> None:
    """Events after the first dose, sent along by mistake, change nothing."""
    folder, _ = demo
    asked = json.loads((folder / "new_patients.json").read_text(encoding="utf-8"))
    assert all(event.get("time", "")[:19] <= row["index_time"] for row in asked for event in row["events"])
    answers = scored(folder, folder / "new_patients.json")
    assert not any("clin.sex" in row["missing"] for row in answers.values())
    late = {"time": "2030-01-01T00:00:00", "code": "LOINC//97509-4", "text_value": "SNOMED//260415000"}
    for row in asked:
        row["events"] += [late, late | {"code": "demo_lab//ALB", "numeric_value": 5.0, "unit": "g/dL"}]
    (tmp_path / "late.json").write_text(json.dumps(asked), encoding="utf-8")
    for patient, row in scored(folder, tmp_path / "late.json").items():
        assert row["probability"] == pytest.approx(answers[patient]["probability"], abs=1e-12)


def test_a_fhir_bundle_of_the_patient_is_scored_as_its_events_are(
    demo: tuple[Path, str], truth: Truth, tmp_path: Path
) -> None:
    """Up to the first dose; laboratory, wearables and images are in no bundle and are told missing."""
    folder, _ = demo
    row = truth.decisions.index[truth.decisions["site"] == "Lakeside"][1]
    records = [part.iloc[row].to_dict() for part in (truth.decisions, truth.values, truth.outcomes)]
    start = records[0]["index_time"].strftime("%Y-%m-%d")
    resources = [one for maker in MAKERS.values() for one in maker(*records)]
    known = [_without_death(one) for one in resources if _first_date(one) <= f"{start}~"]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in known]}
    (tmp_path / "bundle.json").write_text(json.dumps(bundle), encoding="utf-8")
    [answer] = scored(folder, tmp_path / "bundle.json").values()
    assert answer["subject_id"] == records[0]["subject_id"]
    asked = json.loads((folder / "new_patients.json").read_text(encoding="utf-8"))
    [own] = [one for one in asked if one["subject_id"] == answer["subject_id"]]
    own["events"] = [one for one in own["events"] if not one["code"].startswith(("demo_lab", "wearable", "IMAGE"))]
    (tmp_path / "rows.json").write_text(json.dumps([own]), encoding="utf-8")
    [expected] = scored(folder, tmp_path / "rows.json").values()
    assert answer["probability"] == pytest.approx(expected["probability"], abs=1e-6)
    assert "lab.albumin.last.90d" in answer["missing"]
    assert "gen.tmb.last.all" not in answer["missing"] or records[1]["tmb"] != records[1]["tmb"]


def _without_death(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource as it was before its patient died."""
    return {name: value for name, value in resource.items() if name != "deceasedDateTime"}


def _first_date(resource: dict[str, Any]) -> str:
    """Day on which a resource's fact was known, "" for what is true at all times."""
    period = resource.get("effectivePeriod", {})
    dates = (resource.get("effectiveDateTime"), resource.get("authored"), period.get("start"))
    return next((one for one in dates if one), "")
