"""What linear models learn before they are fitted: limits, fill-in values, scales and levels, all of it plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.logodds import Floats, Gaps

WINSOR_QUANTILES = (0.01, 0.99)
MOST_DISTINCT_UNLIMITED = 10


@dataclass(frozen=True)
class NumericColumn:
    """How a numeric or boolean feature becomes one column `z` with training mean 0.

    Attributes:
        low, high: limits on the transformed scale, None for a column of few distinct values.
        fill: median on the transformed scale, for what is missing.
        mean, scale: weighted, after limits and filling; scale 0 means that the column says nothing (constant or empty).
    """

    name: str
    transform: Literal["none", "log1p"]
    low: float | None
    high: float | None
    fill: float
    mean: float
    scale: float


@dataclass(frozen=True)
class NumericBlock:
    """Several numeric columns side by side, so that a table is standardised in a few array operations."""

    names: tuple[str, ...]
    logged: NDArray[np.bool_]
    low: Floats
    high: Floats
    fill: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, columns: Sequence[NumericColumn]) -> NumericBlock:
        """Return the columns side by side."""
        return cls(
            names=tuple(column.name for column in columns),
            logged=np.array([column.transform == "log1p" for column in columns], dtype=bool),
            low=np.array([-np.inf if column.low is None else column.low for column in columns]),
            high=np.array([np.inf if column.high is None else column.high for column in columns]),
            fill=np.array([column.fill for column in columns]),
            mean=np.array([column.mean for column in columns]),
            scale=np.array([column.scale for column in columns]),
        )

    def standardise(self, values: Floats) -> Floats:
        """Return `z` (n, n_columns) of raw values; missing ones are filled."""
        finite = np.isfinite(values)
        known = np.where(finite, values, 0.0)
        moved = np.where(finite, np.where(self.logged, transformed(known, "log1p"), known), self.fill)
        limited = np.minimum(np.maximum(moved, self.low), self.high)
        speaks = self.scale > 0
        result: Floats = np.where(speaks, (limited - self.mean) / np.where(speaks, self.scale, 1.0), 0.0)
        return result


@dataclass(frozen=True)
class CategoryColumn:
    """How a category becomes one column `z` per level seen in training, each with training mean 0.

    A missing or unseen level lies at the training mean of every level, so it contributes nothing.
    """

    name: str
    levels: tuple[str, ...]
    share: tuple[float, ...]
    scale: tuple[float, ...]

    def standardise(self, values: NDArray[Any]) -> Floats:
        """Return `z` (n, n_levels)."""
        codes = level_codes(values, self.levels)
        hit = codes[:, None] == np.arange(len(self.levels))[None, :]
        scale = np.asarray(self.scale)
        used = scale > 0
        z: Floats = np.where(used, (hit - np.asarray(self.share)) / np.where(used, scale, 1.0), 0.0)
        z[codes < 0] = 0.0
        return z


@dataclass(frozen=True)
class LinearInputs:
    """The learned step from a feature table to the standardised design matrix of a linear model."""

    columns: tuple[NumericColumn | CategoryColumn, ...]

    @classmethod
    def learn(cls, table: FeatureTable, *, weight: Floats | None = None) -> LinearInputs:
        """Return the step learned from n decisions; those of weight 0 do not count."""
        weight = np.ones(len(table)) if weight is None else weight
        counted = weight > 0
        used = weight[counted]
        return cls(
            tuple(
                _learn_category(spec, text_values(table.frame, spec.name)[counted], used)
                if spec.kind == "categorical"
                else _learn_numeric(spec, numeric_values(table.frame, spec.name)[counted], used)
                for spec in table.catalogue
            )
        )

    @cached_property
    def owner(self) -> NDArray[np.intp]:
        """(n_columns,) position of the feature to which each column of the design belongs."""
        return np.repeat(np.arange(len(self.columns)), self._widths)

    @cached_property
    def _widths(self) -> list[int]:
        return [len(column.levels) if isinstance(column, CategoryColumn) else 1 for column in self.columns]

    def design(self, table: FeatureTable) -> Floats:
        """Return z (n, n_columns) in Fortran order; missing numbers are filled in."""
        starts = np.concatenate([[0], np.cumsum(self._widths)]).astype(int)
        z: Floats = np.zeros((len(table), starts[-1]), order="F")
        numbers, together = self._numeric
        if len(numbers):
            values = table.numbers(together.names)
            z[:, starts[numbers]] = together.standardise(values)
        for number, column in enumerate(self.columns):
            if isinstance(column, CategoryColumn):
                place = slice(starts[number], starts[number + 1])
                z[:, place] = column.standardise(text_values(table.frame, column.name))
        return z

    @cached_property
    def _numeric(self) -> tuple[NDArray[np.intp], NumericBlock]:
        """Positions of the numeric features, and what is done to them, side by side."""
        numbers = [number for number, column in enumerate(self.columns) if isinstance(column, NumericColumn)]
        columns = [column for column in self.columns if isinstance(column, NumericColumn)]
        return np.array(numbers, dtype=np.intp), NumericBlock.of(columns)

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision the features that were filled in, and those whose level was never seen.

        A feature without weight (constant or empty in training) is in neither.
        """
        missing: list[list[str]] = [[] for _ in range(len(table))]
        unseen: list[list[str]] = [[] for _ in range(len(table))]
        numbers, together = self._numeric
        absent = np.zeros((len(table), len(self.columns)), dtype=bool)
        weighty = np.array([self.columns[number].scale > 0 for number in numbers.tolist()], dtype=bool)
        absent[:, numbers] = ~np.isfinite(table.numbers(together.names)) & weighty
        for number, column in enumerate(self.columns):
            if isinstance(column, CategoryColumn):
                values = text_values(table.frame, column.name)
                for row in np.flatnonzero(level_codes(values, column.levels) < 0):
                    if values[row] is None:
                        absent[row, number] = True
                    else:
                        unseen[row].append(column.name)
        names = [column.name for column in self.columns]
        for row, number in zip(*(places.tolist() for places in np.nonzero(absent)), strict=True):
            missing[row].append(names[number])
        return [Gaps(tuple(filled), tuple(new)) for filled, new in zip(missing, unseen, strict=True)]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the step as plain JSON values."""
        return [
            {"kind": "category" if isinstance(column, CategoryColumn) else "numeric"} | asdict(column)
            for column in self.columns
        ]

    @classmethod
    def from_json(cls, records: list[dict[str, Any]]) -> LinearInputs:
        """Return the step that `to_json` wrote."""
        return cls(tuple(_column_from_json(record) for record in records))


def transformed(values: Floats, transform: Literal["none", "log1p"]) -> Floats:
    """Return values on the scale that linear models see; log1p is mirrored below 0, so it never fails."""
    if transform == "none":
        return values
    result: Floats = np.sign(values) * np.log1p(np.abs(values))
    return result


def untransformed(values: Floats, transform: Literal["none", "log1p"]) -> Floats:
    """Return the values that `transformed` brings to these; what would be beyond all numbers stays a large number."""
    if transform == "none":
        return values
    result: Floats = np.sign(values) * np.expm1(np.minimum(np.abs(values), 700.0))
    return result


def numeric_values(frame: pd.DataFrame, name: str) -> Floats:
    """Return one numeric or boolean feature as (n,) float64."""
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def text_values(frame: pd.DataFrame, name: str) -> NDArray[Any]:
    """Return one categorical feature as (n,) objects: str, or None where missing."""
    values = frame[name]
    texts: NDArray[Any] = np.array(values.to_numpy(dtype=object), dtype=object)
    texts[values.isna().to_numpy()] = None
    return texts


def level_codes(values: NDArray[Any], levels: tuple[str, ...]) -> NDArray[np.intp]:
    """Return (n,) the position of each level, -1 where it is missing or not among `levels`."""
    place = {level: number for number, level in enumerate(levels)}
    return np.array([place.get(str(value), -1) if value is not None else -1 for value in values], dtype=np.intp)


def seen_levels(values: NDArray[Any]) -> tuple[str, ...]:
    """Return the levels among the values in alphabetical order, so that rows may come in any order."""
    return tuple(sorted({str(value) for value in values if value is not None}))


def _learn_numeric(spec: FeatureSpec, values: Floats, weight: Floats) -> NumericColumn:
    known = transformed(values[np.isfinite(values)], spec.transform)
    if len(known) == 0:
        return NumericColumn(spec.name, spec.transform, None, None, 0.0, 0.0, 0.0)
    low = high = None
    if spec.kind == "numeric" and len(np.unique(known)) > MOST_DISTINCT_UNLIMITED:
        low, high = (float(limit) for limit in np.quantile(known, WINSOR_QUANTILES))
    fill = float(np.median(known))
    unscaled = NumericColumn(spec.name, spec.transform, low, high, fill, 0.0, 1.0)
    raw = NumericBlock.of([unscaled]).standardise(values[:, None])[:, 0]
    if np.ptp(raw) == 0:
        return NumericColumn(spec.name, spec.transform, low, high, fill, float(raw[0]), 0.0)
    mean = float(np.average(raw, weights=weight))
    scale = float(np.sqrt(np.average((raw - mean) ** 2, weights=weight)))
    return NumericColumn(spec.name, spec.transform, low, high, fill, mean, scale)


def _learn_category(spec: FeatureSpec, values: NDArray[Any], weight: Floats) -> CategoryColumn:
    levels = seen_levels(values)
    codes = level_codes(values, levels)
    mass = np.bincount(codes[codes >= 0], weights=weight[codes >= 0], minlength=len(levels))
    share = mass / mass.sum() if len(levels) else mass
    scale = np.sqrt(share * (1 - share))
    return CategoryColumn(spec.name, levels, tuple(map(float, share)), tuple(map(float, scale)))


def _column_from_json(record: dict[str, Any]) -> NumericColumn | CategoryColumn:
    fields = {key: value for key, value in record.items() if key != "kind"}
    if record["kind"] == "category":
        return CategoryColumn(fields["name"], *(tuple(fields[key]) for key in ("levels", "share", "scale")))
    return NumericColumn(**fields)
