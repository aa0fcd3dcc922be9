"""Polygons to masks: which voxel centres lie inside.

The rule of the edge: a polygon owns the centres on its edges towards lower columns and lower rows, not those towards higher
ones. So two polygons that share an edge share no voxel and leave none out, and a keyhole (a channel of no width that ties a hole
to the outline) owns nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theracast_data.volume import BoolArray

Points = npt.NDArray[np.float64]


def inside(points: Points, rows: int, columns: int) -> BoolArray:
    """Return the mask (rows, columns) of the voxel centres inside a closed polygon, by the even-odd rule.

    A centre (row r, column c) is inside if the polygon crosses row r an odd number of times at a column <= c. An edge crosses
    row r if its lower end is <= r and its upper end > r.

    Args:
        points: (n, 2), column and row of each corner in voxels; the centre of the first voxel is (0, 0).
        rows, columns: size of the grid; the polygon may reach beyond it.
    """
    x, y = points[:, 0], points[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    # The same edge walked both ways must cross at the same column to the last bit: always compute from its lower end.
    up = (y < y_next) | ((y == y_next) & (x <= x_next))
    x0, y0 = np.where(up, x, x_next), np.where(up, y, y_next)
    x1, y1 = np.where(up, x_next, x), np.where(up, y_next, y)
    first = np.clip(np.ceil(y0), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(y1), 0, rows).astype(np.int64)  # rows first .. last - 1 are crossed
    count = last - first
    edge = np.repeat(np.arange(len(points)), count)
    start = np.cumsum(count) - count
    row = np.arange(len(edge)) - np.repeat(start, count) + first[edge]
    crossing = x0[edge] + (row - y0[edge]) * ((x1[edge] - x0[edge]) / (y1[edge] - y0[edge]))
    column = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    np.add.at(crossings, (row, column), 1)
    return np.asarray(np.cumsum(crossings[:, :columns], axis=1) % 2 == 1)


def area(points: Points) -> float:
    """Return the area of a polygon that does not cross itself, in squares of its unit.

    Source: the shoelace formula (Meister 1769).
    """
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2)
