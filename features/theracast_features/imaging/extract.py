"""Radiomics of one region: from image and mask to a value for each feature."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.cooccurrence import cooccurrence
from theracast_features.imaging.discretise import GreyLevels, discretise
from theracast_features.imaging.filters import reach_of, response_maps
from theracast_features.imaging.intensity import histogram, intensity_volume_histogram, statistics
from theracast_features.imaging.levels import LevelVolume, VoxelFrame
from theracast_features.imaging.local import PEAK_RADIUS_MM, local_intensity
from theracast_features.imaging.morphology import morphology
from theracast_features.imaging.neighbourhood import dependence, tone_difference
from theracast_features.imaging.region import Region, Spacing, check_volume, prepare_region
from theracast_features.imaging.run_length import run_length
from theracast_features.imaging.settings import (
    Discretisation,
    Family,
    FixedBinNumber,
    FixedBinSize,
    RadiomicsSettings,
    Undiscretised,
)
from theracast_features.imaging.zones import zone_features

TEXTURE: tuple[Family, ...] = ("glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm")


def radiomics(
    image: NDArray[np.generic], mask: NDArray[np.generic], *, spacing_mm: Spacing, settings: RadiomicsSettings
) -> dict[str, float]:
    """Return every feature of a region by its tag.

    Tags are those of the IBSI's reference files, e.g. `morph_volume` or `cm_contrast_3D_avg`; features of response maps have
    the name of the map before, e.g. `log_2mm.stat_mean`. `feature_catalogue` has the meaning of each, in the same order.

    The image is cropped to the region with as much around it as resampling, filters and neighbourhoods see; the values are
    those of the whole image. A feature that is undefined for a region is NaN; the modules of the families say which and when.

    Args:
        image: intensities (z, y, x).
        mask: same shape; what is not 0 is the region.
        spacing_mm: voxel size (z, y, x).

    Raises:
        RegionError: see `prepare_region` and `discretise`.
    """
    check_volume(image, mask, spacing_mm)
    reach = reach_of(settings.filters, settings.grid_spacing(spacing_mm))
    if "local" in settings.families:
        z, y, x = (ceil(PEAK_RADIUS_MM / size) for size in settings.grid_spacing(spacing_mm))
        reach = (max(reach[0], z), max(reach[1], y), max(reach[2], x))
    region = prepare_region(image, mask, spacing_mm=spacing_mm, settings=settings, reach=reach)
    limits = settings.resegmentation
    frame = VoxelFrame.of(
        region.intensity_mask[region.box], region.shape_mask[region.box], reach=settings.texture.reach
    )
    found = region_features(
        region,
        frame,
        settings,
        families=settings.families,
        discretisation=settings.discretisation,
        ivh=settings.ivh_discretisation,
        limits=(limits.minimum, limits.maximum),
    )
    for name, response in response_maps(region, settings.filters):
        # A response map has units of its own: the limits of the re-segmentation chose voxels, they do not bound responses.
        values = region_features(
            response,
            frame,
            settings,
            families=settings.filter_families,
            discretisation=settings.filter_discretisation,
            ivh=Undiscretised(),
            limits=(None, None),
        )
        found |= {f"{name}.{tag}": value for tag, value in values.items()}
    return found


def region_features(
    region: Region,
    frame: VoxelFrame,
    settings: RadiomicsSettings,
    *,
    families: Sequence[Family],
    discretisation: Discretisation,
    ivh: Discretisation,
    limits: tuple[float | None, float | None],
) -> dict[str, float]:
    """Return the features of one image of a region, in the order of the catalogue.

    Args:
        frame: of the region's masks within their bounding box; the same for all images of the region.
        families: which to compute.
        discretisation: grey levels of histogram and texture.
        ivh: grey levels of the intensity-volume histogram.
        limits: of the re-segmentation, in units of this image.
    """
    found: dict[str, float] = {}
    intensities = region.intensities
    ascending = np.sort(intensities)
    if "morphology" in families:
        found |= morphology(region, compatibility=settings.compatibility)
    if "local" in families:
        found |= local_intensity(region)
    if "statistics" in families:
        found |= statistics(ascending)
        if settings.compatibility == "pyradiomics":
            found["stat_kurt"] += 3.0
    grey: GreyLevels | None = None
    if set(families) & {"histogram", *TEXTURE}:
        grey = discretise(intensities, discretisation, minimum=limits[0], compatibility=settings.compatibility)
    if "histogram" in families and grey is not None:
        found |= histogram(grey)
    if "ivh" in families:
        found |= _ivh(ascending, ivh, settings, limits)
    if set(families) & set(TEXTURE) and grey is not None:
        found |= texture_features(frame, grey, settings, families)
    return found


def _ivh(
    intensities: NDArray[np.float64],
    ivh: Discretisation,
    settings: RadiomicsSettings,
    limits: tuple[float | None, float | None],
) -> dict[str, float]:
    low, high = limits if settings.ivh_calibrated else (None, None)
    if isinstance(ivh, Undiscretised):
        return intensity_volume_histogram(intensities, None, minimum=low, maximum=high)
    grey = discretise(intensities, ivh, minimum=limits[0], compatibility=settings.compatibility, max_levels=None)
    if isinstance(ivh, FixedBinNumber):
        low = high = None
    elif isinstance(ivh, FixedBinSize) and low is None:
        low = grey.start
    return intensity_volume_histogram(intensities, grey, minimum=low, maximum=high)


def texture_features(
    frame: VoxelFrame, grey: GreyLevels, settings: RadiomicsSettings, families: Sequence[Family]
) -> dict[str, float]:
    """Return the features of the texture families among `families`, in the order of the catalogue."""
    volume = LevelVolume.of(frame, grey.levels, grey.count)
    options, extents = settings.texture, settings.extents
    found: dict[str, float] = {}
    if "glcm" in families:
        found |= cooccurrence(
            volume,
            settings.aggregations,
            distance=options.glcm_distance,
            symmetric=options.glcm_symmetric,
            flat=settings.compatibility,
        )
    if "glrlm" in families:
        found |= run_length(volume, settings.aggregations)
    if "glszm" in families or "gldzm" in families:
        found |= zone_features(volume, extents, sizes="glszm" in families, distances="gldzm" in families)
    if "ngtdm" in families:
        found |= tone_difference(volume, extents, distance=options.ngtdm_distance)
    if "ngldm" in families:
        found |= dependence(volume, extents, distance=options.ngldm_distance, coarseness=options.ngldm_coarseness)
    return found
