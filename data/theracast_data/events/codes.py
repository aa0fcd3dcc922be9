"""Codes as SYSTEM//CODE: the vocabularies known here, their spellings, and the check digits of codes.

Sources: LOINC Users' Guide, appendix on check digits (mod 10); SNOMED International, SNOMED CT Release File
Specifications, section on check digits (Verhoeff's dihedral algorithm).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from theracast_data.errors import SchemaError

SEPARATOR = "//"

# Name of a vocabulary: its FHIR addresses, OIDs and other spellings, as they are compared (see _key).
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "LOINC": ("http://loinc.org", "urn:oid:2.16.840.1.113883.6.1", "LN", "LNC"),
    "SNOMED": ("http://snomed.info/sct", "urn:oid:2.16.840.1.113883.6.96", "SCT", "SNOMED CT", "SNOMEDCT_US"),
    "ICD10": ("http://hl7.org/fhir/sid/icd-10", "urn:oid:2.16.840.1.113883.6.3", "ICD-10", "ICD-10-WHO"),
    "ICD10CM": ("http://hl7.org/fhir/sid/icd-10-cm", "urn:oid:2.16.840.1.113883.6.90", "ICD-10-CM"),
    "ICD10GM": ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "ICD-10-GM"),
    "ICD10PCS": ("http://www.cms.gov/Medicare/Coding/ICD10", "http://hl7.org/fhir/sid/icd-10-pcs", "ICD-10-PCS"),
    "ICD9CM": ("http://hl7.org/fhir/sid/icd-9-cm", "ICD-9-CM"),
    "ICDO3": (
        "http://terminology.hl7.org/CodeSystem/icd-o-3", "urn:oid:2.16.840.1.113883.6.43.1", "ICD-O-3", "ICD-O",
    ),
    "RXNORM": ("http://www.nlm.nih.gov/research/umls/rxnorm", "urn:oid:2.16.840.1.113883.6.88", "RxNorm"),
    "ATC": ("http://www.whocc.no/atc", "urn:oid:2.16.840.1.113883.6.73"),
    "HGNC": ("http://www.genenames.org", "http://www.genenames.org/geneId", "urn:oid:2.16.840.1.113883.6.281"),
    "HGVS": ("http://varnomen.hgvs.org", "urn:oid:2.16.840.1.113883.6.282"),
    "UCUM": ("http://unitsofmeasure.org", "urn:oid:2.16.840.1.113883.6.8"),
    "CPT4": ("http://www.ama-assn.org/go/cpt", "CPT", "CPT-4"),
    "NDC": ("http://hl7.org/fhir/sid/ndc",),
    "CVX": ("http://hl7.org/fhir/sid/cvx",),
}  # fmt: skip
SYSTEMS = tuple(_SPELLINGS)
MEDS_CODES = ("MEDS_BIRTH", "MEDS_DEATH")
"""Codes of the Medical Event Data Standard that stand without a vocabulary."""


@dataclass(frozen=True)
class Code:
    """A code in its vocabulary; `code` is empty for the codes of MEDS that stand alone, such as MEDS_BIRTH."""

    system: str
    code: str

    def __str__(self) -> str:
        return f"{self.system}{SEPARATOR}{self.code}" if self.code else self.system


def parse_code(text: str) -> Code:
    """Return the vocabulary and the code of `SYSTEM//CODE`, the vocabulary in its normal spelling.

    The code may itself hold `//`: `HGNC//TP53//missense` has the code `TP53//missense`.

    Raises:
        SchemaError: there is no vocabulary or no code.
    """
    system, separator, code = (part.strip() for part in text.partition(SEPARATOR))
    if system in MEDS_CODES:
        return Code(system, code)
    if separator and not system.startswith(("http:", "https:")) and system and code:
        return Code(system_name(system), code)
    raise SchemaError(
        f"{text!r} is not a code. Write SYSTEM//CODE, e.g. LOINC//1751-7, or eicu//albumin for a hospital's own."
    )


def system_name(written: str) -> str:
    """Return the normal spelling of a vocabulary: `http://loinc.org` and `loinc` give LOINC; unknown ones stay."""
    return _BY_KEY.get(_key(written), written.strip())


def code_fault(code: str) -> str | None:
    """Return what is wrong with a code of a known vocabulary, or None; unknown vocabularies have no faults.

    Faults are for warnings: hospitals do use codes of their own inside a vocabulary's name.
    """
    try:
        parsed = parse_code(code)
    except SchemaError as error:
        return str(error)
    if parsed.system == "LOINC":
        return _loinc_fault(parsed.code)
    if parsed.system == "SNOMED":
        return _snomed_fault(parsed.code)
    pattern = _PATTERNS.get(parsed.system)
    if pattern is not None and not re.fullmatch(pattern[0], parsed.code):
        return f"{code}: not written as a code of {parsed.system}, such as {pattern[1]}."
    return None


def code_faults(codes: Iterable[str]) -> dict[str, str]:
    """Return the faulty ones among the codes with what is wrong with them, in the order given."""
    faults = {code: code_fault(code) for code in dict.fromkeys(codes)}
    return {code: fault for code, fault in faults.items() if fault is not None}


def luhn_digit(digits: str) -> int:
    """Return the mod 10 check digit of LOINC numbers: every second digit from the right counts double."""
    doubled = (int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits)))
    return -sum(value // 10 + value % 10 for value in doubled) % 10


def verhoeff_digit(digits: str) -> int:
    """Return the check digit of SNOMED CT identifiers."""
    state = 0
    for place, digit in enumerate(reversed(digits), start=1):
        state = _product(state, _permuted(int(digit), place))
    return -state % 5 if state < 5 else state


def _product(left: int, right: int) -> int:
    """Return the product in the dihedral group of the pentagon: 0-4 turns, 5-9 reflections."""
    if left < 5:
        return (left + right) % 5 + (5 if right >= 5 else 0)
    return (left - right) % 5 + (0 if right >= 5 else 5)


def _permuted(digit: int, times: int) -> int:
    for _ in range(times % 8):
        digit = _PERMUTATION[digit]
    return digit


_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _loinc_fault(code: str) -> str | None:
    # Parts, answers, answer lists and groups have a prefix; their check digit is that of the number.
    found = re.fullmatch(r"(?:LP|LA|LL|LG)?(\d{1,8})-(\d)", code)
    if found is None:
        return f"LOINC//{code}: a LOINC number is digits, a hyphen and a check digit, such as 1751-7."
    expected = luhn_digit(found[1])
    if expected != int(found[2]):
        return f"LOINC//{code}: the check digit is wrong (it would be {expected}); a digit is misspelt."
    return None


def _snomed_fault(code: str) -> str | None:
    if not re.fullmatch(r"[1-9]\d{5,17}", code):
        return f"SNOMED//{code}: a SNOMED CT identifier has 6 to 18 digits and does not begin with 0."
    if verhoeff_digit(code[:-1]) != int(code[-1]):
        return f"SNOMED//{code}: the check digit is wrong; a digit is misspelt, or a spreadsheet has rounded it."
    if code[-3:-1] not in ("00", "10"):
        return f"SNOMED//{code}: this identifies a description or relationship; use the concept's identifier."
    return None


# Codes ending in * in a study are groups; they are not checked here.
_PATTERNS: dict[str, tuple[str, str]] = {
    "ICD10": (r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?[+*!†]?", "C34.1"),
    "ICD10CM": (r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?", "C34.11"),
    "ICD10GM": (r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?[+*!†]?", "C34.1"),
    "ICDO3": (r"\d{4}/\d{1,2}|C\d{2}(\.?\d)?", "8140/3 or C34.1"),
    "RXNORM": (r"\d{1,8}", "1547220"),
    "ATC": (r"[A-Z](\d\d([A-Z]([A-Z](\d\d)?)?)?)?", "L01FF05"),
    "HGNC": (r"(HGNC:\d+|[A-Za-z][A-Za-z0-9@._-]*)(//.*)?", "EGFR or HGNC:3236"),
}


def _key(written: str) -> str:
    text = written.strip().casefold().removeprefix("https://").removeprefix("http://").removeprefix("www.")
    return text.rstrip("/") if "/" in text or ":" in text else re.sub(r"[\s_-]+", "", text)


_BY_KEY = {_key(spelling): name for name, spellings in _SPELLINGS.items() for spelling in (name, *spellings)}
