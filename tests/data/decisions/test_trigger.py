"""Decisions of a few patients, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from theracast_data.cohort import AttritionStep
from theracast_data.decisions import Decisions, DecisionSection, derive_decisions, merge_attrition
from theracast_data.decisions.attributes import type_attributes
from theracast_data.errors import SchemaError, StudyError
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.section import EventSection
from theracast_data.sources import Inputs

Table = Callable[..., pa.Table]


def decide(events: pa.Table, /, as_of: datetime | None = None, **section: Any) -> Decisions:
    concepts = {
        "albumin": Concept(codes=("LOINC//1751-7",), unit="g/dL", assume_unit="g/dL", quantity="albumin"),
        "creatinine": Concept(codes=("LOINC//2160-0",), unit="mg/dL", quantity="creatinine"),
    }
    return derive_decisions(events, DecisionSection.model_validate(section), concepts=concepts, as_of=as_of)


def days(decisions: Decisions) -> list[str]:
    return [
        f"{one} {time:%m-%d}"
        for one, time in zip(decisions.frame["subject_id"], decisions.frame["index_time"], strict=True)
    ]


DOSES = [
    ("b", "2020-01-01 09:00", "ATC//L01FF02"),
    ("b", "2020-01-22 09:00", "ATC//L01FF02"),
    ("b", "2020-09-01 09:00", "ATC//L01FF01"),
    ("a", "2020-03-01 09:00", "ATC//L01XA02"),
    ("a", "2020-03-01 09:00", "ATC//L01FF02"),
    ("c", "2020-03-01 09:00", "LOINC//1751-7", 4.0),
]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"codes": ["ATC//L01FF*"]}, ["a 03-01", "b 01-01"]),
        ({"codes": "ATC//L01FF*", "occurrence": "each"}, ["a 03-01", "b 01-01", "b 01-22", "b 09-01"]),
        ({"codes": ["ATC//L01FF*"], "occurrence": 2}, ["b 01-22"]),
        ({"codes": ["ATC//L01FF*"], "occurrence": "each", "washout": "180d"}, ["a 03-01", "b 01-01", "b 09-01"]),
        ({"codes": ["ATC//L01FF*"], "occurrence": 2, "washout": "180d"}, ["b 09-01"]),
        ({"codes": ["ATC//L01FF02"], "occurrence": "each", "washout": "21d"}, ["a 03-01", "b 01-01", "b 01-22"]),
        ({"concept": "albumin", "value": {"at_least": 40, "unit": "g/L"}}, ["c 03-01"]),
        ({"concept": "albumin", "value": {"above": 40, "unit": "g/L"}}, []),
    ],
)
def test_trigger(table: Table, trigger: dict[str, Any], expected: list[str]) -> None:
    assert days(decide(table(*DOSES), trigger=trigger)) == expected


def test_treatment_is_the_combination_of_the_moment(table: Table) -> None:
    trigger = {
        "codes": ["ATC//L01*"],
        "occurrence": "each",
        "treatment": {"ATC//L01FF*": "PD-(L)1", "ATC//L01FF01": "nivolumab", "ATC//L01XA*": "platinum"},
    }
    found = decide(table(*DOSES), trigger=trigger).frame["treatment"].tolist()
    assert found == ["PD-(L)1 + platinum", "PD-(L)1", "PD-(L)1", "nivolumab"]


def test_frame_is_typed_and_empty_events_give_an_empty_one(table: Table) -> None:
    for events in (table(*DOSES), EVENT_SCHEMA.empty_table(), table(DOSES[-1])):
        frame = decide(
            events, trigger={"codes": ["ATC//L01FF*"]}, landmarks={"days": [0], "ends": [{"codes": "X//1"}]}
        ).frame
        assert list(frame.columns) == ["subject_id", "index_time", "treatment", "site", "landmark"]
        assert frame["index_time"].dtype == "datetime64[us]"
        assert frame["landmark"].dtype == np.int64


def test_rules_and_attrition(table: Table) -> None:
    events = table(
        *[(one, "2020-05-01 10:00", "RX//1") for one in "abcdef"],
        *[(one, None, "SITE//x", None, "North" if one < "d" else "South") for one in "abcdef"],
        ("a", "2020-04-01 10:00", "LOINC//1751-7", 34.0, None, "g/L"),
        ("b", "2020-04-01 10:00", "LOINC//1751-7", 3.4),
        ("c", "2020-04-01 10:00", "LOINC//1751-7", 3.5, None, "g/dL"),
        ("d", "2020-04-01 10:00", "LOINC//1751-7", 3.1, None, "nonsense"),
        ("e", "2020-04-01 10:00", "LOINC//1751-7", 3.1, None, None, "2020-05-02 10:00"),
        ("f", "2020-04-01 10:00", "LOINC//1751-7", 2.0),
        ("f", "2020-04-20 10:00", "ICD10CM//C79.3"),
    )
    found = decide(
        events,
        trigger={"codes": ["RX//1"]},
        site={"codes": ["SITE//x"]},
        include=[{"name": "low albumin", "concept": "albumin", "value": {"below": 3.5}, "window": "[-60d, 0d]"}],
        exclude=[{"name": "brain metastasis", "codes": ["ICD10CM//C79.3*"], "window": "(-inf, 0d]"}],
    )
    assert days(found) == ["a 05-01", "b 05-01"]
    assert found.attrition == (
        AttritionStep("all", "patients with the trigger", 0, 6),
        AttritionStep("North", "low albumin", 1, 2),
        AttritionStep("South", "low albumin", 2, 1),
        AttritionStep("North", "not: brain metastasis", 0, 2),
        AttritionStep("South", "not: brain metastasis", 1, 0),
    )
    assert found.notes == {"albumin: cannot be converted from nonsense to g/dL, so not compared": 1}
    assert merge_attrition([found.attrition, found.attrition])[1] == AttritionStep("North", "low albumin", 2, 4)


def test_molar_limits_are_compared_in_the_concept_s_unit(table: Table) -> None:
    rule = {"name": "kidney", "concept": "creatinine", "value": {"above": 1.5}, "window": "(-inf, 0d]"}
    events = table(
        ("a", "2020-05-01 10:00", "RX//1"),
        ("b", "2020-05-01 10:00", "RX//1"),
        ("a", "2020-04-01 10:00", "LOINC//2160-0", 150.0, None, "umol/L"),
        ("b", "2020-04-01 10:00", "LOINC//2160-0", 120.0, None, "umol/L"),
    )
    assert days(decide(events, trigger={"codes": ["RX//1"]}, include=[rule])) == ["a 05-01"]


@pytest.mark.parametrize(
    ("index", "event", "available", "same_day", "visible"),
    [
        ("2020-05-02 15:00", "2020-05-02", None, "hidden", False),
        ("2020-05-02 15:00", "2020-05-02", None, "visible", True),
        ("2020-05-02", "2020-05-02", None, "hidden", False),
        ("2020-05-02", "2020-05-02", None, "visible", True),
        ("2020-05-03", "2020-05-02", None, "hidden", True),
        ("2020-05-02 15:00", "2020-05-02 15:00", None, "hidden", True),
        ("2020-05-02 15:00", "2020-05-02 15:01", None, "visible", False),
        ("2020-05-02 15:00", "2020-05-02 08:00", "2020-05-02 15:01", "visible", False),
        ("2020-05-02 15:00", "2020-05-02", "2020-05-02 09:00", "hidden", True),
        ("2020-05-02 15:00", "2020-05-01 08:00", "2020-05-02 00:00", "hidden", True),
        ("2020-05-02 15:00", "2020-05-02", "2020-05-02 23:59:59.999999", "hidden", False),
        ("2020-05-02 15:00", "2020-05-02", "2020-05-02 23:59:59.999999", "visible", True),
        ("2020-05-03 00:00", "2020-05-02", "2020-05-02 23:59:59.999999", "hidden", True),
        ("2020-05-02 15:00", None, None, "hidden", True),
    ],
)
def test_what_is_known_on_the_index_day(
    table: Table, *, index: str, event: str | None, available: str | None, same_day: str, visible: bool
) -> None:
    events = table(("a", index, "RX//1"), ("a", event, "LAB//1", None, "seen", None, available))
    section = {
        "trigger": {"codes": ["RX//1"]},
        "same_day": same_day,
        "attributes": {"lab": {"codes": ["LAB//1"], "missing": "no"}},
    }
    assert (decide(events, **section).frame["lab"][0] == "seen") is visible
    rule = {"name": "lab", "codes": ["LAB//1"], "window": "(-inf, 0d]"}
    assert (len(decide(events, **section, include=[rule]).frame) == 1) is visible


def test_observation_from_events_and_from_periods(table: Table) -> None:
    events = table(
        *[(one, "2020-05-01", "RX//1") for one in "abcd"],
        *[(one, "1950-01-01", "MEDS_BIRTH") for one in "abcd"],
        ("a", "2019-01-01", "VISIT//1"),
        ("a", "2020-10-01", "VISIT//1"),
        ("b", "2020-06-01", "MEDS_DEATH"),
        ("b", "2018-06-01", "VISIT//1"),
        ("c", "2019-06-01", "PERIOD//start"),
        ("c", "2020-02-01", "PERIOD//end"),
        ("c", "2020-04-01", "PERIOD//start"),
        ("d", "2019-01-01", "PERIOD//start"),
        ("d", "2020-12-01", "PERIOD//end"),
    )
    trigger = {"codes": ["RX//1"]}
    assert days(decide(events, trigger=trigger, observation={"before": "365d"})) == ["a 05-01", "b 05-01", "d 05-01"]
    after = {"after": "90d", "complete": {"codes": ["MEDS_DEATH"]}}
    assert days(decide(events, trigger=trigger, observation=after)) == ["a 05-01", "b 05-01", "d 05-01"]
    periods = {
        "before": "60d",
        "after": "90d",
        "start": {"codes": ["PERIOD//start"]},
        "end": {"codes": ["PERIOD//end"]},
    }
    assert days(decide(events, trigger=trigger, observation=periods)) == ["d 05-01"]


def test_landmarks_keep_those_at_risk(table: Table) -> None:
    events = table(
        *[(one, "2020-05-01", "RX//1") for one in "abcd"],
        ("a", "2020-08-01", "VISIT//1"),
        ("b", "2020-06-12", "PROGRESSION//1"),
        ("b", "2020-12-01", "VISIT//1"),
        ("c", "2020-06-12", "VISIT//1"),
        ("d", "2020-06-11", "VISIT//1"),
    )
    landmarks = {"days": [42, 0, 84], "ends": [{"codes": ["PROGRESSION//*"]}]}
    found = decide(events, trigger={"codes": ["RX//1"]}, landmarks=landmarks)
    kept = found.frame.groupby("landmark")["subject_id"].apply("".join)
    assert kept.to_dict() == {0: "abcd", 42: "ac", 84: "a"}
    assert days(found)[:3] == ["a 05-01", "a 06-12", "a 07-24"]
    assert [(step.dropped, step.left) for step in found.attrition[1:]] == [(0, 4), (2, 2), (3, 1)]
    now = decide(events, as_of=datetime(2020, 6, 20), trigger={"codes": ["RX//1"]}, landmarks=landmarks)  # noqa: DTZ001
    assert now.frame.groupby("landmark")["subject_id"].apply("".join).to_dict() == {0: "abcd", 42: "acd", 84: "a"}


def test_attributes_are_the_last_visible_fact(table: Table) -> None:
    events = table(
        ("a", "2020-05-01 10:00", "RX//1"),
        ("a", None, "MEDS_GENDER//F"),
        ("a", "2020-04-01", "ECOG//x", 1.0),
        ("a", "2020-04-20", "ECOG//x", 2.0),
        ("a", "2020-05-10", "ECOG//x", 4.0),
    )
    section = DecisionSection.model_validate(
        {
            "trigger": {"codes": ["RX//1"]},
            "attributes": {
                "sex": {"codes": ["MEDS_GENDER//*"], "take": "code", "levels": {"F": "female"}},
                "ecog": {"codes": ["ECOG//x"], "take": "number"},
            },
        }
    )
    found = derive_decisions(events, section)
    assert found.frame.loc[0, ["sex", "ecog"]].tolist() == ["F", 2.0]
    meanings = Inputs(events=EventSection(store="s"), decisions=section).meanings
    values = type_attributes(found.frame, section.attributes, meanings).values
    assert [values["sex"][0], values["ecog"][0]] == ["female", 2.0]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"window": "-30d, 0d"}, "write a window with both ends"),
        ({"window": "(0d, -30d]"}, "write the earlier end first"),
        ({"window": "(0d, 0d]"}, "holds no moment"),
        ({"window": "[-inf, 0d]"}, "-inf can only be an open start"),
        ({"window": "(-30d, 30d]"}, "the rule would know the future"),
        ({"window": "(-30, 0d]"}, "each with its unit"),
        ({"window": "(-30d, 0d]", "codes": ["L*C//1"]}, "at most as its last sign"),
        ({"window": "(-30d, 0d]", "concept": "x"}, "exactly one of `codes` and `concept`"),
        ({"window": "(-30d, 0d]", "value": {}}, "at least one of below"),
        ({"window": "(-30d, 0d]", "at_least": 3, "at_most": 2}, "no patient meets that"),
    ],
)
def test_sections_say_how_to_mend_them(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        DecisionSection.model_validate(
            {"trigger": {"codes": ["RX//1"]}, "include": [{"name": "rule", "codes": ["X//1"]} | rule]}
        )


def test_events_of_another_shape_are_refused(table: Table) -> None:
    with pytest.raises(SchemaError, match="available_time are missing"):
        decide(table(*DOSES).drop_columns(["available_time"]), trigger={"codes": ["RX//1"]})
    with pytest.raises(SchemaError, match="Convert it before"):
        decide(table(*DOSES).to_pandas().assign(numeric_value="x"), trigger={"codes": ["RX//1"]})
    with pytest.raises(StudyError, match="add it under `concepts`"):
        decide(table(*DOSES), trigger={"concept": "weight"})
    pd.testing.assert_frame_equal(
        decide(table(*DOSES).to_pandas(), trigger={"codes": ["ATC//*"]}).frame,
        decide(table(*DOSES), trigger={"codes": ["ATC//*"]}).frame,
    )
