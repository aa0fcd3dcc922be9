"""Calibrated models: honest out-of-fold predictions, intervals that hold, the same bits every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import (
    MOST_TREE_REPLICATES,
    CalibratedModel,
    build_model,
    fit_calibrated,
    out_of_fold,
    patient_folds,
)
from theracast_models.folds import patient_numbers

RECIPES = {
    "elasticnet": Recipe("elasticnet", {"c": 0.3, "l1_ratio": 0.5}),
    "lightgbm": Recipe("lightgbm", {"rounds": 25}),
    "stack": Recipe("stack", {"members": [Recipe("elasticnet"), Recipe("lightgbm", {"rounds": 15})], "folds": 3}),
    "one modality": Recipe("lightgbm", {"rounds": 15}, "lab"),
}


def fit(recipe: Recipe, table: FeatureTable, y, **more) -> CalibratedModel:
    folds = patient_folds(table, y, folds=4, seed=0)
    return fit_calibrated(recipe, table, y, **({"folds": folds, "replicates": 12, "seed": 1} | more))


@pytest.mark.parametrize("name", RECIPES)
def test_adds_up_holds_p_and_survives_saving_bit_for_bit(make_table, make_holes, tmp_path, name: str) -> None:
    table, y = make_table(3, 160)
    model, twin = fit(RECIPES[name], table, y), fit(RECIPES[name], table, y)
    holes = make_holes(table, 9)
    p, (low, high), (base, phi) = model.probability(holes), model.interval(holes), model.explain(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), logit(p), atol=1e-8)
    assert ((low <= p) & (p <= high) & (low < high)).all()
    model.save(tmp_path / "m")
    for other in (twin, CalibratedModel.load(tmp_path / "m")):
        assert np.array_equal(other.probability(holes), p)
        assert np.array_equal(other.interval(holes), (low, high))
        assert np.array_equal(other.explain(holes)[1], phi)
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".json", ".txt")]


def test_out_of_fold_models_have_not_seen_the_decision(make_table) -> None:
    table, _ = make_table(5, 120, missing=0.0)
    noise = np.random.default_rng(0).integers(0, 2, 120).astype(float)
    greedy = Recipe("lightgbm", {"rounds": 200, "min_data_in_leaf": 2, "num_leaves": 31, "lambda_l2": 0.0})
    folds = patient_folds(table, noise, folds=4, seed=0)
    honest = out_of_fold(greedy, table, noise, folds, seed=0)
    learned = build_model(greedy, 0).fit(table, noise).log_odds(table)
    assert np.mean((learned > 0) == noise) > 0.95
    assert np.mean((honest > 0) == noise) < 0.65


def test_out_of_fold_is_nan_where_no_fold_tests_and_the_mean_where_several_do(make_table) -> None:
    table, y = make_table(6, 80)
    first, second = np.arange(40), np.arange(40, 80)
    once = out_of_fold(RECIPES["elasticnet"], table, y, [(first, second)], seed=0)
    assert np.isnan(once[:40]).all()
    assert np.isfinite(once[40:]).all()
    third = np.arange(10, 40)
    other = out_of_fold(RECIPES["elasticnet"], table, y, [(third, second)], seed=0)
    both = out_of_fold(RECIPES["elasticnet"], table, y, [(first, second), (third, second)], seed=0)
    np.testing.assert_allclose(both[40:], (once[40:] + other[40:]) / 2)


def test_a_patient_is_in_one_test_fold_only(make_table) -> None:
    table, y = make_table(7, 90)
    decisions = table.decisions.assign(subject_id=[str(number // 3) for number in range(90)])
    table = replace(table, decisions=decisions)
    folds = patient_folds(table, y, folds=5, seed=2)
    patients = patient_numbers(table.decisions)
    assert len(folds) == 5
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(90))
    for train, test in folds:
        assert not set(patients[train]) & set(patients[test])


def test_the_same_id_at_two_sites_is_two_patients(make_table) -> None:
    table, _ = make_table(7, 4)
    decisions = table.decisions.assign(subject_id="1", site=["A", "A", "B", "B"])
    assert patient_numbers(decisions).tolist() == [0, 0, 1, 1]


def test_interval_covers_the_true_probability_in_simulation() -> None:
    """The truth is a logistic line, the penalty weak: about 95 % of intervals should hold the true probability."""
    covered = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 3))
        truth = -0.5 + x @ np.array([0.8, -0.5, 0.0])
        y = (rng.random(400) < expit(truth)).astype(float)
        names = [f"lab.x{number}" for number in range(3)]
        catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
        ids = pd.DataFrame({"subject_id": [str(one) for one in range(400)], "site": "A"})
        table = FeatureTable(pd.DataFrame(x, columns=names), catalogue, ids)
        model = fit(Recipe("elasticnet", {"c": 10.0, "l1_ratio": 0.0}), table, y, replicates=40)
        low, high = model.interval(table)
        covered.append(np.mean((low <= expit(truth)) & (expit(truth) <= high)))
    assert 0.85 < np.mean(covered) < 0.99


def test_interval_narrows_with_more_patients(make_table) -> None:
    widths = []
    for n in (100, 1600):
        table, y = make_table(8, n)
        low, high = fit(RECIPES["elasticnet"], table, y, replicates=20).interval(table)
        widths.append(np.mean(high - low))
    assert widths[1] < widths[0] / 2


def test_rare_outcome_is_drawn_again_until_it_is_there(make_table) -> None:
    table, _ = make_table(9, 60)
    y = np.zeros(60)
    y[:2] = 1
    folds = [(np.arange(0, 60, 2), np.arange(1, 60, 2)), (np.arange(1, 60, 2), np.arange(0, 60, 2))]
    model = fit(Recipe("elasticnet", {"c": 0.1}), table, y, folds=folds, replicates=30)
    assert len(model.replicates) == 30


def test_recipes_with_trees_make_few_replicates_and_progress_is_told(make_table) -> None:
    table, y = make_table(10, 60)
    told: list[tuple[int, int]] = []
    recipe = Recipe("stack", {"members": [Recipe("lightgbm", {"rounds": 2})], "folds": 2})
    fit(recipe, table, y, replicates=100, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (MOST_TREE_REPLICATES, MOST_TREE_REPLICATES)


def test_weight_0_is_as_good_as_not_there_for_the_linear_model(make_table) -> None:
    table, y = make_table(11, 120)
    weight = np.ones(120)
    weight[100:] = 0
    kept = table.take(range(100))
    ours = build_model(RECIPES["elasticnet"], 0).fit(table, y, weight=weight)
    theirs = build_model(RECIPES["elasticnet"], 0).fit(kept, y[:100])
    np.testing.assert_allclose(ours.log_odds(kept), theirs.log_odds(kept), atol=1e-5)


@pytest.mark.parametrize(
    ("y", "says"),
    [(np.r_[np.nan, np.ones(9)], "neither 0 nor 1"), (np.ones(10), "Check the endpoint's rule in the study")],
)
def test_an_outcome_that_cannot_be_learned_is_an_error(make_table, y, says: str) -> None:
    table, _ = make_table(12, 10)
    with pytest.raises(CohortError, match=says):
        fit_calibrated(RECIPES["elasticnet"], table, y, folds=[], replicates=10, seed=0)


def test_recipe_survives_json() -> None:
    for recipe in RECIPES.values():
        again = Recipe.from_json(recipe.to_json())
        assert again.to_json() == recipe.to_json()
    with pytest.raises(ValueError, match="Known: elasticnet, lightgbm, neural, stack, published"):
        Recipe("forest")
    with pytest.raises(ValueError, match="there is no modality 'labs'"):
        Recipe("elasticnet", {}, "labs")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_empty_and_constant_columns_and_no_rows_do_no_harm(make_table, make_holes, name: str) -> None:
    table, y = make_table(13, 60)
    frame = table.frame.copy()
    frame["clin.tumour"] = pd.Series(np.nan, index=frame.index, dtype="str")
    frame["gen.tmb"], frame["clin.age"], frame["gen.msi"] = np.nan, 61.0, 0.0
    bare = replace(table, frame=frame)
    model = fit(RECIPES[name], bare, y)
    holes = make_holes(table, 2)
    base, phi = model.explain(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-8)
    nobody = table.take([])
    assert model.probability(nobody).shape == model.interval(nobody)[0].shape == (0,)
    assert model.explain(nobody)[1].shape == (0, len(table.catalogue))
    assert model.model.handled(nobody) == []


def test_nothing_to_learn_from_gives_the_rate_of_the_development_patients(make_table) -> None:
    table, y = make_table(14, 100)
    empty = replace(table, frame=table.frame.assign(**dict.fromkeys(table.frame.columns, np.nan)))
    for recipe in (RECIPES["elasticnet"], RECIPES["lightgbm"]):
        model = fit(recipe, empty, y)
        np.testing.assert_allclose(model.probability(empty), y.mean(), atol=0.02)
        low, high = model.interval(empty)
        assert (low < y.mean()).all()
        assert (y.mean() < high).all()
