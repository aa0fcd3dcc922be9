"""Single values of FHIR R4: dates of any precision, codes with their system, quantities, answers, references."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any

from theracast_data.events.codes import system_name

# Addresses that the vocabularies of `codes` do not list. Source: https://terminology.hl7.org and mCODE STU 4.
_MORE_SYSTEMS = {
    "http://fhir.de/CodeSystem/bfarm/atc": "ATC",
    "http://fhir.de/CodeSystem/bfarm/ops": "OPS",
    "http://www.ncbi.nlm.nih.gov/clinvar": "ClinVar",
    "http://ncithesaurus-stage.nci.nih.gov": "NCIt",
    "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl": "NCIt",
    "http://cancerstaging.org": "AJCC",
}
UCUM = "UCUM"
LOCAL = "local"
_ORDINAL = ("ordinalValue", "itemWeight")  # extensions of a questionnaire's choice that carry its number
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T\d\d:\d\d.*)?)?)?")
_COMPARATORS = ("<", "<=", ">", ">=", "ad")


class UnreadableError(Exception):
    """A value or resource cannot become an event; the message is the reason in the report and names no value."""


@dataclass(frozen=True)
class Moment:
    """A date of FHIR: the first and the last microsecond that it may mean. A precise time has both the same."""

    first: datetime
    last: datetime

    @property
    def exact(self) -> bool:
        """Whether the clock time is known."""
        return self.first == self.last


def read_moment(text: object, *, zone: tzinfo = UTC) -> Moment:
    """Return when something was, as clock time in `zone`; a time without offset is taken to be in it already.

    Raises:
        UnreadableError: it is no FHIR date, dateTime or instant.
    """
    if not isinstance(text, str):
        raise UnreadableError("date is not understood")
    return _moment(text, zone)


@lru_cache(maxsize=65_536)  # an encounter repeats its dates in every resource
def _moment(text: str, zone: tzinfo) -> Moment:
    matched = _DATE.fullmatch(text)
    if matched is None:
        raise UnreadableError("date is not understood")
    try:
        if len(text) > len("2020-01-31"):
            return _instant(text, zone)
        year, month, day = (int(part) if part else 0 for part in matched.groups())
        first = _midnight(year, month or 1, day or 1)
        if day:
            following = first + timedelta(days=1)
        else:
            following = _midnight(year, month + 1, 1) if 0 < month < 12 else _midnight(year + 1, 1, 1)
    except (ValueError, OverflowError) as error:
        raise UnreadableError("date is not understood") from error
    return Moment(first, following - timedelta(microseconds=1))


def _midnight(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day)  # noqa: DTZ001  # events are clock time, without a zone


def _instant(text: str, zone: tzinfo) -> Moment:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is not None:
        instant = instant.astimezone(zone).replace(tzinfo=None)
    return Moment(instant, instant)


def read_birth(text: object) -> datetime:
    """Return the day of birth; of a year alone its middle, of a month alone its 15th, which is nearest on average."""
    born = read_moment(text)
    if born.exact:
        return datetime.combine(born.first.date(), datetime.min.time())
    if born.last - born.first < timedelta(days=1):
        return born.first
    if born.last - born.first < timedelta(days=32):
        return born.first.replace(day=15)
    return _midnight(born.first.year, 7, 1)


@lru_cache(maxsize=4096)
def short_system(system: str) -> str:
    """Return the name of a code system; of an unknown one the last part of its address that says something."""
    plain = system.split("|", maxsplit=1)[0].strip()
    name = _MORE_SYSTEMS.get(plain) or system_name(plain)
    if "/" not in name and ":" not in name:
        return name
    return next((part for part in reversed(re.split(r"[/:#]", plain)) if part), LOCAL)


def coding_code(coding: Mapping[str, Any], extra: Mapping[str, str]) -> str | None:
    """Return SYSTEM//CODE of one coding; without a system `local//CODE`, without a code None."""
    code = coding.get("code")
    if not isinstance(code, str) or not code.strip():
        return None
    system = coding.get("system")
    name = (extra.get(system) or short_system(system)) if isinstance(system, str) and system else LOCAL
    # HGNC codes come as 6407 and as HGNC:6407.
    return f"{name}//{code.strip().removeprefix('HGNC:') if name == 'HGNC' else code.strip()}"


