"""Small changes of image and region as other hands, other scanners and another grid would have made them.

What is random is drawn first (`draw_perturbations`) and applied afterwards (`perturb`), so a change can be recorded and
repeated. Images are (n_slices, n_rows, n_columns), masks bool on the same grid, spacing (z, y, x) in mm.

Source: Zwanenburg A et al. Assessing robustness of radiomic features by image perturbation. Sci Rep 2019;9:614.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
_MARGIN = 10  # voxels about a region in which its image's noise is looked at


@dataclass(frozen=True)
class Perturbation:
    """One change of image and region; the defaults change nothing.

    Attributes:
        name: e.g. `original`, `grow`, `contour 2`.
        grow_voxels: layers of voxels (faces touching) that are added, below 0 taken away.
        shift_voxels: (z, y, x) by which image and region move on their grid, in parts of a voxel.
        contour_mm: standard deviation of the distance by which the contour moves outwards or inwards within slices, mm.
        contour_length_mm: over which it moves alike (standard deviation of the smoothing), mm.
        noise_levels: noise that is added, in multiples of the image's own.
        seed: of contour and noise.
    """

    name: str
    grow_voxels: int = 0
    shift_voxels: tuple[float, float, float] = (0.0, 0.0, 0.0)
    contour_mm: float = 0.0
    contour_length_mm: float = 5.0
    noise_levels: float = 0.0
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the perturbation as plain JSON values."""
        return {**asdict(self), "shift_voxels": list(self.shift_voxels)}


def draw_perturbations(
    rng: np.random.Generator,
    *,
    grow_voxels: tuple[int, ...] = (1, -1),
    shifts: int = 2,
    contours: int = 2,
    contour_mm: float = 1.0,
    contour_length_mm: float = 5.0,
    noises: int = 2,
    noise_levels: float = 1.0,
) -> tuple[Perturbation, ...]:
    """Return the unchanged original and then: growth and shrinkage, shifts, random contours, noise, one change at a time.

    Shifts are drawn evenly from half a voxel to either side along each axis.
    """
    drawn = [Perturbation("original")]
    drawn += [
        Perturbation(f"{'grow' if layers > 0 else 'shrink'} {abs(layers)}", grow_voxels=layers)
        for layers in grow_voxels
    ]
    for number in range(1, shifts + 1):
        z, y, x = (float(part) for part in rng.uniform(-0.5, 0.5, 3))
        drawn.append(Perturbation(f"shift {number}", shift_voxels=(z, y, x)))
    drawn += [
        Perturbation(
            f"contour {number}",
            contour_mm=contour_mm,
            contour_length_mm=contour_length_mm,
            seed=int(rng.integers(2**31)),
        )
        for number in range(1, contours + 1)
    ]
    drawn += [
        Perturbation(f"noise {number}", noise_levels=noise_levels, seed=int(rng.integers(2**31)))
        for number in range(1, noises + 1)
    ]
    return tuple(drawn)


def perturb(
    image: NDArray[np.floating], mask: Mask, spacing_mm: Spacing, perturbation: Perturbation
) -> tuple[Floats, Mask]:
    """Return image and region changed: noise, then shift, growth, contour. The region may be empty afterwards.

    Raises:
        ValueError: image and mask do not lie on one grid, or the region is empty to begin with.
    """
    if image.ndim != 3 or image.shape != mask.shape or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(
            f"image and mask (bool, not empty) must lie on one grid (found {image.shape}, {mask.shape} {mask.dtype})"
        )
    changed, region = image.astype(np.float64), mask.copy()
    if perturbation.noise_levels:
        scale = perturbation.noise_levels * noise_level(changed, mask)
        changed = changed + np.random.default_rng(perturbation.seed).normal(0.0, 1.0, image.shape) * scale
    if any(perturbation.shift_voxels):
        changed = ndimage.shift(changed, perturbation.shift_voxels, order=1, mode="nearest")
        region = ndimage.shift(region.astype(np.float64), perturbation.shift_voxels, order=1, mode="constant") >= 0.5
    if perturbation.grow_voxels > 0:
        region = ndimage.binary_dilation(region, iterations=perturbation.grow_voxels)
    if perturbation.grow_voxels < 0:
        region = ndimage.binary_erosion(region, iterations=-perturbation.grow_voxels)
    if perturbation.contour_mm and region.any():
        region = _moved_contour(region, spacing_mm, perturbation)
    return changed, region


