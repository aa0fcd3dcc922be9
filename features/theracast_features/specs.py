"""What one feature means, and the table that holds one row per decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.modality import MODALITY_PREFIX, Modality
from theracast_data.sources import Kind


@dataclass(frozen=True)
class FeatureSpec:
    """The meaning of one column of a feature table.

    Attributes:
        name: `PREFIX.NAME[.AGGREGATE]`, made by `feature_name` alone.
        modality: groups models and explanations.
        kind: numeric and boolean are float64 in the table, categorical is str.
        unit: UCUM unit, None for categories and pure numbers.
        label: what the tumour board reads.
        columns: names of the cohort's columns (or events) from which it is made.
        role: `value` measured, `derived` computed from others, `indicator` 1 where `columns` were not measured, `picture`
            1 where a picture of a region stands in the column of the decisions that `columns` names, missing elsewhere.
        code: code of the quantity, SYSTEM:CODE.
        transform: scale on which linear models see it.
        levels: allowed categories where the study fixes them.
        source: publication of a derived score.
        icc: intraclass correlation of an image measurement under perturbed regions.
        batch: column of the decisions with the scanner over which it is harmonised inside the training fold.
    """

    name: str
    modality: Modality
    kind: Kind
    label: str
    columns: tuple[str, ...]
    unit: str | None = None
    role: Literal["value", "derived", "indicator", "picture"] = "value"
    code: str | None = None
    transform: Literal["none", "log1p"] = "none"
    levels: tuple[str, ...] | None = None
    source: str | None = None
    icc: float | None = None
    batch: str | None = None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> FeatureSpec:
        """Return the spec that `to_json` wrote."""
        levels = record.get("levels")
        return cls(
            **(record | {"columns": tuple(record["columns"]), "levels": None if levels is None else tuple(levels)})
        )

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return asdict(self)


def feature_name(modality: Modality, name: str, aggregate: str | None = None) -> str:
    """Return the one name of a feature, e.g. `lab.albumin`, `lab.creatinine.last`, `gen.tmb.missing`."""
    return ".".join(part for part in (MODALITY_PREFIX[modality], name, aggregate) if part)


A_REQUEST = 1_000
"""Decisions up to which a table is read as a request is, rather than as a training's."""


@dataclass(frozen=True)
class FeatureTable:
    """n decisions x p features with the meaning of each column.

    Attributes:
        frame: (n, p) columns named and ordered as `catalogue`; missing is NaN.
        catalogue: p specs.
        decisions: (n, ...) the cohort's `decisions` of the same rows.
    """

    frame: pd.DataFrame
    catalogue: tuple[FeatureSpec, ...]
    decisions: pd.DataFrame

    def __post_init__(self) -> None:
        if list(self.frame.columns) != [spec.name for spec in self.catalogue]:
            raise ValueError("the columns of a feature table and its catalogue must be the same, in the same order")

    def __len__(self) -> int:
        return len(self.frame)

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return these numeric and boolean features as (n, len(names)) float64."""
        if len(self) > A_REQUEST:
            return self.frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)
        matrix, places = self._numeric
        found: NDArray[np.float64] = matrix[:, [places[name] for name in names]]
        return found

    def absent(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return (n, len(names)) where these features, of whatever kind, are missing."""
        if len(self) > A_REQUEST:
            return self.frame[list(names)].isna().to_numpy()
        missing, places = self._absent
        found: NDArray[np.bool_] = missing[:, [places[name] for name in names]]
        return found

    # A few rows are asked for the same columns again and again, each time at the price of a search among their names.
    # Of a training's table nothing is held twice.
    @cached_property
    def _numeric(self) -> tuple[NDArray[np.float64], dict[str, int]]:
        names = [spec.name for spec in self.catalogue if spec.kind != "categorical"]
        frame = self.frame if len(names) == len(self.catalogue) else self.frame[names]
        return frame.to_numpy(dtype=np.float64, na_value=np.nan), {name: place for place, name in enumerate(names)}

    @cached_property
    def _absent(self) -> tuple[NDArray[np.bool_], dict[str, int]]:
        return self.frame.isna().to_numpy(), {spec.name: place for place, spec in enumerate(self.catalogue)}

    def take(self, rows: Any) -> FeatureTable:
        """Return the decisions at these positions."""
        positions = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            frame=self.frame.iloc[positions].reset_index(drop=True),
            decisions=self.decisions.iloc[positions].reset_index(drop=True),
        )

    def select(self, names: Sequence[str]) -> FeatureTable:
        """Return only these features, in the table's order."""
        wanted = set(names)
        catalogue = tuple(spec for spec in self.catalogue if spec.name in wanted)
        return replace(self, frame=self.frame[[spec.name for spec in catalogue]], catalogue=catalogue)

    def of_modality(self, modality: Modality) -> FeatureTable:
        """Return only the features of one modality."""
        return self.select([spec.name for spec in self.catalogue if spec.modality == modality])

    def without_modality(self, modality: Modality) -> FeatureTable:
        """Return the features of all other modalities."""
        return self.select([spec.name for spec in self.catalogue if spec.modality != modality])

    @property
    def modalities(self) -> list[Modality]:
        """Modalities in the order of the catalogue."""
        return list(dict.fromkeys(spec.modality for spec in self.catalogue))
