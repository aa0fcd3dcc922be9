"""From DICOM folders to events: one damaged series among many, what is measured already, and many processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_data.dicom.manifest import scan_folder
from theracast_data.errors import ImageError
from theracast_data.events.store import EventStore
from theracast_features.imaging.extraction import (
    ExtractionReport,
    extract_images,
    measure_image,
    measure_images,
    read_image,
    stability_of_images,
)
from theracast_features.imaging.patch import cut_patch, decode_patch
from theracast_features.imaging.section import ImageMeasures, Patch
from theracast_features.imaging.tasks import ImageTask, image_tasks

Write = Callable[..., Path]
NOW = datetime(2025, 1, 1, tzinfo=UTC)
CT = ImageMeasures(modality="CT", regions=("GTV*",), intensity=True)
BOX = ((1, 4), (2, 6), (3, 8))
SMALL = ((4, 6), (6, 7), (1, 3))
VOXEL_ML = 2.5 * 1.5 * 1.25 / 1000


def tasks_of(folder: Path, measures: ImageMeasures = CT) -> list[ImageTask]:
    tasks, faults = image_tasks(scan_folder(folder).rows, {"ct": measures})
    assert faults == []
    return tasks


def extract(folder: Path, store: Path, images: dict[str, ImageMeasures] | None = None, **more: Any) -> ExtractionReport:
    opened = EventStore.open(store) if store.exists() else EventStore.create(store, shards=2)
    return extract_images(folder, images or {"ct": CT}, store=opened, now=NOW, **more)


def events_of(store: Path) -> pd.DataFrame:
    opened = EventStore.open(store)
    shards = [opened.read_shard(shard).to_pandas() for shard in range(opened.shard_count)]
    return pd.concat(shards).sort_values(["subject_id", "code"]).reset_index(drop=True)


@pytest.fixture
def folder(tmp_path: Path, write_scan: Write) -> Path:
    """Three patients with one CT each, of which P2's has lost the pixels of a slice."""
    target = tmp_path / "images"
    for patient in ("P1", "P2", "P3"):
        write_scan(target, patient=patient, name=patient, regions={"GTV": BOX, "Lung": SMALL})
    damaged = next(iter(sorted((target / "P2" / "image").iterdir())))
    damaged.write_bytes(damaged.read_bytes()[:-60])
    return target


def test_a_damaged_series_is_told_and_the_others_are_measured(folder: Path, tmp_path: Path) -> None:
    report = extract(folder, tmp_path / "store")
    assert (report.measured, report.known) == (2, 0)
    assert len(report.faults) == 1
    assert "ct: patient P2" in report.faults[0]
    assert "truncated" in report.faults[0]
    assert report.to_text().startswith("2 images measured")
    assert "not measured: ct: patient P2" in report.to_text()
    events = events_of(tmp_path / "store")
    assert set(events["subject_id"]) == {"P1", "P3"}
    assert report.events == len(events)
    own = events[events["subject_id"] == "P1"]
    own = own.set_index(own["code"].str.split("//").str[2])
    assert own.loc["volume_ml", "numeric_value"] == pytest.approx(3 * 4 * 5 * VOXEL_ML)
    assert own.loc["volume_ml", "time"] == pd.Timestamp("2024-01-10 10:15")
    assert own.loc["scanner", "text_value"] == "Maker | Model | SOFT | 2.5 mm"


def test_the_intensities_are_those_of_the_voxels_in_the_box(tmp_path: Path, write_scan: Write) -> None:
    values = np.random.default_rng(4).integers(0, 4096, (6, 8, 10), dtype=np.uint16)
    write_scan(tmp_path, regions={"GTV": BOX}, values=values)
    found = measure_image(*tasks_of(tmp_path))
    inside = values[1:4, 2:6, 3:8].astype(float) - 1024
    assert found.values["intensity_mean"] == pytest.approx(inside.mean())
    assert found.values["intensity_max"] == inside.max()


def test_a_picture_of_the_region_is_one_more_event(folder: Path, tmp_path: Path) -> None:
    pictured = CT.model_copy(update={"patch": Patch(voxels=8, spacing_mm=2.0, window=(-1024, 3071))})
    extract(folder, tmp_path / "plain")
    for number, cache in enumerate((None, tmp_path / "cache", tmp_path / "cache")):  # computed, kept, and found again
        store = tmp_path / f"store-{number}"
        report = extract(folder, store, {"ct": pictured}, cache=cache)
        assert report.events == len(events_of(tmp_path / "plain")) + 2
        events = events_of(store)
        own = events[events["code"].str.endswith("//patch")]
        assert own["subject_id"].tolist() == ["P1", "P3"]
        assert own["numeric_value"].isna().all()
        volume, region = read_image(tasks_of(folder, pictured)[0])
        expected = cut_patch(volume.values, region.mask, spacing_mm=volume.spacing_mm, patch=pictured.patch)
        np.testing.assert_array_equal(decode_patch(own["text_value"].iloc[0]), expected)
        assert expected[1].any()


