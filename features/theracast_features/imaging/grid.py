"""Another image of the same session on the grid of the image that carries the region, in a box of it.

An image that is finer than that grid is smoothed first, to the width of the grid's voxels, so that a voxel stands for all of
its volume.

Source of the smoothing: Cardoso MJ et al. MICCAI 2015, LNCS 9350:81-88 (point spread of a change of scale).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from theracast_data.errors import ImageError
from theracast_data.volume import Volume, same_grid
from theracast_features.imaging.registration import resample

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of a Gaussian, in standard deviations
RESAMPLED = "resampled to the grid of the image"


def box_of(mask: Mask, margin: int) -> Box:
    """Return the box around a region with so many voxels more on each side, within the image."""
    ranges = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    z, y, x = (
        slice(max(int(one[0]) - margin, 0), min(int(one[-1]) + margin + 1, size))
        for one, size in zip(ranges, mask.shape, strict=True)
    )
    return z, y, x


def check_lies_over(moving: Volume, volume: Volume, remedy: str) -> None:
    """Return nothing if an image is the other one, or shares its frame of reference.

    Raises:
        ImageError: it does not, or one does not tell.
    """
    if moving.series_uid == volume.series_uid and moving.series_uid is not None:
        return
    if moving.frame_of_reference is None or moving.frame_of_reference != volume.frame_of_reference:
        raise ImageError(
            "it does not share the frame of reference of the image with the region, so nothing says where it lies. "
            + remedy
        )


def on_grid(moving: Volume, volume: Volume, box: Box, *, matrix: Floats | None = None) -> tuple[Floats, bool]:
    """Return an image in a box of another one's grid, NaN where it shows nothing, and whether it was resampled for that.

    Args:
        matrix: (4, 4) of a registration; without it both lie in one frame.
    """
    if matrix is None and moving.shape == volume.shape and same_grid(moving.affine, volume.affine, volume.shape):
        return np.asarray(moving.values[box], dtype=np.float64), False
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [box[2].start, box[1].start, box[0].start, 1.0])[:3]
    depth, rows, columns = (one.stop - one.start for one in box)
    return resample(_smoothed(moving, volume), moving.affine, (depth, rows, columns), affine, matrix=matrix), True


def _smoothed(moving: Volume, volume: Volume) -> NDArray[np.floating]:
    """Return the image as wide as the voxels of the grid along each axis of its own on which it is finer."""
    own = np.array(moving.spacing_mm)
    towards = np.abs(
        (moving.affine[:3, :3] / own[::-1]).T @ (volume.affine[:3, :3] / np.array(volume.spacing_mm)[::-1])
    )
    grid = np.array(volume.spacing_mm)[::-1][towards.argmax(axis=1)][::-1]  # of the axis that runs along each own one
    wider = np.sqrt(np.clip(grid**2 - own**2, 0.0, None))
    wider[grid < 1.05 * own] = 0.0
    if not wider.any():
        return moving.values
    smooth: Floats = gaussian_filter(moving.values.astype(np.float64), wider / _FWHM / own, mode="nearest")
    return smooth
