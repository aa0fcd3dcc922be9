"""DICOM segmentations, written by highdicom, on the grid of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.sr.codedict import codes

from theracast_data.dicom.regions import read_region
from theracast_data.dicom.segmentation import read_segmentation, segment_names
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.volume import Volume

Make = Callable[..., list[Path]]


@pytest.fixture
def files(tmp_path: Path, make_series: Make) -> list[Path]:
    return make_series(tmp_path / "ct", orientation=(0.8, 0.6, 0.0, -0.36, 0.48, 0.8), StudyID="1", SeriesNumber=1,
        PatientBirthDate="", AccessionNumber="", ReferringPhysicianName="", PositionReferenceIndicator="")  # fmt: skip


@pytest.fixture
def image(files: list[Path]) -> Volume:
    return read_series(files)


def masks() -> np.ndarray:
    """Two segments, (z, y, x, segment)."""
    rng = np.random.default_rng(3)
    both = rng.random((6, 8, 10, 2)) < 0.3
    both[0, :, :, 0] = False  # an empty frame, which is left out of the file
    return both


def write_seg(
    path: Path,
    files: list[Path],
    pixels: np.ndarray,
    *,
    kind: str = "BINARY",
    syntax: str = uids.ExplicitVRLittleEndian,
    **options: Any,
) -> Path:
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in ((1, "tumour"), (2, "node"))
    ]
    seg = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(one) for one in files],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
        **options,
    )
    seg.save_as(path)
    return path


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("BINARY", uids.ExplicitVRLittleEndian),
        ("FRACTIONAL", uids.ExplicitVRLittleEndian),
        ("FRACTIONAL", uids.RLELossless),
    ],
)
def test_segments_come_back_as_written(
    tmp_path: Path, files: list[Path], image: Volume, kind: str, syntax: str
) -> None:
    both = masks()
    pixels = both.astype(np.uint8) if kind == "BINARY" else both.astype(np.float32)
    path = write_seg(tmp_path / "seg.dcm", files, pixels, kind=kind, syntax=syntax)
    assert segment_names(path) == {1: "tumour", 2: "node"}
    for number, name in ((1, "tumour"), (2, "node")):
        for asked in (number, name):
            region = read_segmentation(path, asked, image)
            np.testing.assert_array_equal(region.mask, both[..., number - 1])
            assert region.name == name
    np.testing.assert_array_equal(read_region(path, "node", image).mask, both[..., 1])


def test_frames_may_stand_in_any_order_and_the_image_too(tmp_path: Path, files: list[Path], image: Volume) -> None:
    both = masks()
    path = write_seg(tmp_path / "seg.dcm", files, both.astype(np.float32), kind="FRACTIONAL")
    dataset = pydicom.dcmread(path)
    order = np.random.default_rng(1).permutation(dataset.NumberOfFrames)
    pixels = dataset.pixel_array
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[one] for one in order]
    dataset.PixelData = pixels[order].tobytes()
    dataset.save_as(path)
    np.testing.assert_array_equal(read_segmentation(path, 1, image).mask, both[..., 0])


def test_frames_are_placed_whatever_their_orientation_and_size(
    tmp_path: Path, files: list[Path], image: Volume
) -> None:
    """The same voxels as an image of sagittal slices, as one turned in its plane, and as a part of the image."""
    both = masks()
    path = write_seg(tmp_path / "seg.dcm", files, both.astype(np.uint8))
    sagittal = replace(image, values=image.values.transpose(2, 0, 1).copy(), affine=image.affine[:, [1, 2, 0, 3]])
    np.testing.assert_array_equal(read_segmentation(path, 1, sagittal).mask, both[..., 0].transpose(2, 0, 1))
    turned = image.affine @ np.array([[-1, 0, 0, 9], [0, -1, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    upside = replace(image, values=image.values[:, ::-1, ::-1].copy(), affine=turned)
    np.testing.assert_array_equal(read_segmentation(path, 2, upside).mask, both[:, ::-1, ::-1, 1])
    shifted = image.affine.copy()
    shifted[:3, 3] = (image.affine @ [2, 3, 1, 1])[:3]
    part = replace(image, values=image.values[1:5, 3:7, 2:].copy(), affine=shifted)
    region = read_segmentation(path, 1, part)
    kept = both[1:5, 3:7, 2:, 0]
    np.testing.assert_array_equal(region.mask, kept)
    assert region.share_outside == pytest.approx(1 - kept.sum() / both[..., 0].sum())
    shifted[:3, 3] = (image.affine @ [30, 0, 0, 1])[:3]
    with pytest.raises(ImageError, match="wholly outside of the image"):
        read_segmentation(path, 1, replace(image, affine=shifted))


def test_padding_in_a_region_and_another_patient_are_noted(tmp_path: Path, files: list[Path], image: Volume) -> None:
    both = masks()
    path = write_seg(tmp_path / "seg.dcm", files, both.astype(np.uint8))
    values = image.values.copy()
    values[2] = np.nan
    region = read_segmentation(path, 1, replace(image, values=values, subject_id="P2"))
    assert region.notes == (
        "the file names the patient 'P1', the image 'P2'",
        f"{both[2, ..., 0].sum()} of {both[..., 0].sum()} voxels of the region are padding of the image",
    )


def test_a_fraction_has_a_threshold_and_it_is_said(tmp_path: Path, files: list[Path], image: Volume) -> None:
    share = np.random.default_rng(8).random((6, 8, 10, 2)).astype(np.float32)
    path = write_seg(tmp_path / "seg.dcm", files, share, kind="FRACTIONAL", max_fractional_value=200)
    region = read_segmentation(path, 1, image, threshold=0.7)
    np.testing.assert_array_equal(region.mask, np.around(share[..., 0] * 200) >= 140)
    assert "of at least 0.7 belong to the region" in region.notes[0]
    with pytest.raises(ImageError, match="it is a share above 0"):
        read_segmentation(path, 1, image, threshold=2)


def test_a_labelmap_is_read_by_the_number_of_the_segment(tmp_path: Path, files: list[Path], image: Volume) -> None:
    labels = np.random.default_rng(8).integers(0, 3, (6, 8, 10)).astype(np.uint8)
    path = write_seg(tmp_path / "seg.dcm", files, labels, kind="LABELMAP")
    for number in (1, 2):
        np.testing.assert_array_equal(read_segmentation(path, number, image).mask, labels == number)


def test_what_does_not_belong_is_refused(tmp_path: Path, files: list[Path], image: Volume) -> None:
    path = write_seg(tmp_path / "seg.dcm", files, masks().astype(np.uint8))
    with pytest.raises(ImageError, match="no segment is 'lung'; there are 1 'tumour', 2 'node'"):
        read_segmentation(path, "lung", image)
    dataset = pydicom.dcmread(path)
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "frame.dcm")
    with pytest.raises(ImageError, match=r"frame of reference 1\.2\.3"):
        read_segmentation(tmp_path / "frame.dcm", 1, image)
    dataset = pydicom.dcmread(path)
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    dataset.save_as(tmp_path / "series.dcm")
    with pytest.raises(ImageError, match=r"made on the series 1\.2\.3"):
        read_segmentation(tmp_path / "series.dcm", 1, image)
    assert read_segmentation(tmp_path / "series.dcm", 1, image, other_series=True).mask.any()
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[:-10]
    dataset.save_as(tmp_path / "short.dcm")
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_segmentation(tmp_path / "short.dcm", 1, image)
    with pytest.raises(ImageError, match="no DICOM segmentation"):
        read_segmentation(files[0], 1, image)


def test_two_frames_at_one_place_are_refused(tmp_path: Path, files: list[Path], image: Volume) -> None:
    path = write_seg(tmp_path / "seg.dcm", files, masks().astype(np.uint8))
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(ImageError, match="lies where another does"):
        read_segmentation(path, 1, image)


def test_another_grid_is_resampled_only_when_asked(tmp_path: Path, files: list[Path], make_series: Make) -> None:
    block = np.zeros((6, 8, 10, 2), dtype=np.uint8)
    block[1:4, 2:6, 3:8, 0] = 1
    block[..., 1] = 1
    path = write_seg(tmp_path / "seg.dcm", files, block)
    fine = make_series(tmp_path / "fine", orientation=(0.8, 0.6, 0.0, -0.36, 0.48, 0.8), spacing=(1.25, 0.75, 0.625),
        values=np.zeros((12, 16, 20), dtype=np.uint16))  # fmt: skip
    volume = read_series(fine)
    with pytest.raises(ImageError, match=r"another grid than the image.*resample=True"):
        read_segmentation(path, 1, volume)
    region = read_segmentation(path, 1, volume, resample=True)
    # The centre of fine voxel i lies at i / 2: halves go up, so that coarse voxel k takes 2 k - 1 and 2 k.
    coarse = np.floor(np.arange(24) / 2 + 0.5).astype(int)
    padded = np.pad(block[..., 0], 3)[3:, 3:, 3:]
    expected = padded[np.ix_(coarse[:12], coarse[:16], coarse[:20])]
    np.testing.assert_array_equal(region.mask, expected.astype(bool))
    assert "resampled from another grid" in region.notes[-1]


def test_the_breast_segmentation_is_as_highdicom_reads_it(shared_images: Path) -> None:
    folder = shared_images / "dicom_seg" / "UCSF-BR-06"
    volume = read_series(folder / "image_dce_ser")
    region = read_segmentation(folder / "mask" / "1-1.dcm", "Breast", volume)
    dataset = pydicom.dcmread(folder / "mask" / "1-1.dcm")
    expected = np.zeros(volume.shape, dtype=bool)
    back = np.linalg.inv(volume.affine)
    for frame, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        place = back @ [*map(float, frame.PlanePositionSequence[0].ImagePositionPatient), 1]
        expected[round(place[2])] = pixels > 127
    np.testing.assert_array_equal(region.mask, expected)
    assert 20 < region.volume_ml < 500
    assert "names no series" in region.notes[0]
