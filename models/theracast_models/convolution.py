"""A small convolutional network over pictures of regions: what the sight of the tumour adds to the log-odds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import CohortError
from theracast_features.imaging.patch import decode_patches
from theracast_features.pictures import picture_specs
from theracast_features.specs import FeatureTable
from theracast_models.folds import patient_numbers, rarest_outcome, stratified_folds
from theracast_models.logodds import Floats, Gaps, Learnable, logit
from theracast_models.outcomes import require_binary
from theracast_models.preprocess import text_values
from theracast_models.sentences import gap_sentences

if TYPE_CHECKING:  # PyTorch takes seconds to load, and is for those who train or ask a network
    from theracast_models.network import Pictures, RegionNet

HELD_BACK = 5
"""One in so many patients is held back, to tell when the network begins to learn by heart."""
WITHOUT_HELD_BACK = 10
"""Epochs where an outcome has too few patients to hold some back."""


class Convolution:
    """`log-odds = base + sum over kinds of image of what a network says of the picture`; nothing where there is none.

    The base is the log-odds of the outcome among the training decisions, so it is the answer without any picture. What a
    picture adds, at most 4 either way, belongs to the feature that stands for it: the explanation is exact. Training holds
    back patients of its own decisions to know when to stop. A replicate keeps the network: an interval does not count that
    other patients would have made another one.

    Args:
        seed: of the first weights, the order, the flips, and who is held back.
        learning_rate, weight_decay: of AdamW.
        channels: of the first block; the others have two and four times as many. Even.
        epochs: passes over the decisions, at most.
    """

    family: ClassVar[str] = "cnn"

    def __init__(
        self,
        *,
        seed: int = 0,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        channels: int = 8,
        epochs: int = 40,
    ) -> None:
        self.seed = seed
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.channels = channels
        self.epochs = epochs

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn base and networks from n decisions; those of weight 0 do not count.

        Raises:
            CohortError: no feature of the table is a picture, or the endpoint is not yes or no.
        """
        if not picture_specs(table.catalogue):
            raise CohortError(
                "the family cnn looks at pictures of regions, and no feature is one. Say `patch` in features.images.NAME."
            )
        outcome = require_binary(y, weight, family=self.family)
        counted = np.flatnonzero(outcome.weight > 0)
        table, y, weight = table.take(counted), outcome.y[counted], outcome.weight[counted]
        # Half a patient more of each outcome: one outcome alone has no log-odds.
        self.base_ = float(logit((weight @ y + 0.5) / (weight.sum() + 1)))
        pictures = {name: one for name, one in _pictures(table).items() if len(one.rows)}
        self.networks_: dict[str, RegionNet] = {}
        if not pictures:
            return self
        from theracast_models.network import train_networks

        shown = np.unique(np.concatenate([one.rows for one in pictures.values()]))
        train, held_back = self._split(table, y, shown)
        self.networks_ = train_networks(
            pictures,
            y,
            base=self.base_,
            weight=weight,
            train=train,
            held_back=held_back,
            channels=self.channels,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs if len(held_back) else min(self.epochs, WITHOUT_HELD_BACK),
            seed=self.seed,
        )
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        base, phi = self.contributions(table)
        result: Floats = base + phi.sum(axis=1)
        return result

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,), the same for all, and the shares (n, p), seen from a patient without a picture."""
        place = {spec.name: number for number, spec in enumerate(table.catalogue)}
        phi = np.zeros((len(table), len(table.catalogue)))
        for name, one in _pictures(table).items():
            if name in self.networks_ and len(one.rows):
                from theracast_models.network import shares

                phi[one.rows, place[name]] = shares(self.networks_[name], one.values)
        return np.full(len(table), self.base_), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which pictures were not there."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences; a kind of which training had none is not asked for."""
        specs = [spec for spec in picture_specs(table.catalogue) if spec.name in self.networks_]
        absent = np.column_stack(
            [np.zeros((len(table), 0), dtype=bool)]
            + [[text is None for text in text_values(table.decisions, spec.columns[0])] for spec in specs]
        )
        return [
            Gaps((), (), unpictured=tuple(spec.name for spec, gone in zip(specs, row, strict=True) if gone))
            for row in absent
        ]

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return the model itself: base and networks are kept."""
        return self

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds: the same in each."""
        return np.tile(self.log_odds(table), (len(replicates), 1))

    def save(self, folder: Path) -> None:
        """Write `model.json` and the weights of each network, `network-0.safetensors`, ..., into a new folder."""
        folder.mkdir(parents=True)
        params = ("seed", "learning_rate", "weight_decay", "channels", "epochs")
        record = {
            "family": self.family,
            "params": {name: getattr(self, name) for name in params},
            "base": self.base_,
            "pictures": list(self.networks_),
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        if self.networks_:
            from theracast_models.network import write_network

            for number, network in enumerate(self.networks_.values()):
                write_network(network, folder / f"network-{number}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(**record["params"])
        model.base_, model.networks_ = record["base"], {}
        if record["pictures"]:
            from theracast_models.network import read_network

            model.networks_ = {
                name: read_network(folder / f"network-{number}.safetensors", channels=model.channels)
                for number, name in enumerate(record["pictures"])
            }
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write how many there are into a new folder."""
        folder.mkdir(parents=True)
        (folder / "replicates.json").write_text(json.dumps({"count": len(replicates)}) + "\n", encoding="utf-8")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the model as often as `save_replicates` was given it."""
        return [self] * int(json.loads((folder / "replicates.json").read_text(encoding="utf-8"))["count"])

    def _split(
        self, table: FeatureTable, y: Floats, rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the decisions that train the networks and those, of other patients, that say when to stop."""
        patients = patient_numbers(table.decisions)[rows]
        if rarest_outcome(patients, y[rows]) < HELD_BACK:
            return rows, rows[:0]
        train, held_back = stratified_folds(patients, y[rows], folds=HELD_BACK, seed=self.seed)[0]
        return rows[train], rows[held_back]


def _pictures(table: FeatureTable) -> dict[str, Pictures]:
    """Return the pictures of each kind of image by the name of its feature."""
    from theracast_models.network import Pictures

    found = {}
    for spec in picture_specs(table.catalogue):
        texts = text_values(table.decisions, spec.columns[0])
        rows = np.array([row for row, text in enumerate(texts) if text is not None], dtype=np.intp)
        values = decode_patches([texts[row] for row in rows]) if len(rows) else np.zeros((0, 2, 1, 1, 1), np.uint8)
        found[spec.name] = Pictures(rows, values)
    return found
