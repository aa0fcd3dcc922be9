"""Decisions from dated events: a trigger, rules in windows around it, observation, landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.cohort import AttritionStep
from theracast_data.decisions.attributes import PAST, attribute_cells, said_at
from theracast_data.decisions.attrition import AttritionCounter
from theracast_data.decisions.section import (
    AttributeSection,
    DecisionSection,
    EventSelector,
    LandmarkSection,
    ObservationSection,
    TriggerSection,
    WindowRule,
)
from theracast_data.decisions.selection import Selection, treatment_names
from theracast_data.decisions.windows import (
    DAY,
    UNDATED,
    Booleans,
    Integers,
    Window,
    event_arrays,
    pairs_in_window,
    parse_duration,
)
from theracast_data.events.concepts import Concept

FUTURE = Window(0, None, closed_start=True, closed_end=False)
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Decisions:
    """Decisions of one shard and how they came about.

    Attributes:
        frame: (n, ...) `subject_id`, `index_time` datetime64[us], `treatment`, `site`, `landmark` (days after the
            trigger), then the attributes of the section as the cells that events hold (see `type_attributes`), None
            where they say nothing; by patient and index time.
        attrition: one step for each rule and site, in the order of the rules.
        notes: what could not be decided, in words, to the number of events concerned.
    """

    frame: pd.DataFrame
    attrition: tuple[AttritionStep, ...]
    notes: Mapping[str, int]


@dataclass(frozen=True)
class Triggers:
    """n occurrences of the trigger: patient, time in microseconds, treatment."""

    subject: Integers
    time: Integers
    treatment: npt.NDArray[np.object_]


def derive_decisions(
    events: pa.Table | pd.DataFrame,
    section: DecisionSection,
    *,
    concepts: Mapping[str, Concept] | None = None,
    as_of: datetime | None = None,
) -> Decisions:
    """Return the decisions of these patients, and how many each rule left out.

    Rules, observation and site are judged at the trigger; a landmark moves the index time, and attributes with it.
    Only what was known at that moment is used, apart from rules that say `looks_ahead`, `observation.after`, and the
    question whether a patient is still followed at a landmark.

    Args:
        events: all events of the patients, in any order.
        concepts: concepts of the study by name.
        as_of: a moment at which the patients are known to be followed, whatever their last event: the moment of
            scoring. No landmark lies after it.

    Raises:
        SchemaError: the events are not as the event schema says.
        StudyError: a concept is not declared.
    """
    selection = Selection(event_arrays(events, same_day=section.same_day), concepts or {})
    arrays = selection.arrays
    triggers = find_triggers(selection, section.trigger)
    with_trigger = len(np.unique(triggers.subject))
    sites = _sites(selection, section.site, triggers)
    counter = AttritionCounter(sites)
    for rule in section.include:
        counter.keep(meets_rule(selection, rule, triggers), rule.name)
    for rule in section.exclude:
        counter.keep(~meets_rule(selection, rule, triggers), f"not: {rule.name}")
    if section.observation is not None:
        before, after = section.observation.before, section.observation.after
        if before is not None:
            enough = observed_before(selection, section.observation, triggers, before)
            counter.keep(enough, f"observed for {before} before the trigger")
        if after is not None:
            enough = _observed_after(selection, section.observation, triggers, after)
            counter.keep(enough, f"observed for {after} after the trigger")
    first = AttritionStep("all", "patients with the trigger", len(arrays.subjects) - with_trigger, with_trigger)
    position, landmark, steps = _landmarks(
        selection, section.landmarks, triggers, counter=counter, sites=sites, as_of=as_of
    )
    index = triggers.time[position] + landmark * DAY
    frame = pd.DataFrame(
        {
            "subject_id": pd.Series(arrays.subjects[triggers.subject[position]], dtype="str"),
            "index_time": index.view("datetime64[us]"),
            "treatment": pd.Series(triggers.treatment[position], dtype="str"),
            "site": pd.Series(sites[position], dtype="str"),
            "landmark": landmark,
        }
    )
    for name, attribute in section.attributes.items():
        frame[name] = pd.Series(attribute_cells(selection, attribute, triggers.subject[position], index), dtype=object)
    order = np.lexsort((landmark, index, triggers.subject[position]))
    return Decisions(
        frame.iloc[order].reset_index(drop=True), (first, *counter.steps, *steps), dict(sorted(selection.notes.items()))
    )


def find_triggers(selection: Selection, section: TriggerSection) -> Triggers:
    arrays = selection.arrays
    at = np.flatnonzero(selection.of(section) & (arrays.time != UNDATED))
    subject, time = arrays.subject[at], arrays.time[at]
    same_subject = np.r_[False, subject[1:] == subject[:-1]] if len(at) else np.zeros(0, np.bool_)
    new = ~(same_subject & np.r_[False, time[1:] == time[:-1]]) if len(at) else same_subject
    occurrence = np.cumsum(new) - 1
    names, name = np.unique(treatment_names(arrays.codes, section.treatment), return_inverse=True)
    treatment = _joined(occurrence, name[arrays.code[at]], names, count=int(new.sum()))
    subject, time, same_subject = subject[new], time[new], same_subject[new]
    chosen = np.ones(len(time), np.bool_)
    if section.washout is not None:
        chosen = ~same_subject | (np.diff(time, prepend=time[:1]) >= parse_duration(section.washout))
    if section.occurrence != "each":
        wanted = 1 if section.occurrence == "first" else section.occurrence
        number = np.cumsum(chosen)
        before = np.searchsorted(subject, subject, side="left")  # sorted by patient: where the patient begins
        chosen &= number - np.r_[0, number][before] == wanted
    return Triggers(subject[chosen], time[chosen], treatment[chosen])


def _joined(group: Integers, name: Integers, names: npt.NDArray[np.str_], *, count: int) -> npt.NDArray[np.object_]:
    """Return the distinct names of each group as one text, in alphabetical order: `carboplatin + pembrolizumab`."""
    pairs = np.unique(np.column_stack([group, name]), axis=0) if count else np.empty((0, 2), np.int64)
    joined = np.full(count, "", dtype=object)
    for number, which in pairs:
        joined[number] = f"{joined[number]} + {names[which]}" if joined[number] else str(names[which])
    return joined


def meets_rule(selection: Selection, rule: WindowRule, triggers: Triggers) -> Booleans:
    """Return which triggers meet the rule, (n,)."""
    arrays = selection.arrays
    at = np.flatnonzero(selection.of(rule))
    decision, event = pairs_in_window(
        triggers.subject, triggers.time, arrays.subject[at], arrays.time[at], rule.interval
    )
    event = at[event]
    if not rule.looks_ahead:
        visible = arrays.known[event] <= triggers.time[decision]
        decision, event = decision[visible], event[visible]
    if rule.distinct == "days" and len(decision):
        decision = np.unique(np.column_stack([decision, arrays.time[event] // DAY]), axis=0)[:, 0]
    count = np.bincount(decision, minlength=len(triggers.time))
    fewest, most = rule.limits
    return np.asarray((count >= fewest) & (count <= (NEVER if most is None else most)), dtype=np.bool_)


def observed_before(selection: Selection, section: ObservationSection, triggers: Triggers, least: str) -> Booleans:
    """Return which triggers have this much observation before them."""
    start = _edge(selection, section.start, section.ignore, triggers, ahead=False)
    return np.asarray((start != UNDATED) & (start <= triggers.time - parse_duration(least)), dtype=np.bool_)


def _observed_after(selection: Selection, section: ObservationSection, triggers: Triggers, least: str) -> Booleans:
    """Return which triggers have this much observation after them, or an event that leaves nothing to observe."""
    end = _edge(selection, section.end, section.ignore, triggers, ahead=True)
    enough = (end != NEVER) & (end >= triggers.time + parse_duration(least))
    if section.complete is not None:
        at = np.flatnonzero(selection.of(section.complete))
        decision, _ = pairs_in_window(
            triggers.subject, triggers.time, selection.arrays.subject[at], selection.arrays.time[at], FUTURE
        )
        enough[decision] = True
    return np.asarray(enough, dtype=np.bool_)


def _edge(
    selection: Selection, codes: EventSelector | None, ignore: tuple[str, ...], triggers: Triggers, *, ahead: bool
) -> Integers:
    """Return where the observation around each trigger begins, or with `ahead` ends, in microseconds.

    From codes: the last opening before the trigger, the first closing after it. From events: the first, the last.
    Without any, `UNDATED` or `NEVER`.
    """
    arrays = selection.arrays
    chosen = selection.of(codes) if codes is not None else ~selection.coded(ignore)
    at = np.flatnonzero(chosen & (arrays.time != UNDATED))
    window = FUTURE if ahead else PAST
    decision, event = pairs_in_window(triggers.subject, triggers.time, arrays.subject[at], arrays.time[at], window)
    times = arrays.time[at[event]]
    if ahead == (codes is not None):
        found = np.full(len(triggers.time), NEVER)
        np.minimum.at(found, decision, times)
    else:
        found = np.full(len(triggers.time), UNDATED)
        np.maximum.at(found, decision, times)
    return found


def _landmarks(
    selection: Selection,
    section: LandmarkSection | None,
    triggers: Triggers,
    *,
    counter: AttritionCounter,
    sites: npt.NDArray[np.object_],
    as_of: datetime | None,
) -> tuple[Integers, Integers, list[AttritionStep]]:
    """Return trigger and landmark day of each decision, and one attrition step for each landmark and site."""
    eligible = np.flatnonzero(counter.kept)
    if section is None:
        return eligible, np.zeros(len(eligible), np.int64), []
    arrays = selection.arrays
    ends = np.zeros(len(arrays), np.bool_)
    for selector in section.ends:
        ends |= selection.of(selector)
    contact = arrays.time != UNDATED
    if section.last_contact is not None:
        contact &= selection.of(section.last_contact)
    through = np.where(arrays.date_only, arrays.time + DAY - 1, arrays.time)  # a dated contact covers its day
    last = np.full(len(arrays.subjects) + 1, UNDATED if as_of is None else _instant(as_of))
    np.maximum.at(last, arrays.subject[contact], through[contact])
    subject, time = triggers.subject[eligible], triggers.time[eligible]
    at = np.flatnonzero(ends)
    positions, days, steps = [], [], []
    for day in section.days:
        window = Window(0, day * DAY, closed_start=False, closed_end=True)
        ended, _ = pairs_in_window(subject, time, arrays.subject[at], arrays.time[at], window)
        at_risk = np.ones(len(eligible), np.bool_)
        at_risk[ended] = False
        at_risk &= last[subject] >= time + day * DAY
        landmark = AttritionCounter(sites[eligible])
        landmark.keep(at_risk, f"at risk and followed on day {day}")
        steps += landmark.steps
        positions.append(eligible[at_risk])
        days.append(np.full(int(at_risk.sum()), day, np.int64))
    return np.concatenate(positions), np.concatenate(days), steps


def _instant(moment: datetime) -> int:
    stamp = pd.Timestamp(moment)
    naive = stamp.tz_convert(None) if stamp.tzinfo is not None else stamp
    return int(naive.to_datetime64().astype("datetime64[us]").astype(np.int64))


def _sites(selection: Selection, site: AttributeSection | str, triggers: Triggers) -> npt.NDArray[np.object_]:
    if isinstance(site, str):
        return np.full(len(triggers.time), site, dtype=object)
    return site_names(selection, site, triggers.subject, triggers.time, missing=site.missing or "unknown")


def site_names(
    selection: Selection, site: AttributeSection, subject: Integers, index: Integers, *, missing: str
) -> npt.NDArray[np.object_]:
    """Return the site that the events visible at each index time name, `missing` where they name none."""
    found = said_at(selection, site, subject, index)
    return np.array([missing if one is None else str(site.levels.get(one, one)) for one in found], dtype=object)
