"""How well each family ranks times to an event: overall survival of real patients, and synthetic ones whose truth is known.

    THERACAST_DATA=FOLDER python bench/survival_families.py [--trials N] [--only NAME ...]

Each family is tuned on three inner folds of each of five outer ones, as `theracast train` does it, and judged on the patients
left out: Harrell's C, mean of the folds, and seconds. Synthetic: 600 patients, 20 features, 4 of which matter, by lines, by
curves, or by products of two, which no additive model can follow. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd

from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.fitting import build_model
from theracast_training.search import cut_folds, trials_of, tune
from theracast_training.splits import make_folds
from theracast_training.study import read_study
from theracast_training.survival_evaluation import evaluate_survival
from theracast_training.target import Target, target_of

STUDIES = Path(__file__).resolve().parents[1] / "studies"
FAMILIES = ("elasticnet", "lightgbm", "neural")


def real(name: str, endpoint: str) -> tuple[FeatureTable, Target]:
    """Return the development decisions of a study with a known follow-up."""
    study = read_study(STUDIES / f"{name}.yaml")
    wanted = next(one for one in study.endpoints if one.name == endpoint)
    cohort = read_cohort(study.inputs, [wanted], base=STUDIES)
    developing = cohort.decisions["site"].isin(study.validation.development or cohort.sites).to_numpy()
    cohort = cohort.take(np.flatnonzero(developing))
    table = build_features(cohort, resolve_section(study.features, cohort))
    target = target_of(cohort, wanted)
    return table.take(target.known), target.take(target.known)


def synthetic(truth: str, n: int = 600, p: int = 20) -> tuple[FeatureTable, Target]:
    """Return patients whose log-hazard is known."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(n, p))
    score = {
        "lines": 0.6 * x[:, 0] - 0.4 * x[:, 1] + 0.3 * x[:, 2] + 0.3 * x[:, 3],
        "curves": 0.7 * (x[:, 0] ** 2 - 1) + 0.9 * np.sin(2 * x[:, 1]) + 0.5 * np.abs(x[:, 2]) + 0.4 * x[:, 3],
        "products": 0.9 * x[:, 0] * x[:, 1] + 0.6 * x[:, 2] * (x[:, 3] > 0),
    }[truth]
    event_time, censored = 400 * rng.exponential(size=n) * np.exp(-score), rng.uniform(100, 1500, n)
    catalogue = tuple(FeatureSpec(f"lab.x{j}", "lab", "numeric", f"X{j}", (f"x{j}",)) for j in range(p))
    decisions = pd.DataFrame({"subject_id": np.arange(n).astype(str), "site": "A", "index_time": pd.NaT})
    frame = pd.DataFrame(x, columns=[one.name for one in catalogue])
    times, events = np.minimum(event_time, censored), (event_time <= censored).astype(float)
    target = Target(np.full(n, np.nan), times, events, (365.25,), kind="time_to_event")
    return FeatureTable(frame, catalogue, decisions.assign(calendar=np.nan)), target


def judged(family: str, table: FeatureTable, target: Target, *, trials: int) -> Iterator[float]:
    """Yield C of the patients left out of each outer fold."""
    outer = make_folds(table.decisions, target.strata, by="patient", folds=5, seed=1)
    for number, (learn, test) in enumerate(outer):
        part, known = table.take(learn), target.take(learn)
        inner = make_folds(part.decisions, known.strata, by="patient", folds=3, seed=number)
        with tempfile.TemporaryDirectory() as scratch:
            found = tune(
                family,
                cut_folds(part, known, inner),
                trials=trials_of(family, trials),
                seed=number,
                journal=Path(scratch) / "journal",
            )
        score = build_model(found.recipe, 0).fit(part, known.outcome()).log_odds(table.take(test))
        left_out = target.take(test)
        assert left_out.time is not None
        assert left_out.event is not None
        risk = np.full((len(test), 1), 0.5)
        figures = evaluate_survival(
            left_out.time, left_out.event, score, horizons=[365.25], probability=risk, bootstrap=0
        )
        yield figures["c_harrell"]


def main() -> None:
    """Print the table."""
    cohorts = {
        "icb os": lambda: real("icb", "os"),
        "icb pfs": lambda: real("icb", "pfs"),
        **{f"synthetic {truth}": (lambda truth=truth: synthetic(truth)) for truth in ("lines", "curves", "products")},
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=list(cohorts), choices=list(cohorts))
    asked = parser.parse_args()
    print(f"{'cohort':<20} {'patients':>8} {'events':>7} {'family':<12} {'C':>6} {'sd':>6} {'seconds':>8}")
    for cohort in asked.only:
        table, target = cohorts[cohort]()
        assert target.event is not None
        for family in FAMILIES:
            started = time.perf_counter()
            found = list(judged(family, table, target, trials=asked.trials))
            seconds = time.perf_counter() - started
            row = f"{cohort:<20} {len(table):>8} {int(target.event.sum()):>7} {family:<12} {np.mean(found):>6.3f}"
            print(f"{row} {np.std(found, ddof=1):>6.3f} {seconds:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
