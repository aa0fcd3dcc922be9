"""Raw tables from CSV, XLSX, Parquet and JSON files: text and numbers as they stand, nothing interpreted."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.errors import SchemaError
from theracast_data.paths import resolve_path
from theracast_data.sources import TableSource
from theracast_data.spelling import is_empty, listed, nearest

logger = logging.getLogger(__name__)

_TEXT, _EXCEL, _PARQUET, _JSON = {".csv", ".tsv", ".txt"}, {".xlsx", ".xlsm"}, {".parquet", ".pq"}, {".json", ".jsonl"}


def read_raw(source: TableSource, *, base: Path) -> dict[str, pd.DataFrame]:
    """Return the raw frame of each sheet of a source (of the one table, by the file's stem).

    Cells are untouched, headers are trimmed. The index counts the rows of the file from 0 below the header; empty rows
    are left out.

    Raises:
        StudyError: the path names an environment variable that is not set.
        SchemaError: the file or a sheet is missing or cannot be read.
    """
    path = resolve_path(source.path, base=base)
    _check_exists(path)
    if path.suffix.lower() in _EXCEL:
        return _read_sheets(path, source.sheets)
    if source.sheets:
        raise SchemaError(
            f"{path}: only XLSX files have sheets. Remove `sheets` from the source, or name an XLSX file."
        )
    if path.suffix.lower() in _TEXT:
        tab = path.suffix.lower() == ".tsv" and source.delimiter == ","
        return {path.stem: _read_text(path, "\t" if tab else source.delimiter, source.encoding)}
    return {path.stem: read_file(path)}


def read_file(path: Path, *, sheet: str | None = None) -> pd.DataFrame:
    """Return any CSV, XLSX, Parquet or JSON file as a raw frame.

    The delimiter of a text file is the one of `,` `;` tab and `|` that its header holds most. JSON is a list of
    records, `{"rows": [...]}`, one record, or a record a line.

    Args:
        sheet: sheet of an XLSX file; the first by default.

    Raises:
        SchemaError: the file or sheet is missing, of another kind, empty or broken.
    """
    _check_exists(path)
    suffix = path.suffix.lower()
    if suffix in _EXCEL:
        return next(iter(_read_sheets(path, () if sheet is None else (sheet,)).values()))
    if sheet is not None:
        raise SchemaError(f"{path}: only XLSX files have sheets. Leave the sheet out, or name an XLSX file.")
    if suffix in _TEXT:
        delimiter, encoding = text_format(path)
        return _read_text(path, delimiter, encoding)
    if suffix in _PARQUET:
        return _read_parquet(path)
    if suffix in _JSON:
        return _read_json(path)
    known = listed(sorted(_TEXT | _EXCEL | _PARQUET | _JSON), most=12)
    more = " Save it as .xlsx." if suffix in {".xls", ".ods"} else ""
    raise SchemaError(f"{path}: files of the kind {suffix or '(no suffix)'!r} are not read; known are {known}.{more}")


def sheet_names(path: Path) -> tuple[str, ...]:
    """Return the sheets of an XLSX file; none for other files."""
    if path.suffix.lower() not in _EXCEL:
        return ()
    _check_exists(path)
    workbook = _open_workbook(path)
    try:
        return tuple(workbook.sheetnames)
    finally:
        workbook.close()


def readable_sheets(path: Path) -> dict[str, pd.DataFrame]:
    """Return the raw frame of each sheet of an XLSX file that holds a table."""
    workbook = _open_workbook(path)
    frames: dict[str, pd.DataFrame] = {}
    try:
        for name in workbook.sheetnames:
            with contextlib.suppress(SchemaError):
                frames[name] = _read_sheet(workbook[name], f"{path.name}, sheet {name}")
    finally:
        workbook.close()
    return frames


def text_format(path: Path) -> tuple[str, str]:
    """Return delimiter and encoding of a CSV file as its first line and its bytes show them."""
    encoding = _encoding_of(path)
    return _delimiter_of(path, encoding), encoding


def is_text(path: Path) -> bool:
    """Return whether a file is read as CSV."""
    return path.suffix.lower() in _TEXT


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    hint = (
        f" Did you mean {near!r}?" if near else " Check the path, and the environment variable in it if there is one."
    )
    raise SchemaError(f"{path}: there is no such file.{hint}")


def _read_text(path: Path, delimiter: str, encoding: str) -> pd.DataFrame:
    try:
        with path.open(encoding=encoding, newline="") as stream:
            cells = pd.read_csv(
                stream, sep=delimiter, header=None, dtype=str, keep_default_na=False, na_values=[""],
                skip_blank_lines=False, low_memory=False,
            )  # fmt: skip
    except pd.errors.EmptyDataError as error:
        raise SchemaError(f"{path}: the file is empty. Export the table again.") from error
    except pd.errors.ParserError as error:
        detail = str(error).strip().replace("Error tokenizing data. C error: ", "")
        raise SchemaError(
            f"{path}: the rows do not fit the header ({detail}). Check `delimiter` (now {delimiter!r}) and the quotes."
        ) from error
    except (UnicodeDecodeError, LookupError) as error:
        raise SchemaError(
            f"{path}: the text is not {encoding}. Give the source's `encoding`, e.g. cp1252, or save the file as UTF-8."
        ) from error
    return _with_header(cells, path.name)


def _encoding_of(path: Path) -> str:
    """Return the encoding: by its byte-order mark, else UTF-8, else cp1252, the other one in which Excel writes CSV."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        logger.warning("%s is not UTF-8; read as cp1252. Save it as UTF-8 if letters look wrong.", path)
        return "cp1252"
    return "utf-8-sig"


def _delimiter_of(path: Path, encoding: str) -> str:
    """Return the separator that gives the first lines equally many fields, and the most."""
    with path.open(encoding=encoding, newline="", errors="replace") as stream:
        lines = list(itertools.islice((line for line in stream if line.strip()), 20))

    def fit(sign: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=sign)] or [1]
        return len(set(widths)) == 1 and widths[0] > 1, widths[0]

    return max(",;\t|", key=fit)


