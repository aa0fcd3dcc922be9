"""The drawings of the board sheet, as small SVG texts. Colour is never the only sign: shape and side say the same."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

INK, MUTED, RULE, PALE = "#1a2330", "#5a6572", "#cfd6de", "#eef1f5"
FOR, AGAINST, BAND = "#14589c", "#b8500b", "#a9c6e3"
COURSE_AXIS = 80.0
COURSE_TEXT = 46.0  # pixels that a text over a point of a course needs


def icon_array(filled: int, *, label: str, size: int = 150) -> Markup:
    """Return a hundred dots, `filled` of them solid, read like text from the upper left."""
    step = size / 10
    radius = step * 0.36
    dots = []
    for place in range(100):
        x, y = (place % 10 + 0.5) * step, (place // 10 + 0.5) * step
        paint = f'fill="{FOR}"' if place < filled else f'fill="#fff" stroke="{RULE}" stroke-width="1.4"'
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {paint}/>')
    return picture(size, size, label, dots, kind="icons")


def probability_scale(
    probability: float, low: float, high: float, average: float | None, *, label: str, width: int = 480
) -> Markup:
    """Return a scale from 0 to 100 % with the interval as a band, the patient as a diamond, the cohort as a tick."""
    left, span, y = 14, width - 28, 20

    def x(value: float) -> float:
        return left + span * min(max(value, 0.0), 1.0)

    band = max(x(high) - x(low), 2)
    parts = [
        f'<rect x="{left}" y="{y - 5}" width="{span}" height="10" rx="5" fill="{PALE}"/>',
        f'<rect x="{x(low):.1f}" y="{y - 5}" width="{band:.1f}" height="10" rx="5" fill="{BAND}"/>',
    ]
    for tick in range(0, 101, 20):
        at = x(tick / 100)
        parts.append(
            f'<text x="{at:.1f}" y="{y + 20}" text-anchor="middle" font-size="10" fill="{MUTED}">{tick}</text>'
        )
    if average is not None:
        at = x(average)
        parts.append(
            f'<path d="M{at:.1f} {y - 11}V{y + 8}" stroke="{INK}" stroke-width="2" stroke-dasharray="3 2" fill="none"/>'
        )
    at = x(probability)
    parts.append(f'<path d="M{at:.1f} {y - 9}l8 9l-8 9l-8 -9z" fill="{FOR}" stroke="#fff" stroke-width="1.5"/>')
    return picture(width, 46, label, parts, kind="scale")


def diverging_bar(value: float, largest: float, *, label: str, width: int = 150) -> Markup:
    """Return one bar from a middle line: to the right and blue for, to the left, orange and striped against."""
    middle, reach = width / 2, width / 2 - 3
    length = reach * min(abs(value) / largest, 1.0) if largest > 0 else 0.0
    parts = [f'<path d="M{middle} 0V16" stroke="{MUTED}" stroke-width="1"/>']
    if length > 0:
        start, colour = (middle, FOR) if value > 0 else (middle - length, AGAINST)
        parts.append(f'<rect x="{start:.1f}" y="3" width="{max(length, 0.8):.1f}" height="10" fill="{colour}"/>')
        if value < 0:
            marks = range(int(start) + 4, int(middle), 5)
            stripes = "".join(f"M{at} 13l3 -10" for at in marks if at + 3 < middle)
            if stripes:
                parts.append(f'<path d="{stripes}" stroke="#fff" stroke-width="1" fill="none"/>')
    return picture(width, 16, label, parts, kind="bar")


def range_strip(
    value: float | None, quantiles: tuple[float, float, float], texts: tuple[str, str], *, label: str, width: int = 190
) -> Markup:
    """Return the cohort's range (5 to 95 %) with its median, and the patient as a diamond, beyond its ends an arrow."""
    low, median, high = quantiles
    left, span = 46.0, width - 92.0
    pad = 9.0

    def x(at: float) -> float:
        return left + span * ((at - low) / (high - low) if high > low else 0.5)

    parts = [
        f'<text x="{left - pad - 4}" y="12" text-anchor="end" font-size="10" fill="{MUTED}">{escape(texts[0])}</text>',
        f'<text x="{left + span + pad + 4}" y="12" font-size="10" fill="{MUTED}">{escape(texts[1])}</text>',
        f'<path d="M{left} 8H{left + span}M{left} 5v6M{left + span} 5v6" stroke="{MUTED}" stroke-width="1.2"/>',
        f'<path d="M{x(median):.1f} 4v8" stroke="{INK}" stroke-width="1.6"/>',
    ]
    if value is not None:
        if value < low:
            parts.append(f'<path d="M{left - pad} 8l7 -4.5v9z" fill="{INK}"/>')
        elif value > high:
            parts.append(f'<path d="M{left + span + pad} 8l-7 -4.5v9z" fill="{INK}"/>')
        else:
            parts.append(f'<path d="M{x(value):.1f} 3l5 5l-5 5l-5 -5z" fill="{INK}" stroke="#fff" stroke-width="1"/>')
    return picture(width, 16, label, parts, kind="strip")


