"""One region in its image, ready to be measured: cropped, resampled, re-segmented."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import TheracastError
from theracast_features.imaging.resample import Axis, Box, Floats, resample
from theracast_features.imaging.settings import Interpolation, RadiomicsSettings, Resegmentation

Bools = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Reach = tuple[int, int, int]


class RegionError(TheracastError):
    """A region that cannot be measured as asked."""


@dataclass(frozen=True)
class Region:
    """A region and the image around it; arrays are (z, y, x) and of one shape.

    Attributes:
        image: intensities, float64, of a part of the image that reaches as far beyond the region as filters look.
        shape_mask: voxels of the region. Morphology and the distance to the border are measured on it.
        intensity_mask: those of them whose intensities count, after re-segmentation.
        spacing_mm: (z, y, x).
        full_shape: voxels of the whole resampled image, of which `image` is a part.
    """

    image: Floats
    shape_mask: Bools
    intensity_mask: Bools
    spacing_mm: Spacing
    full_shape: tuple[int, int, int]

    @cached_property
    def box(self) -> Box:
        """The bounding box of the region within the arrays."""
        return bounding_box(self.shape_mask)

    @property
    def intensities(self) -> Floats:
        """Intensities that count, in the order (z, y, x)."""
        return self.image[self.intensity_mask]


def prepare_region(
    image: NDArray[np.generic],
    mask: NDArray[np.generic],
    *,
    spacing_mm: Spacing,
    settings: RadiomicsSettings,
    reach: Reach = (0, 0, 0),
) -> Region:
    """Return the region with `reach` of image around it, on the grid and with the voxels that the settings name.

    Args:
        image: intensities (z, y, x).
        mask: same shape; what is not 0 is the region.
        spacing_mm: voxel size (z, y, x).
        reach: how far beyond the region filters and neighbourhoods look, in voxels of the resampled image (z, y, x).

    Raises:
        RegionError: shapes differ, spacing is not above 0, the region is empty (before or after resampling or
            re-segmentation), or an intensity in its neighbourhood is not finite.
    """
    check_volume(image, mask, spacing_mm)
    members: Bools = np.asarray(mask, dtype=np.bool_)
    if not members.any():
        raise RegionError("The region is empty: no voxel of the mask is set. Check the segmentation and its label.")
    target = settings.grid_spacing(spacing_mm)
    if settings.interpolation is None:
        around = _grown(bounding_box(members), reach, image.shape)
        intensities = np.asarray(image[around], dtype=np.float64)
        shape_mask = np.ascontiguousarray(members[around])
        full_shape = (image.shape[0], image.shape[1], image.shape[2])
    else:
        axes = _axes(image.shape, spacing_mm, target)
        full_shape = (axes[0].new_size, axes[1].new_size, axes[2].new_size)
        intensities, shape_mask = _resampled(image, members, axes, settings.interpolation, reach)
    if not np.isfinite(intensities).all():
        raise RegionError(
            "The image has values that are not finite in or around the region. Replace them, or correct the mask."
        )
    intensity_mask = resegment(intensities, shape_mask, settings.resegmentation)
    return Region(intensities, shape_mask, intensity_mask, target, full_shape)


def _resampled(
    image: NDArray[np.generic], members: Bools, axes: tuple[Axis, Axis, Axis], settings: Interpolation, reach: Reach
) -> tuple[Floats, Bools]:
    """Return intensities and mask of the region and `reach` around it on the new grid."""
    z, y, x = (axis.new_range(part) for axis, part in zip(axes, bounding_box(members), strict=True))
    fraction = resample(members, axes, (z, y, x), method="linear")
    # The margin makes 0.5 reached where weights of 1/3 and 1/6 add up to it but for the last bit.
    inside: Bools = fraction >= settings.mask_threshold - 1e-9
    if not inside.any():
        raise RegionError(
            f"The region is empty after resampling: no new voxel lies within it by {settings.mask_threshold:g} or more. "
            "Choose a finer spacing_mm, or a lower mask_threshold."
        )
    tight = bounding_box(inside)
    box = _shifted(tight, (z.start, y.start, x.start))
    around = _grown(box, reach, tuple(axis.new_size for axis in axes))
    intensities = resample(image, axes, around, method=settings.method)
    if settings.round_intensities:
        intensities = np.rint(intensities)
    shape_mask = np.zeros(intensities.shape, np.bool_)
    shape_mask[_shifted(box, (-around[0].start, -around[1].start, -around[2].start))] = inside[tight]
    return intensities, shape_mask


def resegment(image: Floats, shape_mask: Bools, settings: Resegmentation) -> Bools:
    """Return the voxels of the region within the range and not outlying.

    Mean and standard deviation are those of the whole region; the two limits are intersected (IBSI manual, 2.6).

    Raises:
        RegionError: none is left.
    """
    low = -np.inf if settings.minimum is None else settings.minimum
    high = np.inf if settings.maximum is None else settings.maximum
    values = image[shape_mask]
    # A flat region has no outliers, though its mean may miss its one value by the last bit.
    if settings.outlier_sigma is not None and values.min() < values.max():
        mean, spread = float(values.mean()), settings.outlier_sigma * float(values.std())
        low, high = max(low, mean - spread), min(high, mean + spread)
    kept: Bools = shape_mask & (image >= low) & (image <= high)
    if not kept.any():
        raise RegionError(
            f"Re-segmentation leaves no voxel of the region: none lies within {low:g} to {high:g}. "
            "Check the units of the image, or widen `resegmentation`."
        )
    return kept


def bounding_box(mask: Bools) -> Box:
    """Return the smallest box with all that is set; something must be."""
    z = _span(np.asarray(mask.any(axis=(1, 2))))
    y = _span(np.asarray(mask[z].any(axis=(0, 2))))
    x = _span(np.asarray(mask[z, y].any(axis=(0, 1))))
    return z, y, x


def _span(found: Bools) -> slice:
    places = np.flatnonzero(found)
    return slice(int(places[0]), int(places[-1]) + 1)


def _axes(shape: tuple[int, ...], spacing_mm: Spacing, target_mm: Spacing) -> tuple[Axis, Axis, Axis]:
    z, y, x = (Axis.between(n, old, new) for n, old, new in zip(shape, spacing_mm, target_mm, strict=True))
    return z, y, x


def _grown(box: Box, reach: Reach, shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(part.start - by, 0), min(part.stop + by, size))
        for part, by, size in zip(box, reach, shape, strict=True)
    )
    return z, y, x


def _shifted(box: Box, by: tuple[int, int, int]) -> Box:
    z, y, x = (slice(part.start + step, part.stop + step) for part, step in zip(box, by, strict=True))
    return z, y, x


def check_volume(image: NDArray[np.generic], mask: NDArray[np.generic], spacing_mm: Spacing) -> None:
    """Check that image and mask are volumes of one shape and the spacing is possible; a RegionError tells what is not."""
    if image.ndim != 3 or mask.shape != image.shape:
        raise RegionError(
            f"Image and mask must be volumes (z, y, x) of one shape; found {image.shape} and {mask.shape}. "
            "Bring the mask onto the grid of the image first."
        )
    if len(spacing_mm) != 3 or not all(np.isfinite(size) and size > 0 for size in spacing_mm):
        raise RegionError(f"spacing_mm must be three sizes above 0 (z, y, x), found {spacing_mm}.")
