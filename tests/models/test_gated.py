"""Gated late fusion: the gates follow the patient, the gradient comes from any outcome, PyTorch is needed to train only."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models import gated_network
from theracast_models.families import load_model
from theracast_models.gated import Gated
from theracast_models.outcomes import Binary, Continuous, Ordinal, Survival
from theracast_models.presence import masked, without


def gated_cause(n: int, seed: int) -> tuple[FeatureTable, np.ndarray, np.ndarray]:
    """Return decisions in which imaging counts where its quality is good, and the laboratory where it is bad."""
    rng = np.random.default_rng(seed)
    lab, image, quality = rng.normal(size=(3, n))
    share = expit(3 * quality)
    log_odds = 2.5 * (share * image + (1 - share) * lab)
    columns = {"lab.a": lab, "image.b": image, "image.quality": quality}
    modalities = ("lab", "imaging", "imaging")
    catalogue = tuple(
        FeatureSpec(name, modality, "numeric", name, (name,))
        for name, modality in zip(columns, modalities, strict=True)
    )
    decisions = pd.DataFrame({"subject_id": [str(k) for k in range(n)], "site": "A", "index_time": pd.NaT})
    y = (rng.random(n) < expit(log_odds)).astype(float)
    return FeatureTable(pd.DataFrame(columns), catalogue, decisions), y, log_odds


def test_learns_where_to_look() -> None:
    table, y, _ = gated_cause(3000, 0)
    others, _, truth = gated_cause(3000, 1)
    free = Gated(decay=0.003, gate_decay=0.003, dropout=0.1).fit(table, y)
    held = Gated(decay=0.003, gate_decay=1000.0, dropout=0.1).fit(table, y)
    found = [np.corrcoef(model.log_odds(others), truth)[0, 1] for model in (free, held)]
    assert found[0] > 0.95
    assert found[0] > found[1] + 0.03
    told = free.gating(others)
    good = others.frame["image.quality"].to_numpy() > 1
    bad = others.frame["image.quality"].to_numpy() < -1
    assert told.weight[good, 1].mean() > 2 * told.weight[bad, 1].mean()
    assert told.weight[bad, 0].mean() > 2 * told.weight[good, 0].mean()


def test_the_gates_share_is_told_apart_and_all_adds_up() -> None:
    table, y, _ = gated_cause(400, 2)
    model = Gated(decay=0.01, gate_decay=0.01, hidden=2).fit(table, y)
    holes = masked(table, np.random.default_rng(0).random((400, 2)) < 0.4)
    told = model.gating(holes)
    base, phi = model.contributions(holes)
    by_modality = np.column_stack([phi[:, 0], phi[:, 1] + phi[:, 2]])
    np.testing.assert_allclose(by_modality, told.weight * told.log_odds, atol=1e-12)
    by_hand = base + (told.usual * told.log_odds).sum(1) + ((told.weight - told.usual) * told.log_odds).sum(1)
    np.testing.assert_allclose(model.log_odds(holes), by_hand, atol=1e-12)
    assert not told.weight[~told.there].any()
    assert (told.weight[told.there] > 0).all()


def test_without_gates_one_modality_is_logistic_regression() -> None:
    """Slopes and offset are those of scikit-learn where the penalty is the same and there is nothing to weigh."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(500, 4))
    y = (rng.random(500) < expit(x @ [1.0, -0.5, 0.0, 0.3] - 0.5)).astype(float)
    names = [f"lab.x{k}" for k in range(4)]
    catalogue = tuple(FeatureSpec(name, "lab", "numeric", name, (name,)) for name in names)
    decisions = pd.DataFrame({"subject_id": [str(k) for k in range(500)], "site": "A", "index_time": pd.NaT})
    table = FeatureTable(pd.DataFrame(x, columns=names), catalogue, decisions)
    model = Gated(decay=0.02, gate_decay=1e6, dropout=0.0).fit(table, y)
    z = model.inputs_.design(table)
    oracle = LogisticRegression(C=1 / (0.02 * 500), l1_ratio=0.0, tol=1e-10, max_iter=1000).fit(z, y)
    np.testing.assert_allclose(model.weights_["slope"], oracle.coef_[0], atol=2e-3)
    np.testing.assert_allclose(model.log_odds(table), oracle.decision_function(z), atol=0.02)


@pytest.mark.parametrize("kind", ["survival", "ordinal", "number"])
def test_learns_through_the_slopes_of_any_outcome(kind: str) -> None:
    table, _, truth = gated_cause(1500, 4)
    rng = np.random.default_rng(5)
    ones = np.ones(1500)
    time, censored = rng.exponential(np.exp(-truth)), rng.exponential(3.0, 1500)
    noisy = truth + rng.logistic(size=1500)
    outcome = {
        "survival": Survival(np.minimum(time, censored), (time <= censored).astype(float), ones),
        "ordinal": Ordinal((noisy > -1).astype(float) + (noisy > 1), 3, ones),
        "number": Continuous(truth + rng.normal(size=1500), ones),
    }[kind]
    model = Gated(decay=0.003, gate_decay=0.01).fit(table, outcome)
    others, _, new_truth = gated_cause(1000, 6)
    assert np.corrcoef(model.log_odds(others), new_truth)[0, 1] > 0.93
    nothing = model.log_odds(without(others, others.modalities))
    assert np.array_equal(nothing, np.full(1000, outcome.start()))


