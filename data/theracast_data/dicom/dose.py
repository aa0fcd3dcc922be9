"""RT dose to the voxels of a region, and what a dose-volume histogram says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from scipy import ndimage

from theracast_data.dicom.header import HeaderError, View, open_dicom
from theracast_data.dicom.pixels import Pixels
from theracast_data.dicom.placement import check_frame
from theracast_data.dicom.series import as_datetime, date_and_time, first_acquired
from theracast_data.errors import ImageError
from theracast_data.volume import Batch, Region, Volume, check_axes, same_grid

Doses = npt.NDArray[np.float64]

WHOLE_PLANS = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW")
SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class DoseVolume:
    """The doses of the voxels of a region, in Gy, highest first; every voxel has the same volume.

    Attributes:
        doses_gy: (n_voxels,), falling.
        voxel_ml: volume of a voxel.
        share_outside: share of the region outside of the dose grid, whose dose counts as 0.
    """

    doses_gy: Doses
    voxel_ml: float
    share_outside: float = 0.0

    @property
    def mean_gy(self) -> float:
        """Mean dose."""
        return float(self.doses_gy.mean())

    @property
    def min_gy(self) -> float:
        """Lowest dose of a voxel."""
        return float(self.doses_gy[-1])

    @property
    def max_gy(self) -> float:
        """Highest dose of a voxel."""
        return float(self.doses_gy[0])

    def dose_to_share(self, percent: float) -> float:
        """Return Dx in Gy: the highest dose that at least `percent` % of the volume receives. D100 is the lowest dose."""
        if not 0 < percent <= 100:
            raise ImageError(f"D{percent:g}: the share of the volume is above 0 and at most 100 %.")
        return self._dose_to(percent / 100.0 * len(self.doses_gy))

    def dose_to_volume(self, millilitres: float) -> float:
        """Return Dx cc in Gy: the highest dose that at least so many mL receive."""
        voxels = millilitres / self.voxel_ml
        if not 0 < voxels <= len(self.doses_gy) * (1 + 1e-9):
            raise ImageError(
                f"D{millilitres:g}cc: the region has {len(self.doses_gy) * self.voxel_ml:.3f} mL; ask for a volume up to that."
            )
        return self._dose_to(voxels)

    def share_above(self, gray: float) -> float:
        """Return Vx in %: the share of the volume that receives at least `gray` Gy."""
        return 100.0 * float(np.count_nonzero(self.doses_gy >= gray)) / len(self.doses_gy)

    def equivalent_uniform_gy(self, a: float) -> float:
        """Return the generalised equivalent uniform dose in Gy, (mean of dose^a)^(1/a).

        a = 1 is the mean; large a leads to the maximum (serial organs), negative a to the minimum (tumours).
        Source: Niemierko, Med Phys 1999;26:1100.
        """
        if a == 0:
            raise ImageError("gEUD needs a other than 0. Take a < 0 for tumours, a >= 1 for organs.")
        if a < 0 and self.min_gy <= 0:
            return 0.0  # a cold spot of no dose decides
        top = self.max_gy if a > 0 else self.min_gy
        if top <= 0:
            return 0.0
        return float(top * np.mean((self.doses_gy / top) ** a) ** (1.0 / a))  # scaled, so that no power overflows

    def _dose_to(self, voxels: float) -> float:
        rank = int(np.ceil(voxels - 1e-9))
        return float(self.doses_gy[min(max(rank, 1), len(self.doses_gy)) - 1])


def read_dose(path: str | Path, *, any_summation: bool = False) -> Volume:
    """Return the dose of an RTDOSE file in Gy, planes in the order of their positions.

    Args:
        path: the file.
        any_summation: accept the dose of a part of a plan, such as one beam or fraction.

    Raises:
        ImageError: no RTDOSE file, relative dose, a part of a plan, planes that are not even, or damaged.
    """
    path = Path(path)
    dataset = open_dicom(path)
    view = View((dataset,), str(path))
    if view.need_text("SOPClassUID") != uids.RTDoseStorage:
        raise ImageError(f"{path}: this is no RT dose. Name the RTDOSE file.")
    notes = _check_kind(view, any_summation)
    frames = view.integer("NumberOfFrames") or 1
    rows, columns = view.need_integer("Rows"), view.need_integer("Columns")
    scaling = view.need_number("DoseGridScaling")
    if scaling <= 0:
        raise view.fault("DoseGridScaling (3004,000E) is not above 0")
    affine, order = _grid(view, frames)
    check_axes(affine, str(path))
    pixels = Pixels(dataset, str(path), frames=frames)
    values = np.empty((frames, rows, columns), dtype=np.float64)
    for place, frame in enumerate(order):
        np.multiply(pixels.frame(frame), scaling, out=values[place])
    if values.min() < 0:
        raise view.fault("doses are below 0: PixelRepresentation (0028,0103) is wrong, or this is a difference")
    return Volume(
        values,
        affine,
        modality="RTDOSE",
        unit="Gy",
        frame_of_reference=view.text("FrameOfReferenceUID"),
        series_uid=view.text("SeriesInstanceUID"),
        acquired=first_acquired([view]),
        subject_id=view.text("PatientID"),
        batch=Batch(view.text("Manufacturer"), view.text("ManufacturerModelName")),
        notes=tuple(notes),
    )


def region_dose(
    dose: Volume,
    region: Region,
    image: Volume,
    *,
    outside: Literal["refuse", "zero"] = "refuse",
) -> DoseVolume:
    """Return the doses at the centres of a region's voxels, interpolated trilinearly in the dose grid.

    Args:
        dose: in Gy.
        region: on the grid of `image`.
        image: the image that the region was made for; its frame of reference must be that of the dose.
        outside: voxels beyond the dose grid are refused, or counted with 0 Gy (their share is in the result).

    Raises:
        ImageError: another frame of reference, no dose in Gy, or a region beyond the dose grid.
    """
    place = f"region {region.name!r}"
    if region.mask.shape != image.shape or not same_grid(region.affine, image.affine, image.shape):
        raise ImageError(f"{place}: it is not on the grid of the image given. Name the image that it was read for.")
    doses = dose_on_grid(dose, image, needed=region.mask)[region.mask]
    return dose_volume(doses, voxel_ml=region.voxel_ml, outside=outside, place=place)


def dose_on_grid(
    dose: Volume, image: Volume, *, needed: npt.NDArray[np.bool_], origin: tuple[int, int, int] = (0, 0, 0)
) -> Doses:
    """Return the dose in Gy at the centres of an image's voxels, interpolated trilinearly; NaN beyond the dose grid.

    Args:
        needed: (n_slices, n_rows, n_columns) of the image, or of a box of it; NaN stays where it is False.
        origin: first voxel (z, y, x) of the box.

    Raises:
        ImageError: another frame of reference, or no dose in Gy.
    """
    if dose.unit != "Gy":
        raise ImageError(f"the dose is in {dose.unit}, not Gy. Read it with read_dose.")
    check_frame(dose.frame_of_reference, image, "dose")
    to_dose = np.linalg.inv(dose.affine) @ image.affine
    last = np.array(dose.shape[::-1]) - 1
    found = np.full(needed.shape, np.nan)
    for plane, wanted in enumerate(needed):  # of a whole lung, all planes at once are gigabytes
        rows, columns = np.nonzero(wanted)
        if not len(rows):
            continue
        where = np.column_stack([columns + origin[2], rows + origin[1], np.full(len(rows), plane + origin[0])])
        at = np.asarray(where @ to_dose[:3, :3].T + to_dose[:3, 3], dtype=np.float64)
        at = np.where(np.abs(at - np.round(at)) < 1e-6, np.round(at), at)
        held = ((at >= 0) & (at <= last)).all(axis=1)
        found[plane, rows[held], columns[held]] = _trilinear(dose.values, at[held])
    return found


def dose_volume(doses: Doses, *, voxel_ml: float, outside: Literal["refuse", "zero"], place: str) -> DoseVolume:
    """Return the histogram of the voxels of a region.

    Args:
        doses: (n_voxels,) in Gy, NaN beyond the dose grid.
        place: for messages.

    Raises:
        ImageError: there is no voxel, or the region lies beyond the dose grid.
    """
    if not len(doses):
        raise ImageError(f"{place}: the region holds no voxel. Take another region.")
    beyond = np.isnan(doses)
    share = float(beyond.mean())
    if share == 1:
        raise ImageError(f"{place}: it lies wholly beyond the dose grid. Name the dose of this plan.")
    if share > 0 and outside == "refuse":
        raise ImageError(
            f"{place}: {share:.2%} of it lies beyond the dose grid. Compute the dose on a larger grid, or count it as 0 Gy with "
            "outside='zero'."
        )
    return DoseVolume(np.sort(np.where(beyond, 0.0, doses))[::-1].copy(), voxel_ml, share)


def whole_plan_dose(paths: Sequence[str | Path], *, summations: Sequence[str] = WHOLE_PLANS) -> Path:
    """Return the one file among those given that holds the dose of a whole treatment, by its header.

    Args:
        summations: values of DoseSummationType (3004,000A) that count.

    Raises:
        ImageError: none does, or several.
    """
    told = {Path(path): View((open_dicom(Path(path), pixels=False),), str(path)) for path in paths}
    kinds = {path: view.need_text("DoseSummationType") for path, view in told.items()}
    found = [path for path, kind in kinds.items() if kind in summations]
    if not found:
        there = ", ".join(sorted(set(kinds.values()))) or "no dose"
        raise ImageError(
            f"no RTDOSE is that of a {' or '.join(summations)} (there is {there}): a part of a treatment says too little. Fetch "
            "the dose of the plan."
        )
    if len(found) > 1:
        shown = ", ".join(f"{path.name} {kinds[path]}" for path in found[:5])
        raise ImageError(
            f"{len(found)} RTDOSE files fit ({shown}), so which is meant is open. Narrow `dose.summation`, e.g. to [MULTI_PLAN] "
            "for the sum, or keep one."
        )
    return found[0]


def dose_made(path: str | Path) -> tuple[datetime, bool] | None:
    """Return when a dose was computed, and whether only the day is known; None where the file tells no date.

    The study's date is that of the CT as a rule, so it is the last that is asked.
    """
    view = View((open_dicom(Path(path), pixels=False),), str(path))
    for kind in ("InstanceCreation", "Content", "Series", "Study"):
        if moment := date_and_time(view, f"{kind}Date", f"{kind}Time"):
            return moment, False
        if day := as_datetime(view.text(f"{kind}Date")):
            return day, True
    return None


def _trilinear(values: npt.NDArray[np.floating], at: Doses) -> Doses:
    """Return values between the points of a grid (z, y, x); `at` is (n, 3) as x, y, z, within the grid."""
    found = ndimage.map_coordinates(np.asarray(values, dtype=np.float64), at[:, ::-1].T, order=1, mode="nearest")
    return np.asarray(found, dtype=np.float64)


def _check_kind(view: View, any_summation: bool) -> list[str]:
    """Check units, type and summation of the dose, and return notes."""
    units, kind = view.need_text("DoseUnits"), view.need_text("DoseType")
    if units != "GY":
        raise HeaderError(view.place, f"DoseUnits (3004,0002) is {units}, not GY", "Export the absolute dose")
    if kind == "ERROR":
        raise HeaderError(view.place, "DoseType (3004,0004) is ERROR: a difference of doses", "Export the dose itself")
    summation = view.need_text("DoseSummationType")
    notes = [] if kind == "PHYSICAL" else [f"the dose is {kind.lower()}, not physical"]
    if summation not in WHOLE_PLANS:
        if not any_summation:
            raise HeaderError(
                view.place,
                f"DoseSummationType (3004,000A) is {summation}: the dose of a part of the treatment",
                "Name the dose of the plan, or accept it with any_summation=True",
            )
        notes.append(f"the dose is that of a {summation.lower()}, a part of the treatment")
    if view.text("TissueHeterogeneityCorrection") == "WATER":
        notes.append("the dose was computed as in water")
    return notes


def _grid(view: View, frames: int) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Return the affine, and the frames in the order of their positions along the normal.

    GridFrameOffsetVector counts from the first plane if it begins with 0, else it tells z coordinates (axial grids only).
    Source: DICOM PS3.3 C.8.8.3.2.
    """
    between_rows, between_columns = view.need_numbers("PixelSpacing", 2)
    cosines = view.need_numbers("ImageOrientationPatient", 6)
    position = np.array(view.need_numbers("ImagePositionPatient", 3))
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    normal = np.cross(row, column)
    offsets = np.array(view.numbers("GridFrameOffsetVector") or ())
    if frames == 1 and offsets.size <= 1:
        thickness = view.number("SliceThickness")
        if not thickness:
            raise view.fault("a dose of one plane without SliceThickness (0018,0050) has no extent")
        heights = np.zeros(1)
        step = thickness
    else:
        if offsets.size != frames:
            raise view.fault(f"GridFrameOffsetVector (3004,000C) has {offsets.size} offsets for {frames} planes")
        if offsets[0] != 0:
            axial = np.abs(np.abs(normal) - [0, 0, 1]).max() < 1e-3
            if not axial or abs(offsets[0] - position[2]) > 0.01:
                raise view.fault(
                    "GridFrameOffsetVector (3004,000C) begins neither with 0 nor with the z of ImagePositionPatient (0020,0032)"
                )
            # Coordinates along z; along the normal they fall where it points to the feet.
            heights = (offsets - offsets[0]) * np.sign(normal[2])
        else:
            heights = offsets
        gaps = np.diff(np.sort(heights))
        step = float(np.mean(gaps))
        if step <= 0 or np.abs(gaps - step).max() > SPACING_TOLERANCE * step:
            raise view.fault("the planes are not evenly spaced (GridFrameOffsetVector (3004,000C))")
    order = np.argsort(heights, kind="stable")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2] = normal * step
    affine[:3, 3] = position + normal * heights[order[0]]
    return affine, [int(frame) for frame in order]
