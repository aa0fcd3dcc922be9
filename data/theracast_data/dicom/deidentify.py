"""A folder of DICOM files without the patients' identity: read, cleaned, checked and written one by one.

What is done follows the basic application level confidentiality profile of DICOM PS3.15 Annex E with the options Clean
Descriptors, Retain Longitudinal Temporal Information with Modified Dates, Retain Safe Private and, if asked for, Retain
Patient Characteristics. Patient identifiers, UIDs and dates follow from a secret key, so that a later delivery of the same
patient joins the first. Pixels are not looked at: a face can be made from a head scan, and burned-in text stays.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from theracast_data.dicom.deidentify_dataset import Counts, deidentify_dataset, read_identity
from theracast_data.dicom.deidentify_keys import PseudonymKey, is_registered
from theracast_data.dicom.deidentify_refusal import refusal, truncation
from theracast_data.dicom.deidentify_rules import TABLE_EDITION, Action, DeidentifyOptions
from theracast_data.dicom.deidentify_values import Identity
from theracast_data.dicom.quiet import quiet_pydicom
from theracast_data.errors import TheracastError

logger = logging.getLogger(__name__)

RECORD_FOLDER = "deidentification"
FORMAT_VERSION = 1
Progress = Callable[[int, int], None]


class DeidentifyError(TheracastError):
    """A folder cannot be de-identified as asked; nothing was written."""


@dataclass(frozen=True)
class Refused:
    """A file that was not taken. The path is the source's, which may name a patient: it stays out of the output."""

    path: Path
    reason: str