def test_the_gradient_is_that_of_the_loss() -> None:
    """PyTorch's gradient through the slopes of an outcome is the quotient of differences of the penalised loss."""
    rng = np.random.default_rng(7)
    z, belongs = rng.normal(size=(30, 5)), np.array([0, 0, 1, 2, 2])
    there = rng.random((30, 3)) < 0.7
    y = (rng.random(30) < 0.4).astype(float)
    outcome = Binary(y, rng.uniform(0.5, 2, 30))
    start = gated_network.first_weights(columns=5, modalities=3, hidden=2, seed=0)
    point = {name: value + rng.normal(0, 0.3, value.shape) for name, value in start.items()}
    gathers = torch.tensor(belongs[:, None] == np.arange(3)[None, :], dtype=torch.float64)
    masks = torch.tensor(there[None], dtype=torch.float64)

    def value(weights: dict[str, np.ndarray]) -> tuple[float, dict[str, torch.Tensor]]:
        tensors = {name: torch.tensor(one, dtype=torch.float64, requires_grad=True) for name, one in weights.items()}
        score = -0.3 + gated_network._fused(tensors, torch.tensor(z), gathers, masks)
        penalty = gated_network._penalty(tensors, decay=0.1, gate_decay=0.2)
        loss, gradient = gated_network._judged(score.detach().numpy(), outcome)
        torch.autograd.backward([score, penalty], [torch.tensor(gradient), None])
        return loss + float(penalty.detach()), tensors

    _, tensors = value(point)
    for name, array in point.items():
        for place in np.ndindex(array.shape):
            moved = []
            for step in (1e-5, -1e-5):
                other = {key: one.copy() for key, one in point.items()}
                other[name][place] += step
                moved.append(value(other)[0])
            slope = (moved[0] - moved[1]) / 2e-5
            assert tensors[name].grad[place].item() == pytest.approx(slope, abs=1e-7), name


def test_numpy_answers_as_the_network_does(make_table) -> None:
    table, y = make_table(0, 80)
    model = Gated(hidden=3, gate_decay=0.05).fit(table, y)
    told = model.gating(table)
    tensors = {name: torch.tensor(value) for name, value in model.weights_.items()}
    gathers = torch.tensor(model._belongs[:, None] == np.arange(3)[None, :], dtype=torch.float64)
    masks = torch.tensor(told.there[None], dtype=torch.float64)
    network = gated_network._fused(
        tensors, torch.tensor(np.ascontiguousarray(model.inputs_.design(table))), gathers, masks
    )
    np.testing.assert_allclose(model.log_odds(table), model.base_ + network[0].numpy(), atol=1e-12)


def test_dropout_teaches_what_to_do_without() -> None:
    """Never having seen a patient without laboratory, a network trained with dropout is still calibrated on them."""
    table, y, _ = gated_cause(3000, 8)
    others, outcome, _ = gated_cause(6000, 9)
    taken = without(others, ["lab"])
    losses = []
    for dropout in (0.0, 0.4):
        model = Gated(decay=0.003, gate_decay=0.01, dropout=dropout).fit(table, y)
        losses.append(Binary(outcome, np.ones(6000)).loss(model.log_odds(taken)) / 6000)
    assert losses[1] < losses[0]


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from pathlib import Path
import pandas as pd
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import load_model
folder = Path(sys.argv[1])
catalogue = tuple(FeatureSpec.from_json(one) for one in json.loads((folder / "catalogue.json").read_text()))
table = FeatureTable(pd.read_parquet(folder / "frame.parquet"), catalogue, pd.DataFrame(index=range(60)))
model = load_model(folder / "m")
print(json.dumps([model.log_odds(table).tolist(), model.contributions(table)[1].tolist()]))
"""


def test_answers_without_pytorch(make_table, tmp_path) -> None:
    table, y = make_table(1, 60)
    model = Gated().fit(table, y)
    model.save(tmp_path / "m")
    table.frame.to_parquet(tmp_path / "frame.parquet")
    (tmp_path / "catalogue.json").write_text(json.dumps([spec.to_json() for spec in table.catalogue]))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, check=True
    )
    log_odds, phi = json.loads(done.stdout)
    assert log_odds == model.log_odds(table).tolist()
    assert phi == model.contributions(table)[1].tolist()


def test_a_damaged_folder_says_so(make_table, tmp_path) -> None:
    table, y = make_table(1, 60)
    Gated().fit(table, y).save(tmp_path / "m")
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ArtifactError, match="take it from where it was saved"):
        load_model(tmp_path / "m")


def test_leaves_pytorch_as_it_was(make_table) -> None:
    table, y = make_table(1, 60)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    Gated().fit(table, y)
    assert torch.equal(torch.rand(3), expected)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
