"""One answer through every door; and a door that lies, fails or is missing is told."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from theracast_data.errors import ArtifactError
from theracast_data.home import tracking_uri
from theracast_models.response_model import ResponseModel
from theracast_models.standing import FloorSection
from theracast_serving import verify as verify_module
from theracast_serving.verify import PathResult, VerifyReport, additivity_error, largest_difference, verify
from theracast_training import tracking

from .conftest import several


def test_a_registered_version_gives_one_answer_through_all_doors(registry: Path) -> None:
    report = verify("demo")
    assert report.passed, report.to_text()
    assert report.model == "models:/demo/2"
    assert [path.path for path in report.paths] == ["python", "one by one", "cli", "mlflow", "rest"]
    assert all(path.patients == 10 and path.ok for path in report.paths)
    assert all(path.max_difference is not None and path.max_difference <= 1e-9 for path in report.paths)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["passed"] is True


def test_a_folder_has_no_mlflow_door_and_says_so(model_folder: Path) -> None:
    report = verify(model_folder)
    assert report.passed, report.to_text()
    mlflow = next(path for path in report.paths if path.path == "mlflow")
    assert mlflow.ok is None
    assert "no MLflow model around this folder" in report.to_text()


def test_all_endpoints_of_a_registered_model_are_the_same_through_all_doors(
    registry: Path, board_model: ResponseModel, tmp_path: Path
) -> None:
    """With a floor below which no answer is given, so that some rows of the examples have other fields than others."""
    companions = replace(board_model.companions, floor=FloorSection(auc=0.7))
    model = replace(board_model, companions=companions)
    frame = model.example_frame()
    answers = model.predict(frame).rows()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    model = replace(model, examples=[{"row": row, "answer": answer} for row, answer in zip(rows, answers, strict=True)])
    assert 0 < sum("abstained" in answer for answer in answers) < len(answers)
    model.save(tmp_path / "response_model")
    client = tracking.connect()
    with (
        warnings.catch_warnings(),
        tracking.as_global_store(tracking_uri()),
        tracking.study_run(client, "board", tags={}) as run,
    ):
        warnings.simplefilter("ignore")  # MLflow warns of its own type annotations when a model is logged
        tracking.register(client, run, "board", model, tmp_path / "response_model", tags={})
    report = verify("models:/board/1")
    assert report.passed, report.to_text()
    assert [path.path for path in report.paths if path.ok] == ["python", "one by one", "cli", "mlflow", "rest"]


@pytest.mark.parametrize(("primary", "further"), [("relapse", ["best"]), ("change", ["os"])])
def test_other_kinds_lead_as_well(primary: str, further: list[str], tmp_path: Path) -> None:
    several(primary, further).save(tmp_path / "model")
    report = verify(tmp_path / "model")
    assert report.passed, report.to_text()
    assert all(path.max_additivity is not None and path.max_additivity < 1e-6 for path in report.paths if path.ok)


def test_a_difference_in_a_further_endpoint_or_beside_it_fails(board_model: ResponseModel) -> None:
    answers = board_model.predict(board_model.example_frame()).rows()
    assert largest_difference(answers, json.loads(json.dumps(answers))) == 0
    for path, shift in (
        (("endpoints", "os", "answers", 1, "probability"), 0.25),
        (("endpoints", "change", "value"), 0.5),
        (("endpoints", "best", "contributions", "lab.albumin"), 0.125),
        (("similar", "rate"), 0.0625),
    ):
        changed: Any = json.loads(json.dumps(answers))
        place = changed[0]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] += shift
        assert largest_difference(changed, answers) == pytest.approx(shift)
    for path, cell in ((("prediction_set", "set"), ["maybe"]), (("endpoints", "os"), None), (("warnings",), ["mind"])):
        changed = json.loads(json.dumps(answers))
        place = changed[0]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = cell
        assert largest_difference(changed, answers) == math.inf


def test_stored_answers_that_differ_fail(model: ResponseModel, tmp_path: Path) -> None:
    first = model.examples[0]
    wrong = first | {"answer": first["answer"] | {"probability": first["answer"]["probability"] + 1e-8}}
    replace(model, examples=[wrong, *model.examples[1:]]).save(tmp_path / "wrong")
    report = verify(tmp_path / "wrong")
    assert not report.passed
    python = report.paths[0]
    assert python.ok is False
    assert python.max_difference == pytest.approx(1e-8, rel=1e-3)
    assert "do NOT agree" in report.to_text()


def test_a_model_without_examples_cannot_be_verified(model: ResponseModel, tmp_path: Path) -> None:
    replace(model, examples=[]).save(tmp_path / "bare")
    with pytest.raises(ArtifactError, match="no example patients"):
        verify(tmp_path / "bare")


def test_a_door_that_fails_is_a_result_and_the_others_are_still_tried(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module.sys, "executable", "/no/such/python")
    report = verify(model_folder)
    failed = {path.path: path for path in report.paths if path.ok is False}
    assert set(failed) == {"cli"}
    assert failed["cli"].note == "failed with FileNotFoundError"
    assert not report.passed


def answer(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "subject_id": "1",
        "probability": 0.5,
        "low": 0.4,
        "high": 0.6,
        "base": -1.0,
        "contributions": {"a": 0.75, "b": 0.25},
        "modalities": {"lab": 1.0},
        "missing": [],
        "warnings": [],
    }
    return record | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.0),
        ({"low": 0.41}, 0.01),
        ({"contributions": {"a": 0.75, "b": 0.5}}, 0.25),
        ({"contributions": {"a": 0.75, "c": 0.25}}, math.inf),
        ({"warnings": ["mind this"]}, math.inf),
        ({"missing": ["a"]}, math.inf),
        ({"high": None}, math.inf),
        ({"high": math.nan}, math.inf),
    ],
)
def test_the_largest_difference_sees_every_part(changes: dict[str, Any], expected: float) -> None:
    assert largest_difference([answer(**changes)], [answer()]) == pytest.approx(expected)


def test_lists_of_different_length_differ() -> None:
    assert largest_difference([answer()], []) == math.inf


def test_the_additivity_error_is_the_gap_of_features_or_modalities() -> None:
    assert additivity_error([answer()]) == 0
    assert additivity_error([answer(base=-1.5)]) == pytest.approx(0.5)
    assert additivity_error([answer(modalities={"lab": 0.9})]) == pytest.approx(0.1)
    assert additivity_error([answer(probability=1.0)]) == math.inf


def test_a_report_in_which_nothing_was_judged_does_not_pass() -> None:
    assert not VerifyReport("m", 1e-9, (PathResult("mlflow", 0, None, None, 0.0, None),)).passed
