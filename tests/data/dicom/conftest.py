"""Small valid CT, PET and MR series, written with pydicom; tests break copies of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
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
    "EPT": uids.EnhancedPETImageStorage,
    "RTSTRUCT": uids.RTStructureSetStorage,
    "RTDOSE": uids.RTDoseStorage,
    "SEG": uids.SegmentationStorage,
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


@pytest.fixture(scope="session")
def compress() -> Callable[[Path, uids.UID], None]:
    """A function that compresses a file in place."""
    return compress_file


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
    dataset.Modality = {"ECT": "CT", "EPT": "PT"}.get(kind, kind)
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


@pytest.fixture(scope="session")
def fuzz_objects() -> Callable[[Path, Any], dict[str, Path]]:
    """A function that writes one small valid file of each kind that belongs to an image."""
    return write_objects


def write_objects(folder: Path, image: Any) -> dict[str, Path]:
    """Write a structure set, a segmentation, a dose, an enhanced CT, NIfTI and NRRD files; return them by kind."""
    affine = image.affine
    struct = blank_dataset("RTSTRUCT", "struct", series="struct")
    region, holder, contour = Dataset(), Dataset(), Dataset()
    region.ROINumber, region.ROIName = 1, "GTV"
    region.ReferencedFrameOfReferenceUID = image.frame_of_reference
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    corners = np.array([affine @ [column, row, 2, 1] for column, row in ((1, 1), (6, 1), (6, 5), (1, 5))])[:, :3]
    contour.ContourData = [f"{number:.6f}" for number in corners.ravel()]
    holder.ReferencedROINumber, holder.ContourSequence = 1, [contour]
    struct.StructureSetROISequence, struct.ROIContourSequence = [region], [holder]
    struct.save_as(folder / "struct.dcm", enforce_file_format=True)
    _write_seg(folder / "seg.dcm", image)
    dose = blank_dataset("RTDOSE", "dose", series="dose")
    _frames(dose, 3, 4, 5, bits=32)
    dose.ImagePositionPatient, dose.ImageOrientationPatient = [-12, -22, 28], [1, 0, 0, 0, 1, 0]
    dose.PixelSpacing, dose.GridFrameOffsetVector = [3.0, 2.5], [0.0, 4.0, 8.0]
    dose.DoseUnits, dose.DoseType, dose.DoseSummationType, dose.DoseGridScaling = "GY", "PHYSICAL", "PLAN", 1e-4
    dose.PixelData = np.arange(60, dtype=np.uint32).tobytes()
    dose["PixelData"].VR = "OW"
    dose.save_as(folder / "dose.dcm", enforce_file_format=True)
    _write_enhanced(folder / "enhanced.dcm")
    mask = np.zeros(image.shape[::-1], dtype=np.uint8)
    mask[2:5, 2:5, 2:4] = 1
    nifti = nib.Nifti1Image(mask, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    nifti.header.set_xyzt_units("mm")
    nib.save(nifti, folder / "mask.nii")
    nib.save(nifti, folder / "image.nii.gz")
    header = {"space": "LPS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(folder / "image.nrrd"), mask, header)
    return {
        "rtstruct": folder / "struct.dcm",
        "seg": folder / "seg.dcm",
        "dose": folder / "dose.dcm",
        "enhanced": folder / "enhanced.dcm",
        "nifti": folder / "image.nii.gz",
        "nifti mask": folder / "mask.nii",
        "nrrd": folder / "image.nrrd",
    }


def _frames(dataset: FileDataset, frames: int, rows: int, columns: int, *, bits: int) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0


def _placed(position: Any, **content: Any) -> Dataset:
    item, plane, frame = Dataset(), Dataset(), Dataset()
    plane.ImagePositionPatient = [f"{part:.6f}" for part in position]
    for keyword, value in content.items():
        setattr(frame, keyword, value)
    item.PlanePositionSequence, item.FrameContentSequence = [plane], [frame]
    return item


def _shared(spacing: list[float], cosines: list[float], **transform: Any) -> Dataset:
    item, measures, orientation, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = spacing, 2.5
    orientation.ImageOrientationPatient = cosines
    for keyword, value in transform.items():
        setattr(scale, keyword, value)
    item.PixelMeasuresSequence, item.PlaneOrientationSequence = [measures], [orientation]
    item.PixelValueTransformationSequence = [scale]
    return item


def _write_seg(path: Path, image: Any) -> None:
    seg = blank_dataset("SEG", "seg", series="seg")
    _, rows, columns = image.shape
    _frames(seg, 2, rows, columns, bits=1)
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 1, "tumour"
    seg.SegmentSequence, seg.SegmentationType = [segment], "BINARY"
    _, y_step, x_step = image.spacing_mm
    cosines = [*(image.affine[:3, 0] / x_step), *(image.affine[:3, 1] / y_step)]
    seg.SharedFunctionalGroupsSequence = [_shared([y_step, x_step], [float(part) for part in cosines])]
    items = []
    for plane in (1, 2):
        item = _placed((image.affine @ [0, 0, plane, 1])[:3])
        identity = Dataset()
        identity.ReferencedSegmentNumber = 1
        item.SegmentIdentificationSequence = [identity]
        items.append(item)
    seg.PerFrameFunctionalGroupsSequence = items
    seg.PixelData = np.packbits(np.ones(2 * rows * columns, dtype=np.uint8), bitorder="little").tobytes()
    seg["PixelData"].VR = "OB"
    seg.save_as(path, enforce_file_format=True)


def _write_enhanced(path: Path) -> None:
    image = blank_dataset("ECT", "enhanced")
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    _frames(image, 3, 4, 5, bits=16)
    image.SharedFunctionalGroupsSequence = [
        _shared([1.0, 1.0], [1, 0, 0, 0, 1, 0], RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU")
    ]
    image.PerFrameFunctionalGroupsSequence = [_placed((0, 0, 2.5 * plane), StackID="1") for plane in range(3)]
    image.PixelData = np.arange(60, dtype=np.uint16).tobytes()
    image["PixelData"].VR = "OW"
    image.save_as(path, enforce_file_format=True)


def compress_file(path: Path, syntax: uids.UID) -> None:
    """Compress a file in place with an encoder that is not the decoder under test where there are two."""
    dataset = pydicom.dcmread(path)
    if syntax in (uids.JPEGLosslessSV1, uids.JPEGBaseline8Bit, uids.JPEG2000Lossless):
        gdcm = pytest.importorskip("gdcm")
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        changer = gdcm.ImageChangeTransferSyntax()
        kinds = {
            uids.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
            uids.JPEGBaseline8Bit: gdcm.TransferSyntax.JPEGBaselineProcess1,
            uids.JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
        }
        changer.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        changer.SetInput(reader.GetImage())
        assert changer.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(changer.GetOutput())
        assert writer.Write()
        return
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
