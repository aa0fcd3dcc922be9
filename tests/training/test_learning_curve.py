"""Learning curves: the line against another optimiser and a truth put in, the splits by whole patients, real fits."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import least_squares
from scipy.special import expit

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe
from theracast_training import metrics
from theracast_training.learning_curve import learning_curve, power_law
from theracast_training.refits import Floats, Rows, recipe_fit
from theracast_training.study_figures import draw_learning_curve


def _patients(seed: int = 0, n: int = 300, *, visits: int = 1) -> tuple[FeatureTable, Floats, Rows]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n * visits, 8))
    y = (rng.random(len(X)) < expit(X[:, :3].sum(axis=1) * 0.8 - 0.5)).astype(float)
    names = [f"lab.x{place}" for place in range(8)]
    catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
    patients = np.repeat(np.arange(n), visits)
    decisions = pd.DataFrame({"subject_id": patients.astype(str), "site": "A", "index_time": pd.NaT})
    return FeatureTable(pd.DataFrame(X, columns=names), catalogue, decisions), y, patients


def test_the_line_is_the_one_put_in() -> None:
    size = np.array([40.0, 80, 120, 160, 200])
    limit, factor, exponent = power_law(size, (0.8 - 0.9 * size**-0.5)[None], rising=True)
    assert limit[0] == pytest.approx(0.8, abs=0.005)
    assert limit[0] - factor[0] * 400 ** -exponent[0] == pytest.approx(0.8 - 0.9 * 400**-0.5, abs=0.002)
    limit, factor, exponent = power_law(size, (0.15 + 0.4 * size**-0.8)[None], rising=False)
    assert limit[0] + factor[0] * 400 ** -exponent[0] == pytest.approx(0.15 + 0.4 * 400**-0.8, abs=0.001)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_line_is_no_worse_than_that_of_a_general_optimiser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = np.sort(rng.integers(20, 500, 5)).astype(float) + np.arange(5)
    value = np.clip(rng.uniform(0.6, 0.9) - rng.uniform(0, 1) * size ** -rng.uniform(0.2, 1.5), 0.5, 1)
    value = value + rng.normal(0, 0.01, 5)
    limit, factor, exponent = power_law(size, value[None], rising=True)
    ours = ((value - limit[0] + factor[0] * size ** -exponent[0]) ** 2).sum()
    scale = size / size[-1]
    theirs = min(
        2
        * least_squares(
            lambda t: value - t[0] + t[1] * scale ** -t[2],
            (start, 0.1, power),
            bounds=([0, 0, 0.1], [1, np.inf, 2.0]),
        ).cost
        for start in (0.6, 0.9)
        for power in (0.3, 1.5)
    )
    assert ours <= theirs + 2e-5
    assert 0 <= limit[0] <= 1
    assert factor[0] >= 0


def test_performance_that_falls_gives_a_level_line_and_says_so() -> None:
    _, y, patients = _patients(1, 80)
    result = learning_curve(lambda _rows: lambda asked: np.full(len(asked), 0.5), y, patients=patients, repeats=5)
    assert result["points"][-1]["auc"] == 0.5
    assert "not seen to help" in result["fits"]["auc"]["sentence"]


def test_a_real_procedure_learns_more_from_more_and_the_points_are_what_a_slow_loop_gives() -> None:
    table, y, patients = _patients()
    fit = recipe_fit(Recipe("elasticnet", {"c": 1.0, "l1_ratio": 0.5}), table, y, folds=3)
    seen: list[tuple[Rows, Rows, Floats]] = []

    def watched(rows: Rows):
        predict = fit(rows)

        def judged(asked: Rows) -> Floats:
            p = predict(asked)
            seen.append((rows, asked, p))
            return p

        return judged

    result = learning_curve(watched, y, patients=patients, repeats=6, fractions=(0.15, 0.3, 0.6, 1.0), seed=4)
    json.dumps(result, allow_nan=False)
    first, *_, last = result["points"]
    assert last["auc"] > first["auc"] + 0.02
    assert last["brier"] < first["brier"]
    for place, point in enumerate(result["points"]):
        slow = np.mean([metrics.auc(y[asked], p) for _, asked, p in seen[place::4]])
        assert point["auc"] == pytest.approx(slow)
        assert point["auc_low"] <= point["auc"] <= point["auc_high"]
    for start in range(0, len(seen), 4):  # what a part holds, a larger one holds too; who judges, never learns
        parts = [set(rows) for rows, _, _ in seen[start : start + 4]]
        assert all(small < large for small, large in pairwise(parts))
        assert not parts[-1] & set(seen[start][1])
        assert all((asked == seen[start][1]).all() for _, asked, _ in seen[start : start + 4])
    doubled = result["fits"]["auc"]["expected"][-1]
    assert doubled["patients"] == 600
    assert doubled["auc_low"] <= doubled["auc"] <= doubled["auc_high"]
    assert "600 patients would give" in result["fits"]["auc"]["sentence"]
    axes = draw_learning_curve(result, Figure().subplots(), measure="auc")
    assert axes.get_xlabel() == "Patients to learn from"
    assert len(axes.lines) >= 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_patients_stay_whole_and_every_part_has_both_outcomes(seed: int, visits: int) -> None:
    _, y, patients = _patients(seed, 40, visits=visits)
    y[:visits], y[visits : 2 * visits] = 1.0, 0.0

    def fit(rows: Rows):
        assert set(np.flatnonzero(np.isin(patients, patients[rows]))) == set(rows)
        assert 0 < y[rows].sum() < len(rows)

        def judged(asked: Rows) -> Floats:
            assert not set(patients[asked]) & set(patients[rows])
            return np.linspace(0.1, 0.9, len(asked))

        return judged

    learning_curve(fit, y, patients=patients, repeats=3, fractions=(0.5, 1.0))


def test_parts_that_teach_nothing_are_told_and_left_out() -> None:
    _, y, patients = _patients(2, 60)

    def fit(rows: Rows):
        if len(rows) < 20:
            raise CohortError("too few")
        return lambda asked: np.linspace(0.1, 0.9, len(asked))

    result = learning_curve(fit, y, patients=patients, repeats=4)
    assert result["points"][0]["fits"] == 0
    assert result["points"][0]["auc"] is None
    assert "4 of 4 parts of 20 % of the patients were too few to learn from" in result["notes"]


def test_what_is_no_fraction_or_no_cohort_is_refused() -> None:
    with pytest.raises(ValueError, match="fractions must rise"):
        learning_curve(lambda _: lambda asked: asked, np.ones(4), patients=np.arange(4), fractions=(0.5, 0.2))
    with pytest.raises(CohortError, match="at least two patients of either outcome"):
        learning_curve(lambda _: lambda asked: asked, np.array([1.0]), patients=np.arange(1))
