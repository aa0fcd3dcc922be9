"""DICOM files made fast: a data set is built once with its libraries, and its bytes are filled in for each patient."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pydicom.uid as uids
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from theracast_data.errors import ImageError
from theracast_data.synthetic.lesions import Scanner

Booleans = NDArray[np.bool_]
Stored = NDArray[np.uint16]
Corners = list[tuple[int, int]]

REGION = "GTV-1"
INTERCEPT_HU = -1024
_ROOT = "1.2.826.0.1.3680043.8.498."  # of pydicom, for UIDs that are no organisation's
_SUBJECT = "PROTO-ID"
_NAMED = ("study", "frame", "ct", "ct-file", "ct-slices", "seg", "seg-file", "lesion", "dimensions")
_MOST_SLICES = 99
_TRUE_PLACES = 3  # of a position, in mm


def uid(*names: object) -> str:
    """Return a UID of 64 characters, the same for the same names."""
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()
    return f"{_ROOT}{1 + int(digest, 16) % (10**38 - 1):038d}".replace(f"{_ROOT}0", f"{_ROOT}9")


class Template:
    """The bytes of a file, with the places of the values that change from patient to patient.

    Args:
        fields: values by which the places are found; one that the file does not have is left alone, but for `pixels`.
    """

    def __init__(self, dataset: Dataset, fields: Mapping[str, bytes]) -> None:
        memory = io.BytesIO()
        dataset.save_as(memory, enforce_file_format=True)
        self._content = memory.getvalue()
        found = {name: (_places(self._content, value), len(value)) for name, value in fields.items()}
        self._places = {name: place for name, place in found.items() if place[0]}
        if not {"pixels", "subject", "day", "clock"} <= set(self._places):
            raise ImageError(
                "the template lacks pixels, patient or date: the libraries write them otherwise than expected."
            )

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """Return the file with these values, each as long as the one in whose place it comes.

        Raises:
            ImageError: a value is missing or has another length.
        """
        content = bytearray(self._content)
        for name, (places, length) in self._places.items():
            value = values.get(name, b"")
            if len(value) != length:
                raise ImageError(f"{name} has {len(value)} bytes where the template has room for {length}.")
            for place in places:
                content[place : place + length] = value
        return bytes(content)


@dataclass(frozen=True)
class Study:
    """Whose images they are, and when they were made; UIDs follow from it."""

    subject_id: str
    taken: datetime

    def uid(self, *names: object) -> str:
        """Return the UID of something of the study."""
        return uid(self.subject_id, self.taken.isoformat(), *names)

    @property
    def fields(self) -> dict[str, bytes]:
        """The values of the study in its files, in DICOM's encoding."""
        named = {name: self.uid(name).encode() for name in _NAMED}
        return named | {
            "subject": self.subject_id.ljust(len(_SUBJECT)).encode(),
            "day": _day(self).encode(),
            "clock": _clock(self).encode(),
        }

    def instances(self, count: int) -> dict[str, bytes]:
        """Return the UIDs of the slices."""
        return {f"slice-{number}": self.uid("slice", number).encode() for number in range(count)}


PROTOTYPE = Study(_SUBJECT, datetime(1901, 2, 3, 23, 59, 58, 123000))  # noqa: DTZ001 local, as in DICOM


def prototype_template(dataset: Dataset, pixels: bytes) -> Template:
    """Return the template of a prototype's data set, of which all but the pixels is found by itself."""
    return Template(dataset, PROTOTYPE.fields | PROTOTYPE.instances(_MOST_SLICES) | {"pixels": pixels})


def ct_slices(scanner: Scanner, study: Study, values: Stored, *, series: str = "ct") -> list[FileDataset]:
    """Return the CT Image Storage data sets of stored values (n_slices, n_rows, n_columns), from the feet upwards."""
    return [_ct_slice(scanner, study, number, values, series) for number in range(len(values))]


