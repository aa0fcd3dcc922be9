"""The drawings of answers that are more than yes or no: a survival curve, a bar of levels, a number on its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from theracast_serving.clinical_text import hundredth, number_text
from theracast_serving.sheet_svg import BAND, FOR, INK, MUTED, PALE, RULE, picture, text_at

Floats = NDArray[np.float64]
SHADES = ("#dfe4ea", "#b9cbdd", "#7fa6cd", "#14589c")
WIDE_TEXT = 30.0  # pixels that a share needs to stand in its part of a bar


@dataclass(frozen=True)
class Curve:
    """Shares without the event over time; `days` and each line have one length, marks are (day, share, low, high)."""

    days: Sequence[float]
    patient: Sequence[float]
    average: Sequence[float] = ()
    marks: Sequence[tuple[float, float, float, float]] = ()


def survival_panel(
    curve: Curve, *, label: str, heading: str = "", width: int = 236, height: int = 156, small: bool = False
) -> Markup:
    """Return the patient's curve, that of the average patient dashed, and the answers at the horizons with intervals."""
    top = 18.0 if heading else 8.0
    left, right, bottom = 30.0, width - 10.0, height - (16.0 if small else 28.0)
    end = max(curve.days[-1], 1e-9)

    def at(day: float, share: float) -> tuple[float, float]:
        return left + (right - left) * day / end, bottom - (bottom - top) * min(max(share, 0.0), 1.0)

    parts = [text_at(left, 9, heading, anchor="start", size=9.5, colour=MUTED)] if heading else []
    for share in (0.0, 0.5, 1.0):
        y = at(0, share)[1]
        paint = f'stroke="{MUTED if share == 0 else RULE}" stroke-width="1"'
        parts.append(f'<path d="M{left} {y:.1f}H{right}" {paint}/>')
        parts.append(text_at(left - 4, y + 3.5, f"{100 * share:.0f}", anchor="end", size=9.5, colour=MUTED))
    ticks, unit = time_ticks(end)
    for day, text in ticks:
        x = at(day, 0)[0]
        parts.append(f'<path d="M{x:.1f} {bottom}v3" stroke="{MUTED}" stroke-width="1"/>')
        parts.append(text_at(x, bottom + 12, text, anchor="middle", size=9.5, colour=MUTED))
    if not small:
        parts.append(text_at((left + right) / 2, bottom + 24, unit, anchor="middle", size=9.5, colour=MUTED))
    for day, _, low, high in curve.marks:
        x, y_low, y_high = at(day, 0)[0], at(day, low)[1], at(day, high)[1]
        parts.append(f'<path d="M{x:.1f} {y_low:.1f}V{y_high:.1f}" stroke="{BAND}" stroke-width="7"/>')
    if len(curve.average):
        line = _line([at(*point) for point in zip(curve.days, curve.average, strict=True)])
        parts.append(f'<path d="{line}" fill="none" stroke="{INK}" stroke-width="1.4" stroke-dasharray="4 3"/>')
    line = _line([at(*point) for point in zip(curve.days, curve.patient, strict=True)])
    parts.append(f'<path d="{line}" fill="none" stroke="{FOR}" stroke-width="2"/>')
    for day, share, _, _ in curve.marks:
        x, y = at(day, share)
        parts.append(f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="{FOR}" stroke="#fff" stroke-width="1"/>')
    return picture(width, height, label, parts, kind="curve")


def level_bar(names: Sequence[str], shares: Sequence[float], *, label: str, width: int = 480) -> Markup:
    """Return one bar of all levels, worst to the left and palest, each with its share where there is room."""
    parts, x = [], 0.0
    for place, share in enumerate(shares):
        size = width * share
        shade = level_shade(place, len(names))
        parts.append(
            f'<rect x="{x:.1f}" y="0" width="{size:.1f}" height="16" fill="{shade}" stroke="#fff" stroke-width="1"/>'
        )
        if size >= WIDE_TEXT:
            colour = "#fff" if place >= len(names) * 0.7 else INK
            parts.append(text_at(x + size / 2, 12, f"{hundredth(share)} %", anchor="middle", size=10.5, colour=colour))
        x += size
    return picture(width, 16, label, parts, kind="levels")


def level_shade(place: int, count: int) -> str:
    """Return the colour of a level, counted from the worst."""
    return SHADES[round(place * (len(SHADES) - 1) / max(count - 1, 1))]


def number_scale(
    value: float, low: float, high: float, average: float | None, ends: tuple[float, float], *, label: str, width: int
) -> Markup:
    """Return a scale between two ends with the interval as a band, the patient as a diamond, the average as a tick."""
    left, span, y = 14.0, width - 28.0, 20.0

    def x(at: float) -> float:
        return left + span * min(max((at - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)

    band = max(x(high) - x(low), 2)
    parts = [
        f'<rect x="{left}" y="{y - 5}" width="{span}" height="10" rx="5" fill="{PALE}"/>',
        f'<rect x="{x(low):.1f}" y="{y - 5}" width="{band:.1f}" height="10" rx="5" fill="{BAND}"/>',
    ]
    step = nice_step(ends[1] - ends[0], most=6)
    for tick in np.arange(math.ceil(ends[0] / step), math.floor(ends[1] / step) + 1) * step:
        at = x(float(tick))
        text = number_text(float(f"{tick:.6g}"))
        parts.append(text_at(at, y + 20, text, anchor="middle", size=10, colour=MUTED))
    if average is not None:
        at = x(average)
        parts.append(
            f'<path d="M{at:.1f} {y - 11}V{y + 8}" stroke="{INK}" stroke-width="2" stroke-dasharray="3 2" fill="none"/>'
        )
    at = x(value)
    parts.append(f'<path d="M{at:.1f} {y - 9}l8 9l-8 9l-8 -9z" fill="{FOR}" stroke="#fff" stroke-width="1.5"/>')
    return picture(width, 46, label, parts, kind="scale")


def time_ticks(end: float) -> tuple[list[tuple[float, str]], str]:
    """Return at most six ticks (day, text) up to the last day, and the unit of the texts."""
    unit, length = ("days", 1.0) if end <= 28 else ("weeks", 7.0) if end <= 120 else ("months", 30.4375)
    step = max(1.0, nice_step(end / length, most=6, months=unit == "months"))
    count = math.floor(end / length / step + 1e-9)
    return [(place * step * length, f"{place * step:g}") for place in range(count + 1)], unit


def nice_step(span: float, *, most: int, months: bool = False) -> float:
    """Return a round step that divides a span into at most `most` parts; of months 3, 6, 12 and so on."""
    if months:
        return next((step for step in (1.0, 2.0, 3.0, 6.0, 12.0, 24.0) if span / step <= most), 60.0)
    power = 10.0 ** math.floor(math.log10(max(span, 1e-12) / most))
    return next(size * power for size in (1.0, 2.0, 5.0, 10.0, 20.0) if span / (size * power) <= most)


def _line(places: Sequence[tuple[float, float]]) -> str:
    return str(escape("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)))
