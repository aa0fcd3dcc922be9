"""Enhancement of a dynamic MR as measurements of a study: phases found in one series or several, values counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from theracast_data.dicom.manifest import scan_folder
from theracast_data.dicom.phases import phases_in_series
from theracast_data.errors import ImageError
from theracast_features.imaging.extraction import measure_image, stability_of_images
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.tasks import ImageTask, Measured, image_tasks

Write = Callable[..., Path]
BOX = ((1, 4), (2, 6), (3, 8))
SHAPE = (6, 8, 10)
VOXEL_ML = 2.5 * 1.5 * 1.25 / 1000
TIMES = ("101000", "101230", "101500", "101820")  # 0, 150, 300 and 500 s
INDEX = {"TemporalPositionIdentifier": (1, 2, 3, 4), "AcquisitionTime": TIMES}
DCE = ImageMeasures(modality="MR", regions=("tumour",), size=False, enhancement={"percentiles": (50, 90)})


def signals(seed: int = 3) -> np.ndarray:
    """Return four phases in which voxels rise and fall in all ways."""
    draw = np.random.default_rng(seed)
    pre = draw.integers(80, 200, SHAPE)
    early = (pre * draw.uniform(0.9, 3.0, SHAPE)).round()
    return np.stack([pre, early, (early * 1.1).round(), (pre * draw.uniform(1.0, 2.8, SHAPE)).round()]).clip(0, 4095)


def counted(pre: np.ndarray, early: np.ndarray, late: np.ndarray) -> dict[str, float]:
    """Return some of the measurements of the box, voxel by voxel."""
    rises, washouts, ratios, volume, washed = [], [], [], 0, 0
    for z in range(*BOX[0]):
        for y in range(*BOX[1]):
            for x in range(*BOX[2]):
                before, first, last = (float(one[z, y, x]) for one in (pre, early, late))
                rises.append(100 * (first - before) / before)
                washouts.append(100 * (first - last) / first)
                if last > before:
                    ratio = (first - before) / (last - before)
                    ratios.append(ratio)
                else:
                    ratio = np.inf if first > before else np.nan
                if rises[-1] >= 70 and ratio >= 0:
                    volume += 1
                    washed += ratio > 1.1
    middle = sorted(ratios)
    half = len(middle) // 2
    return {
        "early_percent.mean": sum(rises) / len(rises),
        "washout_percent.mean": sum(washouts) / len(washouts),
        "ser.p50": middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2,
        "ftv_ml": volume * VOXEL_ML,
        "ftv_washout_ml": washed * VOXEL_ML,
        "ftv_fraction": volume / len(rises),
    }


def task_of(folder: Path, measures: ImageMeasures = DCE) -> ImageTask:
    tasks, faults = image_tasks(scan_folder(folder).rows, {"dce": measures})
    assert faults == []
    assert len(tasks) == 1
    return tasks[0]


def measured(folder: Path, measures: ImageMeasures = DCE) -> Measured:
    return measure_image(task_of(folder, measures))


def asking(**options: Any) -> ImageMeasures:
    return ImageMeasures(modality="MR", regions=("tumour",), size=False, enhancement=options)


@pytest.mark.parametrize(
    "apart",
    [
        INDEX,
        {"TriggerTime": (0, 150000, 300000, 500000)},
        {"AcquisitionNumber": (1, 2, 3, 4), "AcquisitionTime": TIMES},
        {"AcquisitionTime": TIMES},
        {
            "AcquisitionTime": ("101000", "101005", "101010", "101015")
        },  # nearer than numbers of this size are told apart
        {"ContentDate": ("20240110",) * 4, "ContentTime": TIMES},
    ],
    ids=["position", "trigger", "number", "time", "fast", "content"],
)
def test_phases_of_one_series_are_told_apart(
    tmp_path: Path, write_dynamic: Write, apart: dict[str, tuple[Any, ...]]
) -> None:
    phases = signals()
    write_dynamic(tmp_path, phases, apart=apart, regions={"tumour": BOX})
    found = measured(tmp_path)
    assert found.fault == ""
    for name, value in counted(phases[0], phases[1], phases[3]).items():
        assert found.values[name] == pytest.approx(value), name
    assert "phases 1, 2 and 4 of 4 were compared" in found.notes
    assert any("ContentTime" in note for note in found.notes) == ("ContentTime" in apart)
    assert list(found.values) == list(meanings(DCE))


def test_phases_of_one_enhanced_file(tmp_path: Path, write_dynamic: Write, as_one_file: Callable[[Path], None]) -> None:
    phases = signals()
    write_dynamic(tmp_path, phases, apart=INDEX, regions={"tumour": BOX})
    single = measured(tmp_path)
    as_one_file(tmp_path / "dce" / "image")
    found = measured(tmp_path)
    assert found.fault == ""
    assert found.values == single.values
    assert found.taken == single.taken


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_order_of_files_and_frames_says_nothing(
    tmp_path: Path, write_dynamic: Write, as_one_file: Callable[[Path], None], enhanced: bool
) -> None:
    phases = signals()
    turned = {keyword: values[::-1] for keyword, values in INDEX.items()}
    write_dynamic(tmp_path, phases[::-1], apart=turned, regions={"tumour": BOX})
    if enhanced:
        as_one_file(tmp_path / "dce" / "image")
    found = measured(tmp_path)
    for name, value in counted(phases[0], phases[1], phases[3]).items():
        assert found.values[name] == pytest.approx(value), name


def test_phases_are_chosen_by_seconds(tmp_path: Path, write_dynamic: Write) -> None:
    phases = signals()
    write_dynamic(tmp_path, phases, apart=INDEX, regions={"tumour": BOX})
    found = measured(tmp_path, asking(early="280s", late="480s"))
    assert "phases 1, 3 and 4 of 4 were compared" in found.notes
    assert found.values["ftv_ml"] == pytest.approx(counted(phases[0], phases[2], phases[3])["ftv_ml"])
    later = measured(tmp_path, asking(early="150s", late="400s"))
    assert (
        "no phase begins within 60 s of 400s after the one before contrast; they begin at 0, 150, 300, 500 s"
        in later.fault
    )
    backwards = measured(tmp_path, asking(early="300s", late="150s"))
    assert "early and late are 1, 3, 2 of 4: they are three in this order" in backwards.fault
    missing = measured(tmp_path, asking(early=2, late=7))
    assert "phase 7 is asked for and there are 4" in missing.fault


def test_all_else_is_measured_in_the_early_phase_and_enhancement_is_known_after_the_late_one(
    tmp_path: Path, write_dynamic: Write
) -> None:
    phases = signals()
    write_dynamic(tmp_path, phases, apart=INDEX, regions={"tumour": BOX})
    found = measured(tmp_path, DCE.model_copy(update={"intensity": True, "size": True}))
    z, y, x = (slice(*one) for one in BOX)
    assert found.values["intensity_mean"] == pytest.approx(phases[1, z, y, x].mean())
    events = found.events().to_pandas()
    events.index = events["code"].str.split("//").str[2]
    assert str(events.loc["intensity_mean", "time"]) == "2024-01-10 10:12:30"
    assert str(events.loc["intensity_mean", "available_time"]) == "NaT"
    assert str(events.loc["ftv_ml", "available_time"]) == "2024-01-10 10:18:20"
    assert events.loc["ftv_ml", "unit"] == "mL"
    assert events.loc["early_percent.mean", "unit"] == "%"


def write_several(folder: Path, write_scan: Write, phases: np.ndarray, **elements: Any) -> None:
    """Write each phase as a series of its own, the region drawn on the second, and a T2 that is no phase."""
    for number, values in enumerate(phases):
        told = {"AcquisitionTime": TIMES[number], "FrameOfReferenceUID": "1.2.3"} | elements
        write_scan(
            folder,
            kind="MR",
            name=f"series-{number}",
            values=values.astype(np.uint16),
            description=f"DCE phase {number + 1}",
            regions={"tumour": BOX} if number == 1 else None,
            **told,
        )
    write_scan(folder, kind="MR", name="t2", description="T2", FrameOfReferenceUID="1.2.3")


def test_phases_that_are_series_of_their_own(tmp_path: Path, write_scan: Write) -> None:
    phases = signals()
    write_several(tmp_path, write_scan, phases)
    measures = asking(series="DCE*", percentiles=(50, 90))
    found = measured(tmp_path, measures)
    assert found.fault == ""
    for name, value in counted(phases[0], phases[1], phases[3]).items():
        assert found.values[name] == pytest.approx(value), name
    _, faults = image_tasks(scan_folder(tmp_path).rows, {"dce": asking(series="*phase 1")})
    assert "1 MR series of the study fit *phase 1, and three phases are needed" in faults[0]
    timeless = tmp_path / "timeless"
    write_several(timeless, write_scan, phases, AcquisitionTime="101000")
    assert "do not tell their order" in measured(timeless, measures).fault
    unplaced = tmp_path / "unplaced"
    write_several(unplaced, write_scan, phases[:3])
    write_scan(
        unplaced, kind="MR", name="late", description="DCE late", AcquisitionTime="102000", FrameOfReferenceUID="1.9"
    )
    assert "does not share the frame of reference" in measured(unplaced, measures).fault
    coarse = tmp_path / "coarse"
    write_several(coarse, write_scan, phases[:3])
    told = {"AcquisitionTime": "102000", "FrameOfReferenceUID": "1.2.3", "spacing": (2.5, 1.5, 1.3)}
    write_scan(coarse, kind="MR", name="late", description="DCE late", **told)
    assert "the late phase lies on another grid than the one before contrast" in measured(coarse, measures).fault


def test_a_region_on_another_grid_takes_the_phases_along(tmp_path: Path, write_scan: Write) -> None:
    """The region is drawn on a T2 of half the resolution; phases that are constant in space keep their values."""
    levels = np.array([100.0, 250.0, 220.0, 190.0])
    phases = np.broadcast_to(levels[:, None, None, None], (4, *SHAPE))
    for number, values in enumerate(phases):
        told = {"AcquisitionTime": TIMES[number], "FrameOfReferenceUID": "1.2.3", "description": f"DCE {number}"}
        write_scan(tmp_path, kind="MR", name=f"series-{number}", values=values.astype(np.uint16), **told)
    told = {"FrameOfReferenceUID": "1.2.3", "description": "T2", "spacing": (2.5, 3.0, 2.5)}
    write_scan(
        tmp_path,
        kind="MR",
        name="t2",
        values=np.ones((6, 4, 5), dtype=np.uint16),
        regions={"tumour": ((1, 4), (1, 3), (1, 4))},
        **told,
    )
    found = measured(tmp_path, asking(series="DCE*"))
    assert found.fault == ""
    assert "phases were resampled to the grid of the image" in found.notes
    assert found.values["early_percent.mean"] == pytest.approx(150)
    assert found.values["ser.p50"] == pytest.approx(150 / 90)
    assert found.values["ftv_ml"] == pytest.approx(3 * 2 * 3 * 2.5 * 3.0 * 2.5 / 1000)


def test_what_is_not_clear_is_refused(tmp_path: Path, write_dynamic: Write, write_scan: Write) -> None:
    phases = signals()
    lost = write_dynamic(tmp_path / "lost", phases, apart=INDEX, regions={"tumour": BOX})
    sorted((lost / "image").iterdir())[7].unlink()
    assert "parts them into whole volumes. Fetch the images that are missing" in measured(tmp_path / "lost").fault
    against = INDEX | {"AcquisitionTime": TIMES[::-1]}
    write_dynamic(tmp_path / "against", phases, apart=against, regions={"tumour": BOX})
    assert "do not follow each other in the times of their acquisition" in measured(tmp_path / "against").fault
    write_dynamic(tmp_path / "two", phases[:2], apart=INDEX, regions={"tumour": BOX})
    assert "early and late are 1, 2, 2 of 2" in measured(tmp_path / "two").fault
    write_scan(tmp_path / "one", kind="MR", regions={"tumour": BOX})
    assert "the series holds one volume, no phases" in measured(tmp_path / "one").fault
    with pytest.raises(ImageError, match=r"no file is of the series 1\.2"):
        phases_in_series(tmp_path / "one", series_uid="1.2")
    dark = phases.copy()
    dark[0] = 0
    write_dynamic(tmp_path / "dark", dark, apart=INDEX, regions={"tumour": BOX})
    assert "the map has no number in the region" in measured(tmp_path / "dark").fault


def test_without_enhancement_a_series_of_several_volumes_is_a_fault_as_before(
    tmp_path: Path, write_dynamic: Write
) -> None:
    write_dynamic(tmp_path, signals(), apart=INDEX, regions={"tumour": BOX})
    plain = ImageMeasures(modality="MR", regions=("tumour",))
    tasks, faults = image_tasks(scan_folder(tmp_path).rows, {"mr": plain})
    assert tasks == []
    assert "several acquisitions in one series" in faults[0]


def test_stability_of_enhancement_moves_region_and_phases(tmp_path: Path, write_dynamic: Write) -> None:
    for number in range(4):
        phases = signals(number)
        phases[1:] = (phases[1:] * (1 + 0.3 * number)).clip(0, 4095)
        write_dynamic(tmp_path, phases, apart=INDEX, name=f"dce{number}", regions={"tumour": BOX}, patient=f"P{number}")
    found = stability_of_images(tmp_path, "dce", DCE, patients=4, rng=np.random.default_rng(1))
    icc = {one.feature: one for one in found}
    assert set(icc) == set(meanings(DCE))
    assert icc["early_percent.mean"].patients == 4
    assert 0.5 < icc["early_percent.mean"].icc < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "CT", "enhancement": {}}, "say modality: MR"),
        ({"modality": "MR", "enhancement": {"pre": 2, "early": 2}}, "three phases in this order"),
        ({"modality": "MR", "enhancement": {"early": "last"}}, "three phases in this order"),
        ({"modality": "MR", "enhancement": {"early": "2 min"}}, "should match pattern"),
        ({"modality": "MR", "size": False}, "`map`, `dose`, `enhancement`"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageMeasures.model_validate(options)