@dataclass(frozen=True)
class DeidentifyReport:
    """What one run did.

    Attributes:
        written, unchanged: files written, and files that stood there already with the same bytes.
        foreign: files that are not DICOM; they are passed over.
        patients: original identifier -> pseudonym, of the files taken.
        actions: elements by action, over all files.
    """

    written: int = 0
    unchanged: int = 0
    foreign: int = 0
    series: int = 0
    patients: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[Action, int] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the refused files."""
        return {
            "written": self.written,
            "unchanged": self.unchanged,
            "not_dicom": self.foreign,
            "patients": len(self.patients),
            "series": self.series,
            "actions": {str(action): count for action, count in sorted(self.actions.items())},
            "refused": [{"file": str(one.path), "reason": one.reason} for one in self.refused],
        }

    def to_text(self) -> str:
        """Return the run in a few lines, and each refused file in one."""
        lines = [
            f"{self.written} files written, {self.unchanged} unchanged: {len(self.patients)} patients, {self.series} series",
            f"{self.foreign} files are not DICOM, {len(self.refused)} refused",
            "elements: " + ", ".join(f"{count} {action}" for action, count in sorted(self.actions.items())),
        ]
        return "\n".join([*lines, *(f"refused: {one.path} {one.reason}" for one in self.refused)])


def deidentify_folder(
    source: Path,
    *,
    to: Path,
    key: PseudonymKey,
    options: DeidentifyOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DeidentifyReport:
    """Return what was done, having written every file below `source` that can be taken to `to`, without its identity.

    Files go to PATIENT/STUDY/SERIES/INSTANCE.dcm, all of them new names. A file appears whole or not at all; one that is
    broken is reported and does not stop the others. The same files, key and options give the same bytes.
    `to/deidentification/` gets an audit list per run: element counts by file, tag and action, no values.

    Args:
        source: folder, with any folders in it, or one file.
        overwrite: whether an output with other content (of other options) is replaced.
        progress: called with the files done and the files in all.

    Raises:
        DeidentifyError: no such source, output inside the source, or an output folder that another key wrote.
    """
    options = options or DeidentifyOptions()
    options.descriptors()
    check_places(source, to=to)
    paths = _source_files(source)
    run = _open_record(to, key)
    with quiet_pydicom():
        identities, foreign, refused = _first_pass(paths, options)
        work = _Run(to=to, key=key, options=options, identities=identities, overwrite=overwrite)
        skip = foreign | {one.path for one in refused}
        for done, path in enumerate(paths, start=1):
            if path not in skip:
                work.take(path)
            if progress:
                progress(done, len(paths))
    report = work.report(foreign=len(foreign), refused=refused)
    _write_record(to / RECORD_FOLDER, run, work, report, key)
    logger.info("%d files written, %d unchanged, %d refused", report.written, report.unchanged, len(report.refused))
    return report


class _Run:
    """The second pass: what has been written so far, and what was done."""

    def __init__(
        self,
        *,
        to: Path,
        key: PseudonymKey,
        options: DeidentifyOptions,
        identities: Mapping[str, Identity],
        overwrite: bool,
    ) -> None:
        self.to = to
        self.key = key
        self.options = options
        self.identities = identities
        self.overwrite = overwrite
        self.written = self.unchanged = 0
        self.patients: dict[str, str] = {}
        self.audit: dict[str, Counts] = {}
        self.refused: list[Refused] = []

    def take(self, path: Path) -> None:
        """De-identify one file, or note why not."""
        try:
            reason = self._take(path)
        except Exception as error:  # a broken file; the text of the error may quote its values
            reason = f"cannot be read or written as DICOM ({type(error).__name__})"
        if reason:
            self.refused.append(Refused(path, reason))

    def _take(self, path: Path) -> str | None:
        dataset = dcmread(path)
        reason = refusal(dataset, self.options) or truncation(dataset)
        if reason:
            return reason
        patient = str(dataset.PatientID)
        identity = self.identities[patient.strip()]
        originals = _own_uids(dataset)
        clean, counts = deidentify_dataset(dataset, key=self.key, identity=identity, options=self.options)
        buffer = io.BytesIO()
        clean.save_as(buffer, enforce_file_format=True)
        content = buffer.getvalue()
        if any(needle in content for needle in (*identity.needles, *originals)):
            return (
                "still held a name, an identifier or a UID after cleaning, in its pixel data or in a code; not written"
            )
        place = Path(
            str(clean.PatientID),
            str(clean.get("StudyInstanceUID", "") or "no-study"),
            str(clean.get("SeriesInstanceUID", "") or "no-series"),
            f"{clean.SOPInstanceUID}.dcm",
        )
        return self._put(place, content, counts, patient)

    def _put(self, place: Path, content: bytes, counts: Counts, patient: str) -> str | None:
        target = self.to / place
        name = place.as_posix()
        if target.exists():
            same = target.read_bytes() == content
            if not same and name in self.audit:
                return "has the SOP Instance UID of another file of this source, but other content"
            if not same and not self.overwrite:
                return "has been de-identified before with other options; say --overwrite to replace the result"
            if same:
                self.unchanged += name not in self.audit
                self._count(name, counts, patient)
                return None
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(target, content)
        self.written += 1
        self._count(name, counts, patient)
        return None

    def _count(self, name: str, counts: Counts, patient: str) -> None:
        self.audit[name] = counts
        self.patients[patient.strip()] = self.key.patient(patient)

    def report(self, *, foreign: int, refused: Iterable[Refused]) -> DeidentifyReport:
        actions: Counter[Action] = Counter()
        for counts in self.audit.values():
            for (_, _, action), count in counts.items():
                actions[action] += count
        return DeidentifyReport(
            written=self.written,
            unchanged=self.unchanged,
            foreign=foreign,
            series=len({name.rsplit("/", 1)[0] for name in self.audit}),
            patients=dict(sorted(self.patients.items())),
            actions=actions,
            refused=tuple(sorted([*refused, *self.refused], key=lambda one: one.path)),
        )


def write_link(path: Path, report: DeidentifyReport, *, key: PseudonymKey) -> None:
    """Write the table that leads from patients to pseudonyms and date shifts (CSV), for its owner alone (mode 600).

    It joins clinical tables to the images. It undoes the de-identification: keep it with the key.

    Raises:
        DeidentifyError: the file exists.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise DeidentifyError(f"{path} exists. Name another file for the link table, or move it away.") from None
    except OSError as error:
        raise DeidentifyError(f"{path}: the link table cannot be written ({error.strerror}).") from error
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient_id", "pseudonym", "date_shift_days"])
        table.writerows((one, pseudonym, key.shift_days(one)) for one, pseudonym in report.patients.items())