def share_strip(share: float, text: str, *, label: str, width: int = 190) -> Markup:
    """Return how common the patient's category is in the cohort, as a small bar with its percentage."""
    left, span = 46.0, width - 92.0
    parts = [
        f'<rect x="{left}" y="5" width="{span}" height="6" rx="3" fill="{PALE}" stroke="{RULE}" stroke-width="0.8"/>',
        f'<rect x="{left}" y="5" width="{span * min(max(share, 0.0), 1.0):.1f}" height="6" rx="3" fill="{MUTED}"/>',
        f'<text x="{left + span + 6}" y="12" font-size="10" fill="{MUTED}">{escape(text)}</text>',
    ]
    return picture(width, 16, label, parts, kind="share")


def interval_dot(value: float | None, low: float | None, high: float | None, *, label: str, width: int = 110) -> Markup:
    """Return an AUC on the scale of `auc_axis` with its interval; what reaches below 0.4 ends at the edge."""
    left, span = 4.0, width - 8.0

    def x(at: float) -> float:
        return _auc_place(at, width)

    chance = x(0.5)
    parts = [
        f'<path d="M{left} 8H{left + span}" stroke="{RULE}" stroke-width="1"/>',
        f'<path d="M{chance:.1f} 2v12" stroke="{MUTED}" stroke-width="1" stroke-dasharray="2 2"/>',
    ]
    if low is not None and high is not None:
        parts.append(f'<path d="M{x(low):.1f} 8H{x(high):.1f}" stroke="{FOR}" stroke-width="3"/>')
    if value is not None:
        parts.append(f'<circle cx="{x(value):.1f}" cy="8" r="4.2" fill="{FOR}" stroke="#fff" stroke-width="1.2"/>')
    return picture(width, 16, label, parts, kind="interval")


def auc_axis(*, width: int = 110) -> Markup:
    """Return the heading of a column of `interval_dot`: where chance and perfection lie."""
    chance = _auc_place(0.5, width)
    parts = [
        f'<text x="{chance:.1f}" y="11" text-anchor="middle" font-size="10.5" fill="{MUTED}">chance</text>',
        f'<text x="{width - 1}" y="11" text-anchor="end" font-size="10.5" fill="{MUTED}">perfect</text>',
    ]
    return picture(width, 14, "AUC from chance (0.5) to perfect (1)", parts, kind="axis")


