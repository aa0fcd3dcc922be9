"""Decision curves against the dcurves library, whose answers for simulated patients are stored beside this test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_training import metrics
from theracast_training.curves import curves, decision_curve
from theracast_training.decision_curves import event_probability_each, survival_decision_curve
from theracast_training.target import Target


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """Return inputs and answers of dcurves 1.1.7."""
    found: dict[str, Any] = json.loads(
        (Path(__file__).parent / "references" / "dcurves.json").read_text(encoding="utf-8")
    )
    assert found["source"].startswith("dcurves 1.1.7")
    return found


def test_net_benefit_and_interventions_avoided_are_those_of_dcurves(reference: dict[str, Any]) -> None:
    y, p = (np.array(reference["binary"][name], dtype=float) for name in ("y", "p"))
    theirs = reference["binary"]["result"]
    curve = decision_curve(y, p, np.ones_like(y), np.empty((0, len(y))), decision_range=(0.01, 0.7))
    for place, threshold in enumerate(reference["thresholds"]):
        net_benefit, all_of_them = (theirs[name]["net_benefit"][place] for name in ("model", "all"))
        assert metrics.net_benefit(y, p, threshold) == pytest.approx(net_benefit, abs=1e-12)
        assert metrics.treat_all(y, threshold) == pytest.approx(all_of_them, abs=1e-12)
        at = curve["threshold"].index(threshold)
        assert curve["net_benefit"][at] == pytest.approx(net_benefit, abs=6e-6)  # rounded for the page
        assert curve["treat_all"][at] == pytest.approx(all_of_them, abs=6e-6)
        avoided = theirs["model"]["interventions_avoided"][place]
        assert curve["interventions_avoided"][at] == pytest.approx(avoided, abs=6e-6)


def test_a_given_prevalence_is_a_weight(reference: dict[str, Any]) -> None:
    y, p = (np.array(reference["binary"][name], dtype=float) for name in ("y", "p"))
    prevalence, theirs = (
        reference["case_control"]["prevalence"],
        reference["case_control"]["result"]["model"]["net_benefit"],
    )
    weight = np.where(y == 1, prevalence / y.mean(), (1 - prevalence) / (1 - y.mean()))
    for threshold, expected in zip(reference["thresholds"], theirs, strict=True):
        assert metrics.net_benefit(y, p, threshold, weight=weight) == pytest.approx(expected, abs=1e-12)


def test_censored_net_benefit_is_that_of_dcurves(reference: dict[str, Any]) -> None:
    given_ = reference["survival"]
    curve = survival_decision_curve(
        given_["time"], given_["event"], given_["p"], horizon=given_["horizon"], decision_range=(0.01, 0.7), bootstrap=0
    )
    for place, threshold in enumerate(reference["thresholds"]):
        at = curve["threshold"].index(threshold)
        assert curve["net_benefit"][at] == pytest.approx(given_["result"]["model"]["net_benefit"][place], abs=1e-12)
        assert curve["treat_all"][at] == pytest.approx(given_["result"]["all"]["net_benefit"][place], abs=1e-12)
        avoided = given_["result"]["model"]["interventions_avoided"][place]
        assert curve["interventions_avoided"][at] == pytest.approx(avoided, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_kaplan_meier_is_that_of_a_slow_loop_over_repeated_rows(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(1, 12, n).astype(float))
    event = rng.integers(0, 2, n).astype(float)
    weights = rng.integers(0, 3, (4, n)).astype(float)
    found = event_probability_each(time, event, weights, horizon=8.0)
    for value, counts in zip(found, weights, strict=True):
        people = [(t, e) for t, e, times in zip(time, event, counts, strict=True) for _ in range(int(times))]
        survival = 1.0
        for moment in sorted({t for t, e in people if e and t <= 8}):
            at_risk = sum(t >= moment for t, _ in people)
            survival *= 1 - sum(t == moment and e == 1 for t, e in people) / at_risk
        if people and max(t for t, _ in people) < 8 and survival > 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(1 - survival if people else 0.0, abs=1e-12)


def _followed(seed: int, n: int, *, censored: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lp = rng.normal(size=n)
    death = rng.exponential(500 * np.exp(-0.8 * lp))
    leave = rng.uniform(100, 1500, n) if censored else np.full(n, 1e6)
    p = 1 - np.exp(-365 / 500 * np.exp(0.8 * lp))
    return np.minimum(death, leave), (death <= leave).astype(float), p


def test_without_censoring_it_is_the_binary_curve_with_its_bands() -> None:
    time, event, p = _followed(1, 300, censored=False)
    y = ((event == 1) & (time <= 365)).astype(float)
    patients = np.repeat(np.arange(150), 2)
    ours = survival_decision_curve(time, event, p, horizon=365, bootstrap=80, seed=4, group=patients)
    binary = curves(y, p, bootstrap=80, seed=4, group=patients)["decision"]
    json.dumps(ours, allow_nan=False)
    assert ours["threshold"] == binary["threshold"]
    for name in ("net_benefit", "treat_all", "interventions_avoided"):
        assert ours[name] == pytest.approx(binary[name], abs=1e-5)
        assert ours[f"{name}_low"] == pytest.approx(
            binary[f"{name}_low"], abs=0.02 if name != "interventions_avoided" else 3
        )
        assert all(
            low <= value <= high
            for low, value, high in zip(ours[f"{name}_low"], ours[name], ours[f"{name}_high"], strict=True)
        )


def test_with_censoring_inverse_probability_weights_lead_to_about_the_same_curve() -> None:
    time, event, p = _followed(2, 8000, censored=True)
    known = (event == 1) & (time <= 365) | (time >= 365)
    y = np.where(known, ((event == 1) & (time <= 365)).astype(float), np.nan)
    target = Target(y, time, event, (365.0,))
    weighted = curves(y, p, weight=target.weight(), bootstrap=0)["decision"]
    ours = survival_decision_curve(time, event, p, horizon=365, bootstrap=0)
    whole_time, whole_event, _ = _followed(2, 8000, censored=False)
    truth = curves(((whole_event == 1) & (whole_time <= 365)).astype(float), p, bootstrap=0)["decision"]
    for name in ("net_benefit", "treat_all"):
        assert np.abs(np.array(ours[name]) - weighted[name]).max() < 0.012
        assert np.abs(np.array(ours[name]) - truth[name]).max() < 0.02


def test_what_is_not_followed_to_the_horizon_is_not_told() -> None:
    curve = survival_decision_curve([10, 20, 30, 500], [0, 1, 0, 0], [0.9, 0.9, 0.9, 0.1], horizon=365, bootstrap=20)
    high = curve["threshold"].index(0.5)
    assert curve["net_benefit"][high] is None
    assert curve["treat_all"][high] is not None
    assert curve["events"] == 1
    with pytest.raises(ValueError, match="events of 0 or 1"):
        survival_decision_curve([1.0], [2.0], [0.5], horizon=1)
