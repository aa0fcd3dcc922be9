"""What each FHIR R4 resource says as events: one function per resource type, found by its name in `ROWS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple, TypeVar

from theracast_data.events.readers.fhir_values import (
    Moment,
    UnreadableError,
    Value,
    concept_code,
    read_birth,
    read_moment,
    read_quantity,
    read_value,
    reference_id,
)
from theracast_data.events.readers.variant_terms import short_protein

Resource = Mapping[str, Any]
Optional = TypeVar("Optional", Value, Value | None)

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
STAGE = "FHIR//Condition.stage"
_GENDERS = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_NOT_DONE = ("entered-in-error", "not-done", "cancelled")
_NEGATED = ("refuted", "entered-in-error")

# LOINC codes of the parts of a genomic variant (HL7 Genomics Reporting, on which mCODE's GenomicVariant rests).
VARIANT = "LOINC//69548-6"
_GENE, _PROTEIN_CHANGE, _DNA_CHANGE, _ALLELE_FRACTION = "48018-6", "48005-3", "48004-6", "81258-6"
_ABSENT = ("LA9634-2",)  # answer of VARIANT: absent


class Row(NamedTuple):
    """One event of a patient, in the order of the event schema."""

    subject_id: str
    time: datetime | None
    code: str
    numeric_value: float | None
    text_value: str | None
    unit: str | None
    available_time: datetime | None


@dataclass
class Context:
    """What is needed beside a resource to understand it.

    Attributes:
        zone: clock of the events.
        preferred: code systems, the one wanted first.
        systems: names of further code systems, by address.
        medications: id or address of a Medication to its code.
        patients: address of a Patient in a bundle to its id.
        refuse: counts a part of a resource that was not understood: (resource type, reason).
    """

    refuse: Callable[[str, str], None]
    zone: tzinfo = UTC
    preferred: Sequence[str] = ()
    systems: Mapping[str, str] = field(default_factory=dict)
    medications: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)

    def code(self, concept: object) -> str:
        """Return SYSTEM//CODE; a concept that says nothing is refused."""
        found = concept_code(concept, preferred=self.preferred, extra=self.systems)
        if found is None:
            raise UnreadableError("no code")
        return found

    def moment(self, text: object) -> Moment:
        """Return when it was, on the clock of the events."""
        return read_moment(text, zone=self.zone)

    def subject(self, resource: Resource) -> str:
        """Return the patient's id."""
        reference = resource.get("subject") or resource.get("patient")
        found = reference_id(reference, "Patient")
        found = self.patients.get(found, found) if found else None
        if found is None or found.startswith(("urn:", "#")):
            raise UnreadableError(
                "no reference to a patient" if found is None else "patient of the reference is not here"
            )
        return found

    def value(self, holder: Resource) -> Value | None:
        """Return `value[x]`; one beyond a limit of detection is counted, and kept as text."""
        return self.counted(read_value(holder, preferred=self.preferred, extra=self.systems))

    def dose(self, quantity: object) -> Value:
        """Return the dose; an empty value where none is said."""
        said = isinstance(quantity, dict) and quantity.get("value") is not None
        return self.counted(read_quantity(quantity)) if isinstance(quantity, dict) and said else Value()

    def counted(self, value: Optional) -> Optional:
        """Return the value as it is, with a count where no number is right for it."""
        if value is not None and value.beyond:
            self.refuse("Quantity", "value beyond a limit, kept as text")
        return value


def patient_rows(patient: Resource, context: Context) -> Iterator[Row]:
    """Yield birth, gender and organisation (true at all times), and death."""
    subject = patient.get("id")
    if not isinstance(subject, str) or not subject:
        raise UnreadableError("no id")
    if patient.get("birthDate"):
        yield Row(subject, read_birth(patient["birthDate"]), BIRTH, None, None, None, None)
    else:
        context.refuse("Patient", "no birthDate")
    gender = patient.get("gender")
    if gender in _GENDERS:
        yield Row(subject, None, f"Gender//{_GENDERS[gender]}", None, _GENDERS[gender], None, None)
    else:
        context.refuse("Patient", "no gender" if gender is None else "gender is not understood")
    organisation = reference_id(patient.get("managingOrganization"), "Organization")
    if organisation is not None:
        yield Row(subject, None, f"Organization//{organisation}", None, organisation, None, None)
    if patient.get("deceasedDateTime"):
        death = context.moment(patient["deceasedDateTime"])
        yield Row(subject, death.first, DEATH, None, None, None, _available(death))
    elif patient.get("deceasedBoolean"):
        context.refuse("Patient", "died, without a date")


def observation_rows(observation: Resource, context: Context) -> Iterator[Row]:
    """Yield the value of an observation and of each of its components; of a genomic variant one event by its gene."""
    _check_status(observation)
    subject = context.subject(observation)
    time, available = _when(observation, context, "effective", "issued", whole=True)
    code = context.code(observation.get("code"))
    components = observation.get("component") or ()
    if code == VARIANT and components:
        yield _variant(observation, components, context, Row(subject, time, code, None, None, None, available))
        return
    value = context.value(observation)
    if value is not None:
        yield Row(subject, time, code, value.number, value.text, value.unit, available)
    elif not components and not observation.get("hasMember"):
        context.refuse("Observation", _no_value(observation))
    for component in components:
        try:
            part = context.value(component)
            if part is None:
                context.refuse("Observation.component", _no_value(component))
                continue
            yield Row(subject, time, context.code(component.get("code")), part.number, part.text, part.unit, available)
        except UnreadableError as reason:
            context.refuse("Observation.component", str(reason))


