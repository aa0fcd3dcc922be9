"""What the development patients were like, as an aggregate that may travel: nothing in it tells of fewer than ten."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.logodds import Floats
from theracast_models.preprocess import numeric_values, text_values

SMALLEST_CELL = 10
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
RARE_LEVELS = "rare categories together"


@dataclass(frozen=True)
class ReferenceCell:
    """A third of the development patients by a number, or those of one category.

    Attributes:
        label: level; for a number `low`, `middle` or `high` third.
        upper: largest value of a third, rounded; None for a category and for the last third.
        n: patients.
        share: of the patients in whom the feature is known.
        rate: share of them with the endpoint.
    """

    label: str
    upper: float | None
    n: int
    share: float
    rate: float


@dataclass(frozen=True)
class FeatureReference:
    """One feature among the development patients.

    Attributes:
        name: of the feature.
        known: patients in whom it is known.
        missing_rate: share of patients in whom it is not.
        quantiles: `p01` to `p99`; empty for categories, and where it is known in fewer than ten.
        low, high: what was seen, widened outwards by up to a twentieth of the span, so that no patient's value is told;
            None where there are no quantiles.
        cells: response rates by third, by 0 and 1, or by category.
    """

    name: str
    known: int
    missing_rate: float
    quantiles: Mapping[str, float]
    low: float | None
    high: float | None
    cells: tuple[ReferenceCell, ...]

    @property
    def median(self) -> float | None:
        """The median, None where there is none."""
        return self.quantiles.get("p50")

    @property
    def levels(self) -> dict[str, float]:
        """Category (or `0`, `1`) to its share; rare categories together. Empty for a number."""
        return {cell.label: cell.share for cell in self.cells if cell.label not in ("low", "middle", "high")}


@dataclass(frozen=True)
class Reference:
    """The development patients.

    Attributes:
        n, events: decisions, and those with the endpoint.
        prevalence: share with the endpoint, weighted as in training.
        sites: where they were treated.
        features: name to what it was like.
    """

    n: int
    events: int
    prevalence: float
    sites: tuple[str, ...]
    features: Mapping[str, FeatureReference]

    @classmethod
    def learn(cls, table: FeatureTable, y: Floats, *, weight: Floats | None = None) -> Reference:
        """Return the aggregate of n development decisions; those of weight 0 do not count."""
        weight = np.ones(len(table)) if weight is None else weight
        counted = np.flatnonzero(weight > 0)
        table, y, weight = table.take(counted), y[counted], weight[counted]
        return cls(
            n=len(y),
            events=int(y.sum()),
            prevalence=float(np.average(y, weights=weight)),
            sites=tuple(dict.fromkeys(table.decisions["site"].astype(str))),
            features={spec.name: _feature_reference(spec, table, y, weight) for spec in table.catalogue},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the aggregate as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Reference:
        """Return the aggregate that `to_json` wrote."""
        features = {
            name: FeatureReference(**(one | {"cells": tuple(ReferenceCell(**cell) for cell in one["cells"])}))
            for name, one in record["features"].items()
        }
        return cls(**(dict(record) | {"sites": tuple(record["sites"]), "features": features}))


def _feature_reference(spec: FeatureSpec, table: FeatureTable, y: Floats, weight: Floats) -> FeatureReference:
    if spec.kind == "categorical":
        texts = text_values(table.frame, spec.name)
        known = np.array([value is not None for value in texts], dtype=bool)
        cells = _level_cells(texts[known].astype(str), y[known], weight[known])
        return FeatureReference(spec.name, int(known.sum()), float((~known).mean()), {}, None, None, cells)
    values = numeric_values(table.frame, spec.name)
    known = np.isfinite(values)
    found, y, weight = values[known], y[known], weight[known]
    if len(found) < SMALLEST_CELL:
        return FeatureReference(spec.name, int(known.sum()), float((~known).mean()), {}, None, None, ())
    quantiles = {name: float(np.quantile(found, q)) for name, q in QUANTILES.items()}
    low, high = widened(found)
    boolean = spec.kind == "boolean"
    cells = _level_cells(found.astype(int).astype(str), y, weight) if boolean else _third_cells(found, y, weight)
    return FeatureReference(spec.name, int(known.sum()), float((~known).mean()), quantiles, low, high, cells)


def widened(values: Floats) -> tuple[float, float]:
    """Return a range that holds all values, its ends moved outwards to a round step of at most a tenth of the span."""
    low, high = float(values.min()), float(values.max())
    rough = (high - low) / 20
    if rough == 0.0:  # one value, or two that differ by less than a number can say
        return low, high
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1.0, 2.0, 5.0, 10.0) if size * power >= rough * 0.999)
    return float(f"{math.floor(low / step) * step:.12g}"), float(f"{math.ceil(high / step) * step:.12g}")


def _level_cells(levels: NDArray[Any], y: Floats, weight: Floats) -> tuple[ReferenceCell, ...]:
    """Return cells of at least ten patients, the most frequent first; smaller ones merged, or left out if still few."""
    names, counts = np.unique(levels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    groups = [(str(names[one]), levels == names[one]) for one in order if counts[one] >= SMALLEST_CELL]
    rare = np.isin(levels, names[counts < SMALLEST_CELL])
    if rare.sum() >= SMALLEST_CELL:
        groups.append((RARE_LEVELS, rare))
    return tuple(_cell(label, None, rows, y, weight) for label, rows in groups if weight[rows].sum() > 0)


def _third_cells(values: Floats, y: Floats, weight: Floats) -> tuple[ReferenceCell, ...]:
    """Return response rates by thirds; none where ties or few patients leave a third with fewer than ten."""
    first, second = (float(f"{np.quantile(values, q):.3g}") for q in (1 / 3, 2 / 3))
    groups = [
        ("low", first, values <= first),
        ("middle", second, (values > first) & (values <= second)),
        ("high", None, values > second),
    ]
    if min(int(rows.sum()) for _, _, rows in groups) < SMALLEST_CELL:
        return ()
    return tuple(_cell(label, upper, rows, y, weight) for label, upper, rows in groups)


def _cell(label: str, upper: float | None, rows: NDArray[np.bool_], y: Floats, weight: Floats) -> ReferenceCell:
    rate = float(np.average(y[rows], weights=weight[rows]))
    return ReferenceCell(label, upper, int(rows.sum()), float(rows.mean()), rate)
