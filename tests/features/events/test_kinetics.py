"""Marker kinetics against courses whose doubling time and declines are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from theracast_features.events.kinetics import decline_confirmed, log_linear_fit, marker_kinetics

INDEX = pd.Timestamp("2024-06-01")


def _values(*rows: tuple[float, float], subject: str = "a") -> pd.DataFrame:
    days = pd.to_timedelta([row[0] for row in rows], unit="D")
    return pd.DataFrame({"subject_id": subject, "time": INDEX + days, "value": [row[1] for row in rows]})


def _decision(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": ["a"], "index_time": [INDEX], **columns}, index=["d"])


def test_a_marker_that_doubles_every_thirty_days() -> None:
    """4, 8, 16, 32 a month apart; and the same course backwards halves."""
    rising = log_linear_fit([0, 30, 60, 90], [4, 8, 16, 32])
    assert rising.doubling_days == pytest.approx(30.0)
    assert np.isnan(rising.half_life_days)
    falling = log_linear_fit([0, 30, 60, 90], [32, 16, 8, 4])
    assert falling.half_life_days == pytest.approx(30.0)
    assert np.isnan(falling.doubling_days)


def test_no_slope_where_it_cannot_be_told() -> None:
    """Two values, values of one day, values without a logarithm, and a constant marker."""
    assert np.isnan(log_linear_fit([0, 30], [4, 8]).slope)
    assert np.isnan(log_linear_fit([5, 5, 5], [4, 8, 9]).slope)
    assert log_linear_fit([0, 30, 60, 90], [0, -1, np.nan, 8]).points == 1
    constant = log_linear_fit([0, 30, 60], [0.3, 0.3, 0.3])
    assert (constant.slope, np.isnan(constant.doubling_days), np.isnan(constant.half_life_days)) == (0.0, True, True)


COURSE = st.lists(st.tuples(st.integers(-300, 300), st.floats(0.01, 1e4)), min_size=3, max_size=12)


@settings(max_examples=60, deadline=None)
@given(COURSE, st.floats(0.001, 1000))
def test_fit_is_scipys_and_knows_no_unit(rows: list[tuple[int, float]], scale: float) -> None:
    """The slope of `linregress` on the logarithms; another unit of the marker changes nothing."""
    days, values = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    if np.ptp(days) == 0:
        return
    found = log_linear_fit(days, values)
    assert found.slope == pytest.approx(linregress(days, np.log(values)).slope, rel=1e-6, abs=1e-9)
    assert log_linear_fit(days, scale * values).slope == pytest.approx(found.slope, rel=1e-6, abs=1e-9)


def test_decline_confirmed_three_weeks_later() -> None:
    """PCWG3: the second value 3 or more weeks after the first, no value between that misses it."""
    assert decline_confirmed([10, 31], [-50, -60])
    assert not decline_confirmed([10, 30], [-50, -60])
    assert decline_confirmed([10, 20, 31], [-50, -55, -60])
    assert not decline_confirmed([10, 20, 31], [-50, -40, -60])
    assert not decline_confirmed([10], [-90])


def test_psa_under_treatment_by_hand() -> None:
    """Baseline 40 at the start of treatment; 30, 16, 12 after it: -70 % and PSA50, confirmed; the rise before is no part."""
    course = _values((-200, 10.0), (-100, 40.0), (-75, 30.0), (-50, 16.0), (-25, 12.0), (5, 80.0))
    start = pd.Timestamp("2024-06-01") - pd.Timedelta(days=100)
    found = marker_kinetics(course, _decision(start=[start]), since="start").loc["d"]
    assert found["points"] == 4
    assert found["change_percent"] == pytest.approx(-70.0)
    assert (found["best_change_percent"], found["fell_by_half"], found["fell_by_half_confirmed"]) == (
        pytest.approx(-70.0),
        1.0,
        1.0,
    )
    slope = linregress([-100, -75, -50, -25], np.log([40.0, 30, 16, 12])).slope
    assert found["half_life_days"] == pytest.approx(np.log(2) / -slope)
    # Without a start the first value is the baseline; with one before all values there is no baseline.
    assert marker_kinetics(course, _decision()).loc["d", "change_percent"] == pytest.approx(20.0)
    early = marker_kinetics(course, _decision(start=[pd.Timestamp("2020-01-01")]), since="start").loc["d"]
    assert early["points"] == 0
    assert early.drop("points").isna().all()
    assert marker_kinetics(course, _decision(), window_days=60, min_points=2).loc["d", "points"] == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-100, 0), st.floats(0.1, 100)), min_size=0, max_size=8),
    st.lists(st.tuples(st.integers(1, 100), st.floats(0.1, 100)), min_size=0, max_size=4),
    st.integers(0, 5),
)
def test_the_future_the_order_and_other_patients_change_nothing(
    past: list[tuple[float, float]], future: list[tuple[float, float]], late: int
) -> None:
    """Rows after the index, results known only after it, rows of others, and permutations."""
    alone = marker_kinetics(_values(*past), _decision())
    more = pd.concat([_values(*future), _values(*past)[::-1], _values(*past, subject="b")])
    more = more.assign(available_time=more["time"])
    unknown = _values((-float(late), 50.0)).assign(available_time=INDEX + pd.Timedelta(seconds=1))
    pd.testing.assert_frame_equal(marker_kinetics(pd.concat([more, unknown]), _decision()), alone, rtol=1e-12)
