"""iRECIST against the publication's tables 2 and 3, its scenarios, and the working group's answers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_features.imaging import irecist, recist
from theracast_features.imaging.best_response import best_immune_response
from theracast_features.imaging.irecist import IrecistRules

STEP = 42.0


def _responses(
    sums: list[float | None],
    *,
    non_target: list[str | None] | None = None,
    new: dict[str, list[object]] | None = None,
    step: float = STEP,
    rules: IrecistRules | None = None,
) -> list[str]:
    """Responses of a patient with one target (mm at baseline and each visit), one non-target and new lesions.

    A new lesion is a list from the first visit after baseline: mm, a word, or None for no row.
    """
    rows: list[tuple[object, ...]] = [
        (visit * step, "t", "target", "lung", mm, "NE" if mm is None else None) for visit, mm in enumerate(sums)
    ]
    if non_target:
        rows += [
            (visit * step, "nt", "non_target", "bone", None, word)
            for visit, word in enumerate(["present", *non_target])
        ]
    for name, states in (new or {}).items():
        for visit, state in enumerate(states, start=1):
            if state is not None:
                word = state if isinstance(state, str) else None
                rows.append((visit * step, name, "new", "liver", None if word else state, word))
    frame = pd.DataFrame(rows, columns=["time", "lesion", "kind", "organ", "diameter_mm", "status"]).assign(
        subject_id="a"
    )
    return list(irecist.immune_time_points(frame, rules=rules)["overall"])


@pytest.mark.parametrize(
    ("sums", "words", "answer"),
    [
        ([100, 0], ["absent"], "iCR"),
        ([100, 0], ["present"], "iPR"),
        ([100, 60], ["present"], "iPR"),
        ([100, 90], ["present"], "iSD"),
        ([100, 90], ["progression"], "iUPD"),
        ([100, 60], ["progression"], "iUPD"),
        ([100, 0], ["progression"], "iUPD"),
        ([100, 130], ["present"], "iUPD"),
        ([100, 130], ["absent"], "iUPD"),
        ([100, 130], ["progression"], "iUPD"),
        ([100, None], ["present"], "NE"),
    ],
)
def test_table_2_without_progression_before(sums: list[float | None], words: list[str], answer: str) -> None:
    assert _responses(sums, non_target=words) == [answer]


@pytest.mark.parametrize("sums", [[100, 90], [100, 60], [100, 130]])
def test_table_2_a_new_lesion_is_unconfirmed_progression(sums: list[float | None]) -> None:
    assert _responses(sums, non_target=["present"], new={"n": ["present"]}) == ["iUPD"]


@pytest.mark.parametrize(
    ("sums", "words", "new", "answer"),
    [
        # row 1 to 4: back to a response resets the bar
        ([100, 130, 0], ["present", "absent"], None, "iCR"),
        ([100, 130, 0], ["present", "present"], None, "iPR"),
        ([100, 130, 60], ["present", "present"], None, "iPR"),
        ([100, 130, 100], ["present", "present"], None, "iSD"),
        # row 5: new lesions confirm by size (measured: 5 mm, others: any) or number
        ([100, 130, 130], ["progression"] * 2, {"n": [12, 17]}, "iCPD"),
        ([100, 130, 130], ["progression"] * 2, {"n": [12, 16]}, "iUPD"),
        ([100, 130, 125], ["progression"] * 2, {"n": ["present", "increased"]}, "iCPD"),
        ([100, 130, 130], ["progression"] * 2, {"n": ["present", "present"]}, "iUPD"),
        ([100, 130, 130], ["progression"] * 2, {"n": [12, 12], "m": [None, "present"]}, "iCPD"),
        # row 6: non-target disease, further increase however small
        ([100, 100, 100], ["progression", "progression"], None, "iUPD"),
        ([100, 100, 100], ["progression", "increased"], None, "iCPD"),
        ([100, 60, 60], ["progression", "increased"], None, "iCPD"),
        # row 7: target lesions, further 5 mm
        ([100, 130, 135], ["present", "present"], None, "iCPD"),
        ([100, 130, 134], ["present", "present"], None, "iUPD"),
        ([100, 130, 130], ["absent", "absent"], None, "iUPD"),
        # row 8: either of both
        ([100, 130, 130], ["progression", "increased"], None, "iCPD"),
        ([100, 130, 136], ["progression", "progression"], None, "iCPD"),
        ([100, 130, 130], ["progression", "progression"], None, "iUPD"),
        # row 9: any of three
        ([100, 130, 136], ["progression"] * 2, {"n": ["present", "present"]}, "iCPD"),
        ([100, 130, 130], ["progression", "increased"], {"n": ["present", "present"]}, "iCPD"),
        ([100, 130, 130], ["progression"] * 2, {"n": ["present", "increased"]}, "iCPD"),
        # row 10: new lesions alone
        ([100, 100, 100], ["present", "present"], {"n": ["present", "present"]}, "iUPD"),
        ([100, 100, 100], ["present", "present"], {"n": ["present", "increased"]}, "iCPD"),
        ([100, 100, 100], ["present", "present"], {"n": ["present"] * 2, "m": [None, "present"]}, "iCPD"),
        # progression in a part that had none confirms
        ([100, 130, 130], ["present", "progression"], None, "iCPD"),
        ([100, 100, 130], ["progression", "progression"], None, "iCPD"),
        ([100, 130, 130], ["present", "present"], {"n": [None, "present"]}, "iCPD"),
    ],
)
def test_table_2_with_progression_before(
    sums: list[float | None], words: list[str], new: dict[str, list[object]] | None, answer: str
) -> None:
    """Seymour 2017, table 2, right column."""
    assert _responses(sums, non_target=words, new=new) == ["iUPD", answer]


def test_increases_add_up() -> None:
    """Working group: 4 mm and then 2 mm more confirm, of new and of target lesions."""
    assert _responses([100, 100, 100, 100], new={"n": [12, 16, 18]}) == ["iUPD", "iUPD", "iCPD"]
    assert _responses([100, 130, 134, 136]) == ["iUPD", "iUPD", "iCPD"]


def test_the_bar_is_reset() -> None:
    """Progression after a response begins anew from the nadir, and must be confirmed anew."""
    assert _responses([100, 130, 80, 100, 106]) == ["iUPD", "iSD", "iUPD", "iCPD"]
    assert _responses([100, 130, 60, 73, 73, 50]) == ["iUPD", "iPR", "iUPD", "iUPD", "iPR"]


def test_scenarios_of_the_figure() -> None:
    """B: shrinkage after a new lesion is a response. F: a response before it, and no change after it, is none."""
    assert _responses([100, 100, 50], new={"n": ["present", "present"]}) == ["iUPD", "iPR"]
    assert _responses([100, 50, 50, 50], new={"n": [None, "present", "present"]}) == ["iPR", "iUPD", "iUPD"]
    assert _responses([100, 100, 0], new={"n": ["present", "present"]}) == ["iUPD", "iPR"]
    assert _responses([100, 100, 0], new={"n": ["present", "absent"]}) == ["iUPD", "iCR"]


def test_known_new_lesions_progress_again_only_by_the_rules() -> None:
    """After a reset: a further lesion, the measured ones by 20 % and 5 mm from their nadir, or words of progression."""
    after = [100, 100, 60, 60]
    assert _responses(after, new={"n": [20, 20, 24]})[-1] == "iPR"
    assert _responses(after, new={"n": [20, 20, 25]})[-1] == "iUPD"
    assert _responses(after, new={"n": ["present", "present", "increased"]})[-1] == "iPR"
    assert _responses(after, new={"n": ["present", "present", "progression"]})[-1] == "iUPD"
    assert _responses(after, new={"n": ["present"] * 3, "m": [None, None, "present"]})[-1] == "iUPD"


@pytest.mark.parametrize(("step", "answer"), [(27, "iUPD"), (28, "iCPD"), (56, "iCPD"), (57, "iUPD")])
def test_confirmation_between_four_and_eight_weeks(step: float, answer: str) -> None:
    assert _responses([100, 130, 140], step=step)[1] == answer


def test_time_limits_are_counted_from_first_and_last_sight() -> None:
    """Two weeks later is too early, four weeks after the first is not; without a limit a late one confirms."""
    assert _responses([100, 130, 140, 140], step=14) == ["iUPD", "iUPD", "iCPD"]
    assert _responses([100, 130, 140], step=84, rules=IrecistRules(confirm_to_days=None)) == ["iUPD", "iCPD"]


def test_what_was_not_assessed_neither_confirms_nor_resets() -> None:
    rules = IrecistRules(confirm_to_days=None)
    assert _responses([100, 130, None, 136], rules=rules) == ["iUPD", "NE", "iCPD"]
    assert _responses([100, 130, 136, 50, 50]) == ["iUPD", "iCPD", "iCPD", "iCPD"]


ANY = ["iCR", "iPR", "iSD", "iUPD", "iCPD", "NE"]
TABLE_3 = [
    ([["iCR"], ["iCR", "iPR", "iUPD", "NE"], ["iCR", "iPR", "iUPD", "NE"], ["iUPD"], ["iCPD"]], "iCR"),
    ([["iUPD"], ["iPR", "iSD", "NE"], ["iCR"], ["iCR", "iUPD", "NE"], ANY], "iCR"),
    (
        [
            ["iUPD"],
            ["iPR"],
            ["iPR", "iSD", "iUPD", "NE"],
            ["iPR", "iSD", "iUPD", "NE", "iCPD"],
            ["iPR", "iSD", "iUPD", "NE"],
        ],
        "iPR",
    ),
    ([["iUPD"], ["iSD", "NE"], ["iPR"], ["iPR", "iSD", "iUPD", "NE"], ["iPR", "iSD", "iUPD", "iCPD", "NE"]], "iPR"),
    ([["iUPD"], ["iSD"], ["iSD", "iUPD", "NE"], ["iSD", "iUPD", "iCPD", "NE"], ["iSD", "iUPD", "iCPD", "NE"]], "iSD"),
    ([["iUPD"], ["iCPD"], ANY, ANY, ANY], "iCPD"),
    ([["iUPD"], ["iUPD"], ["iCPD"], ANY, ANY], "iCPD"),
    ([["iUPD"], ["NE"], ["NE"], ["NE"], ["NE"]], "iUPD"),
]


@pytest.mark.parametrize(("choices", "best"), TABLE_3)
def test_table_3(choices: list[list[str]], best: str) -> None:
    """Seymour 2017, table 3: every combination of all eight examples."""
    for answers in product(*choices):
        assert best_immune_response([56, 112, 168, 224, 280], answers) == best  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 200)), min_size=1, max_size=6))
def test_until_progression_both_rules_agree(later: list[int | None]) -> None:
    """Before the first progression iRECIST is RECIST with an i, and where RECIST first says PD, it says iUPD."""
    frame = pd.DataFrame(
        {
            "subject_id": "a",
            "time": STEP * np.arange(len(later) + 1),
            "lesion": "t",
            "kind": "target",
            "diameter_mm": [100.0, *(np.nan if mm is None else mm for mm in later)],
            "status": [None, *("NE" if mm is None else None for mm in later)],
        }
    )
    plain = list(recist.time_points(frame)["overall"].iloc[1:])
    immune = list(irecist.immune_time_points(frame)["overall"])
    for before, after in zip(plain, immune, strict=True):
        assert after == {"PD": "iUPD", "NE": "NE"}.get(before, f"i{before}")
        if before == "PD":
            break
