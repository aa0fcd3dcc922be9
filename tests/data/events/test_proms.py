"""Questionnaires: scores against hand-worked examples and published rules, forms from real-looking exports."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_data.errors import SchemaError
from theracast_data.events.readers.proms import (
    Instrument,
    PromsOptions,
    Scale,
    composite_grade,
    read_proms,
    scale_scores,
)
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

NAN = float("nan")


def grade(**answers: float) -> float:
    return float(composite_grade(**{name: np.array([float(one)]) for name, one in answers.items()})[0])


@pytest.mark.parametrize(
    ("frequency", "severity", "interference", "expected"),
    [
        (1, 0, 0, 0), (3, 0, 0, 1), (1, 0, 3, 2), (1, 2, 0, 1), (1, 2, 1, 2), (1, 2, 4, 3), (1, 4, 2, 3), (2, 2, 0, 2),
        (2, 1, 2, 1), (3, 3, 2, 3), (4, 1, 2, 2), (4, 1, 4, 3), (4, 4, 1, 2), (0, 4, 4, 0), (4, 4, 4, 3),
        (1, 3, None, 2), (3, 3, None, 3), (4, 0, None, 1), (1, 2, None, 1), (2, 2, None, 2), (2, 4, None, 2),
        (None, 1, 2, 1), (None, 3, 0, 1), (None, 4, 0, 2), (None, 2, 4, 3), (None, 0, 3, 0),
        (3, None, 2, 2), (3, None, 3, 3), (2, None, 4, 2), (1, None, 0, 1),
        (2, None, None, 1), (4, None, None, 3), (None, 2, None, 2), (None, 4, None, 3), (None, None, 2, 1), (None, None, 4, 2),
    ],
)  # fmt: skip
def test_composite_grades_of_the_published_algorithm(
    frequency: int | None, severity: int | None, interference: int | None, expected: int
) -> None:
    answers = {"frequency": frequency, "severity": severity, "interference": interference}
    assert grade(**{name: one for name, one in answers.items() if one is not None}) == expected


def test_a_worse_answer_never_gives_a_better_grade() -> None:
    # Step 3 of the paper: directional consistency; 179 combinations in all with the branching on the first item.
    names = ("frequency", "severity", "interference")
    combinations = 0
    for size in (1, 2, 3):
        for asked in itertools.combinations(names, size):
            for answers in itertools.product(range(5), repeat=size):
                combinations += answers[0] > 0 or not any(answers)
                here = grade(**dict(zip(asked, answers, strict=True)))
                for place in range(size):
                    worse = [min(4, one + (at == place)) for at, one in enumerate(answers)]
                    assert grade(**dict(zip(asked, worse, strict=True))) >= here
    assert combinations == 179


def test_missing_items_of_a_grade() -> None:
    assert grade(frequency=0, severity=NAN, interference=NAN) == 0
    assert np.isnan(grade(frequency=2, severity=NAN))
    assert np.isnan(grade(frequency=NAN, severity=0))
    assert np.isnan(grade(severity=1.5, interference=1))


def score(scale: Scale, *answers: float, within: tuple[float, float] = (1, 4)) -> float:
    columns = {item: np.array([one]) for item, one in zip(scale.items, answers, strict=True)}
    return float(scale_scores(columns, scale, answered_from=within)[0])


def test_qlq_c30_rules() -> None:
    # EORTC QLQ-C30 Scoring Manual: RS = mean; functional (1 - (RS - 1) / range) * 100, symptom (RS - 1) / range * 100.
    functional = Scale(name="pf", items=("q1", "q2", "q3", "q4", "q5"), method="linear", inverted=True)
    symptom = Scale(name="fa", items=("q10", "q12", "q18"), method="linear")
    assert score(functional, 1, 2, 1, 1, 2) == pytest.approx((1 - (7 / 5 - 1) / 3) * 100)
    assert score(functional, 1, 2, 1, NAN, NAN) == pytest.approx((1 - (4 / 3 - 1) / 3) * 100)
    assert np.isnan(score(functional, 1, 2, NAN, NAN, NAN))
    assert score(symptom, 2, 3, 4) == pytest.approx(200 / 3)
    assert score(symptom, 2, 4, NAN) == pytest.approx(200 / 3)
    assert score(Scale(name="ql", items=("q29", "q30"), method="linear"), 5, NAN, within=(1, 7)) == pytest.approx(
        400 / 6
    )


def test_sums_means_and_items_that_count_backwards() -> None:
    assert score(Scale(name="s", items=("a", "b", "c"), method="sum", reverse=("c",)), 1, 2, 4) == 4
    assert score(Scale(name="s", items=("a", "b", "c"), method="sum"), 1, 3, NAN) == 6
    assert np.isnan(score(Scale(name="s", items=("a", "b", "c"), method="sum", min_answered=1), 1, 3, NAN))
    assert score(Scale(name="m", items=("a", "b"), method="mean"), 1, 4) == 2.5


@given(st.lists(st.sampled_from([NAN, 1.0, 2.0, 3.0, 4.0]), min_size=4, max_size=4), st.permutations(range(4)))
def test_scores_stay_in_range_and_do_not_see_the_order(answers: list[float], order: list[int]) -> None:
    scale = Scale(name="x", items=("a", "b", "c", "d"), method="linear")
    here = score(scale, *answers)
    assert here == pytest.approx(score(scale, *[answers[place] for place in order]), nan_ok=True)
    assert np.isnan(here) == (sum(np.isnan(answers)) > 2)
    assert np.isnan(here) or 0 <= here <= 100
    inverted = scale.model_copy(update={"inverted": True})
    assert score(inverted, *answers) == pytest.approx(100 - here, nan_ok=True)


QLQ = Instrument(
    name="qlq",
    answers=(1, 4),
    answers_of={"q29": (1, 7)},
    scales=(Scale(name="fatigue", items=("q10", "q12", "q18"), method="linear"),),
    single=("q29",),
)
PRO = Instrument.model_validate(
    {"name": "pro_ctcae", "answers": [0, 4], "levels": {"None": 0, "Mild": 1, "Severe": 3},
     "grades": [{"name": "pain", "frequency": "pain_f", "severity": "pain_s", "interference": "pain_i"}]}
)  # fmt: skip


def read(path: Path, **more: Any) -> tuple[pa.Table, IngestReport]:
    options = PromsOptions.model_validate(
        {"path": path.name, "subject": "patient", "time": {"column": "day"}, "instruments": (QLQ, PRO), **more}
    )
    report = IngestReport(path.stem)
    return pa.concat_tables([EVENT_SCHEMA.empty_table(), *read_proms(path, options=options, report=report)]), report


def contents(table: pa.Table) -> set[tuple[str, str, str, float]]:
    names = ("subject_id", "time", "code", "numeric_value")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {(subject, str(time), code, round(value, 6)) for subject, time, code, value in rows}


WIDE = """patient,day,q10,q12,q18,q29,pain_f,pain_s,pain_i
A,2024-01-05,2,3,4,7,0,,
A,2024-02-05T09:30,1,,,5,2,Severe,1
B,2024-01-07,1,1,9,,1,None,dreadful
,2024-01-08,1,1,1,1,0,,
B,soon,1,1,1,1,0,,
C,2024-01-09,,,,,,,
"""
SCORES = {
    ("A", "2024-01-05 00:00:00", "PRO//qlq//fatigue", 66.666667),
    ("A", "2024-01-05 00:00:00", "PRO//qlq//q29", 7),
    ("A", "2024-01-05 00:00:00", "PRO//pro_ctcae//pain", 0),
    ("A", "2024-02-05 09:30:00", "PRO//qlq//q29", 5),
    ("A", "2024-02-05 09:30:00", "PRO//pro_ctcae//pain", 2),
    ("B", "2024-01-07 00:00:00", "PRO//qlq//fatigue", 0),
}


def test_a_wide_table_becomes_scores_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "forms.csv"
    path.write_text(WIDE)
    table, report = read(path)
    assert contents(table) == SCORES
    assert report.refused == {
        ("PRO//qlq//fatigue", "too few items answered for a score"): 1,
        ("PRO//qlq//q18", "the answer is outside 1 to 4"): 1,
        ("PRO//pro_ctcae//pain_i", "the answer is no number"): 1,
        ("PRO//pro_ctcae//pain", "too few items answered for a score"): 1,
        ("(form)", "no patient"): 1,
        ("(form)", "no time, or one that was not understood"): 1,
    }
    assert report.first["(form)", "no patient"] == "forms.csv line 5"
    assert (report.read, report.written) == (6, len(table))
    known = dict(zip(table["time"].to_pylist(), table["available_time"].to_pylist(), strict=True))
    assert {str(time): str(moment) for time, moment in known.items()} == {
        "2024-01-05 00:00:00": "2024-01-05 23:59:59.999999",  # a date without clock is known at the end of the day
        "2024-01-07 00:00:00": "2024-01-07 23:59:59.999999",
        "2024-02-05 09:30:00": "None",
    }


def test_a_long_table_gives_the_same_scores_in_any_order(tmp_path: Path) -> None:
    wide = pd.read_csv(pd.io.common.StringIO(WIDE), dtype=str, keep_default_na=False)
    long = wide.melt(["patient", "day"], var_name="item", value_name="answer")
    long = long[long["answer"] != ""].sample(frac=1, random_state=1)
    path = tmp_path / "answers.csv"
    long.to_csv(path, index=False)
    table, report = read(path, item="item", answer="answer")
    assert contents(table) == SCORES
    assert report.refused["PRO//qlq//q18", "the answer is outside 1 to 4"] == 1
    again = pd.concat([long, long[(long["item"] == "q10") & (long["day"] == "2024-01-05")].assign(answer="1")])
    pd.concat([again, pd.DataFrame([{"patient": "A", "day": "2024-01-05", "item": "mood", "answer": "1"}])]).to_csv(
        path, index=False
    )
    table, report = read(path, item="item", answer="answer", keep_items=True)
    assert ("A", "2024-01-05 00:00:00", "PRO//qlq//fatigue", 83.333333) in contents(table)  # the mean of 3 and 4
    assert report.refused["PRO//qlq//q10", "answered twice on one form, differently; not used"] == 1
    assert report.refused["(item)", "the item is of no declared instrument"] == 1
    assert ("B", "2024-01-07 00:00:00", "PRO//qlq//q12", 1) in contents(table)


def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="in `reverse` only items"):
        Scale(name="x", items=("a",), method="sum", reverse=("b",))
    with pytest.raises(ValidationError, match="different ranges"):
        Instrument(name="i", answers=(1, 4), answers_of={"b": (1, 7)},
                   scales=(Scale(name="x", items=("a", "b"), method="sum"),))  # fmt: skip
    with pytest.raises(ValidationError, match=r"answers: \[0, 4\]"):
        Instrument.model_validate({"name": "i", "answers": [1, 5], "grades": [{"name": "pain", "severity": "s"}]})
    path = tmp_path / "forms.csv"
    path.write_text(WIDE.replace("q18", "q_18"))
    with pytest.raises(SchemaError, match="Did you mean 'q_18'"):
        read(path)
