"""What a study may and may not say of its treatments."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from theracast_training.effects.section import Subgroup, TreatmentSection

GOOD: dict[str, Any] = {
    "arms": {"old": ["A"], "new": ["B", 2]},
    "control": "old",
    "assignment": "randomised",
}


def test_effects_are_allowed_by_chance_or_by_a_justification_alone() -> None:
    assert TreatmentSection(**GOOD).allows_effects
    observed = GOOD | {"assignment": "observational"}
    assert not TreatmentSection(**observed).allows_effects
    reason = "Age, stage and performance status decided the treatment by the centre's protocol; all are features."
    assert TreatmentSection(**observed, justification=reason).allows_effects
    assert TreatmentSection(**GOOD).arm_of("2") == "new"
    assert TreatmentSection(**GOOD).arm_of("C") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignment": None}, "assignment"),
        ({"control": "other"}, "no arm is named 'other'"),
        ({"arms": {"old": ["A"]}}, "two or more"),
        ({"arms": {"old": ["A"], "new": ["A"]}}, "more than one arm"),
        ({"assignment": "observational", "justification": "we adjusted"}, "what decided the treatment"),
        ({"justification": "x" * 60}, "randomised arms need none"),
        ({"probability": {"old": 0.5}}, "every arm"),
        ({"probability": {"old": 0.5, "new": 0.6}}, "add up to 1"),
        ({"assignment": "observational", "probability": {"old": 0.5, "new": 0.5}}, "only randomised arms"),
        ({"horizon": "two years"}, "write a length of time"),
        ({"learners": ["dr", "dr"]}, "named twice"),
        ({"subgroups": [{"column": "age"}]}, "at_least"),
    ],
)
def test_a_faulty_section_says_what_to_mend(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TreatmentSection(**(GOOD | change))


def test_the_assignment_is_never_assumed() -> None:
    with pytest.raises(ValidationError, match="assignment"):
        TreatmentSection(**{key: value for key, value in GOOD.items() if key != "assignment"})


def test_a_subgroup_has_a_name() -> None:
    assert Subgroup(column="age", at_least=65).name == "age: at least 65"
    assert Subgroup(column="sex", values=("female",), label="women").name == "women"
