"""What changed between two decisions: exact differences, values in their units, and who is no longer at risk."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_models.links import AffineCalibration
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving.answer_text import Told
from theracast_serving.app import create_app
from theracast_serving.change import Change, change_between, day_text
from theracast_serving.course import course_of, with_changes
from theracast_serving.score import score_frame
from theracast_serving.sheet import board_sheet
from theracast_serving.verify import verify

from .test_course import BEGUN, courses, row, weeks_model
from .test_sheet import text_of

TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return courses()


@pytest.fixture(scope="module")
def model(events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ResponseModel:
    return weeks_model(events, tmp_path_factory.mktemp("weeks"))


def changes(model: ResponseModel, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    raw = pd.DataFrame(list(rows))
    return with_changes(model, raw, score_frame(model, raw))


def log_odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def test_the_differences_are_exact(model: ResponseModel, events: pd.DataFrame) -> None:
    """Asked again as of the earlier days, by hand, the model gives the answers and contributions that are compared."""
    told = changes(model, row(events, "P4", 84), row(events, "P7", 0), row(events, "P5", 21))
    assert set(told[0]["change"]) == {"since_last_decision", "since_start"}
    assert "change" not in told[1]  # the first decision
    assert set(told[2]["change"]) == {"since_last_decision"}  # which was the first one
    asked = [("P4", 84, 42, told[0]["change"]["since_last_decision"]), ("P4", 84, 0, told[0]["change"]["since_start"])]
    asked += [("P5", 21, 0, told[2]["change"]["since_last_decision"])]
    for patient, day, before, change in asked:
        then, now = (model.predict(pd.DataFrame([row(events, patient, one)])) for one in (before, day))
        assert (change["from_day"], change["day"]) == (before, day)
        assert change["before"] == pytest.approx(then.probability[0], abs=1e-12)
        assert change["now"] == pytest.approx(now.probability[0], abs=1e-12)
        for name, moved in change["contributions"].items():
            assert moved == pytest.approx(now.contributions[name][0] - then.contributions[name][0], abs=1e-12)
        explained = change["base"] + sum(change["contributions"].values())
        assert explained == pytest.approx(log_odds(change["now"]) - log_odds(change["before"]), abs=1e-9)
        for name, value in change["values"].items():
            old, new = (float(one.features.frame[name].iloc[0]) for one in (then, now))
            known = [None if math.isnan(one) else one for one in (old, new)]
            assert [value["before"], value["now"]] == known
            assert ("change" in value) == (None not in known)
            assert value.get("change") is None or value["change"] == pytest.approx(new - old)
        assert any("landmark" in name for name in change["values"])


def test_many_rows_hear_what_each_hears_alone(model: ResponseModel, events: pd.DataFrame) -> None:
    asked = [row(events, patient, day) for patient, day in (("P1", 42), ("P2", 84), ("P3", 0), ("P1", 21))]
    together = changes(model, *asked)
    for own, request in zip(together, asked, strict=True):
        alone = changes(model, request)[0]
        assert own.get("change", {}).keys() == alone.get("change", {}).keys()
        for name, change in own.get("change", {}).items():
            assert change["sentence"] == alone["change"][name]["sentence"]
            assert change["before"] == pytest.approx(alone["change"][name]["before"], abs=1e-12)


def test_the_sentence_names_values_in_their_units(model: ResponseModel, events: pd.DataFrame) -> None:
    """A patient whose albumin fell from 4 to 2 g/dL while nothing else moved."""
    steady = events[(events["subject_id"] == "P4") & ~events["code"].isin(["lab//ALB", "lab//LDH"])]
    moments = [BEGUN + pd.Timedelta(days=day) for day in (-2, 40)]
    measured = [("P4", at, "lab//ALB", value, "g/dL") for at, value in zip(moments, (4.0, 2.0), strict=True)]
    measured += [("P4", at, "lab//LDH", 250.0, "U/L") for at in moments]
    made = pd.concat([steady, pd.DataFrame(measured, columns=events.columns)])
    sentence = changes(model, row(made, "P4", 42))[0]["change"]["since_start"]["sentence"]
    found = changes(model, row(made, "P4", 42))[0]["change"]["since_start"]
    before, now = (math.floor(100 * found[name] + 0.5) for name in ("before", "now"))
    assert sentence.startswith(f"From the start to week 6 the chance fell from {before} % to {now} %, mostly because: ")
    assert "fell by 50 % from 4 to 2 g/dL (−" in sentence
    assert "Lactate" not in sentence.split("; against it")[0]
    assert sentence.count("from 4 to 2 g/dL") == 1  # two windows that say the same are one reason


def test_the_sheet_and_the_server_say_it(model: ResponseModel, events: pd.DataFrame) -> None:
    raw = pd.DataFrame([row(events, "P4", 84)])
    prediction = score_frame(model, raw)
    course = course_of(model, raw, prediction, 0)
    assert course is not None
    text = text_of(board_sheet(model, prediction, 0, as_of=TODAY, course=course))
    for change in course.changes:
        assert change.sentence in text
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx`")
        from fastapi.testclient import TestClient
    answer = TestClient(create_app(model)).post("/v1/score", json={"patient": row(events, "P4", 84)})
    told = answer.json()["rows"][0]["change"]
    assert told["since_last_decision"]["sentence"] == course.changes[0].sentence
    assert told["since_start"]["from_day"] == 0


def test_who_is_no_longer_at_risk_gets_no_answer_but_the_reason(model: ResponseModel, events: pd.DataFrame) -> None:
    progress = pd.DataFrame(
        [("P4", BEGUN + pd.Timedelta(days=30), "seen//progress", None, None)], columns=events.columns
    )
    ended = pd.concat([events, progress])
    raw = pd.DataFrame([row(ended, "P4", 42), row(ended, "P4", 21), row(ended, "P5", 42)])
    prediction = score_frame(model, raw)
    told = prediction.rows()
    assert "abstained" not in told[1]  # it had not happened yet
    assert "abstained" not in told[2]  # another patient
    assert told[0]["probability"] is None
    assert told[0]["abstained"] == (
        "No answer: on day 42 this patient is no longer at risk, for an event of the endpoint came before."
    )
    text = text_of(board_sheet(model, prediction, 0, as_of=TODAY, course=course_of(model, raw, prediction, 0)))
    assert "The model does not answer: on day 42 this patient is no longer at risk" in text
    assert "of 100 patients" not in text
    assert "The course so far" not in text
    again = with_changes(model, raw, prediction)
    assert "change" not in again[0]
    assert "change" in again[2]
    json.dumps(again, allow_nan=False)


def test_all_doors_agree_on_a_model_that_asks_again(model: ResponseModel, tmp_path: Path) -> None:
    model.save(tmp_path / "weeks")
    report = verify(tmp_path / "weeks")
    assert report.passed, report.to_text()


def test_days_are_spoken_of_as_weeks() -> None:
    assert [day_text(day) for day in (0, 7, 14, 42, 50, 1)] == [
        "the start",
        "day 7",
        "week 2",
        "week 6",
        "day 50",
        "day 1",
    ]


def moved(
    model: ResponseModel, prediction: Prediction, cells: dict[str, tuple[Any, Any]], phi: dict[str, float]
) -> Change:
    """Return the change between two made-up decisions of the first patient."""
    frame = prediction.features.frame.iloc[[0]]
    tables = [
        replace(
            prediction.features,
            frame=frame.assign(**{name: [pair[side]] for name, pair in cells.items()}).reset_index(drop=True),
            decisions=prediction.features.decisions.iloc[[0]].reset_index(drop=True),
        )
        for side in (0, 1)
    ]
    before = prediction.answer.contributions.iloc[[0]].reset_index(drop=True)
    now = before.assign(**{name: before[name] + value for name, value in phi.items()})
    scale = float(prediction.base[0]) + before.sum(axis=1)[0]
    chances = [1 / (1 + math.exp(-value)) for value in (scale, scale + sum(phi.values()))]
    told = [
        Told(
            model.head,
            replace(
                prediction.answer,
                estimates=np.array([[chance]]),
                base=prediction.base[:1],
                contributions=contributions,
            ),
            0,
            table,
        )
        for chance, contributions, table in zip(chances, (before, now), tables, strict=True)
    ]
    return change_between(told[0], told[1], from_day=0, day=50)


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        ("lab.albumin", (3.0, 3.3), "Albumin rose from 3 to 3.3 g/dL"),
        ("lab.albumin", (2.0, 4.0), "Albumin rose by 100 % from 2 to 4 g/dL"),
        ("lab.albumin", (np.nan, 3.3), "Albumin is now known (3.3 g/dL)"),
        ("lab.albumin", (3.0, np.nan), "Albumin is no longer known"),
        ("lab.albumin", (3.0, 3.0), "Albumin, unchanged, weighs otherwise beside the rest"),
        ("clin.stage_iv", (0.0, 1.0), "Stage IV: no became yes"),
        ("clin.tumour", ("NSCLC", "Renal"), "Tumour: NSCLC became Renal"),
    ],
)
def test_every_way_to_move_has_its_words(
    board_model: ResponseModel, raw: pd.DataFrame, name: str, cells: tuple[Any, Any], words: str
) -> None:
    assert isinstance(board_model.calibrated.calibration, AffineCalibration)
    prediction = score_frame(board_model, raw.head(1))
    found = moved(board_model, prediction, {name: cells}, {name: 1.0, "lab.nlr": -0.3})
    chance = 1 / (1 + math.exp(-(log_odds(found.now) - 1.0)))
    points = math.floor(100 * (found.now - chance) + 0.5)
    assert f", mostly because: {words} (+{points} points)" in found.sentence
    assert "; against it: Neutrophil-to-lymphocyte ratio, unchanged" in found.sentence
    assert (name in found.values) == (cells[0] != cells[1])
    still = moved(board_model, prediction, {name: cells}, {name: 0.0})
    assert "stayed at" in still.sentence
