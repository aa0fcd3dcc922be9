"""What both late fusions keep whatever is absent: exact shares, weight 0, an answer for every pattern, the same bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_features.specs import FeatureTable
from theracast_models.families import Recipe, build_model, load_model
from theracast_models.fitting import fit_calibrated, patient_folds
from theracast_models.presence import masked, present_modalities, without

RECIPES = {
    "late": Recipe("late", {"folds": 3}),
    "late-trees": Recipe("late", {"folds": 3, "members": [Recipe("lightgbm", {"rounds": 15}, "genomic")]}),
    "gated": Recipe("gated", {"decay": 0.05, "gate_decay": 0.1}),
    "gated-bends": Recipe("gated", {"decay": 0.05, "gate_decay": 0.1, "hidden": 3}),
}


@pytest.fixture(scope="module", params=list(RECIPES))
def fitted(make_table, request):
    """A fusion, and the decisions from which it was learned, a third of the modalities absent."""
    table, y = make_table(3, 160)
    table = masked(table, np.random.default_rng(0).random((160, 3)) < 0.33)
    return build_model(RECIPES[request.param], 0).fit(table, y), table, y


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shares_add_up_from_one_base_and_the_absent_have_none(make_table, make_holes, fitted, seed: int) -> None:
    model, _, _ = fitted
    rng = np.random.default_rng(seed)
    holes = masked(make_holes(make_table(seed, 40)[0], seed), rng.random((40, 3)) < 0.4)
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-12)
    assert np.ptp(base) == 0
    there = present_modalities(holes)
    for place, modality in enumerate(holes.modalities):
        own = [spec.modality == modality for spec in holes.catalogue]
        assert not phi[np.ix_(~there[:, place], own)].any()


def test_every_pattern_has_an_answer_and_nothing_known_is_the_base(make_table, fitted) -> None:
    model, _, _ = fitted
    table, _ = make_table(8, 12)
    for size in range(4):
        for gone in itertools.combinations(table.modalities, size):
            taken = without(table, gone)
            assert np.isfinite(model.log_odds(taken)).all()
            assert len(model.handled(taken)) == 12
    nothing = without(table, table.modalities)
    base, phi = model.contributions(nothing)
    assert not phi.any()
    assert np.array_equal(model.log_odds(nothing), base)
    assert model.log_odds(table.take([])).shape == (0,)
    assert model.contributions(table.take([]))[1].shape == (0, 7)


def test_the_base_is_the_log_odds_of_all(fitted) -> None:
    model, table, y = fitted
    base = model.contributions(table)[0][0]
    assert base == pytest.approx(np.log(y.mean() / (1 - y.mean())))


def test_says_that_it_does_without_what_is_absent(make_table, fitted) -> None:
    model, _, _ = fitted
    table, _ = make_table(8, 2, missing=0.0)
    frame = table.frame.copy()
    frame["lab.crp"] = np.nan
    told = model.handled(without(FeatureTable(frame, table.catalogue, table.decisions), ["genomic"]))[0]
    assert any("does without it: TMB" in sentence for sentence in told)
    assert any("typical value" in sentence and "CRP" in sentence and "TMB" not in sentence for sentence in told)


def test_same_bits_again_and_after_saving(make_holes, fitted, request, tmp_path) -> None:
    model, table, y = fitted
    twin = build_model(RECIPES[request.node.callspec.params["fitted"]], 0).fit(table, y)
    copies = [model.refit(table.take(rows), y[rows], seed=rows[0]) for rows in (np.arange(100), np.arange(40, 160))]
    model.save(tmp_path / "m")
    model.save_replicates(copies, tmp_path / "r")
    model.save_replicates([], tmp_path / "none")
    again = load_model(tmp_path / "m")
    holes = make_holes(table, 1)
    for other in (twin, again):
        assert np.array_equal(other.log_odds(holes), model.log_odds(holes))
        assert all(
            np.array_equal(*pair) for pair in zip(other.contributions(holes), model.contributions(holes), strict=True)
        )
        assert other.handled(holes) == model.handled(holes)
    loaded = again.load_replicates(tmp_path / "r")
    assert np.array_equal(again.replicate_log_odds(loaded, holes), model.replicate_log_odds(copies, holes))
    np.testing.assert_allclose(
        model.replicate_log_odds(copies, holes), [one.log_odds(holes) for one in copies], atol=1e-12
    )
    assert again.load_replicates(tmp_path / "none") == []
    assert np.ptp(model.replicate_log_odds(copies, holes), axis=0).max() > 0.01


def test_weights_are_heeded_and_rows_of_weight_0_are_not_there(fitted, request) -> None:
    _, table, y = fitted
    recipe = RECIPES[request.node.callspec.params["fitted"]]
    weight = np.ones(160)
    weight[120:] = 0
    first = np.arange(120)
    ours = build_model(recipe, 0).fit(table, y, weight=weight)
    theirs = build_model(recipe, 0).fit(table.take(first), y[first], weight=weight[first])
    np.testing.assert_allclose(ours.log_odds(table), theirs.log_odds(table), atol=1e-9)


def test_becomes_a_calibrated_model_with_an_interval(make_table, fitted, request) -> None:
    _, table, y = fitted
    recipe = RECIPES[request.node.callspec.params["fitted"]]
    calibrated = fit_calibrated(recipe, table, y, folds=patient_folds(table, y, folds=3, seed=0), replicates=4, seed=1)
    low, high = calibrated.interval(table)
    probability = calibrated.probability(table)
    assert ((low <= probability) & (probability <= high)).all()
    base, phi = calibrated.explain(table)
    np.testing.assert_allclose(base + phi.sum(axis=1), calibrated.log_odds(table), atol=1e-9)


def test_recipes_come_back_from_json() -> None:
    for recipe in RECIPES.values():
        assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()
