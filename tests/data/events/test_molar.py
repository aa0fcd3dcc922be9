"""Conversions by analyte, against published factors and against molar masses summed from atomic weights."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.events.molar import ANALYTES, analyte_factor, analyte_scale, find_analyte
from theracast_data.units import UnitError

AMA = "AMA Manual of Style, 11th ed., SI Conversion Calculator"
TIETZ = "Tietz Textbook of Laboratory Medicine, 7th ed., reference information"
ION = "definition of the equivalent: charge per mole"

# analyte, from, to, published factor with its published digits, source
PUBLISHED = [
    ("acetaminophen", "ug/mL", "umol/L", "6.62", AMA),
    ("acetone", "mg/dL", "mmol/L", "0.172", AMA),
    ("aldosterone", "ng/dL", "pmol/L", "27.74", AMA),
    ("aluminum", "ng/mL", "nmol/L", "37.06", AMA),
    ("ammonia", "ug/dL", "umol/L", "0.587", AMA),
    ("androstenedione", "ng/dL", "nmol/L", "0.0349", AMA),
    ("ascorbic acid", "mg/dL", "umol/L", "56.78", AMA),
    ("bile acids", "ug/mL", "umol/L", "2.448", AMA),
    ("bilirubin", "mg/dL", "umol/L", "17.104", AMA),
    ("c-peptide", "ng/mL", "nmol/L", "0.331", AMA),
    ("calcium", "mg/dL", "mmol/L", "0.25", AMA),
    ("calcium", "meq/L", "mmol/L", "0.50", AMA),
    ("carbamazepine", "ug/mL", "umol/L", "4.23", AMA),
    ("carotene", "ug/dL", "umol/L", "0.0186", AMA),
    ("chloride", "meq/L", "mmol/L", "1.0", AMA),
    ("cholesterol", "mg/dL", "mmol/L", "0.0259", AMA),
    ("copper", "ug/dL", "umol/L", "0.157", AMA),
    ("cortisol", "ug/dL", "nmol/L", "27.59", AMA),
    ("creatinine", "mg/dL", "umol/L", "88.4", AMA),
    ("cyclosporine", "ug/L", "nmol/L", "0.832", AMA),
    ("digoxin", "ng/mL", "nmol/L", "1.281", AMA),
    ("epinephrine", "pg/mL", "pmol/L", "5.46", AMA),
    ("estradiol", "pg/mL", "pmol/L", "3.671", AMA),
    ("ethanol", "mg/dL", "mmol/L", "0.217", AMA),
    ("folate", "ng/mL", "nmol/L", "2.266", AMA),
    ("glucose", "mg/dL", "mmol/L", "0.0555", AMA),
    ("hemoglobin", "g/dL", "mmol/L", "0.6206", TIETZ),
    ("homocysteine", "mg/L", "umol/L", "7.397", AMA),
    ("iron", "ug/dL", "umol/L", "0.179", AMA),
    ("lactate", "mg/dL", "mmol/L", "0.111", AMA),
    ("lead", "ug/dL", "umol/L", "0.0483", AMA),
    ("magnesium", "mg/dL", "mmol/L", "0.411", AMA),
    ("magnesium", "meq/L", "mmol/L", "0.50", AMA),
    ("norepinephrine", "pg/mL", "pmol/L", "5.91", AMA),
    ("phenylalanine", "mg/dL", "umol/L", "60.5", TIETZ),
    ("phenytoin", "ug/mL", "umol/L", "3.96", AMA),
    ("phosphorus", "mg/dL", "mmol/L", "0.323", AMA),
    ("potassium", "meq/L", "mmol/L", "1.0", AMA),
    ("progesterone", "ng/mL", "nmol/L", "3.18", AMA),
    ("pyruvate", "mg/dL", "umol/L", "113.6", AMA),
    ("sodium", "meq/L", "mmol/L", "1.0", AMA),
    ("sodium", "mmol/L", "meq/L", "1.0", ION),
    ("calcium", "mmol/L", "meq/L", "2.0", ION),
    ("testosterone", "ng/dL", "nmol/L", "0.0347", AMA),
    ("theophylline", "ug/mL", "umol/L", "5.55", AMA),
    ("thyroxine", "ug/dL", "nmol/L", "12.87", AMA),
    ("free T4", "ng/dL", "pmol/L", "12.87", AMA),
    ("triiodothyronine", "ng/dL", "nmol/L", "0.0154", AMA),
    ("triglycerides", "mg/dL", "mmol/L", "0.0113", AMA),
    ("urea nitrogen", "mg/dL", "mmol/L", "0.357", AMA),
    ("urea", "mg/dL", "mmol/L", "0.1665", TIETZ),
    ("uric acid", "mg/dL", "umol/L", "59.48", AMA),
    ("valproic acid", "ug/mL", "umol/L", "6.93", AMA),
    ("vancomycin", "ug/mL", "umol/L", "0.690", AMA),
    ("vitamin A", "ug/dL", "umol/L", "0.0349", AMA),
    ("vitamin B12", "pg/mL", "pmol/L", "0.738", AMA),
    ("vitamin D", "ng/mL", "nmol/L", "2.496", AMA),
    ("vitamin E", "mg/dL", "umol/L", "23.22", AMA),
    ("vma", "mg/d", "umol/d", "5.05", AMA),
    ("zinc", "ug/dL", "umol/L", "0.153", AMA),
]


@pytest.mark.parametrize(("analyte", "from_unit", "to_unit", "published", "source"), PUBLISHED)
def test_published_factors(analyte: str, from_unit: str, to_unit: str, published: str, source: str) -> None:
    places = len(published.partition(".")[2])
    # Half a unit of the last printed digit, and 0.1 % for molar masses rounded before 1990.
    tolerance = 0.5 * 10**-places + 1e-3 * float(published)
    assert analyte_factor(from_unit, to_unit, quantity=analyte) == pytest.approx(float(published), abs=tolerance), (
        source
    )
    assert analyte_factor(to_unit, from_unit, quantity=analyte) == pytest.approx(1 / float(published), rel=5e-3), source


# Standard atomic weights, NIST 2021 (conventional values).
WEIGHTS = {"C": 12.011, "H": 1.008, "N": 14.007, "O": 15.999, "S": 32.06, "P": 30.973762, "Cl": 35.45, "Co": 58.933194,
           "I": 126.90447, "F": 18.998403}  # fmt: skip
FORMULAS = {
    "glucose": "C6H12O6", "creatinine": "C4H7N3O", "bilirubin": "C33H36N4O6", "cholesterol": "C27H46O",
    "triglycerides": "C57H104O6", "urea": "CH4N2O", "uric_acid": "C5H4N4O3", "lactate": "C3H6O3", "pyruvate": "C3H4O3",
    "ammonia": "NH3", "homocysteine": "C4H9NO2S", "phenylalanine": "C9H11NO2", "bile_acids": "C24H40O5",
    "cortisol": "C21H30O5", "aldosterone": "C21H28O5", "testosterone": "C19H28O2", "oestradiol": "C18H24O2",
    "oestriol": "C18H24O3", "oestrone": "C18H22O2", "progesterone": "C21H30O2", "17_hydroxyprogesterone": "C21H30O3",
    "androstenedione": "C19H26O2", "dheas": "C19H28O5S", "thyroxine": "C15H11I4NO4", "triiodothyronine": "C15H12I3NO4",
    "adrenaline": "C9H13NO3", "noradrenaline": "C8H11NO3", "dopamine": "C8H11NO2", "metanephrine": "C10H15NO3",
    "normetanephrine": "C9H13NO3", "vanillylmandelic_acid": "C9H10O5", "5_hiaa": "C10H9NO3", "serotonin": "C10H12N2O",
    "vitamin_d": "C27H44O2", "1_25_dihydroxyvitamin_d": "C27H44O3", "vitamin_b12": "C63H88CoN14O14P",
    "folate": "C19H19N7O6", "vitamin_a": "C20H30O", "vitamin_c": "C6H8O6", "vitamin_e": "C29H50O2",
    "beta_carotene": "C40H56", "paracetamol": "C8H9NO2", "salicylate": "C7H6O3", "ethanol": "C2H6O",
    "digoxin": "C41H64O14", "phenytoin": "C15H12N2O2", "carbamazepine": "C15H12N2O", "valproate": "C8H16O2",
    "theophylline": "C7H8N4O2", "vancomycin": "C66H75Cl2N9O24", "methotrexate": "C20H22N8O5",
    "ciclosporin": "C62H111N11O12", "tacrolimus": "C44H69NO12", "bicarbonate": "HCO3", "acetone": "C3H6O",
    "beta_hydroxybutyrate": "C4H8O3",
}  # fmt: skip


@pytest.mark.parametrize(("name", "formula"), FORMULAS.items())
def test_molar_masses_are_sums_of_atomic_weights(name: str, formula: str) -> None:
    summed = sum(WEIGHTS[atom] * int(count or 1) for atom, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula))
    analyte = find_analyte(name)
    assert analyte is not None
    assert analyte.molar_mass == pytest.approx(summed, rel=3e-4)


def test_proteins_by_their_convention() -> None:
    assert analyte_factor("g/L", "umol/L", quantity="albumin") == pytest.approx(15.04, abs=0.01)
    monomer, tetramer = (
        analyte_factor("g/dL", "mmol/L", quantity=name) for name in ("haemoglobin", "haemoglobin_tetramer")
    )
    assert monomer / tetramer == pytest.approx(4, rel=1e-3)


def test_hba1c_by_the_master_equation() -> None:
    slope, offset = analyte_scale("mmol/mol", "%", quantity="HbA1c")
    assert slope * 53 + offset == pytest.approx(7.0, abs=0.01)
    slope, offset = analyte_scale("%", "mmol/mol", quantity="HbA1c")
    assert slope * 6.5 + offset == pytest.approx(47.5, abs=0.1)


def test_what_needs_no_analyte_is_left_to_the_units() -> None:
    assert analyte_factor("mg/dL", "mg/L", quantity="CRP") == 10
    assert analyte_factor("[IU]/L", "U/L", quantity="ALT") == 1
    assert analyte_factor("m[IU]/mL", "[iU]/L", quantity="hCG") == 1
    assert analyte_scale("Cel", "[degF]", quantity="temperature") == (1.8, 32.0)


@pytest.mark.parametrize(
    ("analyte", "from_unit", "to_unit", "why"),
    [
        ("CRP", "mg/L", "nmol/L", "mass only"),
        ("insulin", "u[iU]/mL", "pmol/L", "6.945"),
        ("Lp(a)", "mg/dL", "nmol/L", "apolipoprotein"),
        ("d-dimer", "ug/mL{FEU}", "ug/mL", "fibrinogen-equivalent"),
        ("ferritin", "ug/L", "pmol/L", "molar mass is not known"),
        ("factor VIII inhibitor", "[beth'U]/mL", "[iU]/mL", "arbitrary unit"),
        ("cardiolipin antibody", "[GPL'U]/mL", "[MPL'U]/mL", "arbitrary unit"),
        ("tsh", "[iU]/L", "/L", "arbitrary unit"),
        ("phosphate", "meq/L", "mmol/L", "charge of the ion"),
        ("creatinine", "meq/L", "mg/dL", "charge of the ion"),
        ("creatinine", "mg/dL", "mm", "measure different things"),
        ("creatinine", "mg/dl?", "umol/L", "not a UCUM unit"),
        ("HbA1c", "%", "mmol/mol", "different zeros"),
    ],
)
def test_a_refusal_names_both_units_and_the_analyte(analyte: str, from_unit: str, to_unit: str, why: str) -> None:
    with pytest.raises(UnitError, match=re.escape(why)) as caught:
        analyte_factor(from_unit, to_unit, quantity=analyte)
    assert all(word in str(caught.value) for word in (analyte, from_unit, to_unit))


def test_no_name_means_two_analytes() -> None:
    names = [name for analyte in ANALYTES for name in (analyte.name, *analyte.aliases)]
    assert len(names) == len(set(names))


@given(
    value=st.floats(1e-6, 1e6),
    analyte=st.sampled_from(ANALYTES),
    mass=st.sampled_from(["mg/dL", "g/L", "ug/mL", "ng/dL", "pg/mL"]),
    substance=st.sampled_from(["mmol/L", "umol/L", "nmol/mL", "pmol/dL", "mol/m3"]),
)
@settings(max_examples=60, deadline=None)
def test_there_and_back_is_the_same(value: float, analyte: object, mass: str, substance: str) -> None:
    name = analyte.name  # type: ignore[attr-defined]
    there = value * analyte_factor(mass, substance, quantity=name)
    assert math.isclose(there * analyte_factor(substance, mass, quantity=name), value, rel_tol=1e-12)
