"""The board sheet of every kind of endpoint: what is told is what the model answers, and a page holds it all."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_models.links import HazardLink
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_models.standing import FloorSection
from theracast_serving.answer_text import Told
from theracast_serving.change import Change
from theracast_serving.clinical_text import of_hundred, range_of_hundred
from theracast_serving.course import Answer as CourseAnswer
from theracast_serving.course import Course, Measured
from theracast_serving.performance import closest_test
from theracast_serving.record import ScoredRow
from theracast_serving.score import score_frame
from theracast_serving.sheet import board_sheet, sheet_content
from theracast_serving.sheet_curves import nice_step, time_ticks
from theracast_serving.sheet_headline import level_shares, patient_curve
from theracast_serving.sheet_panels import trust_lines

from .conftest import several
from .test_sheet import text_of, widened

TODAY = date(2026, 11, 21)
KINDS = ["response", "os", "best", "change"]
Models = dict[str, ResponseModel]


def told_of(model: ResponseModel, prediction: Prediction, row: int, number: int = 0) -> Told:
    return Told(model.heads[number], prediction.answers[number], row, prediction.features)


def said(prediction: Prediction, row: int, number: int, place: int) -> tuple[float, float, float]:
    answer = prediction.answers[number]
    found = [float(part[row, place]) for part in (answer.estimates, answer.low, answer.high)]
    return found[0], found[1], found[2]


@pytest.mark.parametrize("row", [0, 100, 250])
def test_a_time_to_event_is_told_as_chances_by_its_horizons(board_models: Models, raw: pd.DataFrame, row: int) -> None:
    model = board_models["os"]
    prediction = score_frame(model, raw)
    text = text_of(board_sheet(model, prediction, row, as_of=TODAY))
    chance, low, high = said(prediction, row, 0, 0)
    assert f"about {of_hundred(chance)} die within 12 months ({range_of_hundred(low, high)})." in text
    for place, name in ((1, "6 months"), (2, "24 months")):
        chance, low, high = said(prediction, row, 0, place)
        assert f"ithin {name} {of_hundred(chance)} of 100 ({range_of_hundred(low, high)})" in text
    assert "What raises and lowers the chance of death within 12 months" in text
    assert "C 0.71" not in text
    assert "0.71 (0.63 to 0.78)" in text  # Harrell's C, not the AUC of 0.70 at the horizon


def test_the_curve_runs_through_the_answers_and_the_average_patient(board_models: Models, raw: pd.DataFrame) -> None:
    model = board_models["os"]
    prediction = score_frame(model, raw)
    link = model.calibrated.calibration
    assert isinstance(link, HazardLink)
    for row in (0, 37, 200):
        curve = patient_curve(told_of(model, prediction, row))
        assert curve.days[0] == 0
        assert curve.patient[0] == 1
        assert (np.diff(curve.patient) <= 1e-12).all()
        for place, horizon in enumerate(link.horizons):
            on_line = np.interp(horizon, curve.days, curve.patient)
            assert on_line == pytest.approx(1 - said(prediction, row, 0, place)[0], abs=0.03)
            day, share, low, high = curve.marks[place]
            assert day == horizon
            assert low <= share <= high
        hazard = np.interp(curve.days, link.grid, link.grid_hazards)
        np.testing.assert_allclose(curve.average, np.exp(-hazard), atol=1e-12)


def test_an_event_that_another_may_forestall_is_told_as_its_share(raw: pd.DataFrame) -> None:
    """By a slow integral of both hazards: the points, the curve and the start of the bars."""
    model = several("relapse", ["relapse", "os"])
    prediction = score_frame(model, raw)
    told = told_of(model, prediction, 8)
    own, rival = model.calibrated.calibration, model.calibrated.rival
    assert rival is not None
    assert isinstance(own, HazardLink)
    assert isinstance(rival.calibration, HazardLink)
    against = float(rival.log_odds(prediction.features)[8])
    fine = np.linspace(0, own.horizons[0], 20_001)

    def chance(linear: float) -> float:
        first = np.exp(linear) * np.interp(fine, *own.knots())
        second = np.exp(against) * np.interp(fine, *rival.calibration.knots())  # type: ignore[attr-defined]
        return float(np.sum(np.exp(-first - second)[:-1] * np.diff(first)))

    assert told.estimate == pytest.approx(chance(told.linear), abs=1e-4)
    for phi in prediction.contributions.iloc[8]:
        assert told.effect(float(phi)) == pytest.approx(100 * (told.estimate - chance(told.linear - phi)), abs=0.02)
    assert told.start() == f"{of_hundred(chance(float(prediction.base[8]) - own.offsets[0]))} of 100"
    curve = patient_curve(told)
    assert (np.diff(curve.patient) >= -1e-12).all()
    assert np.interp(own.horizons[0], curve.days, curve.patient) == pytest.approx(told.estimate, abs=0.02)
    text = text_of(board_sheet(model, prediction, 8, as_of=TODAY))
    assert f"about {of_hundred(told.estimate)} have a relapse within 12 months" in text
    assert prediction.answer.competing is not None
    other = of_hundred(float(prediction.answer.competing[8, 0]))
    assert f"In {other} of 100 another event comes first within 12 months." in text
    line = sheet_content(model, prediction, 8, as_of=TODAY).further[0]
    assert line.answers[0].startswith(f"{of_hundred(told.estimate)} of 100 have a relapse within 12 months (")
    phi = prediction.contributions.iloc[8]
    assert line.reasons[0].sign == ("+" if phi[phi.abs().idxmax()] > 0 else "−")
    assert line.average == of_hundred(model.reference.prevalence)
    for record in prediction.rows():
        assert ScoredRow.model_validate(record).on_scale is not None


def test_levels_add_up_and_the_leading_one_is_told(board_models: Models, raw: pd.DataFrame) -> None:
    model = board_models["best"]
    prediction = score_frame(model, raw)
    for row in (0, 60, 299):
        names, shares = level_shares(told_of(model, prediction, row))
        assert names == ["PD", "SD", "PR", "CR"]
        assert sum(shares) == pytest.approx(1)
        reached = said(prediction, row, 0, 0)
        assert shares[2] + shares[3] == pytest.approx(reached[0], abs=1e-9)
        text = text_of(board_sheet(model, prediction, row, as_of=TODAY))
        assert f"about {of_hundred(reached[0])} reach PR or better ({range_of_hundred(*reached[1:])})." in text
        for name, share in zip(names, shares, strict=True):
            assert f"{name} {math.floor(100 * share + 0.5)} %" in text


def test_a_number_is_told_with_its_unit_its_interval_and_the_scatter(board_models: Models, raw: pd.DataFrame) -> None:
    model = board_models["change"]
    prediction = score_frame(model, raw)
    told = told_of(model, prediction, 5)
    text = text_of(board_sheet(model, prediction, 5, as_of=TODAY)).replace("−", "-")
    value, low, high = said(prediction, 5, 0, 0)
    found = re.search(r"the model expects (\S+) mm \((\S+) to (\S+)\)\.", text)
    assert found is not None
    assert [float(part) for part in found.groups()] == pytest.approx([value, low, high], abs=0.051)
    scatter = re.search(r"about 95 of 100 lie within (\S+) to (\S+) mm", text)
    assert scatter is not None
    spread = model.calibrated.calibration.spread  # type: ignore[attr-defined]
    reach = [value - 1.96 * spread, value + 1.96 * spread]
    assert [float(part) for part in scatter.groups()] == pytest.approx(reach, abs=0.06)
    phi = prediction.contributions.iloc[5]
    assert told.effect(float(phi.iloc[0])) == pytest.approx(float(phi.iloc[0]))
    assert "off by 7.4 mm" in text
    assert "Of 100 patients like this one" not in text


@pytest.mark.parametrize("name", KINDS)
def test_points_are_what_the_chance_would_lose(board_models: Models, raw: pd.DataFrame, name: str) -> None:
    """By hand: the answer's scale, without the entry, and back."""
    prediction = score_frame(board_models[name], raw)
    told = told_of(board_models[name], prediction, 11)
    p = told.estimate
    scales: dict[str, Any] = {
        "response": (lambda v: 1 / (1 + math.exp(-v)), lambda c: math.log(c / (1 - c))),
        "best": (lambda v: 1 / (1 + math.exp(-v)), lambda c: math.log(c / (1 - c))),
        "os": (lambda v: 1 - math.exp(-math.exp(v)), lambda c: math.log(-math.log(1 - c))),
        "change": (lambda v: v / 100, lambda c: 100 * c),
    }
    back, there = scales[name]
    for phi in prediction.contributions.iloc[11]:
        expected = 100 * (p - back(there(p) - phi)) if name != "change" else phi
        assert told.effect(float(phi)) == pytest.approx(expected, abs=1e-9)


