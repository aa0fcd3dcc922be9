"""From a cohort to one feature table: every builder's columns side by side, one row per decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.errors import CohortError, StudyError
from theracast_data.events.access import CohortEvents
from theracast_features.derived import derived_features
from theracast_features.events.builder import EventBuilder, event_tables
from theracast_features.events.comorbidity import ComorbidityBuilder
from theracast_features.events.genes import GeneBuilder
from theracast_features.events.growth import GrowthBuilder
from theracast_features.events.kelim import KelimBuilder
from theracast_features.events.kinetics import MarkerBuilder
from theracast_features.events.recist import RecistBuilder
from theracast_features.events.therapy import TherapyBuilder
from theracast_features.harmonise import with_scanners
from theracast_features.naming import nearest_name
from theracast_features.pictures import with_pictures
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable
from theracast_features.static import missing_indicators, static_features, static_names

AUTO_MISSING = (0.02, 0.98)


def build_features(cohort: Cohort, section: FeatureSection) -> FeatureTable:
    """Return one row per decision: values, then derived features, then missing indicators.

    Nothing is estimated here and no decision looks at another: a row is the same alone and among others.

    Raises:
        StudyError: an unknown name, two features of one name, or `missing_indicators: auto` that was not resolved.
    """
    if section.missing_indicators == "auto":
        raise StudyError(
            "features.missing_indicators is still `auto`: which columns it means is learnt from the development "
            "decisions. Call resolve_section(section, development) first."
        )
    indicators = () if section.missing_indicators == "none" else section.missing_indicators
    events = _event_tables(cohort, section)
    table = merge_tables(
        [
            static_features(cohort, static_names(cohort, section)),
            *events,
            derived_features(cohort, section, given=events),
            missing_indicators(cohort, indicators),
        ]
    )
    return with_pictures(with_scanners(table, cohort, section), cohort, section)


def _event_tables(cohort: Cohort, section: FeatureSection) -> list[FeatureTable]:
    if not section.reads_events:
        return []
    if cohort.events is None:
        raise ValueError("the cohort was read without its events")
    return event_tables(cohort, event_builders(section, cohort.events))


def event_builders(section: FeatureSection, events: CohortEvents) -> list[EventBuilder]:
    """Return what makes features from events, in the order of their columns.

    Raises:
        StudyError: a concept that the study does not define, or one that does not suit its builder.
    """
    concepts = events.concepts
    unknown = [
        f"{key}: {name!r}{nearest_name(name, concepts)}"
        for name, key in section.concepts.items()
        if name not in concepts
    ]
    if unknown:
        raise StudyError(f"no such concept: {'; '.join(unknown)}. Define it in events.concepts, or correct its name.")
    builders: list[EventBuilder] = []
    if section.events:
        from theracast_features.events.aggregates import AggregateBuilder  # DuckDB takes a moment to load

        builders.append(AggregateBuilder(section.events, concepts, engine=events.engine))
    builders += [TherapyBuilder(section.therapy)] if section.therapy else []
    builders += [MarkerBuilder(one, concepts) for one in section.markers]
    builders += [KelimBuilder(section.kelim, concepts)] if section.kelim else []
    builders += [RecistBuilder(one, concepts) for one in section.recist]
    builders += [GrowthBuilder(one, concepts) for one in section.growth]
    builders += [ComorbidityBuilder(section.comorbidity)] if section.comorbidity else []
    builders += [GeneBuilder(section.genes)] if section.genes else []
    if section.images:
        from theracast_features.events.images import image_builders

        builders += image_builders(section.images, engine=events.engine)
    return builders


def merge_tables(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Return the tables of several builders over the same decisions side by side.

    Raises:
        StudyError: two features have the same name.
    """
    catalogue = tuple(spec for table in tables for spec in table.catalogue)
    _check_distinct([spec.name for spec in catalogue])
    filled = [table.frame for table in tables if table.catalogue] or [tables[0].frame]
    frame = filled[0] if len(filled) == 1 else pd.concat(filled, axis=1)
    return FeatureTable(frame=frame, catalogue=catalogue, decisions=tables[0].decisions)


def resolve_section(section: FeatureSection, development: Cohort) -> FeatureSection:
    """Return the section with `missing_indicators: auto` replaced by names: missing in 2 to 98 % of these decisions.

    Raises:
        CohortError: there is no decision to learn it from.
    """
    if section.missing_indicators != "auto":
        return section
    if len(development) == 0:
        raise CohortError(
            "there is no development decision from which `missing_indicators: auto` could be learnt. "
            "Check validation.development in the study, or name the columns."
        )
    names = static_names(development, section)
    share = development.values[names].isna().mean()
    low, high = AUTO_MISSING
    chosen = tuple(name for name in names if low <= share[name] <= high)
    return section.model_copy(update={"missing_indicators": chosen})


def _check_distinct(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise StudyError(
            f"features: {', '.join(twice)} would be made twice. Give the derived feature another name, or list each "
            "name once."
        )
