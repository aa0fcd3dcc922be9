"""Which features are made from events: the `features.events` section of a study file."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from theracast_data.section import Section

Aggregate = Literal[
    "last", "first", "min", "max", "mean", "std", "slope", "count", "since_last", "outside", "exists",
    "change", "relative_change", "change_per_day", "interval",
]  # fmt: skip


class EventFeatures(Section):
    """Aggregates of one concept over windows that end at the decision.

    A window `30d` sees `index_time - 30 d < time <= index_time` and only what was available by then; `all` has no start.
    `change` is the last value less the first, `relative_change` that by the first (missing unless the first is above 0),
    `change_per_day` by the days between them, which are `interval`. One moment alone has no change.
    """

    concept: str = Field(description="Name of a concept of the study.")
    windows: tuple[str, ...] = Field(("all",), min_length=1, description="e.g. [7d, 30d, 180d, all]; also h, w, y.")
    aggregates: tuple[Aggregate, ...] = Field(("last",), min_length=1, description="slope: per day; outside: fraction.")
    transform: Literal["none", "log1p"] = "none"

    @field_validator("windows")
    @classmethod
    def _check_windows(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        return check_windows(windows)


_UNITS = {"h": 3_600, "d": 86_400, "w": 604_800, "y": 31_557_600}


def window_microseconds(window: str) -> int | None:
    """Return the length of a window in microseconds, None for `all`."""
    if window == "all":
        return None
    found = re.fullmatch(r"(\d+)([hdwy])", window)
    if found is None:
        raise ValueError(f"a window is `all` or a number with h, d, w or y, e.g. 30d (found {window!r})")
    return int(found[1]) * _UNITS[found[2]] * 1_000_000


def check_windows(windows: tuple[str, ...]) -> tuple[str, ...]:
    """Return the windows if each can be read. Raises ValueError otherwise."""
    for window in windows:
        window_microseconds(window)
    return windows
