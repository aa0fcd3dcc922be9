"""Response maps of convolutional filters, defined as by the IBSI's second phase (arXiv:2006.05470).

Every filter here is a sum of separable kernels. Only the region's bounding box is computed: the image around it is read as far
as the kernel reaches, and mirrored at the borders of the image (the border voxel repeats: d c b a | a b c d | d c b a).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.kernels import LAWS, wavelet_kernels
from theracast_features.imaging.region import Reach, Region, Spacing
from theracast_features.imaging.settings import (
    Filter,
    LaplacianOfGaussian,
    Laws,
    MeanFilter,
)

Floats = NDArray[np.float64]
# A kernel for each axis (z, y, x); None leaves the axis alone.
Kernels = tuple[Floats | None, Floats | None, Floats | None]


def reach_of(filters: Sequence[Filter], spacing_mm: Spacing) -> Reach:
    """Return how far beyond the region the filters look, in voxels of this size (z, y, x)."""
    reaches = [_reach(chosen, spacing_mm) for chosen in filters]
    z, y, x = (max((reach[axis] for reach in reaches), default=0) for axis in range(3))
    return z, y, x


def response_maps(region: Region, filters: Sequence[Filter]) -> Iterator[tuple[str, Region]]:
    """Yield name and region of each response map; the masks are those of the region.

    The region must have been prepared with `reach_of` the filters around it.
    """
    for chosen in filters:
        source = _surrounded(region, _reach(chosen, region.spacing_mm))
        for name, response in _responses(source, chosen, region.spacing_mm):
            yield (
                name,
                replace(
                    region,
                    image=response,
                    shape_mask=region.shape_mask[region.box],
                    intensity_mask=region.intensity_mask[region.box],
                ),
            )


def _responses(source: Floats, chosen: Filter, spacing_mm: Spacing) -> Iterator[tuple[str, Floats]]:
    reach = _reach(chosen, spacing_mm)
    if isinstance(chosen, LaplacianOfGaussian):
        yield chosen.names[0], _laplacian(source, chosen, spacing_mm)
    elif isinstance(chosen, MeanFilter):
        box = np.full(chosen.size, 1 / chosen.size)
        yield chosen.names[0], convolve(source, (None if chosen.dimension == "2D" else box, box, box), reach)
    elif isinstance(chosen, Laws):
        yield chosen.names[0], _laws(source, chosen)
    else:
        low, high = wavelet_kernels(chosen.wavelet)
        passes: dict[str, Floats] = {}  # bands share their passes along z, and along z and y
        for name, band in zip(chosen.names, chosen.bands, strict=True):
            along = tuple(low if letter == "L" else high for letter in band)
            if chosen.rotation_invariant:
                yield name, sum_of_rotations(source, along, reach, pooling="average")
                continue
            kernels, begun = _by_axis(along), source
            for axis in (0, 1):
                key = band[2 - axis :] if len(band) == 3 else band[2 - axis :] + "-"
                if key not in passes:
                    passes[key] = _pass(begun, kernels[axis], axis, reach[axis], flip=False)
                begun = passes[key]
            yield name, _pass(begun, kernels[2], 2, reach[2], flip=False)


def convolve(
    source: Floats, kernels: Kernels, reach: Reach, *, flipped: tuple[bool, bool, bool] = (False,) * 3
) -> Floats:
    """Return the convolution of the inner part of `source`, `reach` voxels (z, y, x) away from its borders.

    An even kernel has its origin at the later of its two middle values; flipped, it takes its origin with it.
    """
    result = source
    for axis, (kernel, flip) in enumerate(zip(kernels, flipped, strict=True)):
        result = _pass(result, kernel, axis, reach[axis], flip=flip)
    return result


def _pass(source: Floats, kernel: Floats | None, axis: int, reach: int, *, flip: bool) -> Floats:
    """Return the convolution along one axis, `reach` voxels shorter at both ends."""
    taps = np.ones(1) if kernel is None else kernel if flip else kernel[::-1]
    # The convolution is the correlation with the reversed kernel, whose origin moves from n // 2 to (n - 1) // 2.
    begun = reach - (len(taps) // 2 if flip else (len(taps) - 1) // 2)
    return _correlate(source, np.ascontiguousarray(taps), axis, begun, source.shape[axis] - 2 * reach)


def sum_of_rotations(source: Floats, along: tuple[Floats, ...], reach: Reach, *, pooling: str) -> Floats:
    """Return the mean, or the largest, of the responses over all right-angle rotations of a kernel.

    Args:
        along: kernels along x, y and z, or x and y for rotations within slices.
        pooling: `average` or `max`.
    """
    pooled: Floats | None = None
    rotations = _rotations(len(along))
    for order, flips in rotations:
        turned = _by_axis(tuple(along[place] for place in order))
        z_flip = flips[2] if len(flips) == 3 else False
        response = convolve(source, turned, reach, flipped=(z_flip, flips[1], flips[0]))
        if pooled is None:
            pooled = response
        elif pooling == "max":
            np.maximum(pooled, response, out=pooled)
        else:
            pooled += response
    assert pooled is not None
    return pooled / len(rotations) if pooling == "average" else pooled


def _rotations(dimensions: int) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Return the right-angle rotations as order and flips of the axes: 24 in space, 4 in the plane."""
    found: list[tuple[tuple[int, ...], tuple[bool, ...]]] = []
    for order in permutations(range(dimensions)):
        parity = sum(order[i] > order[j] for i in range(dimensions) for j in range(i + 1, dimensions))
        flipped = product((False, True), repeat=dimensions)
        found += [(order, flips) for flips in flipped if (parity + sum(flips)) % 2 == 0]
    return found


