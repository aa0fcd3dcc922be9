"""Pseudo-values against the jackknife that leaves out one patient after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_training.effects.pseudo import Summary, curve_summary, kaplan_meier, pseudo_values


@st.composite
def follow_ups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct times, so that events, censorings and the horizon tie in all ways."""
    n = draw(st.integers(2, 25))
    time = draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    event = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    return np.array(time, dtype=float), np.array(event, dtype=float)


@settings(max_examples=300, deadline=None)
@given(follow_ups(), st.sampled_from([1.0, 3.0, 4.5, 9.0, 12.0]), st.sampled_from(["restricted_mean", "survival"]))
def test_one_pass_equals_leaving_out_each_patient(
    follow_up: tuple[np.ndarray, np.ndarray], horizon: float, summary: Summary
) -> None:
    time, event = follow_up
    n, whole = len(time), curve_summary(time, event, horizon=horizon, summary=summary)
    slow = [
        n * whole - (n - 1) * curve_summary(np.delete(time, i), np.delete(event, i), horizon=horizon, summary=summary)
        for i in range(n)
    ]
    fast = pseudo_values(time, event, horizon=horizon, summary=summary)
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_without_censoring_they_are_the_patients_own_times() -> None:
    time = np.array([3.0, 8.0, 8.0, 20.0, 41.0])
    event = np.ones(5)
    np.testing.assert_allclose(pseudo_values(time, event, horizon=20.0), np.minimum(time, 20.0))
    np.testing.assert_allclose(pseudo_values(time, event, horizon=8.0, summary="survival"), time > 8)


def test_the_area_is_that_under_the_curve_of_statsmodels() -> None:
    from statsmodels.duration.survfunc import SurvfuncRight

    rng = np.random.default_rng(4)
    time, event = np.ceil(rng.exponential(20, 300)), (rng.random(300) < 0.6).astype(float)
    other = SurvfuncRight(time, event)
    own = kaplan_meier(time, event)
    np.testing.assert_allclose(own.survival, other.surv_prob)
    edges = np.concatenate([[0.0], other.surv_times[other.surv_times < 30], [30.0]])
    levels = np.concatenate([[1.0], other.surv_prob[other.surv_times < 30]])
    assert curve_summary(time, event, horizon=30.0, summary="restricted_mean") == pytest.approx(np.diff(edges) @ levels)


def test_their_spread_is_the_error_of_greenwood() -> None:
    rng = np.random.default_rng(5)
    time, event = rng.exponential(20, 500), (rng.random(500) < 0.7).astype(float)
    pseudo = pseudo_values(time, event, horizon=15.0, summary="survival")
    curve = kaplan_meier(time, event)
    seen = curve.moment <= 15
    d, at_risk = curve.events[seen], curve.at_risk[seen]
    greenwood = curve.survival[seen][-1] * np.sqrt((d / (at_risk * (at_risk - d))).sum())
    assert pseudo.std(ddof=1) / np.sqrt(500) == pytest.approx(greenwood, rel=0.02)
