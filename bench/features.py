"""How fast event features are, and in how much memory: side by side with bare SQL, pandas, meds-tab and reading alone.

    python bench/features.py [--events 20e6] [--concepts 60] [--shards 16] [--rows read,pivot,wide] [--meds-tab ENV/bin]
    python bench/features.py --scale

100 events and 2 decisions a patient; 3 windows x 8 aggregates for each concept. Every row runs in a process of its own.

`theracast, wide Parquet` is the whole road of `theracast features`: event store, normalised concepts, features, parts for the
cache, one Parquet file in the order of the decisions. `bare SQL, wide Parquet` is the same table written by hand: the hand-written
aggregates, pivoted, shard by shard, as one file a shard, in no order and without normalisation, range checks or a cache.
`bare SQL, long` stops at one row per decision and concept, in memory.

pandas computes the patients of a twentieth of the decisions, and its wall and CPU are multiplied. meds-tab (with `--meds-tab`,
the folder of its commands in an environment of its own) tabularises at most a million of the events at the same decisions and
windows, as 18 sparse matrices a shard of the six aggregates that it has (count of codes and of values, sum, sum of squares, min,
max), and is multiplied as well.
`--scale` computes 2, 5, 20 and 50 million events. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
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

from theracast_data.cohort import Cohort
from theracast_data.events.access import KEY, CohortEvents
from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_features.events.duckdb_engine import event_features
from theracast_features.events.section import EventFeatures
from theracast_features.section import FeatureSection
from theracast_features.wide import WideReport, write_features

DAYS = {"7d": 7, "30d": 30, "180d": 180}
AGGREGATES = ("last", "min", "max", "mean", "std", "slope", "count", "outside")
START = np.datetime64("2020-01-01", "us")
DAY = 86_400_000_000
PANDAS_SHARE = 20
MEDS_EVENTS = 1_000_000
SCALE = (2_000_000, 5_000_000, 20_000_000, 50_000_000)
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


def cohort(folder: Path, concepts: int) -> tuple[Cohort, FeatureSection]:
    """Return the decisions with the store, and what is asked of them."""
    features, named = study(concepts)
    decisions = pd.read_parquet(folder / "decisions.parquet").astype({"subject_id": "str"})
    decisions = decisions.assign(site="A", treatment=None, calendar=2020.5, **{KEY: decisions["subject_id"]})
    nothing = pd.DataFrame(index=decisions.index)
    events = CohortEvents(named, EventStore.open(folder / "store"))
    section = FeatureSection(events=tuple(features), missing_indicators=())
    return Cohort(decisions, nothing, nothing, {}, events=events), section


def wide(folder: Path, concepts: int) -> int:
    """Theracast: the final wide table as one Parquet file; the cache is empty, and filled."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return write(folder, concepts).rows


def again(folder: Path, concepts: int) -> int:
    """Theracast: the same when nothing has changed."""
    report = write(folder, concepts)
    shutil.rmtree(folder / "cache")
    return report.reused


def write(folder: Path, concepts: int) -> WideReport:
    """Write the final table."""
    asked, section = cohort(folder, concepts)
    return write_features(asked, section, path=folder / "wide.parquet", cache=folder / "cache")


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


def meds_data(folder: Path, events: int) -> int:
    """Write a million of the events at most, and their decisions, as meds-tab reads them; return how many events."""
    count = min(events, MEDS_EVENTS)
    patients = count // 100
    decisions = pd.read_parquet(folder / "decisions.parquet").astype({"subject_id": "int64"})
    decisions = decisions.rename(columns={"index_time": "prediction_time"}).assign(boolean_value=False)
    shutil.rmtree(folder / "meds", ignore_errors=True)
    wanted = [("subject_id", "in", {str(one) for one in range(patients)})]
    columns = ["subject_id", "time", "code", "numeric_value"]
    frame = pq.read_table(sorted((folder / "store").rglob("*.parquet")), columns=columns, filters=wanted).to_pandas()
    frame = frame.astype({"subject_id": "int64", "numeric_value": "float32"}).sort_values(["subject_id", "time"])
    per_shard = max(1, patients // 4)
    for shard, start in enumerate(range(0, patients, per_shard)):
        for name, table in (("data", frame), ("labels", decisions)):
            own = table[table["subject_id"].between(start, min(start + per_shard, patients) - 1)]
            path = folder / "meds" / name / "train" / f"{shard}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            own.to_parquet(path, index=False)
    return len(frame)


def with_meds_tab(folder: Path, commands: Path, events: int) -> dict[str, float]:
    """Return the figures of meds-tab from events to aggregates at the decisions, for all events."""
    count = meds_data(folder, events)
    data, out = folder / "meds" / "data", folder / "meds" / "out"
    windows, aggregates = ",".join(DAYS), "code/count,value/count,value/sum,value/sum_sqd,value/min,value/max"
    begun, idle = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command, options in (
        ("meds-tab-describe", []),
        ("meds-tab-tabularize-time-series", [
            f"input_label_dir={folder / 'meds' / 'labels'}", "do_overwrite=True",
            f"tabularization.window_sizes=[{windows}]", f"tabularization.aggs=[{aggregates}]",
        ]),
    ):  # fmt: skip
        arguments = [str(commands / command), f"input_dir={data}", f"output_dir={out}", *options]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.strip().splitlines()[-1]}")
    made = len(list(out.rglob("*.npz")))
    if not made:
        raise RuntimeError("meds-tab wrote no matrix")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - idle.ru_utime - idle.ru_stime
    shutil.rmtree(folder / "meds")
    factor = events / count
    wall = time.perf_counter() - begun
    return {"wall": wall * factor, "cpu": cpu * factor, "memory": used.ru_maxrss / 1e6, "result": made}


