"""Whether the arms hold comparable patients: propensity, overlap, weights and balance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from theracast_features.specs import FeatureTable
from theracast_models.preprocess import numeric_values, seen_levels, text_values
from theracast_training.effects.bases import Patients, RowPropensity, deal, row_matrix
from theracast_training.metrics import auc

Floats = NDArray[np.float64]
LIMITS = (0.1, 0.9)
"""Propensities between which both treatments are given often enough to compare. Crump et al., Biometrika 2009;96:187-199."""
NOT_BY_CHANCE = 0.6
"""Arms of which even the lower 99.9 % bound of the AUC lies above this were not assigned by chance alone."""
BINS = 20


def propensities(table: FeatureTable, treated: Floats, *, folds: int, repeats: int, seed: int) -> Floats:
    """Return (n,) the probability of the treatment given the features, out of fold, the mean over random splits."""
    patients = Patients(table)
    total = np.zeros(len(table))
    for repeat in range(repeats):
        fold = deal(treated, folds=folds, rng=np.random.default_rng([seed, repeat]))
        for one in range(folds):
            learn, judge = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
            model = RowPropensity(patients).fit(row_matrix(learn), treated[learn])
            total[judge] += model.predict_proba(row_matrix(judge))[:, 1]
    mean: Floats = total / repeats
    return mean


def overlap_summary(table: FeatureTable, treated: Floats, propensity: Floats) -> dict[str, Any]:
    """Return how far the arms differ before treatment, and what weighting by the propensity leaves.

    Weights are 1 / probability of the arm that the patient was in. The effective number of patients is
    (sum of weights)^2 / sum of squared weights (Kish, Survey Sampling, 1965); standardised mean differences above 0.1
    are commonly called imbalance (Austin, Stat Med 2009;28:3083-3107).
    """
    e = np.clip(propensity, 0.01, 0.99)
    weight = np.where(treated == 1, 1 / e, 1 / (1 - e))
    value, low, high = auc_interval(treated, propensity, level=0.95)
    outside = (propensity < LIMITS[0]) | (propensity > LIMITS[1])
    edges = np.linspace(0, 1, BINS + 1)
    balance = balance_rows(table, treated, weight)
    return {
        "auc": value,
        "auc_low": low,
        "auc_high": high,
        "outside": float(outside.mean()),
        "outside_treated": float(outside[treated == 1].mean()),
        "outside_control": float(outside[treated == 0].mean()),
        "limits": list(LIMITS),
        "effective_treated": effective_number(weight[treated == 1]),
        "effective_control": effective_number(weight[treated == 0]),
        "n_treated": int(treated.sum()),
        "n_control": int((1 - treated).sum()),
        "histogram": {
            "edges": edges.tolist(),
            "treated": np.histogram(propensity[treated == 1], edges)[0].tolist(),
            "control": np.histogram(propensity[treated == 0], edges)[0].tolist(),
        },
        "balance": balance,
        "imbalanced_before": sum(row["before"] > 0.1 for row in balance),
        "imbalanced_after": sum(row["after"] > 0.1 for row in balance),
    }


def auc_interval(treated: Floats, propensity: Floats, *, level: float) -> tuple[float, float, float]:
    """Return the AUC with which the arms can be told apart, and its interval.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 1988;44:837-845.
    """
    value = auc(treated, propensity)
    ones, zeros = np.sort(propensity[treated == 1]), np.sort(propensity[treated == 0])
    above = _share_below(zeros, propensity[treated == 1])
    below = 1 - _share_below(ones, propensity[treated == 0])
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    z = float(norm.ppf((1 + level) / 2))
    return value, float(max(0.0, value - z * error)), float(min(1.0, value + z * error))


def effective_number(weight: Floats) -> float:
    """Return to how many unweighted patients the weighted ones amount."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def balance_rows(table: FeatureTable, treated: Floats, weight: Floats) -> list[dict[str, Any]]:
    """Return for every feature the absolute standardised mean difference before and after weighting, largest first.

    Of a category the level that differs most counts; missing values are a level of their own, for numbers too.
    """
    rows = []
    for spec in table.catalogue:
        if spec.kind == "categorical":
            values = text_values(table.frame, spec.name)
            columns = [np.array([one == level for one in values], dtype=np.float64) for level in seen_levels(values)]
            missing = np.array([one is None for one in values], dtype=np.float64)
        else:
            numbers = numeric_values(table.frame, spec.name)
            columns, missing = [numbers], np.isnan(numbers).astype(np.float64)
        columns += [missing] if 0 < missing.mean() < 1 else []
        found = [(_difference(one, treated, np.ones(len(one))), _difference(one, treated, weight)) for one in columns]
        before, after = (max((pair[place] for pair in found), default=0.0) for place in (0, 1))
        rows.append({"feature": spec.name, "label": spec.label, "before": before, "after": after})
    return sorted(rows, key=lambda row: -row["before"])


def _difference(values: Floats, treated: Floats, weight: Floats) -> float:
    """Return |difference of weighted means| / pooled unweighted standard deviation, over known values."""
    known = ~np.isnan(values)
    parts = [(values[known & (treated == arm)], weight[known & (treated == arm)]) for arm in (0, 1)]
    if min(len(own) for own, _ in parts) < 2:
        return 0.0
    spread = float(np.sqrt(np.mean([own.var(ddof=1) for own, _ in parts])))
    means = [float(np.average(own, weights=share)) for own, share in parts]
    return abs(means[1] - means[0]) / spread if spread > 0 else 0.0


def _share_below(others: Floats, values: Floats) -> Floats:
    left, right = (np.searchsorted(others, values, side=side) for side in ("left", "right"))
    share: Floats = (left + right) / (2 * len(others))
    return share