def _ct_slice(scanner: Scanner, study: Study, number: int, values: Stored, series: str) -> FileDataset:
    plane, count = values[number], len(values)
    dataset = _blank(uids.CTImageStorage, study.uid("slice", number), study)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = "CT", study.uid(series), 2
    dataset.SeriesDescription = "CT abdomen venous"
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _day(study)
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = _clock(study)
    dataset.Manufacturer, dataset.ManufacturerModelName = scanner.manufacturer, scanner.model
    dataset.KVP, dataset.ConvolutionKernel, dataset.SliceThickness = 120, scanner.kernel, scanner.spacing_mm[0]
    dataset.PatientPosition, dataset.AcquisitionNumber, dataset.InstanceNumber = "HFS", 1, count - number
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = study.uid("frame"), ""
    dataset.ImagePositionPatient = [f"{part:.{_TRUE_PLACES}f}" for part in position_mm(scanner, number)]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], list(scanner.spacing_mm[1:])
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = 60, 360
    dataset.PixelData = plane.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def position_mm(scanner: Scanner, number: int) -> tuple[float, float, float]:
    """Return the centre of the first voxel of a slice, LPS (x, y, z); the image lies to the right, where the liver is."""
    _, rows, columns = scanner.shape
    dz, dy, dx = scanner.spacing_mm
    return -70.0 - dx * (columns - 1) / 2, -20.0 - dy * (rows - 1) / 2, -300.0 + dz * number


def structure_set(scanner: Scanner, study: Study, mask: Booleans) -> FileDataset:
    """Return an RT structure set with the outline of the region in each slice."""
    dataset = _blank(uids.RTStructureSetStorage, study.uid("rtstruct-file"), study)
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = "RTSTRUCT", study.uid("rtstruct"), 3
    dataset.Manufacturer, dataset.OperatorsName = "Synthetic Contours", ""
    dataset.StructureSetLabel = "Lesion"
    dataset.StructureSetDate, dataset.StructureSetTime = _day(study), _clock(study)
    images = [_reference(study, number) for number in range(len(mask))]
    series = _item(SeriesInstanceUID=study.uid("ct"), ContourImageSequence=images)
    whole = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=study.uid("study"),
        RTReferencedSeriesSequence=[series],
    )
    frame = study.uid("frame")
    dataset.ReferencedFrameOfReferenceSequence = [_item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[whole])]
    dataset.StructureSetROISequence = [
        _item(ROINumber=1, ReferencedFrameOfReferenceUID=frame, ROIName=REGION, ROIGenerationAlgorithm="SEMIAUTOMATIC")
    ]
    contours = [
        _contour(scanner, study, number, loop) for number in range(len(mask)) for loop in outlines(mask[number])
    ]
    dataset.ROIContourSequence = [_item(ReferencedROINumber=1, ROIDisplayColor=[255, 0, 0], ContourSequence=contours)]
    dataset.RTROIObservationsSequence = [
        _item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="GTV", ROIInterpreter="")
    ]
    return dataset


