"""Size of a region as a radiologist reads it: volume, longest axial diameter, its perpendicular, longest 3D diameter.

Masks are (n_slices, n_rows, n_columns) bool, spacing is (z, y, x) in mm. By default a diameter runs from outline to
outline, as calipers do: the outline of a region is the middle of the outer faces of its voxels, so a run of n voxels is n
spacings long and one voxel is one spacing wide. That is also the surface on which the Image Biomarker Standardisation
Initiative (IBSI) measures its maximum 3D diameter. `ends="centres"` measures between voxel centres instead, one spacing
less along a run.

The farthest points of a region are corners of the convex hulls of its slices, and hulls of voxel grids have few corners.
Widths in 64 directions bound the distance within a slice, or between two, to 0.12 %; corners are compared only where the
bound allows the longest. That is exact, without comparing all pairs of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist, squareform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Ends = Literal["outline", "centres"]
_SAME = 1e-9  # mm: lengths that differ by less are equal


@dataclass(frozen=True)
class AxialDiameters:
    """The longest diameter within one axial slice and the longest one across it.

    Attributes:
        long_mm: longest distance between two points of the region's outline in one slice (RECIST's longest diameter).
        short_mm: longest chord of the slice's convex hull at right angles to it (WHO's perpendicular; RECIST's short
            axis of a lymph node).
        slice_index: the slice, from 0. Of equally long ones the one with the longer perpendicular, then the lowest.
        long_ends, short_ends: both ends as (row, column), voxel centres being whole numbers.
    """

    long_mm: float
    short_mm: float
    slice_index: int
    long_ends: tuple[tuple[float, float], tuple[float, float]]
    short_ends: tuple[tuple[float, float], tuple[float, float]]

    @property
    def product_mm2(self) -> float:
        """The bidimensional product, mm2. Source: Miller AB et al. Cancer 1981;47:207-214 (WHO)."""
        return self.long_mm * self.short_mm


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Return the volume of the region's voxels in ml; 0 of an empty mask."""
    _check(mask, spacing_mm, empty=True)
    return float(np.count_nonzero(mask) * np.prod(np.asarray(spacing_mm, dtype=np.float64)) / 1000.0)