def _open_workbook(path: Path) -> Any:
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # openpyxl: extensions such as data validation are dropped
            return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise SchemaError(
            f"{path}: this is no XLSX file, or it is damaged. Save it again from the spreadsheet."
        ) from error


def _read_sheets(path: Path, sheets: Sequence[str]) -> dict[str, pd.DataFrame]:
    workbook = _open_workbook(path)
    try:
        wanted = list(sheets) or workbook.sheetnames[:1]
        unknown = [name for name in wanted if name not in workbook.sheetnames]
        if unknown:
            near = nearest(unknown[0], workbook.sheetnames)
            hint = f" Did you mean {near!r}?" if near else ""
            raise SchemaError(
                f"{path}: there is no sheet {listed(unknown)}.{hint} "
                f"The sheets are {listed(workbook.sheetnames, most=20)}."
            )
        return {name: _read_sheet(workbook[name], f"{path.name}, sheet {name}") for name in wanted}
    finally:
        workbook.close()


def _read_sheet(sheet: Any, where: str) -> pd.DataFrame:
    if not hasattr(sheet, "iter_rows"):
        raise SchemaError(f"{where}: this is a chart, not a table. Name another sheet.")
    sheet.reset_dimensions()  # some exports declare a wrong extent, and rows would be cut off silently
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    width = max((len(row) for row in rows), default=0)
    cells = pd.DataFrame([row + [None] * (width - len(row)) for row in rows], dtype=object)
    return _with_header(cells, where).infer_objects()


def _with_header(cells: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the cells below the first row that is not empty, under its texts as headers."""
    filled = ~np.asarray(cells.isna(), dtype=bool)
    some_text = np.asarray(filled.any(axis=1), dtype=bool)
    if not some_text.any():
        raise SchemaError(f"{where}: there is no header and no row. Export the table again.")
    top = int(np.argmax(some_text))
    keep = np.flatnonzero(some_text[top + 1 :]) + top + 1
    columns = [
        position for position, cell in enumerate(cells.iloc[top]) if not is_empty(cell) or filled[keep, position].any()
    ]
    frame = cells.iloc[keep, columns]
    frame.columns = pd.Index(_unique_headers([cells.iat[top, position] for position in columns]), dtype=object)
    frame.index = pd.Index(keep - top - 1)
    return frame


def _unique_headers(headers: Sequence[Any]) -> list[str]:
    """Return trimmed headers; a second `X` becomes `X (repeated 2)`, a missing one `(column 3)`."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for position, header in enumerate(headers, start=1):
        text = f"(column {position})" if is_empty(header) else " ".join(str(header).replace("\ufeff", "").split())
        seen[text] = seen.get(text, 0) + 1
        names.append(text if seen[text] == 1 else f"{text} (repeated {seen[text]})")
    return names


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: this is no Parquet file, or it is damaged. Write it again.") from error
    if frame.index.names != [None]:
        frame = frame.reset_index()
    return frame.reset_index(drop=True).set_axis(_unique_headers(list(frame.columns)), axis=1)


def _read_json(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: the text is not UTF-8. Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise SchemaError(
            f"{path}: not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})."
        ) from error
    if isinstance(content, dict):
        content = content.get("rows", [content])
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise SchemaError(f'{path}: expected a list of records such as [{{"Age": 61}}], or {{"rows": [...]}}.')
    headers = list(dict.fromkeys(header for row in content for header in row))
    cells = [[row.get(header) for row in content] for header in headers]
    return pd.DataFrame(dict(zip(_unique_headers(headers), cells, strict=True)))
