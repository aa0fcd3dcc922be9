"""Tests and intervals of the audit against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from theracast_data.audit import chance


def test_adjusted_p_values_are_those_of_scipy() -> None:
    p_values = np.random.default_rng(1).random(40) ** 3
    assert chance.adjusted(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_auc_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(2)
    label, score = rng.random(300) < 0.3, np.round(rng.normal(size=300), 1)
    assert chance.auc(score, label) == pytest.approx(roc_auc_score(label, score))


def test_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    left, right = np.round(rng.normal(size=80), 1), np.round(rng.normal(0.4, size=120), 1)
    assert chance.distance(left, right) == pytest.approx(stats.ks_2samp(left, right).statistic)


def test_rates_p_is_that_of_the_chi_square_test() -> None:
    counts, totals = np.array([12.0, 30.0, 9.0]), np.array([100.0, 120.0, 90.0])
    expected = stats.chi2_contingency(np.array([counts, totals - counts]), correction=False).pvalue
    assert chance.rates_p(counts, totals) == pytest.approx(expected)


def test_upper_binomial_p_is_that_of_scipy() -> None:
    assert chance.upper_binomial_p(7, 40, 0.08) == pytest.approx(stats.binom.sf(6, 40, 0.08))


def test_association_agrees_with_a_permutation_test() -> None:
    rng = np.random.default_rng(4)
    strata = np.repeat([0, 1], 60)
    score = rng.normal(size=120) + strata
    indicator = rng.random(120) < 0.4 + 0.2 * (score > 0.5)
    p_value, difference = chance.association_p(indicator, score, strata)

    def within(marked: np.ndarray) -> float:
        return float(
            sum(
                score[(strata == s) & marked].sum() - (marked & (strata == s)).sum() * score[strata == s].mean()
                for s in (0, 1)
            )
        )

    observed = within(indicator)
    drawn = []
    for _ in range(4000):
        shuffled = indicator.copy()
        for stratum in (0, 1):
            shuffled[strata == stratum] = rng.permutation(indicator[strata == stratum])
        drawn.append(within(shuffled))
    assert p_value == pytest.approx(np.mean(np.abs(drawn) >= abs(observed)), abs=0.015)
    assert difference > 0


def test_martingale_residuals_by_a_slow_loop() -> None:
    rng = np.random.default_rng(5)
    time, event = np.ceil(rng.exponential(10, 60)), (rng.random(60) < 0.6).astype(float)
    expected = [
        event[one]
        - sum(event[time == moment].sum() / (time >= moment).sum() for moment in np.unique(time) if moment <= time[one])
        for one in range(60)
    ]
    assert chance.martingale_residuals(time, event) == pytest.approx(np.array(expected))
    assert chance.martingale_residuals(time, event).sum() == pytest.approx(0.0, abs=1e-9)
