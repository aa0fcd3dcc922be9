"""Which images of a manifest are measured, and what was measured as events."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from theracast_data.dicom.manifest import ImageRow
from theracast_features.imaging.measure import meanings, measure
from theracast_features.imaging.section import ImageFeatures, ImageMeasures, fits, measure_code
from theracast_features.imaging.tasks import ImageTask, Measured, image_tasks

CT = ImageMeasures(modality="CT", regions=("GTV*",))


def row(series: str = "1.2.3", **more: Any) -> ImageRow:
    known = {
        "subject_id": "P1",
        "study_uid": "1.2",
        "study_date": None,
        "study_time": None,
        "timepoint": 0,
        "acquired": None,
        "modality": "CT",
        "description": "Thorax B30f",
        "series_uid": series,
        "frame_of_reference": "1",
        "n_files": 3,
        "path": "ct",
        "region_path": "rs.dcm",
        "region_kind": "RTSTRUCT",
        "region_names": ("GTV-1", "Lung"),
    }
    return ImageRow(**(known | more))


def test_series_and_regions_are_found_by_their_patterns_whatever_the_case() -> None:
    assert fits("gtv_mass", ("Lung", "GTV*"))
    assert not fits("my GTV", ("GTV*",))
    rows = [
        row(),
        row("1.2.4", study_uid="2", region_names=("gtv-2", "GTV-3")),
        row("1.2.5", study_uid="3", description="scout"),
        row("1.2.6", study_uid="4", modality="PT"),
        row("1.2.7", study_uid="5", region_names=("Lung",)),
        row("1.2.8", study_uid="6", region_path=None, region_kind=None, region_names=()),
    ]
    measures = CT.model_copy(update={"series": ("thorax*",)})
    tasks, faults = image_tasks(rows, {"ct": measures})
    assert [(task.row.series_uid, [name for _, _, name in task.regions]) for task in tasks] == [
        ("1.2.3", ["GTV-1"]),
        ("1.2.4", ["gtv-2", "GTV-3"]),
    ]
    assert faults == []


def test_regions_of_several_files_belong_to_one_image() -> None:
    tasks, _ = image_tasks([row(), row(region_path="second.dcm", region_kind="SEG")], {"ct": CT})
    assert [task.regions for task in tasks] == [
        (("rs.dcm", "RTSTRUCT", "GTV-1"), ("second.dcm", "SEG", "GTV-1")),
    ]


def test_two_series_in_one_study_are_told_and_neither_is_chosen() -> None:
    tasks, faults = image_tasks([row(), row("1.2.4"), row("1.2.5", study_uid="another")], {"ct": CT})
    assert [task.row.series_uid for task in tasks] == ["1.2.5"]
    assert faults == [
        "ct: patient P1 has 2 series in one study that fit, so which is meant is open. Narrow `series` in "
        "features.images.ct."
    ]


def test_what_keeps_a_series_from_being_read_is_told() -> None:
    tasks, faults = image_tasks([row(faults=("slice 4 is missing. Fetch it.",))], {"ct": CT})
    assert tasks == []
    assert faults == ["ct: patient P1, series 1.2.3: slice 4 is missing. Fetch it."]


def test_nothing_that_fits_is_told_with_what_is_there() -> None:
    _, faults = image_tasks([row(region_names=("Lung", "Heart"))], {"ct": CT})
    assert len(faults) == 1
    assert "no CT series has a region that fits GTV* (1 series fit; their regions: Heart, Lung)" in faults[0]
    assert "features.images.ct" in faults[0]


ALL = ImageMeasures(
    modality="PT",
    uptake={"fixed": (2.5, 4.0, 10), "relative": (0.41, 0.5, 0.425)},
    intensity=True,
    radiomics={},
)


@pytest.mark.parametrize("measures", [CT, ALL], ids=["size", "all"])
def test_every_measurement_has_a_meaning_in_the_same_order(measures: ImageMeasures) -> None:
    rng = np.random.default_rng(2)
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[2:10, 2:10, 2:10] = True
    image = rng.gamma(2.0, 3.0, mask.shape)
    found = measure(image, mask, spacing_mm=(2.0, 2.0, 2.0), measures=measures)
    assert list(found) == list(meanings(measures))


def task(measures: ImageMeasures = CT) -> ImageTask:
    return ImageTask("ct", measures, row(), (("rs.dcm", "RTSTRUCT", "GTV-1"),))


def test_a_measurement_becomes_an_event_at_the_time_of_the_scan() -> None:
    taken = datetime.fromisoformat("2024-01-10T10:15")
    values = {"volume_ml": 12.5, "longest_axial_mm": math.nan, "perpendicular_mm": 8.0}
    events = Measured(task(), values, taken, scanner="Maker | Model").events().to_pylist()
    code = f"IMAGE//ct-{CT.digest}//"
    assert [one["code"] for one in events] == [
        code + "scanner",
        code + "volume_ml",
        code + "perpendicular_mm",
        code + "series//1.2.3",
    ]
    assert [one["numeric_value"] for one in events] == [None, 12.5, 8.0, None]
    assert [one["text_value"] for one in events] == ["Maker | Model", None, None, None]
    assert [one["unit"] for one in events] == [None, "mL", "mm", None]
    assert {one["time"] for one in events} == {taken}
    assert {one["available_time"] for one in events} == {None}
    assert {one["subject_id"] for one in events} == {"P1"}


def test_what_has_a_date_only_is_known_at_the_end_of_its_day() -> None:
    events = (
        Measured(task(), {"volume_ml": 1.0}, datetime.fromisoformat("2024-01-10"), date_only=True).events().to_pylist()
    )
    assert {one["available_time"] for one in events} == {datetime.fromisoformat("2024-01-10T23:59:59.999999")}


def test_a_fault_and_a_scanner_without_a_name_give_no_event_and_no_text() -> None:
    assert Measured(task(), {}, fault="damaged").events().num_rows == 0
    events = Measured(task(), {"volume_ml": 1.0}, datetime.fromisoformat("2024-01-10")).events().to_pylist()
    assert events[0]["text_value"] is None


def test_other_settings_are_other_codes_and_what_becomes_of_a_measurement_is_not_a_setting() -> None:
    changed: list[dict[str, Any]] = [
        {"regions": ("GTV-1",)},
        {"series": ("thorax*",)},
        {"several": "union"},
        {"region_off_grid": "resample"},
        {"intensity": True},
        {"radiomics": {}},
        {"radiomics": {"interpolation": {"spacing_mm": 1.0}}},
    ]
    digests = {ImageMeasures(**(CT.model_dump() | one)).digest for one in changed} | {CT.digest}
    assert len(digests) == len(changed) + 1
    features = ImageFeatures(**CT.model_dump(), label="CT", keep=("volume_ml",), windows=("90d",), log=("volume_ml",))
    assert features.digest == features.measures.digest == CT.digest
    assert ImageFeatures.model_validate(features.model_dump(mode="json")).digest == CT.digest
    assert measure_code("ct", CT, "volume_ml") == f"IMAGE//ct-{CT.digest}//volume_ml"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"modality": "CT", "uptake": {}}, "`uptake` is measured in PET"),
        ({"modality": "CT", "size": False}, "nothing is measured"),
        ({"modality": "CT", "icc_at_least": 0.75}, "measure it with `theracast images stability`"),
        ({"modality": "CT", "windows": ["3 months"]}, "a window is `all`"),
    ],
)
def test_sections_that_make_no_sense_are_refused(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ImageFeatures.model_validate(section)


def test_one_pattern_need_not_be_a_list() -> None:
    assert ImageMeasures(modality="CT", regions="GTV*") == CT
