"""Evaluations of time to event: the contract, slow resampling, what is noted, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theracast_training import survival_metrics as measures
from theracast_training.observed import aalen_johansen, kaplan_meier
from theracast_training.resampling import percentile_interval, resample_counts, two_sided_p
from theracast_training.survival_evaluation import compare_survival, evaluate_survival

Floats = NDArray[np.float64]
ONCE = ("c_harrell", "c_uno", "calibration_slope", "ibs", "ibs_null", "ibs_scaled")
AT_HORIZON = ("observed", "observed_expected", "auc", "brier", "brier_null", "scaled_brier", "ici", "e50", "e90")
HORIZONS = (180.0, 365.0)
GRID = np.arange(30.0, 600.0, 30.0)


def _cohort(n: int, seed: int = 0, *, competing: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    came, lost = rng.exponential(600 * np.exp(-risk)), rng.uniform(60, 1200, n)
    other = rng.exponential(500, n) if competing else np.full(n, np.inf)
    time = np.minimum(np.minimum(came, other), lost)
    event = np.where(time == lost, 0, np.where(came < other, 1, 2))

    def probability(when: Any) -> Floats:
        return 1 - np.exp(-np.outer(np.exp(risk), np.asarray(when)) / 600)

    return {
        "time": np.ceil(time),
        "event": event,
        "risk": risk,
        "horizons": HORIZONS,
        "probability": probability(HORIZONS),
        "survival_grid": (GRID, probability(GRID)),
    }


def test_answer_holds_the_keys_of_the_contract_as_plain_json() -> None:
    found = evaluate_survival(**_cohort(250), bootstrap=80, seed=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for row, names in [(found, ONCE), *((row, AT_HORIZON) for row in found["horizons"])]:
        for name in names:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"], name
    assert [row["horizon"] for row in found["horizons"]] == list(HORIZONS)
    assert sum(group["n"] for group in found["horizons"][0]["groups"]) == found["n"] == 250
    assert found["notes"] == []


def test_estimates_are_those_of_the_metrics_and_of_kaplan_meier() -> None:
    one = _cohort(200, seed=3)
    time, event, risk = one["time"], one["event"], one["risk"]
    found = evaluate_survival(**one, bootstrap=0)
    assert found["c_harrell"] == pytest.approx(measures.c_harrell(time, event, risk))
    assert found["c_uno"] == pytest.approx(measures.c_uno(time, event, risk, tau=HORIZONS[-1]))
    assert found["calibration_slope"] == pytest.approx(measures.cox_slope(time, event, risk))
    row = found["horizons"][1]
    assert row["n_at_risk"] == (time >= 365).sum()
    assert row["events"] == ((time <= 365) & (event == 1)).sum()
    assert row["observed"] == pytest.approx(1 - float(kaplan_meier(time, event).at(365.0)))
    assert row["predicted"] == pytest.approx(one["probability"][:, 1].mean())
    assert row["observed_expected"] == pytest.approx(row["observed"] / row["predicted"])
    # Censoring weights of the decisions themselves make the null score the variance of the observed incidence.
    assert row["brier_null"] == pytest.approx(row["observed"] * (1 - row["observed"]))
    assert row["scaled_brier"] == pytest.approx(1 - row["brier"] / row["brier_null"])
    assert found["c_harrell_low"] is None
    assert found["c_harrell_high"] is None


def test_intervals_are_those_of_rows_drawn_one_by_one() -> None:
    one = _cohort(60, seed=5)
    found = evaluate_survival(**one, bootstrap=120, seed=9)
    order = measures.Followed.over(one["time"], one["event"]).order
    drawn = []
    for counts in np.concatenate(list(resample_counts(60, resamples=120, seed=9))):
        rows = np.repeat(order, counts.astype(int))
        time, event, risk = (one[name][rows] for name in ("time", "event", "risk"))
        drawn.append(
            (
                measures.c_harrell(time, event, risk),
                measures.c_uno(time, event, risk, tau=HORIZONS[-1]),
                measures.cox_slope(time, event, risk),
                float(aalen_johansen(time, event).at(365.0)) / one["probability"][rows, 1].mean(),
            )
        )
    values = np.asarray(drawn)
    for place, name in enumerate(("c_harrell", "c_uno", "calibration_slope")):
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(percentile_interval(values[:, place]))
    row = found["horizons"][1]
    bounds = (row["observed_expected_low"], row["observed_expected_high"])
    assert bounds == pytest.approx(percentile_interval(values[:, 3]))


def test_a_perfect_model_is_calibrated_and_a_wrong_one_is_not() -> None:
    one = _cohort(4000, seed=1)
    good = evaluate_survival(**one, bootstrap=0)
    bad = evaluate_survival(**one | {"probability": one["probability"] ** 2, "risk": 2 * one["risk"]}, bootstrap=0)
    for right, wrong in zip(good["horizons"], bad["horizons"], strict=True):
        assert right["ici"] < 0.02
        assert wrong["ici"] > 0.1
        assert right["e90"] < 0.05 < wrong["e90"]
        assert abs(right["observed_expected"] - 1) < 0.06
        assert wrong["brier"] > right["brier"]
        assert wrong["auc"] == pytest.approx(right["auc"])
    assert good["calibration_slope"] == pytest.approx(1.0, abs=0.06)
    assert bad["calibration_slope"] == pytest.approx(good["calibration_slope"] / 2)


def test_competing_events_are_counted_and_observed_by_aalen_and_johansen() -> None:
    one = _cohort(300, seed=2, competing=True)
    found = evaluate_survival(**one, bootstrap=50)
    row = found["horizons"][1]
    assert found["competing"] == (one["event"] == 2).sum() > 0
    assert row["observed"] == pytest.approx(float(aalen_johansen(one["time"], one["event"]).at(365.0)))
    # The probabilities ignore the other event and are too high.
    assert row["observed_expected_high"] < 1
    other = evaluate_survival(**one, cause=2, bootstrap=0)
    assert (other["events"], other["competing"]) == (found["competing"], found["events"])


def test_patients_of_several_decisions_are_drawn_whole() -> None:
    one = _cohort(80, seed=4)
    six = {name: np.repeat(values, 6, axis=0) for name, values in one.items() if isinstance(values, np.ndarray)}
    six |= {"horizons": HORIZONS}
    group = np.repeat([f"patient {place}" for place in range(80)], 6)
    whole = evaluate_survival(**six, group=group, bootstrap=200)
    apart = evaluate_survival(**six, bootstrap=200)
    for first, second in [(whole, apart), (whole["horizons"][0], apart["horizons"][0])]:
        name = "c_harrell" if "c_harrell" in first else "observed"
        assert first[name] == second[name]
        assert first[f"{name}_high"] - first[f"{name}_low"] > 1.8 * (second[f"{name}_high"] - second[f"{name}_low"])


def test_reference_gives_the_censoring_of_other_decisions() -> None:
    one, other = _cohort(150, seed=6), _cohort(400, seed=7)
    reference = (other["time"], other["event"])
    found = evaluate_survival(**one, reference=reference, bootstrap=0)
    expected = measures.c_uno(one["time"], one["event"], one["risk"], tau=365.0, reference=reference)
    assert found["c_uno"] == pytest.approx(expected)
    assert found["c_uno"] != evaluate_survival(**one, bootstrap=0)["c_uno"]


def test_a_reference_followed_too_briefly_is_noted() -> None:
    one, other = _cohort(150, seed=6), _cohort(400, seed=7)
    short = np.minimum(other["time"], 200.0)
    event = np.where(other["time"] > 200.0, 0, other["event"])
    found = evaluate_survival(**one, reference=(short, event), bootstrap=20)
    assert found["horizons"][0]["brier"] is not None
    assert found["horizons"][1]["brier"] is found["horizons"][1]["auc"] is found["c_uno"] is found["ibs"] is None
    assert any("365 days: by the reference" in note for note in found["notes"])
    assert any("integrated Brier score is missing" in note for note in found["notes"])


def test_what_cannot_be_estimated_is_none_and_noted() -> None:
    one = _cohort(120, seed=8)
    one |= {"time": np.minimum(one["time"], 200.0), "event": np.where(one["time"] > 200.0, 0, one["event"])}
    found = evaluate_survival(**one, bootstrap=30)
    assert found["horizons"][0]["auc"] is not None
    late = found["horizons"][1]
    assert all(late[name] is None for name in AT_HORIZON)
    assert late["n_at_risk"] == 0
    assert "at 365 days: nobody was followed so far, nothing can be estimated" in found["notes"]
    assert found["c_harrell"] is not None


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_few_or_no_decisions_are_an_answer_not_an_error(n: int) -> None:
    for event in (0, 1, 2):
        one = _cohort(n, seed=11)
        found = evaluate_survival(**one | {"event": np.full(n, event)}, bootstrap=20)
        json.dumps(found, allow_nan=False)
        assert found["notes"]


def test_a_risk_that_does_not_vary_is_an_answer_not_an_error() -> None:
    one = _cohort(100, seed=12)
    flat = {"risk": np.zeros(100), "probability": np.full((100, 2), 0.4)}
    found = evaluate_survival(**one | flat, bootstrap=20)
    assert found["c_harrell"] == pytest.approx(0.5)
    assert found["calibration_slope"] is None
    assert found["horizons"][0]["ici"] is None
    assert any("does not vary" in note for note in found["notes"])
    assert any("no smooth calibration line" in note for note in found["notes"])


def test_decisions_without_outcome_or_score_are_left_out_and_noted() -> None:
    one = _cohort(100, seed=13)
    kept = {name: values[:90] for name, values in one.items() if isinstance(values, np.ndarray)}
    kept |= {"horizons": HORIZONS, "survival_grid": (GRID, one["survival_grid"][1][:90])}
    one["time"][90:95] = np.nan
    one["risk"][95:] = np.nan
    found, expected = evaluate_survival(**one, bootstrap=0), evaluate_survival(**kept, bootstrap=0)
    assert found.pop("notes") == [
        "5 of 100 decisions have no known time and event and are left out",
        "5 of 100 decisions have no score and are left out",
    ]
    expected.pop("notes")
    assert found == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizons": (365.0, 180.0)}, "rising"),
        ({"probability": np.full((20, 2), 1.2)}, r"probability must lie in \[0, 1\]"),
        ({"probability": np.full((20, 3), 0.2)}, r"one column a day, \(20, 2\), not \(20, 3\)"),
        ({"time": np.full(20, -1.0)}, "0 or more"),
        ({"event": np.full(20, 0.5)}, "whole number"),
        ({"risk": np.zeros(19)}, "of one length, 20"),
        ({"risk": np.full(20, np.inf)}, "finite"),
        ({"reference": ([np.nan], [1])}, "at least one of them known"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_survival(**_cohort(20) | change, bootstrap=0)


def test_two_risks_are_compared_on_the_same_resamples() -> None:
    one = _cohort(150, seed=14)
    time, event, risk = one["time"], one["event"], one["risk"]
    worse = risk + np.random.default_rng(0).normal(size=150)
    found = compare_survival(time, event, risk, worse, tau=365.0, bootstrap=150, seed=2)
    json.dumps(found, allow_nan=False)
    order = measures.Followed.over(time, event).order
    drawn = []
    for counts in np.concatenate(list(resample_counts(150, resamples=150, seed=2))):
        rows = np.repeat(order, counts.astype(int))
        drawn.append([measures.c_uno(time[rows], event[rows], score[rows], tau=365.0) for score in (risk, worse)])
    difference = np.asarray(drawn)[:, 0] - np.asarray(drawn)[:, 1]
    assert found["c_uno_difference"] == pytest.approx(found["c_uno_a"] - found["c_uno_b"])
    bounds = (found["c_uno_difference_low"], found["c_uno_difference_high"])
    assert bounds == pytest.approx(percentile_interval(difference))
    assert found["c_uno_p_value"] == two_sided_p(difference) < 0.05
    same = compare_survival(time, event, risk, 3 * risk, bootstrap=50)
    assert same["c_harrell_difference"] == 0
    assert same["c_harrell_p_value"] == 1.0
    empty = compare_survival([], [], [], [], bootstrap=10)
    assert empty["c_harrell_difference"] is None
    assert empty["notes"]
