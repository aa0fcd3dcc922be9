"""Statistics of maps, enhancement and functional tumour volume against known answers, IBSI's values and a real breast MR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theracast_features.imaging import maps


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_statistics_equal_scipy(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.gamma(2.0, 500.0, (1, 1, size))
    values[..., 0] = np.nan
    found = maps.map_statistics(values, np.ones(values.shape, dtype=bool))
    known = values[np.isfinite(values)]
    assert found["mean"] == pytest.approx(known.mean())
    assert found["iqr"] == pytest.approx(stats.iqr(known))
    assert found["p95"] == pytest.approx(stats.scoreatpercentile(known, 95))
    assert found["missing_fraction"] == pytest.approx(1 / size)
    if len(known) > 2:
        assert found["kurtosis"] == pytest.approx(stats.kurtosis(known), rel=1e-6, abs=1e-9)
        assert found["skewness"] == pytest.approx(stats.skew(known), rel=1e-6, abs=1e-9)


def test_a_constant_map_has_no_shape_and_an_absent_one_is_an_error() -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    found = maps.map_statistics(np.full(mask.shape, 0.1), mask)
    assert (found["median"], found["iqr"]) == (0.1, 0.0)
    assert np.isnan([found["kurtosis"], found["skewness"]]).all()
    with pytest.raises(ValueError, match="no number in the region"):
        maps.map_statistics(np.full(mask.shape, np.nan), mask)
    with pytest.raises(ValueError, match="the region is empty"):
        maps.map_statistics(np.ones(mask.shape), ~mask)
    with pytest.raises(ValueError, match="one grid"):
        maps.map_statistics(np.ones((2, 2, 3)), mask)


def test_the_digital_phantom_of_the_ibsi(shared_imaging: Path) -> None:
    """Mean, median, minimum, maximum, skewness and kurtosis of the phantom; its percentiles are of another definition."""
    import nibabel

    folder = shared_imaging / "ibsi_1_digital_phantom" / "nifti"
    image, mask = (
        np.asarray(nibabel.load(next((folder / name).glob("*.nii*"))).dataobj).transpose(2, 1, 0)
        for name in ("image", "mask")
    )
    table = pd.read_csv(shared_imaging / "ibsi_reference_values" / "ibsi_1_reference_values_digital_phantom.csv")
    reference = table.set_index("tag")["reference value"]
    found = maps.map_statistics(image.astype(float), mask > 0)
    tags = {"mean": "mean", "skewness": "skew", "kurtosis": "kurt", "median": "median", "min": "min", "max": "max"}
    for name, tag in {**tags, "p10": "p10", "p90": "p90", "iqr": "iqr"}.items():
        assert found[name] == pytest.approx(reference[f"stat_{tag}"], abs=0.006), name


def test_enhancement_of_known_curves() -> None:
    """Washout, plateau, persistent, gone by the late image, not enhancing, and no signal before contrast."""
    pre = np.array([[[100.0, 100, 100, 100, 100, 0]]])
    early = np.array([[[300.0, 200, 150, 180, 100, 50]]])
    late = np.array([[[200.0, 200, 200, 100, 100, 60]]])
    found = maps.enhancement(pre, early, late)
    np.testing.assert_allclose(found.early_percent[0, 0], [200, 100, 50, 80, 0, np.nan])
    np.testing.assert_allclose(found.late_percent[0, 0], [100, 100, 100, 0, 0, np.nan])
    np.testing.assert_allclose(found.washout_percent[0, 0], [100 / 3, 0, -100 / 3, 100 * 80 / 180, 0, np.nan])
    np.testing.assert_allclose(found.ser[0, 0], [2, 1, 0.5, np.inf, np.nan, np.nan])
    mask = np.ones(pre.shape, dtype=bool)
    volume = maps.functional_tumour_volume(found.early_percent, found.ser, mask, (10.0, 10.0, 10.0))
    assert (volume["ftv_ml"], volume["washout_ml"], volume["plateau_ml"], volume["persistent_ml"]) == (3, 2, 1, 0)
    assert (volume["early_percent"], volume["ser"]) == (pytest.approx(380 / 3), 1.5)
    assert volume["enhancing_fraction"] == 0.5
    wider = maps.functional_tumour_volume(
        found.early_percent, found.ser, mask, (10.0, 10.0, 10.0), enhancement_percent=50
    )
    assert (wider["ftv_ml"], wider["persistent_ml"]) == (4, 1)
    strict = maps.functional_tumour_volume(
        found.early_percent, found.ser, mask, (10.0, 10.0, 10.0), enhancement_percent=50, min_ser=0.9
    )
    assert strict["ftv_ml"] == 3
    with pytest.raises(ValueError, match="one shape"):
        maps.enhancement(pre, early[..., :2], late)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_the_scanner_s_gain_does_not_matter_and_thresholds_nest(seed: int, gain: float) -> None:
    draw = np.random.default_rng(seed)
    pre, early, late = draw.uniform(50, 400, (3, 2, 5, 5))
    mask = draw.random(pre.shape) < 0.7
    mask[0, 0, 0] = True
    one, other = maps.enhancement(pre, early, late), maps.enhancement(gain * pre, gain * early, gain * late)
    np.testing.assert_allclose(other.early_percent, one.early_percent, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other.ser, one.ser, rtol=1e-6)
    volumes = [
        maps.functional_tumour_volume(one.early_percent, one.ser, mask, (1.0, 1.0, 1.0), enhancement_percent=limit)
        for limit in (20, 70, 150)
    ]
    assert volumes[0]["ftv_ml"] >= volumes[1]["ftv_ml"] >= volumes[2]["ftv_ml"]
    for volume in volumes:
        parts = volume["persistent_ml"] + volume["plateau_ml"] + volume["washout_ml"]
        assert parts == pytest.approx(volume["ftv_ml"])


def test_a_real_breast_with_its_segmentation(shared_imaging: Path) -> None:
    """Maps of early enhancement and SER with the reader's volume of interest (DICOM SEG); every voxel is counted by hand."""
    import pydicom

    folder = shared_imaging / "dicom_seg" / "UCSF-BR-06"

    def read(name: str) -> tuple[np.ndarray, list[float]]:
        slices = [pydicom.dcmread(path) for path in (folder / name).glob("*.dcm")]
        slices.sort(key=lambda one: float(one.ImagePositionPatient[0]))
        scale = [float(one.get("RescaleSlope", 1) or 1) for one in slices]
        image = np.stack([one.pixel_array * factor for one, factor in zip(slices, scale, strict=True)])
        return image, [float(one.ImagePositionPatient[0]) for one in slices]

    early, places = read("image_dce_pe1")
    ser, same = read("image_dce_ser")
    assert places == same
    segmentation = pydicom.dcmread(folder / "mask" / "1-1.dcm")
    region = np.zeros(early.shape, dtype=bool)
    for frame, plane in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        place = float(frame.PlanePositionSequence[0].ImagePositionPatient[0])
        region[int(np.abs(np.array(places) - place).argmin())] = plane > 0
    spacing = (2.0, 0.703125, 0.703125)
    found = maps.functional_tumour_volume(early, ser, region, spacing)
    count = sum(
        1
        for rise, ratio, inside in zip(early.flat, ser.flat, region.flat, strict=True)
        if inside and rise >= 70 and ratio >= 0
    )
    assert found["ftv_ml"] == pytest.approx(count * 2.0 * 0.703125**2 / 1000)
    assert 0.1 < found["ftv_ml"] < 0.6 * region.sum() * np.prod(spacing) / 1000
    # Signals made from both maps give the maps, and the volume, back.
    pre = np.full(early.shape, 1000.0)
    first = pre * (1 + early / 100)
    last = pre + np.where(ser > 0, (first - pre) / np.where(ser > 0, ser, 1.0), 1.0)
    again = maps.enhancement(pre, first, last)
    volume = maps.functional_tumour_volume(again.early_percent, again.ser, region & (ser > 0), spacing)
    direct = maps.functional_tumour_volume(early, ser, region & (ser > 0), spacing, enhancement_percent=70 - 1e-9)
    assert volume["ftv_ml"] == pytest.approx(direct["ftv_ml"], rel=1e-3)
    assert 0.5 < found["ser"] < 3
