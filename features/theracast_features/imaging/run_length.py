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
    lengths = np.arange(1, max(volume.shape) + 1)

    def matrices(voxels: NDArray[np.int64], steps: Steps) -> Counts:
        return run_length_matrices(volume, voxels, steps)

    def features(matrix: Counts, voxels: int) -> Floats:
        return emphasis(matrix, lengths, voxels)[: len(RUN_LENGTH)]

    found = directional(volume, matrices, features, aggregations)
    return {
        f"rlm_{name}_{aggregation}": float(value)
        for aggregation, values in found.items()
        for name, value in zip(RUN_LENGTH, values, strict=True)
    }


def run_length_matrices(volume: LevelVolume, voxels: NDArray[np.int64], steps: Steps) -> Counts:
    """Return the counts of runs along each step, (n_steps, n_levels, longest possible run)."""
    return _count_runs(volume.flat, voxels, volume.offsets(steps), volume.count, max(volume.shape))


@compiled
def _count_runs(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], offsets: NDArray[np.int64], count: int, longest: int
) -> NDArray[np.int64]:
    counts = np.zeros((offsets.shape[0], count, longest), np.int64)
    for step in range(offsets.shape[0]):
        offset = offsets[step]
        for index in range(voxels.shape[0]):
            voxel = voxels[index]
            level = flat[voxel]
            if flat[voxel - offset] == level:
                continue  # not the first of its run
            length = 1
            while flat[voxel + length * offset] == level:
                length += 1
            counts[step, level - 1, length - 1] += 1
    return counts
