"""Shape, spatial autocorrelation and local peaks against closed forms and slow sums."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from theracast_features.imaging.enclosing import smallest_box, smallest_ellipsoid
from theracast_features.imaging.extract import radiomics
from theracast_features.imaging.local import PEAK_RADIUS_MM
from theracast_features.imaging.mesh import EDGES, case_triangles, surface, surface_points
from theracast_features.imaging.morphology import ellipsoid_area
from theracast_features.imaging.settings import RadiomicsSettings
from theracast_features.imaging.spatial import moran_geary


def ellipsoid(semi_axes_mm: tuple[float, float, float], spacing: tuple[float, float, float]) -> Any:
    """Return the mask of an ellipsoid, (z, y, x)."""
    sizes = [int(2 * a / s) + 5 for a, s in zip(semi_axes_mm, spacing, strict=True)]
    places = [(np.arange(n) - (n - 1) / 2) * s / a for n, s, a in zip(sizes, spacing, semi_axes_mm, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    return z**2 + y**2 + x**2 <= 1


def shape_of(mask: Any, spacing: tuple[float, float, float]) -> dict[str, float]:
    image = np.random.default_rng(1).normal(10, 1, mask.shape)
    return radiomics(image, mask, spacing_mm=spacing, settings=RadiomicsSettings(families=("morphology",)))


def test_ellipsoid() -> None:
    """Against volume, area (Knud Thomsen's formula errs by 1 % at most) and axes of the ellipsoid."""
    a, b, c = 20.0, 14.0, 9.0
    found = shape_of(ellipsoid((c, b, a), (0.5, 0.5, 0.5)), (0.5, 0.5, 0.5))
    volume = 4 / 3 * np.pi * a * b * c
    area = 4 * np.pi * (((a * b) ** 1.6075 + (a * c) ** 1.6075 + (b * c) ** 1.6075) / 3) ** (1 / 1.6075)
    assert found["morph_volume"] == pytest.approx(volume, rel=0.01)
    assert found["morph_vol_approx"] == pytest.approx(volume, rel=0.01)
    # Steps of half a voxel make a binary surface larger than the smooth one, by up to a tenth.
    assert area < found["morph_area_mesh"] < 1.1 * area
    assert found["morph_diam"] == pytest.approx(2 * a, rel=0.02)
    # A solid ellipsoid has variance a^2 / 5 along its axis: 4 standard deviations are 1.79 a.
    for tag, semi_axis in (("maj", a), ("min", b), ("least", c)):
        assert found[f"morph_pca_{tag}_axis"] == pytest.approx(4 * semi_axis / np.sqrt(5), rel=0.01)
    assert found["morph_vol_dens_mvee"] == pytest.approx(1, rel=0.06)
    assert found["morph_vol_dens_aabb"] == pytest.approx(np.pi / 6, rel=0.07)
    assert found["morph_vol_dens_ombb"] == pytest.approx(np.pi / 6, rel=0.07)
    assert found["morph_vol_dens_conv_hull"] == pytest.approx(1, rel=0.05)


def test_surface_closes() -> None:
    """Every edge of a triangle is met by another in the opposite sense, over all 256 cases and their neighbours."""
    rng = np.random.default_rng(0)
    mask = np.pad(rng.random((6, 6, 6)) < 0.5, 1)
    edges: dict[tuple[Any, Any], float] = {}
    for place in product(range(7), repeat=3):
        corners = mask[place[0] : place[0] + 2, place[1] : place[1] + 2, place[2] : place[2] + 2]
        case = sum(int(corners[n >> 2 & 1, n >> 1 & 1, n & 1]) << n for n in range(8))
        for triangle, weight in case_triangles(case):
            points = []
            for edge in triangle:
                ends = [np.array([n >> 2 & 1, n >> 1 & 1, n & 1]) + place for n in EDGES[edge]]
                points.append(tuple((ends[0] + ends[1]).tolist()))
            for one, other in zip(points, points[1:] + points[:1], strict=True):
                edges[one, other] = edges.get((one, other), 0) + weight
    assert edges
    assert all(weight == pytest.approx(edges.get((b, a), 0)) for (a, b), weight in edges.items())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_surface_of_parts_and_complement(seed: int) -> None:
    """Volume lies between the octahedra of single voxels and whole voxels; points of the hull are those of the mesh."""
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 5, 6)) < 0.6
    mask[0, 0, 0] = True
    spacing = (2.0, 1.0, 1.5)
    found = surface(mask, spacing)
    assert mask.sum() * 3.0 / 6 - 1e-9 <= found.volume <= mask.sum() * 3.0 + 20
    hull = ConvexHull(surface_points(mask, spacing))
    everything = np.concatenate(
        [np.argwhere(mask) * spacing + sign * np.eye(3)[axis] * spacing / 2 for axis in range(3) for sign in (-1, 1)]
    )
    assert hull.volume == pytest.approx(ConvexHull(everything).volume)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_moran_and_geary(seed: int) -> None:
    """Against the double sum over all pairs."""
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.5, 3, 3))
    shape = tuple(rng.integers(1, 6, 3))
    mask = rng.random(shape) < 0.7
    if mask.sum() < 2:
        return
    image = np.where(mask, rng.normal(size=shape), 0.0)
    points, values = np.argwhere(mask) * np.array(spacing), image[mask]
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    weights = np.divide(1.0, distance, out=np.zeros_like(distance), where=distance > 0)
    gap = values - values.mean()
    n = len(values)
    moran = n / weights.sum() * (weights * np.outer(gap, gap)).sum() / (gap**2).sum()
    geary = (n - 1) / (2 * weights.sum()) * (weights * (values[:, None] - values) ** 2).sum() / (gap**2).sum()
    assert moran_geary(image, mask, spacing) == pytest.approx((moran, geary), rel=1e-9, abs=1e-9)
    assert moran_geary(image, mask, spacing, large_box=0) == pytest.approx((moran, geary), rel=1e-9, abs=1e-9)


