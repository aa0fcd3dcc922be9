"""The whole development: nested cross-validation, the final model, and the rivals it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from theracast_data.home import home
from theracast_models.fitting import CalibratedModel, fit_calibrated
from theracast_training.comparisons import Judged, Rival, baseline_rival, modality_rival
from theracast_training.develop import Task, TaskResult, nested_tasks
from theracast_training.prepare import Prepared, search_key
from theracast_training.workers import run_tasks

MODALITY_TRIALS = 10  # a penalised linear model has two parameters; more trials do not move it


class Progress(Protocol):
    """Whoever follows a training: told of steps, of the trials to come, and of each that is done."""

    def step(self, text: str) -> None: ...

    def expect(self, trials: int) -> None: ...

    def trial(self) -> None: ...


class Silent:
    """Follows nothing."""

    def step(self, text: str) -> None:
        """Pass over a step."""

    def expect(self, trials: int) -> None:
        """Pass over the number of trials."""

    def trial(self) -> None:
        """Pass over a trial."""


@dataclass(frozen=True)
class Developed:
    """What tuning and fitting gave.

    Attributes:
        final: the choice on all development decisions.
        fitted: the calibrated model.
        own: site (or `cv`) to the model's probabilities for its known decisions.
        rivals: baselines and single modalities, likewise.
        outer: results of the outer folds.
    """

    final: TaskResult
    fitted: CalibratedModel
    own: dict[str, Judged]
    rivals: list[Rival]
    outer: list[TaskResult]


def develop(prepared: Prepared, *, jobs: int, progress: Progress) -> Developed:
    """Tune in nested cross-validation and on all development decisions, and fit what was chosen."""
    final = final_task(prepared)
    outer = nested_tasks(final)
    singles = modality_tasks(prepared, final)
    tasks = [final, *outer, *(task for group in singles.values() for task in group)]
    progress.expect(sum(task.expected_trials for task in tasks))
    progress.step("tuning")
    results = {result.key: result for result in run_tasks(tasks, jobs=jobs, on_trial=progress.trial)}
    progress.step("fitting")
    chosen = results[final.key]
    fitted = fit_calibrated(
        chosen.choice.recipe,
        final.table,
        final.target.y,
        folds=chosen.folds,
        weight=final.target.weight(),
        replicates=prepared.study.search.replicates,
        seed=final.seed,
    )
    own = {
        site: Judged(rows, fitted.probability(prepared.table.take(rows))) for site, rows in prepared.external.items()
    }
    nested = [results[task.key] for task in outer]
    if nested:
        own = {"cv": _out_of_fold(prepared, nested)} | own
    rivals = [baseline_rival(one, prepared, chosen.folds, seed=final.seed) for one in prepared.study.published]
    for modality, group in singles.items():
        judged = [results[task.key] for task in group[1:]]
        rivals.append(
            modality_rival(
                results[group[0].key],
                prepared.table.of_modality(modality),  # type: ignore[arg-type]
                prepared,
                modality=modality,
                nested=_out_of_fold(prepared, judged) if judged else None,
            )
        )
    return Developed(chosen, fitted, own, rivals, nested)


def final_task(prepared: Prepared) -> Task:
    """Return the task that develops the model which is kept."""
    study = prepared.study
    count = len(prepared.learn)
    return Task(
        key="final",
        table=prepared.table.take(prepared.learn),
        target=prepared.target.take(prepared.learn),
        learn=np.arange(count),
        judged=np.array([], dtype=np.intp),
        families=study.search.families,
        search=study.search,
        validation=study.validation,
        trials=study.search.trials,
        seed=study.search.seed,
        journals=home() / "tuning" / search_key(prepared),
    )


def modality_tasks(prepared: Prepared, final: Task) -> dict[str, list[Task]]:
    """Return per modality its task on all development decisions and, where no external site judges, its outer folds."""
    if len(prepared.table.modalities) < 2:
        return {}
    groups = {}
    for modality in prepared.table.modalities:
        whole = Task(
            key=f"only-{modality}",
            table=final.table.of_modality(modality),
            target=final.target,
            learn=final.learn,
            judged=final.judged,
            families=("elasticnet",),
            search=final.search,
            validation=final.validation,
            trials=min(final.trials, MODALITY_TRIALS),
            seed=final.seed,
            journals=final.journals,
        )
        groups[str(modality)] = [whole, *([] if prepared.external else nested_tasks(whole))]
    return groups


def _out_of_fold(prepared: Prepared, results: Sequence[TaskResult]) -> Judged:
    """Return the outer predictions, the mean where repeats judged a decision more than once."""
    count = np.zeros(len(prepared.learn))
    total = np.zeros(len(prepared.learn))
    for result in results:
        total[result.judged] += result.probability
        count[result.judged] += 1
    judged = np.flatnonzero(count)
    return Judged(prepared.learn[judged], total[judged] / count[judged])
