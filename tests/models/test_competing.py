"""Competing events: the chance that the event comes first, against known truths, a slow loop and Aalen and Johansen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.endpoints import TimeToEventEndpoint
from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.fitting import CalibratedModel, Recipe, fit_calibrated, patient_folds
from theracast_models.head import Head
from theracast_models.links import Asked, HazardLink, IncidenceLink, answers, incidence, link_from_json
from theracast_models.logodds import Floats
from theracast_models.outcomes import Survival
from theracast_models.reference import Reference
from theracast_serving.verify import additivity_error
from theracast_training.comparisons import Judged, evaluate_target
from theracast_training.develop import Judgement, curve_days
from theracast_training.observed import aalen_johansen
from theracast_training.target import Target

HORIZONS = (365.25, 182.625)
ENDPOINT = TimeToEventEndpoint(
    name="relapse", kind="time_to_event", time="T", event="E", unit="day", competing=(2,), horizons=HORIZONS
)
ELASTIC = Recipe("elasticnet", {"c": 1.0, "l1_ratio": 0.2})


def simulated(n: int, seed: int = 0) -> tuple[FeatureTable, Target, Floats]:
    """Return decisions, what happened, and the true chances by the horizons; the two events hang on different features."""
    rng = np.random.default_rng([seed, 6])
    x = rng.normal(size=(n, 3))
    own, rival = 0.0015 * np.exp(0.9 * x[:, 0]), 0.0012 * np.exp(0.8 * x[:, 1])
    time = rng.exponential(size=n) / (own + rival)
    kind = np.where(rng.random(n) < own / (own + rival), 1.0, 2.0)
    censored = rng.uniform(100, 1500, n)
    catalogue = tuple(FeatureSpec(f"lab.x{j}", "lab", "numeric", f"X{j}", (f"x{j}",)) for j in range(3))
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": pd.NaT})
    table = FeatureTable(pd.DataFrame(x, columns=[one.name for one in catalogue]), catalogue, decisions)
    event = np.where(time <= censored, kind, 0.0)
    target = Target(np.full(n, np.nan), np.minimum(time, censored), event, HORIZONS, kind="time_to_event")
    both = (own + rival)[:, None]
    return table, target, (own / (own + rival))[:, None] * -np.expm1(-both * np.array(HORIZONS))


def fitted(table: FeatureTable, target: Target, recipe: Recipe = ELASTIC, *, replicates: int = 0) -> CalibratedModel:
    """Return the recipe fitted to what happened."""
    folds = patient_folds(table, target.strata, folds=5, seed=0)
    return fit_calibrated(
        recipe, table, target.outcome(), folds=folds, replicates=replicates, seed=0, asked=target.asked
    )


def baseline(rng: np.random.Generator) -> HazardLink:
    """Return a baseline that rises unevenly, with a horizon beside the grid."""
    grid = np.linspace(0.0, 600.0, 61)
    hazards = np.concatenate([[0.0], np.cumsum(rng.exponential(0.02, 60))])
    log_hazards = np.log(np.interp(HORIZONS, grid, hazards))
    return IncidenceLink(0.0, 1.0, HORIZONS, tuple(log_hazards), tuple(grid), tuple(hazards))


def test_chances_are_those_of_a_slow_integral() -> None:
    """The sum of survival just before each of 60 000 moments times the hazard of that moment."""
    rng = np.random.default_rng(0)
    own, rival = baseline(rng), baseline(rng)
    linear, against = np.array([-1.0, 0.5]), np.array([0.3, -0.4])
    days = np.array([365.25, 90.0, 600.0])
    found = incidence(own, rival, linear, against, days)
    fine = np.linspace(0, 600, 60_001)
    for row in range(2):
        h1 = np.exp(linear[row]) * np.interp(fine, own.grid, own.grid_hazards)
        h2 = np.exp(against[row]) * np.interp(fine, rival.grid, rival.grid_hazards)
        first = second = 0.0
        at: dict[float, tuple[float, float]] = {}
        for moment in range(60_000):
            before = np.exp(-h1[moment] - h2[moment])
            first += before * (h1[moment + 1] - h1[moment])
            second += before * (h2[moment + 1] - h2[moment])
            for day in days:
                if fine[moment + 1] <= day:
                    at[day] = (first, second)
        for place, day in enumerate(days):
            assert found[0][row, place] == pytest.approx(at[day][0], abs=5e-5)
            assert found[1][row, place] == pytest.approx(at[day][1], abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-6, 6), st.floats(-6, 6))
def test_one_of_three_things_happens(seed: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    own, rival = baseline(rng), baseline(rng)
    days = np.sort(rng.uniform(0, 700, 5))
    first, second, free = incidence(own, rival, np.array([one]), np.array([other]), days)
    np.testing.assert_allclose(first + second + free, 1.0, atol=1e-12)
    for rising in (first, second, -free):
        assert (np.diff(rising) >= -1e-15).all()
    turned = incidence(rival, own, np.array([other]), np.array([one]), days)
    np.testing.assert_allclose(turned[0], second, atol=1e-12)
    alone = -np.expm1(-np.exp(one) * np.interp(days, *own.knots()))
    assert (first <= alone + 1e-12).all()


def test_without_rivals_it_is_the_plain_chance() -> None:
    own = baseline(np.random.default_rng(1))
    nothing = replace(own, log_hazards=(-30.0, -30.0), grid_hazards=(0.0,) * 61)
    linear = np.array([-0.5, 0.0, 1.0])
    found = incidence(own, nothing, linear, np.zeros(3), np.array(HORIZONS))[0]
    plain = HazardLink(**vars(own))
    np.testing.assert_allclose(found, answers(plain, linear), atol=1e-9)


@pytest.mark.parametrize(
    "recipe", [ELASTIC, Recipe("lightgbm", {"rounds": 60, "num_leaves": 4}), Recipe("neural", {"sparsity": 0.03})]
)
def test_known_chances_are_found_and_the_naive_ones_are_too_high(recipe: Recipe) -> None:
    table, target, truth = simulated(2400)
    learn, test = np.arange(1600), np.arange(1600, 2400)
    model = fitted(table.take(learn), target.take(learn), recipe)
    asked, known, truth = table.take(test), target.take(test), truth[test]
    found = model.answers(asked)
    assert np.abs(found - truth).mean(axis=0).max() < 0.045
    np.testing.assert_allclose(found.mean(axis=0), truth.mean(axis=0), atol=0.025)
    assert known.time is not None
    assert known.event is not None
    observed = aalen_johansen(known.time, known.event, cause=1).at(np.array(HORIZONS))
    np.testing.assert_allclose(found.mean(axis=0), observed, atol=0.04)
    # As if who had the other event were still waiting for this one.
    alone = fitted(
        table.take(learn), replace(target.take(learn), event=(target.event[learn] == 1).astype(float)), recipe
    )  # type: ignore[index]
    naive = alone.answers(asked)
    assert (naive.mean(axis=0) - truth.mean(axis=0) > [0.06, 0.02]).all()
    np.testing.assert_allclose(alone.log_odds(asked), model.log_odds(asked), atol=1e-9)  # the hazard is the same
    first, second, free = model.incidences(model.log_odds(asked), asked, np.array(HORIZONS))
    np.testing.assert_allclose(first + second + free, 1.0, atol=1e-12)
    np.testing.assert_array_equal(first, found)


def test_what_is_told_adds_up_and_comes_back_from_disk(tmp_path: Path) -> None:
    table, target, _ = simulated(300)
    model = fitted(table, target, replicates=30)
    asked = table.take(np.arange(12))
    head = Head(ENDPOINT, model, Reference(0, 0, 0.5, (), {}))
    answer = head.answer(asked, asked.catalogue)
    rows = answer.rows()
    assert additivity_error(rows) < 1e-9
    assert {row["scale"] for row in rows} == {"log cause-specific hazard"}
    assert [one["name"] for one in rows[0]["answers"]] == ["365.2 days", "182.6 days"]
    for number, row in enumerate(rows):
        linear = model.log_odds(asked)[[number]] + model.calibration.offsets[0]
        assert row["on_scale"] == pytest.approx(float(linear[0]))
        assert row["probability"] == row["answers"][0]["probability"]
        for one in row["answers"]:
            assert 0 < one["low"] < one["probability"] < one["high"] < 1
            assert one["probability"] + one["competing"] < 1
    spoilt = [row | {"base": row["base"] + 0.01} for row in rows]
    assert additivity_error(spoilt) == pytest.approx(0.01)
    model.save(tmp_path / "model")
    again = CalibratedModel.load(tmp_path / "model")
    assert again.rival is not None
    assert Head(ENDPOINT, again, head.reference).answer(asked, asked.catalogue).rows() == rows


def test_the_interval_holds_the_truth() -> None:
    """Of the chance of a typical patient, in 20 cohorts; the rival's resamples are the event's."""
    held = 0
    for seed in range(20):
        table, target, _ = simulated(250, seed=seed + 100)
        model = fitted(table, target, replicates=30)
        typical = FeatureTable(table.frame.iloc[:1] * 0, table.catalogue, table.decisions.iloc[:1])
        low, high = model.intervals_around(model.log_odds(typical), typical)
        truth = 0.0015 / 0.0027 * -np.expm1(-0.0027 * HORIZONS[0])
        held += low[0, 0] < truth < high[0, 0]
    assert held >= 16


def test_performance_is_that_among_competing_events() -> None:
    table, target, truth = simulated(900)
    learn, test = np.arange(500), np.arange(500, 900)
    model = fitted(table.take(learn), target.take(learn))
    judged = Judged.of(test, Judgement.by(model, table.take(test)))
    assert judged.curve is not None
    assert judged.curve.shape == (400, len(curve_days(HORIZONS)))
    known = replace(target.take(test), y=_by(target, test))
    found = evaluate_target(known, judged, thresholds=(0.3,), group=test, bootstrap=0, seed=0)
    survival = found["survival"]
    assert survival["competing"] == int((target.event[test] == 2).sum())  # type: ignore[index]
    row = survival["horizons"][-1]
    assert row["observed"] == pytest.approx(truth[test, 0].mean(), abs=0.06)
    assert row["observed_expected"] == pytest.approx(1, abs=0.2)
    assert row["auc"] > 0.65
    assert found["auc"] == pytest.approx(row["auc"], abs=0.03)
    naive = answers(HazardLink(**vars(model.calibration)), judged.linear)  # type: ignore[arg-type]
    worse = evaluate_target(
        known,
        replace(judged, probability=naive[:, 0], answers=naive),
        thresholds=(0.3,),
        group=test,
        bootstrap=0,
        seed=0,
    )
    assert worse["survival"]["horizons"][-1]["observed_expected"] < row["observed_expected"] - 0.1
    assert worse["brier"] > found["brier"]


def _by(target: Target, rows: Any) -> Floats:
    from theracast_data.endpoint_values import event_within

    assert target.time is not None
    assert target.event is not None
    return event_within(target.time, target.event, HORIZONS[0])[rows]


def test_who_had_the_other_event_is_known_not_to_have_this_one() -> None:
    target = Target(
        np.array([1.0, 0, 0, np.nan]),
        np.array([10.0, 20, 400, 30]),
        np.array([1.0, 2, 0, 0]),
        HORIZONS,
        kind="time_to_event",
    )
    np.testing.assert_array_equal(target.strata, [1, 0, 0, 0])
    outcome = target.outcome()
    assert isinstance(outcome, Survival)
    np.testing.assert_array_equal(outcome.event, [1, 0, 0, 0])
    rival = outcome.rival
    assert rival is not None
    np.testing.assert_array_equal(rival.event, [0, 1, 0, 0])
    assert rival.rival is not None
    np.testing.assert_array_equal(rival.rival.event, outcome.event)
    np.testing.assert_allclose(target.weight(), [1, 1, 2, 0])  # the one censored at 30 is made up for by the one at 400
    assert replace(target, event=np.array([1.0, 0, 0, 0])).outcome().competing is None  # type: ignore[attr-defined]


def test_few_competing_events_have_one_hazard_for_all() -> None:
    table, target, _ = simulated(200)
    assert target.event is not None
    rare = target.event.copy()
    rare[np.flatnonzero(rare == 2)[6:]] = 0
    model = fitted(table, replace(target, event=rare))
    assert model.rival is not None
    assert np.ptp(model.rival.log_odds(table)) < 1e-12
    none = fitted(table, replace(target, event=np.where(target.event == 2, 0.0, target.event)))
    assert none.rival is None
    assert not isinstance(none.calibration, IncidenceLink)
    outcome = Survival(target.time, (target.event == 1).astype(float), np.ones(200), np.zeros(200))  # type: ignore[arg-type]
    folds = patient_folds(table, outcome.strata, folds=3, seed=0)
    assert (
        fit_calibrated(ELASTIC, table, outcome, folds=folds, replicates=0, seed=0, asked=Asked(HORIZONS)).rival is None
    )


def test_the_other_event_is_never_left_out_in_silence() -> None:
    link = baseline(np.random.default_rng(0))
    with pytest.raises(TypeError, match="needs both hazards"):
        answers(link, np.zeros(2))
    with pytest.raises(TypeError, match="needs both hazards"):
        link.by(np.array([10.0]), np.zeros(2))
    assert link_from_json(json.loads(json.dumps(link.to_json()))) == link
    with pytest.raises(ArtifactError, match="does not know"):  # what an older version makes of it
        link_from_json(link.to_json() | {"kind": "competing, of another kind"})
