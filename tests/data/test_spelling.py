"""When two cells or two headers are the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theracast_data.spelling import CellTable, Headers, cell_key, is_empty, nearest, parse_number


@pytest.mark.parametrize("cell", [1, 1.0, "1", " 1 ", "1.0", "01", True, np.int64(1), np.float32(1)])
def test_a_one_is_a_one(cell: object) -> None:
    assert cell_key(cell) == "1"
    assert cell in CellTable.of([1])


def test_text_is_the_same_in_another_case_or_spacing_and_in_nothing_else() -> None:
    table = CellTable.of(["Head & Neck", "HER2-"])
    assert table.get("head&neck ") == "Head & Neck"
    assert table.get("HER2+") is None
    assert table.get("her2 -") == "HER2-"


def test_an_exact_cell_wins_and_an_ambiguous_one_means_nothing() -> None:
    table = CellTable({"a": "lower", "A": "upper"})
    assert [table.get(cell) for cell in ("a", "A", " a", "ａ")] == ["lower", "upper", "lower", None]
    assert CellTable({"x y": 1, "xY": 2}).get("XY") is None


def test_yes_and_no_of_yaml_meet_the_words_in_the_file() -> None:
    table = CellTable({True: 1, False: 0})
    assert [table.get(cell) for cell in ("Yes", "no", "TRUE", 0, "1", "maybe")] == [1, 0, 1, 0, 1, None]


@pytest.mark.parametrize(
    "text", ["", "<5", ">100", "1,234", "1 234", "1_000", "nan", "inf", "12 mg", "0x1F", "1/2", "."]
)
def test_what_is_no_number_is_not_guessed(text: str) -> None:
    assert parse_number(text) is None


def test_with_a_decimal_comma_a_point_is_no_number() -> None:
    assert parse_number("3,8", ",") == 3.8
    assert parse_number("1.234,5", ",") is None
    assert parse_number("1.234", ",") is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_exactly(number: float) -> None:
    assert parse_number(repr(number)) == number


@pytest.mark.parametrize("cell", [None, np.nan, pd.NA, pd.NaT, "", "  ", "\t"])
def test_nothing_is_nothing(cell: object) -> None:
    assert is_empty(cell)


def test_headers_are_found_by_name_alias_and_near_spelling() -> None:
    headers = Headers(["Age.at.diagnosis", "alb", "PDL1_TPS(%)", "HLA LOH", "hla-loh", "Sex"], claimed=["Sex"])
    assert headers.find("Age at Diagnosis") is not None
    found = headers.find("Albumin", "alb")
    assert found is not None
    assert (found.header, found.other) == ("alb", False)
    near = headers.find("Age_at_diagnosis")
    assert near is not None
    assert (near.header, near.other) == ("Age.at.diagnosis", True)
    assert headers.find("HLA_LOH") is None, "two headers are as near: neither is taken"
    assert headers.find("SEX") is None, "the study names `Sex` exactly, for another column"
    assert headers.find("Age.at.diagnosi") is None, "a near name is only a hint"
    assert headers.nearest("Age.at.diagnosi") == "Age.at.diagnosis"


def test_nearest_says_nothing_when_nothing_is_near() -> None:
    assert nearest("albumin", ["Platelets", "Sex"]) is None