def test_further_endpoints_stand_on_one_line_each(board_model: ResponseModel, raw: pd.DataFrame) -> None:
    prediction = score_frame(board_model, raw)
    content = sheet_content(board_model, prediction, 2, as_of=TODAY)
    lines = {line.label: line for line in content.further}
    assert list(lines) == [head.label[:1].upper() + head.label[1:] for head in board_model.further]
    chance, low, high = said(prediction, 2, 2, 0)
    told = lines["Overall survival"]
    assert told.answers[0] == (
        f"{of_hundred(1 - chance)} of 100 alive at 12 months ({range_of_hundred(1 - high, 1 - low)})"
    )
    assert "at 6 months" in told.answers[1]
    assert "at 24 months" in told.answers[1]
    rate = board_model.further[1].reference.prevalence
    assert told.average == of_hundred(1 - rate)
    assert told.tested == ["C 0.71 (0.63 to 0.78)", "cross-validation"]  # a development site: Berg
    assert "without progression or death at 6 months" in lines["Progression-free survival"].answers[0]
    assert lines["Grade 3 or worse toxicity"].answers[0].startswith(of_hundred(said(prediction, 2, 3, 0)[0]))
    assert "reach PR or better" in lines["Best response"].answers[0]
    assert " mm (" in lines["Change of the sum of diameters"].answers[0]
    phi = prediction.further[1].contributions.iloc[2]
    strongest = phi.abs().sort_values(ascending=False).index[:2]
    labels = {spec.name: spec.label for spec in prediction.features.catalogue}
    for reason, name in zip(told.reasons, strongest, strict=True):
        assert reason.text.startswith(labels[name][:20])
        assert reason.sign == ("+" if phi[name] < 0 else "−")  # what lowers the hazard raises survival
    text = text_of(board_sheet(board_model, prediction, 2, as_of=TODAY))
    assert "Further endpoints" in text


