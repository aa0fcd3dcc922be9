"""The course on the board sheet: the answers that the model gave then, and the measurements that moved."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_models.response_model import ResponseModel
from theracast_serving.app import create_app
from theracast_serving.course import Course, course_of
from theracast_serving.score import score_frame
from theracast_serving.sheet import board_sheet, sheet_content
from theracast_training.prepare import prepare
from theracast_training.study import parse_study

TODAY = date(2026, 11, 21)
DAYS = (0, 21, 42, 84)
STUDY = """
study: weeks
question: Will this patient respond, asked at the first dose and at each later visit?
events:
  store: store
  concepts:
    albumin: {codes: [lab//ALB], unit: g/dL, label: Albumin}
    ldh: {codes: [lab//LDH], unit: U/L, label: Lactate dehydrogenase}
    crp: {codes: [lab//CRP], unit: mg/L, label: C-reactive protein}
decisions:
  trigger: {codes: [drug//x]}
  landmarks: {days: [0, 21, 42, 84], label: Days since the first dose, ends: [{codes: [seen//progress]}]}
  site: North
  attributes:
    age: {codes: [birth], take: years_since, label: Age}
endpoints:
  - name: response
    label: objective response
    kind: first_event
    events: [{codes: [seen//response]}]
    horizon: 300d
    positive: event
features:
  events:
    - {concept: albumin, windows: [30d, all], aggregates: [last, slope]}
    - {concept: ldh, windows: [60d], aggregates: [last, slope], transform: log1p}
    - {concept: crp, windows: [60d], aggregates: [count]}
validation: {development: [North], scheme: {outer: 0, inner: 3}}
"""
BEGUN = pd.Timestamp("2024-03-01T09:00")


def courses(n: int = 120) -> pd.DataFrame:
    """Return events of patients whose albumin rises and LDH falls where they will respond after half a year."""
    rng = np.random.default_rng(2)
    rows: list[tuple[Any, ...]] = []
    for number in range(n):
        patient, good = f"P{number}", rng.normal()
        rows += [(patient, BEGUN - pd.Timedelta(days=365.25 * rng.uniform(40, 80)), "birth", None, None)]
        rows += [(patient, BEGUN, "drug//x", None, None)]
        for day in (-30, -5, 15, 20, 35, 41, 60, 80, 100):
            at = BEGUN + pd.Timedelta(days=day)
            albumin = 3.8 + 0.2 * good + 0.006 * good * max(day, 0) + rng.normal(0, 0.1)
            ldh = np.exp(5.5 - 0.2 * good - 0.006 * good * max(day, 0) + rng.normal(0, 0.1))
            rows += [(patient, at, "lab//ALB", albumin, "g/dL"), (patient, at, "lab//LDH", ldh, "U/L")]
        told = "response" if rng.random() < 1 / (1 + np.exp(-2 * good)) else "nothing"
        rows += [(patient, BEGUN + pd.Timedelta(days=180), f"seen//{told}", None, None)]
        rows += [(patient, BEGUN + pd.Timedelta(days=400), "seen//again", None, None)]
    return pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value", "unit"])


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return courses()


@pytest.fixture(scope="module")
def model(events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ResponseModel:
    return weeks_model(events, tmp_path_factory.mktemp("weeks"))


def weeks_model(events: pd.DataFrame, folder: Path) -> ResponseModel:
    """Return a model of response that is asked again on `DAYS`."""
    typed = events.assign(text_value=None, available_time=pd.NaT)
    typed = typed.astype({"time": "datetime64[us]", "available_time": "datetime64[us]", "text_value": object})
    table = pa.Table.from_pandas(typed[EVENT_SCHEMA.names], schema=EVENT_SCHEMA, preserve_index=False)
    EventStore.create(folder / "store", shards=2).append(SourceRecord(name="made", kind="test"), [table])
    prepared = prepare(parse_study(STUDY, base=folder), base=folder)
    learn, target = prepared.table.take(prepared.learn), prepared.target.take(prepared.learn)
    folds = patient_folds(learn, target.y, folds=3, seed=1)
    fitted = fit_calibrated(
        Recipe("elasticnet", {"c": 0.1, "l1_ratio": 0.5}),
        learn,
        target.y,
        folds=folds,
        weight=target.weight(),
        replicates=8,
        seed=1,
    )
    return ResponseModel.build(
        card={"name": "weeks", "question": prepared.study.question, "created": "2026-11-20T10:00:00+00:00"},
        inputs=prepared.study.inputs,
        section=prepared.section,
        endpoint=prepared.endpoint,
        calibrated=fitted,
        table=learn,
        y=target.y,
        weight=target.weight(),
    )


def row(events: pd.DataFrame, patient: str, day: float, **more: Any) -> dict[str, Any]:
    """Return a request about a patient on that day; it brings along all events, those of the future too."""
    own = events[events["subject_id"] == patient].drop(columns="subject_id")
    cells = own.assign(time=own["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f"))
    cells = cells.astype(object).where(cells.notna(), None)
    at = (BEGUN + pd.Timedelta(days=day)).isoformat()
    return {"subject_id": patient, "index_time": at, "site": "North", "events": cells.to_dict("records")} | more


def course(model: ResponseModel, *rows: dict[str, Any], place: int = 0) -> Course | None:
    raw = pd.DataFrame(list(rows))
    return course_of(model, raw, score_frame(model, raw), place)


@pytest.mark.parametrize("day", [21, 42, 84])
def test_each_answer_is_the_one_that_was_given_then(model: ResponseModel, events: pd.DataFrame, day: int) -> None:
    found = course(model, row(events, "P3", 0), row(events, "P4", day), place=1)
    assert found is not None
    days = [one for one in DAYS if one <= day]
    assert [answer.day for answer in found.answers] == days
    then = [model.predict(pd.DataFrame([row(events, "P4", one)])) for one in days]
    for name in ("probability", "low", "high"):
        given = [getattr(answer, name) for answer in found.answers]
        np.testing.assert_allclose(given, [getattr(one, name)[0] for one in then], rtol=0, atol=1e-12)
    assert len({round(answer.probability, 6) for answer in found.answers}) == len(days)


def test_a_day_between_two_landmarks_stands_at_the_end(model: ResponseModel, events: pd.DataFrame) -> None:
    found = course(model, row(events, "P4", 50))
    assert found is not None
    assert [answer.day for answer in found.answers] == [0, 21, 42, 50]


@pytest.mark.parametrize("hours", [0.5, 23])
def test_earlier_answers_are_as_of_the_hour_of_the_trigger(
    model: ResponseModel, events: pd.DataFrame, hours: float
) -> None:
    soon = pd.DataFrame(
        [("P4", BEGUN + pd.Timedelta(hours=0.25), "lab//ALB", 9.9, "g/dL")],
        columns=["subject_id", "time", "code", "numeric_value", "unit"],
    )
    after = pd.concat([events, soon])
    found = course(model, row(after, "P4", 21 + hours / 24))
    assert found is not None
    assert [answer.day for answer in found.answers] == [0, 21]
    before = model.predict(pd.DataFrame([row(events, "P4", 0)]))
    assert found.answers[0].probability == pytest.approx(before.probability[0], abs=1e-12)


def test_there_is_no_course_at_the_first_decision_or_without_a_moment(
    model: ResponseModel, events: pd.DataFrame
) -> None:
    assert course(model, row(events, "P4", 0)) is None
    unbegun = events[events["code"] != "drug//x"]
    assert course(model, row(unbegun, "P4", 42)) is None
    asked_once = replace(model, inputs=model.inputs.model_copy(update={"decisions": None}))
    raw = pd.DataFrame([row(events, "P4", 42)])
    assert course_of(asked_once, raw, score_frame(model, raw), 0) is None


def test_the_measurements_are_those_that_were_known_and_lie_in_the_longest_window(
    model: ResponseModel, events: pd.DataFrame
) -> None:
    found = course(model, row(events, "P4", 42))
    assert found is not None
    own = events[(events["subject_id"] == "P4") & (events["time"] <= BEGUN + pd.Timedelta(days=42))]
    drawn = {one.label: one for one in found.series}
    assert set(drawn) == {"Albumin", "Lactate dehydrogenase"}
    for label, code, first in (("Albumin", "lab//ALB", -30), ("Lactate dehydrogenase", "lab//LDH", -17)):
        known = own[own["code"] == code]
        days = (known["time"] - BEGUN) / pd.Timedelta(days=1)
        expected = list(zip(days[days >= first], known["numeric_value"][days >= first], strict=True))
        assert drawn[label].points == tuple(expected)
    assert drawn["Albumin"].unit == "g/dL"


def test_one_measurement_is_no_course_and_none_is_none(model: ResponseModel, events: pd.DataFrame) -> None:
    first = events.drop_duplicates(["subject_id", "code"])
    found = course(model, row(first, "P4", 42))
    assert found is not None
    assert found.series == ()
    bare = course(model, row(events, "P4", 42) | {"events": [], "landmark": 42})
    assert bare is None or bare.series == ()


def test_the_sheet_shows_the_course(model: ResponseModel, events: pd.DataFrame) -> None:
    raw = pd.DataFrame([row(events, "P4", 84)])
    prediction = score_frame(model, raw)
    found = course_of(model, raw, prediction, 0)
    content = sheet_content(model, prediction, 0, as_of=TODAY, course=found)
    assert content.course[0].heading == "Chance at each decision"
    assert {"Albumin, g/dL", "Lactate dehydrogenase, U/L"} == {panel.heading for panel in content.course[1:]}
    page = board_sheet(model, prediction, 0, as_of=TODAY, course=found)
    assert "The course so far" in page
    assert found is not None
    shown = re.findall(r"day (\d+): ([\d.]+) %", page)
    assert [int(day) for day, _ in shown[: len(found.answers)]] == [0, 21, 42, 84]
    chances = [100 * answer.probability for answer in found.answers]
    assert [float(text) for _, text in shown[: len(found.answers)]] == pytest.approx(chances, abs=0.51)
    assert "The course so far" not in board_sheet(model, prediction, 0, as_of=TODAY)


def test_the_server_answers_with_the_course(model: ResponseModel, events: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        # Starlette 1.10 asks for httpx2 when its test client is imported; httpx still serves it.
        warnings.filterwarnings("ignore", message="Using `httpx`")
        from fastapi.testclient import TestClient
    client = TestClient(create_app(model, clock=lambda: TODAY))
    told = client.post("/v1/report", json={"patient": row(events, "P4", 42)})
    assert told.status_code == 200
    assert "The course so far" in told.text


@pytest.mark.parametrize("case", ["plain", "worst"])
def test_a_sheet_with_a_course_prints_on_one_page(
    case: str, model: ResponseModel, events: pd.DataFrame, tmp_path: Path
) -> None:
    chromium, pdfinfo = shutil.which("chromium"), shutil.which("pdfinfo")
    if chromium is None or pdfinfo is None:
        pytest.skip("printing needs the programs chromium and pdfinfo")
    raw = pd.DataFrame([row(events, "P4", 84)])
    prediction = score_frame(model, raw)
    found = course_of(model, raw, prediction, 0)
    if case == "worst":
        warned = [f"A remark of many words that goes on, number {number}: " + "mind this " * 14 for number in range(9)]
        prediction = replace(
            prediction, warnings=[warned], subject_id=["A very long identifier of a patient 123456789"]
        )
        judged = {f"A hospital with a long name {number}": evaluation(number) for number in range(8)}
        card = model.card | {"question": model.card["question"] * 2}
        model = replace(model, evaluations={"cv": evaluation(1), "external": judged}, card=card)
    page, target = tmp_path / "sheet.html", tmp_path / "sheet.pdf"
    page.write_text(board_sheet(model, prediction, 0, as_of=TODAY, course=found), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --no-pdf-header-footer"
    command = [chromium, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    told = subprocess.run([pdfinfo, str(target)], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Pages:\s+1\n", told), told


def evaluation(number: int) -> dict[str, Any]:
    """Return an evaluation as training stores it."""
    auc = 0.6 + 0.03 * number
    return {
        "n": 100 + number,
        "events": 40,
        "prevalence": 0.4,
        "mean_probability": 0.31,
        "auc": auc,
        "auc_low": auc - 0.06,
        "auc_high": auc + 0.06,
        "calibration_slope": 0.9,
        "calibration_slope_low": 0.7,
        "calibration_slope_high": 1.2,
        "calibration_intercept": 0.1,
        "calibration_intercept_low": -0.2,
        "calibration_intercept_high": 0.3,
    }
