"""Late fusion: weights from out-of-fold predictions, explanations as the weighted sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from theracast_data.errors import CohortError
from theracast_models.elasticnet import ElasticNet
from theracast_models.families import Recipe, build_model, load_model
from theracast_models.restricted import Restricted
from theracast_models.stack import Stack, fusion_weights

MIXED = Recipe(
    "stack",
    {
        "members": [Recipe("elasticnet", {"c": 0.2}, "lab"), Recipe("lightgbm", {"rounds": 15}), Recipe("elasticnet")],
        "folds": 3,
    },
)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_adds_up_and_is_the_weighted_sum(make_table, make_holes, seed: int) -> None:
    table, y = make_table(seed, 90)
    model = build_model(MIXED, 0).fit(table, y)
    holes = make_holes(table, seed)
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-8)
    by_hand = sum(w * m.contributions(holes)[1] for w, m in zip(model.weights_, model.members_, strict=True))
    np.testing.assert_allclose(phi, by_hand, atol=1e-12)
    assert (model.weights_ >= 0).all()


def test_weights_are_the_best_ones_that_are_not_negative() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    y = (rng.random(300) < 1 / (1 + np.exp(-truth))).astype(float)
    s = np.column_stack([truth + rng.normal(size=300), truth + 2 * rng.normal(size=300), -truth])
    intercept, weights = fusion_weights(s, y)

    def loss(point):
        eta = point[0] + s @ point[1:]
        return np.sum(np.logaddexp(0, eta) - y * eta) + 0.5 * np.sum((point[1:] - 1 / 3) ** 2)

    oracle = minimize(loss, np.zeros(4), method="SLSQP", bounds=[(None, None)] + [(0, None)] * 3, tol=1e-12)
    np.testing.assert_allclose([intercept, *weights], oracle.x, atol=1e-3)
    assert weights[2] == 0


def test_members_that_are_the_same_share_evenly() -> None:
    rng = np.random.default_rng(1)
    s = rng.normal(size=(200, 1))
    y = (rng.random(200) < 1 / (1 + np.exp(-s[:, 0]))).astype(float)
    _, weights = fusion_weights(np.repeat(s, 2, axis=1), y)
    assert weights[0] == pytest.approx(weights[1], abs=1e-6)


def test_too_few_for_folds_gives_even_weights(make_table) -> None:
    table, y = make_table(0, 30)
    y[:] = 0
    y[0] = 1
    model = Stack([ElasticNet(0.1), ElasticNet(0.2)]).fit(table, y)
    assert model.weights_.tolist() == [0.5, 0.5]


def test_a_restricted_model_sees_its_modality_only(make_table, make_holes) -> None:
    table, y = make_table(2)
    model = Restricted(ElasticNet(), "lab").fit(table, y)
    _, phi = model.contributions(table)
    own = [one.modality == "lab" for one in table.catalogue]
    assert phi[:, own].any()
    assert not phi[:, np.logical_not(own)].any()
    frame = table.frame.copy()
    frame["gen.tmb"] = np.nan
    assert np.array_equal(model.log_odds(type(table)(frame, table.catalogue, table.decisions)), model.log_odds(table))


def test_an_absent_modality_names_those_there(make_table) -> None:
    table, y = make_table(2)
    with pytest.raises(CohortError, match="there are lab, clinical, genomic"):
        Restricted(ElasticNet(), "imaging").fit(table, y)


def test_same_bits_again_and_after_saving(make_table, make_holes, tmp_path) -> None:
    table, y = make_table(4)
    model, twin = build_model(MIXED, 5).fit(table, y), build_model(MIXED, 5).fit(table, y)
    holes = make_holes(table, 1)
    model.save(tmp_path / "m")
    for other in (twin, load_model(tmp_path / "m")):
        assert np.array_equal(other.log_odds(holes), model.log_odds(holes))
        assert other.handled(holes) == model.handled(holes)
