"""The CTs of the synthetic patients: valid DICOM by other readers, the truth's volumes and courses, the same bytes again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 its usual name
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline

from theracast_data.dicom.manifest import ImageManifest, ImageRow, scan_folder
from theracast_data.dicom.regions import read_region
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.synthetic import Truth, generate, write_images
from theracast_data.synthetic.dicom_files import PROTOTYPE, REGION, Study, ct_slices, outlines, prototype_template
from theracast_data.synthetic.export_fhir import observations
from theracast_data.synthetic.images import Scan, draw_scans
from theracast_data.synthetic.lesions import SCANNERS

PER_SITE = 3


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("truth"), patients=300, seed=5)


@pytest.fixture(scope="module")
def written(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The folder with the images of a few patients of each hospital, and what was said of them."""
    folder = tmp_path_factory.mktemp("images")
    return folder, write_images(truth, folder, patients=PER_SITE)


@pytest.fixture(scope="module")
def manifest(written: tuple[Path, pd.DataFrame]) -> ImageManifest:
    return scan_folder(written[0])


@pytest.fixture(scope="module")
def drawn(truth: Truth) -> dict[tuple[str, int], Scan]:
    return {(scan.study.subject_id, scan.timepoint): scan for scan in draw_scans(truth)}


def of_hospital(manifest: ImageManifest, name: str) -> ImageRow:
    return next(row for row in manifest.rows if row.subject_id.startswith(name))


def test_every_scan_is_read_without_a_fault(manifest: ImageManifest, written: tuple[Path, pd.DataFrame]) -> None:
    """One series and one region a scan, under the patient and the day at which it was made."""
    _, scans = written
    assert manifest.faults == ()
    assert manifest.other == {}
    assert not any(row.faults or row.warnings for row in manifest.rows)
    assert {row.region_names for row in manifest.rows} == {(REGION,)}
    assert {row.region_link for row in manifest.rows} == {"series"}
    found = {(row.subject_id, row.timepoint, row.acquired) for row in manifest.rows}
    assert found == set(scans[["subject_id", "timepoint", "taken"]].itertuples(index=False, name=None))
    assert set(scans["site"]) == set(SCANNERS)
    for row in manifest.rows:
        assert Path(row.path).is_relative_to(written[0] / row.subject_id / f"{row.study_date}")


def test_voxels_and_regions_come_back(manifest: ImageManifest, drawn: dict[tuple[str, int], Scan]) -> None:
    """The values to the unit, the region to the voxel, so its volume too, and with what scanner it was made."""
    for row in manifest.rows:
        scan = drawn[row.subject_id, row.timepoint or 0]
        scanner = SCANNERS[scan.site]
        volume = read_series(row.path, series_uid=row.series_uid)
        region = read_region(Path(row.region_path or ""), REGION, volume)
        np.testing.assert_array_equal(volume.values, scan.values.astype(np.float64) - 1024)
        np.testing.assert_array_equal(region.mask, scan.mask)
        assert region.volume_ml == pytest.approx(scan.volume_ml)
        assert region.notes == volume.notes == ()
        assert volume.spacing_mm == pytest.approx(scanner.spacing_mm)
        assert (volume.batch.manufacturer, volume.batch.model) == (scanner.manufacturer, scanner.model)
        assert (volume.batch.kernel, volume.batch.slice_thickness_mm) == (scanner.kernel, scanner.spacing_mm[0])


@pytest.mark.parametrize("hospital", ["NO", "HA", "LA"])
def test_simpleitk_sees_the_same_geometry(manifest: ImageManifest, hospital: str) -> None:
    """Size, spacing, origin, direction and voxels."""
    row = of_hospital(manifest, hospital)
    volume = read_series(row.path, series_uid=row.series_uid)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(row.path) if row.n_files > 1 else row.path
    image = sitk.ReadImage(files)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image)
    if affine[2, 2] < 0:  # the frames of the multi-frame file run from the head downwards
        affine[:3, 3] += (len(voxels) - 1) * affine[:3, 2]
        affine[:3, 2] *= -1
        voxels = voxels[::-1]
    np.testing.assert_allclose(affine, volume.affine, atol=1e-3)
    np.testing.assert_array_equal(voxels, volume.values)


