"""Fixtures for tests of imaging."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.dataset import Dataset


@pytest.fixture(scope="session")
def shared_imaging(repository: Path) -> Path:
    """The folder with the real images; without it the test is skipped."""
    data = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    folder = Path(os.environ.get("THERACAST_IMAGING", data.parent / "imaging"))
    if not (folder / "ibsi_reference_values").is_dir():
        pytest.skip(
            "the real images are not here; set THERACAST_IMAGING to the folder that holds sts/, dicom_seg/, ..."
        )
    return folder


@pytest.fixture(scope="session")
def write_dose() -> Callable[..., Path]:
    """A function that writes an RTDOSE of Gy (n_planes, n_rows, n_columns) over a scan that `write_scan` has written."""

    def write(
        scan: Path,
        gray: np.ndarray,
        *,
        origin: tuple[float, float, float] = (-14.0, -24.0, 26.0),
        spacing: tuple[float, float, float] = (4.0, 3.0, 2.5),
        made: str | None = "20240117",
        file: str = "dose.dcm",
        **elements: Any,
    ) -> Path:
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
        phases: np.ndarray,
        *,
        apart: dict[str, Sequence[Any]],
        name: str = "dce",
        regions: dict[str, Any] | None = None,
        **elements: Any,
    ) -> Path:
        series, frame = (uids.generate_uid(entropy_srcs=[name, str(elements), one]) for one in ("series", "frame"))
        target = folder / name
        (target / "image").mkdir(parents=True)
        for number, values in enumerate(phases):
            own = {keyword: told[number] for keyword, told in apart.items()}
            common = {"kind": "MR", "SeriesInstanceUID": series, "FrameOfReferenceUID": frame} | elements
            scan = write_scan(
                folder,
                name=f"{name}-{number}",
                values=values.astype(np.uint16),
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
