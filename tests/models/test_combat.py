"""Harmonisation over scanners: a second library's figures, and what must always hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_models.combat import FEWEST_PER_BATCH, Combat

BATCH = ["a"] * 5 + ["b"] * 4 + ["c"] * 3
NAMES = ["one", "two", "three", "four"]

# neuroCombat 0.2.12 on `example()`; its iteration stops at a relative change of 1e-4.
NEUROCOMBAT = """
10.4446 21.8697 29.9627 43.6197
11.5070 21.4396 29.1280 40.0426
10.1709 19.1408 32.3175 38.6803
 9.4528 20.1632 32.3303 42.6084
10.9740 22.1986 29.1375 42.9585
11.6187 20.8504 29.8376 38.7805
10.1103 19.3065 32.6476 39.4270
10.1926 21.1635 31.1608 43.0511
11.6798 22.2288 28.7339 41.4707
11.0385 20.2618 30.8337 39.0121
 9.5773 19.7148 32.8509 41.4958
10.4513 22.1152 30.0679 44.1718
"""


def example() -> np.ndarray:
    """Return 12 decisions x 4 features; scanner b shifts by 2 and stretches by 1.5, scanner c shifts by -1.5."""
    i, j = np.arange(12)[:, None], np.arange(4)[None, :]
    centre = 10.0 * (j + 1)
    moved = np.array([{"a": 0.0, "b": 2.0, "c": -1.5}[one] for one in BATCH])[:, None] * (1 + 0.2 * j)
    values = centre + np.sin(1.7 * i + 0.9 * j * j) * (1 + 0.5 * j) + moved
    return np.where(np.array(BATCH)[:, None] == "b", (values - centre) * 1.5 + centre, values)


def test_equals_the_published_implementation() -> None:
    values = example()
    found = Combat.learn(values, BATCH, features=NAMES).apply(values, BATCH)
    expected = np.array([line.split() for line in NEUROCOMBAT.strip().splitlines()], dtype=float)
    assert np.abs(found - expected).max() < 2e-3
    assert np.abs(values - expected).max() > 1


def test_a_scanner_never_seen_leaves_the_values_as_they_are() -> None:
    values = example()
    combat = Combat.learn(values, BATCH, features=NAMES)
    others: list[str | None] = ["d", None, *BATCH[2:]]
    found = combat.apply(values, others)
    np.testing.assert_array_equal(found[:2], values[:2])
    np.testing.assert_array_equal(found[2:], combat.apply(values, BATCH)[2:])
    assert combat.passed_over(others).all(axis=1).tolist() == [True, True] + [False] * 10


def test_a_feature_that_a_scanner_hardly_measured_stays_as_it_is_there() -> None:
    values = example()
    values[5:8, 1] = np.nan  # one value is left at scanner b
    assert np.isfinite(values[5:9, 1]).sum() < FEWEST_PER_BATCH
    found = Combat.learn(values, BATCH, features=NAMES).apply(values, BATCH)
    np.testing.assert_array_equal(found[5:9, 1], values[5:9, 1])
    assert not np.array_equal(found[5:9, 0], values[5:9, 0])


def test_a_constant_feature_stays_as_it_is() -> None:
    values = example()
    values[:, 2] = 3.0
    found = Combat.learn(values, BATCH, features=NAMES).apply(values, BATCH)
    np.testing.assert_array_equal(found[:, 2], 3.0)
    assert np.isfinite(found).all()


def test_many_decisions_lose_nearly_all_of_the_difference_between_scanners() -> None:
    rng = np.random.default_rng(3)
    batch = ["x"] * 400 + ["y"] * 300
    truth = rng.normal(size=(700, 20))
    seen = truth.copy()
    seen[400:] = seen[400:] * 1.6 + rng.normal(1.0, 0.5, 20)
    found = Combat.learn(seen, batch, features=[str(n) for n in range(20)]).apply(seen, batch)
    gap = np.abs(found[:400].mean(axis=0) - found[400:].mean(axis=0))
    assert gap.max() < 0.1
    assert np.abs(seen[:400].mean(axis=0) - seen[400:].mean(axis=0)).max() > 0.5
    assert found[400:].std(axis=0) / found[:400].std(axis=0) == pytest.approx(1.0, abs=0.12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_order_does_not_matter_missing_stays_missing_and_json_gives_the_same(seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 5)) * rng.uniform(0.1, 50, 5)
    values[rng.random(values.shape) < missing] = np.nan
    batch = rng.choice(["a", "b", "c"], 40).tolist()
    names = list("vwxyz")
    combat = Combat.learn(values, batch, features=names)
    found = combat.apply(values, batch)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    again = Combat.from_json(json.loads(json.dumps(combat.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(again.apply(values, batch), found)
    order = rng.permutation(40)
    shuffled = Combat.learn(values[order], [batch[n] for n in order], features=names)
    np.testing.assert_allclose(shuffled.apply(values, batch), found, rtol=1e-6, atol=1e-9)
