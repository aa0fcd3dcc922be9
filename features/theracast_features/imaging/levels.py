"""A volume of grey levels as the texture kernels walk it: flat, padded, with the positions of the region's voxels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled

# One of each pair of opposite neighbours, (z, y, x): the 4 within a slice, then the 9 to the next slice.
IN_SLICE = ((0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1))
DIRECTIONS = (*IN_SLICE, *((1, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)))


@dataclass(frozen=True)
class VoxelFrame:
    """Where the voxels of a region lie in a padded, flat volume; the same for the image and all its response maps.

    Attributes:
        shape: of the padded volume, (z, y, x).
        reach: padding, in voxels: how far the kernels look.
        voxels: positions of the n voxels that count, ascending, int64.
        slices: voxels of slice number k of the region are `voxels[slices[k] : slices[k + 1]]`.
        shape_mask: the region's shape within the padded volume, to whose border distances are measured.
    """

    shape: tuple[int, int, int]
    reach: int
    voxels: NDArray[np.int64]
    slices: NDArray[np.int64]
    shape_mask: NDArray[np.bool_]

    @classmethod
    def of(cls, intensity_mask: NDArray[np.bool_], shape_mask: NDArray[np.bool_], *, reach: int) -> VoxelFrame:
        """Return the frame of masks (z, y, x) of one shape, of which the second holds the first."""
        around = np.pad(shape_mask, reach)
        voxels = np.flatnonzero(np.pad(intensity_mask, reach)).astype(np.int64)
        plane = around.shape[1] * around.shape[2]
        starts = np.flatnonzero(np.diff(voxels // plane, prepend=-1))
        slices = np.append(starts, len(voxels)).astype(np.int64)
        return cls((around.shape[0], around.shape[1], around.shape[2]), reach, voxels, slices, around)

    def offsets(self, steps: tuple[tuple[int, int, int], ...], distance: int = 1) -> NDArray[np.int64]:
        """Return by how much the flat position changes along each (z, y, x) step, `distance` times."""
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        offsets: NDArray[np.int64] = (np.array(steps) * distance @ strides).astype(np.int64)
        return offsets

    @cached_property
    def border_distance(self) -> NDArray[np.int32]:
        """City-block distance in voxels from each voxel to the outside of the shape; 1 at the border."""
        return _border_distance(self.shape_mask, True).ravel()

    @cached_property
    def border_distance_in_slice(self) -> NDArray[np.int32]:
        """The same within each slice alone."""
        return _border_distance(self.shape_mask, False).ravel()


@dataclass(frozen=True)
class LevelVolume:
    """Grey levels of the voxels of a frame.

    Attributes:
        frame: where the voxels lie.
        flat: levels of the padded volume in the order (z, y, x), uint16; 0 is outside.
        count: number of grey levels, those that do not occur included.
    """

    frame: VoxelFrame
    flat: NDArray[np.uint16]
    count: int

    @classmethod
    def of(cls, frame: VoxelFrame, levels: NDArray[np.int64], count: int) -> LevelVolume:
        """Return the volume with these levels of the frame's voxels, in their order."""
        flat = np.zeros(int(np.prod(frame.shape)), np.uint16)
        flat[frame.voxels] = levels
        return cls(frame, flat, count)

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Positions in `flat` of the voxels that count."""
        return self.frame.voxels


def neighbours(distance: int, *, in_slice: bool) -> tuple[tuple[int, int, int], ...]:
    """Return the steps to all neighbours up to a Chebyshev distance, (z, y, x)."""
    span = range(-distance, distance + 1)
    steps = [(z, y, x) for z in ((0,) if in_slice else span) for y in span for x in span]
    return tuple(step for step in steps if step != (0, 0, 0))


@compiled
def _border_distance(mask: NDArray[np.bool_], through_slices: bool) -> NDArray[np.int32]:
    """Return the distances by one pass forwards and one backwards, which are exact for the city-block distance."""
    n_z, n_y, n_x = mask.shape
    far = np.int32(n_z + n_y + n_x)
    distance = np.zeros(mask.shape, np.int32)
    for z in range(1, n_z - 1):
        for y in range(1, n_y - 1):
            for x in range(1, n_x - 1):
                if mask[z, y, x]:
                    near = min(far, distance[z, y, x - 1], distance[z, y - 1, x])
                    if through_slices:
                        near = min(near, distance[z - 1, y, x])
                    distance[z, y, x] = near + 1
    for z in range(n_z - 2, 0, -1):
        for y in range(n_y - 2, 0, -1):
            for x in range(n_x - 2, 0, -1):
                if mask[z, y, x]:
                    near = min(distance[z, y, x + 1], distance[z, y + 1, x])
                    if through_slices:
                        near = min(near, distance[z + 1, y, x])
                    distance[z, y, x] = min(distance[z, y, x], near + 1)
    return distance
