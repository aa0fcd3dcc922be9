"""Habitats of images: maps found and brought onto one grid, planted parts recovered, other sites without a say in the fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from theracast_data.dicom.manifest import scan_folder
from theracast_data.errors import ImageError, StudyError
from theracast_data.events.store import EventStore
from theracast_features.events.images import ImageBuilder
from theracast_features.imaging.extraction import extract_images, measure_image, read_image, stability_of_images
from theracast_features.imaging.habitat_fit import FittedFolder, fit_image_habitats
from theracast_features.imaging.habitat_maps import RegionMaps, maps_of_region, measure_habitats, perturbed_habitats
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.perturb import Perturbation
from theracast_features.imaging.section import ImageFeatures, ImageMeasures
from theracast_features.imaging.tasks import ImageTask, image_tasks

Write = Callable[..., Path]
FRAME, OTHER_FRAME = "1.2.826.0.1.3680043.8.498.7001", "1.2.826.0.1.3680043.8.498.7002"
BOX = ((1, 4), (2, 6), (3, 8))
SHAPE = (6, 8, 10)
VOXEL_ML = 2.5 * 1.5 * 1.25 / 1000
SUV_PER_STORED = 70e3 / (3.7e8 * 0.5 ** (3600 / 6586.2))
MAPS: dict[str, Any] = {"suv": {"modality": "PT", "suv": "bw"}, "hu": {"modality": "CT"}}
CT = ImageMeasures(modality="CT", regions=("GTV",), habitats={"maps": MAPS, "counts": (2,)})


def write_patient(
    folder: Path,
    write_scan: Write,
    patient: str,
    *,
    split: int = 5,
    day: str = "20240110",
    hot: float = 8.0,
    pet: bool = True,
    **pet_elements: Any,
) -> None:
    """Write CT and PET; from column `split` on the tumour is dense and takes up much, before it neither."""
    draw = np.random.default_rng(int(patient[1:]) + int(day))
    late = np.arange(SHAPE[2]) >= split
    hu = np.where(late, 60.0, 20.0) + draw.normal(0, 2, SHAPE)
    suv = np.where(late, hot, 2.0) + draw.normal(0, 0.05, SHAPE)
    name = f"{patient}-{day}"
    common = {"patient": patient, "day": day, "FrameOfReferenceUID": FRAME}
    stored = (hu + 1024).round().astype(np.uint16)
    write_scan(folder, name=f"{name}-ct", regions={"GTV": BOX}, values=stored, **common)
    if pet:
        activity = (suv / SUV_PER_STORED).round().astype(np.uint16)
        elements = {"values": activity, "slope": 1.0, "intercept": 0.0, "bits": 16} | common | pet_elements
        write_scan(folder, name=f"{name}-pet", kind="PT", **elements)


def fitted(measures: ImageMeasures, found: FittedFolder) -> ImageMeasures:
    """Return the measures with what was learnt."""
    assert measures.habitats is not None
    numbers = found.habitats.to_json() | {"settings": measures.habitats_digest}
    return with_habitats(measures, fitted=numbers)


def with_habitats(measures: ImageMeasures, **changes: Any) -> ImageMeasures:
    content = measures.model_dump()
    return ImageMeasures.model_validate(content | {"habitats": content["habitats"] | changes})


def fit(folder: Path, *patients: str, measures: ImageMeasures = CT) -> FittedFolder:
    return fit_image_habitats(folder, "ct", measures, patients=patients, rng=np.random.default_rng(1))


def tasks_of(folder: Path, measures: ImageMeasures) -> list[ImageTask]:
    tasks, faults = image_tasks(scan_folder(folder).rows, {"ct": measures})
    assert faults == []
    return tasks


def maps_in(folder: Path, measures: ImageMeasures = CT) -> RegionMaps:
    [task] = tasks_of(folder, measures)
    return maps_in_box(task)


@pytest.fixture
def folder(tmp_path: Path, write_scan: Write) -> Path:
    """Three patients, in whom 2, 3 and 1 of the 5 columns of the tumour are of the first habitat."""
    for patient, split in (("P1", 5), ("P2", 6), ("P3", 4)):
        write_patient(tmp_path / "images", write_scan, patient, split=split)
    return tmp_path / "images"


def test_planted_habitats_are_recovered(folder: Path) -> None:
    found = fit(folder, "P1", "P2", "P3")
    np.testing.assert_allclose(found.habitats.levels, [[2, 20], [8, 60]], rtol=0.05)
    assert (found.others, found.faults) == (0, ())
    measures = fitted(CT, found)
    for task, part in zip(tasks_of(folder, measures), (0.4, 0.6, 0.2), strict=True):
        measured = measure_image(task)
        values = measured.values
        assert measured.fault == ""
        assert list(values) != []
        assert values["habitat_1_fraction"] == pytest.approx(part)
        assert values["habitat_1_ml"] == pytest.approx(60 * part * VOXEL_ML)
        assert values["habitat_2_ml"] == pytest.approx(60 * (1 - part) * VOXEL_ML)
        assert values["habitat_1_mean_suv"] == pytest.approx(2, abs=0.05)
        assert values["habitat_2_mean_hu"] == pytest.approx(60, abs=2)
        assert values["habitat_entropy"] == pytest.approx(-sum(p * math.log2(p) for p in (part, 1 - part)))
        # One plane of 3 x 4 voxels parts the habitats, among the pairs that share a face in a box of 3 x 4 x 5.
        pairs = 2 * 4 * 5 + 3 * 3 * 5 + 3 * 4 * 4
        assert values["habitat_mixing"] == values["habitat_contact_1_2"] == pytest.approx(12 / pairs)
        assert values["habitat_missing_fraction"] == 0
        assert set(values) == set(meanings(measures))


def test_meanings_tell_what_is_typical_of_a_habitat_and_its_units(folder: Path) -> None:
    told = meanings(fitted(CT, fit(folder, "P1", "P2", "P3")))
    assert told["habitat_1_ml"].unit == "mL"
    assert told["habitat_2_mean_suv"].unit == "g/mL"
    assert told["habitat_2_mean_hu"].unit == "[hnsf'U]"
    assert "habitat 1 (suv about 2" in told["habitat_1_fraction"].label


def test_a_habitat_that_does_not_occur_has_no_mean(folder: Path, write_scan: Write, tmp_path: Path) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    write_patient(tmp_path / "one", write_scan, "P4", split=0)
    values = measure_image(*tasks_of(tmp_path / "one", measures)).values
    assert (values["habitat_1_fraction"], values["habitat_1_ml"]) == (0, 0)
    assert math.isnan(values["habitat_1_mean_suv"])


def test_patients_who_do_not_develop_the_model_have_no_say(folder: Path, write_scan: Write) -> None:
    before = fit(folder, "P1", "P2")
    assert (before.others, before.habitats.patients) == (1, 2)
    write_patient(folder, write_scan, "P3", split=4, hot=60.0)
    write_patient(folder, write_scan, "P4", split=4, hot=1.0)
    after = fit(folder, "P1", "P2")
    assert after.habitats.to_json() == before.habitats.to_json()
    assert after.others == 2
    everybody = fit(folder, "P1", "P2", "P3")
    assert everybody.habitats.to_json() != before.habitats.to_json()


def test_the_earliest_image_of_a_patient_takes_part(folder: Path, write_scan: Write) -> None:
    before = fit(folder, "P1", "P2")
    write_patient(folder, write_scan, "P1", day="20240401", hot=30.0)
    assert fit(folder, "P1", "P2").habitats.to_json() == before.habitats.to_json()


def test_a_fit_needs_two_patients_and_a_section(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"at least 2 development patients, and 1 could be read \(2 others"):
        fit(folder, "P1")
    with pytest.raises(StudyError, match="no `habitats`"):
        fit(folder, "P1", "P2", measures=ImageMeasures(modality="CT"))


def test_a_map_on_another_grid_lies_over_the_image(tmp_path: Path, write_scan: Write) -> None:
    """A coronal MR whose intensity is a linear function of the place gives that function at the voxels of the CT."""
    write_patient(tmp_path, write_scan, "P1", pet=False)
    origin, spacing = np.array([-20.0, -40.0, 70.0]), (3.0, 2.5, 2.0)
    n, row, column = np.indices((16, 24, 24))
    # Rows run to the left, columns to the feet, slices along their cross product, to the back.
    x, y, z = origin[0] + spacing[2] * column, origin[1] + spacing[0] * n, origin[2] - spacing[1] * row
    write_scan(
        tmp_path,
        name="mr",
        kind="MR",
        values=(2000 + 9 * x + 5 * y - 7 * z).round().astype(np.uint16),
        origin=tuple(origin),
        spacing=spacing,
        orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        bits=16,
        FrameOfReferenceUID=FRAME,
    )
    maps = maps_in(tmp_path, with_habitats(CT, maps={"hu": {"modality": "CT"}, "t1": {"modality": "MR"}}))
    at_z, at_y, at_x = (index.astype(float) for index in np.indices((3, 4, 5)))
    place = (-10 + 1.25 * (at_x + 3), -20 + 1.5 * (at_y + 2), 30 + 2.5 * (at_z + 1))
    np.testing.assert_allclose(maps.values["t1"], 2000 + 9 * place[0] + 5 * place[1] - 7 * place[2], atol=0.6)
    assert "map t1: resampled to the grid of the image" in maps.notes


def test_a_voxel_stands_for_all_of_its_volume(tmp_path: Path, write_scan: Write) -> None:
    """A map three times as fine, with a bright stripe beside every voxel's centre, is not read at the centres alone."""
    write_patient(tmp_path, write_scan, "P1", pet=False)
    fine = np.broadcast_to(np.where(np.arange(30) % 3 == 2, 300, 0), (6, 8, 30)).astype(np.uint16)
    third = 1.25 / 3
    common = {"FrameOfReferenceUID": FRAME, "origin": (-10 - third, -20.0, 30.0), "spacing": (2.5, 1.5, third)}
    write_scan(tmp_path, name="mr", kind="MR", values=fine, **common)
    maps = maps_in(tmp_path, with_habitats(CT, maps={"hu": {"modality": "CT"}, "t1": {"modality": "MR"}}))
    np.testing.assert_allclose(maps.values["t1"], 100, atol=12)


