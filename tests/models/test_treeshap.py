"""SHAP values of trees: LightGBM's own, the sum over all subsets, and exact fractions where LightGBM's floats give out."""

from __future__ import annotations

import gc
import itertools
import math
import os
import threading
from fractions import Fraction
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import ArtifactError
from theracast_models.lightgbm_text import TextTree, read_lightgbm_text
from theracast_models.treeshap import TreeShap
from theracast_models.treeshap_kernels import FEW, ROWS

CATEGORIES = (3, 5)
ODD = (
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1e-36,
    -1e-36,
    2e-35,
    1e300,
    -1e300,
    -0.5,
    -1.0,
    0.5,
    31.9,
    32.0,
    1e9,
    3e9,
    2**31,
)


def training_rows(rng: np.random.Generator, n: int, *, missing: float, zeros: float) -> np.ndarray:
    """Return rows of 4 numbers and 2 categories (of 5 and of 70 levels)."""
    X = rng.normal(size=(n, 6))
    X[:, 3], X[:, 5] = rng.integers(0, 5, n), rng.integers(0, 70, n)
    X[:, 2] = np.round(X[:, 2])
    X[rng.random(X.shape) < zeros] = 0.0
    X[rng.random(X.shape) < missing] = np.nan
    return X


def odd_rows(X: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return training rows in which many cells hold what training never saw."""
    rows = X[rng.integers(0, len(X), n)].copy()
    odd = rng.random(rows.shape) < 0.4
    rows[odd] = rng.choice(ODD, odd.sum())
    return rows


def squares(predicted, data):
    """Return slopes and curvatures of half the squared error: an objective that LightGBM's text does not name."""
    return predicted - data.get_label(), np.ones(len(predicted))


def train(seed: int, *, missing: float = 0.2, zeros: float = 0.1, rounds: int = 8, categorical: bool = True, **params):
    rng = np.random.default_rng(seed)
    X = training_rows(rng, 400, missing=missing, zeros=zeros)
    Z = np.nan_to_num(X)
    y = Z[:, 0] + 2 * Z[:, 1] * Z[:, 2] + (Z[:, 3] == 2) - (Z[:, 5] % 3 == 1) + rng.normal(0, 0.3, len(X))
    if params.get("objective") in {"binary", "poisson"}:
        y = y > 0
    settings = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 2, "min_data_per_group": 3, "cat_smooth": 1}
    data = lightgbm.Dataset(X, y, categorical_feature=list(CATEGORIES) if categorical else [])
    return lightgbm.train(settings | {"seed": seed} | params, data, rounds), X, rng


def assert_equal_to_lightgbm(model: lightgbm.Booster, X: np.ndarray) -> None:
    expected = model.predict(X, pred_contrib=True, num_threads=1)
    shap = TreeShap.read(model.model_to_string())
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(shap.values(X), expected[:, :-1], rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(shap.base, expected[0, -1], rtol=0, atol=1e-9 * scale)
    raw = model.predict(X, raw_score=True, num_threads=1)
    np.testing.assert_allclose(shap.base + shap.values(X).sum(axis=1), raw, rtol=0, atol=1e-9 * scale)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    missing=st.sampled_from([0.0, 0.2]),
    categorical=st.booleans(),
    objective=st.sampled_from(["regression", "binary", "poisson", squares]),
    params=st.fixed_dictionaries(
        {
            "num_leaves": st.sampled_from([2, 3, 7, 31, 120]),
            "max_depth": st.sampled_from([-1, 1, 3, 6]),
            "zero_as_missing": st.booleans(),
            "use_missing": st.booleans(),
            "boosting": st.sampled_from(["gbdt", "rf", "dart"]),
        }
    ),
)
def test_equals_lightgbm(seed: int, missing: float, categorical: bool, objective, params: dict) -> None:
    forest = params["boosting"] == "rf"
    if seed % 2 or forest:
        params = params | {"bagging_fraction": 0.6, "bagging_freq": 1, "feature_fraction": 0.8}
    if forest and objective is squares:  # LightGBM grows no forest by an objective that it does not know
        objective = "regression"
    model, X, rng = train(seed, missing=missing, categorical=categorical, objective=objective, **params)
    assert_equal_to_lightgbm(model, np.concatenate([X[:30], odd_rows(X, rng, 60)]))


def test_what_lightgbm_calls_missing_occurs_in_the_sweep() -> None:
    """The property above would say little if no split had these kinds."""
    seen, with_sets = set(), False
    for zero_as_missing, missing in itertools.product([False, True], [0.0, 0.2]):
        model, _, _ = train(1, missing=missing, num_leaves=31, zero_as_missing=zero_as_missing)
        for tree in read_lightgbm_text(model.model_to_string()).trees:
            seen |= set(zip(tree.missing[~tree.categorical], tree.default_left[~tree.categorical], strict=True))
            with_sets |= bool((np.diff(tree.set_start) > 1).any())
    assert {kind for kind, _ in seen} == {0, 1, 2}
    assert {(1, True), (1, False), (2, True), (2, False)} <= seen
    assert with_sets


