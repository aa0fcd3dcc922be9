"""One region in its image, ready to be measured: cropped, resampled, re-segmented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import TheracastError
from theracast_features.imaging.resample import Axis, Box, Floats, resample
from theracast_features.imaging.settings import RadiomicsSettings, Resegmentation

Bools = NDArray[np.bool_]
Spacing = tuple[float, float, float]


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

    @property
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
    reach_mm: float = 0.0,
) -> Region:
    """Return the region with `reach_mm` of image around it, on the grid and with the voxels that the settings name.

    Args:
        image: intensities (z, y, x).
        mask: same shape; what is not 0 is the region.
        spacing_mm: voxel size (z, y, x).
        reach_mm: how far beyond the region filters and neighbourhoods look, along every axis.

    Raises:
        RegionError: shapes differ, spacing is not above 0, the region is empty (before or after resampling or
            re-segmentation), or an intensity in its neighbourhood is not finite.
    """
    _check(image, mask, spacing_mm)
    members: Bools = np.asarray(mask, dtype=np.bool_)
    if not members.any():
        raise RegionError("The region is empty: no voxel of the mask is set. Check the segmentation and its label.")
    target = spacing_mm if settings.interpolation is None else settings.interpolation.target(spacing_mm)
    reach = tuple(int(np.ceil(reach_mm / size)) for size in target)
    box = bounding_box(members)
    if settings.interpolation is None:
        around = _grown(box, reach, image.shape)
        intensities = np.asarray(image[around], dtype=np.float64)
        shape_mask = np.ascontiguousarray(members[around])
        full_shape = (image.shape[0], image.shape[1], image.shape[2])
    else:
        axes = (
            Axis.between(image.shape[0], spacing_mm[0], target[0]),
            Axis.between(image.shape[1], spacing_mm[1], target[1]),
            Axis.between(image.shape[2], spacing_mm[2], target[2]),
        )
        full_shape = (axes[0].new_size, axes[1].new_size, axes[2].new_size)
        seen: Box = tuple(axis.new_range(part, 0) for axis, part in zip(axes, box, strict=True))  # type: ignore[assignment]
        fraction = resample(members, axes, seen, method="linear")
        # The margin makes 0.5 reached where weights of 1/3 and 1/6 add up to it but for the last bit.
        small = fraction >= settings.interpolation.mask_threshold - 1e-9
        if not small.any():
            raise RegionError(
                f"The region is empty after resampling to {target} mm (z, y, x): it is smaller than half a voxel. "
                "Choose a finer spacing_mm."
            )
        tight: Box = tuple(  # type: ignore[assignment]
            slice(part.start + inner.start, part.start + inner.stop)
            for part, inner in zip(seen, bounding_box(small), strict=True)
        )
        around = _grown(tight, reach, full_shape)
        intensities = resample(image, axes, around, method=settings.interpolation.method)
        if settings.interpolation.round_intensities:
            intensities = np.rint(intensities)
        shape_mask = np.zeros(intensities.shape, np.bool_)
        inside = tuple(slice(t.start - a.start, t.stop - a.start) for t, a in zip(tight, around, strict=True))
        shape_mask[inside] = small[bounding_box(small)]
    if not np.isfinite(intensities).all():
        raise RegionError(
            "The image has values that are not finite in or around the region. Replace them, or correct the mask."
        )
    intensity_mask = resegment(intensities, shape_mask, settings.resegmentation)
    return Region(intensities, shape_mask, intensity_mask, target, full_shape)


def resegment(image: Floats, shape_mask: Bools, settings: Resegmentation) -> Bools:
    """Return the voxels of the region within the range and not outlying.

    Mean and standard deviation are those of the whole region; the two limits are intersected (IBSI manual, 2.6).

    Raises:
        RegionError: none is left.
    """
    low = -np.inf if settings.minimum is None else settings.minimum
    high = np.inf if settings.maximum is None else settings.maximum
    if settings.outlier_sigma is not None:
        values = image[shape_mask]
        mean, spread = values.mean(), settings.outlier_sigma * values.std()
        # A flat region has no outliers, though its mean may miss its one value by the last bit.
        low, high = max(low, min(mean - spread, mean)), min(high, max(mean + spread, mean))
        if spread == 0 or values.min() == values.max():
            low = -np.inf if settings.minimum is None else settings.minimum
            high = np.inf if settings.maximum is None else settings.maximum
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


def _grown(box: Box, reach: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(part.start - by, 0), min(part.stop + by, size))
        for part, by, size in zip(box, reach, shape, strict=True)
    )
    return z, y, x


def _check(image: NDArray[np.generic], mask: NDArray[np.generic], spacing_mm: Spacing) -> None:
    if image.ndim != 3 or mask.shape != image.shape:
        raise RegionError(
            f"Image and mask must be volumes (z, y, x) of one shape; found {image.shape} and {mask.shape}. "
            "Bring the mask onto the grid of the image first."
        )
    if len(spacing_mm) != 3 or not all(np.isfinite(size) and size > 0 for size in spacing_mm):
        raise RegionError(f"spacing_mm must be three sizes above 0 (z, y, x), found {spacing_mm}.")
