"""De-identification against files with planted identities: after it, none of them is in any byte of the output."""

from __future__ import annotations

import csv
import json
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from theracast_data.dicom.deidentify import DeidentifyReport, deidentify_folder
from theracast_data.dicom.deidentify_keys import KeyFileError, PseudonymKey, create_key, read_key
from theracast_data.dicom.deidentify_record import DeidentifyError
from theracast_data.dicom.deidentify_rules import (
    BULK,
    CODES,
    REGION_NAMES,
    TABLE,
    TECHNICAL_TEXT,
    DeidentifyOptions,
)
from theracast_data.dicom.deidentify_values import Identity, clean_text, shift_date, shift_datetime
from theracast_data.dicom.quiet import quiet_pydicom
from theracast_data.errors import TheracastError

KEY = PseudonymKey(b"a secret of thirty-two bytes, or more")
OTHER_KEY = PseudonymKey(b"another secret of thirty-two bytes here")
PATIENT = "MRN-7041993"
NAME = "Quetzalcoatl^Ferdinanda"
MARKERS = (b"quetzalcoatl", b"ferdinanda", b"7041993", b"zanzibar", b"wolpertinger")


def a_file(
    *, sop_class: str = uid.CTImageStorage, syntax: str = uid.ExplicitVRLittleEndian, **values: object
) -> FileDataset:
    """A CT slice of 4 x 4 pixels, with a patient, unless `values` say otherwise."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.TransferSyntaxUID = syntax
    meta.SourceApplicationEntityTitle = "ZANZIBAR_AE"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"ZANZIBAR".ljust(128, b"\0"))
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.PatientID = PATIENT
    dataset.PatientName = NAME
    dataset.PatientBirthDate = "19310405"
    dataset.Modality = "CT"
    dataset.Manufacturer = "ACME"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20110203"
    dataset.StudyTime = "101112.5"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.arange(16, dtype="<u2").tobytes()
    with quiet_pydicom():
        for name, value in values.items():
            dataset.pop(name, None)  # an element keeps the strictness that it was made with
            setattr(dataset, name, value)
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def put(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet_pydicom():
        dataset.save_as(path, enforce_file_format=True)
    return path


def run(source: Path, to: Path, *, key: PseudonymKey = KEY, **options: object) -> DeidentifyReport:
    return deidentify_folder(source, to=to, key=key, options=DeidentifyOptions(**options))


def outputs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def all_bytes(folder: Path) -> bytes:
    """Every byte and every name below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(
        [path.read_bytes() for path in files] + [str(path.relative_to(folder)).encode() for path in files]
    )


def one(tmp_path: Path, dataset: FileDataset, **options: object) -> FileDataset:
    put(dataset, tmp_path / "in" / "slice.dcm")
    report = run(tmp_path / "in", tmp_path / "out", **options)
    assert not report.refused, report.to_text()
    (path,) = outputs(tmp_path / "out")
    return dcmread(path)


# What identity looks like in each kind of value.
_PLANTED = {
    "PN": "Wolpertinger^Z",
    "DA": "19710304",
    "DT": "19710304050607.5+0100",
    "UI": "1.2.826.0.1.99.19710304",
    "AS": "071Y",
    "UN": b"Wolpertinger",
    **dict.fromkeys(("OB", "OW", "OF", "OD", "OL", "OV"), b"Wolpertinger1234"),
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UR", "UT", "AE"), "Wolpertinger"),
}


def _attributes() -> dict[int, tuple[str, str]]:
    """Every attribute of the dictionary outside groups 0000 and 0002: tag -> (VR, keyword)."""
    return {
        tag: (vr.split(" or ")[0], keyword)
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if tag >> 16 > 0x0004 and vr != "NONE" and tag not in (0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD)
    }


@pytest.mark.parametrize("nested", [False, True], ids=["top", "nested"])
def test_every_attribute_that_can_name_a_patient_is_cleaned(tmp_path: Path, nested: bool) -> None:
    """Identity is planted in all attributes of the dictionary; only text that scanners write about themselves may stay."""
    by_design = TECHNICAL_TEXT | CODES | BULK | REGION_NAMES
    dataset = a_file()
    item = Dataset()
    planted = 0
    for tag, (vr, keyword) in _attributes().items():
        if vr in _PLANTED and keyword not in by_design and tag not in dataset:
            (item if nested else dataset)[tag] = DataElement(tag, vr, _PLANTED[vr])
            planted += 1
    assert planted > 900
    if nested:
        inner = Dataset()
        inner.ReferencedSeriesSequence = Sequence([item])
        dataset.ReferencedSeriesSequence = Sequence([inner])
    clean = one(tmp_path, dataset)
    content = all_bytes(tmp_path / "out").lower()
    assert b"wolpertinger" not in content
    assert b"19710304" not in content
    assert b"071Y" not in all_bytes(tmp_path / "out")
    assert clean.pixel_array.tolist() == dataset.pixel_array.tolist()


