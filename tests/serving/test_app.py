"""The web application: its answers are the library's, and its refusals hold no patient's value."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_models.response_model import ResponseModel
from theracast_serving import app as app_module
from theracast_serving.app import MAX_BYTES, MAX_ROWS, create_app
from theracast_serving.score import score_frame
from theracast_serving.sheet import board_sheet
from theracast_serving.verify import additivity_error, running_server

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

SECRET = "Rumpelstiltskin"
TODAY = date(2026, 11, 21)
COLUMNS = ("ID", "Centre", "Drug", "Albumin", "TMB", "Stage IV", "ECOG", "Tumour")


@pytest.fixture(scope="module")
def client(model: ResponseModel) -> Iterator[TestClient]:
    with warnings.catch_warnings():
        # Starlette 1.10 asks for httpx2 when its test client is imported; httpx still serves it.
        warnings.filterwarnings("ignore", message="Using `httpx`")
        from fastapi.testclient import TestClient

    with TestClient(create_app(model, clock=lambda: TODAY), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def rows(raw: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(raw.head(20).to_json(orient="records"))
    return records


def test_health_names_the_model(client: TestClient, model: ResponseModel) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": model.identity}


def test_scores_are_those_of_the_library(client: TestClient, model: ResponseModel, rows: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/score", json={"rows": rows})
    assert answer.status_code == 200
    assert answer.json() == score_frame(model, pd.DataFrame(rows)).to_json() | {"warnings": []}


def test_one_patient_is_a_row(client: TestClient, rows: list[dict[str, Any]]) -> None:
    several = client.post("/v1/score", json={"rows": rows}).json()["rows"]
    assert client.post("/v1/score", json={"patient": rows[3]}).json()["rows"] == [several[3]]


def test_a_site_may_be_named_for_all_rows(client: TestClient, rows: list[dict[str, Any]]) -> None:
    patient = {name: cell for name, cell in rows[0].items() if name != "Centre"}
    told = client.post("/v1/score", json={"patient": patient, "site": "Elsewhere"}).json()["rows"][0]["warnings"]
    assert any("site" in sentence for sentence in told)


def test_an_unknown_column_is_a_warning_with_the_likely_name(client: TestClient, rows: list[dict[str, Any]]) -> None:
    patient = {("Albumine" if name == "Albumin" else name): cell for name, cell in rows[0].items()} | {"Response": 1}
    answer = client.post("/v1/score", json={"patient": patient}).json()
    assert answer["warnings"] == [
        "The column 'Albumine' is not known to this model and was not used. Did you mean 'Albumin'?"
    ]
    assert "lab.albumin" in answer["rows"][0]["missing"]


def test_another_spelling_and_an_alias_are_known(client: TestClient, rows: list[dict[str, Any]]) -> None:
    patient = dict(rows[0])
    spelt = {"ALB": patient.pop("Albumin"), "stage_iv": patient.pop("Stage IV"), **patient}
    answer = client.post("/v1/score", json={"patient": spelt}).json()
    assert answer["warnings"] == []
    assert answer["rows"][0]["probability"] == pytest.approx(
        client.post("/v1/score", json={"patient": rows[0]}).json()["rows"][0]["probability"], abs=1e-12
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"rows": [{"Albumin": ' + SECRET, 422, "the body is not JSON"),
        ("", 422, "field required"),
        ("[1, 2]", 422, "the body"),
        ("{}", 422, "give either"),
        ('{"rows": []}', 422, "rows: "),
        ('{"rows": [{"Albumin": 3.9}], "patient": {"Albumin": 3.9}}', 422, "give either"),
        (f'{{"rows": "{SECRET}"}}', 422, "rows: "),
        (f'{{"patient": {{"Albumin": {{"value": "{SECRET}"}}}}}}', 422, "patient.Albumin: a cell is text, a number"),
        ('{"patient": {"Albumin": 3.9}, "index_time": "2024-01-01"}', 422, "index_time goes with a bundle"),
        ('{"patient": {"Albumin": NaN}}', 422, "NaN and infinity are not JSON"),
        ('{"patient": {"Albumin": 1e999}}', 422, "NaN and infinity are not JSON"),
        (f'{{"patients": [{{"Albumin": "{SECRET}"}}]}}', 422, "patients: "),
        (f'{{"patient": {{"Haemoglobin": "{SECRET}"}}}}', 422, "It expects columns such as 'Albumin'"),
        ('{"patient": {}}', 422, "It expects columns such as 'Albumin'"),
        ('{"patient": {"Albumin": 1' + "0" * 400 + "}}", 422, "patient.Albumin: the number is too large"),
        ('{"patient": {"Tumour": "\\ud800"}}', 422, "patient.Tumour: the text is not valid Unicode"),
        ('{"patient": {"\\ud800": 1}}', 422, "unicode"),
        ('{"site": "\\ud800", "patient": {"Albumin": 3.9}}', 422, "site: "),
        (json.dumps({"rows": [{"Albumin": 3.9}] * (MAX_ROWS + 1)}), 413, f"at most {MAX_ROWS}"),
        (json.dumps({"patient": {"Tumour": "x" * MAX_BYTES}}), 413, "Send the rows in parts"),
    ],
)
def test_a_refusal_says_what_to_mend_and_repeats_no_value(
    client: TestClient, body: str, status: int, message: str
) -> None:
    answer = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"]
    assert message.lower() in answer.json()["detail"].lower()
    assert SECRET not in answer.text


def test_many_faults_are_counted_not_listed(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"rows": [{"Albumin": [1]}] * 50})
    assert answer.status_code == 422
    assert "and 30 more" in answer.json()["detail"]


def test_a_body_without_a_declared_length_is_limited_too(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BYTES // 1_000_000 + 2):
            yield b" " * 1_000_000

    assert client.post("/v1/score", content=pieces()).status_code == 413


def test_unreadable_and_extreme_cells_are_warnings_and_the_answer_is_finite(client: TestClient) -> None:
    patient = {"ID": "a", "Albumin": "n/a?", "NLR": 1e300, "TMB": -5, "Tumour": "Unheard of", "ECOG": True}
    answer = client.post("/v1/score", json={"patient": patient})
    assert answer.status_code == 200
    row = json.loads(answer.text, parse_constant=pytest.fail)["rows"][0]
    assert 0 < row["probability"] < 1
    assert row["warnings"]


CELL = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())


@settings(max_examples=30, deadline=None)
@given(patient=st.fixed_dictionaries({"NLR": CELL}, optional=dict.fromkeys(COLUMNS, CELL)))
def test_any_cell_is_answered_with_finite_numbers_that_add_up(client: TestClient, patient: dict[str, Any]) -> None:
    answer = client.post("/v1/score", json={"patient": patient})
    assert answer.status_code == 200, answer.text
    row = json.loads(answer.text, parse_constant=pytest.fail)["rows"][0]
    assert 0 <= row["low"] <= row["probability"] <= row["high"] <= 1
    assert additivity_error([row]) < 1e-6
    assert client.post("/v1/report", json={"patient": patient}).status_code == 200


def test_a_fault_of_the_service_is_logged_without_the_value(
    client: TestClient,
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(f"could not convert {SECRET}")

    monkeypatch.setattr(app_module, "score_frame", broken)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/score", json={"patient": rows[0]})
    assert answer.status_code == 500
    assert "It was not scored" in answer.json()["detail"]
    assert SECRET not in answer.text + caplog.text
    assert "RuntimeError at" in caplog.text


def test_many_at_once_get_their_own_answers(model: ResponseModel, rows: list[dict[str, Any]]) -> None:
    def ask(row: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"patient": row}).encode()
        request = Request(f"http://127.0.0.1:{port}/v1/score", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)["rows"][0]
        return answer

    expected = [score_frame(model, pd.DataFrame([row])).rows()[0] for row in rows]
    with running_server(model) as port, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, rows)) == expected


def test_the_report_is_the_board_sheet(client: TestClient, model: ResponseModel, rows: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/report", json={"patient": rows[5]})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    prediction = score_frame(model, pd.DataFrame([rows[5]]))
    assert answer.text == board_sheet(model, prediction, 0, as_of=TODAY)


def test_the_model_describes_what_it_expects(client: TestClient, model: ResponseModel) -> None:
    described = json.loads(client.get("/v1/model").text, parse_constant=pytest.fail)
    assert described["model"] == model.identity
    assert described["format_version"] >= 1
    assert described["endpoint"]["label"] == "objective response (CR or PR)"
    assert described["evaluations"]["external"]["Tal"]["n"] == 60
    inputs = {entry["column"]: entry for entry in described["inputs"]}
    assert list(inputs) == ["Albumin", "NLR", "TMB", "Stage IV", "ECOG", "Tumour"]
    assert inputs["Albumin"]["unit"] == "g/dL"
    assert inputs["Albumin"]["development"]["quantiles"]["p05"] < inputs["Albumin"]["development"]["quantiles"]["p95"]
    assert inputs["Tumour"]["levels"] == ["Melanoma", "NSCLC", "Renal"]
    assert inputs["TMB"]["development"]["missing_rate"] == pytest.approx(0.15, abs=0.06)


def test_the_documentation_holds_examples_that_work(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/score", "/v1/report"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"]
        for example in content["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200


def test_finite_turns_what_is_not_json_into_null() -> None:
    content = {"a": [1.0, float("nan"), (float("inf"), "x")], "b": None}
    assert app_module.finite(content) == {"a": [1.0, None, [None, "x"]], "b": None}
