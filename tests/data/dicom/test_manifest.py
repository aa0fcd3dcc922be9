"""Folders of DICOM to a manifest: real folders, and faults that do not stop it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

from theracast_data.dicom.manifest import ImageRow, read_image_manifest, scan_folder
from theracast_data.dicom.regions import read_region
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError

Make = Callable[..., list[Path]]
Change = Callable[..., None]


def test_real_folders(shared_images: Path, tmp_path: Path) -> None:
    manifest = scan_folder(shared_images / "sts")
    assert manifest.faults == ()
    table = manifest.frame()
    assert table.groupby("subject_id")["modality"].apply(sorted).to_dict() == {
        "STS_008": ["CT", "MR", "PT"],
        "STS_025": ["CT", "MR", "PT"],
    }
    # The MR has the study date of PET and CT, and was acquired weeks before: one timepoint, and a warning.
    assert (table["timepoint"] == 0).all()
    warned = table.set_index("modality")["warnings"].map(len)
    assert warned["MR"].tolist() == [1, 1]
    assert warned.drop("MR").sum() == 0
    assert (table["region_link"] == "series").all()
    assert table["faults"].map(len).sum() == 0
    assert table["n_files"].sum() == sum(1 for _ in (shared_images / "sts").rglob("image/*.dcm"))
    for row in manifest.rows:
        assert row.region_path is not None
        volume = read_series(row.path, series_uid=row.series_uid)
        assert volume.acquired == row.acquired
        assert read_region(row.region_path, row.region_names[0], volume).mask.any()
    manifest.write(tmp_path / "images.parquet")
    assert tuple(read_image_manifest(tmp_path / "images.parquet")) == manifest.rows


def test_a_segmentation_that_names_no_series_is_linked_by_its_frame_of_reference(shared_images: Path) -> None:
    manifest = scan_folder(shared_images / "dicom_seg")
    assert [(row.modality, row.region_kind, row.region_link, row.region_names) for row in manifest.rows] == [
        ("MR", "SEG", "frame of reference", ("Breast",))
    ] * 2
    assert len(manifest.faults) == 1  # the licence
    assert "LICENSE: this is no DICOM file" in manifest.faults[0]


def test_faults_are_listed_with_their_series_and_stop_nothing(
    tmp_path: Path, make_series: Make, change: Change
) -> None:
    make_series(tmp_path / "good", series="good")
    gap = make_series(tmp_path / "gap", series="gap")
    gap[2].unlink()
    short = make_series(tmp_path / "short", series="short", values=np.zeros((4, 64, 64), dtype=np.uint16))
    short[1].write_bytes(short[1].read_bytes()[:5000])
    anonymous = make_series(tmp_path / "anonymous", series="anonymous")
    for path in anonymous:
        change(path, PatientID=None)
    (tmp_path / "good" / "notes.txt").write_text("a reading list")
    (tmp_path / "cut.dcm").write_bytes(gap[0].read_bytes()[:300])
    manifest = scan_folder(tmp_path)
    faults = {Path(row.path).name: row.faults for row in manifest.rows}
    assert faults["good"] == ()
    assert "missing slices: 1 of a stack" in faults["gap"][0]
    assert "too short for its pixels" in faults["short"][0]
    assert "anonymous" not in faults
    assert any("PatientID (0010,0020) is missing" in fault for fault in manifest.faults)
    assert any("notes.txt: this is no DICOM file" in fault for fault in manifest.faults)
    assert any("cut.dcm" in fault for fault in manifest.faults)
    with pytest.raises(ImageError, match="no such folder"):
        scan_folder(tmp_path / "absent")


def test_study_dates_of_a_subject_are_numbered(tmp_path: Path, make_series: Make) -> None:
    for number, (subject, day) in enumerate(
        [("A", "20200301"), ("A", "20200101"), ("A", "20200301"), ("B", "20210101"), ("B", "")]
    ):
        make_series(tmp_path / str(number), series=str(number), PatientID=subject, StudyDate=day)
    table = scan_folder(tmp_path).frame().set_index("path")["timepoint"]
    found = {Path(path).name: value for path, value in table.items()}
    assert [found[name] for name in "0123"] == [1, 0, 1, 0]
    assert pd.isna(found["4"])


def test_a_series_in_two_folders_is_one_row_with_a_fault(tmp_path: Path, make_series: Make) -> None:
    files = make_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for path in files[:2]:
        path.rename(tmp_path / "b" / path.name)
    (row,) = scan_folder(tmp_path).rows
    assert row.n_files == 6
    assert row.path == str(tmp_path)
    assert "several folders" in row.faults[-1]
    assert read_series(row.path, series_uid=row.series_uid).shape == (6, 8, 10)


def test_a_region_without_its_image_is_told(shared_images: Path, tmp_path: Path) -> None:
    source = shared_images / "sts" / "STS_008" / "CT" / "mask" / "RS.dcm"
    (tmp_path / "RS.dcm").write_bytes(source.read_bytes())
    manifest = scan_folder(tmp_path)
    assert manifest.rows == ()
    assert "the RTSTRUCT names the series" in manifest.faults[0]
    assert "its image is not here" in manifest.faults[0]
    dataset = pydicom.dcmread(source)
    dataset.PatientID = "another"
    for path in (shared_images / "sts" / "STS_008" / "CT" / "image").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset.save_as(tmp_path / "RS.dcm")
    manifest = scan_folder(tmp_path)
    assert manifest.rows[0].region_path is None
    assert "of another PatientID than its image" in manifest.faults[0]


def test_a_manifest_file_is_checked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"subject_id": ["A"]}), tmp_path / "other.parquet")
    with pytest.raises(ImageError, match=r"not that of an image manifest.*series_uid"):
        read_image_manifest(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ImageError, match="no Parquet file"):
        read_image_manifest(tmp_path / "text.parquet")
    assert set(ImageRow.model_fields) == set(scan_folder(tmp_path).frame().columns)
