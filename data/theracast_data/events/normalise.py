"""Events as the study's concepts see them: one name and one unit for each quantity, and a count of what was not used."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.events.concepts import Concept
from theracast_data.events.molar import analyte_scale
from theracast_data.units import UnitError

NoteKind = Literal["assumed", "no_unit", "refused", "implausible", "mixed"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# What hospitals write for units that UCUM spells otherwise; in small letters, without blanks, u for micro. Only what has
# one meaning; that the `IU` of an enzyme is U is known to the conversion by analyte.
_SPELLINGS = {
    "mg/dl": "mg/dL", "g/dl": "g/dL", "gm/dl": "g/dL", "gms/dl": "g/dL", "g/l": "g/L", "gm/l": "g/L",
    "mg/l": "mg/L", "ug/l": "ug/L", "mcg/l": "ug/L",
    "mcg/dl": "ug/dL", "ug/dl": "ug/dL", "mcg/ml": "ug/mL", "ug/ml": "ug/mL",
    "ng/ml": "ng/mL", "ng/dl": "ng/dL", "ng/l": "ng/L", "pg/ml": "pg/mL", "pg/dl": "pg/dL",
    "mmol/l": "mmol/L", "umol/l": "umol/L", "mcmol/l": "umol/L", "nmol/l": "nmol/L",
    "pmol/l": "pmol/L", "meq/l": "meq/L", "mosm/kg": "mosm/kg", "u/l": "U/L", "unit/l": "U/L", "units/l": "U/L",
    "iu/l": "[iU]/L",
    "iu/ml": "[iU]/mL", "miu/l": "m[iU]/L", "miu/ml": "m[iU]/mL", "uiu/ml": "u[iU]/mL", "mcu/ml": "u[iU]/mL",
    "k/ul": "10*3/uL", "k/mcl": "10*3/uL", "th/ul": "10*3/uL", "x10e3/ul": "10*3/uL",
    "10^3/ul": "10*3/uL", "x10^3/ul": "10*3/uL", "10e3/ul": "10*3/uL", "10*3/ul": "10*3/uL", "10^9/l": "10*9/L",
    "x10^9/l": "10*9/L", "10e9/l": "10*9/L", "10*9/l": "10*9/L", "x10e9/l": "10*9/L", "g/pt/l": "10*9/L",
    "m/ul": "10*6/uL", "m/mcl": "10*6/uL", "10^6/ul": "10*6/uL", "x10^6/ul": "10*6/uL",
    "10^12/l": "10*12/L", "x10^12/l": "10*12/L", "10*12/l": "10*12/L", "/ul": "/uL", "/mcl": "/uL", "cells/ul": "/uL",
    "cmh2o": "cm[H2O]", "mosm/l": "mosm/L", "mosm/kgh2o": "mosm/kg", "mg/24hr": "mg/d", "mg/24h": "mg/d",
    "mg/day": "mg/d", "mls": "mL",
    "mls/dl": "mL/dL", "mm/hr": "mm/h",
    "mmhg": "mm[Hg]", "percent": "%", "fl": "fL", "pg": "pg", "°c": "Cel", "degc": "Cel", "°f": "[degF]",
    "degf": "[degF]", "mcg": "ug", "ml": "mL", "l": "L", "cc": "mL", "bpm": "/min", "kg/m^2": "kg/m2",
    "kg/m²": "kg/m2", "ratio": "1", "years": "a", "year": "a", "days": "d", "day": "d", "hours": "h", "hour": "h",
    "minutes": "min", "months": "mo", "weeks": "wk", "lbs": "[lb_av]", "lb": "[lb_av]", "inches": "[in_i]",
    "sec": "s", "seconds": "s", "ml/min/1.73m2": "mL/min/{1.73_m2}", "ml/min/1.73m^2": "mL/min/{1.73_m2}",
}  # fmt: skip


@dataclass(frozen=True)
class UnitNote:
    """What was done to some values of a concept, or why they were not used.

    Attributes:
        kind: `assumed`: no unit in the source, taken in `assume_unit`; `no_unit`: none, and none may be assumed;
            `refused`: cannot be converted; `implausible`: outside the possible range, or infinite; `mixed`: the concept
            names no unit, and its values come in several (used as they stand).
        unit: unit in the source, None where it names none or the note is about all of them.
        count: how many values.
        message: what to do about it, for a reader of the study.
    """

    concept: str
    kind: NoteKind
    unit: str | None
    count: int
    message: str


def concept_events(events: pa.Table, concepts: Mapping[str, Concept]) -> tuple[pa.Table, list[UnitNote]]:
    """Return the events of the concepts with columns `concept` and `value`, and notes on values that were not used.

    An event of several concepts comes once for each, in the order of `concepts`; an event of none is left out. `value` is
    the number in the concept's unit, null where there is none or it cannot be used; the events keep their order. Every
    value depends on its own event alone, so that it is the same in whatever table the event stands.

    A value without unit is taken in `assume_unit`; without that too it is not used, unless the concept's unit is 1 or an
    annotation such as {score}. The analyte of a conversion is the concept's `quantity`, by default its name.
    """
    names = list(concepts)
    rows, owners = _matches(events["code"], concepts)
    taken = events if _all_rows(rows, len(events)) else events.take(pa.array(rows))
    numbers = taken["numeric_value"].to_numpy().astype(np.float64, copy=False)
    unit_of, units = _encoded(taken["unit"])
    present = ~np.isnan(numbers)

    pairs = owners * (len(units) + 1) + unit_of
    # There are few pairs, and finding them in a table of all that could be costs less than sorting the events by them.
    met = np.zeros(len(names) * (len(units) + 1), dtype=bool)
    met[pairs] = True
    unique = np.flatnonzero(met)
    place = (np.cumsum(met) - 1)[pairs]
    scales = [
        _scale(
            concepts[names[pair // (len(units) + 1)]],
            names[pair // (len(units) + 1)],
            [*units, None][pair % (len(units) + 1)],
        )
        for pair in unique.tolist()
    ]
    slopes = np.array([scale.slope for scale in scales], dtype=np.float64)
    offsets = np.array([scale.offset for scale in scales], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers * slopes[place] + offsets[place] if scales else numbers
    counts = np.bincount(place[present], minlength=len(scales))
    notes = [note for scale, count in zip(scales, counts.tolist(), strict=True) if count for note in scale.notes(count)]

    possible = _possible(values, owners, list(concepts.values()))
    wrong = ~possible & ~np.isnan(values) | np.isinf(numbers)
    notes += _implausible_notes(names, owners[wrong])
    notes += _mixed_notes(scales, counts.tolist(), concepts)
    values = np.where(wrong, np.nan, values)
    column = pa.DictionaryArray.from_arrays(pa.array(owners.astype(np.int32)), pa.array(names, pa.string()))
    result = taken.append_column(pa.field("concept", pa.string()), column.cast(pa.string()))
    return result.append_column(pa.field("value", pa.float64()), pa.array(values, mask=np.isnan(values))), notes


def ucum_spelling(unit: str) -> str:
    """Return a unit as UCUM spells it, where it is met in one other spelling: `K/uL` gives 10*3/uL. Others stay."""
    # The sign of micro exists twice: as such (which casefold turns into the other) and as the Greek letter.
    plain = html.unescape(unit).strip()
    return _SPELLINGS.get("".join(plain.casefold().split()).replace("\u03bc", "u"), plain)


@dataclass(frozen=True)
class _Scale:
    """How values of one concept in one unit of the source become values in the concept's unit; NaN: they do not."""

    concept: str
    unit: str | None
    slope: float
    offset: float
    kind: NoteKind | None = None
    message: str = ""

    def notes(self, count: int) -> list[UnitNote]:
        """Return the note on so many values, none where they were simply converted."""
        return [UnitNote(self.concept, self.kind, self.unit, count, self.message)] if self.kind else []


