"""A folder of DICOM files without the patients' identity: read, cleaned, checked and written one by one.

What is done follows the basic application level confidentiality profile of DICOM PS3.15 Annex E with the options Clean
Descriptors, Retain Longitudinal Temporal Information with Modified Dates, Retain Safe Private and, if asked for, Retain
Patient Characteristics. Patient identifiers, UIDs and dates follow from a secret key, so that a later delivery of the same
patient joins the first. Pixels are not looked at: a face can be made from a head scan, and burned-in text stays.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from theracast_data.dicom.deidentify_dataset import deidentify_dataset, read_identity
from theracast_data.dicom.deidentify_keys import PseudonymKey, is_registered
from theracast_data.dicom.deidentify_record import DeidentifyError, RunRecord, write_whole
from theracast_data.dicom.deidentify_refusal import refusal, truncation
from theracast_data.dicom.deidentify_rules import TABLE_EDITION, Action, DeidentifyOptions
from theracast_data.dicom.deidentify_values import Identity
from theracast_data.dicom.quiet import quiet_pydicom

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


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
    record = RunRecord(to, key)
    work = _Run(to=to, key=key, options=options, record=record, overwrite=overwrite)
    done = 0
    try:
        with quiet_pydicom():
            work.read_identities(paths)
            for path in paths:
                work.take(path)
                done += 1
                if progress:
                    progress(done, len(paths))
    finally:  # what a stopped run has written is on record too
        report = work.report()
        summary = report.to_json() | {"refused": dict(Counter(one.reason for one in report.refused))}
        settings = {"action_table": TABLE_EDITION, "options": options.model_dump(mode="json")}
        record.close({"complete": done == len(paths), **settings, **summary})
    logger.info("%d files written, %d unchanged, %d refused", report.written, report.unchanged, len(report.refused))
    return report


class _Run:
    """Two passes over the files: who the patients are, then each file; and what has been done so far."""

    def __init__(
        self, *, to: Path, key: PseudonymKey, options: DeidentifyOptions, record: RunRecord, overwrite: bool
    ) -> None:
        self.to = to
        self.key = key
        self.options = options
        self.record = record
        self.overwrite = overwrite
        self.written = self.unchanged = 0
        self.identities: dict[str, Identity] = defaultdict(Identity)
        self.foreign: set[Path] = set()
        self.refused: dict[Path, str] = {}
        self.patients: dict[str, str] = {}
        self.names: set[str] = set()
        self.actions: Counter[Action] = Counter()

    def read_identities(self, paths: Iterable[Path]) -> None:
        """Gather the identity of each patient over all files, and set aside what is foreign or refused by its header."""
        for path in paths:
            try:
                dataset = dcmread(path, stop_before_pixels=True)
                reason = refusal(dataset, self.options)
                patient = str(dataset.get("PatientID", "") or "").strip()
                if patient:  # what a refused file says of a patient is looked for in the others all the same
                    self.identities[patient] |= read_identity(dataset)
            except InvalidDicomError:
                self.foreign.add(path)
                continue
            except Exception as error:  # broken in any of the ways a file can be; the text may quote its values
                reason = f"cannot be read as DICOM ({type(error).__name__})"
            if reason:
                self.refused[path] = reason

    def take(self, path: Path) -> None:
        """De-identify one file, or note why not."""
        if path in self.foreign or path in self.refused:
            return
        try:
            reason = self._take(path)
        except Exception as error:  # a broken file; the text of the error may quote its values
            reason = f"cannot be read or written as DICOM ({type(error).__name__})"
        if reason:
            self.refused[path] = reason

    def _take(self, path: Path) -> str | None:
        dataset = dcmread(path)
        reason = refusal(dataset, self.options) or truncation(dataset)
        if reason:
            return reason
        patient = str(dataset.PatientID).strip()
        identity = self.identities[patient]
        originals = _own_uids(dataset)
        clean, counts = deidentify_dataset(dataset, key=self.key, identity=identity, options=self.options)
        buffer = io.BytesIO()
        clean.save_as(buffer, enforce_file_format=True)
        content = buffer.getvalue()
        frames = clean.get("PixelData", b"") if clean.file_meta.TransferSyntaxUID.is_compressed else b""
        left_over = any(needle in content for needle in (*identity.needles, *originals))
        if left_over or any(needle in frames for needle in identity.digits):
            return (
                "still held a name, an identifier or a UID after cleaning, in its pixel data or in a code; not written"
            )
        place = Path(
            str(clean.PatientID),
            str(clean.get("StudyInstanceUID", "") or "no-study"),
            str(clean.get("SeriesInstanceUID", "") or "no-series"),
            f"{clean.SOPInstanceUID}.dcm",
        )
        reason = self._put(self.to / place, content, again=place.as_posix() in self.names)
        if reason:
            return reason
        self.patients[patient] = self.key.patient(patient)
        if place.as_posix() not in self.names:
            self.names.add(place.as_posix())
            self.record.add(place.as_posix(), counts)
            for (_, _, action), count in counts.items():
                self.actions[action] += count
        return None

    def _put(self, target: Path, content: bytes, *, again: bool) -> str | None:
        """Write a file unless it stands there already; return why not.

        Args:
            again: whether this run has written it.
        """
        if target.exists():
            if target.read_bytes() == content:
                self.unchanged += not again
                return None
            if again:
                return "has the SOP Instance UID of another file of this source, but other content"
            if not self.overwrite:
                return "has been de-identified before with other options; say --overwrite to replace the result"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
        self.written += 1
        return None

    def report(self) -> DeidentifyReport:
        return DeidentifyReport(
            written=self.written,
            unchanged=self.unchanged,
            foreign=len(self.foreign),
            series=len({name.rsplit("/", 1)[0] for name in self.names}),
            patients=dict(sorted(self.patients.items())),
            actions=dict(self.actions),
            refused=tuple(Refused(path, reason) for path, reason in sorted(self.refused.items())),
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


def _own_uids(dataset: FileDataset) -> tuple[bytes, ...]:
    """Return the original UIDs of instance, series, study and frame, to look for in the result."""
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    own = {str(dataset.get(name) or "").strip() for name in names}
    return tuple(uid.encode() for uid in own if len(uid) > 8 and not is_registered(uid))
