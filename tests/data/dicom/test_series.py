"""Series to volumes: what is read is exact, and everything else is refused with its own message."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.series import as_datetime, group_series, read_series
from theracast_data.errors import ImageError

Make = Callable[..., list[Path]]
Change = Callable[..., None]
Compress = Callable[[Path, uids.UID], None]
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def stored(files: list[Path]) -> np.ndarray:
    return np.stack([pydicom.dcmread(path).pixel_array for path in files])


def test_values_and_geometry_are_those_written(tmp_path: Path, make_series: Make) -> None:
    files = make_series(tmp_path / "ct", orientation=OBLIQUE)
    volume = read_series(tmp_path / "ct")
    np.testing.assert_array_equal(volume.values, stored(files) - 1024.0)
    assert volume.values.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((2.5, 1.5, 1.25))
    row, column = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    expected = np.array([-10, -20, 30]) + 9 * 1.25 * row + 7 * 1.5 * column + 5 * 2.5 * np.cross(row, column)
    np.testing.assert_allclose((volume.affine @ [9, 7, 5, 1])[:3], expected, atol=1e-5)
    assert (volume.modality, volume.unit, volume.subject_id) == ("CT", "HU", "P1")
    assert volume.acquired == pd.Timestamp("2020-01-02 10:15")
    assert (volume.batch.kernel, volume.batch.slice_thickness_mm) == ("SOFT", 2.5)


def test_every_encoding_gives_the_same_values(tmp_path: Path, make_series: Make) -> None:
    values = np.random.default_rng(4).integers(-2048, 2048, (4, 6, 7)).astype(np.int16)
    for number, syntax in enumerate(
        [
            uids.ImplicitVRLittleEndian,
            uids.ExplicitVRLittleEndian,
            uids.ExplicitVRBigEndian,
            uids.DeflatedExplicitVRLittleEndian,
        ]
    ):
        make_series(tmp_path / str(number), values=values, signed=True, bits=16, syntax=syntax, intercept=0.0)
        volume = read_series(tmp_path / str(number))
        np.testing.assert_array_equal(volume.values, values)


@pytest.mark.parametrize(
    "syntax",
    [uids.RLELossless, uids.JPEGLSLossless, uids.JPEG2000Lossless, uids.JPEGLosslessSV1],
    ids=lambda one: one.name,
)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression_gives_the_same_values(
    tmp_path: Path, make_series: Make, compress: Compress, signed: bool, syntax: uids.UID
) -> None:
    low, high = (-2048, 2048) if signed else (0, 4096)
    values = np.random.default_rng(4).integers(low, high, (4, 16, 18)).astype(np.int16 if signed else np.uint16)
    files = make_series(tmp_path / "ct", values=values, signed=signed, bits=16 if signed else 12)
    for path in files:
        compress(path, syntax)
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_series(tmp_path / "ct").values, values - 1024.0)


def test_lossy_compression_is_said(tmp_path: Path, make_series: Make, compress: Compress) -> None:
    values = np.tile(np.arange(0, 128, 4, dtype=np.uint8), (3, 32, 1))
    files = make_series(tmp_path / "ct", values=values, bits=8, intercept=0.0)
    for path in files:
        compress(path, uids.JPEGBaseline8Bit)
    volume = read_series(tmp_path / "ct")
    assert volume.notes == ("the pixels were compressed with loss",)
    assert np.abs(volume.values - values).max() < 12


def test_padding_is_nan_and_an_overlay_in_the_high_bits_is_not_a_value(tmp_path: Path, make_series: Make) -> None:
    values = np.full((3, 4, 5), 100, dtype=np.int16)
    values[:, 0, :] = -2000
    for path in make_series(tmp_path / "a", values=values, signed=True, bits=16, intercept=-24.0):
        change_in_place(path, lambda dataset: dataset.add_new(0x00280120, "US", 63536))  # -2000, under the wrong VR
    volume = read_series(tmp_path / "a")
    assert np.isnan(volume.values[:, 0]).all()
    assert (volume.values[:, 1:] == 76).all()
    assert volume.padded_voxels == 15
    assert volume.filled(-1000).values[0, 0, 0] == -1000
    overlay = np.full((3, 4, 5), 0x8000 | 7, dtype=np.uint16)

    def embedded(dataset: FileDataset) -> None:
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)

    for path in make_series(tmp_path / "b", values=overlay, intercept=0.0):
        change_in_place(path, embedded)
    assert (read_series(tmp_path / "b").values == 7).all()
    make_series(tmp_path / "c", values=overlay)
    with pytest.raises(ImageError, match="pixel values need more than the 12 bits"):
        read_series(tmp_path / "c")


def change_in_place(path: Path, edit: Callable[[FileDataset], None]) -> None:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


def test_pet_slices_have_slopes_of_their_own(tmp_path: Path, make_series: Make, change: Change) -> None:
    files = make_series(tmp_path / "pt", kind="PT", intercept=0.0, slope=0.5)
    for number, path in enumerate(files):
        change(path, RescaleSlope=f"{0.1 * (number + 1):.3f}")
    volume = read_series(tmp_path / "pt")
    assert volume.unit == "Bq/mL"
    assert volume.values.dtype == np.float64
    slopes = 0.1 * np.arange(1, 7)[:, None, None]
    np.testing.assert_allclose(volume.values, stored(files) * slopes, rtol=1e-12)


def test_one_slope_of_pet_that_differs_from_all_others_is_refused(
    tmp_path: Path, make_series: Make, change: Change
) -> None:
    files = make_series(tmp_path / "pt", kind="PT", intercept=0.0, slope=0.5)
    change(files[3], RescaleSlope=0.9)
    with pytest.raises(ImageError, match=rf"RescaleSlope .* same in 5 slices and another in 1 \({files[3].name}\)"):
        read_series(tmp_path / "pt")


def test_a_thinned_series_is_accepted_when_said(tmp_path: Path, make_series: Make, change: Change) -> None:
    every_second(make_series(tmp_path / "ct"), change)
    assert read_series(tmp_path / "ct", partial=True).spacing_mm[0] == pytest.approx(5.0)


# Every way to break a series: (what is done to the files, part of the message).
def drop(number: int) -> Callable[[list[Path], Change], None]:
    return lambda files, change: files[number].unlink()


def set_one(number: int = 2, **elements: object) -> Callable[[list[Path], Change], None]:
    return lambda files, change: change(files[number], **elements)


def move(number: int, by: tuple[float, float, float]) -> Callable[[list[Path], Change], None]:
    def broken(files: list[Path], change: Change) -> None:
        def edit(dataset: FileDataset) -> None:
            dataset.ImagePositionPatient = [a + b for a, b in zip(dataset.ImagePositionPatient, by, strict=True)]

        change(files[number], edit)

    return broken


def sheared(files: list[Path], change: Change) -> None:
    for number in range(len(files)):
        move(number, (0.0, 0.4 * number, 0.0))(files, change)


def twice(files: list[Path], change: Change) -> None:
    shutil.copy(files[2], files[2].with_name("copy.dcm"))


def twice_renamed(files: list[Path], change: Change) -> None:
    twice(files, change)
    change(files[2].with_name("copy.dcm"), SOPInstanceUID="1.2.3.4")


def second_time_point(files: list[Path], change: Change) -> None:
    for number, path in enumerate(files):
        change(path, AcquisitionNumber=1)
        later = path.with_name(f"later{number}.dcm")
        shutil.copy(path, later)
        change(later, SOPInstanceUID=f"1.2.3.{number}", AcquisitionNumber=2)


def cut_pixels(files: list[Path], change: Change) -> None:
    content = files[2].read_bytes()
    files[2].write_bytes(content[:-40])


def short_pixels(files: list[Path], change: Change) -> None:
    change(files[2], lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-20]))


def text_file(files: list[Path], change: Change) -> None:
    files[0].with_name("notes.txt").write_text("a reading list")


def swap_positions(files: list[Path], change: Change) -> None:
    first, second = (pydicom.dcmread(files[number]).ImagePositionPatient for number in (1, 4))
    change(files[1], ImagePositionPatient=second)
    change(files[4], ImagePositionPatient=first)


def every_second(files: list[Path], change: Change) -> None:
    for number, path in enumerate(files):
        if number % 2:
            path.unlink()
        else:
            change(path, SpacingBetweenSlices=2.5)


def colour(files: list[Path], change: Change) -> None:
    change(files[2], SamplesPerPixel=3, PhotometricInterpretation="RGB")


BROKEN: dict[str, tuple[Callable[[list[Path], Change], None], str]] = {
    "missing slice": (drop(2), r"missing slices: 1 of a stack spaced 2.5 mm.*Fetch them"),
    "same file twice": (twice, r"same image \(SOPInstanceUID.*copy.dcm"),
    "position twice": (twice_renamed, r"duplicated slices: two images lie at the same position.*copy.dcm"),
    "two time points": (second_time_point, r"several volumes mixed.*AcquisitionNumber.*2 values.*select="),
    "uneven": (move(2, (0, 0, 0.7)), r"spacing between slices is not uniform"),
    "turned slice": (
        set_one(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        r"slices of another orientation.*Separate the stacks",
    ),
    "sheared": (sheared, r"sheared: it leans by 9.09 degrees.*gantry tilt"),
    "slice moved sideways": (move(3, (4.0, 0, 0)), r"moved sideways.*ImagePositionPatient"),
    "two series": (set_one(SeriesInstanceUID="1.2.3"), r"2 series are mixed.*series_uid"),
    "file cut off": (cut_pixels, r"truncated"),
    "pixels too short": (short_pixels, r"pixel data are truncated: 140 bytes of 160"),
    "mixed slope": (set_one(RescaleSlope=2.0), r"different scales: RescaleSlope \(0028,1053\) differs"),
    "mixed intercept": (set_one(RescaleIntercept=0.0), r"different scales: RescaleIntercept"),
    "slightly mixed intercept": (set_one(RescaleIntercept="-1024.1"), r"different scales: RescaleIntercept"),
    "mixed unit": (set_one(RescaleType="US"), r"different scales: RescaleType"),
    "localiser": (set_one(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), r"localiser images"),
    "other matrix": (set_one(Rows=4, Columns=20), r"Rows \(0028,0010\) differs"),
    "other pixel spacing": (set_one(PixelSpacing=[1.5, 1.3]), r"PixelSpacing \(0028,0030\) differs"),
    "no DICOM": (text_file, r"no DICOM file.*notes.txt.*Move it"),
    "no position": (set_one(ImagePositionPatient=None), r"ImagePositionPatient \(0020,0032\) is missing"),
    "no orientation": (set_one(ImageOrientationPatient=None), r"ImageOrientationPatient \(0020,0037\) is missing"),
    "no pixel spacing": (set_one(PixelSpacing=None), r"PixelSpacing \(0028,0030\) is missing"),
    "no scale": (set_one(RescaleSlope=None), r"RescaleSlope \(0028,1053\) is missing"),
    "no pixels": (set_one(PixelData=None), r"PixelData \(7FE0,0010\) is missing"),
    "two energies": (set_one(KVP=80), r"several acquisitions in one series: KVP.*select=\{'KVP'"),
    "two kernels": (set_one(ConvolutionKernel="BONE"), r"several acquisitions in one series: ConvolutionKernel"),
    "two patients": (set_one(PatientID="P2"), r"images of different origin: PatientID"),
    "two frames of reference": (set_one(FrameOfReferenceUID="1.2"), r"different origin: FrameOfReferenceUID"),
    "signed among unsigned": (set_one(PixelRepresentation=1), r"stored in different ways: PixelRepresentation"),
    "tags swapped": (swap_positions, r"SliceLocation \(0020,1041\) runs against the positions"),
    "every second slice": (every_second, r"2 times SpacingBetweenSlices.*only every 2. slice"),
    "colour": (colour, r"SamplesPerPixel \(0028,0002\) is not 1"),
    "skewed cosines": (set_one(ImageOrientationPatient=[1, 0, 0, 0.1, 1, 0]), r"not two unit vectors at right angles"),
    "no number": (set_one(RescaleSlope=0), r"RescaleSlope \(0028,1053\) is 0"),
    "damaged UID": (
        lambda files, change: [change(path, FrameOfReferenceUID="1.2.826.a.1") for path in files],
        r"FrameOfReferenceUID \(0020,0052\) is no UID",
    ),
    "wrong kind": (set_one(SOPClassUID=uids.SecondaryCaptureImageStorage), r"no CT, MR or PET image"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom says so while the test writes the fault
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_series_is_refused_with_its_own_message(
    tmp_path: Path, make_series: Make, change: Change, name: str
) -> None:
    breaking, message = BROKEN[name]
    files = make_series(tmp_path / "ct")
    breaking(files, change)
    with pytest.raises(ImageError, match=f"(?s){message}"):
        read_series(tmp_path / "ct")


def test_one_slice_is_no_volume_unless_asked(tmp_path: Path, make_series: Make) -> None:
    files = make_series(tmp_path / "ct")
    with pytest.raises(ImageError, match=r"only one slice is here.*single_slice=True"):
        read_series(files[:1])
    assert read_series(files[:1], single_slice=True).shape == (1, 8, 10)


def test_pet_tells_how_many_slices_there_should_be(tmp_path: Path, make_series: Make) -> None:
    files = make_series(tmp_path / "pt", kind="PT", intercept=0.0)
    with pytest.raises(ImageError, match=r"NumberOfSlices \(0054,0081\) tells 6, here are 4.*partial=True"):
        read_series(files[:4])
    assert read_series(files[:4], partial=True).shape == (4, 8, 10)


def test_one_of_two_series_and_one_of_two_time_points_can_be_chosen(
    tmp_path: Path, make_series: Make, change: Change
) -> None:
    first = make_series(tmp_path / "both")
    other = [
        path.rename(path.with_name(f"b{path.name}"))
        for path in make_series(tmp_path / "other", series="b", intercept=0)
    ]
    for path in other:
        shutil.move(path, tmp_path / "both" / path.name)
    groups = group_series(tmp_path / "both")
    assert sorted(len(files) for files in groups.values()) == [6, 6]
    chosen = pydicom.dcmread(first[0]).SeriesInstanceUID
    volume = read_series(tmp_path / "both", series_uid=chosen)
    np.testing.assert_array_equal(volume.values, stored(first) - 1024.0)
    with pytest.raises(ImageError, match=r"no file is of the series 1\.9.*here are"):
        read_series(tmp_path / "both", series_uid="1.9")
    files = make_series(tmp_path / "times", series="c")
    second_time_point(files, change)
    later = read_series(tmp_path / "times", select={"AcquisitionNumber": 2})
    np.testing.assert_array_equal(later.values, stored(files) - 1024.0)
    with pytest.raises(ImageError, match=r"no image has AcquisitionNumber = 3; there is 1, 2"):
        read_series(tmp_path / "times", select={"AcquisitionNumber": 3})


def test_a_numbering_that_begins_anew_with_each_bed_is_no_fault(
    tmp_path: Path, make_series: Make, change: Change
) -> None:
    files = make_series(tmp_path / "pt", kind="PT", intercept=0.0, values=demo((12, 4, 5)), SliceLocation=0)
    for number, path in enumerate(files):
        change(path, InstanceNumber=number // 4 * 4 + 4 - number % 4)  # downwards in each of three beds
    assert read_series(tmp_path / "pt").shape == (12, 4, 5)


def demo(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4096, shape, dtype=np.uint16)


def test_all_faults_come_in_one_error(tmp_path: Path, make_series: Make, change: Change) -> None:
    files = make_series(tmp_path / "ct")
    change(files[1], PixelSpacing=None)
    change(files[2], PixelSpacing=None)
    change(files[4], RescaleSlope=None)
    with pytest.raises(ImageError) as caught:
        read_series(tmp_path / "ct")
    assert "2 faults" in str(caught.value)
    assert f"PixelSpacing (0028,0030) is missing ({files[1].name}, {files[2].name})" in str(caught.value)


def test_times_as_files_write_them() -> None:
    assert as_datetime("20200102101500.250000+0100") == pd.Timestamp("2020-01-02 10:15:00.25")
    assert as_datetime("202001021015") == pd.Timestamp("2020-01-02 10:15")
    assert as_datetime("20201399") is None
    assert as_datetime("soon") is None


def enhanced(folder: Path, blank: Callable[..., FileDataset], *, times: int = 1, stacks: int = 1) -> np.ndarray:
    """Write an enhanced CT of 5 slices a volume, frames in random order, and return its stored values (volume, z, y, x)."""
    values = np.random.default_rng(2).integers(0, 4000, (times * stacks, 5, 6, 7), dtype=np.uint16)
    frames = [(volume, z) for volume in range(times * stacks) for z in range(5)]
    np.random.default_rng(3).shuffle(frames)
    dataset = blank("ECT", "enhanced")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(frames), 6, 7
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    shared, measures, orientation, transform = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, -1000, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [transform]
    dataset.SharedFunctionalGroupsSequence = [shared]
    items = []
    for volume, z in frames:
        item, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [1, 2, 10 + 2.0 * z]
        content.StackID, content.InStackPositionNumber = str(volume // times + 1), z + 1
        content.TemporalPositionIndex = volume % times + 1
        item.PlanePositionSequence, item.FrameContentSequence = [position], [content]
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = items
    dataset.PixelData = np.stack([values[frame] for frame in frames]).tobytes()
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return values


def test_an_enhanced_file_is_read_frame_by_frame(tmp_path: Path, blank: Callable[..., FileDataset]) -> None:
    values = enhanced(tmp_path, blank)
    volume = read_series(tmp_path / "enhanced.dcm")
    np.testing.assert_array_equal(volume.values, values[0] - 1000.0)
    assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.75))
    np.testing.assert_allclose((volume.affine @ [0, 0, 4, 1])[:3], [1, 2, 18])


def test_times_and_stacks_of_an_enhanced_file_are_chosen_never_guessed(
    tmp_path: Path, blank: Callable[..., FileDataset]
) -> None:
    values = enhanced(tmp_path, blank, times=3)
    with pytest.raises(ImageError, match=r"TemporalPositionIndex.*3|select=\{'TemporalPositionIndex'"):
        read_series(tmp_path)
    second = read_series(tmp_path, select={"TemporalPositionIndex": 2})
    np.testing.assert_array_equal(second.values, values[1] - 1000.0)
    values = enhanced(tmp_path, blank, stacks=2)
    with pytest.raises(ImageError, match=r"select=\{'StackID'"):
        read_series(tmp_path)
    np.testing.assert_array_equal(read_series(tmp_path, select={"StackID": "2"}).values, values[1] - 1000.0)


REAL = (
    *(f"sts/{patient}/{kind}/image" for patient in ("STS_008", "STS_025") for kind in ("CT", "PET", "MR_T1")),
    "ibsi_1_ct_radiomics_phantom/dicom/image",
    "dicom_seg/UCSF-BR-06/image_dce_ser",
)
BROKEN_REAL = (
    "missing slice",
    "position twice",
    "uneven",
    "turned slice",
    "sheared",
    "mixed unit",
    "file cut off",
    "no position",
    "no pixel spacing",
    "two series",
    "localiser",
    "tags swapped",
    "other matrix",
)


@pytest.mark.parametrize("name", REAL)
def test_real_series_are_as_simpleitk_reads_them(shared_images: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = shared_images / name
    volume = read_series(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    # SimpleITK works in the pixel type of the first slice: PET with a slope a slice comes in double, others exact.
    np.testing.assert_allclose(volume.values, sitk.GetArrayFromImage(image), rtol=1e-7, atol=1e-9)
    for index in [(0, 0, 0), (3, 5, 7), tuple(size - 1 for size in image.GetSize())]:
        ours = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(ours, image.TransformIndexToPhysicalPoint(index), atol=2e-3)
    np.testing.assert_allclose(volume.spacing_mm[::-1], image.GetSpacing(), rtol=1e-6)


@pytest.mark.parametrize("broken", BROKEN_REAL)
@pytest.mark.parametrize("name", ["sts/STS_025/CT/image", "sts/STS_025/MR_T1/image"])
def test_real_series_broken_in_the_same_ways_are_refused(
    shared_images: Path, tmp_path: Path, change: Change, name: str, broken: str
) -> None:
    for path in (shared_images / name).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    files = sorted(tmp_path.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])[:9]
    for path in set(tmp_path.iterdir()) - set(files):
        path.unlink()
    read_series(tmp_path)
    breaking, message = BROKEN[broken]
    breaking(files, change)
    message = message.split(":")[0] if broken not in ("mixed unit", "two series") else "differ|mixed"
    with pytest.raises(ImageError, match=f"(?s){message}"):
        read_series(tmp_path)
