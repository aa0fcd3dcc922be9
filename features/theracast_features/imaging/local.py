"""Local and global intensity peak: the mean over a sphere of 1 cm3 (IBSI manual, 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.region import Region

PEAK_RADIUS_MM = 10 * (3 / (4 * np.pi)) ** (1 / 3)


def local_intensity(region: Region) -> dict[str, float]:
    """Return both peaks.

    The sphere is centred on voxels that count and takes in all voxels of the image whose centre lies within it.
    """
    means = _sphere_means(
        region.image, np.argwhere(region.intensity_mask), _sphere_rows(region.spacing_mm, PEAK_RADIUS_MM)
    )
    intensities = region.intensities
    return {
        # Where several voxels share the highest intensity, the highest of their means.
        "loc_peak_loc": float(means[intensities == intensities.max()].max()),
        "loc_peak_glob": float(means.max()),
    }


def _sphere_rows(spacing_mm: tuple[float, float, float], radius_mm: float) -> NDArray[np.int64]:
    """Return the rows of the sphere, (n, 3): offset in z, offset in y, reach in x."""
    z_reach, y_reach = int(radius_mm // spacing_mm[0]), int(radius_mm // spacing_mm[1])
    rows = []
    for z in range(-z_reach, z_reach + 1):
        for y in range(-y_reach, y_reach + 1):
            left = radius_mm**2 - (z * spacing_mm[0]) ** 2 - (y * spacing_mm[1]) ** 2
            if left >= 0:
                rows.append((z, y, int(np.sqrt(left) // spacing_mm[2])))
    return np.array(rows, dtype=np.int64)


@compiled
def _sphere_means(
    image: NDArray[np.float64], centres: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    n_z, n_y, n_x = image.shape
    before = np.zeros((n_z, n_y, n_x + 1))
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                before[z, y, x + 1] = before[z, y, x] + image[z, y, x]
    flat = before.reshape(n_z * n_y * (n_x + 1))
    means = np.empty(centres.shape[0])
    start = 0
    while start < centres.shape[0]:
        # Centres next to each other in a row share the rows of the sphere.
        z0, y0, x0 = centres[start, 0], centres[start, 1], centres[start, 2]
        stop = start + 1
        while stop < centres.shape[0] and centres[stop, 0] == z0 and centres[stop, 1] == y0:
            if centres[stop, 2] != x0 + stop - start:
                break
            stop += 1
        length = stop - start
        total, count = np.zeros(length), np.zeros(length)
        for row in range(rows.shape[0]):
            z, y, half = z0 + rows[row, 0], y0 + rows[row, 1], rows[row, 2]
            if not (0 <= z < n_z and 0 <= y < n_y):
                continue
            base = (z * n_y + y) * (n_x + 1)
            if x0 >= half and x0 + length + half <= n_x:
                upper = flat[base + x0 + half + 1 : base + x0 + half + 1 + length]
                lower = flat[base + x0 - half : base + x0 - half + length]
                for x in range(length):
                    total[x] += upper[x] - lower[x]
                    count[x] += 2 * half + 1
            else:
                for x in range(length):
                    first, end = max(x0 + x - half, 0), min(x0 + x + half + 1, n_x)
                    total[x] += flat[base + end] - flat[base + first]
                    count[x] += end - first
        for x in range(length):
            means[start + x] = total[x] / count[x]
        start = stop
    return means
