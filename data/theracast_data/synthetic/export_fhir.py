"""The synthetic cohort as dated facts: a FHIR R4 bulk export with mCODE profiles, and the laboratory's long CSV file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from theracast_data.synthetic.files import LABS, NOT_KNOWN, TIMES_TEN
from theracast_data.synthetic.patients import QUANTITIES
from theracast_data.synthetic.truth import Truth

Resource = dict[str, Any]

TIMEZONE = "Europe/Berlin"
"""Clock of the hospitals; the instants of the export carry its offset."""
QUESTIONNAIRE = "http://example.org/fhir/Questionnaire/QLQ-C30"
LOCAL = "http://example.org/fhir/CodeSystem/theracast-demo"
RESOURCES = ("Patient", "Condition", "Observation", "MedicationAdministration", "QuestionnaireResponse")

_ZONE = ZoneInfo(TIMEZONE)
_DAYS_PER_MONTH = 30.4375
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

# Value of the cohort: code, unit, mCODE profile, days before the decision.
_QUANTITIES: dict[str, tuple[str, str, str | None, int]] = {
    "bmi": ("LOINC//39156-5", "kg/m2", None, 3),
    "tmb": ("LOINC//94076-7", "{mutations}/Mb", "tumor-marker-test", 12),
    "pdl1_tps": ("LOINC//83053-9", "%", "tumor-marker-test", 14),
    "tumour_volume": ("local//tumour-volume", "mL", None, 8),
    "sum_of_diameters": ("local//sum-of-diameters", "mm", None, 8),
    "daily_steps": ("LOINC//41950-7", "{steps}/d", None, 1),
    "resting_heart_rate": ("LOINC//40443-4", "{beats}/min", None, 1),
}
_DAILY = ("daily_steps", "resting_heart_rate")
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
_EARLIER_DRUG = ("ATC//L01XA02", 450.0, "mg")
_CYCLE_DAYS, _MOST_CYCLES = 21, 4
# mCODE's value set for disease status, as the words of RECIST.
_STATUS = {"CR": "260415000", "PR": "268910001", "SD": "359746009", "PD": "271299001", "NE": "709137006"}
_FIRST_SCAN_DAYS = 63
_SCALES = {"fatigue": "FA", "quality_of_life": "QL2"}
_LAB_UNITS = {
    "albumin": "g/dL", "haemoglobin": "g/dL", "neutrophils": "10*9/L", "lymphocytes": "10*9/L",
    "platelets": "10*9/L", "ldh": "U/L", "crp": "mg/L",
}  # fmt: skip
# Days from the decision; the draw before the decision has the value of the cohort, the others are noise around it.
_DRAWS = (-42, -21, -2, 19, 40)
_LAST_DRAW = -2


def export_fhir(truth: Truth, folder: Path, *, seed: int = 7) -> None:
    """Write `fhir/*.ndjson`, one file a resource type, and `labs.csv` into `folder`.

    The last value of each quantity before the decision is the cohort's; laboratory values have a course before and
    after it. What lies after the decision is there as it would be in a hospital: later cycles, disease status at the
    scans, death, later laboratory values. Instants carry the offset of `TIMEZONE`; days without a clock time are
    written as days. The same truth and seed give the same files, byte for byte.
    """
    (folder / "fhir").mkdir(parents=True, exist_ok=True)
    rows = list(
        zip(*(part.to_dict("records") for part in (truth.decisions, truth.values, truth.outcomes)), strict=True)
    )
    makers = (_patients, _conditions, _observations, _administrations, _responses)
    for name, maker in zip(RESOURCES, makers, strict=True):
        with (folder / "fhir" / f"{name}.ndjson").open("w", encoding="utf-8", newline="\n") as stream:
            for decision, values, outcomes in rows:
                for resource in maker(decision, values, outcomes):
                    stream.write(json.dumps(resource, separators=(",", ":"), ensure_ascii=False) + "\n")
    labs = lab_results(truth, np.random.default_rng(seed))
    labs.to_csv(folder / "labs.csv", index=False, lineterminator="\n")


def lab_results(truth: Truth, rng: np.random.Generator) -> pd.DataFrame:
    """Return the laboratory's export: patient, hospital, test, result, unit, collected, reported; in no order."""
    parts = []
    for name, test in LABS.items():
        numbers = truth.values[name].to_numpy(dtype=np.float64)
        site = truth.decisions["site"].to_numpy()
        times = np.where(site == TIMES_TEN.get(name), 10.0, 1.0)
        units = np.where(times > 1, "g/L", _LAB_UNITS[name])
        for draw in _DRAWS:
            noise = np.exp(0.12 * rng.standard_normal(len(numbers)))
            taken = (rng.uniform(size=len(numbers)) < 0.75) | (draw == _LAST_DRAW)
            decimals = QUANTITIES[name].decimals
            measured = numbers if draw == _LAST_DRAW else np.round(numbers * noise, decimals)
            shown = pd.Series(np.round(measured * times, decimals + 1)).astype(object)
            minutes = rng.integers(0, 120, size=len(numbers))
            collected = truth.decisions["index_time"] + pd.to_timedelta(draw * 1440 + 420 + minutes, unit="min")
            part = pd.DataFrame(
                {
                    "patient": truth.decisions["subject_id"],
                    "hospital": site,
                    "test": test,
                    "result": shown.where(~np.isnan(numbers), NOT_KNOWN.get(name, "")),
                    "unit": units,
                    "collected": collected.dt.strftime("%Y-%m-%d %H:%M"),
                    "reported": (collected + pd.Timedelta(hours=3)).dt.strftime("%Y-%m-%d %H:%M"),
                }
            )
            parts.append(part[taken])
    results = pd.concat(parts, ignore_index=True)
    return results.iloc[rng.permutation(len(results))].reset_index(drop=True)


