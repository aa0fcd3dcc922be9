"""Evaluations of continuous outcomes against scikit-learn, scipy and slow resampling."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import linregress, spearmanr, ttest_1samp
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from theracast_training.continuous_evaluation import compare_continuous, evaluate_continuous, metrics_each
from theracast_training.resampling import percentile_interval, resample_counts, two_sided_p

Floats = NDArray[np.float64]
METRICS = ("r2", "rmse", "mae", "mean_bias", "spearman", "calibration_slope", "calibration_intercept")


def _sample(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    estimate = np.round(40 + 12 * rng.normal(size=n))
    return np.round(5 + 0.8 * estimate + 9 * rng.normal(size=n)), estimate


def _expected(y: Floats, estimate: Floats) -> list[float]:
    line = linregress(estimate, y)
    return [
        r2_score(y, estimate),
        root_mean_squared_error(y, estimate),
        mean_absolute_error(y, estimate),
        float((estimate - y).mean()),
        float(spearmanr(y, estimate).statistic),
        float(line.slope),
        float(line.intercept),
    ]


def test_answer_holds_the_keys_of_the_contract_as_plain_json() -> None:
    y, estimate = _sample(200)
    found = evaluate_continuous(y, estimate, bootstrap=100, seed=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in METRICS:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["coverage"] is None
    assert found["notes"] == []


def test_metrics_are_those_of_scikit_learn_and_scipy() -> None:
    y, estimate = _sample(90, seed=2)
    found = evaluate_continuous(y, estimate, bootstrap=0)
    assert [found[name] for name in METRICS] == pytest.approx(_expected(y, estimate))


def test_intervals_are_those_of_rows_drawn_one_by_one() -> None:
    y, estimate = _sample(50, seed=3)
    found = evaluate_continuous(y, estimate, bootstrap=200, seed=4)
    drawn = []
    for counts in np.concatenate(list(resample_counts(50, resamples=200, seed=4))):
        rows = np.repeat(np.arange(50), counts.astype(int))
        drawn.append(_expected(y[rows], estimate[rows]))
    for place, name in enumerate(METRICS):
        expected = percentile_interval(np.asarray(drawn)[:, place])
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    y, estimate = _sample(30, seed=seed)
    count = np.random.default_rng(seed).integers(0, 3, 30)
    rows = np.repeat(np.arange(30), count)
    weighed = metrics_each(y, estimate, count.astype(float)[None, :], inside=(y > 40).astype(float))
    repeated = metrics_each(y[rows], estimate[rows], np.ones((1, len(rows))), inside=(y[rows] > 40).astype(float))
    for name, value in weighed.items():
        assert value[0] == pytest.approx(repeated[name][0], nan_ok=True), name


def test_coverage_counts_both_ends() -> None:
    y, estimate = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 3.0, 9.0])
    found = evaluate_continuous(y, estimate, low=estimate - 1, high=estimate + 1, bootstrap=0)
    assert found["coverage"] == 0.75


def test_groups_have_students_interval() -> None:
    y, estimate = _sample(60, seed=5)
    groups = evaluate_continuous(y, estimate, bootstrap=0)["groups"]
    assert sum(group["n"] for group in groups) == 60
    first = estimate < np.quantile(estimate, 1 / 6)
    interval = ttest_1samp(y[first], 0).confidence_interval()
    assert groups[0]["n"] == first.sum()
    assert groups[0]["observed"] == pytest.approx(y[first].mean())
    assert (groups[0]["low"], groups[0]["high"]) == pytest.approx((interval.low, interval.high))


def test_what_cannot_be_estimated_is_none_and_noted() -> None:
    y, estimate = _sample(30, seed=6)
    flat = evaluate_continuous(y, np.full(30, 40.1), bootstrap=20)
    assert flat["spearman"] is flat["calibration_slope"] is None
    assert flat["rmse"] is not None
    assert "the estimate does not vary" in flat["notes"][0]
    same = evaluate_continuous(np.full(30, 0.3), estimate, bootstrap=20)
    assert same["r2"] is None
    assert "the outcome does not vary" in same["notes"][0]
    for n in (0, 1, 2):
        found = evaluate_continuous(y[:n], estimate[:n], bootstrap=10)
        json.dumps(found, allow_nan=False)
        assert found["notes"]


def test_decisions_without_outcome_or_estimate_are_left_out_and_noted() -> None:
    y, estimate = _sample(40, seed=7)
    holes, gaps = y.copy(), estimate.copy()
    holes[:3], gaps[3:5] = np.nan, np.nan
    found = evaluate_continuous(holes, gaps, bootstrap=20)
    assert found.pop("notes") == [
        "3 of 40 decisions have no known outcome and are left out",
        "2 of 40 decisions have no estimate and are left out",
    ]
    expected = evaluate_continuous(y[5:], estimate[5:], bootstrap=20)
    expected.pop("notes")
    assert found == expected


def test_patients_of_several_decisions_are_drawn_whole() -> None:
    y, estimate = (np.repeat(values, 5) for values in _sample(60, seed=8))
    whole = evaluate_continuous(y, estimate, group=np.repeat(np.arange(60), 5), bootstrap=200)
    apart = evaluate_continuous(y, estimate, bootstrap=200)
    assert whole["r2_high"] - whole["r2_low"] > 1.7 * (apart["r2_high"] - apart["r2_low"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimate": np.zeros(9)}, "of one length"),
        ({"low": np.zeros(10)}, "both low and high"),
        ({"low": np.ones(10), "high": np.zeros(10)}, "must not lie above"),
        ({"estimate": np.full(10, np.inf)}, "finite"),
        ({"weight": np.full(10, np.nan)}, "not negative"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    y, estimate = _sample(10)
    with pytest.raises(ValueError, match=message):
        evaluate_continuous(**{"y": y, "estimate": estimate} | change, bootstrap=0)


def test_two_estimates_are_compared_on_the_same_resamples() -> None:
    y, estimate = _sample(70, seed=9)
    worse = estimate + np.random.default_rng(0).normal(0, 12, 70)
    gaps = worse.copy()
    gaps[:4] = np.nan
    found = compare_continuous(y, estimate, gaps, bootstrap=150, seed=5)
    assert found["notes"] == ["4 of 70 decisions have no estimate and are left out"]
    y, estimate, worse = y[4:], estimate[4:], worse[4:]
    drawn = []
    for counts in np.concatenate(list(resample_counts(66, resamples=150, seed=5))):
        rows = np.repeat(np.arange(66), counts.astype(int))
        drawn.append(np.subtract(_expected(y[rows], estimate[rows]), _expected(y[rows], worse[rows])))
    for place, name in ((0, "r2"), (1, "rmse"), (2, "mae"), (4, "spearman")):
        values = np.asarray(drawn)[:, place]
        assert found[f"{name}_difference"] == pytest.approx(_expected(y, estimate)[place] - _expected(y, worse)[place])
        bounds = (found[f"{name}_difference_low"], found[f"{name}_difference_high"])
        assert bounds == pytest.approx(percentile_interval(values))
        assert found[f"{name}_p_value"] == two_sided_p(values)
    assert compare_continuous([], [], [], bootstrap=10)["rmse_difference"] is None
