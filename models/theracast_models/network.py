"""A small network over pictures of regions, in PyTorch; imported only where a network is trained or asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from theracast_data.errors import ArtifactError
from theracast_models.logodds import Floats

Bytes = NDArray[np.uint8]

BATCH = 16
PATIENCE = 12
"""Epochs without a smaller loss on the patients held back, after which training ends."""
ASKED_TOGETHER = 64
MOST_LOG_ODDS = 4.0
"""What one picture may add or take away, an odds ratio of 55: a network knows no bounds where it has seen nothing alike."""


class RegionNet(nn.Module):
    """Three blocks of convolutions, then mean and maximum over the cube, then one number; 18k parameters for 8 channels.

    The last layer begins at 0, so that an untrained network says nothing. Intensities are set off
    against those inside the regions of the training; the first block is not normalised, so how bright a region is may count.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.middle: Tensor
        self.spread: Tensor
        self.register_buffer("middle", torch.zeros(1))
        self.register_buffer("spread", torch.ones(1))
        self.blocks = nn.Sequential(
            nn.Conv3d(2, c, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv3d(c, 2 * c, 3, stride=2, padding=1),
            nn.GroupNorm(2, 2 * c),
            nn.SiLU(),
            nn.Conv3d(2 * c, 4 * c, 3, padding=1),
            nn.GroupNorm(2, 4 * c),
            nn.SiLU(),
        )
        self.head = nn.Linear(8 * c, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def learn_scale(self, pictures: Bytes) -> None:
        """Take mean and standard deviation of the intensities inside the regions of (m, 2, n, n, n)."""
        if not len(pictures):
            return
        inside = pictures[:, 0][pictures[:, 1] > 0] if pictures[:, 1].any() else pictures[:, 0]
        self.middle.fill_(float(inside.mean()))
        self.spread.fill_(max(1.0, float(inside.std())))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,) log-odds that the pictures (B, 2, n, n, n), intensity 0..255 and region 0..1, add to the base."""
        intensity = (x[:, :1] - self.middle) / self.spread
        maps = self.blocks(torch.cat([intensity, x[:, 1:]], dim=1)).flatten(2)
        answer: Tensor = self.head(torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1)).squeeze(1)
        return MOST_LOG_ODDS * torch.tanh(answer / MOST_LOG_ODDS)


@dataclass(frozen=True)
class Pictures:
    """The pictures of one kind of image.

    Attributes:
        rows: (m,) decisions that have one.
        values: (m, 2, n, n, n) intensity 0..255 and region 0..1, as `decode_patches` gives them.
    """

    rows: NDArray[np.intp]
    values: Bytes


def train_networks(
    pictures: Mapping[str, Pictures],
    y: Floats,
    *,
    base: float,
    weight: Floats,
    train: NDArray[np.intp],
    held_back: NDArray[np.intp],
    channels: int,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    seed: int,
) -> dict[str, RegionNet]:
    """Return a network for each kind of image, trained together: their log-odds add up, beside the base.

    AdamW on the weighted log loss, pictures flipped at random along each axis. Kept is what has the smallest loss on the
    decisions held back, the untrained network among the candidates; without any, what the last epoch gives. On one
    machine without a GPU the same seed gives the same network, bit by bit.

    Args:
        y, weight: (n,) outcome 0/1 and weight of each decision.
        base: log-odds of a decision without a picture.
        train, held_back: positions of decisions, of other patients.
        epochs: at most.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with repeatable(seed, device):
        networks = {kind: RegionNet(channels).to(device) for kind in pictures}
        for kind, network in networks.items():
            network.learn_scale(pictures[kind].values[np.isin(pictures[kind].rows, train)])
        parameters = [one for network in networks.values() for one in network.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
        rng = np.random.default_rng([seed, 33])
        fold = _Fold(pictures, networks, y=y, weight=weight, base=base, device=device)
        best, kept, since = fold.loss(held_back), _copies(networks), 0
        for _ in range(epochs):
            order = rng.permutation(train)
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                optimiser.zero_grad()
                loss = fold.losses(rows, flips=rng.random((len(rows), 3)) < 0.5).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            reached = fold.loss(held_back)
            since += 1
            if not len(held_back) or reached < best:
                best, kept, since = reached, _copies(networks), 0
            if since >= PATIENCE:
                break
        for kind, network in networks.items():
            network.load_state_dict(kept[kind])
            network.to("cpu").eval()
    return networks


def shares(network: RegionNet, pictures: Bytes) -> Floats:
    """Return (m,) the log-odds that a network gives to pictures (m, 2, n, n, n).

    On the CPU in double precision, whatever trained it: an answer does not hang on the machine or on who is asked beside.
    """
    asked = network.double()
    parts = (pictures[start : start + ASKED_TOGETHER] for start in range(0, len(pictures), ASKED_TOGETHER))
    with torch.no_grad(), one_thread():
        found = [asked(torch.tensor(part, dtype=torch.float64)).numpy() for part in parts]
    return np.concatenate([np.zeros(0), *found])


def write_network(network: RegionNet, path: Path) -> None:
    """Write the weights in single precision, as they were trained, by the format safetensors, which holds no code."""
    from safetensors.torch import save_file

    weights = {name: value.float().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, str(path))


def read_network(path: Path, *, channels: int) -> RegionNet:
    """Return the network that `write_network` wrote.

    Raises:
        ArtifactError: the file is no such network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = RegionNet(channels)
    try:
        network.load_state_dict(load_file(str(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"{path.name}: the weights are not those of a network of {channels} channels. The folder is damaged; take it "
            "from where it was saved, or train again."
        ) from error
    return network.eval()


class _Fold:
    """The loss of decisions under networks that are being trained."""

    def __init__(
        self,
        pictures: Mapping[str, Pictures],
        networks: Mapping[str, RegionNet],
        *,
        y: Floats,
        weight: Floats,
        base: float,
        device: torch.device,
    ) -> None:
        self._networks, self._base, self._device = networks, base, device
        self._y = torch.tensor(y, dtype=torch.float32, device=device)
        self._weight = torch.tensor(weight / weight.mean(), dtype=torch.float32, device=device)
        self._values = {kind: one.values for kind, one in pictures.items()}
        self._place = {kind: np.full(len(y), -1, dtype=np.intp) for kind in pictures}
        for kind, one in pictures.items():
            self._place[kind][one.rows] = np.arange(len(one.rows))

    def losses(self, rows: NDArray[np.intp], *, flips: NDArray[np.bool_] | None = None) -> Tensor:
        """Return (m,) weighted log losses; `flips` (m, 3) says which pictures are mirrored along which axis."""
        log_odds = torch.full((len(rows),), self._base, device=self._device)
        for kind, network in self._networks.items():
            places = self._place[kind][rows]
            there = np.flatnonzero(places >= 0)
            if len(there):
                x = torch.tensor(self._values[kind][places[there]], dtype=torch.float32)
                if flips is not None:
                    x = _flipped(x, flips[there])
                log_odds = log_odds.index_add(0, torch.tensor(there, device=self._device), network(x.to(self._device)))
        chosen = torch.tensor(rows, device=self._device)
        loss = nn.functional.binary_cross_entropy_with_logits(log_odds, self._y[chosen], reduction="none")
        return loss * self._weight[chosen]

    def loss(self, rows: NDArray[np.intp]) -> float:
        """Return the mean loss of decisions as they are."""
        with torch.no_grad():
            parts = [rows[start : start + ASKED_TOGETHER] for start in range(0, len(rows), ASKED_TOGETHER)]
            return float(sum(self.losses(part).sum().item() for part in parts)) / max(1, len(rows))


def _flipped(x: Tensor, flips: NDArray[np.bool_]) -> Tensor:
    for axis in range(3):
        chosen = torch.tensor(np.flatnonzero(flips[:, axis]))
        if len(chosen):
            x[chosen] = x[chosen].flip(axis + 2)
    return x


def _copies(networks: Mapping[str, RegionNet]) -> dict[str, dict[str, Tensor]]:
    return {
        kind: {name: value.detach().clone() for name, value in network.state_dict().items()}
        for kind, network in networks.items()
    }


@contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Train with one thread and a seed of its own, and leave PyTorch's settings and random state as they were."""
    before = torch.are_deterministic_algorithms_enabled()
    devices: Sequence[torch.device] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), one_thread():
        torch.manual_seed(seed)
        # A GPU has no repeatable way back through a maximum over cubes; there the seed alone is held.
        torch.use_deterministic_algorithms(device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
