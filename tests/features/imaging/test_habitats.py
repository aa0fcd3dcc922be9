"""Habitats of phantoms with known parts: found, numbered alike in every fit, applied as scikit-learn does, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from theracast_features.imaging import habitats as hab
from theracast_features.imaging.habitats import Habitats, HabitatSection, fit_habitats

MAPS = ("adc", "perfusion", "enhancement")
LEVELS = np.array([[900.0, 60.0, 150.0], [1400.0, 20.0, 80.0], [2300.0, 5.0, 10.0]])
SPREAD = np.array([120.0, 6.0, 15.0])
SPACING = (3.0, 1.0, 1.0)


def _patient(
    draw: np.random.Generator, size: int, fractions: tuple[float, ...] = (0.4, 0.35, 0.25)
) -> tuple[np.ndarray, np.ndarray]:
    kind = draw.choice(len(fractions), size, p=fractions)
    return LEVELS[kind] + draw.normal(0, 1, (size, 3)) * SPREAD, kind + 1


def _patients(seed: int, count: int = 12) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [_patient(draw, int(draw.integers(300, 3000)))[0] for _ in range(count)]


@pytest.mark.parametrize("method", ["kmeans", "gaussian"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_known_parts_are_found_and_numbered_alike_in_every_fit(method: str, seed: int) -> None:
    section = HabitatSection(method=method)  # type: ignore[arg-type]
    found = fit_habitats(_patients(seed), MAPS, rng=np.random.default_rng(seed), section=section)
    np.testing.assert_allclose(found.levels, LEVELS, rtol=0.06, atol=1.0)
    voxels, truth = _patient(np.random.default_rng(99), 5000)
    assert (hab.assign_habitats(found, voxels) == truth).mean() > 0.99
    assert found.patients == 12


@pytest.mark.parametrize(
    ("method", "criterion"), [("kmeans", "silhouette"), ("gaussian", "bic"), ("gaussian", "silhouette")]
)
def test_the_number_of_habitats_is_found(method: str, criterion: str) -> None:
    section = HabitatSection(method=method, criterion=criterion, counts=(2, 3, 4, 5), voxels_per_patient=200, starts=3)  # type: ignore[arg-type]
    found = fit_habitats(_patients(5), MAPS, rng=np.random.default_rng(0), section=section)
    assert found.count == 3
    assert set(found.scores) == {2, 3, 4, 5}


def test_large_tumours_do_not_decide_alone() -> None:
    """One patient with a hundred times the voxels of each other leaves the centroids where they are."""
    patients = _patients(3)
    draw = np.random.default_rng(0)
    giant = LEVELS[0] * 1.1 + draw.normal(0, 1, (200_000, 3)) * SPREAD
    before = fit_habitats(patients, MAPS, rng=np.random.default_rng(1))
    after = fit_habitats([*patients, giant], MAPS, rng=np.random.default_rng(1))
    assert np.abs((after.levels - before.levels) / SPREAD).max() < 0.5
    few = fit_habitats([patient[:40] for patient in patients], MAPS, rng=np.random.default_rng(1))
    np.testing.assert_allclose(few.levels, LEVELS, rtol=0.1, atol=2)


def test_applying_equals_scikit_learn() -> None:
    """The mixture's labels are those of `GaussianMixture.predict` with the same numbers."""
    found = fit_habitats(_patients(4), MAPS, rng=np.random.default_rng(2), section=HabitatSection(method="gaussian"))
    mixture = GaussianMixture(3)
    mixture.means_, mixture.weights_, mixture.covariances_ = found.centroids, found.weights, found.covariances
    mixture.precisions_cholesky_ = np.array([np.linalg.cholesky(np.linalg.inv(c)) for c in found.covariances])
    draw = np.random.default_rng(7)
    voxels = draw.uniform([500, -10, -50], [3000, 90, 250], (4000, 3))
    expected = mixture.predict((voxels - found.centre) / found.scale) + 1
    np.testing.assert_array_equal(hab.assign_habitats(found, voxels), expected)
    nearest = fit_habitats(_patients(4), MAPS, rng=np.random.default_rng(2))
    squared = (((voxels - nearest.levels[:, None]) / nearest.scale) ** 2).sum(axis=2)
    np.testing.assert_array_equal(hab.assign_habitats(nearest, voxels), squared.argmin(axis=0) + 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_units_of_a_map_and_order_of_voxels_do_not_matter(seed: int, factor: float) -> None:
    patients = _patients(seed, count=4)
    scale = np.array([factor, 1.0, 1.0])
    section = HabitatSection(voxels_per_patient=100, starts=2)
    one = fit_habitats(patients, MAPS, rng=np.random.default_rng(3), section=section)
    other = fit_habitats([patient * scale for patient in patients], MAPS, rng=np.random.default_rng(3), section=section)
    voxels = patients[0][:200]
    order = np.random.default_rng(seed).permutation(len(voxels))
    labels = hab.assign_habitats(one, voxels)
    np.testing.assert_array_equal(hab.assign_habitats(other, voxels * scale), labels)
    np.testing.assert_array_equal(hab.assign_habitats(one, voxels[order]), labels[order])
    assert list(one.levels[:, 0]) == sorted(one.levels[:, 0])


@pytest.mark.parametrize("method", ["kmeans", "gaussian"])
def test_what_was_learnt_survives_json(method: str) -> None:
    section = HabitatSection(method=method, counts=(2, 3), voxels_per_patient=100)  # type: ignore[arg-type]
    found = fit_habitats(_patients(1), MAPS, rng=np.random.default_rng(0), section=section)
    again = Habitats.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    voxels = _patients(8)[0]
    np.testing.assert_array_equal(hab.assign_habitats(again, voxels), hab.assign_habitats(found, voxels))
    assert again.scores == found.scores
    assert again.maps == MAPS
    with pytest.raises(ValueError, match="Fit them anew"):
        Habitats.from_json({**found.to_json(), "format": 0})


def test_counted_by_hand() -> None:
    """Six voxels in two rows and one outside: seven pairs, one voxel missing a map."""
    labels = np.array([[[1, 1, 2, 3], [1, 2, 0, 3]]], dtype=np.int16)
    mask = np.array([[[True, True, True, False], [True, True, True, False]]])
    found = hab.habitat_fractions(labels, mask, (10.0, 10.0, 10.0), count=3)
    assert [found[f"fraction.{i}"] for i in (1, 2, 3)] == [0.6, 0.4, 0.0]
    assert [found[f"volume_ml.{i}"] for i in (1, 2, 3)] == [3.0, 2.0, 0.0]
    # Pairs: 11 and 12 along the first row, 12 along the second, 11 and 12 down; the missing voxel makes none.
    assert (found["contact.1_1"], found["contact.1_2"], found["contact.2_2"]) == (0.4, 0.6, 0.0)
    assert found["contact_different"] == pytest.approx(0.6)
    assert found["entropy_bits"] == pytest.approx(-(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4)))
    assert found["spatial_entropy_bits"] == pytest.approx(found["entropy_bits"])
    assert found["missing_fraction"] == pytest.approx(1 / 6)