def test_measured_again_is_passed_over_and_new_images_are_added(
    folder: Path, tmp_path: Path, write_scan: Write
) -> None:
    store = tmp_path / "store"
    extract(folder, store)
    before = events_of(store)
    sources = len(EventStore.open(store).manifest["sources"])
    again = extract(folder, store)
    assert (again.measured, again.known, again.events) == (0, 2, 0)
    assert len(again.faults) == 1  # the damaged one is tried again, and nothing is written
    assert len(EventStore.open(store).manifest["sources"]) == sources
    pd.testing.assert_frame_equal(events_of(store), before)
    write_scan(folder, patient="P1", day="20240301", name="later", regions={"GTV": SMALL})
    later = extract(folder, store)
    assert (later.measured, later.known) == (1, 2)
    assert len(events_of(store)) == len(before) + later.events


def test_other_settings_are_measured_beside_the_first(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    extract(folder, store)
    other = CT.model_copy(update={"regions": ("Lung",)})
    report = extract(folder, store, {"ct": other})
    assert (report.measured, report.known) == (2, 0)
    codes = events_of(store)["code"].str.split("//").str[1].unique()
    assert set(codes) == {f"ct-{CT.digest}", f"ct-{other.digest}"}


def test_nothing_that_can_be_measured_writes_nothing(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path / "images", regions={"GTV-1": BOX, "GTV-2": SMALL})
    report = extract(tmp_path / "images", tmp_path / "store")
    assert report.measured == 0
    assert "2 regions fit (GTV-1, GTV-2). Name one in `regions`, or say `several: union` or `largest`." in str(
        report.faults
    )
    assert EventStore.open(tmp_path / "store").manifest["sources"] == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        extract(tmp_path / "images", tmp_path / "store")


def test_several_regions_as_one_or_the_largest(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, regions={"GTV-1": BOX, "GTV-2": SMALL})
    volumes = {}
    for several in ("union", "largest"):
        found = measure_image(*tasks_of(tmp_path, CT.model_copy(update={"several": several})))
        assert found.fault == ""
        volumes[several] = found.values["volume_ml"]
    assert volumes == {"union": pytest.approx(64 * VOXEL_ML), "largest": pytest.approx(60 * VOXEL_ML)}


def test_overlapping_regions_count_a_voxel_once(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, regions={"GTV-1": BOX, "GTV-2": ((1, 4), (2, 6), (3, 9))})
    _, region = read_image(*tasks_of(tmp_path, CT.model_copy(update={"several": "union"})))
    assert region.mask.sum() == 3 * 4 * 6


def test_a_series_without_time_of_the_day_is_known_at_the_end_of_its_day(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, regions={"GTV": BOX}, clock=None)
    found = measure_image(*tasks_of(tmp_path))
    assert found.date_only
    assert set(found.events().column("available_time").to_pylist()) == {
        datetime.fromisoformat("2024-01-10T23:59:59.999999")
    }


def test_an_image_without_any_date_is_refused(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, regions={"GTV": BOX}, clock=None, study="s", StudyDate="", SeriesDate="", AcquisitionDate="")
    assert "neither the series nor the study says when it was made" in measure_image(*tasks_of(tmp_path)).fault


def test_a_scanner_that_is_not_named_is_not_known(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, regions={"GTV": BOX}, Manufacturer="", ManufacturerModelName="")
    assert measure_image(*tasks_of(tmp_path)).scanner == ""


def test_pet_is_measured_in_suv(tmp_path: Path, write_scan: Write) -> None:
    values = np.full((6, 8, 10), 100, dtype=np.uint16)
    values[2, 3, 4] = 3500
    # Activity x weight / dose, decayed over an hour.
    write_scan(tmp_path, kind="PT", regions={"GTV": BOX}, values=values, slope=4.0, intercept=0.0)
    measures = ImageMeasures(modality="PT", regions=("GTV",), uptake={})
    [found] = measure_images(tasks_of(tmp_path, measures))
    assert found.fault == ""
    decayed = 3.7e8 * 0.5 ** (3600 / 6586.2)
    assert found.values["suv_max"] == pytest.approx(14000 * 70e3 / decayed, rel=1e-6)
    assert found.values["mtv_ml.suv_2_5"] == pytest.approx(VOXEL_ML)
    assert np.isnan(found.values["suv_mean.suv_4_0"])


def test_what_the_cache_holds_is_the_same_and_is_not_measured_again(
    tmp_path: Path, write_scan: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    write_scan(folder, regions={"GTV": BOX})
    [task] = tasks_of(folder)
    [first] = measure_images([task], cache=cache)
    [kept] = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("theracast_features.imaging.extraction._measure", _never)
        [second] = measure_images([task], cache=cache)
    assert second.events().equals(first.events())
    kept.write_text(kept.read_text()[:40])
    with caplog.at_level(logging.WARNING):
        assert measure_image(task, cache).events().equals(first.events())
    assert "damaged file of the cache" in caplog.text
    assert json.loads(kept.read_text())["values"]["volume_ml"] == first.values["volume_ml"]


def _never(task: ImageTask) -> None:
    raise AssertionError("measured again")


def test_the_cache_knows_changed_pixels_regions_and_settings(tmp_path: Path, write_scan: Write) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    write_scan(folder, regions={"GTV": BOX})
    first = measure_images(tasks_of(folder), cache=cache)
    [before] = [found.values for found in first]
    write_scan(folder, regions={"GTV": SMALL})
    [drawn] = [found.values for found in measure_images(tasks_of(folder), cache=cache)]
    assert drawn["volume_ml"] == pytest.approx(4 * VOXEL_ML)
    write_scan(folder, regions={"GTV": BOX}, intercept=-1000.0)
    [brighter] = [found.values for found in measure_images(tasks_of(folder), cache=cache)]
    assert brighter["intensity_mean"] == pytest.approx(before["intensity_mean"] + 24)
    other = tasks_of(folder, CT.model_copy(update={"size": False}))
    [less] = [found.values for found in measure_images(other, cache=cache)]
    assert "volume_ml" not in less
    assert len(list(cache.iterdir())) == 4


def test_faults_are_not_kept(folder: Path, tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path / "one", regions={"GTV-1": BOX, "GTV-2": SMALL})
    [found] = measure_images(tasks_of(tmp_path / "one"), cache=tmp_path / "cache")
    assert found.fault
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_is_gone_is_a_fault_of_its_image_alone(tmp_path: Path, write_scan: Write) -> None:
    write_scan(tmp_path, patient="P1", name="P1", regions={"GTV": BOX})
    write_scan(tmp_path, patient="P2", name="P2", regions={"GTV": BOX})
    tasks = tasks_of(tmp_path)
    (tmp_path / "P1" / "regions.dcm").unlink()
    told = []
    found = list(
        measure_images(tasks, cache=tmp_path / "cache", progress=lambda done, total: told.append((done, total)))
    )
    assert [bool(one.fault) for one in found] == [True, False]
    assert told == [(1, 2), (2, 2)]


@pytest.mark.slow  # the workers start Python anew
def test_two_processes_give_the_same_events_as_one(folder: Path, tmp_path: Path) -> None:
    one = extract(folder, tmp_path / "one")
    two = extract(folder, tmp_path / "two", jobs=2, cache=tmp_path / "cache")
    assert two.measured == one.measured == 2
    assert sorted(two.faults) == sorted(one.faults)
    pd.testing.assert_frame_equal(events_of(tmp_path / "two"), events_of(tmp_path / "one"))


def test_stability_takes_the_first_readable_image_of_each_patient(
    folder: Path, tmp_path: Path, write_scan: Write
) -> None:
    write_scan(folder, patient="P1", day="20240301", name="later", regions={"GTV": SMALL})
    measures = ImageMeasures(modality="CT", regions=("GTV*",))
    rng = np.random.default_rng(1)
    with pytest.raises(ImageError, match="1 of them could be measured"):
        stability_of_images(folder, "ct", measures, patients=1, rng=rng)
    found = stability_of_images(folder, "ct", measures, patients=5, rng=rng)
    volume = next(one for one in found if one.feature == "volume_ml")
    assert volume.patients + volume.left_out == 2
    with pytest.raises(ImageError, match="no CT series has a region that fits Liver"):
        stability_of_images(folder, "ct", CT.model_copy(update={"regions": ("Liver",)}), patients=5, rng=rng)


def test_real_patients(shared_imaging: Path, tmp_path: Path) -> None:
    """Soft-tissue sarcoma (TCIA): PET of two patients, its region drawn on the PET."""
    images = {"pet": ImageMeasures(modality="PT", several="union", uptake={})}
    report = extract(shared_imaging / "sts", tmp_path / "store", images)
    assert report.faults == []
    assert report.measured == 2
    events = events_of(tmp_path / "store").dropna(subset=["numeric_value"])
    values = events.set_index(["subject_id", events["code"].str.split("//").str[2]])["numeric_value"]
    for patient in ("STS_008", "STS_025"):
        assert 0 < values[patient, "suv_mean"] < values[patient, "suv_max"] < 40
        assert values[patient, "mtv_ml.suv_4_0"] <= values[patient, "mtv_ml.suv_2_5"] <= values[patient, "volume_ml"]
