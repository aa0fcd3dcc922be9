"""Subgroups: labels from a cohort, gaps against slow loops over drawn patients, planted unfairness, what is not told."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_training import metrics
from theracast_training.evaluation import evaluate_binary
from theracast_training.fairness import FairnessSection, fairness, subgroup_labels
from theracast_training.resampling import resample_counts
from theracast_training.study import parse_study, study_text

STUDY = """
study: small
question: Does it work?
sources:
  - path: table.csv
    subject: id
    site: hospital
    columns:
      Age: {unit: a, modality: clinical}
      Sex: {levels: [F, M], role: covariate, modality: clinical}
      Smoker: {kind: boolean, modality: clinical}
endpoints:
  - {name: response, kind: binary, column: Response}
"""


def _cohort() -> Cohort:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d", "e"],
            "hospital": ["North", "South", "North", "South", "North"],
            "Age": [49.9, 50.0, 65.0, np.nan, 80.0],
            "Sex": ["F", "M", None, "F", "M"],
            "Smoker": [1, 0, np.nan, 1, 0],
        }
    )
    return cohort_from_frame(frame, Inputs(sources=parse_study(STUDY).sources))


def _people(seed: int, n: int = 600, *, harm: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes, probabilities and sexes; for F the score carries `harm` of noise and is too low by as much."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n, p=[0.4, 0.6]).astype(object)
    truth = rng.normal(-0.4, 1.3, n)
    y = (rng.random(n) < expit(truth)).astype(float)
    off = np.where(sex == "F", harm, 0.0)
    return y, expit(truth * (1 - 0.6 * np.sign(off)) - off), sex


def test_labels_come_from_columns_covariates_and_decisions() -> None:
    section = FairnessSection.model_validate({"subgroups": ["sex", "smoker", {"age": {"cut": [50, 65]}}, "site"]})
    labels = {name: list(values) for name, values in subgroup_labels(_cohort(), section).items()}
    assert labels == {
        "sex": ["F", "M", "not known", "F", "M"],
        "smoker": ["yes", "no", "not known", "yes", "no"],
        "age": ["below 50 years", "50 to below 65 years", "65 years and above", "not known", "65 years and above"],
        "site": ["North", "South", "North", "South", "North"],
    }


def test_columns_that_make_no_groups_are_all_named() -> None:
    section = FairnessSection.model_validate({"subgroups": ["age", "height", {"sex": {"cut": [1]}}]})
    with pytest.raises(StudyError) as told:
        subgroup_labels(_cohort(), section)
    assert "age is a number; say where to cut it, e.g. age: {cut: [50, 65]}" in str(told.value)
    assert "no column is named 'height'; there are site, treatment, age, sex, smoker" in str(told.value)
    assert "sex is not a number and cannot be cut" in str(told.value)


def test_the_section_is_read_written_and_checked() -> None:
    text = STUDY + "fairness: {subgroups: [sex, {age: {cut: [50, 65]}}], minimum_n: 30}\n"
    study = parse_study(text)
    assert study.fairness is not None
    assert study.fairness.subgroups[1].cut == (50, 65)
    assert study.fairness.minimum_events == 10
    assert parse_study(study_text(study)) == study
    assert parse_study(STUDY).fairness is None
    items = FairnessSection.model_json_schema()["properties"]["subgroups"]["items"]
    assert items["anyOf"][0] == {"type": "string"}  # an editor does not call the short form wrong
    for wrong, message in {
        "[sex, sex]": "sex stands there twice",
        "[{age: {cut: [65, 50]}}]": "they must rise",
        "[{age: {cutt: [50]}}]": "unknown key 'cutt'",
        "[]": "at least 1 item",
    }.items():
        with pytest.raises(StudyError, match=message):
            parse_study(STUDY + f"fairness: {{subgroups: {wrong}}}\n")


def test_performance_in_each_group_is_that_of_the_group_alone() -> None:
    y, p, sex = _people(1)
    found = fairness(y, p, {"sex": sex}, bootstrap=80, seed=3)["subgroups"]["sex"]
    for record in found["groups"]:
        rows = sex == record["group"]
        assert record["n"] == rows.sum()
        assert record["performance"] == evaluate_binary(y[rows], p[rows], bootstrap=80, seed=3)


def test_differences_and_gaps_are_those_of_a_slow_loop_over_drawn_patients() -> None:
    y, p, sex = _people(2, 240, harm=0.5)
    sex[:80] = "X"
    patients = np.repeat(np.arange(120), 2)
    sex = np.repeat(sex[::2], 2)
    found = fairness(
        y, p, {"sex": sex}, thresholds=(0.4,), bootstrap=60, seed=5, group=patients, minimum_n=20, minimum_events=5
    )["subgroups"]["sex"]
    assert found["reference"] == max(set(sex), key=lambda one: (sex == one).sum())

    def of(rows: np.ndarray) -> dict[str, float]:
        named = p[rows] >= 0.4
        return {
            "auc": metrics.auc(y[rows], p[rows]),
            "prevalence": y[rows].mean(),
            "sensitivity": (named & (y[rows] == 1)).sum() / (y[rows] == 1).sum(),
            "ppv": (named & (y[rows] == 1)).sum() / named.sum(),
            "named": named.mean(),
        }

    drawn = []
    for counts in np.concatenate(list(resample_counts(240, resamples=60, seed=5, group=patients))):
        rows = np.repeat(np.arange(240), counts.astype(int))
        drawn.append({one: of(rows[sex[rows] == one]) for one in set(sex)})
    whole = {one: of(np.flatnonzero(sex == one)) for one in set(sex)}
    for difference in found["differences"]:
        for name in ("auc", "prevalence", "sensitivity", "ppv", "named"):
            row = difference if name in difference else difference["thresholds"][0]
            one, other = difference["group"], found["reference"]
            assert row[name] == pytest.approx(whole[one][name] - whole[other][name])
            gaps = np.array([each[one][name] - each[other][name] for each in drawn])
            low, high = np.quantile(gaps, [0.025, 0.975], method="nearest")
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high))
    gap = found["gaps"]["thresholds"][0]
    values = {one: whole[one]["sensitivity"] for one in whole}
    assert gap["sensitivity"] == pytest.approx(max(values.values()) - min(values.values()))
    assert gap["sensitivity_highest"] == max(values, key=lambda one: values[one])
    assert gap["sensitivity_lowest"] == min(values, key=lambda one: values[one])
    assert gap["equalised_odds"] == max(gap["sensitivity"], gap["specificity"])


def test_planted_unfairness_stands_out_and_equal_groups_do_not() -> None:
    y, p, sex = _people(3, 1500, harm=1.0)
    gaps = fairness(y, p, {"sex": sex}, thresholds=(0.5,), bootstrap=200)["subgroups"]["sex"]["gaps"]
    assert gaps["calibration_intercept_lowest"] == "M"
    assert gaps["calibration_intercept_p_value"] < 0.01
    assert gaps["calibration_intercept"] > gaps["calibration_intercept_by_chance"]
    assert gaps["thresholds"][0]["sensitivity_p_value"] < 0.01
    p_values = []
    for seed in range(40):
        y, p, sex = _people(100 + seed, 300)
        found = fairness(y, p, {"sex": sex}, thresholds=(), bootstrap=60, seed=seed)
        p_values.append(found["subgroups"]["sex"]["gaps"]["auc_p_value"])
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) < 0.1) < 0.25


def test_of_a_small_group_nothing_is_told_but_its_number() -> None:
    y, p, _ = _people(4, 400)
    race = np.array(["big"] * 300 + ["few"] * 40 + ["no events"] * 60, dtype=object)
    y[340:] = 0.0
    found = fairness(y, p, {"race": race}, bootstrap=50)["subgroups"]["race"]
    json.dumps(found, allow_nan=False)
    hidden = {one["group"]: one for one in found["groups"] if one["performance"] is None}
    assert hidden == {
        "few": {"group": "few", "n": 40, "reason": "fewer than 50 decisions", "performance": None},
        "no events": {
            "group": "no events",
            "n": 60,
            "reason": "fewer than 10 decisions of the rarer outcome",
            "performance": None,
        },
    }
    assert found["differences"] == []
    assert found["gaps"] is None
    assert "fewer than two groups are large enough to be compared" in found["notes"]


def test_who_is_not_known_is_shown_and_not_compared() -> None:
    y, p, sex = _people(5, 600)
    sex[:120] = "not known"
    found = fairness(y, p, {"sex": sex}, bootstrap=50)["subgroups"]["sex"]
    assert [one["group"] for one in found["groups"]] == ["F", "M", "not known"]
    assert found["groups"][-1]["performance"] is not None
    assert [one["group"] for one in found["differences"]] == ["F"]


def test_patients_in_several_groups_have_no_gap_by_chance() -> None:
    y, p, _ = _people(6, 400)
    period = np.tile(np.array(["early", "late"], dtype=object), 200)
    found = fairness(y, p, {"period": period}, bootstrap=50, group=np.repeat(np.arange(200), 2))
    gaps = found["subgroups"]["period"]["gaps"]
    assert gaps["auc_by_chance"] is gaps["auc_p_value"] is None
    assert gaps["auc_low"] is not None
    assert "fall into several groups" in found["subgroups"]["period"]["notes"][0]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_does_not_matter_and_a_weight_equals_repeated_rows(seed: int) -> None:
    y, p, sex = _people(seed, 300)
    rng = np.random.default_rng(seed)
    order, counts = rng.permutation(300), rng.integers(1, 3, 300)
    plain, shuffled = (
        fairness(y[rows], p[rows], {"sex": sex[rows]}, bootstrap=0)["subgroups"]["sex"]
        for rows in (np.arange(300), order)
    )
    weighted = fairness(y, p, {"sex": sex}, bootstrap=0, weight=counts)["subgroups"]["sex"]
    again = np.repeat(np.arange(300), counts)
    repeated = fairness(y[again], p[again], {"sex": sex[again]}, bootstrap=0)["subgroups"]["sex"]
    for name in ("auc", "brier", "calibration_intercept", "calibration_slope", "observed_expected"):
        assert shuffled["gaps"][name] == pytest.approx(plain["gaps"][name], abs=1e-8)
        assert weighted["gaps"][name] == pytest.approx(repeated["gaps"][name], abs=1e-6)


def test_decisions_without_outcome_are_left_out_and_labels_must_fit() -> None:
    y, p, sex = _people(7, 300)
    y[:50] = np.nan
    found = fairness(y, p, {"sex": sex}, bootstrap=0)
    assert found["n"] == 250
    assert sum(one["n"] for one in found["subgroups"]["sex"]["groups"]) == 250
    with pytest.raises(ValueError, match="3 labels for 300 decisions"):
        fairness(y, p, {"sex": ["F", "M", "F"]}, bootstrap=0)
