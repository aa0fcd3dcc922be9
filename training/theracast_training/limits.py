"""The limits of a model as sentences that follow from the numbers of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from theracast_training.content import ReportContent
from theracast_training.wording import count, interval, listed, number, percent, plural, rival_label

ENOUGH = 100
"""Events, and non-events, that an external validation needs: Vergouwe et al., J Clin Epidemiol 2005;58:475-483."""
WIDE_AUC = 0.15
HALF = 0.5
EVENTS_PER_FEATURE = 10


def derived_limits(content: ReportContent) -> list[str]:
    """Return every limit that the numbers show, the gravest subject first, then those given with the content."""
    found = [
        *_no_outside(content),
        *_few_events(content),
        *_wide(content),
        *_miscalibrated(content),
        *_fallen(content),
        *_not_better(content),
        *_not_useful(content),
        *_missing_columns(content),
        *_audit(content),
        *_small_development(content),
    ]
    return [*found, *content.limits]


def _outside(content: ReportContent) -> dict[str, Mapping[str, Any]]:
    return {site: record for site, record in content.performance.items() if site in content.external}


def _no_outside(content: ReportContent) -> Iterator[str]:
    if not _outside(content):
        yield "The model has not been judged outside its development sites: expect it to do worse elsewhere."


def _few_events(content: ReportContent) -> Iterator[str]:
    few = []
    for site, record in _outside(content).items():
        rarer = min(int(record["events"]), int(record["n"]) - int(record["events"]))
        if rarer < ENOUGH:
            few.append(f"{site} ({count(record['events'])} of {count(record['n'])})")
    if few:
        yield (
            f"Fewer than {ENOUGH} decisions with the rarer outcome at {listed(few)}: too few to judge calibration "
            "there with confidence."
        )


def _wide(content: ReportContent) -> Iterator[str]:
    by_chance, rough = [], []
    for site, record in _outside(content).items():
        low, high = record.get("auc_low"), record.get("auc_high")
        if record.get("auc") is None:
            yield f"At {site} the AUC cannot be estimated: all known outcomes are the same."
        elif low is None or high is None:
            yield f"At {site} there are too few outcomes for an interval of the AUC."
        elif low <= HALF <= high:
            by_chance.append(f"{site}, {interval(record, 'auc')}")
        elif high - low > WIDE_AUC:
            rough.append(f"{site}, {interval(record, 'auc')}")
    if by_chance:
        yield f"The AUC is compatible with chance at {listed(by_chance)}."
    if rough:
        yield f"The AUC is known only roughly at {listed(rough)}."


def _miscalibrated(content: ReportContent) -> Iterator[str]:
    for site, record in _outside(content).items():
        observed, predicted = percent(record.get("prevalence")), percent(record.get("mean_probability"))
        low, high = record.get("calibration_intercept_low"), record.get("calibration_intercept_high")
        if low is not None and high is not None and (high < 0 or low > 0):
            side = "too high" if high < 0 else "too low"
            yield f"At {site} the probabilities are {side}: {predicted} predicted on average, {observed} observed."
        low, high = record.get("calibration_slope_low"), record.get("calibration_slope_high")
        if low is not None and high is not None and (high < 1 or low > 1):
            side = (
                "too extreme: high ones are too high and low ones too low" if high < 1 else "too close to the average"
            )
            yield f"At {site} the probabilities are {side} (calibration slope {interval(record, 'calibration_slope')})."


def _fallen(content: ReportContent) -> Iterator[str]:
    nested = content.performance.get("cv")
    if not nested or nested.get("auc_low") is None:
        return
    worse = [
        f"{site} ({number(record['auc'])})"
        for site, record in _outside(content).items()
        if record.get("auc_high") is not None and record["auc_high"] < nested["auc"]
    ]
    if worse:
        yield (
            f"Ranking is clearly worse than in development, where the AUC was {number(nested['auc'])}, "
            f"at {listed(worse)}."
        )


def _not_better(content: ReportContent) -> Iterator[str]:
    names = dict.fromkeys(str(one["against"]) for one in content.comparisons if one["kind"] == "baseline")
    for name in names:
        known = [
            one
            for one in content.comparisons
            if one["against"] == name and one["site"] in content.external and one.get("low") is not None
        ]
        better = [str(one["site"]) for one in known if one["low"] > 0]
        worse = [str(one["site"]) for one in known if one["high"] < 0]
        if worse:
            yield f"The published score {rival_label(name)} ranks better than this model at {listed(worse)}."
        if known and not better:
            yield f"At no external site is the model shown to rank better than the published score {rival_label(name)}."


def _not_useful(content: ReportContent) -> Iterator[str]:
    idle = []
    for site, record in _outside(content).items():
        thresholds = [
            percent(row["threshold"])
            for row in record.get("thresholds") or []
            if row.get("net_benefit") is not None and row["net_benefit"] <= max(row["treat_all"], 0.0)
        ]
        if thresholds:
            idle.append(f"{site} (threshold {listed(thresholds)})")
    if idle:
        yield (
            f"Deciding by the model showed no greater net benefit than treating everyone or nobody at {listed(idle)}."
        )


def _missing_columns(content: ReportContent) -> Iterator[str]:
    for site in content.external:
        absent = [
            str(spec["label"])
            for spec in content.features
            if float((spec.get("missing") or {}).get(site) or 0.0) >= 1.0
        ]
        if absent:
            shown = listed(absent) if len(absent) <= 6 else f"{', '.join(absent[:5])} and {len(absent) - 5} more"
            yield f"{site} has no values of {shown}: its figures are those of a model that goes without them."


def _audit(content: ReportContent) -> Iterator[str]:
    open_ones = [one for one in content.findings if not one.get("accepted")]
    errors = sum(one["severity"] == "error" for one in open_ones)
    warnings = sum(one["severity"] == "warning" for one in open_ones)
    if errors:
        yield f"The audit of the data has {plural(errors, 'open error')}: see the findings."
    if warnings:
        yield f"The audit of the data has {plural(warnings, 'open warning')}: see the findings."


def _small_development(content: ReportContent) -> Iterator[str]:
    own = [record for record in content.cohort if record["site"] in content.development]
    events = sum(int(record["events"]) for record in own)
    known = sum(int(record["known"]) for record in own)
    features = len(content.features)
    rarer = min(events, known - events)
    if features and rarer < EVENTS_PER_FEATURE * features:
        yield (
            f"Developed from {count(rarer)} decisions with the rarer outcome for {features} candidate features, "
            f"{rarer / features:.1f} each: another development cohort could have led to a visibly different model."
        )
