"""The additive network: its shares are Shapley's, its hazards those of discrete time, and it bends where the truth bends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.additive_net import Settings, _Hazards, train_additive
from theracast_models.discrete_time import exposure, interval_ends
from theracast_models.elasticnet import ElasticNet
from theracast_models.fitting import CalibratedModel, Recipe, build_model, fit_calibrated, patient_folds
from theracast_models.links import Asked
from theracast_models.logodds import Floats, expit
from theracast_models.neural import Neural
from theracast_models.outcomes import Binary, Continuous, Ordinal, Outcome, Survival
from theracast_models.shapes import Shapes

QUICK = {"width": 4, "steps": 40, "learning_rate": 0.05}
KINDS = ("binary", "time_to_event", "ordinal", "continuous")


def outcome_of(kind: str, score: Floats, seed: int = 0) -> Outcome:
    """Return outcomes of which the score is the log-odds, the log-hazard, or the number but for noise."""
    rng = np.random.default_rng([seed, 8])
    n, weight = len(score), np.ones(len(score))
    if kind == "binary":
        return Binary((rng.random(n) < expit(score)).astype(float), weight)
    if kind == "time_to_event":
        time, censored = 400 * rng.exponential(size=n) * np.exp(-score), rng.uniform(100, 1500, n)
        return Survival(np.minimum(time, censored), (time <= censored).astype(float), weight)
    if kind == "ordinal":
        latent = score + rng.logistic(size=n)
        return Ordinal((latent[:, None] > [-1.0, 0.0, 1.5]).sum(axis=1).astype(float), 4, weight)
    return Continuous(50 + 20 * (score + 0.5 * rng.normal(size=n)), weight)


def numbers(n: int, p: int, seed: int = 0) -> tuple[FeatureTable, Floats]:
    """Return decisions with p standard normal features."""
    x = np.random.default_rng([seed, 5]).normal(size=(n, p))
    catalogue = tuple(FeatureSpec(f"lab.x{j}", "lab", "numeric", f"X{j}", (f"x{j}",)) for j in range(p))
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": pd.NaT})
    frame = pd.DataFrame(x, columns=[one.name for one in catalogue])
    return FeatureTable(frame, catalogue, decisions), x


def bent(x: Floats) -> Floats:
    """Return a score that no line can follow."""
    result: Floats = (x[:, 0] ** 2 - 1) + 1.2 * np.sin(2 * x[:, 1])
    return result


def test_an_interval_is_survived_or_not_as_a_slow_loop_counts() -> None:
    rng = np.random.default_rng(0)
    time, event = np.round(rng.uniform(0, 100, 80)), (rng.random(80) < 0.5).astype(float)
    ends = interval_ends(time, event)
    assert len(ends) == min(int(event.sum()) // 5, 15)
    assert ends[-1] == time[event == 1].max()
    at_risk, comes = exposure(np.append(time, 200.0), np.append(event, 1.0), ends)
    for row in range(80):
        for place, end in enumerate(ends):
            start = ends[place - 1] if place else 0.0
            inside = (event[row] == 1 and start < time[row] <= end) or (
                place == 0 and event[row] == 1 and time[row] == 0
            )
            assert comes[row, place] == inside
            lived = time[row] > start or place == 0 if event[row] == 1 else time[row] >= (start + end) / 2
            assert at_risk[row, place] == lived
    assert (at_risk[80] == 1).all()
    assert not comes[80].any()


def test_the_loss_is_that_of_a_logistic_regression_over_the_intervals_lived() -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(size=60)
    outcome = replace(outcome_of("time_to_event", score), weight=rng.uniform(0.5, 2, 60))
    everyone = np.arange(60)
    objective = _Hazards(outcome, (everyone, everyone[:0]))
    found = float(objective(torch.tensor(score, dtype=torch.float32), 0).detach())
    at_risk, comes = exposure(outcome.time, outcome.event, interval_ends(outcome.time, outcome.event))
    alpha = objective.alpha.detach().numpy().astype(float)
    expected = 0.0
    for row in range(60):
        for place in np.flatnonzero(at_risk[row]):
            hazard = expit(alpha[place] + score[row])
            expected -= outcome.weight[row] * np.log(hazard if comes[row, place] else 1 - hazard)
    assert found == pytest.approx(expected / (outcome.weight @ outcome.event), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_those_of_shapley(kind: str, make_table: Any) -> None:
    """Over all coalitions, what is absent drawn from the training decisions."""
    table, _ = make_table(3, n=80, missing=0.2)
    kept = [0, 1, 4, 6]
    names = [table.catalogue[place].name for place in kept]
    table = FeatureTable(table.frame[names], tuple(table.catalogue[place] for place in kept), table.decisions)
    outcome = outcome_of(kind, np.nan_to_num(table.frame["lab.albumin"].to_numpy(dtype=float) - 3.8))
    model = Neural(**QUICK).fit(table, outcome)
    base, phi = model.contributions(table)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(table), atol=1e-9)
    assert np.ptp(base) == 0
    asked = table.take(np.arange(3))

    def value(row: int, present: tuple[int, ...]) -> float:
        frame = table.frame.copy()
        for place in present:
            frame[names[place]] = asked.frame[names[place]].iloc[row]
        return float(model.log_odds(FeatureTable(frame, table.catalogue, table.decisions)).mean())

    for row in range(3):
        for place in range(4):
            others = [one for one in range(4) if one != place]
            share = 0.0
            for size in range(4):
                for coalition in combinations(others, size):
                    gain = value(row, (*coalition, place)) - value(row, coalition)
                    share += factorial(size) * factorial(3 - size) / factorial(4) * gain
            assert phi[row, place] == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_it_follows_what_no_line_can(kind: str) -> None:
    table, x = numbers(900, 6)
    outcome = outcome_of(kind, bent(x))
    train, test = np.arange(500), np.arange(500, 900)
    settings = {"sparsity": 0.03, "learning_rate": 0.05, "width": 6}
    model = Neural(**settings).fit(table.take(train), outcome.take(train))
    line = ElasticNet(0.1).fit(table.take(train), outcome.take(train))
    truth = bent(x)[test]
    assert np.corrcoef(model.log_odds(table.take(test)), truth)[0, 1] > 0.8
    assert np.corrcoef(line.log_odds(table.take(test)), truth)[0, 1] < 0.7
    _, phi = model.contributions(table.take(test))
    spread = phi.std(axis=0)
    assert spread[:2].min() > 2.5 * spread[2:].max()
    assert np.corrcoef(phi[:, 0], x[test, 0] ** 2)[0, 1] > 0.8


def test_curves_of_numbers_do_not_hang_on_the_unit() -> None:
    table, x = numbers(150, 3)
    outcome = outcome_of("continuous", bent(x))
    assert isinstance(outcome, Continuous)
    model = Neural(**QUICK).fit(table, outcome)
    thousandth = Neural(**QUICK).fit(table, Continuous(outcome.y / 1000, outcome.weight))
    np.testing.assert_allclose(1000 * thousandth.log_odds(table), model.log_odds(table), rtol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_leaves_pytorch_as_it_was() -> None:
    table, x = numbers(80, 3)
    outcome = outcome_of("time_to_event", bent(x))
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first, again, other = (Neural(seed=seed, **QUICK).fit(table, outcome).log_odds(table) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_who_has_weight_0_teaches_nothing() -> None:
    table, x = numbers(120, 3)
    outcome = outcome_of("time_to_event", bent(x))
    kept = np.arange(100)
    weight = (np.arange(120) < 100).astype(float)
    some = Neural(**QUICK).fit(table, replace(outcome, weight=weight))
    alone = Neural(**QUICK).fit(table.take(kept), outcome.take(kept))
    np.testing.assert_allclose(some.log_odds(table), alone.log_odds(table), atol=1e-12)


def test_few_patients_and_columns_that_say_nothing_are_no_fault() -> None:
    table, x = numbers(12, 2)
    frame = table.frame.assign(**{"lab.x1": np.nan})
    table = FeatureTable(frame, table.catalogue, table.decisions)
    outcome = Survival(np.arange(12.0) * 30, (np.arange(12) < 3).astype(float), np.ones(12))
    model = Neural(**QUICK).fit(table, outcome)
    _, phi = model.contributions(table)
    assert np.isfinite(phi).all()
    assert not phi[:, 1].any()
    constant = FeatureTable(table.frame * 0 + 1, table.catalogue, table.decisions)
    assert np.ptp(Neural(**QUICK).fit(constant, outcome).log_odds(constant)) == 0
    assert x.shape == (12, 2)


def test_an_untrained_network_is_kept_where_nothing_can_be_learned() -> None:
    """Noise alone: what is kept has no larger loss on the patients held back than no score at all."""
    table, _ = numbers(60, 8)
    z = table.frame.to_numpy()
    outcome = outcome_of("binary", np.zeros(60), seed=4)
    train, held_back = np.arange(40), np.arange(40, 60)
    intercept, shapes = train_additive(
        z,
        outcome,
        owner=np.arange(8),
        curved=np.arange(8),
        train=train,
        held_back=held_back,
        settings=Settings(4, 0.0, 0.0, 0.05, 100),
        seed=0,
    )
    unseen = outcome.take(held_back)
    assert (
        unseen.loss(intercept + shapes.parts(z[held_back]).sum(axis=1))
        <= unseen.loss(np.full(20, outcome.start())) + 1e-4
    )


@pytest.mark.parametrize("family", ["neural", "stack", "restricted"])
def test_it_comes_back_from_disk_as_it_was(family: str, tmp_path: Path, make_table: Any, make_holes: Any) -> None:
    table, y = make_table(0, n=120)
    outcome = outcome_of("time_to_event", y)
    recipe = Recipe("neural", QUICK, modality="lab" if family == "restricted" else None)
    if family == "stack":
        recipe = Recipe("stack", {"members": [Recipe("elasticnet", {"c": 0.3}), recipe], "folds": 3})
    folds = patient_folds(table, outcome.strata, folds=3, seed=0)
    asked = Asked((365.25, 182.625))
    fitted = fit_calibrated(recipe, table, outcome, folds=folds, replicates=25, seed=0, asked=asked)
    assert len(fitted.replicates) == 20
    holes = make_holes(table, 1)
    linear = fitted.log_odds(holes)
    low, high = fitted.intervals_around(linear, holes)
    assert ((low < fitted.answers(holes)) & (fitted.answers(holes) < high)).all()
    fitted.save(tmp_path / "model")
    again = CalibratedModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.answers(holes), fitted.answers(holes))
    np.testing.assert_array_equal(again.intervals_around(linear, holes), (low, high))
    for mine, theirs in zip(again.explain(holes), fitted.explain(holes), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_answers_need_no_pytorch(tmp_path: Path, make_table: Any) -> None:
    table, y = make_table(0, n=60)
    model = build_model(Recipe("neural", QUICK), seed=0).fit(table, y)
    model.save(tmp_path / "model")
    table.frame.to_pickle(tmp_path / "frame")
    program = """
