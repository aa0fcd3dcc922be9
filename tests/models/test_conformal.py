"""Conformal answers: against counting by hand, against mapie, and against what exchangeability promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_models.conformal import (
    BinarySets,
    Conformal,
    EventTimes,
    Intervals,
    OrdinalSets,
    conformal_from_json,
    probability_at,
    run_scores,
    time_at,
)
from theracast_models.thresholds import Cell, Scores, Thresholds, outwards, weighted_quantile

ALPHA = 0.1


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are not calibrated (the model is too sure), and outcomes."""
    eta = rng.normal(-0.8, 1.2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return 1 / (1 + np.exp(-1.7 * eta)), y


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=40),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
)
def test_the_quantile_is_the_rank_of_split_conformal(numbers: list[int], level: float) -> None:
    """Ties and tiny n included: beyond the last rank there is no limit."""
    values = np.array(numbers, dtype=float)
    rank = int(np.ceil(round((len(values) + 1) * level, 9)))
    expected = sorted(values)[rank - 1] if rank <= len(values) else np.inf
    assert weighted_quantile(values, np.ones(len(values)), beyond=1.0, level=level) == expected


@given(st.floats(-1e9, 1e9, allow_subnormal=False))
def test_rounding_goes_outwards_and_not_far(value: float) -> None:
    found = outwards(value)
    assert value <= found <= value + abs(value) * 0.0100001 + 1e-300


@pytest.mark.parametrize("n", [30, 200])
def test_sets_equal_those_of_mapie(n: int) -> None:
    """Split conformal with the score 1 - p; ours are equal but where a probability lies within the rounding of the limit."""
    mapie = pytest.importorskip("mapie.classification", reason="pip install mapie")
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(n)
    x = rng.normal(size=(3 * n, 2))
    y = (x[:, 0] + rng.normal(size=3 * n) > 0.8).astype(int)
    model = LogisticRegression().fit(x[:n], y[:n])
    theirs = mapie.SplitConformalClassifier(model, confidence_level=[0.8, 0.9, 0.95], prefit=True)
    theirs.conformalize(x[n : 2 * n], y[n : 2 * n])
    p, asked = model.predict_proba(x[n : 2 * n])[:, 1], model.predict_proba(x[2 * n :])[:, 1]
    ours = BinarySets.learn(p, y[n : 2 * n].astype(float), source="held_out")
    _, sets = theirs.predict_set(x[2 * n :])
    for place, coverage in enumerate((0.8, 0.9, 0.95)):
        limit = ours.thresholds.limits(1, coverage=coverage)[0]
        strange = np.column_stack([asked, 1 - asked])
        near = np.abs(strange - limit) <= 0.0101 * limit
        found = ours.sets(asked, coverage=coverage)
        assert np.array_equal(found[~near], sets[:, :, place][~near])
        assert (found >= sets[:, :, place]).all()
        assert near.mean() < 0.1


def test_intervals_equal_those_of_mapie_over_folds() -> None:
    """mapie's method `base`: out-of-fold residuals around the one model that was fitted to all."""
    mapie = pytest.importorskip("mapie.regression", reason="pip install mapie")
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import KFold, cross_val_predict

    rng = np.random.default_rng(3)
    x = rng.normal(size=(250, 3))
    y = x[:, 0] + rng.standard_t(4, size=250)
    folds = KFold(5)
    theirs = mapie.CrossConformalRegressor(LinearRegression(), confidence_level=0.9, method="base", cv=folds)
    _, ends = theirs.fit_conformalize(x[:200], y[:200]).predict_interval(x[200:])
    model = LinearRegression().fit(x[:200], y[:200])
    ours = Intervals.learn(
        cross_val_predict(LinearRegression(), x[:200], y[:200], cv=folds), y[:200], source="out_of_fold"
    )
    found = ours.sets(model.predict(x[200:]))
    width = np.ptp(ends[:, :, 0], axis=1)
    assert np.ptp(found, axis=1) == pytest.approx(width, rel=0.0101)
    assert (np.ptp(found, axis=1) >= width - 1e-9).all()
    assert found.mean(axis=1) == pytest.approx(ends[:, :, 0].mean(axis=1))