def _contour(scanner: Scanner, study: Study, number: int, loop: Corners) -> Dataset:
    x, y, z = position_mm(scanner, number)
    _, dy, dx = scanner.spacing_mm
    points = [
        f"{part:.{_TRUE_PLACES}f}"
        for row, column in loop
        for part in (x + dx * (column - 0.5), y + dy * (row - 0.5), z)
    ]
    item = _item(
        ContourImageSequence=[_reference(study, number)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(loop),
    )
    # As text, as it is written: a decimal string of pydicom for each coordinate takes longer than all else.
    item.add(DataElement("ContourData", "DS", points, already_converted=True))
    return item


def _reference(study: Study, number: int) -> Dataset:
    return _item(ReferencedSOPClassUID=uids.CTImageStorage, ReferencedSOPInstanceUID=study.uid("slice", number))


def outlines(plane: Booleans) -> list[Corners]:
    """Return the closed outlines of a mask (n_rows, n_columns) along the edges of its pixels, as corners (row, column).

    A corner (r, c) is the one above and left of the pixel (r, c). Holes have outlines of their own.
    """
    padded = np.pad(plane, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each edge has the region on its right: along the top to the right, down on the right, and so on.
    for (shift_row, shift_column), (begin, end) in {
        (-1, 0): ((0, 0), (0, 1)),
        (0, 1): ((0, 1), (1, 1)),
        (1, 0): ((1, 1), (1, 0)),
        (0, -1): ((1, 0), (0, 0)),
    }.items():
        neighbour = np.roll(padded, (-shift_row, -shift_column), axis=(0, 1))
        for row, column in np.argwhere(padded & ~neighbour).tolist():
            start = (row - 1 + begin[0], column - 1 + begin[1])
            steps.setdefault(start, []).append((row - 1 + end[0], column - 1 + end[1]))
    found: list[Corners] = []
    while steps:
        first = at = next(iter(steps))
        loop: Corners = []
        while True:
            loop.append(at)
            following = steps[at]
            after = following.pop()
            if not following:
                del steps[at]
            at = after
            if at == first:
                break
        found.append(_corners_only(loop))
    return found


def _corners_only(loop: Corners) -> Corners:
    """Return an outline without the points at which it goes straight on."""
    turns = zip(loop[-1:] + loop[:-1], loop, loop[1:] + loop[:1], strict=True)
    return [here for before, here, after in turns if before[0] != after[0] and before[1] != after[1]]


def segmentation(source: Sequence[Dataset], study: Study, mask: Booleans) -> Dataset:
    """Return a binary DICOM segmentation of the region, with all slices, made by highdicom.

    Args:
        source: the CT, one data set a slice or one for all.
        mask: (n_slices, n_rows, n_columns), in the order of `source` or its frames.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=REGION,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        tracking_uid=study.uid("lesion"),
        tracking_id="lesion 1",
    )
    made = highdicom.seg.Segmentation(
        source_images=source,
        pixel_array=mask.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=study.uid("seg"),
        series_number=3,
        sop_instance_uid=study.uid("seg-file"),
        instance_number=1,
        manufacturer="Synthetic Contours",
        manufacturer_model_name="Outline",
        software_versions="1",
        device_serial_number="0",
        series_description="Lesion",
        omit_empty_frames=False,
    )
    return _settled(made, study)


def enhanced(slices: Sequence[Dataset], study: Study) -> Dataset:
    """Return the slices as one multi-frame file, as archives convert them, made by highdicom; the first frame is the last."""
    import highdicom

    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=slices,
        series_instance_uid=study.uid("ct"),
        series_number=2,
        sop_instance_uid=study.uid("ct-file"),
        instance_number=1,
    )
    return _settled(made, study)


def _settled(dataset: Dataset, study: Study) -> Dataset:
    """Return the data set with the clock and the random UIDs that highdicom has put in taken out."""
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = _day(study)
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = _clock(study)
    for item in dataset.ContributingEquipmentSequence:
        item.ContributionDateTime = f"{_day(study)}{_clock(study)}"
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = study.uid("dimensions")
    return dataset


def _blank(kind: str, instance: str, study: Study) -> FileDataset:
    """Return a data set with file meta, patient and study; no more of a patient than the identifier."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uids.UID(kind), uids.UID(instance)
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uids.UID(uid("theracast synthetic images"))
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, instance
    dataset.PatientID, dataset.PatientName = study.subject_id, f"Synthetic^{study.subject_id}"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber, dataset.StudyID = "", "1"
    dataset.StudyInstanceUID = study.uid("study")
    dataset.StudyDate, dataset.StudyTime = _day(study), _clock(study)
    return dataset


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _day(study: Study) -> str:
    return study.taken.strftime("%Y%m%d")


def _clock(study: Study) -> str:
    return f"{study.taken:%H%M%S}.{study.taken.microsecond // 1000:03d}"


def _places(content: bytes, value: bytes) -> list[int]:
    found, at = list[int](), content.find(value)
    while at >= 0:
        found.append(at)
        at = content.find(value, at + len(value))
    return found
