"""The ICC against the published example, another library and its own coverage; perturbations against what they promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from theracast_features.imaging import perturb, stability
from theracast_features.imaging.diameters import axial_diameters, volume_ml
from theracast_features.imaging.perturb import Perturbation, draw_perturbations

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
SPACING = (3.0, 1.0, 1.0)


def test_the_example_of_shrout_and_fleiss() -> None:
    """Table 4 of the paper: .29 and .71; intervals as in McGraw and Wong (.02 to .76, .34 to .95)."""
    agreement = stability.intraclass_correlation(SHROUT_FLEISS)
    consistency = stability.intraclass_correlation(SHROUT_FLEISS, kind="ICC(3,1)")
    assert (round(agreement.value, 2), round(consistency.value, 2)) == (0.29, 0.71)
    assert (round(agreement.low, 2), round(agreement.high, 2)) == (0.02, 0.76)
    assert (round(consistency.low, 2), round(consistency.high, 2)) == (0.34, 0.95)
    assert (agreement.subjects, agreement.raters) == (6, 4)


def test_another_library() -> None:
    """Figures of pingouin 0.7.0 (ICC(A,1), ICC(C,1)) for this table; it rounds intervals to two digits."""
    i, j = np.mgrid[:9, :4]
    table = 10 * np.sin(1.7 * i) + 1.5 * j + 3 * np.cos(2.3 * i * j + j)
    agreement = stability.intraclass_correlation(table)
    consistency = stability.intraclass_correlation(table, kind="ICC(3,1)")
    assert agreement.value == pytest.approx(0.9258302515579289, abs=1e-12)
    assert consistency.value == pytest.approx(0.9425883349201128, abs=1e-12)
    assert (round(agreement.low, 2), round(agreement.high, 2)) == (0.80, 0.98)
    assert (round(consistency.low, 2), round(consistency.high, 2)) == (0.85, 0.98)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 12), st.integers(2, 6))
@example(seed=1667, n=2, k=2)  # a millionth of a degree of freedom: both ends of the interval would be one number
def test_scale_and_order_do_not_matter_and_a_shared_shift_only_for_agreement(seed: int, n: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    table = draw.normal(0, 2, (n, 1)) + draw.normal(0, 1, (n, k))
    for kind in ("ICC(2,1)", "ICC(3,1)"):
        one = stability.intraclass_correlation(table, kind=kind)
        other = stability.intraclass_correlation(
            7.5 * table[draw.permutation(n)][:, draw.permutation(k)] + 3, kind=kind
        )
        same = pytest.approx((one.value, one.low, one.high), rel=1e-6, abs=1e-9, nan_ok=True)
        assert (other.value, other.low, other.high) == same
        assert np.isnan(one.low) == np.isnan(one.high)
        assert np.isnan(one.low) or one.low <= one.value <= one.high <= 1 + 1e-12
    shifted = table + np.arange(k) * 5.0
    assert stability.intraclass_correlation(shifted, kind="ICC(3,1)").value == pytest.approx(
        stability.intraclass_correlation(table, kind="ICC(3,1)").value
    )
    far = stability.intraclass_correlation(table + np.arange(k) * 50.0).value
    assert abs(far) < abs(stability.intraclass_correlation(table, kind="ICC(3,1)").value) + 0.05


@pytest.mark.parametrize("kind", ["ICC(2,1)", "ICC(3,1)"])
def test_intervals_hold_the_truth_as_often_as_they_say(kind: stability.IccKind) -> None:
    """Patients of variance 4, raters of 1 (agreement only), noise of 1: the truth is 4/6, or 4/5."""
    draw = np.random.default_rng(3)
    truth = 4 / 6 if kind == "ICC(2,1)" else 4 / 5
    held = 0
    for _ in range(600):
        raters = draw.normal(0, 1, (1, 8)) if kind == "ICC(2,1)" else 0.0
        found = stability.intraclass_correlation(
            draw.normal(0, 2, (15, 1)) + raters + draw.normal(0, 1, (15, 8)), kind=kind
        )
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 600 <= 0.98


def test_perfect_absent_and_impossible_agreement() -> None:
    same = np.repeat([[1.0], [2.0], [5.0]], 3, axis=1)
    for kind in ("ICC(2,1)", "ICC(3,1)"):
        assert stability.intraclass_correlation(same, kind=kind).low == 1
        assert np.isnan(stability.intraclass_correlation(np.full((4, 3), 0.1), kind=kind).value)
    shifted = stability.intraclass_correlation(same + np.arange(3.0))
    assert 0 < shifted.value < 1
    assert shifted.low <= shifted.value <= shifted.high
    with pytest.raises(ValueError, match="Leave out subjects"):
        stability.intraclass_correlation([[1.0, np.nan], [1.0, 2.0]])
    with pytest.raises(ValueError, match="at least two of each"):
        stability.intraclass_correlation([[1.0, 2.0]])


def _ball(radius_mm: float, shape: tuple[int, int, int] = (16, 48, 48)) -> np.ndarray:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    centre = [(size - 1) / 2 for size in shape]
    squared = sum(((axis - at) * step) ** 2 for axis, at, step in zip((z, y, x), centre, SPACING, strict=True))
    return np.asarray(squared <= radius_mm**2)


@pytest.mark.parametrize("level", [0.5, 20.0])
def test_noise_level_of_a_smooth_image_with_edges(level: float) -> None:
    draw = np.random.default_rng(5)
    _, y, x = np.mgrid[:16, :48, :48]
    image = 100 + 3 * np.sin(y / 7) * x + 500 * (x > 30)
    found = perturb.noise_level(image + draw.normal(0, level, image.shape), _ball(15))
    assert found == pytest.approx(level, rel=0.06)
    assert perturb.noise_level(np.full((2, 4, 4), 7.0)) == 0
    with pytest.raises(ValueError, match="cannot be told"):
        perturb.noise_level(np.ones((2, 1, 1)))


def test_each_perturbation_does_what_it_says() -> None:
    draw = np.random.default_rng(1)
    mask = _ball(14.0)
    image = np.where(mask, 50.0, 10.0) + draw.normal(0, 2.0, mask.shape)
    image_before, mask_before = image.copy(), mask.copy()

    def of(one: Perturbation) -> tuple[np.ndarray, np.ndarray]:
        return perturb.perturb(image, mask, SPACING, one)

    same, region = of(Perturbation("original"))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(region, mask)
    _, grown = of(Perturbation("grow", grow_voxels=1))
    _, shrunk = of(Perturbation("shrink", grow_voxels=-1))
    assert (mask & ~grown).sum() == 0
    assert (shrunk & ~mask).sum() == 0
    neighbours = np.zeros_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            neighbours |= np.roll(mask, step, axis)
    np.testing.assert_array_equal(grown, mask | neighbours)
    assert axial_diameters(shrunk, SPACING).long_mm < axial_diameters(mask, SPACING).long_mm
    noisy, _ = of(Perturbation("noise", noise_levels=1.0, seed=4))
    assert (noisy - image).std() == pytest.approx(perturb.noise_level(image, mask), rel=0.02)
    assert perturb.noise_level(noisy, mask) == pytest.approx(2.0 * np.sqrt(2), rel=0.06)
    whole, moved = of(Perturbation("shift", shift_voxels=(1.0, 0.0, -2.0)))
    np.testing.assert_array_equal(moved, np.roll(mask, (1, -2), (0, 2)))
    np.testing.assert_allclose(whole[1:, :, :-2], image[:-1, :, 2:])
    part, half = of(Perturbation("shift", shift_voxels=(0.0, 0.25, 0.0)))
    np.testing.assert_allclose(part[:, 1:], 0.75 * image[:, 1:] + 0.25 * image[:, :-1])
    assert half.sum() == pytest.approx(mask.sum(), rel=0.02)
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(mask, mask_before)


def test_a_random_contour_moves_by_what_was_asked() -> None:
    """A disc of 60 mm: over many draws the edge along a ray has the standard deviation asked for, and no bias."""
    y, x = np.mgrid[:160, :160]
    mask = (((y - 80) * 0.5) ** 2 + ((x - 80) * 0.5) ** 2 <= 30**2)[None]
    image = np.zeros(mask.shape)
    edges = []
    for seed in range(60):
        change = Perturbation("contour", contour_mm=1.5, contour_length_mm=5.0, seed=seed)
        _, region = perturb.perturb(image, mask, (3.0, 0.5, 0.5), change)
        edges += [0.5 * region[0, 80, 80:].sum(), 0.5 * region[0, 80:, 80].sum()]
        _, again = perturb.perturb(image, mask, (3.0, 0.5, 0.5), change)
        np.testing.assert_array_equal(region, again)
    assert np.mean(edges) == pytest.approx(30.25, abs=0.5)
    assert np.std(edges) == pytest.approx(1.5, rel=0.2)


def test_drawn_perturbations_are_recorded_and_repeatable() -> None:
    one, two = (draw_perturbations(np.random.default_rng(8)) for _ in range(2))
    assert one == two
    assert len({part.name for part in one}) == len(one) == 9
    assert one[0] == Perturbation("original")
    assert all(abs(step) <= 0.5 for part in one for step in part.shift_voxels)
    assert json.loads(json.dumps([part.to_json() for part in one]))[1]["grow_voxels"] == 1


def test_a_stable_and_an_unstable_feature() -> None:
    """Twelve phantoms: the mean of a homogeneous region is stable, one voxel's value is noise, a constant has no ICC."""
    draw = np.random.default_rng(2)
    cases = []
    for number in range(12):
        mask = _ball(draw.uniform(8, 18))
        image = np.full(mask.shape, draw.uniform(0, 100)) + draw.normal(0, 10.0, mask.shape)
        cases.append((f"p{number}", image, mask, SPACING))

    def measure(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
        values = image[mask]
        residue = values - values.mean()
        return {
            "mean": float(values.mean()),
            "volume_ml": volume_ml(mask, spacing),
            "one_voxel": float(residue[len(residue) // 2]),
            "constant": 1.0,
        }

    perturbations = draw_perturbations(draw, noises=6, shifts=0, contours=1)
    table = stability.measure_perturbed(iter(cases), measure, perturbations)
    assert table.shape == (12 * 10, 4)
    found = {one.feature: one for one in stability.feature_stability(table)}
    assert found["mean"].grade == "excellent"
    assert found["mean"].low > 0.98
    assert found["one_voxel"].grade == "poor"
    assert found["constant"].grade == "unknown"
    assert found["constant"].to_json()["icc"] is None
    assert found["mean"].patients == 12
    assert found["mean"].perturbations == tuple(one.name for one in perturbations)
    json.dumps([one.to_json() for one in found.values()], allow_nan=False)
    consistent = {one.feature: one for one in stability.feature_stability(table, kind="ICC(3,1)")}
    # Growing and shrinking shift every volume: agreement suffers more than consistency.
    assert consistent["volume_ml"].icc > found["volume_ml"].icc


def test_regions_that_vanish_leave_their_patient_out() -> None:
    draw = np.random.default_rng(2)
    small = np.zeros((4, 6, 6), dtype=bool)
    small[1:3, 2:4, 2:4] = True
    cases = [("tiny", draw.normal(size=small.shape), small, SPACING)]
    cases += [(f"p{n}", draw.normal(size=(16, 48, 48)), _ball(9.0 + n), SPACING) for n in range(3)]
    perturbations = (Perturbation("original"), Perturbation("shrink 1", grow_voxels=-1))
    table = stability.measure_perturbed(cases, lambda image, mask, spacing: {"n": float(mask.sum())}, perturbations)
    assert np.isnan(table.loc[("tiny", "shrink 1"), "n"])
    (found,) = stability.feature_stability(table)
    assert (found.patients, found.left_out) == (3, 1)
    with pytest.raises(ValueError, match="come twice"):
        stability.measure_perturbed([cases[1], cases[1]], lambda image, mask, spacing: {}, perturbations)
    with pytest.raises(ValueError, match="at least two perturbations"):
        stability.feature_stability(table.xs("original", level="perturbation", drop_level=False))
