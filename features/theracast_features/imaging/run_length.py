"""Grey level run length matrix (IBSI manual, 3.7): runs of one grey level along a direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.aggregate import Counts, Floats, Steps, directional
from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.emphasis import emphasis
from theracast_features.imaging.levels import LevelVolume
from theracast_features.imaging.settings import Aggregation

RUN_LENGTH = (
    "sre",
    "lre",
    "lgre",
    "hgre",
    "srlge",
    "srhge",
    "lrlge",
    "lrhge",
    "glnu",
    "glnu_norm",
    "rlnu",
    "rlnu_norm",
    "r_perc",
    "gl_var",
    "rl_var",
    "rl_entr",
)


def run_length(volume: LevelVolume, aggregations: Sequence[Aggregation]) -> dict[str, float]:
    """Return the 16 features for each aggregation, e.g. `rlm_sre_3D_avg`."""
    longest = max(volume.frame.shape)
    columns = np.arange(1, longest + 1)
    # Runs within slices are the same for the whole volume as for each slice: found once, counted where asked.
    found: dict[int, NDArray[np.uint16]] = {}

    def matrices(voxels: NDArray[np.int64], steps: Steps) -> Counts:
        offsets = volume.frame.offsets(steps)
        counts = np.zeros((len(offsets), volume.count, longest), np.int32)
        for matrix, offset in zip(counts, offsets.tolist(), strict=True):
            if offset not in found:
                found[offset] = _lengths(volume.flat, offset, volume.frame.reach, np.array(volume.frame.shape))
            _count_ends(volume.flat, voxels, found[offset], offset, matrix)
        return counts

    def features(matrix: Counts, voxels: int) -> Floats:
        return emphasis(matrix, columns, voxels)[: len(RUN_LENGTH)]

    values = directional(volume, matrices, features, aggregations)
    return {
        f"rlm_{name}_{aggregation}": float(value)
        for aggregation, row in values.items()
        for name, value in zip(RUN_LENGTH, row, strict=True)
    }


@compiled
def _lengths(flat: NDArray[np.uint16], offset: int, reach: int, shape: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return for each voxel how many of its level, itself included, end in it along a direction.

    Whole rows at a time, background and all: so the processor compares 16 voxels at once.
    """
    lengths = np.zeros(flat.shape[0], np.uint16)
    n_z, n_y, n_x = shape
    for z in range(reach, n_z - reach):
        for y in range(reach, n_y - reach):
            start = (z * n_y + y) * n_x + reach
            stop = start + n_x - 2 * reach
            here, there = flat[start:stop], flat[start - offset : stop - offset]
            result, before = lengths[start:stop], lengths[start - offset : stop - offset]
            for x in range(stop - start):
                result[x] = np.uint16(before[x] * np.uint16(here[x] == there[x]) + 1)
    return lengths


@compiled
def _count_ends(
    flat: NDArray[np.uint16],
    voxels: NDArray[np.int64],
    lengths: NDArray[np.uint16],
    offset: int,
    counts: Counts,
) -> None:
    """Count the runs that end in these voxels, by level and length."""
    for index in range(voxels.shape[0]):
        voxel = voxels[index]
        level = np.uint64(flat[np.uint64(voxel)])
        # Whether a run ends is a toss-up that no processor foresees: added as 0 or 1, not decided.
        ends = flat[np.uint64(voxel + offset)] != level
        counts[np.uint64(level - np.uint64(1)), np.uint64(lengths[np.uint64(voxel)] - 1)] += ends
