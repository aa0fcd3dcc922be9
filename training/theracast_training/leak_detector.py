"""Whether a training knows what it must not: permuted outcomes, features too good to be true, judgement resting on one.

Three questions, each with an answer as plain JSON. Does the whole procedure find something where there is nothing
(`permuted_outcomes`)? Does one feature alone tell the outcome (`screen_features`)? Does the model rest on one feature
(`concentration`)? Whether a fold learns from the decisions that it judges is asked by `fold_isolation`.

Source: Kapoor & Narayanan, Patterns 2023;4:100804 (kinds of leakage); Ojala & Garriga, J Mach Learn Res 2010;11:1833-1863
(permuted labels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from theracast_data.errors import StudyError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.folds import patient_numbers, rarest_outcome, stratified_folds
from theracast_training import metrics
from theracast_training.develop import Task, nested_tasks, run_task
from theracast_training.refits import Floats, Rows, rows_by_patient
from theracast_training.resampling import number, percentile_interval, resample_counts

Run = Callable[[Rows, int], Sequence[tuple[Rows, Floats]]]
"""From an order of the outcomes and its number to (judged rows, probabilities) of each outer fold."""

LIMIT = 0.9
"""AUC from which on a single feature is suspected; no single measurement in oncology is known to tell response so well."""
SHARE = 0.6
LEAST_FEATURES = 5
BINS = 10
FOLDS = 5
PRIOR = 5.0
PERMUTATIONS = 20
BLOCK_CELLS = 4_000_000
SHOWN = 20


def permuted_outcomes(run: Run, y: Floats, *, patients: Rows, times: int = 20, seed: int = 0) -> dict[str, Any]:
    """Return the AUC of a whole procedure on outcomes dealt out at random, where it must be 0.5, as plain JSON.

    `auc` is the mean over the dealings of the mean over outer folds (each fold by itself, so that its prevalence says
    nothing), with the 95 % t interval; `leak` is whether that lies above 0.5: something of the outcome reaches the judged
    decisions in another way than by the features. A patient's outcomes stay together.

    Args:
        run: the procedure; see `procedure_run`.
        y: (n,) 0/1, all known.
        patients: (n,) a number for each decision's patient.
        times: dealings, at least 3; each costs one run of the procedure.
        seed: of the dealings.
    """
    if times < 3:
        raise ValueError("fewer than 3 dealings of the outcomes give no interval")
    rng = np.random.default_rng(seed)
    members = rows_by_patient(patients)
    found = []
    for place in range(times):
        order = permuted_order(members, rng)
        dealt = y[order]
        areas, pairs = [], []
        for rows, probability in run(order, place):
            events = float(dealt[rows].sum())
            if 0 < events < len(rows):
                areas.append(metrics.auc(dealt[rows], probability))
                pairs.append(events * (len(rows) - events))
        if areas:
            found.append(float(np.average(areas, weights=pairs)))
    values = np.array(found)
    result: dict[str, Any] = {"times": len(values), "aucs": found, "auc": None, "auc_low": None, "auc_high": None}
    if len(values) < 3:
        return result | {"leak": None, "sentence": "Too few dealings could be judged to tell."}
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    result |= {"auc": mean, "auc_low": mean - half, "auc_high": mean + half, "leak": mean - half > 0.5}
    interval = f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"
    told = (
        f"On outcomes dealt out at random the procedure reaches an AUC of {interval}, where there is nothing to be found: "
        "the judged decisions leak into what is learnt. Look for a step that sees all decisions before they are split."
        if result["leak"]
        else f"On outcomes dealt out at random the AUC is {interval}, as it must be: nothing leaks into the judged decisions."
    )
    return result | {"sentence": told}


def procedure_run(task: Task, *, scratch: Path, trials: int = 3, families: tuple[str, ...] | None = None) -> Run:
    """Return the nested procedure of a task, on a small budget, for `permuted_outcomes`.

    Args:
        task: develops on all development decisions; see `development.final_task`.
        scratch: an empty folder for the journals of the searches, which are of no use afterwards.
        trials: a family.
        families: what is tried; by default those of the task.

    Raises:
        StudyError: the study has no outer folds.
    """
    if task.validation.scheme.outer < 2:
        raise StudyError("permuted outcomes are judged in outer folds: set validation.scheme.outer to 2 or more")

    def run(order: Rows, place: int) -> list[tuple[Rows, Floats]]:
        dealt = replace(
            task,
            key=f"permuted-{place}",
            target=task.target.take(order),
            trials=trials,
            families=task.families if families is None else families,
            journals=scratch / f"permuted-{place}",
        )
        results = [run_task(one) for one in nested_tasks(dealt)]
        return [(one.judged, one.judgement.answers[:, 0]) for one in results if one.judgement is not None]

    return run


def permuted_order(members: list[Rows], rng: np.random.Generator) -> Rows:
    """Return (n,) the row from which each row takes its outcome: patients exchange their decisions' outcomes in blocks.

    Where patients have different numbers of decisions, a block may continue in the next patient.
    """
    there = np.concatenate(members)
    order = np.empty(len(there), dtype=np.intp)
    order[there] = np.concatenate([members[one] for one in rng.permutation(len(members))])
    return order


def screen_features(
    table: FeatureTable, y: Floats, *, limit: float = LIMIT, seed: int = 0, bootstrap: int = 200
) -> dict[str, Any]:
    """Return what each feature tells of the outcome by itself, and which tell too much, as plain JSON.

    A feature is judged by the AUC of its value (either direction, where it is known) and by that of its groups: tenths or
    categories, with `not measured` as one more, each scored by the events among other patients. So a value that is only
    measured in responders is found too. `features` are the 20 best with `auc`, its interval by patients, and `by`, which
    of the two it was; `suspects` those of AUC `limit` or more that beat `by_chance`, the largest AUC of any feature in
    20 dealings of the outcomes, each with a sentence.

    Args:
        table: the development decisions whose outcome is known.
        y: (n,) 0/1.
        limit: AUC from which on a feature is suspected.
        seed: of folds, dealings and resamples.
        bootstrap: resamples.
    """
    specs = [spec for spec in table.catalogue if spec.role != "picture"]
    result: dict[str, Any] = {"n": len(y), "limit": limit, "by_chance": None, "features": [], "suspects": []}
    patients = patient_numbers(table.decisions)
    if not specs or rarest_outcome(patients, y) < FOLDS:
        return result | {"notes": [f"needs features, and {FOLDS} patients of either outcome"]}
    folds = stratified_folds(patients, y, folds=FOLDS, seed=seed)
    rng = np.random.default_rng(seed)
    members = rows_by_patient(patients)
    dealt = [y[permuted_order(members, rng)] for _ in range(PERMUTATIONS)]
    found: list[dict[str, Any]] = []
    chance = np.zeros(PERMUTATIONS)
    block = max(1, BLOCK_CELLS // max(len(y), 1))
    for start in range(0, len(specs), block):
        own = specs[start : start + block]
        codes, values = _coded(table, own)
        ranks = _ranks(values)
        for spec, by_value, by_group, known in zip(
            own, _rank_auc(ranks, y), _group_auc(codes, y, folds), np.isfinite(values).sum(axis=0), strict=True
        ):
            grouped = spec.kind == "categorical" or by_group > by_value
            best = float(by_group if grouped else by_value)
            found.append({"spec": spec, "auc": best, "by": "groups" if grouped else "value", "known": known})
        for place, outcome in enumerate(dealt):
            highest = max(_rank_auc(ranks, outcome).max(), _group_auc(codes, outcome, folds).max())
            chance[place] = max(chance[place], highest)
    by_chance = float(chance.max())
    found.sort(key=lambda one: -one["auc"])
    rows = [_told(one, table, y, patients, folds, seed=seed, bootstrap=bootstrap) for one in found[:SHOWN]]
    suspects = [row for row in rows if row["auc"] >= limit and row["auc"] > by_chance]
    for row in suspects:
        row["sentence"] = (
            f"{row['label']} ({row['feature']}) alone gives an AUC of {row['auc']:.2f}"
            f"{' by whether and in which group it was measured' if row['by'] == 'groups' else ''}: ask whether it was known "
            "at the decision, or follows from the outcome."
        )
    return result | {"by_chance": by_chance, "features": rows, "suspects": suspects, "notes": []}


def concentration(phi: Floats, catalogue: Sequence[FeatureSpec], *, share: float = SHARE) -> dict[str, Any]:
    """Return how much of what a model says rests on single features, as plain JSON.

    `features` are the ten with the largest share of the mean absolute contributions; `effective` is the number of equally
    important features that would be as spread out (exponential of the entropy); `suspect` is True where there are at least
    five features and one of them has `share` or more.

    Args:
        phi: (n, p) contributions in log-odds.
        catalogue: p specs.
        share: share from which on a feature is suspected.
    """
    size = np.abs(phi).mean(axis=0) if len(phi) else np.zeros(len(catalogue))
    total = float(size.sum())
    if not total > 0:
        return {"features": [], "effective": None, "suspect": False, "sentence": None}
    parts = size / total
    order = np.argsort(-parts, kind="stable")
    spread = parts[parts > 0]
    first = catalogue[int(order[0])]
    suspect = bool(len(catalogue) >= LEAST_FEATURES and parts[order[0]] >= share)
    return {
        "features": [
            {"feature": catalogue[int(one)].name, "label": catalogue[int(one)].label, "share": float(parts[one])}
            for one in order[:10]
        ],
        "effective": float(np.exp(-(spread * np.log(spread)).sum())),
        "suspect": suspect,
        "sentence": f"{100 * parts[order[0]]:.0f} % of what the model says rests on {first.label} ({first.name}) alone: ask "
        "whether it was known at the decision."
        if suspect
        else None,
    }


def _coded(table: FeatureTable, specs: Sequence[FeatureSpec]) -> tuple[NDArray[np.intp], Floats]:
    """Return groups (n, p), 0 where missing, and values (n, p), NaN for categories, which have no order."""
    codes = np.zeros((len(table), len(specs)), dtype=np.intp)
    values = np.full((len(table), len(specs)), np.nan)
    for place, spec in enumerate(specs):
        column = table.frame[spec.name]
        if spec.kind == "categorical":
            codes[:, place] = pd.factorize(column, sort=True)[0] + 1
            continue
        number_ = column.to_numpy(dtype=np.float64, na_value=np.nan)
        known = np.isfinite(number_)
        if known.any():
            edges = np.unique(np.quantile(number_[known], np.linspace(0, 1, BINS + 1)[1:-1]))
            codes[known, place] = np.searchsorted(edges, number_[known], side="right") + 1
        values[:, place] = np.where(known, number_, np.nan)
    return codes, values


def _ranks(values: Floats) -> Floats:
    """Return ranks among the known values of each column, 0 where missing."""
    ranks = np.zeros_like(values)
    for place in range(values.shape[1]):
        known = np.isfinite(values[:, place])
        ranks[known, place] = rankdata(values[known, place])
    return ranks


def _rank_auc(ranks: Floats, y: Floats) -> Floats:
    """Return (p,) AUC of each column in the better direction, over its known values; 0.5 where one outcome alone is known."""
    known = ranks > 0
    events, others = y @ known, (1 - y) @ known
    pairs = events * others
    above = y @ ranks - events * (events + 1) / 2
    area: Floats = np.divide(above, pairs, out=np.full(ranks.shape[1], 0.5), where=pairs > 0)
    return np.maximum(area, 1 - area)


def _group_auc(codes: NDArray[np.intp], y: Floats, folds: Sequence[tuple[Rows, Rows]]) -> Floats:
    """Return (p,) AUC of each column's groups, scored by the smoothed rate of events among the other folds' decisions."""
    scores = _group_scores(codes, y, folds)
    ranks = rankdata(scores, axis=0)
    events = y.sum()
    return np.asarray((y @ ranks - events * (events + 1) / 2) / (events * (len(y) - events)))


def _group_scores(codes: NDArray[np.intp], y: Floats, folds: Sequence[tuple[Rows, Rows]]) -> Floats:
    width = int(codes.max()) + 1
    places = codes + width * np.arange(codes.shape[1])
    scores = np.zeros(codes.shape)
    for train, test in folds:
        size = width * codes.shape[1]
        seen = np.bincount(places[train].ravel(), minlength=size)
        events = np.bincount(places[train].ravel(), np.repeat(y[train], codes.shape[1]), minlength=size)
        rate = float(y[train].mean())
        scores[test] = ((events + PRIOR * rate) / (seen + PRIOR) - rate)[places[test]]
    return scores


def _told(
    one: dict[str, Any],
    table: FeatureTable,
    y: Floats,
    patients: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    *,
    seed: int,
    bootstrap: int,
) -> dict[str, Any]:
    """Return the row of a feature with the interval of its AUC by patients."""
    spec: FeatureSpec = one["spec"]
    codes, values = _coded(table, [spec])
    score = values[:, 0] if one["by"] == "value" else _group_scores(codes, y, folds)[:, 0]
    known = np.isfinite(score)
    upright = score if metrics.auc_each(y[known], score[known], np.ones((1, int(known.sum()))))[0] >= 0.5 else -score
    drawn = [
        metrics.auc_each(y[known], upright[known], counts[:, known])
        for counts in resample_counts(len(y), resamples=bootstrap, seed=seed, group=patients)
    ]
    low, high = percentile_interval(np.concatenate(drawn)) if drawn else (None, None)
    return {
        "feature": spec.name,
        "label": spec.label,
        "modality": spec.modality,
        "by": one["by"],
        "known": int(one["known"]) if spec.kind != "categorical" else int((codes > 0).sum()),
        "auc": number(one["auc"]),
        "auc_low": low,
        "auc_high": high,
        "sentence": None,
    }