ROWS: dict[str, tuple[str, Callable[[Path, int], Any]]] = {
    "read": ("reading the columns once", read_once),
    "bare": ("bare SQL by shard, long", bare),
    "once": ("bare SQL at once, long", bare_at_once),
    "pivot": ("bare SQL by shard, wide Parquet", bare_wide),
    "wide": ("theracast, wide Parquet", wide),
    "again": ("theracast, nothing changed", again),
    "pandas": (f"pandas, 1/{PANDAS_SHARE} extrapolated", with_pandas),
    "patient": ("one patient, 1,000 events (ms)", one_patient),
}


def measure(row: str, folder: Path, concepts: int) -> dict[str, float]:
    """Return wall and CPU seconds, peak memory and the result of one row, computed in a new process."""
    command = [sys.executable, __file__, "--row", row, "--folder", str(folder), "--concepts", str(concepts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if row == "pandas":
        found["wall"], found["cpu"] = found["wall"] * PANDAS_SHARE, found["cpu"] * PANDAS_SHARE
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


def made(folder: Path, *, events: int, concepts: int, shards: int) -> Path:
    """Return the folder with the data, made if they are not there."""
    if not (folder / "decisions.parquet").exists():
        # Not in this process: the peak memory of a child starts at what its parent holds.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(make, folder, events=events, concepts=concepts, shards=shards).result()
    return folder


def tell(label: str, found: dict[str, float]) -> None:
    """Print one line of a table."""
    print(
        f"{label:34}{found['wall']:9.1f}{found['cpu']:9.1f}{found['memory']:9.2f}{found['result']:13,.0f}", flush=True
    )


def compare(given: argparse.Namespace, data: Path) -> None:
    """Print the table of all rows, and what matters of it."""
    events = int(given.events)
    folder = made(data / f"{events}", events=events, concepts=given.concepts, shards=given.shards)
    print(
        f"{events:,} events, {events // 100:,} patients, {events // 50:,} decisions, {given.concepts} concepts x "
        f"{len(DAYS)} windows x {len(AGGREGATES)} aggregates, {given.shards} shards, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}{'result':>13}")
    found: dict[str, dict[str, float]] = {}
    for row in given.rows.split(",") if given.rows else [*ROWS, "meds"]:
        if row == "meds":
            if given.meds_tab is None:
                print("meds-tab: left out; name the folder of its commands with --meds-tab (pip install meds-tab)")
                continue
            found[row] = with_meds_tab(folder, given.meds_tab.resolve(), events)
            label = f"meds-tab, {min(events, MEDS_EVENTS):,} extrapolated"
        else:
            found[row], label = measure(row, folder, given.concepts), ROWS[row][0]
        tell(label, found[row])
    for above, below in (("wide", "pivot"), ("wide", "bare"), ("meds", "wide"), ("pandas", "wide")):
        if above in found and below in found:
            ratios = ", ".join(f"{name} {found[above][name] / found[below][name]:.2f}" for name in ("wall", "cpu"))
            print(f"{above} / {below}: {ratios}")


def scale(given: argparse.Namespace, data: Path) -> None:
    """Print what more events cost."""
    print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}{'result':>13}   {os.cpu_count()} cores")
    for events in SCALE:
        folder = made(data / f"{events}", events=events, concepts=given.concepts, shards=given.shards)
        for row, name in (("read", "read"), ("wide", "theracast, wide Parquet")):
            found = measure(row, folder, given.concepts)
            tell(f"{events / 1e6:3.0f} M events, {name}", found)
            print(f"{'':34}{'':9}{1e6 * found['cpu'] / events:9.2f} us of CPU an event", flush=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--concepts", type=int, default=60)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rows", help=f"of {', '.join(ROWS)}, meds; by default all, in this order")
    parser.add_argument("--meds-tab", type=Path, metavar="ENV/bin", help="folder of meds-tab's commands")
    parser.add_argument("--scale", action="store_true", help="2, 5, 20 and 50 million events")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the made-up events stay; by default nowhere")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        run_row(given.row, given.folder, given.concepts)
        return
    unknown = set((given.rows or "meds").split(",")) - {*ROWS, "meds"}
    if unknown:
        parser.error(f"--rows: there is no {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}, meds")
    with tempfile.TemporaryDirectory() as name:
        (scale if given.scale else compare)(given, given.data or Path(name))


if __name__ == "__main__":
    main()