def test_every_row_of_the_action_table_is_obeyed(tmp_path: Path) -> None:
    """X is gone, Z is empty, U is another UID, D is another value; dates and times by the option that modifies dates."""
    valid = {
        "DA": "19710304",
        "DT": "19710304050607",
        "TM": "050607",
        "UI": "1.2.826.0.1.99.1",
        "CS": "HOLMES",
        "AS": "071Y",
    }
    valid |= dict.fromkeys(("DS", "IS"), "7654321") | dict.fromkeys(("US", "UL", "SS", "SL", "FD", "FL"), 54321)
    dataset = a_file()
    for tag in TABLE:
        if tag.group >= 0x0008 and tag not in dataset and dictionary_has_tag(tag):
            vr = dictionary_VR(tag).split(" or ")[0]
            item = Dataset()
            item.CodeMeaning = "Holmes"
            value = (
                Sequence([item]) if vr == "SQ" else valid.get(vr, b"Holmes" if vr[0] == "O" or vr == "UN" else "Holmes")
            )
            dataset[tag] = DataElement(tag, vr, value)
    originals = {element.tag: element for element in deepcopy(dataset)}
    clean = one(tmp_path, dataset)
    checked: Counter[str] = Counter()
    declared = ("PatientIdentityRemoved", "DeidentificationMethod")
    for tag, action in TABLE.items():
        if tag not in originals or originals[tag].keyword.startswith(declared):
            continue
        before, after = originals[tag], clean.get(tag)
        if before.VR in ("DA", "DT", "TM") and tag.group != 0x0010:
            assert before.VR == "TM" or not after.value or after.value != before.value, tag
        elif action == "removed":
            assert after is None or after.keyword == "TimezoneOffsetFromUTC", tag
        elif action == "emptied":
            assert not after.value or after.value == KEY.patient(PATIENT) or after.keyword == "ROIName", tag
        elif action == "UID replaced":
            assert after.value == KEY.uid(before.value), tag
        elif before.VR != "SQ":
            assert after.value != before.value, tag
        checked[action] += 1
    assert checked["removed"] > 300
    assert min(checked[name] for name in ("emptied", "UID replaced", "dummy value")) > 30


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("AccessionNumber", "emptied"),  # Z
        ("AcquisitionTime", "emptied"),  # X/Z
        ("StudyDescription", "removed"),  # X
        ("PatientAddress", "removed"),  # X
        ("SeriesDate", "dummy value"),  # X/D
        ("OperatorsName", "dummy value"),  # X/Z/D
        ("ContrastBolusAgent", "dummy value"),  # Z/D
        ("StructureSetLabel", "dummy value"),  # D
        ("FrameOfReferenceUID", "UID replaced"),  # U
        ("SourceImageSequence", "items cleaned"),  # X/Z/U*
    ],
)
def test_the_action_table_is_the_published_one(keyword: str, action: str) -> None:
    """A row of each kind as printed in PS3.15 Table E.1-1; all rows but the repeating groups are there."""
    assert TABLE[Tag(keyword)] == action
    assert {(tag.group, tag.element) for tag in TABLE} == {row for row in dicomfields_2026c.ALL_TAGS if len(row) == 2}


