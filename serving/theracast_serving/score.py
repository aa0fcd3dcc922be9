"""Score raw rows with one model, and say which of their columns it does not use."""

from __future__ import annotations

import difflib

import pandas as pd

from theracast_data.endpoint_values import endpoint_columns
from theracast_data.errors import SchemaError
from theracast_data.events.access import EVENTS_COLUMN
from theracast_data.sources import Inputs, OneHotSpec, TableSource, snake_case
from theracast_data.spelling import header_key
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel


def score_frame(model: ResponseModel, frame: pd.DataFrame, site: str | None = None) -> Prediction:
    """Return the answers for n raw rows: the one way by which command line, REST and sheet score.

    Args:
        model: a loaded model.
        frame: one row per decision, cells as they came; columns in any order, some may be absent.
        site: where the patients are treated, where the table does not say it.

    Raises:
        SchemaError: the table has no row, or none of the model's columns.
    """
    if not len(frame):
        raise SchemaError("the table has no row; there is nothing to score. Give at least one patient.")
    unused = unknown_columns(model, frame)
    if len(unused) == len(frame.columns):
        expected = ", ".join(repr(name) for name in expected_columns(model.inputs)[:12])
        raise SchemaError(
            f"none of the table's {len(unused)} columns is known to this model. It expects columns such as {expected}."
        )
    return model.predict(frame, site=site)


def expected_columns(inputs: Inputs) -> list[str]:
    """Return the raw headers that carry what the model reads, in the order of the study."""
    headers = [
        header
        for source in inputs.tables
        for header in [*source.columns, *(name for group in source.one_hot for name in group.columns)]
    ]
    return list(dict.fromkeys(headers + ([] if inputs.events is None else [EVENTS_COLUMN])))


def unknown_columns(model: ResponseModel, frame: pd.DataFrame) -> list[str]:
    """Return the columns of a raw table that mean nothing to the model, under any spelling. It knows the outcomes."""
    headers = [header for source in model.inputs.tables for header in _headers(source)]
    headers += [] if model.inputs.events is None else [EVENTS_COLUMN]
    headers += endpoint_columns([head.endpoint for head in model.heads])
    known = {key(header) for header in headers for key in (snake_case, header_key)}
    return [name for name in map(str, frame.columns) if not known & {snake_case(name), header_key(name)}]


def describe_unknown(inputs: Inputs, columns: list[str]) -> list[str]:
    """Return a sentence per unused column, with the expected header that it most resembles."""
    expected = {header.lower(): header for header in expected_columns(inputs)}
    sentences = []
    for column in columns:
        near = difflib.get_close_matches(column.lower(), expected, n=1, cutoff=0.75)
        hint = f" Did you mean {expected[near[0]]!r}?" if near else ""
        sentences.append(f"The column {column!r} is not known to this model and was not used.{hint}")
    return sentences


def _headers(source: TableSource) -> list[str]:
    """Every header that a table may rightly hold: columns by all their names, keys and what include-rules read."""
    keys = [source.subject, source.site, source.index_time, source.treatment, source.calendar, *source.include]
    headers = [key for key in keys if key] + ["subject_id", "site", "index_time", "treatment", "calendar"]
    for name, spec in source.meanings.items():
        headers += [name, *spec.aliases]
        if isinstance(spec, OneHotSpec):
            headers += list(spec.columns)
    return headers + list(source.columns)
