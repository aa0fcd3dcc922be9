"""Uptake of phantoms with known answers, against a slow loop, and against the IBSI's reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_features.imaging import uptake as pet


def _peak(suv: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], *, at_maximum: bool) -> float:
    """Every voxel against every other."""
    places = np.argwhere(np.ones(suv.shape, dtype=bool))
    best = -np.inf
    top = suv[mask].max()
    for centre in np.argwhere(mask):
        if at_maximum and suv[tuple(centre)] < top:
            continue
        near = (((places - centre) * spacing) ** 2).sum(axis=1) <= 6.2035049**2
        best = max(best, suv.ravel()[near].mean())
    return float(best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.sampled_from([2.0, 3.3, 4.07, 7.0])] * 3))
def test_peak_equals_a_loop_over_all_voxels(seed: int, spacing: tuple[float, float, float]) -> None:
    draw = np.random.default_rng(seed)
    suv = draw.gamma(2.0, 2.0, (5, 7, 6))
    mask = draw.random(suv.shape) < 0.3
    mask[2, 3, 3] = True
    for centred, at_maximum in (("anywhere", False), ("maximum", True)):
        found = pet.suv_peak(suv, mask, spacing, centred=centred)  # type: ignore[arg-type]
        assert found == pytest.approx(_peak(suv, mask, spacing, at_maximum=at_maximum), rel=1e-9)
    assert pet.suv_peak(suv, mask, spacing, centred="maximum") <= pet.suv_peak(suv, mask, spacing) + 1e-9


def test_a_hot_sphere_in_a_warm_background() -> None:
    """Two levels: 8 within 12 mm, 3 around it; every number is known but for the voxels' rounding of the sphere."""
    z, y, x = np.mgrid[:30, :30, :30]
    distance = np.sqrt((z - 15) ** 2 + (y - 15) ** 2 + (x - 15) ** 2) * 2.0
    suv = np.where(distance <= 12, 8.0, 3.0)
    region = distance <= 20
    found = pet.uptake(suv, region, (2.0, 2.0, 2.0))
    hot_ml = (distance <= 12).sum() * 0.008
    assert hot_ml == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.05)
    all_ml = region.sum() * 0.008
    assert (found["suv_max"], found["suv_peak"]) == (8.0, pytest.approx(8.0))
    for name in ("suv_4_0", "max_41_percent", "max_50_percent"):
        assert found[f"mtv_ml.{name}"] == pytest.approx(hot_ml)
        assert found[f"tlg_g.{name}"] == pytest.approx(8 * hot_ml)
        assert found[f"suv_mean.{name}"] == pytest.approx(8)
    assert found["mtv_ml.suv_2_5"] == pytest.approx(all_ml)
    assert found["tlg_g.suv_2_5"] == pytest.approx(8 * hot_ml + 3 * (all_ml - hot_ml))
    assert found["suv_mean"] == pytest.approx(found["tlg_g.suv_2_5"] / all_ml)


def test_a_single_hot_voxel_is_a_maximum_but_no_peak() -> None:
    suv = np.ones((9, 9, 9))
    suv[4, 4, 4] = 28.0
    found = pet.uptake(suv, suv > 0, (4.0, 4.0, 4.0), fixed=(30.0,))
    assert found["suv_max"] == 28
    assert found["suv_peak"] == pytest.approx((28 + 18) / 19)  # 19 voxel centres of 4 mm lie within 6.2 mm
    assert (found["mtv_ml.suv_30"], found["tlg_g.suv_30"]) == (0, 0)
    assert np.isnan(found["suv_mean.suv_30"])


def test_numbers_outside_the_region_that_are_missing_do_not_reach_the_peak() -> None:
    suv = np.full((5, 5, 5), 2.0)
    suv[0] = np.nan
    mask = np.zeros(suv.shape, dtype=bool)
    mask[1:3, 2, 2] = True
    assert pet.suv_peak(suv, mask, (4.0, 4.0, 4.0)) == pytest.approx(2.0)
    mask[0, 2, 2] = True
    with pytest.raises(ValueError, match="1 voxels of the region have no uptake"):
        pet.suv_peak(suv, mask, (4.0, 4.0, 4.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.5, 2.0, 8.0]))
