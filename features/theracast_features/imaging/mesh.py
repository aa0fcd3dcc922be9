"""The surface of a region: marching cubes over a binary mask, its area and the volume it encloses.

The surface runs halfway between a voxel inside and its neighbour outside. There are 256 ways in which the eight voxels
at the corners of a cell can be inside or outside; the triangles of each are derived here once, by joining the crossed edges
of each face. So counting how often each case occurs gives area and volume, and no mesh is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.compiled import compiled

Floats = NDArray[np.float64]
Triangle = tuple[int, int, int]

# Corner n of a cell lies at (z, y, x) = (n >> 2 & 1, n >> 1 & 1, n & 1); an edge is a pair of corners.
CORNERS = np.array([[n >> 2 & 1, n >> 1 & 1, n & 1] for n in range(8)], dtype=np.float64)
EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1)


@dataclass(frozen=True)
class Surface:
    """Area in mm2 and enclosed volume in mm3."""

    area: float
    volume: float


def surface(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Surface:
    """Return area and volume of the surface of a mask (z, y, x); outside of the array nothing is set."""
    counts, planes = _count_cases(np.pad(mask, 1).view(np.uint8))
    cases, corners, weights = _all_triangles()
    a, b, c = np.moveaxis(corners * np.array(spacing_mm), 1, 0)
    normals = np.cross(b - a, c - a) / 2 * weights[:, None]
    area = float(counts[cases] @ np.sqrt((normals * normals).sum(axis=1)))
    # Divergence theorem on the field (z, 0, 0), whose value is linear over a triangle.
    heights = planes[cases] * spacing_mm[0] + counts[cases] * (a[:, 0] + b[:, 0] + c[:, 0]) / 3
    return Surface(area, float(abs(heights @ normals[:, 0])))


def surface_points(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Floats:
    """Return the outermost points of the surface along each row, column and pile, (n, 3) in mm (z, y, x).

    They include every vertex of the convex hull of the surface.
    """
    found: list[Floats] = []
    for axis in range(3):
        rows = mask.any(axis=axis)
        first = mask.argmax(axis=axis)[rows]
        last = mask.shape[axis] - 1 - np.flip(mask, axis).argmax(axis=axis)[rows]
        others = np.argwhere(rows)
        found += [np.insert(others.astype(np.float64), axis, along, axis=1) for along in (first - 0.5, last + 0.5)]
    points: Floats = np.concatenate(found) * np.array(spacing_mm)
    return points


@cache
def _all_triangles() -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return case, corners (n, 3, 3) in voxels and weight of every triangle of every case."""
    rows = [(case, triangle, weight) for case in range(256) for triangle, weight in case_triangles(case)]
    corners = np.array([[_edge_centre(edge) for edge in triangle] for _, triangle, _ in rows])
    return np.array([row[0] for row in rows]), corners, np.array([row[2] for row in rows])


@cache
def case_triangles(case: int) -> tuple[tuple[Triangle, float], ...]:
    """Return the triangles of one case with their weights, as triples of edge numbers, all seen from one side.

    On a face whose diagonal corners alone are inside, the surface joins them: so neighbouring cells agree.
    """
    joins: dict[int, int] = {}
    for face in _faces():
        inside = [bool(case >> corner & 1) for corner in face]
        for place in range(4):
            if not inside[place - 1] and inside[place]:  # the edge before `place` enters
                left = next(step for step in range(place - 2, place - 5, -1) if inside[step % 4])
                entry = EDGES.index(_sorted(face[place - 1], face[place]))
                joins[EDGES.index(_sorted(face[left % 4], face[(left + 1) % 4]))] = entry
    triangles: list[tuple[Triangle, float]] = []
    while joins:
        start, following = joins.popitem()
        loop = [start]
        while following != start:
            loop.append(following)
            following = joins.pop(following)
        triangles += _largest(tuple(loop))
    return tuple(triangles)


def _largest(loop: tuple[int, ...]) -> list[tuple[Triangle, float]]:
    """Return the triangulation of a loop of edge centres with the largest area in a cubic cell, each triangle with weight 1.

    Published tables of marching cubes, from which the IBSI's values come, mostly choose it. Where several are equally
    large, their mean counts, so that a mirrored region has the same volume.
    """
    options = _triangulations(loop)
    areas = [round(sum(_area(triangle) for triangle in option), 9) for option in options]
    chosen = [option for option, area in zip(options, areas, strict=True) if area == max(areas)]
    return [(triangle, 1 / len(chosen)) for option in chosen for triangle in option]


def _triangulations(loop: tuple[int, ...]) -> list[list[Triangle]]:
    if len(loop) < 3:
        return [[]]
    return [
        [(loop[0], loop[place], loop[-1]), *left, *right]
        for place in range(1, len(loop) - 1)
        for left in _triangulations(loop[: place + 1])
        for right in _triangulations(loop[place:])
    ]


def _area(triangle: Triangle) -> float:
    a, b, c = (_edge_centre(edge) for edge in triangle)
    return float(np.linalg.norm(np.cross(b - a, c - a)) / 2)


def _edge_centre(edge: int) -> Floats:
    first, second = EDGES[edge]
    centre: Floats = (CORNERS[first] + CORNERS[second]) / 2
    return centre


def _sorted(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


@cache
def _faces() -> tuple[tuple[int, int, int, int], ...]:
    """Return the corners of each face in one sense of rotation as seen from outside."""
    faces = []
    for axis in range(3):
        for side in (0, 1):
            corners = [n for n in range(8) if (n >> axis & 1) == side]
            ring = [corners[0], corners[1], corners[3], corners[2]]
            a, b, c = (CORNERS[corner] for corner in ring[:3])
            outward = CORNERS[ring[0]] - 0.5
            turned = float(np.cross(b - a, c - b) @ np.where(np.arange(3) == 2 - axis, outward, 0.0))
            faces.append(tuple(ring if turned > 0 else ring[::-1]))
    return tuple(faces)  # type: ignore[arg-type]


@compiled
def _count_cases(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how often each case occurs, and the sum of the z of its cells."""
    counts = np.zeros(256, np.int64)
    planes = np.zeros(256, np.int64)
    n_z, n_y, n_x = mask.shape
    for z in range(n_z - 1):
        for y in range(n_y - 1):
            # The four voxels at the lower x of a cell are those at the upper x of the one before.
            before = mask[z, y, 0] | mask[z, y + 1, 0] << 2 | mask[z + 1, y, 0] << 4 | mask[z + 1, y + 1, 0] << 6
            for x in range(1, n_x):
                here = mask[z, y, x] | mask[z, y + 1, x] << 2 | mask[z + 1, y, x] << 4 | mask[z + 1, y + 1, x] << 6
                case = before | here << 1
                if 0 < case < 255:
                    counts[case] += 1
                    planes[case] += z
                before = here
    return counts, planes
