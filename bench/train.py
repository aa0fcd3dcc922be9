"""How much `theracast train` costs beyond its fits: side by side with a bare Optuna loop over the same fits.

    THERACAST_DATA=FOLDER python bench/train.py [STUDY] [--trials N]

The bare loop is an in-memory Optuna study per search with the same sampler seeds, pruner, folds and models. The second
row adds, as plain calls, the other fits that the procedure asks for: the stack's out-of-fold fits, calibration in every
outer fold, the final fit with its replicates. Neither reads or audits data, keeps a journal, evaluates, reports or knows
MLflow. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import optuna
from optuna.trial import TrialState

from theracast_models.fitting import fit_calibrated, out_of_fold
from theracast_training import search, tracking
from theracast_training.develop import Task, nested_tasks, searched_families
from theracast_training.development import final_task, part_tasks
from theracast_training.prepare import prepare
from theracast_training.splits import make_folds
from theracast_training.study import read_study
from theracast_training.train import train


def bare_loop(tasks: list[Task]) -> tuple[float, int]:
    """Return the seconds and the number of fits of plain Optuna searches over the tasks."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started, fits = time.perf_counter(), 0
    for task in tasks:
        table, target = task.table.take(task.learn), task.target.take(task.learn)
        scheme = task.validation.scheme
        folds = make_folds(table.decisions, target.y, by=scheme.by, folds=scheme.inner, seed=task.seed)
        data = search.cut_folds(table, target, folds)
        for family in searched_families(task.families):
            study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=1))
            for tried in (search.FIRST_TRY[family], *search.NEXT_TRIES.get(family, ())):
                study.enqueue_trial(tried)
            for number in range(search.trials_of(family, task.trials)):
                study.sampler = optuna.samplers.TPESampler(seed=search.trial_seed(task.seed, family, number))
                fits += _one_trial(study, family, data, seed=task.seed)
    return time.perf_counter() - started, fits


def other_fits(tasks: list[Task], replicates: int) -> float:
    """Return the seconds of the fits beside the trials, with recipes like those that are found."""
    members = {family: search.Recipe(family, search.FIRST_TRY[family]) for family in ("elasticnet", "lightgbm")}
    started = time.perf_counter()
    for task in tasks:
        table, target = task.table.take(task.learn), task.target.take(task.learn)
        scheme = task.validation.scheme
        folds = make_folds(table.decisions, target.y, by=scheme.by, folds=scheme.inner, seed=task.seed)
        if "stack" in task.families:
            for recipe in members.values():
                out_of_fold(recipe, table, target.y, folds, seed=task.seed)
        copies = 0 if len(task.judged) else replicates
        fit_calibrated(members["elasticnet"], table, target.y, folds=folds, replicates=copies, seed=task.seed)
    return time.perf_counter() - started


def _one_trial(study: optuna.Study, family: str, data: list[search.FoldData], *, seed: int) -> int:
    trial = study.ask()
    recipe = search.Recipe(family, search.SEARCH_SPACES[family](trial))
    losses: list[float] = []
    for number, fold in enumerate(data):
        losses.append(search.fold_loss(recipe, fold, seed=seed))
        trial.report(float(np.mean(losses)), number)
        if number + 1 < len(data) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return len(losses)
    study.tell(trial, float(np.mean(losses)))
    return len(losses)


def whole_training(study_path: Path, trials: int, *, jobs: int) -> float:
    """Return the seconds of a whole training into a fresh state folder."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["THERACAST_HOME"] = home
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
        tracking.connect().search_experiments()  # makes the store, which happens once in its life
        study = read_study(study_path, overrides=[f"search.trials={trials}"])
        started = time.perf_counter()
        train(study, base=study_path.resolve().parent, now=datetime.now(UTC), jobs=jobs)
        return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, nargs="?", default=Path("studies/icb.yaml"))
    parser.add_argument("--trials", type=int, default=50)
    chosen = parser.parse_args()
    study = read_study(chosen.study, overrides=[f"search.trials={chosen.trials}"])
    prepared = prepare(study, base=chosen.study.resolve().parent)
    final = final_task(prepared)
    tasks = [
        final,
        *nested_tasks(final),
        *(task for part in part_tasks(prepared, final) for task in part.tasks),
    ]
    bare, fits = bare_loop(tasks)
    rest = other_fits(tasks, study.search.replicates)
    one = whole_training(chosen.study, chosen.trials, jobs=1)
    two = whole_training(chosen.study, chosen.trials, jobs=2)
    print(f"\n{study.study}: {len(tasks)} tasks, up to {chosen.trials} trials a family each, {fits} fits in trials")
    print(f"{'':44}{'seconds':>9}{'to loop':>9}{'to fits':>9}")
    for title, seconds in (
        ("bare Optuna loop, 1 process", bare),
        ("  and the procedure's other fits", bare + rest),
        ("theracast train --jobs 1", one),
        ("theracast train --jobs 2", two),
    ):
        print(f"{title:44}{seconds:9.1f}{seconds / bare:9.2f}{seconds / (bare + rest):9.2f}")


if __name__ == "__main__":
    main()