def _by_axis(along: tuple[Floats, ...]) -> Kernels:
    x, y = along[0], along[1]
    return (along[2] if len(along) == 3 else None, y, x)


def _laplacian(source: Floats, chosen: LaplacianOfGaussian, spacing_mm: Spacing) -> Floats:
    """Return the Laplacian of Gaussian, per squared voxel (of the geometric mean size where voxels are not cubes).

    The sampled kernel of the manual, a sum over the axes of (x^2 / s^4 - 1 / s^2) g(x) g(y) g(z) cut off to a box, is a sum
    of separable kernels. Its Gaussian is normalised to 1 as sampled and its second derivative to 0, so that a constant
    image gives 0.
    """
    reach = _reach(chosen, spacing_mm)
    axes = range(1, 3) if chosen.dimension == "2D" else range(3)
    unit = float(np.prod([spacing_mm[axis] for axis in axes])) ** (1 / len(axes))
    smooth: list[Floats | None] = [None, None, None]
    curved: list[Floats | None] = [None, None, None]
    for axis in axes:
        sigma = chosen.sigma_mm / spacing_mm[axis]
        steps = np.arange(-reach[axis], reach[axis] + 1)
        gaussian = np.exp(-(steps**2) / (2 * sigma**2))
        gaussian /= gaussian.sum()
        smooth[axis] = gaussian
        second = steps**2 * gaussian / sigma**4
        curved[axis] = (second - second.sum() * gaussian) * (unit / spacing_mm[axis]) ** 2
    total: Floats | None = None
    for axis in axes:
        kernels = [curved[other] if other == axis else smooth[other] for other in range(3)]
        response = convolve(source, (kernels[0], kernels[1], kernels[2]), reach)
        total = response if total is None else total + response
    assert total is not None
    return total


def _laws(source: Floats, chosen: Laws) -> Floats:
    along = tuple(LAWS[chosen.kernels[place : place + 2]] for place in range(0, len(chosen.kernels), 2))
    kernel_reach = _laws_reach(along)
    if chosen.pooling == "none":
        response = convolve(source, _by_axis(along), kernel_reach)
    else:
        response = sum_of_rotations(source, along, kernel_reach, pooling=chosen.pooling)
    if chosen.energy_distance is None:
        return response
    box = np.full(2 * chosen.energy_distance + 1, 1 / (2 * chosen.energy_distance + 1))
    flat = len(along) == 2
    around = (0 if flat else chosen.energy_distance, chosen.energy_distance, chosen.energy_distance)
    return convolve(np.abs(response), (None if flat else box, box, box), around)


