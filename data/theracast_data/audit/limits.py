"""Clinical quantities by code and name: the possible range, and the units in which hospitals report them.

Ranges are those that a living patient can have, not reference ranges. Conversion factors follow from molar masses
(IFCC and UCUM tables): glucose 18.016 mg/dL per mmol/L, creatinine 88.42 umol/L per mg/dL, and so on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from theracast_data.sources import ColumnSpec, OneHotSpec, snake_case


@dataclass(frozen=True)
class Quantity:
    """What is possible for one quantity.

    Attributes:
        name: for messages.
        pattern: matches the name inside Theracast, token by token.
        codes: LOINC codes.
        low: least possible value in the first unit.
        high: greatest possible value in the first unit.
        units: UCUM unit to its number of units per one of the first.
        affine: unit to (slope, intercept) from the first unit, where the zero differs.
    """

    name: str
    pattern: str
    codes: tuple[str, ...]
    low: float
    high: float
    units: dict[str, float]
    affine: dict[str, tuple[float, float]]

    def limits_in(self, unit: str | None) -> tuple[float, float] | None:
        """Return the possible range in this unit; None for a unit that the table does not know."""
        if unit is None or unit not in self.units:
            return None
        return self.low * self.units[unit], self.high * self.units[unit]


def _quantity(
    name: str,
    pattern: str,
    codes: str,
    limits: tuple[float, float],
    affine: dict[str, tuple[float, float]] | None = None,
    /,
    **units: float,
) -> Quantity:
    spelled = {_UNIT_SPELLING.get(key, key): value for key, value in units.items()}
    return Quantity(name, pattern, tuple(codes.split()), *limits, spelled, affine or {})


_UNIT_SPELLING = {
    "g_dL": "g/dL", "g_L": "g/L", "mg_dL": "mg/dL", "mg_L": "mg/L", "mmol_L": "mmol/L", "umol_L": "umol/L",
    "per_nL": "10*9/L", "per_uL": "/uL", "thousand_per_uL": "10*3/uL", "U_L": "U/L", "ukat_L": "ukat/L",
    "kg_m2": "kg/m2", "pound": "[lb_av]", "inch": "[in_i]", "percent": "%", "fraction": "1", "year": "a",
    "month": "mo", "day": "d", "per_min": "/min", "mmHg": "mm[Hg]", "kPa": "kPa", "ng_mL": "ng/mL", "ug_L": "ug/L",
    "per_Mb": "{mutations}/Mb",
}  # fmt: skip

_CELLS = {"per_nL": 1.0, "thousand_per_uL": 1.0, "per_uL": 1000.0}

QUANTITIES: tuple[Quantity, ...] = (
    _quantity("albumin", r"alb|albumin", "1751-7 2862-1 61151-7", (0.8, 7.0), g_dL=1.0, g_L=10.0),
    _quantity("haemoglobin", r"hgb|hb|ha?emoglobin", "718-7 20509-6", (2.5, 25.0), g_dL=1.0, g_L=10.0, mmol_L=0.6206),
    _quantity("creatinine", r"creatinine|crea", "2160-0 14682-9", (0.1, 25.0), mg_dL=1.0, umol_L=88.42),
    _quantity("glucose", r"glucose|glc", "2345-7 2339-0 14749-6", (10.0, 1500.0), mg_dL=1.0, mmol_L=1 / 18.016),
    _quantity("bilirubin", r"bilirubin|bili", "1975-2 14631-6", (0.05, 60.0), mg_dL=1.0, umol_L=17.104),
    _quantity("calcium", r"calcium", "17861-6 2000-8", (3.0, 20.0), mg_dL=1.0, mmol_L=0.2495),
    _quantity("urea nitrogen", r"bun", "3094-0", (1.0, 250.0), mg_dL=1.0, mmol_L=0.357),
    _quantity("urea", r"urea", "3091-6 22664-7", (2.0, 550.0), mg_dL=1.0, mmol_L=0.1665),
    _quantity("cholesterol", r"cholesterol|ldl|hdl", "2093-3 2085-9", (5.0, 1200.0), mg_dL=1.0, mmol_L=1 / 38.67),
    _quantity("triglycerides", r"triglycerides?", "2571-8", (10.0, 10000.0), mg_dL=1.0, mmol_L=1 / 88.57),
    _quantity("uric acid", r"urate|uric", "3084-1", (0.2, 30.0), mg_dL=1.0, umol_L=59.48),
    _quantity("sodium", r"sodium", "2951-2", (95.0, 200.0), mmol_L=1.0),
    _quantity("potassium", r"potassium", "2823-3", (1.2, 12.0), mmol_L=1.0),
    _quantity("platelets", r"plt|platelets?|thrombocytes?", "777-3 26515-7", (1.0, 3000.0), **_CELLS),
    _quantity("leukocytes", r"wbc|leu[ck]ocytes?", "6690-2 26464-8", (0.0, 600.0), **_CELLS),
    _quantity("neutrophils", r"neutrophils?|anc", "751-8 26499-4", (0.0, 300.0), **_CELLS),
    _quantity("lymphocytes", r"lymphocytes?|alc", "731-0 26474-7", (0.0, 500.0), **_CELLS),
    _quantity("C-reactive protein", r"crp", "1988-5", (0.0, 700.0), mg_L=1.0, mg_dL=0.1),
    _quantity("lactate dehydrogenase", r"ldh", "2532-0 14804-9", (20.0, 20000.0), U_L=1.0, ukat_L=1 / 60.0),
    _quantity("body-mass index", r"bmi", "39156-5", (8.0, 100.0), kg_m2=1.0),
    _quantity("body weight", r"weight", "29463-7 3141-9", (1.0, 350.0), kg=1.0, pound=2.2046, g=1000.0),
    _quantity("body height", r"height", "8302-2", (30.0, 260.0), cm=1.0, m=0.01, inch=1 / 2.54),
    _quantity("age", r"age", "30525-0 21612-7", (0.0, 120.0), year=1.0, month=12.0, day=365.25),
    _quantity(
        "body temperature", r"temp|temperature", "8310-5 8329-5", (25.0, 45.0), {"[degF]": (1.8, 32.0)}, Cel=1.0
    ),
    _quantity(
        "HbA1c", r"hba1c|a1c", "4548-4 17856-6", (2.5, 22.0), {"mmol/mol": (10.929, -23.5)}, percent=1.0
    ),
    _quantity("systolic pressure", r"sbp|systolic", "8480-6", (30.0, 320.0), mmHg=1.0, kPa=0.13332),
    _quantity("diastolic pressure", r"dbp|diastolic", "8462-4", (10.0, 220.0), mmHg=1.0, kPa=0.13332),
    _quantity("heart rate", r"hr_bpm|heart_rate|pulse", "8867-4", (15.0, 300.0), per_min=1.0),
    _quantity("ejection fraction", r"lvef|ejection", "10230-1", (3.0, 90.0), percent=1.0, fraction=0.01),
    _quantity("tumour mutational burden", r"tmb", "94076-7", (0.0, 2000.0), per_Mb=1.0),
)  # fmt: skip

_TIME_UNITS = {"a", "mo", "wk", "d", "h"}
_LENGTH_UNITS = {"mm", "cm", "m", "[in_i]"}
TIME_FACTORS = {"days for weeks": 7.0, "months for years": 12.0, "weeks for months": 4.348, "days for months": 30.44,
                "weeks for years": 52.18, "days for years": 365.25}  # fmt: skip
PLAIN_FACTORS = {"a factor of 2": 2.0, "a factor of 10": 10.0, "a factor of 100": 100.0, "a factor of 1000": 1000.0}
COMMON_FACTORS = {"inches for centimetres": 2.54, "pounds for kilograms": 2.2046}


def quantity_of(name: str, spec: ColumnSpec | OneHotSpec) -> Quantity | None:
    """Return the quantity that a column holds, by its code, else by a token of its name; None where not known."""
    code = (spec.code or "").removeprefix("LOINC:")
    for quantity in QUANTITIES:
        if code and code in quantity.codes:
            return quantity
    tokens = [snake_case(name), *snake_case(name).split("_")]
    for quantity in QUANTITIES:
        if any(re.fullmatch(quantity.pattern, token) for token in tokens) and _unit_fits(spec, quantity):
            return quantity
    return None


def plausible_range(name: str, spec: ColumnSpec | OneHotSpec) -> tuple[float, float] | None:
    """Return the range that the study gives, else that of the quantity in the column's unit; None where not known."""
    if isinstance(spec, OneHotSpec):
        return None
    if spec.plausible is not None:
        return spec.plausible
    quantity = quantity_of(name, spec)
    return None if quantity is None else quantity.limits_in(spec.unit)