def test_intervals_of_two_quantiles_and_of_a_spread_hold_what_they_promise() -> None:
    """The spread of the outcome grows with x: only the two that know it are as good for large x as for small."""
    rng = np.random.default_rng(4)
    x = rng.uniform(0.2, 3, 40_000)
    y = x * rng.normal(size=len(x))
    learn, test = slice(0, 2_000), slice(2_000, None)
    wide = x[test] > 2
    found = {
        "absolute": Intervals.learn(0 * x[learn], y[learn], source="held_out").sets(0 * x[test]),
        "normalised": Intervals.learn(0 * x[learn], y[learn], spread=x[learn], source="held_out").sets(
            0 * x[test], spread=x[test]
        ),
        "quantile": Intervals.learn(np.column_stack([-x, x])[learn], y[learn], source="held_out").sets(
            np.column_stack([-x, x])[test]
        ),
    }
    inside = {name: (ends[:, 0] <= y[test]) & (y[test] <= ends[:, 1]) for name, ends in found.items()}
    for name, held in inside.items():
        assert held.mean() == pytest.approx(0.9, abs=0.025), name
    assert inside["normalised"][wide].mean() == pytest.approx(0.9, abs=0.03)
    assert inside["absolute"][wide].mean() < 0.82


@pytest.mark.parametrize("n", [20, 60, 300])
def test_the_mean_coverage_is_what_exchangeability_promises(n: int) -> None:
    """Between 90 % and 90 % + 1 / (n + 1) over many learnings; a model that is not calibrated changes nothing."""
    rng = np.random.default_rng(n)
    held = []
    for _ in range(600):
        p, y = drawn(rng, n + 200)
        sets = BinarySets.learn(p[:n], y[:n], source="held_out").sets(p[n:])
        held.append(sets[np.arange(200), y[n:].astype(int)].mean())
    error = np.std(held) / np.sqrt(len(held))
    assert 0.9 - 3 * error < np.mean(held) < 0.9 + 1 / (n + 1) + 0.01 + 3 * error  # 0.01: rounding outwards


def test_a_site_of_its_own_kind_gets_its_own_promise() -> None:
    rng = np.random.default_rng(8)
    p, y = drawn(rng, 6_000)
    sites = rng.choice(["A", "B"], len(p), p=[0.8, 0.2]).tolist()
    off = np.array(sites) == "B"
    y[off] = rng.random(off.sum()) < 0.5  # at B the model says nothing
    learn, test = slice(0, 3_000), slice(3_000, None)
    one = BinarySets.learn(p[learn], y[learn], source="held_out")
    two = BinarySets.learn(p[learn], y[learn], source="held_out", groups=sites[learn])
    at_b, row = off[test], np.arange(3_000)
    pooled = one.sets(p[test])[row, y[test].astype(int)]
    own = two.sets(p[test], groups=sites[test])[row, y[test].astype(int)]
    assert pooled.mean() == pytest.approx(0.9, abs=0.02)
    assert pooled[at_b].mean() < 0.85
    for site in (at_b, ~at_b):
        assert own[site].mean() == pytest.approx(0.9, abs=0.025)


def test_each_outcome_gets_its_own_promise() -> None:
    rng = np.random.default_rng(9)
    p, y = drawn(rng, 8_000)
    sets = BinarySets.learn(p[:4_000], y[:4_000], source="held_out", by_outcome=True)
    inside = sets.sets(p[4_000:])
    for outcome in (0, 1):
        rows = y[4_000:] == outcome
        assert inside[rows, outcome].mean() == pytest.approx(0.9, abs=0.02)
    pooled = BinarySets.learn(p[:4_000], y[:4_000], source="held_out").sets(p[4_000:])
    assert pooled[y[4_000:] == 1, 1].mean() < 0.88


def test_a_small_group_is_judged_by_all_and_says_so() -> None:
    rng = np.random.default_rng(1)
    p, y = drawn(rng, 200)
    groups = ["big"] * 160 + ["small"] * 31 + ["tiny"] * 9
    sets = BinarySets.learn(p, y, source="out_of_fold", groups=groups)
    thresholds = sets.thresholds
    assert [(cell.group, cell.patients) for cell in thresholds.cells] == [(None, 200), ("big", 160), ("small", 31)]
    asked = thresholds.limits(4, coverage=0.9, groups=["big", "small", "tiny", None])
    assert asked[1] == asked[2] == asked[3] == thresholds.limits(1, coverage=0.9)[0]
    assert thresholds.basis("big") == "160 development patients of the group big"
    assert thresholds.basis("small").startswith(
        "all 200 development patients, since the group small has fewer than 50; the coverage holds on average"
    )
    assert thresholds.basis(None) == "all 200 development patients"
    assert "tiny" not in json.dumps(sets.to_json())
    with pytest.raises(ValueError, match=r"no thresholds were learned for a coverage of 0\.85; there are"):
        sets.sets(p, coverage=0.85)


