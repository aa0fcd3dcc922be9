"""Proof that what judges does not teach: the judged decisions are poisoned, and nothing that was learnt may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from theracast_features.specs import FeatureTable
from theracast_training.refits import Floats, Rows

Judge = Callable[[FeatureTable, Floats, Rows, Rows], Floats]
"""From all decisions, their outcomes, the rows to learn from and the rows to judge to (n_judged,) scores."""

NEVER_SEEN = "poisoned level"


def poisoned(table: FeatureTable, rows: Rows, rng: np.random.Generator) -> FeatureTable:
    """Return the table with every cell of these rows changed: huge values, levels never seen, holes, other scanners.

    Patients, sites and dates stay, by which decisions are split; pictures stay, which are files.
    """
    frame, decisions = table.frame.copy(), table.decisions.copy()
    for spec in table.catalogue:
        if spec.role == "picture":
            continue
        hole = rng.random(len(rows)) < 0.4
        if spec.kind == "categorical":
            column = frame[spec.name].to_numpy(dtype=object).copy()
            column[rows] = [None if empty else NEVER_SEEN for empty in hole]
            frame[spec.name] = pd.array(column.tolist(), dtype="str")
        else:
            numbers = frame[spec.name].to_numpy(dtype=np.float64, na_value=np.nan).copy()
            numbers[rows] = np.where(hole, np.nan, 10.0 ** rng.uniform(3, 9, len(rows)))
            frame[spec.name] = numbers
    for batch in {spec.batch for spec in table.catalogue if spec.batch is not None}:
        scanner = decisions[batch].to_numpy(dtype=object).copy()
        scanner[rows] = rng.choice(np.array(["poisoned scanner", *map(str, scanner)], dtype=object), len(rows))
        decisions[batch] = pd.array(scanner.tolist(), dtype="str")
    return replace(table, frame=frame, decisions=decisions)


def fold_isolation(
    judge: Judge, table: FeatureTable, y: Floats, *, train: Rows, test: Rows, times: int = 3, seed: int = 0
) -> dict[str, Any]:
    """Return whether a procedure's scores of judged decisions depend on other judged decisions, as plain JSON.

    Half of the judged rows are poisoned, their outcomes turned round; the scores of the other half must be the same to the
    last bit, or something was estimated from rows that the procedure had no right to. `isolated`, `largest_change`, and a
    `sentence`.

    Args:
        judge: the procedure.
        table, y: all decisions and their outcomes.
        train, test: rows to learn from and rows to judge.
        times: different halves and poisons.
        seed: of both.
    """
    rng = np.random.default_rng(seed)
    clean = judge(table, y, train, test)
    largest = 0.0
    for _ in range(times):
        victims = rng.permutation(len(test))[: max(1, len(test) // 2)]
        rows = test[victims]
        outcome = y.copy()
        outcome[rows] = 1 - outcome[rows]
        after = judge(poisoned(table, rows, rng), outcome, train, test)
        others = np.setdiff1d(np.arange(len(test)), victims)
        gap = np.where(np.isnan(after[others]) & np.isnan(clean[others]), 0.0, np.abs(after[others] - clean[others]))
        largest = max(largest, float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0)))
    isolated = largest == 0.0
    return {
        "isolated": isolated,
        "largest_change": largest if np.isfinite(largest) else None,
        "times": times,
        "sentence": "What is learnt does not depend on the decisions that judge it."
        if isolated
        else "What is learnt depends on the decisions that judge it: a step is estimated before the split. Estimate it in "
        "`fit`, on the training rows.",
    }