def noise_level(image: NDArray[np.floating], mask: Mask | None = None) -> float:
    """Return the standard deviation of the image's noise, in its unit.

    The difference across both diagonals of squares of four pixels in a slice leaves noise and little else; its median gives
    the level whatever edges there are. Noise that an interpolation has smoothed reads lower than it was.

    Args:
        mask: only the box about this region, 10 voxels wider, is looked at.

    Source: Donoho DL, Johnstone IM. Biometrika 1994;81:425-455 (finest diagonal wavelet coefficients, median / 0.6745).
    """
    part = np.asarray(image, dtype=np.float64)
    if mask is not None:
        part = part[_box(mask, (_MARGIN, _MARGIN, _MARGIN))]
    rows, columns = part.shape[1] // 2 * 2, part.shape[2] // 2 * 2
    part = part[:, :rows, :columns]
    diagonal = (part[:, ::2, ::2] - part[:, ::2, 1::2] - part[:, 1::2, ::2] + part[:, 1::2, 1::2]) / 2.0
    diagonal = diagonal[np.isfinite(diagonal)]
    if not len(diagonal):
        raise ValueError("the image is less than two pixels wide, or has no numbers: its noise cannot be told.")
    return float(np.median(np.abs(diagonal)) / 0.6744897501960817)


def _moved_contour(mask: Mask, spacing_mm: Spacing, perturbation: Perturbation) -> Mask:
    """Return the region whose contour has moved, slice by slice, by a smooth random field; no slice is gained."""
    reach = [0, *(int(np.ceil(4.0 * perturbation.contour_mm / step)) + 2 for step in spacing_mm[1:])]
    box = _box(mask, (0, reach[1], reach[2]))
    part = np.pad(mask[box], ((0, 0), (1, 1), (1, 1)))
    # Slices lie so far apart that the nearest edge is always one of the same slice.
    apart = (1e6, spacing_mm[1], spacing_mm[2])
    half = float(np.sqrt(spacing_mm[1] * spacing_mm[2])) / 2.0
    inwards = ndimage.distance_transform_edt(part, sampling=apart) - half
    outwards = ndimage.distance_transform_edt(~part, sampling=apart) - half
    smooth = [perturbation.contour_length_mm / step for step in spacing_mm]
    field = np.random.default_rng(perturbation.seed).normal(0.0, 1.0, part.shape)
    field = ndimage.gaussian_filter(field, smooth, mode="wrap")
    # Scaled by what the smoothing leaves of white noise, not by this field's own spread: a small region may move as a whole.
    weights = [_kept(width, size) for width, size in zip(smooth, part.shape, strict=True)]
    field *= perturbation.contour_mm / float(np.prod(weights))
    moved = np.where(part, inwards, -outwards) + field > 0
    changed = np.zeros_like(mask)
    changed[box] = moved[:, 1:-1, 1:-1]
    return changed


def _kept(width: float, size: int) -> float:
    """Return the standard deviation that white noise of 1 keeps after smoothing along one axis of this many voxels."""
    unit = np.zeros(size)
    unit[size // 2] = 1.0
    return float(np.sqrt((ndimage.gaussian_filter1d(unit, width, mode="wrap") ** 2).sum()))


def _box(mask: Mask, margin: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(
        slice(max(int(held.min()) - more, 0), int(held.max()) + more + 1)
        for held, more in zip(np.nonzero(mask), margin, strict=True)
    )
