"""Fisher's rule on the scores of modalities: the textbook's weights for every set of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from theracast_models.fusion import Fusion
from theracast_models.outcomes import Binary, Continuous, Survival


def normal_scores(n: int, seed: int, *, correlation: float = 0.6, rate: float = 0.3):
    """Return scores that are normal within outcomes with one covariance, and the best score for any subset."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(float)
    covariance = np.array([[1.0, correlation, 0.0], [correlation, 1.0, 0.0], [0.0, 0.0, 1.0]])
    gain = np.array([1.0, 0.8, 0.6])
    x = rng.multivariate_normal(np.zeros(3), covariance, n) + y[:, None] * gain
    return x, y, covariance, gain


def fused(rule: Fusion, x: np.ndarray, there: np.ndarray) -> np.ndarray:
    return rule.base + (rule.weights(there) * np.where(there, x + rule.shift, 0.0)).sum(axis=1)


@pytest.mark.parametrize("subset", [[0, 1, 2], [0, 1], [1], [0, 2]])
def test_each_subset_has_the_weights_of_its_own_discriminant(subset: list[int]) -> None:
    x, y, covariance, gain = normal_scores(40_000, 1)
    rule = Fusion.learn(x, Binary(y, np.ones(len(y))), seed=0)
    there = np.isin(np.arange(3), subset)[None, :]
    own = rule.weights(there)[0]
    assert not own[~there[0]].any()
    part = np.ix_(subset, subset)
    np.testing.assert_allclose(own[subset], np.linalg.solve(covariance[part], gain[subset]), rtol=0.12, atol=0.05)
    oracle = LinearDiscriminantAnalysis().fit(x[:, subset], y)
    found = fused(rule, x, np.repeat(there, len(x), axis=0))
    expected = oracle.decision_function(x[:, subset])
    assert np.corrcoef(found, expected)[0, 1] > 0.998
    assert abs(np.mean(found - expected)) < 0.08, "the intercept is right for every pattern"


def test_weights_hold_where_most_is_missing() -> None:
    x, y, _, _ = normal_scores(20_000, 2)
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(x.shape) < 0.6, np.nan, x)
    outcome = Binary(y, np.ones(len(y)))
    all_there = np.ones((1, 3), dtype=bool)
    np.testing.assert_allclose(
        Fusion.learn(holes, outcome, seed=0).weights(all_there),
        Fusion.learn(x, outcome, seed=0).weights(all_there),
        rtol=0.12,
        atol=0.05,
    )


def test_weights_are_the_best_ones_that_are_not_negative() -> None:
    x, y, _, _ = normal_scores(4000, 3, correlation=0.95)
    rule = Fusion.learn(x, Binary(y, np.ones(len(y))), seed=0)
    found = rule.weights(np.ones((1, 3), dtype=bool))[0] / rule.scale

    def risk(w: np.ndarray) -> float:
        even = rule.pull @ (w - 1 / np.sqrt(3)) ** 2 / 2
        return float(w @ rule.spread @ w / 2 - w @ rule.gain + even)

    oracle = minimize(risk, np.ones(3), bounds=[(0, None)] * 3, method="L-BFGS-B", options={"ftol": 1e-15})
    np.testing.assert_allclose(found, oracle.x, atol=1e-4)


def test_a_score_that_says_the_opposite_or_nothing_is_not_heard() -> None:
    x, y, _, _ = normal_scores(500, 4)
    x[:, 1] = -x[:, 0]
    x[:, 2] = np.nan
    rule = Fusion.learn(x, Binary(y, np.ones(len(y))), seed=0)
    assert rule.weights(np.ones((1, 3), dtype=bool))[0, 1:].tolist() == [0.0, 0.0]
    assert np.isfinite(fused(rule, x, np.isfinite(x))).all()


def test_nothing_there_is_the_rate_of_all() -> None:
    x, y, _, _ = normal_scores(300, 5)
    weight = np.random.default_rng(0).uniform(0.2, 2, 300)
    rule = Fusion.learn(x, Binary(y, weight), seed=0)
    rate = np.average(y, weights=weight)
    nothing = fused(rule, x[:1], np.zeros((1, 3), dtype=bool))
    assert nothing[0] == pytest.approx(np.log(rate / (1 - rate)))


def test_weight_2_is_twice_the_decision() -> None:
    x, y, _, _ = normal_scores(200, 6)
    weight = np.ones(200)
    weight[:50] = 2
    twice = np.concatenate([np.arange(200), np.arange(50)])
    ours = Fusion.learn(x, Binary(y, weight), seed=0)
    theirs = Fusion.learn(x[twice], Binary(y[twice], np.ones(250)), seed=0)
    np.testing.assert_allclose(ours.gain, theirs.gain, atol=1e-12)
    np.testing.assert_allclose(ours.centre, theirs.centre, atol=1e-12)
    np.testing.assert_allclose(np.diag(ours.spread), np.diag(theirs.spread), atol=1e-12)


def test_learns_numbers_and_times_through_their_slopes() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(6000, 2))
    x[:, 1] = 0.7 * x[:, 0] + x[:, 1]
    truth = 0.8 * x[:, 0] + 0.4 * x[:, 1]
    both = np.ones((1, 2), dtype=bool)
    number = Continuous(truth + rng.normal(size=6000), np.ones(6000))
    np.testing.assert_allclose(Fusion.learn(x, number, seed=0).weights(both)[0], [0.8, 0.4], rtol=0.12)
    time = rng.exponential(np.exp(-truth))
    censored = rng.exponential(2.0, 6000)
    survival = Survival(np.minimum(time, censored), (time <= censored).astype(float), np.ones(6000))
    rule = Fusion.learn(x, survival, seed=0)
    assert np.corrcoef(fused(rule, x, np.ones(x.shape, dtype=bool)), truth)[0, 1] > 0.99
    assert fused(rule, x[:1], ~both)[0] == 0.0
