"""Regions from elsewhere put on the grid of an image: by where their voxels lie in the patient, never by the order of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from theracast_data.dicom.header import tag_name
from theracast_data.errors import ImageError
from theracast_data.volume import BoolArray, Region, Volume

Affine = npt.NDArray[np.float64]
ON_GRID = 0.05  # voxels: how far from its place a voxel may lie to be that of the image


def placed_region(
    name: str,
    mask: BoolArray,
    volume: Volume,
    made_from: str,
    *,
    share_outside: float,
    notes: list[str],
    place: str,
) -> Region:
    """Return the region with notes on what of it lies outside of the image or where nothing was measured.

    Raises:
        ImageError: it is empty, or wholly outside.
    """
    within = int(np.count_nonzero(mask))
    if within == 0 and share_outside > 0:
        raise ImageError(f"{place}: the region lies wholly outside of the image. Name the image that it was drawn on.")
    if within == 0:
        raise ImageError(f"{place}: the region holds no voxel. Take another region, or look at how it was drawn.")
    if share_outside > 0:
        notes = [*notes, f"{share_outside:.2%} of the region lies outside of the image"]
    padded = int(np.count_nonzero(np.isnan(volume.values[mask])))
    if padded:
        notes = [*notes, f"{padded} of {within} voxels of the region are padding of the image"]
    return Region(name, mask, volume.affine, made_from, share_outside, tuple(notes))


def check_frame(frame: str | None, volume: Volume, place: str) -> None:
    """Check that a region or dose and an image are in one frame of reference.

    Raises:
        ImageError: they are not, or one does not tell.
    """
    if volume.frame_of_reference is None or frame is None:
        which = "the image" if volume.frame_of_reference is None else "the file"
        raise ImageError(
            f"{place}: {which} names no {tag_name('FrameOfReferenceUID')}, so that nothing tells whether they lie "
            "over each other. Read the image from its DICOM series."
        )
    if frame != volume.frame_of_reference:
        raise ImageError(
            f"{place}: it is in the frame of reference {frame}, the image in {volume.frame_of_reference}: they do not lie "
            "over each other. Name the image that it was drawn on, or register them first."
        )


def other_patient(subject_id: str | None, volume: Volume) -> list[str]:
    """Return a note where a region and an image in one frame of reference name different patients."""
    if subject_id is None or volume.subject_id is None or subject_id == volume.subject_id:
        return []
    return [f"the file names the patient {subject_id!r}, the image {volume.subject_id!r}"]


def place_mask(
    mask: npt.NDArray[np.bool_], affine: Affine, volume: Volume, *, resample: bool, place: str
) -> tuple[BoolArray, float, list[str]]:
    """Return a mask (z, y, x) of another array on the grid of the image, the share of it outside, and notes.

    Voxels that are those of the image are copied, however the axes are ordered or turned. Another grid is resampled, each
    voxel of the image taking the nearest of the mask, when asked.

    Raises:
        ImageError: another grid, and resampling was not asked for.
    """
    to_image = np.linalg.inv(volume.affine) @ affine
    whole = np.round(to_image)
    if _same_voxels(to_image, whole, mask.shape):
        return *_copied(mask, whole, volume), []
    if not resample:
        raise ImageError(
            f"{place}: it is on another grid than the image ({_sizes(affine, mask.shape)} against "
            f"{_sizes(volume.affine, volume.shape)}). Name the image it was drawn on, or ask for resample=True (nearest voxel)."
        )
    return *_nearest(mask, to_image, volume), ["resampled from another grid to the image: nearest voxel"]


def _same_voxels(to_image: Affine, whole: Affine, shape: tuple[int, ...]) -> bool:
    """Return whether each voxel of a grid lies on one of the image."""
    axes = np.abs(whole[:3, :3])
    if not ((axes.sum(axis=0) == 1).all() and (axes.sum(axis=1) == 1).all()):
        return False
    corners = np.array(
        [[x, y, z, 1.0] for x in (0, shape[2] - 1) for y in (0, shape[1] - 1) for z in (0, shape[0] - 1)]
    )
    return bool(np.abs(corners @ (to_image - whole).T).max() <= ON_GRID)


def _copied(mask: BoolArray, whole: Affine, volume: Volume) -> tuple[BoolArray, float]:
    where = np.argwhere(mask)[:, ::-1] @ whole[:3, :3].T.astype(np.int64) + whole[:3, 3].astype(np.int64)
    size = np.array(volume.shape[::-1])
    held = ((where >= 0) & (where < size)).all(axis=1)
    placed = np.zeros(volume.shape, dtype=np.bool_)
    x, y, z = where[held].T
    placed[z, y, x] = True
    return placed, _share_lost(held)


def _nearest(mask: BoolArray, to_image: Affine, volume: Volume) -> tuple[BoolArray, float]:
    back = np.linalg.inv(to_image)
    slices, rows, columns = volume.shape
    y, x = np.mgrid[0:rows, 0:columns]
    placed = np.zeros(volume.shape, dtype=np.bool_)
    for z in range(slices):
        at = [back[axis, 0] * x + back[axis, 1] * y + (back[axis, 2] * z + back[axis, 3]) for axis in range(3)]
        column, row, plane = (np.floor(np.round(one, 4) + 0.5).astype(np.int64) for one in at)  # halves go up
        held = (column >= 0) & (row >= 0) & (plane >= 0)
        held &= (column < mask.shape[2]) & (row < mask.shape[1]) & (plane < mask.shape[0])
        placed[z][held] = mask[plane[held], row[held], column[held]]
    where = np.argwhere(mask)[:, ::-1] @ to_image[:3, :3].T + to_image[:3, 3]
    within = ((where >= -0.5) & (where < np.array(volume.shape[::-1]) - 0.5)).all(axis=1)
    return placed, _share_lost(within)


def _share_lost(held: Any) -> float:
    """Return the share that is not held, of voxels each of which is or is not."""
    return float(1 - held.mean()) if held.size else 0.0


def _sizes(affine: Affine, shape: tuple[int, ...]) -> str:
    spacing: Any = np.linalg.norm(affine[:3, :3], axis=0)
    return (
        f"{' x '.join(map(str, shape[::-1]))} voxels of {' x '.join(f'{one:.4g}' for one in spacing)} mm from "
        f"({', '.join(f'{one:.2f}' for one in affine[:3, 3])})"
    )
