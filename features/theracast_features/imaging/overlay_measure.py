"""Measurements of a dose, of enhancement and of a quantitative map in one region, and what each of them means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from theracast_data.dicom.dose import DoseVolume
from theracast_data.errors import ImageError
from theracast_features.imaging.maps import enhancement, functional_tumour_volume, map_statistics
from theracast_features.imaging.meaning import Meaning
from theracast_features.imaging.overlay_section import DynamicContrast, PlannedDose, QuantitativeMap

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

_RISES = {
    "early_percent": "early enhancement",
    "late_percent": "late enhancement",
    "washout_percent": "washout from the early to the late phase",
}
_VOLUMES: Mapping[str, Meaning] = {
    "ftv_ml": Meaning("functional tumour volume", "mL"),
    "ftv_persistent_ml": Meaning("functional tumour volume, persistent (SER below 0.9)", "mL"),
    "ftv_plateau_ml": Meaning("functional tumour volume, plateau (SER 0.9 to 1.1)", "mL"),
    "ftv_washout_ml": Meaning("functional tumour volume, washout (SER above 1.1)", "mL"),
    "ftv_early_percent": Meaning("mean early enhancement of the functional tumour volume", "%"),
    "ftv_ser": Meaning("mean SER of the functional tumour volume"),
    "ftv_fraction": Meaning("part of the region that is functional tumour"),
}
_OF_VOLUME = {name.removeprefix("ftv_"): name for name in _VOLUMES} | {
    "ftv_ml": "ftv_ml",
    "enhancing_fraction": "ftv_fraction",
}


def dose_meanings(asked: PlannedDose) -> dict[str, Meaning]:
    """Return what `measure_dose` measures, in its order."""
    found = {
        "dose_gy.mean": Meaning("mean dose", "Gy"),
        "dose_gy.min": Meaning("lowest dose", "Gy"),
        "dose_gy.max": Meaning("highest dose", "Gy"),
    }
    for percent in asked.dx_percent:
        found[f"dose_gy.d{number_name(percent)}"] = Meaning(f"D{percent:g}%", "Gy")
    for volume in asked.dx_ml:
        found[f"dose_gy.d{number_name(volume)}_ml"] = Meaning(f"D{volume:g}cc", "Gy")
    for dose in asked.vx_gy:
        found[f"dose_percent.v{number_name(dose)}"] = Meaning(f"V{dose:g}Gy, part of the region", "%")
    for a in asked.geud_a:
        found[f"dose_gy.geud_{number_name(a)}"] = Meaning(f"equivalent uniform dose, a = {a:g}", "Gy")
    if asked.outside == "zero":
        found["dose_percent.outside"] = Meaning("part of the region beyond the dose grid, counted as 0 Gy", "%")
    return found


def measure_dose(histogram: DoseVolume, asked: PlannedDose) -> dict[str, float]:
    """Return the points of a dose-volume histogram; NaN for the dose to more mL than the region has."""
    volume_ml = len(histogram.doses_gy) * histogram.voxel_ml
    found = {
        "dose_gy.mean": histogram.mean_gy,
        "dose_gy.min": histogram.min_gy,
        "dose_gy.max": histogram.max_gy,
    }
    for percent in asked.dx_percent:
        found[f"dose_gy.d{number_name(percent)}"] = histogram.dose_to_share(percent)
    for volume in asked.dx_ml:
        held = volume <= volume_ml * (1 + 1e-9)
        found[f"dose_gy.d{number_name(volume)}_ml"] = histogram.dose_to_volume(volume) if held else np.nan
    for dose in asked.vx_gy:
        found[f"dose_percent.v{number_name(dose)}"] = histogram.share_above(dose)
    for a in asked.geud_a:
        found[f"dose_gy.geud_{number_name(a)}"] = histogram.equivalent_uniform_gy(a)
    if asked.outside == "zero":
        found["dose_percent.outside"] = 100.0 * histogram.share_outside
    return found


def enhancement_meanings(asked: DynamicContrast) -> dict[str, Meaning]:
    """Return what `measure_enhancement` measures, in its order."""
    found: dict[str, Meaning] = {}
    for name, label in _RISES.items():
        found[f"{name}.mean"] = Meaning(f"mean {label}", "%")
        for rank in asked.percentiles:
            found[f"{name}.p{number_name(rank)}"] = Meaning(f"{_ordinal(rank)} percentile of {label}", "%")
    for rank in asked.percentiles:
        found[f"ser.p{number_name(rank)}"] = Meaning(f"{_ordinal(rank)} percentile of the signal enhancement ratio")
    found["enhancement_missing_fraction"] = Meaning("part of the region without signal before contrast")
    if asked.ftv is not None:
        found |= _VOLUMES
    return found


def measure_enhancement(
    pre: Floats, early: Floats, late: Floats, mask: Mask, *, spacing_mm: Spacing, asked: DynamicContrast
) -> dict[str, float]:
    """Return the enhancement of a region between three phases, and its functional tumour volume.

    Percentiles of the signal enhancement ratio (SER) are those of its finite values.

    Args:
        pre, early, late: signals (n_slices, n_rows, n_columns); NaN where nothing was measured.

    Raises:
        ValueError: the region is empty, or has no signal before contrast anywhere.
    """
    found: dict[str, float] = {}
    shown = enhancement(pre, early, late)
    for name in _RISES:
        told = map_statistics(getattr(shown, name), mask, percentiles=asked.percentiles)
        found[f"{name}.mean"] = told["mean"]
        found |= {f"{name}.p{number_name(rank)}": told[f"p{rank:g}"] for rank in asked.percentiles}
        if name == "early_percent":
            missing = told["missing_fraction"]
    ratios = shown.ser[mask]
    finite = ratios[np.isfinite(ratios)]
    for rank in asked.percentiles:
        found[f"ser.p{number_name(rank)}"] = float(np.percentile(finite, rank)) if len(finite) else np.nan
    found["enhancement_missing_fraction"] = missing
    if asked.ftv is not None:
        volumes = functional_tumour_volume(
            shown.early_percent,
            shown.ser,
            mask,
            spacing_mm,
            enhancement_percent=asked.ftv.enhancement_percent,
            min_ser=asked.ftv.min_ser,
        )
        found |= {_OF_VOLUME[name]: value for name, value in volumes.items()}
    return found


def map_meanings(asked: QuantitativeMap) -> dict[str, Meaning]:
    """Return what `measure_map` measures, in its order."""
    found = {
        "map_mean": Meaning(f"mean {asked.label}", asked.unit),
        "map_sd": Meaning(f"standard deviation of {asked.label}", asked.unit),
        "map_min": Meaning(f"lowest {asked.label}", asked.unit),
        "map_max": Meaning(f"highest {asked.label}", asked.unit),
    }
    for rank in asked.percentiles:
        found[f"map_p{number_name(rank)}"] = Meaning(f"{_ordinal(rank)} percentile of {asked.label}", asked.unit)
    return found | {
        "map_skewness": Meaning(f"skewness of {asked.label}"),
        "map_kurtosis": Meaning(f"excess kurtosis of {asked.label}"),
        "map_missing_fraction": Meaning(f"part of the region without {asked.label}"),
    }


def measure_map(values: NDArray[np.floating], mask: Mask, asked: QuantitativeMap) -> dict[str, float]:
    """Return mean, spread and percentiles of a quantity in a region, in the unit of the study.

    Raises:
        ImageError: the median lies beyond what is plausible.
        ValueError: the region is empty, or the map has no number in it.
    """
    told = map_statistics(values.astype(np.float64) * asked.factor, mask, percentiles=asked.percentiles)
    if asked.plausible is not None and not asked.plausible[0] <= told["median"] <= asked.plausible[1]:
        raise ImageError(
            f"the median of {asked.label} in the region lies beyond {asked.plausible[0]:g} to {asked.plausible[1]:g} "
            f"{asked.unit or ''}".rstrip()
            + ": the files are probably in another unit. Give them a kind of image with its own `map.factor`, or correct "
            "`map.plausible`."
        )
    names = {f"p{rank:g}": f"map_p{number_name(rank)}" for rank in asked.percentiles}
    ordered = ("mean", "sd", "min", "max", *names, "skewness", "kurtosis", "missing_fraction")
    return {names.get(name, f"map_{name}"): told[name] for name in ordered}


def number_name(number: float) -> str:
    """Return a number as part of a name: 95 gives 95, 0.1 gives 0_1, -10 gives minus_10."""
    return f"{number:.6g}".replace("-", "minus_").replace(".", "_")


def _ordinal(rank: float) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(int(rank) % 10, "th") if rank == int(rank) and not 10 < rank < 14 else "th"
    return f"{rank:g}{last}"