@lru_cache(maxsize=8192)
def _scale(concept: Concept, name: str, unit: str | None) -> _Scale:
    source = ucum_spelling(unit) if unit and unit.strip() else None
    if concept.unit is None:
        return _Scale(name, unit, 1.0, 0.0)
    kind: NoteKind | None = None
    message = ""
    if source is None:
        if concept.assume_unit is None:
            if concept.unit == "1" or concept.unit.startswith("{"):
                return _Scale(name, unit, 1.0, 0.0)
            message = (
                f"no unit in the source, so they are not used. If it is known, write it as `assume_unit` of {name}."
            )
            return _Scale(name, unit, math.nan, math.nan, "no_unit", message)
        source, kind, message = (
            concept.assume_unit,
            "assumed",
            f"no unit in the source, taken as {concept.assume_unit}.",
        )
    try:
        slope, offset = analyte_scale(source, ucum_spelling(concept.unit), quantity=concept.quantity or name)
    except UnitError as error:
        return _Scale(name, unit, math.nan, math.nan, "refused", f"not used. {error}")
    return _Scale(name, unit, slope, offset, kind, message)


def _matches(codes: pa.ChunkedArray, concepts: Mapping[str, Concept]) -> tuple[Ints, Ints]:
    """Return row of the event and number of the concept for each match, by row, then by concept."""
    exact: dict[str, list[int]] = {}
    prefixes: list[tuple[str, int]] = []
    for number, concept in enumerate(concepts.values()):
        for code in concept.codes:
            if code.endswith("*"):
                prefixes.append((code[:-1], number))
            exact.setdefault(code, []).append(number)
    code_of, unique = _encoded(codes)
    owners: list[list[int]] = []
    starts = tuple(prefix for prefix, _ in prefixes)
    for code in unique:
        found = set(exact.get(code, ()))
        if starts and code.startswith(starts):
            found.update(number for prefix, number in prefixes if code.startswith(prefix))
        owners.append(sorted(found))
    width = max(map(len, owners), default=0)
    # A code without a concept, or with fewer than others, has -1; so has a missing code (the last row of the table).
    table = np.full((len(owners) + 1, width), -1, dtype=np.int64)
    for row, found_numbers in enumerate(owners):
        table[row, : len(found_numbers)] = found_numbers
    if width == 1:
        owner = table[:, 0][code_of]
        rows = np.flatnonzero(owner >= 0)
        return rows, owner[rows]
    wide = table[code_of]
    rows, columns = np.nonzero(wide >= 0)
    return rows, wide[rows, columns]


