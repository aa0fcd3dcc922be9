"""What stands behind an answer: the nearest validated pattern, and the floor below which there is none."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from theracast_models.standing import FloorSection, nearest_pattern, standing

VALIDATED = {
    "clinical+lab+genomic": {"n": 200, "events": 60, "auc": 0.80, "auc_low": 0.74, "auc_high": 0.86},
    "clinical+lab": {"n": 150, "events": 40, "auc": 0.70, "auc_low": 0.61, "auc_high": 0.79},
    "clinical+genomic": {"n": 180, "events": 50, "auc": 0.76, "auc_low": 0.69, "auc_high": 0.83},
    "lab": {"n": 180, "events": 50, "auc": 0.58, "auc_low": 0.49, "auc_high": 0.67},
    "none": {"n": 12, "events": 12, "auc": None, "auc_low": None, "auc_high": None},
}


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("clinical+lab", "clinical+lab"),
        ("clinical+lab+imaging", "clinical+lab"),  # what is there, less what was not validated
        ("clinical+lab+genomic+imaging", "clinical+lab+genomic"),  # the most of it
        ("lab+genomic", "lab"),  # never one that has more, where there is one with less
        ("clinical", "clinical+genomic"),  # none has less: the one that differs least, of two the larger
        ("none", "lab"),
    ],
)
def test_the_nearest_pattern_has_nothing_that_the_patient_lacks(pattern: str, nearest: str) -> None:
    found = standing(pattern, VALIDATED)
    assert found.nearest == nearest
    assert found.record == VALIDATED[nearest]
    assert found.exact == (pattern == nearest)
    assert found.abstains is None


def test_every_pattern_has_a_standing() -> None:
    names = ("clinical", "lab", "genomic", "imaging")
    for size in range(5):
        for chosen in itertools.combinations(names, size):
            pattern = "+".join(chosen) or "none"
            told = standing(pattern, VALIDATED, floor=FloorSection(auc=0.6, modalities=1, validated=True))
            assert told.says.endswith(".")
            assert told.abstains is None or told.abstains.startswith("No answer: ")
    assert nearest_pattern("lab", {}) is None
    assert standing("lab", {}).says == "How well the model does for patients with such data was not validated."


def test_says_what_was_validated() -> None:
    assert standing("clinical+lab", VALIDATED).says == (
        "Validated for patients with clinical data and laboratory values: AUC 0.70 (95 % interval 0.61 to 0.79) in 150 "
        "decisions, 40 with the event."
    )
    assert "the nearest that was, without imaging: AUC 0.70" in standing("clinical+lab+imaging", VALIDATED).says
    assert "the nearest that was, with genomic data: AUC 0.76" in standing("clinical", VALIDATED).says


@pytest.mark.parametrize(
    ("pattern", "floor", "reason"),
    [
        ("lab", {"auc": 0.6}, "the validated AUC was 0.58; the study asks for at least 0.60"),
        ("lab", {"auc_lower": 0.5}, "the validated lower bound of the AUC was 0.49"),
        ("none", {"modalities": 1}, "nothing known, and the study asks for at least 1 kinds of data"),
        ("clinical+lab+imaging", {"validated": True}, "was not validated for patients with clinical data"),
    ],
)
def test_below_the_floor_there_is_no_answer_and_the_reason(pattern: str, floor: dict, reason: str) -> None:
    assert reason in (standing(pattern, VALIDATED, floor=FloorSection(**floor)).abstains or "")
    assert standing("clinical+lab+genomic", VALIDATED, floor=FloorSection(**floor)).abstains is None


def test_where_nothing_was_validated_a_floor_of_performance_abstains() -> None:
    assert standing("lab", {}, floor=FloorSection(auc=0.6)).abstains is not None
    assert standing("lab", {}, floor=FloorSection(modalities=1)).abstains is None


def test_a_misspelt_floor_is_refused() -> None:
    with pytest.raises(ValidationError):
        FloorSection(auroc=0.6)
