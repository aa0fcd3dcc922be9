"""Hazard ratios and log-rank tests against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.duration.survfunc import survdiff

from theracast_training.effects.hazards import fit_cox, hazard_ratio, log_rank


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("stratified", [False, True])
def test_coefficients_errors_and_tests_are_those_of_statsmodels(tied: bool, stratified: bool) -> None:
    rng = np.random.default_rng(3)
    n = 250
    X = np.column_stack([rng.integers(0, 2, n), rng.normal(size=n)]).astype(float)
    time = rng.exponential(10 * np.exp(-0.5 * X[:, 0] + 0.3 * X[:, 1]))
    time = np.ceil(time) if tied else time
    event = (rng.random(n) < 0.7).astype(float)
    strata = rng.integers(0, 4, n) if stratified else None
    own = fit_cox(X, time, event, strata=strata)
    other = sm.PHReg(time, X, event, strata=strata, ties="efron").fit()
    np.testing.assert_allclose(own.beta, other.params, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(own.covariance)), other.bse, atol=1e-6)
    assert own.log_likelihood == pytest.approx(other.llf)
    chi_square, p = survdiff(time, event, X[:, 0], strata=strata)
    assert log_rank(X[:, 0], time, event, strata=strata) == pytest.approx({"chi_square": chi_square, "p_value": p})


def test_no_ratio_where_one_arm_has_no_event() -> None:
    treated = np.repeat([0.0, 1.0], 20)
    found = hazard_ratio(treated, np.arange(1.0, 41.0), 1 - treated)
    assert found["hazard_ratio"] is None
    assert hazard_ratio(treated, np.arange(1.0, 41.0), np.zeros(40))["hazard_ratio"] is None
