"""Measurements of images as features: of the last scan that a decision may see, and of no later one."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.cohort import Cohort
from theracast_data.dicom.manifest import ImageRow
from theracast_data.errors import StudyError
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features
from theracast_features.events.images import ImageBuilder, kept_measures
from theracast_features.imaging.section import ImageFeatures, measure_code
from theracast_features.imaging.tasks import ImageTask, Measured
from theracast_features.lineage import feature_lineage
from theracast_features.section import FeatureSection

CT = ImageFeatures(modality="CT", label="CT of the tumour", aggregates=("last", "count"), log=("volume_ml",))
PET = ImageFeatures(modality="PT", uptake={"fixed": (4.0,)}, keep=("suv_max", "*.suv_4_0"))
START = datetime.fromisoformat("2024-03-01T12:00")


def scan(
    day: float, name: str = "ct", section: ImageFeatures = CT, *, patient: str = "P1", **values: float
) -> pa.Table:
    """Return the events of one scan, so many days after the start."""
    row = ImageRow(
        subject_id=patient,
        study_uid="1",
        study_date=None,
        study_time=None,
        timepoint=0,
        acquired=None,
        modality=section.modality,
        description=None,
        series_uid=f"1.{int(day * 1000) + 10**7}",
        frame_of_reference=None,
        n_files=1,
        path="x",
    )
    known = dict.fromkeys(values, math.nan) | values
    task = ImageTask(name, section.measures, row, ())
    return Measured(task, known, START + timedelta(days=day), scanner=f"scanner {day:g}").events()


def decisions(*days: float, patient: str = "P1") -> pd.DataFrame:
    times = [START + timedelta(days=day) for day in days]
    return pd.DataFrame({"subject_id": [patient] * len(days), "index_time": pd.Series(times, dtype="datetime64[us]")})


def test_each_decision_sees_its_last_scan() -> None:
    builder = ImageBuilder("ct", CT)
    events = pa.concat_tables([scan(-40, volume_ml=10.0, longest_axial_mm=30.0), scan(20, volume_ml=4.0)])
    table = builder.build(events, decisions(-50, 0, 20, 60))
    np.testing.assert_array_equal(table["image.ct.volume_ml.last.all"], [np.nan, 10.0, 4.0, 4.0])
    assert table["image.ct.volume_ml.count.all"].tolist() == [0, 1, 2, 2]


def test_what_is_not_defined_in_the_last_scan_is_missing_and_not_that_of_the_scan_before() -> None:
    builder = ImageBuilder("pet", PET)
    before = {"suv_max": 9.0, "suv_mean.suv_4_0": 6.0, "mtv_ml.suv_4_0": 12.0, "tlg_g.suv_4_0": 72.0}
    after = {"suv_max": 2.0, "suv_mean.suv_4_0": math.nan, "mtv_ml.suv_4_0": 0.0, "tlg_g.suv_4_0": 0.0}
    events = pa.concat_tables([scan(-30, "pet", PET, **before), scan(10, "pet", PET, **after)])
    table = builder.build(events, decisions(0, 15))
    assert table["image.pet.suv_mean.suv_4_0.last.all"].tolist()[0] == 6.0
    assert np.isnan(table["image.pet.suv_mean.suv_4_0.last.all"].iloc[1])
    assert table["image.pet.mtv_ml.suv_4_0.last.all"].tolist() == [12.0, 0.0]
    assert table["image.pet.suv_max.last.all"].tolist() == [9.0, 2.0]
    assert "missing where the last scan has no such measurement" in builder.steps("image.pet.suv_max.last.all")


def test_the_change_between_scans_needs_both() -> None:
    section = ImageFeatures(modality="CT", keep=("volume_ml",), aggregates=("change", "relative_change", "mean"))
    builder = ImageBuilder("ct", section)
    scans = [scan(-30, section=section, volume_ml=10.0), scan(0, section=section, volume_ml=6.0)]
    lost = scan(5, section=section, volume_ml=math.nan)
    table = builder.build(pa.concat_tables([*scans, lost]), decisions(-10, 0, 6))
    np.testing.assert_allclose(table["image.ct.volume_ml.change.all"], [np.nan, -4.0, np.nan])
    np.testing.assert_allclose(table["image.ct.volume_ml.relative_change.all"], [np.nan, -0.4, np.nan])
    np.testing.assert_allclose(table["image.ct.volume_ml.mean.all"], [10.0, 8.0, 8.0])


def test_measurements_by_other_settings_or_of_another_kind_are_not_seen() -> None:
    other = CT.model_copy(update={"regions": ("GTV",)})
    events = pa.concat_tables([scan(-5, section=other, volume_ml=1.0), scan(-5, "ct_early", CT, volume_ml=2.0)])
    assert ImageBuilder("ct", CT).build(events, decisions(0))["image.ct.volume_ml.last.all"].isna().all()


def test_the_catalogue_tells_what_was_measured() -> None:
    section = CT.model_copy(update={"icc": {"volume_ml": 0.97}})
    volume = ImageBuilder("ct", section).catalogue[0]
    assert (volume.name, volume.unit, volume.modality) == ("image.ct.volume_ml.last.all", "mL", "imaging")
    assert volume.label.startswith("CT of the tumour, volume")
    assert (volume.transform, volume.icc) == ("log1p", 0.97)


def test_only_stable_measurements_are_kept() -> None:
    icc = {"volume_ml": 0.98, "longest_axial_mm": 0.9, "perpendicular_mm": 0.4}
    section = ImageFeatures(modality="CT", icc=icc, icc_at_least=0.75)
    assert list(kept_measures("ct", section)) == ["volume_ml", "longest_axial_mm"]
    with pytest.raises(StudyError, match="Lower icc_at_least"):
        kept_measures("ct", section.model_copy(update={"icc_at_least": 0.99}))
    with pytest.raises(StudyError, match=r"features.images.ct.keep: volume fits nothing that is measured. There are"):
        kept_measures("ct", section.model_copy(update={"keep": ("volume",)}))


DAYS = st.floats(-400, 400, allow_nan=False).map(lambda day: round(day, 3))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(DAYS, st.floats(0.01, 1e4)), max_size=5),
    st.lists(st.tuples(DAYS, st.floats(0.01, 1e4)), max_size=5),
)
def test_a_scan_after_the_decision_changes_nothing(
    past: list[tuple[float, float]], future: list[tuple[float, float]]
) -> None:
    builder = ImageBuilder("ct", CT)
    before = [scan(-abs(day), volume_ml=value) for day, value in past]
    after = [scan(abs(day) + 0.01, volume_ml=value, longest_axial_mm=value) for day, value in future]
    known = builder.build(pa.concat_tables([empty_events(), *before]), decisions(0))
    later = builder.build(pa.concat_tables([empty_events(), *after, *before]), decisions(0))
    pd.testing.assert_frame_equal(known, later, check_exact=True)


STUDY: dict[str, Any] = {
    "sources": [{"path": "p.csv", "subject": "patient", "index_time": "decided", "columns": {"age": {"unit": "a"}}}],
    "events": {"store": "store", "concepts": {}},
}
SECTION = FeatureSection.model_validate({"images": {"ct": CT.model_dump()}, "missing_indicators": "none"})


def asked(events: pa.Table) -> Cohort:
    """Return a request about one patient, whose row brings its events along."""
    columns = ["time", "code", "numeric_value", "text_value", "unit", "available_time"]
    cells = [
        {
            key: value.isoformat() if isinstance(value, datetime) else value
            for key, value in one.items()
            if value is not None
        }
        for one in events.select(columns).to_pylist()
    ]
    row = {"patient": "P1", "decided": START.isoformat(), "age": 60, "events": cells}
    return cohort_from_frame(pd.DataFrame([row]), Inputs.model_validate(STUDY))


def test_a_request_that_brings_its_scans_sees_what_a_training_sees() -> None:
    events = pa.concat_tables(
        [scan(-40, volume_ml=10.0), scan(-2, volume_ml=7.0, perpendicular_mm=3.0), scan(3, volume_ml=1.0)]
    )
    trained = ImageBuilder("ct", CT).build(events, decisions(0))
    table = build_features(asked(events), SECTION)
    pd.testing.assert_frame_equal(table.frame[list(trained.columns)], trained, check_exact=True)
    assert table.frame["image.ct.volume_ml.last.all"].tolist() == [7.0]


def test_the_lineage_shows_the_scan() -> None:
    cohort = asked(pa.concat_tables([scan(-40, volume_ml=10.0), scan(-2, volume_ml=7.0)]))
    found = feature_lineage("image.ct.volume_ml.last.all", cohort, SECTION, Inputs.model_validate(STUDY), patient="P1")
    text = found.to_text()
    assert f"measured in CT, region *, by the settings {CT.digest}" in text
    assert measure_code("ct", CT.measures, "volume_ml") in text
    assert "7.0" in text
    assert text.count("2024-02-28 12:00") == 1


def test_names_of_kinds_of_images_are_plain() -> None:
    for name in ("CT", "ct.early", "ct//x", "1st"):
        with pytest.raises(ValueError, match="should match pattern"):
            FeatureSection.model_validate({"images": {name: {"modality": "CT"}}})


def test_events_have_the_schema_of_the_store() -> None:
    assert scan(0, volume_ml=1.0).schema == EVENT_SCHEMA
