"""Spatial autocorrelation of intensities: Moran's I and Geary's C over all pairs of voxels.

Weights are the inverse of the distance. A weight depends only on the displacement of a pair, so sums over the n^2 pairs are
products with autocorrelations of the image, which fast Fourier transforms give in n log n. Nothing is sampled or cut off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfftn

Floats = NDArray[np.float64]


def moran_geary(image: Floats, mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Return Moran's I and Geary's C (IBSI manual, N365 and NPT7) of the voxels of the mask, (z, y, x).

    Both are NaN for one voxel and for a flat region.
    """
    n = int(mask.sum())
    values = image[mask]
    if n < 2 or values.min() == values.max():
        return float("nan"), float("nan")
    deviation = np.where(mask, image - values.mean(), 0.0)
    square = deviation * deviation
    variance_sum = float(square.sum())
    shape = [next_fast_len(2 * size - 1, real=True) for size in mask.shape]
    weights = _spectrum(_inverse_distances(shape, mask.shape, spacing_mm), shape).real
    # Parseval over a half spectrum: what lies between the ends along the last axis counts twice.
    weights[..., 1 : (shape[-1] + 1) // 2] *= 2
    weights /= np.prod(shape, dtype=np.float64)
    mask_spectrum = _spectrum(mask.astype(np.float64), shape)
    weight_sum = _energy(weights, mask_spectrum, mask_spectrum)
    square_spectrum = _spectrum(square, shape)
    mixed = _energy(weights, square_spectrum, mask_spectrum)
    del square_spectrum, mask_spectrum
    deviation_spectrum = _spectrum(deviation, shape)
    product = _energy(weights, deviation_spectrum, deviation_spectrum)
    moran = n / weight_sum * product / variance_sum
    geary = (n - 1) / (2 * weight_sum) * (2 * mixed - 2 * product) / variance_sum
    return moran, geary


def _inverse_distances(shape: list[int], size: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Floats:
    """Return 1 / distance of every displacement, periodic on the grid `shape`; 0 for none."""
    squares = []
    for axis, (padded, extent) in enumerate(zip(shape, size, strict=True)):
        steps = np.arange(padded)
        steps = np.minimum(steps, padded - steps)
        squares.append(np.where(steps < extent, (steps * spacing_mm[axis]) ** 2.0, 0.0))
    total = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    weights: Floats = np.zeros_like(total)
    np.divide(1.0, np.sqrt(total), out=weights, where=total > 0)
    return weights


def _spectrum(values: Floats, shape: list[int]) -> NDArray[np.complex128]:
    spectrum: NDArray[np.complex128] = rfftn(values, shape, workers=1)
    return spectrum


def _energy(weights: Floats, left: NDArray[np.complex128], right: NDArray[np.complex128]) -> float:
    return float(
        np.einsum("zyx,zyx,zyx->", weights, left.real, right.real)
        + np.einsum("zyx,zyx,zyx->", weights, left.imag, right.imag)
    )
