"""The synthetic cohort as FHIR R4 resources with mCODE profiles: what is known before the decision, and what came after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from theracast_data.synthetic.outcomes import DAYS_PER_MONTH

Resource = dict[str, Any]

TIMEZONE = "Europe/Berlin"
"""Clock of the hospitals; the instants of the export carry its offset."""
QUESTIONNAIRE = "http://example.org/fhir/Questionnaire/QLQ-C30"
LOCAL = "http://example.org/fhir/CodeSystem/theracast-demo"

_ZONE = ZoneInfo(TIMEZONE)
_MCODE = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-"
_SYSTEMS = {
    "LOINC": "http://loinc.org",
    "SNOMED": "http://snomed.info/sct",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ATC": "http://www.whocc.no/atc",
    "HGNC": "http://www.genenames.org/geneId",
    "AJCC": "http://cancerstaging.org",
    "local": LOCAL,
}
_UCUM = "http://unitsofmeasure.org"

SCAN_DAYS = -8
"""Day of the scan before the decision."""

# Value of the cohort: code, unit, mCODE profile, days before the decision.
_QUANTITIES: dict[str, tuple[str, str, str | None, int]] = {
    "bmi": ("LOINC//39156-5", "kg/m2", None, 3),
    "tmb": ("LOINC//94076-7", "{mutations}/Mb", "tumor-marker-test", 12),
    "pdl1_tps": ("LOINC//83053-9", "%", "tumor-marker-test", 14),
    "tumour_volume": ("local//tumour-volume", "mL", None, -SCAN_DAYS),
    "sum_of_diameters": ("local//sum-of-diameters", "mm", None, -SCAN_DAYS),
}
_CODED: dict[str, tuple[str, str | None, int, dict[Any, str]]] = {
    "stage": (
        "LOINC//21908-9", "tnm-stage-group", 20, {"III": "AJCC//III", "IV": "AJCC//IV"},
    ),
    "smoking": (
        "LOINC//72166-2", None, 20,
        {"never": "SNOMED//266919005", "former": "SNOMED//8517006", "current": "SNOMED//77176002"},
    ),
    "msi": ("LOINC//81695-9", "tumor-marker-test", 12, {0.0: "local//MSS", 1.0: "local//MSI-H"}),
    "driver_mutation": (
        "local//driver-mutation", None, 12, {name: f"local//{name}" for name in ("none", "KRAS", "BRAF", "other")},
    ),
}  # fmt: skip
_DIAGNOSES = {
    "NSCLC": ("SNOMED//254637007", "ICD10//C34.9"),
    "Melanoma": ("SNOMED//372244006", "ICD10//C43.9"),
    "Renal": ("SNOMED//702391001", "ICD10//C64"),
    "Bladder": ("SNOMED//399326009", "ICD10//C67.9"),
    "Head & Neck": ("SNOMED//255056009", "ICD10//C76.0"),
}
_GENES = {"KRAS": "HGNC//HGNC:6407", "BRAF": "HGNC//HGNC:1097"}
# Drug, dose and its unit; all are given on the first day of a cycle.
_DRUGS = {
    "anti-PD-1": (("ATC//L01FF02", 200.0, "mg"),),
    "anti-PD-1 + chemotherapy": (("ATC//L01FF02", 200.0, "mg"), ("ATC//L01XA02", 450.0, "mg")),
    "anti-PD-1 + anti-CTLA-4": (("ATC//L01FF02", 200.0, "mg"), ("ATC//L01FX04", 70.0, "mg")),
}
# None of them is a drug of the regimens, so that an earlier therapy is told apart from the one that begins.
_EARLIER_DRUGS = (
    ("ATC//L01XA01", 140.0, "mg"), ("ATC//L01CD02", 135.0, "mg"), ("ATC//L01BC05", 1800.0, "mg"),
    ("ATC//L01EX01", 50.0, "mg"),
)  # fmt: skip
_LINE_DAYS, _ADJUVANT_DAYS = 90, 540
_CYCLE_DAYS, _MOST_CYCLES = 21, 4
# mCODE's value set for disease status, as the words of RECIST.
_STATUS = {"CR": "260415000", "PR": "268910001", "SD": "359746009", "PD": "271299001", "NE": "709137006"}
_FIRST_SCAN_DAYS, _SECOND_FORM_DAYS = 63, 42
# What becomes of the diameters, as a share of what they were; a volume goes with their third power.
_SHRUNK = {"CR": 0.0, "PR": 0.6, "SD": 0.95}
_GROWN = 1.25
_POWERS = {"sum_of_diameters": 1, "tumour_volume": 3}
_SCALES = {"fatigue": "FA", "quality_of_life": "QL2"}


def days_of(months: float) -> int:
    """Return a follow-up of the truth in whole days."""
    return round(months * DAYS_PER_MONTH)


def patients(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield birth, sex, hospital, and death."""
    day = _day(decision, 0)
    # Half a year past the birthday, so that the age at the decision is the cohort's.
    born = day - timedelta(days=round(values["age"] * 365.25) + 183)
    patient = {
        "resourceType": "Patient",
        "id": decision["subject_id"],
        "meta": {"profile": [_MCODE + "cancer-patient"]},
        "gender": {"F": "female", "M": "male"}[values["sex"]],
        "birthDate": born.isoformat(),
        "managingOrganization": {"reference": f"Organization/{decision['site']}"},
    }
    if outcomes["os_event"] == 1:
        patient["deceasedDateTime"] = _after(decision, outcomes["os_months"]).isoformat()
    yield patient


