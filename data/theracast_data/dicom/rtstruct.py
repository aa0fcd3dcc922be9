"""Contours of an RT structure set to the mask of one of its regions, on the grid of the image that they were drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset

from theracast_data.dicom.header import View, open_dicom
from theracast_data.dicom.placement import check_frame, other_patient, placed_region
from theracast_data.dicom.polygons import Points, inside
from theracast_data.errors import ImageError
from theracast_data.volume import FARTHEST_MM, BoolArray, Region, Volume

Overlap = Literal["refuse", "union", "xor"]
OffGrid = Literal["refuse", "resample"]
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
NOTED_SHIFT = 0.01  # of the spacing: nearer to the slice than that needs no word


@dataclass(frozen=True)
class Contour:
    """One closed outline: its plane in slices of the image and its corners in (column, row), both in voxels."""

    number: int
    plane: float
    points: Points


def rtstruct_names(path: str | Path) -> list[str]:
    """Return the names of the regions in a structure set, in its order."""
    return list(names_in(_open(Path(path))))


def names_in(view: View) -> tuple[str, ...]:
    """Return the names of the regions in an open structure set."""
    return tuple(View((item,), view.place).text("ROIName") or "" for item in view.items("StructureSetROISequence"))


def read_rtstruct(
    path: str | Path,
    name: str,
    volume: Volume,
    *,
    plane_tolerance: float = 0.05,
    off_grid: OffGrid = "refuse",
    overlap: Overlap = "refuse",
    other_series: bool = False,
) -> Region:
    """Return one region of a structure set as a mask on the image.

    A contour inside another is a hole in it, and one inside that an island (even-odd rule); what counts as inside at the edge
    stands in `polygons`.

    Args:
        path: the RTSTRUCT file.
        name: name of the region; told with all names if there is none such.
        volume: the image, with its frame of reference.
        plane_tolerance: how far a contour may lie from the plane of its slice, as a share of the spacing.
        off_grid: `refuse` contours farther off, or `resample`: each slice takes the contours of the nearest plane.
        overlap: contours of one slice that overlap in part are refused, or joined, or taken even-odd.
        other_series: accept contours drawn on another series in the same frame of reference.

    Raises:
        ImageError: no such region, another frame of reference or series, contours off the grid, or outside of the image.
    """
    place = f"{path}, region {name!r}"
    view = _open(Path(path))
    items, frame = _region_items(view, name)
    notes = _check_reference(view, frame, volume, place, other_series) + other_patient(view.text("PatientID"), volume)
    contours, other_notes = _contours(items, volume, place)
    notes += other_notes
    if off_grid == "resample":
        planes, plane_notes = _nearest_planes(contours, volume)
    else:
        planes, plane_notes = _own_planes(contours, place, plane_tolerance)
    notes += plane_notes
    mask, share_outside, overlap_notes = _fill(planes, volume, place, overlap)
    notes += overlap_notes
    return placed_region(name, mask, volume, "rtstruct", share_outside=share_outside, notes=notes, place=place)


def _open(path: Path) -> View:
    view = View((open_dicom(path),), str(path))
    if view.need_text("SOPClassUID") != uids.RTStructureSetStorage:
        raise ImageError(f"{path}: this is no RT structure set. Name the RTSTRUCT file.")
    return view


def _region_items(view: View, name: str) -> tuple[list[Dataset], str | None]:
    """Return the contours of a region and its frame of reference."""
    names: list[str] = []
    found: list[View] = []
    for item in view.items("StructureSetROISequence"):
        one = View((item,), view.place)
        names.append(one.text("ROIName") or "")
        if names[-1] == name.strip():
            found.append(one)
    if not found:
        raise ImageError(
            f"{view.place}: no region is named {name!r}; there are {', '.join(map(repr, names)) or 'none'}."
        )
    if len(found) > 1:
        raise ImageError(
            f"{view.place}: {len(found)} regions are named {name!r}. Rename them where they were drawn, and export again."
        )
    number = found[0].need_integer("ROINumber")
    frame = found[0].text("ReferencedFrameOfReferenceUID") or view.text("FrameOfReferenceUID")
    holders = [
        one
        for item in view.items("ROIContourSequence")
        if (one := View((item,), view.place)).integer("ReferencedROINumber") == number
    ]
    contours = [contour for holder in holders for contour in holder.items("ContourSequence")]
    if not contours:
        raise ImageError(f"{view.place}: region {name!r} has no contours. Draw it, or take another.")
    return contours, frame


def _check_reference(view: View, frame: str | None, volume: Volume, place: str, other_series: bool) -> list[str]:
    check_frame(frame, volume, place)
    series = referenced_series(view)
    if not series or volume.series_uid in series:
        return []
    if not other_series:
        raise ImageError(
            f"{place}: the contours were drawn on the series {', '.join(sorted(series))}, not on the image's "
            f"{volume.series_uid}. Name that series, or accept this one, which is in the same frame of reference, with "
            "other_series=True."
        )
    return ["the contours were drawn on another series in the same frame of reference"]


def referenced_frames(view: View) -> set[str]:
    """Return the frames of reference of the regions in a structure set."""
    items = [*view.items("ReferencedFrameOfReferenceSequence")]
    found = {View((item,), view.place).text("FrameOfReferenceUID") for item in items}
    rois = view.items("StructureSetROISequence")
    found |= {View((item,), view.place).text("ReferencedFrameOfReferenceUID") for item in rois}
    return {one for one in found if one}


def referenced_series(view: View) -> set[str]:
    """Return the series that a structure set says it was drawn on."""
    return {
        uid
        for frame in view.items("ReferencedFrameOfReferenceSequence")
        for study in View((frame,), view.place).items("RTReferencedStudySequence")
        for series in View((study,), view.place).items("RTReferencedSeriesSequence")
        if (uid := View((series,), view.place).text("SeriesInstanceUID"))
    }


def _contours(items: list[Dataset], volume: Volume, place: str) -> tuple[list[Contour], list[str]]:
    """Return the closed contours in the voxels of the image, and notes on what was left out."""
    to_voxels = np.asarray(np.linalg.inv(volume.affine), dtype=np.float64)
    contours: list[Contour] = []
    others, twice, tiny = dict[str, int](), 0, 0
    seen: set[bytes] = set()
    for number, item in enumerate(items, start=1):
        one = View((item,), f"{place}, contour {number}")
        kind = one.need_text("ContourGeometricType")
        if kind not in CLOSED:
            others[kind] = others.get(kind, 0) + 1
            continue
        points = _points(one, to_voxels)
        if len(points) < 3:
            tiny += 1
            continue
        if points.tobytes() in seen:  # even-odd, the second would cut out the first
            twice += 1
            continue
        seen.add(points.tobytes())
        planes = points[:, 2]
        if np.ptp(planes) > 0.1:
            raise one.fault(
                f"the corners of the contour lie in no slice: they span {np.ptp(planes):.2f} slices of the image"
            )
        contours.append(Contour(number, float(np.mean(planes)), points[:, :2]))
    if not contours:
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in {**others, "of one or two corners": tiny}.items() if count
        )
        raise ImageError(f"{place}: the region has no closed contour, only {kinds}. Draw it as closed contours.")
    notes = [f"{count} contours of type {kind} enclose nothing and were left out" for kind, count in others.items()]
    if tiny:
        notes.append(f"{tiny} contours of one or two corners enclose nothing and were left out")
    if twice:
        notes.append(f"{twice} contours were there twice and were taken once")
    return contours, notes


def _points(one: View, to_voxels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the corners of a contour in voxels: column, row, slice."""
    numbers = one.numbers("ContourData")
    if numbers is None or len(numbers) % 3:
        raise one.fault("ContourData (3006,0050) is not corners of three coordinates")
    if max(map(abs, numbers)) > FARTHEST_MM:
        raise one.fault("ContourData (3006,0050) lies beyond any scanner: it is damaged")
    told = one.integer("NumberOfContourPoints")
    if told is not None and told != len(numbers) // 3:
        raise one.fault(f"ContourData (3006,0050) has {len(numbers) // 3} corners, NumberOfContourPoints says {told}")
    corners = np.array(numbers).reshape(-1, 3)
    # Rounded, so that an edge drawn through voxel centres goes through them also after the change of coordinates.
    return np.asarray(np.round(corners @ to_voxels[:3, :3].T + to_voxels[:3, 3], 6))


