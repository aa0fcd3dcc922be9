"""Curves of single columns learned together, in PyTorch; imported only where such a network is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import Tensor, nn

from theracast_models.discrete_time import exposure, interval_ends
from theracast_models.logodds import Floats
from theracast_models.network import repeatable
from theracast_models.outcomes import Outcome, Survival
from theracast_models.shapes import Shapes

Rows = NDArray[np.intp]

PATIENCE = 15
"""Steps without a smaller loss on the patients held back, after which training ends."""
REACH = 2.0
"""Standard deviations from the mean within which the bends of an untrained curve lie."""


@dataclass(frozen=True)
class Settings:
    """How a network learns.

    Attributes:
        width: bends of each curve.
        sparsity: of the penalty on the spread of each feature's share, per unit of mean loss; it leaves features out.
        weight_decay, learning_rate: of AdamW.
        steps: at most, each over all decisions.
    """

    width: int
    sparsity: float
    weight_decay: float
    learning_rate: float
    steps: int


class AdditiveNet(nn.Module):
    """A line for each column, and for those with more than two values bends; it begins as nothing: all curves are 0."""

    def __init__(self, columns: int, curved: Rows, width: int) -> None:
        super().__init__()
        self.curved: Tensor
        self.register_buffer("curved", torch.tensor(curved, dtype=torch.long))
        self.slope = nn.Parameter(torch.zeros(columns))
        steep = 0.5 + torch.rand(len(curved), width)
        places = REACH * (2 * torch.rand(len(curved), width) - 1)
        self.steep = nn.Parameter(steep)
        self.shift = nn.Parameter(-steep * places)
        self.out = nn.Parameter(torch.zeros(len(curved), width))

    def forward(self, z: Tensor) -> Tensor:
        """Return (n, columns) shares of the columns z (n, columns)."""
        bends = torch.tanh(z[:, self.curved, None] * self.steep + self.shift)
        shares: Tensor = (z * self.slope).index_add(1, self.curved, (bends * self.out).sum(2))
        return shares

    def shapes(self) -> Shapes:
        """Return the curves in double precision."""
        slope, steep, shift, out = (
            one.detach().cpu().numpy().astype(np.float64) for one in (self.slope, self.steep, self.shift, self.out)
        )
        return Shapes(slope, np.zeros_like(slope), self.curved.cpu().numpy().astype(np.intp), steep, shift, out)


def train_additive(
    z: Floats,
    outcome: Outcome,
    *,
    owner: Rows,
    curved: Rows,
    train: Rows,
    held_back: Rows,
    settings: Settings,
    seed: int,
) -> tuple[float, Shapes]:
    """Return intercept (0 where the outcome has none) and curves of least loss on the decisions held back.

    Times to an event are learned in discrete time: intervals by quantiles of the events, `logit hazard_t = alpha_t +
    score`, censored patients as long as they were at risk. Of every other kind the loss is the outcome's own, by its
    slopes. The untrained network is among the candidates; without decisions held back, the last step is kept. On one
    machine without a GPU the same seed gives the same network, bit by bit.

    Args:
        z: (n, columns) standardised.
        owner: (columns,) feature of each column.
        curved: positions of the columns that may bend.
        train, held_back: positions of decisions, of other patients.

    Source: Agarwal et al., NeurIPS 2021;34:4699-4711 (additive networks); Gensheimer and Narasimhan, PeerJ 2019;7:e6257
    (discrete time); Xu et al., ECML PKDD 2022 (sparsity over the functions).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with repeatable(seed, device):
        network = AdditiveNet(z.shape[1], curved, settings.width).to(device)
        objective = _objective(outcome, (train, held_back)).to(device)
        optimiser = torch.optim.AdamW(
            [*_decayed(network, settings.weight_decay), {"params": list(objective.parameters()), "weight_decay": 0.0}],
            lr=settings.learning_rate,
        )
        seen = torch.tensor(z[train], dtype=torch.float32, device=device)
        unseen = torch.tensor(z[held_back], dtype=torch.float32, device=device)
        features = torch.tensor(owner, dtype=torch.long, device=device)
        count = int(owner.max(initial=-1)) + 1
        best, kept, since = _judged(network, objective, unseen), _state(network, objective), 0
        for _ in range(settings.steps):
            optimiser.zero_grad()
            shares = network(seen)
            by_feature = torch.zeros(len(seen), count, device=device).index_add(1, features, shares)
            spread = (by_feature.var(0, correction=0) + 1e-8).sqrt().sum()
            loss = objective(shares.sum(1), 0) + settings.sparsity * spread
            loss.backward()
            optimiser.step()
            reached = _judged(network, objective, unseen)
            since += 1
            if not len(held_back) or reached < best:
                best, kept, since = reached, _state(network, objective), 0
            if since >= PATIENCE:
                break
        network.load_state_dict(kept[0])
        objective.load_state_dict(kept[1])
    return objective.constant(), network.shapes()


