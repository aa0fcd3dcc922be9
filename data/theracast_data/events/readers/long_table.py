"""Events from long tables (one fact a row) in CSV and Parquet files, by a declared meaning of the columns."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from theracast_data.events.readers.chunks import Chunk, Encoding, read_chunks
from theracast_data.events.readers.times import TimeReader, TimeSpec, end_of_day, time_reader
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.section import Section

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_BEYOND = r"^(<|>|≤|≥|=<|=>)"
_NO_TEXT = pa.scalar(None, pa.string())


class ValueSpec(Section):
    """The column with the value of a fact.

    What is a number becomes `numeric_value`, anything else `text_value`. A value beyond a limit of detection (`<5`) stays
    text, since no number is right for it; such rows are counted in the report.
    """

    column: str = Field(description="Column with the value.")
    otherwise: str | None = Field(None, description="Column that is read where the first is empty, e.g. with `>200`.")
    kind: Literal["auto", "numeric", "text"] = Field(
        "auto", description="`numeric`: text is counted in the report; `text`: 1 is a name, not a number."
    )
    decimal: Literal[".", ","] = Field(".", description="Decimal sign.")
    empty: Literal["refuse", "keep"] = Field("refuse", description="What becomes of rows without a value.")


class LongTableOptions(Section):
    """A table with one fact a row."""

    kind: Literal["long_table"] = "long_table"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="CSV (also .gz) or Parquet file; ${VARIABLE} is taken from the environment.")
    subject: str = Field(description="Column that identifies the patient.")
    time: TimeSpec | None = Field(None, description="When it happened; without it, true at all times, e.g. sex.")
    available_time: TimeSpec | None = Field(
        None, description="When it was known; by default at `time`, and at the end of the day for a date without clock."
    )
    code: str = Field(description="SYSTEM//CODE, with columns in braces: LOINC//{loinc} or eicu//{labname}.")
    value: ValueSpec | None = Field(None, description="Value; without it the code says everything.")
    unit: str | None = Field(None, description="UCUM unit of all values.")
    unit_column: str | None = Field(None, description="Column with the UCUM unit.")
    split: dict[str, str] = Field(
        {}, max_length=1, description="Column with several entries in a cell, each an event, and the sign between them."
    )
    missing: tuple[str, ...] = Field((), description="Cells that mean `not known` in every column, beside empty ones.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Field separator of a CSV file.")
    encoding: Encoding = Field("utf-8", description="Text encoding of a CSV file.")

    @field_validator("code")
    @classmethod
    def _check_code(cls, code: str) -> str:
        try:
            names = _code_columns(code)
        except ValueError as error:
            raise ValueError("write columns of the code as {column}, e.g. eicu//{labname}") from error
        if "//" not in code and not names:
            raise ValueError(f"write the code as SYSTEM//CODE, e.g. eicu//{{labname}} (found {code})")
        return code

    @property
    def columns(self) -> list[str]:
        """The columns that are read, each once."""
        times = [spec.column for spec in (self.time, self.available_time) if spec is not None]
        values = [self.value.column, self.value.otherwise] if self.value is not None else []
        named = [self.subject, *times, *_code_columns(self.code), *values, self.unit_column, *self.split]
        return list(dict.fromkeys(name for name in named if name is not None))


def read_long_table(
    path: Path, *, options: LongTableOptions, report: IngestReport, base: Path | None = None, batch_rows: int = 200_000
) -> Iterator[pa.Table]:
    """Return the events of a long table, batch by batch.

    A line that is no row, and a row without patient, code, time or value, is counted in the report and left out.

    Args:
        base: what a relative path of an origin table counts from; by default the folder of the file.

    Raises:
        SchemaError: a file is missing, is no table, or lacks a column.
    """
    origin = path.parent if base is None else base
    times = {
        name: time_reader(spec, base=origin)
        for name, spec in (("time", options.time), ("available_time", options.available_time))
        if spec is not None
    }
    for chunk in read_chunks(
        path,
        options.columns,
        report=report,
        batch_rows=batch_rows,
        delimiter=options.delimiter,
        encoding=options.encoding,
    ):
        events = chunk_events(_split(chunk, options.split), options, times, report)
        report.written += events.num_rows
        yield events


def chunk_events(
    chunk: Chunk, options: LongTableOptions, times: Mapping[str, TimeReader], report: IngestReport
) -> pa.Table:
    """Return the events of one chunk; what is no event is counted in the report."""
    cells = {name: _trimmed(chunk.table[name], options.missing) for name in chunk.table.column_names}
    subject, code = cells[options.subject], _codes(cells, options.code, chunk.table.num_rows)
    faults = _Faults(chunk, code, report)
    faults.refuse(subject.is_null(), "no patient")
    faults.refuse(code.is_null(), "no code")
    time, available = _times(cells, subject, options, times, faults)
    numbers, text = _values(cells, options.value, faults)
    if options.unit_column is not None:
        unit = cells[options.unit_column]
    else:
        unit = pa.chunked_array([pa.repeat(pa.scalar(options.unit, pa.string()), chunk.table.num_rows)])
    columns = [subject, time, code, numbers, text, unit, available]
    table = pa.table(dict(zip(EVENT_SCHEMA.names, columns, strict=True)))
    if not faults.kept.all():
        table = table.filter(pa.array(faults.kept))
    return table.cast(EVENT_SCHEMA)


def _split(chunk: Chunk, split: Mapping[str, str]) -> Chunk:
    """Return a row for each entry of the cells of the column that is to be split, if any."""
    if not split:
        return chunk
    [(column, sign)] = split.items()
    entries = pc.split_pattern(chunk.table[column].fill_null(""), pattern=sign).combine_chunks()
    rows = pc.list_parent_indices(entries)
    place = chunk.table.column_names.index(column)
    table = chunk.table.take(rows).set_column(place, column, pc.list_flatten(entries))
    return Chunk(table, lambda row: chunk.position(rows[row].as_py()))


class _Faults:
    """Rows of a chunk that are left out, counted by code and reason."""

    def __init__(self, chunk: Chunk, code: pa.ChunkedArray, report: IngestReport) -> None:
        self.kept = np.ones(chunk.table.num_rows, bool)
        self._chunk, self._code, self._report = chunk, code, report

    def refuse(self, wrong: Any, reason: str, *, leave_out: bool = True) -> None:
        """Count the rows that are wrong and not left out before."""
        rows = np.flatnonzero(np.asarray(wrong, bool) & self.kept)
        if not rows.size:
            return
        codes = self._code.take(pa.array(rows)).to_pandas().fillna("(no code)")
        first: dict[str, int] = {}
        for row, code in zip(rows, codes, strict=True):
            first.setdefault(code, int(row))
        for code, count in codes.value_counts().items():
            self._report.refuse(str(code), reason, position=self._chunk.position(first[str(code)]), count=int(count))
        if leave_out:
            self.kept[rows] = False


def _times(
    cells: Mapping[str, pa.ChunkedArray],
    subject: pa.ChunkedArray,
    options: LongTableOptions,
    times: Mapping[str, TimeReader],
    faults: _Faults,
) -> tuple[pa.Array, pa.Array]:
    nothing = np.full(len(subject), np.datetime64("NaT"), "datetime64[us]")
    time, available, dated = nothing, nothing.copy(), np.zeros(len(subject), bool)
    if options.time is not None:
        column = cells[options.time.column]
        time, dated = times["time"].read(column, subject)
        empty = np.asarray(column.is_null())
        faults.refuse(empty, "no time")
        faults.refuse(np.isnat(time) & ~empty, _no_moment(options.time, options.time.column))
    if options.available_time is not None:
        column = cells[options.available_time.column]
        available, known_dated = times["available_time"].read(column, subject)
        wrong = np.isnat(available) & ~np.asarray(column.is_null())
        faults.refuse(wrong, _no_moment(options.available_time, options.available_time.column))
        available = np.where(known_dated, end_of_day(available), available)
    unsaid = np.isnat(available) & dated
    available[unsaid] = end_of_day(time[unsaid])
    return pa.array(time, pa.timestamp("us")), pa.array(available, pa.timestamp("us"))


def _no_moment(spec: TimeSpec, column: str) -> str:
    if spec.unit is not None:
        return f"{column} is no number of {spec.unit}s, or the patient has no origin"
    return f"{column} is no moment of the form {spec.format or 'ISO 8601'}"


def _codes(cells: Mapping[str, pa.ChunkedArray], template: str, rows: int) -> pa.ChunkedArray:
    """Return the code of each row; null where a column of it is empty."""
    pieces: list[Any] = []
    for constant, name, _, _ in string.Formatter().parse(template):
        pieces += [pa.scalar(constant)] if constant else []
        pieces += [cells[name]] if name is not None else []
    joined = pc.binary_join_element_wise(pa.repeat(pa.scalar(""), rows), *pieces, "")
    return joined if isinstance(joined, pa.ChunkedArray) else pa.chunked_array([joined])


def _code_columns(template: str) -> list[str]:
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if "" in names:
        raise ValueError("empty braces")
    return names


def _values(
    cells: Mapping[str, pa.ChunkedArray], spec: ValueSpec | None, faults: _Faults
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    rows = len(faults.kept)
    no_number = pa.chunked_array([pa.nulls(rows, pa.float64())])
    if spec is None:
        return no_number, pa.chunked_array([pa.nulls(rows, pa.string())])
    value = cells[spec.column]
    if spec.otherwise is not None:
        value = pc.coalesce(value, cells[spec.otherwise])
    if spec.empty == "refuse":
        faults.refuse(value.is_null(), "no value")
    if spec.kind == "text":
        return no_number, value
    plain = pc.replace_substring(value, ",", ".") if spec.decimal == "," else value
    foreign = pc.match_substring(value, ".") if spec.decimal == "," else pa.scalar(False)
    is_number = pc.and_(pc.match_substring_regex(plain, _NUMBER), pc.invert(foreign)).fill_null(False)
    # 1e999 has the form of a number and is none.
    numbers = pc.if_else(is_number, plain, _NO_TEXT).cast(pa.float64())
    finite = pc.is_finite(numbers).fill_null(False)
    text = pc.if_else(finite, _NO_TEXT, value)
    beyond = pc.match_substring_regex(text, _BEYOND).fill_null(False)
    faults.refuse(beyond, "value beyond a limit, kept as text", leave_out=False)
    if spec.kind == "numeric":
        other = pc.and_(text.is_valid(), pc.invert(beyond))
        faults.refuse(other, "value is no number, kept as text", leave_out=False)
    return pc.if_else(finite, numbers, pa.scalar(None, pa.float64())), text


def _trimmed(column: pa.ChunkedArray, missing: tuple[str, ...]) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(column)
    gone = pc.is_in(text, value_set=pa.array(["", *missing], pa.string()))
    return pc.if_else(gone, _NO_TEXT, text)