def _own_planes(
    contours: list[Contour], place: str, plane_tolerance: float
) -> tuple[dict[int, list[Contour]], list[str]]:
    """Return the contours by the slice in whose plane they lie."""
    planes: dict[int, list[Contour]] = {}
    off = [one for one in contours if abs(one.plane - round(one.plane)) > plane_tolerance]
    if off:
        shown = ", ".join(f"{one.number} ({abs(one.plane - round(one.plane)):.2f})" for one in off[:5])
        raise ImageError(
            f"{place}: {len(off)} of {len(contours)} contours lie between slices of the image: number (distance in slices) "
            f"{shown}. Name the image that they were drawn on, or ask for off_grid='resample'."
        )
    for one in contours:
        planes.setdefault(round(one.plane), []).append(one)
    notes = []
    shift = max(abs(one.plane - round(one.plane)) for one in contours)
    if shift > NOTED_SHIFT:
        notes.append(f"contours were moved to their slice by up to {shift:.3f} of the spacing")
    drawn = sorted(planes)
    gaps = np.diff(drawn)
    if len(drawn) > 2 and (gaps > 1).all():
        raise ImageError(
            f"{place}: contours are drawn on every {int(np.median(gaps))}. slice only, none is on the slices between. "
            "Name the image that they were drawn on, or ask for off_grid='resample'."
        )
    if (gaps > 1).any():
        notes.append(f"no contour is on {int((gaps - 1).sum())} slices between those with contours")
    return planes, notes


