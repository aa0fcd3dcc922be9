"""Query and fetch against a real archive: Orthanc with its DICOMweb plugin, on a free port of this machine."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid

from theracast_data.dicom import web
from theracast_data.dicom.web import ArchiveError, FetchReport, connect, fetch_images, find_series

SLICES = 5
_PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")


@dataclass
class Archive:
    """A running Orthanc and what was put into it: originals by instance UID."""

    port: int
    originals: dict[str, Dataset] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def of(self, *, patient: str, modality: str | None = None) -> dict[str, Dataset]:
        return {
            key: one
            for key, one in self.originals.items()
            if one.PatientID == patient and modality in (None, one.Modality)
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_series(patient: str, study: str, modality: str, *, seed: int, syntax: str) -> list[Dataset]:
    classes = {"CT": uid.CTImageStorage, "PT": uid.PositronEmissionTomographyImageStorage, "MR": uid.MRImageStorage}
    series, rng = generate_uid(), np.random.default_rng(seed)
    made = []
    for number in range(SLICES):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax == uid.RLELossless else syntax
        dataset.SOPClassUID, dataset.SOPInstanceUID = classes[modality], generate_uid()
        dataset.PatientID, dataset.PatientName, dataset.Modality = patient, "Test^Archive", modality
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.StudyDate, dataset.InstanceNumber = "20200102", number
        dataset.Rows = dataset.Columns = 32
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PixelData = rng.integers(0, 65536, 32 * 32, dtype="<u2").tobytes()
        if syntax == uid.RLELossless:
            dataset.compress(uid.RLELossless, generate_instance_uid=False)
        made.append(dataset)
    return made


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    plugins = [path for folder in _PLUGINS for path in Path(folder).glob("libOrthancDicomWeb.so*")]
    if not program or not plugins:
        pytest.skip("no Orthanc with DICOMweb here: apt-get install orthanc orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
    found = Archive(free_port())
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugins[0])],
        "HttpPort": found.port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": "127.0.0.1", "Ssl": False},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            _wait(found, server, folder / "log")
            _fill(found)
            yield found
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait(archive: Archive, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(150):
        if server.poll() is not None:
            break
        try:
            requests.get(f"{archive.url}/studies", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.2)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _fill(archive: Archive) -> None:
    first, second = generate_uid(), generate_uid()
    for series in (
        a_series("A-1", first, "CT", seed=1, syntax=uid.ExplicitVRLittleEndian),
        a_series("A-1", first, "PT", seed=2, syntax=uid.ImplicitVRLittleEndian),
        a_series("A-1", generate_uid(), "CT", seed=3, syntax=uid.RLELossless),
        a_series("A-12", second, "CT", seed=4, syntax=uid.ExplicitVRLittleEndian),
        a_series("B-1", generate_uid(), "MR", seed=5, syntax=uid.ExplicitVRLittleEndian),
    ):
        for dataset in series:
            archive.originals[str(dataset.SOPInstanceUID)] = dataset
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            url = f"http://127.0.0.1:{archive.port}/instances"
            requests.post(url, data=buffer.getvalue(), timeout=30).raise_for_status()


def fetch(url: str, to: Path, **query: list[str]) -> FetchReport:
    client = connect(url)
    return fetch_images(client, find_series(client, **query), to=to)


def counts(report: FetchReport) -> tuple[int, int, int, int]:
    found = report.to_json()
    return found["expected"], found["present"], found["fetched"], found["missing"]


def assert_same(folder: Path, originals: dict[str, Dataset]) -> None:
    """Every original is there once, in its place, in its transfer syntax, with its pixels."""
    files = sorted(folder.rglob("*"))
    paths = [path for path in files if path.is_file()]
    assert {path.stem for path in paths} == set(originals)
    for path in paths:
        got, original = dcmread(path), originals[path.stem]
        assert path.relative_to(folder).parts[:2] == (original.StudyInstanceUID, original.SeriesInstanceUID)
        assert got.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert got.PixelData == original.PixelData
        assert np.array_equal(got.pixel_array, original.pixel_array)
        assert (got.PatientID, got.InstanceNumber) == (original.PatientID, original.InstanceNumber)


def test_a_patient_is_fetched_bit_for_bit_as_stored(archive: Archive, tmp_path: Path) -> None:
    report = fetch(archive.url, tmp_path, patients=["A-1"])
    assert counts(report) == (3 * SLICES, 0, 3 * SLICES, 0)
    assert len(report.series) == 3
    assert_same(tmp_path, archive.of(patient="A-1"))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".dcm"}


def test_patients_studies_and_modalities_narrow_the_query(archive: Archive, tmp_path: Path) -> None:
    client = connect(archive.url)
    assert {one.modality for one in find_series(client, patients=["A-1"])} == {"CT", "PT"}
    (only,) = find_series(client, patients=["A-1"], modalities=["PT"])
    assert (only.patient_id, only.modality) == ("A-1", "PT")
    assert len(find_series(client, studies=[only.study_uid])) == 2
    assert find_series(client, patients=["A-12"], studies=[only.study_uid]) == []
    assert len(find_series(client, patients=["A-1", "A-12"], modalities=["CT"])) == 3
    assert find_series(client, patients=["nobody"]) == []


class _Careless(BaseHTTPRequestHandler):
    """An archive that ignores filters, limits and offsets: every query brings everything, again and again."""

    def do_GET(self) -> None:
        studies = {"1.2.1": "A-1", "1.2.2": "A-12", "1.2.3": "A"}
        if self.path.split("?")[0].endswith("/studies"):
            found = [
                {"00100020": {"Value": [patient]}, "0020000D": {"Value": [study]}} for study, patient in studies.items()
            ]
        else:
            found = [{"0020000E": {"Value": [f"1.3.{one}"]}, "00080060": {"Value": ["CT"]}} for one in range(3)]
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_an_archive_that_ignores_filters_and_offsets_brings_no_other_patient() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Careless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            client = connect(f"http://127.0.0.1:{server.server_port}/dicom-web")
            found = find_series(client, patients=["A-1"])
            narrowed = find_series(client, patients=["A-1"], studies=["1.2.2"])
        finally:
            server.shutdown()
            thread.join()
    assert [(one.patient_id, one.study_uid, one.series_uid) for one in found] == [
        ("A-1", "1.2.1", f"1.3.{one}") for one in range(3)
    ]
    assert narrowed == []


def test_what_is_there_is_not_fetched_again(archive: Archive, tmp_path: Path) -> None:
    fetch(archive.url, tmp_path, patients=["A-12"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert counts(fetch(archive.url, tmp_path, patients=["A-12"])) == (SLICES, SLICES, 0, 0)
    gone, broken, *_ = sorted(before)
    gone.unlink()
    broken.write_bytes(b"half a file")
    assert counts(fetch(archive.url, tmp_path, patients=["A-12"])) == (SLICES, SLICES - 2, 2, 0)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert {path for path in before if before[path] == after[path]} == set(before) - {gone, broken}
    assert_same(tmp_path, archive.of(patient="A-12"))


def test_long_lists_come_in_pages(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAGE", 2)
    assert counts(fetch(archive.url, tmp_path, patients=["A-12"])) == (SLICES, 0, SLICES, 0)


@contextmanager
def a_line_that_breaks(target: int, *, after_bytes: Callable[[bytes], int]) -> Iterator[int]:
    """Forward connections to a port, and cut each answer after so many bytes (of its request)."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        listener.settimeout(0.2)
        while not stop.is_set():
            try:
                near, _ = listener.accept()
            except TimeoutError:
                continue
            with near, socket.create_connection(("127.0.0.1", target)) as far:
                request = near.recv(65536).replace(b"Connection: keep-alive", b"Connection: close")
                far.sendall(request)
                left, head = after_bytes(request), b"\r\nConnection: close\r\n"
                while left > 0 and (answer := far.recv(min(left, 4096))):
                    near.sendall(answer.replace(b"\r\n", head, 1) if head else answer)
                    left, head = left - len(answer), b""

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_a_broken_line_leaves_whole_files_only_and_the_next_run_goes_on(archive: Archive, tmp_path: Path) -> None:
    def after_bytes(request: bytes) -> int:
        """Queries pass; of a series, the line carries a bit more than two slices; of a single instance, half."""
        path = request.split(b" ")[1].split(b"?")[0]
        if path.endswith((b"/studies", b"/series", b"/instances")):
            return 1 << 30
        return 1200 if b"/instances/" in path else 6000

    with a_line_that_breaks(archive.port, after_bytes=after_bytes) as port:
        report = fetch(f"http://127.0.0.1:{port}/dicom-web", tmp_path, patients=["A-12"])
    assert report.missing > 0
    assert len(report.incomplete) == 1
    assert "goes on from here" in report.to_text()
    arrived = list(tmp_path.rglob("*.dcm"))
    assert len(arrived) == report.to_json()["fetched"] < SLICES
    assert not list(tmp_path.rglob("*.partial"))
    for path in arrived:
        assert dcmread(path).PixelData == archive.originals[path.stem].PixelData
    assert counts(fetch(archive.url, tmp_path, patients=["A-12"])) == (SLICES, len(arrived), SLICES - len(arrived), 0)
    assert_same(tmp_path, archive.of(patient="A-12"))


