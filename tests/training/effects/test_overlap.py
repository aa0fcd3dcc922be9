"""Overlap, weights and balance against slow loops and known mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_training.effects.overlap import (
    auc_interval,
    balance_rows,
    effective_number,
    overlap_summary,
    propensities,
)
from theracast_training.effects.prognosis import concordance

Simulate = Callable[..., Any]


def test_randomised_arms_cannot_be_told_apart_and_confounded_ones_can(simulate: Simulate) -> None:
    by_chance, chosen = simulate(1, "none", n=800), simulate(1, "none", n=800, confounded=True)
    found = {}
    for name, trial in (("chance", by_chance), ("chosen", chosen)):
        e = propensities(trial.table, trial.treated, folds=5, repeats=2, seed=0)
        found[name] = overlap_summary(trial.table, trial.treated, e)
    assert found["chance"]["auc_low"] < 0.5
    assert found["chance"]["outside"] < 0.01
    assert found["chance"]["effective_treated"] > 0.95 * found["chance"]["n_treated"]
    assert found["chosen"]["auc_low"] > 0.65
    assert found["chosen"]["balance"][0]["feature"] == "clin.x1"
    assert found["chosen"]["balance"][0]["before"] > 0.5
    assert found["chosen"]["balance"][0]["after"] < 0.2
    assert found["chosen"]["effective_treated"] < 0.9 * found["chosen"]["n_treated"]
    assert sum(found["chosen"]["histogram"]["treated"]) == found["chosen"]["n_treated"]


def test_the_interval_of_the_auc_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(400):
        treated = np.repeat([0.0, 1.0], 80)
        value, low, high = auc_interval(treated, expit(rng.normal(size=160) + 0.5 * treated), level=0.95)
        values.append(value)
        errors.append((high - low) / (2 * 1.96))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_differences_are_standardised_by_hand() -> None:
    values = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0, 6.0, np.nan], "b": ["x", "x", "y", "y", "y", "y"]}).astype(
        {"b": "str"}
    )
    specs = (
        FeatureSpec("a", "lab", "numeric", "A", ("a",)),
        FeatureSpec("b", "clinical", "categorical", "B", ("b",)),
    )
    decisions = pd.DataFrame({"subject_id": list("123456"), "site": "s"})
    treated = np.array([0.0, 0, 0, 1, 1, 1])
    rows = {row["feature"]: row for row in balance_rows(FeatureTable(values, specs, decisions), treated, np.ones(6))}
    # Numbers: (5.5 - 2) / sqrt((1 + 0.5) / 2). Category: of 2/3 against 0, variances 1/3 and 0.
    assert rows["a"]["before"] == pytest.approx(3.5 / np.sqrt(0.75))
    assert rows["b"]["before"] == pytest.approx((2 / 3) / np.sqrt((1 / 3) / 2))
    assert rows["a"]["after"] == rows["a"]["before"]


def test_effective_numbers() -> None:
    assert effective_number(np.ones(10)) == pytest.approx(10)
    assert effective_number(np.array([1.0, 0.0, 0.0])) == pytest.approx(1)


def test_concordance_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    time, event = rng.integers(1, 12, 40).astype(float), rng.integers(0, 2, 40).astype(float)
    predicted = rng.integers(0, 8, 40).astype(float)
    right = pairs = 0.0
    for i in range(40):
        for j in range(40):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1
                right += (predicted[i] < predicted[j]) + 0.5 * (predicted[i] == predicted[j])
    assert concordance(predicted, time, event) == pytest.approx(right / pairs)
