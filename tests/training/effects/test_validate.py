"""Validation of predicted effects: formulas against slow loops, intervals against repeated trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theracast_training.effects.learners import CrossFit, cross_fit
from theracast_training.effects.validate import (
    BEATS,
    FOLDS_SHARE,
    NONE,
    Estimate,
    average_effect,
    calibration,
    group_effects,
    median_of_splits,
    policy_value,
    rank_metrics,
    rate,
    toc_curve,
    verdict,
)

Simulate = Callable[..., Any]


def split_of(effects: np.ndarray, scores: np.ndarray, *, fold: np.ndarray | None = None) -> CrossFit:
    """A split with these effects and scores; the outcome under control is 0."""
    n = len(scores)
    fold = np.zeros(n, dtype=np.intp) if fold is None else fold
    zeros = np.zeros(n)
    return CrossFit(fold, {"dr": effects}, zeros, zeros, np.full(n, 0.5), scores, scores)


def test_rate_is_the_area_under_the_targeting_curve() -> None:
    """By the definition of Yadlowsky et al.: the mean, over every share, of the mean score above it minus that of all."""
    rng = np.random.default_rng(0)
    scores, priority = rng.normal(size=37), rng.normal(size=37)
    ranked = scores[np.argsort(-priority)]
    toc = [ranked[: k + 1].mean() - ranked.mean() for k in range(37)]
    found = rate(scores, priority, rng=rng)
    assert found["autoc"].value == pytest.approx(np.mean(toc))
    assert found["qini"].value == pytest.approx(np.mean([(k + 1) / 37 * one for k, one in enumerate(toc)]))


def test_half_samples_give_the_spread_of_repeated_trials() -> None:
    rng = np.random.default_rng(1)
    values: dict[str, list[float]] = {"autoc": [], "qini": []}
    errors: dict[str, list[float]] = {"autoc": [], "qini": []}
    for _ in range(400):
        priority = rng.normal(size=151)
        for name, one in rate(0.5 * priority + rng.normal(size=151) * 2, priority, rng=rng).items():
            values[name].append(one.value)
            errors[name].append(one.error)
    for name, found in values.items():
        assert np.mean(errors[name]) == pytest.approx(np.std(found), rel=0.12)


def test_equal_priorities_rank_nothing() -> None:
    rng = np.random.default_rng(2)
    scores = np.arange(2000.0) % 7
    found = rate(scores, np.zeros(2000), rng=rng)
    assert abs(found["autoc"].value) < 3 * found["autoc"].error


def test_splits_are_combined_by_medians() -> None:
    splits = [Estimate(1.0, 1.0), Estimate(2.0, 0.5), Estimate(6.0, 2.0)]
    found = median_of_splits(splits)
    z = 1.959964 * np.sqrt(FOLDS_SHARE)
    assert found["value"] == 2.0
    assert found["low"] == pytest.approx(np.median([1 - z, 2 - 0.5 * z, 6 - 2 * z]))
    assert median_of_splits(splits, ranked=False)["low"] == pytest.approx(2 - 2.241403 * 0.5)
    average = average_effect(splits)
    assert average["error"] == pytest.approx(np.sqrt(np.median([1 + 1, 0.25, 4 + 16])))


def test_groups_policy_and_slope_of_a_hand_made_split() -> None:
    effects = np.array([-2.0, -1.0, 1.0, 2.0] * 25)
    scores = 2 * effects + np.tile([0.1, -0.1], 50)
    split = split_of(effects, scores)
    groups = group_effects([split], "dr", groups=2)
    assert [one["predicted"] for one in groups] == [-1.5, 1.5]
    assert [one["value"] for one in groups] == pytest.approx([-3.0, 3.0])
    policy = policy_value([split], "dr")
    assert policy["share_treated"] == 0.5
    assert policy["against_none"]["value"] == pytest.approx(1.5)
    assert policy["against_all"]["value"] == pytest.approx(1.5)
    assert calibration([split], "dr")["value"] == pytest.approx(2.0, abs=0.02)
    curve = toc_curve([split], "dr", points=4)
    assert [one["value"] for one in curve] == pytest.approx([3.0, 4 / 3, 0.0], abs=0.2)


def test_a_rule_is_judged_within_its_fold() -> None:
    """A fold whose rule predicts more for everyone is no ranking of patients."""
    rng = np.random.default_rng(3)
    fold = np.repeat([0, 1], 200)
    scores = rng.normal(size=400) + 3 * fold
    found = rank_metrics([split_of(3.0 * fold + rng.normal(size=400), scores, fold=fold)], "dr", seed=0)
    assert found["autoc"]["low"] < 0 < found["autoc"]["high"]


def test_a_constant_prediction_has_no_slope() -> None:
    found = calibration([split_of(np.full(50, 0.2), np.arange(50.0))], "dr")
    assert np.isnan(found["value"])


@pytest.mark.parametrize("learner", ["dr", "x", "t"])
def test_strong_heterogeneity_is_found(learner: Any, simulate: Simulate) -> None:
    trial = simulate(5, "strong", n=1200)
    splits = [
        cross_fit(trial.table, trial.treated, trial.outcome, learners=[learner], share=0.5, folds=4, seed=seed)
        for seed in range(3)
    ]
    metrics = rank_metrics(splits, learner, seed=0)
    assert verdict(metrics) == BEATS
    assert metrics["qini"]["low"] > 0
    slope = calibration(splits, learner)
    assert slope["low"] < 1.0 < slope["high"] * 1.3
    policy = policy_value(splits, learner)
    chosen = splits[0].effects[learner] > 0
    gain = np.where(chosen, 0.0, -trial.effect).mean()
    assert gain > 0.02  # some are harmed, and the rule leaves most of them out
    assert policy["against_all"]["low"] < gain < policy["against_all"]["high"]
    assert policy["against_none"]["low"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "constant"])
def test_no_heterogeneity_is_called_no_evidence(kind: str, simulate: Simulate) -> None:
    """A small version of 1,200 larger trials (1, 5 and 15 features), whose intervals covered 0 in 95 to 98 %, 1 to 2 % above.

    Of 20 trials at 95 % three or more fail in 7 %, three or more above 0 in 1 %; intervals of half the width fail in seven.
    """
    covered, found = [], []
    for seed in range(20):
        trial = simulate(100 + seed, kind, n=240)
        splits = [
            cross_fit(trial.table, trial.treated, trial.outcome, learners=["dr"], share=0.5, folds=3, seed=place)
            for place in range(3)
        ]
        metrics = rank_metrics(splits, "dr", seed=seed)
        covered.append(metrics["autoc"]["low"] <= 0 <= metrics["autoc"]["high"])
        found.append(verdict(metrics))
    assert np.mean(covered) >= 0.85
    assert found.count(NONE) >= 18
