"""What merging patients into groups of ten costs, and whom `Novelty` finds unusual, on patients of real cohorts.

    THERACAST_DATA=FOLDER python bench/neighbours.py [--splits N] [--only NAME,...]

Each split fits a model to two thirds of the patients and asks for the other third. The outcome among at least 50 like patients
(`Neighbours`) is compared with that among as many true nearest neighbours, found in the rows that do not travel:
`bias` and `rms` of the difference in points; `chance`, the rms that two rates of so many other patients would have;
the Brier scores of both and of the model as predictions. `rare`: patients of the other third found unusual, in per cent (1 is
right); `planted`: the same patients with one value ten times too large (a unit mistaken). `ms`: processor time of one answer.
Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.specs import FeatureTable
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated, patient_folds
from theracast_models.neighbours import Neighbours, Outcomes
from theracast_models.novelty import Novelty
from theracast_training.study import read_study

STUDIES = Path(__file__).resolve().parents[1] / "studies"
RECIPES = {
    "elastic net": Recipe("elasticnet", {"c": 0.1, "l1_ratio": 0.5}),
    "trees": Recipe("lightgbm", {"rounds": 80, "learning_rate": 0.05, "num_leaves": 6, "min_data_in_leaf": 20}),
}
ROWS = {
    "icb_full": "lab.albumin",
    "ispy2_baseline": "image.functional_tumour_volume",
    "oak": "image.sum_of_diameters",
    "transneo": "clin.tumour_size",
}
"""Cohort to the feature whose unit is mistaken."""
YEAR = 365.25


def cohort(name: str) -> tuple[FeatureTable, np.ndarray, pd.DataFrame]:
    """Return features, outcome and all endpoints."""
    study = read_study(STUDIES / f"{name}.yaml")
    read = read_cohort(study.inputs, study.endpoints, base=STUDIES)
    y = read.endpoints[study.endpoint.name].to_numpy(dtype=np.float64)
    read = read.take(np.flatnonzero(np.isfinite(y)))
    return build_features(read, resolve_section(study.features, read)), y[np.isfinite(y)], read.endpoints


def planted(table: FeatureTable, name: str) -> FeatureTable:
    """Return the table with one feature ten times too large."""
    return FeatureTable(table.frame.assign(**{name: table.frame[name] * 10}), table.catalogue, table.decisions)


def survival(time: np.ndarray, event: np.ndarray, at: float) -> float:
    """Return the Kaplan-Meier estimate at one time."""
    order = np.argsort(time, kind="stable")
    at_risk = len(time) - np.searchsorted(time[order], time[order], side="left")
    moments, first = np.unique(time[order], return_index=True)
    died = np.add.reduceat(event[order], first)
    return float(np.prod((1 - died / at_risk[first])[moments <= at]))


def measure(name: str, recipe: Recipe, splits: int) -> dict[str, float]:
    """Return the mean figures over splits."""
    table, y, ends = cohort(name)
    features = [spec.name for spec in table.catalogue]
    sums: dict[str, list[float]] = defaultdict(list)
    for number, (learn, ask) in enumerate(
        StratifiedShuffleSplit(splits, test_size=1 / 3, random_state=0).split(y[:, None], y)
    ):
        train, asked = table.take(learn), table.take(ask)
        folds = patient_folds(train, y[learn], folds=5, seed=number)
        model = fit_calibrated(recipe, train, y[learn], folds=folds, replicates=0, seed=number)
        phi, own = model.explain(train)[1], model.explain(asked)[1]
        near = Neighbours.learn(phi, Outcomes.binary(y[learn]), names=features)
        begun = time.process_time()
        found = [near.like(row) for row in own]
        sums["ms like"].append(1_000 * (time.process_time() - begun) / len(ask))
        rate = np.array([one.estimate[0] for one in found])
        true = np.array(
            [
                y[learn][np.argsort(((phi - row) ** 2).sum(axis=1), kind="stable")[: one.decisions]].mean()
                for row, one in zip(own, found, strict=True)
            ]
        )
        sums["bias"].append(100 * float((rate - true).mean()))
        sums["rms"].append(100 * float(np.sqrt(((rate - true) ** 2).mean())))
        size = np.array([one.decisions for one in found])
        sums["chance"].append(100 * float(np.sqrt((2 * true * (1 - true) / size).mean())))
        for title, p in (("Brier groups", rate), ("Brier true", true), ("Brier model", model.probability(asked))):
            sums[title].append(float(((p - y[ask]) ** 2).mean()))
        novelty = Novelty.learn(train, phi)
        rows = [asked.take([row]) for row in range(20)]
        for row in rows:
            model.explain(row)  # as in an answer, where the model has read the row before
        begun = time.process_time()
        for row in rows:
            novelty.of(row)
        sums["ms rare"].append(1_000 * (time.process_time() - begun) / len(rows))
        sums["rare"].append(100 * float(np.mean([one.rare for one in novelty.of(asked)])))
        wrong = planted(asked.take(np.flatnonzero(asked.frame[ROWS[name]].notna())), ROWS[name])
        sums["planted"].append(100 * float(np.mean([one.rare for one in novelty.of(wrong)])))
        if "os.time" in ends:
            _over_time(sums, ends.iloc[learn], phi=phi, own=own, features=features)
    return {key: float(np.mean(values)) for key, values in sums.items()}


def _over_time(
    sums: dict[str, list[float]],
    ends: pd.DataFrame,
    *,
    phi: np.ndarray,
    own: np.ndarray,
    features: list[str],
) -> None:
    """Add the difference of the one-year survival among like patients from that among the true neighbours.

    Args:
        ends: endpoints of the development patients.
        phi, own: contributions of the development patients, and of those asked.
    """
    days, event = (ends[one].to_numpy(dtype=np.float64) for one in ("os.time", "os.event"))
    known = np.isfinite(days) & np.isfinite(event) & (days > 0)
    outcomes = Outcomes.survival(days[known], event[known], horizons=[0.5 * YEAR, YEAR])
    near = Neighbours.learn(phi[known], outcomes, names=features)
    pairs = []
    for row in own[:100]:
        found = near.like(row)
        rows = np.argsort(((phi[known] - row) ** 2).sum(axis=1), kind="stable")[: found.decisions]
        if found.estimate[1] is not None:
            pairs.append((found.estimate[1], survival(days[known][rows], event[known][rows], YEAR)))
    ours, true = np.array(pairs).T
    sums["1-year bias"].append(100 * float((ours - true).mean()))
    sums["1-year rms"].append(100 * float(np.sqrt(((ours - true) ** 2).mean())))
    sums["1-year told"].append(100 * len(pairs) / min(len(own), 100))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--only", help=f"of {', '.join(ROWS)}")
    given = parser.parse_args()
    for name in given.only.split(",") if given.only else ROWS:
        for family, recipe in RECIPES.items():
            found = measure(name, recipe, given.splits)
            print(f"\n{name}, {family}, {given.splits} splits")
            print("  " + "  ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
