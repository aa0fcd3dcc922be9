"""Boosted trees: what LightGBM does silently with missing values, ours says aloud; explanations equal SHAP's."""

from __future__ import annotations

import warnings

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_models.boosting import Boosting

SMALL = {"rounds": 40, "min_data_in_leaf": 8}


@pytest.fixture(scope="module")
def fitted(make_table):
    table, y = make_table(1, 300)
    return Boosting(**SMALL).fit(table, y), table


def with_column(table, name: str, value):
    frame = table.frame.copy()
    frame[name] = value
    return type(table)(frame, table.catalogue, table.decisions)


def test_lightgbm_reads_a_new_nan_as_0_and_ours_does_not() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(10, 2, (400, 1))
    y = (X[:, 0] > 8).astype(float)
    raw = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(X, y), num_boost_round=20)
    answers = raw.predict(np.array([[np.nan], [0.0], [np.median(X)]]))
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_new_missing_value_is_filled_with_the_median_and_told(fitted) -> None:
    model, table = fitted
    age = float(np.median(table.frame["clin.age"]))
    absent, typical, zero = (with_column(table, "clin.age", value) for value in (np.nan, age, 0.0))
    assert np.array_equal(model.log_odds(absent), model.log_odds(typical))
    assert not np.array_equal(model.log_odds(absent), model.log_odds(zero))
    assert all(any("AGE" in sentence for sentence in told) for told in model.handled(absent))
    assert not any(told for told in model.handled(table))


def test_missing_value_that_training_knew_takes_its_own_branch(fitted) -> None:
    model, table = fitted
    absent = with_column(table, "gen.tmb", np.nan)
    median = with_column(table, "gen.tmb", float(table.frame["gen.tmb"].median()))
    zero = with_column(table, "gen.tmb", 0.0)
    assert not np.array_equal(model.log_odds(absent), model.log_odds(median))
    assert not np.array_equal(model.log_odds(absent), model.log_odds(zero))
    assert not any(told for told in model.handled(absent))


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_unseen_level_counts_as_missing(make_table, missing: float) -> None:
    table, y = make_table(2, 300, missing=missing)
    model = Boosting(**SMALL).fit(table, y)
    unseen, absent = with_column(table, "clin.tumour", "a new level"), with_column(table, "clin.tumour", np.nan)
    assert np.array_equal(model.log_odds(unseen), model.log_odds(absent))
    assert all("TUMOUR: no development patient had this category" in told[0] for told in model.handled(unseen))
    frequent = with_column(table, "clin.tumour", table.frame["clin.tumour"].mode()[0])
    if missing == 0:
        assert np.array_equal(model.log_odds(absent), model.log_odds(frequent))


def test_equals_shap(fitted, make_holes) -> None:
    with warnings.catch_warnings():
        # shap's own imports use names that its dependencies are about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        import shap
    model, table = fitted
    holes = make_holes(table, 5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LightGBM binary classifier")
        values = np.asarray(shap.TreeExplainer(model.booster_).shap_values(model._matrix(holes)))
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(phi, values[1] if values.ndim == 3 else values, atol=1e-9)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_adds_up(make_table, make_holes, seed: int) -> None:
    table, y = make_table(seed, 80)
    model = Boosting(rounds=15, min_data_in_leaf=5).fit(table, y)
    holes = make_holes(table, seed)
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-8)


def test_explanation_follows_the_trees_of_the_last_fit(make_table) -> None:
    table, y = make_table(1, 120)
    model = Boosting(**SMALL).fit(table, y)
    before = model.contributions(table)[1]
    copy = model.refit(table, 1 - y)
    model.fit(table, 1 - y)
    for one in (model, copy):
        base, phi = one.contributions(table)
        assert not np.array_equal(phi, before)
        np.testing.assert_allclose(base + phi.sum(axis=1), one.log_odds(table), atol=1e-9)


def test_columns_are_taken_by_name(fitted) -> None:
    model, table = fitted
    turned = tuple(reversed(table.catalogue))
    other = type(table)(table.frame[[one.name for one in turned]], turned, table.decisions)
    assert np.array_equal(model.log_odds(other), model.log_odds(table))


def test_same_bits_again_and_after_saving(fitted, make_table, make_holes, tmp_path) -> None:
    model, table = fitted
    twin = Boosting(**SMALL).fit(*make_table(1, 300))
    assert twin.booster_.model_to_string() == model.booster_.model_to_string()
    assert (
        Boosting(seed=1, **SMALL).fit(*make_table(1, 300)).booster_.model_to_string() != twin.booster_.model_to_string()
    )
    model.save(tmp_path / "m")
    again, holes = Boosting.load(tmp_path / "m"), make_holes(table, 3)
    assert np.array_equal(again.log_odds(holes), model.log_odds(holes))
    assert np.array_equal(again.contributions(holes)[1], model.contributions(holes)[1])


def test_unknown_parameter_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown parameter depth\. Known: rounds, learning_rate"):
        Boosting(depth=3)
