"""Between mass, substance and equivalents, by analyte; and a refusal where no fixed factor exists.

Molar masses are sums of the standard atomic weights (NIST / CIAAC 2021). Conventions where a choice exists follow the
AMA Manual of Style, 11th ed., SI Conversion Calculator, and are said at the analyte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from theracast_data.sources import snake_case
from theracast_data.units import UnitError, convert, factor


@dataclass(frozen=True)
class Analyte:
    """What is measured, as far as conversions need it.

    Attributes:
        molar_mass: g/mol.
        charge: equivalents per mole, for meq.
        convention: the choice behind the molar mass, where there is one.
    """

    name: str
    molar_mass: float
    charge: int | None = None
    aliases: tuple[str, ...] = ()
    convention: str | None = None


def _analyte(names: str, mass: float, *, charge: int | None = None, convention: str | None = None) -> Analyte:
    name, *aliases = names.split()
    return Analyte(name, mass, charge, tuple(aliases), convention)


ANALYTES: tuple[Analyte, ...] = (
    _analyte("glucose blood_glucose", 180.156),
    _analyte("creatinine crea creat", 113.12),
    _analyte("bilirubin bili total_bilirubin direct_bilirubin conjugated_bilirubin indirect_bilirubin", 584.66),
    _analyte("cholesterol total_cholesterol ldl_cholesterol hdl_cholesterol ldl hdl", 386.65),
    _analyte("triglycerides triglyceride", 885.7, convention="as triolein"),
    _analyte("urea", 60.056, convention="the whole molecule; for urea nitrogen use `bun`"),
    _analyte("bun urea_nitrogen blood_urea_nitrogen", 28.014, convention="mass of nitrogen, two atoms a molecule"),
    _analyte("uric_acid urate", 168.11),
    _analyte("albumin alb serum_albumin", 66_500.0, convention="66.5 kDa, approximate"),
    _analyte("haemoglobin hemoglobin hgb hb", 16_114.5, convention="monomer (Fe), as laboratories report mmol/L"),
    _analyte("haemoglobin_tetramer hemoglobin_tetramer", 64_458.0, convention="tetramer (Hb4)"),
    _analyte("sodium na", 22.98977, charge=1),
    _analyte("potassium", 39.0983, charge=1),
    _analyte("lithium", 6.94, charge=1),
    _analyte("chloride cl", 35.45, charge=1),
    _analyte("bicarbonate hco3", 61.016, charge=1),
    _analyte("calcium ca total_calcium ionised_calcium ionized_calcium", 40.078, charge=2),
    _analyte("magnesium mg", 24.305, charge=2),
    _analyte("phosphate phosphorus inorganic_phosphate", 30.974, convention="mass of phosphorus"),
    _analyte("iron tibc uibc iron_binding_capacity", 55.845),
    _analyte("copper", 63.546),
    _analyte("zinc", 65.38),
    _analyte("selenium", 78.971),
    _analyte("aluminium aluminum", 26.982),
    _analyte("lead", 207.2),
    _analyte("lactate lactic_acid", 90.08, convention="as lactic acid"),
    _analyte("pyruvate", 88.06, convention="as pyruvic acid"),
    _analyte("beta_hydroxybutyrate 3_hydroxybutyrate", 104.10),
    _analyte("acetone", 58.08),
    _analyte("ammonia", 17.031, convention="as NH3; for ammonia nitrogen use `ammonia_nitrogen`"),
    _analyte("ammonia_nitrogen", 14.007),
    _analyte("homocysteine", 135.19),
    _analyte("phenylalanine", 165.19),
    _analyte("bile_acids total_bile_acids", 408.57, convention="as cholic acid"),
    _analyte("cortisol", 362.46),
    _analyte("aldosterone", 360.44),
    _analyte("testosterone", 288.42),
    _analyte("oestradiol estradiol e2", 272.38),
    _analyte("oestriol estriol", 288.38),
    _analyte("oestrone estrone", 270.37),
    _analyte("progesterone", 314.46),
    _analyte("17_hydroxyprogesterone 17_ohp", 330.46),
    _analyte("androstenedione", 286.41),
    _analyte("dheas dhea_s dehydroepiandrosterone_sulfate", 368.49),
    _analyte("thyroxine t4 ft4 free_t4 free_thyroxine", 776.87),
    _analyte("triiodothyronine t3 ft3 free_t3 free_triiodothyronine", 650.97),
    _analyte("c_peptide", 3020.3),
    _analyte("adrenaline epinephrine", 183.20),
    _analyte("noradrenaline norepinephrine", 169.18),
    _analyte("dopamine", 153.18),
    _analyte("metanephrine", 197.23),
    _analyte("normetanephrine", 183.20),
    _analyte("vanillylmandelic_acid vma", 198.17),
    _analyte("5_hiaa 5_hydroxyindoleacetic_acid", 191.18),
    _analyte("serotonin", 176.21),
    _analyte("vitamin_d 25_oh_vitamin_d 25_hydroxyvitamin_d 25_ohd calcidiol", 400.64, convention="25-OH-D3"),
    _analyte("1_25_dihydroxyvitamin_d calcitriol", 416.64),
    _analyte("vitamin_b12 b12 cobalamin", 1355.37, convention="cyanocobalamin"),
    _analyte("folate folic_acid", 441.40),
    _analyte("vitamin_a retinol", 286.45),
    _analyte("vitamin_c ascorbic_acid", 176.12),
    _analyte("vitamin_e alpha_tocopherol", 430.71),
    _analyte("beta_carotene carotene", 536.87),
    _analyte("paracetamol acetaminophen", 151.165),
    _analyte("salicylate", 138.12),
    _analyte("ethanol", 46.07),
    _analyte("digoxin", 780.94),
    _analyte("phenytoin", 252.27),
    _analyte("carbamazepine", 236.27),
    _analyte("valproate valproic_acid", 144.21),
    _analyte("theophylline", 180.16),
    _analyte("vancomycin", 1449.25),
    _analyte("methotrexate", 454.44),
    _analyte("ciclosporin cyclosporine", 1202.61),
    _analyte("tacrolimus", 804.02),
)

# Substances for which a factor is met in print but does not exist: mixtures, and proteins of no fixed mass.
_NO_FACTOR: dict[str, str] = {
    "crp": "its mass depends on how the pentamer is counted, and results are given in mass only",
    "insulin": "6.0 and 6.945 pmol per milliunit are both in use, by the assay's calibration",
    "lipoprotein_a": "particles differ in mass with the size of apolipoprotein(a)",
    "d_dimer": "fibrinogen-equivalent units (FEU) and D-dimer units differ by the assay",
}
_ALIASES = {
    "c_reactive_protein": "crp", "hs_crp": "crp", "lp_a": "lipoprotein_a", "lpa": "lipoprotein_a", "ddimer": "d_dimer",
}  # fmt: skip
_HBA1C = frozenset({"hba1c", "haemoglobin_a1c", "hemoglobin_a1c", "glycated_haemoglobin", "glycated_hemoglobin"})
# The international unit of enzyme activity is U (1 umol/min), not the [iU] of a WHO standard.
_ENZYMES = frozenset({
    "alt", "gpt", "alat", "alanine_aminotransferase", "ast", "got", "asat", "aspartate_aminotransferase",
    "ldh", "lactate_dehydrogenase", "alp", "alkaline_phosphatase", "ggt", "gamma_gt", "gamma_glutamyltransferase",
    "amylase", "lipase", "ck", "creatine_kinase", "ck_mb", "cholinesterase",
})  # fmt: skip
_BY_NAME = {name: analyte for analyte in ANALYTES for name in (analyte.name, *analyte.aliases)}

# Pairs of like dimension: what may stand in for a mass, and the substance it becomes.
_BRIDGES = (("g/L", "mol/L"), ("g", "mol"), ("g/d", "mol/d"), ("g/kg", "mol/kg"))
_ARBITRARY = re.compile(
    r"\[(?:iu|arb'u|usp'u|gpl'u|mpl'u|apl'u|beth'u|anti'xa'u|todd'u|dye'u|smgy'u|bdsk'u|ka'u|knk'u|mclg'u|tb'u|"
    r"ccid_50|tcid_50|eid_50|pfu|ffu|cfu|ir|bau|au|pnu|lf|d'ag'u|feu|elu|eu)\]",
    re.IGNORECASE,
)
_EQUIVALENT = re.compile(r"(?<![A-Za-z])([kmunpf]?)eq(?![A-Za-z])")


def find_analyte(quantity: str) -> Analyte | None:
    """Return what is known of a quantity by its name, British or American: `oestradiol`, `Vitamin B12`, `BUN`."""
    return _BY_NAME.get(snake_case(quantity))


def analyte_factor(from_unit: str, to_unit: str, *, quantity: str) -> float:
    """Return the number by which values in `from_unit` are multiplied to be in `to_unit`.

    Args:
        quantity: the analyte, e.g. creatinine; others convert as by `theracast_data.units`.

    Raises:
        UnitError: no fixed factor exists, or the scales have different zeros (Cel, HbA1c); the message names both
            units and the analyte.
    """
    slope, offset = analyte_scale(from_unit, to_unit, quantity=quantity)
    if offset:
        raise UnitError(
            f"{quantity}: {from_unit} and {to_unit} have different zeros, so no factor turns one into the other. "
            "Convert the values with `analyte_scale`."
        )
    return slope


@lru_cache(maxsize=4096)
def analyte_scale(from_unit: str, to_unit: str, *, quantity: str) -> tuple[float, float]:
    """Return slope and offset: value in `to_unit` = slope * value in `from_unit` + offset.

    HbA1c between % (NGSP) and mmol/mol (IFCC) by the master equation NGSP = 0.09148 * IFCC + 2.152
    (Hoelzel et al., Clin Chem 2004;50:166-174).

    Raises:
        UnitError: as `analyte_factor`.
    """
    if from_unit == to_unit:
        return 1.0, 0.0
    name = snake_case(quantity)
    pair = (from_unit, to_unit)
    if name in _HBA1C and pair in (("mmol/mol", "%"), ("%", "mmol/mol")):
        return (0.09148, 2.152) if pair[1] == "%" else (1 / 0.09148, -2.152 / 0.09148)
    source, target = (_plain(unit, name) for unit in pair)
    _refuse_arbitrary(pair, source, target, quantity)
    source, target = (_ARBITRARY.sub("U", unit) for unit in (source, target))
    equivalents = 1.0
    if len(_EQUIVALENT.findall(source)) != len(_EQUIVALENT.findall(target)):
        charge = _charge(pair, quantity)
        equivalents = 1 / charge if _EQUIVALENT.search(source) else charge
        source, target = (_EQUIVALENT.sub(r"\1mol", unit) for unit in (source, target))
    try:
        slope, offset = _unit_scale(source, target, quantity)
    except UnitError as error:
        molar = _molar_factor(source, target, quantity)
        if molar is None:
            raise _refusal(pair, quantity, _reason(source, target, name, quantity)) from error
        slope, offset = molar, 0.0
    return float(f"{slope * equivalents:.14g}"), offset


def _unit_scale(source: str, target: str, quantity: str) -> tuple[float, float]:
    """Return slope and offset between units of one dimension."""
    zero = convert(0.0, source, target, quantity=quantity)
    if zero:
        return convert(1.0, source, target, quantity=quantity) - zero, zero
    return factor(source, target, quantity=quantity), 0.0


def _plain(unit: str, name: str) -> str:
    """Return the unit, the activity of enzymes as U: their `IU` is no unit of a standard."""
    if name in _ENZYMES:
        unit = re.sub(r"\[iu\]", "U", unit, flags=re.IGNORECASE)
    return unit


def _refuse_arbitrary(pair: tuple[str, str], source: str, target: str, quantity: str) -> None:
    """Refuse units of one assay or standard against any other: UCUM gives them all the dimension 1."""
    found = [sorted(part.casefold() for part in _ARBITRARY.findall(unit)) for unit in (source, target)]
    if found[0] != found[1]:
        why = _NO_FACTOR.get(_canonical(snake_case(quantity)), "it differs from substance to substance")
        raise _refusal(pair, quantity, f"an arbitrary unit has no fixed factor to another unit ({why})")
    notes = [sorted(re.findall(r"\{[^}]*\}", unit)) for unit in pair]
    if _canonical(snake_case(quantity)) == "d_dimer" and notes[0] != notes[1]:
        raise _refusal(pair, quantity, _NO_FACTOR["d_dimer"])


def _charge(pair: tuple[str, str], quantity: str) -> int:
    analyte = find_analyte(quantity)
    if analyte is None or analyte.charge is None:
        raise _refusal(pair, quantity, "equivalents need the charge of the ion, which is not known or not fixed")
    return analyte.charge


def _molar_factor(source: str, target: str, quantity: str) -> float | None:
    """Return the factor between mass and substance, None where the units or the analyte do not allow it."""
    analyte = find_analyte(quantity)
    if analyte is None:
        return None
    for mass, substance in _BRIDGES:
        for near, far, bridge in ((mass, substance, 1 / analyte.molar_mass), (substance, mass, analyte.molar_mass)):
            try:
                return factor(source, near, quantity=quantity) * bridge * factor(far, target, quantity=quantity)
            except UnitError:
                continue
    return None


def _reason(source: str, target: str, name: str, quantity: str) -> str:
    if _canonical(name) in _NO_FACTOR:
        return _NO_FACTOR[_canonical(name)]
    try:
        factor(source, target, quantity=quantity)
    except UnitError as error:
        return str(error).removeprefix(f"{quantity}: ").split(". ")[0]
    return "no factor is defined"


def _canonical(name: str) -> str:
    return _ALIASES.get(name, name)


def _refusal(pair: tuple[str, str], quantity: str, why: str) -> UnitError:
    return UnitError(
        f"{quantity}: cannot convert {pair[0]} to {pair[1]}; {why}. "
        "Give the concept the unit of the source, name the analyte as `quantity`, or convert the values in the source."
    )