def _patients(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
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


def _conditions(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    snomed, icd = _DIAGNOSES[values["cancer_type"]]
    code = {"coding": [*_concept(snomed)["coding"], *_concept(icd)["coding"]], "text": values["cancer_type"]}
    yield _resource(decision, "Condition", "diagnosis", "primary-cancer-condition") | {
        "clinicalStatus": _status("condition-clinical", "active"),
        "verificationStatus": _status("condition-ver-status", "confirmed"),
        "code": code,
        "onsetDateTime": _day(decision, -60).isoformat()[:7],
        "recordedDate": _day(decision, -30).isoformat(),
    }


def _observations(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    for name, (code, unit, profile, days) in _QUANTITIES.items():
        if not np.isnan(values[name]):
            quantity = {"value": values[name], "unit": unit, "system": _UCUM, "code": unit}
            timed = _whole_day(decision, -days) if name in _DAILY else _reported(decision, -days)
            yield _observation(decision, name, code, profile) | timed | {"valueQuantity": quantity}
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
    yield from _disease_status(decision, outcomes)


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


def _disease_status(decision: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the best response at the first scan, and the progression, unless the patient died without one."""
    until = round(outcomes["pfs_months"] * _DAYS_PER_MONTH)
    seen = [("response", min(_FIRST_SCAN_DAYS, until), outcomes["recist"])] if outcomes["recist"] != "PD" else []
    died = outcomes["os_event"] == 1 and outcomes["os_months"] <= outcomes["pfs_months"]
    if outcomes["pfs_event"] == 1 and not died:
        seen.append(("progression", until, "PD"))
    for name, days, status in seen:
        yield _observation(decision, name, "LOINC//97509-4", "cancer-disease-status") | {
            "effectiveDateTime": _day(decision, days).isoformat(),
            "valueCodeableConcept": _concept(f"SNOMED//{_STATUS[status]}"),
        }


def _administrations(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    """Yield the cycles of this line up to progression, and one dose of each earlier treatment."""
    until = outcomes["pfs_months"] * _DAYS_PER_MONTH
    for cycle in range(_MOST_CYCLES):
        days = cycle * _CYCLE_DAYS
        if cycle == 0 or days < until:
            for number, drug in enumerate(_DRUGS[values["regimen"]]):
                yield _dose(decision, f"cycle{cycle + 1}-{number + 1}", days, drug)
    earlier = max(int(values["line_of_therapy"]) - 1, int(values["systemic_therapy_history"]))
    for number in range(earlier):
        yield _dose(decision, f"earlier{number + 1}", -150 * (number + 1), _EARLIER_DRUG)


def _dose(decision: Any, name: str, days: int, drug: tuple[str, float, str]) -> Resource:
    code, amount, unit = drug
    begin = datetime.combine(_day(decision, days), time(10, 0), _ZONE)
    return _resource(decision, "MedicationAdministration", name, "cancer-related-medication-administration") | {
        "status": "completed",
        "medicationCodeableConcept": _concept(code),
        "effectivePeriod": {"start": begin.isoformat(), "end": (begin + timedelta(minutes=30)).isoformat()},
        "dosage": {"dose": {"value": amount, "unit": unit, "system": _UCUM, "code": unit}},
    }


def _responses(decision: Any, values: Any, outcomes: Any) -> Iterator[Resource]:
    items = [
        {"linkId": link, "answer": [{"valueDecimal": values[name]}]}
        for name, link in _SCALES.items()
        if not np.isnan(values[name])
    ]
    if items:
        yield _resource(decision, "QuestionnaireResponse", "questionnaire", None) | {
            "questionnaire": f"{QUESTIONNAIRE}|3.0",
            "status": "completed",
            "authored": datetime.combine(_day(decision, -2), time(9, 15), _ZONE).isoformat(),
            "item": items,
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


def _whole_day(decision: Any, days: int) -> Resource:
    day = _day(decision, days).isoformat()
    return {"effectivePeriod": {"start": day, "end": day}}


def _concept(code: str) -> Resource:
    system, _, own = code.partition("//")
    return {"coding": [{"system": _SYSTEMS[system], "code": own}]}


def _status(system: str, code: str) -> Resource:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}


def _day(decision: Any, days: int) -> date:
    moment: pd.Timestamp = decision["index_time"]
    return moment.date() + timedelta(days=days)


def _after(decision: Any, months: float) -> date:
    return _day(decision, round(months * _DAYS_PER_MONTH))
