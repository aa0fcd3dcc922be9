"""Codes: parsing, spellings of vocabularies, check digits against real identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theracast_data.errors import SchemaError
from theracast_data.events.codes import (
    SYSTEMS,
    Code,
    code_fault,
    code_faults,
    luhn_digit,
    parse_code,
    system_name,
    verhoeff_digit,
)


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("LOINC//1751-7", "LOINC", "1751-7"),
        ("http://loinc.org//1751-7".replace("http://", ""), "LOINC", "1751-7"),
        ("icd-10-cm//C34.11", "ICD10CM", "C34.11"),
        ("SNOMED CT//254637007", "SNOMED", "254637007"),
        ("HGNC//TP53//missense", "HGNC", "TP53//missense"),
        ("eicu//albumin", "eicu", "albumin"),
        ("MEDS_DEATH", "MEDS_DEATH", ""),
    ],
)
def test_a_code_is_vocabulary_and_code(text: str, system: str, code: str) -> None:
    assert parse_code(text) == Code(system, code)


@pytest.mark.parametrize("text", ["1751-7", "LOINC:1751-7", "LOINC//", "//1751-7", "", "http://loinc.org"])
def test_what_is_no_code_says_how_to_write_one(text: str) -> None:
    with pytest.raises(SchemaError, match="Write SYSTEM//CODE"):
        parse_code(text)


@given(st.sampled_from(SYSTEMS), st.from_regex(r"[A-Z0-9][A-Z0-9.\-]{0,10}", fullmatch=True))
def test_written_and_parsed_is_the_same(system: str, code: str) -> None:
    assert parse_code(str(Code(system, code))) == Code(system, code)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("http://snomed.info/sct", "SNOMED"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "ICD10CM"),
        ("http://hl7.org/fhir/sid/icd-10", "ICD10"),
        ("urn:oid:2.16.840.1.113883.6.1", "LOINC"),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "RXNORM"),
        ("https://www.genenames.org/", "HGNC"),
        ("ICD-O-3", "ICDO3"),
        ("RxNorm", "RXNORM"),
        ("our lab", "our lab"),
    ],
)
def test_spellings_of_vocabularies(written: str, name: str) -> None:
    assert system_name(written) == name


# Albumin, creatinine, haemoglobin, leucocytes, PSA, platelets, tumour stage; real numbers from loinc.org.
@pytest.mark.parametrize("number", ["1751-7", "2160-0", "718-7", "6690-2", "2857-1", "777-3", "21908-9", "94076-7"])
def test_loinc_numbers_have_the_mod_10_digit(number: str) -> None:
    digits, check = number.split("-")
    assert luhn_digit(digits) == int(check)
    assert code_fault(f"LOINC//{number}") is None


# Non-small-cell lung cancer, diabetes mellitus, malignant neoplastic disease, clinical finding, SNOMED CT root.
@pytest.mark.parametrize("concept", ["254637007", "73211009", "363346000", "404684003", "138875005", "22298006"])
def test_snomed_concepts_have_the_verhoeff_digit(concept: str) -> None:
    assert verhoeff_digit(concept[:-1]) == int(concept[-1])
    assert code_fault(f"SNOMED//{concept}") is None


@given(st.from_regex(r"[1-9][0-9]{5,14}", fullmatch=True), st.data())
def test_verhoeff_finds_every_wrong_digit_and_every_exchange(digits: str, data: st.DataObject) -> None:
    whole = digits + str(verhoeff_digit(digits))
    place = data.draw(st.integers(0, len(whole) - 2))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != whole[place]]))
    wrong = [whole[:place] + other + whole[place + 1 :]]
    if whole[place] != whole[place + 1]:
        wrong.append(whole[:place] + whole[place + 1] + whole[place] + whole[place + 2 :])
    assert all(verhoeff_digit(text[:-1]) != int(text[-1]) for text in wrong)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("LOINC//1751-8", "it would be 7"),
        ("LOINC//albumin", "check digit, such as"),
        ("SNOMED//254637008", "misspelt"),
        ("SNOMED//1234", "6 to 18 digits"),
        ("ICD10//lung cancer", "such as C34.1"),
        ("ATC//L1FF05", "such as L01FF05"),
        ("ICDO3//81403", "8140/3"),
        ("C34.1", "Write SYSTEM//CODE"),
    ],
)
def test_faults_are_told(code: str, why: str) -> None:
    assert why in (code_fault(code) or "")


def test_only_faulty_codes_are_listed() -> None:
    fine = ["ICD10CM//C34.11", "ICD10//C34", "ICDO3//8140/3", "ICDO3//C34.1", "ATC//L01FF", "RXNORM//1547220",
            "HGNC//EGFR", "HGNC//HGNC:3236", "HGNC//TP53//missense", "eicu//whatever", "MEDS_BIRTH"]  # fmt: skip
    assert code_faults([*fine, "LOINC//1751-8"]).keys() == {"LOINC//1751-8"}
