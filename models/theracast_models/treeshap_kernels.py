"""Compiled walks over laid-out trees: a block of rows side by side, or one row alone. Both do the same sums in one order.

A walk goes down with P, the product of what the splits above weigh at each quadrature node, and comes back with S, the sum over
the leaves below of value times what the splits between weigh. Where a split of feature f sends the row to its hot child, f gets
(cover of the cold child) x sum over nodes of P (S hot - S cold) / (f's weight above)^2; the quadrature weights are in P.
"""

# ruff: noqa: PLR0917 (compiled code takes its arrays one by one)

from __future__ import annotations

from typing import Any

import numpy as np

from theracast_features.imaging.compiled import compiled, inlined
from theracast_models.lightgbm_text import Floats, Integers
from theracast_models.treeshap_paths import CATEGORY, NUMBER

ROWS = 64  # of a block: whole vectors, and loops so long that LLVM makes vectors of them
FEW = 10  # rows left over that are faster one by one than as a block
TINY = float(np.float32(1e-35))  # LightGBM's kZeroThreshold: it reads what is nearer to 0 as 0

# What a split does with a row, `went`: left, right, or nothing new, since the row had left the path at an earlier split of the
# same feature.
LEFT, RIGHT, OFF = 0, 1, 2


@compiled
def explain_alone(
    X: Floats,
    phi: Floats,
    features: Integers,
    splits: Any,
    trees: Integers,
    rule: Floats,
    inverse: Floats,
    set_words: Integers,
    deepest: int,
    most_nodes: int,
) -> None:
    """Fill phi (n, p) with the SHAP values of X (n, p), row by row; the other arguments are those of Paths."""
    k = len(features)
    P = np.empty((deepest, most_nodes))
    S = np.empty((2, deepest + 1, most_nodes))
    went = np.empty(deepest, np.int64)
    cells = np.empty(k)
    found = np.empty(k)
    for row in range(len(X)):
        for f in range(k):
            cells[f] = _cell(X[row, features[f]])
        found[:] = 0.0
        _explain_row(cells, found, P, S, went, splits, trees, rule, inverse, set_words)
        for f in range(k):
            phi[row, features[f]] = found[f]


@compiled
def explain_blocks(
    X: Floats,
    phi: Floats,
    features: Integers,
    splits: Any,
    trees: Integers,
    rule: Floats,
    inverse: Floats,
    set_words: Integers,
    deepest: int,
    most_nodes: int,
) -> None:
    """Fill phi (n, p) with the SHAP values of X (n, p), a block of ROWS after the other, the last one perhaps of fewer."""
    n, k = len(X), len(features)
    P = np.empty((deepest, most_nodes, ROWS))
    S = np.empty((2, deepest + 1, most_nodes, ROWS))
    went = np.empty((deepest, ROWS))
    cells = np.zeros((k, ROWS))
    found = np.empty((k, ROWS))
    for begin in range(0, n, ROWS):
        rows = min(ROWS, n - begin)
        for j in range(rows):
            for f in range(k):
                cells[f, j] = _cell(X[begin + j, features[f]])
        found[:] = 0.0
        _explain_block(cells, found, P, S, went, splits, trees, rule, inverse, set_words)
        for j in range(rows):
            for f in range(k):
                phi[begin + j, features[f]] = found[f, j]


@inlined
def _cell(x: float) -> float:
    return 0.0 if abs(x) <= TINY else x


