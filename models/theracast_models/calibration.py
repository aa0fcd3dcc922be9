"""Calibration that is affine in log-odds (Platt), so that explanations stay exact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from theracast_data.errors import CohortError
from theracast_models.logodds import Floats, expit, logit
from theracast_models.outcomes import Kind

LEAST_SLOPE = 0.05
LARGEST_SLOPE = 25.0


@dataclass(frozen=True)
class AffineCalibration:
    """`calibrated log-odds = intercept + slope * log-odds`, with slope > 0: calibration never turns a ranking round."""

    intercept: float = 0.0
    slope: float = 1.0

    kind: ClassVar[Kind] = "binary"

    @classmethod
    def fit(cls, log_odds: Floats, y: Floats, weight: Floats | None = None) -> AffineCalibration:
        """Return the calibration of largest (weighted) likelihood. `log_odds` should be out of fold.

        Where that is not defined or would mislead:
        log-odds all the same: slope 1, and the intercept that gives the observed rate;
        slope below 0.05 (the log-odds say nothing, or the opposite): slope 0.05, intercept refitted;
        outcomes separated, or a slope above 25: Platt's smoothed outcomes, which always have a finite answer.

        Raises:
            CohortError: only one outcome among the decisions.

        Source: Platt, Advances in Large Margin Classifiers 1999 (smoothed outcomes).
        """
        weight = np.ones(len(y)) if weight is None else weight
        known = np.isfinite(log_odds) & (weight > 0)
        s, y, weight = log_odds[known], y[known], weight[known]
        if not 0 < (y > 0).sum() < len(y):
            raise CohortError(
                "calibration needs decisions with and without the endpoint, but all have the same outcome. "
                "Add decisions, or use fewer folds."
            )
        if np.ptp(s) < 1e-9:
            return _intercept_only(s, y, weight, slope=1.0)
        found = _newton(s, y, weight)
        if found is None or found.slope > LARGEST_SLOPE:
            found = _newton(s, _smoothed(y, weight), weight) or _intercept_only(s, y, weight, slope=1.0)
        return found if found.slope >= LEAST_SLOPE else _intercept_only(s, y, weight, slope=LEAST_SLOPE)

    def apply(self, log_odds: Floats) -> Floats:
        """Return calibrated log-odds."""
        return self.intercept + self.slope * log_odds

    @property
    def offsets(self) -> Floats:
        """One answer, not moved."""
        return np.zeros(1)

    def inverse(self, value: Floats) -> Floats:
        """Return the probability of log-odds."""
        found: Floats = expit(value)
        return found

    def scale_of(self, answer: Floats) -> Floats:
        """Return the log-odds of a probability."""
        found: Floats = logit(answer)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the two numbers as plain JSON values."""
        return asdict(self)


def _newton(s: Floats, y: Floats, weight: Floats) -> AffineCalibration | None:
    """Return the maximum-likelihood line, None where Newton's steps do not arrive (separated outcomes)."""
    centre, spread = float(np.average(s, weights=weight)), float(np.std(s)) or 1.0
    X = np.column_stack([np.ones(len(s)), (s - centre) / spread])
    beta = np.array([float(logit(np.average(y, weights=weight))), 0.0])
    loss = _loss(X @ beta, y, weight)
    for _ in range(100):
        p = expit(X @ beta)
        gradient = X.T @ (weight * (y - p))
        if np.abs(gradient).max() <= 1e-10 * weight.sum():
            slope = beta[1] / spread
            return AffineCalibration(float(beta[0] - slope * centre), float(slope))
        hessian = (X * (weight * p * (1 - p))[:, None]).T @ X
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while _loss(X @ (beta + size * step), y, weight) > loss + 1e-12 * abs(loss) and size > 1e-8:
            size /= 2
        beta = beta + size * step
        loss = _loss(X @ beta, y, weight)
    return None


def _loss(eta: Floats, y: Floats, weight: Floats) -> float:
    return float(np.sum(weight * (np.logaddexp(0.0, eta) - y * eta)))


def _smoothed(y: Floats, weight: Floats) -> Floats:
    events, others = float(weight[y > 0].sum()), float(weight[y <= 0].sum())
    return np.where(y > 0, (events + 1) / (events + 2), 1 / (others + 2))


def _intercept_only(s: Floats, y: Floats, weight: Floats, *, slope: float) -> AffineCalibration:
    """Return the calibration of this slope whose mean probability is the observed rate; bisection always arrives."""
    rate = float(np.average(y, weights=weight))
    shift = slope * s
    low, high = float(logit(rate) - shift.max()), float(logit(rate) - shift.min())
    for _ in range(200):
        middle = (low + high) / 2
        if np.average(expit(middle + shift), weights=weight) < rate:
            low = middle
        else:
            high = middle
    return AffineCalibration((low + high) / 2, slope)
