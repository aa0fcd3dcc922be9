"""What chance alone would give: tests, intervals and distances used by the checks."""

from __future__ import annotations

import numpy as np
from scipy import special

from theracast_data.audit.context import Booleans, Floats, Positions


def adjusted(p_values: Floats) -> Floats:
    """Return Benjamini-Hochberg adjusted p values, (n,), in the given order."""
    count = len(p_values)
    order = np.argsort(p_values)
    scaled = p_values[order] * count / np.arange(1, count + 1)
    result = np.empty(count)
    result[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(result, 1.0)


def rates_p(counts: Floats, totals: Floats) -> float:
    """Return the chi-square p value for equal rates in all groups; 1.0 where nothing varies."""
    expected_rate = counts.sum() / totals.sum()
    if len(counts) < 2 or expected_rate in (0.0, 1.0):
        return 1.0
    statistic = ((counts - totals * expected_rate) ** 2 / (totals * expected_rate * (1 - expected_rate))).sum()
    return float(special.chdtrc(len(counts) - 1, statistic))


def upper_binomial_p(count: int, total: int, rate: float) -> float:
    """Return the probability of `count` or more out of `total` at this rate."""
    return 1.0 if count <= 0 else float(special.bdtrc(count - 1, total, min(max(rate, 1e-12), 1.0 - 1e-12)))


def association_p(indicator: Booleans, score: Floats, strata: Positions) -> tuple[float, float]:
    """Return the two-sided p value and the mean difference of `score` between indicator and not, within strata.

    The permutation test of the linear statistic in its normal form: with a 0/1 score the Mantel-Haenszel test, with
    martingale residuals the log-rank test.
    """
    total = variance = difference = weight = 0.0
    for stratum in np.unique(strata):
        member = strata == stratum
        inside, values = indicator[member], score[member]
        count, size = int(inside.sum()), len(values)
        if count in (0, size) or size < 4:
            continue
        spread = values.var(ddof=1)
        total += values[inside].sum() - count * values.mean()
        variance += spread * count * (size - count) / size
        share = count * (size - count) / size
        difference += share * (values[inside].mean() - values[~inside].mean())
        weight += share
    if variance <= 0.0:
        return 1.0, 0.0
    return float(2 * special.ndtr(-abs(total) / np.sqrt(variance))), difference / weight


def martingale_residuals(time: Floats, event: Floats) -> Floats:
    """Return event minus Nelson-Aalen cumulative hazard at each time, (n,)."""
    order = np.argsort(time, kind="stable")
    sorted_time = time[order]
    first = np.searchsorted(sorted_time, sorted_time, side="left")
    at_risk = len(time) - first
    cumulative = np.cumsum(event[order] / at_risk)
    last = np.searchsorted(sorted_time, sorted_time, side="right") - 1
    residuals = np.empty(len(time))
    residuals[order] = event[order] - cumulative[last]
    return residuals


def average_ranks(values: Floats) -> Floats:
    """Return ranks from 1, ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse])


def auc(score: Floats, label: Booleans) -> float:
    """Return the probability that a positive has the higher score, ties half; NaN where a class is empty."""
    positives, negatives = int(label.sum()), int((~label).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    return float((average_ranks(score)[label].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def auc_bounds(area: float, positives: int, negatives: int, *, level_z: float = 1.96) -> tuple[float, float]:
    """Return the interval of an AUC after Hanley and McNeil, Radiology 1982;143:29-36.

    The area is drawn slightly towards 0.5 first, so that a perfect separation of few patients stays uncertain.
    """
    smaller = min(positives, negatives)
    drawn = (area * smaller + 0.5) / (smaller + 1.0)
    first, second = drawn / (2 - drawn), 2 * drawn**2 / (1 + drawn)
    variance = (drawn * (1 - drawn) + (positives - 1) * (first - drawn**2) + (negatives - 1) * (second - drawn**2)) / (
        positives * negatives
    )
    half = level_z * float(np.sqrt(max(variance, 0.0)))
    return max(0.0, drawn - half), min(1.0, drawn + half)


def distance(left: Floats, right: Floats) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    grid = np.concatenate([left, right])
    below_left = np.searchsorted(np.sort(left), grid, side="right") / len(left)
    below_right = np.searchsorted(np.sort(right), grid, side="right") / len(right)
    return float(np.abs(below_left - below_right).max())