def test_the_files_that_pydicom_is_tested_with_are_taken_or_refused(tmp_path: Path) -> None:
    """Compressed, big-endian, broken, odd: what is taken keeps its pixels and loses its patient; nothing stops the run."""
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    report = run(source, tmp_path / "out", allow_burned_in=True)
    assert report.written > 60
    reasons = {refused.path.name: refused.reason for refused in report.refused}
    assert "truncated" in reasons["MR_truncated.dcm"]
    assert "DICOMDIR" in reasons["DICOMDIR"]
    assert "kind of object" in reasons["rtplan.dcm"]
    copies = {path.stem: path for path in outputs(tmp_path / "out")}
    compared, names = 0, set()
    with quiet_pydicom():
        for path in sorted(source.rglob("*")):
            if not path.is_file() or path.name in reasons:
                continue
            try:
                original = dcmread(path)
            except InvalidDicomError:
                continue
            copy = copies.get(KEY.uid(str(original.SOPInstanceUID)))
            names |= {part for part in str(original.get("PatientName", "")).split("^") if len(part) > 5}
            if copy and "PixelData" in original:
                compared += dcmread(copy).PixelData == original.PixelData
    assert compared > 50
    content = all_bytes(tmp_path / "out")
    assert len(names) > 2
    assert not [name for name in names if name.encode() in content]


def test_a_known_name_leaves_the_text_and_codes_that_are_kept(tmp_path: Path) -> None:
    dataset = a_file(BodyPartExamined="FERDINANDA", SoftwareVersions=["1.2", "for Quetzalcoatl"])
    for keyword in sorted(TECHNICAL_TEXT):
        setattr(dataset, keyword, f"x {PATIENT} y")
    dataset.CodeValue = "Quetzalcoatl"
    clean = one(tmp_path, dataset)
    content = all_bytes(tmp_path / "out").lower()
    assert not [marker for marker in MARKERS if marker in content]
    assert clean.Manufacturer == "x [cut] y"


def test_private_elements_go_except_the_safe_ones_in_any_block(tmp_path: Path) -> None:
    dataset = a_file(sop_class=uid.PositronEmissionTomographyImageStorage, Modality="PT")
    unsafe = dataset.private_block(0x0009, "ZANZIBAR HEALTH", create=True)
    unsafe.add_new(0x01, "LO", NAME)
    unsafe.add_new(0x02, "UN", b"Wolpertinger")
    ge = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
    ge.add_new(0x0D, "DT", "20110203101500.00")
    ge.add_new(0x02, "LO", PATIENT)
    philips = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    philips.add_new(0x00, "DS", "0.000551")
    philips.add_new(0x09, "LO", "Wolpertinger")  # safe by its place, but no number
    item = Dataset()
    item.private_block(0x0011, "ZANZIBAR HEALTH", create=True).add_new(0x01, "PN", NAME)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([item])
    clean = one(tmp_path, dataset)
    content = all_bytes(tmp_path / "out").lower()
    assert not [marker for marker in MARKERS if marker in content]
    left = {(element.tag.group, element.tag.element) for element in clean.iterall() if element.tag.is_private}
    assert left == {(0x0009, 0x0011), (0x0009, 0x110D), (0x7053, 0x0010), (0x7053, 0x1000)}
    assert clean[0x7053, 0x1000].value == 0.000551
    moved = date(2011, 2, 3) + timedelta(days=KEY.shift_days(PATIENT))
    assert clean[0x0009, 0x110D].value == f"{moved:%Y%m%d}101500.00"


def test_the_name_of_a_person_is_cut_out_of_a_region_in_another_file_and_character_set(tmp_path: Path) -> None:
    """The CT names the radiographer; the structure set quotes the name. Files are read in any order."""
    put(a_file(SpecificCharacterSet="ISO_IR 100", OperatorsName="Müßler^Jö"), tmp_path / "in" / "z.dcm")
    regions = a_file(sop_class=uid.RTStructureSetStorage, SpecificCharacterSet="ISO_IR 192", Modality="RTSTRUCT")
    del regions.PixelData
    items = [Dataset() for _ in range(6)]
    for number, (item, name) in enumerate(
        zip(
            items,
            ["GTV_Mass", "GTV Müßler", "nódulo 1", "CTV 2011-02-03", "of Quetzalcoatl", "PTV 60 Gy 12/03/11"],
            strict=True,
        )
    ):
        item.ROINumber, item.ROIName, item.ROIDescription = number, name, "Wolpertinger"
    regions.StructureSetLabel = "Wolpertinger"
    regions.StructureSetROISequence = Sequence(items)
    put(regions, tmp_path / "in" / "a.dcm")
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written == 2
    clean = next(one for one in map(dcmread, outputs(tmp_path / "out")) if one.Modality == "RTSTRUCT")
    shifted = date(2011, 2, 3) + timedelta(days=KEY.shift_days(PATIENT))
    assert [item.ROIName for item in clean.StructureSetROISequence] == [
        "GTV_Mass",
        "GTV [cut]",
        "nódulo 1",
        f"CTV {shifted.isoformat()}",
        "of [cut]",
        "PTV 60 Gy [cut]",
    ]
    content = all_bytes(tmp_path / "out")
    for form in ("Müßler".encode(), "Müßler".encode("latin-1"), b"olpertinger"):
        assert form not in content


