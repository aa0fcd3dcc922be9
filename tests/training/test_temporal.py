"""Temporal validation: drift against scikit-learn and a drift put in, periods counted by hand, forward steps that see no future."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe
from theracast_training.evaluation import evaluate_binary
from theracast_training.refits import Floats, Rows, recipe_fit
from theracast_training.study_figures import draw_periods
from theracast_training.temporal import by_period, calibration_drift, forward_chain, logistic_each, period_edges


def _stream(seed: int, n: int = 1200, *, drift: float = 0.0) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    calendar = rng.uniform(2015, 2021, n)
    truth = rng.normal(-0.5, 1.1, n)
    y = (rng.random(n) < expit(truth + drift * (calendar - 2018))).astype(float)
    return y, expit(truth), calendar


def test_regressions_are_those_of_scikit_learn_for_every_row_of_weights() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(150), rng.normal(size=(150, 3))])
    y = (rng.random(150) < expit(X[:, 1] - 0.5)).astype(float)
    weights = rng.integers(0, 4, (6, 150)).astype(float)
    ours = logistic_each(X, y, weights, offset=np.zeros(150))
    for beta, weight in zip(ours, weights, strict=True):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(X[:, 1:], y, sample_weight=weight)
        assert beta == pytest.approx(np.r_[model.intercept_, model.coef_[0]], abs=2e-5)
    offset = rng.normal(size=150)
    found = logistic_each(X[:, :2], y, weights[:1], offset=offset)[0]

    def loss(beta: Floats) -> float:
        eta = X[:, :2] @ beta + offset
        return float(weights[0] @ (np.logaddexp(0, eta) - y * eta))

    assert found == pytest.approx(minimize(loss, [0, 0], tol=1e-12).x, abs=1e-4)


def test_separated_outcomes_and_constants_have_no_estimate() -> None:
    x = np.linspace(-1, 1, 20)
    X = np.column_stack([np.ones(20), x])
    assert np.isnan(logistic_each(X, (x > 0).astype(float), np.ones((1, 20)), offset=np.zeros(20))).all()
    X[:, 1] = 1.0
    assert np.isnan(logistic_each(X, (x > 0).astype(float), np.ones((1, 20)), offset=np.zeros(20))).all()


def test_a_drift_that_was_put_in_is_found_and_none_where_there_is_none() -> None:
    y, p, calendar = _stream(1, 4000, drift=0.25)
    found = calibration_drift(y, p, calendar, bootstrap=200)
    assert found["intercept_per_year_low"] < 0.25 < found["intercept_per_year_high"]
    assert found["intercept_per_year_p_value"] < 0.02
    assert found["slope_per_year_low"] < 0 < found["slope_per_year_high"]
    assert found["sentence"].startswith("The observed frequency rises above the predicted one by 0.")
    held = 0
    for seed in range(60):
        quiet = calibration_drift(*_stream(100 + seed, 300), bootstrap=100, seed=seed)
        inside = quiet["intercept_per_year_low"] <= 0 <= quiet["intercept_per_year_high"]
        assert quiet["sentence"].startswith("No drift") == inside
        assert "log-odds a year" in quiet["sentence"]
        held += inside
    assert held >= 51
    tilted = _stream(2, 6000)
    bent = expit(logit(tilted[1]) * (1 + 0.15 * (tilted[2] - 2018)))  # probabilities more and more extreme
    slope = calibration_drift(tilted[0], bent, tilted[2], bootstrap=100)
    assert slope["slope_per_year_high"] < 0


def test_periods_are_whole_years_joined_until_they_are_large_enough() -> None:
    calendar = np.r_[np.full(30, 2010.5), np.full(30, 2011.2), np.full(80, 2012.0), np.full(10, 2013.9)]
    y = np.tile([1.0, 0.0], 75)
    assert period_edges(calendar, y) == [2010, 2012, 2014]
    assert period_edges(calendar[:20], y[:20]) == [2010, 2011]
    rare = np.zeros(150)
    rare[:12] = 1
    assert period_edges(calendar, rare) == [2010, 2014]


def test_each_period_is_judged_alone_and_all_decisions_are_somewhere() -> None:
    y, p, calendar = _stream(3, 600)
    calendar[:7] = np.nan
    y[7:10] = np.nan
    patients = np.repeat(np.arange(300), 2)
    result = by_period(y, p, calendar, bootstrap=60, group=patients, seed=2)
    json.dumps(result, allow_nan=False)
    assert "7 decisions have no date and are left out" in result["notes"]
    assert sum(one["n"] for one in result["periods"]) == 590
    for one in result["periods"]:
        rows = (calendar >= one["start"]) & (calendar < one["end"]) & ~np.isnan(y)
        expected = evaluate_binary(y[rows], p[rows], bootstrap=60, group=patients[rows], seed=2)
        assert one["performance"] == expected
    axes = draw_periods(result, Figure().subplots(), measure="observed_expected")
    assert axes.get_xlabel() == "Calendar year of the decision"
    given_edges = by_period(y, p, calendar, edges=(2016, 2018, 2020), bootstrap=0)
    assert [one["start"] for one in given_edges["periods"]] == [2016, 2018]
    assert any("lie outside the periods" in note for note in given_edges["notes"])
    with pytest.raises(ValueError, match="at least two years, rising"):
        by_period(y, p, calendar, edges=(2018, 2016))


def test_without_dates_or_with_one_moment_nothing_is_claimed() -> None:
    y, p, _ = _stream(4, 100)
    nothing = by_period(y, p, np.full(100, np.nan), bootstrap=10)
    assert nothing["periods"] == []
    assert "name the column as `calendar`" in nothing["notes"][-1]
    still = calibration_drift(y, p, np.full(100, 2018.0), bootstrap=10)
    assert still["intercept_per_year"] is None
    assert "different times" in still["note"]


def _dated(seed: int, n: int = 300) -> tuple[FeatureTable, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = (rng.random(n) < expit(X[:, 0] * 1.2 - 0.3)).astype(float)
    names = [f"lab.x{place}" for place in range(4)]
    catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
    moment = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 2000, n), unit="D")
    decisions = pd.DataFrame(
        {
            "subject_id": [str(one) for one in rng.integers(0, n // 2, n)],
            "site": "A",
            "index_time": moment,
            "calendar": np.nan,
        }
    )
    return FeatureTable(pd.DataFrame(X, columns=names), catalogue, decisions), y


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_every_step_learns_from_the_past_alone_and_from_other_patients(seed: int, steps: int) -> None:
    table, y = _dated(seed)
    moment = table.decisions["index_time"].to_numpy()
    subject = table.decisions["subject_id"].to_numpy()
    seen: list[Rows] = []

    def fit(rows: Rows):
        def judged(asked: Rows) -> Floats:
            assert moment[rows].max() < moment[asked].min()
            assert not set(subject[rows]) & set(subject[asked])
            seen.append(asked)
            return np.linspace(0.1, 0.9, len(asked))

        return judged

    result = forward_chain(fit, y, table.decisions, steps=steps, bootstrap=0)
    judged = np.concatenate(seen)
    assert len(judged) == len(set(judged)) == result["pooled"]["n"]
    assert [one["n"] for one in result["steps"]] == [len(rows) for rows in seen]


def test_a_recipe_is_chained_forward_with_dates_and_drift() -> None:
    table, y = _dated(1, 500)
    result = forward_chain(
        recipe_fit(Recipe("elasticnet", {"c": 1.0}), table, y, folds=3), y, table.decisions, bootstrap=50
    )
    json.dumps(result, allow_nan=False)
    assert result["pooled"]["auc"] > 0.68
    starts = [one["start"] for one in result["steps"]]
    assert starts == sorted(starts)
    assert 2015 < starts[0] < 2018
    assert result["drift"]["intercept_per_year"] is not None
    learnt = [one["learnt"] for one in result["steps"]]
    assert learnt == sorted(learnt)


def test_a_beginning_that_teaches_nothing_is_told() -> None:
    table, y = _dated(2)

    def fit(_rows: Rows):
        raise CohortError("too few patients")

    result = forward_chain(fit, y, table.decisions, bootstrap=0)
    assert result["pooled"] is None
    assert result["steps"][0]["note"] == "too few patients"
