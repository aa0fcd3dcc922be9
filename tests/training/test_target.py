"""The target: who is unknown; censoring weights against a slow loop and a simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from theracast_data.cohort import Cohort
from theracast_data.decisions.section import FirstEvent
from theracast_data.endpoint_values import derive_endpoints
from theracast_data.endpoints import (
    BinaryEndpoint,
    ContinuousEndpoint,
    FollowUp,
    OrdinalEndpoint,
    TimeToEventEndpoint,
    as_table_endpoint,
)
from theracast_data.errors import CohortError
from theracast_models.outcomes import Continuous, Ordinal, Survival
from theracast_training.target import Target, default_horizons, require_both_outcomes, target_of


def _slow_uncensored(when: float, times: np.ndarray, events: np.ndarray, *, before: bool) -> float:
    """Kaplan-Meier of the censoring distribution, one moment after the other."""
    share = 1.0
    for moment in sorted(set(times[events == 0])):
        if moment > when or (before and moment == when):
            break
        censored = sum((times == moment) & (events == 0))
        at_risk = sum(times > moment) + censored
        share *= 1 - censored / at_risk
    return share


def test_weights_equal_a_slow_kaplan_meier() -> None:
    rng = np.random.default_rng(1)
    time = np.ceil(rng.exponential(300, 80))
    event = rng.integers(0, 2, 80).astype(float)
    horizon = 250.0
    y = np.where((event == 1) & (time <= horizon), 1.0, np.where(time >= horizon, 0.0, np.nan))
    weights = Target(y, time, event, (horizon,)).weight()
    for row in range(80):
        if np.isnan(y[row]):
            assert weights[row] == 0
        else:
            happened = y[row] == 1
            share = _slow_uncensored(min(time[row], horizon), time, event, before=bool(happened))
            assert weights[row] == pytest.approx(1 / share)


def test_weights_undo_the_bias_of_censoring() -> None:
    rng = np.random.default_rng(2)
    n = 20_000
    death = rng.exponential(365, n)
    censoring = rng.exponential(400, n)
    time, event = np.minimum(death, censoring), (death <= censoring).astype(float)
    truth = 1 - np.exp(-1)
    y = np.where((event == 1) & (time <= 365), 1.0, np.where(time >= 365, 0.0, np.nan))
    weights = Target(y, time, event, (365.0,)).weight()
    naive = np.nanmean(y)
    weighted = np.average(np.nan_to_num(y), weights=weights)
    assert abs(weighted - truth) < 0.015 < abs(naive - truth)


def _cohort(values: list[float]) -> Cohort:
    n = len(values)
    decisions = pd.DataFrame({"subject_id": [str(i) for i in range(n)], "site": "A"})
    return Cohort(decisions, pd.DataFrame(index=range(n)), pd.DataFrame({"response": values}), {})


def test_column_endpoint_has_plain_weights() -> None:
    endpoint = BinaryEndpoint(kind="binary", name="response", column="Response")
    target = target_of(_cohort([1.0, 0.0, np.nan]), endpoint)
    assert target.weight().tolist() == [1.0, 1.0, 0.0]
    assert target.known.tolist() == [0, 1]


def test_a_time_to_event_is_judged_at_its_leading_horizon_and_learned_whole() -> None:
    endpoint = TimeToEventEndpoint(kind="time_to_event", name="os", time="OS", event="E", horizons=(12, 6))
    frame = pd.DataFrame({"os.time": [100.0, 400.0, 200.0, np.nan], "os.event": [1.0, 1.0, 0.0, np.nan]})
    target = target_of(replace(_cohort([0.0] * 4), endpoints=frame), endpoint)
    assert target.horizons == pytest.approx((365.25, 182.625))
    np.testing.assert_array_equal(target.y, [1, 0, np.nan, np.nan])
    assert target.known.tolist() == [0, 1, 2]
    outcome = target.take(target.known).outcome()
    assert isinstance(outcome, Survival)
    assert outcome.time.tolist() == [100, 400, 200]


def test_horizons_by_default_are_those_that_ten_patients_were_followed_past() -> None:
    assert default_horizons(np.array([400.0] * 10 + [10.0] * 30)) == (365.25, 182.625)
    assert default_horizons(np.array([20.0, 30.0, 40.0])) == (30.0,)


def test_ordered_levels_are_judged_at_the_better_half_or_where_the_study_says() -> None:
    endpoint = OrdinalEndpoint(kind="ordinal", name="response", column="R", levels=("PD", "SD", "PR", "CR"))
    cohort = _cohort([0.0, 1.0, 2.0, 3.0, np.nan])
    target = target_of(cohort, endpoint)
    np.testing.assert_array_equal(target.y, [0, 0, 1, 1, np.nan])
    best = target_of(cohort, endpoint.model_copy(update={"at_least": "CR"}))
    np.testing.assert_array_equal(best.y, [0, 0, 0, 1, np.nan])
    assert best.asked.main_level == 3
    assert isinstance(target.take(target.known).outcome(), Ordinal)


def test_numbers_are_learned_as_they_are() -> None:
    target = target_of(
        _cohort([5.0, 1.0, np.nan, 3.0]), ContinuousEndpoint(kind="continuous", name="response", column="C")
    )
    assert target.known.tolist() == [0, 1, 3]
    outcome = target.take(target.known).outcome()
    assert isinstance(outcome, Continuous)
    assert outcome.y.tolist() == [5, 1, 3]


def test_too_few_outcomes_are_refused() -> None:
    with pytest.raises(CohortError, match="at least 8"):
        require_both_outcomes(Target(np.array([1.0, 0.0] * 5)), where="development")


def test_horizon_endpoint_carries_days() -> None:
    follow_up = FollowUp(time="OS", event="E", unit="month")
    endpoint = BinaryEndpoint(kind="binary", name="dead", follow_up=follow_up, horizon=12)
    cohort = _cohort([1.0])
    endpoints = pd.DataFrame({"dead": [1.0, np.nan], "dead.time": [100.0, 50.0], "dead.event": [1.0, 0.0]})
    cohort = Cohort(cohort.decisions, cohort.values, endpoints, {})
    assert target_of(cohort, endpoint).horizon_days == pytest.approx(365.25)


def _first_event(**more: object) -> FirstEvent:
    record = {"kind": "first_event", "name": "pfs", "events": [{"codes": ["PD//1"]}]} | more
    return FirstEvent.model_validate(record)


@pytest.mark.parametrize("positive", ["event", "event_free"])
def test_a_first_event_is_weighted_as_the_same_follow_up_of_a_table_is(positive: str) -> None:
    rng = np.random.default_rng(4)
    time, event = np.ceil(rng.exponential(200, 60)), rng.integers(0, 2, 60).astype(float)
    asked = _first_event(horizon="26w", positive=positive)
    same = as_table_endpoint(asked)
    assert isinstance(same, BinaryEndpoint)
    raw = pd.DataFrame({"pfs.time": time, "pfs.event": event})
    endpoints = derive_endpoints(raw, [same])
    cohort = Cohort(pd.DataFrame({"subject_id": range(60)}), pd.DataFrame(), endpoints, {})
    ours, theirs = target_of(cohort, asked), target_of(cohort, same)
    assert ours.horizon_days == 182.0
    np.testing.assert_array_equal(ours.y, theirs.y)
    np.testing.assert_array_equal(ours.weight(), theirs.weight())
    assert (ours.weight()[np.isnan(ours.y)] == 0).all()
    assert np.isnan(ours.y).any()
