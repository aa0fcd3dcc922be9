"""Who is in which fold: by patient (stratified), by site, or forward in time; always seeded, never by row."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.errors import CohortError
from theracast_models.folds import patient_numbers, rarest_outcome, stratified_folds

Rows = NDArray[np.intp]
Folds = list[tuple[Rows, Rows]]


def make_folds(
    decisions: pd.DataFrame, y: NDArray[np.float64], *, by: Literal["subject", "site", "time"], folds: int, seed: int
) -> Folds:
    """Return (train, test) positions per fold; every test row is known and no patient is on both sides.

    Args:
        decisions: (n, ...) `subject_id`, `site`, `index_time`, `calendar`.
        y: (n,) 0/1, all known.
        by: `subject`: stratified by outcome and grouped by patient; `site`: each fold leaves out whole sites, events spread
            evenly;
            `time`: each fold is tested on decisions later than all it was trained on.
        folds: number of folds; with `site` at most the number of sites.
        seed: of the shuffle.

    Raises:
        CohortError: the decisions do not allow such a split.
    """
    if by == "site":
        return _by_site(decisions, y, folds=folds)
    if by == "time":
        return _by_time(decisions, y, folds=folds)
    patients = patient_numbers(decisions)
    fewest = rarest_outcome(patients, y)
    if fewest < folds:
        raise CohortError(
            f"{folds} folds need at least {folds} patients of either outcome, there are {fewest}. "
            "Lower validation.scheme.outer / inner, or add patients."
        )
    return _with_both_outcomes(stratified_folds(patients, y, folds=folds, seed=seed), y)


def _by_site(decisions: pd.DataFrame, y: NDArray[np.float64], *, folds: int) -> Folds:
    counts = pd.DataFrame({"site": decisions["site"].astype("str").to_numpy(), "events": y, "all": 1.0})
    sites = counts.groupby("site", sort=True).sum().sort_values(["events", "all"], ascending=False, kind="stable")
    if len(sites) < 2:
        raise CohortError(
            "validation.scheme.by: site needs at least two development sites. Use by: subject, or add a site."
        )
    number = min(folds, len(sites))
    loads = np.zeros((number, 2))
    fold_of: dict[str, int] = {}
    for site, load in zip(sites.index, sites.to_numpy(), strict=True):
        lightest = min(range(number), key=lambda one: (loads[one, 0], loads[one, 1]))
        fold_of[str(site)] = lightest
        loads[lightest] += load
    fold = decisions["site"].astype("str").map(fold_of).to_numpy()
    patients = patient_numbers(decisions)
    moved = [np.isin(patients, patients[fold == k]) for k in range(number)]  # a patient may have been at several sites
    return _with_both_outcomes(
        [(np.flatnonzero((fold != k) & ~moved[k]), np.flatnonzero(fold == k)) for k in range(number)], y
    )


def _by_time(decisions: pd.DataFrame, y: NDArray[np.float64], *, folds: int) -> Folds:
    moment = _moments(decisions)
    edges = np.unique(np.quantile(moment, np.linspace(0, 1, folds + 2)[1:-1], method="higher"))
    first = patient_numbers(decisions)
    splits: Folds = []
    for lower, upper in zip(edges, [*edges[1:], np.inf], strict=True):
        train = np.flatnonzero(moment < lower)
        later = (moment >= lower) & (moment < upper)
        test = np.flatnonzero(later & ~np.isin(first, first[train]))
        if len(train) and len(test):
            splits.append((train, test))
    if not splits:
        raise CohortError(
            "validation.scheme.by: time finds all decisions at one moment. Name the column with the date or year "
            "as `index_time` or `calendar` of the source, or use by: subject."
        )
    return _with_both_outcomes(splits, y)


def _moments(decisions: pd.DataFrame) -> NDArray[np.float64]:
    index_time = decisions["index_time"]
    calendar = decisions["calendar"].to_numpy(dtype=float)
    if index_time.notna().all():
        return np.asarray(index_time.to_numpy(dtype="datetime64[us]").astype("int64"), dtype=np.float64)
    if not np.isnan(calendar).any():
        return calendar
    raise CohortError(
        "validation.scheme.by: time needs a date for every decision. Name its column as `index_time` or `calendar`, "
        "or use by: subject."
    )


def _with_both_outcomes(splits: Folds, y: NDArray[np.float64]) -> Folds:
    one_sided = sum(len(np.unique(y[train])) < 2 for train, _ in splits)
    if one_sided:
        raise CohortError(
            f"{one_sided} of {len(splits)} folds would train on one outcome only. Use fewer folds or validation.scheme.by: subject."
        )
    return splits
