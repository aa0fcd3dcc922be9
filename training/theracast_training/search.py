"""Tuning: an Optuna search per family on inner folds, resumable and the same however often it was interrupted."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from theracast_features.specs import FeatureTable
from theracast_models.families import LEARNS_SCALES
from theracast_models.fitting import Recipe, build_model
from theracast_models.outcomes import Outcome
from theracast_training import fusion_search
from theracast_training.journal import finished_trials, open_journal
from theracast_training.splits import Folds
from theracast_training.target import Target

Floats = NDArray[np.float64]
Suggest = Callable[[optuna.Trial], dict[str, Any]]


@dataclass(frozen=True)
class FamilySearch:
    """What the search of one family found.

    Attributes:
        recipe: the best parameters.
        fold_losses: mean loss of that recipe on each inner fold: the negative log-likelihood of the endpoint's kind.
        trials: one record a finished trial: `number`, `state`, `loss`, `params`, `fold_losses`, `seconds`.
    """

    recipe: Recipe
    fold_losses: tuple[float, ...]
    trials: tuple[dict[str, Any], ...] = ()

    @property
    def loss(self) -> float:
        """Mean loss over the inner folds."""
        return float(np.mean(self.fold_losses))

    @property
    def standard_error(self) -> float:
        """Standard error of that mean over the inner folds."""
        return float(np.std(self.fold_losses, ddof=1) / np.sqrt(len(self.fold_losses)))


def suggest_elasticnet(trial: optuna.Trial) -> dict[str, Any]:
    """Draw the strength and the mixture of the penalty."""
    return {
        "c": trial.suggest_float("c", 1e-3, 10.0, log=True),
        "l1_ratio": trial.suggest_float("l1_ratio", 0.0, 1.0),
    }


def suggest_lightgbm(trial: optuna.Trial) -> dict[str, Any]:
    """Draw the parameters of boosted trees, within what some hundred patients can bear."""
    return {
        "rounds": trial.suggest_int("rounds", 20, 200, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 2, 16, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 80),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 50.0, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
    }


def suggest_neural(trial: optuna.Trial) -> dict[str, Any]:
    """Draw how many bends a learned curve may have, and how much is held against curves and features."""
    return {
        "width": trial.suggest_categorical("width", [4, 8, 16]),
        "sparsity": trial.suggest_float("sparsity", 1e-3, 0.2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-2, 2.0, log=True),
    }


def suggest_cnn(trial: optuna.Trial) -> dict[str, Any]:
    """Draw how fast a network over pictures learns, how it is held back, and how wide it is."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        "channels": trial.suggest_categorical("channels", [4, 8, 12]),
    }


SEARCH_SPACES: Mapping[str, Suggest] = {
    "elasticnet": suggest_elasticnet,
    "lightgbm": suggest_lightgbm,
    "neural": suggest_neural,
    "cnn": suggest_cnn,
    **fusion_search.SUGGEST,
}
MOST_TRIALS: Mapping[str, int] = {"neural": 10, "cnn": 3, **fusion_search.TRIALS}
"""Trials beyond which a family is not searched: a network costs seconds to minutes a fit, and more of them overfit the folds."""
FIRST_TRY: Mapping[str, dict[str, Any]] = {
    "elasticnet": {"c": 0.1, "l1_ratio": 0.5},
    "lightgbm": {
        "rounds": 80,
        "learning_rate": 0.05,
        "num_leaves": 6,
        "min_data_in_leaf": 20,
        "lambda_l2": 5.0,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
    },
    "neural": {"width": 8, "sparsity": 0.05, "weight_decay": 0.1},
    "cnn": {"learning_rate": 2e-3, "weight_decay": 1e-2, "channels": 8},
    **fusion_search.FIRST_TRIES,
}

NEXT_TRIES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "elasticnet": tuple({"c": c, "l1_ratio": 0.0} for c in (0.05, 0.005, 0.5)),
}
"""Tries after the first, before the sampler has its way: ridge regression, an edge of the space that a uniform draw never hits and
that small data with related columns want. With 20 trials the sampler alone came near it too seldom."""


@dataclass(frozen=True)
class FoldData:
    """The tables and outcomes of one inner fold, cut once and used by every trial."""

    train: FeatureTable
    learned: Outcome
    test: FeatureTable
    judged: Outcome


