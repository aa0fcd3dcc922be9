"""Average effects as a trial reports them: differences, hazard ratios, subgroups named beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from theracast_training.effects.cohort import Arms, strata_of, subgroup_rows
from theracast_training.effects.hazards import fit_cox, hazard_ratio, log_rank
from theracast_training.effects.outcome import Outcome
from theracast_training.effects.section import TreatmentSection

Floats = NDArray[np.float64]
Z = float(norm.ppf(0.975))
LEAST_IN_SUBGROUP = 10
"""Patients of each arm without whom a subgroup is named but not estimated."""


def arm_summary(outcome: Outcome) -> dict[str, Any]:
    """Return of one arm the patients, the events, and the mean of the outcome with its interval (scale of the outcome).

    Of a time to event the mean of the pseudo-values, which is the Kaplan-Meier summary.
    """
    values = outcome.values(np.ones(_length(outcome)))
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    middle = float(values.mean())
    events = outcome.event if outcome.event is not None else outcome.y if outcome.scale == "risk" else None
    return {
        "n": len(values),
        "events": None if events is None else int(events.sum()),
        "value": middle,
        "value_low": middle - Z * error,
        "value_high": middle + Z * error,
    }


def unadjusted_difference(outcome: Outcome, treated: Floats) -> dict[str, float]:
    """Return the difference of means, treated minus control, with Welch's standard error."""
    values = outcome.values(treated)
    active, control = values[treated == 1], values[treated == 0]
    difference = float(active.mean() - control.mean())
    error = float(np.sqrt(active.var(ddof=1) / len(active) + control.var(ddof=1) / len(control)))
    p = float(2 * norm.sf(abs(difference) / error)) if error > 0 else float("nan")
    low, high = difference - Z * error, difference + Z * error
    return {"value": difference, "low": low, "high": high, "error": error, "p_value": p}


def hazards(data: Arms, treated: Floats, section: TreatmentSection) -> dict[str, Any] | None:
    """Return the hazard ratio as it is and, where the study names strata, stratified, with the log-rank tests."""
    time, event = data.outcome.time, data.outcome.event
    if time is None or event is None:
        return None
    found: dict[str, Any] = {
        "unstratified": hazard_ratio(treated, time, event),
        "log_rank": log_rank(treated, time, event),
        "stratified": None,
        "strata": [data.columns.get(name, name) for name in section.strata],
    }
    strata = strata_of(data.values, section.strata)
    if strata is not None:
        found["stratified"] = hazard_ratio(treated, time, event, strata=strata)
        found["stratified_log_rank"] = log_rank(treated, time, event, strata=strata)
    return found


def subgroups(data: Arms, treated: Floats, section: TreatmentSection) -> list[dict[str, Any]]:
    """Return for each subgroup and the patients outside it the unadjusted effect, and the p value of their difference."""
    rows: list[dict[str, Any]] = []
    for subgroup in section.subgroups:
        inside = subgroup_rows(data.values, subgroup)
        parts = {
            name: np.flatnonzero(inside == side) for name, side in ((subgroup.name, 1.0), (f"not {subgroup.name}", 0.0))
        }
        effects = {name: _subgroup_effect(data.outcome.take(own), treated[own]) for name, own in parts.items()}
        known = np.flatnonzero(~np.isnan(inside))
        p = _interaction(data.outcome.take(known), treated[known], inside[known], list(effects.values()))
        rows += [
            {"name": name, "of": subgroup.name, "interaction_p": p, "unknown": len(inside) - len(known)} | effect
            for name, effect in effects.items()
        ]
    return rows


def _subgroup_effect(outcome: Outcome, treated: Floats) -> dict[str, Any]:
    counts = {"n_treated": int(treated.sum()), "n_control": int((1 - treated).sum())}
    if min(counts.values()) < LEAST_IN_SUBGROUP:
        return counts | {"difference": None, "hazard": None}
    hazard = None
    if outcome.time is not None and outcome.event is not None:
        hazard = hazard_ratio(treated, outcome.time, outcome.event)
    return counts | {"difference": unadjusted_difference(outcome, treated), "hazard": hazard}


def _interaction(outcome: Outcome, treated: Floats, inside: Floats, effects: Sequence[dict[str, Any]]) -> float | None:
    """Return the p value that the effect is the same inside and outside: of hazards where there are some."""
    if any(one["difference"] is None for one in effects):
        return None
    if outcome.time is not None and outcome.event is not None:
        try:
            fit = fit_cox(np.column_stack([treated, inside, treated * inside]), outcome.time, outcome.event)
        except ValueError:
            return None
        return float(2 * norm.sf(abs(fit.beta[2]) / np.sqrt(fit.covariance[2, 2])))
    first, second = (one["difference"] for one in effects)
    error = float(np.hypot(first["error"], second["error"]))
    return float(2 * norm.sf(abs(first["value"] - second["value"]) / error)) if error > 0 else None


def _length(outcome: Outcome) -> int:
    found = outcome.y if outcome.y is not None else outcome.time
    assert found is not None
    return len(found)