def test_threshold_at_infinity_parts_missing_from_numbers() -> None:
    X = np.repeat([[np.nan], [1.0], [2.0]], 50, axis=0)
    model = lightgbm.train(
        {"verbosity": -1, "num_threads": 1, "num_leaves": 2, "min_data_in_leaf": 5},
        lightgbm.Dataset(X, np.isnan(X[:, 0]).astype(float)),
        2,
    )
    assert_equal_to_lightgbm(model, np.array([[np.nan], [1.0], [np.inf], [-np.inf], [0.0]]))


def test_constant_trees() -> None:
    X = np.zeros((50, 2))
    model = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(X, np.full(50, 3.5)), 3)
    shap = TreeShap.read(model.model_to_string())
    assert shap.base == 3.5
    assert not shap.values(X).any()


def test_no_trees() -> None:
    head = WHOLE[: WHOLE.index("Tree=0")].replace("tree_sizes=1", "tree_sizes=")
    shap = TreeShap.read(head + "end of trees\n")
    assert shap.base == 0
    assert not shap.values(np.ones((3, 2))).any()


def goes_left(tree: TextTree, split: int, x: float) -> bool:
    """Decide as LightGBM's documents say, in plain Python."""
    if tree.categorical[split]:
        which = int(tree.threshold[split])
        words = tree.set_words[tree.set_start[which] : tree.set_start[which + 1]]
        members = [32 * word + bit for word in range(len(words)) for bit in range(32) if int(words[word]) >> bit & 1]
        return math.isfinite(x) and math.trunc(x) in members
    if math.isnan(x) and tree.missing[split] != 2:
        x = 0.0
    if (tree.missing[split] == 2 and math.isnan(x)) or (tree.missing[split] == 1 and abs(x) <= 1.0000000180025095e-35):
        return bool(tree.default_left[split])
    return x <= tree.threshold[split]


def expectation(tree: TextTree, x: np.ndarray, known: set[int], node: int = 0) -> float:
    """Return the tree's answer where only some features are known: both ways, weighted by cover, at the others."""
    if node < 0:
        return float(tree.leaf_value[-1 - node])
    children = [int(tree.left[node]), int(tree.right[node])]
    if int(tree.feature[node]) in known:
        return expectation(tree, x, known, children[0 if goes_left(tree, node, x[tree.feature[node]]) else 1])
    covers = [int(tree.leaf_count[-1 - child] if child < 0 else tree.count[child]) for child in children]
    answers = [expectation(tree, x, known, child) for child in children]
    return float(np.average(answers, weights=covers))


def shapley(tree: TextTree, x: np.ndarray) -> np.ndarray:
    """Return Shapley's sum over all subsets."""
    p = len(x)
    phi = np.zeros(p)
    for i in range(p):
        others = [j for j in range(p) if j != i]
        for size in range(p):
            weight = math.factorial(size) * math.factorial(p - size - 1) / math.factorial(p)
            for chosen in itertools.combinations(others, size):
                phi[i] += weight * (expectation(tree, x, {*chosen, i}) - expectation(tree, x, set(chosen)))
    return phi


@pytest.mark.parametrize("zero_as_missing", [False, True])
def test_equals_the_sum_over_subsets(zero_as_missing: bool) -> None:
    model, X, rng = train(5, rounds=2, num_leaves=10, zero_as_missing=zero_as_missing)
    text = model.model_to_string()
    trees, shap = read_lightgbm_text(text).trees, TreeShap.read(text)
    rows = np.concatenate([X[:3], odd_rows(X, rng, 5)])
    expected = [sum(shapley(tree, row) for tree in trees) for row in rows]
    np.testing.assert_allclose(shap.values(rows), expected, rtol=0, atol=1e-12)
    assert shap.base == pytest.approx(sum(expectation(tree, rows[0], set()) for tree in trees), abs=1e-12)


