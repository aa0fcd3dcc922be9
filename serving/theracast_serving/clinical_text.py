"""How numbers, units and performance are said to a doctor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_UNIT_WORDS = {"1": "", "a": "years", "mo": "months", "wk": "weeks", "d": "days", "h": "hours", "Cel": "°C"}
_DATA_WORDS = {
    "lab": "laboratory values",
    "clinical": "clinical data",
    "genomic": "genomic data",
    "transcriptomic": "gene expression",
    "treatment": "the treatment",
    "patient_reported": "patient-reported data",
    "wearable": "wearable data",
}
FEW = 10
"""Fewer patients with (or without) the outcome than this say nothing about calibration."""
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def unit_text(unit: str | None) -> str:
    """Return a UCUM unit as it is printed in a clinic: `10*9/L` gives `×10⁹/L`, `{mutations}/Mb` `mutations/Mb`."""
    if unit is None:
        return ""
    if unit in _UNIT_WORDS:
        return _UNIT_WORDS[unit]
    plain = re.sub(r"\{([^}]*)\}", r"\1", unit).replace("[", "").replace("]", "")
    plain = re.sub(r"10[*^](-?\d+)", lambda found: "×10" + found[1].translate(_SUPERSCRIPT), plain)
    plain = re.sub(r"(?<=[A-Za-z])(-?\d)(?!\d)", lambda found: found[1].translate(_SUPERSCRIPT), plain)
    return re.sub(r"\bu(?=[a-zA-Z])", "µ", plain).replace(".", "·")


def number_text(value: float) -> str:
    """Return a number with three significant digits, without an exponent where a reader needs none."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits}×10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    decimals = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}".replace(",", "\u202f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def of_hundred(probability: float) -> str:
    """Return a probability as a count of 100 patients, never as a certainty."""
    if probability < 0.005:
        return "fewer than 1"
    if probability > 0.995:
        return "more than 99"
    return str(hundredth(probability))


def range_of_hundred(low: float, high: float) -> str:
    """Return an interval as counts of 100 patients, in per cent where both ends round to the same words."""
    words = of_hundred(low), of_hundred(high)
    if words[0] == words[1] and not words[0].isdigit():
        return f"{percent_text(low)} to {percent_text(high)}"
    return f"{words[0]} to {words[1]}"


def percent_text(probability: float) -> str:
    """Return a probability in per cent with one decimal, with as many as it needs where that would say 0 or 100."""
    percent = 100 * probability
    rest = min(percent, 100 - percent)
    decimals = 1 if rest >= 0.05 else min(8, math.ceil(-math.log10(rest) - 1e-6) if rest > 0 else 1)
    return f"{percent:.{decimals}f} %"


def hundredth(probability: float) -> int:
    """Return how many of 100, rounded half up."""
    return math.floor(100 * probability + 0.5)


def points_text(points: float) -> str:
    """Return percentage points with their sign; what rounds to nothing is said to be so."""
    rounded = math.floor(abs(points) + 0.5)
    if rounded == 0:
        return "±0"
    return f"{'+' if points > 0 else '−'}{rounded}"


def data_words(modality: str) -> str:
    """Return a kind of data in the words of a sentence; what is no kind of data stays as it is."""
    return _DATA_WORDS.get(modality, modality)


def outcome_verb(label: str) -> str:
    """Return what the patients do who have the outcome: `respond`, or `have: LABEL`."""
    return "respond" if re.search(r"respon", label, re.IGNORECASE) else f"have {label}"


def separation_words(auc: float | None) -> str:
    """Return how well a model tells responders from others, by the usual reading of the AUC."""
    if auc is None:
        return "not estimable"
    for bound, words in ((0.55, "no better than chance"), (0.65, "weak"), (0.75, "moderate"), (0.85, "good")):
        if auc < bound:
            return words
    return "very good"


def calibration_words(evaluation: Mapping[str, Any]) -> str:
    """Return whether predicted and observed frequency agree, judged by the intervals of intercept and slope."""
    predicted, observed = evaluation.get("mean_probability"), evaluation.get("prevalence")
    if predicted is None or observed is None:
        return "not estimable"
    patients, events = evaluation.get("n") or 0, evaluation.get("events")
    if events is not None and min(events, patients - events) < FEW:
        return "too few to judge"
    low, high = evaluation.get("calibration_intercept_low"), evaluation.get("calibration_intercept_high")
    verdict = "agrees"
    if low is not None and high is not None:
        verdict = "too optimistic" if high < 0 else "too pessimistic" if low > 0 else "agrees"
    elif abs(predicted - observed) > 0.05:
        verdict = "too optimistic" if predicted > observed else "too pessimistic"
    slope_low, slope_high = evaluation.get("calibration_slope_low"), evaluation.get("calibration_slope_high")
    if slope_high is not None and slope_high < 1:
        verdict += ", extremes exaggerated"
    elif slope_low is not None and slope_low > 1:
        verdict += ", extremes understated"
    return verdict.replace("agrees, ", "on average right, ")
