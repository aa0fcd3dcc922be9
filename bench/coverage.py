"""How often the 95 % interval of a probability holds the true one, on invented patients whose true probability is known.

    python bench/coverage.py [--simulations N] [--only NAME,...]

Each simulation draws development patients, fits and calibrates a model with its replicates as a training does, and asks for
200 new patients. `to truth`: the interval holds the patient's true probability. `to mean`: it holds what models of other
patients from the same source give on average (a second set of as many fits), which is what the interval claims
(`CalibratedModel.interval`). The two differ by the model's bias: trees and strong penalties draw extreme patients inwards.
Coverage by thirds of the true probability shows it. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import CalibratedModel, fit_calibrated, patient_folds
from theracast_models.logodds import expit

ASKED = 200
ENET, TREES = "elasticnet", "lightgbm"


def linear(x: np.ndarray) -> np.ndarray:
    """Return log-odds in which three features add up."""
    result: np.ndarray = -0.5 + 1.0 * x[:, 0] - 0.7 * x[:, 1] + 0.4 * x[:, 2]
    return result


def curved(x: np.ndarray) -> np.ndarray:
    """Return log-odds with a threshold and an interaction."""
    result: np.ndarray = -0.8 + 1.2 * (x[:, 0] > 0.3) + 0.8 * x[:, 1] * (x[:, 2] > 0) - 0.4 * x[:, 2]
    return result


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    recipe: Recipe
    patients: int
    features: int
    truth: Callable[[np.ndarray], np.ndarray]
    replicates: int = 40


SMALL_TREES = {"rounds": 100, "learning_rate": 0.05, "num_leaves": 4, "min_data_in_leaf": 20}
STACK = {"members": [Recipe(ENET, {"c": 0.3}), Recipe(TREES, SMALL_TREES)], "folds": 3}
ROWS = {
    "weak": Row("elastic net, C = 10", Recipe(ENET, {"c": 10.0, "l1_ratio": 0.5}), 400, 3, linear),
    "strong": Row("elastic net, C = 0.03", Recipe(ENET, {"c": 0.03, "l1_ratio": 0.5}), 400, 3, linear),
    "few": Row("elastic net, C = 1", Recipe(ENET, {"c": 1.0, "l1_ratio": 0.5}), 120, 3, linear),
    "noise": Row("elastic net, C = 0.1", Recipe(ENET, {"c": 0.1, "l1_ratio": 0.5}), 400, 30, linear),
    "misfit": Row("elastic net, C = 1", Recipe(ENET, {"c": 1.0, "l1_ratio": 0.5}), 400, 3, curved),
    "trees": Row("trees, 100 of 4 leaves", Recipe(TREES, SMALL_TREES), 400, 3, linear),
    "curved": Row("trees, 100 of 4 leaves", Recipe(TREES, SMALL_TREES), 400, 3, curved),
    "many": Row("trees, 100 of 4 leaves", Recipe(TREES, SMALL_TREES), 1_500, 3, curved),
    "stack": Row("stack of both", Recipe("stack", STACK), 400, 3, linear),
}


def drawn(rng: np.random.Generator, n: int, row: Row) -> tuple[FeatureTable, np.ndarray, np.ndarray]:
    """Return n patients, their outcomes and their true probabilities."""
    names = [f"lab.x{number}" for number in range(row.features)]
    x = rng.normal(size=(n, row.features))
    truth = expit(row.truth(x))
    catalogue = tuple(FeatureSpec(name=one, modality="lab", kind="numeric", label=one, columns=(one,)) for one in names)
    decisions = pd.DataFrame({"subject_id": [str(number) for number in range(n)], "site": "A", "index_time": pd.NaT})
    table = FeatureTable(pd.DataFrame(x, columns=names), catalogue, decisions)
    return table, (rng.random(n) < truth).astype(np.float64), truth


def fitted(rng: np.random.Generator, row: Row, seed: int, *, replicates: int) -> CalibratedModel:
    """Return a model of new development patients."""
    table, y, _ = drawn(rng, row.patients, row)
    folds = patient_folds(table, y, folds=5, seed=seed)
    return fit_calibrated(row.recipe, table, y, folds=folds, replicates=replicates, seed=seed)


def measure(row: Row, simulations: int) -> dict[str, float]:
    """Return coverage (with thirds of the true probability), its standard error over simulations, and widths."""
    rng = np.random.default_rng(2026)
    asked, _, truth = drawn(rng, ASKED, row)
    third = np.argsort(np.argsort(truth)) * 3 // ASKED
    low, high, found = (np.empty((simulations, ASKED)) for _ in range(3))
    for number in range(simulations):
        model = fitted(rng, row, number, replicates=row.replicates)
        found[number] = model.log_odds(asked)
        low[number], high[number] = model.interval(asked)
    others = [fitted(rng, row, simulations + number, replicates=0).log_odds(asked) for number in range(simulations)]
    mean = expit(np.mean(others, axis=0))
    held, of_mean = (low <= truth) & (truth <= high), (low <= mean) & (mean <= high)
    result = {"to truth": 100 * held.mean(), "+-": 100 * held.mean(axis=1).std() / np.sqrt(simulations)}
    result |= {f"third {one + 1}": 100 * held[:, third == one].mean() for one in range(3)}
    result |= {"to mean": 100 * of_mean.mean(), "width": (high - low).mean()}
    return result | {"rmse": float(np.sqrt(((expit(found) - truth) ** 2).mean()))}


def tell(rows: Sequence[str], simulations: int) -> None:
    """Print the table."""
    print(f"coverage in per cent over {simulations} simulations of {ASKED} new patients; replicates: 40, with trees 20")
    heads = ["to truth", "+-", "third 1", "third 2", "third 3", "to mean", "width", "rmse"]
    print(f"{'':44}" + "".join(f"{head:>10}" for head in heads) + f"{'s':>8}")
    for one in rows:
        row, begun = ROWS[one], time.perf_counter()
        found = measure(row, simulations)
        title = f"{row.title}; {row.patients} x {row.features}, {row.truth.__name__}"
        figures = "".join(f"{found[head]:10.3f}" if found[head] < 1 else f"{found[head]:10.1f}" for head in heads)
        print(f"{title:44}{figures}{time.perf_counter() - begun:8.0f}", flush=True)


def main() -> None:
    """Print the table of the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--only", help=f"of {', '.join(ROWS)}")
    given = parser.parse_args()
    tell(given.only.split(",") if given.only else list(ROWS), given.simulations)


if __name__ == "__main__":
    main()
