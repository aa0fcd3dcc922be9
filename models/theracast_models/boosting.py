"""Gradient boosting by LightGBM, explained by the exact SHAP values of its trees (theracast_models.treeshap)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Gaps, Learnable
from theracast_models.outcomes import Binary, Continuous, Outcome, as_outcome
from theracast_models.preprocess import level_codes, numeric_values, seen_levels, text_values
from theracast_models.sentences import gap_sentences

if TYPE_CHECKING:
    from theracast_models.treeshap import TreeShap

PARAMETERS: dict[str, Any] = {
    "rounds": 150,
    "learning_rate": 0.05,
    "num_leaves": 7,
    "max_depth": -1,
    "min_data_in_leaf": 20,
    "lambda_l1": 0.0,
    "lambda_l2": 1.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "min_gain_to_split": 0.0,
    "path_smooth": 0.0,
}

LEAST_CURVATURE = 1e-6
"""Of an objective of ours: a patient censored before the first event has none."""

# Repeatable on one machine whatever the load: one thread, one histogram layout. The category settings suit cohorts of
# hundreds, where LightGBM's own (100 rows a group) would ignore most levels.
_FIXED: dict[str, Any] = {
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
    "feature_pre_filter": False,
    "min_data_per_group": 10,
    "cat_smooth": 20.0,
    "max_cat_to_onehot": 4,
}


@dataclass(frozen=True)
class EncodedColumn:
    """How one feature becomes a number for the trees.

    Attributes:
        levels: of a category, in the order of their codes; None for a number.
        fill: for a column that was never missing in training: the median, or the code of the most frequent level. The
            trees of such a column have no branch for missing; LightGBM would silently take it as 0.
    """

    name: str
    levels: tuple[str, ...] | None
    fill: float | None

    def encode(self, table: FeatureTable) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (n,) numbers, where they were missing, and where the level was never seen."""
        if self.levels is None:
            numbers = numeric_values(table.frame, self.name)
            missing = ~np.isfinite(numbers)
            unseen = np.zeros(len(numbers), dtype=bool)
        else:
            values = text_values(table.frame, self.name)
            codes = level_codes(values, self.levels)
            missing = codes < 0
            unseen = missing & np.array([value is not None for value in values], dtype=bool)
            numbers = codes.astype(np.float64)
        return np.where(missing, np.nan if self.fill is None else self.fill, numbers), missing, unseen