def course_panel(
    points: Sequence[tuple[float, float]],
    *,
    label: str,
    days: tuple[float, float],
    texts: Sequence[str],
    intervals: Sequence[tuple[float, float]] = (),
    ends: tuple[float, float] | None = None,
    end_texts: tuple[str, str] | None = None,
    width: int = 216,
) -> Markup:
    """Return a line through its points, the last one filled, with a text where there is room for it.

    Args:
        points: (day, value), oldest first.
        days: first and last day of the axis.
        texts: what stands at each point.
        intervals: low and high of each point, drawn as a bar.
        ends: lowest and highest value of the axis; by default those of the points.
        end_texts: what stands at the ends.
    """
    left, right, top, bottom = (30.0 if end_texts else 16.0), width - 16.0, 20.0, 62.0
    low, high = ends or (min(value for _, value in points), max(value for _, value in points))

    def at(day: float, value: float) -> tuple[float, float]:
        across = (day - days[0]) / (days[1] - days[0]) if days[1] > days[0] else 0.5
        up = (value - low) / (high - low) if high > low else 0.5
        return left + (right - left) * across, bottom - (bottom - top) * min(max(up, 0.0), 1.0)

    places = [at(day, value) for day, value in points]
    parts = [f'<path d="M{left} {COURSE_AXIS}H{right}" stroke="{MUTED}" stroke-width="1"/>']
    for text, y in zip(end_texts or (), (bottom, top), strict=False):
        parts.append(f'<path d="M{left} {y}H{right}" stroke="{RULE}" stroke-width="1" stroke-dasharray="2 3"/>')
        parts.append(text_at(left - 4, y + 3, text, anchor="end", size=9.5, colour=MUTED))
    for (x, _), (lower, upper) in zip(places, intervals, strict=False):
        y_low, y_high = at(days[0], lower)[1], at(days[0], upper)[1]
        parts.append(f'<path d="M{x:.1f} {y_low:.1f}V{y_high:.1f}" stroke="{BAND}" stroke-width="7"/>')
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts.append(f'<path d="M{line}" fill="none" stroke="{FOR}" stroke-width="1.6"/>')
    last = len(places) - 1
    for number, (x, y) in enumerate(places):
        size, fill = (4.2, FOR) if number == last else (3.0, "#fff")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{fill}" stroke="{FOR}"/>')
    for number in _with_text([x for x, _ in places]):
        x, y = places[number]
        beside = [places[other][1] for other in (number - 1, number + 1) if 0 <= other <= last]
        reach = [at(days[0], end)[1] for end in intervals[number]] if intervals else [y]
        valley = bool(beside) and all(other < y for other in beside)
        height = max(reach) + 12 if valley else min(reach) - 7
        anchor = "end" if x > right - 12 else "start" if x < left + 12 else "middle"
        edge = {"end": x + 8, "start": x - 8, "middle": x}[anchor]
        parts.append(text_at(edge, height, texts[number], anchor=anchor, size=10.5, colour=INK))
        day = f"{points[number][0]:.0f}".replace("-", "−")
        parts.append(text_at(edge, COURSE_AXIS + 11, f"day {day}", anchor=anchor, size=9.5, colour=MUTED))
    return picture(width, COURSE_AXIS + 14, label, parts, kind="course")


def _with_text(places: Sequence[float]) -> list[int]:
    """Return which points get a text: the last, and from the left each that is far enough from the one before and from it."""
    chosen: list[int] = []
    for number, x in enumerate(places[:-1]):
        if places[-1] - x > COURSE_TEXT and (not chosen or x - places[chosen[-1]] > COURSE_TEXT):
            chosen.append(number)
    return [*chosen, len(places) - 1]


def text_at(x: float, y: float, text: str, *, anchor: str, size: float, colour: str) -> str:
    """Return a text at a point."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _auc_place(auc: float, width: int) -> float:
    return 4.0 + (width - 8.0) * min(max((auc - 0.4) / 0.6, 0.0), 1.0)


def picture(width: float, height: float, label: str, parts: Sequence[str], *, kind: str) -> Markup:
    """Return a drawing that says in words what it shows."""
    body = "".join(parts)
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title>{body}</svg>'
    )
