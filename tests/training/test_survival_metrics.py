"""Metrics of time to event against scikit-survival, lifelines and statsmodels (survival.json), and slow loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from theracast_training import survival_metrics as measures
from theracast_training.evaluation import evaluate_binary
from theracast_training.observed import aalen_johansen, censoring, follow_up_median, kaplan_meier
from theracast_training.survival_calibration import smooth_each
from theracast_training.survival_metrics import Followed, cox_each, seen_each

Floats = NDArray[np.float64]

ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "oracles" / "survival.json").read_text())
SETS = ("continuous", "tied", "heavily censored")
HORIZONS = np.array([3.0, 6.0, 9.0])
GRID = np.arange(1.0, 9.01, 0.5)


def _given(name: str) -> tuple[Floats, Floats, Floats]:
    one = ORACLE["reference"] if name == "reference" else ORACLE["sets"][name]["given"]
    return tuple(np.asarray(one[column], dtype=float) for column in ("time", "event", "risk"))  # type: ignore[return-value]


def _probability(risk: Floats, when: Floats) -> Floats:
    return 1 - np.exp(-np.outer(np.exp(0.8 * risk), when / 14))


def _laid_out(name: str, when: Floats) -> tuple[Followed, Floats, Floats, Floats]:
    """Return the decisions of a set, their risk and probabilities in that order, and one row of ones."""
    time, event, risk = _given(name)
    followed = Followed.over(time, event)
    risk = risk[followed.order]
    return followed, risk, _probability(risk, when), np.ones((1, len(time)))


@pytest.mark.parametrize("name", SETS)
def test_harrells_c_is_that_of_scikit_survival_and_lifelines(name: str) -> None:
    found = measures.c_harrell(*_given(name))
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["c_harrell"], abs=1e-9)
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["c_harrell_lifelines"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("source", ["own", "reference"])
def test_weighed_for_censoring_c_auc_and_brier_are_those_of_scikit_survival(name: str, source: str) -> None:
    expected = ORACLE["sets"][name]["found"][source]
    reference = _given("reference")[:2] if source == "reference" else None
    time, event, risk = _given(name)
    assert measures.c_uno(time, event, risk, tau=9.0, reference=reference) == pytest.approx(expected["c_uno"], abs=1e-9)
    followed, _, p, ones = _laid_out(name, HORIZONS)
    seen = seen_each(followed, ones, reference)
    auc = [
        measures.horizon_auc_each(followed, p[:, place], ones, seen, horizon=day)[0]
        for place, day in enumerate(HORIZONS)
    ]
    assert auc == pytest.approx(expected["auc"], abs=1e-9)
    assert measures.brier_each(followed, p, ones, seen, when=HORIZONS)[0] == pytest.approx(expected["brier"], abs=1e-9)
    over_time = measures.brier_each(followed, _laid_out(name, GRID)[2], ones, seen, when=GRID)
    assert measures.integrated(over_time, GRID)[0] == pytest.approx(expected["ibs"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_cox_slope_is_that_of_scikit_survival_and_statsmodels(name: str) -> None:
    found = measures.cox_slope(*_given(name))
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["cox_slope"], abs=1e-7)
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["cox_slope_statsmodels"], abs=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_kaplan_meier_and_its_interval_are_those_of_scikit_survival(name: str) -> None:
    time, event, _ = _given(name)
    expected = ORACLE["sets"][name]["found"]["kaplan_meier"]
    curve = kaplan_meier(time, event)
    assert curve.at(expected["time"]) == pytest.approx(expected["value"], abs=1e-9)
    low, high = curve.interval_at(expected["time"])
    assert low == pytest.approx(expected["low"], abs=1e-9)
    assert high == pytest.approx(expected["high"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_median_follow_up_is_lifelines_reverse_kaplan_meier(name: str) -> None:
    time, event, _ = _given(name)
    assert follow_up_median(time, event) == pytest.approx(ORACLE["sets"][name]["found"]["follow_up_median"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_smooth_calibration_is_a_cox_model_on_a_spline_by_scikit_survival(name: str) -> None:
    followed, _, p, ones = _laid_out(name, HORIZONS)
    found = smooth_each(followed, p[:, 1], ones, seen_each(followed, ones), horizon=6.0)[0]
    assert found == pytest.approx(np.asarray(ORACLE["sets"][name]["found"]["smooth"])[followed.order], abs=1e-6)


def test_cumulative_incidence_and_its_variance_are_those_of_scikit_survival() -> None:
    time, event, risk = _given("competing")
    expected = ORACLE["sets"]["competing"]["found"]
    curve = aalen_johansen(time, event)
    value = curve.at(expected["time"])
    assert value == pytest.approx(expected["incidence"], abs=1e-9)
    low, high = curve.interval_at(expected["time"])
    some = value > 0
    link = np.log(-np.log(1 - value[some]))
    for bound in (low, high):
        reach = np.abs(np.log(-np.log(1 - bound[some])) - link) / 1.959963984540054
        error = reach * (1 - value[some]) * np.abs(np.log(1 - value[some]))
        assert error == pytest.approx(np.asarray(expected["standard_error"])[some], abs=1e-9)
    assert measures.cox_slope(time, event, risk) == pytest.approx(expected["cox_slope"], abs=1e-6)


def _seen(time: Floats, event: Floats) -> tuple[Any, Any]:
    """Return G(t-) and G(t) by a loop over days, events before censorings."""

    def chance(day: float, *, through: bool) -> float:
        left = 1.0
        for one in np.unique(time[(event == 0) & ((time < day) | (through & (time == day)))]):
            at_risk = ((time > one) | ((time == one) & (event == 0))).sum()
            left *= 1 - ((time == one) & (event == 0)).sum() / at_risk
        return left

    return (lambda day: chance(day, through=False)), (lambda day: chance(day, through=True))


def test_censoring_curve_is_a_slow_loop_from_the_left_and_on_the_day() -> None:
    time, event, _ = _given("competing")
    before, after = _seen(time, event)
    curve = censoring(time, event)
    days = np.unique(time)[:-1]
    assert curve.before(days) == pytest.approx([before(day) for day in days])
    assert curve.at(days) == pytest.approx([after(day) for day in days])


def test_c_with_competing_events_is_wolbers_sum_over_pairs() -> None:
    time, event, risk = _given("competing")
    before, _ = _seen(time, event)
    tau = 12.0
    sums = {"harrell": np.zeros(2), "uno": np.zeros(2)}
    for i in np.flatnonzero(event == 1):
        for j in range(len(time)):
            later = time[j] > time[i] or (time[j] == time[i] and event[j] == 0)
            precluded = time[j] <= time[i] and event[j] == 2
            if not (later or precluded):
                continue
            won = float(risk[i] > risk[j]) + 0.5 * float(risk[i] == risk[j])
            sums["harrell"] += won, 1.0
            if time[i] < tau:
                weight = 1 / (before(time[i]) * before(min(time[i], time[j])))
                sums["uno"] += weight * won, weight
    assert measures.c_harrell(time, event, risk) == pytest.approx(np.divide(*sums["harrell"]))
    assert measures.c_uno(time, event, risk, tau=tau) == pytest.approx(np.divide(*sums["uno"]))


@pytest.mark.parametrize("horizon", [4.0, 7.5, 11.0])
def test_auc_and_brier_with_competing_events_are_blanches_sums(horizon: float) -> None:
    time, event, risk = _given("competing")
    before, _ = _seen(time, event)
    p = _probability(risk, np.array([horizon]))[:, 0] * 0.6
    weight = np.zeros(len(time))
    for i in range(len(time)):
        if event[i] != 0 and time[i] <= horizon:
            weight[i] = 1 / before(time[i])
        elif time[i] >= horizon:
            weight[i] = 1 / before(horizon)
    case = (event == 1) & (time <= horizon)
    brier = (weight * (case - p) ** 2).sum() / len(time)
    pairs = np.outer(weight * case, weight * ~case)
    won = (p[:, None] > p) + 0.5 * (p[:, None] == p)
    followed = Followed.over(time, event)
    ones, score = np.ones((1, len(time))), p[followed.order]
    seen = seen_each(followed, ones)
    found = measures.brier_each(followed, score[:, None], ones, seen, when=np.array([horizon]))
    assert found[0, 0] == pytest.approx(brier)
    auc = measures.horizon_auc_each(followed, score, ones, seen, horizon=horizon)
    assert auc[0] == pytest.approx((pairs * won).sum() / pairs.sum())


def test_smooth_calibration_with_competing_events_is_fine_and_grays_model_on_expanded_rows() -> None:
    time, event, risk = _given("competing")
    before, _ = _seen(time, event)
    followed = Followed.over(time, event)
    x, ones = np.column_stack([risk, risk**2])[followed.order], np.ones((1, len(time)))
    coefficient, hazard = cox_each(followed, x, ones, until=followed.until(9.0), seen=seen_each(followed, ones))
    score, total = np.zeros(2), 0.0
    for day in np.unique(time[(event == 1) & (time <= 9.0)]):
        came = (time == day) & (event == 1)
        weight = np.where(time >= day, 1.0, 0.0)
        for j in np.flatnonzero((time < day) & (event == 2)):
            weight[j] = before(day) / before(time[j])
        columns = np.column_stack([risk, risk**2])
        relative = weight * np.exp(columns @ coefficient[0])
        score += columns[came].sum(axis=0) - came.sum() * (relative @ columns) / relative.sum()
        total += came.sum() / relative.sum()
    assert score == pytest.approx([0.0, 0.0], abs=1e-7)
    assert hazard[0] == pytest.approx(total)


def test_fine_and_gray_without_censoring_is_cox_with_competing_events_put_off_for_ever() -> None:
    time, event, risk = _given("competing")
    event = np.where(event == 0, 2, event)
    never = np.where(event == 2, 1e6, time)
    followed, put_off = Followed.over(time, event), Followed.over(never, np.where(event == 2, 0, 1))
    ones = np.ones((1, len(time)))
    first = cox_each(
        followed, risk[followed.order][:, None], ones, until=len(followed.times), seen=seen_each(followed, ones)
    )
    second = cox_each(put_off, risk[put_off.order][:, None], ones, until=len(put_off.times))
    assert first[0] == pytest.approx(second[0])
    assert first[1] == pytest.approx(second[1])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(15, 60))
    time, event = rng.integers(0, 12, n).astype(float), rng.integers(0, 3, n)
    risk, count = np.round(rng.normal(size=n), 1), rng.integers(0, 4, n)
    followed = Followed.over(time, event)
    twice = Followed.over(np.repeat(time, count), np.repeat(event, count))
    when = np.array([3.0, 6.0, 8.5])
    answers = []
    for one, rows, mass in (
        (followed, np.arange(n), count.astype(float)),
        (twice, np.repeat(np.arange(n), count), np.ones(count.sum())),
    ):
        score, weights = risk[rows][one.order], mass[one.order][None, :]
        p, seen = _probability(score, when), seen_each(one, weights)
        answers.append(
            np.concatenate(
                [
                    measures.c_harrell_each(one, score, weights),
                    measures.c_uno_each(one, score, weights, seen, tau=9.0),
                    measures.cox_slope_each(one, score, weights),
                    measures.incidence_each(one, weights, when)[0],
                    measures.brier_each(one, p, weights, seen, when=when)[0],
                    measures.null_brier_each(one, weights, seen, when=when)[0],
                    measures.horizon_auc_each(one, p[:, 1], weights, seen, horizon=6.0),
                ]
            )
        )
    assert answers[0] == pytest.approx(answers[1], rel=1e-6, abs=1e-9, nan_ok=True)


def test_incidence_of_resamples_is_aalen_johansen_and_ends_with_follow_up() -> None:
    time, event, _ = _given("competing")
    followed, when = Followed.over(time, event), np.array([0.5, 2.0, 7.3, 29.0, 31.0, 100.0])
    found = measures.incidence_each(followed, np.ones((1, len(time))), when)[0]
    assert found == pytest.approx(aalen_johansen(time, event).at(when), nan_ok=True)
    everyone = np.ones(4)
    assert aalen_johansen([1, 2, 3, 4], everyone).at([3.0, 9.0]) == pytest.approx([0.75, 1.0])
    assert np.isnan(aalen_johansen([1, 2, 3, 4], [1, 1, 1, 0]).at(9.0))


def test_with_no_event_yet_the_interval_is_clopper_and_pearsons() -> None:
    curve = aalen_johansen(np.arange(1.0, 21.0), np.zeros(20))
    low, high = curve.interval_at(1.0)
    assert (float(low), float(high)) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_slope_is_infinite_where_the_highest_risk_always_comes_first_and_missing_without_contrast() -> None:
    time = np.arange(1.0, 9.0)
    ones = np.ones(8)
    assert measures.cox_slope(time, ones, -time) == np.inf
    assert measures.cox_slope(time, ones, time) == -np.inf
    assert np.isnan(measures.cox_slope(time, ones, ones))
    assert np.isnan(measures.cox_slope(time, 0 * ones, time))
    assert np.isnan(measures.c_harrell(time, 0 * ones, time))


def test_a_trial_that_ends_at_its_horizon_can_be_judged() -> None:
    time = np.array([100.0, 200.0, 365.0, 365.0, 365.0, 150.0])
    event = np.array([1, 1, 0, 0, 1, 0])
    p = np.array([0.9, 0.6, 0.2, 0.7, 0.5, 0.5])
    followed = Followed.over(time, event)
    ones = np.ones((1, 6))
    seen = seen_each(followed, ones)
    auc = measures.horizon_auc_each(followed, p[followed.order], ones, seen, horizon=365.0)
    # One of five at risk was lost on day 150: what came later counts 5/4.
    assert auc[0] == pytest.approx((1.0 * 2 + 1.25 * 1 + 1.25 * 1) / (3.5 * 2))


@pytest.mark.parametrize("name", ["tied", "competing"])
@pytest.mark.parametrize("horizon", [3.0, 6.5])
def test_status_at_a_horizon_makes_the_binary_evaluation_that_of_the_horizon(name: str, horizon: float) -> None:
    time, event, risk = _given(name)
    p = _probability(risk, np.array([horizon]))[:, 0]
    y, weight = measures.status_at(time, event, horizon)
    unknown = (time < horizon) & (event == 0)
    assert (np.isnan(y) == unknown).all()
    assert (weight[unknown] == 0).all()
    assert weight.sum() == pytest.approx(len(time))
    found = evaluate_binary(y, p, weight=weight, bootstrap=0)
    followed = Followed.over(time, event)
    score, ones = p[followed.order], np.ones((1, len(time)))
    seen = seen_each(followed, ones)
    auc = measures.horizon_auc_each(followed, score, ones, seen, horizon=horizon)[0]
    brier = measures.brier_each(followed, score[:, None], ones, seen, when=np.array([horizon]))[0, 0]
    assert (found["auc"], found["brier"]) == pytest.approx((auc, brier))
    assert found["prevalence"] == pytest.approx(float(aalen_johansen(time, event).at(horizon)))


def test_status_is_not_known_where_the_reference_was_not_followed_so_far() -> None:
    time, event, _ = _given("tied")
    y, weight = measures.status_at(time, event, 6.0, reference=(np.minimum(time, 4.0), np.where(time > 4.0, 0, event)))
    assert np.isnan(y[time > 4.0]).all()
    assert not np.isnan(y[(time <= 4.0) & (event == 1)]).any()
    assert (weight[np.isnan(y)] == 0).all()
    assert [len(part) for part in measures.status_at([], [], 6.0)] == [0, 0]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_order_of_decisions_and_scale_of_risk_change_no_ranking(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time, event, risk = _given("competing")
    shuffled = rng.permutation(len(time))
    for metric in (measures.c_harrell, measures.c_uno):
        expected = metric(time, event, risk)
        assert metric(time[shuffled], event[shuffled], risk[shuffled]) == pytest.approx(expected)
        assert metric(time, event, np.exp(2 * risk)) == pytest.approx(expected)
        assert metric(time, event, -risk) == pytest.approx(1 - expected)
    slope = measures.cox_slope(time, event, risk)
    assert measures.cox_slope(time[shuffled], event[shuffled], risk[shuffled]) == pytest.approx(slope)
    assert measures.cox_slope(time, event, 4 * risk - 7) == pytest.approx(slope / 4)
