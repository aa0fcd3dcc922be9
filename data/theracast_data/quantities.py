"""Quantities that hospitals measure everywhere: label, LOINC code, unit and possible range, for drafts of studies."""

from __future__ import annotations

import re
from dataclasses import dataclass

from theracast_data.modality import Modality
from theracast_data.sources import snake_case


@dataclass(frozen=True)
class Quantity:
    """A well-known quantity.

    Attributes:
        names: headers in snake case under which it is met.
        unit: UCUM unit in which a model works; "" for a plain count or score.
        plausible: clinically possible range in `unit`.
        others: other units, each with the factor from it to `unit`, that are told apart by the size of the median.
        typical: range in which the median of a cohort lies, in `unit`.
    """

    label: str
    names: tuple[str, ...]
    modality: Modality
    code: str | None
    unit: str
    plausible: tuple[float, float]
    typical: tuple[float, float]
    others: tuple[tuple[str, float], ...] = ()


def _lab(
    label: str,
    names: str,
    loinc: str,
    *,
    unit: str,
    plausible: tuple[float, float],
    typical: tuple[float, float],
    others: tuple[tuple[str, float], ...] = (),
) -> Quantity:
    return Quantity(label, tuple(names.split()), "lab", f"LOINC:{loinc}", unit, plausible, typical, others)  # fmt: skip


def _plain(
    label: str,
    names: str,
    modality: Modality,
    code: str | None,
    *,
    unit: str,
    plausible: tuple[float, float],
    typical: tuple[float, float],
    others: tuple[tuple[str, float], ...] = (),
) -> Quantity:
    return Quantity(label, tuple(names.split()), modality, code, unit, plausible, typical, others)  # fmt: skip


_PER_LITRE = (("/uL", 1e-3),)

