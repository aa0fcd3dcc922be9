"""Derived scores against published values, and against formulas written out a second time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theracast_data.errors import StudyError
from theracast_data.units import UnitError
from theracast_features.events import derived


# The equation of Inker 2021 in its four pieces, as printed in the publication's table for clinical use.
def _ckd_epi_by_piece(creatinine: float, age: float, *, female: bool) -> float:
    if female:
        power = -0.241 if creatinine <= 0.7 else -1.200
        return 143.704 * (creatinine / 0.7) ** power * 0.9938**age
    power = -0.302 if creatinine <= 0.9 else -1.200
    return 142.0 * (creatinine / 0.9) ** power * 0.9938**age


# Whole numbers as the National Kidney Foundation's calculator shows them.
@pytest.mark.parametrize(
    ("creatinine", "age", "female", "expected"),
    [(1.0, 50, True, 69), (1.0, 50, False, 92), (0.5, 30, True, 129), (2.0, 70, False, 35)],
)
def test_egfr_worked_examples(creatinine: float, age: float, female: bool, expected: int) -> None:
    """The values to the whole number, and to the formula by its pieces."""
    found = float(derived.egfr_ckd_epi_2021(creatinine, age, female))
    assert round(found) == expected
    assert found == pytest.approx(_ckd_epi_by_piece(creatinine, age, female=female), rel=1e-9)


@given(st.floats(0.2, 15), st.floats(18, 100), st.booleans())
def test_egfr_equals_the_pieces_everywhere(creatinine: float, age: float, female: bool) -> None:
    """One formula with minima and maxima is the four pieces."""
    found = float(derived.egfr_ckd_epi_2021(creatinine, age, female))
    assert found == pytest.approx(_ckd_epi_by_piece(creatinine, age, female=female), rel=1e-9)


def test_egfr_is_for_adults_of_known_sex() -> None:
    """Children and unknown sex have none."""
    assert np.isnan(derived.egfr_ckd_epi_2021([1.0, 1.0, 0.0], [17, 50, 50], [1, np.nan, 1])).all()


def test_blood_count_ratios_by_hand() -> None:
    """NLR, PLR, SII and dNLR of one blood count."""
    assert float(derived.nlr(6.0, 1.5)) == 4.0
    assert float(derived.plr(300.0, 1.5)) == 200.0
    assert float(derived.sii(300.0, 6.0, 1.5)) == 1200.0
    assert float(derived.dnlr(6.0, 8.0)) == 3.0


@pytest.mark.parametrize(
    ("neutrophils", "ldh", "points"),
    [
        (6.0, 250.0, 0),
        (6.1, 250.0, 1),
        (6.0, 250.1, 1),
        (6.1, 250.1, 2),
        (np.nan, 400.0, np.nan),
        (6.1, np.nan, np.nan),
    ],
)
def test_lipi_counts_only_what_exceeds(neutrophils: float, ldh: float, points: float) -> None:
    """dNLR of exactly 3 and LDH at the limit give no point; a missing input gives no score."""
    assert float(derived.lipi(neutrophils, 8.0, ldh, 250.0)) == pytest.approx(points, nan_ok=True)


def test_grim_points() -> None:
    """Each criterion gives one point, at its own side of the limit."""
    found = derived.grim(
        [6.0, 6.1, 6.0, 6.0, 9.0], 1.0, [250, 250, 251, 250, 500], 250.0, [35.0, 35.0, 35.0, 34.9, 20.0]
    )
    assert found.tolist() == [0, 1, 1, 1, 3]


def test_albi_and_its_grades() -> None:
    """Bilirubin 17 umol/L and albumin 40 g/L: 0.66 * 1.2304 - 3.4 = -2.588, grade 2."""
    assert float(derived.albi(17.0, 40.0)) == pytest.approx(0.66 * math.log10(17) - 3.4, rel=1e-12)
    assert float(derived.albi(17.0, 40.0)) == pytest.approx(-2.588, abs=5e-4)
    assert derived.albi_grade([10.0, 17.0, 100.0, np.nan], [45.0, 40.0, 20.0, 40.0]).tolist()[:3] == [1, 2, 3]
    assert np.isnan(derived.albi_grade(np.nan, 40.0))


def test_fib4_bmi_bsa_elf_by_hand() -> None:
    """Sterling's formula for 50 years, AST 40, ALT 25, platelets 200 is 2.0; a person of 80 kg and 180 cm has 2 m2."""
    assert float(derived.fib4(50, 40, 25, 200)) == pytest.approx(2.0)
    assert float(derived.bsa_mosteller(80, 180)) == pytest.approx(2.0)
    assert float(derived.bmi(81, 1.8)) == pytest.approx(25.0)
    e = math.e
    assert float(derived.elf(1.0, 1.0, 1.0)) == pytest.approx(2.278)
    assert float(derived.elf(e, e, e)) == pytest.approx(2.278 + 0.851 + 0.751 + 0.394)
    assert float(derived.elf(e, e, e, algorithm="2.494")) == pytest.approx(2.494 + 0.846 + 0.735 + 0.391)