def _no_value(holder: Resource) -> str:
    return "no value, with a reason (dataAbsentReason)" if holder.get("dataAbsentReason") else "no value"


def _variant(observation: Resource, components: Sequence[Resource], context: Context, row: Row) -> Row:
    """Return the variant as HGNC//SYMBOL with the allele fraction (0 to 1) as number and the change as text."""
    parts: dict[str, Resource] = {}
    for component in components:
        code = context.code(component.get("code"))
        parts.setdefault(code.removeprefix("LOINC//"), component)
    answer = context.value(observation)
    if answer is not None and answer.text is not None and answer.text.split("//")[-1] in _ABSENT:
        raise UnreadableError("variant is absent")
    gene = _display(parts.get(_GENE, {}).get("valueCodeableConcept"))
    if gene is None:
        raise UnreadableError("variant without a gene (component LOINC 48018-6)")
    protein, coding = (
        _display(parts.get(key, {}).get("valueCodeableConcept")) for key in (_PROTEIN_CHANGE, _DNA_CHANGE)
    )
    change = short_protein(protein) or coding
    fraction = context.value(parts[_ALLELE_FRACTION]) if _ALLELE_FRACTION in parts else None
    if fraction is None or fraction.number is None:
        return row._replace(code=f"HGNC//{gene}", text_value=change)
    share = fraction.number / 100 if fraction.unit == "%" else fraction.number
    return row._replace(code=f"HGNC//{gene}", numeric_value=share, text_value=change, unit="1")


def _display(concept: object) -> str | None:
    """Return the symbol of a gene or the HGVS text of a change, which stand in the display, the text or the code."""
    if not isinstance(concept, Mapping):
        return None
    codings = concept.get("coding") or ()
    written = [*(coding.get("display") for coding in codings), concept.get("text")]
    written += [coding.get("code") for coding in codings]
    return next((text.strip() for text in written if isinstance(text, str) and text.strip()), None)


def condition_rows(condition: Resource, context: Context) -> Iterator[Row]:
    """Yield the diagnosis at its onset, known from the day it was recorded, and its stages."""
    verification = _status_codes(condition.get("verificationStatus"))
    if wrong := next((status for status in _NEGATED if status in verification), None):
        raise UnreadableError(f"verificationStatus {wrong}")
    subject, code = context.subject(condition), context.code(condition.get("code"))
    time, available = _when(condition, context, "onset", "recordedDate")
    yield Row(subject, time, code, None, None, None, available)
    for stage in condition.get("stage") or ():
        if stage.get("summary"):
            kind = concept_code(stage.get("type"), preferred=context.preferred, extra=context.systems) or STAGE
            # A stage is set after the onset of the disease: it has the date at which the condition was recorded.
            staged = context.moment(condition["recordedDate"]).first if condition.get("recordedDate") else time
            yield Row(subject, staged, kind, None, context.code(stage["summary"]), None, available)


def _status_codes(concept: object) -> set[str]:
    """Return the bare codes of a status."""
    codings = concept.get("coding") or () if isinstance(concept, Mapping) else ()
    return {str(coding.get("code")) for coding in codings}


def administration_rows(administration: Resource, context: Context) -> Iterator[Row]:
    """Yield the drug at the start of its administration, with its dose."""
    _check_status(administration)
    value = context.dose((administration.get("dosage") or {}).get("dose"))
    subject, code = context.subject(administration), _medication(administration, context)
    time, available = _when(administration, context, "effective", None)
    yield Row(subject, time, code, value.number, "administered", value.unit, available)


def request_rows(request: Resource, context: Context) -> Iterator[Row]:
    """Yield the drug when it was ordered, with its first dose; an order not to give it is refused."""
    _check_status(request, also=("draft",))
    if request.get("doNotPerform"):
        raise UnreadableError("doNotPerform")
    value = context.dose(_first_dose(request.get("dosageInstruction")))
    moment = context.moment(_needed(request, "authoredOn"))
    subject, code = context.subject(request), _medication(request, context)
    yield Row(subject, moment.first, code, value.number, "ordered", value.unit, _available(moment))


def statement_rows(statement: Resource, context: Context) -> Iterator[Row]:
    """Yield the drug from when it was taken, known from when that was stated."""
    _check_status(statement, also=("not-taken", "unknown"))
    value = context.dose(_first_dose(statement.get("dosage")))
    subject, code = context.subject(statement), _medication(statement, context)
    time, available = _when(statement, context, "effective", "dateAsserted")
    yield Row(subject, time, code, value.number, "stated", value.unit, available)