def test_a_coarse_map_gives_nearly_the_same_parts(folder: Path, tmp_path: Path, write_scan: Write) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    coarse = np.where(np.arange(5) >= 3, 8.0, 2.0) / SUV_PER_STORED * np.ones((6, 4, 5))
    elements = {
        "values": coarse.round().astype(np.uint16),
        "spacing": (2.5, 3.0, 2.5),
        "origin": (-10 + 0.625, -20 + 0.75, 30.0),
    }
    write_patient(tmp_path / "coarse", write_scan, "P5", split=6, **elements)
    found = measure_image(*tasks_of(tmp_path / "coarse", measures))
    assert found.fault == ""
    assert found.values["habitat_1_fraction"] == pytest.approx(0.6)
    assert "map suv: resampled to the grid of the image" in found.notes


def test_a_map_that_leaves_part_of_the_region_open_is_told(folder: Path, tmp_path: Path, write_scan: Write) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    write_patient(tmp_path / "one", write_scan, "P5", values=np.full((3, 8, 10), 9000, dtype=np.uint16))
    [task] = tasks_of(tmp_path / "one", measures)
    assert "only 67% of the region has a number in every map (suv 67%, hu 100%)" in measure_image(task).fault
    [task] = tasks_of(tmp_path / "one", with_habitats(measures, covered=0.5))
    assert measure_image(task).values["habitat_missing_fraction"] == pytest.approx(1 / 3)


