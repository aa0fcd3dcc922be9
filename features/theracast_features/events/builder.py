"""What a builder over events is, and the one pass over the shards in which all of them work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.cohort import Cohort
from theracast_data.events.access import KEY
from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_data.events.schema import empty_events
from theracast_data.sources import Kind
from theracast_features.naming import label_from_name
from theracast_features.specs import FeatureSpec, FeatureTable, feature_name


class EventBuilder(Protocol):
    """Features from the events of the decisions' patients, as of each index time.

    A builder sees what `theracast_features.events.visible` lets it see, estimates nothing, and lets no decision look at
    another. What it gives for a decision without events is its answer for a patient of whom nothing is on record.
    """

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        ...

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return (n, p) float64, columns named as the catalogue, rows and index as `decisions`.

        Args:
            events: all events of the decisions' patients, and maybe of others, in any order.
            decisions: (n, 2) `subject_id` and `index_time`; a patient may have several.
        """
        ...

    def steps(self, name: str) -> tuple[str, ...]:
        """Return sentences from the events to the feature of this name."""
        ...

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the events that made the feature, with `decision`, oldest first."""
        ...


def event_tables(cohort: Cohort, builders: Sequence[EventBuilder]) -> list[FeatureTable]:
    """Return the table of each builder over the decisions of the cohort; each shard is read once, one is in memory."""
    asked = asked_decisions(cohort)
    waiting = np.ones(len(cohort), dtype=bool)
    parts: list[list[pd.DataFrame]] = [[] for _ in builders]

    def build(events: pa.Table, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
        own = asked.iloc[rows].reset_index(drop=True)
        for builder, made in zip(builders, parts, strict=True):
            made.append(builder.build(events, own).set_axis(rows, axis=0))

    for shard in shards_of(cohort):
        rows = np.flatnonzero(waiting & asked["subject_id"].isin(pc.unique(shard["subject_id"]).to_pylist()).to_numpy())
        if len(rows):
            waiting[rows] = False
            build(shard, rows)
    if waiting.any() or not len(cohort):
        build(empty_events(), np.flatnonzero(waiting))
    return [
        FeatureTable(frame=_in_order(made), catalogue=builder.catalogue, decisions=cohort.decisions)
        for builder, made in zip(builders, parts, strict=True)
    ]


def asked_decisions(cohort: Cohort) -> pd.DataFrame:
    """Return the decisions as builders are asked about them: `subject_id`, under which their events are, and `index_time`."""
    keys = cohort.decisions[KEY].astype("str")
    return pd.DataFrame({"subject_id": keys, "index_time": cohort.decisions["index_time"]})


def shards_of(cohort: Cohort) -> Iterator[pa.Table]:
    """Return the events of the cohort's patients, whole patients at a time."""
    if cohort.events is None:
        raise ValueError("the cohort was read without its events")
    return cohort.events.shards()


def coded_events(events: pa.Table, wanted: Callable[[str], bool]) -> pa.Table:
    """Return the events whose code is wanted; each code is asked about once."""
    codes = [code for code in pc.unique(events["code"]).to_pylist() if wanted(code)]
    return events.filter(pc.is_in(events["code"], value_set=pa.array(codes, pa.string())))


def concept_values(events: pa.Table, name: str, concepts: Mapping[str, Concept]) -> pd.DataFrame:
    """Return the events of one concept with `value` in its unit, missing where it cannot be used."""
    normal, _ = concept_events(events, {name: concepts[name]})
    values: pd.DataFrame = normal.to_pandas()
    return values


def named_columns(table: pd.DataFrame, meanings: dict[str, FeatureSpec]) -> pd.DataFrame:
    """Return the columns of a builder's table that have a meaning, as float64 under the names of their features."""
    chosen = table[list(meanings)].astype(np.float64)
    return chosen.set_axis([spec.name for spec in meanings.values()], axis=1)


def concept_meanings(
    concept: str,
    name: str | None,
    columns: Sequence[str],
    described: Mapping[Any, tuple[str, str | None, Kind, str | None]],
    concepts: Mapping[str, Concept],
) -> dict[str, FeatureSpec]:
    """Return what each column of a table made from one concept means.

    Args:
        name: in the features; by default that of the concept.
        described: column to label, unit, kind and publication.
    """
    meant, called = concepts[concept], name or concept
    meanings = {}
    for column in dict.fromkeys(columns):
        label, unit, kind, source = described[column]
        meanings[str(column)] = FeatureSpec(
            name=feature_name(meant.modality, called, column),
            modality=meant.modality,
            kind=kind,
            label=f"{meant.label or label_from_name(called)}, {label}",
            columns=(concept,),
            unit=unit,
            role="derived",
            source=source,
        )
    return meanings


def column_of(name: str, meanings: dict[str, FeatureSpec]) -> str:
    """Return the column of a builder's table that became the feature `name`."""
    return next(column for column, spec in meanings.items() if spec.name == name)


def concept_step(name: str, concept: Concept) -> str:
    """Return which events are a concept, as a sentence of a lineage."""
    return f"{name}: events of the codes {', '.join(concept.codes)}{f', in {concept.unit}' if concept.unit else ''}"


def _in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    frame = parts[0] if len(parts) == 1 else pd.concat(parts).sort_index()
    return frame.reset_index(drop=True)
