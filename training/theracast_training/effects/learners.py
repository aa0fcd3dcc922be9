"""Individual effects for patients whom the learner has not seen: T-, X- and DR-learner by econml over our base models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_training.effects.bases import KnownPropensity, Patients, RowPropensity, RowRegressor, deal, row_matrix
from theracast_training.effects.outcome import Outcome
from theracast_training.effects.section import Base, Learner

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
CLIP = 0.01
"""Propensities are kept this far from 0 and 1; patients beyond the limits of overlap were left out before."""
INNER_FOLDS = 3


@dataclass(frozen=True)
class CrossFit:
    """What one random split into folds says of n patients, each by models that have not seen the patient.

    Attributes:
        fold: (n,) the patient's fold.
        effects: learner to (n,) predicted effect, positive where the treatment is better than the control.
        control, treated: (n,) expected outcome under either, higher better.
        propensity: (n,) probability of the treatment.
        scores: (n,) doubly robust scores, whose mean is the average effect.
        treated_scores: (n,) the same for the mean outcome under the treatment.
    """

    fold: NDArray[np.intp]
    effects: dict[Learner, Floats]
    control: Floats
    treated: Floats
    propensity: Floats
    scores: Floats
    treated_scores: Floats


def fit_learner(name: Learner, patients: Patients, *, propensity: Any, base: Base, seed: int) -> Any:
    """Return an unfitted econml learner; `fit(y, T, X=row_matrix(rows))` and `effect(X=...)` take rows of the table.

    Sources: Künzel et al., PNAS 2019;116:4156-4165 (T, X); Kennedy, Electron J Stat 2023;17:3008-3049 (DR).
    """
    model = RowRegressor(patients, base)
    if name == "dr":
        from econml.dr import DRLearner

        return DRLearner(
            model_propensity=propensity,
            model_regression=model,
            model_final=model,
            min_propensity=CLIP,
            cv=INNER_FOLDS,
            random_state=seed,
        )
    from econml.metalearners import TLearner, XLearner

    if name == "t":
        return TLearner(models=model)
    return XLearner(models=model, cate_models=model, propensity_model=propensity)


def cross_fit(
    table: FeatureTable,
    treated: Floats,
    outcome: Outcome,
    *,
    learners: Sequence[Learner],
    share: float | None,
    base: Base = "linear",
    folds: int = 5,
    seed: int = 0,
) -> CrossFit:
    """Return the out-of-fold effects and doubly robust scores of one random split.

    Whatever is learnt, pseudo-values of a censored outcome included, is learnt from the training folds alone; the
    scores judge with the pseudo-values of all patients.

    Args:
        table: n patients x p features, without the treatment.
        treated: (n,) 0/1.
        outcome: of the n patients.
        learners: which effects are wanted; may be none.
        share: known probability of the treatment under randomisation; None: it is learnt from the features.
        base: models inside the learners.
        folds, seed: of the split.

    Source of the scores: Robins, Rotnitzky, Zhao, J Am Stat Assoc 1994;89:846-866.
    """
    n, sign = len(table), outcome.sign
    patients = Patients(table)
    fold = deal(2 * treated + outcome.labels, folds=folds, rng=np.random.default_rng(seed))
    effects: dict[Learner, Floats] = {name: np.empty(n) for name in learners}
    control, active, propensity = np.empty(n), np.empty(n), np.empty(n)
    for one in range(folds):
        learn, judge = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        y, w = sign * outcome.take(learn).values(treated[learn]), treated[learn]
        X, new = row_matrix(learn), row_matrix(judge)
        model = KnownPropensity(share) if share is not None else RowPropensity(patients)
        propensity[judge] = model.fit(X, w).predict_proba(new)[:, 1]
        control[judge] = RowRegressor(patients, base).fit(X[w == 0], y[w == 0]).predict(new)
        active[judge] = RowRegressor(patients, base).fit(X[w == 1], y[w == 1]).predict(new)
        for name in learners:
            unfitted = KnownPropensity(share) if share is not None else RowPropensity(patients)
            learner = fit_learner(name, patients, propensity=unfitted, base=base, seed=seed)
            learner.fit(y, w, X=X)
            effects[name][judge] = np.asarray(learner.effect(X=new), dtype=np.float64).ravel()
    propensity = np.clip(propensity, CLIP, 1 - CLIP)
    y = sign * outcome.values(treated)
    treated_scores = active + treated / propensity * (y - active)
    control_scores = control + (1 - treated) / (1 - propensity) * (y - control)
    return CrossFit(fold, effects, control, active, propensity, treated_scores - control_scores, treated_scores)
