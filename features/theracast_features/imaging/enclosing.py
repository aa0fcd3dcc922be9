"""The smallest oriented box and the smallest ellipsoid around a set of points.

The IBSI has no consensus values for either. The box is the smallest of those with a face on a face of the convex hull; the
very smallest may touch the hull with edges only, and is then a few percent smaller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled

Floats = NDArray[np.float64]


def smallest_box(corners: Floats, normals: Floats) -> tuple[float, float, float]:
    """Return the edges of the smallest box with a face along one of the planes.

    Args:
        corners: vertices of a convex hull, (n, 3).
        normals: unit normals of its faces, (m, 3).
    """
    signs = np.sign(normals[np.arange(len(normals)), np.abs(normals).argmax(axis=1)])
    directions = np.unique(np.round(normals * signs[:, None], 6), axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.cross(directions, np.eye(3)[np.abs(directions).argmin(axis=1)])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    frames = np.stack([directions, across, np.cross(directions, across)], axis=1)
    a, b, c = _smallest_box(np.ascontiguousarray(corners), frames)
    return float(a), float(b), float(c)


def smallest_ellipsoid(corners: Floats, *, tolerance: float = 1e-3) -> tuple[float, float, float]:
    """Return the semi-axes of the smallest ellipsoid around points that are not in one plane, longest first.

    Khachiyan's algorithm with Todd and Yildirim's steps away from points within, which end when no point lies outside by more
    than `tolerance`; then the ellipsoid is widened to hold all. Source: Todd and Yildirim, Discrete Appl Math 2007;155:1731-1744.
    """
    points = corners - corners.mean(axis=0)
    lifted = np.column_stack([points, np.ones(len(points))])
    weights = np.full(len(points), 1 / len(points))
    for _ in range(10_000):
        inverse = np.linalg.inv((lifted * weights[:, None]).T @ lifted)
        distances = ((lifted @ inverse) * lifted).sum(axis=1)
        outer = int(distances.argmax())
        inner = int(np.where(weights > 1e-14, distances, np.inf).argmin())
        largest, smallest = float(distances[outer]), float(distances[inner])
        if max(largest / 4 - 1, 1 - smallest / 4) <= tolerance:
            break
        if largest - 4 >= 4 - smallest:
            step = (largest - 4) / (4 * (largest - 1))
            weights *= 1 - step
            weights[outer] += step
        else:
            step = min((4 - smallest) / (4 * (smallest - 1)), weights[inner] / (1 - weights[inner]))
            weights *= 1 + step
            weights[inner] = max(weights[inner] - step, 0.0)
    gaps = points - weights @ points
    matrix = np.linalg.inv((gaps * weights[:, None]).T @ gaps) / 3
    matrix /= ((gaps @ matrix) * gaps).sum(axis=1).max()
    c, b, a = np.sort(1 / np.sqrt(np.linalg.eigvalsh(matrix)))
    return float(a), float(b), float(c)


@compiled
def _smallest_box(corners: Floats, frames: Floats) -> tuple[float, float, float]:
    """Return height, width and length of the smallest box, of those that stand on the first axis of one of the frames."""
    n = corners.shape[0]
    best_volume, height, width, length = np.inf, np.inf, np.inf, np.inf
    flat, hull = np.empty((n, 2)), np.empty((n + 1, 2))
    for frame in range(frames.shape[0]):
        low, high = np.inf, -np.inf
        for point in range(n):
            x, y, z = corners[point, 0], corners[point, 1], corners[point, 2]
            along = x * frames[frame, 0, 0] + y * frames[frame, 0, 1] + z * frames[frame, 0, 2]
            flat[point, 0] = x * frames[frame, 1, 0] + y * frames[frame, 1, 1] + z * frames[frame, 1, 2]
            flat[point, 1] = x * frames[frame, 2, 0] + y * frames[frame, 2, 1] + z * frames[frame, 2, 2]
            low, high = min(low, along), max(high, along)
        size = _hull_of_plane(flat, hull)
        one, other = _smallest_rectangle(hull, size, best_volume / (high - low))
        if one * other * (high - low) < best_volume:
            best_volume, height, width, length = one * other * (high - low), high - low, one, other
    return height, width, length


@compiled
def _hull_of_plane(points: Floats, hull: Floats) -> int:
    """Write the convex hull of points of the plane, counterclockwise, and return its size: wrapped like a gift."""
    n = points.shape[0]
    first = 0
    for point in range(n):
        if points[point, 1] < points[first, 1] or (
            points[point, 1] == points[first, 1] and points[point, 0] < points[first, 0]
        ):
            first = point
    here, size = first, 0
    while size < n:
        hull[size, 0], hull[size, 1] = points[here, 0], points[here, 1]
        size += 1
        following = -1
        to_x, to_y = 0.0, 0.0
        for point in range(n):
            dx, dy = points[point, 0] - points[here, 0], points[point, 1] - points[here, 1]
            reach = dx * dx + dy * dy
            if reach < 1e-18:
                continue
            turn = to_x * dy - to_y * dx
            # Of points on one line the farthest; the tolerance keeps rounding from turning back along an edge.
            if following < 0 or turn < -1e-9 or (turn < 1e-9 and reach > to_x * to_x + to_y * to_y):
                following, to_x, to_y = point, dx, dy
        if following < 0:
            break
        gap_x, gap_y = points[following, 0] - points[first, 0], points[following, 1] - points[first, 1]
        if gap_x * gap_x + gap_y * gap_y < 1e-18:
            break
        here = following
    return size


@compiled
def _smallest_rectangle(hull: Floats, size: int, bound: float) -> tuple[float, float]:
    """Return the edges of the smallest rectangle around a convex polygon, infinite where its area is not below `bound`.

    One side of it lies on a side of the polygon.
    """
    best, width, length = bound, np.inf, np.inf
    for side in range(size):
        following = (side + 1) % size
        dx, dy = hull[following, 0] - hull[side, 0], hull[following, 1] - hull[side, 1]
        norm = np.sqrt(dx * dx + dy * dy)
        if norm < 1e-9:
            continue
        dx, dy = dx / norm, dy / norm
        low, high, far = np.inf, -np.inf, 0.0
        for point in range(size):
            along = hull[point, 0] * dx + hull[point, 1] * dy
            across = (hull[point, 1] - hull[side, 1]) * dx - (hull[point, 0] - hull[side, 0]) * dy
            low, high, far = min(low, along), max(high, along), max(far, across)
            if (high - low) * far > best:
                break
        if (high - low) * far < best:
            best, width, length = (high - low) * far, high - low, far
    return width, length