def test_an_archive_that_cannot_be_asked_says_how_to_mend_it(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match=r"does not answer.*Check the address"):
        find_series(connect(f"http://127.0.0.1:{free_port()}/dicom-web"), patients=["A-1"])
    with pytest.raises(ArchiveError, match=r"status 404.*DICOMweb root"):
        find_series(connect(f"http://127.0.0.1:{archive.port}/elsewhere"), patients=["A-1"])
    with pytest.raises(ArchiveError, match="Say whose images"):
        find_series(connect(archive.url))
    with pytest.raises(ArchiveError, match="is not a UID"):
        find_series(connect(archive.url), studies=["../../etc"])


def test_addresses() -> None:
    with pytest.raises(ArchiveError, match="not an address"):
        connect("pacs.example/dicom-web")
    with pytest.raises(ArchiveError, match=r"\.netrc"):
        connect("https://me:secret@pacs.example/dicom-web")


def test_an_open_line_to_a_public_host_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        connect("http://127.0.0.1:1/dicom-web")
        connect("http://pacs/dicom-web")
        connect("https://pacs.example.org/dicom-web")
        assert not caplog.records
        connect("http://pacs.example.org/dicom-web")
    assert "Use https" in caplog.text


def test_the_command_fetches_and_counts(archive: Archive, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "theracast", "images", "fetch", archive.url, "--to", str(tmp_path / "images")]
    command += ["--json", "--modality", "CT", "--patient"]
    answer = subprocess.run([*command, "A-1"], capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert (found["expected"], found["fetched"], len(found["series"])) == (2 * SLICES, 2 * SLICES, 2)
    assert_same(tmp_path / "images", archive.of(patient="A-1", modality="CT"))
    answer = subprocess.run([*command, "nobody"], capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1
    assert "no such series" in answer.stderr
