"""Judging a model on decisions that it has never seen: external sites in training, and `theracast evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.errors import CohortError, SchemaError
from theracast_data.events.molar import analyte_scale
from theracast_data.sources import ColumnSpec, Inputs
from theracast_data.table import cohort_from_frame, read_cohort, read_file
from theracast_models.folds import patient_numbers
from theracast_models.links import Asked, HazardLink
from theracast_models.response_model import ResponseModel
from theracast_training.comparisons import Judged, evaluate_target
from theracast_training.study import Study
from theracast_training.target import target_of

THRESHOLDS = (0.2, 0.3, 0.5)


def evaluate_cohort(
    model: ResponseModel,
    cohort: Cohort,
    *,
    thresholds: Sequence[float],
    bootstrap: int,
    seed: int,
    endpoint: Endpoint | None = None,
) -> dict[str, Any]:
    """Return the performance of a model on a cohort with known outcomes, as the artefact and the reports hold it.

    Args:
        endpoint: how the cohort's outcome was read, where not as the model's.
    """
    link = model.calibrated.calibration
    like = Asked(link.horizons) if isinstance(link, HazardLink) else None
    target = target_of(cohort, endpoint or model.endpoint, like=like)
    known = target.known
    if not len(known):
        raise CohortError(
            f"no decision has a known {model.endpoint.name}. Name the outcome as in the study the model was trained on, or "
            "give --study with a study file that says how this file holds it."
        )
    prediction = model.predict_cohort(cohort.take(known))
    answer = prediction.answer
    linear = answer.base + answer.contributions.sum(axis=1).to_numpy()
    return evaluate_target(
        target.take(known),
        Judged(known, answer.estimate, linear, answer.estimates),
        reference=target,
        group=patient_numbers(prediction.features.decisions),
        thresholds=thresholds,
        bootstrap=bootstrap,
        seed=seed,
    )


def evaluate_file(
    model: ResponseModel,
    path: Path | None,
    *,
    sheet: str | None = None,
    study: Study | None = None,
    base: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the performance of a model on data from elsewhere.

    Args:
        model: the model.
        path: CSV, XLSX, Parquet or JSON with the raw columns and the outcome; without it, the study's own sources and
            events are read.
        sheet: of an XLSX file.
        study: says how the data are to be read (units, missing codes, headers, codes of concepts); by default as in
            training. Columns, concepts and attributes meet by their names inside Theracast.
        base: folder from which relative paths of the study count.
        seed: of the bootstrap.

    Raises:
        SchemaError: neither file nor study; the study given has no endpoint of the model's name, or no events although
            the model needs them.
        CohortError: no outcome is known.
    """
    inputs, endpoint, bootstrap = model.inputs, model.endpoint, 1000
    thresholds: Sequence[float] = THRESHOLDS
    if study is not None:
        inputs, thresholds, bootstrap = inputs_elsewhere(model, study), study.report.thresholds, study.report.bootstrap
        named = {one.name: one for one in study.endpoints}
        if endpoint.name not in named:
            raise SchemaError(
                f"study {study.study}: the model predicts {endpoint.name!r}, and the study has only {', '.join(named)}. "
                "Name its endpoint so."
            )
        endpoint = named[endpoint.name]
    if path is not None:
        cohort = cohort_from_frame(read_file(path, sheet=sheet), inputs, endpoints=[endpoint], site=sheet)
    elif study is not None:
        cohort = read_cohort(inputs, [endpoint], base=base or Path())
    else:
        raise SchemaError(
            "there is nothing to judge the model on. Give FILE, or --study with a study that has its own data."
        )
    if study is not None:
        cohort = _as_the_model_names_them(cohort, model)
    return evaluate_cohort(model, cohort, endpoint=endpoint, thresholds=thresholds, bootstrap=bootstrap, seed=seed)


def inputs_elsewhere(model: ResponseModel, study: Study) -> Inputs:
    """Return how the study's data are read for the model: its files, store and codes, and the model's concepts and rules.

    A concept of the model that the study names too has the study's codes and the model's unit and ranges. Attributes,
    decisions and landmarks that the study does not name are the model's own.

    Raises:
        SchemaError: the model needs events, and the study does not say where they lie.
    """
    own, theirs = model.inputs, study.inputs
    if own.events is None:
        return theirs
    if theirs.events is None:
        raise SchemaError(
            f"study {study.study}: the model is made from events, and the study has no `events` section. Add it with the "
            f"store, and the codes of these concepts where they differ: {', '.join(own.events.concepts) or 'none'}."
        )
    concepts = dict(theirs.events.concepts)
    for name, concept in own.events.concepts.items():
        known = concepts.get(name)
        told = {} if known is None else {"codes": known.codes, "assume_unit": known.assume_unit or concept.assume_unit}
        concepts[name] = concept.model_copy(update=told)
    decisions = theirs.decisions
    if decisions is not None and own.decisions is not None:
        merged = {
            "attributes": {**own.decisions.attributes, **decisions.attributes},
            "landmarks": decisions.landmarks or own.decisions.landmarks,
        }
        decisions = decisions.model_copy(update=merged)
    return theirs.model_copy(
        update={"events": theirs.events.model_copy(update={"concepts": concepts}), "decisions": decisions}
    )


def _as_the_model_names_them(cohort: Cohort, model: ResponseModel) -> Cohort:
    """Return the cohort with the model's columns, in the model's units; what the study does not name is missing."""
    wanted = model.inputs.meanings
    values = {}
    for name, spec in wanted.items():
        column = cohort.values[name] if name in cohort.values else pd.Series(np.nan, index=cohort.values.index)
        found = cohort.columns.get(name)
        if isinstance(spec, ColumnSpec) and isinstance(found, ColumnSpec) and spec.unit and found.unit:
            slope, offset = analyte_scale(found.unit, spec.unit, quantity=name)
            column = column if (slope, offset) == (1.0, 0.0) else slope * column + offset
        values[name] = column
    return replace(cohort, values=pd.DataFrame(values), columns=wanted)


def evaluation_text(figures: Mapping[str, Any]) -> str:
    """Return the figures of one site as lines to read: of the leading answer, and of the kind of its endpoint."""
    events = figures.get("events")
    lines = [f"{figures['n']} decisions" + ("" if events is None else f", {events} with the event")]
    for part, names in _FIGURES.items():
        own = figures if part is None else figures.get(part) or {}
        lines += [_figure_line(name, own) for name in names if name in own]
    lines += [f"note: {note}" for note in figures.get("notes", [])]
    return "\n".join(lines)


_FIGURES: dict[str | None, tuple[str, ...]] = {
    None: (
        *("auc", "auprc", "brier", "scaled_brier", "r2", "rmse", "mae", "spearman"),
        *("calibration_intercept", "calibration_slope", "ici"),
    ),
    "survival": ("c_harrell", "c_uno", "ibs"),
    "ordinal": ("c_ordinal", "rps", "kappa_quadratic"),
}
"""What is told of a site: of the record itself, and of its parts for times to an event and ordered levels."""


def _figure_line(name: str, figures: Mapping[str, Any]) -> str:
    value, low, high = figures.get(name), figures.get(f"{name}_low"), figures.get(f"{name}_high")
    if value is None:
        return f"{name:22} not estimable"
    interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
    return f"{name:22} {value:.3f}{interval}"
