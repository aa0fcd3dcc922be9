"""The curves of a report for every site at which a model was judged, by the kind of endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from theracast_training.comparisons import Judged, by_rising_horizon
from theracast_training.curves import curves
from theracast_training.decision_curves import survival_decision_curve
from theracast_training.develop import curve_days
from theracast_training.development import Developed
from theracast_training.prepare import Prepared
from theracast_training.refits import Floats
from theracast_training.survival_curves import survival_curves

RISK_GROUPS = 3
BAND_RESAMPLES = 200
DECISION_RESAMPLES = 500


def site_curves(prepared: Prepared, developed: Developed) -> dict[str, dict[str, Any]]:
    """Return site (or `cv`) to its curves, as plain JSON.

    Yes or no and the leading level: the answer of `curves`. Times to an event: `n`, `events`, `survival` (of
    `survival_curves`) and `decision` (of `survival_decision_curve` by the leading horizon). Numbers: nothing, since their
    figures are drawn from the evaluation.
    """
    kind = prepared.target.kind
    if kind == "continuous":
        return {}
    if kind == "time_to_event":
        cuts = _development_cuts(prepared, developed)
        return {
            site: _survival(prepared, judged, cuts=None if site == "cv" else cuts)
            for site, judged in developed.own.items()
        }
    return {site: _binary(prepared, judged) for site, judged in developed.own.items()}


def _binary(prepared: Prepared, judged: Judged) -> dict[str, Any]:
    report, target = prepared.study.report, prepared.target.take(judged.rows)
    return curves(
        target.y,
        judged.probability,
        weight=target.weight(),
        group=prepared.patients(judged.rows),
        decision_range=report.decision_range,
        bootstrap=min(report.bootstrap, DECISION_RESAMPLES),
        seed=prepared.study.search.seed,
    )


def _development_cuts(prepared: Prepared, developed: Developed) -> list[float]:
    """Return the scores that part the development decisions into equal groups of risk, by which other sites are grouped."""
    score: Floats = developed.fitted.log_odds(prepared.table.take(prepared.learn))
    return [float(one) for one in np.quantile(score, np.linspace(0, 1, RISK_GROUPS + 1)[1:-1])]


def _survival(prepared: Prepared, judged: Judged, *, cuts: list[float] | None) -> dict[str, Any]:
    report, target = prepared.study.report, prepared.target.take(judged.rows)
    assert judged.linear is not None
    time, event = target.followed
    horizons, probability = by_rising_horizon(target, judged)
    common: Mapping[str, Any] = {"group": prepared.patients(judged.rows), "seed": prepared.study.search.seed}
    found = survival_curves(
        time,
        event,
        judged.linear,
        horizons=horizons,
        probability=probability,
        survival_grid=None if judged.curve is None else (curve_days(target.horizons), judged.curve),
        risk_groups=RISK_GROUPS,
        cuts=cuts,
        bootstrap=min(report.bootstrap, BAND_RESAMPLES),
        **common,
    )
    forestalled = event == 2  # without the event to the end of follow-up, as a decision sees it
    decision = survival_decision_curve(
        np.where(forestalled, np.maximum(time, target.horizons[0] + 1), time),
        np.where(forestalled, 0.0, event),
        judged.probability,
        horizon=target.horizons[0],
        decision_range=report.decision_range,
        bootstrap=min(report.bootstrap, DECISION_RESAMPLES),
        **common,
    )
    return {"n": found["n"], "events": found["events"], "survival": found, "decision": decision}
