"""Multi-parametric MR in a region: statistics of a map, enhancement and washout, functional tumour volume.

Maps are (n_slices, n_rows, n_columns), masks bool on the same grid, spacing (z, y, x) in mm. Signals are those of three
images of a dynamic contrast-enhanced series: before contrast, early after it, late after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
PERCENTILES = (5, 10, 25, 75, 90, 95)
WASHOUT_SER, PERSISTENT_SER = 1.1, 0.9


def map_statistics(
    values: NDArray[np.floating], mask: Mask, *, percentiles: Sequence[float] = PERCENTILES
) -> dict[str, float]:
    """Return what describes a map (ADC, perfusion, enhancement) in one region, in the map's unit.

    `mean`, `sd`, `min`, `max`, `median`, each of the percentiles, e.g. `p10` (linear interpolation), `iqr`, `skewness`,
    `kurtosis` (excess: 0 for a normal distribution; both by population moments, as IBSI; missing where all are equal), and
    `missing_fraction`: the part of the region where the map has no number, which is left out of all others.

    Raises:
        ValueError: shapes differ, the region is empty, or the map has no number in it.
    """
    inside = _inside(values, mask)
    known = inside[np.isfinite(inside)]
    if not len(known):
        raise ValueError("the map has no number in the region. Check that map and region lie on one grid.")
    centred = known - known.mean()
    variance = float((centred**2).mean())
    # Rounding leaves a constant map a variance of the order of 1e-32 times its square.
    spread = variance > (1e-12 * float(np.abs(known).max())) ** 2
    lower, upper, *ranks = np.percentile(known, (25, 75, *percentiles))
    return {
        "mean": float(known.mean()),
        "sd": float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        "min": float(known.min()),
        "max": float(known.max()),
        "median": float(np.median(known)),
        **{f"p{rank:g}": float(value) for rank, value in zip(percentiles, ranks, strict=True)},
        "iqr": float(upper - lower),
        "skewness": float((centred**3).mean()) / variance**1.5 if spread else np.nan,
        "kurtosis": float((centred**4).mean()) / variance**2 - 3.0 if spread else np.nan,
        "missing_fraction": 1.0 - len(known) / len(inside),
    }


@dataclass(frozen=True)
class Enhancement:
    """Maps of a dynamic series; NaN where the signal before contrast is not above 0.

    Attributes:
        early_percent: 100 * (early - pre) / pre.
        late_percent: 100 * (late - pre) / pre.
        washout_percent: 100 * (early - late) / early; above 0 where the contrast washes out.
        ser: signal enhancement ratio (early - pre) / (late - pre); infinite where an early enhancement is gone by the late
            image, NaN where there was none to begin with and none is left.
    """

    early_percent: Floats
    late_percent: Floats
    washout_percent: Floats
    ser: Floats


def enhancement(pre: NDArray[np.floating], early: NDArray[np.floating], late: NDArray[np.floating]) -> Enhancement:
    """Return the maps of enhancement of three images of one shape.

    Source: Hylton NM et al. Radiology 2012;263:663-672 (percentage of enhancement and signal enhancement ratio).
    """
    if not pre.shape == early.shape == late.shape:
        raise ValueError(f"the three images must have one shape (found {pre.shape}, {early.shape}, {late.shape})")
    before, first, last = (np.asarray(image, dtype=np.float64) for image in (pre, early, late))
    before = np.where(before > 0, before, np.nan)
    rise, left = first - before, last - before
    ratio = rise / np.where(left > 0, left, np.nan)
    return Enhancement(
        early_percent=100.0 * rise / before,
        late_percent=100.0 * left / before,
        washout_percent=100.0 * (first - last) / np.where(first > 0, first, np.nan) + 0.0 * before,
        ser=np.where((rise > 0) & (left <= 0), np.inf, ratio),
    )


def functional_tumour_mask(
    early_percent: NDArray[np.floating],
    ser: NDArray[np.floating],
    mask: Mask,
    *,
    enhancement_percent: float = 70.0,
    min_ser: float = 0.0,
) -> Mask:
    """Return the voxels of the region that count as functional tumour: enhanced early, and not only late.

    Args:
        mask: the volume of interest, without skin, vessels and other tissue that the reader has left out.
        enhancement_percent: least early enhancement; 70 % in I-SPY 2.
        min_ser: least signal enhancement ratio; 0 in I-SPY 2. Earlier work used 0.9.

    Source: Hylton NM et al. Radiology 2016;279:44-55 (70 %); Lo WC et al. Tomography 2016;2:378-387 (both thresholds varied);
    Newitt DC et al. Transl Oncol 2014;7:94-100 (the algorithm on two platforms). Their scanners' background threshold and
    count of neighbours are not applied: leave background out of `mask`.
    """
    _inside(early_percent, mask)
    _inside(ser, mask)
    chosen: Mask = mask & (early_percent >= enhancement_percent) & (ser >= min_ser)
    return chosen


def functional_tumour_volume(
    early_percent: NDArray[np.floating],
    ser: NDArray[np.floating],
    mask: Mask,
    spacing_mm: Spacing,
    *,
    enhancement_percent: float = 70.0,
    min_ser: float = 0.0,
) -> dict[str, float]:
    """Return the functional tumour volume and its parts by the course of enhancement.

    `ftv_ml`; `persistent_ml` (SER below 0.9), `plateau_ml` and `washout_ml` (above 1.1), which add up to it; `early_percent`
    and `ser`: means over it (of SER the finite values), missing where it is empty; `enhancing_fraction` of the region.

    Args: as `functional_tumour_mask`.

    Source: as there; classes of SER: Hylton NM et al. Radiology 2012;263:663-672.
    """
    tumour = functional_tumour_mask(early_percent, ser, mask, enhancement_percent=enhancement_percent, min_ser=min_ser)
    voxel_ml = float(np.prod(np.asarray(spacing_mm, dtype=np.float64))) / 1000.0
    ratios, rises = ser[tumour].astype(np.float64), early_percent[tumour].astype(np.float64)
    finite = ratios[np.isfinite(ratios)]
    washout, persistent = int((ratios > WASHOUT_SER).sum()), int((ratios < PERSISTENT_SER).sum())
    return {
        "ftv_ml": len(ratios) * voxel_ml,
        "persistent_ml": persistent * voxel_ml,
        "plateau_ml": (len(ratios) - washout - persistent) * voxel_ml,
        "washout_ml": washout * voxel_ml,
        "early_percent": float(rises.mean()) if len(rises) else np.nan,
        "ser": float(finite.mean()) if len(finite) else np.nan,
        "enhancing_fraction": len(ratios) / int(mask.sum()),
    }


def _inside(values: NDArray[np.floating], mask: Mask) -> Floats:
    if values.shape != mask.shape or mask.dtype != np.bool_:
        raise ValueError(
            f"map and mask (bool) must lie on one grid (found {values.shape} and {mask.shape}, {mask.dtype})"
        )
    if not mask.any():
        raise ValueError("the region is empty. Leave it out, or draw it.")
    return values[mask].astype(np.float64)
