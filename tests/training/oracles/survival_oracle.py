"""Write survival.json: synthetic decisions and what scikit-survival, lifelines and statsmodels say of them.

Run by hand, in an environment of its own with those libraries (scikit-survival is GPL: it never enters ours):
`python survival_oracle.py > survival.json`.

Of an event and a censoring on one day Theracast lets the event come first everywhere. scikit-survival weighs an event by
the censoring curve on its day, not before it, and does not know the state of those censored on the day of the horizon.
Censored times are therefore moved a ten-millionth of a day later before they are given to it: that is the same order, spelt out.
"""

import json
import sys

import lifelines
import numpy as np
import pandas as pd
import sksurv
import statsmodels
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import (
    _compute_counts,
    _var_dinse_approx,
    cumulative_incidence_competing_risks,
    kaplan_meier_estimator,
)
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

LATER = 1e-7
HORIZONS = [3.0, 6.0, 9.0]
GRID = np.arange(1.0, 9.01, 0.5)


def main():
    sets = {
        "continuous": decisions(1, n=80, censoring=1.0, day=None, level=None),
        "tied": decisions(2, n=90, censoring=1.0, day=1.0, level=0.5),
        "heavily censored": decisions(3, n=120, censoring=0.12, day=0.5, level=None),
        "competing": decisions(4, n=100, censoring=0.8, day=1.0, level=0.25, competing=True),
    }
    reference = decisions(5, n=70, censoring=1.0, day=1.0, level=None)
    answers = {}
    for name, one in sets.items():
        answers[name] = {"given": one, "found": competing(one) if name == "competing" else judged(one, reference)}
    versions = {library.__name__: library.__version__ for library in (sksurv, lifelines, statsmodels)}
    json.dump({"versions": versions, "reference": reference, "sets": answers}, sys.stdout, allow_nan=False)


def decisions(seed, *, n, censoring, day, level, competing=False):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    if level:
        risk = np.round(risk / level) * level
    came = rng.exponential(12 * np.exp(-risk))
    other = rng.exponential(25 * np.exp(0.3 * risk)) if competing else np.full(n, np.inf)
    lost = np.minimum(rng.exponential(18 * censoring, n), 30.0)
    time = np.minimum(np.minimum(came, other), lost)
    event = np.where(time == lost, 0, np.where(came < other, 1, 2))
    if day:
        time = np.ceil(time / day) * day
    return {"time": np.round(time, 6).tolist(), "event": event.tolist(), "risk": np.round(risk, 6).tolist()}


def probability(one, when):
    return 1 - np.exp(-np.outer(np.exp(0.8 * np.asarray(one["risk"])), np.asarray(when) / 14))


def columns(one):
    time, event, risk = (np.asarray(one[name]) for name in ("time", "event", "risk"))
    return time, event, risk, np.where(event == 0, time + LATER, time)


def judged(one, reference):
    _, event, risk, shifted = columns(one)
    came = event == 1
    survival = 1 - probability(one, HORIZONS)
    over_time = 1 - probability(one, GRID)
    y = Surv.from_arrays(came, shifted)
    _, other, _, other_shifted = columns(reference)
    z = Surv.from_arrays(other == 1, other_shifted)
    found = {
        "c_harrell": concordance_index_censored(came, shifted, risk)[0],
        "c_harrell_lifelines": concordance_index(shifted, -risk, came),
        "cox_slope": CoxPHSurvivalAnalysis(ties="breslow", tol=1e-14).fit(risk[:, None], y).coef_[0],
        "cox_slope_statsmodels": PHReg(shifted, risk[:, None], status=came, ties="breslow").fit().params[0],
        "follow_up_median": KaplanMeierFitter().fit(shifted, ~came).median_survival_time_ - LATER,
        "kaplan_meier": kaplan_meier(came, shifted),
        "smooth": smooth(one),
    }
    for name, censoring in (("own", y), ("reference", z)):
        auc = [
            cumulative_dynamic_auc(censoring, y, 1 - survival[:, place], horizon)[0][0]
            for place, horizon in enumerate(HORIZONS)
        ]
        found[name] = {
            "c_uno": concordance_index_ipcw(censoring, y, risk, tau=HORIZONS[-1])[0],
            "auc": [float(value) for value in auc],
            "brier": brier_score(censoring, y, survival, HORIZONS)[1].tolist(),
            "ibs": integrated_brier_score(censoring, y, over_time, GRID),
        }
    return found


def kaplan_meier(came, time):
    times, value, interval = kaplan_meier_estimator(came, time, conf_type="log-log")
    inside = (value < 1) & (value > 0)
    at = times[inside & np.isin(times, time[came])]
    chosen = np.isin(times, at)
    return {
        "time": at.tolist(),
        "value": value[chosen].tolist(),
        "low": interval[0, chosen].tolist(),
        "high": interval[1, chosen].tolist(),
    }


def smooth(one):
    """Return observed probabilities at the middle horizon by a Cox model on a spline, events after it censored at it."""
    time, event, _, shifted = columns(one)
    horizon = HORIZONS[1]
    p = probability(one, [horizon])[:, 0]
    score = np.log(-np.log(1 - p))
    a, b, c = np.quantile(score, [0.1, 0.5, 0.9])

    def cube(knot):
        return np.maximum(score - knot, 0) ** 3

    bent = (cube(a) - cube(b) * (c - a) / (c - b) + cube(c) * (b - a) / (c - b)) / (c - a) ** 2
    x = np.column_stack([(score - score.mean()) / score.std(), (bent - bent.mean()) / bent.std()])
    came = (event == 1) & (time <= horizon)
    y = Surv.from_arrays(came, np.minimum(shifted, horizon + LATER))
    model = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-14).fit(x, y)
    return [float(1 - function(horizon)) for function in model.predict_survival_function(x)]


def competing(one):
    time, event, risk, _ = columns(one)
    times, incidence = cumulative_incidence_competing_risks(event, time)
    counted = _compute_counts(event, time)
    kept = 1 - incidence[0]
    variance = _var_dinse_approx(counted[1], np.r_[1.0, kept[:-1]], counted[2], incidence)
    finite = np.isfinite(variance[0])
    frame = pd.DataFrame({"time": np.where(event == 0, time + LATER, time), "event": event == 1, "risk": risk})
    shown = PHReg(frame["time"], frame[["risk"]], status=frame["event"], ties="breslow").fit().params
    efron = CoxPHFitter().fit(frame, "time", "event").params_["risk"]
    return {
        "time": times[finite].tolist(),
        "incidence": incidence[1][finite].tolist(),
        "standard_error": np.sqrt(variance[0][finite]).tolist(),
        "cox_slope": float(np.asarray(shown)[0]),
        "cox_slope_efron": float(efron),
    }


main()
