"""Patients like this one: right about groups, and silent about anyone in them."""

from __future__ import annotations

import json
import time as clock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_models.neighbours import Neighbours, Outcomes, microaggregate, wilson
from theracast_models.pseudo import survival_shares

NAMES = ["lab.albumin", "lab.crp", "clin.age", "gen.tmb", "gen.silent"]


def decisions(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Contributions, of which the last says nothing, and outcomes that follow them."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n, 5)) * [1.0, 0.5, 0.3, 0.8, 0.0]
    return phi, (rng.random(n) < 1 / (1 + np.exp(-phi.sum(axis=1) + 0.5))).astype(float)


def kaplan_meier(time: np.ndarray, event: np.ndarray, at: float) -> float:
    """One moment after the other."""
    share = 1.0
    for moment in sorted({t for t, e in zip(time, event, strict=True) if e == 1 and t <= at}):
        share *= 1 - ((time == moment) & (event == 1)).sum() / (time >= moment).sum()
    return float(share)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=10, max_size=120), st.integers(0, 5), st.sampled_from([10, 13]))
def test_no_group_has_fewer_than_ten_patients(patients: list[int], seed: int, size: int) -> None:
    """Whatever the number of decisions a patient has, and however many decisions are equal."""
    numbers = np.array(patients)
    if len(set(patients)) < size:
        return
    points = np.random.default_rng(seed).integers(0, 3, (len(numbers), 2)).astype(float)
    group = microaggregate(points, numbers, size=size)
    for one in range(group.max() + 1):
        assert len(set(numbers[group == one])) >= size
    assert np.array_equal(group, microaggregate(points, numbers, size=size))


def test_nothing_that_is_kept_tells_of_fewer_than_ten() -> None:
    rng = np.random.default_rng(2)
    phi, y = decisions(2)
    patients = rng.integers(0, 250, len(y))
    time, event = rng.exponential(400, len(y)), (rng.random(len(y)) < 0.6).astype(float)
    kinds = {
        "binary": Outcomes.binary(y),
        "ordinal": Outcomes.ordinal(np.where(y > 0, 2.0, rng.integers(0, 2, len(y))), levels=3),
        "continuous": Outcomes.continuous(y + rng.normal(size=len(y))),
        "time_to_event": Outcomes.survival(time, event, horizons=[90, 365, 1_000, 2_000]),
    }
    for kind, outcomes in kinds.items():
        near = Neighbours.learn(phi, outcomes, names=NAMES, patients=patients)
        assert near.patients.min() >= (25 if kind == "time_to_event" else 10)
        assert (near.decisions >= near.patients).all()
        assert not ((near.at_risk > 0) & (near.at_risk < 10)).any()
        assert near.decisions.sum() == len(y)
        for row in near.centres:  # no centre is a patient's own contributions
            assert np.abs(phi[:, near.places] - row).max(axis=1).min() > 1e-3
        record = json.loads(json.dumps(near.to_json(), allow_nan=False))
        again = Neighbours.from_json(record)
        assert again.like(phi[0]) == near.like(phi[0])
        assert again.to_json() == near.to_json()


def test_the_rate_is_that_of_the_merged_groups_and_near_that_of_the_true_neighbours() -> None:
    phi, y = decisions(3, 3_000)
    near = Neighbours.learn(phi, Outcomes.binary(y), names=NAMES)
    assert near.names == ("lab.albumin", "lab.crp", "clin.age", "gen.tmb")
    group = microaggregate(phi[:, :4], np.arange(len(y)), size=10)
    asked, _ = decisions(4, 200)
    differences, own, errors = [], [], []
    for row in asked:
        found = near.like(row, wanted=50)
        assert 50 <= found.decisions < 70
        order = np.argsort(np.linalg.norm(near.centres - row[:4], axis=1), kind="stable")
        count = np.searchsorted(np.cumsum(near.decisions[order]), 50) + 1
        inside = np.isin(group, order[:count])
        assert found.decisions == inside.sum()
        assert found.estimate[0] == pytest.approx(y[inside].mean(), abs=1e-5)
        nearest = np.argsort(np.linalg.norm(phi[:, :4] - row[:4], axis=1))[: found.decisions]
        differences.append(found.estimate[0] - y[nearest].mean())
        own.append(found.high[0] - found.low[0])
        truth = 1 / (1 + np.exp(-row.sum() + 0.5))
        errors.append([found.estimate[0] - truth, y[nearest].mean() - truth])
    assert abs(np.mean(differences)) < 0.01
    assert np.sqrt(np.mean(np.square(differences))) < np.mean(own) / 3
    ours, true_neighbours = np.sqrt(np.mean(np.square(errors), axis=0))
    assert ours < 1.25 * true_neighbours


def test_pseudo_observations_average_to_kaplan_meier_and_equal_leaving_one_out() -> None:
    rng = np.random.default_rng(5)
    time = rng.integers(1, 60, 150).astype(float)  # ties
    event = (rng.random(150) < 0.6).astype(float)
    horizons = [0.5, 10.0, 25.0, 50.0, 59.0]
    shares = survival_shares(time, event, horizons=horizons)
    whole = np.array([kaplan_meier(time, event, at) for at in horizons])
    assert shares.mean(axis=0) == pytest.approx(whole)
    for row in (0, 17, 80):
        rest = np.arange(150) != row
        left_out = [
            150 * s - 149 * kaplan_meier(time[rest], event[rest], at) for s, at in zip(whole, horizons, strict=True)
        ]
        assert shares[row] == pytest.approx(np.array(left_out), abs=0.03)
    gone = survival_shares(np.array([1.0, 2.0, 3.0]), np.ones(3), horizons=[2.5, 3.0])
    assert gone.mean(axis=0) == pytest.approx([1 / 3, 0])


