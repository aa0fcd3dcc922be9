"""How good predictions of an ordered outcome are: ranking, accuracy and calibration, each with optional weights.

`level` (n,) is 0..K-1, `probability` (n, K) that of each level, `score` (n,) what ranks them. Weights count: 2 equals the
row twice. What cannot be estimated is NaN, never an error. All forms take R rows of weights (R, n) and return (R,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from theracast_features.imaging.compiled import compiled
from theracast_training.metrics import SMALLEST_PROBABILITY
from theracast_training.survival_metrics import Followed, c_harrell_each

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def at_least(probability: ArrayLike) -> Floats:
    """Return (n, K - 1) the probabilities of level 1 or more, 2 or more, ..., from those of each level (n, K)."""
    p = np.asarray(probability, dtype=np.float64)
    return np.asarray(np.clip(np.cumsum(p[:, :0:-1], axis=1)[:, ::-1], 0.0, 1.0), dtype=np.float64)


def linear_score(probability: ArrayLike) -> Floats:
    """Return (n,) the mean of the log-odds of level 1 or more, 2 or more, ...

    Of a proportional odds model this is its linear predictor, but for a constant.
    """
    p = np.clip(at_least(probability), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(logit(p).mean(axis=1), dtype=np.float64)


def c_ordinal_each(level: Integers, score: Floats, weights: Floats) -> Floats:
    """Return (R,) the chance that of two decisions of unlike level the higher has the higher score, ties half.

    With two levels the AUC. Somers' D of the score given the level is 2 C - 1.

    Source: Harrell, Lee & Mark, Stat Med 1996;15:361-387; Somers, Am Sociol Rev 1962;27:799-811.
    """
    highest_first = Followed.over(-level, np.ones(len(level)))
    return c_harrell_each(highest_first, score[highest_first.order], weights[:, highest_first.order])


def ranked_probability_score_each(level: Integers, probability: Floats, weights: Floats) -> Floats:
    """Return (R,) the mean Brier score over the K - 1 cuts; 0 is perfect, with two levels the Brier score.

    Source: Epstein, J Appl Meteorol 1969;8:985-987; divided by K - 1 as in Murphy, J Appl Meteorol 1971;10:155-156.
    """
    lost = np.square(_reached(level, probability.shape[1]) - at_least(probability)).mean(axis=1)
    return np.asarray(weights @ lost / weights.sum(axis=1), dtype=np.float64)


def null_ranked_probability_score_each(level: Integers, levels: int, weights: Floats) -> Floats:
    """Return (R,) the ranked probability score of telling everyone how often each level occurs."""
    share = weights @ _reached(level, levels) / weights.sum(axis=1)[:, None]
    return np.asarray((share * (1 - share)).mean(axis=1), dtype=np.float64)


def quadratic_kappa_each(level: Integers, named: Integers, weights: Floats) -> Floats:
    """Return (R,) Cohen's kappa of observed and named levels with quadratic weights; NaN where all are one level.

    Source: Cohen, Psychol Bull 1968;70:213-220.
    """
    total = weights.sum(axis=1)
    first, second = (weights @ values / total for values in (level, named))
    squares = (weights @ (np.square(level) + np.square(named))) / total
    apart = weights @ np.square(level - named) / total
    by_chance = squares - 2 * first * second
    share = np.divide(apart, by_chance, out=np.full_like(apart, np.nan), where=by_chance > 1e-12)
    return np.asarray(1 - share, dtype=np.float64)


def calibration_slope_each(level: Integers, score: Floats, weights: Floats) -> Floats:
    """Return (R,) the slope of a proportional odds model of the level on the score: 1 is ideal, below 1 too extreme.

    Infinite where the score separates the levels, NaN where score or level does not vary.

    Source: McCullagh, J R Stat Soc B 1980;42:109-142; Edlinger et al., BMC Med Res Methodol 2022;22:176.
    """
    spread = float(score.std())
    if not spread > 0:
        return np.full(len(weights), np.nan)
    x = (score - score.mean()) / spread
    levels = int(level.max()) + 1
    slopes = [_proportional_odds(level, x, drawn, levels) for drawn in np.ascontiguousarray(weights)]
    return np.asarray(slopes, dtype=np.float64) / spread


def _reached(level: Integers, levels: int) -> Floats:
    """Return (n, K - 1) 1 where the level is 1 or more, 2 or more, ..."""
    return np.asarray(level[:, None] >= np.arange(1, levels), dtype=np.float64)


@compiled
def _proportional_odds(level: Integers, x: Floats, weight: Floats, levels: int) -> float:
    """Return the slope by Newton's method with halved steps; levels that nobody has are merged into their neighbours."""
    total = np.zeros(levels)
    lowest, highest = np.inf, -np.inf
    for i in range(len(x)):
        total[level[i]] += weight[i]
        if weight[i] > 0.0:
            lowest, highest = min(lowest, x[i]), max(highest, x[i])
    place = np.cumsum(total > 0.0) - 1  # of each level among those present
    cuts = place[-1]
    if cuts < 1 or lowest == highest:
        return np.nan
    present = total[total > 0.0]
    b = np.zeros(cuts + 1)
    for k in range(cuts):
        above = present[k + 1 :].sum()
        b[k] = np.log(above / (present.sum() - above))
    fitted, gradient, information = _odds_derivatives(place[level], x, weight, b)
    for _ in range(60):
        step = np.linalg.solve(information, gradient)
        step *= min(1.0, 3.0 / np.abs(step).max()) if np.abs(step).max() > 0.0 else 1.0
        for _halving in range(30):
            after, slope, curvature = _odds_derivatives(place[level], x, weight, b + step)
            if after >= fitted - 1e-12 * abs(fitted):
                break
            step *= 0.5
        b += step
        if abs(b[cuts]) > 60.0:
            return np.inf if b[cuts] > 0.0 else -np.inf
        if np.abs(step).max() < 1e-9 * (1.0 + np.abs(b).max()):
            return float(b[cuts])
        fitted, gradient, information = after, slope, curvature
    return np.nan


