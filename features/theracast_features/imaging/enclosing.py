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
    a, b, c = _smallest_box(np.ascontiguousarray(corners), directions)
    return float(a), float(b), float(c)


def smallest_ellipsoid(corners: Floats, *, tolerance: float = 1e-3) -> tuple[float, float, float]:
    """Return the semi-axes of the smallest ellipsoid around points that are not in one plane, longest first.

    Khachiyan's algorithm with Todd and Yildirim's steps away from points within; the volume is at most
    `tolerance` too large. Source: Todd and Yildirim, Discrete Appl Math 2007;155:1731-1744.
    """
    centred = corners - corners.mean(axis=0)
    matrix = _ellipsoid(np.ascontiguousarray(centred), tolerance, 10_000)
    lengths = 1 / np.sqrt(np.linalg.eigvalsh(matrix))
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


@compiled
def _smallest_box(corners: Floats, directions: Floats) -> tuple[float, float, float]:
    n = corners.shape[0]
    best = (np.inf, np.inf, np.inf)
    best_volume = np.inf
    flat = np.empty((n, 2))
    for index in range(directions.shape[0]):
        normal = directions[index] / np.sqrt(np.sum(directions[index] ** 2))
        helper = np.zeros(3)
        helper[np.argmin(np.abs(normal))] = 1.0
        u = np.cross(normal, helper)
        u /= np.sqrt(np.sum(u**2))
        v = np.cross(normal, u)
        low, high = np.inf, -np.inf
        for point in range(n):
            along = 0.0
            flat[point, 0] = 0.0
            flat[point, 1] = 0.0
            for axis in range(3):
                along += corners[point, axis] * normal[axis]
                flat[point, 0] += corners[point, axis] * u[axis]
                flat[point, 1] += corners[point, axis] * v[axis]
            low, high = min(low, along), max(high, along)
        width, length = _smallest_rectangle(flat, best_volume / (high - low))
        if width * length * (high - low) < best_volume:
            best_volume = width * length * (high - low)
            best = (high - low, width, length)
    return best


@compiled
def _smallest_rectangle(points: Floats, bound: float) -> tuple[float, float]:
    """Return the edges of the smallest rectangle around points of the plane; one side lies on the convex hull."""
    order = np.argsort(points[:, 0] + 1e-9 * points[:, 1])
    n = len(order)
    hull = np.empty((2 * n + 1, 2))
    size = 0
    for half in range(2):
        base = size
        for step in range(n):
            point = points[order[step if half == 0 else n - 1 - step]]
            while size - base >= 2:
                ax, ay = hull[size - 1, 0] - hull[size - 2, 0], hull[size - 1, 1] - hull[size - 2, 1]
                bx, by = point[0] - hull[size - 2, 0], point[1] - hull[size - 2, 1]
                if ax * by - ay * bx > 1e-12:
                    break
                size -= 1
            hull[size] = point
            size += 1
        size -= 1  # the last point of one half is the first of the other
    best, width, length = bound, np.inf, np.inf
    for side in range(size):
        following = (side + 1) % size
        dx, dy = hull[following, 0] - hull[side, 0], hull[following, 1] - hull[side, 1]
        norm = np.sqrt(dx * dx + dy * dy)
        if norm < 1e-12:
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


@compiled
def _ellipsoid(points: Floats, tolerance: float, max_steps: int) -> Floats:
    """Return the matrix A of the ellipsoid (x - c)' A (x - c) <= 1."""
    n = points.shape[0]
    lifted = np.ones((n, 4))
    lifted[:, :3] = points
    weights = np.full(n, 1.0 / n)
    for _ in range(max_steps):
        moments = np.zeros((4, 4))
        for point in range(n):
            for i in range(4):
                for j in range(4):
                    moments[i, j] += weights[point] * lifted[point, i] * lifted[point, j]
        inverse = np.linalg.inv(moments)
        out, inner = 0, -1
        largest, smallest = -1.0, np.inf
        for point in range(n):
            distance = 0.0
            for i in range(4):
                for j in range(4):
                    distance += lifted[point, i] * inverse[i, j] * lifted[point, j]
            if distance > largest:
                largest, out = distance, point
            if weights[point] > 1e-14 and distance < smallest:
                smallest, inner = distance, point
        if largest / 4 - 1 <= tolerance and 1 - smallest / 4 <= tolerance:
            break
        if largest / 4 - 1 >= 1 - smallest / 4:
            step = (largest - 4) / (4 * (largest - 1))
            weights *= 1 - step
            weights[out] += step
        else:
            step = min((4 - smallest) / (4 * (smallest - 1)), weights[inner] / (1 - weights[inner]))
            weights *= 1 + step
            weights[inner] = max(weights[inner] - step, 0.0)
    centre = np.zeros(3)
    for point in range(n):
        centre += weights[point] * points[point]
    spread = np.zeros((3, 3))
    for point in range(n):
        for i in range(3):
            for j in range(3):
                spread[i, j] += weights[point] * (points[point, i] - centre[i]) * (points[point, j] - centre[j])
    matrix = np.linalg.inv(spread) / 3
    farthest = 0.0
    for point in range(n):
        distance = 0.0
        for i in range(3):
            for j in range(3):
                distance += (points[point, i] - centre[i]) * matrix[i, j] * (points[point, j] - centre[j])
        farthest = max(farthest, distance)
    return matrix / farthest