def _medication(resource: Resource, context: Context) -> str:
    if resource.get("medicationCodeableConcept"):
        return context.code(resource["medicationCodeableConcept"])
    target = reference_id(resource.get("medicationReference"), "Medication")
    if target is not None and target.startswith("#"):
        for contained in resource.get("contained") or ():
            if contained.get("id") == target[1:]:
                return context.code(contained.get("code"))
    if target is None or target not in context.medications:
        raise UnreadableError("no medication" if target is None else "medication of the reference is not here")
    return context.medications[target]


def _first_dose(dosages: object) -> object:
    for dosage in dosages if isinstance(dosages, list) else ():
        for rate in dosage.get("doseAndRate") or ():
            if rate.get("doseQuantity"):
                return rate["doseQuantity"]
    return None


def procedure_rows(procedure: Resource, context: Context) -> Iterator[Row]:
    """Yield the procedure when it began."""
    _check_status(procedure, also=("preparation",))
    subject, code = context.subject(procedure), context.code(procedure.get("code"))
    time, available = _when(procedure, context, "performed", None)
    yield Row(subject, time, code, None, None, None, available)


def report_rows(report: Resource, context: Context) -> Iterator[Row]:
    """Yield each coded conclusion as text of the report's code; the report alone where nothing was concluded in codes."""
    _check_status(report)
    subject, code = context.subject(report), context.code(report.get("code"))
    time, available = _when(report, context, "effective", "issued", whole=True)
    conclusions: list[str | None] = [context.code(one) for one in report.get("conclusionCode") or ()]
    for conclusion in conclusions or [None]:
        yield Row(subject, time, code, None, conclusion, None, available)


def response_rows(response: Resource, context: Context) -> Iterator[Row]:
    """Yield each answer as QUESTIONNAIRE//linkId; the questionnaire is the last part of its address, without version."""
    status = response.get("status")
    if status in ("entered-in-error", "in-progress"):
        raise UnreadableError(f"status {status}")
    subject = context.subject(response)
    moment = context.moment(_needed(response, "authored"))
    written = response.get("questionnaire")
    canonical = written.split("|", maxsplit=1)[0].rstrip("/") if isinstance(written, str) else ""
    name = canonical.rsplit("/", 1)[-1].rsplit(":", 1)[-1] or "questionnaire"
    for item in _items(response):
        link = item.get("linkId")
        for answer in item.get("answer") or ():
            try:
                value = context.value(answer)
            except UnreadableError as reason:
                context.refuse("QuestionnaireResponse.item", str(reason))
                continue
            if value is None or not isinstance(link, str):
                context.refuse("QuestionnaireResponse.item", "no linkId" if value else "answer without a value")
                continue
            row = (subject, moment.first, f"{name}//{link}", value.number, value.text, value.unit, _available(moment))
            yield Row(*row)


def _items(holder: Resource) -> Iterator[Resource]:
    """Yield the items of a questionnaire, those in groups and below answers too."""
    for item in holder.get("item") or ():
        yield item
        yield from _items(item)
        for answer in item.get("answer") or ():
            yield from _items(answer)


def medication_code(medication: Resource, context: Context) -> str:
    """Return the code of a Medication that others refer to."""
    return context.code(medication.get("code"))


def _check_status(resource: Resource, *, also: Sequence[str] = ()) -> None:
    status = resource.get("status")
    if status in _NOT_DONE or status in also:
        raise UnreadableError(f"status {status}")


def _needed(resource: Resource, key: str) -> object:
    if not resource.get(key):
        raise UnreadableError(f"no {key}")
    return resource[key]


def _when(
    resource: Resource, context: Context, happened: str, known: str | None, *, whole: bool = False
) -> tuple[datetime, datetime | None]:
    """Return when it happened (`effectiveDateTime`, start of `effectivePeriod`, ...) and when it was known.

    Where the moment of knowing is not said, it is the end of the day, month or year in which it began, or the end of the
    period where the `whole` of it must be over, as for a 24-hour urine; where only that moment is said, it happened then.
    """
    stated = context.moment(resource[known]) if known and resource.get(known) else None
    period = resource.get(f"{happened}Period") or {}
    begin = resource.get(f"{happened}DateTime") or resource.get(f"{happened}Instant") or period.get("start")
    moment = context.moment(begin) if begin else stated
    if moment is None:
        raise UnreadableError(f"no {happened} date")
    if stated is not None:
        return moment.first, stated.last if (stated.last != moment.first) else None
    ended = context.moment(period["end"]) if whole and period.get("end") else moment
    return moment.first, _available(Moment(moment.first, max(ended.last, moment.last)))


def _available(moment: Moment) -> datetime | None:
    """Return when something became known; None at the time itself, as where its clock time is known."""
    return None if moment.exact else moment.last


ROWS: dict[str, Callable[[Resource, Context], Iterator[Row]]] = {
    "Patient": patient_rows,
    "Observation": observation_rows,
    "Condition": condition_rows,
    "MedicationAdministration": administration_rows,
    "MedicationRequest": request_rows,
    "MedicationStatement": statement_rows,
    "Procedure": procedure_rows,
    "DiagnosticReport": report_rows,
    "QuestionnaireResponse": response_rows,
}
