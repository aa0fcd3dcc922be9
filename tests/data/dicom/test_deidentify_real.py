"""De-identification of real scans with their regions: nothing of the original identity in any byte, nothing of the image lost."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.deidentify import DeidentifyReport, deidentify_folder
from theracast_data.dicom.deidentify_keys import PseudonymKey, is_registered
from theracast_data.dicom.deidentify_rules import DeidentifyOptions
from theracast_data.dicom.quiet import quiet_pydicom

KEY = PseudonymKey(b"a secret of thirty-two bytes, or more")
SETS = ("sts", "dicom_seg")


@pytest.fixture(scope="module", params=SETS)
def source(request: pytest.FixtureRequest, repository: Path) -> Path:
    cohorts = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    folder = Path(os.environ.get("THERACAST_IMAGING", cohorts.parent / "imaging")) / request.param
    if not folder.is_dir():
        pytest.skip("the real images are not here; set THERACAST_IMAGING to the folder that holds sts/ and dicom_seg/")
    return folder


@pytest.fixture(scope="module")
def cleaned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DeidentifyReport]:
    to = tmp_path_factory.mktemp("clean")
    report = deidentify_folder(source, to=to, key=KEY, options=DeidentifyOptions(patient_characteristics=True))
    return to, report


@pytest.fixture(scope="module")
def pairs(source: Path, cleaned: tuple[Path, DeidentifyReport]) -> list[tuple[FileDataset, FileDataset]]:
    """Every original with its copy, found by the UID map."""
    with quiet_pydicom():
        originals = [dcmread(path) for path in sorted(source.rglob("*.dcm"))]
        copies = {str(one.SOPInstanceUID): one for one in map(dcmread, cleaned[0].rglob("*.dcm"))}
    assert len(copies) == len(originals)
    return [(one, copies[KEY.uid(one.SOPInstanceUID)]) for one in originals]


def test_every_file_is_taken(source: Path, cleaned: tuple[Path, DeidentifyReport]) -> None:
    to, report = cleaned
    assert report.refused == ()
    assert report.written == len(list(source.rglob("*.dcm"))) == len(list(to.rglob("*.dcm")))


def test_no_identity_is_in_any_byte_or_name(
    cleaned: tuple[Path, DeidentifyReport], pairs: list[tuple[FileDataset, FileDataset]]
) -> None:
    needles: set[bytes] = set()
    dates: set[str] = set()
    with quiet_pydicom():
        for original, _ in pairs:
            for element in original.iterall():
                if element.VR == "UI" or element.keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID"):
                    values = element.value if element.VM > 1 else [element.value]
                    needles |= {str(one).encode() for one in values if one and len(str(one)) > 3}
                if element.VR in ("DA", "DT") and element.value:
                    dates.add(str(element.value)[:8])
    needles = {one for one in needles if not is_registered(one.decode())}
    assert len(needles) > 200
    assert len(dates) > 1
    # A date may be another patient's, shifted; dates are compared patient by patient below.
    shifted = {str(copy[name].value) for _, copy in pairs for name in ("StudyDate", "ContentDate") if name in copy}
    needles |= {one.encode() for one in dates - shifted if len(one) == 8}
    files = [path for path in cleaned[0].rglob("*") if path.is_file()]
    names = "\n".join(str(path.relative_to(cleaned[0])) for path in files).encode()
    # A needle is printable, so it can only be within a run of printable bytes.
    runs = b"\n".join(run for path in files for run in re.findall(rb"[\x20-\x7e]{4,}", path.read_bytes()))
    assert min(map(len, needles)) >= 4
    assert not [one for one in needles if one in runs or one in names]


def test_dates_of_a_patient_move_together(pairs: list[tuple[FileDataset, FileDataset]]) -> None:
    shifts: dict[str, set[int]] = defaultdict(set)
    with quiet_pydicom():
        for original, copy in pairs:
            for before, after in zip(_dates(original), _dates(copy), strict=True):
                shifts[original.PatientID].add((after - before).days)
            for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
                assert copy.get(name) == original.get(name)
    assert all(len(days) == 1 and -3650 <= min(days) <= -1 for days in shifts.values())
    assert {one for days in shifts.values() for one in days} == {KEY.shift_days(one) for one in shifts}


def test_images_and_what_measures_them_are_as_they_were(pairs: list[tuple[FileDataset, FileDataset]]) -> None:
    geometry = ["Rows", "Columns", "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"]
    stored = ["RescaleSlope", "RescaleIntercept", "BitsStored", "PixelRepresentation", "InstanceNumber", "SeriesNumber"]
    patient = ["PatientWeight", "PatientSize", "PatientSex", "PatientAge"]
    scanner = ["Units", "CorrectedImage", "DecayCorrection", "Manufacturer", "ManufacturerModelName", "Modality"]
    names = [*geometry, *stored, *patient, *scanner]
    pixels = 0
    with quiet_pydicom():
        for original, copy in pairs:
            assert copy.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
            for name in names:
                assert copy.get(name) == original.get(name), name
            if "PixelData" in original:
                pixels += 1
                assert copy.PixelData == original.PixelData
                assert (copy.pixel_array == original.pixel_array).all()
            if original.Modality == "PT":
                before, after = (one.RadiopharmaceuticalInformationSequence[0] for one in (original, copy))
                assert after == before  # dose, half-life, time of injection: no identity in them
    assert pixels > 100


def test_regions_keep_their_names_and_find_their_images(pairs: list[tuple[FileDataset, FileDataset]]) -> None:
    instances = {str(copy.SOPInstanceUID) for _, copy in pairs}
    known = {str(original.SOPInstanceUID) for original, _ in pairs}
    frames = {str(copy.get("FrameOfReferenceUID")) for _, copy in pairs if copy.Modality != "RTSTRUCT"}
    regions = [(original, copy) for original, copy in pairs if copy.Modality in ("RTSTRUCT", "SEG")]
    assert regions
    for original, copy in regions:
        if copy.Modality == "RTSTRUCT":
            names = [[item.ROIName for item in one.StructureSetROISequence] for one in (original, copy)]
            assert str(copy.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID) in frames
            for before, after in zip(original.ROIContourSequence, copy.ROIContourSequence, strict=True):
                for contour, moved in zip(before.ContourSequence, after.ContourSequence, strict=True):
                    assert moved.ContourData == contour.ContourData
        else:
            names = [[item.SegmentLabel for item in one.SegmentSequence] for one in (original, copy)]
            assert str(copy.FrameOfReferenceUID) in frames
        assert names[0] == names[1]
        before, after = list(_references(original)), list(_references(copy))
        assert [KEY.uid(one) for one in before] == after
        assert {one in known for one in before} == {one in instances for one in after}
        assert sum(one in known for one in before) == sum(one in instances for one in after)


def _dates(dataset: Dataset) -> list[date]:
    names = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "StructureSetDate")
    return [date.fromisoformat(dataset[name].value) for name in names if dataset.get(name)]


def _references(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