class _Objective(nn.Module, ABC):
    """The mean loss of two sets of decisions, numbered 0 and 1."""

    @abstractmethod
    def forward(self, score: Tensor, place: int) -> Tensor:
        """Return the mean loss of the scores of one set."""

    def judged(self, score: Tensor, place: int) -> float:
        return float(self(score, place))

    def constant(self) -> float:
        return 0.0


class _Hazards(_Objective):
    """The likelihood of discrete hazards, per event."""

    def __init__(self, outcome: Survival, parts: Sequence[Rows]) -> None:
        super().__init__()
        at_risk, comes = exposure(outcome.time, outcome.event, interval_ends(outcome.time, outcome.event))
        weight = outcome.weight[:, None]
        # Half an event more on either side: in an interval without censoring the last hazard would be infinite.
        hazard = ((weight * comes).sum(0) + 0.5) / ((weight * at_risk).sum(0) + 1.0)
        self.alpha = nn.Parameter(torch.tensor(logit(hazard), dtype=torch.float32))
        for place, rows in enumerate(parts):
            amount = max(float(outcome.weight[rows] @ outcome.event[rows]), 1e-12)
            for name, values in (("at_risk", at_risk), ("comes", comes)):
                scaled = values[rows] * weight[rows] / amount
                self.register_buffer(f"{name}{place}", torch.tensor(scaled, dtype=torch.float32))

    def forward(self, score: Tensor, place: int) -> Tensor:
        hazard = self.alpha + score[:, None]
        at_risk, comes = getattr(self, f"at_risk{place}"), getattr(self, f"comes{place}")
        loss: Tensor = (nn.functional.softplus(hazard) * at_risk - hazard * comes).sum()
        return loss


class _Slopes(_Objective):
    """The loss of any outcome: its slopes lead the training."""

    def __init__(self, outcome: Outcome, parts: Sequence[Rows]) -> None:
        super().__init__()
        self.intercept = nn.Parameter(torch.tensor(outcome.start()), requires_grad=outcome.has_intercept)
        self._parts = [outcome.take(rows) for rows in parts]

    def forward(self, score: Tensor, place: int) -> Tensor:
        moved, one = score + self.intercept, self._parts[place]
        slopes = one.slopes(moved.detach().cpu().numpy().astype(np.float64))[0] / one.amount
        # Not the loss, but of the same gradient.
        return moved @ torch.tensor(slopes, dtype=torch.float32, device=moved.device)

    def judged(self, score: Tensor, place: int) -> float:
        moved, one = score + self.intercept, self._parts[place]
        return one.loss(moved.cpu().numpy().astype(np.float64)) / max(one.amount, 1e-12)

    def constant(self) -> float:
        return float(self.intercept.detach())


def _objective(outcome: Outcome, parts: Sequence[Rows]) -> _Objective:
    return _Hazards(outcome, parts) if isinstance(outcome, Survival) else _Slopes(outcome, parts)


def _decayed(network: AdditiveNet, weight_decay: float) -> list[dict[str, object]]:
    """Return the groups of parameters: heights decay towards 0; where the bends lie and how steep they are does not."""
    return [
        {"params": [network.slope, network.out], "weight_decay": weight_decay},
        {"params": [network.steep, network.shift], "weight_decay": 0.0},
    ]


def _judged(network: AdditiveNet, objective: _Objective, z: Tensor) -> float:
    if not len(z):
        return 0.0
    with torch.no_grad():
        return objective.judged(network(z).sum(1), 1)


def _state(*modules: nn.Module) -> list[dict[str, Tensor]]:
    return [{name: value.detach().clone() for name, value in one.state_dict().items()} for one in modules]
