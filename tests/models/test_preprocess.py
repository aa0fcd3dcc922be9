"""The learned inputs of linear models, against a slow and obvious loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from theracast_models.preprocess import LinearInputs, transformed


def test_standardises_like_an_obvious_loop(make_table) -> None:
    table, _ = make_table(3, 120)
    z = LinearInputs.learn(table).design(table)
    raw = table.frame["lab.crp"].tolist()
    logged = [None if math.isnan(one) else math.log1p(one) for one in raw]
    known = sorted(one for one in logged if one is not None)
    low, high, median = np.quantile(known, 0.01), np.quantile(known, 0.99), np.median(known)
    limited = [min(max(median if one is None else one, low), high) for one in logged]
    mean = sum(limited) / len(limited)
    sd = math.sqrt(sum((one - mean) ** 2 for one in limited) / len(limited))
    np.testing.assert_allclose(z[:, 1], [(one - mean) / sd for one in limited], atol=1e-12)


def test_every_column_has_mean_0_in_training_also_with_weights(make_table) -> None:
    table, _ = make_table(4, 150)
    weight = np.random.default_rng(0).uniform(0, 2, 150)
    z = LinearInputs.learn(table, weight=weight).design(table)
    np.testing.assert_allclose(weight @ z, 0, atol=1e-10)


def test_weight_0_is_as_good_as_not_there(make_table) -> None:
    table, _ = make_table(5, 100)
    weight = np.ones(100)
    weight[60:] = 0
    assert LinearInputs.learn(table, weight=weight) == LinearInputs.learn(table.take(range(60)))


def test_constant_and_empty_columns_say_nothing(make_table) -> None:
    table, _ = make_table(6, 50)
    frame = table.frame.copy()
    frame["clin.age"], frame["lab.albumin"] = 61.0, np.nan
    inputs = LinearInputs.learn(type(table)(frame, table.catalogue, table.decisions))
    z = inputs.design(table)
    assert not z[:, [0, 2]].any()
    assert not any("lab.albumin" in gap.filled for gap in inputs.gaps(table))


def test_json_brings_back_the_same_bits(make_table, make_holes) -> None:
    table, _ = make_table(7, 80)
    inputs = LinearInputs.learn(table)
    again = LinearInputs.from_json(json.loads(json.dumps(inputs.to_json())))
    holes = make_holes(table, 1)
    assert np.array_equal(again.design(holes), inputs.design(holes))


def test_row_order_does_not_matter(make_table) -> None:
    table, _ = make_table(8, 90)
    turned = LinearInputs.learn(table.take(np.arange(90)[::-1]))
    np.testing.assert_allclose(turned.design(table), LinearInputs.learn(table).design(table), atol=1e-12)


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e300])
def test_log_never_fails_and_keeps_the_order(value: float) -> None:
    assert transformed(np.array([value]), "log1p")[0] == pytest.approx(math.copysign(math.log1p(abs(value)), value))
