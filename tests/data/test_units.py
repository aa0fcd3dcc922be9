"""Units, against factors from textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import SchemaError
from theracast_data.units import UnitError, convert, factor

PAIRS = [
    ("g/L", "g/dL"),
    ("10*3/uL", "10*9/L"),
    ("mm", "cm"),
    ("Cel", "[degF]"),
    ("mo", "d"),
    ("kPa", "mm[Hg]"),
    ("%", "1"),
]


@pytest.mark.parametrize(
    ("from_unit", "to_unit", "expected"),
    [
        ("g/L", "g/dL", 0.1),
        ("10*3/uL", "10*9/L", 1.0),
        ("10^9/L", "10*9/L", 1.0),
        ("10*6/mL", "10*9/L", 1.0),
        ("/uL", "10*9/L", 1e-3),
        ("cm", "mm", 10.0),
        ("umol/L", "mmol/L", 1e-3),
        ("ug/mL", "mg/L", 1.0),
        ("wk", "d", 7.0),
        ("%", "1", 0.01),
        ("{mutations}/Mb", "{mutations}/Mb", 1.0),
    ],
)
def test_factors(from_unit: str, to_unit: str, expected: float) -> None:
    assert factor(from_unit, to_unit, quantity="albumin") == expected


def test_scales_with_another_zero_are_converted_but_have_no_factor() -> None:
    np.testing.assert_allclose(
        convert(np.array([37.0, np.nan]), "Cel", "[degF]", quantity="temperature"), [98.6, np.nan]
    )
    with pytest.raises(UnitError, match="different zeros"):
        factor("Cel", "[degF]", quantity="temperature")


@given(value=st.floats(-1e6, 1e6), pair=st.sampled_from(PAIRS))
@settings(max_examples=100, deadline=None)
def test_there_and_back_is_the_same(value: float, pair: tuple[str, str]) -> None:
    there = convert(value, *pair, quantity="x")
    assert math.isclose(convert(there, *reversed(pair), quantity="x"), value, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("from_unit", "to_unit", "hint"),
    [
        ("g/dL", "mmol/L", "molar mass is not known here"),
        ("g/dL", "mm", "measure different things"),
        ("gramm", "g/dL", "not a UCUM unit"),
        ("x10^9/L", "10*9/L", r"Did you mean '10\*9/L'\?"),
        ("years", "mo", "Did you mean 'a'"),
        ("{mutations}/Mb", "1", "file's and the model's unit alike"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_units_and_quantity(from_unit: str, to_unit: str, hint: str) -> None:
    with pytest.raises(UnitError, match=hint) as caught:
        convert(1.0, from_unit, to_unit, quantity="creatinine")
    assert isinstance(caught.value, SchemaError)
    assert "creatinine" in str(caught.value)
    assert from_unit in str(caught.value)