def _encoded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Return the number of each row's text among the distinct ones, and these; a missing text has the number behind them."""
    coded = pc.dictionary_encode(column)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # no rows, or several chunks
        coded = coded.chunk(0) if coded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    distinct: list[Any] = coded.dictionary.to_pylist()
    numbers = coded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return numbers.astype(np.int64), distinct


def _all_rows(rows: Ints, count: int) -> bool:
    return len(rows) == count and bool(np.array_equal(rows, np.arange(count)))


def _possible(values: Floats, owners: Ints, concepts: list[Concept]) -> npt.NDArray[np.bool_]:
    """Return which values lie in the possible range of their concept, both ends included; NaN does not."""
    limits = np.array([one.plausible or (-math.inf, math.inf) for one in concepts], dtype=np.float64).reshape(-1, 2)
    low, high = limits[owners, 0], limits[owners, 1]
    possible: npt.NDArray[np.bool_] = (values >= low) & (values <= high) & np.isfinite(values)
    return possible


def _implausible_notes(names: list[str], owners: Ints) -> list[UnitNote]:
    counts = np.bincount(owners, minlength=len(names)).tolist()
    message = "outside `plausible`, so they are not used. See whether the unit is right."
    return [
        UnitNote(name, "implausible", None, count, message) for name, count in zip(names, counts, strict=True) if count
    ]


def _mixed_notes(scales: list[_Scale], counts: list[int], concepts: Mapping[str, Concept]) -> list[UnitNote]:
    seen: dict[str, dict[str, int]] = {}
    for scale, count in zip(scales, counts, strict=True):
        if count and concepts[scale.concept].unit is None:
            spelt = ucum_spelling(scale.unit or "")
            seen.setdefault(scale.concept, {}).setdefault(spelt, 0)
            seen[scale.concept][spelt] += count
    return [
        UnitNote(name, "mixed", None, sum(by_unit.values()),
                 f"values come in {len(by_unit)} units ({', '.join(sorted(unit or 'none' for unit in by_unit))}) and are used "
                 f"as they stand. Give {name} a `unit`.")
        for name, by_unit in seen.items() if len(by_unit) > 1
    ]  # fmt: skip
