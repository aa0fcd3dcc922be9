"""Features from typed table columns: clinical, lab, genomic, ... values, capped, one column each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.sources import ColumnSpec, OneHotSpec
from theracast_features.naming import label_from_name, nearest_name
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable, feature_name


def static_names(cohort: Cohort, section: FeatureSection) -> list[str]:
    """Return the columns that become features, in the order of the study's columns.

    Raises:
        StudyError: `include` or `exclude` names a column that is not there, or a covariate.
    """
    features = [name for name, spec in cohort.columns.items() if spec.role == "feature"]
    check_names(cohort, section.include or (), place="include")
    check_names(cohort, section.exclude, place="exclude", covariates=True)
    wanted = set(features if section.include is None else section.include) - set(section.exclude)
    return [name for name in features if name in wanted]


def check_names(cohort: Cohort, names: tuple[str, ...], *, place: str, covariates: bool = False) -> None:
    """Return nothing if all are names of columns that a model may see.

    Raises:
        StudyError: every name that is not, with the nearest one.
    """
    faults = []
    for name in names:
        if name not in cohort.columns:
            faults.append(f"there is no column {name!r}{nearest_name(name, cohort.columns)}")
        elif cohort.columns[name].role == "covariate" and not covariates:
            faults.append(f"{name!r} is a covariate, which no model may see; give it role: feature or leave it out")
    if faults:
        raise StudyError(f"features.{place}: " + "; ".join(faults) + ". Use the names inside Theracast.")


def static_features(cohort: Cohort, names: list[str]) -> FeatureTable:
    """Return these columns as features: numbers clipped to their caps, categories as str, yes/no as 0/1."""
    catalogue = tuple(static_spec(name, cohort.columns[name]) for name in names)
    numeric = [spec.columns[0] for spec in catalogue if spec.kind != "categorical"]
    caps = [_caps(cohort.columns[name]) for name in numeric]
    lower, upper = np.array(caps, dtype=np.float64).reshape(len(numeric), 2).T
    numbers = np.clip(cohort.values[numeric].to_numpy(dtype=np.float64), lower, upper)
    frame = pd.DataFrame(numbers, index=cohort.values.index, columns=numeric)
    categories = {
        spec.columns[0]: cohort.values[spec.columns[0]].astype("str")
        for spec in catalogue
        if spec.kind == "categorical"
    }
    if categories:
        frame = pd.concat([frame, pd.DataFrame(categories, index=frame.index)], axis=1)[names]
    return FeatureTable(
        frame=frame.set_axis([spec.name for spec in catalogue], axis=1), catalogue=catalogue, decisions=cohort.decisions
    )


def missing_indicators(cohort: Cohort, names: tuple[str, ...]) -> FeatureTable:
    """Return for each of these columns 1.0 where it was not measured, else 0.0.

    Raises:
        StudyError: a name that is not a column, or a covariate.
    """
    check_names(cohort, names, place="missing_indicators")
    catalogue = tuple(
        FeatureSpec(
            name=feature_name(spec.modality, name, "missing"),
            modality=spec.modality,
            kind="boolean",
            label=f"{spec.label or label_from_name(name)} not measured",
            columns=(name,),
            role="indicator",
        )
        for name, spec in ((name, cohort.columns[name]) for name in names)
    )
    frame = cohort.values[list(names)].isna().astype(np.float64)
    return FeatureTable(
        frame=frame.set_axis([spec.name for spec in catalogue], axis=1), catalogue=catalogue, decisions=cohort.decisions
    )


def static_spec(name: str, spec: ColumnSpec | OneHotSpec) -> FeatureSpec:
    """Return what the feature made from this column means."""
    column = spec if isinstance(spec, ColumnSpec) else None
    return FeatureSpec(
        name=feature_name(spec.modality, name),
        modality=spec.modality,
        kind=column.resolved_kind if column else "categorical",
        unit=column.unit if column else None,
        label=spec.label or label_from_name(name),
        columns=(name,),
        code=spec.code,
        transform=column.transform if column else "none",
        levels=_levels(spec),
    )


def _levels(spec: ColumnSpec | OneHotSpec) -> tuple[str, ...] | None:
    if isinstance(spec, OneHotSpec):
        return tuple(dict.fromkeys(spec.columns.values()))
    if spec.resolved_kind != "categorical" or spec.levels is None:
        return None
    levels = spec.levels.values() if isinstance(spec.levels, dict) else spec.levels
    return tuple(dict.fromkeys(str(level) for level in levels))


def _caps(spec: ColumnSpec | OneHotSpec) -> tuple[float, float]:
    lower, upper = spec.cap_range if isinstance(spec, ColumnSpec) else (None, None)
    return (-np.inf if lower is None else lower), (np.inf if upper is None else upper)