def test_a_larger_dose_scales_uptake_and_keeps_relative_volumes(seed: int, factor: float) -> None:
    draw = np.random.default_rng(seed)
    suv = draw.gamma(2.0, 2.0, (4, 5, 6))
    mask = draw.random(suv.shape) < 0.6
    mask[0, 0, 0] = True
    one, more = (pet.uptake(image, mask, (3.0, 3.0, 3.0)) for image in (suv, factor * suv))
    for name in ("suv_max", "suv_peak", "suv_mean", "tlg_g.max_41_percent"):
        assert more[name] == pytest.approx(factor * one[name])
    assert more["mtv_ml.max_50_percent"] == one["mtv_ml.max_50_percent"]
    assert one["mtv_ml.max_50_percent"] <= one["mtv_ml.max_41_percent"]
    assert one["suv_mean"] <= one["suv_peak"] + 1e-9 or one["suv_peak"] <= one["suv_max"] + 1e-9
    assert one["suv_peak"] <= suv.max() + 1e-9


def test_liver_reference_and_percist() -> None:
    """A liver of 2 with noise of 0.2: the threshold is 1.5 * 2 + 2 * 0.2."""
    draw = np.random.default_rng(0)
    z, y, x = np.mgrid[:30, :40, :40]
    liver = (z - 15) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 12**2
    suv = np.where(liver, draw.normal(2.0, 0.2, liver.shape), 9.0)
    found = pet.liver_reference(suv, liver, (4.0, 4.0, 4.0))
    assert (found.mean, found.sd) == (pytest.approx(2.0, abs=0.06), pytest.approx(0.2, rel=0.15))
    assert found.voxels == pytest.approx(4 / 3 * np.pi * 15**3 / 64, rel=0.15)
    assert found.threshold == pytest.approx(1.5 * found.mean + 2 * found.sd)
    measured = pet.uptake(suv, ~liver, (4.0, 4.0, 4.0), liver=found)
    assert measured["percist_measurable"] == 1
    assert measured["mtv_ml.percist"] == pytest.approx((~liver).sum() * 0.064)
    with pytest.raises(ValueError, match="does not fit"):
        pet.liver_reference(suv, liver, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("before", "after", "new", "answer"),
    [
        (10.0, 7.0, False, "partial"),
        (10.0, 7.1, False, "stable"),
        (2.6, 1.9, False, "complete"),
        (10.0, 13.0, False, "progressive"),
        (10.0, 12.9, False, "stable"),
        (2.5, 3.25, False, "stable"),  # 30 %, but 0.75
        (10.0, 5.0, True, "progressive"),
        (2.5, 2.1, False, "stable"),
    ],
)
def test_percist_response(before: float, after: float, new: bool, answer: str) -> None:
    liver = pet.LiverReference(mean=2.0, sd=0.2, voxels=200)
    assert pet.percist_response({"suv_peak": before}, {"suv_peak": after}, liver_after=liver, new_lesion=new) == answer


def test_the_digital_phantom_of_the_ibsi(shared_imaging: Path) -> None:
    """Reference values: local intensity peak 2.6, global intensity peak 3.1."""
    import nibabel

    folder = shared_imaging / "ibsi_1_digital_phantom" / "nifti"
    image, mask = (
        np.asarray(nibabel.load(next((folder / name).glob("*.nii*"))).dataobj).transpose(2, 1, 0)
        for name in ("image", "mask")
    )
    table = pd.read_csv(shared_imaging / "ibsi_reference_values" / "ibsi_1_reference_values_digital_phantom.csv")
    reference = table.set_index("tag")["reference value"]
    spacing = (2.0, 2.0, 2.0)
    local = pet.suv_peak(image.astype(float), mask > 0, spacing, centred="maximum")
    assert round(local, 1) == reference["loc_peak_loc"]
    assert round(pet.suv_peak(image.astype(float), mask > 0, spacing), 1) == reference["loc_peak_glob"]
