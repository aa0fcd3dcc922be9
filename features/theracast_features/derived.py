"""Features computed from several columns: ratios, published scores, and what a column means under one treatment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.sources import ColumnSpec, OneHotSpec
from theracast_data.spelling import cell_text
from theracast_features.naming import label_from_name, nearest_name
from theracast_features.scores import published_score, unit_factor
from theracast_features.section import ClinicalSpec, FeatureSection, InteractionSpec, RatioSpec, ScoreSpec
from theracast_features.specs import FeatureSpec, FeatureTable, feature_name


@dataclass
class _Known:
    """Columns of the cohort, not capped, and the ratios made so far: what a later derived feature may use."""

    values: dict[str, pd.Series]
    units: dict[str, str | None]
    covariates: set[str] = field(default_factory=set)
    scales: dict[str, str] = field(default_factory=dict)
    levels: dict[str, set[str]] = field(default_factory=dict)
    labels: dict[str, str | None] = field(default_factory=dict)

    def check(self, names: list[str], *, place: str) -> None:
        """Return nothing if all are there and may be seen by a model."""
        faults = [
            f"{name!r} is a covariate, which no model may see"
            if name in self.covariates
            else f"there is no column {name!r}{nearest_name(name, self.values)}"
            for name in names
            if name not in self.values
        ]
        if faults:
            raise StudyError(
                f"features.derived, {place}: " + "; ".join(faults) + ". Use names of columns inside Theracast, or of "
                "ratios that stand before it in the list."
            )


def derived_features(cohort: Cohort, section: FeatureSection, *, given: Sequence[FeatureTable] = ()) -> FeatureTable:
    """Return the ratios and scores of the study, in its order; a score may use a ratio that stands before it.

    Args:
        given: features that are there already, by their names without prefix, e.g. `creatinine.last.30d`.

    Raises:
        StudyError: a name that is not there, a column that is not a number, or a unit that does not fit.
    """
    allowed = {name: spec for name, spec in cohort.columns.items() if spec.role == "feature"}
    known = _Known(
        values={name: cohort.values[name] for name in allowed},
        units={name: spec.unit if isinstance(spec, ColumnSpec) else None for name, spec in allowed.items()},
        covariates=set(cohort.columns) - set(allowed),
        scales={name: spec.transform for name, spec in allowed.items() if isinstance(spec, ColumnSpec)},
        levels={name: declared_levels(spec) for name, spec in allowed.items()},
        labels={name: spec.label for name, spec in allowed.items()},
    )
    for table in given if section.derived else ():
        for made in table.catalogue:
            bare = made.name.split(".", 1)[1]
            known.values[bare], known.units[bare] = table.frame[made.name], made.unit
            known.scales[bare], known.labels[bare] = made.transform, made.label
    catalogue: list[FeatureSpec] = []
    columns: list[pd.Series] = []
    for spec in section.derived:
        if isinstance(spec, RatioSpec):
            meaning, values = _ratio(spec, known)
            known.values[spec.name], known.units[spec.name] = values, spec.unit
        elif isinstance(spec, InteractionSpec):
            meaning, values = _interaction(spec, known)
        elif isinstance(spec, ClinicalSpec):
            meaning, values = _clinical(spec, known)
        else:
            meaning, values = _score(spec, known)
        catalogue.append(meaning)
        columns.append(values)
    # Two features of one name are told apart, and refused, when all builders' tables come together.
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=cohort.values.index)
    return FeatureTable(
        frame=frame.set_axis([meaning.name for meaning in catalogue], axis=1),
        catalogue=tuple(catalogue),
        decisions=cohort.decisions,
    )


def _ratio(spec: RatioSpec, known: _Known) -> tuple[FeatureSpec, pd.Series]:
    """Return numerator / denominator, clipped to the cap; where no unit is given, both are brought to the same one."""
    known.check([spec.numerator, spec.denominator], place=spec.name)
    above, below = known.values[spec.numerator], known.values[spec.denominator]
    for name, column in ((spec.numerator, above), (spec.denominator, below)):
        if not pd.api.types.is_numeric_dtype(column):
            raise StudyError(f"features.derived, {spec.name}: {name!r} is not a number; a ratio needs numeric columns.")
    unit_above, unit_below = known.units[spec.numerator], known.units[spec.denominator]
    factor = 1.0
    if spec.unit is None and unit_above is not None and unit_below is not None:
        factor = _common_unit(spec, unit_above, unit_below)
    divisor = below.astype(np.float64).where(below != 0)
    lower, upper = spec.cap_range
    meaning = FeatureSpec(
        name=feature_name(spec.modality, spec.name),
        modality=spec.modality,
        kind="numeric",
        unit=spec.unit,
        label=spec.label or label_from_name(spec.name),
        columns=(spec.numerator, spec.denominator),
        role="derived",
        transform=spec.transform,
        source=spec.source,
    )
    return meaning, (factor * above.astype(np.float64) / divisor).clip(lower=lower, upper=upper)


def _common_unit(spec: RatioSpec, above: str, below: str) -> float:
    """Return the factor that brings the numerator to the unit of the denominator."""
    from theracast_data.units import UnitError  # its unit library takes long to import and is seldom needed

    try:
        return unit_factor(above, below, quantity=spec.name)
    except UnitError as error:
        raise StudyError(
            f"features.derived, {spec.name}: {spec.numerator} is in {above}, {spec.denominator} in {below}; neither "
            "can be converted into the other. If the ratio is meant to have a unit, give it: unit: ..."
        ) from error


def declared_levels(spec: ColumnSpec | OneHotSpec) -> set[str]:
    """Return the categories that the study declares for a column; none where it declares no categories."""
    if isinstance(spec, OneHotSpec):
        return set(spec.columns.values())
    if spec.levels is None or spec.resolved_kind != "categorical":
        return set()
    return {cell_text(one) for one in (spec.levels.values() if isinstance(spec.levels, dict) else spec.levels)}


def _interaction(spec: InteractionSpec, known: _Known) -> tuple[FeatureSpec, pd.Series]:
    """Return the column, on its scale and less the centre, where the category is the level; 0 in other categories."""
    known.check([spec.column, spec.category], place=spec.name)
    column, category = known.values[spec.column], known.values[spec.category]
    if not pd.api.types.is_numeric_dtype(column):
        raise StudyError(f"features.derived, {spec.name}: {spec.column!r} is not a number; give a numeric column.")
    levels = known.levels.get(spec.category, set())
    if spec.level not in levels:
        raise StudyError(
            f"features.derived, {spec.name}: {spec.category!r} has no level {spec.level!r}. Its levels in the study are: "
            f"{', '.join(sorted(levels)) or 'none'}."
        )
    values, centre = column.astype(np.float64), spec.centre
    if known.scales.get(spec.column) == "log1p":
        values, centre = np.log1p(values.clip(lower=0.0)), float(np.log1p(max(centre, 0.0)))
    inside = (category == spec.level).to_numpy(dtype=bool, na_value=False)
    meaning = FeatureSpec(
        name=feature_name(spec.modality, spec.name),
        modality=spec.modality,
        kind="numeric",
        label=spec.label or f"{known.labels.get(spec.column) or label_from_name(spec.column)}, under {spec.level}",
        columns=(spec.column, spec.category),
        role="derived",
    )
    return meaning, (values - centre).where(inside, 0.0).where(category.notna())


def _score(spec: ScoreSpec, known: _Known) -> tuple[FeatureSpec, pd.Series]:
    """Return the log-odds of a published score; missing where one of its inputs is."""
    score = published_score(spec.score)
    columns = [spec.inputs.get(name, name) for name in score.inputs]
    known.check(columns, place=f"score {spec.score}")
    frame = pd.DataFrame({name: known.values[name] for name in columns})
    log_odds = score.log_odds(frame, inputs=spec.inputs, units=known.units)
    meaning = FeatureSpec(
        name=feature_name("clinical", score.name),
        modality="clinical",
        kind="numeric",
        label=f"{score.label} (log-odds)",
        columns=tuple(columns),
        role="derived",
        source=score.source,
    )
    return meaning, pd.Series(log_odds, index=frame.index)


def _clinical(spec: ClinicalSpec, known: _Known) -> tuple[FeatureSpec, pd.Series]:
    """Return a clinical formula; missing where one of its inputs is."""
    from theracast_features.events.derived import DERIVED_SCORES, derived_score

    score = DERIVED_SCORES.get(spec.score)
    arguments = [name for name in (score.inputs if score else ()) if name not in spec.constants]
    columns = [spec.inputs.get(name, name) for name in arguments]
    known.check(columns, place=spec.name or spec.score)
    frame = pd.DataFrame({name: known.values[name] for name in columns})
    values = derived_score(spec.score, frame, units=known.units, inputs=spec.inputs, constants=spec.constants)
    made = DERIVED_SCORES[spec.score]
    meaning = FeatureSpec(
        name=feature_name(made.modality, spec.name or spec.score),
        modality=made.modality,
        kind="numeric",
        unit=made.unit,
        label=made.label if spec.name is None else f"{made.label} ({label_from_name(spec.name)})",
        columns=tuple(columns),
        role="derived",
        transform=spec.transform,
        source=made.source,
    )
    return meaning, values
