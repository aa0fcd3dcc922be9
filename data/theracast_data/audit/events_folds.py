"""Checks of the validation itself: patients in two folds, and preprocessing that has seen the test rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.audit.context import Booleans, Positions
from theracast_data.audit.events_times import SHOWN
from theracast_data.audit.findings import Finding, plural

Split = tuple[Positions, Positions]
Fit = Callable[[pd.DataFrame, Positions], Any]


def check_folds(decisions: pd.DataFrame, splits: Sequence[Split]) -> list[Finding]:
    """Return an error where a patient has decisions on both sides of a split.

    Args:
        decisions: `subject_id`; spaces around it and its case are not regarded.
        splits: positions of the training and of the test rows, for each fold.
    """
    names = decisions["subject_id"].astype(str).str.strip().str.casefold()
    subject, known = pd.factorize(names.to_numpy())
    split = np.zeros(len(known), np.bool_)
    for train, test in splits:
        split[np.intersect1d(subject[train], subject[test])] = True
    if not split.any():
        return []
    concerned = split[subject]
    return [
        Finding(
            check="patient-in-two-folds",
            severity="error",
            site=None,
            column=None,
            message=f"{plural(int(split.sum()), 'patient')} of {len(known):,} are trained on and tested in one fold "
            f"({plural(int(concerned.sum()), 'decision')}).",
            why="The model is tested on patients that it was trained on: the validation is too good.",
            remedy="Give a patient one identifier and one site, and split with `validation: {scheme: {by: subject}}`; or "
            "keep one decision of such a patient.",
            count=int(concerned.sum()),
            subjects=tuple(decisions["subject_id"][concerned].astype(str).drop_duplicates()[:SHOWN]),
        )
    ]


def check_preprocessing(features: pd.DataFrame, splits: Sequence[Split], fit: Fit) -> list[Finding]:
    """Return an error where what is fitted for a fold changes with the rows that are tested in it.

    Args:
        features: (n, ...) all rows.
        splits: positions of the training and of the test rows, for each fold.
        fit: all rows and the positions of the training rows to the fitted state: numbers, arrays, tables, containers of
            them, or an object with such attributes (an estimator).
    """
    leaking = []
    for number, (train, test) in enumerate(splits, start=1):
        state = fit(features.copy(), train)
        if not _same(state, fit(features.copy(), train)):
            return [_unrepeatable()]
        if any(not _same(state, fit(_disturbed(features, test, columns), train)) for columns in _parts(features)):
            leaking.append(str(number))
    if not leaking:
        return []
    return [
        Finding(
            check="preprocessing-across-folds",
            severity="error",
            site=None,
            column=None,
            message=f"In {plural(len(leaking), 'fold')} of {len(splits)} the fitted state changes when the test rows "
            "change.",
            why="Means, scales, vocabularies or selected features were estimated with the test rows: the validation has "
            "seen what it tests.",
            remedy="Fit everything that is estimated on the training rows alone, inside the fold.",
            count=len(leaking),
        )
    ]


def _unrepeatable() -> Finding:
    return Finding(
        check="preprocessing-not-repeatable",
        severity="warning",
        site=None,
        column=None,
        message="Two fits on the same rows give different states, so it cannot be seen whether test rows matter.",
        why="A model that cannot be repeated cannot be audited.",
        remedy="Give the fit a fixed seed, and run the audit again.",
    )


def _parts(features: pd.DataFrame) -> Iterator[Booleans]:
    """Yield the columns to disturb: all, then halves such that any two columns are told apart by one of them.

    A selection by rank (of variances, of missing values) does not move when all columns move alike.
    """
    place = np.arange(features.shape[1])
    yield np.ones(len(place), np.bool_)
    for bit in range(max(len(place) - 1, 0).bit_length()):
        chosen = (place >> bit) % 2 == 1
        yield chosen
        yield ~chosen


def _disturbed(features: pd.DataFrame, test: Positions, columns: Booleans) -> pd.DataFrame:
    """Return the features with these columns of every test row changed: numbers far outside, other texts."""
    changed = {}
    for place, name in enumerate(features.columns):
        column = features[name]
        if not columns[place]:
            changed[name] = column
        elif pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=object, copy=True)
            values[test] = [not one for one in values[test]]
            changed[name] = pd.Series(values, index=features.index).astype(column.dtype)
        elif pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
            far = 1000.0 * (np.nanmax(np.abs(values), initial=0.0) + 1.0)
            values[test] = np.where(np.isnan(values[test]), far, values[test] + far)
            changed[name] = pd.Series(values, index=features.index)
        else:
            values = column.astype(object).to_numpy(copy=True)
            values[test] = [f"{one} (changed)" for one in values[test]]
            # A category would not take the new text; a text stays what it was, so that the other rows stay equal.
            kept = column.dtype if isinstance(column.dtype, pd.StringDtype) else object
            changed[name] = pd.Series(values, index=features.index, dtype=kept)
    return pd.DataFrame(changed, index=features.index)


def _same(left: Any, right: Any) -> bool:
    """Return whether two fitted states are equal, down to their parts."""
    if type(left) is not type(right):
        return False
    if isinstance(left, pd.DataFrame | pd.Series | pd.Index):
        return bool(left.equals(right))
    if isinstance(left, np.ndarray):
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        if left.dtype == object:
            return all(_same(one, other) for one, other in zip(left.ravel(), right.ravel(), strict=True))
        return bool(np.array_equal(left, right, equal_nan=left.dtype.kind in "fc"))
    if isinstance(left, float | np.floating):
        return bool(left == right or (np.isnan(left) and np.isnan(right)))
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(_same(one, other) for one, other in zip(left, right, strict=True))
    if hasattr(left, "__dict__") and not callable(left):
        return _same(vars(left), vars(right))
    return bool(left == right) if not callable(left) else True
