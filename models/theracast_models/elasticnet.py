"""Regression with an elastic-net penalty (logistic, Cox, proportional odds, linear), explained in closed form."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Gaps, Learnable
from theracast_models.outcomes import Continuous, Ordinal, Outcome, Survival, as_outcome
from theracast_models.preprocess import LinearInputs
from theracast_models.sentences import gap_sentences

TOLERANCE = 1e-8


class ElasticNet:
    """A score linear in standardised, winsorised, median-imputed features: log-odds, log-hazard, or the number.

    The explanation is `phi = coef * (z - mean z)`, one-hot columns summed to their feature. A missing number is filled
    with the median, which is not the mean: the small difference that this makes is the feature's own phi, so that the base
    is the same for all and every share is told. A missing category has phi 0.

    Args:
        c: inverse penalty, as scikit-learn's `C`.
        l1_ratio: 0 ridge, 1 lasso.
    """

    family: ClassVar[str] = "elasticnet"

    def __init__(self, c: float = 1.0, l1_ratio: float = 0.5) -> None:
        self.c = c
        self.l1_ratio = l1_ratio

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn preprocessing and coefficients from n decisions."""
        outcome = as_outcome(y, weight)
        self.inputs_ = LinearInputs.learn(table, weight=outcome.weight)
        z = self.inputs_.design(table)
        self.intercept_, self.coef_ = fit_linear(z, outcome, c=self.c, l1_ratio=self.l1_ratio)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        z = self.inputs_.design(table)
        result: Floats = self.intercept_ + z @ self.coef_
        return result

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,), the same for all, and exact SHAP values (n, p)."""
        z = self.inputs_.design(table)
        phi = np.zeros((len(table), len(self.inputs_.columns)))
        owner = self.inputs_.owner
        alone = np.bincount(owner, minlength=phi.shape[1])[owner] == 1
        phi[:, owner[alone]] = self.coef_[alone] * z[:, alone]
        for column in np.flatnonzero(~alone):
            phi[:, owner[column]] += self.coef_[column] * z[:, column]
        return np.full(len(table), self.intercept_), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        return self.inputs_.gaps(table)

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy with coefficients learned from other decisions; the preprocessing is kept."""
        copy = type(self)(self.c, self.l1_ratio)
        copy.inputs_ = self.inputs_
        z = self.inputs_.design(table)
        copy.intercept_, copy.coef_ = fit_linear(z, as_outcome(y, weight), c=self.c, l1_ratio=self.l1_ratio)
        return copy

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        z = self.inputs_.design(table)
        intercepts = np.array([one.intercept_ for one in replicates])
        result: Floats = intercepts[:, None] + np.array([one.coef_ for one in replicates]) @ z.T
        return result

    def save(self, folder: Path) -> None:
        """Write `model.json` into a new folder."""
        folder.mkdir(parents=True)
        record = {
            "family": self.family,
            "params": {"c": self.c, "l1_ratio": self.l1_ratio},
            "inputs": self.inputs_.to_json(),
            "intercept": self.intercept_,
            "coef": self.coef_.tolist(),
        }
        _write(folder / "model.json", record)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(**record["params"])
        model.inputs_ = LinearInputs.from_json(record["inputs"])
        model.intercept_ = record["intercept"]
        model.coef_ = np.array(record["coef"], dtype=np.float64)
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the coefficients of the copies into a new folder."""
        folder.mkdir(parents=True)
        record = [[one.intercept_, *one.coef_.tolist()] for one in replicates]
        _write(folder / "replicates.json", {"intercept_and_coef": record})

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        record = json.loads((folder / "replicates.json").read_text(encoding="utf-8"))
        copies = []
        for intercept, *coef in record["intercept_and_coef"]:
            copy = type(self)(self.c, self.l1_ratio)
            copy.inputs_ = self.inputs_
            copy.intercept_, copy.coef_ = intercept, np.array(coef, dtype=np.float64)
            copies.append(copy)
        return copies


def fit_linear(z: Floats, outcome: Outcome, *, c: float, l1_ratio: float) -> tuple[float, Floats]:
    """Return intercept and coefficients that minimise `c * loss of the outcome + elastic-net penalty`.

    Newton's method on the loss (with the diagonal of its curvature for yes or no, which is all there is; with the whole of it
    for times to an event and ordered levels), each step solved by scikit-learn's coordinate descent (`enet_path`), until
    the optimality conditions hold to 1e-8 of the weight. For yes or no it is the objective of
    `LogisticRegression(solver="saga")`; saga itself needs 1,400 ms and more for weak penalties on 964 x 34 values without
    arriving, this needs a few. The intercept is 0 where the outcome has none.
    One BLAS thread, so that the bits do not depend on how many cores there are.

    Source: Friedman, Hastie, Tibshirani, J Stat Softw 2010;33(1) (glmnet); Simon, Friedman, Hastie, Tibshirani, J Stat
    Softw 2011;39(5) (Cox's model).
    """
    unit = 1.0
    if isinstance(outcome, Continuous):  # so that a penalty means the same in every unit
        unit, outcome = outcome.scale, Continuous(outcome.y / outcome.scale, outcome.weight, 1.0)
    live = np.flatnonzero(z.std(axis=0) > 0)
    coef = np.zeros(z.shape[1])
    with _blas().limit(limits=1, user_api="blas"), warnings.catch_warnings():
        # An inner step that stops early is no fault: the outer loop measures the optimality itself.
        warnings.filterwarnings("ignore", message="Objective did not converge")
        intercept, coef[live] = _newton(np.asfortranarray(z[:, live]), outcome, penalty=1.0 / c, l1_ratio=l1_ratio)
    return unit * intercept, unit * coef


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _newton(z: Floats, outcome: Outcome, *, penalty: float, l1_ratio: float) -> tuple[float, Floats]:
    l1, l2 = penalty * l1_ratio, penalty * (1 - l1_ratio)
    weight = outcome.weight

    def objective(intercept: float, beta: Floats) -> float:
        penalised = l1 * np.abs(beta).sum() + l2 / 2 * (beta @ beta)
        return float(outcome.loss(intercept + z @ beta) + penalised)

    beta = np.zeros(z.shape[1])
    intercept = outcome.start()
    value = objective(intercept, beta)
    for _ in range(200):
        eta = intercept + z @ beta
        gradient, curvature = outcome.slopes(eta)
        residual = -gradient
        if _violation(z.T @ residual, residual.sum(), beta, l1, l2) <= TOLERANCE * weight.sum():
            break
        if isinstance(outcome, Survival | Ordinal):
            new_intercept, new_beta = 0.0, _whole_step(outcome.hessian(eta, z), z.T @ residual, beta, l1=l1, l2=l2)
        else:
            curvature = np.maximum(curvature, 1e-8 * weight)
            target = np.divide(residual, curvature, out=np.zeros_like(eta), where=curvature > 0) + eta
            new_intercept, new_beta = _quadratic_step(z, target, curvature, beta, l1=l1, l2=l2)
        size, previous = 1.0, value
        while True:
            moved = (intercept + size * (new_intercept - intercept), beta + size * (new_beta - beta))
            value = objective(*moved)
            if value <= previous + 1e-13 * abs(previous) or size < 1e-6:
                break
            size /= 2
        stays = moved[0] == intercept and np.array_equal(moved[1], beta)
        intercept, beta = moved
        if size < 1e-6 or stays:  # no step makes it less: the optimality that rounding allows
            break
    return float(intercept), beta


def _violation(gradient: Floats, intercept_gradient: float, beta: Floats, l1: float, l2: float) -> float:
    """Return by how much the optimality conditions fail; `gradient` is that of the log-likelihood."""
    slack = gradient - l2 * beta
    wrong = np.where(beta != 0, np.abs(slack - l1 * np.sign(beta)), np.maximum(np.abs(slack) - l1, 0.0))
    return float(max(abs(intercept_gradient), wrong.max(initial=0.0)))


def _quadratic_step(
    z: Floats, target: Floats, curvature: Floats, start: Floats, *, l1: float, l2: float
) -> tuple[float, Floats]:
    """Return intercept and coefficients of the penalised weighted least squares."""
    total = curvature.sum()
    centre, middle = (curvature @ z) / total, float(curvature @ target) / total
    root = np.sqrt(curvature)
    X = np.asfortranarray(root[:, None] * (z - centre))
    u = root * (target - middle)
    gram, moment = np.ascontiguousarray(X.T @ X), X.T @ u
    if l1 == 0:
        beta = np.linalg.solve(gram + l2 * np.eye(len(gram)), moment)
    else:
        beta = _coordinate_descent(X, u, gram, moment, start, l1=l1, l2=l2)
    return middle - float(centre @ beta), beta


def _whole_step(hessian: Floats, residual: Floats, start: Floats, *, l1: float, l2: float) -> Floats:
    """Return the coefficients that minimise the penalised quadratic with this Hessian, and this slope at `start`."""
    width = len(start)
    if width == 0:
        return start
    scale = max(float(np.trace(hessian)) / width, 1e-12)
    hessian = hessian + 1e-10 * scale * np.eye(width)
    moment = hessian @ start + residual
    if l1 == 0:
        return np.asarray(np.linalg.solve(hessian + l2 * np.eye(width), moment), dtype=np.float64)
    # The same as least squares on the root of the Hessian.
    values, vectors = np.linalg.eigh(hessian)
    root = np.sqrt(np.maximum(values, 0.0))
    X = np.asfortranarray(root[:, None] * vectors.T)
    u = np.divide(vectors.T @ moment, root, out=np.zeros_like(root), where=root > 0)
    return _coordinate_descent(X, u, np.ascontiguousarray(X.T @ X), X.T @ u, start, l1=l1, l2=l2)


def _coordinate_descent(
    X: Floats, u: Floats, gram: Floats, moment: Floats, start: Floats, *, l1: float, l2: float
) -> Floats:
    from sklearn.linear_model import enet_path

    if X.shape[1] == 0:
        return start
    wide = X.shape[1] > X.shape[0]
    _, path, *_ = enet_path(
        X,
        u,
        l1_ratio=l1 / (l1 + l2),
        alphas=np.array([(l1 + l2) / len(u)]),
        precompute=False if wide else gram,
        Xy=None if wide else moment,
        coef_init=start.copy(),
        check_input=False,
        max_iter=1000,
        tol=1e-10,
    )
    result: Floats = np.ascontiguousarray(path[:, 0])
    return result


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
