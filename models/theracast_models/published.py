"""A published score as a model: nothing is learned but, on top of it, the calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from theracast_features.scores import PublishedScore, published_score, table_values
from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Gaps, Learnable
from theracast_models.sentences import gap_sentences


class Published:
    """The log-odds of a published score. Where an input is missing or unknown to it, its typical patient stands in.

    `phi` of an input is its term less the term of the score's typical patient, so what was not measured has phi 0.

    Args:
        score: a built-in score or its name.
        inputs: input of the score to the name of a column inside Theracast, where they differ.
    """

    family: ClassVar[str] = "published"

    def __init__(self, score: str | PublishedScore, inputs: Mapping[str, str] | None = None) -> None:
        self.score = published_score(score) if isinstance(score, str) else score
        self.inputs = dict(inputs or {})

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Check that the table has the inputs; nothing is learned."""
        self.contributions(table.take([]))
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds as published."""
        base, phi = self.contributions(table)
        result: Floats = base + phi.sum(axis=1)
        return result

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p)."""
        values, units = table_values(table)
        terms, _ = self.score.completed(values, inputs=self.inputs, units=units)
        place = self._places(table)
        phi = np.zeros((len(table), len(table.catalogue)))
        for name, typical in self.score.typical.items():
            phi[:, place[name]] += terms[name].to_numpy(dtype=np.float64) - typical
        return np.full(len(table), self.score.intercept + sum(self.score.typical.values())), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        values, units = table_values(table)
        _, replaced = self.score.completed(values, inputs=self.inputs, units=units)
        place = self._places(table)
        names = np.array([table.catalogue[place[name]].name for name in replaced.columns], dtype=object)
        known = np.column_stack([table.frame[name].notna().to_numpy() for name in names])
        stands_in = replaced.to_numpy(dtype=bool)
        return [
            Gaps(tuple(names[row & ~there]), tuple(names[row & there]))
            for row, there in zip(stands_in, known, strict=True)
        ]

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return the score itself."""
        return self

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds: the same in each."""
        return np.tile(self.log_odds(table), (len(replicates), 1))

    def save(self, folder: Path) -> None:
        """Write `model.json` into a new folder."""
        folder.mkdir(parents=True)
        record = {"family": self.family, "params": {"score": self.score.name, "inputs": self.inputs}}
        (folder / "model.json").write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        return cls(**json.loads((folder / "model.json").read_text(encoding="utf-8"))["params"])

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write how many there are into a new folder."""
        folder.mkdir(parents=True)
        (folder / "replicates.json").write_text(json.dumps({"count": len(replicates)}) + "\n", encoding="utf-8")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the score as often as `save_replicates` was given it."""
        return [self] * int(json.loads((folder / "replicates.json").read_text(encoding="utf-8"))["count"])

    def _places(self, table: FeatureTable) -> dict[str, int]:
        bare = {
            spec.name.split(".", 1)[1]: number
            for number, spec in enumerate(table.catalogue)
            if spec.role != "indicator"
        }
        return {name: bare[self.inputs.get(name, name)] for name in self.score.inputs}
