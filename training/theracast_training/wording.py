"""Numbers as words of a report: intervals, percentages and verdicts, with no more digits than they deserve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theracast_features.scores import PUBLISHED
from theracast_training.content import NESTED

NOT_ESTIMABLE = "not estimable"
NESTED_LABEL = "Nested cross-validation"
WIDE_SLOPE = 1.5
"""A calibration slope whose 95 % interval is wider than this says nothing either way."""


def number(value: float | None, *, digits: int = 2, signed: bool = False) -> str:
    """Return a number with these decimals and a true minus sign."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def interval(record: Mapping[str, Any], name: str, *, digits: int = 2, signed: bool = False) -> str:
    """Return `estimate (low to high)` of a metric that stands in `record` beside its bounds."""
    value, low, high = record.get(name), record.get(f"{name}_low"), record.get(f"{name}_high")
    if value is None:
        return NOT_ESTIMABLE
    if low is None or high is None:
        return number(value, digits=digits, signed=signed)
    bounds = f"{number(low, digits=digits, signed=signed)} to {number(high, digits=digits, signed=signed)}"
    return f"{number(value, digits=digits, signed=signed)} ({bounds})"


def percent(value: float | None) -> str:
    """Return a fraction as per cent; one decimal below 1 %."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if 0 < value < 0.01 else f"{100 * value:.0f} %"


def percent_interval(record: Mapping[str, Any], name: str) -> str:
    """Return `62 % (55 to 68)` of a proportion that stands in `record` beside its bounds."""
    value, low, high = record.get(name), record.get(f"{name}_low"), record.get(f"{name}_high")
    if value is None:
        return NOT_ESTIMABLE
    return percent(value) if low is None or high is None else f"{percent(value)} ({100 * low:.0f} to {100 * high:.0f})"


def hundredfold_interval(record: Mapping[str, Any], name: str) -> str:
    """Return `interval` of a metric per 100 decisions, with one decimal."""
    keys = (name, f"{name}_low", f"{name}_high")
    return interval({key: None if record.get(key) is None else 100 * record[key] for key in keys}, name, digits=1)


def p_value(value: float | None) -> str:
    """Return a p value as it is printed: two decimals, three below 0.1."""
    if value is None:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def count(value: int | float | None) -> str:
    """Return a whole number with thin spaces between thousands."""
    return "–" if value is None else f"{int(value):,}".replace(",", "\u202f")


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def site_label(site: str) -> str:
    """Return the name of a site as it is printed."""
    return NESTED_LABEL if site == NESTED else site


def rival_label(name: str) -> str:
    """Return a published score or a modality as it is printed."""
    return PUBLISHED[name].label if name in PUBLISHED else name.replace("_", " ")


def sentence(text: str) -> str:
    """Return the text with a capital at its start and a stop at its end."""
    stripped = text.strip()
    return (
        f"{stripped[:1].upper()}{stripped[1:]}{'' if stripped.endswith(('.', '!', '?', ':')) or not stripped else '.'}"
    )


def plural(amount: int, word: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{count(amount)} {word}{'' if amount == 1 else 's'}"


def calibration_verdict(record: Mapping[str, Any]) -> str:
    """Return what intercept and slope say: `agrees`, `too high`, `too extreme`, `too few to judge` and the like.

    A departure counts when its 95 % interval leaves 0 (intercept) or 1 (slope) out. Of a number it is the mean bias that
    tells whether estimates are too high: the intercept of its line lies where the estimate would be 0.
    """
    faults = []
    low, high = record.get("calibration_intercept_low"), record.get("calibration_intercept_high")
    if "mean_bias" in record:
        bias = record.get("mean_bias_low"), record.get("mean_bias_high")
        low, high = (None, None) if bias[0] is None or bias[1] is None else (-bias[1], -bias[0])
    if low is not None and high is not None:
        faults += ["too high"] if high < 0 else ["too low"] if low > 0 else []
    start, stop = record.get("calibration_slope_low"), record.get("calibration_slope_high")
    if start is not None and stop is not None:
        faults += ["too extreme"] if stop < 1 else ["too cautious"] if start > 1 else []
    if faults:
        return " and ".join(faults)
    if None in (low, high, start, stop) or float(stop or 0) - float(start or 0) > WIDE_SLOPE:
        return "too few to judge"
    return "agrees"
