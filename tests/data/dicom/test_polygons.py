"""Polygons to masks, against matplotlib's point-in-polygon and against a loop over corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from theracast_data.dicom.polygons import area, inside

corner = st.tuples(st.integers(-8, 72), st.integers(-8, 56)).map(lambda one: (one[0] / 4, one[1] / 4))


def slow(points: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Count, for each centre, the edges that its ray to the left crosses; in whole numbers, so that nothing is rounded."""
    corners = [(round(4 * x), round(4 * y)) for x, y in points]
    mask = np.zeros((rows, columns), dtype=bool)
    for row in range(rows):
        for column in range(columns):
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 <= 4 * row) == (y1 <= 4 * row):
                    continue
                (xa, ya), (xb, yb) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
                # crossing <= column, both sides times the height of the edge
                if xa * (yb - ya) + (4 * row - ya) * (xb - xa) <= 4 * column * (yb - ya):
                    mask[row, column] ^= True
    return mask


@settings(max_examples=200, deadline=None)
@given(st.lists(corner, min_size=3, max_size=12))
def test_any_polygon_is_filled_by_the_rule_of_its_edges(points: list[tuple[float, float]]) -> None:
    polygon = np.array(points)
    found = inside(polygon, 12, 16)
    expected = slow(polygon, 12, 16)
    # A crossing at a third of a voxel is rounded; on a centre it must not be. Sixteenths are exact, thirds are not.
    np.testing.assert_array_equal(found, expected)


def test_smooth_outlines_are_filled_as_matplotlib_does() -> None:
    rng = np.random.default_rng(5)
    row, column = np.mgrid[0:60, 0:70]
    centres = np.column_stack([column.ravel(), row.ravel()])
    for _ in range(60):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 200))
        radius = rng.uniform(5, 28) * (1 + 0.3 * np.sin(rng.integers(1, 9) * angle + rng.uniform(0, 6)))
        polygon = np.column_stack([35 + radius * np.cos(angle), 30 + radius * np.sin(angle)])
        expected = Outline(polygon).contains_points(centres).reshape(60, 70)
        np.testing.assert_array_equal(inside(polygon, 60, 70), expected)


def test_neighbours_share_no_voxel_and_leave_none_out() -> None:
    left = inside(np.array([[0, 0], [4, 0], [4, 6], [0, 6]], dtype=float), 6, 8)
    right = inside(np.array([[4, 0], [8, 0], [8, 6], [4, 6]], dtype=float), 6, 8)
    assert not (left & right).any()
    assert (left | right).all()


def test_a_keyhole_leaves_its_channel_filled() -> None:
    outer, inner = [(1, 1), (9, 1), (9, 9), (1, 9)], [(3, 3), (3, 7), (7, 7), (7, 3)]
    keyhole = np.array([*outer, outer[0], *inner, inner[0], outer[0]], dtype=float)
    expected = inside(np.array(outer, dtype=float), 12, 12) ^ inside(np.array(inner, dtype=float), 12, 12)
    np.testing.assert_array_equal(inside(keyhole, 12, 12), expected)


def test_area() -> None:
    assert area(np.array([[0, 0], [3, 0], [3, 2], [0, 2]], dtype=float)) == 6
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    assert area(np.column_stack([np.cos(angle), np.sin(angle)])) == pytest.approx(np.pi, rel=1e-5)
