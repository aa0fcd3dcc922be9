"""Spatial autocorrelation of intensities: Moran's I and Geary's C over all pairs of voxels.

Weights are the inverse of the distance. A weight depends only on the displacement of a pair, so sums over the n^2 pairs are
products with autocorrelations of the image, which fast Fourier transforms give in n log n. Nothing is sampled or cut off.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftn, next_fast_len, rfftn

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Spacing = tuple[float, float, float]

# Above so many voxels in the bounding box, eight small transforms take the place of one padded to eight times the size.
LARGE_BOX = 500_000


def moran_geary(
    image: Floats, mask: NDArray[np.bool_], spacing_mm: Spacing, *, large_box: int = LARGE_BOX
) -> tuple[float, float]:
    """Return Moran's I and Geary's C (IBSI manual, N365 and NPT7) of the voxels of the mask, (z, y, x).

    Both are NaN for one voxel and for a flat region.
    """
    n = int(mask.sum())
    values = image[mask]
    if n < 2 or values.min() == values.max():
        return float("nan"), float("nan")
    deviation = np.where(mask, image - values.mean(), 0.0)
    deviation /= np.sqrt(np.sum(deviation * deviation) / n)
    sums = _pair_sums if mask.size <= large_box else _pair_sums_in_parts
    weight_sum, product_sum, square_sum = sums(mask, deviation, spacing_mm)
    # Both divide by the sum of squared deviations, which is n now.
    return product_sum / weight_sum, (n - 1) / n * (square_sum - product_sum) / weight_sum


def _pair_sums(mask: NDArray[np.bool_], deviation: Floats, spacing_mm: Spacing) -> tuple[float, float, float]:
    """Return the sums over all pairs of w, of w d_i d_j and of w d_i^2."""
    shape = [next_fast_len(2 * size - 1, real=True) for size in mask.shape]
    # Periodic: a step beyond the middle is one backwards.
    steps = [np.minimum(np.arange(size), size - np.arange(size)) for size in shape]
    weights = np.ascontiguousarray(rfftn(_inverse_distances(steps, spacing_mm), workers=1).real)
    # Parseval over a half spectrum: what lies between the ends along the last axis counts twice.
    weights[..., 1 : (shape[-1] + 1) // 2] *= 2
    weights /= np.prod(shape, dtype=np.float64)

    def spectrum(values: Floats) -> Complexes:
        found: Complexes = rfftn(values, shape, workers=1)
        return found

    products = spectrum(deviation)
    product_sum = _energy(weights, products, products)
    del products
    members = spectrum(mask.astype(np.float64))
    weight_sum = _energy(weights, members, members)
    return weight_sum, product_sum, _energy(weights, spectrum(deviation * deviation), members)


def _pair_sums_in_parts(mask: NDArray[np.bool_], deviation: Floats, spacing_mm: Spacing) -> tuple[float, float, float]:
    """Return the same sums with transforms of the size of the box, at about twice the time.

    Of a transform padded to twice the length, the even frequencies are those of the values as they are and the odd ones
    those of the values turned by half a frequency; the weights fold likewise. Along three axes that makes eight parts.
    """
    sizes = [next_fast_len(size) for size in mask.shape]
    weights = _inverse_distances([np.arange(size + 1) for size in sizes], spacing_mm)
    totals = np.zeros(3)
    for odd in product((False, True), repeat=3):
        turns = [
            np.exp(-1j * np.pi * np.arange(size) / size) if is_odd else np.ones(size)
            for size, is_odd in zip(sizes, odd, strict=True)
        ]

        def spectrum(values: NDArray[np.generic], turns: list[Complexes] = turns) -> Complexes:
            padded = np.zeros(sizes, np.complex128)
            padded[tuple(slice(size) for size in values.shape)] = values
            padded *= turns[0][:, None, None]
            padded *= turns[1][None, :, None]
            padded *= turns[2][None, None, :]
            found: Complexes = fftn(padded, workers=1, overwrite_x=True)
            return found

        folded = weights
        for axis, is_odd in enumerate(odd):
            # Of a period of 2 n steps, step n + k is step n - k backwards.
            first, second = np.delete(folded, -1, axis), np.flip(np.delete(folded, 0, axis), axis)
            folded = first - second if is_odd else first + second
        part = np.ascontiguousarray(spectrum(folded).real)
        del folded
        products = spectrum(deviation)
        totals[1] += _energy(part, products, products)
        del products
        members = spectrum(mask)
        totals[0] += _energy(part, members, members)
        totals[2] += _energy(part, spectrum(deviation * deviation), members)
    weight_sum, product_sum, square_sum = (float(total) for total in totals / (8 * np.prod(sizes, dtype=np.float64)))
    return weight_sum, product_sum, square_sum


def _inverse_distances(steps: list[NDArray[np.int64]], spacing_mm: Spacing) -> Floats:
    """Return 1 / distance of every displacement by these steps along each axis; 0 for none."""
    squares = [(step * spacing) ** 2 for step, spacing in zip(steps, spacing_mm, strict=True)]
    weights: Floats = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    weights[0, 0, 0] = np.inf
    np.sqrt(weights, out=weights)
    np.divide(1.0, weights, out=weights)
    return weights


def _energy(weights: Floats, left: Complexes, right: Complexes) -> float:
    return float(
        np.einsum("zyx,zyx,zyx->", weights, left.real, right.real)
        + np.einsum("zyx,zyx,zyx->", weights, left.imag, right.imag)
    )