QUANTITIES: tuple[Quantity, ...] = (
    _lab("Albumin", "albumin alb", "1751-7",
         unit="g/dL", plausible=(1, 6.5), typical=(2.5, 5.5), others=(("g/L", 0.1),)),
    _lab("Haemoglobin", "haemoglobin hemoglobin hgb hb", "718-7",
         unit="g/dL", plausible=(4, 22), typical=(8, 18), others=(("g/L", 0.1),)),
    _lab("Creatinine", "creatinine crea creat", "2160-0", unit="mg/dL", plausible=(0.1, 20), typical=(0.4, 3)),
    _lab("Platelets", "platelets plt thrombocytes", "777-3",
         unit="10*9/L", plausible=(5, 1500), typical=(80, 600), others=_PER_LITRE),
    _lab("Leucocytes", "leucocytes leukocytes wbc", "6690-2",
         unit="10*9/L", plausible=(0.1, 300), typical=(2, 20), others=_PER_LITRE),
    _lab("Neutrophils", "neutrophils anc neut", "751-8",
         unit="10*9/L", plausible=(0, 100), typical=(1, 15), others=_PER_LITRE),
    _lab("Lymphocytes", "lymphocytes alc lymph", "731-0",
         unit="10*9/L", plausible=(0, 200), typical=(0.3, 5), others=_PER_LITRE),
    _lab("Monocytes", "monocytes mono", "742-7",
         unit="10*9/L", plausible=(0, 30), typical=(0.1, 2), others=_PER_LITRE),
    _lab("Eosinophils", "eosinophils eos", "711-2",
         unit="10*9/L", plausible=(0, 50), typical=(0.01, 1.5), others=_PER_LITRE),
    _lab("Lactate dehydrogenase", "ldh lactate_dehydrogenase", "2532-0",
         unit="U/L", plausible=(20, 20000), typical=(80, 800)),
    _lab("C-reactive protein", "crp c_reactive_protein", "1988-5",
         unit="mg/L", plausible=(0, 700), typical=(0.2, 150)),
    _lab("Bilirubin", "bilirubin bili total_bilirubin", "1975-2", unit="mg/dL", plausible=(0, 60), typical=(0.2, 3)),
    _lab("Alanine aminotransferase", "alt gpt alat", "1742-6", unit="U/L", plausible=(1, 15000), typical=(8, 120)),
    _lab("Aspartate aminotransferase", "ast got asat", "1920-8", unit="U/L", plausible=(1, 15000), typical=(8, 120)),
    _lab("Alkaline phosphatase", "alp alkaline_phosphatase", "6768-6",
         unit="U/L", plausible=(5, 5000), typical=(40, 400)),
    _lab("Calcium", "calcium ca", "17861-6", unit="mg/dL", plausible=(4, 20), typical=(7, 12)),
    _lab("Sodium", "sodium na", "2951-2", unit="mmol/L", plausible=(100, 190), typical=(125, 150)),
    _lab("Potassium", "potassium", "2823-3", unit="mmol/L", plausible=(1.5, 9), typical=(3, 6)),
    _lab("Ferritin", "ferritin", "2276-4", unit="ng/mL", plausible=(1, 100000), typical=(10, 2000)),
    _lab("Prostate-specific antigen", "psa", "2857-1", unit="ng/mL", plausible=(0, 20000), typical=(0.1, 500)),
    _lab("Carcinoembryonic antigen", "cea", "2039-6", unit="ng/mL", plausible=(0, 50000), typical=(0.5, 500)),
    _lab("Haemoglobin A1c", "hba1c", "4548-4", unit="%", plausible=(3, 20), typical=(4, 12)),
    _lab("Faecal calprotectin", "calprotectin fecal_calprotectin faecal_calprotectin", "38445-3",
         unit="ug/g", plausible=(0, 20000), typical=(10, 3000)),
    _lab("NT-proBNP", "nt_probnp ntprobnp", "33762-6", unit="pg/mL", plausible=(0, 200000), typical=(20, 20000)),
    _plain("Neutrophil-to-lymphocyte ratio", "nlr", "lab", None, unit="1", plausible=(0, 150), typical=(0.5, 15)),
    _plain("Age", "age bage age_years age_at_diagnosis age_at_screening age_at_baseline", "clinical", "LOINC:30525-0",
         unit="a", plausible=(0, 120), typical=(1, 100)),
    _plain("Body mass index", "bmi", "clinical", "LOINC:39156-5", unit="kg/m2", plausible=(10, 80), typical=(15, 45)),
    _plain("Body weight", "weight weight_kg", "clinical", "LOINC:29463-7",
         unit="kg", plausible=(2, 350), typical=(10, 150)),
    _plain("Body height", "height height_cm", "clinical", "LOINC:8302-2",
         unit="cm", plausible=(40, 250), typical=(80, 210), others=(("m", 100.0),)),
    _plain("Systolic blood pressure", "sbp systolic systolic_bp", "clinical", "LOINC:8480-6",
         unit="mm[Hg]", plausible=(40, 300), typical=(80, 200)),
    _plain("ECOG performance status", "ecog ecoggr ecog_ps performance_status", "clinical", "LOINC:89247-1",
         unit="1", plausible=(0, 4), typical=(0, 4)),
    _plain("Tumour mutational burden", "tmb", "genomic", "LOINC:94076-7",
         unit="{mutations}/Mb", plausible=(0, 1000), typical=(0.1, 50)),
    _plain("Sum of target lesion diameters", "sld blsld sum_of_diameters", "imaging", None,
         unit="mm", plausible=(0, 600), typical=(10, 200), others=(("cm", 10.0),)),
)  # fmt: skip

_BY_NAME = {name: quantity for quantity in QUANTITIES for name in quantity.names}


def known_quantity(header: str) -> Quantity | None:
    """Return the known quantity that a header such as `Albumin`, `HGB (g/dL)` or `Age.at.diagnosis` names."""
    return _BY_NAME.get(snake_case(re.split(r"[(\[]", header, maxsplit=1)[0]))


def unit_of(quantity: Quantity, header: str, median: float) -> tuple[str | None, bool]:
    """Return the unit of a column, and whether the header says so; None where the values fit no unit known here."""
    low, high = quantity.typical
    for unit in (quantity.unit, *(other for other, _ in quantity.others)):
        if unit != "1" and f"{unit.lower()}" in header.lower():
            return unit, True
    if low <= median <= high:
        return quantity.unit, False
    for unit, factor in quantity.others:
        if low <= median * factor <= high:
            return unit, False
    return None, False