@pytest.mark.parametrize("name", list(derived.DERIVED_SCORES))
def test_every_score_is_missing_where_an_input_is_missing_or_impossible(name: str) -> None:
    """NaN or a negative number in any input gives NaN, without a warning; all inputs at hand give a number."""
    inputs = list(derived.DERIVED_SCORES[name].inputs.items())
    usual = {"leukocytes": 9.0, "female": 1.0, "age": 60.0}
    frame = pd.DataFrame({argument: [usual.get(argument, 2.0)] * (2 * len(inputs) + 1) for argument, _ in inputs})
    for place, (argument, _) in enumerate(inputs):
        frame.loc[2 * place, argument] = np.nan
        frame.loc[2 * place + 1, argument] = -1.0
    found = derived.derived_score(name, frame, units=dict(inputs))
    assert found.isna().tolist() == [True] * 2 * len(inputs) + [False]


def test_units_are_converted_and_never_guessed() -> None:
    """g/dL and K/uL are converted; a column without unit and a molar one are refused with names."""
    frame = pd.DataFrame({"neutrophils": [6100.0], "lymphocytes": [1.0], "ldh": [200.0], "albumin": [3.4]})
    units = {"neutrophils": "/uL", "lymphocytes": "10*3/uL", "ldh": "[IU]/L", "albumin": "g/dL"}
    assert derived.derived_score("grim", frame, units=units, constants={"ldh_uln": 250.0}).tolist() == [2.0]
    with pytest.raises(StudyError, match="'albumin' has no unit"):
        derived.derived_score("grim", frame, units=units | {"albumin": None}, constants={"ldh_uln": 250.0})
    with pytest.raises(StudyError, match="'ldh_uln'"):
        derived.derived_score("grim", frame, units=units)
    with pytest.raises(StudyError, match="did you mean 'egfr'"):
        derived.derived_score("egf", frame, units=units)
    counts = pd.DataFrame({"neutrophils": [4.0], "lymphocytes": [1.0]})
    with pytest.raises(UnitError, match="g/L"):
        derived.derived_score("nlr", counts, units={"neutrophils": "g/L", "lymphocytes": "10*9/L"})


def test_creatinine_in_substance_concentration_by_its_molar_mass() -> None:
    """88.4 umol/L is 1 mg/dL: the same eGFR through the analyte's factor."""
    patient = pd.DataFrame({"cr": [88.4], "age": [50.0], "female": [True]})
    found = derived.derived_score(
        "egfr",
        patient,
        units={"cr": "umol/L", "age": "a"},
        inputs={"creatinine": "cr"},
    )
    assert found[0] == pytest.approx(_ckd_epi_by_piece(1.0, 50, female=True), rel=1e-3)


def test_enzymes_in_their_unit_and_body_size_in_others() -> None:
    """LDH in U/L is LDH in [IU]/L, its limit too; pounds and centimetres convert."""
    frame = pd.DataFrame({"neutrophils": [6.1], "leukocytes": [8.0], "ldh": [251.0], "ldh_uln": [250.0]})
    units = {"neutrophils": "10*9/L", "leukocytes": "10*3/uL", "ldh": "U/L", "ldh_uln": "U/L"}
    assert derived.derived_score("lipi", frame, units=units).tolist() == [2.0]
    body = pd.DataFrame({"weight": [178.574], "height": [180.0]})
    found = derived.derived_score("bmi", body, units={"weight": "[lb_av]", "height": "cm"})
    assert found[0] == pytest.approx(25.0, abs=1e-3)