def test_the_curve_is_near_that_of_the_true_neighbours_and_blank_where_few_are_left() -> None:
    rng = np.random.default_rng(6)
    phi, _ = decisions(6, 2_000)
    died = rng.exponential(500 * np.exp(-phi.sum(axis=1)))
    left = rng.uniform(200, 1_500, len(phi))
    time, event = np.minimum(died, left), (died <= left).astype(float)
    horizons = [100.0, 300.0, 700.0, 1_490.0]
    near = Neighbours.learn(phi, Outcomes.survival(time, event, horizons=horizons), names=NAMES)
    assert near.horizons == (100.0, 300.0, 700.0)
    group = microaggregate(phi[:, :4], np.arange(len(phi)), size=25)
    differences, held, shown = [], [], 0
    for row in decisions(7, 100)[0]:
        found = near.like(row)
        nearest = np.argsort(np.linalg.norm(phi - row, axis=1))[: found.decisions]
        order = np.argsort(np.linalg.norm(near.centres - row[:4], axis=1), kind="stable")
        inside = np.isin(group, order[: np.searchsorted(np.cumsum(near.decisions[order]), 100) + 1])
        assert found.decisions == inside.sum() >= 100
        for column, horizon in enumerate(near.horizons):
            if found.estimate[column] is None:
                continue
            shown += 1
            assert found.at_risk[column] is None or 10 <= found.at_risk[column] <= (time[inside] >= horizon).sum()
            truth = np.exp(-horizon / (500 * np.exp(-phi[inside].sum(axis=1)))).mean()
            held.append(found.low[column] <= truth <= found.high[column])
            differences.append(found.estimate[column] - kaplan_meier(time[nearest], event[nearest], horizon))
        told = [one for one in found.estimate if one is not None]
        assert told == sorted(told, reverse=True)
    assert abs(np.mean(differences)) < 0.015
    assert np.std(differences) < 0.06
    assert np.mean(held) > 0.9
    assert shown > 290


def test_levels_and_numbers() -> None:
    rng = np.random.default_rng(8)
    phi, _ = decisions(8)
    level = np.clip(np.rint(phi.sum(axis=1) + 1), 0, 2)
    level[:7] = np.nan
    near = Neighbours.learn(phi, Outcomes.ordinal(level, levels=3), names=NAMES)
    found = near.like(np.array([2.0, 1.0, 0, 1.0, 0]))
    assert near.decisions.sum() == 593
    assert sum(found.estimate) == pytest.approx(1, abs=1e-5)
    assert found.estimate[2] > 0.8
    number = Neighbours.learn(phi, Outcomes.continuous(3 * phi[:, 0] + rng.normal(size=600)), names=NAMES)
    high, middle = number.like(np.array([1.5, 0, 0, 0, 0])), number.like(np.zeros(5))
    assert high.low[0] > middle.high[0]
    assert 0.9 < middle.spread < 2.5
    assert number.like(np.full(5, 9.0)).far
    assert not middle.far
    assert number.like(np.zeros(5), wanted=10**6).decisions == 600


def test_several_decisions_of_a_patient_do_not_narrow_the_interval() -> None:
    phi, y = decisions(9, 300)
    once = Neighbours.learn(phi, Outcomes.binary(y), names=NAMES).like(np.zeros(5), wanted=300)
    often = Neighbours.learn(
        np.repeat(phi, 5, axis=0), Outcomes.binary(np.repeat(y, 5)), names=NAMES, patients=np.repeat(np.arange(300), 5)
    ).like(np.zeros(5), wanted=1_500)
    assert often.estimate == pytest.approx(once.estimate)
    assert often.low == pytest.approx(once.low, abs=0.01)
    assert once.low[0] == pytest.approx(wilson(np.array([y.mean()]), np.array([300.0]))[0][0], abs=1e-5)


def test_one_row_takes_less_than_two_milliseconds() -> None:
    rng = np.random.default_rng(10)
    phi = rng.normal(size=(10_000, 60))
    near = Neighbours.learn(phi, Outcomes.binary((phi[:, 0] > 0) * 1.0), names=[f"lab.x{n}" for n in range(60)])
    taken = []
    for row in phi[:50]:
        begun = clock.process_time()
        near.like(row)
        taken.append(clock.process_time() - begun)
    assert len(near.decisions) <= 1_000
    assert min(taken) < 0.002


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="9 patients with an outcome do not make a group of 10"):
        Neighbours.learn(np.ones((9, 2)), Outcomes.binary(np.ones(9)), names=NAMES[:2])
    phi, y = decisions(1, 100)
    with pytest.raises(ValueError, match="Leave the comparison with like patients out"):
        Neighbours.learn(phi, Outcomes.binary(y), names=NAMES, size=5)
    constant = Neighbours.learn(np.zeros((40, 5)), Outcomes.binary(np.ones(40)), names=NAMES)
    assert constant.like(np.zeros(5)).estimate == (1.0,)
