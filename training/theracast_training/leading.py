"""A procedure for any kind of endpoint that can be learnt again, and the measures that judge its leading answers.

`optimism` and `learning_curve` know outcomes as one number a decision. Times to an event are two, and are judged by the
horizon with weights: so the number they are given here is the position of the decision, by which each measure finds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theracast_features.specs import FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated
from theracast_models.folds import Fold, patient_numbers, rarest_outcome
from theracast_training import metrics
from theracast_training.continuous_evaluation import metrics_each
from theracast_training.learning_curve import Measure
from theracast_training.optimism import no_information_brier
from theracast_training.ordinal_metrics import c_ordinal_each
from theracast_training.refits import Fit, Floats, Predict, Rows
from theracast_training.survival_metrics import Followed, c_harrell_each
from theracast_training.target import Target

FOLDS = 3
"""Folds that calibrate a refit: fewer than those of the model itself, for the sake of time."""


def leading_fit(recipe: Recipe, table: FeatureTable, target: Target, *, seed: int) -> Fit:
    """Return the procedure that fits a recipe and calibrates it out of fold; it predicts the leading answer.

    Args:
        recipe: what was chosen; the choice itself is not repeated.
        table, target: n development decisions.
        seed: of folds and models.
    """

    patients = patient_numbers(table.decisions)

    def fit(rows: Rows) -> Predict:
        own, known = table.take(rows), target.take(rows)
        fitted = fit_calibrated(
            recipe,
            own,
            known.outcome(),
            folds=dealt_folds(patients[rows], known.strata, folds=FOLDS, seed=seed),
            replicates=0,
            seed=seed,
            asked=known.asked,
        )
        return lambda asked: fitted.probability(table.take(asked))

    return fit


def dealt_folds(patients: Rows, outcome: Floats, *, folds: int, seed: int) -> list[Fold]:
    """Return folds as (train, test) positions, each patient in one test fold, those with an outcome of 1 dealt out evenly.

    Fewer folds where an outcome has fewer patients than `folds`; none at all where one has less than two. For the many
    fits of a bootstrap: `patient_folds`, which also evens out how many decisions a patient has, takes longer than they do.
    """
    count = min(folds, rarest_outcome(patients, outcome))
    if count < 2:
        return []
    names, place = np.unique(patients, return_inverse=True)
    event = np.zeros(len(names))
    np.maximum.at(event, place, outcome)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(event[order], kind="stable")]
    dealt = np.empty(len(names), dtype=np.intp)
    dealt[order] = np.arange(len(names)) % count
    tested = [np.flatnonzero(dealt[place] == number) for number in range(count)]
    everyone = np.arange(len(patients))
    return [(np.setdiff1d(everyone, test), test) for test in tested]


def leading_measures(target: Target) -> dict[str, Measure]:
    """Return name to measure of leading answers against positions of decisions.

    Yes or no: AUC, Brier score, calibration slope and intercept. Times to an event and ordered levels: those by the leading
    horizon or level, and the C-index. Numbers: R2, RMSE, and slope and intercept of the line of the outcome on the estimate.
    """
    if target.kind == "continuous":
        assert target.values is not None
        return {name: _of_numbers(name, target.values) for name in ("r2", "rmse", "calibration_slope", "mean_bias")}
    found: dict[str, Measure] = {}
    if target.kind == "time_to_event":
        found["c_index"] = _harrell(target)
    if target.kind == "ordinal":
        found["c_index"] = _ordinal(target)
    y, mass = known_outcome(target)
    named: Mapping[str, Any] = {
        "auc": metrics.auc,
        "brier": metrics.brier,
        "calibration_slope": metrics.calibration_slope,
        "calibration_intercept": metrics.calibration_intercept,
    }
    return found | {name: _weighted(measure, y, mass) for name, measure in named.items()}


def no_information(target: Target) -> dict[str, Callable[[Floats, Floats, Floats], float]]:
    """Return the measures with a value where the features say nothing, for the .632+ estimate."""
    if target.kind == "continuous":
        return {}
    y, mass = known_outcome(target)

    def brier(positions: Floats, p: Floats, weight: Floats) -> float:
        rows = positions.astype(np.intp)
        return no_information_brier(y[rows], p, weight * mass[rows])

    def half(positions: Floats, p: Floats, weight: Floats) -> float:
        return 0.5

    ranked: dict[str, Callable[[Floats, Floats, Floats], float]] = (
        {"c_index": half} if target.kind in ("time_to_event", "ordinal") else {}
    )
    found: dict[str, Callable[[Floats, Floats, Floats], float]] = {"auc": half, "brier": brier}
    return found | ranked


def known_outcome(target: Target) -> tuple[Floats, Floats]:
    """Return (n,) 0/1 by the leading horizon or level, 0 where not known, and (n,) weights that are 0 there."""
    mass = target.weight()
    return np.where(mass > 0, np.nan_to_num(target.y), 0.0), mass


def _weighted(measure: Any, outcome: Floats, mass: Floats) -> Measure:
    def judged(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
        rows, own = _rows(y), _mass(y, weight)
        return float(measure(outcome[rows], p, weight=own * mass[rows]))

    return judged


def _harrell(target: Target) -> Measure:
    time, event = target.followed

    def judged(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
        rows, own = _rows(y), _mass(y, weight)
        followed = Followed.over(time[rows], event[rows])
        return float(c_harrell_each(followed, np.asarray(p)[followed.order], own[None, followed.order])[0])

    return judged


def _ordinal(target: Target) -> Measure:
    assert target.values is not None
    levels = target.values.astype(np.int64)

    def judged(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
        rows, own = _rows(y), _mass(y, weight)
        return float(c_ordinal_each(levels[rows], np.asarray(p, dtype=np.float64), own[None, :])[0])

    return judged


def _of_numbers(name: str, values: Floats) -> Measure:
    def judged(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
        rows, own = _rows(y), _mass(y, weight)
        return float(metrics_each(values[rows], np.asarray(p, dtype=np.float64), own[None, :])[name][0])

    return judged


def _rows(positions: ArrayLike) -> Rows:
    return np.asarray(positions, dtype=np.intp)


def _mass(positions: ArrayLike, weight: ArrayLike | None) -> Floats:
    return np.ones(len(np.asarray(positions))) if weight is None else np.asarray(weight, dtype=np.float64)
