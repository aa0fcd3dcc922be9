"""How fast event features are, and in how much memory: side by side with bare DuckDB SQL, pandas and reading alone.

    python bench/features.py [--events 1e6] [--concepts 60] [--shards 16] [--skip-pandas]

100 events and 2 decisions a patient; 3 windows x 8 aggregates for each concept. Every row runs in a process of its own.
`bare SQL` is written by hand for these aggregates and gives one row per decision and concept; by shard, and over all
patients at once. pandas computes the patients of a twentieth of the decisions, and its wall and CPU are multiplied. Prints a table;
asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_features.events.duckdb_engine import event_features
from theracast_features.events.section import EventFeatures
from theracast_features.events.wide import write_wide

DAYS = {"7d": 7, "30d": 30, "180d": 180}
AGGREGATES = ("last", "min", "max", "mean", "std", "slope", "count", "outside")
START = np.datetime64("2020-01-01", "us")
DAY = 86_400_000_000
PANDAS_SHARE = 20
BATCH = 1_000_000
COLUMNS = ["subject_id", "time", "code", "numeric_value", "unit", "available_time"]


def study(concepts: int) -> tuple[list[EventFeatures], dict[str, Concept]]:
    """Return the features and concepts of the bench."""
    named = {
        f"c{number:02d}": Concept(codes=(f"X//c{number:02d}",), reference_range=(40, 60)) for number in range(concepts)
    }
    return [EventFeatures(concept=name, windows=tuple(DAYS), aggregates=AGGREGATES) for name in named], named


def event_batches(events: int, concepts: int) -> Iterator[pa.Table]:
    """Yield events of 100 a patient over a year."""
    rng = np.random.default_rng(0)
    codes = pa.array([f"X//c{number:02d}" for number in range(concepts)])
    for start in range(0, events, BATCH):
        n = min(BATCH, events - start)
        times = START + rng.integers(0, 365 * DAY // 60_000_000, n) * np.timedelta64(1, "m")
        yield pa.table(
            {
                "subject_id": pa.array(((start + np.arange(n)) // 100).astype(str)),
                "time": times,
                "code": codes.take(pa.array(rng.integers(0, concepts, n))),
                "numeric_value": np.round(rng.normal(50, 10, n), 1),
                "text_value": pa.nulls(n, pa.string()),
                "unit": pa.nulls(n, pa.string()),
                "available_time": times + np.timedelta64(1, "h"),
            }
        ).cast(EVENT_SCHEMA)


def make(folder: Path, *, events: int, concepts: int, shards: int) -> None:
    """Write the store and the decisions."""
    store = EventStore.create(folder / "store", shards=shards)
    store.append(SourceRecord(name="bench", kind="bench"), event_batches(events, concepts))
    store.compact()
    patients = np.repeat(np.arange(events // 100), 2)
    times = START + np.random.default_rng(1).integers(30, 365, len(patients)) * np.timedelta64(1, "D")
    frame = pd.DataFrame({"subject_id": patients.astype(str), "index_time": times})
    frame.to_parquet(folder / "decisions.parquet", index=False)


def read_once(folder: Path, _: int) -> int:
    """Floor: read the columns of every shard."""
    store = EventStore.open(folder / "store")
    return sum(store.read_shard(shard, columns=COLUMNS).num_rows for shard in range(store.shard_count))


def frames(folder: Path, concepts: int) -> int:
    """Theracast: one FeatureTable a shard, from raw events."""
    features, named = study(concepts)
    store, decisions = EventStore.open(folder / "store"), pd.read_parquet(folder / "decisions.parquet")
    rows = 0
    for shard in range(store.shard_count):
        own = decisions[decisions["subject_id"].isin(store.subject_ids(shard).to_pylist())]
        events, _ = concept_events(store.read_shard(shard), named)
        rows += len(event_features(events, own, features, named))
    return rows


def wide(folder: Path, concepts: int) -> int:
    """Theracast: the final wide table as one Parquet file."""
    features, named = study(concepts)
    decisions = pd.read_parquet(folder / "decisions.parquet")
    return write_wide(EventStore.open(folder / "store"), decisions, features, named, path=folder / "wide.parquet").rows


def bare_sql(files: str) -> str:
    """Return the query as one would write it by hand for these aggregates."""
    parts = []
    for name, days in DAYS.items():
        within = f"filter (where age < {days * DAY} and v is not null)"
        parts.append(
            f"max(struct_pack(t := -age, v := v)) {within} as last_{name}, min(v) {within} as min_{name}, "
            f"max(v) {within} as max_{name}, avg(v) {within} as mean_{name}, stddev_samp(v) {within} as std_{name}, "
            f"regr_slope(v, -age / {DAY}) {within} as slope_{name}, count(v) {within} as count_{name}, "
            f"avg(case when v < 40 or v > 60 then 1 else 0 end) {within} as outside_{name}"
        )
    return f"""select subject_id, index_time, code, {", ".join(parts)} from (
        select d.subject_id, d.index_time, e.code, epoch_us(d.index_time) - epoch_us(e.time) as age, e.numeric_value as v
        from decisions d join read_parquet({files}) e using (subject_id)
        where e.time <= d.index_time and coalesce(e.available_time, e.time) <= d.index_time
        and e.time > d.index_time - interval {max(DAYS.values())} day) group by all"""


def bare(folder: Path, _: int) -> int:
    """Bare DuckDB SQL, shard by shard; one row per decision and concept, in memory."""
    store, decisions = EventStore.open(folder / "store"), pd.read_parquet(folder / "decisions.parquet")
    database, rows = duckdb.connect(), 0
    for shard in range(store.shard_count):
        own = decisions[decisions["subject_id"].isin(store.subject_ids(shard).to_pylist())]
        database.register("decisions", pa.Table.from_pandas(own, preserve_index=False))
        rows += database.sql(bare_sql(str([str(path) for path in store.shard_files(shard)]))).to_arrow_table().num_rows
    return rows


def bare_wide(folder: Path, _: int) -> int:
    """Bare DuckDB SQL, shard by shard; the same wide table by PIVOT, as Parquet files."""
    store, decisions = EventStore.open(folder / "store"), pd.read_parquet(folder / "decisions.parquet")
    database, rows = duckdb.connect(), 0
    names = ", ".join(
        f"first({aggregate}_{name}::float) as {aggregate}_{name}" for name in DAYS for aggregate in AGGREGATES
    )
    lasts = ", ".join(f"struct_extract(last_{name}, 'v') as last_{name}" for name in DAYS)
    for shard in range(store.shard_count):
        own = decisions[decisions["subject_id"].isin(store.subject_ids(shard).to_pylist())]
        database.register("decisions", pa.Table.from_pandas(own, preserve_index=False))
        query = bare_sql(str([str(path) for path in store.shard_files(shard)]))
        database.execute(f"create or replace table long as select * replace ({lasts}) from ({query})")
        target = folder / f"bare_{shard}.parquet"
        database.execute(
            f"copy (pivot long on code using {names} group by subject_id, index_time) to '{target}' (compression zstd)"
        )
        rows += pq.read_metadata(target).num_rows
    return rows


def bare_at_once(folder: Path, _: int) -> int:
    """Bare DuckDB SQL over all patients at once; one row per decision and concept, in memory."""
    database = duckdb.connect()
    database.register("decisions", pq.read_table(folder / "decisions.parquet"))
    return int(database.sql(bare_sql(f"'{folder}/store/**/*.parquet'")).to_arrow_table().num_rows)


def with_pandas(folder: Path, _: int) -> int:
    """pandas on a share of the patients; slopes from centred sums, as groupby has none."""
    decisions = pd.read_parquet(folder / "decisions.parquet")
    decisions = decisions.iloc[: len(decisions) // PANDAS_SHARE].reset_index(names="decision")
    wanted = [("subject_id", "in", set(decisions["subject_id"]))]
    rows = pq.read_table(sorted((folder / "store").rglob("*.parquet")), columns=COLUMNS, filters=wanted).to_pandas()
    seen = decisions.merge(rows, on="subject_id").rename(columns={"numeric_value": "v"})
    known = seen["available_time"].fillna(seen["time"]) <= seen["index_time"]
    seen = seen[(seen["time"] <= seen["index_time"]) & known]
    parts = []
    for name, days in DAYS.items():
        inside = seen[seen["time"] > seen["index_time"] - pd.Timedelta(days=days)].sort_values(["time", "v"])
        groups = inside.assign(
            x=(inside["time"] - inside["index_time"]) / pd.Timedelta(days=1),
            out=(inside["v"] < 40) | (inside["v"] > 60),
        ).groupby(["decision", "code"], sort=False)
        part = groups["v"].agg(["last", "min", "max", "mean", "std", "count"])
        x, y = (groups.obj[key] - groups[key].transform("mean") for key in ("x", "v"))
        keys = [groups.obj["decision"], groups.obj["code"]]
        part["slope"] = (x * y).groupby(keys, sort=False).sum() / (x * x).groupby(keys, sort=False).sum()
        part["outside"] = groups["out"].mean()
        parts.append(part.add_suffix(f".{name}").unstack("code"))
    return len(pd.concat(parts, axis=1))


def one_patient(folder: Path, concepts: int) -> float:
    """Return the milliseconds from 1,000 raw events of one patient to the features, after the first call."""
    features, named = study(concepts)
    events = next(event_batches(1_000, concepts))
    events = events.set_column(0, "subject_id", pa.array(["p"] * 1_000))
    decisions = pd.DataFrame({"subject_id": ["p"], "index_time": [START + np.timedelta64(300, "D")]})
    taken = []
    for _ in range(21):
        begun = time.perf_counter()
        normal, _notes = concept_events(events, named)
        event_features(normal, decisions, features, named)
        taken.append(1_000 * (time.perf_counter() - begun))
    return statistics.median(taken[1:])


ROWS: dict[str, tuple[str, Callable[[Path, int], Any]]] = {
    "read": ("reading the columns once", read_once),
    "bare": ("bare SQL by shard, long", bare),
    "once": ("bare SQL at once, long", bare_at_once),
    "pivot": ("bare SQL by shard, wide Parquet", bare_wide),
    "frames": ("theracast, wide frames", frames),
    "wide": ("theracast, wide Parquet", wide),
    "pandas": (f"pandas, 1/{PANDAS_SHARE} extrapolated", with_pandas),
    "patient": ("one patient, 1,000 events (ms)", one_patient),
}


def measure(row: str, folder: Path, concepts: int) -> dict[str, float]:
    """Return wall and CPU seconds, peak memory and the result of one row, computed in a new process."""
    command = [sys.executable, __file__, "--row", row, "--folder", str(folder), "--concepts", str(concepts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_row(row: str, folder: Path, concepts: int) -> None:
    """Run one row in this process and print its figures as JSON."""
    idle = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    result = ROWS[row][1](folder, concepts)
    wall = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - idle.ru_utime - idle.ru_stime
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": used.ru_maxrss / 1e6, "result": result}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--concepts", type=int, default=60)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--skip-pandas", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        run_row(given.row, given.folder, given.concepts)
        return
    events = int(given.events)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Not in this process: the peak memory of a child starts at what its parent holds.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(make, folder, events=events, concepts=given.concepts, shards=given.shards).result()
        print(
            f"{events:,} events, {events // 100:,} patients, {events // 50:,} decisions, {given.concepts} concepts x "
            f"{len(DAYS)} windows x {len(AGGREGATES)} aggregates, {given.shards} shards, {os.cpu_count()} cores"
        )
        print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}{'result':>13}")
        for row, (label, _) in ROWS.items():
            if row == "pandas" and given.skip_pandas:
                continue
            found = measure(row, folder, given.concepts)
            times = PANDAS_SHARE if row == "pandas" else 1
            print(
                f"{label:34}{found['wall'] * times:9.2f}{found['cpu'] * times:9.2f}{found['memory']:9.2f}{found['result']:13,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
