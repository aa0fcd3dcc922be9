"""Image planes of DICOM files: one a file, or one a frame of an enhanced multi-frame file, with what must agree among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.faults import Faults
from theracast_data.dicom.header import HeaderError, View, tag_name, uid_name
from theracast_data.errors import ImageError

SINGLE_FRAME: dict[str, str] = {
    uids.CTImageStorage: "CT",
    uids.MRImageStorage: "MR",
    uids.PositronEmissionTomographyImageStorage: "PT",
}
MULTI_FRAME: dict[str, str] = {
    uids.EnhancedCTImageStorage: "CT",
    uids.EnhancedMRImageStorage: "MR",
    uids.EnhancedPETImageStorage: "PT",
    uids.LegacyConvertedEnhancedCTImageStorage: "CT",
    uids.LegacyConvertedEnhancedMRImageStorage: "MR",
    uids.LegacyConvertedEnhancedPETImageStorage: "PT",
}
IMAGES = SINGLE_FRAME | MULTI_FRAME

IDENTITY = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SOPClassUID",
    "Manufacturer",
    "ManufacturerModelName",
)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
STORED = ("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
SCALE = ("RescaleType", "Units", "DecayCorrection", "SUVType", "CorrectedImage")
ACQUISITION = ("ImageType", "FrameType", "ConvolutionKernel", "StackID")
ACQUISITION_NUMBERS = (
    "KVP",
    "EchoTime",
    "EffectiveEchoTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "InversionTime",
    "FlipAngle",
    "SliceThickness",
)

MEASURED = {"Bq/ml": "BQML", "{SUVbw}g/ml": "GML", "g/ml{SUVbw}": "GML", "{counts}": "CNTS"}
"""Units of PET in the code of enhanced images (UCUM, DICOM CID 83 and 84), as Units (0054,1001) tells them."""

Trait = str | float | tuple[float, ...] | None


@dataclass(frozen=True)
class Slice:
    """One plane.

    Attributes:
        view: its elements.
        path: the file.
        frame: number of the frame in the file, from 0.
        position: of the centre of the first voxel, LPS mm.
        cosines: of the row (direction of growing column) and of the column, six numbers.
        spacing: between rows and between columns, mm.
        rows, columns: size.
        slope, intercept: stored value to value.
        traits: what must be the same in all slices of a volume.
    """

    view: View
    path: Path
    frame: int
    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int
    slope: float
    intercept: float
    traits: Mapping[str, Trait]

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self.view.place

    @property
    def dataset(self) -> Dataset:
        """The data set of its file."""
        return self.view.sources[-1]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector at right angles to the plane."""
        normal = np.cross(self.cosines[:3], self.cosines[3:])
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def read_slices(
    datasets: Sequence[tuple[Path, FileDataset]],
    faults: Faults,
    select: Mapping[str, str | float] | None = None,
) -> list[Slice]:
    """Return the planes of the data sets that have the selected values; what is wrong with one is noted in `faults`.

    Raises:
        ImageError: no image has a selected value; told with the values that there are.
    """
    views: list[tuple[Path, int, View]] = []
    for path, dataset in datasets:
        try:
            views += [(path, frame, view) for frame, view in enumerate(_views(path, dataset))]
        except HeaderError as fault:
            faults.add(fault.what, f"{fault.remedy}.", fault.place)
    for keyword, wanted in (select or {}).items():
        views = _selected(views, keyword, wanted, faults)
    found: list[Slice] = []
    for path, frame, view in views:
        try:
            found.append(_slice(view, path, frame))
        except HeaderError as fault:
            faults.add(fault.what, f"{fault.remedy}.", fault.place)
    return found


def _selected(
    views: list[tuple[Path, int, View]], keyword: str, wanted: str | float, faults: Faults
) -> list[tuple[Path, int, View]]:
    try:
        values = [_as_trait(view, keyword) for _, _, view in views]
    except KeyError as error:
        raise ImageError(f"{keyword!r} is no DICOM keyword. Write it as in the standard, e.g. 'EchoTime'.") from error
    chosen = [one for one, value in zip(views, values, strict=True) if same_trait(value, _wanted(wanted))]
    if not chosen:
        there = ", ".join(sorted({_text(value) for value in values})[:8])
        raise ImageError(
            f"{faults.place}: no image has {keyword} = {wanted}; there is {there or 'no image'}. Select one of these."
        )
    return chosen


def _text(value: Trait) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def pet_units(view: View) -> str:
    """Return the unit of PET values: Units (0054,1001), or that of the real-world values of an enhanced image.

    Raises:
        ImageError: neither is there.
    """
    units = view.text("Units")
    if units is not None:
        return units
    codes = [View((item,), view.place).text("CodeValue") or "" for item in view.items("MeasurementUnitsCodeSequence")]
    if len(codes) != 1:
        raise view.fault("Units (0054,1001) is missing, and so is MeasurementUnitsCodeSequence (0040,08EA)")
    return MEASURED.get(codes[0], codes[0])


def same_trait(first: Trait, second: Trait) -> bool:
    """Return whether two values are the same; numbers to a relative 1e-4."""
    if isinstance(first, str) or isinstance(second, str) or first is None or second is None:
        return first == second
    one, other = np.atleast_1d(first), np.atleast_1d(second)
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-4))


def _wanted(value: str | float) -> Trait:
    try:
        return float(value)
    except ValueError:
        return str(value)