def test_highdicom_reads_the_segmentation(manifest: ImageManifest, drawn: dict[tuple[str, int], Scan]) -> None:
    """The segment, voxel by voxel, at the place of its CT, which highdicom reads as one volume too."""
    row = of_hospital(manifest, "HA")
    scan = drawn[row.subject_id, 0]
    segmentation = highdicom.seg.segread(row.region_path)
    found = segmentation.get_volume(segment_numbers=[1], combine_segments=True)
    image = highdicom.imread(row.path).get_volume()
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)
    upwards = -1 if found.affine[2, 0] < 0 else 1
    np.testing.assert_array_equal(found.array[::upwards] == 1, scan.mask)
    np.testing.assert_array_equal(image.array[::upwards], scan.values - 1024.0)
    [reference] = segmentation.ReferencedSeriesSequence
    whole = pydicom.dcmread(row.path)
    assert reference.SeriesInstanceUID == whole.SeriesInstanceUID == row.series_uid
    assert {one.ReferencedSOPInstanceUID for one in reference.ReferencedInstanceSequence} == {whole.SOPInstanceUID}


@pytest.mark.parametrize("hospital", ["NO", "LA"])
def test_contours_lie_on_their_slices(manifest: ImageManifest, hospital: str) -> None:
    """Each names the file of its slice, lies in its plane, and together they enclose the region, by another polygon code."""
    row = of_hospital(manifest, hospital)
    structures = pydicom.dcmread(row.region_path or "")
    slices = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, Path(row.path).iterdir())}
    inside = 0
    for contour in structures.ROIContourSequence[0].ContourSequence:
        own = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        corners = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        x, y, z = own.ImagePositionPatient
        np.testing.assert_allclose(corners[:, 2], z)
        dy, dx = own.PixelSpacing
        grid = np.indices((own.Rows, own.Columns)).reshape(2, -1)[::-1].T
        inside += int(Outline((corners[:, :2] - (x, y)) / (dx, dy)).contains_points(grid).sum())
    region = read_region(Path(row.region_path or ""), REGION, read_series(row.path, series_uid=row.series_uid))
    assert inside == region.mask.sum()


def test_nothing_of_a_patient_but_the_identifier(manifest: ImageManifest) -> None:
    """And no identifier of the prototype from which the bytes were made; instances have UIDs of their own."""
    uids = []
    for path in (path for row in manifest.rows for path in (Path(row.path), Path(row.region_path or ""))):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            dataset = pydicom.dcmread(file)
            assert dataset.PatientName == f"Synthetic^{dataset.PatientID}"
            assert not dataset.PatientBirthDate
            assert not dataset.PatientSex
            assert b"PROTO" not in file.read_bytes()
            assert PROTOTYPE.uid("study").encode() not in file.read_bytes()
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            uids.append(dataset.SOPInstanceUID)
    assert len(set(uids)) == len(uids)
    assert all(uid.is_valid and len(uid) <= 64 for uid in uids)