def test_another_frame_of_reference_is_told(tmp_path: Path, write_scan: Write) -> None:
    write_patient(tmp_path, write_scan, "P1", FrameOfReferenceUID=OTHER_FRAME)
    with pytest.raises(ImageError, match=r"map suv, .* does not share the frame of reference .* `registration: rigid`"):
        maps_in(tmp_path)


def test_a_missing_or_ambiguous_map_is_told_and_the_others_are_measured(folder: Path, write_scan: Write) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    write_patient(folder, write_scan, "P4", pet=False)
    write_patient(folder, write_scan, "P5")
    write_scan(folder, patient="P5", name="P5-late", kind="PT", intercept=0.0, description="late")
    tasks, faults = image_tasks(scan_folder(folder).rows, {"ct": measures})
    assert [task.row.subject_id for task in tasks] == ["P1", "P2", "P3"]
    assert len(faults) == 2
    assert "P4" in faults[0]
    assert "map suv: the study has no PT series that fits *" in faults[0]
    assert "P5" in faults[1]
    assert "map suv: 2 series of the study fit" in faults[1]
    assert "features.images.ct.habitats.maps.suv" in faults[1]
    narrow = with_habitats(CT, maps=MAPS | {"suv": {"modality": "PT", "series": "chest"}})
    tasks, faults = image_tasks(scan_folder(folder).rows, {"ct": narrow})
    assert [task.row.subject_id for task in tasks] == ["P1", "P2", "P3", "P5"]