def _as_trait(view: View, keyword: str) -> Trait:
    text = view.text(keyword)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _views(path: Path, dataset: FileDataset) -> list[View]:
    """Return one view a plane."""
    whole = View((dataset,), path.name)
    kind = whole.need_text("SOPClassUID")
    if kind not in IMAGES:
        name = uid_name(kind)
        raise HeaderError(
            path.name,
            f"this is no CT, MR or PET image but {name!r}",
            "Take it out of the folder, or read it with the reader for its kind",
        )
    frames = whole.integer("NumberOfFrames") or 1
    if kind in SINGLE_FRAME:
        if frames != 1:
            raise whole.fault(f"NumberOfFrames (0028,0008) is {frames} in a kind of image that has one frame")
        return [whole]
    return functional_groups(whole, frames)


def functional_groups(whole: View, frames: int) -> list[View]:
    """Return one view a frame of a multi-frame file: its own functional groups, the shared ones, the data set."""
    dataset = whole.sources[0]
    shared = _groups(whole, "SharedFunctionalGroupsSequence")
    per_frame = whole.items("PerFrameFunctionalGroupsSequence")
    if len(per_frame) != frames:
        raise whole.fault(
            f"PerFrameFunctionalGroupsSequence (5200,9230) describes {len(per_frame)} frames, "
            f"NumberOfFrames (0028,0008) says {frames}"
        )
    common = tuple(group for item in shared for group in _macros(item, whole))
    return [
        View((*_macros(item, whole), *common, dataset), f"{whole.place} frame {number}")
        for number, item in enumerate(per_frame, start=1)
    ]


def _groups(view: View, keyword: str) -> list[Dataset]:
    items = view.items(keyword)
    if len(items) > 1:
        raise view.fault(f"{keyword} has {len(items)} items, not 1")
    return items


def _macros(item: Dataset, view: View) -> tuple[Dataset, ...]:
    """Return the functional groups of a frame: of each sequence its item. Of two, neither holds alone, so that none is taken."""
    try:
        return tuple(element.value[0] for element in item if element.VR == "SQ" and len(element.value) == 1)
    except Exception as error:  # pydicom converts late, and fails in many ways
        raise view.fault("a functional group cannot be read: the file is damaged") from error


def _slice(view: View, path: Path, frame: int) -> Slice:
    modality = view.need_text("Modality")
    if IMAGES[view.need_text("SOPClassUID")] != modality:
        raise view.fault(f"Modality (0008,0060) is {modality}, which the kind of image contradicts")
    rows, columns = view.need_integer("Rows"), view.need_integer("Columns")
    spacing = view.need_numbers("PixelSpacing", 2)
    if min(rows, columns) < 1 or min(spacing) <= 0:
        raise view.fault("Rows, Columns or PixelSpacing (0028,0030) is not positive")
    cosines = view.need_numbers("ImageOrientationPatient", 6)
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    if abs(row @ row - 1) > 2e-3 or abs(column @ column - 1) > 2e-3 or abs(row @ column) > 1e-3:
        raise view.fault("ImageOrientationPatient (0020,0037) is not two unit vectors at right angles")
    if view.raw("ModalityLUTSequence") is not None:
        raise HeaderError(
            view.place,
            "values go through a table (ModalityLUTSequence (0028,3000)), which is not a linear scale",
            "Export the series with RescaleSlope and RescaleIntercept",
        )
    slope, intercept = _scale(view, modality)
    grid: dict[str, Trait] = {
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": spacing,
        "ImageOrientationPatient": cosines,
        "RescaleIntercept": intercept,
    }
    if modality != "PT":  # in PET every slice may have a slope of its own (GE)
        grid["RescaleSlope"] = slope
    return Slice(
        view=view,
        path=path,
        frame=frame,
        position=view.need_numbers("ImagePositionPatient", 3),
        cosines=cosines,
        spacing=spacing,
        rows=rows,
        columns=columns,
        slope=slope,
        intercept=intercept,
        traits=grid | _traits(view, modality),
    )


def _scale(view: View, modality: str) -> tuple[float, float]:
    """Return slope and intercept. CT and PET must have them; MR may have none, but not half.

    PET of an enhanced image tells its unit with the slope and intercept of the real-world values; these then count.
    """
    slope, intercept = view.number("RescaleSlope"), view.number("RescaleIntercept")
    if modality == "PT" and view.text("Units") is None:
        slope, intercept = view.number("RealWorldValueSlope"), view.number("RealWorldValueIntercept")
    if slope is None and intercept is None and modality == "MR":
        return 1.0, 0.0
    if slope is None or intercept is None:
        missing = "RescaleSlope (0028,1053)" if slope is None else "RescaleIntercept (0028,1052)"
        if modality == "PT" and view.text("Units") is None:
            missing = "Units (0054,1001), or RealWorldValueSlope (0040,9225) or RealWorldValueIntercept (0040,9224),"
        raise view.fault(f"{missing} is missing")
    if slope == 0:
        raise view.fault("RescaleSlope (0028,1053) is 0")
    return slope, intercept


def _traits(view: View, modality: str) -> dict[str, Trait]:
    """Return what must agree beside the grid and the scale."""
    if view.integer("SamplesPerPixel") != 1:
        raise HeaderError(
            view.place,
            "SamplesPerPixel (0028,0002) is not 1: a colour picture holds no measured values",
            "Take it out of the folder",
        )
    for keyword in UIDS:
        uid = view.text(keyword)
        if uid is not None and not (uid.replace(".", "").isdecimal() and uid.isascii()):
            raise view.fault(f"{tag_name(keyword)} is no UID: it is damaged")
    traits: dict[str, Trait] = {
        keyword: view.text(keyword) for keyword in (*IDENTITY, *STORED, *PADDING, *SCALE, *ACQUISITION)
    }
    if modality == "PT":
        traits["Units"] = pet_units(view)
    return traits | {keyword: view.number(keyword) for keyword in ACQUISITION_NUMBERS}
