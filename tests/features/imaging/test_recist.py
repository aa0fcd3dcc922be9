"""RECIST 1.1 against every row of the publication's tables, worked patients, invariances, and the series of five trials."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theracast_data.errors import SchemaError
from theracast_features.imaging import recist
from theracast_features.imaging.best_response import best_overall_response
from theracast_features.imaging.recist import RecistRules

TABLE_1 = [
    ("CR", "CR", False, "CR"),
    ("CR", "NonCR/NonPD", False, "PR"),
    ("CR", "NE", False, "PR"),
    ("PR", "NonCR/NonPD", False, "PR"),
    ("PR", "CR", False, "PR"),
    ("PR", "NE", False, "PR"),
    ("SD", "NonCR/NonPD", False, "SD"),
    ("SD", "CR", False, "SD"),
    ("SD", "NE", False, "SD"),
    ("NE", "NonCR/NonPD", False, "NE"),
    ("NE", "CR", False, "NE"),
    *[("PD", non_target, new, "PD") for non_target, new in product(["CR", "NonCR/NonPD", "NE", "PD"], [True, False])],
    *[(target, "PD", new, "PD") for target, new in product(["CR", "PR", "SD", "NE"], [True, False])],
    *[(t, n, True, "PD") for t, n in product(["CR", "PR", "SD", "NE"], ["CR", "NonCR/NonPD", "NE"])],
]
TABLE_2 = [
    ("CR", False, "CR"),
    ("NonCR/NonPD", False, "NonCR/NonPD"),
    ("NE", False, "NE"),
    ("PD", False, "PD"),
    ("PD", True, "PD"),
    *[(answer, True, "PD") for answer in ("CR", "NonCR/NonPD", "NE")],
]


@pytest.mark.parametrize(("target", "non_target", "new", "overall"), TABLE_1)
def test_table_1(target: recist.Target, non_target: recist.NonTarget, new: bool, overall: str) -> None:
    """Eisenhauer 2009, table 1: every row, `non-PD or not all evaluated` written out."""
    assert recist.overall_response(target, non_target, new=new) == overall


@pytest.mark.parametrize(("non_target", "new", "overall"), TABLE_2)
def test_table_2(non_target: recist.NonTarget, new: bool, overall: str) -> None:
    """Eisenhauer 2009, table 2: patients with non-target disease only."""
    assert recist.overall_response(None, non_target, new=new) == overall


@pytest.mark.parametrize("target", ["CR", "PR", "SD", "PD", "NE"])
def test_without_non_target_lesions_targets_decide(target: recist.Target) -> None:
    assert recist.overall_response(target, None, new=False) == target
    assert recist.overall_response(target, None, new=True) == "PD"


# First and next time point, best response where stable disease lasted long enough, and where it did not.
TABLE_3 = [
    ("CR", "CR", "CR", "CR"),
    ("CR", "PR", "SD", "PD"),
    ("CR", "SD", "SD", "PD"),
    ("CR", "PD", "SD", "PD"),
    ("CR", "NE", "SD", "NE"),
    ("PR", "CR", "PR", "PR"),
    ("PR", "PR", "PR", "PR"),
    ("PR", "SD", "SD", "SD"),
    ("PR", "PD", "SD", "PD"),
    ("PR", "NE", "SD", "NE"),
    ("NE", "NE", "NE", "NE"),
    ("NE", "CR", "SD", "SD"),
    ("NE", "PR", "SD", "SD"),
    ("NE", "SD", "SD", "SD"),
    ("NE", "PD", "PD", "PD"),
    ("NE", "NE", "NE", "NE"),
]


@pytest.mark.parametrize(("first", "second", "long", "short"), TABLE_3)
def test_table_3(first: recist.Overall, second: recist.Overall, long: str, short: str) -> None:
    """Eisenhauer 2009, table 3: confirmation required. `short`: the first assessment came before the minimum."""
    assert best_overall_response([56, 112], [first, second], confirmed=True) == long
    assert best_overall_response([28, 60], [first, second], confirmed=True) == short


def test_best_response_details() -> None:
    """Footnote of table 3; confirmation waits four weeks, passes over what was not evaluable, and ends with progression."""
    best = best_overall_response
    assert best([56, 112], ["CR", "PR"], confirmed=True, after_complete="partial") == "PR"
    assert best([56, 70, 98], ["PR", "PR", "PR"], confirmed=True) == "PR"
    assert best([56, 70], ["PR", "PR"], confirmed=True) == "SD"
    assert best([56, 84, 112], ["PR", "NE", "PR"], confirmed=True) == "PR"
    assert best([56, 112], ["PD", "CR"]) == "PD"
    assert best([56, 112, 168], ["SD", "PR", "PD"]) == "PR"
    assert best([56, 112, 168], ["SD", "PR", "PD"], confirmed=True) == "SD"
    assert best([30], ["SD"]) == "NE"
    assert best([30, 60], ["SD", "PD"]) == "PD"
    assert best([42], ["SD"]) == "SD"
    assert best([60], ["NonCR/NonPD"]) == "NonCR/NonPD"
    assert best([], []) == "NE"


@pytest.mark.parametrize(
    ("diameters", "nodal", "baseline", "nadir", "expected"),
    [
        ([0, 0], [False, False], 60, 60, "CR"),
        ([0, 9.9], [False, True], 60, 60, "CR"),
        ([0, 10], [False, True], 60, 60, "PR"),
        ([5, 0], [False, False], 60, 60, "PR"),  # too small to measure is not gone
        ([42], [False], 60, 60, "PR"),
        ([42.1], [False], 60, 60, "SD"),
        ([72], [False], 60, 60, "PD"),
        ([71.9], [False], 60, 60, "SD"),
        ([12], [False], 60, 10, "PR"),  # 20 % of the nadir, but 2 mm
        ([15], [False], 60, 10, "PD"),
        ([14.9], [False], 60, 10, "PR"),
        ([5], [False], 60, 0, "PD"),
        ([4.9], [False], 60, 0, "PR"),
        ([0], [False], 60, 0, "CR"),
        ([30, np.nan], [False, False], 60, 60, "NE"),
        ([75, np.nan], [False, False], 60, 60, "PD"),
        ([], [], 0, 0, "NE"),
    ],
)
def test_target_category(
    diameters: list[float], nodal: list[bool], baseline: float, nadir: float, expected: str
) -> None:
    """The thresholds at their edges (section 4.3.1 and 4.3.2)."""
    assert recist.target_category(diameters, nodal, baseline_mm=baseline, nadir_mm=nadir) == expected


def _lesions(*rows: tuple[object, ...]) -> pd.DataFrame:
    """Rows (time, lesion, kind, diameter, status[, nodal])."""
    full = [(*row, False) if len(row) == 5 else row for row in rows]
    frame = pd.DataFrame(full, columns=["time", "lesion", "kind", "diameter_mm", "status", "nodal"])
    return frame.assign(subject_id="a")


def test_a_worked_course() -> None:
    """Two lesions and a node: partial response, a lesion too small, one not assessed, growth from nadir."""
    rows = [
        (0, "lung", "target", 40, None),
        (0, "node", "target", 20, None, True),
        (0, "liver", "target", 20, None),
        (0, "bone", "non_target", None, "present"),
        (56, "lung", "target", 25, None),
        (56, "node", "target", 12, None, True),
        (56, "liver", "target", None, "too small to measure"),
        (56, "bone", "non_target", None, "present"),
        (112, "lung", "target", 20, None),
        (112, "node", "target", 9, None, True),
        (112, "liver", "target", None, "NOT EVALUABLE"),
        (112, "bone", "non_target", None, "present"),
        (168, "lung", "target", 33, None),
        (168, "node", "target", 11, None, True),
        (168, "liver", "target", 7, None),
        (168, "bone", "non_target", None, "not evaluable"),
    ]
    found = recist.time_points(_lesions(*rows))
    assert list(found.columns) == list(recist.TIME_POINT_COLUMNS)
    assert list(found["sum_mm"].fillna(-1)) == [80, 42, -1, 51]
    assert list(found["nadir_mm"]) == [80, 80, 42, 42]
    assert list(found["overall"].fillna("-")) == ["-", "PR", "NE", "PD"]
    assert list(found["targets_assessed"]) == [3, 3, 2, 3]
    assert found.loc[3, "from_nadir_percent"] == pytest.approx(100 * 9 / 42)
    assert found.loc[3, "change_mm"] == -29
    assert list(found["baseline"]) == [True, False, False, False]


def test_an_assessed_part_can_prove_progression_and_cr_needs_normal_nodes() -> None:
    rows = [
        (0, "a", "target", 20, None),
        (0, "b", "target", 20, None),
        (56, "a", "target", 50, None),
        (56, "b", "target", None, "not evaluable"),
    ]
    assert recist.time_points(_lesions(*rows))["overall"].iloc[1] == "PD"
    rows = [
        (0, "a", "target", 20, None),
        (0, "n", "non_target", 12, None, True),
        (56, "a", "target", None, "absent"),
        (56, "n", "non_target", 11, None, True),
        (112, "a", "target", 0, None),
        (112, "n", "non_target", 9, None, True),
        (168, "a", "target", 3, None),
        (168, "n", "non_target", 9, None, True),
    ]
    assert list(recist.time_points(_lesions(*rows))["overall"].iloc[1:]) == ["PR", "CR", "PD"]


def test_new_lesions_equivocal_and_definite() -> None:
    """An equivocal lesion counts from its first sight once it is definite (section 4.3.5), and never if it is not."""
    rows = [(day, "a", "target", 20, None) for day in (0, 56, 112, 168)]
    later = [(56, "n", "new", None, "equivocal"), (112, "n", "new", 12, None)]
    assert list(recist.time_points(_lesions(*rows, *later))["overall"].iloc[1:]) == ["PD", "PD", "SD"]
    assert list(recist.time_points(_lesions(*rows, later[0]))["overall"].iloc[1:]) == ["SD", "SD", "SD"]


def test_partial_response_may_be_held() -> None:
    """Working group's example: sums 100 70 70 80 80 80 stay a partial response where the study says so."""
    rows = [
        (day, "a", "target", mm, None) for day, mm in zip(range(0, 600, 100), [100, 70, 70, 80, 80, 80], strict=True)
    ]
    held = recist.time_points(_lesions(*rows), rules=RecistRules(hold_partial=True))
    assert list(held["overall"].iloc[1:]) == ["PR"] * 5
    assert list(recist.time_points(_lesions(*rows))["overall"].iloc[1:]) == ["PR", "PR", "SD", "SD", "SD"]


