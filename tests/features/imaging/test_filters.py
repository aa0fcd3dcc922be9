"""Filters, kernels and resampling against SciPy and dense loops."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from theracast_features.imaging.filters import reach_of, response_maps
from theracast_features.imaging.kernels import LAWS, wavelet_kernels
from theracast_features.imaging.region import prepare_region
from theracast_features.imaging.resample import Axis, resample
from theracast_features.imaging.settings import LaplacianOfGaussian, Laws, MeanFilter, RadiomicsSettings, Wavelet

SHAPE = (9, 11, 13)


def responses(chosen: Any, image: Any, spacing: tuple[float, float, float]) -> dict[str, Any]:
    """Return the response maps of the whole image, mirrored at its borders."""
    settings = RadiomicsSettings(filters=(chosen,))
    region = prepare_region(
        image,
        np.ones(image.shape, bool),
        spacing_mm=spacing,
        settings=settings,
        reach=reach_of(settings.filters, spacing),
    )
    return {name: response.image for name, response in response_maps(region, settings.filters)}


@pytest.fixture
def image() -> Any:
    return np.random.default_rng(0).normal(size=SHAPE)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.0, 0.8)])
@pytest.mark.parametrize("dimension", ["2D", "3D"])
def test_laplacian_of_gaussian(image: Any, spacing: tuple[float, float, float], dimension: Any) -> None:
    """Against SciPy's derivatives of Gaussians, in mm and scaled to a voxel of the mean size."""
    sigma = 1.5
    (found,) = responses(LaplacianOfGaussian(sigma_mm=sigma, dimension=dimension), image, spacing).values()
    axes = (1, 2) if dimension == "2D" else (0, 1, 2)
    unit = np.prod([spacing[axis] for axis in axes]) ** (1 / len(axes))
    sigmas = [sigma / size if axis in axes else 0.0 for axis, size in enumerate(spacing)]
    wanted = sum(
        ndimage.gaussian_filter(image, sigmas, order=[2 * (axis == other) for other in range(3)], truncate=4.0)
        * (unit / spacing[axis]) ** 2
        for axis in axes
    )
    # SciPy's truncated kernel does not quite sum to zero; ours does, and 0.1 % of the range is the whole difference.
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.ptp(wanted))
    if spacing == (1.0, 1.0, 1.0) and dimension == "3D":
        np.testing.assert_allclose(found, ndimage.gaussian_laplace(image, sigma), atol=1e-3 * np.ptp(wanted))


def test_laplacian_is_the_sampled_kernel(image: Any) -> None:
    """Against a dense kernel of the formula of arXiv:2006.05470, cut off at 4 sigma; the IBSI tolerates 1 % of the range."""
    sigma = 1.5
    (found,) = responses(LaplacianOfGaussian(sigma_mm=sigma), image, (1.0, 1.0, 1.0)).values()
    steps = np.arange(-6, 7)
    square = steps[:, None, None] ** 2 + steps[None, :, None] ** 2 + steps[None, None, :] ** 2
    kernel = -1 / sigma**2 * (1 / (np.sqrt(2 * np.pi) * sigma)) ** 3 * (3 - square / sigma**2)
    kernel = kernel * np.exp(-square / (2 * sigma**2))
    wanted = ndimage.convolve(image, kernel, mode="reflect")
    assert np.abs(found - wanted).max() < 0.002 * np.ptp(wanted)


def dense(kernels: tuple[Any, Any, Any]) -> Any:
    """Return the outer product of kernels along z, y, x."""
    return kernels[0][:, None, None] * kernels[1][None, :, None] * kernels[2][None, None, :]


