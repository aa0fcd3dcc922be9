"""Late against early fusion where modalities are missing: which family should answer by default.

    THERACAST_DATA=FOLDER python bench/fusion.py [--seeds N] [--repeats N] [--jobs N] [--only NAME ...]

Of every patient, in training and test alike, each modality is taken away at random, independently, with the probability at
the head of the column. Rows: `late` (a model a modality, weights for every set of modalities), `gated` (the same trained
together in PyTorch), a stack of the modalities' models with one set of weights, the stack of an elastic net and boosted
trees on all columns, these two alone, and the best single modality (chosen on the training patients; the rate of all where
a patient lacks it). Strengths of penalties are chosen on inner folds of the training patients.

Data: `transneo`, real patients, repeated 5-fold cross-validation; `synthetic`, the demonstration cohort, whose modalities
are independent causes; `shared`, invented patients whose five modalities show two common causes; of both 400 train and
2,000 others judge. AUC and log loss (not recalibrated) with standard errors over seeds or repeats of the whole
cross-validation. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from theracast_data.modality import Modality
from theracast_data.synthetic import generate
from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe, build_model
from theracast_models.folds import out_of_fold_log_odds, patient_folds
from theracast_models.late import PENALTIES, Late
from theracast_models.logodds import Floats
from theracast_models.outcomes import Binary
from theracast_models.presence import masked, present_modalities
from theracast_training.metrics import auc
from theracast_training.search import mean_loss
from theracast_training.study import read_study

MISSING = (0.0, 0.2, 0.4, 0.6)
LEARN, JUDGE = 400, 2000
DECAYS = (0.03, 0.1, 0.3)
FIRST = "late"


@dataclass(frozen=True)
class Cell:
    """One fit of everything: a data set, a seed, a share of missing modalities, and who trains and judges."""

    data: str
    repeat: int
    missing: float
    table: FeatureTable
    y: Floats
    train: NDArray[np.intp]
    test: NDArray[np.intp]


def scores(cell: Cell) -> tuple[Cell, dict[str, Floats]]:
    """Return the log-odds of the test patients by each model."""
    rng = np.random.default_rng([cell.repeat, round(100 * cell.missing)])
    holes = masked(cell.table, rng.random((len(cell.table), len(cell.table.modalities))) < cell.missing)
    learn, judge, y = holes.take(cell.train), holes.take(cell.test), cell.y[cell.train]
    late = Late(seed=cell.repeat).fit(learn, y)
    early = tuned([Recipe("elasticnet", {"c": c}) for c in PENALTIES], learn, y, seed=cell.repeat)
    gated = tuned([Recipe("gated", {"decay": decay}) for decay in DECAYS], learn, y, seed=cell.repeat)
    trees = Recipe("lightgbm")
    heard = [one for one in zip(late.modalities_, late.members_, strict=True) if one[1] is not None]
    by_modality = [Recipe("elasticnet", {"c": member.model.c}, modality) for modality, member in heard]
    fixed = Recipe("stack", {"members": by_modality})
    stack = Recipe("stack", {"members": [early, trees], "folds": 3})
    found = {"late": late.log_odds(judge), "best single modality": best_single(late, learn, judge)}
    for title, recipe in (
        ("gated", gated),
        ("stack of modalities, fixed weights", fixed),
        ("stack of elastic net and trees", stack),
        ("early elastic net", early),
        ("early LightGBM", trees),
    ):
        found[title] = build_model(recipe, cell.repeat).fit(learn, y).log_odds(judge)
    return cell, found


def tuned(recipes: Sequence[Recipe], table: FeatureTable, y: Floats, *, seed: int) -> Recipe:
    """Return the recipe of least out-of-fold log loss."""
    folds = patient_folds(table, y, folds=3, seed=seed)
    losses = [
        mean_loss(Binary(y, np.ones(len(y))), out_of_fold_log_odds(build_model(one, seed), table, y, folds))
        for one in recipes
    ]
    return recipes[int(np.argmin(losses))]


def best_single(late: Late, learn: FeatureTable, judge: FeatureTable) -> Floats:
    """Return the log-odds by the modality that separates the training patients best out of fold, counting who has it."""
    rule = late.fusion_
    worth = rule.gain**2 / np.diag(rule.spread) * present_modalities(learn).mean(axis=0)
    place = int(np.argmax(worth))
    member = late.members_[place]
    if member is None:
        return np.full(len(judge), rule.base)
    return np.where(present_modalities(judge)[:, place], member.log_odds(judge), rule.base)


def transneo(repeats: int) -> Iterator[Cell]:
    """Yield the folds of repeated cross-validation."""
    study = read_study(Path(__file__).parents[1] / "studies" / "transneo.yaml")
    cohort = read_cohort(study.inputs, study.endpoints, base=Path())
    table = build_features(cohort, resolve_section(study.features, cohort))
    y = cohort.endpoints["pcr"].to_numpy(dtype=float)
    known = np.flatnonzero(np.isfinite(y))
    table, y = table.take(known), y[known]
    for repeat in range(repeats):
        for missing in MISSING:
            for train, test in patient_folds(table, y, folds=5, seed=repeat):
                yield Cell("transneo", repeat, missing, table, y, train, test)


def synthetic(seeds: int) -> Iterator[Cell]:
    """Yield the demonstration cohort under several seeds."""
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder, data_folder(folder):
            generate(Path(folder), patients=4000, seed=100 + seed)
            study = read_study(Path(__file__).parents[1] / "studies" / "demo_table.yaml")
            cohort = read_cohort(study.inputs, study.endpoints, base=Path())
            table = build_features(cohort, resolve_section(study.features, cohort))
        y = cohort.endpoints["response"].to_numpy(dtype=float)
        inside = cohort.decisions["site"].isin(study.validation.development).to_numpy() & np.isfinite(y)
        rows = np.flatnonzero(inside)
        yield from splits("synthetic", seed, table.take(rows), y[rows])


def shared(seeds: int) -> Iterator[Cell]:
    """Yield patients whose modalities show two common causes, and a little of their own."""
    modalities: tuple[Modality, ...] = ("clinical", "lab", "genomic", "imaging", "transcriptomic")
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 9])
        n = LEARN + JUDGE
        cause = rng.normal(size=(n, 2))
        columns: dict[str, Floats] = {}
        catalogue = []
        for place, modality in enumerate(modalities):
            for number in range(6):
                load = 0.7 if number < 2 else 0.0
                name = f"{modality}.x{number}"
                columns[name] = load * cause[:, place % 2] + np.sqrt(1 - load**2) * rng.normal(size=n)
                catalogue.append(FeatureSpec(name, modality, "numeric", name, (name,)))
        own = 0.5 * columns["genomic.x3"] - 0.5 * columns["lab.x4"] + 0.4 * columns["imaging.x5"]
        y = (rng.random(n) < expit(1.1 * cause[:, 0] + 0.6 * cause[:, 1] + own - 0.9)).astype(float)
        decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": pd.NaT})
        yield from splits("shared", seed, FeatureTable(pd.DataFrame(columns), tuple(catalogue), decisions), y)


def splits(data: str, seed: int, table: FeatureTable, y: Floats) -> Iterator[Cell]:
    """Yield one cell per share of missing modalities."""
    order = np.random.default_rng([seed, 3]).permutation(len(y))
    for missing in MISSING:
        yield Cell(data, seed, missing, table, y, order[:LEARN], order[LEARN : LEARN + JUDGE])


class data_folder:  # noqa: N801 - a context, used like a function
    """THERACAST_DATA is another folder for a while."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = os.environ.get("THERACAST_DATA")
        os.environ["THERACAST_DATA"] = self.folder

    def __exit__(self, *error: object) -> None:
        if self.before is None:
            del os.environ["THERACAST_DATA"]
        else:
            os.environ["THERACAST_DATA"] = self.before


