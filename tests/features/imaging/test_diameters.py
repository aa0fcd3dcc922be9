"""Sizes of regions against brute force over all points, digitised shapes of known size, and the IBSI's reference values."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from theracast_features.imaging import diameters
from theracast_features.imaging.diameters import Mask, Spacing

SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.3, 3.0])] * 3)
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))).filter(np.any)


def _points(mask: Mask, spacing: Spacing, ends: str, *, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Every voxel's centre, or the middles of all its faces that are across the given axes, mm."""
    centres = np.argwhere(mask).astype(float)
    if ends == "outline":
        shifts = [sign * 0.5 * np.eye(3)[axis] for axis in axes for sign in (-1, 1)]
        centres = np.concatenate([centres + shift for shift in shifts])
    return centres * np.array(spacing)


def _longest(points: np.ndarray) -> float:
    return max((float(np.linalg.norm(a - b)) for a, b in combinations(points, 2)), default=0.0)


def _chord(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The longest chord across first-second of the hull of points, from all segments between all pairs."""
    along = (second - first) / np.linalg.norm(second - first)
    place, height = (points - first) @ along, (points - first) @ np.array([-along[1], along[0]])
    longest = 0.0
    for here in place:
        levels = []
        for i in range(len(points)):
            for j in range(len(points)):
                if abs(place[i] - here) < 1e-9:
                    levels.append(height[i])
                elif place[i] < here < place[j]:
                    levels.append(height[i] + (height[j] - height[i]) * (here - place[i]) / (place[j] - place[i]))
        longest = max(longest, max(levels) - min(levels))
    return longest


@settings(max_examples=40, deadline=None)
@given(MASKS, SPACINGS, st.sampled_from(["outline", "centres"]))
def test_equals_brute_force_over_all_pairs(mask: Mask, spacing: Spacing, ends: diameters.Ends) -> None:
    """Longest diameter of every slice, its perpendicular, and the longest in 3D; the ends are as far apart as is said."""
    found = diameters.axial_diameters(mask, spacing, ends=ends)
    slices = [np.where((np.arange(len(mask)) == z)[:, None, None], mask, False) for z in range(len(mask))]
    longest = [_longest(_points(one, spacing, ends, axes=(1, 2))) if one.any() else -1.0 for one in slices]
    assert found.long_mm == pytest.approx(max(longest), abs=1e-9)
    assert longest[found.slice_index] == pytest.approx(max(longest), abs=1e-9)
    assert diameters.longest_3d_mm(mask, spacing, ends=ends) == pytest.approx(
        _longest(_points(mask, spacing, ends)), abs=1e-9
    )
    scale = np.array(spacing[1:])
    first, second = (np.array(end) * scale for end in found.long_ends)
    left, right = (np.array(end) * scale for end in found.short_ends)
    assert np.linalg.norm(second - first) == pytest.approx(found.long_mm, abs=1e-9)
    assert np.linalg.norm(right - left) == pytest.approx(found.short_mm, abs=1e-9)
    assert (second - first) @ (right - left) == pytest.approx(0.0, abs=1e-7)
    if found.long_mm > 0:
        points = _points(slices[found.slice_index], spacing, ends, axes=(1, 2))[:, 1:]
        assert found.short_mm == pytest.approx(_chord(points, first, second), abs=1e-7)
    assert found.product_mm2 == found.long_mm * found.short_mm
    assert found.short_mm <= found.long_mm + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_pruning_loses_no_corner_of_larger_shapes(seed: int) -> None:
    """Random blobs with holes and bays of some hundred voxels, where slices are skipped and points dropped."""
    draw = np.random.default_rng(seed)
    z, y, x = np.mgrid[:9, :24, :24]
    mask = np.zeros(z.shape, dtype=bool)
    for _ in range(4):
        cz, cy, cx, r = draw.uniform([2, 6, 6, 2], [7, 18, 18, 6])
        mask |= (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= r * r
    mask &= draw.random(mask.shape) < 0.7
    spacing = (2.5, 0.8, 0.9)
    for ends in ("outline", "centres"):
        found = diameters.axial_diameters(mask, spacing, ends=ends)
        slices = [_points(mask[[k]], spacing, ends, axes=(1, 2))[:, 1:] for k in range(9) if mask[k].any()]
        squared = [((p[:, None] - p[None]) ** 2).sum(-1).max() for p in slices]
        assert found.long_mm == pytest.approx(np.sqrt(max(squared)))
        points = _points(mask, spacing, ends)
        squared_3d = max(((points - one) ** 2).sum(-1).max() for one in points)
        assert diameters.longest_3d_mm(mask, spacing, ends=ends) == pytest.approx(np.sqrt(squared_3d))


@given(MASKS, SPACINGS, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_place_in_the_image_and_direction_of_axes_do_not_matter(mask: Mask, spacing: Spacing, margin: int) -> None:
    wide = np.pad(mask, ((margin, 1), (2, margin), (margin, 0)))
    for turned in (wide, mask[:, ::-1], mask[:, :, ::-1]):
        same = diameters.axial_diameters(turned, spacing)
        assert same.long_mm == pytest.approx(diameters.axial_diameters(mask, spacing).long_mm)
        assert same.short_mm == pytest.approx(diameters.axial_diameters(mask, spacing).short_mm)
    doubled = diameters.axial_diameters(mask, (2 * spacing[0], 2 * spacing[1], 2 * spacing[2]))
    assert doubled.long_mm == pytest.approx(2 * diameters.axial_diameters(mask, spacing).long_mm)


def test_single_voxel_and_runs() -> None:
    """One voxel is one spacing wide (the wider one), three in a row are three; centres are one less."""
    mask = np.zeros((3, 5, 7), dtype=bool)
    mask[1, 2, 2:5] = True
    found = diameters.axial_diameters(mask, (5.0, 1.0, 2.0))
    assert (found.long_mm, found.short_mm, found.slice_index) == (6.0, 1.0, 1)
    assert found.long_ends == ((2.0, 1.5), (2.0, 4.5))
    assert diameters.longest_3d_mm(mask, (5.0, 1.0, 2.0)) == pytest.approx(np.hypot(4.0, 5.0))
    assert diameters.axial_diameters(mask, (5.0, 1.0, 2.0), ends="centres").long_mm == 4.0
    mask[1, 2, 3:5] = False
    one = diameters.axial_diameters(mask, (5.0, 1.0, 2.0), ends="centres")
    assert (one.long_mm, one.short_mm, one.long_ends) == (0.0, 0.0, ((2.0, 2.0), (2.0, 2.0)))
    assert diameters.longest_3d_mm(mask, (5.0, 1.0, 2.0), ends="centres") == 0.0
    assert diameters.volume_ml(mask, (5.0, 1.0, 2.0)) == pytest.approx(0.01)
    oval = np.ones((1, 4, 9), dtype=bool)
    oval[0, [0, 0, -1, -1], [0, -1, 0, -1]] = False
    assert diameters.recist_diameter_mm(oval, (1.0, 1.0, 1.0), nodal=False) == pytest.approx(np.hypot(9, 1))
    assert diameters.recist_diameter_mm(oval, (1.0, 1.0, 1.0), nodal=True) < 4.2


@pytest.mark.parametrize("ratio", [1.0, 0.6])
def test_the_true_diameter_of_a_disc_lies_between_both_rules(ratio: float) -> None:
    """Ellipses drawn at random places: centres read below the truth, outlines above, both by less than a voxel."""
    draw = np.random.default_rng(7)
    y, x = np.mgrid[:80, :80]
    for _ in range(20):
        cy, cx, long_mm = draw.uniform([36, 36, 30], [44, 44, 60])
        turn = draw.uniform(0, np.pi)
        u = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)
        v = (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        mask = ((2 * u / long_mm) ** 2 + (2 * v / (ratio * long_mm)) ** 2 <= 1)[None]
        outer = diameters.axial_diameters(mask, (1.0, 1.0, 1.0))
        inner = diameters.axial_diameters(mask, (1.0, 1.0, 1.0), ends="centres")
        assert long_mm - 1.0 < inner.long_mm <= long_mm <= outer.long_mm + 0.3 < long_mm + 1.3
        assert ratio * long_mm - 1.5 < inner.short_mm < outer.short_mm < ratio * long_mm + 1.3


def test_lesions_are_numbered_by_size_and_touching_corners_join() -> None:
    mask = np.zeros((6, 12, 12), dtype=bool)
    mask[0, 0, 0] = True
    mask[3, 4:7, 4:9] = True
    mask[4, 7, 9] = True  # touches by a corner
    mask[0, 10, 10:12] = True
    labels, count = diameters.label_lesions(mask)
    assert count == 3
    assert (labels[3, 4, 4], labels[4, 7, 9], labels[0, 10, 11], labels[0, 0, 0]) == (1, 1, 2, 3)
    table = diameters.lesion_table(mask, (2.0, 1.0, 1.0))
    assert list(table["voxels"]) == [16, 2, 1]
    assert table["volume_ml"].sum() == pytest.approx(diameters.volume_ml(mask, (2.0, 1.0, 1.0)))
    assert list(table["slice_index"]) == [3, 0, 0]
    assert (table.loc[1, "centre_row"], table.loc[1, "centre_column"]) == (10.0, 10.5)
    assert len(diameters.lesion_table(mask, (2.0, 1.0, 1.0), min_voxels=2)) == 2
    assert diameters.lesion_table(np.zeros((2, 2, 2), dtype=bool), (1.0, 1.0, 1.0)).empty


def test_a_flat_region_has_a_3d_diameter_between_centres() -> None:
    mask = np.zeros((1, 40, 40), dtype=bool)
    mask[0, 3:30, 5:33] = True
    assert diameters.longest_3d_mm(mask, (2.0, 1.0, 1.0), ends="centres") == pytest.approx(np.hypot(26, 27))


def test_errors_say_what_to_mend() -> None:
    with pytest.raises(ValueError, match="the region is empty"):
        diameters.axial_diameters(np.zeros((2, 2, 2), dtype=bool), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="bool array of 3 dimensions"):
        diameters.longest_3d_mm(np.ones((2, 2), dtype=bool), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"spacing_mm is three positive numbers \(z, y, x\)"):
        diameters.volume_ml(np.ones((2, 2, 2), dtype=bool), (1.0, 0.0, 1.0))


def test_the_digital_phantom_of_the_ibsi(shared_imaging: Path) -> None:
    """Reference: maximum 3D diameter 13.1 mm, volume by voxels 592 mm3, of 2 mm voxels."""
    import nibabel

    folder = shared_imaging / "ibsi_1_digital_phantom" / "nifti" / "mask"
    mask = np.asarray(nibabel.load(next(folder.glob("*.nii*"))).dataobj).transpose(2, 1, 0) > 0
    assert diameters.longest_3d_mm(mask, (2.0, 2.0, 2.0)) == pytest.approx(13.1, abs=0.05)
    assert diameters.volume_ml(mask, (2.0, 2.0, 2.0)) == pytest.approx(0.592)
