"""A model that sees imaging features with the differences between scanners taken out, learned from its own decisions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_models.combat import Combat
from theracast_models.logodds import Floats, Gaps, Learnable, LoadModel, ReplicableModel
from theracast_models.outcomes import as_outcome
from theracast_models.preprocess import text_values, transformed, untransformed
from theracast_models.sentences import gap_sentences


class Harmonised:
    """ComBat before another model, inside its `fit`, so that no fold sees the scanners of the decisions it judges.

    The step moves each harmonised feature by itself, given the scanner; so a feature's share stays its own, and the
    explanation stays exact. A feature that linear models see as log1p is moved on that scale, on which its spread is even.
    A scanner that `fit` has not seen, or that is not known, leaves the values as they are, and `handled` says so.
    Replicates keep the harmonisation, like the scales.
    """

    family: ClassVar[str] = "harmonised"

    def __init__(self, model: ReplicableModel) -> None:
        self.model = model

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn the harmonisation, then the model, from n decisions; those of weight 0 do not count."""
        counted = np.flatnonzero(as_outcome(y, weight).weight > 0)
        learned = table.take(counted)
        self.combats_ = {
            batch: Combat.learn(_values(learned, names), _scanners(learned, batch), features=names)
            for batch, names in harmonised_features(table).items()
        }
        self.model.fit(self._moved(table), y, weight=weight)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        return self.model.log_odds(self._moved(table))

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p)."""
        return self.model.contributions(self._moved(table))

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision what was filled in or passed over, and what could not be harmonised."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        left: list[list[str]] = [[] for _ in range(len(table))]
        for batch, combat in self.combats_.items():
            values = _values(table, combat.features)
            rows, columns = np.nonzero(
                combat.passed_over(_scanners(table, batch)) & np.isfinite(values) & (combat.scale > 0)
            )
            for row, column in zip(rows, columns, strict=True):
                left[row].append(combat.features[column])
        return [
            gap._replace(unharmonised=tuple(names)) for gap, names in zip(self.model.gaps(table), left, strict=True)
        ]

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy learned from other decisions; the harmonisation is kept."""
        return self._with(self.model.refit(self._moved(table), y, weight=weight, seed=seed))

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        return self.model.replicate_log_odds([one.model for one in replicates], self._moved(table))

    def save(self, folder: Path) -> None:
        """Write `model.json` and the model behind the harmonisation in `member/`."""
        folder.mkdir(parents=True)
        combats = {batch: combat.to_json() for batch, combat in self.combats_.items()}
        record = {"family": self.family, "combats": combats}
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        self.model.save(folder / "member")

    @classmethod
    def load(cls, folder: Path, load_member: LoadModel) -> Self:
        """Return the model that `save` wrote."""
        record: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(load_member(folder / "member"))
        model.combats_ = {batch: Combat.from_json(one) for batch, one in record["combats"].items()}
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the copies into a new folder."""
        self.model.save_replicates([one.model for one in replicates], folder)

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        return [self._with(model) for model in self.model.load_replicates(folder)]

    def _moved(self, table: FeatureTable) -> FeatureTable:
        frame = table.frame.copy()
        for batch, combat in self.combats_.items():
            names, batches = list(combat.features), _scanners(table, batch)
            measured = table.numbers(names)
            moved = combat.apply(_values(table, names), batches)
            logged = _logged(table, names)
            moved[:, logged] = untransformed(moved[:, logged], "log1p")
            # What is passed over stays to the last digit, which the way to the scale and back would not give.
            frame[names] = np.where(combat.passed_over(batches), measured, moved)
        return replace(table, frame=frame)

    def _with(self, model: ReplicableModel) -> Self:
        other = copy(self)
        other.model = model
        return other


def harmonised_features(table: FeatureTable) -> dict[str, list[str]]:
    """Return the batch columns of a table with the features that are harmonised over each."""
    found: dict[str, list[str]] = {}
    for spec in table.catalogue:
        if spec.batch is not None:
            found.setdefault(spec.batch, []).append(spec.name)
    return found


def _values(table: FeatureTable, names: Sequence[str]) -> Floats:
    """Return (n, p) on the scale on which the features are harmonised."""
    values = table.numbers(names).copy()
    logged = _logged(table, names)
    values[:, logged] = transformed(values[:, logged], "log1p")
    return values


def _logged(table: FeatureTable, names: Sequence[str]) -> NDArray[np.bool_]:
    transforms = {spec.name: spec.transform for spec in table.catalogue}
    return np.array([transforms[name] == "log1p" for name in names], dtype=bool)


def _scanners(table: FeatureTable, batch: str) -> list[str | None]:
    return [None if value is None else str(value) for value in text_values(table.decisions, batch)]