def judged(results: Sequence[tuple[Cell, dict[str, Floats]]]) -> pd.DataFrame:
    """Return AUC and log loss per data set, share, repeat and model; the folds of a repeat count as one."""
    rows = []
    for cell, found in results:
        y = cell.y[cell.test]
        for model, log_odds in found.items():
            loss = mean_loss(Binary(y, np.ones(len(y))), log_odds)
            rows.append((cell.data, model, cell.missing, cell.repeat, auc(y, expit(log_odds)), loss))
    frame = pd.DataFrame(rows, columns=["data", "model", "missing", "repeat", "auc", "loss"])
    return frame.groupby(["data", "model", "missing", "repeat"], sort=False).mean().reset_index()


def show(frame: pd.DataFrame) -> None:
    """Print a table per data set, and what won."""
    for data, part in frame.groupby("data", sort=False):
        repeats = part["repeat"].nunique()
        print(f"\n{data}: AUC (standard error), log loss (standard error); {repeats} repeats")
        print(f"{'modalities missing':36}" + "".join(f"{f'{100 * missing:.0f} %':>30}" for missing in MISSING))
        for model in part["model"].unique():
            line = f"{model:36}"
            for missing in MISSING:
                own = part[(part["model"] == model) & (part["missing"] == missing)]
                deviation = own[["auc", "loss"]].std() / np.sqrt(max(1, len(own)))
                cell = (
                    f"{own['auc'].mean():.3f} ({deviation['auc']:.3f}) "
                    f"{own['loss'].mean():.3f} ({deviation['loss']:.3f})"
                )
                line += f"{cell:>30}"
            print(line)
    ranks = frame.groupby(["data", "missing", "model"])[["auc", "loss"]].mean()
    over_all = ranks.groupby("model").mean().sort_values("loss")
    print("\nMean over data sets and shares of missing modalities")
    for model, row in over_all.iterrows():
        print(f"{model!s:36}AUC {row['auc']:.4f}   log loss {row['loss']:.4f}")
    print(f"\nLeast log loss: {over_all.index[0]}. Largest AUC: {over_all['auc'].idxmax()}.")
    paired_with_first(frame)


def paired_with_first(frame: pd.DataFrame) -> None:
    """Print how much worse than `late` each model is on the same patients."""
    print(f"\nDifference from {FIRST} on the same patients, over all data sets, shares and repeats (standard error)")
    wide = frame.set_index(["data", "missing", "repeat", "model"])[["auc", "loss"]].unstack("model")
    for model in frame["model"].unique():
        if model != FIRST:
            texts = []
            for measure in ("auc", "loss"):
                change = wide[measure][model] - wide[measure][FIRST]
                texts.append(f"{change.mean():+.4f} ({change.std() / np.sqrt(len(change)):.4f})")
            print(f"{model:36}AUC {texts[0]}   log loss {texts[1]}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=["transneo", "synthetic", "shared"])
    chosen = parser.parse_args()
    sources: dict[str, Callable[[], Iterator[Cell]]] = {
        "transneo": partial(transneo, chosen.repeats),
        "synthetic": partial(synthetic, chosen.seeds),
        "shared": partial(shared, chosen.seeds),
    }
    results = []
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for one in pool.map(scores, (cell for name in chosen.only for cell in sources[name]())):
            results.append(one)
            print(f"\r{len(results)} fits of all", end="", file=sys.stderr, flush=True)
    show(judged(results))


if __name__ == "__main__":
    main()
