"""Best overall response over the time points of a patient: RECIST 1.1 with or without confirmation, and iRECIST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from theracast_features.imaging.recist import Overall

Immune = Literal["iCR", "iPR", "iSD", "NoniCR/NoniUPD", "iUPD", "iCPD", "NE"]
_RANK: dict[str, int] = {"CR": 4, "PR": 3, "SD": 2, "NonCR/NonPD": 2}


def best_overall_response(
    days: Sequence[float],
    responses: Sequence[Overall],
    *,
    confirmed: bool = False,
    min_stable_days: float = 42.0,
    confirm_days: float = 28.0,
    after_complete: Literal["progression", "partial"] = "progression",
) -> Overall:
    """Return the best overall response up to and including the first progression.

    Without confirmation it is the best response of any time point; stable disease counts only where it was seen at least
    `min_stable_days` after the start. With confirmation, a complete or partial response needs an equal or better one at
    least `confirm_days` later, at the next time point that was evaluable and that late; an unconfirmed one is stable disease
    where it lasted long enough. What is left is progression if it came, or not evaluable.

    Args:
        days: (n,) d since the start of treatment or randomisation, ascending (of `time_points`: since the baseline, which
            may lie up to four weeks before); the baseline itself is not among them.
        responses: (n,) of `time_points`.
        min_stable_days: the protocol's; 6 to 8 weeks in section 4.4.2 of Eisenhauer 2009.
        after_complete: how disease after a claimed complete response is read (footnote of table 3): `progression`, since it
            has come back, or `partial`, since it had never gone and the response was a partial one.

    Source: Eisenhauer EA et al. Eur J Cancer 2009;45:228-247, section 4.4 and table 3.
    """
    seen = _until_progression(list(zip(days, responses, strict=True)), after_complete)
    best: Overall = "NE"
    for place, (day, response) in enumerate(seen):
        counted = response
        if confirmed and response in ("CR", "PR"):
            counted = _confirmed(seen, place, confirm_days)
        if counted in ("SD", "NonCR/NonPD") and day < min_stable_days:
            continue
        if _RANK.get(counted, 0) > _RANK.get(best, 0):
            best = counted
    if best == "NE" and seen and seen[-1][1] == "PD":
        return "PD"
    return best


def best_immune_response(
    days: Sequence[float], responses: Sequence[Immune], *, min_stable_days: float = 42.0
) -> Immune:
    """Return the best response by iRECIST up to confirmed progression.

    Unconfirmed progression does not end the search: a later response counts, unless progression was confirmed before it.

    Source: Seymour L et al. Lancet Oncol 2017;18:e143-e152, table 3 (responses need no confirmation).
    """
    best: Immune = "NE"
    rank = {"iCR": 4, "iPR": 3, "iSD": 2, "NoniCR/NoniUPD": 2, "iCPD": 1, "iUPD": 1}
    for day, response in zip(days, responses, strict=True):
        if response == "iCPD":
            return best if rank.get(best, 0) > 1 else "iCPD"
        if response in ("iSD", "NoniCR/NoniUPD") and day < min_stable_days:
            continue
        if rank.get(response, 0) > rank.get(best, 0):
            best = response
    return best


def _until_progression(
    points: list[tuple[float, Overall]], after_complete: Literal["progression", "partial"]
) -> list[tuple[float, Overall]]:
    """Return the time points up to the first progression; less than complete after complete is read as is said."""
    kept: list[tuple[float, Overall]] = []
    for day, response in points:
        now: Overall = response
        if response in ("PR", "SD") and any(before == "CR" for _, before in kept):
            if after_complete == "progression":
                now = "PD"
            else:
                kept = [(when, "PR" if before == "CR" else before) for when, before in kept]
        kept.append((day, now))
        if now == "PD":
            break
    return kept


def _confirmed(points: list[tuple[float, Overall]], place: int, confirm_days: float) -> Overall:
    """Return what the response at `place` counts as: itself, or stable disease where nothing confirms it."""
    day, response = points[place]
    for later_day, later in points[place + 1 :]:
        if later == "NE":
            continue
        equal = _RANK.get(later, 0) >= _RANK[response]
        if not equal:
            break
        if later_day - day >= confirm_days:
            return response
    return "SD"
