"""What stands on the board sheet, and how much of it, in which size, so that it stays one page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from markupsafe import Markup

from theracast_serving.performance import SitePerformance

WARNINGS_SHOWN = 4
PERFORMANCE_ROWS = 5
NORMAL_HOLDS = 550
ROOMY_HOLDS = 400


@dataclass(frozen=True)
class Driver:
    """One line of `what speaks for and against`: a feature, its value among the cohort's, and its weight here."""

    label: str
    group: str
    value: str
    unit: str
    measured: bool
    strip: Markup
    bar: Markup
    points: str
    direction: str


@dataclass(frozen=True)
class Group:
    """What one kind of data contributes."""

    label: str
    bar: Markup
    points: str
    direction: str


@dataclass(frozen=True)
class Panel:
    """One picture of the course: its heading and its drawing."""

    heading: str
    drawing: Markup


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
    verb: str
    count: str
    range: str
    percent: str
    average: str | None
    average_text: str | None
    icons: Markup
    scale: Markup
    start: str
    drivers: list[Driver]
    rest: Driver | None
    groups: list[Group]
    missing: list[str]
    missing_more: int
    measured_count: int
    input_count: int
    warnings: list[str]
    performance: list[SitePerformance]
    auc_axis: Markup
    performance_note: str
    limits: list[str]
    identity: list[tuple[str, str]]
    course: list[Panel] = field(default_factory=list)
    setting: str = ""
    warnings_more: int = 0
    performance_more: int = 0


def fitted(content: SheetContent) -> SheetContent:
    """Return the content as it goes on one page: larger where there is room, tighter and shorter where there is not."""
    height = _height(content)
    setting = "dense" if height > NORMAL_HOLDS else "roomy" if height <= ROOMY_HOLDS else ""
    warnings = WARNINGS_SHOWN - (setting == "dense")
    performance = PERFORMANCE_ROWS - (setting == "dense")
    return replace(
        content,
        setting=setting,
        warnings=content.warnings[:warnings],
        warnings_more=max(0, len(content.warnings) - warnings),
        performance=content.performance[:performance],
        performance_more=max(0, len(content.performance) - performance),
    )


def _height(content: SheetContent) -> int:
    """Return about how many pixels the parts of changing size take in the normal setting (measured in Chromium)."""
    headline = f"{content.count} {content.verb} {content.range}"
    header = 25 * (len(content.title) > 45) + 18 * (len(content.question) > 75) + 24 * (len(content.patient) > 18)
    header += 28 * (len(headline) > 24)
    drivers = sum(25 + 6 * (len(driver.label) > 21) for driver in content.drivers)
    remarks = [18 * min(2, 1 + len(text) // 60) + 3 for text in content.warnings[:WARNINGS_SHOWN]]
    missing = sum(remarks) + 36 * bool(content.missing) + 18 * (len(content.warnings) > WARNINGS_SHOWN)
    tested = sum(24 + 7 * (len(line.site) > 16) for line in content.performance[:PERFORMANCE_ROWS])
    return header + drivers + 135 * bool(content.course) + max(24 * len(content.groups), missing) + tested