import pickle, sys, pandas as pd, numpy as np
from pathlib import Path
from theracast_models.families import load_model
from theracast_features.specs import FeatureSpec, FeatureTable
import json
specs = tuple(FeatureSpec.from_json(one) for one in json.loads(Path(sys.argv[2]).read_text()))
frame = pd.read_pickle(sys.argv[1] + "/frame")
model = load_model(Path(sys.argv[1]) / "model")
found = model.log_odds(FeatureTable(frame, specs, pd.DataFrame(index=frame.index)))
assert "torch" not in sys.modules
print(json.dumps(found.tolist()))
"""
    specs = tmp_path / "specs.json"
    specs.write_text(json.dumps([one.to_json() for one in table.catalogue]))
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(specs)], capture_output=True, text=True, check=True
    )
    np.testing.assert_array_equal(json.loads(told.stdout), model.log_odds(table))


@pytest.mark.parametrize("damage", ["bytes", "columns", "units"])
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    table, x = numbers(60, 3)
    Neural(**QUICK).fit(table, outcome_of("binary", bent(x))).save(tmp_path / "model")
    file = tmp_path / "model" / "shapes.safetensors"
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:50])
    else:
        tensors = load_file(file)
        name = "0.slope" if damage == "columns" else "0.steep"
        save_file(tensors | {name: np.ascontiguousarray(tensors[name][:-1])}, file)
    with pytest.raises(ArtifactError, match="take it from where it was saved"):
        Neural.load(tmp_path / "model")


def test_the_mean_of_curves_is_the_mean_of_their_values() -> None:
    rng = np.random.default_rng(0)
    curved = np.array([0, 2])
    members = [
        Shapes(rng.normal(size=3), rng.normal(size=3), curved, *(rng.normal(size=(2, 4)) for _ in range(3)))
        for _ in range(3)
    ]
    z = rng.normal(size=(20, 3))
    mean = np.mean([one.parts(z) for one in members], axis=0)
    np.testing.assert_allclose(Shapes.mean(members).parts(z), mean, atol=1e-12)
    centred, moved = Shapes.mean(members).centred(z, np.ones(20))
    np.testing.assert_allclose(centred.parts(z).mean(axis=0), 0, atol=1e-12)
    assert moved == pytest.approx(mean.sum(axis=1).mean())
    np.testing.assert_allclose(centred.scaled(3.0).parts(z), 3 * centred.parts(z), atol=1e-12)
