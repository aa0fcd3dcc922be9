"""Time to event of real patients (a colon cancer trial) against statsmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_training import survival_metrics as measures
from theracast_training.observed import aalen_johansen, kaplan_meier
from theracast_training.survival_evaluation import evaluate_survival


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
