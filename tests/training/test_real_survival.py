"""Time to event of real patients (a colon cancer trial) against statsmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_data.endpoint_values import event_within
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_training import survival_metrics as measures
from theracast_training.observed import aalen_johansen, kaplan_meier
from theracast_training.survival_evaluation import evaluate_survival
from theracast_training.target import Target


@pytest.fixture(scope="module")
def colon(shared_cohorts: Path) -> pd.DataFrame:
    """Patients with `time` in days and `event`: 1 recurrence, 2 death before it."""
    file = shared_cohorts / "rct" / "colon.csv"
    if not file.is_file():
        pytest.skip(f"{file.name} is not among the real cohorts")
    rows = pd.read_csv(file)
    recurrence = rows[rows["etype"] == 1].set_index("id")
    death = rows[rows["etype"] == 2].set_index("id").loc[recurrence.index]
    died = (death["status"] == 1) & (death["time"] <= recurrence["time"])
    event = np.where(recurrence["status"] == 1, 1, np.where(died, 2, 0))
    return recurrence.assign(event=event)[["time", "event", "nodes", "node4"]].dropna()


def test_curves_and_slope_are_those_of_statsmodels(colon: pd.DataFrame) -> None:
    survival = pytest.importorskip("statsmodels.duration.survfunc", reason="statsmodels is not installed")
    hazard = pytest.importorskip("statsmodels.duration.hazard_regression", reason="statsmodels is not installed")
    time, event = colon["time"].to_numpy(dtype=float), colon["event"].to_numpy()
    curve, expected = kaplan_meier(time, event), survival.SurvfuncRight(time, event > 0)
    assert curve.at(expected.surv_times) == pytest.approx(expected.surv_prob)
    incidence = survival.CumIncidenceRight(time, event)
    last = max(one for one in incidence.times if np.isfinite(one))
    when = incidence.times[incidence.times <= last]
    for cause in (1, 2):
        found = aalen_johansen(time, event, cause=cause).at(when)
        assert found == pytest.approx(incidence.cinc[cause - 1][: len(when)])
    columns = colon[["nodes"]].to_numpy(dtype=float)
    fitted = hazard.PHReg(time, columns, status=event == 1, ties="breslow").fit()
    assert measures.cox_slope(time, event, columns[:, 0]) == pytest.approx(fitted.params[0], abs=1e-6)


def test_the_chance_of_recurrence_is_that_among_those_who_may_die_first(colon: pd.DataFrame) -> None:
    catalogue = (FeatureSpec("clin.nodes", "clinical", "numeric", "Nodes", ("nodes",), transform="log1p"),)
    n = len(colon)
    decisions = pd.DataFrame({"subject_id": np.arange(n).astype(str), "site": "A", "index_time": pd.NaT})
    frame = pd.DataFrame({"clin.nodes": colon["nodes"].to_numpy(dtype=float)})
    table = FeatureTable(frame, catalogue, decisions)
    time, event = colon["time"].to_numpy(dtype=float), colon["event"].to_numpy(dtype=float)
    horizons = (1460.0, 730.0)
    target = Target(event_within(time, event, 1460.0), time, event, horizons, kind="time_to_event")
    folds = patient_folds(table, target.strata, folds=5, seed=0)
    recipe = Recipe("elasticnet", {"c": 1.0})
    asked = target.asked
    model = fit_calibrated(recipe, table, target.outcome(), folds=folds, replicates=0, seed=0, asked=asked)
    days = np.array(horizons)
    relapse, death, free = model.incidences(model.log_odds(table), table, days)
    for cause, chance in ((1, relapse), (2, death)):
        observed = aalen_johansen(time, event, cause=cause).at(days)
        assert chance.mean(axis=0) == pytest.approx(observed, abs=0.01)
    assert free.mean(axis=0) == pytest.approx(kaplan_meier(time, event > 0).at(days), abs=0.01)


def test_more_nodes_mean_earlier_recurrence(colon: pd.DataFrame) -> None:
    time, event = colon["time"].to_numpy(dtype=float), colon["event"].to_numpy()
    risk = np.log1p(colon["nodes"].to_numpy(dtype=float))
    p = np.clip(0.15 + 0.15 * risk, 0, 1)[:, None] * np.array([0.5, 1.0])
    found = evaluate_survival(time, event, risk, horizons=(365.0, 1095.0), probability=p, bootstrap=200)
    assert found["competing"] > 0
    assert found["notes"] == []
    assert found["c_uno_low"] > 0.55
    for row in found["horizons"]:
        assert row["auc_low"] > 0.55
        assert row["observed_low"] < row["observed"] < row["observed_high"]