def test_start_of_treatment_chooses_the_baseline() -> None:
    times = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-04-01"])
    rows = [(time, "a", "target", mm, None) for time, mm in zip(times, [60, 40, 30], strict=True)]
    found = recist.time_points(_lesions(*rows), starts=pd.Series({"a": pd.Timestamp("2024-02-10")}))
    assert list(found["baseline_mm"]) == [40, 40]
    assert list(found["days"]) == [0, 60]
    assert found["overall"].iloc[1] == "SD"


def test_targets_are_the_largest_measurable_of_each_organ() -> None:
    frame = pd.DataFrame(
        {
            "lesion": list("abcdefghij"),
            "organ": ["liver", "Liver", "liver", "lung", "lung", "neck", "groin", "chest", "bone", "skin"],
            "diameter_mm": [50, 40, 30, 9.9, 10, 15, 20, 16, 12, 30],
            "nodal": [False] * 5 + [True] * 3 + [False] * 2,
        }
    )
    assert recist.select_targets(frame) == ["a", "b", "j", "g", "h"]
    assert recist.select_targets(frame, rules=RecistRules(max_targets=10)) == ["a", "b", "j", "g", "h", "i", "e"]


def test_faults_come_in_one_error() -> None:
    bad = _lesions((0, "a", "target", 20, "huge"), (0, "b", "tumour", -1, None), (0, "c", "target", "x", None))
    with pytest.raises(SchemaError) as told:
        recist.time_points(bad)
    for part in ("unknown status", "kind other than target", "2 rows have a diameter", "Correct them"):
        assert part in str(told.value)
    assert "huge" not in str(told.value)
    with pytest.raises(SchemaError, match=r"not recorded at baseline \(first: a/b\)"):
        recist.time_points(_lesions((0, "a", "target", 20, None), (9, "b", "target", 20, None)))
    with pytest.raises(SchemaError, match=r"no time point at or before their start \(first: a\)"):
        recist.time_points(_lesions((0, "a", "target", 20, None)), starts=pd.Series({"a": -1}))
    with pytest.raises(SchemaError, match="column kind"):
        recist.time_points(bad.drop(columns="kind"))