def _nearest_planes(contours: list[Contour], volume: Volume) -> tuple[dict[int, list[Contour]], list[str]]:
    """Return for each slice the contours of the nearest plane, up to half the distance of planes beyond the last."""
    heights = np.unique(np.round([one.plane for one in contours], 3))
    step = float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0
    planes: dict[int, list[Contour]] = {}
    for number in range(int(np.floor(heights[0] - step / 2)), int(np.ceil(heights[-1] + step / 2)) + 1):
        apart = number - heights
        # Half open, so that a slice halfway between two planes belongs to one, and the whole keeps its extent.
        held = heights[(apart >= -step / 2 - 1e-3) & (apart < step / 2 - 1e-3)]
        if held.size:
            planes[number] = [one for one in contours if abs(one.plane - held[0]) < 2e-3]
    spacing = volume.spacing_mm[0]
    return planes, [
        f"contours of {len(heights)} planes {step * spacing:.3g} mm apart were resampled to {len(planes)} slices "
        f"{spacing:.3g} mm apart, each the nearest plane's"
    ]


def _fill(
    planes: dict[int, list[Contour]], volume: Volume, place: str, overlap: Overlap
) -> tuple[BoolArray, float, list[str]]:
    """Return the mask, the share of the region outside of the image, and notes."""
    slices, rows, columns = volume.shape
    mask = np.zeros(volume.shape, dtype=np.bool_)
    total, overlaps = 0, 0
    for number, contours in planes.items():
        every = np.concatenate([one.points for one in contours])
        low = np.minimum(np.floor(every.min(axis=0)), 0).astype(int)
        high = np.maximum(np.ceil(every.max(axis=0)) + 1, [columns, rows]).astype(int)
        if (high - low).max() > 3 * max(rows, columns) + 1024:
            raise ImageError(
                f"{place}: contour {contours[0].number} reaches far beyond the image. Name the image that it was drawn on."
            )
        size = (int(high[1] - low[1]), int(high[0] - low[0]))
        filled = [inside(one.points - low, *size) for one in contours]
        pairs = _partly_overlapping(filled)
        overlaps += len(pairs)
        if pairs and overlap == "refuse":
            first, second = (contours[index].number for index in pairs[0])
            raise ImageError(
                f"{place}: contours {first} and {second} of one slice overlap in part, which may mean their union or a hole. "
                "Say which with overlap='union' or overlap='xor'."
            )
        plane = np.zeros(size, dtype=np.bool_)
        for part in _joined(filled, pairs) if overlap == "union" else filled:
            plane ^= part
        total += int(np.count_nonzero(plane))
        if 0 <= number < slices:
            mask[number] = plane[-low[1] : -low[1] + rows, -low[0] : -low[0] + columns]
    notes = [f"{overlaps} pairs of contours overlap in part; taken as {overlap}"] if overlaps else []
    share = 1 - int(np.count_nonzero(mask)) / total if total else 0.0
    return mask, share, notes


def _partly_overlapping(filled: list[BoolArray]) -> list[tuple[int, int]]:
    """Return the pairs that share voxels although neither holds the other."""
    sizes = [int(np.count_nonzero(one)) for one in filled]
    pairs = []
    for first in range(len(filled)):
        for second in range(first):
            both = int(np.count_nonzero(filled[first] & filled[second]))
            if both not in (0, sizes[first], sizes[second]):
                pairs.append((second, first))
    return pairs


def _joined(filled: list[BoolArray], pairs: list[tuple[int, int]]) -> list[BoolArray]:
    """Return the masks with those of each pair joined to one."""
    owner = list(range(len(filled)))
    for first, second in pairs:
        old, new = owner[second], owner[first]
        owner = [new if one == old else one for one in owner]
    return [
        np.logical_or.reduce([one for one, mine in zip(filled, owner, strict=True) if mine == number])
        for number in dict.fromkeys(owner)
    ]
