"""Metrics of time to event against scikit-survival, lifelines and statsmodels (survival.json), and slow loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theracast_training import survival_metrics as measures
from theracast_training.observed import aalen_johansen, follow_up_median, kaplan_meier
from theracast_training.survival_calibration import smooth_each
from theracast_training.survival_metrics import Followed, seen_each

Floats = NDArray[np.float64]

ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "oracles" / "survival.json").read_text())
SETS = ("continuous", "tied", "heavily censored")
HORIZONS = np.array([3.0, 6.0, 9.0])
GRID = np.arange(1.0, 9.01, 0.5)


def _given(name: str) -> tuple[Floats, Floats, Floats]:
    one = ORACLE["reference"] if name == "reference" else ORACLE["sets"][name]["given"]
    return tuple(np.asarray(one[column], dtype=float) for column in ("time", "event", "risk"))  # type: ignore[return-value]


def _probability(risk: Floats, when: Floats) -> Floats:
    return 1 - np.exp(-np.outer(np.exp(0.8 * risk), when / 14))


def _laid_out(name: str, when: Floats) -> tuple[Followed, Floats, Floats, Floats]:
    """Return the decisions of a set, their risk and probabilities in that order, and one row of ones."""
    time, event, risk = _given(name)
    followed = Followed.over(time, event)
    risk = risk[followed.order]
    return followed, risk, _probability(risk, when), np.ones((1, len(time)))


@pytest.mark.parametrize("name", SETS)
def test_harrells_c_is_that_of_scikit_survival_and_lifelines(name: str) -> None:
    found = measures.c_harrell(*_given(name))
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["c_harrell"], abs=1e-9)
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["c_harrell_lifelines"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("source", ["own", "reference"])
def test_weighed_for_censoring_c_auc_and_brier_are_those_of_scikit_survival(name: str, source: str) -> None:
    expected = ORACLE["sets"][name]["found"][source]
    reference = _given("reference")[:2] if source == "reference" else None
    time, event, risk = _given(name)
    assert measures.c_uno(time, event, risk, tau=9.0, reference=reference) == pytest.approx(expected["c_uno"], abs=1e-9)
    followed, _, p, ones = _laid_out(name, HORIZONS)
    seen = seen_each(followed, ones, reference)
    auc = [
        measures.horizon_auc_each(followed, p[:, place], ones, seen, horizon=day)[0]
        for place, day in enumerate(HORIZONS)
    ]
    assert auc == pytest.approx(expected["auc"], abs=1e-9)
    assert measures.brier_each(followed, p, ones, seen, when=HORIZONS)[0] == pytest.approx(expected["brier"], abs=1e-9)
    over_time = measures.brier_each(followed, _laid_out(name, GRID)[2], ones, seen, when=GRID)
    assert measures.integrated(over_time, GRID)[0] == pytest.approx(expected["ibs"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_cox_slope_is_that_of_scikit_survival_and_statsmodels(name: str) -> None:
    found = measures.cox_slope(*_given(name))
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["cox_slope"], abs=1e-7)
    assert found == pytest.approx(ORACLE["sets"][name]["found"]["cox_slope_statsmodels"], abs=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_kaplan_meier_and_its_interval_are_those_of_scikit_survival(name: str) -> None:
    time, event, _ = _given(name)
    expected = ORACLE["sets"][name]["found"]["kaplan_meier"]
    curve = kaplan_meier(time, event)
    assert curve.at(expected["time"]) == pytest.approx(expected["value"], abs=1e-9)
    low, high = curve.interval_at(expected["time"])
    assert low == pytest.approx(expected["low"], abs=1e-9)
    assert high == pytest.approx(expected["high"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_median_follow_up_is_lifelines_reverse_kaplan_meier(name: str) -> None:
    time, event, _ = _given(name)
    assert follow_up_median(time, event) == pytest.approx(ORACLE["sets"][name]["found"]["follow_up_median"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_smooth_calibration_is_a_cox_model_on_a_spline_by_scikit_survival(name: str) -> None:
    followed, _, p, ones = _laid_out(name, HORIZONS)
    found = smooth_each(followed, p[:, 1], ones, seen_each(followed, ones), horizon=6.0)[0]
    assert found == pytest.approx(np.asarray(ORACLE["sets"][name]["found"]["smooth"])[followed.order], abs=1e-6)


def test_cumulative_incidence_and_its_variance_are_those_of_scikit_survival() -> None:
    time, event, risk = _given("competing")
    expected = ORACLE["sets"]["competing"]["found"]
    curve = aalen_johansen(time, event)
    value = curve.at(expected["time"])
    assert value == pytest.approx(expected["incidence"], abs=1e-9)
    low, high = curve.interval_at(expected["time"])
    some = value > 0
    link = np.log(-np.log(1 - value[some]))
    for bound in (low, high):
        reach = np.abs(np.log(-np.log(1 - bound[some])) - link) / 1.959963984540054
        error = reach * (1 - value[some]) * np.abs(np.log(1 - value[some]))
        assert error == pytest.approx(np.asarray(expected["standard_error"])[some], abs=1e-9)
    assert measures.cox_slope(time, event, risk) == pytest.approx(expected["cox_slope"], abs=1e-6)
