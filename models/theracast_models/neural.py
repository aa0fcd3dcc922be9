"""An additive network: the score is a sum of learned curves, one a feature, so its explanation is read off in closed form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from theracast_features.specs import FeatureTable
from theracast_models.folds import Fold, patient_numbers, rarest_outcome, stratified_folds
from theracast_models.logodds import Floats, Gaps, Learnable
from theracast_models.outcomes import Continuous, Outcome, as_outcome
from theracast_models.preprocess import LinearInputs
from theracast_models.sentences import gap_sentences
from theracast_models.shapes import Shapes, read_shapes, write_shapes

MEMBERS = 5
"""Networks whose mean is the model; each holds back another part of the patients, to tell when to stop."""
MEMBERS_OF_A_REPLICATE = 2
WITHOUT_HELD_BACK = 40
"""Steps where an outcome has too few patients to hold some back."""
PARAMETERS = ("seed", "width", "sparsity", "weight_decay", "learning_rate", "steps")


class Neural:
    """`score = base + sum over features of f_j(x_j)`, the curves f_j learned together; every kind of outcome.

    The inputs are those of the elastic net: standardised, within limits, filled in with the median, a column per level. A
    column of two values has a line, every other a line and bends; a feature that was not measured counts by the curve at
    the median and by its indicator, where the study has one. The explanation is `phi_j = f_j(x_j) - mean f_j over the
    training decisions`, the columns of a category summed, and the base is the same for all: exactly the Shapley values
    against the training decisions, since the score is additive.

    The model is the mean of five networks, each stopped by another fifth of the patients, so that all patients teach it.
    Replicates keep the inputs and learn two networks anew: a mean of fewer is a little less certain, so intervals are a
    little wide. Training needs PyTorch, answers do not.

    Args:
        seed: of the first weights, and of who is held back.
        width: bends of each curve of each network.
        sparsity: penalty on the spread of each feature's share.
        weight_decay, learning_rate: of AdamW.
        steps: at most, each over all decisions.
    """

    family: ClassVar[str] = "neural"

    def __init__(
        self,
        *,
        seed: int = 0,
        width: int = 8,
        sparsity: float = 0.05,
        weight_decay: float = 0.1,
        learning_rate: float = 0.02,
        steps: int = 300,
    ) -> None:
        self.seed = seed
        self.width = width
        self.sparsity = sparsity
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate
        self.steps = steps

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn inputs and curves from n decisions; those of weight 0 do not count."""
        outcome = as_outcome(y, weight)
        self.inputs_ = LinearInputs.learn(table, weight=outcome.weight)
        self.base_, self.shapes_ = self._learned(table, outcome, seed=self.seed, members=MEMBERS)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) scores, not calibrated."""
        result: Floats = self.base_ + self.shapes_.parts(self.inputs_.design(table)).sum(axis=1)
        return result

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,), the same for all, and exact SHAP values (n, p)."""
        parts = self.shapes_.parts(self.inputs_.design(table))
        phi = np.zeros((len(table), len(self.inputs_.columns)))
        for column, feature in enumerate(self.inputs_.owner):
            phi[:, feature] += parts[:, column]
        return np.full(len(table), self.base_), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        return self.inputs_.gaps(table)

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy with curves learned from other decisions; the inputs are kept."""
        base, shapes = self._learned(
            table, as_outcome(y, weight), seed=self.seed + 1000 * seed, members=MEMBERS_OF_A_REPLICATE
        )
        return self._with(base, shapes)

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) scores of copies made by `refit`."""
        z = self.inputs_.design(table)
        found = [one.base_ + one.shapes_.parts(z).sum(axis=1) for one in replicates]
        return np.array(found).reshape(len(replicates), len(table))

    def save(self, folder: Path) -> None:
        """Write `model.json` and `shapes.safetensors` into a new folder."""
        folder.mkdir(parents=True)
        record = {
            "family": self.family,
            "params": {name: getattr(self, name) for name in PARAMETERS},
            "inputs": self.inputs_.to_json(),
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        write_shapes([(self.base_, self.shapes_)], folder / "shapes.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(**record["params"])
        model.inputs_ = LinearInputs.from_json(record["inputs"])
        [(model.base_, model.shapes_)] = read_shapes(folder / "shapes.safetensors", columns=len(model.inputs_.owner))
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the curves of the copies into a new folder."""
        folder.mkdir(parents=True)
        write_shapes([(one.base_, one.shapes_) for one in replicates], folder / "replicates.safetensors")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        found = read_shapes(folder / "replicates.safetensors", columns=len(self.inputs_.owner))
        return [self._with(base, shapes) for base, shapes in found]

    def _with(self, base: float, shapes: Shapes) -> Self:
        copy = type(self)(**{name: getattr(self, name) for name in PARAMETERS})
        copy.inputs_, copy.base_, copy.shapes_ = self.inputs_, base, shapes
        return copy

    def _learned(self, table: FeatureTable, outcome: Outcome, *, seed: int, members: int) -> tuple[float, Shapes]:
        """Return base and curves, centred on the decisions: the mean of several networks."""
        from theracast_models.additive_net import Settings, train_additive

        counted = np.flatnonzero(outcome.weight > 0)
        table, outcome = table.take(counted), outcome.take(counted)
        z, unit = self.inputs_.design(table), 1.0
        if isinstance(outcome, Continuous):  # so that steps and penalties mean the same in every unit
            unit, outcome = outcome.scale, Continuous(outcome.y / outcome.scale, outcome.weight, 1.0)
        curved = np.array([j for j in range(z.shape[1]) if len(np.unique(z[:, j])) > 2], dtype=np.intp)
        folds = self._folds(table, outcome, seed)
        intercepts, shapes = [], []
        for number in range(members):
            train, held_back = folds[number % len(folds)]
            steps = self.steps if len(held_back) else min(self.steps, WITHOUT_HELD_BACK)
            intercept, one = train_additive(
                z,
                outcome,
                owner=self.inputs_.owner,
                curved=curved,
                train=train,
                held_back=held_back,
                settings=Settings(self.width, self.sparsity, self.weight_decay, self.learning_rate, steps),
                seed=seed + number,
            )
            intercepts.append(intercept)
            shapes.append(one)
        mean, moved = Shapes.mean(shapes).centred(z, outcome.weight)
        base = float(np.mean(intercepts)) + moved if outcome.has_intercept else 0.0
        return unit * base, mean.scaled(unit)

    def _folds(self, table: FeatureTable, outcome: Outcome, seed: int) -> list[Fold]:
        """Return decisions that train and those, of other patients, that say when to stop: none with too few patients."""
        patients, strata = patient_numbers(table.decisions), outcome.strata
        if rarest_outcome(patients, strata) < MEMBERS:
            everyone = np.arange(len(outcome))
            return [(everyone, everyone[:0])]
        return stratified_folds(patients, strata, folds=MEMBERS, seed=seed)
