"""Intensities as grey levels 1, 2, ...: fixed bin number and fixed bin size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.region import RegionError
from theracast_features.imaging.settings import Discretisation, FixedBinNumber, FixedBinSize

Floats = NDArray[np.float64]
MAX_LEVELS = 2048


@dataclass(frozen=True)
class GreyLevels:
    """Grey levels of n voxels.

    Attributes:
        levels: (n,) int64 from 1.
        count: number of levels, those that no voxel has included.
        width: width of a bin in units of the image; 1 where intensities were taken as they are, 0 in a flat region.
        start: lower edge of bin 1.
    """

    levels: NDArray[np.int64]
    count: int
    width: float
    start: float


def discretise(
    intensities: Floats,
    settings: Discretisation,
    *,
    minimum: float | None,
    compatibility: str = "ibsi",
    max_levels: int | None = MAX_LEVELS,
) -> GreyLevels:
    """Return the grey levels of intensities, (n,) with n at least 1.

    Args:
        minimum: lower limit of the re-segmentation, at which bins of fixed size start unless the settings say otherwise.
        compatibility: `pyradiomics` starts bins of fixed size at the multiple of the width below the lowest intensity,
            and puts intensities on an inner edge of a fixed number of bins as numpy.histogram does.
        max_levels: a matrix of levels by levels has to fit into memory; None where there is none.

    Raises:
        RegionError: intensities lie below the start of the first bin, are not whole numbers from 1 where they are to be
            taken as they are, or give too many levels.
    """
    low, high = float(intensities.min()), float(intensities.max())
    if isinstance(settings, FixedBinNumber):
        return _fixed_number(intensities, settings.bins, low, high)
    if isinstance(settings, FixedBinSize):
        if compatibility == "pyradiomics" and settings.start is None:
            start = low - low % settings.width
        else:
            start = settings.start if settings.start is not None else low if minimum is None else minimum
        if low < start:
            raise RegionError(
                f"Intensities of the region lie below the start of the first bin, {start:g}. "
                "Set `resegmentation.minimum` to it, or lower `discretisation.start`."
            )
        levels = np.floor((intensities - start) / settings.width).astype(np.int64) + 1
        return _limited(
            GreyLevels(levels, int(levels.max()), settings.width, start), max_levels, "Choose a larger width."
        )
    levels = np.rint(intensities).astype(np.int64)
    if low < 1 or not np.array_equal(levels, intensities):
        raise RegionError(
            "discretisation `none` needs whole numbers from 1 on, which this region has not. Choose fbn or fbs."
        )
    return _limited(GreyLevels(levels, int(levels.max()), 1.0, 0.5), max_levels, "Choose fbn or fbs.")


def _fixed_number(intensities: Floats, bins: int, low: float, high: float) -> GreyLevels:
    if low == high:
        return GreyLevels(np.ones(len(intensities), np.int64), 1, 0.0, low)
    levels = np.floor(bins * ((intensities - low) / (high - low))).astype(np.int64) + 1
    return GreyLevels(np.minimum(levels, bins), bins, (high - low) / bins, low)


def _limited(found: GreyLevels, max_levels: int | None, advice: str) -> GreyLevels:
    if max_levels is not None and found.count > max_levels:
        raise RegionError(
            f"Discretisation gives {found.count} grey levels, at most {max_levels} are possible. {advice}"
        )
    return found
