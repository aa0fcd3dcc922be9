"""FHIR R4 as events: what each resource says, and that a fault is told with its place and stops nothing."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_data.errors import SchemaError
from theracast_data.events.readers.fhir import SAMPLE_EVERY, SAMPLE_FIRST, FhirOptions, fhir_events, read_fhir
from theracast_data.events.readers.fhir_values import UnreadableError, read_birth, read_moment
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA, empty_events

LAST = timedelta(days=1) - timedelta(microseconds=1)
SUBJECT = {"subject": {"reference": "Patient/p1"}}
LOINC, SNOMED, ATC = "http://loinc.org", "http://snomed.info/sct", "http://www.whocc.no/atc"


def concept(system: str, code: str, **more: Any) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, **more}]}


def quantity(value: float, code: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "system": "http://unitsofmeasure.org", "code": code, **more}


def observation(code: str, **more: Any) -> dict[str, Any]:
    timed = {"effectiveDateTime": "2024-03-05T08:00:00Z"}
    return {"resourceType": "Observation", "status": "final", "code": concept(LOINC, code), **SUBJECT, **timed, **more}


def events_of(*resources: Mapping[str, Any], **options: Any) -> tuple[list[tuple[Any, ...]], IngestReport]:
    """Return (time, code, number, text, unit, available) of patient p1, and the report."""
    report = IngestReport("fhir")
    chosen = FhirOptions(path="x", **{"validation": "all", **options})
    events = fhir_events(resources, options=chosen, report=report)
    assert events.schema == EVENT_SCHEMA
    assert set(events["subject_id"].to_pylist()) <= {"p1"}
    assert report.written == events.num_rows
    return [tuple(row.values())[1:] for row in events.to_pylist()], report


def only(resource: Mapping[str, Any], **options: Any) -> tuple[Any, ...]:
    rows, report = events_of(resource, **options)
    assert not report.refused, report.to_text()
    assert len(rows) == 1
    return rows[0]


def reasons(*resources: Mapping[str, Any], **options: Any) -> dict[tuple[str, str], int]:
    rows, report = events_of(*resources, **options)
    assert not rows
    return dict(report.refused)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


AT_EIGHT = at("2024-03-05 08:00")


@pytest.mark.parametrize(
    ("written", "first", "last"),
    [
        ("2024", "2024-01-01", "2024-12-31 23:59:59.999999"),
        ("2024-02", "2024-02-01", "2024-02-29 23:59:59.999999"),
        ("2024-12", "2024-12-01", "2024-12-31 23:59:59.999999"),
        ("2024-02-29", "2024-02-29", "2024-02-29 23:59:59.999999"),
        ("2024-02-29T10:11:12Z", "2024-02-29 10:11:12", "2024-02-29 10:11:12"),
        ("2024-02-29T10:11:12.5+02:00", "2024-02-29 08:11:12.5", "2024-02-29 08:11:12.5"),
        ("2024-02-29T10:11:12", "2024-02-29 10:11:12", "2024-02-29 10:11:12"),
    ],
)
def test_a_date_is_as_precise_as_it_was_written(written: str, first: str, last: str) -> None:
    moment = read_moment(written)
    assert (moment.first, moment.last) == (at(first), at(last))


@pytest.mark.parametrize(
    "wrong", ["", "05.03.2024", "2024-13", "2024-02-30", "20240305", "2024-W01-1", "9999T", 2024, None]
)
def test_what_is_no_date_is_refused(wrong: object) -> None:
    with pytest.raises(UnreadableError, match="date is not understood"):
        read_moment(wrong)


@given(st.datetimes(at("1950-01-01"), at("2090-01-01")), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))
def test_instants_are_turned_to_the_clock_asked_for(moment: datetime, zone: str) -> None:
    """Whatever offset it was written with."""
    instant = moment.replace(tzinfo=UTC)
    there = instant.astimezone(ZoneInfo("Asia/Tokyo")).isoformat()
    expected = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    assert read_moment(there, zone=ZoneInfo(zone)).first == expected


@pytest.mark.parametrize(
    ("written", "birth"), [("1960", "1960-07-01"), ("1960-02", "1960-02-15"), ("1960-02-03", "1960-02-03")]
)
def test_a_birth_of_which_only_year_or_month_is_known_lies_in_its_middle(written: str, birth: str) -> None:
    assert read_birth(written) == at(birth)


def test_patient() -> None:
    """Birth and death are dated, gender and organisation are true at all times."""
    patient = {
        "resourceType": "Patient", "id": "p1", "birthDate": "1950-04-12", "gender": "female",
        "deceasedDateTime": "2024-05-06", "managingOrganization": {"reference": "Organization/north"},
    }  # fmt: skip
    rows, report = events_of(patient)
    assert rows == [
        (at("1950-04-12"), "MEDS_BIRTH", None, None, None, None),
        (None, "Gender//F", None, "F", None, None),
        (None, "Organization//north", None, "north", None, None),
        (at("2024-05-06"), "MEDS_DEATH", None, None, None, at("2024-05-06") + LAST),
    ]
    assert not report.refused
    assert reasons({"resourceType": "Patient", "id": "p1", "deceasedBoolean": True}) == {
        ("Patient", "no birthDate"): 1,
        ("Patient", "no gender"): 1,
        ("Patient", "died, without a date"): 1,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"valueQuantity": quantity(4.1, "g/dL", unit="gram per dl")}, (4.1, None, "g/dL")),
        ({"valueQuantity": {"value": 5, "unit": "Units"}}, (5.0, None, "Units")),
        ({"valueInteger": 2}, (2.0, None, None)),
        ({"valueBoolean": True}, (1.0, None, None)),
        ({"valueString": "turbid"}, (None, "turbid", None)),
        ({"valueCodeableConcept": concept(SNOMED, "260385009")}, (None, "SNOMED//260385009", None)),
        ({"valueCodeableConcept": {"text": "not seen"}}, (None, "not seen", None)),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, (1 / 128, None, None)),
    ],
)
def test_values_of_an_observation(value: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert only(observation("1751-7", **value)) == (AT_EIGHT, "LOINC//1751-7", *expected, None)


def test_a_value_beyond_a_limit_stays_text_and_is_counted() -> None:
    """As in the reader of long tables: no number is right for it."""
    rows, report = events_of(observation("1988-5", valueQuantity=quantity(0.3, "mg/L", comparator="<")))
    assert rows == [(AT_EIGHT, "LOINC//1988-5", None, "<0.3", "mg/L", None)]
    assert dict(report.refused) == {("Quantity", "value beyond a limit, kept as text"): 1}


def test_time_and_availability_of_an_observation() -> None:
    """Issued is when it was known; a day is known at its end; a period when it is over."""
    value = {"valueInteger": 1}
    issued = only(observation("1-8", issued="2024-03-07T10:00:00+01:00", **value))
    assert (issued[0], issued[-1]) == (AT_EIGHT, at("2024-03-07 09:00"))
    day = only(observation("1-8", effectiveDateTime="2024-03-05", **value))
    assert (day[0], day[-1]) == (at("2024-03-05"), at("2024-03-05") + LAST)
    period = observation(
        "1-8", effectivePeriod={"start": "2024-03-05T08:00:00Z", "end": "2024-03-06T08:00:00Z"}, **value
    )
    del period["effectiveDateTime"]
    assert only(period)[::5] == (AT_EIGHT, at("2024-03-06 08:00"))
    bare = observation("1-8", issued="2024-03-07T10:00:00Z", **value)
    del bare["effectiveDateTime"]
    assert only(bare)[::5] == (at("2024-03-07 10:00"), None)
    del bare["issued"]
    assert reasons(bare) == {("Observation", "no effective date"): 1}


def test_components_each_give_an_event_and_a_missing_one_is_told() -> None:
    rows, report = events_of(
        observation(
            "85354-9",
            component=[
                {"code": concept(LOINC, "8480-6"), "valueQuantity": quantity(120, "mm[Hg]")},
                {"code": concept(LOINC, "8462-4"), "dataAbsentReason": concept("http://x/absent", "unknown")},
            ],
        )
    )
    assert rows == [(AT_EIGHT, "LOINC//8480-6", 120.0, None, "mm[Hg]", None)]
    assert dict(report.refused) == {("Observation.component", "no value, with a reason (dataAbsentReason)"): 1}


def test_a_genomic_variant_is_one_event_of_its_gene() -> None:
    gene = concept("http://www.genenames.org/geneId", "HGNC:6407", display="KRAS")
    variant = observation(
        "69548-6",
        valueCodeableConcept=concept(LOINC, "LA9633-4"),
        component=[
            {"code": concept(LOINC, "48018-6"), "valueCodeableConcept": gene},
            {
                "code": concept(LOINC, "48005-3"),
                "valueCodeableConcept": concept("http://varnomen.hgvs.org", "p.Gly12Cys"),
            },
            {"code": concept(LOINC, "81258-6"), "valueQuantity": quantity(23, "%")},
        ],
    )
    assert only(variant) == (AT_EIGHT, "HGNC//KRAS", 0.23, "p.G12C", "1", None)
    absent = variant | {"valueCodeableConcept": concept(LOINC, "LA9634-2")}
    assert reasons(absent) == {("Observation", "variant is absent"): 1}


def test_condition_with_its_stage_is_known_when_it_was_recorded() -> None:
    condition = {
        "resourceType": "Condition", "code": concept(SNOMED, "254637007"), **SUBJECT,
        "onsetDateTime": "2023-12", "recordedDate": "2024-01-10",
        "stage": [{"summary": concept("http://cancerstaging.org", "IV"), "type": concept(SNOMED, "260998006")}],
    }  # fmt: skip
    known = at("2024-01-10") + LAST
    rows, _ = events_of(condition)
    assert rows == [
        (at("2023-12-01"), "SNOMED//254637007", None, None, None, known),
        (at("2024-01-10"), "SNOMED//260998006", None, "AJCC//IV", None, known),
    ]
    status = {"verificationStatus": concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "refuted")}
    assert reasons(condition | status) == {("Condition", "verificationStatus refuted"): 1}


def test_drugs_say_whether_they_were_given_ordered_or_stated() -> None:
    drug = {"medicationCodeableConcept": concept(ATC, "L01FF02"), **SUBJECT}
    given = drug | {
        "resourceType": "MedicationAdministration", "status": "completed", "dosage": {"dose": quantity(200, "mg")},
        "effectivePeriod": {"start": "2024-03-05T08:00:00Z", "end": "2024-03-05T08:30:00Z"},
    }  # fmt: skip
    dose = [{"doseAndRate": [{"doseQuantity": quantity(200, "mg")}]}]
    ordered = drug | {
        "resourceType": "MedicationRequest", "status": "active", "intent": "order", "authoredOn": "2024-03-04",
        "dosageInstruction": dose,
    }  # fmt: skip
    stated = drug | {
        "resourceType": "MedicationStatement", "status": "active", "effectiveDateTime": "2024", "dosage": dose,
        "dateAsserted": "2024-03-05T08:00:00Z",
    }  # fmt: skip
    code = "ATC//L01FF02"
    assert only(given) == (AT_EIGHT, code, 200.0, "administered", "mg", None)
    assert only(ordered) == (at("2024-03-04"), code, 200.0, "ordered", "mg", at("2024-03-04") + LAST)
    assert only(stated) == (at("2024-01-01"), code, 200.0, "stated", "mg", AT_EIGHT)
    assert reasons(given | {"status": "not-done"}) == {("MedicationAdministration", "status not-done"): 1}
    assert reasons(ordered | {"doNotPerform": True}) == {("MedicationRequest", "doNotPerform"): 1}
    assert reasons(stated | {"status": "not-taken"}) == {("MedicationStatement", "status not-taken"): 1}


def test_medications_are_found_by_reference(tmp_path: Path) -> None:
    """In the resource, in the bundle, in a file of their own; else it is told."""
    given = {
        "resourceType": "MedicationAdministration", "status": "completed", **SUBJECT, "effectiveDateTime": "2024-03-05",
    }  # fmt: skip
    medication = {"resourceType": "Medication", "id": "m1", "code": concept(ATC, "L01FF02")}
    inside = given | {"contained": [medication], "medicationReference": {"reference": "#m1"}}
    assert only(inside)[1] == "ATC//L01FF02"
    apart = given | {"medicationReference": {"reference": "urn:uuid:7"}}
    entries = [{"fullUrl": "urn:uuid:6", "resource": apart}, {"fullUrl": "urn:uuid:7", "resource": medication}]
    assert only({"resourceType": "Bundle", "type": "collection", "entry": entries})[1] == "ATC//L01FF02"
    assert reasons(apart) == {("MedicationAdministration", "medication of the reference is not here"): 1}
    named = given | {"medicationReference": {"reference": "Medication/m1"}}
    write(tmp_path / "A.ndjson", named)
    write(tmp_path / "Medication.ndjson", medication)
    events, report = read(tmp_path)
    assert events["code"].to_pylist() == ["ATC//L01FF02"]
    assert (report.read, dict(report.refused)) == (2, {})


def test_procedure_and_diagnostic_report() -> None:
    procedure = {"resourceType": "Procedure", "status": "completed", "code": concept(SNOMED, "387713003"), **SUBJECT}
    when = {"performedPeriod": {"start": "2024-03-05T08:00:00Z", "end": "2024-03-06"}}
    assert only(procedure | when) == (AT_EIGHT, "SNOMED//387713003", None, None, None, None)
    assert reasons(procedure) == {("Procedure", "no performed date"): 1}
    scan = {
        "resourceType": "DiagnosticReport", "status": "final", "code": concept(LOINC, "24627-2"), **SUBJECT,
        "effectiveDateTime": "2024-03-05T08:00:00Z", "issued": "2024-03-06T08:00:00Z",
    }  # fmt: skip
    known = at("2024-03-06 08:00")
    seen = scan | {"conclusionCode": [concept(SNOMED, "271299001"), concept(SNOMED, "359746009")]}
    rows, _ = events_of(seen, scan)
    assert [row[3] for row in rows] == ["SNOMED//271299001", "SNOMED//359746009", None]
    assert {(row[0], row[1], row[-1]) for row in rows} == {(AT_EIGHT, "LOINC//24627-2", known)}


def test_questionnaire_with_groups_choices_and_ordinals() -> None:
    scored = {
        "code": "2", "display": "quite a bit",
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/ordinalValue", "valueDecimal": 3}],
    }  # fmt: skip
    response = {
        "resourceType": "QuestionnaireResponse", "status": "completed", "authored": "2024-03-05T08:00:00Z", **SUBJECT,
        "questionnaire": "http://example.org/Questionnaire/QLQ-C30|3.0",
        "item": [
            {"linkId": "group", "item": [{"linkId": "q1", "answer": [{"valueInteger": 4}]}]},
            {"linkId": "q2", "answer": [{"valueCoding": scored, "item": [{"linkId": "q2a", "answer": [{"valueString": "x"}]}]}]},
            {"linkId": "q3"},
        ],
    }  # fmt: skip
    rows, report = events_of(response)
    assert rows == [
        (AT_EIGHT, "QLQ-C30//q1", 4.0, None, None, None),
        (AT_EIGHT, "QLQ-C30//q2", 3.0, "local//2", None, None),
        (AT_EIGHT, "QLQ-C30//q2a", None, "x", None, None),
    ]
    assert not report.refused
    assert reasons(response | {"status": "in-progress"}) == {("QuestionnaireResponse", "status in-progress"): 1}


def test_codes_the_preferred_system_wins_and_own_systems_have_names() -> None:
    own = {"system": "http://hospital.example/codes/lab", "code": "ALB", "userSelected": True}
    several = {"coding": [own, {"system": LOINC, "code": "1751-7"}]}
    value = {"valueInteger": 1}
    assert only(observation("x", **value) | {"code": several})[1] == "LOINC//1751-7"
    assert only(observation("x", **value) | {"code": several}, preferred_systems=())[1] == "lab//ALB"
    alone = observation("x", **value) | {"code": {"coding": [own]}}
    assert only(alone, systems={"http://hospital.example/codes/lab": "north"})[1] == "north//ALB"
    assert only(observation("x", **value) | {"code": {"text": "Albumin "}})[1] == "text//Albumin"
    assert reasons(observation("x", **value) | {"code": {}}) == {("Observation", "no code"): 1}


def test_a_bundle_whose_patient_has_only_an_address() -> None:
    patient = {"resourceType": "Patient", "gender": "male", "birthDate": "1960"}
    seen = observation("1-8", valueInteger=1) | {"subject": {"reference": "urn:uuid:p1"}}
    entries = [{"fullUrl": "urn:uuid:o", "resource": seen}, {"fullUrl": "urn:uuid:p1", "resource": patient}]
    rows, report = events_of({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert [row[1] for row in rows] == ["LOINC//1-8", "MEDS_BIRTH", "Gender//M"]
    assert not report.refused
    assert reasons(seen) == {("Observation", "patient of the reference is not here"): 1}


def write(path: Path, *resources: object) -> None:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in resources))


def read(path: Path, *, batch_rows: int = 1000, **options: Any) -> tuple[pa.Table, IngestReport]:
    report = IngestReport("fhir")
    batches = read_fhir(path, options=FhirOptions(path=str(path), **options), report=report, batch_rows=batch_rows)
    return pa.concat_tables([empty_events(), *batches]), report


def test_faults_are_told_with_their_place_and_stop_nothing(tmp_path: Path) -> None:
    good = observation("1-8", valueInteger=1)
    write(
        tmp_path / "Observation.ndjson",
        good,
        '{"resourceType": "Observation", ',
        good | {"effectiveDateTime": "05.03.2024"},
        "",
        good | {"status": "entered-in-error"},
        good | {"valueInteger": "high"},
        {"resourceType": "Claim"},
        good | {"code": 17},
        [1],
        good,
    )
    write(tmp_path / "bundle.json", '{"resourceType": "Bundle",', ' "entry": [{"resource": {')
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"resource": good}, {"resource": None}, {"resource": good | {"code": {}}}],
    }
    (tmp_path / "other.json").write_text("\ufeff" + json.dumps(bundle))
    (tmp_path / "packed.ndjson.gz").write_bytes(gzip.compress((json.dumps(good) + "\n").encode() * 500)[:-30])
    (tmp_path / "notes.txt").write_text("")
    events, report = read(tmp_path, validation="none")
    first = report.first
    assert {key: position for key, position in first.items() if key[1] != "damaged"} == {
        ("file", "neither .ndjson nor .json"): "notes.txt",
        ("line", "not JSON"): "Observation.ndjson line 2",
        ("Observation", "date is not understood"): "Observation.ndjson line 3",
        ("Observation", "status entered-in-error"): "Observation.ndjson line 5",
        ("Observation", "value is not a number"): "Observation.ndjson line 6",
        ("Claim", "resource type is not read"): "Observation.ndjson line 7",
        ("Observation", "no code"): "Observation.ndjson line 8",
        ("resource", "no resourceType"): "Observation.ndjson line 9",
        ("Bundle", "not JSON"): "bundle.json line 3 column 0",
    }
    assert report.refused["Observation", "no code"] == 2
    assert report.refused["resource", "no resourceType"] == 2
    assert first["file", "damaged"].startswith("packed.ndjson.gz after line ")
    assert events.num_rows == report.written >= 3
    assert "high" not in report.to_text()
    assert "05.03" not in report.to_text()


def test_validation_of_all_of_a_sample_of_none(tmp_path: Path) -> None:
    """Invalid: refused, noted, not looked at; the value itself is never in the report."""
    wrong = observation("1-8", valueInteger=1, secret="Miller")
    count = SAMPLE_FIRST + 2 * SAMPLE_EVERY
    write(tmp_path / "o.ndjson", *[wrong] * count)
    key = ("Observation", "not valid FHIR R4: secret (extra_forbidden)")
    events, report = read(tmp_path, validation="all")
    assert (events.num_rows, report.refused) == (0, {key: count})
    events, report = read(tmp_path, validation="sample")
    assert (events.num_rows, report.refused) == (count, {key: SAMPLE_FIRST + 2})
    events, report = read(tmp_path, validation="none")
    assert (events.num_rows, report.refused) == (count, {})
    _, report = read(tmp_path, validation="all", resources=("Patient",))
    assert report.refused == {("Observation", "not asked for"): count}


def test_ndjson_under_the_name_json_and_any_batch_size(tmp_path: Path) -> None:
    write(tmp_path / "o.json", *[observation("1-8", valueInteger=number) for number in range(7)])
    whole, report = read(tmp_path / "o.json")
    assert (whole["numeric_value"].to_pylist(), report.read) == ([float(number) for number in range(7)], 7)
    for batch_rows in (1, 3, 7):
        assert read(tmp_path / "o.json", batch_rows=batch_rows)[0] == whole


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="Give an NDJSON file"):
        read(tmp_path / "absent")
    with pytest.raises(SchemaError, match="no FHIR file"):
        read(tmp_path)
    with pytest.raises(ValidationError, match="no such time zone"):
        FhirOptions(path="x", timezone="Mars/Olympus")


WHOLE = observation(
    "85354-9",
    issued="2024-03-06T00:00:00Z",
    valueQuantity=quantity(1, "mg"),
    component=[{"code": concept(LOINC, "8480-6"), "valueCodeableConcept": concept(SNOMED, "1")}],
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["coding", "code", "value"]), inner),
    max_leaves=4,
)


def places(holder: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
    return [found for key, inner in items for found in [(*path, key), *places(inner, (*path, key))]]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(
        ["Patient", "Observation", "Condition", "MedicationAdministration", "MedicationRequest", "MedicationStatement",
         "Procedure", "DiagnosticReport", "QuestionnaireResponse", "Medication", "Bundle"]
    ),
    place=st.sampled_from([one for one in places(WHOLE) if one != ("resourceType",)]),
    junk=JUNK,
)  # fmt: skip
def test_whatever_stands_anywhere_the_rest_is_read(kind: str, place: tuple[Any, ...], junk: Any) -> None:
    """Junk at any place of a resource gives events or a refusal, never an exception."""
    resource = copy.deepcopy(WHOLE) | {"resourceType": kind, "item": WHOLE["component"], "stage": [{"summary": 1}]}
    holder: Any = resource
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = junk
    report = IngestReport("fuzz")
    good = observation("1-8", valueInteger=1)
    events = fhir_events([resource, good], options=FhirOptions(path="x", validation="none"), report=report)
    assert events.column_names == list(COLUMNS)
    assert events["code"].to_pylist()[-1] == "LOINC//1-8"
