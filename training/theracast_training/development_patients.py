"""Who develops the model, before there are features."""

from __future__ import annotations

from pathlib import Path

from theracast_data.endpoints import table_endpoints
from theracast_data.table import read_cohort
from theracast_training.study import Study


def development_patients(study: Study, *, base: Path) -> frozenset[str]:
    """Return the patients with a decision at a development site.

    Where the decisions are the rows of a table, the event store is not opened: what is measured in images may be the first
    thing to go into it.

    Args:
        base: folder from which relative paths of the study count.

    Raises:
        TheracastError: the study's tables or events cannot be read, or no decision is left.
    """
    inputs, endpoints = study.inputs, study.endpoints
    if inputs.decisions is None:
        inputs, endpoints = inputs.model_copy(update={"events": None}), tuple(table_endpoints(endpoints))
    cohort = read_cohort(inputs, endpoints, base=base)
    own = cohort.at(study.development_sites(cohort.sites))
    return frozenset(own.decisions["subject_id"].astype(str))