def cut_folds(table: FeatureTable, target: Target, folds: Folds) -> list[FoldData]:
    """Return the data of each fold; censoring weights are learned from its training rows alone."""
    cut = []
    for train, test in folds:
        learn = target.take(train)
        judged = target.take(test)
        cut.append(FoldData(table.take(train), learn.outcome(), table.take(test), judged.outcome(learn)))
    return cut


def mean_loss(outcome: Outcome, score: Floats) -> float:
    """Return the negative log-likelihood a decision (of times to an event the partial one, an event)."""
    return outcome.loss(score) / outcome.amount


def tune(
    family: str,
    folds: Sequence[FoldData],
    *,
    trials: int,
    seed: int,
    journal: Path,
    on_trial: Callable[[], None] = lambda: None,
) -> FamilySearch:
    """Return the best recipe of a family after `trials` trials on the inner folds.

    Trials that the journal already holds are not run again. The sampler of each trial is seeded by the number of trials
    finished before it, so an interrupted search ends where an uninterrupted one does, bit for bit.

    Args:
        family: a key of SEARCH_SPACES.
        folds: the inner folds.
        trials: trials finished or pruned in the end.
        seed: of the sampler and of the models.
        journal: file of the search.
        on_trial: called after every trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_journal(journal) as storage:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=1)
        study = optuna.create_study(
            storage=storage, study_name=family, direction="minimize", pruner=pruner, load_if_exists=True
        )
        done = len(finished_trials(study))
        for _ in range(min(done, trials)):
            on_trial()
        while done < trials:
            study.sampler = optuna.samplers.TPESampler(seed=trial_seed(seed, family, done))
            tries = (FIRST_TRY[family], *NEXT_TRIES.get(family, ()))
            if done < len(tries) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(tries[done])
            _run_trial(study, family, folds, seed=seed)
            done += 1
            on_trial()
        finished = finished_trials(study)[:trials]
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    best = min(complete, key=lambda trial: (trial.value, trial.number))
    return FamilySearch(
        recipe_of(family, best.params, folds[0].train),
        tuple(best.user_attrs["run"]["fold_losses"]),
        tuple(_record(place, trial) for place, trial in enumerate(finished)),
    )


def trial_seed(seed: int, family: str, done: int) -> int:
    """Return the sampler's seed for the trial that comes after `done` finished ones."""
    return int(np.random.SeedSequence([seed, zlib.crc32(family.encode()), done]).generate_state(1)[0])


def recipe_of(family: str, params: Mapping[str, Any], table: FeatureTable) -> Recipe:
    """Return the recipe of a model of this table, harmonised where the study says so of any of its features."""
    harmonised = any(spec.batch is not None for spec in table.catalogue)
    return Recipe(family, params, harmonise=harmonised and family in LEARNS_SCALES)


def trials_of(family: str, trials: int) -> int:
    """Return how many trials a family gets of those that the study asks for."""
    return min(trials, MOST_TRIALS.get(family, trials))


def _run_trial(study: optuna.Study, family: str, folds: Sequence[FoldData], *, seed: int) -> None:
    started = time.perf_counter()
    trial = study.ask()
    recipe = recipe_of(family, SEARCH_SPACES[family](trial), folds[0].train)
    losses: list[float] = []
    pruned = False
    for number, fold in enumerate(folds):
        losses.append(fold_loss(recipe, fold, seed=seed))
        trial.report(float(np.mean(losses)), number)
        pruned = number + 1 < len(folds) and trial.should_prune()
        if pruned:
            break
    trial.set_user_attr("run", {"fold_losses": losses, "seconds": round(time.perf_counter() - started, 4)})
    if pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, float(np.mean(losses)))


def fold_loss(recipe: Recipe, fold: FoldData, *, seed: int) -> float:
    """Return the loss of a recipe fitted and judged on one inner fold."""
    model = build_model(recipe, seed=seed).fit(fold.train, fold.learned)
    return mean_loss(fold.judged, model.log_odds(fold.test))


def _record(place: int, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    run = trial.user_attrs["run"]
    return {
        "number": place,
        "state": trial.state.name.lower(),
        "loss": float(np.mean(run["fold_losses"])),
        "params": dict(trial.params),
        "fold_losses": list(run["fold_losses"]),
        "seconds": run["seconds"],
    }
