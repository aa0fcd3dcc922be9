"""When an event happened and when it was known: from the cells of a source to moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from theracast_data.errors import SchemaError
from theracast_data.events.readers.chunks import read_chunks
from theracast_data.events.report import IngestReport
from theracast_data.paths import resolve_path
from theracast_data.section import Section

Moments = np.ndarray[Any, np.dtype[np.datetime64]]

_UNITS = {"second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
_DAY = np.timedelta64(1, "D").astype("timedelta64[us]")
_MOMENT = np.timedelta64(1, "us")
_DAYS = ("%d", "%e", "%j", "%c", "%x", "%D", "%F", "%s")
_CLOCK = ("%H", "%I", "%c", "%s", "%X", "%T", "%R")


class OriginTable(Section):
    """Where the moment lies from which a patient's times are counted, e.g. the admission."""

    table: str = Field(description="CSV or Parquet file with one row per key.")
    key: str = Field(description="Column of the patient, as in the source's `subject`.")
    column: str = Field(description="Column with the moment.")
    format: str | None = Field(None, description="How the moment is written; see `time`.")


class TimeSpec(Section):
    """A column with moments, or with a distance from one."""

    column: str = Field(description="Column with the time.")
    format: str | None = Field(None, description="How it is written, e.g. %d.%m.%Y %H:%M; by default ISO 8601.")
    unit: Literal["second", "minute", "hour", "day"] | None = Field(
        None, description="The column counts these from `origin`."
    )
    origin: datetime | date | OriginTable | None = Field(None, description="Moment, or table with one per patient.")

    @model_validator(mode="after")
    def _check_offset(self) -> TimeSpec:
        if (self.unit is None) != (self.origin is None):
            raise ValueError("write `unit` and `origin` together: the column then counts units from the origin")
        if self.unit is not None and self.format is not None:
            raise ValueError("a number of units has no `format`; remove it, or remove `unit` and `origin`")
        if self.format is not None and not any(part in self.format for part in _DAYS):
            raise ValueError(f"a moment needs a day, e.g. %d.%m.%Y (found {self.format})")
        return self


@dataclass(frozen=True)
class TimeReader:
    """Turns the cells of one column into moments."""

    spec: TimeSpec
    origins: Mapping[str, np.datetime64] | None = None

    def read(self, cells: pa.ChunkedArray, subjects: pa.ChunkedArray) -> tuple[Moments, np.ndarray[Any, Any]]:
        """Return the moments (NaT: not understood), and which of them are a date without clock time."""
        if self.spec.unit is None:
            return parse_times(cells, self.spec.format)
        numbers = pd.to_numeric(cells.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        # Beyond some 290,000 years the moment has no number; no patient has such a time.
        known = np.isfinite(numbers) & (np.abs(numbers) * _UNITS[self.spec.unit] < 2.0**62)
        shift = np.where(known, numbers, 0) * _UNITS[self.spec.unit]
        found = self._origins(subjects) + np.rint(shift).astype("int64").astype("timedelta64[us]")
        found[~known] = np.datetime64("NaT")
        return found, np.full(len(found), self.spec.unit == "day")

    def _origins(self, subjects: pa.ChunkedArray) -> Moments:
        origin = self.spec.origin
        if isinstance(origin, date):
            # A date, or a datetime, which is a date as well.
            moment = pd.Timestamp(origin)
            plain = moment.tz_convert("UTC").tz_localize(None) if moment.tz is not None else moment
            return np.full(len(subjects), plain.to_datetime64().astype("datetime64[us]"))
        known = self.origins or {}
        coded = subjects.combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        nothing = np.datetime64("NaT", "us")
        by_code = np.array(
            [known.get(name, nothing) for name in coded.dictionary.to_pylist()] + [nothing], "datetime64[us]"
        )
        found: Moments = by_code[coded.indices.fill_null(len(by_code) - 1).to_numpy(zero_copy_only=False)]
        return found


def time_reader(spec: TimeSpec, *, base: Path) -> TimeReader:
    """Return the reader of a column, with the origins of its patients read.

    Raises:
        StudyError: a path names an environment variable that is not set.
        SchemaError: the table of origins is missing, lacks a column, or names a patient twice.
    """
    origin = spec.origin
    if not isinstance(origin, OriginTable):
        return TimeReader(spec)
    path = resolve_path(origin.table, base=base)
    known: dict[str, np.datetime64] = {}
    for chunk in read_chunks(path, [origin.key, origin.column], report=IngestReport(path.name), batch_rows=100_000):
        moments, _ = parse_times(chunk.table[origin.column], origin.format)
        for row, (key, moment) in enumerate(zip(chunk.table[origin.key].to_pylist(), moments, strict=True)):
            if key is None or np.isnat(moment):
                continue
            if known.setdefault(key.strip(), moment) != moment:
                raise SchemaError(
                    f"{chunk.position(row)}: the column {origin.key} names a patient a second time with another "
                    f"{origin.column}. Give a table with one moment per patient as `origin`."
                )
    return TimeReader(spec, known)


def parse_times(cells: pa.ChunkedArray, form: str | None = None) -> tuple[Moments, np.ndarray[Any, Any]]:
    """Return the moments of text cells, NaT where they are none, and which are a date without clock time.

    A moment with a zone is given in UTC, one without as it stands.

    Args:
        form: as for strptime; by default ISO 8601.
    """
    text = cells.to_pandas().str.strip()
    found = pd.to_datetime(text, format=form or "ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    moments = found.to_numpy().astype("datetime64[us]")
    if form is not None:
        return moments, np.full(len(text), not any(part in form for part in _CLOCK))
    # ISO 8601 dates have eight to ten signs: 20240531, 2024-05-31. A month or year alone is no day: taken for its first,
    # it would be known weeks before it was.
    length = text.str.len().to_numpy(np.float64, na_value=np.nan)
    moments[length < len("20240531")] = np.datetime64("NaT")
    return moments, length <= len("2024-05-31")


def end_of_day(moments: Moments) -> Moments:
    """Return the last moment of each day: what carries a date but no clock time is known by then."""
    days: Moments = moments.astype("datetime64[D]").astype("datetime64[us]")
    last: Moments = days + _DAY - _MOMENT
    return last
