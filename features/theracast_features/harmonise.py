"""Which features are harmonised over which scanners: said in the catalogue and beside the decisions, done by the model."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.sources import ColumnSpec
from theracast_features.events.texts import last_texts
from theracast_features.imaging.section import SCANNER, measure_code
from theracast_features.naming import nearest_name
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable

IMAGES = "images."


def with_scanners(table: FeatureTable, cohort: Cohort, section: FeatureSection) -> FeatureTable:
    """Return the table whose catalogue names the batch of each harmonised feature, and whose decisions hold the batches.

    The column `batch.NAME` of the decisions is the scanner as known at the index time, None where it is not known.

    Raises:
        StudyError: a batch or a feature that is not there, one that is no number, or one in two batches.
    """
    if not section.harmonise:
        return table
    batch_of: dict[str, str] = {}
    columns: dict[str, NDArray[Any]] = {}
    numbers = {spec.name for spec in table.catalogue if spec.kind == "numeric"}
    for one in section.harmonise:
        column = f"batch.{one.batch}"
        columns[column] = _scanners(one.batch, cohort, section)
        for pattern in one.features:
            chosen = [spec.name for spec in table.catalogue if fnmatchcase(spec.name, pattern)]
            if not set(chosen) & numbers or ("*" not in pattern and pattern not in numbers):
                raise StudyError(f"features.harmonise: no number is named {pattern!r}{nearest_name(pattern, numbers)}.")
            for name in numbers.intersection(chosen):
                if batch_of.setdefault(name, column) != column:
                    raise StudyError(f"features.harmonise: {name} belongs to two batches. Name it under one of them.")
    return replace(
        table,
        catalogue=tuple(replace(spec, batch=batch_of.get(spec.name)) for spec in table.catalogue),
        decisions=table.decisions.assign(**{name: pd.array(cells, dtype="str") for name, cells in columns.items()}),
    )


def _scanners(batch: str, cohort: Cohort, section: FeatureSection) -> NDArray[Any]:
    if batch in cohort.values:
        meaning = cohort.columns.get(batch)
        if isinstance(meaning, ColumnSpec) and meaning.resolved_kind == "numeric":
            raise StudyError(
                f"features.harmonise: the column {batch!r} is read as a number, so the names of scanners in it are lost. Say "
                "`kind: categorical` of it, and `role: covariate` if it shall not become a feature."
            )
        return np.array([None if pd.isna(cell) else str(cell) for cell in cohort.values[batch]], dtype=object)
    name = batch.removeprefix(IMAGES)
    if not batch.startswith(IMAGES) or name not in section.images:
        known_names = [*cohort.values, *(f"{IMAGES}{one}" for one in section.images)]
        raise StudyError(f"features.harmonise: there is no column {batch!r}{nearest_name(batch, known_names)}.")
    return last_texts(cohort, measure_code(name, section.images[name].measures, SCANNER))