def test_too_few_for_the_coverage_is_everything() -> None:
    """With 12 patients 90 % can be promised and 95 % cannot; with 9 nothing is kept at all."""
    p, y = drawn(np.random.default_rng(2), 12)
    sets = BinarySets.learn(p, y, source="held_out")
    assert sets.thresholds.cells[0].limits[1] is not None
    assert sets.thresholds.cells[0].limits[2] is None
    assert sets.sets(p, coverage=0.95).all()
    none = BinarySets.learn(p[:9], y[:9], source="held_out")
    assert (none.thresholds.cells, none.sets(p, coverage=0.8).all()) == ((), True)
    assert none.thresholds.basis("A").startswith("no threshold: fewer than 10 patients")
    few = EventTimes.learn(
        np.full((9, 1), 0.2), np.full(9, 5.0), np.ones(9), horizons=[10], source="held_out", weight=np.ones(9)
    )
    assert few.sets(np.full((2, 1), 0.2)).tolist() == [0.0, 0.0]


def test_the_same_score_for_all_is_in_every_set() -> None:
    y = np.r_[np.ones(40), np.zeros(60)]
    sets = BinarySets.learn(np.full(100, 0.5), y, source="held_out")
    assert sets.sets(np.full(3, 0.5)).all()
    assert (
        BinarySets.learn(np.zeros(100), np.zeros(100), source="held_out").sets(np.zeros(2)).tolist()
        == [[True, False]] * 2
    )


def test_a_patient_counts_once_however_many_decisions() -> None:
    """A patient whose 200 decisions all went wrong weighs as much as one with one decision."""
    values = np.r_[np.linspace(0, 1, 99), np.full(200, 50.0)]
    patients = np.r_[np.arange(99), np.full(200, 99)]
    found = Thresholds.learn(Scores(values, patients=patients), source="held_out").cells[0]
    alone = Thresholds.learn(Scores(np.r_[values[:99], 50.0]), source="held_out").cells[0]
    assert found == alone
    assert found.patients == 100
    assert found.limits[1] < 1


