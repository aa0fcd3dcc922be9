"""The inner loops of metrics of time to event: pairs in order of risk, and Cox models of one or two columns.

`bounds` (g + 1,) says where each distinct time begins among n decisions in order of time; `event` (n,) is 0, 1 (asked
about) or 2 (competing).
"""

# ruff: noqa: PLR0917 (numba compiles no keyword-only arguments)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@compiled
def concordance(bounds: Integers, event: Integers, rank: Integers, weight: Floats, chance: Floats, stop: int) -> float:
    """Return concordant over comparable pairs of the events at the first `stop` times, n log n in all."""
    concordant, comparable = _pairs_with_later(bounds, event, rank, weight, chance, stop)
    if (event == 2).any():
        more, pairs = _pairs_with_precluded(bounds, event, rank, weight, chance, stop)
        concordant, comparable = concordant + more, comparable + pairs
    return concordant / comparable if comparable > 0.0 else np.nan


@compiled
def _pairs_with_later(
    bounds: Integers, event: Integers, rank: Integers, weight: Floats, chance: Floats, stop: int
) -> tuple[float, float]:
    """Return concordant and all pairs of an event with one still at risk after it; NaN where an event has no chance."""
    tree, at = np.zeros(rank.max() + 2), np.zeros(rank.max() + 1)
    concordant, comparable, later = 0.0, 0.0, 0.0
    for group in range(len(bounds) - 2, -1, -1):
        for i in range(bounds[group], bounds[group + 1]):
            if event[i] == 0:
                _enter(tree, at, rank[i], weight[i])
                later += weight[i]
        for i in range(bounds[group], bounds[group + 1]):
            if event[i] == 1 and group < stop and weight[i] > 0.0:
                if chance[i] <= 0.0:
                    return np.nan, np.nan
                mass = weight[i] / chance[i] ** 2
                concordant += mass * _outranked(tree, at, rank[i])
                comparable += mass * later
        for i in range(bounds[group], bounds[group + 1]):
            if event[i] != 0:
                _enter(tree, at, rank[i], weight[i])
                later += weight[i]
    return concordant, comparable


@compiled
def _pairs_with_precluded(
    bounds: Integers, event: Integers, rank: Integers, weight: Floats, chance: Floats, stop: int
) -> tuple[float, float]:
    """Return concordant and all pairs of an event with one whose competing event came no later."""
    tree, at = np.zeros(rank.max() + 2), np.zeros(rank.max() + 1)
    concordant, comparable, precluded = 0.0, 0.0, 0.0
    for group in range(min(stop, len(bounds) - 1)):
        for i in range(bounds[group], bounds[group + 1]):
            if event[i] == 2 and weight[i] > 0.0:
                if chance[i] <= 0.0:
                    return np.nan, np.nan
                _enter(tree, at, rank[i], weight[i] / chance[i])
                precluded += weight[i] / chance[i]
        for i in range(bounds[group], bounds[group + 1]):
            if event[i] == 1 and weight[i] > 0.0:
                if chance[i] <= 0.0:
                    return np.nan, np.nan
                mass = weight[i] / chance[i]
                concordant += mass * _outranked(tree, at, rank[i])
                comparable += mass * precluded
    return concordant, comparable


@compiled
def _enter(tree: Floats, at: Floats, rank: int, mass: float) -> None:
    """Add mass at a rank to a Fenwick tree of sums over ranks."""
    at[rank] += mass
    k = rank + 1
    while k < len(tree):
        tree[k] += mass
        k += k & -k


@compiled
def _outranked(tree: Floats, at: Floats, rank: int) -> float:
    """Return the mass at lower ranks and half of that at the same."""
    found = 0.5 * at[rank]
    k = rank
    while k > 0:
        found += tree[k]
        k -= k & -k
    return float(found)


