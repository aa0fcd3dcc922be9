"""Events of concepts in one unit, against a slow and obvious loop."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.events.concepts import Concept
from theracast_data.events.molar import analyte_scale
from theracast_data.events.normalise import UnitNote, concept_events, ucum_spelling
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_data.units import UnitError

START = pd.Timestamp("2024-01-01")
CONCEPTS = {
    "creatinine": Concept(codes=("LOINC//2160-0", "eicu//creatinine"), unit="umol/L", assume_unit="mg/dL",
                          plausible=(5, 2000)),
    "kidney": Concept(codes=("LOINC//2160-0", "KIDNEY//*"), unit="mg/dL", quantity="creatinine"),
    "hba1c": Concept(codes=("LOINC//4548-4",), unit="%"),
    "ecog": Concept(codes=("LOINC//89247-1",), unit="1", plausible=(0, 4)),
    "free": Concept(codes=("own//free",)),
    "immune": Concept(codes=("ATC//L01FF*", "ATC//L01FX*"), modality="treatment"),
}  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    plain = dict.fromkeys(EVENT_SCHEMA.names) | {"subject_id": "p", "time": START}
    return pa.Table.from_pylist([plain | row for row in rows], schema=EVENT_SCHEMA)


def slow(row: dict[str, Any]) -> list[tuple[str, float | None]]:
    found = []
    for name, concept in CONCEPTS.items():
        if not concept.matches(row["code"]):
            continue
        number, unit = row["numeric_value"], row["unit"]
        value: float | None = None
        if number is not None and math.isfinite(number):
            source = ucum_spelling(unit) if unit else concept.assume_unit or ("1" if concept.unit == "1" else None)
            if concept.unit is None:
                value = number
            elif source is not None:
                try:
                    slope, offset = analyte_scale(source, concept.unit, quantity=concept.quantity or name)
                    value = slope * number + offset
                except UnitError:
                    value = None
        if value is not None and concept.plausible and not concept.plausible[0] <= value <= concept.plausible[1]:
            value = None
        found.append((name, value))
    return found


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "code": st.sampled_from(["LOINC//2160-0", "KIDNEY//x", "LOINC//4548-4", "LOINC//89247-1", "own//free",
                                     "ATC//L01FF05", "ATC//L01F", "other//1", "KIDNEY//"]),
            "numeric_value": st.none() | st.floats(-10, 5000) | st.sampled_from([math.nan, math.inf, 0.0]),
            "unit": st.sampled_from([None, "mg/dL", "MG/DL", "umol/L", "%", "mmol/mol", "1", "g", "nonsense", ""]),
        }
    ),
    max_size=40,
)  # fmt: skip


@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_every_value_is_that_of_the_slow_loop(rows: list[dict[str, Any]]) -> None:
    got, _ = concept_events(table_of(rows), CONCEPTS)
    expected = [(row["code"], *pair) for row in rows for pair in slow(row)]
    assert got["code"].to_pylist() == [code for code, _, _ in expected]
    assert got["concept"].to_pylist() == [name for _, name, _ in expected]
    for value, (_, _, other) in zip(got["value"].to_pylist(), expected, strict=True):
        assert (value is None) == (other is None)
        assert value is None or math.isclose(value, other, rel_tol=1e-12)


@given(rows=ROWS, random=st.randoms(use_true_random=False), cut=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_neither_order_nor_shards_change_a_value_or_a_count(rows: list[dict[str, Any]], random: Any, cut: int) -> None:
    mixed = list(rows)
    random.shuffle(mixed)
    whole, notes = concept_events(table_of(rows), CONCEPTS)
    other, other_notes = concept_events(table_of(mixed), CONCEPTS)
    assert _contents(whole) == _contents(other)
    assert set(notes) == set(other_notes)
    parts = [concept_events(table_of(part), CONCEPTS) for part in (rows[:cut], rows[cut:])]
    assert _contents(whole) == _contents(parts[0][0]) + _contents(parts[1][0])
    per_event = [note for note in notes if note.kind != "mixed"]  # that one compares the units of a table
    assert _counts(per_event) == _counts([note for _, some in parts for note in some if note.kind != "mixed"])


def _contents(table: pa.Table) -> Counter[tuple[Any, ...]]:
    return Counter(zip(*(table[name].to_pylist() for name in ("code", "unit", "concept", "value")), strict=True))


def _counts(notes: list[UnitNote]) -> Counter[tuple[str, str, str | None]]:
    total: Counter[tuple[str, str, str | None]] = Counter()
    for note in notes:
        total[note.concept, note.kind, note.unit] += note.count
    return total


def test_notes_count_what_was_assumed_and_what_was_not_used() -> None:
    code = "LOINC//2160-0"
    rows = [{"code": code, "numeric_value": 1.0, "unit": unit} for unit in (None, None, "mg/dL", "U/L", "umol/L")]
    rows += [{"code": code, "numeric_value": None, "unit": "mm"}]
    rows += [{"code": "own//free", "numeric_value": 1.0, "unit": unit} for unit in ("g", "kg", None)]
    table, notes = concept_events(table_of(rows), CONCEPTS)
    by_kind = {(note.concept, note.kind): note for note in notes}
    assert {key: note.count for key, note in by_kind.items()} == {
        ("creatinine", "assumed"): 2,
        ("creatinine", "refused"): 1,
        ("creatinine", "implausible"): 1,  # 1 umol/L
        ("kidney", "no_unit"): 2,
        ("kidney", "refused"): 1,
        ("free", "mixed"): 3,
    }
    refused = by_kind["creatinine", "refused"]
    assert refused.unit == "U/L"
    assert all(word in refused.message for word in ("creatinine", "U/L", "umol/L"))
    assert "`assume_unit` of kidney" in by_kind["kidney", "no_unit"].message
    own = table.filter(pc.equal(table["concept"], "creatinine"))
    np.testing.assert_allclose(own["value"].to_pylist()[:3], [88.402] * 3, rtol=1e-4)
    assert own["value"].to_pylist()[3:] == [None, None, None]


@pytest.mark.parametrize(
    ("written", "ucum"),
    [("K/uL", "10*3/uL"), ("MG/DL", "mg/dL"), ("mm Hg", "mm[Hg]"), ("mEq/L", "meq/L"), ("mcg/dL", "ug/dL"),
     ("Units/L", "U/L"), ("µmol/L", "umol/L"), (" mg/dL ", "mg/dL"), ("&#176;C", "Cel"), ("mm/hr", "mm/h"), ("fathom", "fathom")],
)  # fmt: skip
def test_spellings_of_units(written: str, ucum: str) -> None:
    assert ucum_spelling(written) == ucum


def test_no_events_and_no_concepts_are_fine() -> None:
    table, notes = concept_events(empty_events(), CONCEPTS)
    assert table.schema.names == [*EVENT_SCHEMA.names, "concept", "value"]
    assert (len(table), notes) == (0, [])
    assert len(concept_events(table_of([{"code": "LOINC//2160-0"}]), {})[0]) == 0
    chunks = pa.concat_tables([table_of([{"code": code}]) for code in ("KIDNEY//a", "ATC//L01FF05", "KIDNEY//a")])
    assert concept_events(chunks, CONCEPTS)[0]["concept"].to_pylist() == ["kidney", "immune", "kidney"]


def test_one_patient_with_1000_events_takes_some_milliseconds() -> None:
    units = ["mg/dL", "umol/L", None, "g/L"]
    concepts = {
        f"c{number}": Concept(codes=(f"LOINC//{number}", f"own{number}//*"), unit="mg/dL", quantity="creatinine")
        for number in range(60)
    }
    table = table_of(
        [
            {"code": f"LOINC//{row % 60}", "numeric_value": float(row), "unit": units[row % 4],
             "time": START + pd.Timedelta(hours=row)}
            for row in range(1000)
        ]
    )  # fmt: skip
    concept_events(table, concepts)
    times = []
    for _ in range(15):
        begun = time.perf_counter()
        concept_events(table, concepts)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.003