def test_the_closest_test_is_that_of_the_own_site() -> None:
    figures = {"n": 60, "auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    evaluations = {
        "cv": figures | {"auc": 0.75},
        "external": {"Tal": figures, "Au": figures | {"n": 90, "auc": 0.65}, "Ort": {"n": 3, "auc": None}},
    }
    expected = {"Tal": ("Tal", 0.7), "Berg": ("cross-validation", 0.75), "Meer": ("Au", 0.65), None: ("Au", 0.65)}
    for site, (name, auc) in expected.items():
        found = closest_test(evaluations, site, developed_at=["Berg"], kind="binary")
        assert found is not None
        assert (found[0], found[1].value) == (name, auc)
    assert closest_test({}, None, developed_at=[], kind="binary") is None


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_beside_an_answer_is_said_in_words(board_models: Models, raw: pd.DataFrame, name: str) -> None:
    model = board_models[name]
    prediction = score_frame(model, raw)
    content = sheet_content(model, prediction, 4, as_of=TODAY)
    own = prediction.answer.more[4]
    assert [line.title for line in content.trust if not line.care] == [
        "To be expected",
        "Similar patients",
        "These data",
    ]
    said_of = {line.title: line.text for line in content.trust}
    assert said_of["These data"] == own["validated"]["sentence"]
    assert "comes true in 90 of 100 patients" in said_of["To be expected"]
    assert f"the {own['similar']['n']} most similar development patients" in said_of["Similar patients"]
    if name == "response":
        n, rate = own["similar"]["n"], own["similar"]["rate"]
        assert f"{round(n * rate)} responded ({math.floor(100 * rate + 0.5)} %" in said_of["Similar patients"]
    page = board_sheet(model, prediction, 4, as_of=TODAY)
    bare = board_sheet(model, replace(prediction, answer=replace(prediction.answer, more=())), 4, as_of=TODAY)
    assert "How far to trust this answer" in page
    assert "How far to trust this answer" not in bare


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"prediction_set": {"set": ["yes"], "coverage": 0.9, "group": "site A", "n": 210}},
         "Yes. Such a statement comes true in 90 of 100 patients (set by 210 development patients of site A)."),
        ({"prediction_set": {"set": ["no", "yes"], "coverage": 0.8}}, "Yes and no both remain possible"),
        ({"prediction_set": {"set": [], "coverage": 0.9}}, "Nothing fits"),
        ({"rarely_seen": {"rare": True, "percentile": 99.4, "because": ["genomic"]}},
         "more unusual than 99.4 % of them. What makes it so: genomic data."),
        ({"similar": {"n": 42, "events": 17, "rate": 17 / 42, "low": 0.26, "high": 0.55}},
         "Of the 42 most similar development patients 17 responded (40 %, 26 to 55 %)."),
        ({"validated": {"pattern": ["lab"], "absent": ["genomic"], "n": 210, "auc": 0.68, "exact": False}},
         "Tested with laboratory values, without genomic data: AUC 0.68 in 210 patients. The nearest data"),
        ({"validated": {"pattern": ["lab"], "absent": []}}, "was not tested"),
    ],
)  # fmt: skip
def test_each_record_has_its_sentence(
    board_model: ResponseModel, raw: pd.DataFrame, record: dict[str, Any], text: str
) -> None:
    told = told_of(board_model, score_frame(board_model, raw.head(1)), 0)
    lines = trust_lines(told, record)
    assert len(lines) == 1
    assert text in lines[0].text


