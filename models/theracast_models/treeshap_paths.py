"""Trees laid out for exact SHAP values: splits in the order of a walk from the root, with what their covers weigh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theracast_models.lightgbm_text import MISSING_NAN, MISSING_ZERO, Floats, Integers, TextModel, TextTree

# How a split sends a row left, `kind`.
NUMBER, NUMBER_OR_ZERO_MISSING, CATEGORY = 0, 1, 2

# One split, in the order in which a walk from the root meets it: preorder, the left child before the right one. It asks for
# feature f. The last split above it that asks for f, if there is one, left the share z of f's cover on this path (z = 1 where
# there is none).
SPLIT = np.dtype(
    [
        ("threshold", np.float64),  # a number goes left at or below it
        ("share_left", np.float64),  # what is left of z on the left side; the two shares add up to z
        ("share_right", np.float64),
        ("local_left", np.float64),  # cover of the left child as a share of the split's own
        ("local_right", np.float64),
        ("value_left", np.float64),  # of the child on the left, where it is a leaf
        ("value_right", np.float64),
        ("feature", np.int32),  # place in `Paths.features`
        ("depth", np.int32),  # splits above
        ("closes", np.int32),  # how many splits are complete once the walk was here: itself and those that end with it
        ("again", np.int32),  # depth of the last split above that asks for f; -1 where there is none
        ("inverse", np.int32),  # where its 1 / (z (1 - t) + t) begin in `Paths.inverse`, if there is one
        ("set_start", np.int32),  # of a category split, where its set begins in `Paths.set_words`
        ("set_size", np.int32),  # words of the set
        ("kind", np.int8),
        ("missing_left", np.int8),  # 1 where what is missing goes left
        ("right", np.int8),  # 1 where it is the right child of the split above
        ("leaf_left", np.int8),  # 1 where the child on the left is a leaf
        ("leaf_right", np.int8),
        ("again_right", np.int8),  # 1 where the path leaves the last split of f on the right
    ],
    align=True,
)


@dataclass(frozen=True)
class Paths:
    """All splits of all trees, tree after tree.

    Attributes:
        features: (k,) columns that any split asks for.
        splits: (n,) of dtype SPLIT.
        trees: (trees, 4) of each tree with a split: its first split, the one after its last, the number of its quadrature
            nodes, and where they begin in `rule`.
        rule: (3, nodes) quadrature nodes t in (0, 1), 1 - t, and weights.
        inverse: 1 / (z (1 - t) + t), one a quadrature node, of each split whose feature was asked for above.
        set_words: bit sets of 32 categories a word.
    """

    features: Integers
    splits: NDArray[np.void]
    trees: Integers
    rule: Floats
    inverse: Floats
    set_words: Integers

    @cached_property
    def deepest(self) -> int:
        """Return how many splits the longest path has."""
        return int(self.splits["depth"].max(initial=-1)) + 1

    @cached_property
    def most_nodes(self) -> int:
        """Return the largest number of quadrature nodes of a tree."""
        return int(self.trees[:, 2].max(initial=0))


def lay_out(model: TextModel) -> Paths:
    """Return the trees laid out; those of one leaf have nothing to explain and are left out."""
    grown = [tree for tree in model.trees if len(tree.feature)]
    walks = [_walk(tree) for tree in grown]
    splits = np.concatenate([np.zeros(0, dtype=SPLIT), *map(_splits, grown, walks)])
    columns = np.concatenate(
        [np.zeros(0, dtype=np.int64), *(tree.feature[w.order] for tree, w in zip(grown, walks, strict=True))]
    )
    features, splits["feature"] = np.unique(columns, return_inverse=True)
    counts = np.array([len(tree.feature) for tree in grown], dtype=np.int64)
    words = [tree.set_words for tree in grown]
    splits["set_start"] += np.repeat(np.cumsum([0, *map(len, words)])[:-1], counts).astype(np.int32)
    ends, nodes = np.cumsum(counts), np.array([walk.nodes for walk in walks], dtype=np.int64)
    begins, rule = _quadrature(nodes)
    above = np.concatenate([np.zeros(0), *(walk.above for walk in walks)])
    splits["inverse"], inverse = _inverses(
        above, splits["again"], np.repeat(nodes, counts), np.repeat(begins, counts), rule
    )
    return Paths(
        features=features,
        splits=splits,
        trees=np.stack([ends - counts, ends, nodes, begins], axis=1),
        rule=rule,
        inverse=inverse,
        set_words=np.concatenate([np.zeros(0, dtype=np.int64), *words]),
    )


def mean_score(model: TextModel) -> float:
    """Return the mean raw score of the training rows, each tree's leaves weighted by their cover."""
    total = 0.0
    for tree in model.trees:
        cover = tree.leaf_count / tree.count[0] if len(tree.feature) else np.ones(1)
        total += float(np.sum(cover * tree.leaf_value))
    return total


