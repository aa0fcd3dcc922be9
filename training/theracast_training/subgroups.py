"""Who belongs to which subgroup: the `fairness` section of a study, and the labels that follow from its columns."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator, model_validator

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.section import Section
from theracast_data.sources import ColumnSpec

NOT_KNOWN = "not known"
OF_DECISIONS = ("site", "treatment")
"""Columns of the decisions that may name subgroups too."""


class Subgroup(Section):
    """A column whose values divide the decisions."""

    column: str = Field(description="Name of a column inside Theracast, covariates included; or site, or treatment.")
    cut: tuple[float, ...] | None = Field(
        None, description="Where a number is cut, in its unit and rising; a value at a cut belongs above it."
    )

    @field_validator("cut")
    @classmethod
    def _check_cut(cls, cut: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if cut is not None and (not cut or list(cut) != sorted(set(cut))):
            raise ValueError("cut must name at least one number, and they must rise")
        return cut


class Cut(Section):
    """The short form of a number's cuts."""

    cut: tuple[float, ...] = Field(description="Where a number is cut, in its unit and rising.")


def _as_subgroup(value: Any) -> Any:
    """Return `sex` and `{age: {cut: [50]}}` as what `Subgroup` reads."""
    if isinstance(value, str):
        return {"column": value}
    if isinstance(value, dict) and len(value) == 1 and "column" not in value:
        ((name, options),) = value.items()
        return {"column": name, **options} if isinstance(options, dict) else value
    return value


SubgroupAsWritten = Annotated[
    Subgroup, BeforeValidator(_as_subgroup, json_schema_input_type=str | Subgroup | dict[str, Cut])
]


class FairnessSection(Section):
    """Whether the model serves declared subgroups equally well."""

    subgroups: tuple[SubgroupAsWritten, ...] = Field(
        min_length=1, description="Columns, e.g. [sex, race, {age: {cut: [50, 65]}}, site]."
    )
    minimum_n: int = Field(
        50, ge=2, description="Decisions below which of a subgroup nothing is told but their number."
    )
    minimum_events: int = Field(10, ge=1, description="Decisions of the rarer outcome below which likewise.")

    @model_validator(mode="after")
    def _check_names(self) -> FairnessSection:
        names = [one.column for one in self.subgroups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"subgroups: {', '.join(twice)} stands there twice")
        return self


def subgroup_labels(cohort: Cohort, section: FairnessSection) -> dict[str, NDArray[Any]]:
    """Return per column (n,) the subgroup of each decision as text; `not known` where the value is missing.

    Raises:
        StudyError: a column is not there, or is a number without `cut`; all such are named at once.
    """
    faults, labels = [], {}
    for one in section.subgroups:
        spec = cohort.columns.get(one.column)
        if one.column in OF_DECISIONS and spec is None:
            labels[one.column] = _categories(cohort.decisions[one.column].to_numpy(dtype=object))
        elif spec is None:
            known = ", ".join([*OF_DECISIONS, *cohort.columns])
            faults.append(f"no column is named {one.column!r}; there are {known}")
        elif isinstance(spec, ColumnSpec) and spec.resolved_kind == "numeric":
            if one.cut is None:
                faults.append(f"{one.column} is a number; say where to cut it, e.g. {one.column}: {{cut: [50, 65]}}")
            else:
                labels[one.column] = _cut(cohort.values[one.column].to_numpy(dtype=np.float64), one.cut, spec.unit)
        elif one.cut is not None:
            faults.append(f"{one.column} is not a number and cannot be cut; leave `cut` out")
        elif isinstance(spec, ColumnSpec) and spec.resolved_kind == "boolean":
            labels[one.column] = _yes_no(cohort.values[one.column].to_numpy(dtype=np.float64))
        else:
            labels[one.column] = _categories(cohort.values[one.column].to_numpy(dtype=object))
    if faults:
        raise StudyError("fairness.subgroups: " + "; ".join(faults))
    return labels


def _categories(values: NDArray[Any]) -> NDArray[Any]:
    known = [isinstance(value, str) and value != "" for value in values]
    return np.array([value if there else NOT_KNOWN for value, there in zip(values, known, strict=True)], dtype=object)


def _yes_no(values: NDArray[np.float64]) -> NDArray[Any]:
    return np.where(np.isnan(values), NOT_KNOWN, np.where(values > 0, "yes", "no")).astype(object)


def _cut(values: NDArray[np.float64], cut: tuple[float, ...], unit: str | None) -> NDArray[Any]:
    tail = "" if unit in (None, "1") else f" {'years' if unit == 'a' else unit}"
    names = [f"below {cut[0]:g}{tail}"]
    names += [f"{low:g} to below {high:g}{tail}" for low, high in pairwise(cut)]
    names.append(f"{cut[-1]:g}{tail} and above")
    place = np.searchsorted(np.asarray(cut), values, side="right")
    return np.where(np.isnan(values), NOT_KNOWN, np.array(names, dtype=object)[np.where(np.isnan(values), 0, place)])