def test_identifiers_are_stable_over_files_and_runs_and_differ_between_keys(tmp_path: Path) -> None:
    image = a_file()
    put(image, tmp_path / "in" / "ct.dcm")
    regions = a_file(sop_class=uid.RTStructureSetStorage, Modality="RTSTRUCT")
    del regions.PixelData
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = image.SeriesInstanceUID, Sequence([reference])
    study = Dataset()
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = image.StudyInstanceUID, Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, Sequence([study])
    regions.ReferencedFrameOfReferenceSequence = Sequence([frame])
    put(regions, tmp_path / "in" / "rs.dcm")
    run(tmp_path / "in", tmp_path / "first")
    run(tmp_path / "in", tmp_path / "second")
    run(tmp_path / "in", tmp_path / "third", key=OTHER_KEY)
    first, second = outputs(tmp_path / "first"), outputs(tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.relative_to(tmp_path / "first") for path in first] == [
        path.relative_to(tmp_path / "second") for path in second
    ]
    clean = {one.Modality: one for one in map(dcmread, first)}
    frame = clean["RTSTRUCT"].ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == clean["CT"].FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == clean["CT"].StudyInstanceUID
    assert series.SeriesInstanceUID == clean["CT"].SeriesInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPInstanceUID == clean["CT"].SOPInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPClassUID == uid.CTImageStorage
    for found in clean.values():
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID
        assert "SourceApplicationEntityTitle" not in found.file_meta
        assert found.PatientIdentityRemoved == "YES"
        assert {item.CodeValue for item in found.DeidentificationMethodCodeSequence} == {
            "113100", "113105", "113107", "113111",
        }  # fmt: skip
    ids = [{one.PatientID for one in map(dcmread, outputs(tmp_path / name))} for name in ("first", "third")]
    uids = [{one.SOPInstanceUID for one in map(dcmread, outputs(tmp_path / name))} for name in ("first", "third")]
    assert len(ids[0]) == 1
    assert not ids[0] & ids[1]
    assert not uids[0] & uids[1]
    with pytest.raises(DeidentifyError, match=r"another key made.*new folder"):
        run(tmp_path / "in", tmp_path / "first", key=OTHER_KEY)


def test_intervals_and_decay_times_stay(tmp_path: Path) -> None:
    days = [date(2011, 2, 3), date(2011, 12, 31), date(2012, 2, 29)]
    for day in days:
        item = Dataset()
        item.RadiopharmaceuticalStartTime = "091500"
        item.RadiopharmaceuticalStartDateTime = f"{day:%Y%m%d}091500.00+0100"
        put(
            a_file(
                sop_class=uid.PositronEmissionTomographyImageStorage,
                SeriesDate=f"{day:%Y%m%d}",
                AcquisitionDateTime=f"{day:%Y%m%d}101500.00",
                AcquisitionTime="101500",
                TimezoneOffsetFromUTC="+0100",
                DateOfLastCalibration=["20110101", f"{day:%Y%m%d}"],
                RadiopharmaceuticalInformationSequence=Sequence([item]),
                PatientWeight="71.5",
            ),
            tmp_path / "in" / f"{day}.dcm",
        )
    run(tmp_path / "in", tmp_path / "out", patient_characteristics=True)
    found = sorted(map(dcmread, outputs(tmp_path / "out")), key=lambda one: str(one.SeriesDate))
    dates = [date.fromisoformat(one.SeriesDate) for one in found]
    assert [dates[1] - dates[0], dates[2] - dates[1]] == [days[1] - days[0], days[2] - days[1]]
    assert -3650 <= (dates[0] - days[0]).days <= -1
    for clean in found:
        item = clean.RadiopharmaceuticalInformationSequence[0]
        assert item.RadiopharmaceuticalStartTime == "091500"
        assert item.RadiopharmaceuticalStartDateTime == f"{clean.SeriesDate}091500.00+0100"
        assert clean.AcquisitionDateTime == f"{clean.SeriesDate}101500.00"
        assert (clean.AcquisitionTime, clean.TimezoneOffsetFromUTC) == ("101500", "+0100")
        assert clean.DateOfLastCalibration[1] == clean.SeriesDate
        assert clean.PatientWeight == 71.5
        assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
        assert not clean.PatientBirthDate


