"""How the matrices of slices and directions become one value per feature (IBSI manual, 3.6).

Features of an empty matrix (a direction along which the region is one voxel wide, say) do not enter a mean; where all are
empty, the feature is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.levels import DIRECTIONS, IN_SLICE, LevelVolume
from theracast_features.imaging.settings import Aggregation, Extent

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
Steps = tuple[tuple[int, int, int], ...]
# Matrices of the given voxels along the given steps, (n_steps, n_levels, n_columns).
Matrices = Callable[[NDArray[np.int64], Steps], Counts]
# Features of one matrix that counts each of so many voxels, (n_features,).
Features = Callable[[Counts, int], Floats]


def directional(
    volume: LevelVolume, matrices: Matrices, features: Features, aggregations: Sequence[Aggregation]
) -> dict[Aggregation, Floats]:
    """Return the features of a matrix that has directions, for each aggregation."""
    found: dict[Aggregation, Floats] = {}
    if any(aggregation[0] == "2" for aggregation in aggregations):
        found |= _by_slice(volume, matrices, features, aggregations)
    if any(aggregation[0] == "3" for aggregation in aggregations):
        found |= _by_direction(volume, matrices, features, aggregations)
    return {aggregation: found[aggregation] for aggregation in aggregations}


def mean_of(rows: Sequence[Floats]) -> Floats:
    """Return the mean over the first axis, without NaN; NaN where there is nothing else."""
    table = np.array(rows)
    known = ~np.isnan(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    counts = known.sum(axis=0)
    mean: Floats = np.divide(total, counts, out=np.full(table.shape[1], np.nan), where=counts > 0)
    return mean


def slices_of(volume: LevelVolume, extent: Extent) -> list[NDArray[np.int64]]:
    """Return the voxels of each slice for 2D, of the whole region else."""
    if extent != "2D":
        return [volume.voxels]
    return [
        volume.voxels[start:stop] for start, stop in zip(volume.frame.slices[:-1], volume.frame.slices[1:], strict=True)
    ]


def _by_slice(
    volume: LevelVolume, matrices: Matrices, features: Features, aggregations: Sequence[Aggregation]
) -> dict[Aggregation, Floats]:
    total: Counts | None = None
    averaged, merged = [], []
    for voxels in slices_of(volume, "2D"):
        found = matrices(voxels, IN_SLICE)
        total = found.copy() if total is None else total + found
        if "2D_avg" in aggregations:
            averaged += [features(matrix, len(voxels)) for matrix in found]
        if "2D_comb" in aggregations:
            merged.append(features(found.sum(axis=0, dtype=np.int32), len(voxels) * len(IN_SLICE)))
    assert total is not None
    n = len(volume.voxels)
    results: dict[Aggregation, Floats] = {}
    if averaged:
        results["2D_avg"] = mean_of(averaged)
    if merged:
        results["2D_comb"] = mean_of(merged)
    if "2_5D_avg" in aggregations:
        results["2_5D_avg"] = mean_of([features(matrix, n) for matrix in total])
    if "2_5D_comb" in aggregations:
        results["2_5D_comb"] = features(total.sum(axis=0, dtype=np.int32), n * len(IN_SLICE))
    return results


def _by_direction(
    volume: LevelVolume, matrices: Matrices, features: Features, aggregations: Sequence[Aggregation]
) -> dict[Aggregation, Floats]:
    n = len(volume.voxels)
    averaged: list[Floats] = []
    total: Counts | None = None
    # With many grey levels a matrix is large: a few directions at a time keep within 64 MB.
    at_once = max(1, min(len(DIRECTIONS), 8_000_000 // volume.count**2))
    for begun in range(0, len(DIRECTIONS), at_once):
        found = matrices(volume.voxels, DIRECTIONS[begun : begun + at_once])
        if "3D_avg" in aggregations:
            averaged += [features(matrix, n) for matrix in found]
        if "3D_comb" in aggregations:
            merged = found.sum(axis=0, dtype=np.int32)
            total = merged if total is None else total + merged
    results: dict[Aggregation, Floats] = {}
    if averaged:
        results["3D_avg"] = mean_of(averaged)
    if total is not None:
        results["3D_comb"] = features(total, n * len(DIRECTIONS))
    return results