class Boosting:
    """Boosted trees on the values as they are; missing values have a branch of their own where training had some.

    A feature that was never missing in training is filled with its training median or most frequent level when it is
    missing later, and `handled` says so.

    Args:
        seed: of row and column sampling.
        params: any of PARAMETERS; `rounds` is the number of trees, the others are LightGBM's.
    """

    family: ClassVar[str] = "lightgbm"

    def __init__(self, *, seed: int = 0, **params: Any) -> None:
        unknown = sorted(set(params) - set(PARAMETERS))
        if unknown:
            raise ValueError(f"lightgbm: unknown parameter {', '.join(unknown)}. Known: {', '.join(PARAMETERS)}.")
        self.seed = seed
        self.params = params

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn codes, fill-in values and trees from n decisions."""
        self.columns_ = _learn_columns(table)
        self._train(table, as_outcome(y, weight), seed=self.seed)
        return self

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        return self._raw_scores(self._matrix(table))

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p); 0 for the pictures of regions, at which trees do not look."""
        X = self._matrix(table)
        phi = np.zeros((len(table), len(table.catalogue)))
        if len(X) == 0:
            return np.zeros(0), phi
        shap = self._shap()
        phi[:, [place for place, spec in enumerate(table.catalogue) if spec.role != "picture"]] = shap.values(X)
        return np.full(len(X), shap.base), phi

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision which missing values were filled in and which levels were passed over."""
        return gap_sentences(self.gaps(table), table)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        filled: list[list[str]] = [[] for _ in range(len(table))]
        passed: list[list[str]] = [[] for _ in range(len(table))]
        for column in self.columns_:
            _, missing, unseen = column.encode(table)
            for row in np.flatnonzero(unseen):
                passed[row].append(column.name)
            if column.fill is not None:
                for row in np.flatnonzero(missing & ~unseen):
                    filled[row].append(column.name)
        return [Gaps(tuple(names), tuple(new)) for names, new in zip(filled, passed, strict=True)]

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a copy with trees learned from other decisions; codes and fill-in values are kept."""
        copy = self._empty_copy()
        copy._train(table, as_outcome(y, weight), seed=self.seed + seed)
        return copy

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds of copies made by `refit`."""
        X = self._matrix(table)
        return np.array([one._raw_scores(X) for one in replicates]).reshape(len(replicates), len(table))

    def save(self, folder: Path) -> None:
        """Write `model.json` and the trees as LightGBM's text, `trees.txt`, into a new folder."""
        folder.mkdir(parents=True)
        record = {
            "family": self.family,
            "params": {"seed": self.seed, **self.params},
            "columns": [asdict(column) for column in self.columns_],
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        self._write_trees(folder / "trees.txt")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = cls(**record["params"])
        model.columns_ = tuple(
            EncodedColumn(one["name"], None if one["levels"] is None else tuple(one["levels"]), one["fill"])
            for one in record["columns"]
        )
        model._read_trees(folder / "trees.txt")
        return model

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the trees of the copies into a new folder."""
        folder.mkdir(parents=True)
        for number, one in enumerate(replicates):
            one._write_trees(folder / f"{number:03d}.txt")

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the copies that `save_replicates` wrote."""
        copies = []
        for path in sorted(folder.glob("*.txt")):
            copy = self._empty_copy()
            copy._read_trees(path)
            copies.append(copy)
        return copies

    def _empty_copy(self) -> Self:
        copy = type(self)(seed=self.seed, **self.params)
        copy.columns_ = self.columns_
        return copy

    def _matrix(self, table: FeatureTable) -> Floats:
        """Return (n, p) numbers in the order of training, taken by name."""
        encoded = [column.encode(table)[0] for column in self.columns_]
        return np.column_stack(encoded) if encoded else np.zeros((len(table), 0))

    def _shap(self) -> TreeShap:
        """Return what explains the trees, made at the first explanation."""
        from theracast_models.treeshap import TreeShap

        booster, shap = getattr(self, "_explained", (None, None))
        if shap is None or booster is not self.booster_:
            shap = TreeShap.read(self.booster_.model_to_string(num_iteration=-1))
            self._explained = (self.booster_, shap)
        return shap

    def _raw_scores(self, X: Floats) -> Floats:
        if len(X) == 0:
            return np.zeros(0)
        return np.asarray(self.booster_.predict(X, raw_score=True, num_threads=1), dtype=np.float64)

    def _train(self, table: FeatureTable, outcome: Outcome, *, seed: int) -> None:
        import lightgbm

        settings = _FIXED | {"objective": _objective(outcome)} | PARAMETERS | self.params
        rounds = int(settings.pop("rounds"))
        data = lightgbm.Dataset(
            self._matrix(table),
            **_labels(outcome),
            feature_name=[f"f{number}" for number in range(len(self.columns_))],
            categorical_feature=[n for n, column in enumerate(self.columns_) if column.levels is not None],
            params={"verbosity": -1, "feature_pre_filter": False, "min_data_in_bin": 3, "num_threads": 1},
        )
        self.booster_ = lightgbm.train(settings | {"seed": seed}, data, num_boost_round=rounds)

    def _write_trees(self, path: Path) -> None:
        path.write_text(self.booster_.model_to_string(num_iteration=-1), encoding="utf-8")

    def _read_trees(self, path: Path) -> None:
        import lightgbm

        self.booster_ = lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))
        expected = [f"f{number}" for number in range(len(self.columns_))]
        if self.booster_.feature_name() != expected:
            raise ArtifactError(
                f"{path.name}: the trees were grown on {self.booster_.num_feature()} features, the model lists "
                f"{len(expected)}. The folder is damaged; take it from where it was saved, or train again."
            )


def _objective(outcome: Outcome) -> str | Callable[[Floats, Any], tuple[Floats, Floats]]:
    """Return LightGBM's own objective where it has the likelihood, else the slopes of the outcome's."""
    own = {"binary": "binary", "continuous": "regression"}.get(outcome.kind)
    if own is not None:
        return own

    def slopes(score: Floats, data: Any) -> tuple[Floats, Floats]:
        gradient, curvature = outcome.slopes(np.asarray(score, dtype=np.float64))
        return gradient, np.maximum(curvature, LEAST_CURVATURE)

    return slopes


def _labels(outcome: Outcome) -> dict[str, Any]:
    """Return label and weight of the training data; an objective of ours holds both itself."""
    if isinstance(outcome, Binary | Continuous):
        return {"label": outcome.y, "weight": None if (outcome.weight == 1).all() else outcome.weight}
    return {"label": outcome.strata}


def _learn_columns(table: FeatureTable) -> tuple[EncodedColumn, ...]:
    columns = []
    for spec in table.catalogue:
        if spec.role == "picture":  # that there is one shall not become a feature by accident
            continue
        if spec.kind == "categorical":
            values = text_values(table.frame, spec.name)
            levels = seen_levels(values)
            codes = level_codes(values, levels)
            complete = len(codes) > 0 and bool((codes >= 0).all())
            columns.append(EncodedColumn(spec.name, levels, float(np.bincount(codes).argmax()) if complete else None))
        else:
            numbers = numeric_values(table.frame, spec.name)
            complete = len(numbers) > 0 and bool(np.isfinite(numbers).all())
            columns.append(EncodedColumn(spec.name, None, float(np.median(numbers)) if complete else None))
    return tuple(columns)
