"""The limits of a model as sentences that follow from the numbers of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from theracast_training.content import ReportContent
from theracast_training.statistics_tables import NAMES, leading_measure
from theracast_training.wording import (
    calibration_verdict,
    count,
    interval,
    listed,
    number,
    percent,
    plural,
    rival_label,
)

ENOUGH = 100
"""Events, and non-events, that an external validation needs: Vergouwe et al., J Clin Epidemiol 2005;58:475-483."""
ENOUGH_NUMBERS = 235
"""Decisions that an external validation of a number needs: Archer et al., Stat Med 2021;40:133-146."""
HALF = 0.5
FEW_SITES = 4
"""From so many sites on a prediction interval that reaches chance is told as a limit; with fewer it nearly always does."""
CLEAR = 0.01
OPTIMISTIC = 0.05
EVENTS_PER_FEATURE = 10


def derived_limits(content: ReportContent) -> list[str]:
    """Return every limit that the numbers show, the gravest subject first, then those given with the content."""
    found = [
        *_no_outside(content),
        *_suspects(content),
        *_few_events(content),
        *_wide(content),
        *_miscalibrated(content),
        *_fallen(content),
        *_sites_differ(content),
        *_not_better(content),
        *_not_useful(content),
        *_groups_differ(content),
        *_drift(content),
        *_missing_columns(content),
        *_audit(content),
        *_small_development(content),
        *_optimistic(content),
    ]
    return [*found, *content.limits]


def _outside(content: ReportContent) -> dict[str, Mapping[str, Any]]:
    return {site: record for site, record in content.performance.items() if site in content.external}


def _no_outside(content: ReportContent) -> Iterator[str]:
    if not _outside(content):
        yield "The model has not been judged outside its development sites: expect it to do worse elsewhere."


def _suspects(content: ReportContent) -> Iterator[str]:
    leaks = content.statistics.get("leaks") or {}
    yield from (str(one["sentence"]) for one in (leaks.get("screen") or {}).get("suspects") or [])
    for part in ("concentration", "permuted"):
        found = leaks.get(part) or {}
        if found.get("suspect") or found.get("leak"):
            yield str(found["sentence"])


def _few_events(content: ReportContent) -> Iterator[str]:
    few, small = [], []
    for site, record in _outside(content).items():
        if "r2" in record:
            small += [f"{site} ({count(record['n'])})"] if int(record["n"]) < ENOUGH_NUMBERS else []
            continue
        rarer = min(int(record["events"]), int(record["n"]) - int(record["events"]))
        if rarer < ENOUGH:
            few.append(f"{site} ({count(record['events'])} of {count(record['n'])})")
    by = f" by {content.asked.first_horizon}" if content.asked.first_horizon else ""
    if few:
        yield (
            f"Fewer than {ENOUGH} decisions with the rarer outcome{by} at {listed(few)}: too few to judge calibration "
            "there with confidence."
        )
    if small:
        yield (
            f"Fewer than {ENOUGH_NUMBERS} decisions at {listed(small)}: too few to judge the calibration of estimates there "
            "with confidence."
        )


def _wide(content: ReportContent) -> Iterator[str]:
    by_chance, rough = [], []
    lead = content.headline
    for site, record in _outside(content).items():
        found = lead.of(record)
        value, low, high = (found.get(f"{lead.name}{end}") for end in ("", "_low", "_high"))
        if value is None:
            why = (
                "the known outcomes do not differ"
                if content.asked.kind != "binary"
                else "all known outcomes are the same"
            )
            yield f"At {site} the {lead.label} cannot be estimated: {why}."
        elif low is None or high is None:
            yield f"At {site} there are too few outcomes for an interval of the {lead.label}."
        elif low <= lead.chance <= high:
            by_chance.append(f"{site}, {interval(found, lead.name)}")
        elif high < lead.chance:
            yield f"At {site} the {lead.label} is worse than chance: {interval(found, lead.name)}."
        elif high - low > lead.wide:
            rough.append(f"{site}, {interval(found, lead.name)}")
    if by_chance:
        yield f"The {lead.label} is compatible with chance at {listed(by_chance)}."
    if rough:
        yield f"The {lead.label} is known only roughly at {listed(rough)}."


def _miscalibrated(content: ReportContent) -> Iterator[str]:
    number_ = content.asked.kind == "continuous"
    by = f" by {content.asked.first_horizon}" if content.asked.first_horizon else ""
    given = "estimates" if number_ else f"probabilities{by}"
    for site, record in _outside(content).items():
        verdict = calibration_verdict(record)
        side = next((one for one in ("too high", "too low") if one in verdict), None)
        if side and number_:
            yield (
                f"At {site} the estimates are {side}: {number(record.get('mean_estimate'))} on average, "
                f"{number(record.get('mean_outcome'))} observed."
            )
        elif side:
            observed, predicted = percent(record.get("prevalence")), percent(record.get("mean_probability"))
            yield f"At {site} the {given} are {side}: {predicted} predicted on average, {observed} observed."
        if "too extreme" in verdict or "too cautious" in verdict:
            side = (
                "too extreme: high ones are too high and low ones too low"
                if "too extreme" in verdict
                else "too close to the average"
            )
            yield f"At {site} the {given} are {side} (calibration slope {interval(record, 'calibration_slope')})."


def _fallen(content: ReportContent) -> Iterator[str]:
    lead = content.headline
    nested = lead.of(content.performance.get("cv") or {})
    if nested.get(f"{lead.name}_low") is None:
        return
    worse = [
        f"{site} ({number(found[lead.name])})"
        for site, record in _outside(content).items()
        if (found := lead.of(record)).get(f"{lead.name}_high") is not None
        and found[f"{lead.name}_high"] < nested[lead.name]
    ]
    if worse:
        yield (
            f"{'Accuracy' if content.asked.kind == 'continuous' else 'Ranking'} is clearly worse than in development, where the "
            f"{lead.label} was {number(nested[lead.name])}, at {listed(worse)}."
        )


def _sites_differ(content: ReportContent) -> Iterator[str]:
    pooled = content.statistics.get("sites")
    if not pooled:
        return
    lead = leading_measure(pooled["measures"])
    one = pooled["measures"][lead]
    low, high = one["prediction_low"], one["prediction_high"]
    if low is not None and one["k"] >= FEW_SITES and low <= HALF:
        yield (
            f"Sites differ so much that at a new one the {NAMES[lead]} may lie anywhere between {number(low)} and {number(high)}."
        )


def _groups_differ(content: ReportContent) -> Iterator[str]:
    for place, judged in (content.statistics.get("fairness") or {}).items():
        where = "at external sites" if place == "external" else "in cross-validation"
        for column, one in judged["subgroups"].items():
            gaps = one["gaps"] or {}
            if gaps.get("auc_p_value") is not None and gaps["auc_p_value"] < CLEAR:
                yield (
                    f"The model ranks “{gaps['auc_lowest']}” less well than “{gaps['auc_highest']}” ({column.replace('_', ' ')}, "
                    f"{where}): the AUC differs by {interval(gaps, 'auc')}, by more than chance explains."
                )


def _drift(content: ReportContent) -> Iterator[str]:
    drift = (content.statistics.get("periods") or {}).get("drift") or {}
    low, high = drift.get("intercept_per_year_low"), drift.get("intercept_per_year_high")
    if low is not None and high is not None and (low > 0 or high < 0):
        yield f"Calibration drifts. {drift['sentence']}"


def _optimistic(content: ReportContent) -> Iterator[str]:
    found = content.statistics.get("optimism")
    if not found:
        return
    lead = leading_measure(found)
    value, apparent = found.get(lead), found.get(f"{lead}_apparent")
    if value is not None and apparent is not None and apparent - value > OPTIMISTIC:
        yield (
            f"On its own patients the model looks better than it is: corrected for optimism the {NAMES[lead]} is "
            f"{number(value)}, not {number(apparent)}."
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
    by = f"'s probability by {content.asked.first_horizon}" if content.asked.first_horizon else ""
    if idle:
        yield (
            f"Deciding by the model{by} showed no greater net benefit than treating everyone or nobody at {listed(idle)}."
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
    achieved = (content.statistics.get("sample_size") or {}).get("achieved")
    if achieved:
        if not achieved["enough"]:
            yield (
                f"Developed from {count(achieved['n'])} decisions for {plural(achieved['parameters'], 'candidate parameter')}, "
                f"where {count(achieved['needed'])} are needed: another development cohort could have led to a visibly "
                "different model."
            )
        return
    if content.asked.kind == "continuous":
        return
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
