"""Late fusion: a weighted sum of the members' scores, so that the explanation is the weighted sum of theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from theracast_features.specs import FeatureTable
from theracast_models.folds import out_of_fold_log_odds, patient_folds
from theracast_models.logodds import Floats, Gaps, Learnable, LoadModel, ReplicableModel
from theracast_models.outcomes import as_outcome
from theracast_models.sentences import gap_sentences

# Worth about one patient: members that agree share their weight evenly instead of by chance.
WEIGHT_PENALTY = 1.0


class Stack:
    """`log-odds = intercept + sum(weight * member's log-odds)`, weights not negative.

    Weights come from out-of-fold log-odds within the decisions given to `fit`; then every member is fitted on all.

    Args:
        members: unfitted models; a `Restricted` member sees one modality, so that modalities are fused late.
        folds: inner folds, stratified, a patient in one of them only.
        seed: of the folds.
    """

    family: ClassVar[str] = "stack"

    def __init__(self, members: Sequence[ReplicableModel], *, folds: int = 5, seed: int = 0) -> None:
        self.members = tuple(members)
        self.folds = folds
        self.seed = seed

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn weights and members from n decisions."""
        outcome = as_outcome(y, weight)
        folds = patient_folds(table, outcome.strata, folds=self.folds, seed=self.seed)
        columns = [out_of_fold_log_odds(member, table, outcome, folds) for member in self.members]
        self.intercept_, self.weights_ = fusion_weights(np.column_stack(columns), outcome)
        self.members_ = tuple(deepcopy(member).fit(table, outcome) for member in self.members)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        members = np.array([member.log_odds(table) for member in self.members_])
        result: Floats = self.intercept_ + self.weights_ @ members
        return result

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p)."""
        base = np.full(len(table), self.intercept_)
        phi = np.zeros((len(table), len(table.catalogue)))
        for weight, member in zip(self.weights_, self.members_, strict=True):
            member_base, member_phi = member.contributions(table)
            base += weight * member_base
            phi += weight * member_phi
        return base, phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        told = [member.gaps(table) for weight, member in zip(self.weights_, self.members_, strict=True) if weight > 0]
        return [
            Gaps(*(tuple(dict.fromkeys(chain.from_iterable(kind))) for kind in zip(*rows, strict=True)))
            for rows in zip(*told, strict=True)
        ] or [Gaps((), ())] * len(table)

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy with members learned from other decisions; the weights are kept."""
        members = [member.refit(table, y, weight=weight, seed=seed) for member in self.members_]
        return self._with(members)

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        total = np.full((len(replicates), len(table)), self.intercept_)
        for number, (weight, member) in enumerate(zip(self.weights_, self.members_, strict=True)):
            if weight > 0:
                total += weight * member.replicate_log_odds([one.members_[number] for one in replicates], table)
        return total

    def save(self, folder: Path) -> None:
        """Write `model.json` and each member in a folder of its own."""
        folder.mkdir(parents=True)
        record = {
            "family": self.family,
            "params": {"folds": self.folds, "seed": self.seed},
            "intercept": self.intercept_,
            "weights": self.weights_.tolist(),
        }
        (folder / "model.json").write_text(json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
        for number, member in enumerate(self.members_):
            member.save(folder / f"member-{number}")

    @classmethod
    def load(cls, folder: Path, load_member: LoadModel) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        members = [load_member(folder / f"member-{number}") for number in range(len(record["weights"]))]
        model = cls(members, **record["params"])
        model.members_ = tuple(members)
        model.intercept_, model.weights_ = record["intercept"], np.array(record["weights"], dtype=np.float64)
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the members of the copies into a new folder."""
        folder.mkdir(parents=True)
        for number, member in enumerate(self.members_):
            member.save_replicates([one.members_[number] for one in replicates], folder / f"member-{number}")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        columns = [m.load_replicates(folder / f"member-{number}") for number, m in enumerate(self.members_)]
        return [self._with(members) for members in zip(*columns, strict=True)]

    def _with(self, members: Sequence[ReplicableModel]) -> Self:
        other = type(self)(self.members, folds=self.folds, seed=self.seed)
        other.intercept_, other.weights_, other.members_ = self.intercept_, self.weights_, tuple(members)
        return other


def fusion_weights(scores: Floats, y: Learnable, *, weight: Floats | None = None) -> tuple[float, Floats]:
    """Return intercept and non-negative weights (m,) of members' out-of-fold scores (n, m).

    Regression by the outcome's own likelihood with the weights drawn slightly towards 1/m; exactly 1/m where no fold could
    be made.
    """
    from scipy.optimize import minimize

    even = np.full(scores.shape[1], 1.0 / scores.shape[1])
    outcome = as_outcome(y, weight)
    known = np.flatnonzero(np.isfinite(scores).all(axis=1))
    s, outcome = scores[known], outcome.take(known)
    if not len(known) or not 0 < outcome.strata.sum() < len(known):
        return 0.0, even

    def loss(point: Floats) -> tuple[float, Floats]:
        eta = point[0] + s @ point[1:]
        gradient, _ = outcome.slopes(eta)
        value = outcome.loss(eta) + WEIGHT_PENALTY / 2 * np.sum((point[1:] - even) ** 2)
        return float(value), np.concatenate([[gradient.sum()], s.T @ gradient + WEIGHT_PENALTY * (point[1:] - even)])

    intercept = outcome.start() - float(np.mean(s @ even)) if outcome.has_intercept else 0.0
    start = np.concatenate([[intercept], even])
    bounds = [(None, None) if outcome.has_intercept else (0.0, 0.0)] + [(0.0, None)] * len(even)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    )
    return float(found.x[0]), np.asarray(found.x[1:], dtype=np.float64)
