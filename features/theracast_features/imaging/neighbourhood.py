"""Matrices of a voxel and all its neighbours (IBSI manual, 3.10 and 3.11).

Neighbourhood grey tone difference matrix: how far a voxel lies from the mean of its neighbours. Neighbouring grey level
dependence matrix: how many neighbours are like it, itself counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.aggregate import Floats, mean_of, slices_of
from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.emphasis import emphasis
from theracast_features.imaging.levels import LevelVolume, neighbours
from theracast_features.imaging.settings import Extent

TONE_DIFFERENCE = ("coarseness", "contrast", "busyness", "complexity", "strength")
DEPENDENCE = (
    "lde",
    "hde",
    "lgce",
    "hgce",
    "ldlge",
    "ldhge",
    "hdlge",
    "hdhge",
    "glnu",
    "glnu_norm",
    "dcnu",
    "dcnu_norm",
    "dc_perc",
    "gl_var",
    "dc_var",
    "dc_entr",
    "dc_energy",
)


def tone_difference(volume: LevelVolume, extents: Sequence[Extent], *, distance: int = 1) -> dict[str, float]:
    """Return the 5 features for each extent, e.g. `ngt_contrast_3D`."""
    found: dict[str, float] = {}
    for extent in extents:
        offsets = volume.offsets(neighbours(distance, in_slice=extent != "3D"))
        rows = [
            _tone_features(*_tone_differences(volume.flat, voxels, offsets, volume.count))
            for voxels in slices_of(volume, extent)
        ]
        values = mean_of(rows)
        found |= {f"ngt_{name}_{extent}": float(value) for name, value in zip(TONE_DIFFERENCE, values, strict=True)}
    return found


def dependence(
    volume: LevelVolume, extents: Sequence[Extent], *, distance: int = 1, coarseness: int = 0
) -> dict[str, float]:
    """Return the 17 features for each extent, e.g. `ngl_lde_3D`."""
    found: dict[str, float] = {}
    for extent in extents:
        offsets = volume.offsets(neighbours(distance, in_slice=extent != "3D"))
        columns = np.arange(1, len(offsets) + 2)
        rows: list[Floats] = [
            emphasis(dependence_matrix(volume, voxels, offsets, coarseness), columns, len(voxels))
            for voxels in slices_of(volume, extent)
        ]
        values = mean_of(rows)
        found |= {f"ngl_{name}_{extent}": float(value) for name, value in zip(DEPENDENCE, values, strict=True)}
    return found


def dependence_matrix(
    volume: LevelVolume, voxels: NDArray[np.int64], offsets: NDArray[np.int64], coarseness: int
) -> NDArray[np.int64]:
    """Return the counts of voxels by level and number of dependent voxels, itself included, (n_levels, 1 + n_offsets)."""
    return _dependences(volume.flat, voxels, offsets, volume.count, coarseness)


@compiled
def _dependences(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], offsets: NDArray[np.int64], count: int, coarseness: int
) -> NDArray[np.int64]:
    counts = np.zeros((count, offsets.shape[0] + 1), np.int64)
    for index in range(voxels.shape[0]):
        voxel = voxels[index]
        level = np.int64(flat[voxel])
        like = 0
        for step in range(offsets.shape[0]):
            other = np.int64(flat[voxel + offsets[step]])
            if other > 0 and abs(other - level) <= coarseness:
                like += 1
        counts[level - 1, like] += 1
    return counts


@compiled
def _tone_differences(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], offsets: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each level the sum of differences to the neighbours' mean, and the voxels that have neighbours."""
    sums, counts = np.zeros(count), np.zeros(count, np.int64)
    for index in range(voxels.shape[0]):
        voxel = voxels[index]
        total, known = np.int64(0), np.int64(0)
        for step in range(offsets.shape[0]):
            other = np.int64(flat[voxel + offsets[step]])
            total += other
            known += other > 0
        if known > 0:
            level = np.int64(flat[voxel])
            sums[level - 1] += abs(level - total / known)
            counts[level - 1] += 1
    return sums, counts


@compiled
def _tone_features(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the features in the order of TONE_DIFFERENCE; all NaN where no voxel has a neighbour.

    In a flat region coarseness is 1e6 and the others 0, as the IBSI manual lays down.
    """
    result = np.full(5, np.nan)
    total = counts.sum()
    if total == 0:
        return result
    present = np.flatnonzero(counts)
    weighted = contrast = busyness = complexity = strength = 0.0
    for i in present:
        weighted += counts[i] / total * sums[i]
    for i in present:
        p = counts[i] / total
        for j in present:
            q = counts[j] / total
            gap = abs(i - j)
            contrast += p * q * gap * gap
            busyness += abs((i + 1) * p - (j + 1) * q)
            complexity += gap * (p * sums[i] + q * sums[j]) / (p + q)
            strength += (p + q) * gap * gap
    kinds = len(present)
    spread = sums.sum()
    result[0] = 1 / weighted if weighted > 0 else 1e6
    result[1] = contrast / (kinds * (kinds - 1)) * spread / total if kinds > 1 else 0.0
    result[2] = weighted / busyness if busyness > 0 else 0.0
    result[3] = complexity / total
    result[4] = strength / spread if spread > 0 else 0.0
    return result
