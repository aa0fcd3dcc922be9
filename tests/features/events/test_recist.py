"""RECIST features as of a decision: a hand-counted patient, what may be seen, and agreement with the rules themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_features.events.recist import RECIST, LesionCodes, RecistBuilder, RecistSection, recist_features
from theracast_features.events.start import TreatmentStart
from theracast_features.imaging import recist

DAY0 = pd.Timestamp("2024-01-01")
SECTION = RecistSection(
    lesions=(
        LesionCodes(name="liver", codes=("RECIST//T1",)),
        LesionCodes(name="node", codes=("RECIST//T2",), nodal=True),
        LesionCodes(name="bone", codes=("RECIST//NT*",), kind="non_target"),
    ),
    new_lesion_codes=("RECIST//NEW",),
)


def _events(*rows: tuple[float, str, float | None, str | None], subject: str = "a", known: float = 0.0) -> pd.DataFrame:
    time = DAY0 + pd.to_timedelta([row[0] for row in rows], unit="D")
    return pd.DataFrame(
        {
            "subject_id": subject,
            "time": time,
            "code": [f"RECIST//{row[1]}" for row in rows],
            "numeric_value": [np.nan if row[2] is None else float(row[2]) for row in rows],
            "text_value": pd.array([row[3] for row in rows], dtype="str"),
            "available_time": time + pd.Timedelta(days=known),
        }
    )


def _decisions(*days: float, subject: str = "a") -> pd.DataFrame:
    return pd.DataFrame({"subject_id": subject, "index_time": [DAY0 + pd.Timedelta(days=day) for day in days]})


EVENTS = _events(
    (0, "T1", 40, None),
    (1, "T2", 20, None),
    (1, "NT1", None, "present"),
    (60, "T1", 22, None),
    (63, "T2", None, "too small to measure"),
    (60, "NT1", None, "present"),
    (120, "T1", None, "NOT EVALUABLE"),
    (120, "T2", 8, None),
    (180, "T1", 26, None),
    (180, "T2", 8, None),
    (180, "NT1", None, "present"),
    (240, "T1", 26, None),
    (240, "T2", 8, None),
    (240, "NEW", None, None),
)


def test_hand_counted() -> None:
    """Sums 60, 27, not evaluable, 34 and 34 with a new lesion, as of six decisions."""
    found = recist_features(EVENTS, _decisions(-1, 30, 100, 150, 200, 260), SECTION)
    assert tuple(found.columns) == RECIST
    expected = {
        "assessments": [0, 1, 2, 3, 4, 5],
        "targets": [np.nan, 2, 2, 2, 2, 2],
        "baseline_mm": [np.nan, 60, 60, 60, 60, 60],
        "last_mm": [np.nan, 60, 27, 27, 34, 34],
        "nadir_mm": [np.nan, 60, 27, 27, 27, 27],
        "change_mm": [np.nan, np.nan, -33, -33, -26, -26],
        "change_percent": [np.nan, np.nan, -55, -55, -100 * 26 / 60, -100 * 26 / 60],
        "change_mm_per_day": [np.nan, np.nan, -33 / 60, -33 / 60, -26 / 180, -26 / 240],
        "from_nadir_mm": [np.nan, np.nan, -33, -33, 7, 7],
        "from_nadir_percent": [np.nan, np.nan, -55, -55, 700 / 27, 700 / 27],
        "interval_days": [np.nan, 0, 60, 60, 180, 240],
        "days_since_last": [np.nan, 30, 40, 90, 20, 20],
        "new_lesions": [np.nan, np.nan, 0, 0, 0, 1],
        "response": [np.nan, np.nan, 3, np.nan, 1, 1],
        "best_response": [np.nan, np.nan, 3, 3, 3, 3],
        "progressed": [np.nan, np.nan, 0, 0, 1, 1],
    }
    for column, values in expected.items():
        np.testing.assert_allclose(found[column], values, err_msg=column)


def test_only_what_was_available() -> None:
    """A report that comes a week after the scan is not seen on the day of the scan; an index day is named by its index."""
    late = _events((0, "T1", 40, None), (60, "T1", 20, None), known=7)
    decisions = _decisions(60, 66.9, 67).set_index(pd.Index(["x", "y", "z"]))
    found = recist_features(late, decisions, SECTION)
    assert list(found.index) == ["x", "y", "z"]
    assert list(found["last_mm"]) == [40, 40, 20]


def test_start_of_treatment_units_and_late_lesions() -> None:
    """The baseline is the last assessment before the start; cm become mm; what is first measured later does not count."""
    events = _events((0, "T1", 6, None), (40, "T1", 40, None), (100, "T1", 30, None), (100, "T2", 30, None))
    events["unit"] = ["cm", "mm", "mm", "mm"]
    decisions = _decisions(200).assign(start=DAY0 + pd.Timedelta(days=50))
    found = recist_features(events, decisions, SECTION, since="start")
    assert list(found[["baseline_mm", "last_mm", "targets"]].iloc[0]) == [40, 30, 1]
    assert recist_features(events, decisions, SECTION)["baseline_mm"].iloc[0] == 60
    early = decisions.assign(start=DAY0 - pd.Timedelta(days=1))
    none = recist_features(events, early, SECTION, since="start")
    assert none["assessments"].iloc[0] == 0
    assert none["baseline_mm"].isna().all()
    events["unit"] = ["furlong", "mm", "mm", "mm"]
    assert recist_features(events, decisions, SECTION)["baseline_mm"].isna().all()


def test_stable_disease_is_counted_from_the_start_of_treatment() -> None:
    """Baseline 28 days before the start, seen 50 days after the baseline: too early for stable disease as best response."""
    events = _events((0, "T1", 40, None), (50, "T1", 39, None))
    decisions = _decisions(60).assign(start=DAY0 + pd.Timedelta(days=28))
    assert np.isnan(recist_features(events, decisions, SECTION, since="start")["best_response"].iloc[0])
    assert recist_features(events, decisions, SECTION)["best_response"].iloc[0] == 2
    assert recist_features(events, decisions, SECTION, since="start")["response"].iloc[0] == 2


def test_several_values_in_one_assessment() -> None:
    """The last of an assessment counts, of one moment the largest."""
    events = _events((0, "T1", 40, None), (3, "T1", 42, None), (3, "T1", 41, None), (60, "T1", 30, None))
    found = recist_features(events, _decisions(100), SECTION)
    assert list(found[["baseline_mm", "last_mm", "interval_days"]].iloc[0]) == [42, 30, 60]


COURSES = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(COURSES, st.integers(1, 400))
def test_agrees_with_the_rules_on_what_is_visible(course: list[tuple[int, int, bool]], day: int) -> None:
    """The last category is that of `time_points` on the measurements cut by hand; later events and other patients do not matter."""
    sizes = [(45, 20, False), *course]
    rows = [
        (60.0 * visit, code, mm, None)
        for visit, one in enumerate(sizes)
        for code, mm in zip(("T1", "T2"), one[:2], strict=True)
    ]
    rows += [(60.0 * visit, "NEW", None, None) for visit, one in enumerate(sizes) if one[2]]
    events = _events(*rows)  # type: ignore[arg-type]
    other = events.assign(subject_id="b", numeric_value=events["numeric_value"] * 2)
    both = pd.concat([events, other]).sample(frac=1, random_state=day)
    found = recist_features(both, _decisions(day), SECTION).iloc[0]
    cut = [row for row in rows if row[0] <= day]
    frame = pd.DataFrame(
        {
            "subject_id": "a",
            "time": [row[0] for row in cut],
            "lesion": [row[1] for row in cut],
            "kind": ["new" if row[1] == "NEW" else "target" for row in cut],
            "nodal": [row[1] == "T2" for row in cut],
            "diameter_mm": [row[2] for row in cut],
        }
    )
    points = recist.time_points(frame)
    assert found["last_mm"] == points["sum_mm"].iloc[-1]
    rank = {"CR": 4.0, "PR": 3.0, "SD": 2.0, "PD": 1.0}
    answers = [rank[answer] for answer in points["overall"].iloc[1:]]
    assert (found["response"] == answers[-1]) if answers else np.isnan(found["response"])
    alone = recist_features(events, _decisions(day), SECTION).iloc[0]
    pd.testing.assert_series_equal(alone, found)


def test_builder_names_and_explains() -> None:
    builder = RecistBuilder(SECTION.model_copy(update={"columns": ("last_mm", "response")}), {})
    decisions = _decisions(100, -5)
    found = builder.build(pa.Table.from_pandas(EVENTS), decisions)
    assert list(found.columns) == ["image.recist.last_mm", "image.recist.response"]
    assert [spec.name for spec in builder.catalogue] == list(found.columns)
    assert [spec.unit for spec in builder.catalogue] == ["mm", None]
    assert found.dtypes.unique().tolist() == [np.dtype("float64")]
    assert list(found["image.recist.last_mm"].fillna(-1)) == [27, -1]
    rows = builder.rows("image.recist.last_mm", pa.Table.from_pandas(EVENTS), decisions)
    assert set(rows["decision"]) == {0}
    assert rows["time"].max() == DAY0 + pd.Timedelta(days=63)
    assert len(rows) == 6
    assert any("RECIST 1.1" in step for step in builder.steps("image.recist.response"))
    full = RecistBuilder(SECTION, {})
    assert len(full.catalogue) == len(RECIST)
    assert all(spec.source and spec.label for spec in full.catalogue)
    nothing = full.build(pa.Table.from_pandas(EVENTS.iloc[:0]), decisions)
    assert list(nothing["image.recist.assessments"]) == [0, 0]


def test_the_start_is_told_by_doses() -> None:
    """The last assessment before the first dose is the baseline, once that dose may be seen."""
    dose = Concept(codes=("RxNorm//40048",), modality="treatment")
    start = TreatmentStart(concept="chemotherapy")
    builder = RecistBuilder(SECTION.model_copy(update={"start": start}), {"chemotherapy": dose})
    events = _events((0, "T1", 60, None), (40, "T1", 40, None), (50, "dose", None, None), (100, "T1", 30, None))
    events.loc[2, "code"] = "RxNorm//40048"
    table = pa.Table.from_pandas(events.assign(unit=None), schema=EVENT_SCHEMA, preserve_index=False)
    found = builder.build(table, _decisions(45, 200))
    assert list(found["image.recist.baseline_mm"]) == [60, 40]
    assert list(builder.rows("image.recist.last_mm", table, _decisions(200))["numeric_value"]) == [40, 30]
    assert any("chemotherapy" in step for step in builder.steps("image.recist.last_mm"))
    assert list(builder.build(empty_events(), _decisions(45))["image.recist.assessments"]) == [0]


def test_section_refuses_codes_and_names_that_are_wrong() -> None:
    with pytest.raises(ValidationError, match="SYSTEM//CODE"):
        RecistSection(lesions=(LesionCodes(name="a", codes=("T1",)),))
    with pytest.raises(ValidationError, match="these stand twice: a"):
        RecistSection(lesions=(LesionCodes(name="a", codes=("R//1",)), LesionCodes(name="a", codes=("R//2",))))
