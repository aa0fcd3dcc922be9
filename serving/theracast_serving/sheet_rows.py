"""Lines and pictures of which the sheet is made."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


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