def axial_diameters(mask: Mask, spacing_mm: Spacing, *, ends: Ends = "outline") -> AxialDiameters:
    """Return the longest diameter in any axial slice and the longest perpendicular in the same slice.

    The slices are taken as acquired; give an axial series, or the plane of acquisition where that is what is read.

    Raises:
        ValueError: the mask is empty, not three-dimensional or not boolean, or the spacing is not positive.

    Source: RECIST 1.1, Eisenhauer EA et al. Eur J Cancer 2009;45:228-247 (longest diameter in the plane of measurement;
    of a lymph node the smaller of the two dimensions).
    """
    _check(mask, spacing_mm)
    part, offset = _crop(mask)
    rows_mm, columns_mm = spacing_mm[1], spacing_mm[2]
    reach = _reach(part, rows_mm, columns_mm, ends)
    widths = (reach + np.roll(reach, _DIRECTIONS // 2, axis=1)).max(axis=1)
    longest = 0.0
    heights: list[int] = []
    for height in np.argsort(-widths, kind="stable"):
        if not widths[height] / _SLACK >= longest - _SAME:
            break
        length = _longest(_pruned(_plane_outline(part[height], ends)), rows_mm, columns_mm)
        if length > longest + _SAME:
            longest, heights = length, []
        if length >= longest - _SAME:
            heights.append(int(height))
    found = [_slice_diameters(part[height], rows_mm, columns_mm, ends) for height in sorted(heights)]
    best = int(np.argmax(np.round([short for _, short, _, _ in found], 9)))
    long_mm, short_mm, long_ends, short_ends = found[best]

    def place(pair: Floats) -> tuple[tuple[float, float], tuple[float, float]]:
        (row, column), (other_row, other_column) = (pair + np.array(offset[1:])).tolist()
        return (row, column), (other_row, other_column)

    return AxialDiameters(long_mm, short_mm, sorted(heights)[best] + offset[0], place(long_ends), place(short_ends))


def recist_diameter_mm(mask: Mask, spacing_mm: Spacing, *, nodal: bool, ends: Ends = "outline") -> float:
    """Return what RECIST 1.1 sums: the longest axial diameter, of a lymph node its short axis. Raises as `axial_diameters`."""
    found = axial_diameters(mask, spacing_mm, ends=ends)
    return found.short_mm if nodal else found.long_mm


def longest_3d_mm(mask: Mask, spacing_mm: Spacing, *, ends: Ends = "outline") -> float:
    """Return the longest distance between two points of the region's outline in any direction, mm.

    Raises: as `axial_diameters`.

    Source: IBSI reference manual, maximum 3D diameter; Zwanenburg A et al. Radiology 2020;295:328-338.
    """
    _check(mask, spacing_mm)
    part, _ = _crop(mask)
    held = np.flatnonzero(part.any(axis=(1, 2)))
    place_mm, reach = _layers(part[held], np.asarray(held * spacing_mm[0], dtype=np.float64), spacing_mm, ends)
    scale = np.array(spacing_mm[1:], dtype=np.float64) / 2.0
    points: dict[int, Floats] = {}

    def of(layer: int) -> Floats:
        if layer not in points:
            height, kind = divmod(layer, 3)
            ends_here: Ends = "outline" if ends == "outline" and kind == 1 else "centres"
            points[layer] = _pruned(_plane_outline(part[held[height]], ends_here)) * scale
        return points[layer]

    opposite = np.roll(reach, _DIRECTIONS // 2, axis=1)
    longest = 0.0
    # From pairs that reach farthest on; what lies surely below the longest found so far is never looked at.
    lower, upper = np.triu_indices(len(place_mm))
    across = np.concatenate([(reach[i] + opposite[i:]).max(axis=1) for i in range(len(place_mm))])
    apart = place_mm[upper] - place_mm[lower]
    least, most = np.hypot(across, apart), np.hypot(across / _SLACK, apart)
    hopeful = np.flatnonzero(most >= least.max() - _SAME)
    for pair in hopeful[np.argsort(-most[hopeful], kind="stable")]:
        if most[pair] < longest - _SAME:
            break
        squared = cdist(of(int(lower[pair])), of(int(upper[pair])), "sqeuclidean").max()
        longest = max(longest, float(np.hypot(np.sqrt(squared), apart[pair])))
    return longest


def label_lesions(mask: Mask, *, min_voxels: int = 1) -> tuple[NDArray[np.int32], int]:
    """Return the number of each voxel's lesion (0 outside) and how many there are.

    Voxels that share a face, an edge or a corner are one lesion. Numbers go from the largest to the smallest; lesions
    of one size by their first voxel in (z, y, x).

    Args:
        min_voxels: lesions with fewer are left out.
    """
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array of 3 dimensions (found {mask.dtype}, {mask.ndim} dimensions)")
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = [int(part) for part in np.argsort(-sizes, kind="stable") if sizes[part] >= min_voxels]
    numbers = np.zeros(count + 1, dtype=np.int32)
    for number, part in enumerate(order, start=1):
        numbers[part + 1] = number
    return numbers[parts], len(order)


LESION_COLUMNS = (
    "lesion",
    "voxels",
    "volume_ml",
    "long_mm",
    "short_mm",
    "product_mm2",
    "longest_3d_mm",
    "slice_index",
    "centre_slice",
    "centre_row",
    "centre_column",
)


def lesion_table(mask: Mask, spacing_mm: Spacing, *, ends: Ends = "outline", min_voxels: int = 1) -> pd.DataFrame:
    """Return one row per lesion of `label_lesions`, with `LESION_COLUMNS`; an empty mask has none."""
    _check(mask, spacing_mm, empty=True)
    rows: list[tuple[float, ...]] = []
    if not mask.any():
        return pd.DataFrame(rows, columns=list(LESION_COLUMNS))
    inside, offset = _crop(mask)
    labels, count = label_lesions(inside, min_voxels=min_voxels)
    boxes = ndimage.find_objects(labels)
    for number in range(1, count + 1):
        box = boxes[number - 1]
        part = np.ascontiguousarray(labels[box] == number)
        axial = axial_diameters(part, spacing_mm, ends=ends)
        corner = np.array([side.start for side in box]) + offset
        centre = np.argwhere(part).mean(axis=0) + corner
        rows.append(
            (
                number,
                int(part.sum()),
                volume_ml(part, spacing_mm),
                axial.long_mm,
                axial.short_mm,
                axial.product_mm2,
                longest_3d_mm(part, spacing_mm, ends=ends),
                axial.slice_index + int(corner[0]),
                *map(float, centre),
            )
        )
    return pd.DataFrame(rows, columns=list(LESION_COLUMNS))


def _check(mask: Mask, spacing_mm: Spacing, *, empty: bool = False) -> None:
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array of 3 dimensions (found {mask.dtype}, {mask.ndim} dimensions)")
    if len(spacing_mm) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"spacing_mm is three positive numbers (z, y, x) in mm (found {spacing_mm})")
    if not empty and not mask.any():
        raise ValueError("the region is empty, so it has no diameter. Leave it out, or draw it.")


def _crop(mask: Mask) -> tuple[Mask, tuple[int, int, int]]:
    """Return the mask within its bounding box and the box's first corner."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    slab = mask[slices[0] : slices[-1] + 1]
    plane = np.asarray(slab.any(axis=0))
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    part = slab[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part, (int(slices[0]), int(rows[0]), int(columns[0]))


_DIRECTIONS = 64
_SLACK = float(np.cos(np.pi / _DIRECTIONS))
"""A width in the best of the directions is at least this part of the longest distance, and never more than it."""


def _reach(part: Mask, rows_mm: float, columns_mm: float, ends: Ends) -> Floats:
    """Return (n_slices, `_DIRECTIONS`) how far each slice reaches in directions around the circle, mm; -inf where empty."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    down, along = rows_mm * np.sin(angles), columns_mm * np.cos(angles)
    held = np.asarray(part.any(axis=2))
    left, right = part.argmax(axis=2), part.shape[2] - 1 - part[:, :, ::-1].argmax(axis=2)
    rows = np.arange(part.shape[1])[:, None] * down
    reach = np.full((len(part), _DIRECTIONS), -np.inf)
    for height, inside in enumerate(held):
        if inside.any():
            sides = np.maximum(left[height, inside, None] * along, right[height, inside, None] * along)
            reach[height] = (rows[inside] + sides).max(axis=0)
    if ends == "outline":
        reach += np.maximum(np.abs(down), np.abs(along)) / 2.0
    return reach


def _layers(part: Mask, place_mm: Floats, spacing_mm: Spacing, ends: Ends) -> tuple[Floats, Floats]:
    """Return height (mm) and reach of three layers a slice: lower faces, middle, upper faces. Between centres all are one.

    Args:
        part: (n_slices, n_rows, n_columns), none of the slices empty; `place_mm`: (n_slices,) their heights.
    """
    step = spacing_mm[0] / 2.0 if ends == "outline" else 0.0
    centres = _reach(part, spacing_mm[1], spacing_mm[2], "centres")
    middle = _reach(part, spacing_mm[1], spacing_mm[2], ends)
    heights = np.stack([place_mm - step, place_mm, place_mm + step], axis=1).ravel()
    return heights, np.stack([centres, middle, centres], axis=1).reshape(-1, _DIRECTIONS)


def _longest(points: Ints, rows_mm: float, columns_mm: float) -> float:
    if len(points) < 2:
        return 0.0
    return float(pdist(points * (np.array([rows_mm, columns_mm]) / 2.0)).max())


def _slice_diameters(plane: Mask, rows_mm: float, columns_mm: float, ends: Ends) -> tuple[float, float, Floats, Floats]:
    """Return the longest diameter, its perpendicular, and the (2, 2) ends of both in voxels.

    Several pairs may be equally far (a square has two diagonals): that with the longest perpendicular, then the first.
    """
    scale = np.array([rows_mm, columns_mm])
    points = _hull(_pruned(_plane_outline(plane, ends))) / 2.0 * scale
    if len(points) == 1:
        here = np.repeat(points, 2, axis=0) / scale
        return 0.0, 0.0, here, here
    distances = squareform(pdist(points))
    pairs = np.argwhere(np.triu(distances >= distances.max() - _SAME, k=1))
    chords = [_longest_across(points, int(i), int(j)) for i, j in pairs]
    best = int(np.argmax(np.round([length for length, _ in chords], 9)))
    short_mm, chord = chords[best]
    return float(distances.max()), short_mm, points[pairs[best]] / scale, chord / scale


def _longest_across(points: Floats, first: int, second: int) -> tuple[float, Floats]:
    """Return the longest chord of a convex polygon at right angles to its diameter, and its two ends.

    Nothing lies beyond the ends of a diameter, so it cuts the outline into two sides that each run from end to end. The
    distance between them is concave along the diameter and bends at corners only: one of the corners has the longest.

    Args:
        points: (n, 2) corners in order around the polygon, mm; `first` < `second` are the ends of its diameter.
    """
    along = points[second] - points[first]
    along = along / np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    place, height = (points - points[first]) @ along, (points - points[first]) @ across
    one = np.arange(first, second + 1)
    other = np.concatenate([np.arange(second, len(points)), np.arange(first + 1)])[::-1]
    sides = np.stack([np.interp(place, place[side], height[side]) for side in (one, other)])
    best = int(np.abs(sides[0] - sides[1]).argmax())
    foot = points[first] + place[best] * along
    return float(abs(sides[0, best] - sides[1, best])), foot + sides[:, best, None] * across


def _plane_outline(plane: Mask, ends: Ends) -> tuple[Ints, Ints]:
    """Return points (row, column), in half voxels, of the left and the right outline of a slice, by row.

    Their convex hull is that of the outline: what lies between both on a row is no corner.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    left = 2 * plane[rows].argmax(axis=1)
    right = 2 * (plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1))
    if ends == "centres":
        return np.stack([2 * rows, left], axis=1), np.stack([2 * rows, right], axis=1)
    # The middles of a voxel's upper, outer and lower side.
    height = np.stack([2 * rows - 1, 2 * rows, 2 * rows + 1], axis=1).ravel()
    outward = np.tile([0, 1, 0], len(rows))
    return (
        np.stack([height, np.repeat(left, 3) - outward], axis=1),
        np.stack([height, np.repeat(right, 3) + outward], axis=1),
    )


def _pruned(outline: tuple[Ints, Ints], passes: int = 6) -> Ints:
    """Return the points of both sides without most of those that are no corner of the hull.

    A point that does not stick out between its neighbours lies in the hull of the others, so dropping all such points at
    once drops no corner.
    """
    kept = []
    for side, outward in zip(outline, (-1, 1), strict=True):
        points = side
        for _ in range(passes):
            if len(points) < 3:
                break
            (r1, c1), (r2, c2), (r3, c3) = points[:-2].T, points[1:-1].T, points[2:].T
            turn = (r2 - r1) * (c3 - c1) - (c2 - c1) * (r3 - r1)
            corner = np.concatenate([[True], outward * turn < 0, [True]])
            if corner.all():
                break
            points = points[corner]
        kept.append(points)
    return np.concatenate(kept)


def _hull(points: Ints) -> Ints:
    """Return the corners of the convex hull in order, without those on a straight side. Whole numbers: exact.

    Source: Andrew AM. Information Processing Letters 1979;9:216-219 (monotone chain).
    """
    ordered = sorted({(int(row), int(column)) for row, column in points})
    if len(ordered) < 3:
        return np.array(ordered, dtype=np.int64)

    def chain(sequence: list[tuple[int, int]]) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        for row, column in sequence:
            while len(kept) > 1:
                (r1, c1), (r2, c2) = kept[-2], kept[-1]
                if (r2 - r1) * (column - c1) - (c2 - c1) * (row - r1) > 0:
                    break
                kept.pop()
            kept.append((row, column))
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]), dtype=np.int64)
