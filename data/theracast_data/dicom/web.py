"""Series from an archive over DICOMweb: asked for with QIDO-RS, fetched with WADO-RS, each instance whole or not at all."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from theracast_data.dicom.deidentify_refusal import truncation
from theracast_data.dicom.quiet import quiet_pydicom
from theracast_data.errors import TheracastError

logger = logging.getLogger(__name__)

# As stored: without this the server may decompress, and what was lossless or lossy could not be told any more.
AS_STORED = (("application/dicom", "*"),)
PAGE = 500
ATTEMPTS = 3
TIMEOUT_SECONDS = 60
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_PATIENT, _MODALITY = "00100020", "00080060"

Progress = Callable[[int, int], None]
Answer = Mapping[str, Mapping[str, Any]]


class ArchiveError(TheracastError):
    """The archive does not answer, refuses, or is asked for nothing in particular."""


@dataclass(frozen=True)
class Series:
    """One series as the archive describes it."""

    patient_id: str
    study_uid: str
    series_uid: str
    modality: str


@dataclass(frozen=True)
class FetchedSeries:
    """What became of one series.

    Attributes:
        expected: instances that the archive lists.
        present: of these, there before.
        fetched: of these, written now.
        fault: why some are missing, or empty.
    """

    series: Series
    expected: int
    present: int
    fetched: int
    fault: str = ""

    @property
    def missing(self) -> int:
        return self.expected - self.present - self.fetched


@dataclass(frozen=True)
class FetchReport:
    """What became of all series asked for."""

    series: tuple[FetchedSeries, ...]

    @property
    def missing(self) -> int:
        return sum(one.missing for one in self.series)

    @property
    def incomplete(self) -> tuple[FetchedSeries, ...]:
        """The series that are not there in full."""
        return tuple(one for one in self.series if one.missing or one.fault)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, in all and by series."""
        return {
            "series": [{**asdict(one.series), **_counts([one]), "fault": one.fault} for one in self.series],
            **_counts(self.series),
        }

    def to_text(self) -> str:
        """Return the counts in a line, and each incomplete series in one."""
        found = _counts(self.series)
        lines = [
            f"{len(self.series)} series, {found['expected']} instances: {found['fetched']} fetched, "
            f"{found['present']} there already, {found['missing']} missing"
        ]
        return "\n".join(
            [
                *lines,
                *(
                    f"incomplete: series {one.series.series_uid}, {one.missing} of {one.expected} missing. {one.fault}"
                    for one in self.incomplete
                ),
            ]
        )