def convolved(image: Any, kernel: Any) -> Any:
    """Return sum over j of kernel[j] image[i - j + n // 2], the image mirrored."""
    wide = kernel.shape
    padded = np.pad(image, [(size, size) for size in wide], mode="symmetric")
    result = np.zeros(image.shape)
    for j in np.ndindex(kernel.shape):
        start = [wide[a] - j[a] + kernel.shape[a] // 2 for a in range(3)]
        result += kernel[j] * padded[tuple(slice(s, s + n) for s, n in zip(start, image.shape, strict=True))]
    return result


@pytest.mark.parametrize("wavelet", ["haar", "db3", "coif1"])
def test_wavelet_bands(image: Any, wavelet: Any) -> None:
    low, high = wavelet_kernels(wavelet)
    for name, found in responses(Wavelet(wavelet=wavelet), image, (1.0, 1.0, 1.0)).items():
        x, y, z = (low if letter == "L" else high for letter in name.rsplit("_", 1)[1])
        np.testing.assert_allclose(found, convolved(image, dense((z, y, x))), atol=1e-12)


def test_rotations_turn_the_image(image: Any) -> None:
    """A rotation-invariant response is the mean over the 24 rotations of the image, each turned back."""
    low, high = wavelet_kernels("db2")
    kernel = dense((high, low, low))
    (found,) = responses(
        Wavelet(wavelet="db2", bands=("LLH",), rotation_invariant=True), image, (1.0, 1.0, 1.0)
    ).values()
    turned = []
    for order in permutations(range(3)):
        for flips in product((1, -1), repeat=3):
            matrix = np.eye(3)[list(order)] * flips
            if np.linalg.det(matrix) > 0:
                axes = [axis for axis in range(3) if flips[axis] < 0]
                rotated = np.flip(image.transpose(order), axes)
                turned.append(np.flip(convolved(rotated, kernel), axes).transpose(np.argsort(order)))
    assert len(turned) == 24
    np.testing.assert_allclose(found, np.mean(turned, axis=0), atol=1e-12)


def test_mean_and_laws(image: Any) -> None:
    (mean,) = responses(MeanFilter(size=5), image, (1.0, 1.0, 1.0)).values()
    np.testing.assert_allclose(mean, ndimage.uniform_filter(image, 5, mode="reflect"), atol=1e-12)
    (laws,) = responses(Laws(kernels="L5S5R5", pooling="none", energy_distance=None), image, (1.0, 1.0, 1.0)).values()
    wanted = convolved(image, dense((LAWS["R5"], LAWS["S5"], LAWS["L5"])))
    np.testing.assert_allclose(laws, wanted, atol=1e-12)


# Decomposition low pass as PyWavelets prints it.
PUBLISHED = {
    "haar": [0.7071067811865476, 0.7071067811865476],
    "db2": [-0.12940952255126037, 0.2241438680420134, 0.8365163037378079, 0.48296291314453416],
    "db3": [
        0.03522629188570953, -0.08544127388202666, -0.13501102001025458, 0.45987750211849154, 0.8068915093110925,
        0.33267055295008263,
    ],
    "coif1": [
        -0.01565572813546454, -0.0727326195128539, 0.38486484686420286, 0.8525720202122554, 0.3378976624578092,
        -0.0727326195128539,
    ],
}  # fmt: skip


@pytest.mark.parametrize("wavelet", PUBLISHED)
def test_published_coefficients(wavelet: str) -> None:
    low, high = wavelet_kernels(wavelet)
    np.testing.assert_allclose(low, PUBLISHED[wavelet], atol=1e-12)
    np.testing.assert_allclose(high[0] / -low[-1], 1, atol=1e-12)


@pytest.mark.parametrize("order", range(1, 9))
def test_daubechies_moments(order: int) -> None:
    """Orthonormal to its own even shifts, and blind to polynomials up to degree `order` - 1."""
    low, high = wavelet_kernels(f"db{order}")
    for shift in range(0, 2 * order, 2):
        assert low[shift:] @ low[: len(low) - shift] == pytest.approx(float(shift == 0), abs=1e-9)
    places = np.arange(2 * order) / order
    for degree in range(order):
        assert high @ places**degree == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_resampling(image: Any, method: Any) -> None:
    """Against SciPy's interpolators; beyond the outermost centres the nearest voxel holds."""
    spacing, target = (3.0, 1.0, 0.7), (2.0, 1.3, 1.0)
    axes = tuple(Axis.between(n, old, new) for n, old, new in zip(SHAPE, spacing, target, strict=True))
    part = (slice(0, axes[0].new_size), slice(2, 7), slice(1, axes[2].new_size))
    found = resample(image, axes, part, method=method)  # type: ignore[arg-type]
    places = np.meshgrid(
        *(np.clip(axis.positions(where), 0, axis.size - 1) for axis, where in zip(axes, part, strict=True)),
        indexing="ij",
    )
    if method == "cubic":
        wanted = ndimage.map_coordinates(image, places, order=3, mode="mirror")
    else:
        grid = [np.arange(n) for n in SHAPE]
        wanted = RegularGridInterpolator(grid, image)(np.stack(places, axis=-1))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_grids_share_the_centre() -> None:
    axis = Axis.between(204, 0.977, 2.0)
    assert axis.new_size == 100
    positions = axis.positions(slice(0, 100))
    assert positions.mean() == pytest.approx(203 / 2)
    assert Axis.between(60, 3.0, 2.0).new_size == 90
