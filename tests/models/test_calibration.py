"""Affine calibration, against scikit-learn, and where maximum likelihood has no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from theracast_data.errors import CohortError
from theracast_models.calibration import LEAST_SLOPE, AffineCalibration


def simulated(n: int = 400, *, slope: float = 0.7, intercept: float = -0.5, seed: int = 0):
    rng = np.random.default_rng(seed)
    s = rng.normal(-1, 1.5, n)
    return s, (rng.random(n) < expit(intercept + slope * s)).astype(float), rng.uniform(0, 2, n)


def test_equals_scikit_learn_with_weights() -> None:
    s, y, weight = simulated()
    oracle = LogisticRegression(C=np.inf, solver="newton-cg", tol=1e-12, max_iter=1000)
    oracle.fit(s[:, None], y, sample_weight=weight)
    found = AffineCalibration.fit(s, y, weight)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-6)
    assert found.intercept == pytest.approx(oracle.intercept_[0], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-20, 20), scale=st.floats(0.01, 50))
def test_does_not_depend_on_the_scale_of_the_log_odds(seed: int, shift: float, scale: float) -> None:
    s, y, weight = simulated(200, seed=seed)
    ours = AffineCalibration.fit(s, y, weight)
    moved = AffineCalibration.fit(shift + scale * s, y, weight)
    if LEAST_SLOPE * 1.01 < moved.slope < 24:
        np.testing.assert_allclose(moved.apply(shift + scale * s), ours.apply(s), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: 0 < sum(one for _, one in rows) < len(rows)
    )
)
def test_always_gives_a_finite_rising_line(rows) -> None:
    s, y = np.array([one for one, _ in rows]), np.array([float(one) for _, one in rows])
    found = AffineCalibration.fit(s, y)
    assert found.slope > 0
    assert np.isfinite([found.slope, found.intercept]).all()


def test_same_log_odds_for_all_give_the_observed_rate() -> None:
    found = AffineCalibration.fit(np.full(10, -3.0), np.array([1.0] * 3 + [0.0] * 7))
    assert found.slope == 1.0
    assert expit(found.apply(np.array([-3.0])))[0] == pytest.approx(0.3)


def test_a_model_that_ranks_backwards_is_flattened_not_turned() -> None:
    s, y, _ = simulated(slope=-1.0)
    found = AffineCalibration.fit(s, y)
    assert found.slope == LEAST_SLOPE
    assert expit(found.apply(s)).mean() == pytest.approx(y.mean(), abs=1e-9)


def test_separated_outcomes_stay_finite() -> None:
    s = np.linspace(-2, 2, 20)
    found = AffineCalibration.fit(s, (s > 0).astype(float))
    assert 0 < found.slope < 25
    assert expit(found.apply(s)).max() < 1


def test_one_outcome_only_is_an_error() -> None:
    with pytest.raises(CohortError, match="Add decisions, or use fewer folds"):
        AffineCalibration.fit(np.array([0.1, 0.2]), np.array([1.0, 1.0]))


def test_decisions_that_no_fold_tested_do_not_count() -> None:
    s, y, _ = simulated(100)
    some = np.where(np.arange(100) < 60, s, np.nan)
    assert AffineCalibration.fit(some, y) == AffineCalibration.fit(s[:60], y[:60])