def _laws_reach(along: tuple[Floats, ...]) -> Reach:
    reach = max(len(kernel) for kernel in along) // 2
    return (reach if len(along) == 3 else 0, reach, reach)


def _reach(chosen: Filter, spacing_mm: Spacing) -> Reach:
    """Return how many voxels (z, y, x) beyond the region a filter looks."""
    if isinstance(chosen, LaplacianOfGaussian):
        z, y, x = (int(np.floor(chosen.truncate * chosen.sigma_mm / size + 0.5)) for size in spacing_mm)
        return (0 if chosen.dimension == "2D" else z, y, x)
    if isinstance(chosen, MeanFilter):
        half = chosen.size // 2
        return (0 if chosen.dimension == "2D" else half, half, half)
    if isinstance(chosen, Laws):
        along = tuple(LAWS[chosen.kernels[place : place + 2]] for place in range(0, len(chosen.kernels), 2))
        z, y, x = _laws_reach(along)
        more = chosen.energy_distance or 0
        return (z + more if len(along) == 3 else 0, y + more, x + more)
    half = len(wavelet_kernels(chosen.wavelet)[0]) // 2
    return (half if any(len(band) == 3 for band in chosen.bands) else 0, half, half)


def _surrounded(region: Region, reach: Reach) -> Floats:
    """Return the image of the bounding box and `reach` voxels around it, mirrored where the image ends."""
    parts, widths = [], []
    for part, by, size in zip(region.box, reach, region.image.shape, strict=True):
        start, stop = max(part.start - by, 0), min(part.stop + by, size)
        parts.append(slice(start, stop))
        widths.append((by - (part.start - start), by - (stop - part.stop)))
    if all(width == (0, 0) for width in widths):
        return np.ascontiguousarray(region.image[tuple(parts)])
    # Mirroring may look back further than the part: from the whole of what was cut out.
    outside = [
        (max(by - part.start, 0), max(part.stop + by - size, 0))
        for part, by, size in zip(region.box, reach, region.image.shape, strict=True)
    ]
    padded = np.pad(region.image, outside, mode="symmetric")
    return np.ascontiguousarray(
        padded[
            tuple(
                slice(part.start - by + more[0], part.stop + by + more[0])
                for part, by, more in zip(region.box, reach, outside, strict=True)
            )
        ]
    )


@compiled
def _correlate_rows(source: Floats, taps: Floats, begun: int, result: Floats) -> None:
    """Add the correlation along the middle axis: result[i, j] += sum of taps[k] * source[i, begun + j + k]."""
    n_outer, n_along, n_inner = result.shape
    for outer in range(n_outer):
        for along in range(n_along):
            for tap in range(taps.shape[0]):
                weight = taps[tap]
                for inner in range(n_inner):
                    result[outer, along, inner] += weight * source[outer, begun + along + tap, inner]


@compiled
def _correlate_last(source: Floats, taps: Floats, begun: int, result: Floats) -> None:
    """Add the correlation along the last axis: result[i, j] += sum of taps[k] * source[i, begun + j + k]."""
    n_outer, n_along = result.shape
    for outer in range(n_outer):
        for tap in range(taps.shape[0]):
            weight = taps[tap]
            for along in range(n_along):
                result[outer, along] += weight * source[outer, begun + tap + along]


def _correlate(source: Floats, taps: Floats, axis: int, begun: int, size: int) -> Floats:
    shape = [size if number == axis else length for number, length in enumerate(source.shape)]
    result: Floats = np.zeros(shape)
    if axis == 2:
        _correlate_last(source.reshape(-1, source.shape[2]), taps, begun, result.reshape(-1, size))
    else:
        outer = int(np.prod(source.shape[:axis]))
        _correlate_rows(source.reshape(outer, source.shape[axis], -1), taps, begun, result.reshape(outer, size, -1))
    return result
