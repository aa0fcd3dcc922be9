"""Attention-gated late fusion: each modality gives log-odds and a weight, and the answer is their sum of products."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureTable
from theracast_models.absence import learn_where_present, offset_shares, told_gaps
from theracast_models.logodds import Floats, Gaps, expit
from theracast_models.outcomes import Learnable, as_outcome
from theracast_models.preprocess import LinearInputs
from theracast_models.presence import present_modalities
from theracast_models.sentences import gap_sentences

MOST_GATE = 3.0
"""Bound of a gate's score: one modality may count e^6 = 400 times another, not without end."""
PARAMETERS = ("decay", "gate_decay", "dropout", "hidden", "seed")


@dataclass(frozen=True)
class Gating:
    """How the modalities of n decisions were weighed.

    Attributes:
        modalities: the names of the m columns.
        there: (n, m) which are known.
        weight: (n, m) what each one's log-odds are multiplied by; exactly 0 where it is absent.
        usual: (n, m) the weight that the same modalities have where all their values are average.
        log_odds: (n, m) what each says by itself. `base + (weight * log_odds).sum(1)` is the answer; of this,
            `(weight - usual) * log_odds` is what the patient's own values did through the gates.
    """

    modalities: tuple[str, ...]
    there: NDArray[np.bool_]
    weight: Floats
    usual: Floats
    log_odds: Floats