def check_places(source: Path, *, to: Path, secrets: Iterable[Path] = ()) -> None:
    """Raise unless source, output and secret files (key, link table) lie apart.

    Raises:
        DeidentifyError: no such source, output inside the source, or a secret inside the output.
    """
    if not source.exists():
        raise DeidentifyError(f"{source} does not exist. Name the folder that holds the DICOM files.")
    inside = to.resolve()
    if source.is_dir() and (inside == source.resolve() or source.resolve() in inside.parents):
        raise DeidentifyError(f"{to} lies in {source}: the results would be read again. Choose a folder outside of it.")
    for secret in secrets:
        if inside in secret.resolve().parents:
            raise DeidentifyError(
                f"{secret} lies in {to} and would travel with the images. Choose a place outside of it."
            )


def _source_files(source: Path) -> list[Path]:
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise DeidentifyError(f"{source} holds no files.")
    return files


def _first_pass(
    paths: Iterable[Path], options: DeidentifyOptions
) -> tuple[dict[str, Identity], set[Path], list[Refused]]:
    """Return the identity of each patient over all files, the files that are not DICOM, and those refused by their header."""
    identities: dict[str, Identity] = defaultdict(Identity)
    foreign: set[Path] = set()
    refused: list[Refused] = []
    for path in paths:
        try:
            dataset = dcmread(path, stop_before_pixels=True)
            reason = refusal(dataset, options)
            patient = str(dataset.get("PatientID", "") or "").strip()
            if patient:  # what a refused file says of a patient is looked for in the others all the same
                identities[patient] |= read_identity(dataset)
        except InvalidDicomError:
            foreign.add(path)
            continue
        except Exception as error:  # broken in any of the ways a file can be; the text may quote its values
            reason = f"cannot be read as DICOM ({type(error).__name__})"
        if reason:
            refused.append(Refused(path, reason))
    return dict(identities), foreign, refused


def _own_uids(dataset: FileDataset) -> tuple[bytes, ...]:
    """Return the original UIDs of instance, series, study and frame, to look for in the result."""
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    own = {str(dataset.get(name) or "").strip() for name in names}
    return tuple(uid.encode() for uid in own if len(uid) > 8 and not is_registered(uid))


def _open_record(to: Path, key: PseudonymKey) -> int:
    """Return the number of this run in the output folder, having made sure that its files come from one key."""
    folder = to / RECORD_FOLDER
    runs = sorted(folder.glob("run-*.json"))
    for path in runs:
        try:
            fingerprint = json.loads(path.read_text(encoding="utf-8")).get("key_fingerprint")
        except (OSError, ValueError):
            raise DeidentifyError(f"{path} cannot be read. Choose a new folder.") from None
        if fingerprint != key.fingerprint:
            raise DeidentifyError(
                f"{to} holds files that another key made: the same patient would appear twice. Choose a new folder."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeidentifyError(f"{folder}: the folder cannot be made ({error.strerror}).") from error
    return 1 + max((int(path.stem.removeprefix("run-")) for path in runs), default=0)


def _write_record(folder: Path, run: int, work: _Run, report: DeidentifyReport, key: PseudonymKey) -> None:
    """Write the audit list of a run (CSV) and, last, its summary (JSON). No path of the source, no value of any element."""
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(["file", "tag", "keyword", "action", "elements"])
    table.writerows(_audit_rows(work.audit))
    _write_whole(folder / f"run-{run:04d}.csv", rows.getvalue().encode())
    summary = report.to_json()
    summary["refused"] = dict(Counter(one.reason for one in report.refused))
    summary |= {
        "format_version": FORMAT_VERSION,
        "action_table": TABLE_EDITION,
        "key_fingerprint": key.fingerprint,
        "options": work.options.model_dump(mode="json"),
    }
    _write_whole(folder / f"run-{run:04d}.json", (json.dumps(summary, indent=1) + "\n").encode())


def _audit_rows(audit: Mapping[str, Counts]) -> Iterator[tuple[str, str, str, str, int]]:
    for name, counts in sorted(audit.items()):
        for (tag, keyword, action), count in sorted(counts.items()):
            yield name, tag, keyword, str(action), count


def _write_whole(target: Path, content: bytes) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
