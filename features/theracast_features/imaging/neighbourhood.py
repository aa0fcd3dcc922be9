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
        offsets = volume.frame.offsets(neighbours(distance, in_slice=extent != "3D"))
        totals, known = _sums(volume.flat, offsets, volume.frame.reach, np.array(volume.frame.shape))
        rows = [
            _tone_features(*_tone_differences(volume.flat, voxels, totals, known, volume.count))
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
        offsets = volume.frame.offsets(neighbours(distance, in_slice=extent != "3D"))
        like = _likes(volume.flat, offsets, volume.frame.reach, np.array(volume.frame.shape), coarseness)
        columns = np.arange(1, len(offsets) + 2)
        rows: list[Floats] = []
        for voxels in slices_of(volume, extent):
            places = (volume.flat[voxels].astype(np.int64) - 1) * len(columns) + like[voxels]
            counts = np.bincount(places, minlength=volume.count * len(columns)).astype(np.int32)
            rows.append(emphasis(counts.reshape(volume.count, len(columns)), columns, len(voxels)))
        values = mean_of(rows)
        found |= {f"ngl_{name}_{extent}": float(value) for name, value in zip(DEPENDENCE, values, strict=True)}
    return found


@compiled
def _likes(
    flat: NDArray[np.uint16], offsets: NDArray[np.int64], reach: int, shape: NDArray[np.int64], coarseness: int
) -> NDArray[np.uint16]:
    """Return for each voxel how many neighbours of a region are like it.

    Whole rows at a time, background and all: so the processor compares 16 voxels at once.
    """
    like = np.zeros(flat.shape[0], np.uint16)
    n_z, n_y, n_x = shape
    for z in range(reach, n_z - reach):
        for y in range(reach, n_y - reach):
            start = (z * n_y + y) * n_x + reach
            stop = start + n_x - 2 * reach
            here, result = flat[start:stop], like[start:stop]
            for step in range(offsets.shape[0]):
                there = flat[start + offsets[step] : stop + offsets[step]]
                if coarseness == 0:
                    for x in range(stop - start):
                        result[x] += there[x] == here[x]
                else:
                    for x in range(stop - start):
                        gap = np.int32(there[x]) - np.int32(here[x])
                        result[x] += (there[x] > 0) & (gap <= coarseness) & (gap >= -coarseness)
    return like


@compiled
def _sums(
    flat: NDArray[np.uint16], offsets: NDArray[np.int64], reach: int, shape: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Return for each voxel the sum of its neighbours' levels, and how many neighbours are of the region."""
    totals, known = np.zeros(flat.shape[0], np.uint32), np.zeros(flat.shape[0], np.uint16)
    n_z, n_y, n_x = shape
    for z in range(reach, n_z - reach):
        for y in range(reach, n_y - reach):
            start = (z * n_y + y) * n_x + reach
            stop = start + n_x - 2 * reach
            total, count = totals[start:stop], known[start:stop]
            for step in range(offsets.shape[0]):
                there = flat[start + offsets[step] : stop + offsets[step]]
                for x in range(stop - start):
                    total[x] += there[x]
                    count[x] += there[x] > 0
    return totals, known


@compiled
def _tone_differences(
    flat: NDArray[np.uint16],
    voxels: NDArray[np.int64],
    totals: NDArray[np.uint32],
    known: NDArray[np.uint16],
    count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each level the sum of differences to the neighbours' mean, and the voxels that have neighbours."""
    sums, counts = np.zeros(count), np.zeros(count, np.int64)
    for index in range(voxels.shape[0]):
        voxel = np.uint64(voxels[index])
        if known[voxel] > 0:
            level = np.int64(flat[voxel])
            sums[level - 1] += abs(level - totals[voxel] / known[voxel])
            counts[level - 1] += 1
    return sums, counts


@compiled
def _tone_features(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the features in the order of TONE_DIFFERENCE; all NaN where no voxel has a neighbour.

    In a flat region coarseness is 1e6 and the others 0, as the IBSI manual lays down.
    """
    result = np.full(5, np.nan)
    total, spread, kinds = 0.0, 0.0, 0
    for i in range(counts.shape[0]):
        total += counts[i]
        spread += sums[i]
        kinds += counts[i] > 0
    if total == 0:
        return result
    weighted = contrast = busyness = complexity = strength = 0.0
    for i in range(counts.shape[0]):
        p = counts[i] / total
        weighted += p * sums[i]
        if p == 0:
            continue
        for j in range(counts.shape[0]):
            q = counts[j] / total
            if q == 0:
                continue
            gap = abs(i - j)
            contrast += p * q * gap * gap
            busyness += abs((i + 1) * p - (j + 1) * q)
            complexity += gap * (p * sums[i] + q * sums[j]) / (p + q)
            strength += (p + q) * gap * gap
    result[0] = 1 / weighted if weighted > 0 else 1e6
    result[1] = contrast / (kinds * (kinds - 1)) * spread / total if kinds > 1 else 0.0
    result[2] = weighted / busyness if busyness > 0 else 0.0
    result[3] = complexity / total
    result[4] = strength / spread if spread > 0 else 0.0
    return result
