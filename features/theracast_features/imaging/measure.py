"""All that is measured in one region of one image, and what each measurement means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.diameters import axial_diameters, longest_3d_mm, volume_ml
from theracast_features.imaging.section import ImageMeasures

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Meaning:
    """What one measurement is.

    Attributes:
        label: what the tumour board reads.
        unit: UCUM unit, None for arbitrary units.
        code: SYSTEM:CODE where a standard has one, e.g. IBSI:RNU0.
    """

    label: str
    unit: str | None = None
    code: str | None = None


SIZE: Mapping[str, Meaning] = {
    "volume_ml": Meaning("volume", "mL"),
    "longest_axial_mm": Meaning("longest axial diameter", "mm"),
    "perpendicular_mm": Meaning("longest diameter across it", "mm"),
    "longest_3d_mm": Meaning("longest diameter in 3D", "mm"),
}
SHARES = (5, 10, 25, 50, 75, 90, 95)
INTENSITY: Mapping[str, Meaning] = {
    "intensity_mean": Meaning("mean intensity"),
    **{f"intensity_p{share:02d}": Meaning(f"{share}th percentile of the intensity") for share in SHARES},
}


def meanings(measures: ImageMeasures) -> dict[str, Meaning]:
    """Return what will be measured, by name, in the order of `measure`."""
    found: dict[str, Meaning] = {}
    if measures.size:
        found |= SIZE
    if measures.uptake is not None:
        from theracast_features.imaging.uptake import UPTAKE

        found |= UPTAKE
    if measures.percentiles:
        found |= INTENSITY
    if measures.radiomics is not None:
        from theracast_features.imaging.catalogue import feature_catalogue

        found |= {
            one.tag: Meaning(one.label, one.unit, None if one.code is None else f"IBSI:{one.code}")
            for one in feature_catalogue(measures.radiomics)
        }
    return found


def measure(
    image: NDArray[np.floating], mask: NDArray[np.bool_], *, spacing_mm: Spacing, measures: ImageMeasures
) -> dict[str, float]:
    """Return the measurements of a region by name; NaN where one is not defined for it.

    Args:
        image: (n_slices, n_rows, n_columns); HU for CT, SUV for PET.
        mask: same shape.
        spacing_mm: (z, y, x).

    Raises:
        TheracastError: the region is empty, or the image has a gap (NaN) where it is measured.
    """
    found: dict[str, float] = {}
    if measures.size:
        found |= _size(mask, spacing_mm)
    if measures.uptake is not None:
        from theracast_features.imaging.uptake import uptake

        found |= uptake(image, mask, spacing_mm=spacing_mm)
    if measures.percentiles:
        inside = image[mask].astype(np.float64)
        shares = np.percentile(inside, SHARES)
        found |= dict(zip(INTENSITY, [float(inside.mean()), *map(float, shares)], strict=True))
    if measures.radiomics is not None:
        from theracast_features.imaging.extract import radiomics

        found |= radiomics(image, mask, spacing_mm=spacing_mm, settings=measures.radiomics)
    return found


def _size(mask: NDArray[np.bool_], spacing_mm: Spacing) -> dict[str, float]:
    axial = axial_diameters(mask, spacing_mm)
    return {
        "volume_ml": volume_ml(mask, spacing_mm),
        "longest_axial_mm": axial.long_mm,
        "perpendicular_mm": axial.short_mm,
        "longest_3d_mm": longest_3d_mm(mask, spacing_mm),
    }