def concept_code(concept: object, *, preferred: Sequence[str], extra: Mapping[str, str]) -> str | None:
    """Return SYSTEM//CODE of a codeable concept.

    Of several codings the first in the order of `preferred` systems, else the one its user selected, else the first;
    of a concept with text alone `text//TEXT`; None if it says nothing.
    """
    if not isinstance(concept, dict):
        return None
    codings = [one for one in concept.get("coding") or () if isinstance(one, dict)]
    if len(codings) == 1 and (only := coding_code(codings[0], extra)):
        return only
    coded = [(code, coding) for coding in codings if (code := coding_code(coding, extra))]
    if not coded:
        text = concept.get("text")
        return f"text//{text.strip()}" if isinstance(text, str) and text.strip() else None
    for name in preferred:
        for code, _ in coded:
            if code.startswith(f"{name}//"):
                return code
    return next((code for code, coding in coded if coding.get("userSelected") is True), coded[0][0])


def read_number(value: object) -> float:
    """Return a finite number.

    Raises:
        UnreadableError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        raise UnreadableError("value is not a number")
    return float(value)


@dataclass(frozen=True)
class Value:
    """What was found: a number, a text or both, with its unit. `beyond`: a limit of detection is all that is known."""

    number: float | None = None
    text: str | None = None
    unit: str | None = None
    beyond: bool = False


def read_quantity(quantity: Mapping[str, Any]) -> Value:
    """Return number and unit: the UCUM code where there is one, else the unit as it was written.

    A value beyond a limit (`<5`) is text, since no number is right for it.

    Raises:
        UnreadableError: it has no number.
    """
    if quantity.get("value") is None:
        raise UnreadableError("quantity without a value")
    comparator = quantity.get("comparator")
    if comparator is not None and comparator not in _COMPARATORS:
        raise UnreadableError("comparator is not understood")
    number = read_number(quantity["value"])
    if comparator is not None:
        return Value(None, f"{comparator}{number:.15g}", _unit(quantity), beyond=True)
    return Value(number, None, _unit(quantity))


def _unit(quantity: Mapping[str, Any]) -> str | None:
    code, system = quantity.get("code"), quantity.get("system")
    if isinstance(code, str) and code and (system is None or short_system(str(system)) == UCUM):
        return code
    written = quantity.get("unit") or code
    return written if isinstance(written, str) else None


def read_value(holder: Mapping[str, Any], *, preferred: Sequence[str], extra: Mapping[str, str]) -> Value | None:
    """Return `value[x]` of an observation, a component or an answer; None if there is none.

    A coded value is SYSTEM//CODE as text, with its number where an ordinal value is attached; a boolean is 1 or 0.

    Raises:
        UnreadableError: the value is of a kind that is no event, or not what its kind demands.
    """
    for kind in holder:  # a loop, as this is the innermost place of the reader
        if kind.startswith("value") and kind[5:6].isupper():
            break
    else:
        return None
    value = holder[kind]
    if value is None:
        return None
    match kind.removeprefix("value"):
        case "Quantity":
            return read_quantity(value)
        case "Integer" | "Decimal":
            return Value(read_number(value))
        case "Boolean" if isinstance(value, bool):
            return Value(float(value))
        case "CodeableConcept":
            code = concept_code(value, preferred=preferred, extra=extra)
            return Value(_ordinal(value), code.removeprefix("text//")) if code else None
        case "Coding":
            chosen = coding_code(value, extra) or value.get("display")
            return Value(_ordinal({"coding": [value]}), str(chosen)) if chosen else None
        case "String" | "DateTime" | "Date" | "Time" | "Uri" | "Text" if isinstance(value, str):
            return Value(text=value)
        case "Ratio":
            return _ratio(value)
        case _:
            raise UnreadableError(f"{kind} cannot be read as a value")


def _ratio(ratio: Mapping[str, Any]) -> Value:
    """Return a titre such as 1:128 as its quotient, without unit unless the parts have one and the same system."""
    upper, lower = (read_quantity(ratio.get(part) or {}) for part in ("numerator", "denominator"))
    if not lower.number or upper.number is None:
        raise UnreadableError("ratio is not of two numbers")
    units = (upper.unit or "1", lower.unit or "1")
    return Value(upper.number / lower.number, None, None if units == ("1", "1") else f"{units[0]}/{units[1]}")


def _ordinal(concept: Mapping[str, Any]) -> float | None:
    for coding in concept.get("coding") or ():
        for extension in coding.get("extension") or ():
            if str(extension.get("url", "")).rsplit("/", 1)[-1].split("-")[-1] in _ORDINAL:
                return read_number(extension.get("valueDecimal"))
    return None


def reference_id(reference: object, kind: str) -> str | None:
    """Return the id in a literal reference: `Patient/17`, an absolute address, a version; None if there is none.

    A `urn:uuid:...` or `#contained` reference is returned whole, for the caller to look up.
    """
    target = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(target, str) or not target:
        return None
    if target.startswith(("urn:", "#")):
        return target
    parts = target.split("/_history/")[0].split("/")
    return parts[-1] if len(parts) >= 2 and parts[-2] == kind and parts[-1] else None
