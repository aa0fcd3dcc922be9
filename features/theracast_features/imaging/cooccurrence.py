"""Grey level co-occurrence matrix (IBSI manual, 3.6): pairs of grey levels at a distance along a direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.aggregate import Counts, Floats, Steps, directional
from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.levels import LevelVolume
from theracast_features.imaging.settings import Aggregation

COOCCURRENCE = (
    "joint_max",
    "joint_avg",
    "joint_var",
    "joint_entr",
    "diff_avg",
    "diff_var",
    "diff_entr",
    "sum_avg",
    "sum_var",
    "sum_entr",
    "energy",
    "contrast",
    "dissimilarity",
    "inv_diff",
    "inv_diff_norm",
    "inv_diff_mom",
    "inv_diff_mom_norm",
    "inv_var",
    "corr",
    "auto_corr",
    "clust_tend",
    "clust_shade",
    "clust_prom",
    "info_corr1",
    "info_corr2",
)


def cooccurrence(
    volume: LevelVolume,
    aggregations: Sequence[Aggregation],
    *,
    distance: int = 1,
    symmetric: bool = True,
    flat: str = "ibsi",
) -> dict[str, float]:
    """Return the 25 features for each aggregation, e.g. `cm_contrast_3D_avg`.

    Args:
        flat: where all pairs are of one grey level, both correlations are 0 / 0: NaN for `ibsi`, for `pyradiomics` 1 and 0.
    """

    undefined = (1.0, 0.0) if flat == "pyradiomics" else (float("nan"), float("nan"))

    def matrices(voxels: NDArray[np.int64], steps: Steps) -> Counts:
        return cooccurrence_matrices(volume, voxels, steps, distance=distance, symmetric=symmetric)

    def features(matrix: Counts, voxels: int) -> Floats:
        return _features(matrix, *undefined)

    found = directional(volume, matrices, features, aggregations)
    return {
        f"cm_{name}_{aggregation}": float(value)
        for aggregation, values in found.items()
        for name, value in zip(COOCCURRENCE, values, strict=True)
    }


def cooccurrence_matrices(
    volume: LevelVolume, voxels: NDArray[np.int64], steps: Steps, *, distance: int = 1, symmetric: bool = True
) -> Counts:
    """Return the counts of pairs along each step, (n_steps, n_levels, n_levels)."""
    counts = _count_pairs(volume.flat, voxels, volume.frame.offsets(steps, distance), volume.count)
    return counts + counts.transpose(0, 2, 1) if symmetric else counts


@compiled
def _count_pairs(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], offsets: NDArray[np.int64], count: int
) -> NDArray[np.int32]:
    # Unsigned positions spare the check for negative ones.
    counts = np.zeros((offsets.shape[0], count * count), np.int32)
    for index in range(voxels.shape[0]):
        voxel = voxels[index]
        row = (np.int64(flat[np.uint64(voxel)]) - 1) * count - 1
        for step in range(offsets.shape[0]):
            other = np.int64(flat[np.uint64(voxel + offsets[step])])
            if other > 0:
                counts[step, np.uint64(row + other)] += 1
    return counts.reshape(offsets.shape[0], count, count)


@compiled
def _features(counts: Counts, flat_correlation: float, flat_information: float) -> NDArray[np.float64]:
    """Return the features in the order of COOCCURRENCE; all NaN for an empty matrix."""
    n = counts.shape[0]
    result = np.full(25, np.nan)
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += counts[i, j]
    if total == 0:
        return result
    row, column = np.zeros(n), np.zeros(n)
    difference, summed = np.zeros(n), np.zeros(2 * n - 1)
    largest = entropy = energy = product = 0.0
    for i in range(n):
        for j in range(n):
            if counts[i, j] > 0:
                p = counts[i, j] / total
                row[i] += p
                column[j] += p
                difference[abs(i - j)] += p
                summed[i + j] += p
                largest = max(largest, p)
                entropy -= p * np.log2(p)
                energy += p * p
                product += (i + 1) * (j + 1) * p
    mean_row, var_row, entropy_row = _mean_variance_entropy(row, 1)
    mean_column, var_column, entropy_column = _mean_variance_entropy(column, 1)
    covariance = 0.0
    for i in range(n):
        for j in range(n):
            if counts[i, j] > 0:
                covariance += (i + 1 - mean_row) * (j + 1 - mean_column) * (counts[i, j] / total)
    result[0], result[1], result[2], result[3] = largest, mean_row, var_row, entropy
    result[4], result[5], result[6] = _mean_variance_entropy(difference, 0)
    result[7], result[8], result[9] = _mean_variance_entropy(summed, 2)
    result[10], result[12] = energy, result[4]
    _of_differences(difference, result)
    is_flat = var_row < 1e-12 or var_column < 1e-12
    result[18] = flat_correlation if is_flat else covariance / np.sqrt(var_row * var_column)
    result[19] = product
    for power in range(3):
        result[20 + power] = 0.0
        for k in range(2 * n - 1):
            result[20 + power] += (k + 2 - mean_row - mean_column) ** (2 + power) * summed[k]
    # The entropy of the product of the marginals is the sum of theirs: HXY1 and HXY2 are the same number.
    independent = entropy_row + entropy_column
    widest = max(entropy_row, entropy_column)
    result[23] = flat_information if widest < 1e-12 else (entropy - independent) / widest
    result[24] = np.sqrt(max(1 - np.exp(-2 * (independent - entropy)), 0.0))
    return result


@compiled
def _of_differences(difference: NDArray[np.float64], result: NDArray[np.float64]) -> None:
    """Set contrast and the inverse differences from the distribution of |i - j|."""
    n = difference.shape[0]
    result[11] = 0.0
    for place in range(13, 18):
        result[place] = 0.0
    for k in range(n):
        p = difference[k]
        result[11] += k * k * p
        result[13] += p / (1 + k)
        result[14] += p / (1 + k / n)
        result[15] += p / (1 + k * k)
        result[16] += p / (1 + (k / n) ** 2)
        if k > 0:
            result[17] += p / (k * k)


@compiled
def _mean_variance_entropy(p: NDArray[np.float64], first: int) -> tuple[float, float, float]:
    """Return them for a distribution over `first`, `first` + 1, ..."""
    mean = variance = entropy = 0.0
    for k in range(p.shape[0]):
        mean += (first + k) * p[k]
    for k in range(p.shape[0]):
        if p[k] > 0:
            variance += (first + k - mean) ** 2 * p[k]
            entropy -= p[k] * np.log2(p[k])
    return mean, variance, entropy
