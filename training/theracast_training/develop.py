"""From development decisions to one chosen recipe; the same procedure inside every outer fold and on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_models.fitting import CalibratedModel, Recipe, fit_calibrated, out_of_fold
from theracast_models.links import HazardLink
from theracast_models.presence import present_modalities
from theracast_models.stack import fusion_weights
from theracast_training.patterns import HeldOut, answers_by_pattern
from theracast_training.search import FamilySearch, FoldData, cut_folds, mean_loss, trials_of, tune
from theracast_training.splits import Folds, make_folds
from theracast_training.study import SearchSection, ValidationSection
from theracast_training.target import Target

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

SIMPLICITY = ("elasticnet", "late", "lightgbm", "neural", "gated", "cnn", "stack")
OFTEN_LACKING = 0.05
"""Share of decisions without any value of some kind of data, from which on a fusion of kinds is the simpler model."""
STACKED = ("elasticnet", "lightgbm")
"""What a stack is made of, beside networks that are named."""
FUSIONS = ("late", "gated")
"""Families that fuse kinds of data themselves."""


CURVE = 24
"""Days at which probabilities of times to an event are compared with what happened."""


def curve_days(horizons: Sequence[float]) -> Floats:
    """Return (CURVE,) even days up to the last horizon."""
    return np.linspace(0.0, max(horizons), CURVE + 1)[1:]


@dataclass(frozen=True)
class Choice:
    """The family that was selected, and why."""

    family: str
    reason: str
    searches: dict[str, FamilySearch]

    @property
    def recipe(self) -> Recipe:
        """The recipe to fit."""
        return self.searches[self.family].recipe


@dataclass(frozen=True)
class Task:
    """One run of the procedure, as plain data that can be sent to a worker process.

    Attributes:
        key: name of the task, and of its journals.
        table, target: the development decisions, all with a known outcome.
        learn: positions that the procedure may see.
        judged: outer test positions; empty when the task develops the final model.
        families: what is tried.
        patterns: combinations of modalities for which the judged rows are answered too; see `patterns`.
    """

    key: str
    table: FeatureTable
    target: Target
    learn: Rows
    judged: Rows
    families: tuple[str, ...]
    search: SearchSection
    validation: ValidationSection
    trials: int
    seed: int
    journals: Path
    patterns: tuple[str, ...] = ()

    @property
    def expected_trials(self) -> int:
        """Trials that the progress display counts for this task."""
        return sum(trials_of(family, self.trials) for family in searched_families(self.families))


@dataclass(frozen=True)
class Judgement:
    """What a model answers for n decisions that it has not seen.

    Attributes:
        answers: (n, K) calibrated, the leading one first; see `links`.
        linear: (n,) the score behind them.
        curve: (n, CURVE) of times to an event, the probabilities by even days up to the last horizon; else None.
    """

    answers: Floats
    linear: Floats
    curve: Floats | None = None

    @classmethod
    def by(cls, fitted: CalibratedModel, table: FeatureTable) -> Judgement:
        """Return the answers of a fitted model."""
        linear, link = fitted.log_odds(table), fitted.calibration
        curve = fitted.by(curve_days(link.horizons), linear, table) if isinstance(link, HazardLink) else None
        return cls(fitted.answers_of(linear, table), linear, curve)


@dataclass(frozen=True)
class TaskResult:
    """The choice of one task, its inner folds, and what it answered for its outer decisions if it had any."""

    key: str
    choice: Choice
    folds: Folds
    judged: Rows
    judgement: Judgement | None
    by_pattern: Mapping[str, Floats] = field(default_factory=dict)


def searched_families(families: Sequence[str]) -> list[str]:
    """Return the families that need a search of their own, those of which a stack is made among them."""
    always = STACKED if "stack" in families else ()
    return [family for family in SIMPLICITY[:-1] if family in families or family in always]


def run_task(task: Task, on_trial: Callable[[], None] = lambda: None) -> TaskResult:
    """Return the recipe chosen on the task's learning rows, and its calibrated answers for its judged rows."""
    table, target = task.table.take(task.learn), task.target.take(task.learn)
    scheme = task.validation.scheme
    folds = make_folds(table.decisions, target.strata, by=scheme.by, folds=scheme.inner, seed=task.seed)
    data = cut_folds(table, target, folds)
    searches = {
        family: tune(
            family,
            data,
            trials=trials_of(family, task.trials),
            seed=task.seed,
            journal=task.journals / f"{task.key}.{family}.journal",
            on_trial=on_trial,
        )
        for family in searched_families(task.families)
    }
    if "stack" in task.families:
        searches["stack"] = search_stack(searches, table, target, folds, data, seed=task.seed)
    choice = choose(
        {family: searches[family] for family in searches if family in task.families},
        one_standard_error=task.search.one_standard_error,
        order=simplicity(table),
    )
    judgement, by_pattern = None, {}
    if len(task.judged):
        fitted = fit_calibrated(
            choice.recipe, table, target.outcome(), folds=folds, replicates=0, seed=task.seed, asked=target.asked
        )
        judgement = Judgement.by(fitted, task.table.take(task.judged))
        if task.patterns:
            by_pattern = answers_by_pattern(HeldOut(fitted.probability, task.judged), task.table, task.patterns)
    return TaskResult(task.key, choice, folds, task.judged, judgement, by_pattern)