def test_nothing_is_said_of_what_is_not_rare_or_has_no_threshold(board_model: ResponseModel, raw: pd.DataFrame) -> None:
    told = told_of(board_model, score_frame(board_model, raw.head(1)), 0)
    assert trust_lines(told, {}) == []
    assert trust_lines(told, {"rarely_seen": {"rare": False, "percentile": 40.0}}) == []
    none = {"prediction_set": {"set": ["no", "yes"], "coverage": 0.9, "basis": "no threshold: fewer than 10 patients"}}
    assert trust_lines(told, none) == []


def test_an_answer_that_is_not_given_leaves_no_chance_on_the_sheet(
    board_model: ResponseModel, raw: pd.DataFrame
) -> None:
    companions = replace(board_model.companions, floor=FloorSection(auc=0.7))
    model = replace(board_model, companions=companions)
    patient = raw.head(1)[["ID", "Centre", "Albumin", "NLR"]]
    prediction = score_frame(model, patient)
    assert prediction.answer.abstains(0) is not None
    page = board_sheet(model, prediction, 0, as_of=TODAY)
    text = text_of(page)
    assert (
        "The model does not answer: for such data the validated AUC was 0.55; the study asks for at least 0.70." in text
    )
    for word in ("of 100 patients like", "Further endpoints", "speaks for and against", "By kind of data", "similar"):
        assert word not in text
    assert 'class="icons"' not in page
    assert "<circle" in page  # the tested sites still stand there
    full = score_frame(model, raw.head(1))
    assert "The model does not answer" not in text_of(board_sheet(model, full, 0, as_of=TODAY))


