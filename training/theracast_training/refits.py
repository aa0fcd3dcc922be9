"""A procedure that can be learnt again from other patients: what learning curves, optimism and forward chains repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated
from theracast_models.folds import patient_folds
from theracast_training.develop import Task, run_task

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

Predict = Callable[[Rows], Floats]
"""From positions of decisions to their probabilities."""
Fit = Callable[[Rows], Predict]
"""From the positions that may be learnt from (one that stands there twice counts twice) to what they have taught.

A CohortError says that so few patients, or one outcome alone, teach nothing.
"""


def recipe_fit(
    recipe: Recipe, table: FeatureTable, y: Floats, *, weight: Floats | None = None, folds: int = 5, seed: int = 0
) -> Fit:
    """Return the procedure that fits a recipe and calibrates it out of fold, all on the rows it is given."""

    def fit(rows: Rows) -> Predict:
        own, outcome = table.take(rows), y[rows]
        fitted = fit_calibrated(
            recipe,
            own,
            outcome,
            folds=patient_folds(own, outcome, folds=folds, seed=seed),
            weight=None if weight is None else weight[rows],
            replicates=0,
            seed=seed,
        )
        return lambda asked: fitted.probability(table.take(asked))

    return fit


def procedure_fit(task: Task, *, scratch: Path, trials: int | None = None) -> Fit:
    """Return the procedure that searches as a task does, then fits and calibrates what was chosen, on the rows it is given.

    So the choice among families and parameters counts as well, at the price of a search a fit.

    Args:
        task: develops on all development decisions; see `development.final_task`.
        scratch: an empty folder for the journals of the searches, which are of no use afterwards.
        trials: a family; by default those of the task.
    """
    number = count()

    def fit(rows: Rows) -> Predict:
        key = f"refit-{next(number)}"
        own = replace(
            task,
            key=key,
            learn=rows,
            judged=np.array([], dtype=np.intp),
            trials=task.trials if trials is None else trials,
            journals=scratch / key,
        )
        found = run_task(own)
        target = task.target.take(rows)
        fitted = fit_calibrated(
            found.choice.recipe,
            task.table.take(rows),
            target.y,
            folds=found.folds,
            weight=target.weight(),
            replicates=0,
            seed=task.seed,
        )
        return lambda asked: fitted.probability(task.table.take(asked))

    return fit


def rows_by_patient(patients: Rows) -> list[Rows]:
    """Return the positions of each patient's decisions; `patients` (n,) holds a number for each decision's patient."""
    order = np.argsort(patients, kind="stable")
    _, starts = np.unique(patients[order], return_index=True)
    return [rows.astype(np.intp) for rows in np.split(order, starts[1:])] if len(patients) else []


def drawn_patients(members: list[Rows], rng: np.random.Generator) -> Rows:
    """Return the rows of as many patients as there are, drawn with replacement, each with all decisions."""
    return np.concatenate([members[one] for one in rng.integers(0, len(members), len(members))])
