"""The board sheet: its numbers are the prediction's, its text is escaped, and it prints on one page."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving.clinical_text import hundredth, of_hundred, percent_text, range_of_hundred
from theracast_serving.score import score_frame
from theracast_serving.sheet import DRIVERS, board_sheet, sheet_content

TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def prediction(model: ResponseModel, raw: pd.DataFrame) -> Prediction:
    return score_frame(model, raw)


def text_of(page: str) -> str:
    """Return what a reader sees."""
    body = re.sub(r"<(style|title)\b.*?</\1>", " ", page[page.index("<body>") :], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_numbers_are_those_of_the_prediction(model: ResponseModel, prediction: Prediction) -> None:
    for row in range(0, len(prediction), 25):
        page = board_sheet(model, prediction, row, as_of=TODAY)
        text = text_of(page)
        p, low, high = (float(part[row]) for part in (prediction.probability, prediction.low, prediction.high))
        assert f"Of 100 patients like this one, about {of_hundred(p)} respond ({range_of_hundred(low, high)})." in text
        assert f"this patient, {percent_text(p)}" in text
        icons = re.search(r'<svg class="icons".*?</svg>', page)
        assert icons is not None
        assert icons[0].count("<circle") == 100
        assert icons[0].count("<circle") - icons[0].count('fill="#fff"') == hundredth(p)
        assert prediction.subject_id[row] in text
        assert "2026-11-21" in text
        assert prediction.model in text


def test_the_drivers_are_the_largest_contributions_and_with_the_rest_they_add_up(
    model: ResponseModel, prediction: Prediction
) -> None:
    row = 7
    content = sheet_content(model, prediction, row, as_of=TODAY)
    phi = prediction.contributions.iloc[row]
    ranked = phi[phi != 0].abs().sort_values(ascending=False).index[:DRIVERS]
    labels = {spec.name: spec.label for spec in prediction.features.catalogue}
    assert [driver.label for driver in content.drivers] == [labels[name] for name in ranked]
    p = float(prediction.probability[row])
    for driver, name in zip(content.drivers, ranked, strict=True):
        silent = 1 / (1 + math.exp(-(math.log(p / (1 - p)) - phi[name])))
        assert driver.direction == ("for" if phi[name] > 0 else "against")
        expected = abs(round(100 * (p - silent), 6))
        assert driver.points.lstrip("+−±") == str(math.floor(expected + 0.5))


def test_more_features_than_lines_are_summed_up(model: ResponseModel, prediction: Prediction) -> None:
    model, wide = widened(model, prediction, 7, features=60)
    content = sheet_content(model, wide, 0, as_of=TODAY)
    assert len(content.drivers) == DRIVERS
    assert content.rest is not None
    assert content.rest.label == "52 further entries together"
    assert content.missing_more > 0


def test_values_stand_in_clinical_units_among_the_cohort(model: ResponseModel, prediction: Prediction) -> None:
    albumin = model.reference.features["lab.albumin"].quantiles
    text = text_of(board_sheet(model, prediction, 0, as_of=TODAY))
    value = float(prediction.features.frame["lab.albumin"].iloc[0])
    assert f"{value:.2f}".rstrip("0").rstrip(".") + " g/dL" in text
    assert f"{albumin['p05']:.2f}".rstrip("0").rstrip(".") in text
    assert f"({model.reference.events} of {model.reference.n} patients)" in text


def test_a_value_at_the_cap_is_marked(model: ResponseModel, raw: pd.DataFrame) -> None:
    capped = raw.head(1).assign(NLR=80.0)
    assert "≥ 25" in text_of(board_sheet(model, score_frame(model, capped), 0, as_of=TODAY))


def test_what_is_missing_is_named(model: ResponseModel, raw: pd.DataFrame) -> None:
    patient = raw.head(1).drop(columns=["TMB", "ECOG"])
    text = text_of(board_sheet(model, score_frame(model, patient), 0, as_of=TODAY))
    assert "4 of 6 entries are known" in text
    assert "Tumour mutational burden" in text
    assert "ECOG" in text


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ("Tal", "This patient's site (Tal) is among the tested ones."),
        ("Berg", "is one from which the model was learned"),
        ("Meer", "is not among the external test sites"),
        (None, "The site of this patient is not stated."),
    ],
)
def test_performance_starts_from_the_patients_site(
    model: ResponseModel, raw: pd.DataFrame, site: str | None, sentence: str
) -> None:
    patient = raw.head(1).assign(Centre=site)
    prediction = score_frame(model, patient)
    content = sheet_content(model, prediction, 0, as_of=TODAY)
    assert sentence in content.performance_note
    here = [line.site for line in content.performance if line.here]
    assert here == {"Tal": ["Tal"], "Berg": ["Development (CV)"]}.get(site or "", [])
    text = text_of(board_sheet(model, prediction, 0, as_of=TODAY))
    assert "0.71 (0.65 to 0.77)" in text
    assert "too few to judge" in text


def test_a_model_without_evaluation_says_so_plainly(model: ResponseModel, prediction: Prediction) -> None:
    bare = replace(model, evaluations={}, card={})
    assert "how well it does is not known. Do not rely on it." in text_of(board_sheet(bare, prediction, 0, as_of=TODAY))


def test_all_text_is_escaped(model: ResponseModel, raw: pd.DataFrame) -> None:
    evil = "<script>alert('x')</script>\"&"
    patient = raw.head(1).assign(ID=evil, Centre=evil, Drug=evil, Tumour=evil)
    page = board_sheet(
        replace(model, card=model.card | {"question": evil}), score_frame(model, patient), 0, as_of=TODAY
    )
    assert "<script" not in page
    assert evil in text_of(page)


def test_the_page_needs_nothing_from_elsewhere(model: ResponseModel, prediction: Prediction) -> None:
    page = board_sheet(model, prediction, 0, as_of=TODAY)
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", page)


def test_a_row_that_is_not_there_is_an_error(model: ResponseModel, prediction: Prediction) -> None:
    with pytest.raises(IndexError, match="is not among the"):
        board_sheet(model, prediction, len(prediction), as_of=TODAY)


def widened(
    model: ResponseModel, prediction: Prediction, row: int, *, features: int, probability: float = 0.61
) -> tuple[ResponseModel, Prediction]:
    """Return a sheet's worst case: many features of nine modalities with long labels, half of them missing."""
    modalities = ("transcriptomic", "pathology", "imaging", "clinical", "lab", "genomic", "treatment", "wearable")
    rng = np.random.default_rng(row)
    catalogue = tuple(
        FeatureSpec(
            name=f"f{place}",
            modality=modalities[place % len(modalities)],
            kind="numeric",
            label=f"Number {place} of a transcriptomic signature with a label of many words that goes on",
            columns=(f"c{place}",),
            unit="10*9/L",
        )
        for place in range(features)
    )
    values = [math.nan if place % 2 else 1234.567 * place for place in range(features)]
    phi = rng.normal(0, 0.3, features)
    log_odds = math.log(probability / (1 - probability))
    names = [spec.name for spec in catalogue]
    decisions = prediction.features.decisions.iloc[[row]].reset_index(drop=True)
    decisions = decisions.assign(
        site="University Hospital of a Town with a Long Name", treatment="carboplatin and more " * 5
    )
    contributions = pd.DataFrame([phi], columns=names)
    by_modality = {
        name: contributions[[spec.name for spec in catalogue if spec.modality == name]].sum(axis=1)
        for name in modalities
    }
    many = {f"A hospital with a very long name, number {place}": model.evaluations["cv"] for place in range(9)}
    return (
        replace(
            model, evaluations=model.evaluations | {"external": many}, card=model.card | {"question": "Why? " * 60}
        ),
        replace(
            prediction,
            subject_id=["PATIENT-WITH-AN-IDENTIFIER-" + "0123456789" * 4],
            answer=replace(
                prediction.answer,
                estimates=np.array([[probability]]),
                low=np.array([[probability * 0.9]]),
                high=np.array([[1 - (1 - probability) * 0.9]]),
                base=np.array([log_odds - phi.sum()]),
                contributions=contributions,
                modalities=pd.DataFrame(by_modality),
            ),
            missing=[[name for name, value in zip(names, values, strict=True) if math.isnan(value)]],
            warnings=[[f"Remark {place}: " + "a long sentence that has much to say " * 5 for place in range(9)]],
            features=FeatureTable(pd.DataFrame([values], columns=names), catalogue, decisions),
        ),
    )


@pytest.mark.parametrize("case", ["plain", "missing", "worst", "never", "always"])
def test_it_prints_on_one_page(
    case: str, model: ResponseModel, prediction: Prediction, raw: pd.DataFrame, tmp_path: Path
) -> None:
    chromium, pdfinfo = shutil.which("chromium"), shutil.which("pdfinfo")
    if chromium is None or pdfinfo is None:
        pytest.skip("printing needs the programs chromium and pdfinfo")
    if case == "missing":
        prediction = score_frame(model, raw.head(1)[["ID", "Tumour"]])
    elif case != "plain":
        chance = {"worst": 0.61, "never": 0.0004, "always": 0.9996}[case]
        model, prediction = widened(model, prediction, 3, features=60 if case == "worst" else 2, probability=chance)
    page = tmp_path / "sheet.html"
    page.write_text(board_sheet(model, prediction, 0, as_of=TODAY), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --no-pdf-header-footer"
    target = tmp_path / "sheet.pdf"
    subprocess.run(
        [
            chromium,
            *options.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--print-to-pdf={target}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    told = subprocess.run([pdfinfo, str(target)], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Pages:\s+1\n", told)
    assert "A4" in told
