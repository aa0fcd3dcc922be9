"""Evaluations against slow resampling, DeLong's test and the metrics themselves."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

from theracast_training import metrics
from theracast_training.curves import calibration_points, pr_points, roc_points
from theracast_training.evaluation import compare_paired, curves, evaluate_binary
from theracast_training.resampling import percentile_interval, resample_counts, two_sided_p

Floats = NDArray[np.float64]
INTERVALS = ("auc", "auprc", "brier", "scaled_brier", "calibration_intercept", "calibration_slope", "ici")
CONTRACT = {"n", "events", "prevalence", "mean_probability", "thresholds", "notes", *INTERVALS} | {
    f"{name}_{bound}" for name in INTERVALS for bound in ("low", "high")
}


def _sample(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 4, n)
    return (rng.random(n) < p).astype(float), p


def _delong(y: Floats, p: Floats, q: Floats) -> tuple[float, float]:
    """Return AUC difference and its standard error by DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837-845."""
    placed = []
    for score in (p, q):
        events, others = score[y == 1], score[y == 0]
        wins = (events[:, None] > others) + 0.5 * (events[:, None] == others)
        placed.append((wins.mean(axis=1), wins.mean(axis=0)))
    by_event = np.cov(np.stack([placed[0][0], placed[1][0]]))
    by_other = np.cov(np.stack([placed[0][1], placed[1][1]]))
    covariance = by_event / (y == 1).sum() + by_other / (y == 0).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float(placed[0][0].mean() - placed[1][0].mean()), float(np.sqrt(variance))


def test_answer_holds_the_keys_of_the_contract_as_plain_json() -> None:
    y, p = _sample(300)
    found = evaluate_binary(y, p, thresholds=(0.2, 0.5), bootstrap=100, seed=1)
    assert set(found) >= CONTRACT
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in INTERVALS:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert [row["threshold"] for row in found["thresholds"]] == [0.2, 0.5]
    assert found["thresholds"][0]["sensitivity"] == metrics.sensitivity(y, p, 0.2)
    assert found["thresholds"][1]["net_benefit"] == pytest.approx(metrics.net_benefit(y, p, 0.5))
    assert found["notes"] == []


def _slope(y: Floats, p: Floats) -> float:
    score = np.log(p / (1 - p))[:, None]
    return float(LogisticRegression(C=np.inf, tol=1e-10, max_iter=500).fit(score, y).coef_[0, 0])


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("auc", roc_auc_score),
        ("auprc", average_precision_score),
        ("brier", brier_score_loss),
        ("calibration_slope", _slope),
    ],
)
def test_intervals_are_those_of_resampled_rows(name: str, metric: Callable[[Floats, Floats], float]) -> None:
    y, p = _sample(80, seed=2)
    found = evaluate_binary(y, p, bootstrap=40, seed=4)
    (counts,) = resample_counts(80, resamples=40, seed=4)
    slow = [metric(np.repeat(y, row), np.repeat(p, row)) for row in counts.astype(int)]
    low, high = np.quantile(slow, [0.025, 0.975], method="nearest")
    assert (found[f"{name}_low"], found[f"{name}_high"]) == (
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )


def test_auc_interval_is_as_wide_as_delong_says() -> None:
    y, p = _sample(600, seed=3)
    found = evaluate_binary(y, p, bootstrap=1000, seed=0)
    area, error = _delong(y, p, np.zeros_like(p))
    assert area + 0.5 == pytest.approx(found["auc"])
    assert found["auc_high"] - found["auc_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_same_seed_same_answer_and_another_seed_another() -> None:
    y, p = _sample(120)
    first, again, other = (evaluate_binary(y, p, bootstrap=100, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first["auc_low"] != other["auc_low"]
    assert first["auc"] == other["auc"]


def test_integer_weights_give_the_estimates_of_repeated_rows() -> None:
    y, p = _sample(100)
    weight = np.random.default_rng(0).integers(1, 4, 100)
    weighted = evaluate_binary(y, p, weight=weight, bootstrap=0)
    repeated = evaluate_binary(np.repeat(y, weight), np.repeat(p, weight), bootstrap=0)
    for name in ("prevalence", "auc", "auprc", "brier", "calibration_slope", "ici"):
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-6)
    assert (weighted["n"], weighted["auc_low"]) == (100, None)


def test_whole_patients_are_drawn_when_a_patient_has_several_decisions() -> None:
    y, p = _sample(60, seed=1)
    patient = np.repeat(np.arange(60), 5)
    naive = evaluate_binary(np.repeat(y, 5), np.repeat(p, 5), bootstrap=400, seed=1)
    honest = evaluate_binary(np.repeat(y, 5), np.repeat(p, 5), bootstrap=400, seed=1, group=patient)
    single = evaluate_binary(y, p, bootstrap=400, seed=1)
    assert honest["auc_high"] - honest["auc_low"] == pytest.approx(single["auc_high"] - single["auc_low"])
    assert naive["auc_high"] - naive["auc_low"] < 0.7 * (honest["auc_high"] - honest["auc_low"])


def test_decisions_without_outcome_or_score_are_left_out_and_told() -> None:
    y, p = _sample(50)
    found = evaluate_binary([*y, np.nan, 1.0], [*p, 0.5, np.nan], bootstrap=0)
    assert found["n"] == 50
    assert found["auc"] == metrics.auc(y, p)
    assert "1 of 52 decisions have no known outcome" in found["notes"][0]
    assert "1 of 52 decisions have no score" in found["notes"][1]


@pytest.mark.parametrize(
    ("y", "p", "told"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "all 3 outcomes are the same"),
        ([1], [1.0], "all 1 outcomes are the same"),
        ([], [], "nothing can be estimated"),
        ([0, 0, 1], [0.1, 0.2, 0.9], "separate the outcomes"),
        ([0, 0, 1, 0], [0.1, 0.2, 0.2, 0.3], "only 1 events"),
    ],
)
def test_what_cannot_be_estimated_is_none_with_a_note(y: list[float], p: list[float], told: str) -> None:
    found = evaluate_binary(y, p, bootstrap=100)
    assert any(told in note for note in found["notes"])
    drawn = curves(y, p, bootstrap=50)
    paired = compare_paired(y, p, p, bootstrap=50, thresholds=(0.2,))
    json.dumps([found, drawn, paired], allow_nan=False)
    assert found["calibration_slope"] is None or found["notes"]


def test_lengths_that_differ_are_told() -> None:
    with pytest.raises(ValueError, match="one length, not 2, 3 and 2"):
        evaluate_binary([0, 1], [0.1, 0.2, 0.3])


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    y, p = _sample(150)
    found = compare_paired(y, p, p, thresholds=(0.3,), bootstrap=200)
    assert (found["auc_difference"], found["low"], found["high"], found["p_value"]) == (0, 0, 0, 1)
    assert found["thresholds"][0]["net_benefit_difference"] == 0


def test_paired_comparison_agrees_with_delong() -> None:
    rng = np.random.default_rng(8)
    y, p = _sample(700, seed=8)
    q = np.clip(p + rng.normal(0, 0.18, 700), 0.001, 0.999)
    found = compare_paired(y, p, q, thresholds=(0.3,), bootstrap=2000, seed=1)
    difference, error = _delong(y, p, q)
    assert found["auc_difference"] == pytest.approx(difference)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found["p_value"] == pytest.approx(2 * norm.sf(abs(difference) / error), abs=0.02)
    mirrored = compare_paired(y, q, p, thresholds=(0.3,), bootstrap=2000, seed=1)
    assert mirrored["auc_difference"] == -found["auc_difference"]
    assert (mirrored["p_value"], mirrored["low"]) == (found["p_value"], pytest.approx(-found["high"], abs=1e-3))
    assert found["brier_difference"] == pytest.approx(metrics.brier(y, p) - metrics.brier(y, q))
    gain = metrics.net_benefit(y, p, 0.3) - metrics.net_benefit(y, q, 0.3)
    assert found["thresholds"][0]["net_benefit_difference"] == pytest.approx(gain)


def test_comparison_uses_only_decisions_with_both_scores() -> None:
    y, p = _sample(80)
    q = np.where(np.arange(80) < 20, np.nan, 1 - p)
    found = compare_paired(y, p, q, bootstrap=100)
    assert found["n"] == 60
    assert found["auc_a"] == metrics.auc(y[20:], p[20:])
    assert "20 of 80 decisions have no score" in found["notes"][0]


def test_resamples_come_in_blocks_of_the_same_size_and_total() -> None:
    blocks = list(resample_counts(300_000, resamples=9, seed=0))
    assert len(blocks) == 2
    assert all((block.sum(axis=1) == 300_000).all() for block in blocks)
    assert sum(len(block) for block in blocks) == 9


def test_interval_rule_for_unusable_resamples() -> None:
    values = np.r_[np.full(5, np.nan), np.linspace(0, 1, 95)]
    low, high = percentile_interval(values)
    assert low is not None
    assert high is not None
    assert percentile_interval(np.r_[np.full(20, np.nan), np.ones(80)]) == (None, None)
    assert percentile_interval(np.r_[np.full(10, np.inf), np.ones(90)])[1] is None
    assert two_sided_p(np.array([1.0] * 99)) == pytest.approx(0.02)


def test_curves_are_the_metrics_drawn_out() -> None:
    y, p = _sample(250, seed=4)
    weight = np.random.default_rng(1).integers(1, 3, 250).astype(float)
    found = curves(y, p, weight=weight, decision_range=(0.1, 0.4), bootstrap=100, seed=2)
    fpr, tpr = roc_points(y, p, weight=weight)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(y, p, weight=weight))
    assert np.trapezoid(found["roc"]["tpr"], found["roc"]["fpr"]) == pytest.approx(np.trapezoid(tpr, fpr), abs=1e-3)
    steps = np.diff(found["pr"]["recall"], prepend=0.0)
    area = float(steps @ np.array(found["pr"]["precision"]))
    assert area == pytest.approx(metrics.average_precision(y, p, weight=weight), abs=1e-3)
    decision = found["decision"]
    assert decision["threshold"][0] == 0.1
    assert decision["threshold"][-1] == 0.4
    for place, threshold in enumerate(decision["threshold"]):
        expected = metrics.net_benefit(y, p, threshold, weight=weight)
        assert decision["net_benefit"][place] == pytest.approx(expected, abs=1e-5)
        assert decision["net_benefit_low"][place] <= expected <= decision["net_benefit_high"][place]
    assert sum(found["histogram"]["events"]) == y.sum()
    assert found == curves(y, p, weight=weight, decision_range=(0.1, 0.4), bootstrap=100, seed=2)


def test_precision_recall_points_are_those_of_scikit_learn() -> None:
    y, p = _sample(120, seed=7)
    recall, precision = pr_points(y, np.round(p, 1))
    theirs_precision, theirs_recall, _ = precision_recall_curve(y, np.round(p, 1))
    assert recall == pytest.approx(theirs_recall[:-1][::-1])
    assert precision == pytest.approx(theirs_precision[:-1][::-1])


@pytest.mark.parametrize(("n", "groups"), [(1000, 10), (57, 5), (12, 1)])
def test_calibration_groups_hold_about_ten_decisions_or_more(n: int, groups: int) -> None:
    y, p = _sample(n)
    points = calibration_points(y, p)
    assert len(points) == groups
    assert sum(point["n"] for point in points) == n
    assert min(point["n"] for point in points) >= 10
    assert [point["mean_probability"] for point in points] == sorted(point["mean_probability"] for point in points)
    assert all(point["low"] <= point["observed"] <= point["high"] for point in points)


def test_ties_stay_in_one_calibration_group() -> None:
    y, p = _sample(200)
    tied = np.where(p < 0.4, 0.25, 0.75)
    assert len(calibration_points(y, tied)) == 2


def test_ici_interval_of_a_perfect_model_reaches_down_to_nothing() -> None:
    y, p = _sample(150, seed=5)
    found = evaluate_binary(y, p, bootstrap=200)
    assert found["ici"] > 0
    assert found["ici_low"] == 0
    far = evaluate_binary(y, np.clip(p + 0.4, 0, 1), bootstrap=200)
    assert far["ici_low"] > 0.2
    assert far["ici"] - far["ici_low"] == pytest.approx(far["ici_high"] - far["ici"])
