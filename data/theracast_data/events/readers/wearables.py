"""Events from the minutes or days of wearables: daily steps, heart rate and sleep of the days that were worn.

A day on which the device lay on the table looks like a day in bed. Days that were worn too short are therefore no events;
they are counted in the report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from theracast_data.events.readers.chunks import Chunk, Encoding, read_chunks
from theracast_data.events.readers.times import end_of_day, parse_times
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.section import Section

Numbers = np.ndarray[Any, np.dtype[np.float64]]

_MEASURES = {"steps": (0, 1_000_000), "heart_rate": (20, 300), "heart_rate_min": (20, 300), "sleep": (0, 1440)}
_EVENTS = (
    ("steps", "wearable//steps", "{steps}"),
    ("heart_rate", "wearable//heart_rate_mean", "/min"),
    ("heart_rate_min", "wearable//heart_rate_min", "/min"),
    ("sleep", "wearable//sleep_minutes", "min"),
    ("worn", "wearable//wear_minutes", "min"),
)
_DAYS = """
with moments as (
  -- A minute that was exported twice counts once.
  select subject, moment, max(steps) steps, avg(heart_rate) heart_rate, max(sleep) sleep, max(worn) worn
  from given group by subject, moment
)
select subject, time_bucket(interval 1 day, moment) as day, sum(steps) steps, avg(heart_rate) heart_rate,
  min(heart_rate) heart_rate_min, sum(sleep) * $minutes sleep, sum(worn) * $minutes worn
from moments group by all order by all
"""


class WearablesOptions(Section):
    """A series of a wearable: one row per patient and minute (or a few), or per patient and day."""

    kind: Literal["wearables"] = "wearables"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="CSV (also .gz) or Parquet file; ${VARIABLE} is taken from the environment.")
    resolution: Literal["minute", "daily"] = Field("minute", description="What one row stands for.")
    interval_minutes: int = Field(1, ge=1, le=60, description="Minutes that one row of `minute` stands for.")
    subject: str = Field(description="Column that identifies the patient.")
    time: str = Field(description="Column with the local time of the row, or its day.")
    time_format: str | None = Field(None, description="How it is written, e.g. %d.%m.%Y %H:%M; by default ISO 8601.")
    steps: str | None = Field(None, description="Column with the steps.")
    heart_rate: str | None = Field(None, description="Column with the heart rate per minute; of a day, its mean.")
    heart_rate_min: str | None = Field(None, description="Column with the day's lowest heart rate; only `daily`.")
    sleep: str | None = Field(None, description="Column with the sleep state; of a day, its minutes of sleep.")
    asleep: tuple[str, ...] = Field(("1",), description="Cells of `sleep` that mean asleep; only `minute`.")
    worn: str | None = Field(
        None,
        description="Column with 1 where the device was worn; of a day, its minutes. By default a minute is worn that "
        "has a heart rate, or without such a column, any value.",
    )
    minimum_wear_minutes: int = Field(
        600,
        ge=0,
        le=1440,
        description="A day worn less is not used. Source: Troiano, Med Sci Sports Exerc 2008;40:181.",
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="Field separator of a CSV file.")
    encoding: Encoding = Field("utf-8", description="Text encoding of a CSV file.")

    @model_validator(mode="after")
    def _check_columns(self) -> WearablesOptions:
        if not self.measures:
            raise ValueError("name at least one of the columns steps, heart_rate, sleep")
        if self.resolution == "minute" and self.heart_rate_min is not None:
            raise ValueError("heart_rate_min is found from the minutes; remove it, or say resolution: daily")
        if self.resolution == "daily" and self.worn is None and self.minimum_wear_minutes:
            raise ValueError("name the column `worn` with the day's minutes, or say minimum_wear_minutes: 0")
        return self

    @property
    def measures(self) -> dict[str, str]:
        """Measure to its column."""
        named = {measure: getattr(self, measure) for measure in _MEASURES}
        return {measure: column for measure, column in named.items() if column is not None}


def read_wearables(
    path: Path, *, options: WearablesOptions, report: IngestReport, batch_rows: int = 200_000
) -> Iterator[pa.Table]:
    """Return one event per patient, day and measure, known at the end of the day.

    Steps and minutes of sleep are sums over the minutes that are there, not scaled up to 24 hours; the heart rate is mean
    and lowest minute. A night belongs to the two calendar days it touches. The minutes rest in a temporary database while
    they are sorted into days, so that memory does not grow with them.

    Raises:
        SchemaError: the file is missing, is no table, or lacks a column.
    """
    columns = [options.subject, options.time, *options.measures.values(), *([options.worn] if options.worn else [])]
    chunks = read_chunks(
        path,
        list(dict.fromkeys(columns)),
        report=report,
        batch_rows=batch_rows,
        delimiter=options.delimiter,
        encoding=options.encoding,
    )
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(str(Path(folder) / "series.duckdb")) as database:
        database.execute("set memory_limit = '512MB'; set preserve_insertion_order = false")
        database.execute(
            "create table given (subject varchar, moment timestamp, steps double, heart_rate double, "
            "heart_rate_min double, sleep double, worn double)"
        )
        for chunk in chunks:
            rows = _Rows(chunk, options, report).table()  # noqa: F841 - DuckDB finds it by name
            database.execute("insert into given by name select * from rows")
        for days in _days(database, options, report, batch_rows=batch_rows):
            events = _day_events(days, options, report, place=path.name)
            report.written += events.num_rows
            yield events


@dataclass(frozen=True)
class _Rows:
    """The rows of a chunk as numbers, without those that are not understood."""

    chunk: Chunk
    options: WearablesOptions
    report: IngestReport

    def table(self) -> pa.Table:
        """Return patient, moment, measures and wear of each row."""
        options, table = self.options, self.chunk.table
        subject = pc.utf8_trim_whitespace(table[options.subject])
        moments, _ = parse_times(table[options.time], options.time_format)
        kept = self._refuse("(row)", "no patient", np.asarray(subject.is_null()))
        wrong_time = np.isnat(moments) & kept
        kept &= self._refuse("(row)", f"{options.time} is no moment", wrong_time)
        step = f"{options.interval_minutes}min" if options.resolution == "minute" else "D"
        moments = pd.Series(moments).dt.floor(step).to_numpy()
        values = {measure: self._measure(measure, column) for measure, column in options.measures.items()}
        values["worn"] = self._worn(values)
        columns = {"subject": subject, "moment": pa.array(moments, pa.timestamp("us"))}
        numbers = {name: pa.array(value, pa.float64(), from_pandas=True) for name, value in values.items()}
        return pa.table(columns | numbers).filter(pa.array(kept))

    def _measure(self, measure: str, column: str) -> Numbers:
        cells = pc.utf8_trim_whitespace(self.chunk.table[column])
        cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
        if measure == "sleep" and self.options.resolution == "minute":
            asleep = pc.is_in(cells, value_set=pa.array(self.options.asleep, pa.string()))
            return np.where(np.asarray(cells.is_null()), np.nan, np.asarray(asleep, float))
        return self._numbers(cells, measure)

    def _numbers(self, cells: pa.ChunkedArray, name: str) -> Numbers:
        low, high = _MEASURES.get(name, (0, 1440))
        numbers: Numbers = pd.to_numeric(cells.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        self._refuse(name, "the cell is no number", np.isnan(numbers) & np.asarray(cells.is_valid()))
        impossible = (numbers < low) | (numbers > high)
        self._refuse(name, f"the number is not in {low} to {high}", impossible)
        return np.where(impossible, np.nan, numbers)

    def _worn(self, values: dict[str, Numbers]) -> Numbers:
        if self.options.worn is not None:
            worn = self._numbers(self.chunk.table[self.options.worn], "worn")
            return np.minimum(worn, 1) if self.options.resolution == "minute" else worn
        if self.options.resolution == "daily":
            return np.full(self.chunk.table.num_rows, np.nan)
        if "heart_rate" in values:
            return np.isfinite(values["heart_rate"]).astype(float)
        return np.isfinite(np.column_stack(list(values.values()))).any(axis=1).astype(float)

    def _refuse(self, code: str, reason: str, wrong: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Count the wrong rows and return the right ones."""
        rows = np.flatnonzero(wrong)
        if rows.size:
            self.report.refuse(code, reason, position=self.chunk.position(int(rows[0])), count=int(rows.size))
        return ~wrong


