"""Evaluations of ordered outcomes against scipy, scikit-learn, statsmodels and slow loops."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import somersd
from sklearn.metrics import cohen_kappa_score

from theracast_models.links import of_each_level
from theracast_training import ordinal_metrics as measures
from theracast_training.evaluation import evaluate_binary
from theracast_training.ordinal_evaluation import compare_ordinal, evaluate_ordinal
from theracast_training.resampling import percentile_interval, resample_counts, two_sided_p

Floats = NDArray[np.float64]
METRICS = ("c_ordinal", "somers_d", "rps", "rps_null", "rps_scaled", "kappa_quadratic", "calibration_slope")
CUTS = np.array([1.0, -0.3, -1.6])


def _sample(n: int, seed: int = 0, *, slope: float = 1.0) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return levels drawn from a proportional odds model, its probabilities with the score times `slope`, the score."""
    rng = np.random.default_rng(seed)
    score = np.round(1.3 * rng.normal(size=n), 2)
    level = (rng.random(n)[:, None] < expit(CUTS + score[:, None])).sum(axis=1)
    return level, of_each_level(expit(CUTS + slope * score[:, None])), score


def _ones(n: int) -> Floats:
    return np.ones((1, n))


def test_answer_holds_the_keys_of_the_contract_as_plain_json() -> None:
    level, p, _ = _sample(300)
    found = evaluate_ordinal(level, p, bootstrap=60, seed=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in METRICS:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["notes"] == []
    assert np.asarray(found["confusion"]).sum() == sum(row["n"] for row in found["levels"]) == 300
    cut = found["cuts"][1]
    expected = evaluate_binary((level >= 2).astype(float), p[:, 2:].sum(axis=1), thresholds=(), bootstrap=60, seed=1)
    assert cut.pop("cut") == 2
    assert cut == expected


def test_ranking_is_scipys_somers_d_and_with_two_levels_the_auc() -> None:
    level, p, score = _sample(120, seed=2)
    found = measures.c_ordinal_each(level, score, _ones(120))[0]
    assert 2 * found - 1 == pytest.approx(somersd(level, score).statistic)
    two = measures.c_ordinal_each(np.minimum(level, 1), score, _ones(120))[0]
    expected = evaluate_binary((level >= 1).astype(float), p[:, 1:].sum(axis=1), bootstrap=0)["auc"]
    assert two == pytest.approx(expected)


def test_kappa_is_that_of_scikit_learn() -> None:
    level, p, _ = _sample(150, seed=3)
    named = p.argmax(axis=1)
    found = measures.quadratic_kappa_each(level, named, _ones(150))[0]
    assert found == pytest.approx(cohen_kappa_score(level, named, weights="quadratic"))
    assert np.isnan(measures.quadratic_kappa_each(np.zeros(5, int), np.zeros(5, int), _ones(5))[0])


def test_ranked_probability_score_is_a_slow_sum() -> None:
    level, p, _ = _sample(40, seed=4)
    total = 0.0
    for one, row in zip(level, p, strict=True):
        total += sum((row[:k].sum() - float(one < k)) ** 2 for k in range(1, 4)) / 3
    assert measures.ranked_probability_score_each(level, p, _ones(40))[0] == pytest.approx(total / 40)
    share = np.bincount(level, minlength=4) / 40
    same = measures.ranked_probability_score_each(level, np.tile(share, (40, 1)), _ones(40))[0]
    assert measures.null_ranked_probability_score_each(level, 4, _ones(40))[0] == pytest.approx(same)


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_slope_is_the_proportional_odds_model_of_an_optimiser(slope: float) -> None:
    level, _, score = _sample(200, seed=5)
    score = slope * score

    def lost(b: Floats) -> float:
        p = of_each_level(expit(np.r_[b[0], b[0] - np.cumsum(np.exp(b[1:3]))] + b[3] * score[:, None]))
        return float(-np.log(p[np.arange(len(level)), level]).sum())

    expected = minimize(lost, np.array([1.0, 0.0, 0.0, 1.0]), method="BFGS", options={"gtol": 1e-7}).x[3]
    assert measures.calibration_slope_each(level, score, _ones(200))[0] == pytest.approx(expected, abs=1e-5)


def test_slope_is_that_of_statsmodels() -> None:
    ordered = pytest.importorskip("statsmodels.miscmodels.ordinal_model", reason="statsmodels is not installed")
    level, _, score = _sample(250, seed=6)
    model = ordered.OrderedModel(level, score[:, None], distr="logit")
    fitted = model.fit(method="bfgs", disp=False, gtol=1e-9, maxiter=500)
    found = measures.calibration_slope_each(level, score, _ones(250))[0]
    assert found == pytest.approx(fitted.params[0], abs=1e-5)


def test_the_default_score_is_the_models_own_linear_predictor() -> None:
    level, p, score = _sample(200, seed=7, slope=2.0)
    assert measures.linear_score(p) == pytest.approx(CUTS.mean() + 2 * score)
    found = evaluate_ordinal(level, p, bootstrap=0)
    given_score = evaluate_ordinal(level, p, score=2 * score, bootstrap=0)
    assert found["calibration_slope"] == pytest.approx(given_score["calibration_slope"], abs=1e-7)
    assert found["calibration_slope"] < 0.75
    assert found["c_ordinal"] == pytest.approx(given_score["c_ordinal"])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    level, p, score = _sample(40, seed=seed % 1000)
    count = np.random.default_rng(seed).integers(0, 3, 40)
    rows = np.repeat(np.arange(40), count)
    answers = []
    for chosen, weights in ((np.arange(40), count.astype(float)), (rows, np.ones(len(rows)))):
        given_rows = (level[chosen], weights[None, :])
        answers.append(
            [
                measures.c_ordinal_each(given_rows[0], score[chosen], given_rows[1])[0],
                measures.ranked_probability_score_each(given_rows[0], p[chosen], given_rows[1])[0],
                measures.quadratic_kappa_each(given_rows[0], p[chosen].argmax(axis=1), given_rows[1])[0],
                measures.calibration_slope_each(given_rows[0], score[chosen], given_rows[1])[0],
            ]
        )
    assert answers[0] == pytest.approx(answers[1], rel=1e-5, nan_ok=True)


def test_slope_is_infinite_where_the_score_separates_the_levels_and_missing_without_contrast() -> None:
    level = np.repeat([0, 1, 2], 6)
    score = np.arange(18.0)
    assert measures.calibration_slope_each(level, score, _ones(18))[0] == np.inf
    assert measures.calibration_slope_each(level, -score, _ones(18))[0] == -np.inf
    assert np.isnan(measures.calibration_slope_each(level, 0 * score, _ones(18))[0])
    assert np.isnan(measures.calibration_slope_each(0 * level, score, _ones(18))[0])


def test_intervals_are_those_of_rows_drawn_one_by_one() -> None:
    level, p, score = _sample(60, seed=8)
    found = evaluate_ordinal(level, p, bootstrap=80, seed=3)
    drawn = []
    for counts in np.concatenate(list(resample_counts(60, resamples=80, seed=3))):
        rows = np.repeat(np.arange(60), counts.astype(int))
        drawn.append((somersd(level[rows], score[rows]).statistic + 1) / 2)
    low, high = percentile_interval(np.asarray(drawn))
    assert (found["c_ordinal_low"], found["c_ordinal_high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_decisions_or_one_level_are_an_answer_not_an_error(n: int) -> None:
    _, p, _ = _sample(n)
    found = evaluate_ordinal(np.full(n, 2), p, bootstrap=10)
    json.dumps(found, allow_nan=False)
    assert found["c_ordinal"] is None
    assert found["calibration_slope"] is None
    assert found["notes"]


def test_decisions_without_level_or_score_are_left_out_and_noted() -> None:
    level, p, _ = _sample(100, seed=9)
    observed = level.astype(float)
    observed[90:95] = np.nan
    holes = p.copy()
    holes[95:] = np.nan
    found = evaluate_ordinal(observed, holes, bootstrap=20)
    expected = evaluate_ordinal(level[:90], p[:90], bootstrap=20)
    assert found.pop("notes")[:2] == [
        "5 of 100 decisions have no known level and are left out",
        "5 of 100 decisions have no score and are left out",
    ]
    expected.pop("notes")
    assert found == expected


def test_rare_levels_are_noted() -> None:
    level, p, _ = _sample(60, seed=10)
    level = np.where(level == 3, 2, level)
    assert "level 3 (0)" in evaluate_ordinal(level, p, bootstrap=0)["notes"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": np.full((10, 4), 0.3)}, "add up to 1"),
        ({"probability": np.full((9, 4), 0.25)}, "one row a decision"),
        ({"level": np.full(10, 4)}, "0 to 3"),
        ({"weight": np.full(10, -1.0)}, "not negative"),
        ({"score": np.full(10, np.inf)}, "finite"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    level, p, _ = _sample(10)
    with pytest.raises(ValueError, match=message):
        evaluate_ordinal(**{"level": level, "probability": p} | change, bootstrap=0)


def test_two_models_are_compared_on_the_same_resamples() -> None:
    level, p, score = _sample(90, seed=11)
    other = score + np.random.default_rng(0).normal(size=90)
    q = of_each_level(expit(CUTS + other[:, None]))
    gaps = q.copy()
    gaps[:5, 1] = np.nan
    found = compare_ordinal(level, p, gaps, bootstrap=120, seed=6)
    assert found["notes"][0] == "5 of 90 decisions have no score and are left out"
    level, score, other = level[5:], score[5:], other[5:]
    drawn = []
    for counts in np.concatenate(list(resample_counts(85, resamples=120, seed=6))):
        rows = np.repeat(np.arange(85), counts.astype(int))
        drawn.append([somersd(level[rows], one[rows]).statistic / 2 for one in (score, other)])
    values = np.subtract(*np.asarray(drawn).T)
    bounds = (found["c_ordinal_difference_low"], found["c_ordinal_difference_high"])
    assert bounds == pytest.approx(percentile_interval(values))
    assert found["c_ordinal_p_value"] == two_sided_p(values)
    alone = [evaluate_ordinal(level, one[5:], bootstrap=0)["rps"] for one in (p, q)]
    assert found["rps_difference"] == pytest.approx(alone[0] - alone[1])
    assert compare_ordinal([], np.empty((0, 3)), np.empty((0, 3)), bootstrap=10)["rps_p_value"] is None
    with pytest.raises(ValueError, match="same shape"):
        compare_ordinal(level, p, p[:, :3], bootstrap=0)
