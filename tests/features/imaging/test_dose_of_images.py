"""Dose in a region as measurements of a study, against a histogram in bins of 1 cGy that a loop fills; and when it is known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from theracast_data.dicom.manifest import read_image_manifest, scan_folder
from theracast_data.events.store import EventStore
from theracast_features.events.images import ImageBuilder
from theracast_features.imaging.extraction import extract_images, measure_image, measure_images, stability_of_images
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.section import ImageFeatures, ImageMeasures
from theracast_features.imaging.tasks import ImageTask, Measured, image_tasks

Write = Callable[..., Path]
BOX = ((1, 4), (2, 6), (3, 8))
ORIGIN, SPACING = (-14.0, -24.0, 26.0), (4.0, 3.0, 2.5)
VOXEL_ML = 2.5 * 1.5 * 1.25 / 1000
DOSE: dict[str, Any] = {"dx_percent": [2, 50, 95], "dx_ml": [0.05], "vx_gy": [20, 24.5], "geud_a": [-10, 8]}
CT = ImageMeasures(modality="CT", regions=("GTV",), dose=DOSE)


def gray(scale: float = 1.0) -> np.ndarray:
    """Return a dose that is no straight line along any axis."""
    z, y, x = np.mgrid[0:6, 0:7, 0:9]
    return np.asarray(scale * (18.0 + 1.3 * z + 0.1 * y * x + 0.05 * x**2))


def at_voxels(dose: np.ndarray) -> list[float]:
    """Return the dose at each voxel of the box, between the eight points around it."""
    found = []
    for plane in range(*BOX[0]):
        for row in range(*BOX[1]):
            for column in range(*BOX[2]):
                place = (30.0 + 2.5 * plane, -20.0 + 1.5 * row, -10.0 + 1.25 * column)
                at = [(here - start) / step for here, start, step in zip(place, ORIGIN[::-1], SPACING, strict=True)]
                low = [int(one) for one in at]
                total = 0.0
                for corner in np.ndindex(2, 2, 2):
                    weight = 1.0
                    for part, base, up in zip(at, low, corner, strict=True):
                        weight *= (part - base) if up else 1 - (part - base)
                    total += weight * float(dose[tuple(base + up for base, up in zip(low, corner, strict=True))])
                found.append(total)
    return found


def by_histogram(doses: list[float]) -> dict[str, float]:
    """Return points of a cumulative histogram in bins of 1 cGy, as planning systems export it."""
    bins = [0] * (int(max(doses) * 100) + 2)
    for one in doses:
        for cgy in range(int(one * 100) + 1):
            bins[cgy] += 1
    share = [100 * count / len(doses) for count in bins]

    def dose_to(percent: float) -> float:
        return max(cgy for cgy, part in enumerate(share) if part >= percent - 1e-9) / 100

    return {
        "dose_gy.d2": dose_to(2),
        "dose_gy.d50": dose_to(50),
        "dose_gy.d95": dose_to(95),
        "dose_gy.d0_05_ml": dose_to(100 * 0.05 / (len(doses) * VOXEL_ML)),
        "dose_percent.v20": share[2000],
        "dose_percent.v24_5": share[2450],
        "dose_gy.min": min(doses),
        "dose_gy.max": max(doses),
        "dose_gy.mean": sum(doses) / len(doses),
        "dose_gy.geud_8": (sum(one**8 for one in doses) / len(doses)) ** (1 / 8),
        "dose_gy.geud_minus_10": (sum(one**-10 for one in doses) / len(doses)) ** (-1 / 10),
    }


def tasks_of(folder: Path, measures: ImageMeasures = CT) -> list[ImageTask]:
    tasks, faults = image_tasks(scan_folder(folder).rows, {"ct": measures})
    assert faults == []
    return tasks


def measured(folder: Path, **dose: Any) -> Measured:
    measures = ImageMeasures(modality="CT", regions=("GTV",), dose=DOSE | dose)
    [task] = tasks_of(folder, measures)
    return measure_image(task)


@pytest.fixture
def planned(tmp_path: Path, write_scan: Write, write_dose: Write) -> Path:
    """A CT of 10 January with its region, and a dose that was made on 17 January."""
    scan = write_scan(tmp_path, regions={"GTV": BOX, "Edge": ((0, 6), (0, 8), (0, 10))})
    write_dose(scan, gray())
    return scan


def test_points_of_the_histogram_are_those_of_a_slow_one(planned: Path) -> None:
    found = measured(planned)
    assert found.fault == ""
    expected = by_histogram(at_voxels(gray()))
    assert {name for name in found.values if name.startswith("dose")} == set(expected)
    for name, value in expected.items():
        within = 0.011 if "gy.d" in name else 1e-4
        assert found.values[name] == pytest.approx(value, abs=within), name
    assert len({round(expected[f"dose_gy.{one}"], 1) for one in ("d2", "d50", "d95")}) == 3
    assert 0 < expected["dose_percent.v24_5"] < expected["dose_percent.v20"]
    assert list(found.values) == list(meanings(tasks_of(planned)[0].measures))


def test_the_features_of_two_plans_and_when_they_are_known(
    tmp_path: Path, write_scan: Write, write_dose: Write
) -> None:
    """From the folder to the table of features: a plan in January, a new one in March, decisions between."""
    folder = tmp_path / "images"
    for day, made, scale in (("20240110", "20240117", 1.0), ("20240301", "20240308", 1.5)):
        scan = write_scan(folder, day=day, name=day, regions={"GTV": BOX})
        write_dose(scan, gray(scale), made=made)
    section = ImageFeatures(
        **CT.model_dump(), label="Planning CT", keep=("volume_ml", "dose_*"), aggregates=("last", "change")
    )
    store = EventStore.create(tmp_path / "store", shards=1)
    report = extract_images(folder, {"ct": section.measures}, store=store, now=datetime(2025, 1, 1, tzinfo=UTC))
    assert (report.measured, report.faults) == (2, [])
    events = pa.Table.from_batches(EventStore.open(tmp_path / "store").read_shard(0).to_batches())
    days = ("2024-01-12", "2024-01-18", "2024-03-05", "2024-03-09")
    decisions = pd.DataFrame({"subject_id": "P1", "index_time": pd.to_datetime(list(days)).astype("datetime64[us]")})
    builder = ImageBuilder("ct", section)
    table = builder.build(events, decisions)
    first, second = (by_histogram(at_voxels(gray(scale)))["dose_gy.mean"] for scale in (1.0, 1.5))
    last = table["image.ct.dose_gy.mean.last.all"].to_numpy()
    # On 5 March there is a CT that no dose is known of: that of the plan before says nothing of it.
    np.testing.assert_allclose(last, [np.nan, first, np.nan, second], rtol=1e-6)
    change = table["image.ct.dose_gy.mean.change.all"].to_numpy()
    np.testing.assert_allclose(change, [np.nan, np.nan, np.nan, second - first], rtol=1e-6)
    assert (table["image.ct.volume_ml.last.all"] > 0).all()
    told = {one.name: one for one in builder.catalogue}
    assert (told["image.ct.dose_gy.d95.last.all"].label, told["image.ct.dose_gy.d95.last.all"].unit) == (
        "Planning CT, D95%, last",
        "Gy",
    )
    assert told["image.ct.dose_percent.v20.last.all"].unit == "%"
    assert "known from when the RTDOSE was made" in " ".join(builder.steps("image.ct.dose_gy.d95.last.all"))


def test_from_when_a_dose_is_known(planned: Path, write_dose: Write) -> None:
    def known(**dose: Any) -> Any:
        found = measured(planned, **dose).events().to_pandas()
        return found[found["code"].str.endswith("//dose_gy.mean")]["available_time"].iloc[0]

    assert known() == pd.Timestamp("2024-01-17 16:00")
    assert pd.isna(known(known="scan"))
    write_dose(planned, gray(), InstanceCreationTime="", ContentDate="")
    assert known() == pd.Timestamp("2024-01-17 23:59:59.999999")
    write_dose(planned, gray(), made="20231224")  # before the CT: a wrong clock, and never known before the scan
    assert pd.isna(known())
    write_dose(planned, gray(), made="20250101")
    assert any("more than 60 days after the image" in note for note in measured(planned).notes)
    write_dose(planned, gray(), made=None, StudyDate="", SeriesDate="")
    assert "does not say when it was made" in measured(planned).fault
    assert measured(planned, known="scan").fault == ""


def test_a_region_beyond_the_dose_grid_is_told_or_counted(planned: Path, write_dose: Write) -> None:
    write_dose(planned, gray(), origin=(-5.5, -24.0, 26.0))
    assert "20.00% of it lies beyond the dose grid" in measured(planned).fault
    found = measured(planned, outside="zero")
    assert found.values["dose_percent.outside"] == pytest.approx(20)
    assert found.values["dose_gy.min"] == 0
    write_dose(planned, gray(), origin=(500, -24.0, 26.0))
    assert "wholly beyond the dose grid" in measured(planned, outside="zero").fault


def test_more_ml_than_the_region_has_is_not_defined(planned: Path) -> None:
    found = measured(planned, dx_ml=(0.2, 5.0)).values
    assert found["dose_gy.d0_2_ml"] > 0
    assert np.isnan(found["dose_gy.d5_ml"])


def test_the_dose_that_is_meant_must_be_clear(planned: Path, write_dose: Write, tmp_path: Path) -> None:
    write_dose(planned, gray(), file="beam.dcm", DoseSummationType="BEAM")
    assert measured(planned).fault == ""  # a beam beside its plan is passed over
    write_dose(planned, gray(2.0), file="sum.dcm", DoseSummationType="MULTI_PLAN")
    assert (
        "2 RTDOSE files fit (dose.dcm PLAN, sum.dcm MULTI_PLAN), so which is meant is open" in measured(planned).fault
    )
    whole = measured(planned, summation="MULTI_PLAN").values["dose_gy.mean"]
    assert whole == pytest.approx(2 * np.mean(at_voxels(gray())))
    (planned / "dose.dcm").unlink()
    (planned / "sum.dcm").unlink()
    assert "there is BEAM" in measured(planned).fault


def test_an_image_without_a_dose_is_told(tmp_path: Path, write_scan: Write, write_dose: Write) -> None:
    scan = write_scan(tmp_path, regions={"GTV": BOX})
    write_dose(scan, gray(), FrameOfReferenceUID="1.2.3")
    write_dose(scan, gray(), file="other.dcm", PatientID="P2")
    tasks, faults = image_tasks(scan_folder(tmp_path).rows, {"ct": CT})
    assert tasks == []
    assert "no RTDOSE of the patient lies in the image's frame of reference" in faults[0]


def test_the_manifest_names_the_doses(planned: Path, tmp_path: Path) -> None:
    manifest = scan_folder(planned)
    assert manifest.rows[0].dose_paths == (str(planned / "dose.dcm"),)
    assert manifest.other == {"RT Dose Storage": 1}
    manifest.write(tmp_path / "images.parquet")
    assert tuple(read_image_manifest(tmp_path / "images.parquet")) == manifest.rows


def test_the_cache_knows_the_dose_and_when_it_was_made(planned: Path, write_dose: Write, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    [first] = measure_images(tasks_of(planned), cache=cache)
    [again] = measure_images(tasks_of(planned), cache=cache)
    assert again.events().equals(first.events())
    assert again.known
    write_dose(planned, gray(1.1))
    [other] = measure_images(tasks_of(planned), cache=cache)
    assert other.values["dose_gy.mean"] == pytest.approx(1.1 * first.values["dose_gy.mean"])


def test_stability_moves_the_region_in_a_dose_without_noise(
    tmp_path: Path, write_scan: Write, write_dose: Write
) -> None:
    for number in range(3):
        scan = write_scan(tmp_path, patient=f"P{number}", name=f"P{number}", regions={"GTV": BOX})
        write_dose(scan, gray(1 + number))
    measures = CT.model_copy(update={"dose": CT.dose.model_copy(update={"outside": "zero"})}) if CT.dose else CT
    found = {
        one.feature: one
        for one in stability_of_images(tmp_path, "ct", measures, patients=3, rng=np.random.default_rng(2))
    }
    assert set(found) == set(meanings(measures))
    assert found["dose_gy.mean"].icc > 0.95


def test_settings_of_a_dose() -> None:
    one = ImageMeasures.model_validate({"modality": "CT", "dose": {"dx_percent": 95, "geud_a": 4}})
    assert one.dose is not None
    assert (one.dose.dx_percent, one.dose.geud_a) == ((95.0,), (4.0,))
    for wrong, message in (({"geud_a": [0]}, "a is not 0"), ({"dx_percent": [0]}, "greater than 0")):
        with pytest.raises(ValidationError, match=message):
            ImageMeasures.model_validate({"modality": "CT", "dose": wrong})
    without, with_dose = ImageMeasures(modality="CT"), ImageMeasures(modality="CT", dose={})
    assert without.digest != with_dose.digest
    assert with_dose.digest != ImageMeasures(modality="CT", dose={"known": "scan"}).digest