@dataclass(frozen=True)
class _Walk:
    """Splits of one tree in preorder, and what only a walk along the paths tells; names as in SPLIT. `above` is z."""

    order: Integers
    depth: Integers
    right: Integers
    again: Integers
    again_right: Integers
    above: Floats
    nodes: int


def _walk(tree: TextTree) -> _Walk:
    left, right, feature = tree.left.tolist(), tree.right.tolist(), tree.feature.tolist()
    counts = np.concatenate([tree.count, tree.leaf_count[::-1]])
    local = (np.stack([counts[tree.left], counts[tree.right]]) / tree.count).tolist()
    rows: list[tuple[int, int, int, int, int]] = []
    shares: list[float] = []
    most = 0
    # What is known of a feature on the path: depth of its last split, side taken there, share of cover left.
    stack: list[tuple[int, int, int, dict[int, tuple[int, int, float]]]] = [(0, 0, 0, {})]
    while stack:
        split, depth, side, seen = stack.pop()
        last, last_side, above = seen.get(feature[split], (-1, 0, 1.0))
        rows.append((split, depth, side, last, last_side))
        shares.append(above)
        most = max(most, len(seen) + (last < 0))
        for child, to in ((right[split], 1), (left[split], 0)):
            if child >= 0:
                stack.append((child, depth + 1, to, seen | {feature[split]: (depth, to, above * local[to][split])}))
    order, depths, right_child, again, again_right = (
        np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)
    )
    # A path of u features is a polynomial of degree u - 1 in t; Gauss-Legendre of n nodes is exact to degree 2 n - 1.
    return _Walk(order, depths, right_child, again, again_right, above=np.array(shares), nodes=(most + 1) // 2)


def _splits(tree: TextTree, walk: _Walk) -> NDArray[np.void]:
    order = walk.order
    categorical, missing = tree.categorical[order], tree.missing[order]
    threshold = tree.threshold[order]
    child = np.stack([tree.left[order], tree.right[order]])
    # A child is a place among the splits followed by the leaves, counted from the end where it is negative.
    local = np.concatenate([tree.count, tree.leaf_count[::-1]])[child] / tree.count[order]
    value = np.concatenate([np.zeros(len(tree.feature)), tree.leaf_value[::-1]])[child]
    named = np.where(categorical, threshold, 0).astype(np.int64)
    # NaN is 0 to a split that knows no missing numbers.
    default = np.where((missing == MISSING_NAN) | (missing == MISSING_ZERO), tree.default_left[order], threshold >= 0)
    splits = np.zeros(len(order), dtype=SPLIT)
    splits["threshold"] = threshold
    for side, name in enumerate(("left", "right")):
        splits[f"share_{name}"] = walk.above * local[side]
        splits[f"local_{name}"] = local[side]
        splits[f"value_{name}"] = value[side]
        splits[f"leaf_{name}"] = child[side] < 0
    splits["depth"] = walk.depth
    splits["closes"] = walk.depth + 1 - np.append(walk.depth[1:], 0)
    splits["again"] = walk.again
    splits["again_right"] = walk.again_right
    splits["right"] = walk.right
    splits["kind"] = np.where(categorical, CATEGORY, np.where(missing == MISSING_ZERO, NUMBER_OR_ZERO_MISSING, NUMBER))
    splits["missing_left"] = default & ~categorical
    splits["set_start"] = tree.set_start[named]
    splits["set_size"] = np.where(categorical, np.append(np.diff(tree.set_start), 0)[named], 0)
    return splits


def _quadrature(nodes: Integers) -> tuple[Integers, Floats]:
    """Return where each tree's nodes begin, and nodes t, 1 - t and weights of Gauss-Legendre on (0, 1), each rule once."""
    begins = np.zeros(len(nodes), dtype=np.int64)
    rules = [np.zeros((3, 0))]
    total = 0
    for number in np.unique(nodes).tolist():
        x, w = np.polynomial.legendre.leggauss(number)
        rules.append(np.stack([(1 + x) / 2, (1 - x) / 2, w / 2]))
        begins[nodes == number] = total
        total += number
    return begins, np.concatenate(rules, axis=1)


def _inverses(
    above: Floats, again: NDArray[np.int32], nodes: Integers, begins: Integers, rule: Floats
) -> tuple[Integers, Floats]:
    """Return where the inverses of each split begin, and those of the splits that ask again."""
    lengths = np.where(again >= 0, nodes, 0)
    start = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(above)), lengths)
    place = begins[owner] + np.arange(len(owner)) - start[owner]
    return start, 1.0 / (above[owner] * rule[1, place] + rule[0, place])