def conditions(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the cancer."""
    snomed, icd = _DIAGNOSES[values["cancer_type"]]
    code = {"coding": [*_concept(snomed)["coding"], *_concept(icd)["coding"]], "text": values["cancer_type"]}
    yield _resource(decision, "Condition", "diagnosis", "primary-cancer-condition") | {
        "clinicalStatus": _status("condition-clinical", "active"),
        "verificationStatus": _status("condition-ver-status", "confirmed"),
        "code": code,
        "onsetDateTime": _day(decision, -60).isoformat()[:7],
        "recordedDate": _day(decision, -30).isoformat(),
    }


def observations(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield measurements, stage, genomics and performance before the decision; scans, status, last contact after it."""
    for name in _QUANTITIES:
        if not np.isnan(values[name]):
            yield _measured(decision, name, values[name])
    for name, (code, profile, days, levels) in _CODED.items():
        if not pd.isna(values[name]):
            coded = {"valueCodeableConcept": _concept(levels[values[name]])}
            yield _observation(decision, name, code, profile) | _reported(decision, -days) | coded
    yield _observation(decision, "ecog", "LOINC//89247-1", "ecog-performance-status") | {
        "effectiveDateTime": _day(decision, -3).isoformat(),
        "valueInteger": int(values["ecog"]),
    }
    if values["driver_mutation"] in _GENES:
        yield _variant(decision, values["driver_mutation"])
    yield from _follow_up(decision, values, outcomes)


def _variant(decision: Any, gene: str) -> Resource:
    studied = {"coding": [_concept(_GENES[gene])["coding"][0] | {"display": gene}]}
    return (
        _observation(decision, "variant", "LOINC//69548-6", "genomic-variant")
        | _reported(decision, -12)
        | {
            "valueCodeableConcept": _concept("LOINC//LA9633-4"),
            "component": [{"code": _concept("LOINC//48018-6"), "valueCodeableConcept": studied}],
        }
    )


def _measured(decision: Any, name: str, value: float, *, days: int | None = None) -> Resource:
    """Return a measurement, by default the one before the decision."""
    code, unit, profile, before = _QUANTITIES[name]
    shown = name if days is None else f"{name}-{days}"
    timed = _reported(decision, -before if days is None else days)
    quantity = {"value": value, "unit": unit, "system": _UCUM, "code": unit}
    return _observation(decision, shown, code, profile) | timed | {"valueQuantity": quantity}


def _follow_up(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the best response and the lesions at the first scan, progression with them, and the last contact."""
    until, best = days_of(outcomes["pfs_months"]), outcomes["recist"]
    if best != "PD":
        yield _status_on(decision, "response", _first_assessment(until), _STATUS[best])
    if progressed(outcomes):
        # Who could not be evaluated has no scan: the progression is the clinician's word.
        code = "local//clinical-progression" if best == "NE" else "LOINC//97509-4"
        yield _status_on(decision, "progression", until, _STATUS["PD"], code=code)
    for days, share in scans(outcomes):
        yield from _lesions(decision, values, days, share)
    if outcomes["os_event"] == 0:
        yield _observation(decision, "last-contact", "local//last-contact", None) | {
            "effectiveDateTime": _day(decision, days_of(outcomes["os_months"])).isoformat(),
            "valueCodeableConcept": _concept("local//alive"),
        }


def scans(outcomes: Any) -> list[tuple[int, float]]:
    """Return day after the decision and share of the baseline's diameters of each scan that a patient has after it.

    The report comes a day after the scan and the status two, and nobody is scanned after the last contact.
    """
    until, best = days_of(outcomes["pfs_months"]), outcomes["recist"]
    found = []
    if best in _SHRUNK:
        found.append((_first_assessment(until) - 2, _SHRUNK[best]))
    if progressed(outcomes) and best != "NE":
        found.append((until - 2, _GROWN))
    return found


def progressed(outcomes: Any) -> bool:
    """Return whether progression was seen while the patient lived."""
    died = outcomes["os_event"] == 1 and outcomes["os_months"] <= outcomes["pfs_months"]
    return bool(outcomes["pfs_event"] == 1 and not died)


def _first_assessment(until: int) -> int:
    return _FIRST_SCAN_DAYS if until > _FIRST_SCAN_DAYS else max(until - 3, 1)


def _status_on(decision: Any, name: str, days: int, status: str, *, code: str = "LOINC//97509-4") -> Resource:
    profile = "cancer-disease-status" if code.startswith("LOINC") else None
    return _observation(decision, name, code, profile) | {
        "effectiveDateTime": _day(decision, days).isoformat(),
        "valueCodeableConcept": _concept(f"SNOMED//{status}"),
    }


def _lesions(decision: Any, values: Any, days: int, share: float) -> Iterator[Resource]:
    for name, power in _POWERS.items():
        if not np.isnan(values[name]):
            yield _measured(decision, name, round(values[name] * share**power, 1), days=days)


def administrations(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the cycles of this line up to progression, and one dose of each earlier treatment.

    Earlier lines lie within the year before; an adjuvant treatment, which is no line, lies before it.
    """
    until = outcomes["pfs_months"] * DAYS_PER_MONTH
    for cycle in range(_MOST_CYCLES):
        days = cycle * _CYCLE_DAYS
        if cycle == 0 or days < until:
            for number, drug in enumerate(_DRUGS[values["regimen"]]):
                yield _dose(decision, f"cycle{cycle + 1}-{number + 1}", days, drug)
    lines = int(values["line_of_therapy"]) - 1
    for number in range(lines):
        yield _dose(decision, f"earlier{number + 1}", -_LINE_DAYS * (number + 1), _EARLIER_DRUGS[number])
    if values["systemic_therapy_history"] == 1 and lines == 0:
        yield _dose(decision, "adjuvant", -_ADJUVANT_DAYS, _EARLIER_DRUGS[0])


def _dose(decision: Any, name: str, days: int, drug: tuple[str, float, str]) -> Resource:
    code, amount, unit = drug
    begin = datetime.combine(_day(decision, days), time(10, 0), _ZONE)
    return _resource(decision, "MedicationAdministration", name, "cancer-related-medication-administration") | {
        "status": "completed",
        "medicationCodeableConcept": _concept(code),
        "effectivePeriod": {"start": begin.isoformat(), "end": (begin + timedelta(minutes=30)).isoformat()},
        "dosage": {"dose": {"value": amount, "unit": unit, "system": _UCUM, "code": unit}},
    }


def responses(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the form before the decision, and one during treatment on which all are ten points worse."""
    scores = {link: values[name] for name, link in _SCALES.items() if not np.isnan(values[name])}
    if scores:
        yield _form(decision, "questionnaire", -2, scores)
        if days_of(outcomes["os_months"]) > _SECOND_FORM_DAYS:
            worse = {"FA": min(scores.get("FA", 0.0) + 10, 100), "QL2": max(scores.get("QL2", 100.0) - 10, 0)}
            yield _form(decision, "questionnaire-2", _SECOND_FORM_DAYS, {link: worse[link] for link in scores})


def _form(decision: Any, name: str, days: int, scores: dict[str, float]) -> Resource:
    return _resource(decision, "QuestionnaireResponse", name, None) | {
        "questionnaire": f"{QUESTIONNAIRE}|3.0",
        "status": "completed",
        "authored": datetime.combine(_day(decision, days), time(9, 15), _ZONE).isoformat(),
        "item": [{"linkId": link, "answer": [{"valueDecimal": score}]} for link, score in scores.items()],
    }


def _resource(decision: Any, kind: str, name: str, profile: str | None) -> Resource:
    resource: Resource = {
        "resourceType": kind,
        "id": f"{decision['subject_id']}-{name.replace('_', '-')}",
        "subject": {"reference": f"Patient/{decision['subject_id']}"},
    }
    return resource | ({"meta": {"profile": [_MCODE + profile]}} if profile else {})


def _observation(decision: Any, name: str, code: str, profile: str | None) -> Resource:
    return _resource(decision, "Observation", name, profile) | {"status": "final", "code": _concept(code)}


def _reported(decision: Any, days: int) -> Resource:
    """Return when a sample was taken, and the result a day later."""
    taken = datetime.combine(_day(decision, days), time(8, 30), _ZONE)
    return {"effectiveDateTime": taken.isoformat(), "issued": (taken + timedelta(days=1)).isoformat()}


def _concept(code: str) -> Resource:
    system, _, own = code.partition("//")
    return {"coding": [{"system": _SYSTEMS[system], "code": own}]}


def _status(system: str, code: str) -> Resource:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}


def _day(decision: Any, days: int) -> date:
    moment: pd.Timestamp = decision["index_time"]
    return moment.date() + timedelta(days=days)


def _after(decision: Any, months: float) -> date:
    return _day(decision, days_of(months))


Maker = Callable[[Any, Any, Any], Iterator[Resource]]
MAKERS: dict[str, Maker] = {
    "Patient": patients,
    "Condition": conditions,
    "Observation": observations,
    "MedicationAdministration": administrations,
    "QuestionnaireResponse": responses,
}
"""Resource type to what yields a patient's resources from the decision, the values and the outcomes."""
