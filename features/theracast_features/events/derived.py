"""Published scores of blood counts, liver, kidney and body size, from the last values known at a decision.

Every function takes numbers or arrays in the units its docstring states and gives float64. A missing or impossible
(negative, or zero where one divides or takes a logarithm) input gives NaN. `derived_score` brings columns to those units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from theracast_data.errors import StudyError
from theracast_data.modality import Modality
from theracast_features.naming import nearest_name

Floats = NDArray[np.float64]


def nlr(neutrophils: ArrayLike, lymphocytes: ArrayLike) -> Floats:
    """Return the neutrophil-to-lymphocyte ratio. Both counts in 10*9/L."""
    return _ratio(_natural(neutrophils), _positive(lymphocytes))


def plr(platelets: ArrayLike, lymphocytes: ArrayLike) -> Floats:
    """Return the platelet-to-lymphocyte ratio. Both counts in 10*9/L."""
    return _ratio(_natural(platelets), _positive(lymphocytes))


def sii(platelets: ArrayLike, neutrophils: ArrayLike, lymphocytes: ArrayLike) -> Floats:
    """Return the systemic immune-inflammation index, platelets x neutrophils / lymphocytes, in 10*9/L.

    Source: Hu B et al. Clin Cancer Res 2014;20:6212-6222.
    """
    return _ratio(_natural(platelets) * _natural(neutrophils), _positive(lymphocytes))


def dnlr(neutrophils: ArrayLike, leukocytes: ArrayLike) -> Floats:
    """Return the derived ratio, neutrophils / (leukocytes - neutrophils). Both in 10*9/L; NaN unless leukocytes exceed.

    Source: Proctor MJ et al. Br J Cancer 2012;107:695-699.
    """
    count = _natural(neutrophils)
    return _ratio(count, _positive(_array(leukocytes) - count))


def lipi(neutrophils: ArrayLike, leukocytes: ArrayLike, ldh: ArrayLike, ldh_uln: ArrayLike) -> Floats:
    """Return the lung immune prognostic index: 0 good, 1 intermediate, 2 poor.

    One point each for dNLR > 3 and LDH above the upper limit of normal.

    Args:
        neutrophils, leukocytes: 10*9/L.
        ldh, ldh_uln: in one unit, e.g. [IU]/L; the limit of the laboratory that measured.

    Source: Mezquita L et al. JAMA Oncol 2018;4:351-357.
    """
    ratio, relative = dnlr(neutrophils, leukocytes), _ratio(_natural(ldh), _positive(ldh_uln))
    return _points(ratio > 3, relative > 1, missing=np.isnan(ratio + relative))


def grim(
    neutrophils: ArrayLike, lymphocytes: ArrayLike, ldh: ArrayLike, ldh_uln: ArrayLike, albumin: ArrayLike
) -> Floats:
    """Return the Gustave Roussy Immune score, 0 to 3: NLR > 6, LDH above the upper limit, albumin < 35 g/L; > 1 is high.

    Args:
        neutrophils, lymphocytes: 10*9/L.
        ldh, ldh_uln: in one unit, e.g. [IU]/L.
        albumin: g/L.

    Source: Bigot F et al. Eur J Cancer 2017;84:212-218.
    """
    ratio, relative, protein = (
        nlr(neutrophils, lymphocytes),
        _ratio(_natural(ldh), _positive(ldh_uln)),
        _positive(albumin),
    )
    return _points(ratio > 6, relative > 1, protein < 35, missing=np.isnan(ratio + relative + protein))


def egfr_ckd_epi_2021(creatinine: ArrayLike, age: ArrayLike, female: ArrayLike) -> Floats:
    """Return the estimated glomerular filtration rate in mL/min/{1.73_m2}, the equation without race.

    142 * min(Scr/k, 1)^a * max(Scr/k, 1)^-1.200 * 0.9938^age * 1.012 [female]; k = 0.7, a = -0.241 in women, 0.9 and
    -0.302 in men. Made for adults: under 18 years the result is NaN.

    Args:
        creatinine: serum, mg/dL.
        age: a.
        female: 1 or True for women, 0 for men.

    Source: Inker LA et al. N Engl J Med 2021;385:1737-1749.
    """
    sex = _array(female)
    years = np.where(_positive(age) >= 18, _array(age), np.nan)
    woman = sex == 1
    relative = _positive(creatinine) / np.where(woman, 0.7, 0.9)
    rate = (
        142.0
        * np.minimum(relative, 1.0) ** np.where(woman, -0.241, -0.302)
        * np.maximum(relative, 1.0) ** -1.200
        * 0.9938**years
        * np.where(woman, 1.012, 1.0)
    )
    return np.asarray(np.where((sex == 0) | woman, rate, np.nan), dtype=np.float64)


def albi(bilirubin: ArrayLike, albumin: ArrayLike) -> Floats:
    """Return the albumin-bilirubin score, 0.66 * log10(bilirubin) - 0.085 * albumin.

    Args:
        bilirubin: total, umol/L.
        albumin: g/L.

    Source: Johnson PJ et al. J Clin Oncol 2015;33:550-558.
    """
    return np.asarray(0.66 * np.log10(_positive(bilirubin)) - 0.085 * _positive(albumin), dtype=np.float64)


def albi_grade(bilirubin: ArrayLike, albumin: ArrayLike) -> Floats:
    """Return the ALBI grade: 1 up to -2.60, 2 up to -1.39, 3 above. Units and source as `albi`."""
    score = albi(bilirubin, albumin)
    return 1.0 + _points(score > -2.60, score > -1.39, missing=np.isnan(score))


def fib4(age: ArrayLike, ast: ArrayLike, alt: ArrayLike, platelets: ArrayLike) -> Floats:
    """Return the fibrosis-4 index, age * AST / (platelets * sqrt(ALT)).

    Args:
        age: a.
        ast, alt: [IU]/L.
        platelets: 10*9/L.

    Source: Sterling RK et al. Hepatology 2006;43:1317-1325.
    """
    return _ratio(_positive(age) * _natural(ast), _positive(platelets) * np.sqrt(_positive(alt)))


# Siemens states one set of coefficients for each analyser; the intercept names the set, as in its instructions for use.
_ELF = {"2.278": (2.278, 0.851, 0.751, 0.394), "2.494": (2.494, 0.846, 0.735, 0.391)}


def elf(
    hyaluronic_acid: ArrayLike, piiinp: ArrayLike, timp1: ArrayLike, *, algorithm: Literal["2.278", "2.494"] = "2.278"
) -> Floats:
    """Return the enhanced liver fibrosis score, intercept + a ln(HA) + b ln(PIIINP) + c ln(TIMP-1). All in ng/mL.

    Args:
        algorithm: intercept of the manufacturer's equation for the analyser (2.278 + 0.851, 0.751, 0.394; or 2.494 +
            0.846, 0.735, 0.391); the laboratory says which. They differ by about 0.1 at usual values.

    Source: Siemens Healthineers, Enhanced Liver Fibrosis test; Lichtinghagen R et al. J Hepatol 2013;59:236-242.
    """
    intercept, first, second, third = _ELF[algorithm]
    return np.asarray(
        intercept
        + first * np.log(_positive(hyaluronic_acid))
        + second * np.log(_positive(piiinp))
        + third * np.log(_positive(timp1)),
        dtype=np.float64,
    )


def bmi(weight: ArrayLike, height: ArrayLike) -> Floats:
    """Return the body mass index in kg/m2. Weight in kg, height in m."""
    return _ratio(_positive(weight), _positive(height) ** 2)


def bsa_mosteller(weight: ArrayLike, height: ArrayLike) -> Floats:
    """Return the body surface area in m2, sqrt(height * weight / 3600). Weight in kg, height in cm.

    Source: Mosteller RD. N Engl J Med 1987;317:1098.
    """
    return np.asarray(np.sqrt(_positive(height) * _positive(weight) / 3600.0), dtype=np.float64)


@dataclass(frozen=True)
class DerivedScore:
    """What `derived_score` needs to know of one function.

    Attributes:
        label: what the tumour board reads.
        compute: function of this module; called with the inputs by position.
        inputs: argument to the UCUM unit it must have; None for pure numbers and yes/no.
        unit: UCUM unit of the result; None for points and ratios.
        source: publication; None where the name is the definition.
        modality: kind of data of the result.
    """

    label: str
    compute: Callable[..., Floats]
    inputs: Mapping[str, str | None]
    unit: str | None = None
    source: str | None = None
    modality: Modality = "lab"


_COUNT, _ENZYME = "10*9/L", "[IU]/L"
_SII = {"platelets": _COUNT, "neutrophils": _COUNT, "lymphocytes": _COUNT}
_LIPI = {"neutrophils": _COUNT, "leukocytes": _COUNT, "ldh": _ENZYME, "ldh_uln": _ENZYME}
_GRIM = {"neutrophils": _COUNT, "lymphocytes": _COUNT, "ldh": _ENZYME, "ldh_uln": _ENZYME, "albumin": "g/L"}
_ALBI = {"bilirubin": "umol/L", "albumin": "g/L"}
_JOHNSON = "Johnson PJ et al. J Clin Oncol 2015;33:550-558. doi:10.1200/JCO.2014.57.9151"

DERIVED_SCORES: Mapping[str, DerivedScore] = MappingProxyType(
    {
        "nlr": DerivedScore("Neutrophil-to-lymphocyte ratio", nlr, {"neutrophils": _COUNT, "lymphocytes": _COUNT}),
        "plr": DerivedScore("Platelet-to-lymphocyte ratio", plr, {"platelets": _COUNT, "lymphocytes": _COUNT}),
        "sii": DerivedScore(
            "Systemic immune-inflammation index", sii, _SII, _COUNT, "Hu B et al. Clin Cancer Res 2014;20:6212-6222"
        ),
        "dnlr": DerivedScore(
            "Derived neutrophil-to-lymphocyte ratio",
            dnlr,
            {"neutrophils": _COUNT, "leukocytes": _COUNT},
            source="Proctor MJ et al. Br J Cancer 2012;107:695-699",
        ),
        "lipi": DerivedScore(
            "Lung immune prognostic index", lipi, _LIPI, source="Mezquita L et al. JAMA Oncol 2018;4:351-357"
        ),
        "grim": DerivedScore(
            "Gustave Roussy Immune score", grim, _GRIM, source="Bigot F et al. Eur J Cancer 2017;84:212-218"
        ),
        "egfr": DerivedScore(
            "eGFR (CKD-EPI 2021)",
            egfr_ckd_epi_2021,
            {"creatinine": "mg/dL", "age": "a", "female": None},
            "mL/min/{1.73_m2}",
            "Inker LA et al. N Engl J Med 2021;385:1737-1749. doi:10.1056/NEJMoa2102953",
        ),
        "albi": DerivedScore("Albumin-bilirubin score", albi, _ALBI, source=_JOHNSON),
        "albi_grade": DerivedScore("ALBI grade", albi_grade, _ALBI, source=_JOHNSON),
        "fib4": DerivedScore(
            "Fibrosis-4 index",
            fib4,
            {"age": "a", "ast": _ENZYME, "alt": _ENZYME, "platelets": _COUNT},
            source="Sterling RK et al. Hepatology 2006;43:1317-1325. doi:10.1002/hep.21178",
        ),
        "elf": DerivedScore(
            "Enhanced liver fibrosis score",
            elf,
            {"hyaluronic_acid": "ng/mL", "piiinp": "ng/mL", "timp1": "ng/mL"},
            source="Lichtinghagen R et al. J Hepatol 2013;59:236-242",
        ),
        "bmi": DerivedScore("Body mass index", bmi, {"weight": "kg", "height": "m"}, "kg/m2", modality="clinical"),
        "bsa": DerivedScore(
            "Body surface area (Mosteller)",
            bsa_mosteller,
            {"weight": "kg", "height": "cm"},
            "m2",
            "Mosteller RD. N Engl J Med 1987;317:1098",
            modality="clinical",
        ),
    }
)


def derived_score(
    name: str,
    values: pd.DataFrame,
    *,
    units: Mapping[str, str | None],
    inputs: Mapping[str, str] = MappingProxyType({}),
    constants: Mapping[str, float] = MappingProxyType({}),
) -> pd.Series:
    """Return (n,) one score of `DERIVED_SCORES`, in its unit, from columns in theirs.

    Args:
        values: n rows of last values, already as of the decision.
        units: UCUM unit of each column. An input that has a unit must have one here: a guess may be wrong by 88.4.
        inputs: argument of the score to the name of a column, where they differ.
        constants: an input that is one number for all rows, in the unit of the score, e.g. {"ldh_uln": 250}.

    Raises:
        StudyError: an unknown score, or an input without column or unit.
        UnitError: a unit that cannot be converted into that of the score; mass and substance convert by the analyte.
    """
    if name not in DERIVED_SCORES:
        raise StudyError(
            f"there is no derived score {name!r}{nearest_name(name, DERIVED_SCORES)}. Known: {', '.join(DERIVED_SCORES)}."
        )
    score = DERIVED_SCORES[name]
    from theracast_data.events.molar import analyte_factor  # its unit library takes long to import

    arrays = []
    for argument, wanted in score.inputs.items():
        if argument in constants:
            arrays.append(np.full(len(values), constants[argument], dtype=np.float64))
            continue
        column = inputs.get(argument, argument)
        if column not in values:
            raise StudyError(
                f"{score.label} needs {argument!r} ({wanted or 'a pure number'}), but there is no column {column!r}"
                f"{nearest_name(column, values.columns)}. Name it with `inputs`, or give one number with `constants`."
            )
        numbers = values[column].to_numpy(dtype=np.float64, na_value=np.nan)
        if wanted is not None:
            found = units.get(column)
            if found is None:
                raise StudyError(f"{score.label}: the column {column!r} has no unit; state it, e.g. unit: {wanted}.")
            numbers = numbers * (
                1.0 if found == wanted else analyte_factor(found, wanted, quantity=argument.removesuffix("_uln"))
            )
        arrays.append(numbers)
    return pd.Series(score.compute(*arrays), index=values.index, name=name)


def _array(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _positive(values: ArrayLike) -> Floats:
    """Return the values with NaN where they are not above zero."""
    array = _array(values)
    return np.asarray(np.where(array > 0, array, np.nan), dtype=np.float64)


def _natural(values: ArrayLike) -> Floats:
    """Return the values with NaN where they are below zero."""
    array = _array(values)
    return np.asarray(np.where(array >= 0, array, np.nan), dtype=np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(above / below, dtype=np.float64)


def _points(*met: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Floats:
    """Return how many conditions are met, NaN where that cannot be told."""
    return np.asarray(np.where(missing, np.nan, sum(part.astype(np.float64) for part in met)), dtype=np.float64)
