"""Dose on regions, against scipy's interpolation and against formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from scipy.interpolate import RegularGridInterpolator

from theracast_data.dicom.dose import DoseVolume, read_dose, region_dose
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.volume import Region, Volume

Make = Callable[..., list[Path]]
Blank = Callable[..., FileDataset]
SCALING = 1e-4


def stored_dose(shape: tuple[int, int, int] = (6, 7, 9)) -> np.ndarray:
    z, y, x = np.mgrid[0 : shape[0], 0 : shape[1], 0 : shape[2]]
    return (200_000 + 30_000 * z + 9_000 * y * x + 500 * x**2).astype(np.uint32)


def write_dose(path: Path, blank: Blank, **elements: Any) -> Path:
    dataset = blank("RTDOSE", "dose", series="dose")
    stored = stored_dose()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 0
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-12, -22, 28], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [3.0, 2.5]
    dataset.GridFrameOffsetVector = [4.0 * number for number in range(6)]
    dataset.FrameIncrementPointer = 0x3004000C
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    dataset.DoseGridScaling = SCALING
    dataset.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def image(tmp_path: Path, make_series: Make) -> Volume:
    """6 x 8 x 10 voxels of 2.5 x 1.5 x 1.25 mm from (-10, -20, 30)."""
    make_series(tmp_path / "ct")
    return read_series(tmp_path / "ct")


@pytest.fixture
def region(image: Volume) -> Region:
    mask = np.random.default_rng(2).random(image.shape) < 0.4
    return Region("PTV", mask, image.affine, "rtstruct")


def expected(image: Volume, region: Region) -> np.ndarray:
    """Interpolate with scipy, in mm."""
    axes = (28 + 4.0 * np.arange(6), -22 + 3.0 * np.arange(7), -12 + 2.5 * np.arange(9))
    grid = RegularGridInterpolator(axes, stored_dose() * SCALING)
    z, y, x = np.nonzero(region.mask)
    return np.asarray(grid(np.column_stack([30 + 2.5 * z, -20 + 1.5 * y, -10 + 1.25 * x])))


def test_dose_is_interpolated_at_the_voxels_of_the_region(
    tmp_path: Path, blank: Blank, image: Volume, region: Region
) -> None:
    dose = read_dose(write_dose(tmp_path / "dose.dcm", blank))
    assert dose.unit == "Gy"
    assert dose.spacing_mm == pytest.approx((4, 3, 2.5))
    np.testing.assert_allclose(dose.values, stored_dose() * SCALING)
    found = region_dose(dose, region, image)
    np.testing.assert_allclose(found.doses_gy, np.sort(expected(image, region))[::-1], rtol=1e-12)
    assert found.share_outside == 0


@pytest.mark.parametrize(
    "offsets",
    [
        [28 + 4.0 * number for number in range(6)],
        [0.0, 8.0, 4.0, 12.0, 20.0, 16.0],
    ],
    ids=["absolute", "any order"],
)
def test_the_offsets_of_planes_are_absolute_or_relative(
    tmp_path: Path, blank: Blank, image: Volume, region: Region, offsets: list[float]
) -> None:
    order = np.argsort(np.argsort(offsets))  # the plane at each offset
    path = write_dose(
        tmp_path / "dose.dcm", blank, GridFrameOffsetVector=offsets, PixelData=stored_dose()[order].tobytes()
    )
    np.testing.assert_allclose(read_dose(path).values, stored_dose() * SCALING)
    np.testing.assert_allclose(
        region_dose(read_dose(path), region, image).doses_gy, np.sort(expected(image, region))[::-1], rtol=1e-12
    )


def test_planes_may_go_down(tmp_path: Path, blank: Blank, image: Volume, region: Region) -> None:
    path = write_dose(
        tmp_path / "dose.dcm",
        blank,
        GridFrameOffsetVector=[-4.0 * number for number in range(6)],
        ImagePositionPatient=[-12, -22, 48],
        PixelData=stored_dose()[::-1].tobytes(),
    )
    dose = read_dose(path)
    np.testing.assert_allclose(dose.affine[:3, 3], [-12, -22, 28])
    np.testing.assert_allclose(dose.values, stored_dose() * SCALING)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"DoseUnits": "RELATIVE"}, r"DoseUnits \(3004,0002\) is RELATIVE"),
        ({"DoseType": "ERROR"}, r"DoseType \(3004,0004\) is ERROR"),
        ({"DoseSummationType": "BEAM"}, r"DoseSummationType .* is BEAM.*any_summation=True"),
        ({"DoseGridScaling": None}, r"DoseGridScaling \(3004,000E\) is missing"),
        ({"DoseGridScaling": 0}, r"DoseGridScaling \(3004,000E\) is not above 0"),
        ({"GridFrameOffsetVector": None}, r"has 0 offsets for 6 planes"),
        ({"GridFrameOffsetVector": [0, 4, 8, 12, 16, 21]}, r"not evenly spaced"),
        ({"GridFrameOffsetVector": [5, 9, 13, 17, 21, 25]}, r"begins neither with 0 nor with the z"),
        ({"PixelData": b"\0" * 100}, r"pixel data are truncated: 100 bytes of 1512"),
        ({"ImagePositionPatient": None}, r"ImagePositionPatient \(0020,0032\) is missing"),
    ],
)
def test_a_dose_that_is_not_certain_is_refused(
    tmp_path: Path, blank: Blank, elements: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        read_dose(write_dose(tmp_path / "dose.dcm", blank, **elements))


def test_a_part_of_a_plan_is_read_when_asked_and_said(tmp_path: Path, blank: Blank) -> None:
    path = write_dose(tmp_path / "dose.dcm", blank, DoseSummationType="FRACTION")
    assert "that of a fraction" in read_dose(path, any_summation=True).notes[0]


def test_dose_and_image_must_share_a_frame_of_reference(
    tmp_path: Path, blank: Blank, image: Volume, region: Region
) -> None:
    dose = read_dose(write_dose(tmp_path / "dose.dcm", blank, FrameOfReferenceUID="1.2.3"))
    with pytest.raises(ImageError, match=r"frame of reference 1\.2\.3"):
        region_dose(dose, region, image)


def test_the_region_must_be_on_the_grid_of_the_image(
    tmp_path: Path, blank: Blank, image: Volume, region: Region
) -> None:
    dose = read_dose(write_dose(tmp_path / "dose.dcm", blank))
    moved = image.affine.copy()
    moved[0, 3] += 5
    with pytest.raises(ImageError, match="not on the grid of the image"):
        region_dose(dose, replace(region, affine=moved), image)


def test_a_region_beyond_the_grid_is_refused_or_counted(
    tmp_path: Path, blank: Blank, image: Volume, region: Region
) -> None:
    dose = read_dose(write_dose(tmp_path / "dose.dcm", blank, ImagePositionPatient=[-5, -22, 28]))
    with pytest.raises(ImageError, match=r"of it lies beyond the dose grid.*outside='zero'"):
        region_dose(dose, region, image)
    found = region_dose(dose, region, image, outside="zero")
    x = np.nonzero(region.mask)[2]
    beyond = np.count_nonzero(-10 + 1.25 * x < -5)
    assert found.share_outside == pytest.approx(beyond / len(x))
    assert np.count_nonzero(found.doses_gy == 0) == beyond
    far = read_dose(write_dose(tmp_path / "far.dcm", blank, ImagePositionPatient=[500, -22, 28]))
    with pytest.raises(ImageError, match="wholly beyond"):
        region_dose(far, region, image, outside="zero")


def test_points_of_the_histogram() -> None:
    doses = np.array([10.0, 20, 30, 40, 50, 60, 70, 80, 90, 100])[::-1]
    found = DoseVolume(doses, 0.5)
    assert (found.min_gy, found.mean_gy, found.max_gy) == (10, 55, 100)
    assert found.dose_to_share(100) == 10
    assert found.dose_to_share(95) == 10
    assert found.dose_to_share(90) == 20
    assert found.dose_to_share(50) == 60
    assert found.dose_to_share(2) == 100
    assert found.dose_to_volume(1.0) == 90
    assert found.dose_to_volume(5.0) == 10
    assert found.share_above(20) == 90
    assert found.share_above(20.5) == 80
    assert found.share_above(0) == 100
    # Dx and Vx are each other's inverse: at least x % receive Dx.
    for percent in (1, 5, 33, 50, 77, 95, 100):
        assert found.share_above(found.dose_to_share(percent)) >= percent
    assert found.equivalent_uniform_gy(1) == pytest.approx(55)
    assert found.equivalent_uniform_gy(8) == pytest.approx(np.mean(doses**8) ** (1 / 8))
    assert found.equivalent_uniform_gy(-10) == pytest.approx(np.mean(doses**-10.0) ** (-1 / 10))
    assert found.equivalent_uniform_gy(500) == pytest.approx(100, rel=0.01)
    assert found.equivalent_uniform_gy(-500) == pytest.approx(10, rel=0.01)
    assert DoseVolume(np.array([5.0, 0.0]), 1).equivalent_uniform_gy(-5) == 0
    for wrong in (
        lambda: found.dose_to_share(0),
        lambda: found.dose_to_volume(6),
        lambda: found.equivalent_uniform_gy(0),
    ):
        with pytest.raises(ImageError):
            wrong()