@inlined
def _side(x: float, split: Any, set_words: Integers) -> int:
    """Return where a split sends a number."""
    if split.kind == CATEGORY:
        # A category is cut off to a whole number, so -0.5 is 0; what is in no set, or no number, goes right.
        if not (x > -1.0 and x < 32.0 * split.set_size):
            return RIGHT
        category = int(x)
        return LEFT if (set_words[split.set_start + category // 32] >> (category % 32)) & 1 else RIGHT
    if np.isnan(x) or (split.kind != NUMBER and x == 0.0):
        return LEFT if split.missing_left else RIGHT
    return LEFT if x <= split.threshold else RIGHT


@compiled
def _explain_row(
    x: Floats,
    phi: Floats,
    P: Floats,
    S: Floats,
    went: Integers,
    splits: Any,
    trees: Integers,
    rule: Floats,
    inverse: Floats,
    set_words: Integers,
) -> None:
    """Add to phi (k,) the SHAP values of the row x (k,)."""
    stack = np.empty(len(went), np.int64)
    for tree in range(len(trees)):
        count, start = trees[tree, 2], trees[tree, 3]
        for q in range(count):
            P[0, q] = rule[2, start + q]
        for n in range(trees[tree, 0], trees[tree, 1]):
            split = splits[n]
            d = split.depth
            if d > 0:
                _row_down(P, went[d - 1], d, splits[stack[d - 1]], split.right, start, count, rule, inverse)
            stack[d] = n
            went[d] = _side(x[split.feature], split, set_words)
            if split.again >= 0 and went[split.again] != split.again_right:
                went[d] = OFF
            for back in range(split.closes):
                e = d - back
                done = splits[stack[e]]
                phi[done.feature] += _row_up(P, S, went[e], e, done, start, count, rule, inverse)


@inlined
def _row_down(
    P: Floats, went: int, d: int, split: Any, side: int, start: int, count: int, rule: Floats, inverse: Floats
) -> None:
    """Fill P at depth d, where the walk has gone down on a side of the split."""
    if went == OFF:
        local = split.local_right if side else split.local_left
        for q in range(count):
            P[d, q] = P[d - 1, q] * local
        return
    hot = 1.0 if went == side else 0.0
    z = split.share_right if side else split.share_left
    if split.again < 0:
        for q in range(count):
            P[d, q] = P[d - 1, q] * (z * rule[1, start + q] + hot * rule[0, start + q])
        return
    i = split.inverse
    for q in range(count):
        v = inverse[i + q]
        P[d, q] = P[d - 1, q] * (z * rule[1, start + q] * v + hot * (rule[0, start + q] * v))


@inlined
def _row_up(
    P: Floats, S: Floats, went: int, d: int, split: Any, start: int, count: int, rule: Floats, inverse: Floats
) -> float:
    """Return what the split at depth d adds to its feature, and leave its S to the split above."""
    left, right = split.share_left, split.share_right
    a, b = split.value_left, split.value_right
    side = split.right
    total: float = 0.0
    if split.leaf_left and split.leaf_right and split.again < 0:
        mean = left * a + right * b
        hot = b if went else a
        for q in range(count):
            total += P[d, q]
            S[side, d, q] = mean * rule[1, start + q] + hot * rule[0, start + q]
        total *= left * (b - a) if went else right * (a - b)
        return total
    if split.leaf_left:
        for q in range(count):
            S[0, d + 1, q] = a
    if split.leaf_right:
        for q in range(count):
            S[1, d + 1, q] = b
    if went == OFF:
        a, b = split.local_left, split.local_right
        for q in range(count):
            S[side, d, q] = a * S[0, d + 1, q] + b * S[1, d + 1, q]
        return 0.0
    if split.again < 0:
        for q in range(count):
            L, R = S[0, d + 1, q], S[1, d + 1, q]
            total += P[d, q] * (L - R)
            u = rule[1, start + q]
            S[side, d, q] = left * u * L + right * u * R + rule[0, start + q] * (R if went else L)
    else:
        i = split.inverse
        for q in range(count):
            L, R = S[0, d + 1, q], S[1, d + 1, q]
            v = inverse[i + q]
            total += P[d, q] * (v * v) * (L - R)
            u = rule[1, start + q]
            S[side, d, q] = left * u * v * L + right * u * v * R + rule[0, start + q] * v * (R if went else L)
    total *= -left if went else right
    return total


@compiled
def _explain_block(
    X: Floats,
    phi: Floats,
    P: Floats,
    S: Floats,
    went: Floats,
    splits: Any,
    trees: Integers,
    rule: Floats,
    inverse: Floats,
    set_words: Integers,
) -> None:
    """Add to phi (k, ROWS) the SHAP values of X (k, ROWS); as _explain_row, where `went` is float for the sake of vectors."""
    stack = np.empty(len(went), np.int64)
    total = np.empty(ROWS)
    for tree in range(len(trees)):
        count, start = trees[tree, 2], trees[tree, 3]
        for q in range(count):
            weight = rule[2, start + q]
            for j in range(ROWS):
                P[0, q, j] = weight
        for n in range(trees[tree, 0], trees[tree, 1]):
            split = splits[n]
            d = split.depth
            if d > 0:
                _block_down(P, went, d, splits[stack[d - 1]], split.right, start, count, rule, inverse)
            stack[d] = n
            _block_sides(X, went, d, split, set_words)
            for back in range(split.closes):
                e = d - back
                done = splits[stack[e]]
                _block_up(P, S, went, total, e, done, start, count, rule, inverse)
                f = done.feature
                for j in range(ROWS):
                    phi[f, j] += total[j]


@compiled
def _block_sides(X: Floats, went: Floats, d: int, split: Any, set_words: Integers) -> None:
    """Fill `went` at depth d."""
    f = split.feature
    border = split.threshold
    if split.kind != NUMBER:
        for j in range(ROWS):
            went[d, j] = _side(X[f, j], split, set_words)
    elif split.missing_left:  # NaN is neither above nor below
        for j in range(ROWS):
            went[d, j] = 1.0 if X[f, j] > border else 0.0
    else:
        for j in range(ROWS):
            went[d, j] = 0.0 if X[f, j] <= border else 1.0
    prior = split.again
    if prior >= 0:
        taken = float(split.again_right)
        for j in range(ROWS):
            went[d, j] = went[d, j] if went[prior, j] == taken else 2.0


@compiled
def _block_down(
    P: Floats, went: Floats, d: int, split: Any, side: int, start: int, count: int, rule: Floats, inverse: Floats
) -> None:
    mine = float(side)
    z = split.share_right if side else split.share_left
    if split.again < 0:
        for q in range(count):
            cold = z * rule[1, start + q]
            hot = cold + rule[0, start + q]
            for j in range(ROWS):
                P[d, q, j] = P[d - 1, q, j] * (hot if went[d - 1, j] == mine else cold)
        return
    local = split.local_right if side else split.local_left
    i = split.inverse
    for q in range(count):
        v = inverse[i + q]
        cold = z * rule[1, start + q] * v
        hot = cold + rule[0, start + q] * v
        for j in range(ROWS):
            on = hot if went[d - 1, j] == mine else cold
            P[d, q, j] = P[d - 1, q, j] * (on if went[d - 1, j] < 2.0 else local)


@compiled
def _block_up(
    P: Floats,
    S: Floats,
    went: Floats,
    total: Floats,
    d: int,
    split: Any,
    start: int,
    count: int,
    rule: Floats,
    inverse: Floats,
) -> None:
    """Fill total (ROWS,), and S at depth d. In loops of their own: LLVM makes no vectors where it must compare many addresses."""
    left, right = split.share_left, split.share_right
    a, b = split.value_left, split.value_right
    side = split.right
    for j in range(ROWS):
        total[j] = 0.0
    if split.leaf_left and split.leaf_right and split.again < 0:
        for q in range(count):
            for j in range(ROWS):
                total[j] += P[d, q, j]
        from_left, from_right = right * (a - b), left * (b - a)
        for j in range(ROWS):
            total[j] *= from_left if went[d, j] == 0.0 else from_right
        mean = left * a + right * b
        for q in range(count):
            to_left = mean * rule[1, start + q] + a * rule[0, start + q]
            to_right = mean * rule[1, start + q] + b * rule[0, start + q]
            for j in range(ROWS):
                S[side, d, q, j] = to_left if went[d, j] == 0.0 else to_right
        return
    if split.leaf_left:
        for q in range(count):
            for j in range(ROWS):
                S[0, d + 1, q, j] = a
    if split.leaf_right:
        for q in range(count):
            for j in range(ROWS):
                S[1, d + 1, q, j] = b
    if split.again < 0:
        _block_up_first(P, S, went, total, d, split, start, count, rule)
    else:
        _block_up_again(P, S, went, total, d, split, start, count, rule, inverse)


@compiled
def _block_up_first(
    P: Floats, S: Floats, went: Floats, total: Floats, d: int, split: Any, start: int, count: int, rule: Floats
) -> None:
    e = d + 1
    left, right = split.share_left, split.share_right
    side = split.right
    for q in range(count):
        for j in range(ROWS):
            total[j] += P[d, q, j] * (S[0, e, q, j] - S[1, e, q, j])
    for j in range(ROWS):
        total[j] *= right if went[d, j] == 0.0 else -left
    for q in range(count):
        a, b, t = left * rule[1, start + q], right * rule[1, start + q], rule[0, start + q]
        for j in range(ROWS):
            L, R = S[0, e, q, j], S[1, e, q, j]
            S[side, d, q, j] = a * L + b * R + t * (L if went[d, j] == 0.0 else R)


@compiled
def _block_up_again(
    P: Floats,
    S: Floats,
    went: Floats,
    total: Floats,
    d: int,
    split: Any,
    start: int,
    count: int,
    rule: Floats,
    inverse: Floats,
) -> None:
    e = d + 1
    left, right = split.share_left, split.share_right
    local_left, local_right = split.local_left, split.local_right
    side = split.right
    i = split.inverse
    for q in range(count):
        w = inverse[i + q] * inverse[i + q]
        for j in range(ROWS):
            total[j] += P[d, q, j] * w * (S[0, e, q, j] - S[1, e, q, j])
    for j in range(ROWS):
        on = right if went[d, j] == 0.0 else -left
        total[j] *= on if went[d, j] < 2.0 else 0.0
    for q in range(count):
        v = inverse[i + q]
        a, b, t = left * rule[1, start + q] * v, right * rule[1, start + q] * v, rule[0, start + q] * v
        for j in range(ROWS):
            L, R = S[0, e, q, j], S[1, e, q, j]
            on = a * L + b * R + t * (L if went[d, j] == 0.0 else R)
            S[side, d, q, j] = on if went[d, j] < 2.0 else local_left * L + local_right * R
