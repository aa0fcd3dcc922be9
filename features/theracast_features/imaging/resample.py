"""Images and masks on a new grid that shares its centre with the old one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d

Floats = NDArray[np.float64]
Box = tuple[slice, slice, slice]

# The prefilter of a cubic B-spline looks everywhere, with weights that fall by 0.268 a voxel: 0.268^28 is 1e-16.
SPLINE_MARGIN = 28


@dataclass(frozen=True)
class Axis:
    """One axis of the old and the new grid.

    Attributes:
        size: voxels of the old grid.
        new_size: voxels of the new grid.
        step: new spacing in old voxels.
    """

    size: int
    new_size: int
    step: float

    @classmethod
    def between(cls, size: int, spacing_mm: float, new_spacing_mm: float) -> Axis:
        """Return the axis that covers `size` voxels at the new spacing, centred on the old one."""
        # Rounded before the ceiling: 60 x 3 mm in steps of 2 mm are 90 voxels, not 91 by the last bit.
        return cls(size, ceil(round(size * spacing_mm / new_spacing_mm, 9)), new_spacing_mm / spacing_mm)

    def positions(self, indices: slice) -> Floats:
        """Return where new voxels lie in the old grid, in old voxels."""
        new = np.arange(indices.start, indices.stop)
        return (self.size - 1) / 2 + (new - (self.new_size - 1) / 2) * self.step

    def new_range(self, old: slice) -> slice:
        """Return the new voxels that see any of these old voxels."""
        offset = (self.size - 1) / 2 - (self.new_size - 1) / 2 * self.step
        first = int(np.floor((old.start - 1 - offset) / self.step))
        last = int(np.ceil((old.stop - offset) / self.step))
        return slice(max(first, 0), min(last + 1, self.new_size))

    def old_range(self, new: slice, margin: int) -> slice:
        """Return the old voxels from which these new ones are made, with a margin."""
        positions = np.clip(self.positions(new), 0, self.size - 1)
        return slice(
            max(int(np.floor(positions[0])) - margin, 0), min(int(np.ceil(positions[-1])) + margin + 1, self.size)
        )


def resample(
    image: NDArray[np.generic], axes: tuple[Axis, Axis, Axis], new: Box, *, method: Literal["linear", "cubic"]
) -> Floats:
    """Return the part `new` of the image on the new grid, (z, y, x) float64.

    Only the part of the image that is needed is read. Outside the image the nearest voxel holds.
    """
    margin = 1 if method == "linear" else SPLINE_MARGIN
    old = tuple(axis.old_range(part, margin) for axis, part in zip(axes, new, strict=True))
    values = np.asarray(image[old], dtype=np.float64)
    for number, (axis, part, begun) in enumerate(zip(axes, new, old, strict=True)):
        if axis.step == 1.0 and axis.size == axis.new_size:
            values = values.take(range(part.start - begun.start, part.stop - begun.start), axis=number)
            continue
        positions = np.clip(axis.positions(part), 0, axis.size - 1) - begun.start
        values = (_linear if method == "linear" else _cubic)(values, positions, number)
    return values


def _linear(values: Floats, positions: Floats, axis: int) -> Floats:
    size = values.shape[axis]
    lower = np.clip(np.floor(positions).astype(np.intp), 0, max(size - 2, 0))
    weight = _along(positions - lower, axis)
    upper = np.minimum(lower + 1, size - 1)
    mixed: Floats = values.take(lower, axis) * (1 - weight) + values.take(upper, axis) * weight
    return mixed


def _cubic(values: Floats, positions: Floats, axis: int) -> Floats:
    size = values.shape[axis]
    if size == 1:
        return values.take(np.zeros(len(positions), np.intp), axis)
    coefficients = spline_filter1d(values, order=3, axis=axis, mode="mirror")
    lower = np.floor(positions).astype(np.intp)
    t = positions - lower
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    shape = list(values.shape)
    shape[axis] = len(positions)
    result: Floats = np.zeros(shape)
    for shift, weight in zip((-1, 0, 1, 2), weights, strict=True):
        result += coefficients.take(_mirrored(lower + shift, size), axis) * _along(weight, axis)
    return result


def _mirrored(indices: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Return indices reflected about the centres of the first and the last voxel, as the prefilter assumes."""
    period = 2 * (size - 1)
    folded = np.abs(indices) % period
    return np.where(folded >= size, period - folded, folded)


def _along(values: Floats, axis: int) -> Floats:
    return values.reshape([-1 if number == axis else 1 for number in range(3)])
