"""Bootstrap optimism against a slow loop, simulated new patients, and the published formula of .632+."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated
from theracast_training import metrics
from theracast_training.develop import Task, run_task
from theracast_training.optimism import no_information_brier, optimism, weigh_632_plus
from theracast_training.refits import Fit, Floats, Rows, procedure_fit, recipe_fit
from theracast_training.resampling import resample_counts
from theracast_training.study import SchemeSection, SearchSection, ValidationSection
from theracast_training.target import Target


def _logistic(X: Floats, y: Floats) -> Fit:
    """Return the unpenalised regression as a procedure."""

    def fit(rows: Rows):
        model = LogisticRegression(C=np.inf, max_iter=500).fit(X[rows], y[rows])
        return lambda asked: model.predict_proba(X[asked])[:, 1]

    return fit


def _data(seed: int, n: int, p: int, effect: float) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, (rng.random(n) < expit(X[:, :3].sum(axis=1) * effect - 0.3)).astype(float)


def test_is_what_a_slow_loop_gives() -> None:
    X, y = _data(1, 120, 6, 0.5)
    patients = np.repeat(np.arange(60), 2)
    result = optimism(_logistic(X, y), y, patients=patients, resamples=12, interval_resamples=100, seed=9)
    own = LogisticRegression(C=np.inf, max_iter=500).fit(X, y).predict_proba(X)[:, 1]
    rng = np.random.default_rng(9)
    gaps, briers, slopes, outside = [], [], [], []
    for _ in range(12):
        chosen = rng.integers(0, 60, 60)
        rows = [row for one in chosen for row in (2 * one, 2 * one + 1)]
        model = LogisticRegression(C=np.inf, max_iter=500).fit(X[rows], y[rows])
        there, here = model.predict_proba(X[rows])[:, 1], model.predict_proba(X)[:, 1]
        rest = [row for row in range(120) if row // 2 not in set(chosen)]
        gaps.append(roc_auc_score(y[rows], there) - roc_auc_score(y, here))
        briers.append(brier_score_loss(y[rows], there) - brier_score_loss(y, here))
        slopes.append(metrics.calibration_slope(y[rows], there) - metrics.calibration_slope(y, here))
        outside.append(roc_auc_score(y[rest], model.predict_proba(X[rest])[:, 1]))
    assert result["auc_apparent"] == pytest.approx(roc_auc_score(y, own))
    assert result["auc_optimism"] == pytest.approx(np.mean(gaps))
    assert result["auc"] == pytest.approx(roc_auc_score(y, own) - np.mean(gaps))
    assert result["brier"] == pytest.approx(brier_score_loss(y, own) - np.mean(briers))
    assert result["calibration_slope"] == pytest.approx(metrics.calibration_slope(y, own) - np.mean(slopes))
    weights = np.concatenate(list(resample_counts(120, resamples=100, seed=9, group=patients)))
    drawn = [roc_auc_score(y, own, sample_weight=counts) for counts in weights]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest") - np.mean(gaps)
    assert (result["auc_low"], result["auc_high"]) == pytest.approx((low, high))
    assert result["auc_optimism_error"] == pytest.approx(np.std(gaps, ddof=1) / np.sqrt(12))
    rate = (roc_auc_score(y, own) - np.mean(outside)) / (roc_auc_score(y, own) - 0.5)
    share = 0.632 / (1 - 0.368 * rate)
    assert result["auc_632plus"] == pytest.approx((1 - share) * roc_auc_score(y, own) + share * np.mean(outside))


def test_no_information_brier_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(2)
    y, p, weight = rng.integers(0, 2, 30).astype(float), rng.random(30), rng.integers(0, 3, 30).astype(float)
    slow = sum(a * b * (yi - pj) ** 2 for yi, a in zip(y, weight, strict=True) for pj, b in zip(p, weight, strict=True))
    assert no_information_brier(y, p, weight) == pytest.approx(slow / weight.sum() ** 2)


def test_632_plus_ends_where_the_paper_says() -> None:
    # No overfitting: .632; nothing but overfitting: the left-out figure itself (Efron & Tibshirani 1997, section 3).
    assert weigh_632_plus(0.8, 0.8, 0.5) == pytest.approx(0.8)
    assert weigh_632_plus(0.9, 0.5, 0.5) == pytest.approx(0.5)
    assert weigh_632_plus(0.9, 0.4, 0.5) == pytest.approx(0.5)
    assert weigh_632_plus(0.1, 0.2, 0.25) == pytest.approx(0.1 + 0.632 / (1 - 0.368 * 2 / 3) * 0.1)


@pytest.mark.parametrize(("effect", "error"), [(0.0, 0.06), (0.6, 0.03)])
def test_corrected_figures_are_those_of_new_patients(effect: float, error: float) -> None:
    corrected, truth = [], []
    X_new, y_new = _data(999, 10_000, 12, effect)
    for seed in range(8):
        X, y = _data(seed, 150, 12, effect)
        found = optimism(_logistic(X, y), y, patients=np.arange(150), resamples=30, interval_resamples=2, seed=seed)
        model = LogisticRegression(C=np.inf, max_iter=500).fit(X, y)
        fresh = model.predict_proba(X_new)[:, 1]
        corrected.append((found["auc"], found["brier"], found["calibration_slope"]))
        slope = LogisticRegression(C=np.inf).fit(logit(fresh)[:, None], y_new).coef_[0, 0]
        truth.append((roc_auc_score(y_new, fresh), brier_score_loss(y_new, fresh), slope))
        assert found["auc_apparent"] > found["auc"]
        assert found["calibration_slope_apparent"] == pytest.approx(1.0, abs=1e-3)
    auc, brier, slope = np.mean(corrected, axis=0) - np.mean(truth, axis=0)
    assert abs(auc) < error
    assert abs(brier) < 0.015
    assert abs(slope) < (0.12 if effect else 0.45)


def test_a_recipe_is_resampled_by_whole_patients() -> None:
    X, y = _data(3, 160, 5, 0.8)
    names = [f"lab.x{place}" for place in range(5)]
    catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
    patients = np.repeat(np.arange(80), 2)
    decisions = pd.DataFrame({"subject_id": patients.astype(str), "site": "A", "index_time": pd.NaT})
    table = FeatureTable(pd.DataFrame(X, columns=names), catalogue, decisions)
    procedure = recipe_fit(Recipe("elasticnet", {"c": 1.0}), table, y, folds=3)
    learnt: list[Rows] = []

    def watched(rows: Rows):
        learnt.append(rows)
        return procedure(rows)

    result = optimism(watched, y, patients=patients, resamples=15, interval_resamples=100, seed=1)
    json.dumps(result, allow_nan=False)
    for rows in learnt:
        counts = np.bincount(rows, minlength=160).reshape(80, 2)
        assert (counts[:, 0] == counts[:, 1]).all()
    assert result["auc_low"] < result["auc"] < result["auc_high"]
    assert result["auc"] < result["auc_apparent"]
    assert result["patients"] == 80
    assert result == optimism(procedure, y, patients=patients, resamples=15, interval_resamples=100, seed=1)


def test_the_search_counts_where_it_is_part_of_the_procedure(tmp_path: Path) -> None:
    X, y = _data(4, 140, 5, 0.8)
    names = [f"lab.x{place}" for place in range(5)]
    catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
    decisions = pd.DataFrame(
        {"subject_id": [str(one) for one in range(140)], "site": "A", "index_time": pd.NaT, "calendar": np.nan}
    )
    task = Task(
        key="final",
        table=FeatureTable(pd.DataFrame(X, columns=names), catalogue, decisions),
        target=Target(y),
        learn=np.arange(140),
        judged=np.array([], dtype=np.intp),
        families=("elasticnet", "lightgbm"),
        search=SearchSection(),
        validation=ValidationSection(scheme=SchemeSection(outer=0, inner=3)),
        trials=40,
        seed=1,
        journals=tmp_path / "own",
    )
    fit = procedure_fit(task, scratch=tmp_path / "scratch", trials=2)
    everyone = np.arange(140)
    chosen = run_task(replace(task, trials=2))
    expected = fit_calibrated(
        chosen.choice.recipe, task.table, y, folds=chosen.folds, weight=np.ones(140), replicates=0, seed=1
    ).probability(task.table)
    np.testing.assert_array_equal(fit(everyone)(everyone), expected)
    found = optimism(fit, y, patients=everyone, resamples=4, interval_resamples=20)
    assert found["auc"] < found["auc_apparent"]
    assert len(list((tmp_path / "scratch").iterdir())) == 1 + 1 + 4  # asked here, on all, and once a resample


def test_what_cannot_be_estimated_is_none_and_told() -> None:
    y = np.r_[np.ones(20), np.zeros(20)]
    flat = optimism(
        lambda _: lambda asked: np.full(len(asked), 0.5), y, patients=np.arange(40), resamples=10, interval_resamples=20
    )
    assert flat["calibration_slope"] is None
    assert "calibration_slope: it cannot be estimated in enough resamples" in flat["notes"]
    assert flat["auc"] == flat["auc_632plus"] == 0.5

    def never(rows: Rows):
        if len(np.unique(rows)) < 40:
            raise CohortError("too few")
        return lambda asked: np.linspace(0.1, 0.9, len(asked))

    told = optimism(never, y, patients=np.arange(40), resamples=5, interval_resamples=20)
    assert told["auc"] is None
    assert told["auc_apparent"] is not None
    assert "5 of 5 resamples taught nothing and are left out" in told["notes"]
