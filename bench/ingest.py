"""How fast each reader is, beside a floor that only parses the same file and does nothing with it.

    [THERACAST_DATA=FOLDER] python bench/ingest.py [--rows N]

The files are made up, with one fact a row (of FHIR a tenth as many). OMOP is read from the Eunomia database below
THERACAST_DATA, where that is set; its floor is reading the same tables by DuckDB. `store` appends the events of the long
table to a store, without reading; its floor is one Parquet file of them. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from theracast_data.events.readers.long_table import LongTableOptions, read_long_table
from theracast_data.events.readers.meds import read_meds
from theracast_data.events.readers.wearables import WearablesOptions, read_wearables
from theracast_data.events.report import IngestReport
from theracast_data.events.store import EventStore, SourceRecord

Case = tuple[str, int, Callable[[], Any], str, Callable[[], Any]]


def drain(tables: Iterable[pa.Table]) -> int:
    """Return how many events come."""
    return sum(table.num_rows for table in tables)


def long_cases(folder: Path, rows: int, rng: np.random.Generator) -> Iterator[Case]:
    """Make laboratory tables and give the cases of the long table and of the store."""
    start = np.datetime64("2020-01-01T00:00:00", "us")
    moments = start + rng.integers(0, 10**9, rows).astype("timedelta64[s]").astype("timedelta64[us]")
    table = pa.table(
        {
            "patient": pa.array(np.char.add("p", rng.integers(0, 20_000, rows).astype(str))),
            "drawn": pa.array(np.datetime_as_string(moments, unit="s")),
            "loinc": pa.array(np.char.add(rng.integers(1000, 1060, rows).astype(str), "-7")),
            "result": pa.array(np.round(rng.lognormal(size=rows), 3)),
            "unit": pa.array(rng.choice(["g/dL", "mg/dL", "U/L"], rows)),
        }
    )
    pa_csv.write_csv(table, folder / "labs.csv")
    pq.write_table(table, folder / "labs.parquet")
    options = LongTableOptions(
        path="labs.csv",
        subject="patient",
        time={"column": "drawn"},
        code="LOINC//{loinc}",
        value={"column": "result"},
        unit_column="unit",
    )

    def read(name: str) -> Iterator[pa.Table]:
        return read_long_table(folder / name, options=options, report=IngestReport(name))

    def floor() -> None:
        pa_csv.read_csv(folder / "labs.csv", read_options=pa_csv.ReadOptions(use_threads=False))

    yield "long_table CSV", rows, lambda: drain(read("labs.csv")), "pyarrow.csv", floor
    parquet = folder / "labs.parquet"
    yield "long_table Parquet", rows, lambda: drain(read(parquet.name)), "pyarrow.parquet", lambda: _parquet(parquet)
    events = list(read("labs.csv"))
    (folder / "meds" / "data").mkdir(parents=True)
    meds = pa.concat_tables(events).select(["subject_id", "time", "code", "numeric_value"])
    number = pa.array([int(one[1:]) for one in meds["subject_id"].to_pylist()], pa.int64())
    meds = meds.set_column(0, "subject_id", number).set_column(3, "numeric_value", meds[3].cast(pa.float32()))
    pq.write_table(meds, folder / "meds" / "data" / "0.parquet")
    yield (
        "meds",
        rows,
        lambda: drain(read_meds(folder / "meds", report=IngestReport("meds"))),
        "pyarrow.parquet",
        lambda: _parquet(folder / "meds" / "data" / "0.parquet"),
    )
    store = EventStore.create(folder / "store")

    def one_file() -> None:
        pq.write_table(pa.concat_tables(events), folder / "events.parquet", compression="zstd")

    yield "store", rows, lambda: store.append(SourceRecord("labs", "long_table"), events), "one Parquet file", one_file


def wearable_case(folder: Path, rows: int, rng: np.random.Generator) -> Case:
    """Make the minutes of a watch and give their case."""
    minutes = np.datetime64("2020-01-01T00:00", "m") + np.arange(rows) % 43_200
    table = pa.table(
        {
            "id": pa.array((np.arange(rows) // 43_200).astype(str)),
            "minute": pa.array(np.datetime_as_string(minutes, unit="m")),
            "steps": pa.array(rng.integers(0, 100, rows)),
            "bpm": pa.array(rng.integers(50, 120, rows)),
        }
    )
    path = folder / "watch.csv"
    pa_csv.write_csv(table, path)
    options = WearablesOptions(path="watch.csv", subject="id", time="minute", steps="steps", heart_rate="bpm")

    def floor() -> None:
        pa_csv.read_csv(path, read_options=pa_csv.ReadOptions(use_threads=False))

    def read() -> int:
        return drain(read_wearables(path, options=options, report=IngestReport("watch")))

    return "wearables CSV", rows, read, "pyarrow.csv", floor


def fhir_case(folder: Path, rows: int) -> Case | None:
    """Make laboratory observations and give their case, if there is a reader for them."""
    if importlib.util.find_spec("theracast_data.events.readers.fhir") is None:
        return None
    from theracast_data.events.readers.fhir import FhirOptions, read_fhir

    loads, floor_name = json.loads, "json"
    if importlib.util.find_spec("orjson") is not None:
        import orjson

        loads, floor_name = orjson.loads, "orjson"
    path = folder / "observations.ndjson"
    with path.open("w") as file:
        for number in range(rows):
            resource = {
                "resourceType": "Observation",
                "id": str(number),
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "1751-7"}]},
                "subject": {"reference": f"Patient/{number % 500}"},
                "effectiveDateTime": "2024-05-31T08:30:00+02:00",
                "issued": "2024-05-31T09:30:00+02:00",
                "valueQuantity": {"value": 3.9, "system": "http://unitsofmeasure.org", "code": "g/dL"},
            }
            file.write(json.dumps(resource) + "\n")

    def floor() -> None:
        with path.open("rb") as file:
            for line in file:
                loads(line)

    def read() -> int:
        return drain(read_fhir(path, options=FhirOptions(path=str(path)), report=IngestReport("fhir")))

    return "fhir NDJSON", rows, read, floor_name, floor


def omop_case() -> Case | None:
    """Return the case of the Eunomia database, if it is here."""
    folder = os.environ.get("THERACAST_DATA")
    path = Path(folder or ".") / "ehr" / "omop_eunomia" / "eunomia.duckdb"
    if folder is None or not path.is_file() or importlib.util.find_spec("theracast_data.events.readers.omop") is None:
        return None
    from theracast_data.events.readers.omop import ALL_TABLES, OmopOptions, read_omop

    options = OmopOptions(path=str(path))

    def floor() -> int:
        with duckdb.connect(str(path), read_only=True) as database:
            return sum(
                database.sql(f"select * from {table}").to_arrow_table().num_rows
                for table in ALL_TABLES
                if database.execute(f"select 1 from duckdb_tables() where table_name = '{table}'").fetchall()
            )

    def read() -> int:
        return drain(read_omop(path, options=options, report=IngestReport("omop")))

    return "omop DuckDB", floor(), read, "duckdb", floor


def main() -> None:
    """Time every reader and its floor, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print(f"{'reader':<20}{'records':>10}{'records/s':>12}  {'floor':<18}{'records/s':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        some: list[Case | None] = [wearable_case(folder, rows, rng), fhir_case(folder, rows // 10), omop_case()]
        cases = [*long_cases(folder, rows, rng), *(case for case in some if case is not None)]
        for reader, count, read, floor_name, floor in cases:
            own, least = count / _seconds(read), count / _seconds(floor)
            print(f"{reader:<20}{count:>10,}{own:>12,.0f}  {floor_name:<18}{least:>12,.0f}{least / own:>8.1f}")


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _parquet(path: Path) -> int:
    return sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches())


if __name__ == "__main__":
    main()
