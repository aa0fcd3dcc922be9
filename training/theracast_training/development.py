"""The whole development: nested cross-validation, the final model, and the rivals it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from theracast_data.home import home
from theracast_data.modality import Modality
from theracast_features.specs import FeatureTable
from theracast_models.fitting import CalibratedModel, fit_calibrated
from theracast_training.comparisons import Judged, Rival, baseline_rival, part_rival
from theracast_training.develop import FUSIONS, Judgement, Task, TaskResult, nested_tasks
from theracast_training.patterns import patterns_to_judge, pooled
from theracast_training.prepare import Prepared, search_key
from theracast_training.workers import run_tasks

Floats = NDArray[np.float64]

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
        rivals: baselines, single modalities, and all but one of them, likewise.
        outer: results of the outer folds.
        by_pattern: probabilities of the development decisions by combination of modalities, out of fold.
    """

    final: TaskResult
    fitted: CalibratedModel
    own: dict[str, Judged]
    rivals: list[Rival]
    outer: list[TaskResult]
    by_pattern: dict[str, Floats] = field(default_factory=dict)


def develop(prepared: Prepared, *, jobs: int, progress: Progress, rivals: bool = True) -> Developed:
    """Tune in nested cross-validation and on all development decisions, and fit what was chosen.

    Args:
        rivals: develop single modalities, all but one of them, and published scores for comparison too.
    """
    final = final_task(prepared)
    patterns = () if final.target.kind == "continuous" else tuple(patterns_to_judge(final.table, final.target.y))
    outer = [replace(task, patterns=patterns) for task in nested_tasks(final)]
    parts = part_tasks(prepared, final) if rivals else []
    tasks = [final, *outer, *(task for part in parts for task in part.tasks)]
    progress.expect(sum(task.expected_trials for task in tasks))
    progress.step("tuning")
    results = {result.key: result for result in run_tasks(tasks, jobs=jobs, on_trial=progress.trial)}
    progress.step("fitting")
    chosen = results[final.key]
    fitted = fit_calibrated(
        chosen.choice.recipe,
        final.table,
        final.target.outcome(),
        folds=chosen.folds,
        replicates=prepared.study.search.replicates,
        seed=final.seed,
        asked=final.target.asked,
    )
    own = {
        site: Judged.of(rows, Judgement.by(fitted, prepared.table.take(rows)))
        for site, rows in prepared.external.items()
    }
    nested = [results[task.key] for task in outer]
    if nested:
        own = {"cv": _out_of_fold(prepared, nested)} | own
    ranks = prepared.target.kind in ("binary", "time_to_event")
    published = prepared.study.published if rivals and ranks else ()
    held_against = [baseline_rival(one, prepared, chosen.folds, seed=final.seed) for one in published]
    for part in parts:
        judged = [results[task.key] for task in part.tasks[1:]]
        held_against.append(
            part_rival(
                results[part.tasks[0].key],
                part.of(prepared.table),
                prepared,
                name=part.modality,
                kind=part.kind,
                nested=_out_of_fold(prepared, judged) if judged else None,
            )
        )
    by_pattern = pooled([one.by_pattern for one in nested if one.by_pattern])
    return Developed(chosen, fitted, own, held_against, nested, by_pattern)


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
        families=families_for(prepared.table, study.search.families),
        search=study.search,
        validation=study.validation,
        trials=study.search.trials,
        seed=study.search.seed,
        journals=home() / "tuning" / search_key(prepared),
    )


def families_for(table: FeatureTable, families: Sequence[str]) -> tuple[str, ...]:
    """Return the families without those that fuse kinds of data, where there is one kind only and others are named."""
    others = tuple(family for family in families if family not in FUSIONS)
    return others if others and len(table.modalities) < 2 else tuple(families)


@dataclass(frozen=True)
class Part:
    """A model of a part of the features, to show what that part, or the rest, is worth.

    Attributes:
        kind: `modality`: that modality alone; `without`: all others.
        tasks: the one on all development decisions and, where no external site judges, its outer folds.
    """

    kind: Literal["modality", "without"]
    modality: Modality
    tasks: tuple[Task, ...] = ()

    def of(self, table: FeatureTable) -> FeatureTable:
        """Return the features that the model sees."""
        return table.of_modality(self.modality) if self.kind == "modality" else table.without_modality(self.modality)


def part_tasks(prepared: Prepared, final: Task) -> list[Part]:
    """Return a model of each modality alone and, where there are three or more, of all but each."""
    modalities = prepared.table.modalities
    if len(modalities) < 2:
        return []
    parts = [Part("modality", one) for one in modalities]
    parts += [Part("without", one) for one in modalities] if len(modalities) > 2 else []
    found = []
    for part in parts:
        whole = replace(
            final,
            key=f"{'only' if part.kind == 'modality' else 'without'}-{part.modality}",
            table=part.of(final.table),
            families=("elasticnet",),
            trials=min(final.trials, MODALITY_TRIALS),
        )
        found.append(replace(part, tasks=(whole, *([] if prepared.external else nested_tasks(whole)))))
    return found


def _out_of_fold(prepared: Prepared, results: Sequence[TaskResult]) -> Judged:
    """Return the outer answers, the mean where repeats judged a decision more than once."""
    n = len(prepared.learn)
    count = np.zeros(n)
    for result in results:
        count[result.judged] += 1
    judged = np.flatnonzero(count)

    def mean(part: str) -> Any:
        found: Any = None
        for result in results:
            values = getattr(result.judgement, part)
            if values is None:
                return None
            found = np.zeros((n, *values.shape[1:])) if found is None else found
            found[result.judged] += values
        return (found[judged].T / count[judged]).T

    return Judged.of(prepared.learn[judged], Judgement(mean("answers"), mean("linear"), mean("curve")))
