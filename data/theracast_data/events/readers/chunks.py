"""Long tables from CSV and Parquet files, chunk by chunk as text, with the place of every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from theracast_data.errors import SchemaError
from theracast_data.events.report import IngestReport
from theracast_data.spelling import listed, nearest

Encoding = Literal["utf-8", "latin-1", "cp1252"]

_PARQUET = {".parquet", ".pq"}
# A quoted cell with more line breaks than this is taken for a quote that was never closed.
_CELL_LINES = 200
_CELL_BYTES = 1_000_000


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes:
        table: the columns asked for, as text; null where the cell is empty.
        position: row of the chunk, from 0, to where it stands in the source.
    """

    table: pa.Table
    position: Callable[[int], str]


def read_chunks(
    path: Path,
    columns: Sequence[str],
    *,
    report: IngestReport,
    batch_rows: int,
    delimiter: str = ",",
    encoding: Encoding = "utf-8",
) -> Iterator[Chunk]:
    """Return the named columns of a CSV (also .gz) or Parquet file as text, chunk by chunk.

    Lines that are no rows of the table are counted in the report and left out.

    Raises:
        SchemaError: the file is missing, is no table, or lacks a column.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file. Correct the `path` of the source.")
    if path.suffix.lower() in _PARQUET:
        yield from _parquet_chunks(path, columns, report=report, batch_rows=batch_rows)
        return
    # Blocks of bytes, for some batch_rows rows; one that is cut later holds no more than a few of them.
    size = max(batch_rows * 48, 4096)
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from _CsvBlocks(path, stream, list(columns), delimiter, encoding, report).chunks(size)


def _parquet_chunks(path: Path, columns: Sequence[str], *, report: IngestReport, batch_rows: int) -> Iterator[Chunk]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise SchemaError(f"{path}: this is not a Parquet file, or it is damaged. Export it again.") from error
    with file:
        _check_columns(path, columns, file.schema_arrow.names)
        done = 0
        for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
            table = pa.table({name: _as_text(batch.column(name)) for name in columns})
            report.read += table.num_rows
            first, done = done + 1, done + table.num_rows
            yield Chunk(table, lambda row, first=first: f"{path.name} row {first + row}")  # type: ignore[misc]


def _as_text(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type) and pc.all(_is_whole(array)).as_py():
        array = array.cast(pa.int64())  # identifiers become floats where a column has gaps: 17, not 17.0
    if pa.types.is_timestamp(array.type) and array.type.tz is None:
        return pc.strftime(array, format="%Y-%m-%dT%H:%M:%S")
    if pa.types.is_timestamp(array.type):
        return pc.strftime(array.cast(pa.timestamp(array.type.unit, "UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    return _empty_to_null(array.cast(pa.string()))


def _is_whole(array: pa.Array) -> pa.Array:
    return pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**53))


def _empty_to_null(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def _check_columns(path: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    lacking = [name for name in columns if name not in header]
    if lacking:
        near = nearest(lacking[0], list(header))
        hint = f"Did you mean {near!r}?" if near else f"It has {listed(list(header))}."
        raise SchemaError(f"{path}: there is no column {listed(lacking)}. {hint}")


@dataclass
class _CsvBlocks:
    """A CSV file cut at line ends, block by block: whole blocks by Arrow, blocks with a fault line by line."""

    path: Path
    stream: IO[bytes]
    columns: list[str]
    delimiter: str
    encoding: Encoding
    report: IngestReport
    header: list[str] = field(default_factory=list)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Return the chunks of the file."""
        line, rest, last = 1, b"", False
        while not last:
            read = self.stream.read(size)
            last = not read
            block, rest = (rest, b"") if last else _cut(rest + read)
            if not self.header and block:
                block, line = self._take_header(block)
            if block:
                chunk = self._fast(block, line) or self._slow(block, line)
                self.report.read += chunk.table.num_rows
                yield chunk
                line += block.count(b"\n")
        if not self.header:
            raise SchemaError(f"{self.path}: the file is empty. Export it again.")

    def _take_header(self, block: bytes) -> tuple[bytes, int]:
        first, _, rest = block.partition(b"\n")
        text = first.removeprefix(b"\xef\xbb\xbf").decode(self.encoding, errors="replace").rstrip("\r")
        self.header = [cell.strip() for cell in next(csv.reader([text], delimiter=self.delimiter), [])]
        _check_columns(self.path, self.columns, self.header)
        twice = [name for name in self.columns if self.header.count(name) > 1]
        if twice:
            raise SchemaError(f"{self.path}: several columns are called {listed(twice)}. Rename all but one.")
        return rest, 2

    def _fast(self, block: bytes, line: int) -> Chunk | None:
        """Return the rows of a block without faults, else None."""
        # Arrow takes column names that occur twice for the same column.
        names = [name if self.header.count(name) == 1 else f"{name} {at}" for at, name in enumerate(self.header)]
        try:
            text = block if self.encoding == "utf-8" else block.decode(self.encoding).encode()
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                read_options=pa_csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=self.columns,
                    column_types=dict.fromkeys(self.columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except (UnicodeDecodeError, pa.ArrowInvalid):
            return None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if table.num_rows != lines:  # a cell with line breaks, or empty lines: the place of a row has to be counted
            return None
        return Chunk(table, lambda row: f"{self.path.name} line {line + row}")

    def _slow(self, block: bytes, line: int) -> Chunk:
        """Return the rows of a block one by one, leaving out the lines that are none."""
        places = [self.header.index(name) for name in self.columns]
        rows: list[list[str]] = []
        at: list[int] = []
        lines = block.split(b"\n")
        number = 0
        while number < len(lines):
            cells, used = self._row(lines, number)
            if cells is not None and len(cells) == len(self.header):
                rows.append([cells[place] for place in places])
                at.append(line + number)
            elif cells is None or cells:
                self.report.read += 1
                reason = (
                    f"the line is not valid {self.encoding}, or its quotes do not close"
                    if cells is None
                    else f"the line has {'fewer' if len(cells) < len(self.header) else 'more'} cells than the header"
                )
                self.report.refuse("(line)", reason, position=f"{self.path.name} line {line + number}")
            number += used
        table = pa.table(
            {
                name: _empty_to_null(pa.array([row[place] for row in rows], pa.string()))
                for place, name in enumerate(self.columns)
            }
        )
        return Chunk(table, lambda row: f"{self.path.name} line {at[row]}")

    def _row(self, lines: list[bytes], number: int) -> tuple[list[str] | None, int]:
        """Return the cells of the row that begins on a line, None for what is no text, and how many lines it takes."""
        odd = lines[number].count(b'"') % 2 == 1
        cells = self._cells(lines[number : number + 1], strict=odd)
        if cells is not None or not odd:
            return cells, 1
        for used in range(2, min(_CELL_LINES, len(lines) - number) + 1):
            if b'"' not in lines[number + used - 1]:
                continue
            cells = self._cells(lines[number : number + used], strict=True)
            if cells is not None:
                # Otherwise the quote was never closed, and what follows are rows of their own.
                return (cells, used) if len(cells) == len(self.header) else (None, 1)
        return None, 1

    def _cells(self, lines: list[bytes], *, strict: bool) -> list[str] | None:
        try:
            text = b"\n".join(lines).decode(self.encoding).rstrip("\r")
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=strict))
        except (UnicodeDecodeError, csv.Error):
            return None
        return rows[0] if len(rows) == 1 else None if rows else []


def _cut(block: bytes) -> tuple[bytes, bytes]:
    """Return the whole rows of a block and the rest: cut at the last line end that lies in no quoted cell."""
    end = block.rfind(b"\n") + 1
    quotes, cut = block.count(b'"', 0, end), end
    while quotes % 2 and end - cut < _CELL_BYTES and cut:
        before = block.rfind(b"\n", 0, cut - 1) + 1
        quotes, cut = quotes - block.count(b'"', before, cut), before
    # Without an even number of quotes before any of these line ends, one is a stray sign in the text.
    cut = cut if cut and quotes % 2 == 0 else end
    return block[:cut], block[cut:]
