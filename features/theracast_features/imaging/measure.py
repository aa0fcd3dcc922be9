"""All that is measured in one region of one image, and what each measurement means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.diameters import axial_diameters, longest_3d_mm, volume_ml
from theracast_features.imaging.habitat_section import FittedHabitats, HabitatMap, ImageHabitats
from theracast_features.imaging.maps import PERCENTILES, map_statistics
from theracast_features.imaging.meaning import Meaning
from theracast_features.imaging.overlay_measure import dose_meanings, enhancement_meanings, map_meanings, measure_map
from theracast_features.imaging.section import ImageMeasures, Uptake
from theracast_features.imaging.uptake import threshold_name, uptake

Spacing = tuple[float, float, float]


SIZE: Mapping[str, Meaning] = {
    "volume_ml": Meaning("volume", "mL"),
    "longest_axial_mm": Meaning("longest axial diameter", "mm"),
    "perpendicular_mm": Meaning("longest diameter across it", "mm"),
    "longest_3d_mm": Meaning("longest diameter in 3D", "mm"),
}
INTENSITY: Mapping[str, Meaning] = {
    f"intensity_{name}": Meaning(label)
    for name, label in {
        "mean": "mean intensity",
        "sd": "standard deviation of the intensity",
        "min": "lowest intensity",
        "max": "highest intensity",
        "median": "median intensity",
        **{f"p{rank}": f"{rank}th percentile of the intensity" for rank in PERCENTILES},
        "iqr": "interquartile range of the intensity",
        "skewness": "skewness of the intensity",
        "kurtosis": "excess kurtosis of the intensity",
        "missing_fraction": "part of the region without a number",
    }.items()
}
_UPTAKE: Mapping[str, Meaning] = {
    "suv_max": Meaning("SUVmax", "g/mL"),
    "suv_peak": Meaning("SUVpeak", "g/mL"),
    "suv_mean": Meaning("SUVmean", "g/mL"),
    "suv_sd": Meaning("standard deviation of SUV", "g/mL"),
}


def meanings(measures: ImageMeasures) -> dict[str, Meaning]:
    """Return what will be measured, by name."""
    found: dict[str, Meaning] = {}
    if measures.size:
        found |= SIZE
    if measures.uptake is not None:
        found |= _uptake_meanings(measures.uptake)
    if measures.intensity:
        found |= INTENSITY
    if measures.map is not None:
        found |= map_meanings(measures.map)
    if measures.dose is not None:
        found |= dose_meanings(measures.dose)
    if measures.enhancement is not None:
        found |= enhancement_meanings(measures.enhancement)
    if measures.radiomics is not None:
        from theracast_features.imaging.catalogue import feature_catalogue

        found |= {
            one.tag: Meaning(one.label, one.unit, f"IBSI:{one.code}") for one in feature_catalogue(measures.radiomics)
        }
    if measures.habitats is not None and (fitted := measures.fitted_habitats) is not None:
        found |= _habitat_meanings(measures.habitats, fitted)
    return found


def measure(
    image: NDArray[np.floating], mask: NDArray[np.bool_], *, spacing_mm: Spacing, measures: ImageMeasures
) -> dict[str, float]:
    """Return the measurements of a region by name; NaN where one is not defined for it.

    What needs several images is measured elsewhere: habitats by `measure_habitats`, dose and enhancement by
    `measure_overlays`.

    Args:
        image: (n_slices, n_rows, n_columns); HU for CT, SUV for PET.
        mask: same shape.
        spacing_mm: (z, y, x).

    Raises:
        TheracastError, ValueError: the region is empty, or the image has a gap (NaN) where it is measured.
    """
    found: dict[str, float] = {}
    if measures.size:
        found |= _size(mask, spacing_mm)
    if measures.uptake is not None:
        options = measures.uptake
        found |= uptake(image, mask, spacing_mm, fixed=options.fixed, relative=options.relative)
    if measures.intensity:
        found |= {f"intensity_{name}": value for name, value in map_statistics(image, mask).items()}
    if measures.map is not None:
        found |= measure_map(image, mask, measures.map)
    if measures.radiomics is not None:
        from theracast_features.imaging.extract import radiomics

        found |= radiomics(image, mask, spacing_mm=spacing_mm, settings=measures.radiomics)
    return found


def _uptake_meanings(options: Uptake) -> dict[str, Meaning]:
    above = {f"suv_{threshold_name(one)}": f"SUV {one:g} or more" for one in options.fixed}
    above |= {
        f"max_{threshold_name(100 * one)}_percent": f"{100 * one:g} % of SUVmax or more" for one in options.relative
    }
    found = dict(_UPTAKE)
    for name, words in above.items():
        found[f"mtv_ml.{name}"] = Meaning(f"metabolic tumour volume, {words}", "mL")
        found[f"suv_mean.{name}"] = Meaning(f"SUVmean, {words}", "g/mL")
        found[f"tlg_g.{name}"] = Meaning(f"total lesion glycolysis, {words}", "g")
    return found


def _habitat_meanings(section: ImageHabitats, fitted: FittedHabitats) -> dict[str, Meaning]:
    """Return what `measure_habitats` measures, each habitat with what is typical of it."""
    habitats = fitted.habitats
    numbers = range(1, habitats.count + 1)
    units = {name: _map_unit(section.maps[name]) for name in fitted.maps}
    found: dict[str, Meaning] = {}
    for number, levels in zip(numbers, habitats.levels, strict=True):
        typical = ", ".join(f"{name} about {level:.3g}" for name, level in zip(fitted.maps, levels, strict=True))
        called = f"habitat {number} ({typical})"
        found[f"habitat_{number}_fraction"] = Meaning(f"{called}, part of the region")
        found[f"habitat_{number}_ml"] = Meaning(f"{called}, volume", "mL")
        found |= {
            f"habitat_{number}_mean_{name}": Meaning(f"{called}, mean {name}", unit) for name, unit in units.items()
        }
    found["habitat_entropy"] = Meaning("entropy of the habitats' parts", "bit")
    found["habitat_spatial_entropy"] = Meaning("entropy of neighbouring habitats", "bit")
    found["habitat_mixing"] = Meaning("part of neighbouring voxels of different habitats")
    for one in numbers:
        for other in range(one, habitats.count + 1):
            found[f"habitat_contact_{one}_{other}"] = Meaning(
                f"part of neighbouring voxels of habitats {one} and {other}"
            )
    found["habitat_missing_fraction"] = Meaning("part of the region without habitat")
    return found


def _map_unit(one: HabitatMap) -> str | None:
    if one.scale == "region":
        return None
    if one.modality == "PT":
        return "Bq/mL" if one.suv is None else "g/mL"
    return "[hnsf'U]" if one.modality == "CT" else None


def _size(mask: NDArray[np.bool_], spacing_mm: Spacing) -> dict[str, float]:
    axial = axial_diameters(mask, spacing_mm)
    return {
        "volume_ml": volume_ml(mask, spacing_mm),
        "longest_axial_mm": axial.long_mm,
        "perpendicular_mm": axial.short_mm,
        "longest_3d_mm": longest_3d_mm(mask, spacing_mm),
    }
