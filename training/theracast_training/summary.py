"""The answer of a study in three sentences: what is predicted, for whom, and how well it holds outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_training.content import NESTED, ReportContent
from theracast_training.wording import calibration_verdict, count, interval, listed, number, percent, plural


def summary_sentences(content: ReportContent) -> list[str]:
    """Return three sentences."""
    return [_what(content), _for_whom(content), _how_well(content)]


def _what(content: ReportContent) -> str:
    modalities = list(dict.fromkeys(str(spec["modality"]).replace("_", "-") for spec in content.features))
    inputs = plural(len(content.features), f"{listed(modalities)} feature")
    return f"The model gives the probability of {content.endpoint} for one patient from {inputs}."


def _for_whom(content: ReportContent) -> str:
    own = [record for record in content.cohort if record["site"] in content.development]
    others = [record for record in content.cohort if record["site"] in content.external]
    sentence = f"It was developed on {_patients(own)} at {listed(list(content.development)) or 'one site'}"
    if not others:
        return f"{sentence}, and has not been judged on patients from anywhere else."
    return f"{sentence}, and judged on {_patients(others)} at {_sites(len(others))} that took no part in development."


def _patients(records: list[Mapping[str, Any]]) -> str:
    known, events = sum(int(one["known"]) for one in records), sum(int(one["events"]) for one in records)
    share = percent(events / known) if known else "–"
    return f"{count(known)} decisions ({count(events)} with the outcome, {share})"


def _sites(number_of: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    amount = words[number_of] if number_of < len(words) else str(number_of)
    return f"{amount} site{'s' if number_of != 1 else ''}"


def _how_well(content: ReportContent) -> str:
    outside = {site: record for site, record in content.performance.items() if site != NESTED}
    if not outside:
        nested = content.performance.get(NESTED)
        if not nested:
            return "How well it holds has not been measured."
        return f"Judged by nested cross-validation its AUC is {interval(nested, 'auc')}."
    known = [(site, record) for site, record in outside.items() if record.get("auc") is not None]
    if not known:
        return "At none of them can its ranking be estimated."
    if len(known) == 1:
        ranking = f"There its AUC is {interval(known[0][1], 'auc')}"
    else:
        largest = max(known, key=lambda one: int(one[1]["n"]))
        others = sorted(float(record["auc"]) for site, record in known if site != largest[0])
        span = f"{number(others[0])} to {number(others[-1])} at the others" if len(others) > 1 else number(others[0])
        elsewhere = span if len(others) > 1 else f"{span} at the other"
        ranking = f"There its AUC is {interval(largest[1], 'auc')} at {largest[0]}, the largest site, and {elsewhere}"
    return f"{ranking}; its probabilities {_calibration(outside)}."


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