def test_a_further_endpoint_that_is_not_answered_says_so_on_its_line(
    board_model: ResponseModel, raw: pd.DataFrame
) -> None:
    prediction = score_frame(board_model, raw.head(1))
    second = replace(prediction.further[1], more=[{"abstained": "No answer: <too little> is known."}])
    prediction = replace(prediction, further=(prediction.further[0], second, *prediction.further[2:]))
    line = sheet_content(board_model, prediction, 0, as_of=TODAY).further[1]
    assert line.answers == []
    text = text_of(board_sheet(board_model, prediction, 0, as_of=TODAY))
    assert "Not answered: <too little> is known." in text


def test_ticks_are_round_and_few() -> None:
    for days, unit, last in ((10, "days", 10), (100, "weeks", 14), (400, "months", 12), (2000, "months", 60)):
        ticks, found = time_ticks(days)
        assert found == unit
        assert 3 <= len(ticks) <= 7
        assert float(ticks[-1][1]) <= last + 1e-9
        assert ticks[-1][0] <= days
    assert nice_step(0.7, most=6) == pytest.approx(0.2)
    assert nice_step(30, most=6) == 5


COURSE = Course(
    (CourseAnswer(0, 0.3, 0.2, 0.4), CourseAnswer(21, 0.38, 0.3, 0.5), CourseAnswer(42, 0.71, 0.6, 0.8)),
    (
        Measured("Albumin", "g/dL", ((-3, 3.1), (20, 3.5), (41, 3.9))),
        Measured("Lactate dehydrogenase", "U/L", ((-3, 310.0), (20, 350.0), (41, 190.0))),
    ),
    tuple(
        Change(
            0,
            42,
            0.3,
            0.7,
            0.0,
            {},
            {},
            "From week 3 to week 6 the chance rose from 38 % to 71 %, because " + "it " * n,
        )
        for n in (80, 40)
    ),
)


@pytest.mark.parametrize(("name", "case"), [("response", "all"), ("os", "all"), ("os", "worst"), ("best", "worst")])
def test_whatever_stands_on_it_it_is_one_page(
    name: str, case: str, board_models: Models, raw: pd.DataFrame, tmp_path: Path
) -> None:
    chromium, pdfinfo = shutil.which("chromium"), shutil.which("pdfinfo")
    if chromium is None or pdfinfo is None:
        pytest.skip("printing needs the programs chromium and pdfinfo")
    model = board_models[name]
    prediction = score_frame(model, raw.head(1).assign(Centre="Meer"))
    record = {**prediction.answer.more[0], "rarely_seen": {"rare": True, "percentile": 99.4, "because": ["lab"]}}
    prediction = replace(prediction, answer=replace(prediction.answer, more=[record]))
    if case == "worst":
        model, prediction = longest(model, prediction)
    page, target = tmp_path / "sheet.html", tmp_path / "sheet.pdf"
    page.write_text(board_sheet(model, prediction, 0, as_of=TODAY, course=COURSE), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --no-pdf-header-footer"
    command = [chromium, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    told = subprocess.run([pdfinfo, str(target)], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Pages:\s+1\n", told), told


def longest(model: ResponseModel, prediction: Prediction) -> tuple[ResponseModel, Prediction]:
    """Return the worst case of `test_sheet` with further endpoints of long labels."""
    wide_model, wide = widened(model, prediction, 0, features=60)
    label = "An endpoint whose label is made of very many words"
    parts = {"contributions": wide.contributions, "modalities": wide.modalities}
    primary = replace(prediction.answer, **parts)
    further = tuple(replace(one, **parts) for one in prediction.further)
    heads = tuple(
        replace(head, endpoint=head.endpoint.model_copy(update={"label": label})) for head in wide_model.further
    )
    return replace(wide_model, further=heads), replace(wide, answer=primary, further=further)


def test_hostile_labels_are_escaped(board_model: ResponseModel, raw: pd.DataFrame) -> None:
    evil = "<script>alert(1)</script>"
    heads = tuple(
        replace(head, endpoint=head.endpoint.model_copy(update={"label": evil})) for head in board_model.further
    )
    model = replace(board_model, further=heads)
    page = board_sheet(model, score_frame(model, raw.head(1)), 0, as_of=TODAY)
    assert "<script" not in page
    assert html.escape(evil) in page or "&lt;script" in page
