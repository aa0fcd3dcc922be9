"""Endpoints from the events after a decision, in the format of `Cohort.endpoints`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.decisions.section import (
    BestResponse,
    EventEndpoints,
    EventSelector,
    FirstEvent,
    NextLine,
)
from theracast_data.decisions.selection import Selection, matching, treatment_names
from theracast_data.decisions.windows import (
    DAY,
    UNDATED,
    Booleans,
    Integers,
    Window,
    event_arrays,
    pairs_in_window,
    parse_duration,
    parse_window,
    subject_positions,
)
from theracast_data.endpoint_values import event_within
from theracast_data.errors import SchemaError, StudyError
from theracast_data.events.concepts import Concept

NEVER = np.iinfo(np.int64).max
AFTER = Window(0, None, closed_start=False, closed_end=False)
NOT_EVALUABLE = "NE"

Floats = npt.NDArray[np.float64]


def derive_event_endpoints(
    events: pa.Table | pd.DataFrame,
    decisions: pd.DataFrame,
    section: EventEndpoints,
    *,
    concepts: Mapping[str, Concept] | None = None,
) -> pd.DataFrame:
    """Return the endpoints of these decisions, (n, ...), in their order, with the columns of `Cohort.endpoints`.

    `first_event` gives NAME.time (days) and NAME.event (0/1, 2 a competing one) and, with a horizon, NAME;
    `best_response` gives NAME as 0/1 or, without `positive`, as the position of the best level, 0 = worst. NaN where not
    known.

    Args:
        events: all events of the patients, in any order.
        decisions: `subject_id`, `index_time` and `treatment`.
        concepts: concepts of the study by name.

    Raises:
        SchemaError: the events are not as the event schema says.
        StudyError: a concept is not declared.
    """
    selection = Selection(event_arrays(events), concepts or {})
    asked = _Asked(
        subject=subject_positions(selection.arrays, decisions["subject_id"].to_numpy()),
        index=decisions["index_time"].to_numpy().astype("datetime64[us]").astype(np.int64),
        treatment=decisions["treatment"].to_numpy(dtype=object),
    )
    columns: dict[str, Floats] = {}
    for endpoint in section.endpoints:
        if isinstance(endpoint, FirstEvent):
            columns |= _first_event(selection, endpoint, asked)
        else:
            columns[endpoint.name] = _best_response(selection, endpoint, asked)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(decisions)), dtype=np.float64)


class _Asked:
    """n decisions: patient (-1 without events), index time in microseconds, treatment."""

    def __init__(self, *, subject: Integers, index: Integers, treatment: npt.NDArray[np.object_]) -> None:
        self.subject, self.index, self.treatment = subject, index, treatment

    def pairs(self, selection: Selection, chosen: Booleans, window: Window) -> tuple[Integers, Integers]:
        """Return (decision, event) for the chosen events inside the window."""
        arrays = selection.arrays
        at = np.flatnonzero(chosen & (arrays.time != UNDATED))
        decision, event = pairs_in_window(self.subject, self.index, arrays.subject[at], arrays.time[at], window)
        return decision, at[event]

    def earliest(self, decision: Integers, times: Integers) -> Integers:
        """Return the earliest of the times of each decision, `NEVER` where it has none."""
        found = np.full(len(self.index), NEVER)
        np.minimum.at(found, decision, times)
        return found


def _first_event(selection: Selection, endpoint: FirstEvent, asked: _Asked) -> dict[str, Floats]:
    arrays = selection.arrays
    outcome = np.full(len(asked.index), NEVER)
    for wanted in endpoint.events:
        found = (
            _next_line(selection, wanted, asked, endpoint.name)
            if isinstance(wanted, NextLine)
            else _first_after(selection, wanted, asked, on_index_day=wanted.on_index_day)
        )
        outcome = np.minimum(outcome, found)
    contact = arrays.time != UNDATED
    if endpoint.last_contact is not None:
        contact &= selection.of(endpoint.last_contact)
    last = np.full(len(arrays.subjects) + 1, UNDATED)  # one more: decisions without events
    np.maximum.at(last, arrays.subject[contact], arrays.time[contact])
    end = np.maximum(last[asked.subject], asked.index)
    rival = np.full(len(asked.index), NEVER)
    for competing in endpoint.competing:
        rival = np.minimum(rival, _first_after(selection, competing, asked, on_index_day=True))
    outcome = np.where(outcome > rival, NEVER, outcome)
    rival = np.where(outcome != NEVER, NEVER, rival)
    if endpoint.ends_follow_up is not None:
        over = _first_after(selection, endpoint.ends_follow_up, asked, on_index_day=True)
        outcome, rival = (np.where(one > over, NEVER, one) for one in (outcome, rival))
        end = np.where(over == NEVER, end, over)
    code = np.where(outcome != NEVER, 1.0, np.where(rival != NEVER, 2.0, 0.0))
    time = (np.where(code > 0, np.minimum(outcome, rival), end) - asked.index) / DAY
    columns = {f"{endpoint.name}.time": time, f"{endpoint.name}.event": code}
    if endpoint.horizon is None:
        return columns
    within = event_within(time, columns[f"{endpoint.name}.event"], parse_duration(endpoint.horizon) / DAY)
    return {endpoint.name: 1.0 - within if endpoint.positive == "event_free" else within} | columns


def _first_after(selection: Selection, wanted: EventSelector, asked: _Asked, *, on_index_day: bool) -> Integers:
    """Return the first of these events after each index time, microseconds; `NEVER` where there is none."""
    window = Window(-DAY, None, closed_start=True, closed_end=False) if on_index_day else AFTER
    decision, event = asked.pairs(selection, selection.of(wanted), window)
    time, index = selection.arrays.time[event], asked.index[decision]
    after = time > index
    if on_index_day:
        after |= selection.arrays.date_only[event] & (time == index // DAY * DAY)
    return asked.earliest(decision[after], np.maximum(time, index)[after])


def _next_line(selection: Selection, wanted: NextLine, asked: _Asked, name: str) -> Integers:
    """Return when the next line of therapy began, microseconds; `NEVER` where it did not."""
    arrays = selection.arrays
    current = [set(str(treatment).split(" + ")) for treatment in asked.treatment]
    known = (*wanted.treatment.values(), *wanted.codes, *_concept_codes(selection, wanted))
    foreign = sorted({part for parts in current for part in parts if matching(part, known) is None})
    if foreign:
        raise StudyError(
            f"endpoint {name}, next_line: the decisions' treatment {foreign[0]!r} is none of those that its `treatment` "
            "gives, so every drug would be a new line. Map codes to treatments there as in the trigger."
        )
    chosen = selection.of(wanted) & (arrays.time != UNDATED)
    names = treatment_names(arrays.codes, wanted.treatment)
    decision, event = asked.pairs(selection, chosen, AFTER)
    time, index = arrays.time[event], asked.index[decision]
    other = np.array([names[arrays.code[e]] not in current[d] for d, e in zip(decision, event, strict=True)], np.bool_)
    new = other & (time > index + parse_duration(wanted.grace))
    if wanted.pause is not None:
        at = np.flatnonzero(chosen)
        before = np.full(len(arrays), UNDATED)
        follows = np.r_[False, arrays.subject[at][1:] == arrays.subject[at][:-1]] if len(at) else np.zeros(0, np.bool_)
        before[at[follows]] = arrays.time[at[:-1][follows[1:]]] if len(at) else UNDATED
        new |= time - np.maximum(before[event], index) >= parse_duration(wanted.pause)
    return asked.earliest(decision[new], time[new])


def _concept_codes(selection: Selection, selector: EventSelector) -> tuple[str, ...]:
    concept = selection.concepts.get(selector.concept or "")
    return () if concept is None else concept.codes


def _best_response(selection: Selection, endpoint: BestResponse, asked: _Asked) -> Floats:
    arrays = selection.arrays
    level = _levels(selection, endpoint)
    window = parse_window(endpoint.window)
    decision, event = asked.pairs(selection, level >= 0, window)
    time, level = arrays.time[event], level[event]
    least = np.array([endpoint.least_days.get(name, 0) for name in endpoint.levels], np.int64) * DAY
    late_enough = time - asked.index[decision] >= least[level]
    stop = np.full(len(asked.index), NEVER)
    for selector in endpoint.stop:
        stop = np.minimum(stop, _first_after(selection, selector, asked, on_index_day=False))
    failed = np.full(len(asked.index), NEVER)
    for selector in endpoint.failure:
        failed = np.minimum(failed, _first_after(selection, selector, asked, on_index_day=True))
    length = window.end or 0
    beyond = failed - asked.index > length if window.closed_end else failed - asked.index >= length
    failed = np.where(beyond, NEVER, failed)
    counts = late_enough & (time <= np.minimum(stop, failed)[decision])
    # Of several categories at one moment the worst counts.
    visits = pd.DataFrame({"decision": decision, "time": time, "level": level})[counts]
    visits = visits.groupby(["decision", "time"], as_index=False)["level"].min()
    if endpoint.stop_at_worst:
        worst = visits[visits["level"] == 0]
        ended = asked.earliest(worst["decision"].to_numpy(), worst["time"].to_numpy())
        visits = visits[visits["time"].to_numpy() <= ended[visits["decision"].to_numpy()]]
    best = np.full(len(asked.index), np.nan)
    found_best = visits.groupby("decision")["level"].max()
    best[found_best.index.to_numpy(dtype=np.intp)] = found_best.to_numpy()
    best[np.isnan(best) & (failed != NEVER)] = 0.0
    if endpoint.positive is None:
        return best
    positive = [endpoint.levels.index(name) for name in endpoint.positive]
    return np.where(np.isnan(best), np.nan, np.isin(best, positive).astype(np.float64))


def _levels(selection: Selection, endpoint: BestResponse) -> Integers:
    """Return the level of each event, (n,): 0 = worst; -1 where it is no assessment or not evaluable."""
    arrays = selection.arrays
    place = {name: number for number, name in enumerate(endpoint.levels)} | {NOT_EVALUABLE: -1}
    plain = {key: place[name] for key, name in endpoint.categories.items() if "=" not in key}
    with_text: dict[str, dict[str, int]] = {}
    for key, name in endpoint.categories.items():
        if "=" in key:
            code, text = key.rsplit("=", 1)
            with_text.setdefault(code.strip(), {})[text.strip().casefold()] = place[name]
    level = np.full(len(arrays), -1, np.int64)
    unread = 0
    for number, code in enumerate(arrays.codes):
        of_code, of_text = matching(code, tuple(plain)), matching(code, tuple(with_text))
        if of_code is None and of_text is None:
            continue
        at = np.flatnonzero(arrays.code == number)
        otherwise = None if of_code is None else plain[of_code]
        if of_text is None:
            level[at] = -1 if otherwise is None else otherwise
            continue
        for one, text in zip(at, arrays.texts(at), strict=True):
            found = with_text[of_text].get(str(text or "").strip().casefold(), otherwise)
            unread += found is None
            level[one] = -1 if found is None else found
    if unread:
        raise SchemaError(
            f"endpoint {endpoint.name}: {unread} assessments say something that `categories` does not name. Add it as "
            "CODE=TEXT, or give CODE alone for all other texts, e.g. as NE."
        )
    return level