def test_the_image_itself_is_its_own_map(folder: Path, write_scan: Write) -> None:
    write_scan(folder, patient="P1", name="P1-scout", FrameOfReferenceUID=FRAME, description="scout")
    task = tasks_of(folder, CT)[0]
    assert dict(task.maps)["hu"].series_uid == task.row.series_uid


def test_relative_scale_takes_the_level_of_a_scanner_out(tmp_path: Path, write_scan: Write) -> None:
    draw = np.random.default_rng(3).integers(100, 900, SHAPE).astype(np.uint16)
    found = []
    for number, values in enumerate((draw, draw * 3 + 50)):
        own = tmp_path / str(number)
        write_patient(own, write_scan, "P1", pet=False)
        write_scan(own, name="mr", kind="MR", values=values, FrameOfReferenceUID=FRAME)
        maps = {"hu": {"modality": "CT"}, "t1": {"modality": "MR", "scale": "region"}}
        found.append(maps_in(own, with_habitats(CT, maps=maps)).values["t1"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    assert found[0].std() == pytest.approx(1)


def _phantom(shift_mm: float = 0.0) -> np.ndarray:
    """Return a body with organs on a grid of (3, 2, 2) mm, moved along x."""
    z, y, x = (index * step for index, step in zip(np.indices((18, 36, 36)), (3.0, 2.0, 2.0), strict=True))
    x = x - shift_mm
    body = ((z - 27) / 24) ** 2 + ((y - 35) / 28) ** 2 + ((x - 35) / 24) ** 2 < 1
    organs = [(20, 30, 26, 8, 300), (34, 42, 44, 7, -250), (30, 24, 40, 5, 500)]
    found = np.where(body, 1000.0, 100.0)
    for cz, cy, cx, radius, more in organs:
        found += more * np.exp(-((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) / (2 * radius**2))
    return found


@pytest.mark.parametrize("moved", [True, False])
def test_a_map_of_another_session_is_registered_or_refused(tmp_path: Path, write_scan: Write, moved: bool) -> None:
    geometry = {"spacing": (3.0, 2.0, 2.0), "bits": 16}
    region = {"GTV": ((5, 12), (12, 24), (12, 24))}
    draw = np.random.default_rng(5)
    ct = _phantom().round().astype(np.uint16)
    mr = 3000 - 2 * _phantom(8.0) if moved else draw.integers(0, 2000, ct.shape)
    write_scan(tmp_path, name="ct", values=ct, regions=region, FrameOfReferenceUID=FRAME, **geometry)
    stored = np.clip(mr, 0, 60000).round().astype(np.uint16)
    write_scan(tmp_path, name="mr", kind="MR", values=stored, FrameOfReferenceUID=OTHER_FRAME, **geometry)
    rigid = {"hu": {"modality": "CT"}, "t1": {"modality": "MR", "registration": "rigid"}}
    measures = with_habitats(CT, maps=rigid)
    if not moved:
        with pytest.raises(ImageError, match=r"map t1, .* the rigid registration is refused: .* Leave the image out"):
            maps_in(tmp_path, measures)
        return
    maps = maps_in(tmp_path, measures)
    [note] = [note for note in maps.notes if "registered" in note]
    assert "moves by 8." in note or "moves by 7." in note
    truth = np.clip(3000 - 2 * _phantom(), 0, None)[5:12, 12:24, 12:24]
    assert np.abs(maps.values["t1"] - truth).mean() < 0.1 * np.abs(truth - truth.mean()).mean() + 20


def test_not_fitted_is_an_error_that_names_the_command(folder: Path, tmp_path: Path) -> None:
    store = EventStore.create(tmp_path / "store", shards=1)
    for told in (
        lambda: extract_images(folder, {"ct": CT}, store=store, now=datetime.now(UTC)),
        lambda: ImageBuilder("ct", ImageFeatures(**dict(CT))),
    ):
        with pytest.raises(StudyError, match="theracast images habitats"):
            told()


def test_habitats_enter_the_digest_and_fits_of_other_maps_are_refused(folder: Path) -> None:
    one, two = fitted(CT, fit(folder, "P1", "P2")), fitted(CT, fit(folder, "P2", "P3"))
    plain = ImageMeasures(modality="CT", regions=("GTV",))
    assert len({plain.digest, CT.digest, one.digest, two.digest}) == 4
    assert CT.habitats_digest == one.habitats_digest == CT.model_copy(update={"intensity": True}).habitats_digest
    assert with_habitats(CT, counts=(3,)).habitats_digest != CT.habitats_digest
    assert CT.model_copy(update={"regions": ("Lung",)}).habitats_digest != CT.habitats_digest
    with pytest.raises(ValidationError, match=r"fitted for the maps suv, hu; those of the study are suv, density"):
        with_habitats(one, maps={"suv": MAPS["suv"], "density": MAPS["hu"]})
    assert one.habitats is not None
    numbers = one.habitats.model_dump()["fitted"]
    for wrong in ({"centre": (1.0,)}, {"weights": (0.5, 0.5)}, {"centroids": ((1.0, 2.0), (1.0,))}):
        with pytest.raises(ValidationError, match="the numbers are not those of"):
            with_habitats(one, fitted=numbers | wrong)
    with pytest.raises(ValidationError, match="`suv` is of PET"):
        with_habitats(CT, maps={"suv": {"modality": "CT", "suv": "bw"}, "hu": {"modality": "CT"}})


def test_what_was_fitted_is_the_same_after_json(folder: Path) -> None:
    section = with_habitats(CT, method="gaussian", counts=(2, 3))
    measures = fitted(section, fit(folder, "P1", "P2", "P3", measures=section))
    again = ImageMeasures.model_validate_json(measures.model_dump_json())
    assert again == measures
    assert again.digest == measures.digest
    assert again.fitted_habitats is not None
    assert again.fitted_habitats.habitats.covariances is not None
    [first, *_], [second, *_] = (tasks_of(folder, one) for one in (measures, again))
    assert measure_image(first).values == measure_image(second).values


def test_the_cache_knows_changed_maps(folder: Path, tmp_path: Path, write_scan: Write) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    first = measure_image(tasks_of(folder, measures)[0], tmp_path)
    write_patient(folder, write_scan, "P1", split=7)
    again = measure_image(tasks_of(folder, measures)[0], tmp_path)
    assert (first.values["habitat_1_fraction"], again.values["habitat_1_fraction"]) == pytest.approx((0.4, 0.8))


def test_changes_between_scans_are_features(folder: Path, tmp_path: Path, write_scan: Write) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    write_patient(folder, write_scan, "P1", split=7, day="20240210")
    store = EventStore.create(tmp_path / "store", shards=1)
    report = extract_images(folder, {"ct": measures}, store=store, now=datetime.now(UTC))
    assert (report.measured, report.faults) == (4, [])
    section = ImageFeatures(**dict(measures), keep=("habitat_1_*",), aggregates=("last", "change", "relative_change"))
    asked = pd.DataFrame(
        {
            "subject_id": ["P1", "P1"],
            "index_time": pd.to_datetime(["2024-02-01", "2024-03-01"]).astype("datetime64[us]"),
        }
    )
    table = ImageBuilder("ct", section).build(store.read_shard(0), asked)
    np.testing.assert_allclose(table["image.ct.habitat_1_fraction.last.all"], [0.4, 0.8])
    np.testing.assert_allclose(table["image.ct.habitat_1_fraction.change.all"], [np.nan, 0.4])
    np.testing.assert_allclose(table["image.ct.habitat_1_ml.relative_change.all"], [np.nan, 1.0])


def test_habitats_have_a_stability(folder: Path, write_scan: Write) -> None:
    """Parts of a box differ more between patients than with its edges; all have the habitats of the unchanged region."""
    for number, split in enumerate((3, 4, 7, 8), start=4):
        write_patient(folder, write_scan, f"P{number}", split=split)
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    found = stability_of_images(folder, "ct", measures, patients=7, rng=np.random.default_rng(1))
    by_name = {one.feature: one for one in found}
    assert set(by_name) == set(meanings(measures))
    assert by_name["habitat_1_fraction"].patients == 7
    assert by_name["habitat_1_fraction"].icc > 0.8
    with pytest.raises(StudyError, match="theracast images habitats"):
        stability_of_images(folder, "ct", CT, patients=7, rng=np.random.default_rng(1))


def test_perturbed_habitats_are_those_of_the_changed_region(folder: Path) -> None:
    measures = fitted(CT, fit(folder, "P1", "P2", "P3"))
    task = tasks_of(folder, measures)[0]
    volume, region = read_image(task)
    wide = maps_of_region(task, volume, region, margin=10)
    changes = (Perturbation("original"), Perturbation("grow 1", grow_voxels=1), Perturbation("noise", noise_levels=1.0))
    found = perturbed_habitats(wide, measures, changes)
    assert found["original"] == measure_habitats(maps_in_box(task), measures)
    # Grown by the voxels that share a face: 3 x 4 x 7 with two of its columns added, and so on along the other axes.
    low = 3 * 4 * 3 + 2 * (4 * 2 + 3 * 2)  # columns 2 to 4, and the faces across of columns 3 and 4
    high = 3 * 4 * 4 + 2 * (4 * 3 + 3 * 3)
    assert found["grow 1"]["habitat_1_fraction"] == pytest.approx(low / (low + high))
    assert found["noise"]["habitat_1_fraction"] == found["original"]["habitat_1_fraction"]
    assert found["noise"]["habitat_1_mean_hu"] != found["original"]["habitat_1_mean_hu"]


def maps_in_box(task: ImageTask) -> RegionMaps:
    return maps_of_region(task, *read_image(task))


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_real_patients(shared_imaging: Path, modality: str) -> None:
    """Soft-tissue sarcoma (TCIA): PET and CT of one session, the region drawn on either."""
    measures = ImageMeasures(modality=modality, habitats={"maps": MAPS, "counts": (2,)})
    sts = shared_imaging / "sts"
    found = fit_image_habitats(sts, "ct", measures, patients=("STS_008", "STS_025"), rng=np.random.default_rng(1))
    assert found.faults == ()
    cold, hot = found.habitats.levels
    assert cold[0] < hot[0]
    for task in tasks_of(sts, fitted(measures, found)):
        values = measure_image(task).values
        assert values["habitat_1_ml"] + values["habitat_2_ml"] == pytest.approx(values["volume_ml"])
        assert values["habitat_1_mean_suv"] < values["habitat_2_mean_suv"]
        assert values["habitat_missing_fraction"] == 0


@pytest.mark.slow
def test_a_real_map_of_another_session_is_refused(shared_imaging: Path) -> None:
    """The MR of the same patients was made in another session, and its file says that it shares the frame of reference."""
    maps = {"suv": MAPS["suv"], "t1": {"modality": "MR", "scale": "region", "registration": "rigid"}}
    measures = ImageMeasures(modality="PT", habitats={"maps": maps})
    for task in tasks_of(shared_imaging / "sts", measures):
        with pytest.raises(
            ImageError, match=r"map t1, .* the rigid registration is refused: .*there and back again ends"
        ):
            maps_in_box(task)
