"""The feature table as one Parquet file for others to read, written without ever being in memory as a whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from theracast_data.cohort import Cohort
from theracast_features.harmonise import with_scanners
from theracast_features.parts import Chunk, Floats, Part, PartedTable, Progress, build_parts, fits_float32, replaced
from theracast_features.pictures import with_pictures
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable

KEYS = ("subject_id", "index_time", "site")
"""Columns of the decisions that stand in front of the features."""

GROUP_CELLS = 16_000_000
"""Cells of a row group: 128 MB on the way, 64 MB before compression."""


@dataclass(frozen=True)
class WideReport:
    """What was written.

    Attributes:
        path: the Parquet file; the catalogue lies beside it as `STEM.catalogue.json`.
        rows: decisions.
        columns: features.
        built: parts that were computed.
        reused: parts that were taken from the cache.
    """

    path: Path
    rows: int
    columns: int
    built: int
    reused: int

    def to_json(self) -> dict[str, Any]:
        """Return the contract of `theracast features --json`."""
        return asdict(self) | {"path": str(self.path)}


def write_features(
    cohort: Cohort,
    section: FeatureSection,
    *,
    path: Path,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> WideReport:
    """Write one Parquet file: `KEYS`, then the features, in the order of the cohort's decisions; and the catalogue.

    Numbers are float32 where all values of a feature keep their magnitude in it, otherwise float64. The file is for reading
    elsewhere: trainings read the parts, which hold the cells as scoring computes them.

    Args:
        section: resolved (`missing_indicators` by name).
        path: file to write; it is replaced as a whole, at the end.
        cache: folder for parts; None: everything is computed.
        progress: called with the number of parts done and of all.

    Raises:
        StudyError: as for `build_features`, before any events are read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        table = build_parts(cohort, section, folder=cache or _scratch(stack, path.parent), progress=progress)
        catalogue = json.dumps([spec.to_json() for spec in table.catalogue], indent=1, ensure_ascii=False)
        with replaced(path) as draft, replaced(path.with_suffix(".catalogue.json")) as beside:
            _write(table, draft)
            beside.write_text(catalogue + "\n", encoding="utf-8")
    return WideReport(path, len(cohort), len(table.catalogue), table.built, table.reused)


def read_features(
    cohort: Cohort, section: FeatureSection, *, cache: Path | None = None, progress: Progress | None = None
) -> FeatureTable:
    """Return what `build_features` returns, to the last bit, taking from the cache what is known already.

    Args:
        section: resolved (`missing_indicators` by name).
        cache: folder for parts; None: everything is computed.
        progress: called with the number of parts done and of all.

    Raises:
        StudyError: as for `build_features`, before any events are read.
    """
    with ExitStack() as stack:
        table = build_parts(cohort, section, folder=cache or _scratch(stack, None), progress=progress).read()
    # Parts hold features alone; scanners and pictures, which are none, stand beside the decisions.
    return with_pictures(with_scanners(table, cohort, section), cohort, section)


def _scratch(stack: ExitStack, beside: Path | None) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=beside, prefix=".theracast-features-")))


def _write(table: PartedTable, path: Path) -> None:
    keys = pa.Table.from_pandas(table.decisions[list(KEYS)], preserve_index=False).replace_schema_metadata()
    beyond = table.beyond_float32()
    numbers = [pa.field(name, pa.float64() if name in beyond else pa.float32()) for name in table.numeric]
    fields = {field.name: field for field in [*numbers, *(pa.field(name, pa.string()) for name in table.categorical)]}
    names = [spec.name for spec in table.catalogue]
    schema = pa.schema([*keys.schema, *(fields[name] for name in names)])
    coded = [*KEYS, *table.categorical]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=coded, write_statistics=coded) as writer:
        for group in _ahead(_groups(table, keys, schema, beyond)):
            writer.write_table(group)


def _groups(table: PartedTable, keys: pa.Table, schema: pa.Schema, beyond: set[str]) -> Iterator[pa.Table]:
    """Yield the row groups of the file."""
    names = [spec.name for spec in table.catalogue]
    for start, block in _blocks(table, rows=max(1, GROUP_CELLS // max(1, len(names)))):
        order = np.argsort(block.rows)
        columns = {
            name: _narrow(values[order], beyond=name in beyond)
            for name, values in zip(table.numeric, block.numbers, strict=True)
        }
        columns |= {
            name: pa.array(words[order], pa.string())
            for name, words in zip(table.categorical, block.texts, strict=True)
        }
        part = keys.slice(start, len(block.rows))
        yield pa.table([*part.columns, *(columns[name] for name in names)], schema=schema)


def _ahead(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same, of which the next is made in a thread while the caller encodes the last."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, groups, None)
        while (group := waiting.result()) is not None:
            waiting = pool.submit(next, groups, None)
            yield group


def _blocks(table: PartedTable, *, rows: int) -> Iterator[tuple[int, Chunk]]:
    """Yield the next so many rows of the table and the position of the first, part by part.

    The rows of a part are in the order of the cohort, so that every block needs the next few of each part.
    """
    takes = [_Rows(table, part) for part in table.parts]
    for start in range(0, len(table.decisions), rows):
        taken = [chunk for take in takes for chunk in take.before(start + rows)]
        yield (
            start,
            Chunk(
                np.concatenate([chunk.rows for chunk in taken]),
                np.concatenate([chunk.numbers for chunk in taken], axis=1),
                np.concatenate([chunk.texts for chunk in taken], axis=1),
            ),
        )


class _Rows:
    """The rows of a part, taken from the top; one chunk of them is in memory, none before the first is due."""

    def __init__(self, table: PartedTable, part: Part) -> None:
        self._chunks = table.chunks(part)
        self._rest: Chunk | None = None
        self._left = part.rows

    def before(self, stop: int) -> Iterator[Chunk]:
        """Yield the rows that come before this position and were not taken yet."""
        while len(self._left) and self._left[0] < stop:
            chunk = self._rest if self._rest is not None else next(self._chunks)
            due, rest = chunk.cut(int(np.searchsorted(chunk.rows, stop)))
            self._rest = rest if len(rest.rows) else None
            self._left = self._left[len(due.rows) :]
            yield due


def _narrow(values: Floats, *, beyond: bool) -> pa.Array:
    """Return the values as float32; of a feature with values beyond it, as float64.

    The others of such a feature are rounded all the same: a cell must not hang on which values share its column.
    """
    if not beyond:
        return pa.array(values.astype(np.float32), from_pandas=True)
    fits = fits_float32(values)
    rounded = np.where(fits, values, 0.0).astype(np.float32).astype(np.float64)
    return pa.array(np.where(fits, rounded, values), from_pandas=True)
