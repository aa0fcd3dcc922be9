"""Events from tables with one row a patient and one column a measurement, such as the visits of a trial."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from theracast_data.events.readers.chunks import Chunk, Encoding, read_chunks
from theracast_data.events.readers.long_table import LongTableOptions, ValueSpec, chunk_events
from theracast_data.events.readers.times import OriginTable, TimeSpec, time_reader
from theracast_data.events.report import IngestReport
from theracast_data.section import Section

_SUBJECT, _DAY, _CODE, _VALUE, _UNIT = "subject", "day", "code", "value", "unit"
_CELL = "{cell}"


class Measurement(Section):
    """What one column holds, and when it was measured."""

    code: str = Field(
        description="SYSTEM//CODE; with {cell} in it the cell is part of the code, and the event has no value."
    )
    day: float = Field(description="Days (d) from the origin to the measurement; it is known at the end of that day.")
    unit: str | None = Field(None, description="UCUM unit of the values.")

    @field_validator("code")
    @classmethod
    def _check_code(cls, code: str) -> str:
        if "//" not in code or "{" in code.replace(_CELL, ""):
            raise ValueError(f"write the code as SYSTEM//CODE, or as SYSTEM//{_CELL} (found {code})")
        return code


class WideTableOptions(Section):
    """A table with one row a patient and one column a measurement."""

    kind: Literal["wide_table"] = "wide_table"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="CSV (also .gz) or Parquet file; ${VARIABLE} is taken from the environment.")
    subject: str = Field(description="Column that identifies the patient.")
    origin: date | OriginTable = Field(description="Day from which the days count, or a table with one per patient.")
    columns: dict[str, Measurement | tuple[Measurement, ...]] = Field(
        min_length=1, description="Column to what it holds, or to several measurements of which it tells."
    )
    decimal: Literal[".", ","] = Field(".", description="Decimal sign.")
    missing: tuple[str, ...] = Field((), description="Cells that mean `not known` in every column, beside empty ones.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Field separator of a CSV file.")
    encoding: Encoding = Field("utf-8", description="Text encoding of a CSV file.")

    @property
    def measurements(self) -> list[tuple[str, Measurement]]:
        """Every column with each of its measurements."""
        return [
            (column, one)
            for column, given in self.columns.items()
            for one in (given if isinstance(given, tuple) else (given,))
        ]


def read_wide_table(
    path: Path, *, options: WideTableOptions, report: IngestReport, base: Path | None = None, batch_rows: int = 50_000
) -> Iterator[pa.Table]:
    """Return the events of a wide table, batch by batch: one for each measurement that a row tells.

    An empty cell is no event: nothing was measured. A row without patient is counted in the report and left out.

    Raises:
        SchemaError: a file is missing, is no table, or lacks a column.
    """
    time = TimeSpec(column=_DAY, unit="day", origin=options.origin)
    times = {"time": time_reader(time, base=path.parent if base is None else base)}
    long = LongTableOptions(
        path=options.path,
        subject=_SUBJECT,
        time=time,
        code=f"{{{_CODE}}}",
        value=ValueSpec(column=_VALUE, decimal=options.decimal, empty="keep"),
        unit_column=_UNIT,
    )
    names = list(dict.fromkeys([options.subject, *options.columns]))
    for chunk in read_chunks(
        path,
        names,
        report=report,
        batch_rows=batch_rows,
        delimiter=options.delimiter,
        encoding=options.encoding,
    ):
        for column, measurement in options.measurements:
            events = chunk_events(_long(chunk, column, measurement, options), long, times, report)
            report.written += events.num_rows
            if events.num_rows:
                yield events


def _long(chunk: Chunk, column: str, measurement: Measurement, options: WideTableOptions) -> Chunk:
    """Return one measurement of all rows that tell it, as rows of a long table."""
    cells = pc.utf8_trim_whitespace(chunk.table[column])
    told = pc.invert(pc.is_in(cells, value_set=pa.array(["", *options.missing, None], pa.string())))
    rows = pc.indices_nonzero(told)
    cells, count = cells.take(rows), len(rows)
    code: pa.Array | pa.ChunkedArray = pa.repeat(pa.scalar(measurement.code), count)
    if _CELL in measurement.code:
        before, after = measurement.code.split(_CELL, 1)
        code = pc.binary_join_element_wise(pa.scalar(before), cells, pa.scalar(after), "")
        cells = pa.nulls(count, pa.string())
    table = pa.table(
        {
            _SUBJECT: chunk.table[options.subject].take(rows),
            _DAY: pa.repeat(pa.scalar(str(measurement.day)), count),
            _CODE: code,
            _VALUE: cells,
            _UNIT: pa.array([measurement.unit] * count, pa.string()),
        }
    )
    return Chunk(table, lambda row: chunk.position(rows[row].as_py()))
