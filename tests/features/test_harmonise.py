"""Which scanner belongs to which decision and feature: from a column, or from the last scan that it may see."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame, read_cohort
from theracast_features.build import build_features
from theracast_features.imaging.section import ImageMeasures, measure_code
from theracast_features.section import FeatureSection
from theracast_features.wide import read_features

TABLE = {
    "sources": [
        {
            "path": "p.csv",
            "subject": "patient",
            "columns": {
                "volume": {"modality": "imaging", "name": "ct_volume"},
                "entropy": {"modality": "imaging", "name": "ct_entropy"},
                "site of the tumour": {"modality": "imaging", "name": "place", "levels": ["a", "b"]},
                "age": {},
                "scanner": {"role": "covariate", "kind": "categorical"},
            },
        }
    ]
}


def by_table(harmonise: list[dict[str, Any]]) -> Any:
    frame = pd.DataFrame(
        {
            "patient": ["1", "2", "3"],
            "volume": [1.0, 2.0, None],
            "entropy": [1.0, 2.0, 3.0],
            "site of the tumour": ["a", "b", "a"],
            "age": [50.0, 60.0, 70.0],
            "scanner": ["north", None, "south"],
        }
    )
    cohort = cohort_from_frame(frame, Inputs.model_validate(TABLE))
    section = FeatureSection.model_validate({"missing_indicators": ["ct_volume"], "harmonise": harmonise})
    return build_features(cohort, section)


def test_a_column_gives_the_scanner_and_patterns_choose_numbers_alone() -> None:
    table = by_table([{"batch": "scanner", "features": ["image.*"]}])
    batches = {spec.name: spec.batch for spec in table.catalogue}
    assert batches == {
        "image.ct_volume": "batch.scanner",
        "image.ct_entropy": "batch.scanner",
        "image.place": None,
        "clin.age": None,
        "image.ct_volume.missing": None,
    }
    assert [None if pd.isna(one) else one for one in table.decisions["batch.scanner"]] == ["north", None, "south"]


@pytest.mark.parametrize(
    ("harmonise", "told"),
    [
        ([{"batch": "scaner", "features": ["image.*"]}], r"no column 'scaner'.*scanner"),
        ([{"batch": "clin_age", "features": ["image.*"]}], r"no column 'clin_age'"),
        ([{"batch": "age", "features": ["image.*"]}], r"'age' is read as a number.*kind: categorical"),
        ([{"batch": "images.ct", "features": ["image.*"]}], r"no column 'images.ct'"),
        ([{"batch": "scanner", "features": ["lab.*"]}], r"no number is named 'lab.\*'"),
        ([{"batch": "scanner", "features": ["image.place"]}], r"no number is named 'image.place'"),
        ([{"batch": "scanner", "features": ["image.ct_volum"]}], r"'image.ct_volum'.*image.ct_volume"),
        (
            [{"batch": "scanner", "features": ["image.*"]}, {"batch": "place", "features": ["image.ct_volume"]}],
            r"image.ct_volume belongs to two batches",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(harmonise: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(StudyError, match=told):
        by_table(harmonise)


CT = ImageMeasures(modality="CT")
SECTION = FeatureSection.model_validate(
    {
        "images": {"ct": {"modality": "CT", "keep": ["volume_ml"]}},
        "harmonise": [{"batch": "images.ct", "features": ["image.ct.*"]}],
        "missing_indicators": "none",
    }
)
INPUTS = {
    "sources": [{"path": "p.csv", "subject": "patient", "index_time": "decided", "columns": {"age": {"unit": "a"}}}],
    "events": {"store": "store", "concepts": {}},
}


def event(
    patient: str, day: str, measure: str, *, value: float | None = None, text: str | None = None
) -> dict[str, Any]:
    return {
        "subject_id": patient,
        "time": datetime.fromisoformat(day),
        "code": measure_code("ct", CT, measure),
        "numeric_value": value,
        "text_value": text,
        "unit": "mL" if value else None,
        "available_time": None,
    }


def scans() -> pa.Table:
    rows = [
        event("1", "2024-01-01", "scanner", text="old"),
        event("1", "2024-01-01", "volume_ml", value=1.0),
        event("1", "2024-02-01", "scanner", text="new"),
        event("1", "2024-02-01", "volume_ml", value=2.0),
        event("1", "2024-05-01", "scanner", text="of the future"),
        event("2", "2024-01-01", "scanner"),
        event("2", "2024-01-01", "volume_ml", value=3.0),
    ]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    store = EventStore.create(tmp_path / "store", shards=2)
    store.append(SourceRecord(name="scans", kind="images"), [scans()])
    lines = ["patient,decided,age", "1,2024-01-15,50", "2,2024-03-01,60", "1,2024-03-01,50", "3,2024-03-01,70"]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_cohort(Inputs.model_validate(INPUTS), (), base=tmp_path)


def batches(table: Any) -> list[str | None]:
    return [None if pd.isna(one) else one for one in table.decisions["batch.images.ct"]]


def test_the_last_scan_before_the_decision_gives_the_scanner(cohort: Cohort) -> None:
    table = build_features(cohort, SECTION)
    assert batches(table) == ["old", None, "new", None]
    assert table.frame["image.ct.volume_ml.last.all"].iloc[:3].tolist() == [1.0, 3.0, 2.0]
    assert {spec.batch for spec in table.catalogue if spec.modality == "imaging"} == {"batch.images.ct"}


def test_a_table_read_from_parts_has_the_scanners_too(cohort: Cohort, tmp_path: Path) -> None:
    expected = build_features(cohort, SECTION)
    for _ in range(2):  # computed, then taken from the cache
        table = read_features(cohort, SECTION, cache=tmp_path / "cache")
        pd.testing.assert_frame_equal(table.decisions, expected.decisions)
        pd.testing.assert_frame_equal(table.frame, expected.frame, check_exact=True)
        assert table.catalogue == expected.catalogue
