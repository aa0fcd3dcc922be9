"""A model that sees one modality only, and answers as if it had seen the whole table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from theracast_data.errors import CohortError
from theracast_data.modality import Modality
from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Gaps, Learnable, LoadModel, ReplicableModel
from theracast_models.sentences import gap_sentences


class Restricted:
    """One modality's model: features of other modalities contribute exactly 0. Several of them in a stack fuse late."""

    family: ClassVar[str] = "restricted"

    def __init__(self, model: ReplicableModel, modality: Modality) -> None:
        self.model = model
        self.modality = modality

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn from the features of the modality."""
        if self.modality not in table.modalities:
            raise CohortError(
                f"no feature is of modality {self.modality!r}; there are {', '.join(table.modalities) or 'none'}. "
                "Choose one of them, or add columns of that modality to the study."
            )
        self.model.fit(table.of_modality(self.modality), y, weight=weight)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        return self.model.log_odds(table.of_modality(self.modality))

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p) over all features of the table."""
        base, own = self.model.contributions(table.of_modality(self.modality))
        phi = np.zeros((len(table), len(table.catalogue)))
        phi[:, [n for n, spec in enumerate(table.catalogue) if spec.modality == self.modality]] = own
        return base, phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        return self.model.gaps(table.of_modality(self.modality))

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy learned from other decisions."""
        return self._with(self.model.refit(table.of_modality(self.modality), y, weight=weight, seed=seed))

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        return self.model.replicate_log_odds([one.model for one in replicates], table.of_modality(self.modality))

    def save(self, folder: Path) -> None:
        """Write `model.json` and the model of the modality in `member/`."""
        folder.mkdir(parents=True)
        record = {"family": self.family, "modality": self.modality}
        (folder / "model.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        self.model.save(folder / "member")

    @classmethod
    def load(cls, folder: Path, load_member: LoadModel) -> Self:
        """Return the model that `save` wrote."""
        record: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return cls(load_member(folder / "member"), record["modality"])

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the copies into a new folder."""
        self.model.save_replicates([one.model for one in replicates], folder)

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        return [self._with(model) for model in self.model.load_replicates(folder)]

    def _with(self, model: ReplicableModel) -> Self:
        other = copy(self)
        other.model = model
        return other
