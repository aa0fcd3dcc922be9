"""A map with a unit, such as ADC, as measurements of a study: by hand, and in a real breast with its segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError

from theracast_data.dicom.manifest import scan_folder
from theracast_features.events.images import ImageBuilder
from theracast_features.imaging.extraction import measure_image
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.section import ImageFeatures, ImageMeasures
from theracast_features.imaging.tasks import Measured, image_tasks

Write = Callable[..., Path]
BOX = ((1, 4), (2, 6), (3, 8))
ADC: dict[str, Any] = {"label": "ADC", "unit": "um2/s", "percentiles": (10, 50, 90), "plausible": (100, 4000)}


def measured(folder: Path, **options: Any) -> Measured:
    measures = ImageMeasures(modality="MR", series=("*ADC*",), size=False, map=ADC | options)
    tasks, faults = image_tasks(scan_folder(folder).rows, {"adc": measures})
    assert faults == []
    [task] = tasks
    return measure_image(task)


def by_rank(values: list[float], percent: float) -> float:
    """Return the percentile between the two voxels around its rank."""
    ordered = sorted(values)
    rank = percent / 100 * (len(ordered) - 1)
    low = int(rank)
    return ordered[low] + (rank - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def test_a_map_in_its_unit(tmp_path: Path, write_scan: Write) -> None:
    stored = np.random.default_rng(5).integers(600, 2400, (6, 8, 10), dtype=np.uint16)
    write_scan(tmp_path, kind="MR", description="ep2d ADC", regions={"tumour": BOX}, values=stored)
    inside = [float(one) for one in stored[1:4, 2:6, 3:8].ravel()]
    found = measured(tmp_path).values
    assert found["map_mean"] == pytest.approx(sum(inside) / len(inside))
    for percent in (10, 50, 90):
        assert found[f"map_p{percent}"] == pytest.approx(by_rank(inside, percent))
    assert found["map_missing_fraction"] == 0
    other = measured(tmp_path, unit="mm2/s", factor=1e-6, percentiles=(2.5,), plausible=None).values
    assert other["map_p2_5"] == pytest.approx(1e-6 * by_rank(inside, 2.5))
    section = ImageFeatures(modality="MR", label="MR", map=ADC, keep=("map_*",), aggregates=("last", "relative_change"))
    assert list(found) == list(meanings(section.measures))[4:]  # the first four are of the size
    told = {one.name: (one.label, one.unit) for one in ImageBuilder("adc", section).catalogue}
    assert told["image.adc.map_p10.last.all"] == ("MR, 10th percentile of ADC, last", "um2/s")
    assert "image.adc.map_p10.relative_change.all" in told


def test_files_in_another_unit_are_refused_without_their_value(tmp_path: Path, write_scan: Write) -> None:
    stored = np.full((6, 8, 10), 17, dtype=np.uint16)
    write_scan(tmp_path, kind="MR", description="ADC", regions={"tumour": BOX}, values=stored)
    fault = measured(tmp_path).fault
    assert (
        "the median of ADC in the region lies beyond 100 to 4000 um2/s: the files are probably in another unit" in fault
    )
    assert "17" not in fault


def test_a_real_map_of_early_enhancement(shared_imaging: Path) -> None:
    """Percent enhancement of a breast, in the region of its DICOM SEG; the planes are put together by hand."""
    folder = shared_imaging / "dicom_seg" / "UCSF-BR-06"
    options = {"label": "early enhancement", "unit": "%", "percentiles": (50, 95)}
    measures = ImageMeasures(modality="MR", series=("*PE1",), size=False, map=options)
    tasks, faults = image_tasks(scan_folder(folder).rows, {"pe": measures})
    assert faults == []
    found = measure_image(*tasks)
    assert found.fault == ""
    planes = {}
    for path in (folder / "image_dce_pe1").glob("*.dcm"):
        one = pydicom.dcmread(path)
        values = one.pixel_array * float(one.get("RescaleSlope", 1) or 1) + float(one.get("RescaleIntercept", 0) or 0)
        planes[round(float(one.ImagePositionPatient[0]), 1)] = values
    segmentation = pydicom.dcmread(folder / "mask" / "1-1.dcm")
    inside: list[float] = []
    for frame, plane in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        place = round(float(frame.PlanePositionSequence[0].ImagePositionPatient[0]), 1)
        if plane.any():
            inside += [float(value) for value in planes[place][plane > 0]]
    assert found.values["map_mean"] == pytest.approx(np.mean(inside))
    assert found.values["map_p50"] == pytest.approx(by_rank(inside, 50))
    assert found.values["map_p95"] == pytest.approx(by_rank(inside, 95))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "PT", "map": {"label": "SUV"}}, "a PET is measured by `uptake`"),
        ({"modality": "MR", "map": {"label": "ADC", "percentiles": [100]}}, "less than 100"),
        ({"modality": "MR", "map": {"label": "ADC", "plausible": [3, 1]}}, "ends where it begins"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageMeasures.model_validate(options)
