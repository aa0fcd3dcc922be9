"""What the features of events mean: one spec for each concept, window and aggregate, and what the engines need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_features.events.section import Aggregate, EventFeatures, window_microseconds
from theracast_features.naming import label_from_name, nearest_name
from theracast_features.specs import FeatureSpec, feature_name

EVER = 2**62
"""Microseconds that stand for a window without start: 146,000 years."""

_WORDS: dict[Aggregate, str] = {
    "last": "last",
    "first": "first",
    "min": "lowest",
    "max": "highest",
    "mean": "mean",
    "std": "standard deviation",
    "slope": "slope per day",
    "count": "number of values",
    "since_last": "days since the last",
    "outside": "fraction outside the reference range",
    "exists": "on record",
    "change": "last less first",
    "relative_change": "last less first, by the first",
    "change_per_day": "change per day from first to last",
    "interval": "days from first to last",
}
_MEASURED = ("last", "first", "min", "max")
_ON_THE_SCALE_OF_VALUES = (*_MEASURED, "mean")


@dataclass(frozen=True)
class Cell:
    """One column of the result: aggregate of a concept (its position in `wanted`) in a window (position in `windows`)."""

    concept: int
    window: int
    aggregate: Aggregate


@dataclass(frozen=True)
class EventPlan:
    """What is to be computed, in terms that every engine shares.

    Attributes:
        windows: lengths in microseconds; `EVER` for no start.
        needs: the aggregates of each window, over all concepts.
        wanted: one row per concept: name, position, longest window, ends of the reference range (null: open).
        cells: one per column of the result.
        targets: for each window, an aggregate and the column of every concept, -1 where it has none.
        nought: the columns that are 0 rather than missing where no event is seen.
        catalogue: the meaning of each.
    """

    windows: tuple[int, ...]
    needs: tuple[frozenset[Aggregate], ...]
    wanted: pa.Table
    cells: tuple[Cell, ...]
    targets: tuple[tuple[tuple[Aggregate, NDArray[np.intp]], ...], ...]
    nought: NDArray[np.intp]
    catalogue: tuple[FeatureSpec, ...]


def plan_features(features: Sequence[EventFeatures], concepts: Mapping[str, Concept]) -> EventPlan:
    """Return what the engines compute for these features, and what each column means.

    Raises:
        StudyError: a concept that the study does not define, or one feature asked for twice.
    """
    unknown = dict.fromkeys(one.concept for one in features if one.concept not in concepts)
    if unknown:
        named = ", ".join(f"{name!r}{nearest_name(name, concepts)}" for name in unknown)
        raise StudyError(
            f"features.events: no such concept: {named}. Define it in events.concepts, or correct its name."
        )
    names = dict.fromkeys(one.concept for one in features)
    return _plan(tuple(features), tuple((name, concepts[name]) for name in names))


def event_catalogue(features: Sequence[EventFeatures], concepts: Mapping[str, Concept]) -> tuple[FeatureSpec, ...]:
    """Return the meaning of each column, in the order of the columns. Raises as `plan_features`."""
    return plan_features(features, concepts).catalogue


@lru_cache(maxsize=8)  # a server asks for the same features for every patient, and describing them takes its time
def _plan(features: tuple[EventFeatures, ...], named: tuple[tuple[str, Concept], ...]) -> EventPlan:
    concepts = dict(named)
    names = list(concepts)
    places = {name: place for place, name in enumerate(names)}
    # One window may be written in several ways (1w, 7d); it is computed once.
    spans = {window: _span(window) for one in features for window in one.windows}
    windows = tuple(dict.fromkeys(spans.values()))
    needs: list[set[Aggregate]] = [set() for _ in windows]
    cells, catalogue = [], []
    for one in features:
        for window in one.windows:
            place = windows.index(spans[window])
            needs[place].update(one.aggregates)
            for aggregate in one.aggregates:
                cells.append(Cell(places[one.concept], place, aggregate))
                catalogue.append(_spec(one, concepts[one.concept], window, aggregate))
    twice = [name for name, count in Counter(spec.name for spec in catalogue).items() if count > 1]
    if twice:
        raise StudyError(
            f"features.events: {', '.join(twice)} would be made twice. List each window and aggregate once."
        )
    reach = {name: max(spans[w] for one in features if one.concept == name for w in one.windows) for name in names}
    return EventPlan(
        windows=windows,
        needs=tuple(frozenset(need) for need in needs),
        wanted=_wanted([(name, reach[name], concepts[name].reference_range or (None, None)) for name in names]),
        cells=tuple(cells),
        targets=_targets(
            cells,
            [any(end is not None for end in concepts[name].reference_range or ()) for name in names],
            windows=len(windows),
        ),
        nought=np.flatnonzero([cell.aggregate in ("count", "exists") for cell in cells]),
        catalogue=tuple(catalogue),
    )


def _targets(
    cells: Sequence[Cell], ranged: Sequence[bool], *, windows: int
) -> tuple[tuple[tuple[Aggregate, NDArray[np.intp]], ...], ...]:
    targets: dict[tuple[Aggregate, int, int], NDArray[np.intp]] = {}
    met: Counter[Cell] = Counter()  # one window written in two ways (1w, 7d) makes a second set
    for number, cell in enumerate(cells):
        if cell.aggregate == "outside" and not ranged[cell.concept]:
            continue  # nothing is outside of no range: the column stays missing
        key = (cell.aggregate, cell.window, met[cell])
        met[cell] += 1
        targets.setdefault(key, np.full(len(ranged), -1, dtype=np.intp))[cell.concept] = number
    return tuple(
        tuple((aggregate, columns) for (aggregate, window, _), columns in targets.items() if window == own)
        for own in range(windows)
    )


def _span(window: str) -> int:
    length = window_microseconds(window)
    return EVER if length is None else min(length, EVER)


def _wanted(rows: list[tuple[str, int, tuple[float | None, float | None]]]) -> pa.Table:
    return pa.table(
        {
            "concept": pa.array([name for name, _, _ in rows], pa.string()),
            "place": pa.array(range(len(rows)), pa.int32()),
            "reach": pa.array([reach for _, reach, _ in rows], pa.int64()),
            "low": pa.array([ends[0] for _, _, ends in rows], pa.float64()),
            "high": pa.array([ends[1] for _, _, ends in rows], pa.float64()),
        }
    )


def _spec(feature: EventFeatures, concept: Concept, window: str, aggregate: Aggregate) -> FeatureSpec:
    within = "" if window == "all" else f" within {window[:-1]} {window[-1]}"
    label = concept.label or label_from_name(feature.concept)
    exact = concept.codes[0] if len(concept.codes) == 1 and not concept.codes[0].endswith("*") else None
    return FeatureSpec(
        name=feature_name(concept.modality, feature.concept, f"{aggregate}.{window}"),
        modality=concept.modality,
        kind="boolean" if aggregate == "exists" else "numeric",
        label=f"{label}, {_WORDS[aggregate]}{within}",
        columns=(feature.concept,),
        unit=_unit(concept.unit, aggregate),
        role="value" if aggregate in _MEASURED else "derived",
        code=exact.replace("//", ":", 1) if exact else None,
        transform=feature.transform if aggregate in _ON_THE_SCALE_OF_VALUES else "none",
    )


def _unit(unit: str | None, aggregate: Aggregate) -> str | None:
    if aggregate in ("count", "exists", "outside", "relative_change"):
        return None
    if aggregate in ("since_last", "interval"):
        return "d"
    if aggregate in ("slope", "change_per_day"):
        return f"{unit or ''}/d"
    return unit
