"""Named settings: the benchmarks of the IBSI, and what pyradiomics does by default."""

from __future__ import annotations

from theracast_features.imaging.settings import (
    AGGREGATIONS,
    Aggregation,
    FixedBinNumber,
    FixedBinSize,
    Interpolation,
    RadiomicsSettings,
    Resegmentation,
    Undiscretised,
)

BY_SLICE: tuple[Aggregation, ...] = ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb")
BY_VOLUME: tuple[Aggregation, ...] = ("3D_avg", "3D_comb")

IBSI_DIGITAL_PHANTOM = RadiomicsSettings(discretisation=Undiscretised(), aggregations=AGGREGATIONS)

# Processing of the CT phantom, IBSI reference manual (arXiv:1612.07003), chapter on the benchmark data sets.
IBSI_A = RadiomicsSettings(
    resegmentation=Resegmentation(minimum=-500, maximum=400),
    discretisation=FixedBinSize(width=25),
    aggregations=BY_SLICE,
)
IBSI_B = RadiomicsSettings(
    interpolation=Interpolation(spacing_mm=2, dimension="2D"),
    resegmentation=Resegmentation(minimum=-500, maximum=400),
    discretisation=FixedBinNumber(bins=32),
    aggregations=BY_SLICE,
)
IBSI_C = RadiomicsSettings(
    interpolation=Interpolation(spacing_mm=2),
    resegmentation=Resegmentation(minimum=-1000, maximum=400),
    discretisation=FixedBinSize(width=25),
    ivh_discretisation=FixedBinSize(width=2.5),
    aggregations=BY_VOLUME,
)
IBSI_D = RadiomicsSettings(
    interpolation=Interpolation(spacing_mm=2),
    resegmentation=Resegmentation(outlier_sigma=3),
    discretisation=FixedBinNumber(bins=32),
    aggregations=BY_VOLUME,
)
IBSI_E = RadiomicsSettings(
    interpolation=Interpolation(spacing_mm=2, method="cubic"),
    resegmentation=Resegmentation(minimum=-1000, maximum=400, outlier_sigma=3),
    discretisation=FixedBinNumber(bins=32),
    ivh_discretisation=FixedBinNumber(bins=1000),
    aggregations=BY_VOLUME,
)
PYRADIOMICS = RadiomicsSettings(
    discretisation=FixedBinSize(width=25), aggregations=("3D_avg",), compatibility="pyradiomics"
)

PRESETS: dict[str, RadiomicsSettings] = {
    "ibsi-digital-phantom": IBSI_DIGITAL_PHANTOM,
    "ibsi-a": IBSI_A,
    "ibsi-b": IBSI_B,
    "ibsi-c": IBSI_C,
    "ibsi-d": IBSI_D,
    "ibsi-e": IBSI_E,
    "pyradiomics": PYRADIOMICS,
}