def connect(url: str, *, session: requests.Session | None = None) -> DICOMwebClient:
    """Return a client for a DICOMweb service; name and password, if it asks for them, come from `.netrc`.

    Raises:
        ArchiveError: not an http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ArchiveError(f"{url}: not an address of a DICOMweb service. It looks like http://pacs.example/dicom-web.")
    if parts.username or parts.password:
        raise ArchiveError("The address holds a name or password, which end in logs. Put them into .netrc.")
    if parts.scheme == "http" and _is_public(parts.hostname):
        logger.warning(
            "%s is asked without encryption: patients' data can be read on the way. Use https.", parts.hostname
        )
    client = DICOMwebClient(url.rstrip("/"), session=session, timeout=TIMEOUT_SECONDS)
    client.set_http_retry_params(retry=False)  # what is missing is asked for again below
    return client


def find_series(
    client: DICOMwebClient,
    *,
    patients: Sequence[str] = (),
    studies: Sequence[str] = (),
    modalities: Collection[str] = (),
) -> list[Series]:
    """Return the series of these patients and studies, in the order of their UIDs.

    Args:
        patients: identifiers, matched exactly; a study asked for by its UID must be one of theirs if both are given.
        modalities: `CT`, `PT`, ...; all if empty.

    Raises:
        ArchiveError: the archive does not answer or refuses; or neither patients nor studies are given.
    """
    if not patients and not studies:
        raise ArchiveError("Say whose images: --patient ID or --study UID. The whole archive is not copied.")
    for study in studies:
        _checked_uid(study)
    asked: list[dict[str, str]] = [{"PatientID": one} for one in patients] or [{}]
    if studies:
        asked = [{**filters, "StudyInstanceUID": study} for filters in asked for study in studies]
    owner: dict[str, str] = {}
    for filters in asked:
        for answer in _all_pages(client.search_for_studies, _STUDY, search_filters=filters):
            patient = _value(answer, _PATIENT)
            study, wanted = _value(answer, _STUDY), filters.get("PatientID", patient)
            # Archives may ignore a filter, and take * and ? in an identifier for wildcards.
            if patient == wanted and study == filters.get("StudyInstanceUID", study):
                owner[_checked_uid(study)] = patient
    found = []
    for study, patient in owner.items():
        for answer in _all_pages(client.search_for_series, _SERIES, study_instance_uid=study):
            modality = _value(answer, _MODALITY)
            if not modalities or modality in modalities:
                found.append(Series(patient, study, _checked_uid(_value(answer, _SERIES)), modality))
    return sorted(found, key=lambda one: (one.study_uid, one.series_uid))


def fetch_images(
    client: DICOMwebClient, series: Iterable[Series], *, to: Path, progress: Progress | None = None
) -> FetchReport:
    """Return what was fetched to `to`/STUDY/SERIES/INSTANCE.dcm.

    An instance that is there is not fetched again, so a stopped run goes on where it was. An instance appears only when
    all of it has arrived. What the archive lists and does not deliver is counted as missing; a fault of one series does
    not stop the others.

    Args:
        progress: called with the series done and the series in all.
    """
    wanted = list(series)
    done: list[FetchedSeries] = []
    for one in wanted:
        with quiet_pydicom():
            done.append(_fetch_series(client, one, to))
        if progress:
            progress(len(done), len(wanted))
    report = FetchReport(tuple(done))
    logger.info("%s", report.to_text().splitlines()[0])
    return report


def _fetch_series(client: DICOMwebClient, series: Series, to: Path) -> FetchedSeries:
    folder = to / _checked_uid(series.study_uid) / _checked_uid(series.series_uid)
    try:
        answers = _all_pages(
            client.search_for_instances,
            _INSTANCE,
            study_instance_uid=series.study_uid,
            series_instance_uid=series.series_uid,
        )
        listed = {_checked_uid(_value(answer, _INSTANCE)) for answer in answers}
    except ArchiveError as error:
        return FetchedSeries(series, expected=0, present=0, fetched=0, fault=str(error))
    folder.mkdir(parents=True, exist_ok=True)
    present = {uid for uid in listed if _is_whole(folder / f"{uid}.dcm", uid)}
    missing, fault = listed - present, ""
    for _ in range(ATTEMPTS):
        if not missing:
            break
        fault = ""
        try:
            for dataset in _deliver(client, series, missing, everything=len(missing) == len(listed)):
                uid = str(dataset.get("SOPInstanceUID", ""))
                if uid in missing and not truncation(dataset):
                    _write(dataset, folder / f"{uid}.dcm")
                    missing.discard(uid)
        except requests.HTTPError as error:
            fault = _http_fault(error)
            if error.response is not None and error.response.status_code in (401, 403, 404):
                break
        except (requests.RequestException, OSError, ValueError, EOFError) as error:
            fault = f"The delivery broke off ({type(error).__name__}). Run the command again: it goes on from here."
    if not missing:
        fault = ""
    elif not fault:
        fault = "The archive lists instances that it does not deliver whole."
    return FetchedSeries(series, len(listed), len(present), len(listed) - len(present) - len(missing), fault)


def _deliver(
    client: DICOMwebClient, series: Series, missing: Collection[str], *, everything: bool
) -> Iterator[Dataset]:
    """Yield the instances: the series in one answer if all are missing, else one by one."""
    if everything:
        yield from client.iter_series(series.study_uid, series.series_uid, media_types=AS_STORED)
        return
    for uid in sorted(missing):
        try:
            yield client.retrieve_instance(series.study_uid, series.series_uid, uid, media_types=AS_STORED)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 404:
                raise
            logger.warning("instance %s is listed, but not there", uid)


def _is_whole(path: Path, uid: str) -> bool:
    """Return whether a file is there and is this instance; it was put in place in one step, so then it is whole."""
    if not path.is_file():
        return False
    try:
        return str(dcmread(path, stop_before_pixels=True).get("SOPInstanceUID", "")) == uid
    except Exception:  # not one of ours: it is fetched again
        return False


def _write(dataset: Dataset, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        dataset.save_as(partial, enforce_file_format=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _all_pages(search: Callable[..., Any], key: str, **query: Any) -> list[Answer]:
    """Return all results of a query, page by page; a server that ignores the offset does not keep us for ever."""
    found: dict[str, Answer] = {}
    offset = 0
    while True:
        page = _page(search, limit=PAGE, offset=offset, **query)
        before = len(found)
        found |= {_value(answer, key): answer for answer in page}
        offset += len(page)
        if len(found) == before:
            return list(found.values())


def _page(search: Callable[..., Any], **query: Any) -> list[Answer]:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return list(search(**query))
        except requests.HTTPError as error:
            raise ArchiveError(_http_fault(error)) from error
        except requests.JSONDecodeError as error:
            raise ArchiveError(
                "The archive's answer is not DICOM JSON. Check that the address is a DICOMweb root."
            ) from error
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise ArchiveError(
                    f"The archive does not answer ({type(error).__name__}). "
                    "Check the address, and that it is a DICOMweb root."
                ) from error
    raise AssertionError("the last attempt returns or raises")


def _http_fault(error: requests.HTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    hint = {
        401: "Put name and password into .netrc.",
        403: "This account may not read it.",
        404: "Check that the address is a DICOMweb root and that the object still exists.",
    }.get(status, "Ask those who run the archive.")
    return f"The archive refuses with status {status}. {hint}"


def _value(answer: Answer, tag: str) -> str:
    values = answer.get(tag, {}).get("Value") or [""]
    return str(values[0]).strip()


def _checked_uid(uid: str) -> str:
    """Return a UID that may name a folder; what an archive says is not trusted to be one."""
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise ArchiveError(f"{uid[:80]!r} is not a UID: digits and dots, at most 64.")
    return uid


def _is_public(host: str) -> bool:
    """Return whether a host is an address outside of private networks; of names, only those with a public ending look so."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(
            (".local", ".internal", ".lan", ".intranet", ".home.arpa", ".localhost")
        )


def _counts(series: Iterable[FetchedSeries]) -> dict[str, int]:
    listed = list(series)
    return {name: sum(getattr(one, name) for one in listed) for name in ("expected", "present", "fetched", "missing")}
