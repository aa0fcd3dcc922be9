"""Events from datasets in the Medical Event Data Standard.

Source: https://github.com/Medical-Event-Data-Standard/meds (schema 0.4): a folder with `data/**/*.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from theracast_data.errors import SchemaError
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA
from theracast_data.section import Section
from theracast_data.spelling import listed

_REQUIRED = ("subject_id", "time", "code")


class MedsOptions(Section):
    """A dataset in the Medical Event Data Standard."""

    kind: Literal["meds"] = "meds"
    name: str | None = Field(None, description="Name of the source; by default the folder's name.")
    path: str = Field(description="Folder with data/**/*.parquet; ${VARIABLE} is taken from the environment.")


def read_meds(path: Path, *, report: IngestReport, batch_rows: int = 200_000) -> Iterator[pa.Table]:
    """Return the events of a MEDS dataset, batch by batch.

    Identifiers become text and values double precision; `unit` and `available_time` are taken where they are. Columns
    beyond the schema are counted in the report. So are a row without patient or code, and a file that cannot be read.

    Raises:
        SchemaError: the folder holds no dataset.
    """
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise SchemaError(
            f"{path}: there is no MEDS dataset here: no data/**/*.parquet. Name the folder that holds data/."
        )
    for file in files:
        yield from _file_events(file, str(file.relative_to(path)), report=report, batch_rows=batch_rows)


def _file_events(path: Path, place: str, *, report: IngestReport, batch_rows: int) -> Iterator[pa.Table]:
    first = 1
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            lacking = [name for name in _REQUIRED if name not in names]
            if lacking:
                report.refuse("(file)", f"the file has no column {listed(lacking)}", position=place)
                return
            for name in names:
                if name not in COLUMNS and file.metadata.num_rows:
                    reason = "the column is no part of an event and was not read"
                    report.refuse(f"column {name}", reason, position=place, count=file.metadata.num_rows)
            known = [name for name in COLUMNS if name in names]
            for batch in file.iter_batches(batch_size=batch_rows, columns=known):
                report.read += batch.num_rows
                events = _events(pa.table(batch), place, first=first, report=report)
                first += batch.num_rows
                report.written += events.num_rows
                yield events
    except (OSError, pa.ArrowException):
        # The rows given before the fault stand: the report says from where on they are lacking.
        report.refuse("(file)", "the file is not Parquet or is damaged", position=f"{place} row {first}")


def _events(batch: pa.Table, place: str, *, first: int, report: IngestReport) -> pa.Table:
    columns = {
        field.name: _cast(batch[field.name], field.type)
        if field.name in batch.column_names
        else pa.nulls(batch.num_rows, field.type)
        for field in EVENT_SCHEMA
    }
    table = pa.table(columns)
    for name, reason in (("code", "no code"), ("subject_id", "no patient")):
        gone = table[name].is_null()
        count = pc.sum(gone).as_py() or 0
        if count:
            row = first + pc.index(gone, True).as_py()
            report.refuse("(row)", reason, position=f"{place} row {row}", count=count)
    return table.filter(pc.and_(table["code"].is_valid(), table["subject_id"].is_valid())).cast(EVENT_SCHEMA)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit))  # the moment in UTC
    # Nanoseconds are cut: nothing clinical is that exact.
    return column.cast(kind, safe=not pa.types.is_timestamp(kind))
