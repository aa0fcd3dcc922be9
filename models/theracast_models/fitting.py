"""From a recipe to a calibrated model with an interval: fit, predict out of fold, calibrate, refit on resamples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureTable
from theracast_models.calibration import AffineCalibration
from theracast_models.families import Recipe, as_recipe, build_model, load_model
from theracast_models.folds import Fold, out_of_fold_log_odds, patient_folds, patient_numbers
from theracast_models.logodds import Floats, ReplicableModel, expit

__all__ = ["CalibratedModel", "Recipe", "build_model", "fit_calibrated", "out_of_fold", "patient_folds"]

NORMAL_95 = 1.959963984540054
MOST_TREE_REPLICATES = 20


@dataclass(frozen=True)
class CalibratedModel:
    """A fitted model, the calibration of its log-odds, and replicates of both.

    Attributes:
        recipe: from which it was made.
        model: fitted on all development decisions.
        calibration: from out-of-fold log-odds.
        replicates: the model refitted on resampled patients.
        replicate_calibrations: as many.
    """

    recipe: Recipe
    model: ReplicableModel
    calibration: AffineCalibration
    replicates: tuple[ReplicableModel, ...] = ()
    replicate_calibrations: tuple[AffineCalibration, ...] = ()

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) calibrated log-odds."""
        return self.calibration.apply(self.model.log_odds(table))

    def probability(self, table: FeatureTable) -> Floats:
        """Return (n,) calibrated probabilities."""
        result: Floats = expit(self.log_odds(table))
        return result

    def interval(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return the 95 % interval of each probability: its log-odds +- 1.96 standard deviations over the replicates.

        It says how far the probability would move had other patients from the same source developed the model; not how
        far a single patient may be from it, and not what a change of source would do.
        """
        return self.interval_around(self.log_odds(table), table)

    def interval_around(self, log_odds: Floats, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return `interval` for calibrated log-odds (n,) that are known already."""
        if len(self.replicates) < 2 or len(table) == 0:
            return expit(log_odds), expit(log_odds)
        raw = self.model.replicate_log_odds(self.replicates, table)
        slopes = np.array([one.slope for one in self.replicate_calibrations])
        intercepts = np.array([one.intercept for one in self.replicate_calibrations])
        width = NORMAL_95 * (intercepts[:, None] + slopes[:, None] * raw).std(axis=0, ddof=1)
        return expit(log_odds - width), expit(log_odds + width)

    def explain(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and SHAP values (n, p) of the calibrated log-odds."""
        base, phi = self.model.contributions(table)
        return self.calibration.apply(base), self.calibration.slope * phi

    def save(self, folder: Path) -> None:
        """Write `calibrated.json`, `model/` and `replicates/` into a new folder."""
        folder.mkdir(parents=True)
        record = {
            "recipe": self.recipe.to_json(),
            "calibration": self.calibration.to_json(),
            "replicate_calibrations": [one.to_json() for one in self.replicate_calibrations],
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        (folder / "calibrated.json").write_text(text + "\n", encoding="utf-8")
        self.model.save(folder / "model")
        self.model.save_replicates(self.replicates, folder / "replicates")

    @classmethod
    def load(cls, folder: Path) -> CalibratedModel:
        """Return the model that `save` wrote."""
        record = json.loads((folder / "calibrated.json").read_text(encoding="utf-8"))
        model = load_model(folder / "model")
        return cls(
            recipe=Recipe.from_json(record["recipe"]),
            model=model,
            calibration=AffineCalibration(**record["calibration"]),
            replicates=tuple(model.load_replicates(folder / "replicates")),
            replicate_calibrations=tuple(AffineCalibration(**one) for one in record["replicate_calibrations"]),
        )


def out_of_fold(
    recipe: Recipe,
    table: FeatureTable,
    y: Floats,
    folds: Sequence[Fold],
    *,
    weight: Floats | None = None,
    seed: int,
) -> Floats:
    """Return (n,) log-odds, not calibrated, by models that have not seen the decision; NaN where no fold tests it."""
    return out_of_fold_log_odds(build_model(recipe, seed), table, y, folds, weight=weight)


def fit_calibrated(
    recipe: Recipe,
    table: FeatureTable,
    y: Floats,
    *,
    folds: Sequence[Fold],
    weight: Floats | None = None,
    replicates: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> CalibratedModel:
    """Return the recipe fitted on all decisions, calibrated out of fold, with replicates for its interval.

    A replicate resamples patients (with all their decisions), learns coefficients or trees anew, and is calibrated on
    the patients that the resample left out; scales, codes and fusion weights are kept. In simulation (400 patients, 3
    features, a weak and a strong penalty) its 95 % intervals held the true probability in 96 and 95 %; with the model's
    own calibration it was 91 and 94 %; with one refitted on the resampled out-of-fold log-odds 99 %, half as wide again,
    since that counts the uncertainty of the intercept twice. Of a published score the calibration is all that is
    learned: it is refitted on the resample. So it is of a recipe with a network, which replicates keep too: the interval
    does not count that other patients would have made another network. Recipes with trees make at most 20 replicates,
    because each costs a fit here and a pass through its trees at every answer.

    Args:
        folds: (train, test) positions; need not cover every decision.
        progress: called with replicates done and replicates in all.

    Raises:
        CohortError: an outcome that is neither 0 nor 1, or only one outcome.
    """
    check_outcome(y)
    model = build_model(recipe, seed).fit(table, y, weight=weight)
    honest = out_of_fold(recipe, table, y, folds, weight=weight, seed=seed)
    calibration = AffineCalibration.fit(honest, y, weight)
    learns_nothing = recipe.family in ("published", "cnn")
    keeps = learns_nothing or _has_network(recipe)
    count = min(replicates, MOST_TREE_REPLICATES) if _has_trees(recipe) else replicates
    copies, calibrations = [], []
    patients = patient_numbers(table.decisions)
    rng = np.random.default_rng([seed, 20240])
    for number in range(count):
        rows = _resample(patients, y, weight, rng)
        own = None if weight is None else weight[rows]
        copy = model if learns_nothing else model.refit(table.take(rows), y[rows], weight=own, seed=number + 1)
        copies.append(copy)
        if keeps:  # to what is kept, the patients that the resample left out are not new
            calibrations.append(AffineCalibration.fit(honest[rows], y[rows], own))
        else:
            calibrations.append(_calibrated_on_the_rest(copy, rows, table, y, weight) or calibration)
        if progress is not None:
            progress(number + 1, count)
    return CalibratedModel(recipe, model, calibration, tuple(copies), tuple(calibrations))


def check_outcome(y: Floats) -> None:
    """Return nothing if `y` is 0/1 with both outcomes."""
    strange = int((~np.isin(y, (0.0, 1.0))).sum())
    if strange:
        raise CohortError(
            f"{strange} of {len(y)} decisions have an outcome that is neither 0 nor 1. Leave decisions without a known "
            "outcome out before fitting."
        )
    if not 0 < y.sum() < len(y):
        raise CohortError(
            f"all {len(y)} decisions have the same outcome, so nothing can be learned. Check the endpoint's rule in "
            "the study, and which sites develop the model."
        )


def _calibrated_on_the_rest(
    model: ReplicableModel, rows: NDArray[np.intp], table: FeatureTable, y: Floats, weight: Floats | None
) -> AffineCalibration | None:
    """Return the calibration of a replicate on the decisions it has not seen; None if they have one outcome only."""
    rest = np.setdiff1d(np.arange(len(y)), rows)
    counted = rest if weight is None else rest[weight[rest] > 0]
    if not 0 < y[counted].sum() < len(counted):
        return None
    w = None if weight is None else weight[counted]
    return AffineCalibration.fit(model.log_odds(table.take(counted)), y[counted], w)


def _has_trees(recipe: Recipe) -> bool:
    if recipe.family != "stack":
        return recipe.family == "lightgbm"
    return any(_has_trees(as_recipe(member)) for member in recipe.params["members"])


def _has_network(recipe: Recipe) -> bool:
    if recipe.family != "stack":
        return recipe.family == "cnn"
    return any(_has_network(as_recipe(member)) for member in recipe.params["members"])


def _resample(
    patients: NDArray[np.intp], y: Floats, weight: Floats | None, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return rows of patients drawn with replacement; drawn again where an outcome is missing from them."""
    order = np.argsort(patients, kind="stable")
    starts = np.searchsorted(patients[order], np.arange(patients.max() + 2))
    counted = np.ones(len(y), dtype=bool) if weight is None else weight > 0
    for _ in range(1000):
        drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
        rows = np.concatenate([order[starts[one] : starts[one + 1]] for one in drawn])
        if 0 < y[rows][counted[rows]].sum() < counted[rows].sum():
            return rows
    raise CohortError(
        "1000 resamples of the patients in a row held one outcome only: one of the outcomes is too rare for an "
        "interval. Add decisions."
    )