class Gated:
    """`log-odds = base + sum over modalities of weight * log-odds of the modality`; an absent modality has weight 0.

    A modality's log-odds are a sum over its columns (a line each, or a curve with `hidden` bends), so the contribution of a
    modality, `weight * log-odds`, falls apart into those of its features exactly, given the weights. The weights are a
    softmax over the modalities that are there, from gate scores linear in their columns, times `count ** growth` with a
    learned growth between 0 (an average) and 1 (a sum). What the gates did is told apart by `gating`.

    The base is the same for all: the answer for a decision of which nothing is known. That a modality is there and average
    moves the log-odds a little (the more is known, the further the typical patient lies from the rate of all); its features
    share this in proportion to their variances. Training leaves modalities out at random, so that every pattern is met.
    PyTorch trains; the answer is plain double precision without it.

    Args:
        decay, gate_decay: L2 penalties of slopes and of gate slopes, against the mean loss of a decision.
        dropout: probability with which training leaves a modality out.
        hidden: bends of each column's curve; 0: lines.
        seed: of what is left out, and of the first bends.
    """

    family: ClassVar[str] = "gated"

    def __init__(
        self, *, decay: float = 0.1, gate_decay: float = 1.0, dropout: float = 0.3, hidden: int = 0, seed: int = 0
    ) -> None:
        self.decay = decay
        self.gate_decay = gate_decay
        self.dropout = dropout
        self.hidden = hidden
        self.seed = seed

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn preprocessing and network from n decisions."""
        from theracast_models.gated_network import first_weights

        self.modalities_: tuple[str, ...] = tuple(table.modalities)
        mass = as_outcome(y, weight).weight
        self.inputs_ = learn_where_present(table, weight=mass)
        start = first_weights(
            columns=len(self.inputs_.owner), modalities=len(self.modalities_), hidden=self.hidden, seed=self.seed
        )
        self._place(table)
        self._train(table, y, weight, start=start, seed=self.seed)
        there = present_modalities(table)
        by_feature = self._by_feature(self._curves(self.inputs_.design(table)), len(table.catalogue))
        self.shares_ = offset_shares(by_feature, there, self.feature_modality_, weight=mass)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        told = self.gating(table)
        result: Floats = self.base_ + (told.weight * told.log_odds).sum(axis=1)
        return result

    def gating(self, table: FeatureTable) -> Gating:
        """Return the weight and the log-odds of each modality."""
        z, there = self.inputs_.design(table), present_modalities(table)
        weight = self._weights(self._gathered(z * self.weights_["attention"]), there)
        usual = self._weights(np.zeros(there.shape), there)
        log_odds = self.weights_["offset"] + self._gathered(self._curves(z))
        return Gating(self.modalities_, there, weight, usual, log_odds)

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,), the same for all, and the shares (n, p): exact given the weights of the modalities."""
        z, there = self.inputs_.design(table), present_modalities(table)
        weight = self._weights(self._gathered(z * self.weights_["attention"]), there)
        by_feature = self._by_feature(self._curves(z), len(table.catalogue))
        offset = self.weights_["offset"][self.feature_modality_] * self.shares_
        phi: Floats = weight[:, self.feature_modality_] * (by_feature + offset)
        return np.full(len(table), self.base_), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision what was filled in or passed over, and what the answer does without."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        return told_gaps(self.inputs_.gaps(table), table, heard=self.modalities_)

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy whose network was trained on from other decisions; the preprocessing is kept."""
        copy = self._copy()
        copy._train(table, y, weight, start=self.weights_, seed=self.seed + seed)
        return copy

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        return np.array([one.log_odds(table) for one in replicates]).reshape(len(replicates), len(table))

    def save(self, folder: Path) -> None:
        """Write `model.json` and `weights.safetensors` (double precision, no code) into a new folder."""
        folder.mkdir(parents=True)
        record = {
            "family": self.family,
            "params": {name: getattr(self, name) for name in PARAMETERS},
            "modalities": self.modalities_,
            "feature_modality": self.feature_modality_.tolist(),
            "inputs": self.inputs_.to_json(),
            "base": self.base_,
            "shares": self.shares_.tolist(),
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        _write(self.weights_, folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(**record["params"])
        model.modalities_ = tuple(record["modalities"])
        model.feature_modality_ = np.array(record["feature_modality"], dtype=np.intp)
        model.inputs_ = LinearInputs.from_json(record["inputs"])
        model.base_ = record["base"]
        model.shares_ = np.array(record["shares"], dtype=np.float64)
        model.weights_ = _read(folder / "weights.safetensors")
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write bases and weights of the copies into a new folder."""
        folder.mkdir(parents=True)
        bases = [one.base_ for one in replicates]
        (folder / "replicates.json").write_text(json.dumps({"base": bases}) + "\n", encoding="utf-8")
        if replicates:
            together = {name: np.stack([one.weights_[name] for one in replicates]) for name in self.weights_}
            _write(together, folder / "replicates.safetensors")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        bases = json.loads((folder / "replicates.json").read_text(encoding="utf-8"))["base"]
        together = _read(folder / "replicates.safetensors") if bases else {}
        copies = []
        for number, base in enumerate(bases):
            copy = self._copy()
            copy.base_ = base
            copy.weights_ = {name: values[number].copy() for name, values in together.items()}
            copies.append(copy)
        return copies

    def _train(
        self, table: FeatureTable, y: Learnable, weight: Floats | None, *, start: Mapping[str, Floats], seed: int
    ) -> None:
        from theracast_models.gated_network import train_gated

        outcome = as_outcome(y, weight)
        counted = np.flatnonzero(outcome.weight > 0)
        table, outcome = table.take(counted), outcome.take(counted)
        self.base_ = float(outcome.start())
        self.weights_ = train_gated(
            self.inputs_.design(table),
            present_modalities(table),
            self._belongs,
            outcome,
            base=self.base_,
            start=start,
            decay=self.decay,
            gate_decay=self.gate_decay,
            dropout=self.dropout,
            seed=seed,
        )

    def _place(self, table: FeatureTable) -> None:
        place = {name: number for number, name in enumerate(self.modalities_)}
        self.feature_modality_ = np.array([place[spec.modality] for spec in table.catalogue], dtype=np.intp)

    @property
    def _belongs(self) -> NDArray[np.intp]:
        """(columns,) the modality of each column of the design."""
        return self.feature_modality_[self.inputs_.owner]

    def _copy(self) -> Self:
        copy = type(self)(**{name: getattr(self, name) for name in PARAMETERS})
        copy.modalities_, copy.feature_modality_ = self.modalities_, self.feature_modality_
        copy.inputs_, copy.base_, copy.shares_ = self.inputs_, self.base_, self.shares_
        return copy

    def _curves(self, z: Floats) -> Floats:
        """Return (n, columns) the log-odds of each column, 0 at its mean."""
        curves: Floats = z * self.weights_["slope"]
        if self.hidden:
            threshold = self.weights_["threshold"]
            bends = np.tanh(z[:, :, None] * self.weights_["inner"] + threshold) - np.tanh(threshold)
            curves = curves + (bends * self.weights_["outer"]).sum(axis=2)
        return curves

    def _gathered(self, columns: Floats) -> Floats:
        """Return (n, modalities) the sums over the columns of each modality, each row added by itself."""
        result = np.zeros((len(columns), len(self.modalities_)))
        for place, modality in enumerate(self._belongs.tolist()):
            result[:, modality] += columns[:, place]
        return result

    def _by_feature(self, columns: Floats, features: int) -> Floats:
        result = np.zeros((len(columns), features))
        for place, owner in enumerate(self.inputs_.owner.tolist()):
            result[:, owner] += columns[:, place]
        return result

    def _weights(self, scores: Floats, there: NDArray[np.bool_]) -> Floats:
        """Return (n, modalities) weights of gate scores; what is absent has exactly 0."""
        gates = np.exp(MOST_GATE * np.tanh((self.weights_["salience"] + scores) / MOST_GATE)) * there
        count = np.maximum(there.sum(axis=1, keepdims=True), 1)
        total = count ** expit(self.weights_["growth"])
        result: Floats = total * gates / np.maximum(gates.sum(axis=1, keepdims=True), 1e-12)
        return result


def _write(weights: Mapping[str, Floats], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, str(path))


def _read(path: Path) -> dict[str, Floats]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: np.asarray(value, dtype=np.float64) for name, value in load_file(str(path)).items()}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path.name}: these are no weights of a gated fusion. The folder is damaged; take it from where it was saved, "
            "or train again."
        ) from error
