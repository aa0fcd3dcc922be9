"""Kernels of wavelets and of Laws' filters."""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# IBSI filter manual (arXiv:2006.05470), Laws kernels, normalised to unit length.
LAWS: dict[str, Floats] = {
    name: np.array(values, dtype=np.float64) / np.sqrt(divisor)
    for name, values, divisor in (
        ("L5", (1, 4, 6, 4, 1), 70),
        ("E5", (-1, -2, 0, 2, 1), 10),
        ("S5", (-1, 0, 2, 0, -1), 6),
        ("W5", (-1, 2, 0, -2, 1), 10),
        ("R5", (1, -4, 6, -4, 1), 70),
        ("L3", (1, 2, 1), 6),
        ("E3", (-1, 0, 1), 2),
        ("S3", (-1, 2, -1), 6),
    )
}


def wavelet_kernels(name: str) -> tuple[Floats, Floats]:
    """Return the decomposition low-pass and high-pass kernels of an orthogonal wavelet, as convolution kernels."""
    scaling = _coiflet_1() if name == "coif1" else _daubechies(1 if name == "haar" else int(name[2:]))
    # Quadrature mirror: the high pass is the reversed low pass with alternating signs.
    low = scaling[::-1]
    high = scaling * np.where(np.arange(len(scaling)) % 2 == 0, -1.0, 1.0)
    return low, high


@cache
def _daubechies(vanishing: int) -> Floats:
    """Return the scaling filter with so many vanishing moments and extremal phase, by spectral factorisation.

    Source: Daubechies, Comm Pure Appl Math 1988;41:909-996.
    """
    # |m0|^2 = cos^2(w/2)^N P(sin^2(w/2)); the roots of P in y give pairs z, 1/z by y = (2 - z - 1/z) / 4.
    inside = []
    for y in np.roots([comb(vanishing - 1 + k, k) for k in range(vanishing - 1, -1, -1)]):
        pair = np.roots([1.0, 4 * y - 2, 1.0])
        inside.append(pair[np.argmin(np.abs(pair))])
    filter_ = np.real(np.poly(np.concatenate([-np.ones(vanishing), np.array(inside)])))
    scaling: Floats = filter_ * (np.sqrt(2) / filter_.sum())
    return scaling


def _coiflet_1() -> Floats:
    """Return the scaling filter of the coiflet with 6 coefficients, in closed form.

    Source: Daubechies, Ten Lectures on Wavelets, 1992, table 8.1.
    """
    root = np.sqrt(7.0)
    values = [-3 + root, 1 - root, 14 - 2 * root, 14 + 2 * root, 5 + root, 1 - root]
    scaling: Floats = np.array(values)[::-1] / (16 * np.sqrt(2))
    return scaling