def test_mixed_and_separate_parts_have_one_composition_and_two_patterns() -> None:
    z, y, x = np.mgrid[:6, :6, :6]
    mask = np.ones(z.shape, dtype=bool)
    mixed = ((z + y + x) % 2 + 1).astype(np.int16)
    halves = (1 + (x >= 3)).astype(np.int16)
    one, two = (hab.habitat_fractions(labels, mask, SPACING, count=2) for labels in (mixed, halves))
    assert one["fraction.1"] == two["fraction.1"] == 0.5
    assert one["entropy_bits"] == two["entropy_bits"] == 1.0
    assert one["contact_different"] == 1.0
    assert two["contact_different"] == pytest.approx(36 / 540)
    whole = hab.habitat_fractions(np.ones_like(mixed), mask, SPACING, count=2)
    assert (whole["entropy_bits"], whole["spatial_entropy_bits"], whole["contact_different"]) == (0, 0, 0)


def test_a_region_from_maps_to_fractions() -> None:
    """A tumour that loses its dense part: fractions and volumes are those of the phantom."""
    found = fit_habitats(_patients(0), MAPS, rng=np.random.default_rng(0))
    draw = np.random.default_rng(4)
    shape = (6, 20, 20)
    z, _, x = np.mgrid[:6, :20, :20]
    mask = (z > 0) & (x > 1)

    def volumes(kind: np.ndarray) -> list[np.ndarray]:
        full = LEVELS[kind] + draw.normal(0, 1, (*shape, 3)) * SPREAD * 0.5
        return [full[..., place] for place in range(3)]

    before, after = np.where(x < 10, 0, 2), np.where(x < 6, 0, 2)
    tables = []
    for kind in (before, after):
        labels = hab.habitat_map(found, volumes(kind), mask)
        np.testing.assert_array_equal(labels[mask], kind[mask] + 1)
        assert (labels[~mask] == 0).all()
        tables.append(hab.habitat_fractions(labels, mask, SPACING, count=3))
    assert [one["fraction.1"] for one in tables] == pytest.approx([8 / 18, 4 / 18])
    assert [one["volume_ml.3"] for one in tables] == pytest.approx([10 * 20 * 5 * 0.003, 14 * 20 * 5 * 0.003])
    assert [one["volume_ml.2"] for one in tables] == [0, 0]


def test_missing_maps_and_errors() -> None:
    found = fit_habitats(_patients(0), MAPS, rng=np.random.default_rng(0))
    voxels = LEVELS.copy()
    voxels[1, 2] = np.nan
    assert list(hab.assign_habitats(found, voxels)) == [1, 0, 3]
    with pytest.raises(ValueError, match=r"voxels: \(n_voxels, 3\) of adc"):
        hab.assign_habitats(found, voxels[:, :2])
    with pytest.raises(ValueError, match="Register and resample"):
        hab.habitat_map(found, [np.ones((2, 2, 2))] * 2 + [np.ones((2, 2, 3))], np.ones((2, 2, 2), dtype=bool))
    flat = [patient * [1, 0, 1] for patient in _patients(0)]
    with pytest.raises(ValueError, match="the map perfusion does not vary"):
        fit_habitats(flat, MAPS, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least two patients"):
        fit_habitats([np.full((20, 3), np.nan), _patients(0)[0]], MAPS, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="needs method gaussian"):
        fit_habitats(
            _patients(0), MAPS, rng=np.random.default_rng(0), section=HabitatSection(criterion="bic", counts=(2, 3))
        )
    empty = hab.habitat_fractions(np.zeros((2, 2, 2), dtype=np.int16), np.ones((2, 2, 2), dtype=bool), SPACING, count=2)
    assert np.isnan(empty["fraction.1"])
    assert empty["missing_fraction"] == 1
