"""How good probabilities are: ranking, calibration, accuracy and net benefit, each with optional weights.

Every metric takes outcomes `y` (n,) of 0/1 and probabilities `p` (n,). `weight` (n,) is non-negative: inverse
probabilities of being observed, or how often a decision was drawn by the bootstrap; a weight of 2 equals the row twice.
What cannot be estimated (no events, no non-events, no spread in `p`) is NaN, never an error. The forms ending in
`_each` do the same for R rows of weights (R, n) at once and return (R,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from theracast_training.loess import Loess

Floats = NDArray[np.float64]

SMALLEST_PROBABILITY = 1e-8
"""Probabilities nearer than this to 0 or 1 are moved here before a logarithm is taken."""
NEWTON_STEPS = 50


def auc(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve: the chance that an event is ranked above a non-event, ties counting half."""
    return _single(auc_each, y, p, weight)


def average_precision(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return the area under the precision-recall curve (average precision: no interpolation, ties enter together)."""
    return _single(average_precision_each, y, p, weight)


def brier(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return the mean squared difference of probability and outcome; 0 is perfect.

    Source: Brier, Mon Weather Rev 1950;78:1-3.
    """
    return _single(brier_each, y, p, weight)


def scaled_brier(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return 1 - Brier / Brier of the prevalence: 1 is perfect, 0 no better than telling everyone the prevalence.

    Source: Steyerberg et al., Epidemiology 2010;21:128-138.
    """
    return _single(scaled_brier_each, y, p, weight)


def calibration_intercept(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return calibration-in-the-large: the shift in log-odds that makes predicted and observed counts agree.

    The slope stays fixed at 1. 0 is ideal; above 0 the model predicts too low.

    Source: Van Calster et al., J Clin Epidemiol 2016;74:167-176.
    """
    return _single(calibration_intercept_each, y, p, weight)


def calibration_slope(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return the slope of a logistic regression of the outcome on logit(p): 1 is ideal, below 1 too extreme.

    Infinite where `p` separates the outcomes, NaN where `p` does not vary.

    Source: Cox, Biometrika 1958;45:562-565.
    """
    return _single(calibration_slope_each, y, p, weight)


def calibration_line(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> tuple[float, float]:
    """Return (calibration-in-the-large, calibration slope)."""
    return calibration_intercept(y, p, weight=weight), calibration_slope(y, p, weight=weight)


def ici(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return the integrated calibration index: mean distance of `p` from the smoothed observed frequency.

    The smoother is `loess.Loess`: local linear, span 0.75.

    Source: Austin & Steyerberg, Stat Med 2019;38:4051-4065.
    """
    return _single(ici_each, y, p, weight)


def calibration_error_quantile(
    y: ArrayLike, p: ArrayLike, quantile: float, *, weight: ArrayLike | None = None
) -> float:
    """Return E50 (`quantile=0.5`) or E90 (`0.9`) of the distance between `p` and its smoothed observed frequency."""
    outcome, probability, mass = check(y, p, weight)
    if not _both_outcomes(outcome, mass[None, :])[0]:
        return float("nan")
    loess = Loess.over(probability, weight=mass)
    error = np.abs(loess.at_observations(loess.fit_each(outcome, mass[None, :]))[0] - probability)
    order = np.argsort(error, kind="stable")
    reached = np.cumsum(mass[order]) >= quantile * mass.sum() - 1e-9
    return float(error[order][reached.argmax()])


def observed_expected(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Return observed events / expected events; 1 is ideal."""
    return _single(observed_expected_each, y, p, weight)


def sensitivity(y: ArrayLike, p: ArrayLike, threshold: float, *, weight: ArrayLike | None = None) -> float:
    """Return the fraction of events with `p >= threshold`."""
    return _at_threshold("sensitivity", y, p, threshold, weight)


def specificity(y: ArrayLike, p: ArrayLike, threshold: float, *, weight: ArrayLike | None = None) -> float:
    """Return the fraction of non-events with `p < threshold`."""
    return _at_threshold("specificity", y, p, threshold, weight)


def positive_predictive_value(
    y: ArrayLike, p: ArrayLike, threshold: float, *, weight: ArrayLike | None = None
) -> float:
    """Return the fraction of events among those with `p >= threshold`; NaN where there are none."""
    return _at_threshold("ppv", y, p, threshold, weight)


def negative_predictive_value(
    y: ArrayLike, p: ArrayLike, threshold: float, *, weight: ArrayLike | None = None
) -> float:
    """Return the fraction of non-events among those with `p < threshold`; NaN where there are none."""
    return _at_threshold("npv", y, p, threshold, weight)


def net_benefit(y: ArrayLike, p: ArrayLike, threshold: float, *, weight: ArrayLike | None = None) -> float:
    """Return true positives minus weighed false positives per decision, when all with `p >= threshold` are treated.

    `TP/n - FP/n * threshold / (1 - threshold)`; treating nobody has net benefit 0.

    Source: Vickers & Elkin, Med Decis Making 2006;26:565-574.
    """
    return _at_threshold("net_benefit", y, p, threshold, weight)


def treat_all(y: ArrayLike, threshold: float, *, weight: ArrayLike | None = None) -> float:
    """Return the net benefit of treating everyone."""
    return net_benefit(y, np.ones(len(np.asarray(y))), threshold, weight=weight)


def auc_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `auc`, one for each row of weights (R, n)."""
    positive, negative = _tied_totals(y, p, weights)
    below = np.cumsum(negative, axis=1) - negative
    concordant = (positive * (below + 0.5 * negative)).sum(axis=1)
    return _ratio(concordant, positive.sum(axis=1) * negative.sum(axis=1))


def average_precision_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `average_precision`, one for each row of weights (R, n)."""
    positive, negative = _tied_totals(y, -p, weights)
    found = np.cumsum(positive, axis=1)
    named = found + np.cumsum(negative, axis=1)
    precision = np.divide(found, named, out=np.zeros_like(found), where=named > 0)
    return _ratio((positive * precision).sum(axis=1), found[:, -1])


def brier_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `brier`, one for each row of weights (R, n)."""
    return _ratio(weights @ (p - y) ** 2, weights.sum(axis=1))


def scaled_brier_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `scaled_brier`, one for each row of weights (R, n)."""
    prevalence = _ratio(weights @ y, weights.sum(axis=1))
    return 1.0 - _ratio(brier_each(y, p, weights), prevalence * (1 - prevalence))


def observed_expected_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `observed_expected`, one for each row of weights (R, n)."""
    return _ratio(weights @ y, weights @ p)


def calibration_intercept_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `calibration_intercept`, one for each row of weights (R, n)."""
    score = _log_odds(p)
    estimable = _both_outcomes(y, weights)
    shift = np.zeros(len(weights))
    active = np.flatnonzero(estimable)
    events = weights @ y
    for _ in range(NEWTON_STEPS):
        fitted = expit(score[None, :] + shift[active, None])
        gap = events[active] - np.einsum("rn,rn->r", weights[active], fitted)
        curvature = np.einsum("rn,rn,rn->r", weights[active], fitted, 1 - fitted)
        step = np.clip(gap / np.maximum(curvature, 1e-300), -2.0, 2.0)
        shift[active] += step
        active = active[np.abs(step) > 1e-10]
        if not len(active):
            break
    return np.where(estimable, shift, np.nan)


def calibration_slope_each(y: Floats, p: Floats, weights: Floats) -> Floats:
    """Return (R,) `calibration_slope`, one for each row of weights (R, n)."""
    return recalibration_each(y, p, weights)[1]


def recalibration_each(y: Floats, p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return (R,) intercepts and (R,) slopes of logistic regressions on logit(p), for rows of weights (R, n).

    Where `p` separates the outcomes no finite estimate exists: the slope is +inf (or -inf, when the ranking is upside
    down), the intercept NaN.
    """
    score = _log_odds(p)
    pooled = weights.sum(axis=0)
    if not pooled.sum() > 0:
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    centre = float(np.average(score, weights=pooled))
    spread = float(np.sqrt(np.average((score - centre) ** 2, weights=pooled))) or 1.0
    x = (score - centre) / spread
    direction = _separation(y, x, weights)
    level, slope = _newton(y, x, weights, np.flatnonzero(direction == 0))
    with np.errstate(invalid="ignore"):
        slope = np.where(direction == 0, slope / spread, direction * np.inf)
        return np.where(direction == 0, level - slope * centre, np.nan), slope


def ici_each(y: Floats, p: Floats, weights: Floats, *, loess: Loess | None = None) -> Floats:
    """Return (R,) `ici`, one for each row of weights (R, n); without `loess`, neighbourhoods of the pooled weights."""
    smoother = loess or Loess.over(p, weight=weights.mean(axis=0))
    smoothed = smoother.at_observations(smoother.fit_each(y, weights))
    distance = np.where(weights > 0, np.abs(smoothed - p), 0.0)
    value = _ratio(np.einsum("rn,rn->r", weights, distance), weights.sum(axis=1))
    return np.where(_both_outcomes(y, weights), value, np.nan)


def threshold_each(y: Floats, p: Floats, weights: Floats, *, threshold: float) -> dict[str, Floats]:
    """Return (R,) sensitivity, specificity, ppv, npv, net_benefit and treat_all, for rows of weights (R, n)."""
    named = (p >= threshold).astype(np.float64)
    total, events = weights.sum(axis=1), weights @ y
    true_positive, false_positive = weights @ (named * y), weights @ (named * (1 - y))
    true_negative = total - events - false_positive
    odds = threshold / (1 - threshold) if threshold < 1 else np.inf
    with np.errstate(invalid="ignore"):
        harm = np.where(false_positive > 0, false_positive * odds, 0.0)
        harm_of_all = np.where(total - events > 0, (total - events) * odds, 0.0)
    return {
        "sensitivity": _ratio(true_positive, events),
        "specificity": _ratio(true_negative, total - events),
        "ppv": _ratio(true_positive, true_positive + false_positive),
        "npv": _ratio(true_negative, total - true_positive - false_positive),
        "net_benefit": _ratio(true_positive - harm, total),
        "treat_all": _ratio(events - harm_of_all, total),
    }


def wilson(successes: float, total: float, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a proportion; NaN where the total is 0. Counts may be fractional.

    Source: Wilson, J Am Stat Assoc 1927;22:209-212.
    """
    if not total > 0:
        return float("nan"), float("nan")
    rate = min(max(successes / total, 0.0), 1.0)
    centre = (rate + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def check(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats, Floats]:
    """Return outcomes, probabilities and weights as float arrays of one length, checked."""
    outcome, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    mass = np.ones_like(outcome) if weight is None else np.asarray(weight, dtype=np.float64)
    if not outcome.ndim == probability.ndim == mass.ndim == 1 or not len(outcome) == len(probability) == len(mass):
        raise ValueError(
            f"outcomes, probabilities and weights must be flat and of one length, not {outcome.shape}, "
            f"{probability.shape} and {mass.shape}"
        )
    if not np.isin(outcome, (0.0, 1.0)).all():
        raise ValueError("outcomes must be 0 or 1; leave decisions without an outcome out first")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]; leave decisions without a score out first")
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    return outcome, probability, mass


def _single(each: Any, y: ArrayLike, p: ArrayLike, weight: ArrayLike | None) -> float:
    outcome, probability, mass = check(y, p, weight)
    return float(each(outcome, probability, mass[None, :])[0]) if len(outcome) else float("nan")


def _at_threshold(name: str, y: ArrayLike, p: ArrayLike, threshold: float, weight: ArrayLike | None) -> float:
    outcome, probability, mass = check(y, p, weight)
    return float(threshold_each(outcome, probability, mass[None, :], threshold=threshold)[name][0])


def _tied_totals(y: Floats, p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return (R, g) weight of events and of non-events at each of g distinct scores, rising."""
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    drawn = weights[:, order]
    positive = drawn * y[order]
    if len(starts) == len(p):
        return positive, drawn - positive
    return np.add.reduceat(positive, starts, axis=1), np.add.reduceat(drawn - positive, starts, axis=1)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, NaN where below is 0."""
    ratio = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=ratio, where=np.asarray(below) > 0)
    return ratio


def _log_odds(p: Floats) -> Floats:
    return np.asarray(logit(np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)), dtype=np.float64)


def _both_outcomes(y: Floats, weights: Floats) -> NDArray[np.bool_]:
    events = weights @ y
    return np.asarray((events > 0) & (weights @ (1 - y) > 0))


def _separation(y: Floats, x: Floats, weights: Floats) -> Floats:
    """Return (R,) 1 or -1 where x separates the outcomes up- or downward, 0 where they overlap, else NaN."""
    drawn = weights > 0
    event = y == 1
    highest = [np.where(drawn & who, x, -np.inf).max(axis=1) for who in (event, ~event)]
    lowest = [np.where(drawn & who, x, np.inf).min(axis=1) for who in (event, ~event)]
    flat = np.maximum(*highest) == np.minimum(*lowest)
    upward = np.where(lowest[0] >= highest[1], 1.0, 0.0)
    direction = np.where(highest[0] <= lowest[1], -1.0, upward)
    return np.where(flat | ~_both_outcomes(y, weights), np.nan, direction)


def _newton(y: Floats, x: Floats, weights: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return (R,) levels and slopes of logistic regressions on x (centred, unit spread); NaN for rows not `active`."""
    level, slope = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    t0, t1, total = weights @ y, weights @ (y * x), weights.sum(axis=1)
    level[active], slope[active] = logit(t0[active] / total[active]), 0.0
    for _ in range(NEWTON_STEPS):
        if not len(active):
            return level, slope
        drawn = weights[active]
        fitted = expit(level[active, None] + slope[active, None] * x)
        expected = drawn * fitted
        curvature = expected * (1 - fitted)
        g0, g1 = t0[active] - expected.sum(axis=1), t1[active] - expected @ x
        h0, h1, h2 = curvature.sum(axis=1), curvature @ x, curvature @ x**2
        determinant = np.maximum(h0 * h2 - h1**2, 1e-300)
        d0, d1 = (h2 * g0 - h1 * g1) / determinant, (h0 * g1 - h1 * g0) / determinant
        shorten = np.minimum(1.0, 5.0 / np.maximum(np.abs(d0) + np.abs(d1), 1e-300))
        level[active] += d0 * shorten
        slope[active] += d1 * shorten
        active = active[np.maximum(np.abs(d0), np.abs(d1)) > 1e-9 * (1 + np.abs(slope[active]))]
    level[active], slope[active] = np.nan, np.nan
    return level, slope
