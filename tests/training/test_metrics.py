"""Metrics against scikit-learn, slow obvious loops, published examples, and the laws that must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from theracast_training import metrics
from theracast_training.loess import Loess, smooth

Floats = NDArray[np.float64]
WEIGHTED = [
    metrics.auc,
    metrics.average_precision,
    metrics.brier,
    metrics.scaled_brier,
    metrics.calibration_intercept,
    metrics.calibration_slope,
    metrics.observed_expected,
]


def _sample(seed: int, n: int = 200, *, decimals: int = 2) -> tuple[Floats, Floats, Floats]:
    """Return outcomes, probabilities with ties, and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.beta(2, 4, n), decimals)
    return (rng.random(n) < p).astype(float), p, rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.auc, roc_auc_score),
        (metrics.average_precision, average_precision_score),
        (metrics.brier, brier_score_loss),
    ],
)
def test_agrees_with_scikit_learn_with_ties_and_weights(seed: int, ours: object, theirs: object) -> None:
    y, p, weight = _sample(seed)
    assert ours(y, p) == pytest.approx(theirs(y, p), abs=1e-12)
    assert ours(y, p, weight=weight) == pytest.approx(theirs(y, p, sample_weight=weight), abs=1e-12)


def test_auc_of_the_published_rating_example() -> None:
    # Hanley & McNeil, Radiology 1982;143:29-36: 109 CT images rated in five categories, area 0.893.
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    rating = np.arange(1, 6) / 5
    y = np.repeat([0, 1], [sum(normal), sum(abnormal)])
    p = np.r_[np.repeat(rating, normal), np.repeat(rating, abnormal)]
    assert round(metrics.auc(y, p), 3) == 0.893


def test_auc_is_the_fraction_of_pairs_ranked_right() -> None:
    y, p, weight = _sample(5, 60, decimals=1)
    right = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            pair = weight[i] * weight[j]
            total += pair
            right += pair * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0)
    assert metrics.auc(y, p, weight=weight) == pytest.approx(right / total)


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_line_is_the_logistic_recalibration(weighted: bool) -> None:
    y, p, counts = _sample(2, 400)
    weight = counts if weighted else np.ones_like(y)
    score = logit(np.clip(p, 1e-8, 1 - 1e-8))
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=2000).fit(score[:, None], y, sample_weight=weight)
    shift = brentq(lambda a: float(weight @ (y - expit(a + score))), -5, 5, xtol=1e-12)
    intercept, slope = metrics.calibration_line(y, p, weight=weight)
    assert slope == pytest.approx(reference.coef_[0, 0], abs=1e-6)
    assert intercept == pytest.approx(shift, abs=1e-9)
    joint, _ = metrics.recalibration_each(y, p, weight[None, :])
    assert joint[0] == pytest.approx(reference.intercept_[0], abs=1e-6)


def test_calibration_line_tells_a_shift_and_a_slope_that_were_put_in() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(-0.8, 1.0, 60_000)
    y = (rng.random(len(truth)) < expit(truth)).astype(float)
    intercept, slope = metrics.calibration_line(y, expit(truth))
    assert (intercept, slope) == (pytest.approx(0, abs=0.03), pytest.approx(1, abs=0.03))
    assert metrics.calibration_slope(y, expit(2 * truth)) == pytest.approx(0.5, abs=0.02)
    assert metrics.calibration_intercept(y, expit(truth - 0.7)) == pytest.approx(0.7, abs=0.03)


def _slow_ici(y: Floats, p: Floats, weight: Floats) -> float:
    """Return the index from local lines fitted one by one with least squares at every probability."""
    total = 0.0
    for x, mass in zip(p, weight, strict=True):
        distance = np.abs(p - x)
        order = np.argsort(distance, kind="stable")
        reach = distance[order][np.searchsorted(np.cumsum(weight[order]), 0.75 * weight.sum() - 1e-9)] * 1.000001
        kernel = weight * np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
        root = np.sqrt(kernel)
        design = np.column_stack([np.ones_like(p), p - x])
        level = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0][0]
        total += mass * abs(np.clip(level, 0, 1) - x)
    return total / weight.sum()


@pytest.mark.parametrize("seed", range(3))
def test_ici_is_the_mean_distance_from_a_local_linear_fit(seed: int) -> None:
    y, p, counts = _sample(seed, 90, decimals=4)
    for weight in (np.ones_like(y), counts + 0.5):
        assert metrics.ici(y, p, weight=weight) == pytest.approx(_slow_ici(y, p, weight), abs=1e-8)


def test_ici_is_small_for_true_probabilities_and_about_the_error_for_false_ones() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.6, 20_000)
    y = (rng.random(len(p)) < p).astype(float)
    assert metrics.ici(y, p) < 0.015
    assert metrics.ici(y, p + 0.2) == pytest.approx(0.2, abs=0.015)
    assert metrics.calibration_error_quantile(y, p + 0.2, 0.9) == pytest.approx(0.2, abs=0.03)
    assert metrics.calibration_error_quantile(y, p, 0.5) < metrics.calibration_error_quantile(y, p, 0.9)


def test_smoother_returns_a_straight_line_that_was_put_in() -> None:
    p = np.linspace(0.05, 0.9, 40)
    grid, observed = smooth(0.3 + 0.5 * p, p)
    assert observed == pytest.approx(0.3 + 0.5 * grid)


