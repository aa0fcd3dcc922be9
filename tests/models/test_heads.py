"""Every kind of endpoint by every family: exact explanations, intervals, and several endpoints in one saved model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from theracast_data.endpoints import (
    BinaryEndpoint,
    ContinuousEndpoint,
    Endpoint,
    OrdinalEndpoint,
    TimeToEventEndpoint,
)
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable
from theracast_models.fitting import CalibratedModel, Recipe, fit_calibrated, patient_folds
from theracast_models.head import Head
from theracast_models.links import Asked
from theracast_models.outcomes import Binary, Continuous, Ordinal, Outcome, Survival
from theracast_models.reference import Reference
from theracast_models.response_model import ResponseModel

from .conftest import RECIPES, STUDY_INPUTS

Floats = NDArray[np.float64]

ENDPOINTS: dict[str, Endpoint] = {
    "binary": BinaryEndpoint(name="response", kind="binary", column="R"),
    "time_to_event": TimeToEventEndpoint(name="os", kind="time_to_event", time="OS", event="E", horizons=(12, 6)),
    "ordinal": OrdinalEndpoint(name="recist", kind="ordinal", column="R", levels=("PD", "SD", "PR", "CR")),
    "continuous": ContinuousEndpoint(name="change", kind="continuous", column="C", unit="mm"),
}
FAMILIES = RECIPES | {"late": Recipe("late", {"folds": 3}), "gated": Recipe("gated", {"hidden": 3})}
ASKED = Asked(horizons=(365.25, 182.625), main_level=2)
SCORES: dict[str, Callable[[Floats], Floats]] = {
    "binary": lambda p: np.log(p / (1 - p)),
    "time_to_event": lambda p: np.log(-np.log1p(-p)),
    "ordinal": lambda p: np.log(p / (1 - p)),
    "continuous": lambda value: value,
}


def _outcome(kind: str, score: Floats) -> Outcome:
    rng = np.random.default_rng(11)
    n = len(score)
    if kind == "binary":
        return Binary((score + rng.logistic(size=n) > 0).astype(float), np.ones(n))
    if kind == "time_to_event":
        death, lost = rng.exponential(300 * np.exp(-score)), rng.exponential(600, n)
        return Survival(np.ceil(np.minimum(death, lost)), (death <= lost).astype(float), np.ones(n))
    if kind == "ordinal":
        return Ordinal(np.digitize(score + rng.logistic(size=n), [-1.0, 0.5, 2.0]).astype(float), 4, np.ones(n))
    return Continuous(10 * score + 50 + rng.normal(size=n), np.ones(n))


def _fitted(kind: str, family: str, table: FeatureTable) -> CalibratedModel:
    outcome = _outcome(kind, table.frame["lab.albumin"].fillna(3.8).to_numpy(dtype=float) - 3.8)
    folds = patient_folds(table, outcome.strata, folds=3, seed=0)
    return fit_calibrated(FAMILIES[family], table, outcome, folds=folds, replicates=3, seed=3, asked=ASKED)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("kind", list(ENDPOINTS))
def test_what_a_patient_is_told_adds_up_and_comes_back_from_disk(
    kind: str, family: str, make_table: Any, make_holes: Any, tmp_path: Path
) -> None:
    table, _ = make_table(0, n=200)
    fitted = _fitted(kind, family, table)
    holes = make_holes(table, 1)
    answer = Head(ENDPOINTS[kind], fitted, Reference(0, 0, 0.5, (), {})).answer(holes, holes.catalogue)
    explained = answer.base + answer.contributions.sum(axis=1).to_numpy()
    np.testing.assert_allclose(SCORES[kind](answer.estimate), explained, atol=1e-6)
    np.testing.assert_allclose(answer.modalities.sum(axis=1), answer.contributions.sum(axis=1), atol=1e-12)
    assert (answer.low < answer.estimates).all()
    assert (answer.estimates < answer.high).all()
    if kind == "time_to_event":
        assert [one.name for one in answer.asked] == ["12 months", "6 months"]
        assert (answer.estimates[:, 0] > answer.estimates[:, 1]).all()
    if kind == "ordinal":
        assert [one.name for one in answer.asked] == ["PR or better", "SD or better", "CR"]
        assert (np.diff(answer.estimates[:, [1, 0, 2]], axis=1) < 0).all()
    fitted.save(tmp_path / "model")
    again = CalibratedModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.answers(holes), fitted.answers(holes))
    linear = fitted.log_odds(holes)
    np.testing.assert_array_equal(again.intervals_around(linear, holes), fitted.intervals_around(linear, holes))


@pytest.mark.parametrize(
    "kind", ["time_to_event", "ordinal", "continuous"]
)  # yes or no: test_boosting, test_elasticnet
def test_shares_equal_those_of_the_shap_library(kind: str, make_table: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what shap imports
        import shap
    table, _ = make_table(0, n=200)
    trees = _fitted(kind, "lightgbm", table)
    booster, matrix = trees.model.booster_, trees.model._matrix(table)  # type: ignore[attr-defined]
    _, phi = trees.model.contributions(table)
    told = np.asarray(shap.TreeExplainer(booster).shap_values(matrix))
    np.testing.assert_allclose(phi, told, atol=1e-6)
    line = _fitted(kind, "elasticnet", table)
    z = line.model.inputs_.design(table)  # type: ignore[attr-defined]
    explainer = shap.LinearExplainer((line.model.coef_, line.model.intercept_), z)  # type: ignore[attr-defined]
    _, phi = line.model.contributions(table)
    theirs = np.zeros_like(phi)
    np.add.at(theirs.T, line.model.inputs_.owner, np.asarray(explainer.shap_values(z)).T)  # type: ignore[attr-defined]
    np.testing.assert_allclose(phi - phi.mean(axis=0), theirs - theirs.mean(axis=0), atol=1e-6)


def test_every_kind_is_learned() -> None:
    """The chance that two patients are ranked as the truth ranks them, on new patients."""
    rng = np.random.default_rng(3)
    raw = pd.DataFrame({"ID": [str(k) for k in range(900)], "Albumin": rng.normal(38, 5, 900)})
    inputs = Inputs.model_validate(
        {"sources": [{"path": "x.csv", "subject": "ID", "columns": {"Albumin": {"modality": "lab", "unit": "g/L"}}}]}
    )
    cohort = cohort_from_frame(raw, inputs)
    table = build_features(cohort, resolve_section(FeatureSection(), cohort))
    truth = (raw["Albumin"].to_numpy() - 38) / 5
    train, test = np.arange(600), np.arange(600, 900)
    for kind in ENDPOINTS:
        for recipe in (Recipe("elasticnet", {"c": 1.0}), Recipe("lightgbm", {"rounds": 60, "num_leaves": 4})):
            outcome = _outcome(kind, truth)
            known = outcome.take(train)
            folds = patient_folds(table.take(train), known.strata, folds=3, seed=0)
            fitted = fit_calibrated(recipe, table.take(train), known, folds=folds, replicates=0, seed=0, asked=ASKED)
            found = fitted.probability(table.take(test))
            assert np.corrcoef(np.argsort(np.argsort(found)), np.argsort(np.argsort(truth[test])))[0, 1] > 0.9, kind


def test_several_endpoints_answer_together_and_survive_the_disk(tmp_path: Path, make_raw: Any) -> None:
    raw, y = make_raw(1)
    inputs = Inputs.model_validate(STUDY_INPUTS)
    cohort = cohort_from_frame(raw, inputs)
    section = resolve_section(FeatureSection(), cohort)
    table = build_features(cohort, section)
    score = (raw["Albumin"].to_numpy() - 38) / 5
    heads = []
    for kind in ("time_to_event", "ordinal", "continuous"):
        outcome = _outcome(kind, score)
        folds = patient_folds(table, outcome.strata, folds=3, seed=0)
        fitted = fit_calibrated(RECIPES["elasticnet"], table, outcome, folds=folds, replicates=10, seed=1, asked=ASKED)
        heads.append(Head(ENDPOINTS[kind], fitted, Reference.learn(table, outcome.strata), {"cv": {"n": 3}}))
    binary = fit_calibrated(
        RECIPES["elasticnet"], table, y, folds=patient_folds(table, y, folds=3, seed=0), replicates=10, seed=1
    )
    model = ResponseModel.build(
        card={},
        inputs=inputs,
        section=section,
        endpoint=ENDPOINTS["binary"],
        calibrated=binary,
        table=table,
        y=y,
        further=heads,
    )
    model.save(tmp_path / "model")
    again = ResponseModel.load(tmp_path / "model")
    assert again.identity == model.identity
    told = model.predict(raw.head(5)).rows()
    assert again.predict(raw.head(5)).rows() == told
    assert list(told[0]["endpoints"]) == ["os", "recist", "change"]
    assert told[0]["endpoints"]["change"]["unit"] == "mm"
    assert "value" in told[0]["endpoints"]["change"]
    horizons = [one["horizon"] for one in told[0]["endpoints"]["os"]["answers"]]
    assert horizons == pytest.approx([365.25, 182.625])
    assert told[0]["endpoints"]["os"]["scale"] == "log-hazard"
    assert "kind" not in told[0]  # yes or no reads as it always did