@pytest.mark.parametrize(
    ("age", "options", "expected"),
    [
        ("071Y", {}, None),
        ("071Y", {"patient_characteristics": True}, "071Y"),
        ("089Y", {"patient_characteristics": True}, "089Y"),
        ("093Y", {"patient_characteristics": True}, "090Y"),
        ("093Y", {"patient_characteristics": True, "cap_ages": False}, "093Y"),
        ("Zanz", {"patient_characteristics": True}, ""),
    ],
)
def test_patient_characteristics_only_by_their_option(
    tmp_path: Path, age: str, options: dict[str, bool], expected: str | None
) -> None:
    clean = one(
        tmp_path,
        a_file(PatientAge=age, PatientSex="F", PatientSize="1.7", PatientWeight="60", EthnicGroup="Z"),
        **options,
    )
    assert clean.get("PatientAge") == expected
    kept = bool(options)
    assert clean.PatientSex == ("F" if kept else "")
    assert ("PatientSize" in clean, "PatientWeight" in clean, "EthnicGroup" in clean) == (kept, kept, kept)
    assert ("113108" in {item.CodeValue for item in clean.DeidentificationMethodCodeSequence}) == kept


def test_text_in_the_place_of_numbers_times_and_dates_goes(tmp_path: Path) -> None:
    dataset = a_file(
        SliceThickness="123456789012",
        SeriesNumber="123456789013",
        ContentDate="20110907",
        AcquisitionDateTime="201102031011",
        ContentTime="Zanzibar",
    )
    path = put(dataset, tmp_path / "in" / "slice.dcm")
    content = path.read_bytes()
    for value in (b"123456789012", b"123456789013", b"201102031011"):
        assert value in content
        content = content.replace(value, b"Wolpertinger")
    path.write_bytes(content.replace(b"20110907", b"Zanzibar"))
    assert run(tmp_path / "in", tmp_path / "out").written == 1
    clean = dcmread(outputs(tmp_path / "out")[0])
    for keyword in ("SliceThickness", "SeriesNumber", "ContentDate", "AcquisitionDateTime", "ContentTime"):
        assert not clean.get(keyword)
    assert not [marker for marker in MARKERS if marker in all_bytes(tmp_path / "out").lower()]


def _with(**values: object) -> Callable[[], FileDataset]:
    return lambda: a_file(**values)


def _overlay_in_the_pixels() -> FileDataset:
    dataset = a_file(BitsStored=12, HighBit=11)
    dataset[0x6000, 0x0102] = DataElement(0x60000102, "US", 12)
    return dataset


