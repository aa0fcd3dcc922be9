"""Uptake of a tracer in a region: SUVmax, SUVpeak, SUVmean, metabolic tumour volume, total lesion glycolysis.

Images are (n_slices, n_rows, n_columns) in standardised uptake values (SUV, g/ml; lean body mass where PERCIST is asked),
masks bool on the same grid, spacing (z, y, x) in mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Metabolic = Literal["complete", "partial", "stable", "progressive"]


@dataclass(frozen=True)
class LiverReference:
    """Uptake of healthy liver, against which PERCIST measures.

    Attributes:
        mean, sd: of the voxels of the sphere, SUV.
        voxels: their number.
    """

    mean: float
    sd: float
    voxels: int

    @property
    def threshold(self) -> float:
        """Least peak of a measurable lesion: 1.5 times the mean and 2 standard deviations (Wahl 2009)."""
        return 1.5 * self.mean + 2.0 * self.sd


def liver_reference(
    suv: NDArray[np.floating], liver: Mask, spacing_mm: Spacing, *, diameter_mm: float = 30.0
) -> LiverReference:
    """Return mean and standard deviation of a sphere in the middle of the liver: about the voxel farthest from its edge.

    Raises:
        ValueError: the sphere does not fit into the liver's region.

    Source: PERCIST 1.0, Wahl RL et al. J Nucl Med 2009;50 Suppl 1:122S-150S (3 cm sphere in the normal right lobe).
    """
    _check(suv, liver, spacing_mm)
    depth = ndimage.distance_transform_edt(np.pad(liver, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    centre = np.unravel_index(int(depth.argmax()), depth.shape)
    if depth[centre] < diameter_mm / 2:
        raise ValueError(
            f"a sphere of {diameter_mm:g} mm does not fit into the liver's region (deepest voxel {depth[centre]:.1f} mm from "
            "its edge). Give a region of healthy liver that is large enough, or a smaller diameter_mm."
        )
    axes = np.ogrid[tuple(slice(0, size) for size in suv.shape)]
    squared = sum(((axis - at) * step) ** 2 for axis, at, step in zip(axes, centre, spacing_mm, strict=True))
    values = suv[np.asarray(squared) <= (diameter_mm / 2) ** 2].astype(np.float64)
    return LiverReference(float(values.mean()), float(values.std(ddof=1)), len(values))


def suv_peak(
    suv: NDArray[np.floating],
    mask: Mask,
    spacing_mm: Spacing,
    *,
    centred: Literal["anywhere", "maximum"] = "anywhere",
    sphere_ml: float = 1.0,
) -> float:
    """Return the highest mean of a sphere of 1 ml centred on a voxel of the region.

    A voxel belongs to a sphere if its centre does (6.2 mm from the sphere's centre for 1 ml), whether in the region or not;
    what lies outside the image is left out. Coarse voxels make the sphere coarse: 19 voxels at 4 mm.

    Args:
        centred: `anywhere` in the region (PERCIST; IBSI's global intensity peak), or on the voxel of highest uptake (IBSI's
            local intensity peak; of several such voxels the highest mean).

    Source: Wahl RL et al. J Nucl Med 2009;50 Suppl 1:122S-150S; IBSI, Zwanenburg A et al. Radiology 2020;295:328-338.
    """
    values = _check(suv, mask, spacing_mm)
    radius = (3.0 * sphere_ml * 1000.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
    reach = [int(radius // step) for step in spacing_mm]
    axes = np.ogrid[tuple(slice(-far, far + 1) for far in reach)]
    squared = sum((axis * step) ** 2 for axis, step in zip(axes, spacing_mm, strict=True))
    sphere = (np.asarray(squared) <= radius**2).astype(np.float64)
    box = tuple(
        slice(max(int(held.min()) - far, 0), int(held.max()) + far + 1)
        for held, far in zip(np.nonzero(mask), reach, strict=True)
    )
    near, inside = suv[box].astype(np.float64), mask[box]
    known = np.isfinite(near)
    # The image minus a constant near its level: the transform then loses no digits.
    level = float(values.mean())
    total = fftconvolve(np.where(known, near - level, 0.0), sphere, mode="same")
    count = np.rint(fftconvolve(known.astype(np.float64), sphere, mode="same"))
    means = total / np.maximum(count, 1.0) + level
    centres = inside & (near == values.max()) if centred == "maximum" else inside
    return float(means[centres].max())


def uptake(
    suv: NDArray[np.floating],
    mask: Mask,
    spacing_mm: Spacing,
    *,
    fixed: Sequence[float] = (2.5, 4.0),
    relative: Sequence[float] = (0.41, 0.50),
    liver: LiverReference | None = None,
) -> dict[str, float]:
    """Return what is read from PET in one region.

    `suv_max`, `suv_peak`, `suv_mean`, `suv_sd` of the region as drawn; then for each threshold T the voxels of the region at
    or above it: `mtv_ml.T` (metabolic tumour volume), `suv_mean.T` (missing where there are none) and `tlg_g.T` (total
    lesion glycolysis, volume times mean; SUV in g/ml). T is `suv_2_5` for a fixed one, `max_41_percent` for one relative to
    the region's maximum, `percist` for that of the liver. With a liver `percist_measurable` says whether the peak reaches
    its threshold.

    Raises:
        ValueError: shapes differ, the region is empty, or an uptake in it is not a number.

    Source: 41 and 50 %: Boellaard R et al. (EANM) Eur J Nucl Med Mol Imaging 2015;42:328-354. 2.5 and 4.0: Barrington SF,
    Meignan M. J Nucl Med 2019;60:1096-1102. Liver: Wahl RL et al. J Nucl Med 2009;50 Suppl 1:122S-150S.
    """
    values = _check(suv, mask, spacing_mm)
    voxel_ml = float(np.prod(np.asarray(spacing_mm, dtype=np.float64))) / 1000.0
    found = {
        "suv_max": float(values.max()),
        "suv_peak": suv_peak(suv, mask, spacing_mm),
        "suv_mean": float(values.mean()),
        "suv_sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
    }
    thresholds: dict[str, float] = {f"suv_{threshold_name(one)}": one for one in fixed}
    thresholds |= {f"max_{threshold_name(100 * part)}_percent": part * found["suv_max"] for part in relative}
    if liver is not None:
        thresholds["percist"] = liver.threshold
        found["percist_measurable"] = float(found["suv_peak"] >= liver.threshold)
    for name, threshold in thresholds.items():
        hot = values[values >= threshold]
        found[f"mtv_ml.{name}"] = len(hot) * voxel_ml
        found[f"suv_mean.{name}"] = float(hot.mean()) if len(hot) else np.nan
        found[f"tlg_g.{name}"] = float(hot.sum()) * voxel_ml
    return found


def percist_response(
    before: Mapping[str, float], after: Mapping[str, float], *, liver_after: LiverReference, new_lesion: bool = False
) -> Metabolic:
    """Return the metabolic response of the hottest lesion by PERCIST 1.0.

    Progressive: a new lesion, or a peak at least 30 % and 0.8 higher; partial: at least 30 % and 0.8 lower; complete: below
    the liver's mean. That the lesion cannot be told from its background is for the reader to confirm.

    Args:
        before, after: `suv_peak` of the hottest lesion of each scan (it need not be the same), as in `uptake`.

    Source: Wahl RL et al. J Nucl Med 2009;50 Suppl 1:122S-150S, table 8.
    """
    first, last = before["suv_peak"], after["suv_peak"]
    if not (np.isfinite(first) and first > 0 and np.isfinite(last)):
        raise ValueError("PERCIST compares two peaks above 0: one is missing. Leave the patient out.")
    change = last - first
    if new_lesion or (change >= 0.8 - 1e-9 and change >= 0.3 * first - 1e-9):
        return "progressive"
    if last < liver_after.mean:
        return "complete"
    return "partial" if change <= -0.8 + 1e-9 and change <= -0.3 * first + 1e-9 else "stable"


def threshold_name(number: float) -> str:
    """Return a number as part of a name: 2.5 gives 2_5, 4.0 gives 4_0, 41.0 % gives 41."""
    text = f"{number:.6g}" if number >= 10 or number % 1 else f"{number:.1f}"
    return text.replace(".", "_")


def _check(suv: NDArray[np.floating], mask: Mask, spacing_mm: Spacing) -> Floats:
    """Return the uptake of the region's voxels."""
    if suv.ndim != 3 or suv.shape != mask.shape or mask.dtype != np.bool_:
        raise ValueError(
            f"image and mask (bool) must lie on one grid of 3 dimensions (found {suv.shape} and {mask.shape}, {mask.dtype})"
        )
    if len(spacing_mm) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"spacing_mm is three positive numbers (z, y, x) in mm (found {spacing_mm})")
    values = suv[mask].astype(np.float64)
    if not len(values):
        raise ValueError("the region is empty, so it has no uptake. Leave it out, or draw it.")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} voxels of the region have no uptake. Mend the image.")
    return values
