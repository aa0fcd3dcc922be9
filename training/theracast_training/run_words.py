"""Sentences on a run that several checklists ask for."""

from __future__ import annotations

from typing import Any

from theracast_training.content import NESTED, ReportContent
from theracast_training.endpoint_content import decisions_of
from theracast_training.wording import count, interval, listed, number, percent, plural, site_label


def sources_words(content: ReportContent) -> str:
    """Return how many decisions come from which sites, and from what kind of source."""
    own = [row for row in content.cohort if row["site"] in content.development]
    others = [row for row in content.cohort if row["site"] in content.external]
    kinds = sorted(set(content.study.get("sources") or []))
    kind = f" (read from: {listed(kinds)})" if kinds else ""
    words = f"Developed on {_rows(own)}{kind}."
    return f"{words} Judged on {_rows(others)}." if others else f"{words} No other site judges."


def _rows(rows: list[Any]) -> str:
    return listed([f"{count(row['known'])} decisions at {row['site']}" for row in rows]) or "no decisions"


def outcome_words(content: ReportContent) -> str:
    """Return what is predicted, by when."""
    asked = content.asked
    if asked.kind == "time_to_event":
        return (
            f"Time to the event of {asked.label}, told as its probability by {listed(list(asked.horizons.values()))}."
        )
    if asked.kind == "ordinal":
        return f"{_start(asked.label)} in ordered levels, worst first: {', '.join(asked.levels)}."
    if asked.kind == "continuous":
        return f"{_start(asked.label)}, a number{f' in {asked.unit}' if asked.unit else ''}."
    return f"{_start(asked.label)}, yes or no."


def _start(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def missing_words(content: ReportContent) -> str:
    """Return how missing values are dealt with, and how many there are."""
    own = [
        fraction
        for spec in content.features
        for site, fraction in (spec.get("missing") or {}).items()
        if site in content.development and fraction is not None
    ]
    worst = max(own, default=0.0)
    indicators = int(content.study.get("indicators") or 0)
    noted = (
        f"; {plural(indicators, 'indicator')} of what was not measured {'is' if indicators == 1 else 'are'} added"
        if indicators
        else ""
    )
    return (
        f"No decision is left out for a missing predictor (at most {percent(worst)} missing in development). Missing values are "
        f"filled by what the training folds say, or left to the trees{noted}; each answer tells what was missing. Decisions "
        "without a known outcome are left out; censored ones are weighted by the inverse probability of censoring."
    )


def modelling_words(content: ReportContent) -> str:
    """Return family, tuning and internal validation."""
    scheme = content.scheme
    tried = listed(list(content.searches)) or content.family
    nested = (
        f"judged by nested cross-validation with {scheme['outer']} outer folds"
        if scheme.get("outer")
        else "without nested cross-validation"
    )
    return (
        f"Families tried: {tried}, up to {scheme['trials']} trials each on {scheme['inner']} inner folds split by "
        f"{scheme.get('by', 'subject')}; chosen: {content.family}. The whole procedure, tuning and choice included, was {nested}. "
        "Probabilities are calibrated on out-of-fold scores."
    )


def performance_words(content: ReportContent) -> str:
    """Return the leading figure at every site."""
    lead = content.headline
    found = [
        f"{site_label(site)} {interval(lead.of(record), lead.name)}" for site, record in content.performance.items()
    ]
    return f"{lead.label[:1].upper()}{lead.label[1:]}: {'; '.join(found)}." if found else ""


def size_words(content: ReportContent) -> str:
    """Return what Riley's criteria ask for and what there is; empty where nothing was asked."""
    found = content.statistics.get("sample_size") or {}
    if not found.get("achieved"):
        return ""
    achieved = found["achieved"]
    return (
        f"Development: {count(achieved['n'])} decisions for {plural(achieved['parameters'], 'candidate parameter')}; Riley's "
        f"criteria ask for {count(achieved['needed'])} ({found['needed']['anticipated']}), which is "
        f"{'met' if achieved['enough'] else 'not met'}."
    )


def evaluation_sizes(content: ReportContent) -> str:
    """Return how many decisions and events judge at every external site."""
    found = []
    for site, record in content.performance.items():
        if site == NESTED:
            continue
        events = (record.get("survival") or record).get("events")
        tail = "" if events is None else f" ({count(events)} with the outcome)"
        found.append(f"{site} {count(decisions_of(record))}{tail}")
    return f"Evaluation: {'; '.join(found)}." if found else ""


def heterogeneity_words(content: ReportContent) -> str:
    """Return what the meta-analysis over sites says; empty where there was none."""
    pooled = content.statistics.get("sites")
    if not pooled:
        return ""
    lead = "c_index" if "c_index" in pooled["measures"] else "auc"
    one = pooled["measures"][lead]
    if one["value"] is None:
        return ""
    span = (
        ""
        if one["prediction_low"] is None
        else f", at a new site {number(one['prediction_low'])} to {number(one['prediction_high'])}"
    )
    label = {"auc": "AUC", "c_index": "C-index"}[lead]
    return (
        f"{label} over {one['k']} sites: {number(one['value'])} ({number(one['low'])} to {number(one['high'])}){span}."
    )


def measures_words(content: ReportContent) -> str:
    """Return the measures by which the kind of endpoint is judged."""
    return {
        "binary": "AUC, AUPRC, Brier score, calibration intercept, slope, curve and ICI, net benefit; paired bootstrap "
        "comparisons.",
        "time_to_event": "Harrell's and Uno's C, AUC and Brier score by each horizon, integrated Brier score, calibration by each "
        "horizon, net benefit from Kaplan-Meier.",
        "ordinal": "Ordinal C, ranked probability score, weighted kappa, calibration, AUC and Brier score at each cut; net "
        "benefit of the leading level.",
        "continuous": "R2, RMSE, mean absolute error, rank correlation, bias, and the line of the outcome on the estimate.",
    }[content.asked.kind]