def test_smoother_interpolates_on_its_grid_when_there_are_many_probabilities() -> None:
    p = np.random.default_rng(0).random(500)
    loess = Loess.over(p)
    assert len(loess.grid) == 100
    fitted = np.sin(loess.grid)[None, :]
    assert loess.at_observations(fitted)[0] == pytest.approx(np.interp(p, loess.grid, fitted[0]))


def test_threshold_metrics_count_as_by_hand() -> None:
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    p = np.array([0.9, 0.4, 0.1, 0.8, 0.4, 0.3, 0.2, 0.1, 0.1, 0.0])
    assert metrics.sensitivity(y, p, 0.4) == pytest.approx(2 / 3)
    assert metrics.specificity(y, p, 0.4) == pytest.approx(5 / 7)
    assert metrics.positive_predictive_value(y, p, 0.4) == pytest.approx(2 / 4)
    assert metrics.negative_predictive_value(y, p, 0.4) == pytest.approx(5 / 6)
    assert metrics.net_benefit(y, p, 0.4) == pytest.approx(2 / 10 - 2 / 10 * 0.4 / 0.6)
    assert metrics.treat_all(y, 0.4) == pytest.approx(3 / 10 - 7 / 10 * 0.4 / 0.6)
    assert metrics.observed_expected(y, p) == pytest.approx(3 / p.sum())
    assert metrics.scaled_brier(y, np.full(10, 0.3)) == pytest.approx(0)
    assert np.isnan(metrics.positive_predictive_value(y, p, 0.95))
    assert metrics.net_benefit(y, p, 1.0) == 0


@pytest.mark.parametrize(
    ("events", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(events: int, n: int, low: float, high: float) -> None:
    # Newcombe, Stat Med 1998;17:857-872, table I, score method.
    assert metrics.wilson(events, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10), st.integers(0, 3)), min_size=4, max_size=30))
def test_a_weight_equals_repeated_rows(rows: list[tuple[bool, int, int]]) -> None:
    y, tenths, counts = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    p = tenths / 10
    again = counts.astype(int)
    repeated_y, repeated_p = np.repeat(y, again), np.repeat(p, again)
    for metric in [*WEIGHTED, metrics.ici]:
        direct = metric(repeated_y, repeated_p)
        assert metric(y, p, weight=counts) == pytest.approx(direct, rel=1e-6, abs=1e-6, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=40), st.randoms())
def test_the_order_of_patients_does_not_matter_and_ranges_hold(rows: list[tuple[bool, int]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    (y, p), (other_y, other_p) = (
        (np.array([float(row[0]) for row in some]), np.array([row[1] / 20 for row in some]))
        for some in (rows, shuffled)
    )
    for metric in [*WEIGHTED, metrics.ici]:
        assert metric(y, p) == pytest.approx(metric(other_y, other_p), rel=1e-6, abs=1e-6, nan_ok=True)
    area = metrics.auc(y, p)
    assert np.isnan(area) or 0 <= area <= 1
    assert np.isnan(area) or metrics.auc(1 - y, p) == pytest.approx(1 - area)
    assert 0 <= metrics.brier(y, p) <= 1


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_outcome_alone_gives_nan_and_no_error(outcome: float) -> None:
    y, p = np.full(4, outcome), np.array([0.1, 0.2, 0.5, 1.0])
    for metric in (
        metrics.auc,
        metrics.scaled_brier,
        metrics.calibration_intercept,
        metrics.calibration_slope,
        metrics.ici,
    ):
        assert np.isnan(metric(y, p))
    assert np.isnan(metrics.calibration_error_quantile(y, p, 0.9))
    assert np.isfinite(metrics.brier(y, p))


def test_nobody_gives_nan_and_no_error() -> None:
    assert all(np.isnan(metric([], [])) for metric in [*WEIGHTED, metrics.ici])
    assert all(np.isnan(metric([0, 1], [0.1, 0.9], weight=[0, 0])) for metric in WEIGHTED)


def test_slope_is_infinite_when_separated_and_nan_without_spread() -> None:
    assert metrics.calibration_slope([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]) == np.inf
    assert metrics.calibration_slope([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]) == -np.inf
    assert np.isnan(metrics.calibration_slope([0, 1, 1], [0.2, 0.2, 0.2]))


def test_probabilities_of_exactly_0_and_1_stay_finite() -> None:
    intercept, slope = metrics.calibration_line([0, 1, 0, 1, 1], [0.0, 0.0, 0.4, 0.6, 1.0])
    assert np.isfinite([intercept, slope]).all()


@pytest.mark.parametrize(
    ("y", "p", "weight", "told"),
    [
        ([0, 1], [0.1], None, "one length"),
        ([0, 2], [0.1, 0.2], None, "leave decisions without an outcome out"),
        ([0, 1], [0.1, np.nan], None, "leave decisions without a score out"),
        ([0, 1], [0.1, 1.2], None, r"\[0, 1\]"),
        ([0, 1], [0.1, 0.2], [1, -1], "not negative"),
    ],
)
def test_refuses_what_is_no_outcome_probability_or_weight(y: object, p: object, weight: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        metrics.auc(y, p, weight=weight)
