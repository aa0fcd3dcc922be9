"""The training of an attention-gated late fusion, in PyTorch; imported only where one is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theracast_models.gated import MOST_GATE
from theracast_models.logodds import Floats
from theracast_models.network import repeatable
from theracast_models.outcomes import Outcome

Weights = dict[str, Floats]

LIGHT = 0.1
"""Share of the penalty on the slopes that holds back what has one number a modality: offsets and usual gates."""
COPIES = 8
"""Times that each decision is shown in training: once as it is, else with modalities left out at random."""
MOST_STEPS = 150


def first_weights(*, columns: int, modalities: int, hidden: int, seed: int) -> Weights:
    """Return the weights of a network that says nothing yet: all 0, but for what looks at a column within.

    `slope`, `attention` (columns,): log-odds and gate score per standard deviation; `offset`, `salience` (modalities,): of a
    modality whose columns lie at their means; `growth` (1,): how the total weight grows with the number of modalities;
    `inner`, `threshold`, `outer` (columns, hidden): the bends of each column's curve.
    """
    rng = np.random.default_rng([seed, 61])
    return {
        "slope": np.zeros(columns),
        "attention": np.zeros(columns),
        "offset": np.zeros(modalities),
        "salience": np.zeros(modalities),
        "growth": np.zeros(1),
        "inner": rng.normal(0.0, 1.0, (columns, hidden)),
        "threshold": rng.normal(0.0, 1.0, (columns, hidden)),
        "outer": np.zeros((columns, hidden)),
    }


def train_gated(
    z: Floats,
    there: NDArray[np.bool_],
    belongs: NDArray[np.intp],
    outcome: Outcome,
    *,
    base: float,
    start: Mapping[str, Floats],
    decay: float,
    gate_decay: float,
    dropout: float,
    seed: int,
) -> Weights:
    """Return the weights of least penalised loss, by L-BFGS from `start`.

    The loss is that of the outcomes, divided by their amount and averaged over COPIES of the decisions: the first as they
    are, the others with each modality left out with probability `dropout`. Of the outcomes only loss and slopes are asked;
    the network learns through them, whatever their kind. On one machine without a GPU the same seed gives the same bits.

    Args:
        z: (n, columns) standardised design.
        there: (n, modalities) which modalities are known.
        belongs: (columns,) the modality of each column.
        base: score of a decision of which nothing is known.
        decay, gate_decay: half the square of slopes and of gate slopes is added to the loss, times these.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng([seed, 62])
    shown = there & (rng.random((COPIES, *there.shape)) >= dropout)
    shown[0] = there
    with repeatable(seed, device):
        place = {"dtype": torch.float64, "device": device}
        weights = {name: torch.tensor(value, **place).requires_grad_() for name, value in start.items()}  # type: ignore[arg-type]
        gathers = torch.tensor(belongs[:, None] == np.arange(there.shape[1])[None, :], **place)  # type: ignore[arg-type]
        inputs, masks = torch.tensor(z, **place), torch.tensor(shown, **place)  # type: ignore[arg-type]
        optimiser = torch.optim.LBFGS(
            list(weights.values()),
            max_iter=MOST_STEPS,
            history_size=20,
            tolerance_grad=1e-6,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimiser.zero_grad()
            score = base + _fused(weights, inputs, gathers, masks)
            penalty = _penalty(weights, decay=decay, gate_decay=gate_decay)
            loss, gradient = _judged(score.detach().cpu().numpy(), outcome)
            torch.autograd.backward([score, penalty], [torch.tensor(gradient, **place), None])  # type: ignore[arg-type]
            return loss + float(penalty.detach())

        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return {name: value.detach().cpu().numpy().copy() for name, value in weights.items()}


def _fused(weights: Mapping[str, Tensor], z: Tensor, gathers: Tensor, masks: Tensor) -> Tensor:
    """Return (copies, n) what the modalities add to the base; numpy's counterpart is in `gated.py`."""
    curves = z * weights["slope"]
    if weights["outer"].shape[1]:
        bends = torch.tanh(z[:, :, None] * weights["inner"] + weights["threshold"]) - torch.tanh(weights["threshold"])
        curves = curves + (bends * weights["outer"]).sum(dim=2)
    log_odds = weights["offset"] + curves @ gathers
    scores = weights["salience"] + (z * weights["attention"]) @ gathers
    gates = torch.exp(MOST_GATE * torch.tanh(scores / MOST_GATE)) * masks
    count = masks.sum(dim=2, keepdim=True).clamp(min=1.0)
    total = count ** torch.sigmoid(weights["growth"])
    shares = gates / gates.sum(dim=2, keepdim=True).clamp(min=1e-12)
    return (total * shares * log_odds).sum(dim=2)


def _penalty(weights: Mapping[str, Tensor], *, decay: float, gate_decay: float) -> Tensor:
    curve = (weights["slope"] ** 2).sum() + (weights["outer"] ** 2).sum()
    # Without a pull the bends of a column that says nothing would wander; LIGHT, for they carry no log-odds themselves.
    within = (weights["inner"] ** 2).sum() + (weights["threshold"] ** 2).sum() + (weights["offset"] ** 2).sum()
    gate = (weights["attention"] ** 2).sum() + LIGHT * (weights["salience"] ** 2).sum() + LIGHT * weights["growth"] ** 2
    total: Tensor = (decay / 2 * (curve + LIGHT * within) + gate_decay / 2 * gate).sum()
    return total


def _judged(scores: Floats, outcome: Outcome) -> tuple[float, Floats]:
    """Return the mean loss over copies (copies, n), and its gradient."""
    share = 1.0 / (len(scores) * outcome.amount)
    loss = share * sum(outcome.loss(copy) for copy in scores)
    return loss, share * np.array([outcome.slopes(copy)[0] for copy in scores])
