"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_cohorts(repository: Path) -> Path:
    """The folder with the real cohorts; without it the test is skipped."""
    folder = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    if not (folder / "icb").is_dir():
        pytest.skip("the real cohorts are not here; set THERACAST_DATA to the folder that holds icb/, oak/, ...")
    return folder


@contextlib.contextmanager
def _running(command: list[str], *, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own; the whole group is gone afterwards, whatever happens."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _postgres_folder() -> Path:
    """The newest folder with PostgreSQL's server programs, or a skip."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: -float(one.parent.name))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")


def _as_postgres() -> list[str]:
    """The words before a command that PostgreSQL accepts: it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root and there is no user `postgres` here")
    if not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root and there is no `setpriv` here")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL that runs on this machine."""

    port: int
    user: str
    password: str | None
    log: Path

    def connect(self) -> Any:
        """Return a connection, as soon as there is one to be had."""
        pg8000 = pytest.importorskip("pg8000.dbapi", reason="pip install 'theracast[server]'")
        for _ in range(100):
            try:
                return pg8000.connect(self.user, "127.0.0.1", "postgres", self.port, self.password)
            except (pg8000.Error, OSError):
                time.sleep(0.2)
        pytest.fail(f"PostgreSQL did not start:\n{self.log.read_text()[-3000:]}")


@contextlib.contextmanager
def _postgres(user: str, *, password: str | None = None) -> Iterator[Postgres]:
    """Run a PostgreSQL with one user; without password it trusts everybody."""
    programs, prefix, port = _postgres_folder(), _as_postgres(), _free_port()
    # Not tmp_path: the user `postgres` cannot enter it, and the socket's path must stay short.
    folder = Path(tempfile.mkdtemp(prefix="theracast-pg-", dir="/tmp"))
    try:
        secret = folder / "password"
        secret.write_text(password or "")
        if prefix:
            for one in (folder, secret):
                shutil.chown(one, "postgres")
        options = ["-A", "trust"] if password is None else ["-A", "scram-sha-256", "--pwfile", str(secret)]
        initdb = [*prefix, str(programs / "initdb"), "-D", str(folder / "db"), "-U", user, *options]
        encoded = ["-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run([*initdb, *encoded], check=True, capture_output=True, cwd="/")
        command = [*prefix, str(programs / "postgres"), "-D", str(folder / "db"), "-p", str(port), "-k", str(folder)]
        with _running([*command, "-h", "127.0.0.1", "-F"], log=folder / "log", cwd="/"):
            yield Postgres(port, user, password, folder / "log")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """A real PostgreSQL: `with postgres("reader") as database:`, then `database.connect()` and `database.port`."""
    return _postgres


@pytest.fixture(scope="session")
def running() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """A server process that is gone afterwards: `with running(command, log=path) as process:`."""
    return _running


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that gives a port on which nothing listens."""
    return _free_port


Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last, along z, y and x."""


@pytest.fixture(scope="session")
def write_scan(repository: Path) -> Callable[..., Path]:
    """A function that writes one small image series with its regions, boxes of voxels, as DICOM files."""
    place = importlib.util.spec_from_file_location("small_dicom", repository / "tests/data/dicom/conftest.py")
    assert place is not None
    assert place.loader is not None
    dicom = importlib.util.module_from_spec(place)
    place.loader.exec_module(dicom)

    def write(
        folder: Path,
        *,
        patient: str = "P1",
        day: str = "20240110",
        clock: str | None = "101500",
        kind: str = "CT",
        name: str = "scan",
        regions: dict[str, Box] | None = None,
        description: str | None = "chest",
        study: str | None = None,
        **elements: Any,
    ) -> Path:
        """Write into `folder/name` and return it; without `clock` the files say nothing of the time of the day."""
        series = f"{patient}-{day}-{kind}-{name}"
        moment = {"StudyDate": day, "SeriesDate": day, "AcquisitionDate": day}
        told = {"StudyTime": clock, "SeriesTime": clock, "AcquisitionTime": clock}
        more = {
            "PatientID": patient,
            "StudyInstanceUID": dicom.uid(study or f"study-{patient}-{day}"),
            "FrameOfReferenceUID": dicom.uid(f"frame-{series}"),
        }
        more |= {} if description is None else {"SeriesDescription": description}
        target = folder / name
        files = dicom.write_series(target / "image", kind=kind, series=series, **(more | moment | told | elements))
        if clock is None:
            for file in files:
                dicom.change_file(file, **dict.fromkeys(told))
        if regions:
            _write_regions(dicom, target, files[0], regions, series)
        return target

    return write


def _write_regions(dicom: Any, target: Path, image: Path, regions: dict[str, Box], series: str) -> None:
    import pydicom
    from pydicom.dataset import Dataset

    header = pydicom.dcmread(image)
    spacing = [float(header.PixelSpacing[1]), float(header.PixelSpacing[0]), float(header.SliceThickness)]
    files = dicom.blank_dataset("RTSTRUCT", f"struct-{series}", series=f"struct-{series}")
    files.PatientID, files.StudyInstanceUID = header.PatientID, header.StudyInstanceUID
    observed, study, reference = Dataset(), Dataset(), Dataset()
    observed.SeriesInstanceUID = header.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [observed]
    reference.RTReferencedStudySequence = [study]
    files.ReferencedFrameOfReferenceSequence = [reference]
    shown, drawn = [], []
    for number, (name, (planes, rows, columns)) in enumerate(regions.items(), start=1):
        region, holder = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        region.ReferencedFrameOfReferenceUID = header.FrameOfReferenceUID
        holder.ReferencedROINumber, holder.ContourSequence = number, []
        for plane in range(*planes):
            corners = [(columns[0], rows[0]), (columns[1], rows[0]), (columns[1], rows[1]), (columns[0], rows[1])]
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
            item.ContourData = [
                f"{start + step * voxel:.8g}"
                for column, row in corners
                for start, step, voxel in zip(
                    (-10.0, -20.0, 30.0), spacing, (column - 0.5, row - 0.5, plane), strict=True
                )
            ]
            holder.ContourSequence.append(item)
        shown.append(region)
        drawn.append(holder)
    files.StructureSetROISequence, files.ROIContourSequence = shown, drawn
    files.save_as(target / "regions.dcm", enforce_file_format=True)


@pytest.fixture(scope="session")
def write_dose() -> Callable[..., Path]:
    """A function that writes an RTDOSE of Gy (n_planes, n_rows, n_columns) over a scan that `write_scan` has written."""

    def write(
        scan: Path,
        gray: Any,
        *,
        origin: tuple[float, float, float] = (-14.0, -24.0, 26.0),
        spacing: tuple[float, float, float] = (4.0, 3.0, 2.5),
        made: str | None = "20240117",
        file: str = "dose.dcm",
        **elements: Any,
    ) -> Path:
        import numpy as np
        import pydicom
        import pydicom.uid as uids

        image = pydicom.dcmread(next(iter(sorted((scan / "image").iterdir()))))
        for keyword in ("PixelData", "RescaleSlope", "RescaleIntercept", "KVP", "ConvolutionKernel", "ImageType"):
            if keyword in image:
                delattr(image, keyword)
        instance = uids.generate_uid(entropy_srcs=[str(scan), file])
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = uids.RTDoseStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = instance
        image.Modality, image.SeriesInstanceUID = "RTDOSE", uids.generate_uid(entropy_srcs=[instance])
        image.NumberOfFrames, image.Rows, image.Columns = gray.shape
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 32, 32, 31, 0
        image.ImagePositionPatient, image.PixelSpacing = list(origin), list(spacing[1:])
        image.GridFrameOffsetVector = [spacing[0] * plane for plane in range(len(gray))]
        image.DoseUnits, image.DoseType, image.DoseSummationType = "GY", "PHYSICAL", "PLAN"
        image.DoseGridScaling = 1e-5
        if made is not None:
            image.InstanceCreationDate, image.InstanceCreationTime = made, "160000"
        image.PixelData = np.round(gray / 1e-5).astype("<u4").tobytes()
        image["PixelData"].VR = "OW"
        for keyword, value in elements.items():
            setattr(image, keyword, value)
        image.save_as(scan / file, enforce_file_format=True)
        return scan / file

    return write


@pytest.fixture(scope="session")
def write_dynamic(write_scan: Callable[..., Path]) -> Callable[..., Path]:
    """A function that writes phases (n_phases, n_slices, n_rows, n_columns) as one MR series in one folder.

    `apart` is, by DICOM keyword, what each phase has of its own.
    """

    def write(
        folder: Path,
        phases: Any,
        *,
        apart: dict[str, Sequence[Any]],
        name: str = "dce",
        regions: dict[str, Any] | None = None,
        **elements: Any,
    ) -> Path:
        import pydicom.uid as uids

        series, frame = (uids.generate_uid(entropy_srcs=[name, str(elements), one]) for one in ("series", "frame"))
        target = folder / name
        (target / "image").mkdir(parents=True)
        for number, values in enumerate(phases):
            own = {keyword: told[number] for keyword, told in apart.items()}
            common = {"kind": "MR", "SeriesInstanceUID": series, "FrameOfReferenceUID": frame} | elements
            scan = write_scan(
                folder,
                name=f"{name}-{number}",
                values=values.astype("u2"),
                regions=regions if number == 0 else None,
                **(common | own),
            )
            for file in (scan / "image").iterdir():
                file.rename(target / "image" / f"{number}-{file.name}")
            if (scan / "regions.dcm").exists():
                (scan / "regions.dcm").rename(target / "regions.dcm")
        return target

    return write


@pytest.fixture(scope="session")
def as_one_file() -> Callable[[Path], None]:
    """A function that makes one enhanced MR file of the single frames of a series, phase after phase."""

    def convert(folder: Path) -> None:
        import pydicom
        import pydicom.uid as uids
        from pydicom.dataset import Dataset

        frames = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        whole = pydicom.dcmread(sorted(folder.iterdir())[0])
        for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"):
            delattr(whole, keyword)
        whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = uids.EnhancedMRImageStorage
        whole.NumberOfFrames, whole.PixelData = len(frames), b"".join(one.PixelData for one in frames)
        shared, measures, plane = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = frames[0].PixelSpacing, frames[0].SliceThickness
        plane.ImageOrientationPatient = frames[0].ImageOrientationPatient
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
        whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], []
        for one in frames:
            item, position, content = Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = one.ImagePositionPatient
            content.TemporalPositionIndex = int(one.TemporalPositionIdentifier)
            content.FrameAcquisitionDateTime = f"{one.AcquisitionDate}{one.AcquisitionTime}"
            item.PlanePositionSequence, item.FrameContentSequence = [position], [content]
            whole.PerFrameFunctionalGroupsSequence.append(item)
        del whole.TemporalPositionIdentifier
        for path in folder.iterdir():
            path.unlink()
        whole.save_as(folder / "all.dcm", enforce_file_format=True)

    return convert