@pytest.mark.parametrize(
    ("make", "reason", "allowed"),
    [
        (_with(BurnedInAnnotation="YES"), "burned into its pixels", True),
        (_with(sop_class=uid.SecondaryCaptureImageStorage, Modality="OT"), "often has text", True),
        (_with(sop_class=uid.UltrasoundImageStorage, Modality="US"), "often has text", True),
        (_with(Modality="US"), "often has text", True),
        (_with(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "screen capture", True),
        (_overlay_in_the_pixels, "overlay in unused bits", True),
        (_with(sop_class=uid.BasicTextSRStorage), "kind of object that is not taken", False),
        (_with(sop_class=uid.EncapsulatedPDFStorage), "kind of object that is not taken", False),
        (_with(sop_class="1.2.826.0.1.99.5"), "private SOP class", False),
        (_with(PatientID=" "), "no Patient ID", False),
        (_with(Rows=5), "truncated", False),
    ],
)
def test_what_cannot_be_cleaned_is_refused(
    tmp_path: Path, make: Callable[[], FileDataset], reason: str, allowed: bool
) -> None:
    put(make(), tmp_path / "in" / "bad.dcm")
    put(a_file(), tmp_path / "in" / "good.dcm")
    report = run(tmp_path / "in", tmp_path / "out")
    (refused,) = report.refused
    assert (refused.path.name, report.written) == ("bad.dcm", 1)
    assert reason in refused.reason
    assert ("--allow-burned-in" in refused.reason) == allowed
    assert run(tmp_path / "in", tmp_path / "out2", allow_burned_in=True).written == (2 if allowed else 1)


def test_overlays_and_curves_are_removed(tmp_path: Path) -> None:
    dataset = a_file()
    dataset[0x6000, 0x0010] = DataElement(0x60000010, "US", 4)
    dataset[0x6000, 0x3000] = DataElement(0x60003000, "OW", b"Zanzibar")
    dataset[0x6002, 0x0022] = DataElement(0x60020022, "LO", "Zanzibar")
    dataset[0x5000, 0x0022] = DataElement(0x50000022, "LO", "Zanzibar")
    clean = one(tmp_path, dataset)
    assert not [tag for tag in clean if tag.tag.group & 0xFF00 in (0x5000, 0x6000)]


def test_broken_files_are_reported_and_the_others_done(tmp_path: Path) -> None:
    good = put(a_file(), tmp_path / "in" / "deep" / "good.dcm").read_bytes()
    (tmp_path / "in" / "empty.dcm").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text(NAME)
    (tmp_path / "in" / "half.dcm").write_bytes(good[: len(good) - 8])
    (tmp_path / "in" / "header.dcm").write_bytes(good[:200])
    (tmp_path / "in" / "zeros.dcm").write_bytes(good[:300] + bytes(500))
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written == 1
    assert report.foreign == 2
    assert {refused.path.name for refused in report.refused} == {"half.dcm", "header.dcm", "zeros.dcm"}
    assert not [marker for marker in MARKERS if marker in report.to_text().lower().encode()]
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert not list((tmp_path / "out").rglob("*.txt"))


def test_a_file_that_cannot_be_put_in_place_leaves_no_half(tmp_path: Path) -> None:
    dataset = a_file()
    put(dataset, tmp_path / "in" / "slice.dcm")
    place = KEY.patient(PATIENT), KEY.uid(dataset.StudyInstanceUID), KEY.uid(dataset.SeriesInstanceUID)
    blocked = (tmp_path / "out").joinpath(*place, f"{KEY.uid(dataset.SOPInstanceUID)}.dcm")
    blocked.mkdir(parents=True)
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written == 0
    assert "cannot be read or written" in report.refused[0].reason
    assert list(blocked.parent.iterdir()) == [blocked]


@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless],
    ids=lambda syntax: syntax.name,
)
def test_pixels_stay_bit_for_bit(tmp_path: Path, syntax: str) -> None:
    compressed = syntax == uid.RLELossless
    dataset = a_file(syntax=uid.ExplicitVRLittleEndian if compressed else syntax)
    dataset.PixelData = np.random.default_rng(1).integers(0, 65536, 16, dtype="<u2").tobytes()
    if compressed:
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
    clean = one(tmp_path, dataset)
    assert clean.file_meta.TransferSyntaxUID == syntax
    assert clean.PixelData == dataset.PixelData
    assert (clean.Rows, clean.Columns, clean.BitsStored) == (4, 4, 16)


@pytest.mark.parametrize("comment", [b"Quetzalcoatl", b"id 00471234."], ids=["name", "number"])
def test_a_comment_in_a_compressed_frame_is_found(tmp_path: Path, comment: bytes) -> None:
    dataset = a_file(syntax=uid.JPEGLSLossless, AccessionNumber="00471234")
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xfe\x00\x0e" + comment + b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    put(dataset, tmp_path / "in" / "slice.dcm")
    report = run(tmp_path / "in", tmp_path / "out")
    assert "still held a name" in report.refused[0].reason
    assert not outputs(tmp_path / "out")


def test_what_an_earlier_cleaning_did_to_the_pixels_stays_said(tmp_path: Path) -> None:
    items = [Dataset(), Dataset()]
    for item, code in zip(
        items, ["113101", "113106"], strict=True
    ):  # clean pixel data; full dates kept, no longer true
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", "Wolpertinger"
    dataset = a_file(DeidentificationMethodCodeSequence=Sequence(items), DeidentificationMethod="Wolpertinger")
    clean = one(tmp_path, dataset)
    found = {item.CodeValue: item.CodeMeaning for item in clean.DeidentificationMethodCodeSequence}
    assert set(found) == {"113100", "113101", "113105", "113107", "113111"}
    assert found["113101"] == "Clean Pixel Data Option"
    assert b"Wolpertinger" not in all_bytes(tmp_path / "out")


