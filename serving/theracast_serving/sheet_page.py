"""What stands on the board sheet, and how much of it, in which size, so that it stays one page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from theracast_serving.answer_text import Headings
from theracast_serving.performance import SitePerformance
from theracast_serving.sheet_further import FurtherLine
from theracast_serving.sheet_headline import Headline
from theracast_serving.sheet_panels import Trust
from theracast_serving.sheet_rows import Driver, Group, Panel

LINE_SIGNS = 105
"""Signs that a line of the whole width holds."""


CELL_SIGNS = 29
"""Signs that a line of an answer among the further endpoints holds."""


@dataclass(frozen=True)
class Budget:
    """A way to lay the sheet out.

    Attributes:
        setting: class of the page.
        drivers, warnings, performance, further: most lines of each.
        holds: height of the parts of changing size, in pixels of the normal setting, that it can hold.
    """

    setting: str
    drivers: int
    warnings: int
    performance: int
    holds: float


BUDGETS = (
    Budget("roomy", 8, 4, 5, 400),
    Budget("", 8, 4, 5, 485),
    Budget("dense", 8, 3, 4, 640),
    Budget("dense", 6, 3, 3, 640),
    Budget("dense tight", 6, 3, 3, 815),
    Budget("dense tight", 5, 2, 2, 815),
    Budget("dense tight", 4, 2, 1, math.inf),
)
FIXED, GROWS = 490.0, 0.78
"""Pixels that the tightest setting takes for all else, and for each pixel of the parts of changing size."""
PAGE = 1105.0


@dataclass(frozen=True)
class SheetContent:
    """All that stands on the sheet, as text and drawings."""

    title: str
    question: str
    patient: str
    treatment: str | None
    site: str | None
    index_day: str | None
    as_of: str
    headline: Headline | None
    refused: str | None
    start: str
    end: str
    headings: Headings
    drivers: list[Driver]
    rest: Driver | None
    groups: list[Group]
    missing: list[str]
    missing_more: int
    measured_count: int
    input_count: int
    warnings: list[str]
    performance: list[SitePerformance]
    performance_heads: tuple[str, str, str]
    auc_axis: Markup
    performance_note: str
    limits: list[str]
    identity: list[tuple[str, str]]
    further: list[FurtherLine] = field(default_factory=list)
    trust: list[Trust] = field(default_factory=list)
    course: list[Panel] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    setting: str = ""
    zoom: float = 1.0
    warnings_more: int = 0
    performance_more: int = 0


def within(content: SheetContent, budget: Budget) -> SheetContent | None:
    """Return the content as it goes on one page in this way; None where it does not fit."""
    cut = replace(
        content,
        setting=budget.setting,
        warnings=content.warnings[: budget.warnings],
        warnings_more=max(0, len(content.warnings) - budget.warnings),
        performance=content.performance[: budget.performance],
        performance_more=max(0, len(content.performance) - budget.performance),
    )
    height = height_of(cut)
    if height > budget.holds:
        return None
    return replace(cut, zoom=min(1.0, PAGE / (FIXED + GROWS * height))) if budget is BUDGETS[-1] else cut


def height_of(content: SheetContent) -> float:
    """Return about how many pixels the parts of changing size take in the normal setting (measured in Chromium)."""
    drivers = sum(25 + 6 * (len(driver.label) > 21) for driver in content.drivers)
    remarks = [18 * min(2, 1 + len(text) // 60) + 3 for text in content.warnings]
    missing = sum(remarks) + 36 * bool(content.missing) + 18 * bool(content.warnings_more)
    tested = sum(24 + 7 * (len(line.site) > 16) for line in content.performance)
    course = 140 * bool(content.course) + sum(_lines(text, signs=96) + 6 for text in content.changes)
    answer = -60 if content.headline is None else _headline_height(content.headline)
    parts = drivers + max(24 * len(content.groups), missing) + tested + course + answer
    return parts + _header_height(content) + _further_height(content) + _trust_height(content)


def _lines(text: str, *, signs: int = LINE_SIGNS) -> float:
    return 18.0 * math.ceil(len(text) / signs)


def _header_height(content: SheetContent) -> float:
    return 25 * (len(content.title) > 45) + 18 * (len(content.question) > 75) + 24 * (len(content.patient) > 18)


def _headline_height(told: Headline) -> float:
    sentence = 28 * (len(f"{told.strong} {told.closing} {told.range}") > (16 if told.picture_width > 150 else 24))
    beside = sum(_lines(text, signs=LINE_SIGNS * (688 - told.picture_width) // 688) for text in told.compare)
    return sentence + max(0.0, beside - 18) + 38 * bool(told.levels)


def _further_height(content: SheetContent) -> float:
    def lines(line: FurtherLine) -> float:
        told = line.answers or [line.refused or ""]
        return max(2.0, sum(math.ceil(len(text) / CELL_SIGNS) for text in told))

    return (50.0 if content.further else 0.0) + sum(17.0 * lines(line) + 6 for line in content.further)


def _trust_height(content: SheetContent) -> float:
    heights = [max(_lines(one.text, signs=88), 62.0 if one.drawing else 0.0) + 4 for one in content.trust]
    return (38.0 if content.trust else 0.0) + sum(heights)
