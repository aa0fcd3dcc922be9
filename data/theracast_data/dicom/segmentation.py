"""Segments of a DICOM segmentation (SEG) on the grid of an image, each frame put where its position says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids

from theracast_data.dicom.header import EXPORT_AGAIN, View, open_dicom
from theracast_data.dicom.pixels import NATIVE, PIXEL_DATA, Pixels, stored_as
from theracast_data.dicom.placement import ON_GRID, Affine, check_frame, other_patient, place_mask, placed_region
from theracast_data.dicom.slices import functional_groups
from theracast_data.errors import ImageError
from theracast_data.volume import BoolArray, Region, Volume, check_axes

LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True)
class SegFrame:
    """One frame: its pixels, and what maps (column, row, 0, 1) to LPS mm."""

    number: int
    mask: BoolArray
    affine: Affine


def segment_names(path: str | Path) -> dict[int, str]:
    """Return the label of each segment by its number."""
    view = _open(Path(path))
    return segments_in(view)


def read_segmentation(
    path: str | Path,
    segment: str | int,
    volume: Volume,
    *,
    threshold: float = 0.5,
    resample: bool = False,
    other_series: bool = False,
) -> Region:
    """Return one segment as a mask on the image.

    Args:
        path: the SEG file.
        segment: label or number.
        volume: the image.
        threshold: of a fractional segmentation, share of its maximum from which a voxel belongs to the region.
        resample: allow another grid than that of the image (nearest voxel).
        other_series: accept a segmentation of another series in the same frame of reference.

    Raises:
        ImageError: no such segment, another frame of reference, series or grid, or outside of the image.
    """
    view = _open(Path(path))
    number, label = _chosen(segments_in(view), segment, view.place)
    place = f"{path}, segment {number} {label!r}"
    check_frame(view.text("FrameOfReferenceUID"), volume, place)
    notes = _check_series(view, volume, place, other_series) + other_patient(view.text("PatientID"), volume)
    frames, how = _frames(view, number, threshold)
    notes += how
    if not frames:
        raise ImageError(f"{place}: no frame belongs to the segment. Take another, or export again.")
    placed = _on_grid(frames, volume)
    if placed is None:
        mask, affine = _stacked(frames, view, place)
        mask, share, more = place_mask(mask, affine, volume, resample=resample, place=place)
        placed, notes = (mask, share), notes + more
    return placed_region(label, placed[0], volume, "seg", share_outside=placed[1], notes=notes, place=place)


def _open(path: Path) -> View:
    view = View((open_dicom(path),), str(path))
    if view.need_text("SOPClassUID") not in (uids.SegmentationStorage, LABELMAP):
        raise ImageError(f"{path}: this is no DICOM segmentation. Name the SEG file.")
    return view


def segments_in(view: View) -> dict[int, str]:
    """Return the label of each segment of an open segmentation, by its number."""
    found: dict[int, str] = {}
    for item in view.items("SegmentSequence"):
        one = View((item,), view.place)
        number = one.need_integer("SegmentNumber")
        if number in found:
            raise ImageError(f"{view.place}: two segments have the number {number}. {EXPORT_AGAIN}.")
        found[number] = one.text("SegmentLabel") or ""
    return found


def _chosen(segments: dict[int, str], segment: str | int, place: str) -> tuple[int, str]:
    numbers = [number for number, label in segments.items() if segment in (number, label)]
    there = ", ".join(f"{number} {label!r}" for number, label in segments.items())
    if len(numbers) != 1:
        how = "no segment is" if not numbers else f"{len(numbers)} segments are"
        raise ImageError(f"{place}: {how} {segment!r}; there are {there or 'none'}. Name one by its number.")
    return numbers[0], segments[numbers[0]]


def referenced_series(view: View) -> set[str]:
    """Return the series that a segmentation says it was made on."""
    items = view.items("ReferencedSeriesSequence")
    return {uid for item in items if (uid := View((item,), view.place).text("SeriesInstanceUID"))}


def _check_series(view: View, volume: Volume, place: str, other_series: bool) -> list[str]:
    series = referenced_series(view)
    if not series:
        return ["the segmentation names no series; it was matched by frame of reference and position"]
    if volume.series_uid in series:
        return []
    if not other_series:
        raise ImageError(
            f"{place}: it was made on the series {', '.join(sorted(series))}, not on the image's {volume.series_uid}. Name "
            "that series, or accept this one, which is in the same frame of reference, with other_series=True."
        )
    return ["the segmentation was made on another series in the same frame of reference"]


def _frames(view: View, number: int, threshold: float) -> tuple[list[SegFrame], list[str]]:
    """Return the frames of a segment, and how their values became a mask."""
    count = view.need_integer("NumberOfFrames")
    views = functional_groups(view, count)
    kind = "LABELMAP" if view.text("SOPClassUID") == LABELMAP else view.need_text("SegmentationType")
    values = _values(view, kind, count)
    notes: list[str] = []
    if kind == "FRACTIONAL":
        top = view.need_integer("MaximumFractionalValue")
        if not 0 < threshold <= 1:
            raise ImageError(f"threshold is {threshold:g}; it is a share above 0, up to 1.")
        if int(values.max(initial=0)) > top:
            raise view.fault("a fraction is above MaximumFractionalValue (0062,000E)")
        what = (view.text("SegmentationFractionalType") or "fraction").lower()
        notes.append(f"voxels of a {what} of at least {threshold:g} belong to the region")
    found = []
    for index, one in enumerate(views):
        if kind == "LABELMAP":
            mask = values[index] == number
        elif one.need_integer("ReferencedSegmentNumber") != number:
            continue
        else:
            mask = values[index] != 0 if kind == "BINARY" else values[index] >= threshold * top
        found.append(SegFrame(index + 1, mask, _plane(one)))
    return found, notes


def _values(view: View, kind: str, frames: int) -> npt.NDArray[Any]:
    """Return the stored values, (n_frames, n_rows, n_columns)."""
    dataset = view.sources[0]
    rows, columns = view.need_integer("Rows"), view.need_integer("Columns")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise view.fault(f"SegmentationType (0062,0001) is {kind}")
    if view.need_integer("BitsAllocated") != 1:
        photometric = ("MONOCHROME2", "PALETTE COLOR") if kind == "LABELMAP" else ("MONOCHROME2",)
        pixels = Pixels(dataset, view.place, frames=frames, photometric=photometric)
        return np.stack([pixels.frame(number) for number in range(frames)])
    if stored_as(dataset, view) not in NATIVE:
        raise view.fault("a binary segmentation is compressed, which is not read here")
    data = view.raw(PIXEL_DATA)
    needed = rows * columns * frames
    if not isinstance(data, bytes) or len(data) not in (-(-needed // 8), -(-needed // 8) + 1):
        raise view.fault("PixelData (7FE0,0010) has not the bytes that the frames need: it is truncated or damaged")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=needed, bitorder="little")
    return bits.reshape(frames, rows, columns)


def _plane(view: View) -> Affine:
    between_rows, between_columns = view.need_numbers("PixelSpacing", 2)
    cosines = view.need_numbers("ImageOrientationPatient", 6)
    affine = np.eye(4)
    affine[:3, 0] = np.array(cosines[:3]) * between_columns
    affine[:3, 1] = np.array(cosines[3:]) * between_rows
    affine[:3, 2] = np.cross(cosines[:3], cosines[3:])
    affine[:3, 3] = view.need_numbers("ImagePositionPatient", 3)
    if abs(abs(np.linalg.det(affine[:3, :3])) / (between_rows * between_columns) - 1) > 5e-3 or between_rows <= 0:
        raise view.fault("ImageOrientationPatient (0020,0037) or PixelSpacing (0028,0030) is damaged")
    check_axes(affine, view.place)
    return affine


def _on_grid(frames: list[SegFrame], volume: Volume) -> tuple[BoolArray, float] | None:
    """Return the frames in the image with the share outside, or None if one lies between the voxels of the image."""
    placed = np.zeros(volume.shape, dtype=np.bool_)
    taken = np.zeros(volume.shape, dtype=np.bool_)
    total = held = 0
    for frame in frames:
        to_image = np.linalg.inv(volume.affine) @ frame.affine
        whole = np.round(to_image)
        rows, columns = frame.mask.shape
        corners = np.array([[x, y, 0, 1] for x in (0, columns - 1) for y in (0, rows - 1)], dtype=np.float64)
        axes = np.abs(whole[:3, :2])
        unit = (axes.sum(axis=0) == 1).all() and (axes.sum(axis=1) <= 1).all()
        if not unit or np.abs((corners @ (to_image - whole).T)[:, :3]).max() > ON_GRID:
            return None
        index, there = _places(whole, (rows, columns), volume.shape)
        if taken[index].any():
            raise ImageError(
                f"frame {frame.number} of the segment lies where another does: several time points, or a damaged file. "
                f"{EXPORT_AGAIN}, one segmentation a time point."
            )
        taken[index] = True
        placed[index] = frame.mask[there]
        total += int(np.count_nonzero(frame.mask))
        held += int(np.count_nonzero(frame.mask[there]))
    return placed, 1 - held / total if total else 0.0


def _places(
    whole: Affine, frame: tuple[int, int], shape: tuple[int, int, int]
) -> tuple[tuple[Any, ...], tuple[Any, ...] | npt.NDArray[np.bool_]]:
    """Return where in the image the pixels of a frame lie, as an index of it, and which pixels these are, as one of the frame."""
    slices, rows, columns = shape
    if (whole[:2, :2] == np.eye(2)).all():  # rows and columns are those of the image: no need to place each pixel
        left, top, plane = (int(number) for number in whole[:3, 3])
        across = range(max(left, 0), min(left + frame[1], columns))
        down = range(max(top, 0), min(top + frame[0], rows))
        if not (0 <= plane < slices and across and down):
            return (slice(0, 0), slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
        inside = (slice(down.start - top, down.stop - top), slice(across.start - left, across.stop - left))
        return (plane, slice(down.start, down.stop), slice(across.start, across.stop)), inside
    y, x = np.mgrid[0 : frame[0], 0 : frame[1]]
    at = [(whole[axis, 0] * x + whole[axis, 1] * y + whole[axis, 3]).astype(np.int64) for axis in range(3)]
    there = (at[0] >= 0) & (at[0] < columns) & (at[1] >= 0) & (at[1] < rows) & (at[2] >= 0) & (at[2] < slices)
    return (at[2][there], at[1][there], at[0][there]), there


def _stacked(frames: list[SegFrame], view: View, place: str) -> tuple[BoolArray, Affine]:
    """Return frames as an array of their own, empty where the file leaves frames out, with its affine."""
    first = frames[0].affine
    normal = np.cross(first[:3, 0], first[:3, 1])
    normal /= np.linalg.norm(normal)
    if any(np.abs(one.affine[:3, :2] - first[:3, :2]).max() > 1e-4 for one in frames):
        raise ImageError(
            f"{place}: frames of the segment are of several orientations. Export one segmentation for each."
        )
    heights = np.array([(one.affine[:3, 3] - first[:3, 3]) @ normal for one in frames])
    gaps = np.diff(np.unique(np.round(heights, 3)))
    measures = functional_groups(view, view.need_integer("NumberOfFrames"))[0]
    told = measures.number("SpacingBetweenSlices") or measures.number("SliceThickness")
    step = abs(told) if told else float(gaps.min()) if gaps.size else None
    if step is None:
        raise ImageError(f"{place}: one frame without SliceThickness has no extent. {EXPORT_AGAIN}.")
    planes = (heights - heights.min()) / step
    if np.abs(planes - np.round(planes)).max() > ON_GRID:
        raise ImageError(f"{place}: frames of the segment are not evenly spaced. {EXPORT_AGAIN}.")
    index = np.round(planes).astype(int)
    if len(set(index.tolist())) < len(frames):
        raise ImageError(f"{place}: two frames of the segment lie at one place. {EXPORT_AGAIN}.")
    mask = np.zeros((int(index.max()) + 1, *frames[0].mask.shape), dtype=np.bool_)
    for plane, frame in zip(index.tolist(), frames, strict=True):
        mask[plane] = frame.mask
    affine = first.copy()
    affine[:3, 2] = normal * step
    affine[:3, 3] = frames[int(np.argmin(heights))].affine[:3, 3]
    return mask, affine
