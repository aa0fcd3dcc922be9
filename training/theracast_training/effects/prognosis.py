"""Prognosis under each treatment: what became of patients like this one who were given it. Not an effect."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from theracast_features.specs import FeatureTable
from theracast_training.effects.bases import Patients, RowRegressor, deal, row_matrix
from theracast_training.effects.outcome import Outcome
from theracast_training.effects.section import Base
from theracast_training.metrics import auc

Floats = NDArray[np.float64]
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
MOST_PAIRED = 4000


def arm_prognosis(
    table: FeatureTable,
    member: NDArray[np.bool_],
    outcome: Outcome,
    *,
    base: Base,
    folds: int,
    repeats: int,
    seed: int,
) -> Floats:
    """Return (n,) the expected outcome, on its own scale, of every patient by models of this arm's patients alone.

    For patients of the arm by models that have not seen them; the mean over random splits. Kept to the possible range.
    """
    patients, own = Patients(table), np.flatnonzero(member)
    others = np.flatnonzero(~member)
    mine = outcome.take(own)
    total = np.zeros(len(table))
    for repeat in range(repeats):
        fold = deal(mine.labels, folds=folds, rng=np.random.default_rng([seed, repeat]))
        for one in range(folds):
            learn = np.flatnonzero(fold != one)
            y = mine.take(learn).values(np.ones(len(learn)))
            model = RowRegressor(patients, base).fit(row_matrix(own[learn]), y)
            judge = own[fold == one]
            total[judge] += model.predict(row_matrix(judge))
            total[others] += model.predict(row_matrix(others)) / folds
    return _possible(total / repeats, outcome)


def discrimination(predicted: Floats, outcome: Outcome, *, seed: int) -> dict[str, Any]:
    """Return how well the prognosis ranks the arm's own patients: AUC, Harrell's C, or the correlation of ranks."""
    if outcome.time is not None and outcome.event is not None:
        return {"measure": "C index", "value": concordance(predicted, outcome.time, outcome.event, seed=seed)}
    assert outcome.y is not None
    if outcome.scale == "risk":
        both = 0 < outcome.y.sum() < len(outcome.y)
        return {"measure": "AUC", "value": auc(outcome.y, predicted) if both else None}
    return {"measure": "rank correlation", "value": float(spearmanr(predicted, outcome.y).statistic)}


def concordance(predicted: Floats, time: Floats, event: Floats, *, seed: int = 0) -> float | None:
    """Return Harrell's C of predicted times: of pairs in which it is known who had the event first, the share in order.

    Source: Harrell et al., JAMA 1982;247:2543-2546. Of more than 4,000 patients a random 4,000 are paired.
    """
    if len(time) > MOST_PAIRED:
        rows = np.random.default_rng(seed).choice(len(time), MOST_PAIRED, replace=False)
        predicted, time, event = predicted[rows], time[rows], event[rows]
    first = np.flatnonzero(event == 1)
    pairs = (time[first][:, None] < time[None, :]) | ((time[first][:, None] == time[None, :]) & (event[None, :] == 0))
    later = predicted[None, :] - predicted[first][:, None]
    count = int(pairs.sum())
    return float(((later > 0) + 0.5 * (later == 0))[pairs].sum() / count) if count else None


def quantiles(values: Floats) -> dict[str, float]:
    """Return the quantiles that a report shows."""
    return {f"q{round(100 * q)}": float(np.quantile(values, q)) for q in QUANTILES}


def _possible(values: Floats, outcome: Outcome) -> Floats:
    if outcome.scale in {"risk", "survival"}:
        return np.clip(values, 0.0, 1.0)
    return np.clip(values, 0.0, outcome.horizon) if outcome.scale == "restricted_mean" else values
