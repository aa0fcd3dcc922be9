"""FHIR R4 to events: bundles (JSON) and bulk exports (NDJSON), a file or a folder of them, line by line."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import pyarrow as pa
from pydantic import Field, ValidationError
from pydantic_core import from_json

from theracast_data.errors import SchemaError
from theracast_data.events.fhir_reading import FhirReading
from theracast_data.events.readers.fhir_resources_map import ROWS, Context, Row, medication_code
from theracast_data.events.readers.fhir_values import UnreadableError
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA

ResourceType = Literal[
    "Patient",
    "Observation",
    "Condition",
    "MedicationAdministration",
    "MedicationRequest",
    "MedicationStatement",
    "Procedure",
    "DiagnosticReport",
    "QuestionnaireResponse",
]
ALL_RESOURCES: tuple[ResourceType, ...] = get_args(ResourceType)

# Of each type the first so many are validated, and then one in so many.
SAMPLE_FIRST, SAMPLE_EVERY = 20, 200

_LINES = (".ndjson", ".jsonl")
_MEDICATION_FILE = re.compile(r"(?<![A-Za-z])Medication(?![A-Za-z])")
_MALFORMED = (TypeError, AttributeError, KeyError, IndexError, ValueError, OverflowError)
_BOM = b"\xef\xbb\xbf"


class FhirOptions(FhirReading):
    """FHIR R4 resources: a bundle, an NDJSON file, or a folder of either, also compressed (.gz)."""

    kind: Literal["fhir"] = "fhir"
    path: str = Field(description="File or folder: *.ndjson, *.jsonl, *.json, also with .gz.")
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    resources: tuple[ResourceType, ...] = Field(ALL_RESOURCES, description="Resource types to read.")
    validation: Literal["all", "sample", "none"] = Field(
        "sample",
        description="Check against the FHIR R4 structure: `all` resources (an invalid one is refused), a `sample` of "
        "each type (an invalid one is reported, and read as far as it goes), `none`.",
    )


def read_fhir(
    path: str | Path, *, options: FhirOptions, report: IngestReport, batch_rows: int = 200_000
) -> Iterator[pa.Table]:
    """Yield the events of FHIR R4 files, at most about `batch_rows` at a time.

    NDJSON is held line by line, a bundle as a whole. Medication resources are found before those that refer to them if
    they stand in the same bundle or in a file of their own (`Medication.ndjson`). A malformed line, bundle, date or
    value is counted with its position and does not stop the rest.

    Raises:
        SchemaError: there is no such file, or no FHIR file in the folder.
    """
    files = _files(Path(path), report)
    reading = _Reading(options, report)
    for file in files:
        if len(files) > 1 and _MEDICATION_FILE.search(file.name):
            reading.note_medications(file)
    for file in files:
        for position, resource in _resources(file, report):
            reading.take(resource, position)
            if len(reading.rows) >= batch_rows:
                yield reading.drain()
    if reading.rows:
        yield reading.drain()


def fhir_events(resources: Iterable[Mapping[str, Any]], *, options: FhirOptions, report: IngestReport) -> pa.Table:
    """Return the events of resources or bundles that are in memory already, e.g. the body of a request."""
    reading = _Reading(options, report)
    for number, resource in enumerate(resources, start=1):
        reading.take(resource, f"resource {number}")
    return reading.drain()


@dataclass
class _Reading:
    """One source while it is read: what is known so far, and the rows not yet given on."""

    options: FhirOptions
    report: IngestReport
    rows: list[Row] = field(default_factory=list)
    position: str = ""

    def __post_init__(self) -> None:
        self.context = Context(
            refuse=self._refuse,
            zone=ZoneInfo(self.options.timezone),
            preferred=self.options.preferred_systems,
            systems=self.options.systems,
        )
        self._validator = _Validator(self.options.validation)

    def take(self, resource: object, position: str) -> None:
        """Add the events of a resource, or of all in a bundle; what is not understood is counted."""
        self.position = position
        if not isinstance(resource, Mapping) or not isinstance(resource.get("resourceType"), str):
            self.report.read += 1
            self._refuse("resource", "no resourceType")
        elif resource["resourceType"] == "Bundle":
            self._take_bundle(resource, position)
        else:
            self.report.read += 1
            self._take_one(resource)

    def drain(self) -> pa.Table:
        """Return the rows so far as events, and forget them."""
        columns: Iterable[Any] = zip(*self.rows, strict=True) if self.rows else [()] * len(COLUMNS)
        arrays = [pa.array(cells, kind.type) for cells, kind in zip(columns, EVENT_SCHEMA, strict=True)]
        self.report.written += len(self.rows)
        self.rows = []
        return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)

    def note_medications(self, file: Path) -> None:
        """Remember the codes of the Medication resources in a file; faults are counted when it is read for events."""
        for _, resource in _resources(file, IngestReport(file.name)):
            if isinstance(resource, Mapping) and resource.get("resourceType") == "Medication":
                self._note_medication(resource, None)

    def _take_one(self, resource: Mapping[str, Any]) -> None:
        kind = resource["resourceType"]
        if kind == "Medication":
            if not self._note_medication(resource, None):
                self._refuse(kind, "no code")
            return
        if kind not in self.options.resources:
            self._refuse(kind, "not asked for" if kind in ROWS else "resource type is not read")
            return
        faults = self._validator.faults(resource)
        for fault in faults:
            self._refuse(kind, f"not valid FHIR R4: {fault}")
        if faults and self.options.validation == "all":
            return
        try:
            self.rows += list(ROWS[kind](resource, self.context))
        except UnreadableError as reason:
            self._refuse(kind, str(reason))
        except _MALFORMED:
            self._refuse(kind, "not shaped as FHIR R4")

    def _take_bundle(self, bundle: Mapping[str, Any], position: str) -> None:
        entries = bundle.get("entry") or ()
        if not isinstance(entries, list):
            self._refuse("Bundle", "its entries are not a list")
            return
        resources: list[tuple[str, object]] = []
        for number, entry in enumerate(entries, start=1):
            where = f"{position} entry {number}"
            resource = entry.get("resource") if isinstance(entry, Mapping) else None
            address = entry.get("fullUrl") if isinstance(entry, Mapping) else None
            if isinstance(resource, Mapping) and isinstance(address, str):
                if resource.get("resourceType") == "Patient":
                    own = resource.get("id") or address.removeprefix("urn:uuid:").rsplit("/", 1)[-1]
                    resource = {**resource, "id": own}
                    self.context.patients[address] = str(own)
                elif resource.get("resourceType") == "Medication":
                    self._note_medication(resource, address)
            resources.append((where, resource))
        for where, resource in resources:
            self.take(resource, where)

    def _note_medication(self, medication: Mapping[str, Any], address: str | None) -> bool:
        try:
            code = medication_code(medication, self.context)
        except (UnreadableError, *_MALFORMED):
            return False
        for key in (medication.get("id"), address):
            if isinstance(key, str):
                self.context.medications[key] = code
        return True

    def _refuse(self, code: str, reason: str) -> None:
        self.report.refuse(code, reason, position=self.position)


class _Validator:
    """Structural validation by `fhir.resources`; its R4B models, as R4 and R4B are the same in what is read here."""

    def __init__(self, extent: Literal["all", "sample", "none"]) -> None:
        self._extent = extent
        self._met: Counter[str] = Counter()

    def faults(self, resource: Mapping[str, Any]) -> list[str]:
        """Return the faulty places with the kind of fault, never a value; none if this one is not in the sample."""
        if self._extent == "none":
            return []
        kind = resource["resourceType"]
        met = self._met[kind]
        self._met[kind] += 1
        if self._extent == "sample" and met >= SAMPLE_FIRST and met % SAMPLE_EVERY:
            return []
        # Imported here: the models take a third of a second, which a request for a score must not wait for.
        from fhir.resources.R4B import get_fhir_model_class

        try:
            get_fhir_model_class(kind).model_validate(resource)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return list(dict.fromkeys(f"{_place(fault['loc'])} ({fault['type']})" for fault in found))
        except _MALFORMED:
            return ["(the whole resource)"]
        return []


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(part for part in location if isinstance(part, str)) or "(the whole resource)"


def _files(path: Path, report: IngestReport) -> list[Path]:
    """Return the FHIR files by name; other files in a folder are counted."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SchemaError(f"{path}: no such file or folder. Give an NDJSON file, a bundle, or a folder of them.")
    found = []
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        if _suffix(file) in (*_LINES, ".json"):
            found.append(file)
        else:
            report.refuse("file", "neither .ndjson nor .json", position=str(file.relative_to(path)))
    if not found:
        raise SchemaError(f"{path}: no FHIR file (*.ndjson, *.jsonl, *.json, also .gz) in this folder.")
    return found


