"""NIfTI and NRRD files, images and masks, against SimpleITK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK

from theracast_data.dicom.nifti import read_nifti
from theracast_data.dicom.nrrd_file import read_nrrd
from theracast_data.dicom.regions import read_mask
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.volume import Volume

Make = Callable[..., list[Path]]
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def demo(values: np.ndarray | None = None) -> SimpleITK.Image:
    """Return an oblique image in SimpleITK, which counts in LPS too."""
    stored = np.random.default_rng(1).integers(-1000, 1000, (4, 5, 6)).astype(np.int16) if values is None else values
    image = SimpleITK.GetImageFromArray(stored)
    image.SetSpacing((1.25, 1.5, 2.5))
    image.SetOrigin((-10, -20, 30))
    row, column = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    image.SetDirection(np.column_stack([row, column, np.cross(row, column)]).ravel().tolist())
    return image


@pytest.mark.parametrize("name", ["image.nii.gz", "image.nii", "image.nrrd"])
def test_a_file_is_read_as_simpleitk_wrote_it(tmp_path: Path, name: str) -> None:
    image = demo()
    SimpleITK.WriteImage(image, str(tmp_path / name))
    volume = read_nrrd(tmp_path / name) if name.endswith("nrrd") else read_nifti(tmp_path / name)
    np.testing.assert_array_equal(volume.values, SimpleITK.GetArrayFromImage(image))
    assert volume.values.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((2.5, 1.5, 1.25))
    for index in [(0, 0, 0), (5, 4, 3), (1, 2, 3)]:
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], expected, atol=1e-4)


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return image


def test_faulty_nifti_files_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 99, (5, 6, 7)).astype(np.int16)
    path = tmp_path / "image.nii.gz"
    sheared = np.eye(4)
    sheared[0, 2] = 0.3
    image = nib.Nifti1Image(values, None)
    image.set_sform(sheared, 1)
    nib.save(image, path)
    with pytest.raises(ImageError, match=r"sheared.*gantry tilt"):
        read_nifti(path)
    image = save(path, values, np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 5
    image.set_sform(np.eye(4), 1)
    image.set_qform(moved, 1)
    nib.save(image, path)
    with pytest.raises(ImageError, match="sform and qform contradict"):
        read_nifti(path)
    image.set_sform(np.eye(4), 0)
    image.set_qform(np.eye(4), 0)
    nib.save(image, path)
    with pytest.raises(ImageError, match="no orientation"):
        read_nifti(path)
    image = save(path, np.stack([values, values], axis=3), np.eye(4))
    with pytest.raises(ImageError, match=r"holds 2 volumes.*time_point"):
        read_nifti(path)
    assert read_nifti(path, time_point=1).shape == (7, 6, 5)
    save(path, values, np.eye(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_nifti(path)
    path.write_bytes(b"no image at all")
    with pytest.raises(ImageError, match="no NIfTI image"):
        read_nifti(path)
    with pytest.raises(ImageError, match="no such file"):
        read_nifti(tmp_path / "absent.nii")


def test_an_affine_beyond_any_scanner_is_refused(tmp_path: Path, image: Volume) -> None:
    far = image.affine.copy()
    far[0, 3] = 1e30
    write_mask(tmp_path / "far.nii.gz", np.ones(image.shape), far)
    with pytest.raises(ImageError, match="no 4 x 4 matrix of lengths in mm"):
        read_mask(tmp_path / "far.nii.gz", image)


def test_faulty_nrrd_files_are_refused(tmp_path: Path) -> None:
    values = np.zeros((5, 6, 7), dtype=np.int16)
    path = tmp_path / "image.nrrd"
    nrrd.write(str(path), values)
    with pytest.raises(ImageError, match="names no space"):
        read_nrrd(path)
    sheared = [[1, 0, 0], [0, 1, 0], [0.3, 0, 1]]
    nrrd.write(str(path), values, {"space": "LPS", "space directions": sheared, "space origin": [0, 0, 0]})
    with pytest.raises(ImageError, match="sheared"):
        read_nrrd(path)
    nrrd.write(str(path), values, {"space": "RAS", "space directions": np.eye(3), "space origin": [1, 2, 3]})
    np.testing.assert_array_equal(read_nrrd(path).affine[:3, 3], [-1, -2, 3])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_nrrd(path)


@pytest.fixture
def image(tmp_path: Path, make_series: Make) -> Volume:
    make_series(tmp_path / "ct", orientation=OBLIQUE, origin=(-10.0, -20.0, 30.0))
    return read_series(tmp_path / "ct")


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """Write a mask (z, y, x) with an affine in LPS."""
    save(path, mask.transpose(2, 1, 0).astype(np.uint8), np.diag([-1, -1, 1, 1]) @ affine)


def test_a_mask_is_matched_by_its_affine_never_by_the_order_of_its_array(tmp_path: Path, image: Volume) -> None:
    mask = np.random.default_rng(6).random(image.shape) < 0.3
    write_mask(tmp_path / "mask.nii.gz", mask, image.affine)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", image).mask, mask)
    # The same voxels with the columns counted backwards, and with rows and slices exchanged.
    flipped = image.affine @ np.array([[-1, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_mask(tmp_path / "flipped.nii.gz", mask[:, :, ::-1], flipped)
    np.testing.assert_array_equal(read_mask(tmp_path / "flipped.nii.gz", image).mask, mask)
    exchanged = image.affine[:, [0, 2, 1, 3]]
    write_mask(tmp_path / "exchanged.nii.gz", mask.transpose(1, 0, 2), exchanged)
    region = read_mask(tmp_path / "exchanged.nii.gz", image)
    np.testing.assert_array_equal(region.mask, mask)
    assert region.notes == ()


def test_part_of_a_mask_outside_is_noted_and_another_grid_is_refused(tmp_path: Path, image: Volume) -> None:
    moved = image.affine.copy()
    moved[:3, 3] += 3 * image.affine[:3, 0]
    write_mask(tmp_path / "moved.nii.gz", np.ones(image.shape), moved)
    region = read_mask(tmp_path / "moved.nii.gz", image)
    assert region.share_outside == pytest.approx(0.3)
    assert region.mask[:, :, 3:].all()
    assert not region.mask[:, :, :3].any()
    moved[:3, 3] += 20 * image.affine[:3, 0]
    write_mask(tmp_path / "far.nii.gz", np.ones(image.shape), moved)
    with pytest.raises(ImageError, match="wholly outside"):
        read_mask(tmp_path / "far.nii.gz", image)
    half = image.affine.copy()
    half[:3, 3] += 0.4 * image.affine[:3, 0]
    write_mask(tmp_path / "half.nii.gz", np.ones(image.shape), half)
    with pytest.raises(ImageError, match=r"another grid.*resample=True"):
        read_mask(tmp_path / "half.nii.gz", image)
    assert read_mask(tmp_path / "half.nii.gz", image, resample=True).mask.all()


def test_labels_are_chosen_and_named(tmp_path: Path, image: Volume) -> None:
    labels = np.zeros(image.shape)
    labels[2, 2:4], labels[3, 1] = 1, 2
    write_mask(tmp_path / "labels.nii.gz", labels, image.affine)
    with pytest.raises(ImageError, match=r"2 labels \(1, 2\).*label"):
        read_mask(tmp_path / "labels.nii.gz", image)
    np.testing.assert_array_equal(read_mask(tmp_path / "labels.nii.gz", image, label=2).mask, labels == 2)
    with pytest.raises(ImageError, match="no voxel has the label 7"):
        read_mask(tmp_path / "labels.nii.gz", image, label=7)
    header = {"space": "LPS", "space directions": image.affine[:3, :3].T, "space origin": image.affine[:3, 3],
        "Segment0_Name": "tumour", "Segment0_LabelValue": "2"}  # fmt: skip
    nrrd.write(str(tmp_path / "m.seg.nrrd"), labels.transpose(2, 1, 0).astype(np.uint8), header)
    region = read_mask(tmp_path / "m.seg.nrrd", image, label=2)
    assert region.name == "tumour"
    np.testing.assert_array_equal(region.mask, labels == 2)
    save(tmp_path / "share.nii.gz", np.full((5, 5, 5), 0.4, dtype=np.float32), np.eye(4))
    with pytest.raises(ImageError, match="no whole numbers"):
        read_mask(tmp_path / "share.nii.gz", image)


@pytest.mark.parametrize("name", ["brain1", "breast1"])
def test_real_nrrd_cases_are_as_simpleitk_reads_them(shared_images: Path, name: str) -> None:
    path = shared_images / "pyradiomics_cases" / f"{name}_image.nrrd"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    volume, image = read_nrrd(path), SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(volume.values, SimpleITK.GetArrayFromImage(image))
    last = [size - 1 for size in image.GetSize()]
    np.testing.assert_allclose((volume.affine @ [*last, 1])[:3], image.TransformIndexToPhysicalPoint(last), atol=1e-3)
    region = read_mask(path.with_name(f"{name}_label.nrrd"), volume)
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path.with_name(f"{name}_label.nrrd"))))
    np.testing.assert_array_equal(region.mask, theirs != 0)