COURSES = st.lists(
    st.lists(st.one_of(st.none(), st.integers(0, 120)), min_size=3, max_size=3), min_size=1, max_size=5
).map(lambda later: [[30, 25, 16], *later])


def _frame(course: list[list[int | None]], scale: float = 1.0) -> pd.DataFrame:
    return _lesions(
        *[
            (
                28 * visit,
                f"l{place}",
                "target",
                None if mm is None else mm * scale,
                "NE" if mm is None else None,
                place == 2,
            )
            for visit, sizes in enumerate(course)
            for place, mm in enumerate(sizes)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(COURSES, st.randoms(use_true_random=False))
def test_order_of_rows_and_other_patients_do_not_matter(course: list[list[int | None]], random: object) -> None:
    frame = _frame(course)
    alone = recist.time_points(frame)
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    both = pd.concat([frame.iloc[order], _frame([[50, 50, 50], [10, 10, 10]]).assign(subject_id="b")])
    found = recist.time_points(both)
    pd.testing.assert_frame_equal(found[found["subject_id"] == "a"].reset_index(drop=True), alone)


@settings(max_examples=25, deadline=None)
@given(COURSES, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_scaling_everything_scales_sums_and_keeps_categories(course: list[list[int | None]], scale: float) -> None:
    """With the thresholds in mm scaled as well, nothing but the sums changes."""
    rules = RecistRules(progression_mm=5 * scale, normal_node_mm=10 * scale)
    first, second = recist.time_points(_frame(course)), recist.time_points(_frame(course, scale), rules=rules)
    assert list(first["overall"].iloc[1:]) == list(second["overall"].iloc[1:])
    np.testing.assert_allclose(second["sum_mm"], scale * first["sum_mm"])


@settings(max_examples=30, deadline=None)
@given(COURSES)
def test_the_future_changes_no_earlier_category_and_pd_is_above_nadir(course: list[list[int | None]]) -> None:
    whole = recist.time_points(_frame(course))
    part = recist.time_points(_frame(course[:-1])) if len(course) > 1 else whole
    pd.testing.assert_frame_equal(whole.iloc[: len(part)], part)
    for row in whole.iloc[1:].itertuples():
        if row.target == "PR":
            assert row.sum_mm <= 0.7 * row.baseline_mm + 1e-9
        if row.target == "SD":
            assert row.sum_mm > 0.7 * row.baseline_mm
            assert row.sum_mm < max(row.nadir_mm * 1.2, row.nadir_mm + 5)
        if np.isnan(row.sum_mm):
            assert row.target in ("NE", "PD")


@given(COURSES)
@settings(max_examples=40, deadline=None)
def test_confirmed_best_response_is_never_better(course: list[list[int | None]]) -> None:
    found = recist.time_points(_frame(course)).iloc[1:]
    assume(len(found))
    rank = {"CR": 4, "PR": 3, "SD": 2, "PD": 1, "NE": 0}
    days, answers = list(found["days"]), list(found["overall"])
    plain, strict = (best_overall_response(days, answers, confirmed=c, min_stable_days=20) for c in (False, True))
    assert rank[strict] <= rank[plain]


def test_five_trials(shared_cohorts: Path) -> None:
    """1,472 patients with one target lesion: sums at baseline, categories, and responses in the range of such trials."""
    raw = pd.read_csv(shared_cohorts / "oak" / "lesion_diameters_five_trials.csv", dtype=str, keep_default_na=False)
    words = raw["TargetLesionLongDiam_mm"].str.strip()
    number = pd.to_numeric(words, errors="coerce")
    lesions = pd.DataFrame(
        {
            "subject_id": raw["study"] + "//" + raw["Patient_Anonmyized"],
            "time": pd.to_numeric(raw["Treatment_Day"], errors="coerce"),
            "lesion": "target",
            "kind": "target",
            "diameter_mm": number,
            "status": words.where(number.isna(), "").replace("", "measured"),
        }
    )
    lesions = lesions[lesions["time"].notna() & (words != "")].drop_duplicates(["subject_id", "time"])
    starts = pd.Series(0.0, index=lesions["subject_id"].unique())
    before = lesions[lesions["time"] <= 0].sort_values("time").groupby("subject_id").tail(1)
    measured = before.loc[before["diameter_mm"] > 0, "subject_id"]
    lesions = lesions[lesions["subject_id"].isin(measured)]
    found = recist.time_points(lesions, starts=starts)
    baseline = found[found["baseline"]].set_index("subject_id")["sum_mm"]
    independent = before.set_index("subject_id").loc[baseline.index, "diameter_mm"]
    np.testing.assert_array_equal(baseline, independent)
    assert 1000 < len(baseline) <= 1472
    assert 20 < baseline.median() < 60
    answers = found.loc[~found["baseline"], "overall"].value_counts(normalize=True)
    assert set(answers.index) <= {"CR", "PR", "SD", "PD", "NE"}
    assert answers["SD"] > max(answers["PR"], answers["PD"]) > answers["CR"]
    later = found[~found["baseline"]]
    best = {
        subject: best_overall_response(list(mine["days"]), list(mine["overall"]))
        for subject, mine in later.groupby("subject_id")
    }
    share = pd.Series(best).value_counts(normalize=True)
    assert 0.15 < share["CR"] + share["PR"] < 0.6
    assert share["SD"] > 0.25
    # A slow loop over one patient's numbers gives the same categories.
    for subject in list(baseline.index[::97]):
        sizes = lesions[lesions["subject_id"] == subject].sort_values("time")
        first = before.set_index("subject_id").loc[subject, "time"]
        nadir = start = float(sizes.loc[sizes["time"] == first, "diameter_mm"].iloc[0])
        expected, gone = [], False
        for row in sizes[sizes["time"] > first].itertuples():
            mm = 5.0 if "SMALL" in row.status else row.diameter_mm
            if np.isnan(mm):
                expected.append("NE")
                continue
            worse = (mm >= 1.2 * nadir - 1e-9 and mm - nadir >= 5) or (gone and mm > 0)
            expected.append("PD" if worse else "CR" if mm == 0 else "PR" if mm <= 0.7 * start + 1e-9 else "SD")
            gone, nadir = gone or (mm == 0 and not worse), min(nadir, mm)
        assert list(later.loc[later["subject_id"] == subject, "overall"]) == expected
