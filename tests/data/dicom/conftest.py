"""Small valid CT, PET and MR series, written with pydicom; tests break copies of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

KINDS = {
    "CT": uids.CTImageStorage,
    "MR": uids.MRImageStorage,
    "PT": uids.PositronEmissionTomographyImageStorage,
    "ECT": uids.EnhancedCTImageStorage,
    "RTSTRUCT": uids.RTStructureSetStorage,
    "RTDOSE": uids.RTDoseStorage,
}
ROOT = "1.2.826.0.1.3680043.8.498."


@pytest.fixture(scope="session")
def shared_images(repository: Path) -> Path:
    """The folder with the real images; without it the test is skipped."""
    cohorts = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    folder = Path(os.environ.get("THERACAST_IMAGING", cohorts.parent / "imaging"))
    if not (folder / "sts").is_dir():
        pytest.skip(
            "the real images are not here; set THERACAST_IMAGING to the folder that holds sts/, dicom_seg/, ..."
        )
    return folder


@pytest.fixture(scope="session")
def make_series() -> Callable[..., list[Path]]:
    """A function that writes a series and returns its files in the order of their positions; see `write_series`."""
    return write_series


@pytest.fixture(scope="session")
def change() -> Callable[..., None]:
    """A function that changes elements of a file in place: by keyword, None deletes, a function gets the data set."""
    return change_file


@pytest.fixture(scope="session")
def blank() -> Callable[..., FileDataset]:
    """A function that makes a data set of a kind with its identifiers; see `blank_dataset`."""
    return blank_dataset


def uid(name: str) -> str:
    """Return the same UID for the same name."""
    return str(uids.generate_uid(prefix=ROOT, entropy_srcs=[name]))


def blank_dataset(
    kind: str, instance: str, *, series: str = "series", syntax: str = uids.ExplicitVRLittleEndian
) -> FileDataset:
    """Return a data set with file meta, patient, study, series and frame of reference."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = KINDS[kind]
    meta.MediaStorageSOPInstanceUID = uid(instance)
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = uid("writer")
    dataset = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax == uids.ImplicitVRLittleEndian,
        is_little_endian=syntax != uids.ExplicitVRBigEndian,
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID = KINDS[kind], uid(instance)
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = "P1", "P^1", "F"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid(series)
    dataset.FrameOfReferenceUID = uid("frame")
    dataset.Modality = {"ECT": "CT"}.get(kind, kind)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20200102"
    dataset.StudyTime, dataset.SeriesTime, dataset.AcquisitionTime = "100000", "101500", "101500"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model"
    return dataset


def write_series(
    folder: Path,
    *,
    kind: str = "CT",
    values: npt.NDArray[Any] | None = None,
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    spacing: tuple[float, float, float] = (2.5, 1.5, 1.25),
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    series: str = "series",
    syntax: str = uids.ExplicitVRLittleEndian,
    slope: float = 1.0,
    intercept: float = -1024.0,
    bits: int = 12,
    signed: bool = False,
    **elements: Any,
) -> list[Path]:
    """Write one file a slice of stored `values` (z, y, x); spacing is (z, y, x) in mm. `elements` are set in every file."""
    stored = demo_values() if values is None else values
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    files = []
    for number, plane in enumerate(stored):
        dataset = blank_dataset(kind, f"{series}-{number}", series=series, syntax=syntax)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = len(stored) - number  # against the positions, and files are named at random
        position = np.array(origin) + number * spacing[0] * normal
        dataset.ImagePositionPatient = [f"{part:.6f}" for part in position]
        dataset.ImageOrientationPatient = [f"{part:.9g}" for part in orientation]
        dataset.PixelSpacing = [spacing[1], spacing[2]]
        dataset.SliceThickness = spacing[0]
        dataset.SliceLocation = f"{position @ normal:.6f}"
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        allocated = stored.dtype.itemsize * 8
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
        dataset.PixelRepresentation = int(signed)
        if kind != "MR":
            dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        if kind == "CT":
            dataset.KVP, dataset.ConvolutionKernel = 120, "SOFT"
        if kind == "PT":
            _add_pet(dataset, len(stored))
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        little = syntax != uids.ExplicitVRBigEndian
        dataset.PixelData = (
            np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder("<" if little else ">")).tobytes()
        )
        dataset["PixelData"].VR = "OW"
        path = folder / f"{(number * 7 + 3) % 101:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def demo_values(shape: tuple[int, int, int] = (6, 8, 10), seed: int = 1) -> npt.NDArray[np.uint16]:
    """Return stored values of 12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)


def change_file(path: Path, edit: Callable[[FileDataset], None] | None = None, **elements: Any) -> None:
    """Change elements of a file; None deletes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if edit is not None:
        edit(dataset)
    dataset.save_as(path)


def _add_pet(dataset: FileDataset, slices: int) -> None:
    dataset.Units, dataset.DecayCorrection, dataset.NumberOfSlices = "BQML", "START", slices
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT"]
    dataset.PatientWeight, dataset.PatientSize = 70.0, 1.75
    dataset.ActualFrameDuration, dataset.FrameReferenceTime = 120000, 60000.0
    tracer = Dataset()
    tracer.RadiopharmaceuticalStartTime = "091500"
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 3.7e8, 6586.2
    dataset.RadiopharmaceuticalInformationSequence = [tracer]