def search_stack(
    searches: dict[str, FamilySearch],
    table: FeatureTable,
    target: Target,
    folds: Folds,
    data: Sequence[FoldData],
    *,
    seed: int,
) -> FamilySearch:
    """Return the stack of the best recipes; each fold is judged with weights learned on the other folds."""
    members = [search.recipe for family, search in searches.items() if family not in FUSIONS]
    outcome = target.outcome()
    columns = np.column_stack([out_of_fold(member, table, outcome, folds, seed=seed) for member in members])
    tested = [test for _, test in folds]
    losses = []
    for number, (test, fold) in enumerate(zip(tested, data, strict=True)):
        others = np.concatenate([rows for place, rows in enumerate(tested) if place != number])
        intercept, weights = fusion_weights(columns[others], outcome.take(others))
        losses.append(mean_loss(fold.judged, intercept + columns[test] @ weights))
    recipe = Recipe("stack", {"members": [member.to_json() for member in members]})
    return FamilySearch(recipe, tuple(losses))


def simplicity(table: FeatureTable) -> tuple[str, ...]:
    """Return the families, the simplest first: where many lack a kind of data, fusing kinds before filling columns in."""
    lacking = float((~present_modalities(table)).any(axis=1).mean()) if len(table) else 0.0
    return ("late", *(family for family in SIMPLICITY if family != "late")) if lacking >= OFTEN_LACKING else SIMPLICITY


def choose(searches: dict[str, FamilySearch], *, one_standard_error: bool, order: Sequence[str] = SIMPLICITY) -> Choice:
    """Return the family with the least inner loss, or the simplest (by `order`) within one standard error of it.

    Source of the rule: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3.
    """
    best = min(searches, key=lambda family: searches[family].loss)
    limit = searches[best].loss + searches[best].standard_error
    losses = ", ".join(f"{family} {search.loss:.4f}" for family, search in searches.items())
    if one_standard_error:
        simplest = next(family for family in order if family in searches and searches[family].loss <= limit)
        if simplest != best:
            reason = f"simplest family within one standard error of {best} (limit {limit:.4f}); inner loss: {losses}"
            return Choice(simplest, reason, searches)
    return Choice(best, f"least inner loss: {losses}", searches)


def nested_tasks(final: Task) -> list[Task]:
    """Return the tasks of the outer folds that judge the procedure of `final`."""
    scheme = final.validation.scheme
    if scheme.outer < 2:
        return []
    tasks = []
    for repeat in range(scheme.repeats):
        seed = final.seed + 1000 * (repeat + 1)
        outer = make_folds(final.table.decisions, final.target.strata, by=scheme.by, folds=scheme.outer, seed=seed)
        tasks += [
            replace(final, key=f"{final.key}.outer{repeat}-{number}", learn=train, judged=test, seed=seed + number + 1)
            for number, (train, test) in enumerate(outer)
        ]
    return tasks