def chain(features: list[int], counts: list[int], values: list[float]) -> str:
    """Return the text of one tree whose left child is always a leaf: x <= 0 leaves the chain."""
    splits = len(features)
    below = [sum(counts[place:]) for place in range(splits)]
    rows = {
        "Tree": [0],
        "num_leaves": [splits + 1],
        "num_cat": [0],
        "split_feature": features,
        "threshold": [0] * splits,
        "decision_type": [8] * splits,
        "left_child": [-1 - place for place in range(splits)],
        "right_child": [*range(1, splits), -1 - splits],
        "leaf_value": values,
        "leaf_count": counts,
        "internal_count": below,
        "is_linear": [0],
        "shrinkage": [1],
    }
    lines = [f"{name}={' '.join(map(str, row))}" for name, row in rows.items()]
    head = ["tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0"]
    names = " ".join(f"f{number}" for number in range(max(features) + 1))
    infos = " ".join(["[-1:1]"] * (max(features) + 1))
    head += [f"max_feature_idx={max(features)}", f"feature_names={names}", f"feature_infos={infos}", "tree_sizes=1"]
    return "\n".join([*head, "", *lines, "", "end of trees", ""])


def exact_chain(features: list[int], counts: list[int], values: list[float], x: np.ndarray) -> np.ndarray:
    """Return the SHAP values of a chain in fractions: leaf by leaf, the polynomial of subset sizes."""
    phi = [Fraction(0)] * len(x)
    for leaf in range(len(counts)):
        zero: dict[int, Fraction] = {}
        one: dict[int, int] = {}
        for place in range(min(leaf + 1, len(features))):
            rest, left = sum(counts[place:]), place == leaf
            share = Fraction(counts[place] if left else rest - counts[place], rest)
            zero[features[place]] = zero.get(features[place], Fraction(1)) * share
            one[features[place]] = one.get(features[place], 1) * int((x[features[place]] <= 0) == left)
        whole = [Fraction(1)]  # coefficient k: of the subsets of k features
        for f, share in zero.items():
            pairs = zip([*whole, Fraction(0)], [Fraction(0), *whole], strict=True)
            whole = [same * share + less * one[f] for same, less in pairs]
        n = len(zero)
        for f, share in zero.items():
            without, carried = [], Fraction(0)
            for k in range(n):  # whole = without * (share + one y)
                carried = (whole[k] - one[f] * carried) / share
                without.append(carried)
            total = sum(c * math.factorial(k) * math.factorial(n - 1 - k) for k, c in enumerate(without))
            phi[f] += Fraction(values[leaf]) * (one[f] - share) * total / math.factorial(n)
    return np.array([float(value) for value in phi])


@pytest.mark.parametrize(("splits", "different"), [(1, 1), (7, 7), (60, 60), (60, 25)])
def test_deep_chains_are_exact(splits: int, different: int) -> None:
    rng = np.random.default_rng(splits + different)
    features = rng.permutation(np.arange(splits) % different).tolist()
    counts, values = rng.integers(1, 40, splits + 1).tolist(), rng.normal(size=splits + 1).tolist()
    shap = TreeShap.read(chain(features, counts, values))
    # Mostly along the chain: there the products are long.
    X = np.where(rng.random((2, different)) < [[0.0], [0.1]], -1.0, 1.0)
    expected = np.array([exact_chain(features, counts, values, x) for x in X])
    np.testing.assert_allclose(shap.values(X), expected, rtol=0, atol=1e-13)


def test_chains_of_moderate_depth_equal_lightgbm() -> None:
    rng = np.random.default_rng(0)
    features = rng.permutation(np.arange(20) % 12).tolist()
    text = chain(features, rng.integers(1, 40, 21).tolist(), rng.normal(size=21).tolist())
    assert_equal_to_lightgbm(lightgbm.Booster(model_str=text), rng.normal(size=(50, 12)))


def test_leaf_without_training_rows_weighs_nothing() -> None:
    text = chain([0, 1, 2], [3, 0, 4, 5], [1.0, 100.0, 2.0, 3.0])
    values = TreeShap.read(text).values(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]]))
    assert np.isfinite(values).all()
    assert not values[:, 1].any()  # the row is not in that leaf and no average sees it
    (tree,) = read_lightgbm_text(text).trees
    inside = np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(TreeShap.read(text).values(inside[None])[0], shapley(tree, inside), atol=1e-12)


def test_row_alone_has_the_same_bits_as_among_others() -> None:
    model, X, rng = train(3, rounds=30, num_leaves=40)
    shap = TreeShap.read(model.model_to_string())
    rows = odd_rows(X, rng, 3 * ROWS)
    alone = np.concatenate([shap.values(row[None]) for row in rows])
    for n in (0, 1, FEW, FEW + 1, ROWS - 1, ROWS, ROWS + 1, ROWS + FEW, ROWS + FEW + 1, 3 * ROWS):
        assert np.array_equal(shap.values(rows[:n]), alone[:n])
    assert np.array_equal(shap.values(np.asfortranarray(rows)), alone)
    assert np.array_equal(shap.values(rows[::2]), alone[::2])


