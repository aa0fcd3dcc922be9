"""Numbers, units and verdicts as a doctor reads them."""

from __future__ import annotations

from typing import Any

import pytest

from theracast_serving.clinical_text import (
    calibration_words,
    number_text,
    of_hundred,
    outcome_verb,
    percent_text,
    points_text,
    range_of_hundred,
    unit_text,
)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (None, ""),
        ("1", ""),
        ("g/dL", "g/dL"),
        ("{mutations}/Mb", "mutations/Mb"),
        ("10*9/L", "×10⁹/L"),
        ("kg/m2", "kg/m²"),
        ("cm3", "cm³"),
        ("a", "years"),
        ("umol/L", "µmol/L"),
        ("[iU]/L", "iU/L"),
        ("%", "%"),
    ],
)
def test_units_are_printed_as_in_a_clinic(unit: str | None, text: str) -> None:
    assert unit_text(unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.9, "3.9"),
        (3.0, "3"),
        (412.4, "412"),
        (14814.8, "14\u202f815"),
        (0.0421, "0.0421"),
        (-2.5, "−2.5"),
        (1_880_000.0, "1.88×10⁶"),
        (0.00002, "2.00×10⁻⁵"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.0, "fewer than 1"),
        (0.0049, "fewer than 1"),
        (0.005, "1"),
        (0.385, "39"),
        (0.995, "100"),
        (0.9951, "more than 99"),
    ],
)
def test_chances_are_counts_and_never_certainties(probability: float, text: str) -> None:
    assert of_hundred(probability) == text


def test_a_range_within_the_extremes_is_told_in_per_cent() -> None:
    assert range_of_hundred(0.241, 0.53) == "24 to 53"
    assert range_of_hundred(0.001, 0.003) == "0.1 % to 0.3 %"
    assert range_of_hundred(0.001, 0.02) == "fewer than 1 to 2"
    assert range_of_hundred(0.996, 0.999) == "99.6 % to 99.9 %"


def test_per_cent_never_says_nothing_or_everything() -> None:
    assert [percent_text(p) for p in (0.283, 0.5, 0.0004, 0.00002, 0.99999)] == [
        "28.3 %",
        "50.0 %",
        "0.04 %",
        "0.002 %",
        "99.999 %",
    ]


def test_points_carry_their_sign() -> None:
    assert [points_text(points) for points in (6.4, -6.6, 0.2, -0.4)] == ["+6", "−7", "±0", "±0"]


def test_responders_respond_and_others_have_their_outcome() -> None:
    assert outcome_verb("objective response (CR or PR)") == "respond"
    assert outcome_verb("progression within 6 months") == "have progression within 6 months"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "agrees"),
        ({"calibration_intercept_low": -0.9, "calibration_intercept_high": -0.1}, "too optimistic"),
        ({"calibration_intercept_low": 0.1, "calibration_intercept_high": 0.9}, "too pessimistic"),
        ({"calibration_slope_low": 0.4, "calibration_slope_high": 0.9}, "on average right, extremes exaggerated"),
        ({"calibration_slope_low": 1.1, "calibration_slope_high": 1.9}, "on average right, extremes understated"),
        ({"events": 4}, "too few to judge"),
        ({"events": 97}, "too few to judge"),
        ({"prevalence": None}, "not estimable"),
    ],
)
def test_calibration_is_judged_by_its_intervals(changes: dict[str, Any], words: str) -> None:
    evaluation = {
        "n": 100,
        "events": 30,
        "prevalence": 0.3,
        "mean_probability": 0.31,
        "calibration_intercept_low": -0.2,
        "calibration_intercept_high": 0.2,
        "calibration_slope_low": 0.8,
        "calibration_slope_high": 1.2,
    }
    assert calibration_words(evaluation | changes) == words
