"""Pictures of regions: those of the last scan that a decision may see, beside it, and a feature that stands for them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.cohort import Cohort
from theracast_data.errors import ImageError
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs
from theracast_data.table import read_cohort
from theracast_features.build import build_features
from theracast_features.imaging.patch import encode_patch
from theracast_features.imaging.section import measure_code
from theracast_features.lineage import feature_lineage
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec
from theracast_features.wide import read_features, write_features

SECTION = FeatureSection.model_validate(
    {
        "images": {
            "ct": {
                "modality": "CT",
                "label": "CT of the tumour",
                "keep": ["volume_ml"],
                "patch": {"voxels": 8, "window": [0, 100]},
            }
        },
        "harmonise": [{"batch": "images.ct", "features": ["image.ct.*"]}],
        "missing_indicators": "none",
    }
)
INPUTS = Inputs.model_validate(
    {
        "sources": [
            {"path": "p.csv", "subject": "patient", "index_time": "decided", "columns": {"age": {"unit": "a"}}}
        ],
        "events": {"store": "store", "concepts": {}},
    }
)
OLD, NEW, FUTURE = (encode_patch(np.full((2, 8, 8, 8), value, np.uint8)) for value in (1, 2, 3))


def event(
    patient: str, day: str, measure: str, *, value: float | None = None, text: str | None = None
) -> dict[str, Any]:
    return {
        "subject_id": patient,
        "time": datetime.fromisoformat(day),
        "code": measure_code("ct", SECTION.images["ct"].measures, measure),
        "numeric_value": value,
        "text_value": text,
        "unit": "mL" if value else None,
        "available_time": None,
    }


def read(folder: Path, events: list[dict[str, Any]]) -> Cohort:
    store = EventStore.create(folder / "store", shards=2)
    store.append(SourceRecord(name="scans", kind="images"), [pa.Table.from_pylist(events, schema=EVENT_SCHEMA)])
    lines = ["patient,decided,age", "1,2024-01-15,50", "2,2024-03-01,60", "1,2024-03-01,50", "3,2024-03-01,70"]
    (folder / "p.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_cohort(INPUTS, (), base=folder)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read(
        tmp_path,
        [
            event("1", "2024-01-01", "patch", text=OLD),
            event("1", "2024-02-01", "patch", text=NEW),
            event("1", "2024-05-01", "patch", text=FUTURE),
            event("2", "2024-01-01", "volume_ml", value=3.0),
            event("3", "2024-03-02", "patch", text=FUTURE),
        ],
    )


def test_each_decision_has_the_picture_of_its_last_scan(cohort: Cohort) -> None:
    table = build_features(cohort, SECTION)
    assert [None if pd.isna(one) else one for one in table.decisions["patch.ct"]] == [OLD, None, NEW, None]
    np.testing.assert_array_equal(table.frame["image.ct.patch"], [1.0, np.nan, 1.0, np.nan])
    spec = next(one for one in table.catalogue if one.name == "image.ct.patch")
    assert (spec.role, spec.kind, spec.label) == ("picture", "boolean", "CT of the tumour, picture of the region")
    assert spec.columns == ("patch.ct",)
    assert spec.batch is None, "a picture is not harmonised"
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_a_table_read_from_parts_has_the_pictures_too(cohort: Cohort, tmp_path: Path) -> None:
    expected = build_features(cohort, SECTION)
    for _ in range(2):  # computed, then taken from the cache
        table = read_features(cohort, SECTION, cache=tmp_path / "cache")
        pd.testing.assert_frame_equal(table.decisions, expected.decisions)
        pd.testing.assert_frame_equal(table.frame, expected.frame, check_exact=True)
        assert table.catalogue == expected.catalogue
    write_features(cohort, SECTION, path=tmp_path / "wide.parquet", cache=tmp_path / "cache")
    assert pd.read_parquet(tmp_path / "wide.parquet")["image.ct.patch"].tolist()[::2] == [1.0, 1.0]


def test_where_a_picture_comes_from_can_be_asked(cohort: Cohort) -> None:
    told = feature_lineage("image.ct.patch", cohort, SECTION, INPUTS, patient="1").to_text()
    assert "a cube of 8 voxels of 2 mm around the region *" in told
    assert "2024-02-01" in told
    assert "2024-05-01" not in told
    assert NEW not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no picture", r"features.images.ct: patient 1: the picture of a region is damaged"),
        (encode_patch(np.zeros((2, 9, 9, 9), np.uint8)), r"patient 1: the picture has 9 voxels .* asks for 8"),
    ],
)
def test_what_is_no_picture_of_the_study_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=told):
        build_features(read(tmp_path, [event("1", "2024-01-01", "patch", text=text)]), SECTION)
