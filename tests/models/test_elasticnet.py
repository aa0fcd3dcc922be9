"""The elastic net: scikit-learn's optimum, SHAP's values, and what is missing contributes nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from theracast_models.elasticnet import ElasticNet, fit_linear
from theracast_models.outcomes import as_outcome


def problem(n: int = 300, p: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, p))
    z[:, 1] = z[:, 0] + 0.1 * z[:, 1]
    y = (rng.random(n) < 1 / (1 + np.exp(0.8 - z[:, 0] + 0.5 * z[:, 2]))).astype(float)
    return (z - z.mean(axis=0)) / z.std(axis=0), y


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("c", [0.01, 0.3])
def test_equals_scikit_learn(c: float, l1_ratio: float) -> None:
    z, y = problem()
    weight = np.random.default_rng(1).uniform(0.2, 2, len(y))
    oracle = LogisticRegression(C=c, l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=100_000)
    oracle.fit(z, y, sample_weight=weight)
    intercept, coef = fit_linear(z, as_outcome(y, weight), c=c, l1_ratio=l1_ratio)
    np.testing.assert_allclose(coef, oracle.coef_[0], atol=1e-7)
    if coef.any():
        assert intercept == pytest.approx(oracle.intercept_[0], abs=1e-7)
    else:  # saga stops as soon as the coefficients stand still, whatever the intercept
        rate = np.average(y, weights=weight)
        assert intercept == pytest.approx(np.log(rate / (1 - rate)), abs=1e-7)
    assert np.array_equal(coef == 0, np.abs(oracle.coef_[0]) < 1e-9)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_is_optimal_for_weak_penalties_and_more_columns_than_rows(l1_ratio: float) -> None:
    z, y = problem(60, 90)
    intercept, coef = fit_linear(z, as_outcome(y), c=30.0, l1_ratio=l1_ratio)
    gradient = z.T @ (y - 1 / (1 + np.exp(-(intercept + z @ coef)))) - (1 - l1_ratio) / 30 * coef
    slack = np.where(coef != 0, np.abs(gradient - l1_ratio / 30 * np.sign(coef)), np.abs(gradient) - l1_ratio / 30)
    assert slack.max() < 1e-5


def test_weight_2_is_twice_the_row() -> None:
    z, y = problem(100, 5)
    weight = np.ones(100)
    weight[:30] = 2
    twice = np.concatenate([np.arange(100), np.arange(30)])
    ours = fit_linear(z, as_outcome(y, weight), c=1.0, l1_ratio=0.5)
    theirs = fit_linear(z[twice], as_outcome(y[twice]), c=1.0, l1_ratio=0.5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


def test_equals_shap(make_table) -> None:
    with warnings.catch_warnings():
        # shap's own imports use names that its dependencies are about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        import shap
    table, y = make_table(1, 200, missing=0.0)
    model = ElasticNet(1.0, 0.2).fit(table, y)
    z = model.inputs_.design(table)
    explainer = shap.LinearExplainer((model.coef_, model.intercept_), shap.maskers.Independent(z, max_samples=200))
    by_column = explainer.shap_values(z)
    base, phi = model.contributions(table)
    folded = np.zeros_like(phi)
    for column, owner in enumerate(model.inputs_.owner):
        folded[:, owner] += by_column[:, column]
    np.testing.assert_allclose(phi, folded, atol=1e-9)
    np.testing.assert_allclose(base, explainer.expected_value, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), c=st.floats(0.01, 10), l1_ratio=st.floats(0, 1))
def test_adds_up_and_the_missing_speak_for_the_median(
    make_table, make_holes, seed: int, c: float, l1_ratio: float
) -> None:
    table, y = make_table(seed, 60)
    model = ElasticNet(c, l1_ratio).fit(table, y)
    holes = make_holes(table, seed + 1)
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-9)
    assert np.isfinite(phi).all()
    assert np.ptp(base) == 0, "the base is the same for all"
    for place, spec in enumerate(holes.catalogue):
        shares = phi[holes.frame[spec.name].isna().to_numpy(), place]
        assert not len(shares) or np.ptp(shares) == 0
        assert spec.kind != "categorical" or not shares.any()
    tumour = [one.name for one in holes.catalogue].index("clin.tumour")
    assert not phi[(holes.frame["clin.tumour"] == "a new level").to_numpy(), tumour].any()


def test_says_what_was_filled_in_and_passed_over(make_table, make_holes) -> None:
    table, y = make_table(2)
    model = ElasticNet().fit(table, y)
    frame = table.frame.head(2).copy()
    frame["clin.tumour"] = ["a new level", "lung"]
    frame.loc[0, "lab.albumin"] = 3.3
    frame[["lab.crp", "gen.tmb", "gen.msi"]] = 1.0
    frame.loc[1, ["lab.albumin", "gen.tmb"]] = np.nan
    told = model.handled(type(table)(frame, table.catalogue, table.decisions.head(2)))
    assert told[0] == ["TUMOUR: no development patient had this category; the model treats it as not known."]
    assert told[1] == ["Not known, so the typical value of the development patients stands in: ALBUMIN and TMB."]


def test_same_bits_again_and_after_saving(make_table, make_holes, tmp_path) -> None:
    table, y = make_table(9)
    model, twin = ElasticNet(0.5, 0.7).fit(table, y), ElasticNet(0.5, 0.7).fit(table, y)
    assert np.array_equal(model.coef_, twin.coef_)
    model.save(tmp_path / "m")
    again, holes = ElasticNet.load(tmp_path / "m"), make_holes(table, 3)
    assert np.array_equal(again.log_odds(holes), model.log_odds(holes))
    assert all(
        np.array_equal(*pair) for pair in zip(again.contributions(holes), model.contributions(holes), strict=True)
    )
