"""The answer of a study in three sentences: what is predicted, for whom, and how well it holds outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_training.content import NESTED, ReportContent
from theracast_training.endpoint_content import Terms, decisions_of
from theracast_training.wording import calibration_verdict, count, interval, listed, number, percent, plural


def summary_sentences(content: ReportContent) -> list[str]:
    """Return three sentences."""
    return [_what(content), _for_whom(content), _how_well(content)]


def _what(content: ReportContent) -> str:
    modalities = list(dict.fromkeys(str(spec["modality"]).replace("_", "-") for spec in content.features))
    inputs = plural(len(content.features), f"{listed(modalities)} feature")
    others = [one.terms.label for one in content.further]
    also = f" It answers {listed(others)} too." if others else ""
    return f"The model {answers_words(content.asked)} for one patient from {inputs}.{also}"


def answers_words(asked: Terms) -> str:
    """Return what a model gives of an endpoint, by its kind."""
    if asked.kind == "time_to_event":
        return f"gives the probability of an event ({asked.label}) by {listed(list(asked.horizons.values()))}"
    if asked.kind == "ordinal":
        return f"gives the probability of each level of {asked.label} ({', '.join(asked.levels)}, worst first)"
    if asked.kind == "continuous":
        return f"estimates {asked.label}{f' in {asked.unit}' if asked.unit else ''}"
    return f"gives the probability of {asked.leading}"


def _for_whom(content: ReportContent) -> str:
    own = [record for record in content.cohort if record["site"] in content.development]
    others = [record for record in content.cohort if record["site"] in content.external]
    had = {"time_to_event": "with the event", "ordinal": f"with {content.asked.leading}"}.get(
        content.asked.kind, "with the outcome"
    )
    sentence = f"It was developed on {_patients(own, had)} at {listed(list(content.development)) or 'one site'}"
    if not others:
        return f"{sentence}, and has not been judged on patients from anywhere else."
    return (
        f"{sentence}, and judged on {_patients(others, had)} at {_sites(len(others))} that took no part in development."
    )


def _patients(records: list[Mapping[str, Any]], had: str) -> str:
    known = sum(int(one["known"]) for one in records)
    if any(one["events"] is None for one in records):
        return f"{count(known)} decisions"
    events = sum(int(one["events"]) for one in records)
    share = percent(events / known) if known else "–"
    return f"{count(known)} decisions ({count(events)} {had}, {share})"


def _sites(number_of: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    amount = words[number_of] if number_of < len(words) else str(number_of)
    return f"{amount} site{'s' if number_of != 1 else ''}"


def _how_well(content: ReportContent) -> str:
    lead = content.headline
    outside = {site: record for site, record in content.performance.items() if site != NESTED}
    if not outside:
        nested = content.performance.get(NESTED)
        if not nested:
            return "How well it holds has not been measured."
        return f"Judged by nested cross-validation its {lead.label} is {interval(lead.of(nested), lead.name)}."
    known = [
        (site, lead.of(record), record)
        for site, record in outside.items()
        if lead.of(record).get(lead.name) is not None
    ]
    if not known:
        return "At none of them can its ranking be estimated."
    if len(known) == 1:
        ranking = f"There its {lead.label} is {interval(known[0][1], lead.name)}"
    else:
        largest = max(known, key=lambda one: decisions_of(one[2]))
        others = sorted(float(part[lead.name]) for site, part, _ in known if site != largest[0])
        span = f"{number(others[0])} to {number(others[-1])} at the others" if len(others) > 1 else number(others[0])
        elsewhere = span if len(others) > 1 else f"{span} at the other"
        ranking = f"There its {lead.label} is {interval(largest[1], lead.name)} at {largest[0]}, the largest site, and {elsewhere}"
    return f"{ranking}; its {_given(content.asked)} {_calibration(outside)}."


def _given(asked: Terms) -> str:
    """Return what is held against what happened."""
    if asked.kind == "time_to_event":
        return f"probabilities by {asked.first_horizon}"
    return {"continuous": "estimates", "ordinal": f"probabilities of {asked.leading}"}.get(asked.kind, "probabilities")


def _calibration(outside: Mapping[str, Mapping[str, Any]]) -> str:
    verdicts: dict[str, list[str]] = {}
    for site, record in outside.items():
        verdicts.setdefault(calibration_verdict(record), []).append(site)
    parts = []
    if "agrees" in verdicts:
        parts.append(f"agree with what happened at {listed(verdicts.pop('agrees'))}")
    unclear = verdicts.pop("too few to judge", None)
    parts += [f"are {verdict} at {listed(sites)}" for verdict, sites in verdicts.items()]
    if unclear:
        parts.append(f"cannot be judged at {listed(unclear)}, where outcomes are too few")
    return listed(parts)
