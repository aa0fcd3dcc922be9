"""The aggregate of the development patients: right, and of no fewer than ten."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theracast_models.reference import RARE_LEVELS, Reference, widened


def test_quantiles_and_rates_equal_an_obvious_count(make_table) -> None:
    table, y = make_table(1, 300)
    reference = Reference.learn(table, y)
    known = table.frame["lab.albumin"].dropna()
    albumin = reference.features["lab.albumin"]
    assert albumin.median == pytest.approx(known.median())
    assert albumin.missing_rate == pytest.approx(table.frame["lab.albumin"].isna().mean())
    low = albumin.cells[0]
    rows = (table.frame["lab.albumin"] <= low.upper).to_numpy()
    assert (low.label, low.n, low.rate) == ("low", rows.sum(), pytest.approx(y[rows].mean()))
    tumour = reference.features["clin.tumour"]
    assert sum(tumour.levels.values()) == pytest.approx(1)
    assert (reference.n, reference.events, reference.sites) == (300, int(y.sum()), ("A",))
    assert Reference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


def test_nothing_is_told_of_fewer_than_ten(make_table) -> None:
    table, y = make_table(2, 120, missing=0.0)
    frame = table.frame.copy()
    frame.loc[:3, "clin.tumour"] = "very rare"
    frame.loc[4:11, "clin.tumour"] = "rare"
    frame.loc[9:, "gen.tmb"] = np.nan
    frame["gen.msi"] = (np.arange(120) < 5).astype(float)
    reference = Reference.learn(type(table)(frame, table.catalogue, table.decisions), y)
    cells = [cell for one in reference.features.values() for cell in one.cells]
    assert min(cell.n for cell in cells) >= 10
    assert RARE_LEVELS in reference.features["clin.tumour"].levels
    assert "rare" not in json.dumps(reference.to_json()).replace(RARE_LEVELS, "")
    tmb = reference.features["gen.tmb"]
    assert (tmb.known, dict(tmb.quantiles), tmb.low, tmb.cells) == (9, {}, None, ())
    assert [cell.label for cell in reference.features["gen.msi"].cells] == ["0"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_range_holds_every_value_and_is_hardly_wider(values: list[float]) -> None:
    low, high = widened(np.array(values))
    span = max(values) - min(values)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert low - slack <= min(values)
    assert max(values) <= high + slack
    assert high - low <= 1.3 * span + slack


def test_weight_0_does_not_count(make_table) -> None:
    table, y = make_table(3, 100)
    weight = np.r_[np.ones(60), np.zeros(40)]
    assert Reference.learn(table, y, weight=weight) == Reference.learn(table.take(range(60)), y[:60])