def _days(
    database: duckdb.DuckDBPyConnection, options: WearablesOptions, report: IngestReport, *, batch_rows: int
) -> Iterator[pd.DataFrame]:
    key = "day" if options.resolution == "daily" else "minute"
    counted = "select count(*) - (select count(*) from (select distinct subject, moment from given)) from given"
    [(repeated,)] = database.execute(counted).fetchall()
    if repeated:
        report.refuse("(row)", f"the {key} is there twice", position=Path(options.path).name, count=repeated)
    if options.resolution == "daily":
        query = (
            "select subject, moment as day, max(steps) steps, avg(heart_rate) heart_rate, "
            "min(heart_rate_min) heart_rate_min, max(sleep) sleep, max(worn) worn from given group by all order by all"
        )
        found = database.sql(query)
    else:
        found = database.sql(_DAYS, params={"minutes": options.interval_minutes})
    for batch in found.to_arrow_reader(batch_rows) or ():
        yield batch.to_pandas()


def _day_events(days: pd.DataFrame, options: WearablesOptions, report: IngestReport, *, place: str) -> pa.Table:
    if options.minimum_wear_minutes:
        short = ~(days["worn"] >= options.minimum_wear_minutes)
        if short.any():
            reason = f"the day was worn less than {options.minimum_wear_minutes} minutes"
            report.refuse("(day)", reason, position=place, count=int(short.sum()))
        days = days[~short]
    pieces = []
    given = {*options.measures, "worn"} | ({"heart_rate_min"} if options.heart_rate else set())
    for measure, code, unit in _EVENTS:
        present = days[days[measure].notna()] if measure in given else days.iloc[:0]
        day = present["day"].to_numpy().astype("datetime64[us]")
        pieces.append(
            pa.table(
                {
                    "subject_id": pa.array(present["subject"], pa.string()),
                    "time": pa.array(day, pa.timestamp("us")),
                    "code": pa.array([code] * len(present), pa.string()),
                    "numeric_value": pa.array(present[measure].to_numpy(float), pa.float64()),
                    "text_value": pa.nulls(len(present), pa.string()),
                    "unit": pa.array([unit] * len(present), pa.string()),
                    "available_time": pa.array(end_of_day(day), pa.timestamp("us")),
                }
            )
        )
    return pa.concat_tables(pieces).cast(EVENT_SCHEMA)
