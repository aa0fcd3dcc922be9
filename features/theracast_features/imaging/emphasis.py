"""What run length, zone size, zone distance and dependence matrices have in common: 17 features of levels by columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled

# Short stands for small, near and few as well, long for large, far and many: the families give their own names.
EMPHASIS = (
    "short",
    "long",
    "low_grey",
    "high_grey",
    "short_low_grey",
    "short_high_grey",
    "long_low_grey",
    "long_high_grey",
    "grey_nonuniformity",
    "grey_nonuniformity_normalised",
    "column_nonuniformity",
    "column_nonuniformity_normalised",
    "percentage",
    "grey_variance",
    "column_variance",
    "entropy",
    "energy",
)


@compiled
def emphasis(counts: NDArray[np.int32], columns: NDArray[np.int64], voxels: int) -> NDArray[np.float64]:
    """Return the features in the order of EMPHASIS; all NaN for an empty matrix.

    Args:
        counts: (n_levels, n_columns), row k for grey level k + 1.
        columns: what each column stands for: a length, size, distance or number of dependent voxels, from 1.
        voxels: of which the elements of the matrix are a share.
    """
    result = np.full(17, np.nan)
    n_levels, n_columns = counts.shape
    total = 0.0
    for i in range(n_levels):
        for j in range(n_columns):
            total += counts[i, j]
    if total == 0:
        return result
    by_level, by_column = np.zeros(n_levels), np.zeros(n_columns)
    sums = np.zeros(8)
    entropy = energy = 0.0
    for i in range(n_levels):
        grey = (i + 1.0) ** 2
        for j in range(n_columns):
            if counts[i, j] == 0:
                continue
            p = counts[i, j] / total
            size = np.float64(columns[j]) ** 2
            by_level[i] += p
            by_column[j] += p
            sums[4] += p / (size * grey)
            sums[5] += p * grey / size
            sums[6] += p * size / grey
            sums[7] += p * size * grey
            entropy -= p * np.log2(p)
            energy += p * p
    mean_level = mean_column = level_square = column_square = 0.0
    for i in range(n_levels):
        grey = i + 1.0
        sums[2] += by_level[i] / grey**2
        sums[3] += by_level[i] * grey**2
        mean_level += by_level[i] * grey
        level_square += by_level[i] ** 2
    for j in range(n_columns):
        size = np.float64(columns[j])
        sums[0] += by_column[j] / size**2
        sums[1] += by_column[j] * size**2
        mean_column += by_column[j] * size
        column_square += by_column[j] ** 2
    level_variance = column_variance = 0.0
    for i in range(n_levels):
        level_variance += by_level[i] * (i + 1.0 - mean_level) ** 2
    for j in range(n_columns):
        column_variance += by_column[j] * (columns[j] - mean_column) ** 2
    for place in range(8):
        result[place] = sums[place]
    result[8], result[9] = level_square * total, level_square
    result[10], result[11] = column_square * total, column_square
    result[12] = total / voxels
    result[13], result[14], result[15], result[16] = level_variance, column_variance, entropy, energy
    return result