def test_decisions_of_new_patients_are_covered() -> None:
    """Patients have 1 to 9 decisions that resemble each other, the frail ones more: one drawn at random is covered."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        frail = rng.random(120)
        many = 1 + rng.binomial(8, frail)
        patients = np.repeat(np.arange(120), many)
        values = np.abs(rng.normal(size=120) * (0.5 + 2 * frail))[patients] + 0.2 * rng.random(len(patients))
        learn = patients < 80
        limit = Thresholds.learn(Scores(values[learn], patients=patients[learn]), source="held_out").limits(
            1, coverage=0.9
        )
        inside = (values <= limit[0]).astype(float)
        held.append((np.bincount(patients, inside) / np.bincount(patients))[80:].mean())
    assert np.mean(held) == pytest.approx(0.905, abs=0.012)


def test_weights_repair_what_censoring_hides() -> None:
    """Outcome at 1 year, half of the patients lost early: early events are seen more often than survivors."""
    rng = np.random.default_rng(6)
    held, bare = [], []
    for _ in range(60):
        risk = rng.normal(size=3_000)
        died = rng.exponential(np.exp(-risk) * 1.2)
        left = rng.exponential(0.9, len(risk))
        y = (died <= 1).astype(float)
        known = (np.minimum(died, 1) <= left)[:1_000]
        weight = np.where(known, np.exp(np.minimum(died, 1)[:1_000] / 0.9), 0.0)
        p = 1 - 0.6 / (1 + np.exp(risk))  # too high for those who live
        for told, into in ((weight, held), ((weight > 0) * 1.0, bare)):
            sets = BinarySets.learn(p[:1_000], y[:1_000], weight=told, source="held_out").sets(p[1_000:])
            into.append(sets[np.arange(2_000), y[1_000:].astype(int)].mean())
    assert np.mean(held) == pytest.approx(0.905, abs=0.012)
    assert np.mean(bare) < 0.885


def test_events_do_not_come_before_the_bound() -> None:
    """Event times are covered on all new patients, seen or not, though half are censored; and the bound says something."""
    rng = np.random.default_rng(7)
    horizons = np.array([90.0, 180.0, 365.0, 730.0])
    held, bounds = [], []
    for _ in range(40):
        risk = rng.normal(size=2_500)
        died = 900 * rng.weibull(1.4, len(risk)) * np.exp(-0.8 * risk)
        left = rng.exponential(900, len(risk))
        curve = 1 - np.exp(-np.outer(np.exp(0.5 * risk), (horizons / 600) ** 1.1))  # not the truth
        time, event = np.minimum(died, left), (died <= left).astype(float)
        ends = np.minimum(time, 730.0)
        weight = np.where((event == 1) | (time >= 730), np.exp(ends / 900), 0.0)
        learn = slice(0, 600)
        found = EventTimes.learn(
            curve[learn], time[learn], event[learn], horizons=horizons, source="held_out", weight=weight[learn]
        )
        bound = found.sets(curve[600:])
        bounds.append(np.median(bound))
        held.append((died[600:] >= bound).mean())
        assert bound.max() <= 730
    assert np.mean(held) == pytest.approx(0.907, abs=0.012)
    assert np.mean(bounds) > 30


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=5), st.floats(0, 0.9999), st.floats(0, 900))
def test_time_and_probability_are_inverse(risks: list[float], wanted: float, day: float) -> None:
    curve = np.sort(np.array([risks]), axis=1)
    horizons = 100.0 * np.arange(1, len(risks) + 1)
    time = time_at(curve, np.array([wanted]), horizons=horizons)
    reached = probability_at(curve, time, horizons=horizons)[0]
    assert 0 <= time[0] <= horizons[-1]
    assert reached <= wanted + 1e-9
    if time[0] < horizons[-1]:
        assert reached >= wanted - 1e-6
    at = probability_at(curve, np.array([day]), horizons=horizons)
    assert time_at(curve, at, horizons=horizons)[0] <= min(day, horizons[-1]) + 1e-6


def slow_runs(p: np.ndarray) -> np.ndarray:
    """The run of levels of one decision, grown one level after the other."""
    inside, scores = [int(p.argmax())], np.zeros(len(p))
    while len(inside) < len(p):
        around = [one for one in (max(inside) + 1, min(inside) - 1) if 0 <= one < len(p)]
        new = max(around, key=lambda one: p[one])
        scores[new] = sum(p[inside])
        inside.append(new)
    return scores


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), min_size=4, max_size=4), min_size=1, max_size=8))
def test_runs_equal_a_slow_loop_and_are_contiguous(weights: list[list[int]]) -> None:
    p = np.array(weights, dtype=float)
    p /= p.sum(axis=1, keepdims=True)
    scores = run_scores(p)
    assert scores == pytest.approx(np.array([slow_runs(row) for row in p]))
    for limit in (0.0, 0.3, 0.6, 0.95):
        for row in scores <= limit:
            inside = np.flatnonzero(row)
            assert len(inside) == inside[-1] - inside[0] + 1


def test_levels_are_covered() -> None:
    rng = np.random.default_rng(12)
    held, sizes = [], []
    for _ in range(100):
        eta = rng.normal(size=700)
        level = np.digitize(eta + rng.logistic(size=700), [-1.0, 0.5, 1.5])
        above = 1 / (1 + np.exp(-(1.5 * eta[:, None] - np.array([-1.0, 0.5, 1.5]))))
        p = -np.diff(np.column_stack([np.ones(700), above, np.zeros(700)]), axis=1)
        sets = OrdinalSets.learn(p[:300], level[:300].astype(float), source="held_out").sets(p[300:])
        held.append(sets[np.arange(400), level[300:]].mean())
        sizes.append(sets.sum(axis=1).mean())
    assert np.mean(held) == pytest.approx(0.905, abs=0.012)
    assert 1 < np.mean(sizes) < 4


def test_what_is_kept_is_few_round_numbers() -> None:
    """Of 300 patients three limits a cell, none of them a patient's score; and nothing changes by keeping it."""
    rng = np.random.default_rng(13)
    p, y = drawn(rng, 300)
    curve = np.sort(rng.random((300, 3)), axis=1)
    made: list[Conformal] = [
        BinarySets.learn(p, y, source="out_of_fold", groups=["A"] * 300, by_outcome=True),
        OrdinalSets.learn(np.column_stack([1 - p, p / 2, p / 2]), y, source="out_of_fold"),
        Intervals.learn(p, y + p, source="out_of_fold", spread=p),
        EventTimes.learn(curve, 300 * p, y, horizons=[50, 100, 200], source="out_of_fold", weight=np.ones(300)),
    ]
    for one in made:
        text = json.dumps(one.to_json(), allow_nan=False)
        assert conformal_from_json(json.loads(text)) == one
        assert len(text) < 1_000
        limits = [limit for cell in one.thresholds.cells for limit in cell.limits if limit]
        assert all(limit == outwards(limit) for limit in limits)
    with pytest.raises(ValueError, match="no conformal answer of kind 'other'"):
        conformal_from_json({"kind": "other"})
    with pytest.raises(ValueError, match="learned from normalised residuals; these predictions are absolute"):
        made[2].sets(p)
    assert not any(np.isclose(1 - p, limit, atol=1e-9).any() for limit in made[0].thresholds.cells[0].limits if limit)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 scores need as many of weight \(2\)"):
        Thresholds.learn(Scores(np.zeros(3), weight=np.ones(2)), source="held_out")
    with pytest.raises(ValueError, match="coverages lie between 0 and 1"):
        Thresholds.learn(Scores(np.zeros(3)), source="held_out", coverages=(90,))
    with pytest.raises(ValueError, match="a spread must be above 0"):
        Intervals.learn(np.zeros(20), np.zeros(20), spread=np.zeros(20), source="held_out")
    assert Cell(None, None, 12, (None,)).limits == (None,)