def test_a_second_run_changes_nothing_and_other_options_need_overwrite(tmp_path: Path) -> None:
    put(a_file(SeriesDescription="T1 axial of Quetzalcoatl"), tmp_path / "in" / "slice.dcm")
    put(a_file(SeriesDescription="copy"), tmp_path / "in" / "other.dcm")
    assert run(tmp_path / "in", tmp_path / "out").written == 2
    again = run(tmp_path / "in", tmp_path / "out")
    assert (again.written, again.unchanged, again.refused) == (0, 2, ())
    options = DeidentifyOptions(keep_text=("SeriesDescription",))
    refused = deidentify_folder(tmp_path / "in", to=tmp_path / "out", key=KEY, options=options).refused
    assert len(refused) == 2
    assert "--overwrite" in refused[0].reason
    assert (
        deidentify_folder(tmp_path / "in", to=tmp_path / "out", key=KEY, options=options, overwrite=True).written == 2
    )
    assert sorted(dcmread(path).SeriesDescription for path in outputs(tmp_path / "out")) == [
        "T1 axial of [cut]",
        "copy",
    ]


def test_two_files_of_one_instance_uid_with_other_content_do_not_overwrite_each_other(tmp_path: Path) -> None:
    dataset = a_file()
    put(dataset, tmp_path / "in" / "a.dcm")
    put(dataset, tmp_path / "in" / "b.dcm")
    dataset.PixelData = bytes(32)
    put(dataset, tmp_path / "in" / "c.dcm")
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written == 1
    assert [refused.path.name for refused in report.refused] == ["c.dcm"]
    assert "other content" in report.refused[0].reason


def test_the_audit_list_counts_every_element_and_holds_no_value(tmp_path: Path) -> None:
    put(a_file(StudyDescription="Wolpertinger"), tmp_path / "in" / NAME / "slice.dcm")
    run(tmp_path / "in", tmp_path / "out")
    (path,) = outputs(tmp_path / "out")
    audit = (tmp_path / "out" / "deidentification" / "run-0001.csv").read_text()
    rows = list(csv.DictReader(audit.splitlines()))
    assert {row["file"] for row in rows} == {path.relative_to(tmp_path / "out").as_posix()}
    done = {row["keyword"]: row["action"] for row in rows}
    assert done["StudyDescription"] == "removed"
    assert done["PatientID"] == "patient pseudonym"
    assert done["StudyDate"] == "date shifted"
    assert done["SOPInstanceUID"] == "UID replaced"
    assert done["SOPClassUID"] == done["PixelData"] == "kept"
    assert len(rows) == len(dcmread(tmp_path / "in" / NAME / "slice.dcm"))
    content = all_bytes(tmp_path / "out").lower()
    assert not [marker for marker in MARKERS if marker in content]
    summary = json.loads((tmp_path / "out" / "deidentification" / "run-0001.json").read_text())
    assert (summary["written"], summary["key_fingerprint"], summary["complete"]) == (1, KEY.fingerprint, True)


def test_a_stopped_run_is_on_record_and_the_next_one_goes_on(tmp_path: Path) -> None:
    for number in range(4):
        put(a_file(), tmp_path / "in" / f"{number}.dcm")

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deidentify_folder(tmp_path / "in", to=tmp_path / "out", key=KEY, progress=stop)
    record = tmp_path / "out" / "deidentification"
    summary = json.loads((record / "run-0001.json").read_text())
    assert (summary["written"], summary["complete"]) == (2, False)
    listed = {row["file"] for row in csv.DictReader((record / "run-0001.csv").read_text().splitlines())}
    assert listed == {path.relative_to(tmp_path / "out").as_posix() for path in outputs(tmp_path / "out")}
    again = run(tmp_path / "in", tmp_path / "out")
    assert (again.written, again.unchanged) == (2, 2)
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "project.key"
    made = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path).patient("1") == made.patient("1")
    assert path.read_text().strip() not in repr(made) + str(vars(made).keys())
    with pytest.raises(KeyFileError, match=r"exists.*Leave out --new-key"):
        create_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(KeyFileError, match="64 hexadecimal digits"):
        read_key(path)
    with pytest.raises(KeyFileError, match="--new-key"):
        read_key(tmp_path / "none.key")


def test_a_keyword_that_may_not_be_kept_is_refused_with_the_nearest() -> None:
    with pytest.raises(TheracastError, match="Did you mean SeriesDescription"):
        DeidentifyOptions(keep_text=("SeriesDescripton",)).descriptors()
    with pytest.raises(TheracastError, match="not the keyword"):
        DeidentifyOptions(keep_text=("PatientID",)).descriptors()


