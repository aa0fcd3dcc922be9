"""How often conformal answers hold the truth, on patients of real cohorts who were never seen.

    THERACAST_DATA=FOLDER python bench/conformal.py [--splits N] [--only NAME,...]

Each split fits a model to two thirds of the patients, learns thresholds from their out-of-fold scores, and asks the other
third: at 90 %, for all and per group (site, receptor, arm). Three kinds of thresholds: of all patients, one per group
(`Mondrian`), and one per outcome. Beside them cross-conformal prediction (Vovk 2015), which asks the models of all folds.
The coverage of a time is weighted by the inverse probability of being uncensored among the patients asked. A standard error
is the standard deviation over splits by the root of their number; splits share patients, so it is a little small.
Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, StratifiedShuffleSplit

from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.calibration import AffineCalibration
from theracast_models.conformal import BinarySets, EventTimes, Intervals
from theracast_models.families import Recipe, build_model
from theracast_models.fitting import fit_calibrated, out_of_fold, patient_folds
from theracast_models.folds import patient_numbers
from theracast_models.logodds import expit
from theracast_models.preprocess import LinearInputs
from theracast_training.study import read_study
from theracast_training.target import Target

STUDIES = Path(__file__).resolve().parents[1] / "studies"
RECIPE = Recipe("elasticnet", {"c": 0.1, "l1_ratio": 0.5})
HORIZONS = {"oak": (91.0, 183.0, 274.0, 365.0, 456.0, 548.0), "actg175": (183.0, 365.0, 548.0, 730.0, 913.0)}
Found = dict[str, list[float]]


def cohort(name: str) -> tuple[FeatureTable, np.ndarray, pd.DataFrame, np.ndarray]:
    """Return features, outcome, all endpoints, and the group of each decision."""
    study = read_study(STUDIES / f"{name}.yaml")
    read = read_cohort(study.inputs, study.endpoints, base=STUDIES)
    y = read.endpoints[study.endpoint.name].to_numpy(dtype=np.float64)
    read = read.take(np.flatnonzero(np.isfinite(y)))
    table = build_features(read, resolve_section(study.features, read))
    by = {"ispy2_baseline": "hr_positive", "oak": "arm", "transneo": "er_positive"}.get(name)
    groups = read.decisions["site"] if by is None else by + "=" + read.values[by].astype(str)
    return table, y[np.isfinite(y)], read.endpoints, groups.astype(str).to_numpy(dtype=object)


def actg175() -> tuple[FeatureTable, np.ndarray, pd.DataFrame, np.ndarray]:
    """Return the trial ACTG175: CD4 count at week 20, time to its main event, treatment arm."""
    raw = pd.read_csv(Path(os.environ["THERACAST_DATA"]) / "rct" / "actg175.txt", sep=r"\s+", na_values="NA")
    names = ["age", "wtkg", "hemo", "homo", "drugs", "karnof", "oprior", "preanti", "race", "gender", "str2", "symptom"]
    names += ["cd40", "cd80", "arms"]
    catalogue = tuple(
        FeatureSpec(
            name=f"clin.{one}",
            modality="clinical",
            kind="categorical" if one == "arms" else "numeric",
            label=one,
            columns=(one,),
            transform="log1p" if one == "preanti" else "none",
        )
        for one in names
    )
    frame = raw[names].astype(float).set_axis([spec.name for spec in catalogue], axis=1)
    frame["clin.arms"] = raw["arms"].astype(str).astype("str")
    decisions = pd.DataFrame({"subject_id": raw["pidnum"].astype(str), "site": "actg175", "index_time": pd.NaT})
    ends = pd.DataFrame({"os.time": raw["days"].astype(float), "os.event": raw["cens"].astype(float)})
    arms = ("arm=" + raw["arms"].astype(str)).to_numpy(dtype=object)
    return FeatureTable(frame, catalogue, decisions), raw["cd420"].to_numpy(dtype=np.float64), ends, arms


def splits(strata: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions to learn from and to ask, the strata spread evenly."""
    yield from StratifiedShuffleSplit(count, test_size=1 / 3, random_state=0).split(strata[:, None], strata)


