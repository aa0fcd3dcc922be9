"""Aggregates of concepts over windows as a builder: the engine that computes them, and the rows that each has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pandas as pd
import pyarrow as pa

from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import concept_events
from theracast_features.events import duckdb_engine
from theracast_features.events.builder import concept_step, concept_values
from theracast_features.events.catalogue import event_catalogue
from theracast_features.events.section import EventFeatures, window_microseconds
from theracast_features.events.sql import LARGEST
from theracast_features.events.visible import dated, visible_events
from theracast_features.specs import FeatureSpec, FeatureTable

_OF_EVENTS = ("since_last", "exists")


class AggregateBuilder:
    """The `features.events` of a study."""

    def __init__(
        self,
        features: Sequence[EventFeatures],
        concepts: Mapping[str, Concept],
        *,
        engine: Literal["duckdb", "spark"] = "duckdb",
    ) -> None:
        self.features = tuple(features)
        self.catalogue: tuple[FeatureSpec, ...] = event_catalogue(features, concepts)
        self.concepts = {one.concept: concepts[one.concept] for one in features}
        self.engine = engine

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return every aggregate in every window; see `EventBuilder`."""
        normal, _ = concept_events(events, self.concepts)
        return _engine(self.engine)(normal, decisions, self.features, self.concepts).frame

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which codes count, which of their events are seen, and what is made of them."""
        feature, window, aggregate = self._cell(name)
        since = "at any time" if window == "all" else f"in the {window}"
        return (
            concept_step(feature.concept, self.concepts[feature.concept]),
            f"seen: those {since} up to the decision that were available by then; those without a time lie in no window",
            f"aggregate: {aggregate}",
        )

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the normalised events inside the window; for aggregates of values those with a usable one."""
        feature, window, aggregate = self._cell(name)
        values = concept_values(events, feature.concept, self.concepts)
        length = window_microseconds(window)
        span = None if length is None else pd.Timedelta(microseconds=length)
        seen = dated(visible_events(values, decisions), window=span)
        return seen if aggregate in _OF_EVENTS else seen[seen["value"].abs() <= LARGEST]

    def _cell(self, name: str) -> tuple[EventFeatures, str, str]:
        cells = [(one, window, kind) for one in self.features for window in one.windows for kind in one.aggregates]
        return cells[[spec.name for spec in self.catalogue].index(name)]


def _engine(name: Literal["duckdb", "spark"]) -> Callable[..., FeatureTable]:
    if name == "spark":
        from theracast_features.events import spark_engine  # an extra that most installations lack

        return spark_engine.event_features
    return duckdb_engine.event_features