def test_the_command_makes_key_and_link_table_and_says_no_name(tmp_path: Path) -> None:
    put(a_file(StudyDate="Zanzibar"), tmp_path / "in" / "slice.dcm")
    put(a_file(sop_class=uid.BasicTextSRStorage), tmp_path / "in" / "report.dcm")
    command = [sys.executable, "-m", "theracast", "deidentify", str(tmp_path / "in"), "--to", str(tmp_path / "out")]
    command += ["--key", str(tmp_path / "k.key"), "--new-key", "--link", str(tmp_path / "link.csv"), "--json", "-v"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr
    told = (answer.stdout + answer.stderr).lower()
    assert not [marker for marker in MARKERS if marker.decode() in told]
    assert (tmp_path / "k.key").read_text().strip() not in told
    assert json.loads(answer.stdout)["written"] == 1
    (row,) = csv.DictReader((tmp_path / "link.csv").read_text().splitlines())
    key = read_key(tmp_path / "k.key")
    assert row == {
        "patient_id": PATIENT,
        "pseudonym": key.patient(PATIENT),
        "date_shift_days": str(key.shift_days(PATIENT)),
    }
    assert stat.S_IMODE((tmp_path / "link.csv").stat().st_mode) == 0o600
    command[command.index("--to") + 1] = str(tmp_path / "in" / "out")
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1
    assert "Choose a folder outside" in answer.stderr


@given(
    first=st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    second=st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    days=st.integers(-3650, -1),
)
def test_a_shift_keeps_every_interval_in_every_form(first: date, second: date, days: int) -> None:
    moved = [date.fromisoformat(shift_date(f"{one:%Y%m%d}", days=days) or "") for one in (first, second)]
    assert moved[1] - moved[0] == second - first
    assert shift_date(f"{first:%Y.%m.%d}", days=days) == f"{moved[0]:%Y.%m.%d}"
    assert shift_datetime(f"{first:%Y%m%d}235959.123456-1200", days=days) == f"{moved[0]:%Y%m%d}235959.123456-1200"
    nobody = Identity()
    for form in ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d %b %Y"):
        assert clean_text(f"GTV {first:{form}} b", identity=nobody, days=days) == f"GTV {moved[0]:{form}} b"
    for form in ("%d.%m.%Y", "%m/%d/%y", "%d-%m-%Y"):
        assert clean_text(f"GTV {first:{form}} b", identity=nobody, days=days) == "GTV [cut] b"
    assert clean_text(f"{first:%B %d, %Y}", identity=nobody, days=days) == f"{moved[0]:%d %b %Y}"


@pytest.mark.parametrize("text", ["2011", "201102"])
def test_a_coarse_datetime_stays_coarse(text: str) -> None:
    moved = shift_datetime(text, days=-400)
    assert moved is not None
    assert len(moved) == len(text)
    assert moved < text


@given(original=st.from_regex(r"1\.2(\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True))
def test_a_mapped_uid_is_valid_and_not_the_original(original: str) -> None:
    mapped = KEY.uid(original)
    if uid.UID(original).name == original:
        assert mapped != original
        assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", mapped)
        assert len(mapped) <= 64
    assert KEY.uid(original) == mapped
    assert KEY.uid(uid.CTImageStorage) == uid.CTImageStorage


@given(ids=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=2, unique=True))
def test_pseudonyms_do_not_meet_and_shifts_stay_in_their_range(ids: list[str]) -> None:
    assert len({KEY.patient(one) for one in ids}) == len(ids)
    assert all(-3650 <= KEY.shift_days(one) <= -1 for one in ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GTV_Mass", "GTV_Mass"),
        ("GTV primary 45 Gy/25", "GTV primary 45 Gy/25"),
        ("node level 2-4", "node level 2-4"),
        ("GTV anna", "GTV [cut]"),
        ("hannah", "hannah"),
        ("call 030 1234567", "call [cut]"),
        ("a.b@example.org", "[cut]"),
        ("1.2.840.113619.2.5.99", "[cut]"),
        ("MRN12345", "[cut]"),
    ],
)
def test_text_keeps_anatomy_and_loses_identity(text: str, expected: str) -> None:
    identity = Identity(names=frozenset({"Anna", "Wolpertinger"}), numbers=frozenset({"MRN12345"}))
    assert clean_text(text, identity=identity, days=-10) == expected
