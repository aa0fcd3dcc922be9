"""How much each modality's score counts, for any set of modalities that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_models.logodds import Floats
from theracast_models.outcomes import Outcome

COPIES = 5
DROPOUT = 0.3
"""Copies of the decisions on which scale and offset are learned, and how often a modality is left out of all but the first."""
CORRELATION_PRIOR = 20.0
"""Decisions with both of two modalities at which their measured correlation counts half: below, it is mostly chance."""
RIDGE = 0.05
"""Share of each variance that is added to it: scores that say the same then share their weight."""
EVEN_PRIOR = 10.0
"""Weight of the belief that all of k modalities count 1/sqrt(k), between an average and a sum, on the scale of a
log-likelihood; between 3 and 30 the log loss moved by 0.004 at most on the data of bench/fusion.py."""
SCALE_PRIOR = 5.0
"""Weight of the belief that scale is 1 and the offset Fisher's, on the scale of a log-likelihood."""
LEAST_SCALE = 0.05


@dataclass(frozen=True)
class Fusion:
    """Fisher's rule on the modalities' scores: `score = base + sum of weight * (score of the modality + shift)`.

    Were the scores of either outcome normal with one covariance, the best weights for the modalities that are there would
    be `inverse(covariance) @ difference of means`, for each set of modalities its own. Few decisions draw them towards even
    ones, and weights are the best ones that are not negative. A modality that is absent has weight 0; one that repeats
    another counts less beside it, and more where the other is gone. Means and covariances come from pairs of modalities, so
    every decision teaches what it has.

    Attributes:
        base: the score where nothing is known.
        centre: (m,) mean score of each modality.
        gain: (m,) how much higher the score is on average where the outcome is: what the modality tells alone.
        spread: (m, m) covariance of the scores within outcomes.
        pull: (m,) variance with which each weight is drawn towards the even one; the smaller, the more decisions have it.
        scale: what all weights are multiplied by.
        tilt: `shift = tilt * gain - centre`: what a typical patient's score counts for, which grows with what is known.

    Source: Fisher, Ann Eugen 1936;7:179-188; scores as features: Wolpert, Neural Networks 1992;5:241-259.
    """

    base: float
    centre: Floats
    gain: Floats
    spread: Floats
    pull: Floats
    scale: float
    tilt: float

    @classmethod
    def learn(cls, scores: Floats, outcome: Outcome, *, seed: int) -> Fusion:
        """Return the rule learned from out-of-fold scores (n, m), NaN where the modality is absent or says nothing."""
        base = float(outcome.start())
        there = np.isfinite(scores)
        mass = outcome.weight[:, None] * there
        total = np.maximum(mass.sum(axis=0), 1e-12)
        centre = np.where(there, scores, 0.0).T @ outcome.weight / total
        x = np.where(there, scores - centre, 0.0)
        gradient, curvature = outcome.slopes(np.full(len(x), base))
        level = float(curvature.sum()) / max(float(outcome.weight.sum()), 1e-12)
        gain = -(x.T @ gradient) / (total * level)
        spread = _covariance(x, mass, gain, 0.0 if outcome.kind == "continuous" else level)
        pull = EVEN_PRIOR / np.maximum(total * level, 1e-9)
        rule = cls(base, centre, np.maximum(gain, 0.0), spread, pull, scale=1.0, tilt=0.0)
        return rule._scaled(scores, outcome, seed=seed)

    def weights(self, there: NDArray[np.bool_]) -> Floats:
        """Return (n, m) weights, exactly 0 where a modality is absent or tells nothing."""
        from scipy.optimize import nnls

        result = np.zeros(there.shape)
        patterns, which = np.unique(there, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            own = np.flatnonzero(pattern & (self.gain > 0))
            if len(own):
                # The best weights that are not negative: least squares on the Cholesky factor of the covariance.
                lower = np.linalg.cholesky(self.spread[np.ix_(own, own)] + np.diag(self.pull[own]))
                found = nnls(lower.T, np.linalg.solve(lower, self.gain[own] + self.pull[own] / np.sqrt(len(own))))[0]
                result[np.ix_(which.ravel() == number, own)] = self.scale * found
        return result

    @property
    def shift(self) -> Floats:
        """(m,) what is added to each modality's score before it is weighed."""
        result: Floats = self.tilt * self.gain - self.centre
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the rule as plain JSON values."""
        return {
            "base": self.base,
            "centre": self.centre.tolist(),
            "gain": self.gain.tolist(),
            "spread": self.spread.tolist(),
            "pull": self.pull.tolist(),
            "scale": self.scale,
            "tilt": self.tilt,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Fusion:
        """Return the rule that `to_json` wrote."""
        size = len(record["centre"])
        arrays = {name: np.array(record[name], dtype=np.float64) for name in ("centre", "gain", "pull")}
        spread = np.array(record["spread"], dtype=np.float64).reshape(size, size)
        return cls(base=record["base"], **arrays, spread=spread, scale=record["scale"], tilt=record["tilt"])

    def _scaled(self, scores: Floats, outcome: Outcome, *, seed: int) -> Fusion:
        """Return the rule with the scale and the tilt of least loss, over decisions with modalities left out at random."""
        from scipy.optimize import minimize

        rng = np.random.default_rng([seed, 71])
        there = np.isfinite(scores)
        x = np.where(there, scores - self.centre, 0.0)
        said, told = [], []
        for copy in range(COPIES):
            weights = self.weights(there if copy == 0 else there & (rng.random(there.shape) >= DROPOUT))
            said.append((weights * x).sum(axis=1))
            told.append(weights @ self.gain)
        # Fisher's own offset: halfway between the two means, seen from the mean of all.
        prior = np.array([1.0, _half_way(outcome)])

        def loss(point: Floats) -> tuple[float, Floats]:
            value, slope = 0.0, np.zeros(2)
            for score, told_one in zip(said, told, strict=True):
                eta = self.base + point[0] * score + point[1] * told_one
                value += outcome.loss(eta) / COPIES
                gradient = outcome.slopes(eta)[0] / COPIES
                slope += np.array([gradient @ score, gradient @ told_one])
            return value + SCALE_PRIOR / 2 * float(((point - prior) ** 2).sum()), slope + SCALE_PRIOR * (point - prior)

        bounds = [(LEAST_SCALE, None), (None, None)]
        found = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
        scale, tilt = (float(one) for one in found.x)
        return replace(self, scale=scale, tilt=tilt / scale)


def _half_way(outcome: Outcome) -> float:
    if outcome.kind != "binary":
        return 0.0
    return float(np.average(outcome.strata, weights=outcome.weight)) - 0.5


def _covariance(x: Floats, mass: Floats, gain: Floats, level: float) -> Floats:
    """Return the (m, m) covariance within outcomes, from pairs of modalities that are there together.

    Correlations are drawn towards 0 where few decisions have both; the result is positive definite.
    """
    there = (mass > 0).astype(np.float64)
    both = there.T @ mass
    counts = there.T @ there
    found = x.T @ (x * mass) / np.maximum(both, 1e-12) - level * np.outer(gain, gain)
    # A score that hardly varies, or only as its outcome does, still has a variance that can be divided by.
    variance = np.maximum(np.diag(found), 0.05 * np.diag(x.T @ (x * mass) / np.maximum(both, 1e-12)))
    variance = np.maximum(variance, 1e-9)
    root = np.sqrt(variance)
    correlation = np.clip(found / np.outer(root, root), -0.99, 0.99) * counts / (counts + CORRELATION_PRIOR)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    repaired = (vectors * np.maximum(values, RIDGE)) @ vectors.T
    result: Floats = repaired * np.outer(root, root) + np.diag(RIDGE * variance)
    return (result + result.T) / 2