def test_input_stays_as_it_was_and_threads_share_one_explainer() -> None:
    model, X, _ = train(4, rounds=20, num_leaves=20)
    shap = TreeShap.read(model.model_to_string())
    before, expected, found = X.copy(), shap.values(X), [None] * 4

    def explain(place: int) -> None:
        found[place] = shap.values(X)

    threads = [threading.Thread(target=explain, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, expected) for one in found)
    assert np.array_equal(X, before, equal_nan=True)


def peak_bytes(call) -> int:
    """Return how far the resident memory of this process rises above now during a call."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    held = memory_bytes("VmRSS")
    answer = call()
    return memory_bytes("VmHWM") - held - answer.nbytes


def memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name + ":")))


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc to see peak memory")
def test_memory_beside_the_answer_is_flat_in_rows() -> None:
    model, X, _ = train(6, num_leaves=15)
    shap = TreeShap.read(model.model_to_string())
    rows = np.resize(X, (300_000, 6))
    shap.values(rows[:1000])
    gc.collect()
    # What else the process does at the same time only adds: the least of a few is what the call takes.
    assert min(peak_bytes(lambda: shap.values(rows)) for _ in range(4)) < 4e6 < rows.nbytes / 3
    # The measure sees what is taken beside: more than the allocator would keep from before (32 MB).
    assert peak_bytes(lambda: shap.values(rows) + np.ones(12_000_000).mean()) > 12_000_000 * 8 / 2


def test_wrong_number_of_columns_is_refused() -> None:
    model, X, _ = train(1)
    with pytest.raises(ValueError, match=r"shape \(400, 5\); the model reads rows of 6 columns"):
        TreeShap.read(model.model_to_string()).values(X[:, :5])


def test_several_scores_are_refused() -> None:
    X = np.random.default_rng(0).normal(size=(90, 2))
    params = {"verbosity": -1, "num_threads": 1, "objective": "multiclass", "num_class": 3}
    model = lightgbm.train(params, lightgbm.Dataset(X, np.arange(90) % 3), 2)
    with pytest.raises(ArtifactError, match=r"3 scores a row.*train one model for each class"):
        TreeShap.read(model.model_to_string())


def test_linear_trees_are_refused() -> None:
    X = np.random.default_rng(0).normal(size=(90, 2))
    model = lightgbm.train({"verbosity": -1, "num_threads": 1, "linear_tree": True}, lightgbm.Dataset(X, X[:, 0]), 3)
    with pytest.raises(ArtifactError, match=r"linear models in its leaves.*linear_tree=False"):
        TreeShap.read(model.model_to_string())


WHOLE = chain([0, 1, 0], [4, 3, 2, 1], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tree\nversion", "forest\nversion", "does not begin"),
        ("end of trees", "", "no line 'end of trees'"),
        ("tree_sizes=1", "tree_sizes=1 1", "announces 2 trees"),
        ("num_tree_per_iteration=1\n", "", "no whole number num_tree_per_iteration"),
        ("Tree=0", "Tree=1", "tree 0 is called '1'"),
        ("num_leaves=4", "num_leaves=5", "4 values of leaf_value where 5 belong"),
        ("num_leaves=4", "num_leaves=0", "0 leaves"),
        ("leaf_value=0.1", "leaf_value=nan", "leaf_value is not finite"),
        ("leaf_value=0.1", "leaf_value=x", "leaf_value holds what is not a number"),
        ("threshold=0", "threshold=nan", "threshold is not finite"),
        ("right_child=1", "right_child=0", "do not make one tree"),
        ("right_child=1 2", "right_child=2 1", "do not make one tree"),
        ("left_child=-1", "left_child=-9", "do not make one tree"),
        ("split_feature=0", "split_feature=7", "outside of the model's 2"),
        ("decision_type=8", "decision_type=12", "a kind of missing value"),
        ("decision_type=8", "decision_type=1", "names none of the 0 sets"),
        ("leaf_count=4", "leaf_count=5", "not the sums of those below"),
        ("leaf_count=4 3 2 1\n", "", "0 values of leaf_count"),
        ("num_cat=0", "num_cat=1\ncat_boundaries=0 1\ncat_threshold=4294967296", "not of 32 bits"),
        ("num_cat=0", "num_cat=1\ncat_boundaries=1 0\ncat_threshold=1", "do not rise from 0"),
    ],
)
def test_damaged_text_is_refused(old: str, new: str, told: str) -> None:
    TreeShap.read(WHOLE)
    assert old in WHOLE
    with pytest.raises(ArtifactError, match=told):
        TreeShap.read(WHOLE.replace(old, new, 1))


def test_text_cut_short_is_refused() -> None:
    text = train(1)[0].model_to_string()
    whole = text[: text.index("end of trees") + len("end of trees")]
    for end in np.linspace(0, len(whole) - 2, 40).astype(int):
        with pytest.raises(ArtifactError, match=r"train again|train one"):
            TreeShap.read(whole[:end])
