"""What changed between two decisions about one patient, and why: exact differences of the contributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.decisions.section import LANDMARK
from theracast_features.specs import FeatureSpec
from theracast_serving.answer_text import Told, share_text
from theracast_serving.clinical_text import number_text, unit_text

REASONS = 3
LARGE = 0.2
"""Relative change from which it is told in per cent."""


@dataclass(frozen=True)
class Change:
    """The answer for one endpoint at an earlier decision and now.

    Attributes:
        from_day, day: days since the treatment began.
        before, now: the leading answer then and now.
        base: by how much the answer before any feature speaks moved, on the scale of the answer.
        contributions: by how much each feature's contribution moved: with `base` they add up to the move of the answer
            on its scale (with a competing event, of the log-hazard of this one).
        values: features whose value moved, `{"before", "now", "unit"}` and for numbers `change`; None is not measured.
        sentence: what a doctor reads.
    """

    from_day: float
    day: float
    before: float
    now: float
    base: float
    contributions: dict[str, float]
    values: dict[str, dict[str, Any]]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain JSON values."""
        return dict(vars(self))


def change_between(then: Told, now: Told, *, from_day: float, day: float) -> Change:
    """Return what changed from an earlier answer to the present one for the same endpoint."""
    phi = _phi(now) - _phi(then)
    names = [str(name) for name in now.answer.contributions.columns]
    cells = {
        spec.name: (then.features.frame[spec.name].iloc[then.row], now.features.frame[spec.name].iloc[now.row])
        for spec in now.features.catalogue
    }
    moved = {spec.name: _moved(spec, *cells[spec.name]) for spec in now.features.catalogue}
    return Change(
        from_day=from_day,
        day=day,
        before=then.estimate,
        now=now.estimate,
        base=float(now.answer.base[now.row] - then.answer.base[then.row]),
        contributions=dict(zip(names, map(float, phi), strict=True)),
        values={name: value for name, value in moved.items() if value is not None},
        sentence=_sentence(then, now, phi, now.features.catalogue, moved, days=(from_day, day)),
    )


def _phi(told: Told) -> NDArray[np.float64]:
    found: NDArray[np.float64] = told.answer.contributions.iloc[told.row].to_numpy(dtype=np.float64)
    return found


def _moved(spec: FeatureSpec, before: Any, now: Any) -> dict[str, Any] | None:
    """Return a feature's value then and now, None where it is the same."""
    old, new = _plain(spec, before), _plain(spec, now)
    if old == new:
        return None
    moved = {"before": old, "now": new, "unit": spec.unit}
    return moved | {"change": new - old} if isinstance(old, float) and isinstance(new, float) else moved


def _plain(spec: FeatureSpec, cell: Any) -> str | float | None:
    if pd.isna(cell):
        return None
    return str(cell) if spec.kind == "categorical" else float(cell)


def _sentence(
    then: Told,
    now: Told,
    phi: NDArray[np.float64],
    catalogue: tuple[FeatureSpec, ...],
    moved: Mapping[str, dict[str, Any] | None],
    *,
    days: tuple[float, float],
) -> str:
    """Return both answers and the features that moved it most, those of its own direction first."""
    opening = f"From {day_text(days[0])} to {day_text(days[1])}"
    what = now.label_of_answer
    before, after = (one.number(one.estimate) if one.is_number else share_text(one.estimate) for one in (then, now))
    unit = f" {now.unit}" if now.is_number and now.unit else ""
    if before == after:
        return f"{opening} {what} stayed at {after}{unit}."
    up = now.estimate > then.estimate
    reasons: list[str] = []
    against: list[str] = []
    for spec, effect in _together(phi, catalogue, moved):
        told = now.effect_text(effect)
        if told != "±0":
            clause = f"{_clause(spec, moved[spec.name])} ({told}{unit or ' points'})"
            (reasons if (effect > 0) == up else against).append(clause)
    because = f", mostly because: {', '.join(reasons[:REASONS])}" if reasons else ", by many small changes"
    opposed = f"; against it: {against[0]}" if against else ""
    return f"{opening} {what} {'rose' if up else 'fell'} from {before} to {after}{unit}{because}{opposed}."


def _together(
    phi: NDArray[np.float64], catalogue: tuple[FeatureSpec, ...], moved: Mapping[str, dict[str, Any] | None]
) -> list[tuple[FeatureSpec, float]]:
    """Return the moves, the largest first; features of one column that say the same (of two windows) are one."""
    joined: dict[tuple[Any, ...], tuple[FeatureSpec, float]] = {}
    for spec, own in zip(catalogue, phi, strict=True):
        values = moved[spec.name]
        key = (spec.name,) if values is None else (spec.columns, values["before"], values["now"])
        first, so_far = joined.get(key, (spec, 0.0))
        joined[key] = (first, so_far + float(own))
    return sorted(joined.values(), key=lambda one: -abs(one[1]))


def _clause(spec: FeatureSpec, moved: dict[str, Any] | None) -> str:
    """Return in words how a feature moved."""
    if moved is None:
        return f"{spec.label}, unchanged, weighs otherwise beside the rest"
    before, now, unit = moved["before"], moved["now"], unit_text(spec.unit)
    after = f" {unit}" if unit else ""
    if LANDMARK in spec.columns and isinstance(now, float):
        return f"it is {day_text(now)}"
    if now is None:
        return f"{spec.label} is no longer known"
    if before is None:
        return f"{spec.label} is now known ({_value(spec, now)}{after})"
    if not isinstance(before, float) or spec.kind != "numeric" or spec.role == "indicator":
        return f"{spec.label}: {_value(spec, before)} became {_value(spec, now)}"
    verb = "rose" if now > before else "fell"
    share = now / before - 1 if before > 0 and now > 0 else math.inf
    by = f" by {abs(share):.0%}".replace("%", " %") if LARGE <= abs(share) < 10 else ""
    return f"{spec.label} {verb}{by} from {number_text(before)} to {number_text(now)}{after}"


def _value(spec: FeatureSpec, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if spec.kind == "boolean" or spec.role == "indicator":
        return "yes" if value else "no"
    return number_text(value)


def day_text(day: float) -> str:
    """Return a day since the start as it is spoken of: `the start`, `week 6`, `day 50`."""
    whole = round(day)
    if whole == 0:
        return "the start"
    return f"week {whole // 7}" if whole % 7 == 0 and whole > 7 else f"day {whole}"