def note(found: Found, title: str, held: np.ndarray, groups: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Keep the coverage of one split, for all and per group of at least ten."""
    weight = np.ones(len(held)) if weight is None else weight
    found[f"{title}|all"].append(float(np.average(held, weights=weight)))
    for group in sorted(set(groups)):
        rows = groups == group
        if rows.sum() >= 10 and weight[rows].sum() > 0:
            found[f"{title}|{group}"].append(float(np.average(held[rows], weights=weight[rows])))


def response(name: str, count: int) -> Found:
    """Return the coverage of a binary outcome over splits."""
    table, y, _, groups = cohort(name)
    found: Found = defaultdict(list)
    for number, (learn, ask) in enumerate(splits(y, count)):
        train, truth, asked = table.take(learn), y[learn], table.take(ask)
        folds = patient_folds(train, truth, folds=5, seed=number)
        fitted = fit_calibrated(RECIPE, train, truth, folds=folds, replicates=0, seed=number)
        honest, by_fold, of_fold = (
            np.empty(len(learn)),
            np.empty((len(folds), len(ask))),
            np.empty(len(learn), dtype=int),
        )
        for fold, (rest, test) in enumerate(folds):
            model = build_model(RECIPE, number).fit(train.take(rest), truth[rest])
            honest[test], by_fold[fold], of_fold[test] = model.log_odds(train.take(test)), model.log_odds(asked), fold
        line = AffineCalibration.fit(honest, truth)
        p, q, own = expit(line.apply(honest)), fitted.probability(asked), groups[ask]
        told: dict[str, Any] = {"patients": patient_numbers(train.decisions), "source": "out_of_fold"}
        row, outcome = np.arange(len(ask)), y[ask].astype(int)
        for title, sets in (
            ("of all", BinarySets.learn(p, truth, **told).sets(q)),
            ("Mondrian", BinarySets.learn(p, truth, groups=groups[learn], **told).sets(q, groups=own)),
            ("by outcome", BinarySets.learn(p, truth, by_outcome=True, **told).sets(q)),
            ("cross-conformal", cross_conformal(p, truth, of_fold, expit(line.apply(by_fold)))),
        ):
            note(found, title, sets[row, outcome], own)
            for one in (0, 1):
                found[f"{title}|outcome={one}"].append(float(sets[outcome == one, one].mean()))
            for word, size in (("no", (1, 0)), ("yes", (0, 1)), ("both", (1, 1)), ("none", (0, 0))):
                found[f"{title}#{word}"].append(float((sets == size).all(axis=1).mean()))
    return found


def transfer(count: int) -> Found:
    """Return the coverage at sites that took no part, over samples of two thirds of the one that did."""
    table, y, _, sites = cohort("icb")
    found: Found = defaultdict(list)
    home, away = np.flatnonzero(sites == "Chowell_train"), np.flatnonzero(sites != "Chowell_train")
    for number in range(count):
        learn = np.random.default_rng(number).permutation(home)[: 2 * len(home) // 3]
        train, truth, asked, outcome = table.take(learn), y[learn], table.take(away), y[away].astype(int)
        folds = patient_folds(train, truth, folds=5, seed=number)
        honest = out_of_fold(RECIPE, train, truth, folds, seed=number)
        p = expit(AffineCalibration.fit(honest, truth).apply(honest))
        q = fit_calibrated(RECIPE, train, truth, folds=folds, replicates=0, seed=number).probability(asked)
        for title, by_outcome in (("of all", False), ("by outcome", True)):
            sets = BinarySets.learn(p, truth, by_outcome=by_outcome, source="out_of_fold").sets(q)
            note(found, title, sets[np.arange(len(away)), outcome], sites[away])
    return found


def cross_conformal(p: np.ndarray, y: np.ndarray, of_fold: np.ndarray, by_fold: np.ndarray) -> np.ndarray:
    """Return the 90 % sets of cross-conformal prediction: each score against that of the fold's own model (Vovk 2015)."""
    score = np.where(y > 0, 1 - p, p)
    inside = []
    for asked in (by_fold, 1 - by_fold):  # of no, of yes
        above = sum((score[of_fold == fold][:, None] >= asked[fold]).sum(axis=0) for fold in range(len(asked)))
        inside.append((1 + above) / (len(p) + 1) > 0.1)
    return np.column_stack(inside)


def number(count: int) -> Found:
    """Return the coverage of the CD4 count at week 20 over splits."""
    table, y, _, groups = actg175()
    found: Found = defaultdict(list)
    for learn, ask in splits(groups, count):
        z = LinearInputs.learn(table.take(learn)).design(table)
        folds = list(KFold(5, shuffle=True, random_state=0).split(learn))

        def over_folds(target: np.ndarray, z: np.ndarray = z[learn], folds: Any = folds) -> np.ndarray:
            honest = np.empty(len(target))
            for rest, test in folds:
                honest[test] = Ridge(10).fit(z[rest], target[rest]).predict(z[test])
            return honest

        honest, answer = over_folds(y[learn]), Ridge(10).fit(z[learn], y[learn]).predict(z[ask])
        error = np.log(np.abs(y[learn] - honest) + 1)
        spread, asked_spread = np.exp(over_folds(error)), np.exp(Ridge(10).fit(z[learn], error).predict(z[ask]))
        plain = Intervals.learn(honest, y[learn], source="out_of_fold")
        by_group = Intervals.learn(honest, y[learn], source="out_of_fold", groups=groups[learn])
        scaled = Intervals.learn(honest, y[learn], spread=spread, source="out_of_fold")
        for title, ends in (
            ("absolute", plain.sets(answer)),
            ("absolute, Mondrian", by_group.sets(answer, groups=groups[ask])),
            ("normalised", scaled.sets(answer, spread=asked_spread)),
        ):
            held = (ends[:, 0] <= y[ask]) & (y[ask] <= ends[:, 1])
            note(found, title, held, groups[ask])
            low = np.argsort(np.argsort(answer)) // (len(ask) // 3 + 1)
            note(found, title, held, np.array([f"predicted third {one + 1}" for one in low], dtype=object))
            found[f"{title}#mean width"].append(float(np.ptp(ends, axis=1).mean()))
    return found


def event_time(name: str, count: int) -> Found:
    """Return how often the event does not come before its bound, and sets of 'event by the last horizon'."""
    table, _, ends, groups = actg175() if name == "actg175" else cohort(name)
    time, event = ends["os.time"].to_numpy(dtype=np.float64), ends["os.event"].to_numpy(dtype=np.float64)
    horizons = HORIZONS[name]
    found: Found = defaultdict(list)
    y = np.where(event * (time <= horizons[-1]) == 1, 1.0, np.where(time >= horizons[-1], 0.0, np.nan))
    target = Target(y, time, event, (horizons[-1],))
    for learn, ask in splits(event, count):
        z = LinearInputs.learn(table.take(learn)).design(table)
        train = (z[learn], time[learn], event[learn])
        honest = np.empty((len(learn), len(horizons)))
        for rest, test in KFold(5, shuffle=True, random_state=0).split(learn):
            honest[test] = cox_curve(*(part[rest] for part in train), horizons)(z[learn][test])
        asked = cox_curve(*train, horizons)(z[ask])
        weight, judged = target.take(learn).weight(), target.take(ask).weight()
        for title, own in (("of all", {}), ("Mondrian", {"groups": groups[learn]})):
            also = {"groups": groups[ask]} if own else {}
            times = EventTimes.learn(
                honest, time[learn], event[learn], horizons=horizons, weight=weight, source="out_of_fold", **own
            )
            bound = times.sets(asked, **also)
            note(found, f"bound {title}", time[ask] >= bound, groups[ask], judged)
            found[f"bound {title}#median bound, days"].append(float(np.median(bound)))
            sets = BinarySets.learn(honest[:, -1], y[learn], weight=weight, source="out_of_fold", **own)
            inside = sets.sets(asked[:, -1], **also)
            held = np.where(y[ask] > 0, inside[:, 1], inside[:, 0]).astype(bool)
            note(found, f"by horizon {title}", held, groups[ask], judged)
            found[f"by horizon {title}#size"].append(float(inside.sum(axis=1).mean()))
    return found


def cox_curve(
    z: np.ndarray, time: np.ndarray, event: np.ndarray, horizons: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the probabilities by each horizon of a Cox model with a ridge penalty of 10 (Breslow, Newton's method)."""
    order = np.argsort(-time, kind="stable")
    z, time, event = z[order], time[order], event[order]
    last = np.searchsorted(-time, -time, side="right") - 1  # tied times are at risk together
    beta = np.zeros(z.shape[1])
    for _ in range(8):
        risk = np.exp(z @ beta)
        below = np.cumsum(risk)[last]
        mean = np.cumsum(risk[:, None] * z, axis=0)[last] / below[:, None]
        share = event / below
        above = np.cumsum(share[::-1])[::-1]  # hazard summed over the events at which the row is at risk
        hazard = above[np.searchsorted(-time, -time, side="left")]
        hessian = (z * (risk * hazard)[:, None]).T @ z - (mean * event[:, None]).T @ mean
        gradient = z.T @ event - mean.T @ event - 10 * beta
        beta = beta + np.linalg.solve(hessian + 10 * np.eye(len(beta)), gradient)
    base = np.array([share[time <= horizon].sum() for horizon in horizons])
    return lambda asked: 1 - np.exp(-np.outer(np.exp(asked @ beta), base))


def tell(title: str, found: Found) -> None:
    """Print the figures of one cohort."""
    print(f"\n{title}")
    for kind in dict.fromkeys(key.split("|")[0] for key in found if "|" in key):
        sizes = {key.split("#")[1]: values for key, values in found.items() if key.startswith(f"{kind}#")}
        print(f"  {kind:22}" + "  ".join(f"{key} {np.mean(values):.3g}" for key, values in sizes.items()))
        for key, values in found.items():
            if key.startswith(f"{kind}|"):
                mean, sd = 100 * np.mean(values), 100 * np.std(values)
                error = sd / np.sqrt(len(values))
                print(f"    {key.split('|')[1]:34}{mean:7.1f} % +- {error:.1f}   sd of one split {sd:.1f}")


ROWS: dict[str, tuple[str, Callable[[int], Found]]] = {
    "icb": ("ICB, response, five sites", lambda count: response("icb", count)),
    "icb-transfer": ("ICB, response, developed at Chowell_train alone, asked elsewhere", transfer),
    "ispy2": ("I-SPY2, pCR", lambda count: response("ispy2_baseline", count)),
    "oak": ("OAK, response", lambda count: response("oak", count)),
    "transneo": ("TransNEO, pCR", lambda count: response("transneo", count)),
    "actg175": ("ACTG175, CD4 count at week 20", number),
    "oak-os": ("OAK, overall survival (bound; dead by 18 months)", lambda count: event_time("oak", count)),
    "actg175-event": ("ACTG175, event (bound; by 30 months)", lambda count: event_time("actg175", count)),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--only", help=f"of {', '.join(ROWS)}")
    given = parser.parse_args()
    print(f"coverage of 90 % answers over {given.splits} splits, on the third of the patients not learned from")
    for row in given.only.split(",") if given.only else ROWS:
        tell(ROWS[row][0], ROWS[row][1](given.splits))


if __name__ == "__main__":
    main()
