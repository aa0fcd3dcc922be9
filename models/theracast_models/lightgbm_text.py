"""Trees read from LightGBM's text, checked before anything is computed with them.

Source of the format: LightGBM's `Tree::ToString` and `GBDT::SaveModelToString`, text versions v3 and v4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import ArtifactError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Bits of `decision_type`.
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2


@dataclass(frozen=True)
class TextTree:
    """One tree of n leaves and m = n - 1 splits. A child c >= 0 is a split, a child c < 0 is leaf -1 - c.

    Attributes:
        leaf_value: (n,) in raw score, shrinkage applied.
        leaf_count: (n,) training rows in each leaf.
        feature: (m,) column of X.
        threshold: (m,) a number goes left at or below it; of a categorical split, which of the tree's category sets.
        left: (m,) child on the left.
        right: (m,) child on the right.
        count: (m,) training rows at each split.
        categorical: (m,) the split asks for membership of a set of categories.
        default_left: (m,) what is missing goes left.
        missing: (m,) what is missing: MISSING_NONE, MISSING_ZERO or MISSING_NAN.
        set_start: (sets + 1,) where each category set begins in `set_words`.
        set_words: bit b of word w of a set is set where category 32 w + b goes left.
    """

    leaf_value: Floats
    leaf_count: Integers
    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    count: Integers
    categorical: Flags
    default_left: Flags
    missing: Integers
    set_start: Integers
    set_words: Integers


@dataclass(frozen=True)
class TextModel:
    """The trees of one raw score, and the number of columns that it reads."""

    features: int
    trees: tuple[TextTree, ...]


def read_lightgbm_text(text: str) -> TextModel:
    """Return the trees of a model with one raw score.

    Raises:
        ArtifactError: the text is damaged, or the model is one that LightGBM explains otherwise or not at all (several
            scores a row, linear trees).
    """
    if not text.startswith("tree\n"):
        raise ArtifactError(_damaged("it does not begin with the line 'tree'"))
    body, end, _ = text.partition("\nend of trees")
    if not end:
        raise ArtifactError(_damaged("it has no line 'end of trees'"))
    head, *blocks = body.split("\nTree=")
    fields = _fields(head)
    per_iteration = _whole(fields, "num_tree_per_iteration", "head")
    if per_iteration != 1:
        raise ArtifactError(
            f"LightGBM text: the model gives {per_iteration} scores a row (num_tree_per_iteration). One is explained; "
            "train one model for each class."
        )
    features = _whole(fields, "max_feature_idx", "head") + 1
    announced = len(fields.get("tree_sizes", "").split())
    if announced != len(blocks):
        raise ArtifactError(_damaged(f"it announces {announced} trees (tree_sizes) and holds {len(blocks)}"))
    return TextModel(features, tuple(_tree(block, number, features) for number, block in enumerate(blocks)))


def _tree(block: str, number: int, features: int) -> TextTree:
    where = f"tree {number}"
    fields = _fields("Tree=" + block)
    if fields.get("Tree") != str(number):
        raise ArtifactError(_damaged(f"tree {number} is called {fields.get('Tree', '')[:20]!r}"))
    leaves = _whole(fields, "num_leaves", where)
    if fields.get("is_linear", "0") != "0":
        raise ArtifactError(
            f"LightGBM text: {where} has linear models in its leaves (linear_tree), for which SHAP values by tree paths "
            "are not defined. Train with linear_tree=False."
        )
    if leaves < 1:
        raise ArtifactError(_damaged(f"{where} has {leaves} leaves"))
    splits = leaves - 1
    leaf_value = _numbers(fields, "leaf_value", leaves, where)
    if splits == 0:  # LightGBM leaves the counts out in some versions; nothing is weighted by them
        none = np.zeros(0, dtype=np.int64)
        no = np.zeros(0, dtype=bool)
        zero = np.zeros(1, dtype=np.int64)
        return TextTree(leaf_value, zero, none, np.zeros(0), none, none, none, no, no, none, zero, none)
    kind = _integers(fields, "decision_type", splits, where)
    sets = _whole(fields, "num_cat", where)
    set_start = _integers(fields, "cat_boundaries", sets + 1, where) if sets else np.zeros(1, dtype=np.int64)
    if set_start[0] != 0 or (np.diff(set_start) < 0).any():
        raise ArtifactError(_damaged(f"{where}: cat_boundaries do not rise from 0"))
    tree = TextTree(
        leaf_value=leaf_value,
        leaf_count=_integers(fields, "leaf_count", leaves, where),
        feature=_integers(fields, "split_feature", splits, where),
        threshold=_numbers(fields, "threshold", splits, where),
        left=_integers(fields, "left_child", splits, where),
        right=_integers(fields, "right_child", splits, where),
        count=_integers(fields, "internal_count", splits, where),
        categorical=(kind & _CATEGORICAL) != 0,
        default_left=(kind & _DEFAULT_LEFT) != 0,
        missing=(kind >> 2) & 3,
        set_start=set_start,
        set_words=_integers(fields, "cat_threshold", int(set_start[-1]), where) if sets else set_start[:0],
    )
    _check(tree, features, sets, where)
    return tree


def _check(tree: TextTree, features: int, sets: int, where: str) -> None:
    leaves, splits = len(tree.leaf_value), len(tree.feature)
    children = np.concatenate([tree.left, tree.right])
    # Every split but the first and every leaf is a child once, and of an earlier split: then it is one tree, without cycle.
    expected = np.concatenate([np.arange(-leaves, 0), np.arange(1, splits)])
    if not np.array_equal(np.sort(children), expected) or (children[children >= 0] <= _parents(tree)).any():
        raise ArtifactError(_damaged(f"{where}: left_child and right_child do not make one tree"))
    if ((tree.feature < 0) | (tree.feature >= features)).any():
        raise ArtifactError(_damaged(f"{where} splits on a feature outside of the model's {features}"))
    if (tree.missing > MISSING_NAN).any():
        raise ArtifactError(
            _damaged(f"{where}: decision_type names a kind of missing value that LightGBM does not have")
        )
    chosen = tree.threshold[tree.categorical]
    if ((chosen != np.floor(chosen)) | (chosen < 0) | (chosen >= sets)).any():
        raise ArtifactError(_damaged(f"{where}: a categorical split names none of the {sets} sets (num_cat)"))
    if ((tree.set_words < 0) | (tree.set_words >= 2**32)).any():
        raise ArtifactError(_damaged(f"{where}: cat_threshold holds a number that is not of 32 bits"))
    # Child c is at place c of the splits followed by the leaves, counted from the end where c < 0.
    counts = np.concatenate([tree.count, tree.leaf_count[::-1]])
    below = counts[tree.left] + counts[tree.right]
    if (tree.count <= 0).any() or (tree.leaf_count < 0).any() or not np.array_equal(tree.count, below):
        raise ArtifactError(
            f"LightGBM text: {where}: the training rows of its splits (internal_count) are not the sums of those below "
            "(leaf_count), which weight the explanation. Save the model with LightGBM itself, with its counts."
        )


def _parents(tree: TextTree) -> Integers:
    """Return the split above each child that is a split, in the order of left children, then right ones."""
    above = np.arange(len(tree.feature))
    return np.concatenate([above[tree.left >= 0], above[tree.right >= 0]])


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _whole(fields: dict[str, str], name: str, where: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError) as error:
        raise ArtifactError(_damaged(f"{where} has no whole number {name}")) from error


def _integers(fields: dict[str, str], name: str, length: int, where: str) -> Integers:
    return np.asarray(_row(fields, name, length, where, np.int64), dtype=np.int64)


def _numbers(fields: dict[str, str], name: str, length: int, where: str) -> Floats:
    found = np.asarray(_row(fields, name, length, where, np.float64), dtype=np.float64)
    # An infinite threshold is normal: it parts the missing values from all numbers.
    if (~np.isfinite(found) if name == "leaf_value" else np.isnan(found)).any():
        raise ArtifactError(_damaged(f"{where}: {name} is not finite"))
    return found


def _row(fields: dict[str, str], name: str, length: int, where: str, kind: type) -> NDArray[np.generic]:
    cells = fields.get(name, "").split()
    if len(cells) != length:
        raise ArtifactError(_damaged(f"{where} has {len(cells)} values of {name} where {length} belong"))
    try:
        return np.array(cells, dtype=kind)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(_damaged(f"{where}: {name} holds what is not a number")) from error


def _damaged(what: str) -> str:
    return f"LightGBM text: {what}. The file is damaged; take it from where it was saved, or train again."