def _suffix(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return name[name.rfind(".") :] if "." in name else ""


def _resources(file: Path, report: IngestReport) -> Iterator[tuple[str, object]]:
    """Yield each resource with its position; what is not JSON is counted."""
    if _suffix(file) in _LINES:
        yield from _lines(file, report)
        return
    with _opened(file) as stream:
        content = stream.read()
    try:
        yield file.name, from_json(content.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError as error:
        # NDJSON under the name .json is common: then the first line stands on its own.
        if _is_json(content.removeprefix(_BOM).split(b"\n", 1)[0]):
            yield from _lines(file, report)
            return
        report.read += 1
        where = re.search(r"line \d+ column \d+", str(error))
        report.refuse("Bundle", "not JSON", position=f"{file.name} {where[0] if where else ''}".strip())


def _lines(file: Path, report: IngestReport) -> Iterator[tuple[str, object]]:
    with _opened(file) as stream:
        number = 0
        try:
            for number, line in enumerate(stream, start=1):
                text = line.removeprefix(_BOM) if number == 1 else line
                if not text.strip():
                    continue
                try:
                    resource = from_json(text, allow_inf_nan=False)
                except ValueError:
                    report.read += 1
                    report.refuse("line", "not JSON", position=f"{file.name} line {number}")
                    continue
                yield f"{file.name} line {number}", resource
        except (OSError, EOFError):  # a compressed file that was cut off
            report.refuse("file", "damaged", position=f"{file.name} after line {number}")


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(from_json(line, allow_inf_nan=False), dict)
    except ValueError:
        return False


def _opened(file: Path) -> Any:
    return gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")
