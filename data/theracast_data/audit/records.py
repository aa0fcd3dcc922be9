"""How much two rows have in common beyond chance: the comparison behind linkage and duplicates.

Fellegi and Sunter, J Am Stat Assoc 1969;64:1183-1210, with weights by the frequency of each value (Winkler, 1989): two
patients who share a rare value have more in common than two who share a frequent one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from theracast_data.audit.context import AuditContext, Booleans, Floats, Positions, kind_of, numbers, read_columns
from theracast_data.cohort import Cohort

AGREE = 0.88
"""Probability that two records of one patient hold exactly the same value."""
NEAR = 0.06
"""Probability that they hold nearly the same (rounded, or measured again)."""
NEAR_SPREADS = 0.1
LARGEST_BLOCK = 80
BLOCK_BUDGET = 600_000
CANDIDATES = 40_000


@dataclass(frozen=True)
class Field:
    """One quasi-identifier of n rows.

    Attributes:
        name: of the column.
        codes: (n,) number of the distinct value, -1 where missing.
        weight: (n_values,) logarithm of how much more often two records of one patient agree on this value than two
            of different patients.
        near: weight of nearly equal values; None where values have no distance.
        against: weight of different values.
        values: (n,) for the distance.
        tolerance: what is nearly equal.
    """

    name: str
    codes: Positions
    weight: Floats
    near: float | None
    against: float
    values: Floats
    tolerance: float


def fields_of(cohort: Cohort, context: AuditContext) -> list[Field]:
    """Return the quasi-identifiers: values, dates and outcomes that vary; of columns that say the same, the first.

    Of several follow-ups only the longest-grained one counts: progression and death of one patient go together.
    """
    found: list[Field] = []
    seen: set[bytes] = set()
    for name in read_columns(cohort):
        if kind_of(cohort, name) == "categorical":
            found.append(_category(name, cohort.values[name].to_numpy(dtype=object)))
        else:
            found.append(_number(name, numbers(cohort, name)))
    outcomes = cohort.endpoints[_outcomes(cohort)].astype("float64")
    found += [_number(str(name), column.to_numpy()) for name, column in outcomes.items()]
    dates = [name for name in ("calendar", "index_time") if name in cohort.decisions]
    found += [_number(name, _as_number(cohort, name)) for name in dates]
    kept = []
    for field in found:
        partition = _partition(field.codes)
        if len(field.weight) >= 2 and partition not in seen:
            seen.add(partition)
            kept.append(field)
    return kept


def agreement(fields: list[Field], left: Positions, right: Positions) -> tuple[Floats, Floats, Positions]:
    """Return of each pair the total weight, the share of the attainable weight, and the number of equal fields."""
    total = np.zeros(len(left))
    reached, attainable = np.zeros(len(left)), np.full(len(left), 1e-9)
    equal_fields = np.zeros(len(left), dtype=np.intp)
    for field in fields:
        a, b = field.codes[left], field.codes[right]
        both = (a >= 0) & (b >= 0)
        equal = both & (a == b)
        on_left, on_right = field.weight[a], field.weight[b]
        here = np.where(equal, on_left, np.where(both, field.against, 0.0))
        if field.near is not None:
            close = both & ~equal & (np.abs(field.values[left] - field.values[right]) <= field.tolerance)
            here[close] = field.near
        total += here
        reached += np.where(equal, on_left, 0.0)
        attainable += np.where(both, np.minimum(on_left, on_right), 0.0)
        equal_fields += equal
    return total, reached / attainable, equal_fields


def candidate_pairs(fields: list[Field], *, apart: Booleans | None = None) -> tuple[Positions, Positions]:
    """Return pairs of rows that share rare values, those with the most in common; `apart` rows are left out."""
    blocks: list[tuple[int, float, Positions]] = []
    for field in fields:
        counts = np.bincount(field.codes[field.codes >= 0], minlength=len(field.weight))
        wanted = (counts >= 2) & (counts <= LARGEST_BLOCK)
        order = np.argsort(field.codes, kind="stable")
        starts = np.searchsorted(field.codes[order], np.arange(len(counts)))
        blocks += [
            (int(counts[code]), float(field.weight[code]), order[starts[code] : starts[code] + counts[code]])
            for code in np.flatnonzero(wanted)
        ]
    blocks.sort(key=lambda block: block[0])
    size = len(fields[0].codes) if fields else 0
    keys: list[Positions] = []
    weights: list[Floats] = []
    spent = 0
    couples: dict[int, tuple[Positions, Positions]] = {}
    for count, weight, members in blocks:
        spent += count * (count - 1) // 2
        if spent > BLOCK_BUDGET:
            break
        if count not in couples:
            couples[count] = np.triu_indices(count, 1)
        first, second = couples[count]
        a, b = members[first], members[second]
        keys.append(np.minimum(a, b) * size + np.maximum(a, b))
        weights.append(np.full(len(a), weight))
    if not keys:
        return np.array([], dtype=np.intp), np.array([], dtype=np.intp)
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    shared = np.bincount(place, weights=np.concatenate(weights))
    if len(pairs) > CANDIDATES:
        pairs = pairs[np.argpartition(-shared, CANDIDATES)[:CANDIDATES]]
    left, right = pairs // size, pairs % size
    if apart is not None:
        kept = ~(apart[left] | apart[right])
        left, right = left[kept], right[kept]
    return left, right


def _number(name: str, values: Floats) -> Field:
    finite = np.isfinite(values)
    distinct, inverse = np.unique(values[finite], return_inverse=True)
    codes = np.full(len(values), -1, dtype=np.intp)
    codes[finite] = inverse
    spread = float(np.ptp(np.quantile(values[finite], [0.25, 0.75]))) / 1.349 if finite.any() else 0.0
    if len(distinct) < 20 or spread <= 0:
        return _field(name, codes, len(distinct), values=values, near_by_chance=None, tolerance=0.0)
    tolerance = NEAR_SPREADS * spread
    ordered = np.sort(values[finite])
    window = np.searchsorted(ordered, ordered + tolerance, side="right") - np.searchsorted(ordered, ordered - tolerance)
    near_by_chance = float(np.clip(window.mean() / len(ordered), 1e-3, 0.9))
    return _field(name, codes, len(distinct), values=values, near_by_chance=near_by_chance, tolerance=tolerance)


def _category(name: str, values: object) -> Field:
    cells = np.asarray(values, dtype=object)
    known = np.asarray(~pd.isna(cells), dtype=np.bool_)
    distinct, inverse = np.unique(cells[known].astype(str), return_inverse=True)
    codes = np.full(len(cells), -1, dtype=np.intp)
    codes[known] = inverse
    return _field(name, codes, len(distinct), values=np.zeros(len(cells)), near_by_chance=None, tolerance=0.0)


def _field(
    name: str, codes: Positions, distinct: int, *, values: Floats, near_by_chance: float | None, tolerance: float
) -> Field:
    counts = np.bincount(codes[codes >= 0], minlength=max(distinct, 1)).astype(float)
    known = max(counts.sum(), 1.0)
    # A value held by one row alone gets the weight of a pair: that is what it is in any pair that shares it.
    share = np.maximum(counts, 2.0) / known
    equal_by_chance = float(((counts / known) ** 2).sum())
    different = max(1 - equal_by_chance - (near_by_chance or 0.0), 0.02)
    against = float(np.log((1 - AGREE - (NEAR if near_by_chance is not None else 0.0)) / different))
    near = None if near_by_chance is None else float(np.clip(np.log(NEAR / near_by_chance), -1.0, 3.0))
    weight = np.log(AGREE / np.minimum(share, 1.0))
    return Field(name, codes, np.maximum(weight, 0.0), near, min(against, 0.0), np.nan_to_num(values), tolerance)


def _outcomes(cohort: Cohort) -> list[str]:
    """Return the endpoint columns that are no part of a follow-up, and the time with the most distinct values."""
    names = [str(name) for name in cohort.endpoints.columns]
    times = sorted(
        (name for name in names if name.endswith(".time")), key=lambda name: -cohort.endpoints[name].nunique()
    )
    parts = {name for time in times for name in (time, time.removesuffix(".time") + ".event")}
    return [name for name in names if name not in parts] + times[:1]


def _as_number(cohort: Cohort, name: str) -> Floats:
    column = cohort.decisions[name]
    if name == "index_time":
        days = column.to_numpy(dtype="datetime64[D]").astype(np.float64)
        return np.where(column.isna().to_numpy(), np.nan, days)
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _partition(codes: Positions) -> bytes:
    """Return what identifies the grouping of rows, whatever the values are called."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.asarray(first[inverse]).tobytes()