def test_smallest_box_of_a_turned_block() -> None:
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    block = np.array(list(product((0.0, 9.0), (0.0, 4.0), (0.0, 2.0))))
    points = np.concatenate([block, rng.uniform((0, 0, 0), (9, 4, 2), (50, 3))]) @ turn.T
    hull = ConvexHull(points)
    edges = smallest_box(points[hull.vertices], hull.equations[:, :3])
    assert sorted(edges) == pytest.approx([2.0, 4.0, 9.0])


def test_smallest_ellipsoid() -> None:
    """The smallest ellipsoid around a block has semi-axes root 3 times its half edges."""
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    block = np.array(list(product((-4.5, 4.5), (-2.0, 2.0), (-1.0, 1.0))))
    points = np.concatenate([block, rng.uniform((-4, -1, -1), (4, 1, 1), (40, 3))]) @ turn.T + 100
    found = smallest_ellipsoid(points)
    assert found == pytest.approx(tuple(np.sqrt(3) * half for half in (4.5, 2.0, 1.0)), rel=2e-3)


def test_area_of_ellipsoids() -> None:
    """Exact for a sphere; one value of the manual's series by hand, and no step where two axes become equal."""
    assert ellipsoid_area((3.0, 3.0, 3.0)) == pytest.approx(4 * np.pi * 9)
    square = 1 - 4 / 9  # alpha = beta for axes 3, 2, 2, where every Legendre polynomial is 1
    by_hand = 4 * np.pi * 6 * sum(square**n / (1 - 4 * n**2) for n in range(21))
    assert ellipsoid_area((3.0, 2.0, 2.0)) == pytest.approx(by_hand)
    assert ellipsoid_area((3.0, 3.0 - 1e-9, 2.0)) == pytest.approx(ellipsoid_area((3.0, 3.0, 2.0)), rel=1e-6)


def test_local_peaks() -> None:
    """Against the mean over all voxels of the image whose centre lies in the sphere."""
    rng = np.random.default_rng(4)
    image = rng.normal(size=(8, 12, 14))
    mask = rng.random(image.shape) < 0.3
    spacing = (3.0, 1.5, 2.0)
    found = radiomics(image, mask, spacing_mm=spacing, settings=RadiomicsSettings(families=("local",)))
    places = np.moveaxis(np.indices(image.shape), 0, -1) * spacing
    means = {}
    for point in np.argwhere(mask):
        near = np.linalg.norm(places - point * spacing, axis=-1) <= PEAK_RADIUS_MM
        means[tuple(point)] = image[near].mean()
    highest = max(means, key=lambda point: image[point])
    assert found["loc_peak_glob"] == pytest.approx(max(means.values()))
    assert found["loc_peak_loc"] == pytest.approx(means[highest])
