"""From sources to the event store: the file that says which sources there are and how each is read."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import pyarrow as pa
import yaml
from pydantic import Field, ValidationError

from theracast_data.errors import StudyError
from theracast_data.events.manifest import file_sha256
from theracast_data.events.report import IngestReport
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.paths import resolve_path
from theracast_data.section import Section, describe_faults

logger = logging.getLogger(__name__)

# kind: module in `readers`, its options, its reader. One line for a new reader.
READERS: dict[str, tuple[str, str, str]] = {
    "long_table": ("long_table", "LongTableOptions", "read_long_table"),
    "wide_table": ("wide_table", "WideTableOptions", "read_wide_table"),
    "meds": ("meds", "MedsOptions", "read_meds"),
    "wearables": ("wearables", "WearablesOptions", "read_wearables"),
    "omop": ("omop", "OmopOptions", "read_omop"),
    "fhir": ("fhir", "FhirOptions", "read_fhir"),
    "proms": ("proms", "PromsOptions", "read_proms"),
    "variants": ("variants", "VariantsOptions", "read_variants"),
}


def reader_of(kind: str) -> Callable[..., Iterable[pa.Table]]:
    """Return the reader of a kind of source."""
    module, _, name = READERS[kind]
    reader: Callable[..., Iterable[pa.Table]] = getattr(_module(module), name)
    return reader


def _module(name: str) -> Any:
    return importlib.import_module(f"theracast_data.events.readers.{name}")


def _any_options() -> Any:
    """Return the union of all readers' options, told apart by `kind`."""
    sections = [getattr(_module(module), options) for module, options, _ in READERS.values()]
    return Annotated[reduce(or_, sections), Field(discriminator="kind")]


if TYPE_CHECKING:
    AnyOptions = Any
else:
    AnyOptions = _any_options()


class IngestSpec(Section):
    """What goes into an event store."""

    sources: tuple[AnyOptions, ...] = Field(min_length=1, description="Sources, each with its kind.")


def read_spec(path: Path) -> IngestSpec:
    """Return the list of sources in a YAML file.

    Raises:
        StudyError: the file is missing, not YAML, or does not fit; all faults are named at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: the file cannot be read ({error.strerror}). Check the path.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: this is not valid YAML. Mend it; it begins with `sources:`.") from error
    try:
        return IngestSpec.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: the sources do not fit:\n{describe_faults(error, IngestSpec)}") from error


def ingest(spec: IngestSpec, *, base: Path, store: EventStore, now: datetime) -> list[IngestReport]:
    """Add the sources to a store, each as a whole or not at all, and return what was understood of each.

    A source that is in the store already (same content, read in the same way) is passed over, so that an interrupted
    ingestion is finished by doing it again. At the end the shards are compacted: a shard that is read many times is
    sorted once.

    Args:
        base: what relative paths count from.
        now: written into the manifest.

    Raises:
        StudyError: a path names an environment variable that is not set.
        SchemaError: a source is missing or is not what its kind says.
        ArtifactError: another process writes to the store.
    """
    reports = [_add(options, base=base, store=store, now=now) for options in spec.sources]
    store.compact()
    return reports


def _add(options: Any, *, base: Path, store: EventStore, now: datetime) -> IngestReport:
    path = options.path if "://" in options.path else resolve_path(options.path, base=base)
    name = options.name or (path.stem if isinstance(path, Path) else options.kind)
    report = IngestReport(name)
    record = SourceRecord(
        name=name,
        kind=options.kind,
        sha256=content_sha256(path) if isinstance(path, Path) else "",
        options=_way_sha256(options, base=base),
        time=now,
        report=report,
    )
    if any(
        (known["kind"], known["sha256"], known["options"]) == (record.kind, record.sha256, record.options)
        for known in store.manifest["sources"]
    ):
        report.note = (
            "in the store already, read in the same way; passed over"
            if record.sha256
            else "this database is in the store already; passed over. Make a new store for what it holds by now"
        )
        logger.info("%s: %s: %s", store.folder, name, report.note)
        return report
    reader = reader_of(options.kind)
    taken = inspect.signature(reader).parameters
    offered = {"options": options, "base": base}
    store.append(record, reader(path, report=report, **{key: one for key, one in offered.items() if key in taken}))
    return report


def _way_sha256(options: Any, *, base: Path) -> str:
    """Return the sha256 of how a source is read, with the content of the files that its options name beside `path`."""
    whole = hashlib.sha256(options.model_dump_json(exclude={"name", "path"}).encode())
    for text in _texts(options.model_dump(exclude={"name", "path"})):
        # Any other option may hold a text too, e.g. a column's name; it is a file only if there is one.
        if len(text) < 1000 and "\0" not in text and (path := _named_file(text, base)) is not None:
            whole.update(file_sha256(path).encode())
    if "://" in options.path:
        address = urlsplit(options.path)
        # Neither a password nor a user's name belongs in a manifest, not even as part of a hash.
        whole.update(f"{address.hostname}:{address.port}{address.path}".encode())
    return whole.hexdigest()


def _named_file(text: str, base: Path) -> Path | None:
    try:
        path = resolve_path(text, base=base)
        return path if path.is_file() else None
    except (StudyError, OSError, RuntimeError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def content_sha256(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of all files of a folder; empty if there is nothing."""
    if path.is_file():
        return file_sha256(path)
    whole = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else []
    for file in files:
        whole.update(f"{file.relative_to(path).as_posix()}\n{file_sha256(file)}\n".encode())
    return whole.hexdigest() if files else ""
