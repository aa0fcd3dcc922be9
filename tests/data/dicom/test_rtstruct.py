"""Contours to masks: holes, islands, references, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Outline
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.nifti import read_nifti
from theracast_data.dicom.regions import read_mask, read_region
from theracast_data.dicom.rtstruct import read_rtstruct, rtstruct_names
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.volume import Volume

Make = Callable[..., list[Path]]
Blank = Callable[..., FileDataset]
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
SQUARE = [(1, 1), (7, 1), (7, 6), (1, 6)]
HOLE = [(3, 2), (5, 2), (5, 4), (3, 4)]


@pytest.fixture
def image(tmp_path: Path, make_series: Make) -> Volume:
    make_series(tmp_path / "ct", orientation=OBLIQUE)
    return read_series(tmp_path / "ct")


def write_struct(
    path: Path,
    blank: Blank,
    volume: Volume,
    contours: list[tuple[float, list[tuple[float, float]]]],
    *,
    kind: str = "CLOSED_PLANAR",
    frame: str | None = None,
    series: str | None = None,
    name: str = "GTV",
) -> Path:
    """Write a structure set of one region, contours as (slice, corners in (column, row) voxels)."""
    dataset = blank("RTSTRUCT", "struct", series="struct")
    region, holder, observed = Dataset(), Dataset(), Dataset()
    region.ROINumber, region.ROIName = 4, name
    region.ReferencedFrameOfReferenceUID = frame or volume.frame_of_reference
    items = []
    for plane, corners in contours:
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = kind, len(corners)
        places = np.array([volume.affine @ [column, row, plane, 1] for column, row in corners])[:, :3]
        item.ContourData = [f"{number:.8g}" for number in places.ravel()]
        items.append(item)
    holder.ReferencedROINumber, holder.ContourSequence = 4, items
    observed.SeriesInstanceUID = series or volume.series_uid
    study, reference = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = [observed]
    reference.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [reference]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [region], [holder]
    dataset.save_as(path, enforce_file_format=True)
    return path


def expected_square(volume: Volume) -> np.ndarray:
    row, column = np.mgrid[0:8, 0:10]
    return np.asarray((column >= 1) & (column < 7) & (row >= 1) & (row < 6))


def test_a_square_owns_its_lower_edges_on_an_oblique_stack(tmp_path: Path, blank: Blank, image: Volume) -> None:
    region = read_rtstruct(write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE), (3, SQUARE)]), "GTV", image)
    assert region.mask.sum() == 60
    np.testing.assert_array_equal(region.mask[2], expected_square(image))
    np.testing.assert_array_equal(region.mask[3], expected_square(image))
    assert region.volume_ml == pytest.approx(60 * 2.5 * 1.5 * 1.25 / 1000)
    assert region.notes == ()


def test_holes_and_islands(tmp_path: Path, blank: Blank, image: Volume) -> None:
    island = [(3.6, 2.6), (4.4, 2.6), (4.4, 3.4), (3.6, 3.4)]
    apart = [(8, 6), (9, 6), (9, 7), (8, 7)]
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, one) for one in (HOLE, SQUARE, island, apart)])
    mask = read_rtstruct(path, "GTV", image).mask[2]
    assert mask.sum() == 30 - 4 + 1 + 1
    assert not mask[2, 3]
    assert mask[3, 4]
    assert mask[6, 8]


def test_a_contour_that_is_there_twice_does_not_cut_itself_out(tmp_path: Path, blank: Blank, image: Volume) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE), (2, SQUARE)])
    region = read_rtstruct(path, "GTV", image)
    assert region.mask.sum() == 30
    assert region.notes == ("1 contours were there twice and were taken once",)


def test_contours_too_small_to_enclose_anything_are_left_out_and_said(
    tmp_path: Path, blank: Blank, image: Volume
) -> None:
    region = read_rtstruct(
        write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE), (3, SQUARE[:2]), (4, SQUARE[:1])]), "GTV", image
    )
    assert region.mask.sum() == 30
    assert region.notes == ("2 contours of one or two corners enclose nothing and were left out",)
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(3, SQUARE[:2])])
    with pytest.raises(ImageError, match="no closed contour, only 1 of one or two corners"):
        read_rtstruct(path, "GTV", image)


def test_partly_overlapping_contours_are_refused_until_their_meaning_is_said(
    tmp_path: Path, blank: Blank, image: Volume
) -> None:
    moved = [(column + 3, row) for column, row in SQUARE]
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE), (2, moved)])
    with pytest.raises(ImageError, match=r"contours 1 and 2 of one slice overlap in part.*overlap='union'"):
        read_rtstruct(path, "GTV", image)
    assert read_rtstruct(path, "GTV", image, overlap="union").mask.sum() == 45
    taken = read_rtstruct(path, "GTV", image, overlap="xor")
    assert taken.mask.sum() == 30
    assert taken.notes == ("1 pairs of contours overlap in part; taken as xor",)


def test_contours_between_slices_are_refused_or_resampled_and_said(tmp_path: Path, blank: Blank, image: Volume) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(one, SQUARE) for one in (1.0, 1.5, 2.0, 2.5, 3.0)])
    with pytest.raises(ImageError, match=r"2 of 5 contours lie between slices.*off_grid='resample'"):
        read_rtstruct(path, "GTV", image)
    region = read_rtstruct(path, "GTV", image, off_grid="resample")
    assert region.mask.any(axis=(1, 2)).tolist() == [False, True, True, True, False, False]
    assert "contours of 5 planes 1.25 mm apart were resampled to" in region.notes[0]


def test_contours_on_every_second_slice_are_refused_or_resampled(tmp_path: Path, blank: Blank, image: Volume) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(one, SQUARE) for one in (0, 2, 4)])
    with pytest.raises(ImageError, match=r"every 2\. slice only"):
        read_rtstruct(path, "GTV", image)
    # Three planes two slices apart reach from slice -1 to below slice 5.
    region = read_rtstruct(path, "GTV", image, off_grid="resample")
    assert region.mask.any(axis=(1, 2)).tolist() == [True] * 5 + [False]
    assert region.share_outside == pytest.approx(1 / 6)
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(one, SQUARE) for one in (0, 1, 4)])
    assert read_rtstruct(path, "GTV", image).notes == ("no contour is on 2 slices between those with contours",)


def test_the_share_outside_of_the_image_is_noted_and_all_of_it_is_an_error(
    tmp_path: Path, blank: Blank, image: Volume
) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(5, SQUARE), (6, SQUARE)])
    region = read_rtstruct(path, "GTV", image)
    assert region.share_outside == 0.5
    assert region.notes == ("50.00% of the region lies outside of the image",)
    sideways = [(column - 3, row) for column, row in SQUARE]
    region = read_rtstruct(write_struct(tmp_path / "rs.dcm", blank, image, [(2, sideways)]), "GTV", image)
    assert region.mask.sum() == 20
    assert region.share_outside == pytest.approx(1 / 3)
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(9, SQUARE)])
    with pytest.raises(ImageError, match="wholly outside of the image"):
        read_rtstruct(path, "GTV", image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame": "1.2.3"}, r"frame of reference 1\.2\.3, the image in"),
        ({"series": "1.2.3"}, r"drawn on the series 1\.2\.3, not on the image's.*other_series=True"),
        ({"kind": "POINT"}, r"no closed contour, only 1 POINT"),
        ({"name": "PTV"}, r"no region is named 'GTV'; there are 'PTV'"),
    ],
)
def test_what_does_not_belong_is_refused(
    tmp_path: Path, blank: Blank, image: Volume, options: dict[str, Any], message: str
) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE)], **options)
    with pytest.raises(ImageError, match=message):
        read_rtstruct(path, "GTV", image)


def test_another_series_in_the_same_frame_is_accepted_when_said(tmp_path: Path, blank: Blank, image: Volume) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE)], series="1.2.3")
    region = read_rtstruct(path, "GTV", image, other_series=True)
    assert region.notes == ("the contours were drawn on another series in the same frame of reference",)


def test_damaged_contours_are_refused(tmp_path: Path, blank: Blank, image: Volume) -> None:
    path = write_struct(tmp_path / "rs.dcm", blank, image, [(2, SQUARE)])
    dataset = pydicom.dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    whole = list(contour.ContourData)
    for numbers, message in [
        (whole[:-1], "is not corners of three coordinates"),
        (whole[:-3], "3 corners, NumberOfContourPoints says 4"),
        ([*whole[:-1], float(whole[-1]) + 5], "lie in no slice"),
    ]:
        contour.ContourData = numbers
        dataset.save_as(path)
        with pytest.raises(ImageError, match=message):
            read_rtstruct(path, "GTV", image)


@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
@pytest.mark.parametrize("kind", ["CT", "PET", "MR_T1"])
def test_real_tumours_have_the_volume_of_their_contours(shared_images: Path, patient: str, kind: str) -> None:
    folder = shared_images / "sts" / patient / kind
    volume = read_series(folder / "image")
    path = folder / "mask" / "RS.dcm"
    region = read_region(path, rtstruct_names(path)[0], volume)
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    slow = np.zeros(volume.shape, dtype=bool)
    row, column = np.mgrid[0 : volume.shape[1], 0 : volume.shape[2]]
    centres = np.column_stack([column.ravel(), row.ravel()])
    millilitres = 0.0
    for contour in contours:
        corners = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        x, y = corners[:, 0], corners[:, 1]  # these stacks are axial
        millilitres += abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2 * volume.spacing_mm[0] / 1000
        index = (np.column_stack([corners, np.ones(len(corners))]) @ np.linalg.inv(volume.affine).T)[:, :3]
        plane = round(float(index[0, 2]))
        slow[plane] ^= Outline(np.round(index[:, :2], 6)).contains_points(centres).reshape(volume.shape[1:])
    assert region.volume_ml == pytest.approx(millilitres, rel=0.02)
    # matplotlib has no rule for a centre on an edge; everything else must agree voxel for voxel.
    assert np.count_nonzero(region.mask ^ slow) == 0


def test_the_ibsi_phantom_has_the_mask_that_ibsi_made_of_its_contours(shared_images: Path) -> None:
    folder = shared_images / "ibsi_1_ct_radiomics_phantom"
    volume = read_series(folder / "dicom" / "image")
    theirs = read_nifti(folder / "nifti" / "image" / "phantom.nii.gz")
    np.testing.assert_allclose(theirs.affine, volume.affine, atol=1e-4)
    np.testing.assert_array_equal(theirs.values, volume.values)
    region = read_region(folder / "dicom" / "mask" / "DCM_RS_00060.dcm", "GTV-1", volume)
    np.testing.assert_array_equal(region.mask, read_mask(folder / "nifti" / "mask" / "mask.nii.gz", volume).mask)