def known_factors(name: str, spec: ColumnSpec | OneHotSpec) -> dict[str, tuple[float, str | None]]:
    """Return what a site's values may be multiples of: words to (factor, the unit that the site would then use)."""
    unit = spec.unit if isinstance(spec, ColumnSpec) else None
    factors: dict[str, tuple[float, str | None]] = {}
    quantity = quantity_of(name, spec)
    if quantity is not None and unit in quantity.units:
        for other, per_first in quantity.units.items():
            factor = per_first / quantity.units[unit]
            if abs(factor - 1.0) > 0.05:
                factors[f"{quantity.name} in {other} for {unit}"] = (factor, other)
    tables = [PLAIN_FACTORS]
    if unit in _TIME_UNITS or re.search(r"(^|_)(time|months?|days?|weeks?|years?|duration)(_|$)", snake_case(name)):
        tables.append(TIME_FACTORS)
    if unit in _LENGTH_UNITS or unit in ("kg", "[lb_av]") or (unit is None and quantity is not None):
        tables.append(COMMON_FACTORS)
    for table in tables:
        for words, factor in table.items():
            factors.setdefault(words, (factor, None))
            factors.setdefault(f"the reverse of {words}", (1.0 / factor, None))
    return factors


def _unit_fits(spec: ColumnSpec | OneHotSpec, quantity: Quantity) -> bool:
    return isinstance(spec, OneHotSpec) or spec.unit is None or spec.unit in quantity.units
