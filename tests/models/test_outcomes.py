"""The likelihoods that models learn from, against finite differences, statsmodels and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from theracast_data.errors import CohortError
from theracast_models.calibration import AffineCalibration
from theracast_models.elasticnet import fit_linear
from theracast_models.links import (
    Asked,
    HazardLink,
    NumberLink,
    OrdinalLink,
    answers,
    fit_link,
    link_from_json,
)
from theracast_models.outcomes import Binary, Continuous, Ordinal, Outcome, Survival, as_outcome, require_binary

Floats = NDArray[np.float64]
N = 240


def _drawn(seed: int) -> tuple[Floats, dict[str, Outcome]]:
    rng = np.random.default_rng(seed)
    score, weight = rng.normal(size=N), rng.uniform(0.5, 2.0, N)
    time = np.ceil(rng.exponential(10 * np.exp(-score)))  # many ties
    event = (rng.random(N) < 0.6).astype(float)
    level = np.digitize(score + rng.logistic(size=N), [-1.0, 0.5, 2.0]).astype(float)
    outcomes: dict[str, Outcome] = {
        "binary": Binary((rng.random(N) < expit(score)).astype(float), weight),
        "time_to_event": Survival(time, event, weight),
        "ordinal": Ordinal(level, 4, weight),
        "continuous": Continuous(3.0 * score + 7 + rng.normal(size=N), weight),
    }
    return score, outcomes


@pytest.mark.parametrize("kind", ["binary", "time_to_event", "ordinal", "continuous"])
def test_gradient_and_curvature_are_those_of_the_loss(kind: str) -> None:
    score, outcomes = _drawn(0)
    outcome = outcomes[kind]
    gradient, curvature = outcome.slopes(score)
    step = 1e-5
    for row in range(0, N, 12):
        moved = np.zeros(N)
        moved[row] = step
        slope = (outcome.loss(score + moved) - outcome.loss(score - moved)) / (2 * step)
        assert slope == pytest.approx(gradient[row], abs=1e-6)
        if kind != "ordinal":  # there the curvature is at fixed thresholds
            second = (outcome.slopes(score + moved)[0][row] - outcome.slopes(score - moved)[0][row]) / (2 * step)
            assert second == pytest.approx(curvature[row], abs=1e-6)
    if not outcome.has_intercept:
        assert outcome.loss(score + 3.0) == pytest.approx(outcome.loss(score), rel=1e-10)
        assert gradient.sum() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("kind", ["time_to_event", "ordinal"])
def test_the_hessian_is_that_of_the_loss(kind: str) -> None:
    score, outcomes = _drawn(8)
    outcome = outcomes[kind]
    assert isinstance(outcome, Survival | Ordinal)
    z = np.random.default_rng(8).normal(size=(N, 3))
    step, found = 1e-5, np.zeros((3, 3))
    for column in range(3):
        ahead, behind = (outcome.slopes(score + sign * step * z[:, column])[0] for sign in (1, -1))
        found[column] = z.T @ (ahead - behind) / (2 * step)
    np.testing.assert_allclose(outcome.hessian(score, z), found, atol=1e-5)


def test_the_partial_likelihood_equals_a_slow_loop_and_statsmodels() -> None:
    from statsmodels.duration.hazard_regression import PHReg

    score, outcomes = _drawn(1)
    outcome = outcomes["time_to_event"]
    assert isinstance(outcome, Survival)
    loss = 0.0
    for row in np.flatnonzero(outcome.event == 1):
        at_risk = outcome.time >= outcome.time[row]
        loss -= outcome.weight[row] * (score[row] - np.log((outcome.weight[at_risk] * np.exp(score[at_risk])).sum()))
    assert outcome.loss(score) == pytest.approx(loss, rel=1e-10)
    plain = Survival(outcome.time, outcome.event, np.ones(N))
    other = PHReg(outcome.time, score[:, None], status=outcome.event, ties="breslow")
    assert plain.loss(score) == pytest.approx(-other.loglike(np.array([1.0])), rel=1e-10)
    hazards = plain.cumulative_hazard(score, np.array([0.5, 5.0, 20.0]))
    for day, hazard in zip((0.5, 5.0, 20.0), hazards, strict=True):
        slow = sum(
            1 / np.exp(score[outcome.time >= time]).sum()
            for time in outcome.time[(outcome.event == 1) & (outcome.time <= day)]
        )
        assert hazard == pytest.approx(slow, rel=1e-10)


def test_coefficients_of_coxs_model_equal_those_of_statsmodels() -> None:
    from statsmodels.duration.hazard_regression import PHReg

    rng = np.random.default_rng(2)
    z = rng.normal(size=(N, 3))
    time = np.ceil(rng.exponential(20 * np.exp(-z @ np.array([0.8, -0.4, 0.0]))))
    event = (rng.random(N) < 0.7).astype(float)
    intercept, coef = fit_linear(z, Survival(time, event, np.ones(N)), c=1e8, l1_ratio=0.0)
    other = PHReg(time, z, status=event, ties="breslow").fit()
    assert intercept == 0.0
    np.testing.assert_allclose(coef, other.params, atol=1e-5)


def test_coefficients_and_thresholds_of_proportional_odds_equal_those_of_statsmodels() -> None:
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    rng = np.random.default_rng(3)
    z = rng.normal(size=(N, 2))
    level = np.digitize(z @ np.array([1.0, -0.5]) + rng.logistic(size=N), [-1.0, 0.5, 2.0])
    outcome = Ordinal(level.astype(float), 4, np.ones(N))
    _, coef = fit_linear(z, outcome, c=1e8, l1_ratio=0.0)
    fitted = OrderedModel(level, z, distr="logit").fit(method="bfgs", disp=0, gtol=1e-8, maxiter=500)
    np.testing.assert_allclose(coef, fitted.params[:2], atol=1e-4)
    thresholds = fitted.model.transform_threshold_params(fitted.params)[1:-1]
    np.testing.assert_allclose(outcome.thresholds(z @ coef), thresholds, atol=1e-4)


def test_a_level_that_nobody_has_takes_no_room() -> None:
    level = np.array([0.0, 0.0, 2.0, 2.0, 2.0, 0.0])
    thresholds = Ordinal(level, 5, np.ones(6)).thresholds(np.zeros(6))
    assert thresholds[0] == thresholds[1] == pytest.approx(0.0)
    assert (expit(-thresholds[2:]) < 1e-12).all()


def test_penalties_mean_the_same_in_other_units() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(N, 4))
    y = z @ np.array([1.0, 0.5, 0.0, 0.0]) + rng.normal(size=N)
    _, coef = fit_linear(z, Continuous(y, np.ones(N)), c=0.1, l1_ratio=0.5)
    _, in_thousandths = fit_linear(z, Continuous(1000 * y, np.ones(N)), c=0.1, l1_ratio=0.5)
    kept = np.flatnonzero(coef)
    np.testing.assert_array_equal(kept, np.flatnonzero(in_thousandths))
    assert len(kept) < 4


@pytest.mark.parametrize("kind", ["binary", "time_to_event", "ordinal", "continuous"])
def test_a_link_finds_the_slope_that_was_there_and_comes_back_from_json(kind: str) -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=4000)
    weight = np.ones(4000)
    death, lost = rng.exponential(100 * np.exp(-truth)), rng.exponential(200, 4000)
    outcome: Outcome = {
        "binary": lambda: Binary((rng.random(4000) < expit(truth - 1)).astype(float), weight),
        "time_to_event": lambda: Survival(np.minimum(death, lost), (death <= lost).astype(float), weight),
        "ordinal": lambda: Ordinal(np.digitize(truth + rng.logistic(size=4000), [-1.0, 1.0]).astype(float), 3, weight),
        "continuous": lambda: Continuous(truth + 5 + rng.normal(size=4000), weight),
    }[kind]()
    link = fit_link(truth / 2, outcome, Asked(horizons=(50.0, 100.0), main_level=2))
    assert link.slope == pytest.approx(2.0, rel=0.1)
    found = answers(link, link.apply(truth / 2))
    told = {
        "binary": expit(truth - 1)[:, None],
        "time_to_event": 1 - np.exp(-np.outer(np.exp(truth), [0.5, 1.0])),
        "ordinal": expit(truth[:, None] - np.array([1.0, -1.0])),
        "continuous": truth[:, None] + 5,
    }[kind]
    assert np.abs(found - told).mean() < 0.03 * (1 if kind != "continuous" else 3)
    again = link_from_json(link.to_json())
    np.testing.assert_array_equal(answers(again, again.apply(truth / 2)), found)
    np.testing.assert_allclose(link.scale_of(found[:, 0]), link.offsets[0] + link.apply(truth / 2), atol=1e-9)


def test_a_ranking_is_never_turned_round() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=500)
    time = rng.exponential(np.exp(-truth))
    outcomes: list[Outcome] = [
        Survival(time, np.ones(500), np.ones(500)),
        Continuous(truth, np.ones(500)),
        Ordinal((truth > 0).astype(float), 2, np.ones(500)),
    ]
    for outcome in outcomes:
        assert fit_link(-truth, outcome, Asked(horizons=(1.0,))).slope == pytest.approx(0.05)


def test_a_curve_reads_the_baseline_on_even_days_only() -> None:
    rng = np.random.default_rng(7)
    time = rng.exponential(300, 200)
    link = fit_link(rng.normal(size=200), Survival(time, np.ones(200), np.ones(200)), Asked(horizons=(365.25,)))
    assert isinstance(link, HazardLink)
    np.testing.assert_allclose(np.diff(link.grid), link.grid[1])
    assert not set(link.grid) & set(time.tolist())
    curve = link.by(np.array([0.0, 100.0, 365.25]), np.array([0.0, 1.0]))
    assert curve[0, 0] == 0
    assert (np.diff(curve, axis=1) > 0).all()
    assert curve[0, 2] == pytest.approx(float(answers(link, np.zeros(1))[0, 0]), abs=0.02)


def test_outcomes_that_teach_nothing_are_refused() -> None:
    ones = np.ones(4)
    for outcome, words in (
        (Binary(ones, ones), "same outcome"),
        (Binary(np.array([0.0, 1.0, 2.0, 1.0]), ones), "neither 0 nor 1"),
        (Survival(ones, np.zeros(4), ones), "had the event"),
        (Survival(np.array([1.0, np.nan, -1.0, 2.0]), ones, ones), "2 of 4"),
        (Ordinal(ones, 3, ones), "same level"),
        (Continuous(ones, ones), "same outcome"),
        (Continuous(np.array([1.0, np.nan, 2.0, 3.0]), ones, 1.0), "no finite outcome"),
    ):
        with pytest.raises(CohortError, match=words):
            outcome.check()
    with pytest.raises(CohortError, match="learns yes or no"):
        require_binary(Continuous(np.arange(4.0), ones), None, family="cnn")
    with pytest.raises(ValueError, match="weights of their own"):
        as_outcome(Continuous(np.arange(4.0), ones), ones)


def test_links_of_yes_or_no_read_what_older_models_hold() -> None:
    assert link_from_json({"intercept": 0.5, "slope": 2.0}) == AffineCalibration(0.5, 2.0)
    assert isinstance(link_from_json(NumberLink(1.0, 2.0, 3.0).to_json()), NumberLink)
    assert isinstance(link_from_json(OrdinalLink(1.0, 2.0, (0.0, 1.0), 1).to_json()), OrdinalLink)
