"""Folds by patient, and predictions for decisions that the model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.events.access import KEY
from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Learnable, LogOddsModel
from theracast_models.outcomes import as_outcome

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def patient_numbers(decisions: pd.DataFrame) -> NDArray[np.intp]:
    """Return (n,) the same number for decisions of one patient: the same subject at the same site.

    Where events are found by the subject alone, a patient who moved to another hospital stays the same patient.
    """
    keys = decisions["subject_id"].astype(str)
    if KEY not in decisions or not (decisions[KEY].astype(str) == keys).all():
        keys = decisions["site"].astype(str) + "\x1f" + keys
    _, numbers = np.unique(keys.to_numpy(dtype=object).astype(str), return_inverse=True)
    return numbers.astype(np.intp)


def patient_folds(table: FeatureTable, y: Floats, *, folds: int, seed: int) -> list[Fold]:
    """Return stratified folds as (train, test) positions, each patient in one test fold; the same for the same seed.

    Fewer folds where an outcome has fewer patients than `folds`; none at all where one has less than two.
    """
    patients = patient_numbers(table.decisions)
    count = min(folds, rarest_outcome(patients, y))
    if count < 2:
        return []
    return [
        (train, test)
        for train, test in stratified_folds(patients, y, folds=count, seed=seed)
        if 0 < y[train].sum() < len(train)
    ]


def rarest_outcome(patients: NDArray[np.intp], y: Floats) -> int:
    """Return how many patients have the rarer outcome, more than which no folds can be made."""
    return min(len(np.unique(patients[y == outcome])) for outcome in (0.0, 1.0))


def stratified_folds(patients: NDArray[np.intp], y: Floats, *, folds: int, seed: int) -> list[Fold]:
    """Return (train, test) positions: outcomes spread evenly, each patient in one test fold, the same for the same seed.

    Args:
        patients: (n,) a number for each patient.
        y: (n,) 0/1.
        folds: at most `rarest_outcome`.
        seed: of the shuffle.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    single = len(np.unique(patients)) == len(patients)
    splitter: Any = (StratifiedKFold if single else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    split = splitter.split(np.zeros((len(y), 1)), y.astype(int), None if single else patients)
    return [(train, test) for train, test in split]


def out_of_fold_log_odds(
    model: LogOddsModel, table: FeatureTable, y: Learnable, folds: Sequence[Fold], *, weight: Floats | None = None
) -> Floats:
    """Return (n,) scores by copies of an unfitted model that have not seen the decision.

    The mean over folds where a decision is tested more than once; NaN where it never is.
    """
    outcome = as_outcome(y, weight)
    total, count = np.zeros(len(table)), np.zeros(len(table))
    for train, test in folds:
        fitted = deepcopy(model).fit(table.take(train), outcome.take(train))
        total[test] += fitted.log_odds(table.take(test))
        count[test] += 1
    mean: Floats = np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)
    return mean
