"""From a study to the patients who are compared: who is in which arm, what is known of them, what became of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.errors import CohortError, StudyError
from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.naming import nearest_name
from theracast_features.specs import FeatureTable
from theracast_features.wide import read_features
from theracast_models.folds import patient_numbers
from theracast_training.effects.outcome import Outcome, read_outcome, require_follow_up
from theracast_training.effects.section import Subgroup, TreatmentSection
from theracast_training.study import Study

logger = logging.getLogger(__name__)

Rows = NDArray[np.intp]
LEAST_IN_ARM = 40
"""Patients an arm must have: below, models within folds learn from a handful."""


@dataclass(frozen=True)
class Arms:
    """The patients who are compared, one row each.

    Attributes:
        table: n patients x p features, without the treatment.
        arm: (n,) the patient's arm.
        outcome: of the n patients.
        values: (n, ...) the cohort's typed columns, for subgroups and strata.
        left_out: reason to the number of patients.
        columns: name of a column to its label.
    """

    table: FeatureTable
    arm: NDArray[np.object_]
    outcome: Outcome
    values: pd.DataFrame
    left_out: Mapping[str, int]
    columns: Mapping[str, str]

    def take(self, rows: Rows) -> Arms:
        """Return these patients."""
        return Arms(
            self.table.take(rows),
            self.arm[rows],
            self.outcome.take(rows),
            self.values.iloc[rows].reset_index(drop=True),
            self.left_out,
            self.columns,
        )


def read_arms(study: Study, *, base: Path, cache: Path | None = None) -> Arms:
    """Return the patients of a study's development sites who are in one of its arms and whose outcome is known.

    Args:
        study: a study with a `treatment` section.
        base: folder from which relative paths of the study count.
        cache: folder for the features of events in parts; None: nothing is kept.

    Raises:
        StudyError: there is no such section, or it names what is not there.
        CohortError: an arm has too few patients, or a patient stands in several rows.
    """
    section = require_section(study)
    name = section.endpoint or study.endpoint.name
    endpoint = next(one for one in study.endpoints if one.name == name)
    cohort = read_cohort(study.inputs, study.endpoints, base=base)
    cohort = cohort.at(study.development_sites(cohort.sites))
    _check_columns(section, cohort)
    arm = _arms(cohort, study, section)
    outcome = read_outcome(cohort, endpoint, section)
    inside = arm != ""
    rows = np.flatnonzero(inside & outcome.known)
    left_out = {
        "in no arm of the comparison": int((~inside).sum()),
        "outcome not known": int((inside & ~outcome.known).sum()),
    }
    if len(np.unique(patient_numbers(cohort.decisions.iloc[rows]))) < len(rows):
        raise CohortError(
            "Some patients stand in several rows of the comparison. Effects are compared between patients: keep one decision "
            "a patient, e.g. with `include` of the source, or one landmark day."
        )
    features = resolve_section(study.features, cohort)
    if cohort.events is None or cache is None:
        table = build_features(cohort, features)
    else:
        table = read_features(cohort, features, cache=cache)
    table = without_treatment(table, study, section)
    labels = {key: spec.label or key.replace("_", " ") for key, spec in cohort.columns.items()}
    found = Arms(table, arm, outcome, cohort.values, {key: n for key, n in left_out.items() if n}, labels).take(rows)
    for one in section.arms:
        count = int((found.arm == one).sum())
        if count < LEAST_IN_ARM:
            raise CohortError(
                f"treatment.arms: {count} patients with a known outcome are in arm {one!r}; at least {LEAST_IN_ARM} are needed. "
                f"The column says: {', '.join(sorted(set(_cells(cohort, study, section)) - {''})[:10])}."
            )
    require_follow_up(found.outcome, found.arm, arms=tuple(section.arms))
    logger.info("%d patients in %d arms are compared", len(rows), len(section.arms))
    return found


def require_section(study: Study) -> TreatmentSection:
    """Return the study's treatment section.

    Raises:
        StudyError: there is none.
    """
    if study.treatment is None:
        raise StudyError(
            f"{study.study}: the study has no `treatment` section, which says what the arms are, which is the control, and "
            "whether chance assigned them. Add one: treatment: {column: ..., arms: {...}, control: ..., assignment: ...}."
        )
    return study.treatment


def without_treatment(table: FeatureTable, study: Study, section: TreatmentSection) -> FeatureTable:
    """Return the features that do not tell the treatment: they must be known before it is chosen."""
    names = _treatment_names(study, section)
    kept = [spec.name for spec in table.catalogue if spec.role != "picture" and not names & set(spec.columns)]
    if not kept:
        raise StudyError("features: nothing is left beside the treatment. Name columns that are known before it.")
    return table.select(kept)


def subgroup_rows(values: pd.DataFrame, subgroup: Subgroup) -> NDArray[np.float64]:
    """Return (n,) 1 in the subgroup, 0 outside, NaN where it is not known."""
    column = values[subgroup.column]
    known = column.notna().to_numpy()
    if subgroup.values:
        inside = np.isin(_texts(column), subgroup.values)
    else:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        low = -np.inf if subgroup.at_least is None else subgroup.at_least
        high = np.inf if subgroup.at_most is None else subgroup.at_most
        inside = (numbers >= low) & (numbers <= high)
    return np.where(known, inside.astype(np.float64), np.nan)


def strata_of(values: pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.object_] | None:
    """Return (n,) one text a combination of the strata; what is missing is a stratum of its own."""
    if not names:
        return None
    parts = [_texts(values[name]) for name in names]
    return np.array(["\x1f".join(row) for row in zip(*parts, strict=True)], dtype=object)


def _texts(column: pd.Series[Any]) -> NDArray[np.object_]:
    """Return (n,) cells as texts: 0 rather than 0.0; a missing one is empty."""
    return np.array(
        ["" if pd.isna(one) else f"{one:g}" if isinstance(one, float) else str(one) for one in column], dtype=object
    )


def _cells(cohort: Cohort, study: Study, section: TreatmentSection) -> NDArray[np.object_]:
    if section.column in {"$treatment", "$site"}:
        return _texts(cohort.decisions[section.column[1:]])
    name = _inside_name(study, section.column)
    if name is None or name not in cohort.values:
        known = [*cohort.values.columns]
        raise StudyError(
            "treatment.column: name one of the source's `columns`, or `$treatment` or `$site`. There is no column "
            f"{section.column!r}{nearest_name(section.column, known)}"
        )
    return _texts(cohort.values[name])


def _arms(cohort: Cohort, study: Study, section: TreatmentSection) -> NDArray[np.object_]:
    return np.array([section.arm_of(cell) or "" for cell in _cells(cohort, study, section)], dtype=object)


def _inside_name(study: Study, column: str) -> str | None:
    """Return the name inside Theracast of a column given by its header or name."""
    for source in study.inputs.tables:
        names = list(source.meanings)
        for header, name in zip(source.columns, names, strict=False):
            if column in (header, name):
                return name
        if column in source.meanings:
            return column
    return None


def _treatment_names(study: Study, section: TreatmentSection) -> set[str]:
    """Return the names of columns that tell the treatment."""
    headers = [source.treatment for source in study.inputs.tables if source.treatment]
    if section.column not in {"$treatment", "$site"}:
        headers.append(section.column)
    return {name for name in (_inside_name(study, header) for header in headers) if name is not None}


def _check_columns(section: TreatmentSection, cohort: Cohort) -> None:
    known = list(cohort.values.columns)
    wanted = [("strata", name) for name in section.strata] + [("subgroups", one.column) for one in section.subgroups]
    wrong = [f"treatment.{key}: {name!r}{nearest_name(name, known)}" for key, name in wanted if name not in known]
    if wrong:
        raise StudyError(f"Use names of columns inside Theracast; unknown: {'; '.join(wrong)}")