@compiled
def _odds_derivatives(level: Integers, x: Floats, weight: Floats, b: Floats) -> tuple[float, Floats, Floats]:
    """Return log likelihood, gradient and information of logit P(level > k) = b[k] + b[-1] x; -inf outside its domain."""
    cuts = len(b) - 1
    fitted, gradient, information = 0.0, np.zeros(cuts + 1), np.eye(cuts + 1) * 1e-12
    first, second = np.zeros(cuts + 1), np.zeros(cuts + 1)
    for i in range(len(x)):
        if weight[i] == 0.0:
            continue
        upper, lower = 1.0, 0.0
        if level[i] > 0:
            upper = 1.0 / (1.0 + np.exp(-(b[level[i] - 1] + b[cuts] * x[i])))
        if level[i] < cuts:
            lower = 1.0 / (1.0 + np.exp(-(b[level[i]] + b[cuts] * x[i])))
        p = upper - lower
        if not p > 1e-300:
            return -np.inf, gradient, information
        fitted += weight[i] * np.log(p)
        up, down = upper * (1.0 - upper), lower * (1.0 - lower)
        first[:], second[:] = 0.0, 0.0
        first[cuts], second[cuts] = x[i], x[i]
        if level[i] > 0:
            first[level[i] - 1] = 1.0
        if level[i] < cuts:
            second[level[i]] = 1.0
        bent_up, bent_down = up * (1.0 - 2.0 * upper) / p, down * (1.0 - 2.0 * lower) / p
        for k in range(cuts + 1):
            own = (up * first[k] - down * second[k]) / p
            gradient[k] += weight[i] * own
            for m in range(cuts + 1):
                other = (up * first[m] - down * second[m]) / p
                information[k, m] += weight[i] * (
                    own * other - bent_up * first[k] * first[m] + bent_down * second[k] * second[m]
                )
    return fitted, gradient, information
