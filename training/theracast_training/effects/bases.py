"""Models inside the learners: regressions that fit on rows of a feature table, all preprocessing in the fold.

econml hands its models a matrix X. Here X holds the positions of the patients in one feature table, so that what a model
learns of its inputs (limits, fill-in values, scales, levels) it learns from exactly the rows on which it is fitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from theracast_features.specs import FeatureTable
from theracast_models.elasticnet import ElasticNet
from theracast_models.logodds import expit
from theracast_models.preprocess import LinearInputs
from theracast_training.effects.section import Base

Floats = NDArray[np.float64]
_T = TypeVar("_T")
REMEMBERED = 24
PENALTIES = np.logspace(-4, 3, 22)
"""Ridge penalties that are tried, per patient."""
PROPENSITY_PENALTIES = (0.003, 0.03, 0.3)
_TREES: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 5,
    "min_data_in_leaf": 20,
    "lambda_l2": 5.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
    "feature_pre_filter": False,
}
_ROUNDS = 80


class Patients:
    """One feature table that all copies of a model share: scikit-learn copies parameters, and tables are large."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self._tables: OrderedDict[bytes, FeatureTable] = OrderedDict()
        self._inputs: OrderedDict[bytes, LinearInputs] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def at(self, X: Floats) -> FeatureTable:
        """Return the table's rows whose positions stand in the first column of X."""
        rows = X[:, 0].astype(np.intp)
        return _remembered(self._tables, rows.tobytes(), lambda: self.table.take(rows))

    def learned(self, X: Floats) -> LinearInputs:
        """Return the preprocessing learnt from these rows; the models of one fold learn from the same ones."""
        rows = X[:, 0].astype(np.intp)
        return _remembered(self._inputs, rows.tobytes(), lambda: LinearInputs.learn(self.at(X)))


def _remembered(known: OrderedDict[bytes, _T], key: bytes, make: Callable[[], _T]) -> _T:
    """Return what was made last time for the same rows; the oldest is forgotten."""
    if key not in known:
        known[key] = make()
        if len(known) > REMEMBERED:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def row_matrix(rows: NDArray[np.intp]) -> Floats:
    """Return positions as the matrix X that the models here expect."""
    return rows.astype(np.float64)[:, None]


class RowRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Regression of a number on the features of some rows.

    `linear` is ridge regression on the standardised design, its penalty chosen by leave-one-out error; `boosting` is
    boosted trees on the same design. Further columns of X (a learner's treatment indicators) join the design, with
    their products with every feature where the model is linear.
    """

    def __init__(self, patients: Patients, base: Base = "linear") -> None:
        self.patients = patients
        self.base = base

    def fit(self, X: Floats, y: Floats, sample_weight: Floats | None = None) -> Self:
        """Learn preprocessing and coefficients from the rows in X."""
        table = self.patients.at(X)
        self.inputs_ = self.patients.learned(X)
        z = self._design(table, X)
        y = np.asarray(y, dtype=np.float64).ravel()
        if self.base == "boosting":
            self.booster_ = _fit_trees(z, y, sample_weight)
        else:
            self.intercept_, self.coef_ = fit_ridge(z, y, weight=sample_weight)
        return self

    def predict(self, X: Floats) -> Floats:
        """Return (n,) expected values."""
        z = self._design(self.patients.at(X), X)
        if self.base == "boosting":
            return np.asarray(self.booster_.predict(z, num_threads=1), dtype=np.float64)
        found: Floats = self.intercept_ + z @ self.coef_
        return found

    def _design(self, table: FeatureTable, X: Floats) -> Floats:
        z = self.inputs_.design(table)
        further = X[:, 1:]
        if not further.shape[1]:
            return z
        products = [z * column[:, None] for column in further.T] if self.base == "linear" else []
        return np.column_stack([z, further, *products])


class KnownPropensity(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The share of patients whom chance gave the treatment: nothing is learnt."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def fit(self, X: Floats, y: Floats, sample_weight: Floats | None = None) -> Self:
        """Learn nothing."""
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X: Floats) -> Floats:
        """Return (n, 2) probabilities."""
        return np.tile([1 - self.share, self.share], (len(X), 1))

    def predict(self, X: Floats) -> Floats:
        """Return (n,) the likelier arm."""
        return np.full(len(X), float(self.share > 0.5))


class RowPropensity(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Probability of the treatment given the features, by the platform's elastic net."""

    def __init__(self, patients: Patients) -> None:
        self.patients = patients

    def fit(self, X: Floats, y: Floats, sample_weight: Floats | None = None) -> Self:
        """Learn from the rows in X, the penalty by three inner folds."""
        self.classes_ = np.array([0, 1])
        table, treated = self.patients.at(X), np.asarray(y, dtype=np.float64).ravel()
        fold = deal(treated, folds=3, rng=np.random.default_rng(0))
        losses = []
        for c in PROPENSITY_PENALTIES:
            loss = 0.0
            for one in range(3):
                learn, judge = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
                model = ElasticNet(c=c, l1_ratio=0.0).fit(table.take(learn), treated[learn])
                eta = model.log_odds(table.take(judge))
                loss += float((np.logaddexp(0.0, eta) - treated[judge] * eta).sum())
            losses.append(loss)
        self.model_ = ElasticNet(c=PROPENSITY_PENALTIES[int(np.argmin(losses))], l1_ratio=0.0).fit(table, treated)
        return self

    def predict_proba(self, X: Floats) -> Floats:
        """Return (n, 2) probabilities."""
        share = expit(self.model_.log_odds(self.patients.at(X)))
        return np.column_stack([1 - share, share])

    def predict(self, X: Floats) -> Floats:
        """Return (n,) the likelier arm."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(np.float64)


def deal(labels: NDArray[Any], *, folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return (n,) a fold for each patient, dealt like cards so that every label is spread evenly."""
    order = np.lexsort((rng.random(len(labels)), labels))
    fold = np.empty(len(labels), dtype=np.intp)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def fit_ridge(z: Floats, y: Floats, *, weight: Floats | None = None) -> tuple[float, Floats]:
    """Return intercept and coefficients of the ridge regression whose penalty has the least leave-one-out error.

    The error of all penalties comes from one eigendecomposition of the p x p moments.

    Source: Golub, Heath, Wahba, Technometrics 1979;21:215-223 (the exact leave-one-out form, not the averaged one).
    """
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    share = weight / weight.sum()
    centre, middle = share @ z, float(share @ y)
    root = np.sqrt(weight)
    X, u = root[:, None] * (z - centre), root * (y - middle)
    values, vectors = np.linalg.eigh(X.T @ X)
    values = np.maximum(values, 0.0)
    scores = X @ vectors
    moment = vectors.T @ (X.T @ u)
    penalties = weight.sum() * PENALTIES
    shrunk = 1.0 / (values[:, None] + penalties[None, :])  # (p, penalties)
    fitted = scores @ (moment[:, None] * shrunk)
    leverage = (scores**2) @ shrunk + share[:, None]
    errors = ((u[:, None] - fitted) / np.maximum(1 - leverage, 1e-6)) ** 2
    best = int(np.argmin(errors.sum(axis=0)))
    coef: Floats = vectors @ (moment * shrunk[:, best])
    return middle - float(centre @ coef), coef


def _fit_trees(z: Floats, y: Floats, weight: Floats | None) -> Any:
    import lightgbm

    names = [f"f{number}" for number in range(z.shape[1])]
    data = lightgbm.Dataset(z, label=y, weight=weight, feature_name=names, params={"verbosity": -1, "num_threads": 1})
    return lightgbm.train(_TREES, data, num_boost_round=_ROUNDS)