def test_the_same_seed_gives_the_same_bytes(truth: Truth, written: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    """Every file; another seed gives other images of the same scans."""
    write_images(truth, tmp_path / "again", patients=1)
    write_images(truth, tmp_path / "other", patients=1, seed=8)
    names = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.dcm"))
    assert len({name.parts[0] for name in names}) == len(SCANNERS)
    for name in names:
        content = (tmp_path / "again" / name).read_bytes()
        assert content == (written[0] / name).read_bytes(), name
        if name.name not in ("RTSTRUCT.dcm", "SEG.dcm"):
            assert content != (tmp_path / "other" / name).read_bytes(), name


def test_volumes_are_the_truths_where_they_fit(truth: Truth, drawn: dict[tuple[str, int], Scan]) -> None:
    """To half a voxel; the lesions that outgrow the image are drawn smaller, and are few."""
    told = truth.values.set_axis(truth.decisions["subject_id"])["tumour_volume"]
    first = [scan for (_, timepoint), scan in drawn.items() if timepoint == 0]
    assert {scan.study.subject_id for scan in first} == set(told.index[told.notna()])
    for scan in first:
        voxel = SCANNERS[scan.site].voxel_ml
        meant = max(told[scan.study.subject_id] * scan.share, 12 * voxel)
        assert abs(scan.volume_ml - meant) <= 0.5001 * voxel
        assert scan.volume_ml == pytest.approx(scan.mask.sum() * voxel)
        edges = (scan.mask[[0, -1]], scan.mask[:, [0, -1]], scan.mask[:, :, [0, -1]])
        assert not any(edge.any() for edge in edges)
    assert np.mean([scan.share < 1 for scan in first]) < 0.2


def test_the_second_scan_says_what_became_of_the_lesion(truth: Truth, drawn: dict[tuple[str, int], Scan]) -> None:
    """It is made on the day of the report's measurement, before the assessment; volumes go as RECIST says, and differ."""
    outcomes = truth.outcomes.set_axis(truth.decisions["subject_id"])
    days = {name: _report_days(truth, name) for name in outcomes.index}
    ratios: dict[str, list[float]] = {}
    for (subject, timepoint), scan in drawn.items():
        assert f"{scan.study.taken:%Y-%m-%d}" == days[subject][timepoint]
        if timepoint == 1:
            ratio = scan.volume_ml / drawn[subject, 0].volume_ml
            ratios.setdefault(outcomes["recist"][subject], []).append(ratio)
    assert "NE" not in ratios
    typical = {level: float(np.median(values)) for level, values in ratios.items()}
    assert typical["CR"] < typical["PR"] < 0.34 < typical["SD"] < 1 < typical["PD"]
    # 30 % less or 20 % more of a diameter are a volume of 0.34 or 1.73.
    assert np.mean(np.array(ratios["PR"]) < 0.45) > 0.9
    assert np.mean(np.array(ratios["SD"]) > 0.45) > 0.95
    assert np.std(np.log(ratios["SD"])) > 0.1


def _report_days(truth: Truth, subject: str) -> list[str]:
    """Days on which the hospital's report tells the volume of the lesion, the earliest first."""
    row = int(np.flatnonzero(truth.decisions["subject_id"] == subject)[0])
    told = observations(*(table.iloc[row].to_dict() for table in (truth.decisions, truth.values, truth.outcomes)))
    codes = [(one["code"]["coding"][0]["code"], one["effectiveDateTime"][:10]) for one in told]
    return sorted(day for code, day in codes if code == "tumour-volume")


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_enclose_the_mask(plane: np.ndarray) -> None:
    """By counting crossings of a ray, for any mask: with holes, islands and corners that touch."""
    crossings = np.zeros(plane.shape, dtype=int)
    for loop in outlines(plane):
        for (row, column), (next_row, next_column) in _edges(loop):
            assert (row == next_row) != (column == next_column)
            if column == next_column:
                low, high = sorted((row, next_row))
                crossings[low:high, :column] += 1
    np.testing.assert_array_equal(crossings % 2 == 1, plane)


def _edges(loop: list[tuple[int, int]]) -> Iterable[tuple[tuple[int, int], tuple[int, int]]]:
    return zip(loop, [*loop[1:], loop[0]], strict=True)


def test_a_value_that_does_not_fit_the_template_is_refused() -> None:
    scanner = SCANNERS["Northfield"]
    values = np.arange(np.prod(scanner.shape), dtype=np.uint16).reshape(scanner.shape)
    template = prototype_template(ct_slices(scanner, PROTOTYPE, values)[0], values[0].tobytes())
    study = Study("NO-123456", PROTOTYPE.taken)
    with pytest.raises(ImageError, match="subject has 9 bytes where the template has room for 8"):
        template.fill(study.fields | study.instances(1) | {"pixels": values[0].tobytes()})
