"""The record of an answer with several endpoints: its OpenAPI schema, its table, and what is told of the model."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from theracast.main import main
from theracast_models.response_model import ResponseModel
from theracast_models.standing import FloorSection
from theracast_serving.app import create_app
from theracast_serving.course import with_changes
from theracast_serving.describe import describe_model
from theracast_serving.record import ScoreAnswer, ScoredRow
from theracast_serving.score import score_frame, unknown_columns
from theracast_training.external import evaluation_text

from .test_course import courses, row, weeks_model

NAMES = ["response", "pfs", "os", "toxicity", "best", "change"]


@pytest.fixture(scope="module")
def floored(board_model: ResponseModel) -> ResponseModel:
    """The model of all endpoints, which does not answer where laboratory values are all that is known."""
    return replace(board_model, companions=replace(board_model.companions, floor=FloorSection(auc=0.7)))


@pytest.fixture(scope="module")
def folder(floored: ResponseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("several") / "model"
    floored.save(place)
    return place


@pytest.fixture(scope="module")
def patients(raw: pd.DataFrame) -> pd.DataFrame:
    """Three patients; of the second only laboratory values are known."""
    chosen = raw.head(3).copy().astype({"Stage IV": object, "ECOG": object})
    chosen.loc[1, ["TMB", "Stage IV", "ECOG", "Tumour"]] = None
    return chosen


def test_the_schema_describes_the_records(floored: ResponseModel, patients: pd.DataFrame, tmp_path: Path) -> None:
    """The models behind the schema allow no other field, so a record that is not described would be refused."""
    records = score_frame(floored, patients).to_json()["rows"]
    for record in records:
        assert list(record["endpoints"]) == NAMES[1:]
        ScoredRow.model_validate(record)
    assert records[1]["probability"] is None
    with pytest.raises(ValidationError):
        ScoredRow.model_validate(records[0] | {"not_described": 1})
    events = courses(60)
    weeks = weeks_model(events, tmp_path)
    again = pd.DataFrame([row(events, "P4", 42), row(events, "P5", 0)])
    changed = with_changes(weeks, again, score_frame(weeks, again))
    assert ScoredRow.model_validate(changed[0]).change is not None
    assert ScoredRow.model_validate(changed[1]).change is None


def test_the_service_publishes_the_schema_and_answers_by_it(floored: ResponseModel, patients: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx`")
        from fastapi.testclient import TestClient
    client = TestClient(create_app(floored))
    schema = client.get("/openapi.json").json()
    known = schema["components"]["schemas"]
    answer = schema["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/ScoreAnswer")
    fields = known["ScoredRow"]["properties"]
    assert {"endpoints", "abstained", "prediction_set", "similar", "validated", "change", "answers"} <= set(fields)
    assert set(known["PredictionSet"]["properties"]) >= {"set", "low", "high", "not_before_day", "coverage"}
    told = client.post("/v1/score", json={"rows": json.loads(patients.to_json(orient="records"))})
    assert told.status_code == 200, told.text
    ScoreAnswer.model_validate(told.json())
    assert "Overall survival" in schema["info"]["description"]
    described = client.get("/v1/model").json()
    assert [one["name"] for one in described["endpoints"]] == NAMES
    sheet = client.post("/v1/report", json={"patient": json.loads(patients.to_json(orient="records"))[0]})
    assert "Further endpoints" in sheet.text


def test_a_model_tells_what_it_answers(board_model: ResponseModel) -> None:
    told = {one["name"]: one for one in describe_model(board_model)["endpoints"]}
    assert [one["horizon"] for one in told["os"]["answers"]] == pytest.approx([365.25, 182.625, 730.5])
    assert told["os"]["scale"] == "log-hazard"
    assert told["best"]["answers"][0] == {"name": "PR or better", "level": "PR"}
    assert told["change"]["unit"] == "mm"
    assert set(told["change"]["development"]) == {"n", "sites", "mean"}
    assert told["pfs"]["development"]["prevalence"] == board_model.further[0].reference.prevalence
    assert told["toxicity"]["evaluations"]["cv"]["auc"] == 0.7
    json.dumps(told, allow_nan=False)


def test_outcome_columns_of_all_endpoints_are_known(board_model: ResponseModel, raw: pd.DataFrame) -> None:
    frame = raw.assign(OS=1.0, OS_E=1, Tox=0, Best="PR", C=3.0, Response=1, Nonsense=2)
    assert unknown_columns(board_model, frame) == ["Nonsense"]


def test_the_table_holds_every_endpoint_and_no_chance_where_there_is_no_answer(
    folder: Path, floored: ResponseModel, patients: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "patients.csv", tmp_path / "scored.csv"
    patients.to_csv(source, index=False)
    assert main(["score", str(folder), str(source), "--out", str(target)]) == 0
    table = pd.read_csv(target)
    prediction = score_frame(floored, patients)
    assert table["probability"].isna().tolist() == [False, True, False]
    assert table["warnings"][1].startswith("No answer: for such data")
    assert pd.isna(table["top_contributions"][1])
    for number, (name, place, column) in enumerate(
        [
            ("os", 0, "os: 12 months"),
            ("os", 2, "os: 24 months"),
            ("best", 0, "best: PR or better"),
            ("change", 0, "change"),
        ]
    ):
        answer = next(one for one in prediction.answers if one.endpoint == name)
        assert table[column].tolist() == pytest.approx(answer.estimates[:, place].tolist(), abs=5.1e-4), number
    assert table["os low"].tolist() == pytest.approx(prediction.further[1].low[:, 0].tolist(), abs=5.1e-4)
    capsys.readouterr()
    assert main(["score", str(folder), str(source), "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    expected = score_frame(floored, pd.read_csv(source)).to_json()
    assert record["rows"][0]["endpoints"].keys() == expected["rows"][0]["endpoints"].keys()
    assert record["rows"][1]["abstained"] == table["warnings"][1].split(" | ")[0]


def test_figures_of_every_kind_are_told(board_model: ResponseModel) -> None:
    texts = {head.endpoint.name: evaluation_text(head.evaluations["cv"]) for head in board_model.heads}
    assert texts["change"].startswith("60 decisions\n")
    assert "spearman               0.610 (0.420 to 0.740)" in texts["change"]
    assert "auc" not in texts["change"]
    assert "c_harrell              0.710 (0.630 to 0.780)" in texts["os"]
    assert "c_ordinal              0.690" in texts["best"]
    assert texts["response"].startswith(
        "60 decisions, 24 with the event\nauc                    0.700 (0.640 to 0.760)"
    )


def test_show_tells_of_every_endpoint(
    registry: Path, board_model: ResponseModel, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from theracast_data.home import tracking_uri
    from theracast_training import tracking

    client = tracking.connect()
    with (
        warnings.catch_warnings(),
        tracking.as_global_store(tracking_uri()),
        tracking.study_run(client, "shown", tags={}) as run,
    ):
        warnings.simplefilter("ignore")  # MLflow warns of its own type annotations when a model is logged
        tracking.register(client, run, "shown", board_model, folder, tags={})
    capsys.readouterr()
    assert main(["models", "show", "models:/shown/1"]) == 0
    text = capsys.readouterr().out
    assert "os: Overall survival (12 months, 6 months, 24 months)" in text
    assert "best: Best response (PR or better, SD or better, CR)" in text
    assert text.count("nested cross-validation") == len(NAMES)
    assert main(["models", "show", "models:/shown/1", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["endpoints"]] == NAMES