@compiled
def monotone(bounds: Integers, event: Integers, x: Floats, weight: Floats) -> float:
    """Return 1 (-1) where each event has the highest (lowest) x of those at risk, 0 where not, NaN without contrast."""
    highest, lowest = -np.inf, np.inf
    up, down, contrast = True, True, False
    for group in range(len(bounds) - 2, -1, -1):
        for i in range(bounds[group], bounds[group + 1]):
            if weight[i] > 0.0:
                highest, lowest = max(highest, x[i]), min(lowest, x[i])
        for i in range(bounds[group], bounds[group + 1]):
            if weight[i] > 0.0 and event[i] == 1:
                up = up and x[i] == highest
                down = down and x[i] == lowest
                contrast = contrast or highest > lowest
    if not contrast:
        return np.nan
    return 1.0 if up else (-1.0 if down else 0.0)


@compiled
def newton(
    bounds: Integers, event: Integers, x: Floats, weight: Floats, left: Floats, carried: bool, until: int, start: Floats
) -> tuple[Floats, float]:
    """Return coefficients (q,), q at most 2, and baseline cumulative hazard after the first `until` times, by Newton."""
    q = x.shape[1]
    b, step = start.copy(), np.zeros(q)
    for _ in range(60):
        score, curvature, hazard = _derivatives(bounds, event, x, weight, left, carried, until, b)
        if not hazard > 0.0:
            break
        if q == 1:
            determinant = curvature[0, 0]
            if determinant < 1e-12:
                break
            step[0] = score[0] / determinant
        else:
            determinant = curvature[0, 0] * curvature[1, 1] - curvature[0, 1] ** 2
            if determinant < 1e-12 * curvature[0, 0] * curvature[1, 1] or determinant <= 0.0:
                break
            step[0] = (curvature[1, 1] * score[0] - curvature[0, 1] * score[1]) / determinant
            step[1] = (curvature[0, 0] * score[1] - curvature[0, 1] * score[0]) / determinant
        largest = np.abs(step).max()
        if largest < 1e-9 * (1.0 + np.abs(b).max()):
            return b, hazard
        b += step * min(1.0, 2.0 / largest)
        if np.abs(b).max() > 60.0:
            break
    return np.full(q, np.nan), np.nan


@compiled
def _derivatives(
    bounds: Integers, event: Integers, x: Floats, weight: Floats, left: Floats, carried: bool, until: int, b: Floats
) -> tuple[Floats, Floats, float]:
    """Return gradient (q,), information (q, q) and baseline cumulative hazard of a Cox model at b (q,)."""
    q = x.shape[1]
    groups = len(bounds) - 1
    risk = weight * np.exp(x @ b)
    kept = np.zeros((groups if carried else 1, 1 + q + q * q))  # of those with an earlier competing event
    sums, at_risk = np.zeros(1 + q + q * q), np.zeros(1 + q + q * q)
    if carried:
        for group in range(groups):
            kept[group] = sums
            for i in range(bounds[group], bounds[group + 1]):
                if event[i] == 2 and left[group] > 0.0:
                    _add(sums, x, i, risk[i] / left[group])
        sums[:] = 0.0
    score, curvature, hazard = np.zeros(q), np.zeros((q, q)), 0.0
    for group in range(groups - 1, -1, -1):
        came = 0.0
        for i in range(bounds[group], bounds[group + 1]):
            _add(sums, x, i, risk[i])
            if event[i] == 1 and group < until and weight[i] > 0.0:
                came += weight[i]
                for k in range(q):
                    score[k] += weight[i] * x[i, k]
        if came == 0.0:
            continue
        for k in range(len(sums)):
            at_risk[k] = sums[k] + left[group] * kept[group, k] if carried else sums[k]
        hazard += came / at_risk[0]
        for k in range(q):
            mean = at_risk[1 + k] / at_risk[0]
            score[k] -= came * mean
            for m in range(q):
                curvature[k, m] += came * (at_risk[1 + q + k * q + m] - mean * at_risk[1 + m]) / at_risk[0]
    return score, curvature, hazard


@compiled
def _add(sums: Floats, x: Floats, i: int, mass: float) -> None:
    """Add mass, mass * x and mass * x x' of decision i to the sums."""
    q = x.shape[1]
    sums[0] += mass
    for k in range(q):
        part = mass * x[i, k]
        sums[1 + k] += part
        for m in range(q):
            sums[1 + q + k * q + m] += part * x[i, m]
