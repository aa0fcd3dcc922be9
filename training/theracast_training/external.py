"""Judging a model on decisions that it has never seen: external sites in training, and `theracast evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.errors import CohortError, SchemaError
from theracast_data.events.molar import analyte_scale
from theracast_data.sources import ColumnSpec
from theracast_data.table import cohort_from_frame, read_file
from theracast_models.folds import patient_numbers
from theracast_models.response_model import ResponseModel
from theracast_training.evaluation import evaluate_binary
from theracast_training.study import Study
from theracast_training.target import binary_endpoint, binary_target

THRESHOLDS = (0.2, 0.3, 0.5)


def evaluate_cohort(
    model: ResponseModel, cohort: Cohort, *, thresholds: Sequence[float], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Return the performance of a model on a cohort with known outcomes, as the artefact and the reports hold it."""
    target = binary_target(cohort, model.endpoint)
    known = target.known
    if not len(known):
        raise CohortError(
            f"no decision has a known {model.endpoint.name}. Name the outcome as in the study the model was trained on, or "
            "give --study with a study file that says how this file holds it."
        )
    prediction = model.predict_cohort(cohort.take(known))
    judged = target.take(known)
    return evaluate_binary(
        judged.y,
        prediction.probability,
        weight=judged.weight(target),
        group=patient_numbers(prediction.features.decisions),
        thresholds=thresholds,
        bootstrap=bootstrap,
        seed=seed,
    )


def evaluate_file(
    model: ResponseModel, path: Path, *, sheet: str | None = None, study: Study | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return the performance of a model on a file from elsewhere.

    Args:
        model: the model.
        path: CSV, XLSX, Parquet or JSON with the raw columns and the outcome.
        sheet: of an XLSX file.
        study: says how this file is to be read (units, missing codes, headers); by default as in training. Columns meet
            by their names inside Theracast.
        seed: of the bootstrap.

    Raises:
        SchemaError: the study given has no endpoint of the model's name.
        CohortError: no outcome is known.
    """
    inputs, endpoint, bootstrap = model.inputs, model.endpoint, 1000
    thresholds: Sequence[float] = THRESHOLDS
    if study is not None:
        inputs, thresholds, bootstrap = study.inputs, study.report.thresholds, study.report.bootstrap
        named = {one.name: one for one in study.endpoints}
        if endpoint.name not in named:
            raise SchemaError(
                f"study {study.study}: the model predicts {endpoint.name!r}, and the study has only {', '.join(named)}. "
                "Name its endpoint so."
            )
        endpoint = binary_endpoint(named[endpoint.name])
    frame = read_file(path, sheet=sheet)
    cohort = cohort_from_frame(frame, inputs, endpoints=[endpoint], site=sheet)
    if study is not None:
        cohort = _as_the_model_names_them(cohort, model)
    return evaluate_cohort(model, cohort, thresholds=thresholds, bootstrap=bootstrap, seed=seed)


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
    """Return the figures of one site as lines to read."""
    lines = [f"{figures['n']} decisions, {figures['events']} with the event"]
    names = ("auc", "auprc", "brier", "scaled_brier", "calibration_intercept", "calibration_slope", "ici")
    for name in names:
        value, low, high = figures.get(name), figures.get(f"{name}_low"), figures.get(f"{name}_high")
        if value is None:
            lines.append(f"{name:22} not estimable")
        else:
            interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
            lines.append(f"{name:22} {value:.3f}{interval}")
    lines += [f"note: {note}" for note in figures.get("notes", [])]
    return "\n".join(lines)
