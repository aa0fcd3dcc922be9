"""The target of a study: what each decision is learned from and judged by, who is unknown, how censored ones are weighted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.endpoint_values import event_within
from theracast_data.endpoints import (
    DAYS_PER,
    BinaryEndpoint,
    Endpoint,
    EndpointKind,
    as_table_endpoint,
    horizon_days,
    kind_of,
    level_names,
    main_level,
)
from theracast_data.errors import CohortError
from theracast_models.links import Asked
from theracast_models.outcomes import Binary, Continuous, Ordinal, Outcome, Survival
from theracast_training.observed import censoring

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

DEFAULT_HORIZONS = (365.25, 182.625, 730.5)
"""Days: a year, half a year, two years."""
LEAST_FOLLOWED = 10
"""Decisions that must be followed beyond a horizon for it to be one by default."""


@dataclass(frozen=True)
class Target:
    """The target of n decisions.

    Attributes:
        y: (n,) 1 yes, 0 no, NaN not known: for a time to an event whether it came by the leading horizon, for ordered levels
            whether the leading one or a better one was reached; for a number whether it lies above the median of the
            development decisions, by which folds are balanced only.
        time, event: (n,) days, and 0 censored, 1 the event, 2 a competing one, where there is a follow-up, else None.
        horizons: days, the leading one first, where there is a follow-up.
        kind: of the endpoint.
        values: (n,) levels counted from 0, or numbers; None for the other kinds.
        levels: how many ordered levels there are.
        main_level: the leading one.
    """

    y: Floats
    time: Floats | None = None
    event: Floats | None = None
    horizons: tuple[float, ...] = ()
    kind: EndpointKind = "binary"
    values: Floats | None = None
    levels: int = 0
    main_level: int = 1

    def take(self, rows: Rows) -> Target:
        """Return the target of these decisions."""

        def taken(values: Floats | None) -> Floats | None:
            return None if values is None else values[rows]

        return replace(self, y=self.y[rows], time=taken(self.time), event=taken(self.event), values=taken(self.values))

    @property
    def horizon_days(self) -> float | None:
        """The leading horizon."""
        return self.horizons[0] if self.horizons else None

    @property
    def followed(self) -> tuple[Floats, Floats]:
        """Days and event, where there is a follow-up."""
        assert self.time is not None
        assert self.event is not None
        return self.time, self.event

    @property
    def known(self) -> Rows:
        """Positions of the decisions from which something is learned: who was followed at all, or whose outcome is known."""
        if self.kind == "time_to_event":
            return np.flatnonzero(np.isfinite(self.followed).all(axis=0))
        return np.flatnonzero(~np.isnan(self.y if self.values is None else self.values))

    @property
    def strata(self) -> Floats:
        """(n,) 0/1, by which folds are balanced: who had the event at any time, or `y`."""
        if self.kind == "time_to_event":
            _, event = self.followed
            return np.where(np.isnan(event), np.nan, (event == 1).astype(float))
        return self.y

    @property
    def told(self) -> Floats:
        """(n,) what an aggregate of decisions tells: the number itself, else `y`."""
        return self.values if self.kind == "continuous" and self.values is not None else self.y

    @property
    def asked(self) -> Asked:
        """What the answers are asked for."""
        return Asked(self.horizons if self.kind == "time_to_event" else (), self.main_level)

    def outcome(self, reference: Target | None = None) -> Outcome:
        """Return what a model learns from, or is judged by; see `weight` for the reference."""
        if self.kind == "time_to_event":
            time, event = self.followed
            competing = (event == 2).astype(float)
            own = (event == 1).astype(float)
            return Survival(time, own, np.ones(len(self.y)), competing if competing.any() else None)
        if self.kind == "binary":
            return Binary(self.y, self.weight(reference))
        assert self.values is not None
        known = np.isfinite(self.values).astype(float)
        if self.kind == "ordinal":
            return Ordinal(self.values, self.levels, known)
        return Continuous(self.values, known)

    def weight(self, reference: Target | None = None) -> Floats:
        """Return (n,) weights: 0 where the outcome is unknown, else 1 or the inverse probability of being uncensored.

        Args:
            reference: the decisions from which the censoring distribution is estimated; in training the training rows
                alone. By default these decisions themselves.

        Source: Graf et al., Stat Med 1999;18:2529-2545.
        """
        known = (~np.isnan(self.y)).astype(float)
        if self.time is None or self.event is None or self.horizon_days is None:
            return known
        time, event = (reference or self).followed
        valid = np.isfinite(time) & np.isfinite(event)
        uncensored = censoring(time[valid], event[valid])
        seen_until = np.minimum(self.time, self.horizon_days)
        had_event = (self.event > 0) & (self.time <= self.horizon_days)
        share = np.where(had_event, uncensored.before(seen_until), uncensored.at(seen_until))
        return np.where(known > 0, 1.0 / np.maximum(share, 0.05), 0.0)


def target_of(cohort: Cohort, endpoint: Endpoint, *, like: Asked | None = None, develop: Rows | None = None) -> Target:
    """Return the target of a cohort's decisions.

    Args:
        like: horizons that are given already, those of the model that is judged.
        develop: positions of the decisions that develop the model; by their follow-up the default horizons are chosen.
    """
    table, name = as_table_endpoint(endpoint), endpoint.name
    kind = kind_of(endpoint)
    if kind == "time_to_event":
        time, event = (cohort.endpoints[f"{name}.{part}"].to_numpy(dtype=float) for part in ("time", "event"))
        followed = time if develop is None else time[develop]
        horizons = (like and like.horizons) or horizon_days(endpoint) or default_horizons(followed)
        return Target(event_within(time, event, horizons[0]), time, event, horizons, kind="time_to_event")
    values = cohort.endpoints[name].to_numpy(dtype=float)
    if kind == "ordinal":
        main = main_level(endpoint)
        reached = np.where(np.isnan(values), np.nan, (values >= main).astype(float))
        return Target(reached, kind="ordinal", values=values, levels=len(level_names(endpoint)), main_level=main)
    if kind == "continuous":
        middle = float(np.nanmedian(values if develop is None else values[develop]))
        above = np.where(np.isnan(values), np.nan, (values > middle).astype(float))
        return Target(above, kind="continuous", values=values)
    assert isinstance(table, BinaryEndpoint)
    if table.follow_up is None or table.horizon is None:
        return Target(values)
    return Target(
        values,
        cohort.endpoints[f"{name}.time"].to_numpy(dtype=float),
        cohort.endpoints[f"{name}.event"].to_numpy(dtype=float),
        (table.horizon * DAYS_PER[table.follow_up.unit],),
    )


def default_horizons(time: Floats) -> tuple[float, ...]:
    """Return a year, half a year and two years, as far as ten decisions were followed; else the median follow-up."""
    reached = tuple(horizon for horizon in DEFAULT_HORIZONS if (time > horizon).sum() >= LEAST_FOLLOWED)
    return reached or (float(np.nanmedian(time)),)


def require_both_outcomes(target: Target, *, where: str, least: int = 8) -> None:
    """Raise CohortError unless enough is known: `least` decisions of either outcome, `least` events, or twice as many numbers."""
    known = target.strata[target.known]
    events = int(np.nansum(known))
    if min(events, len(known) - (0 if target.kind == "time_to_event" else events)) < least:
        raise CohortError(
            f"{where}: {len(known)} decisions with a known outcome, {events} of them positive; at least {least} of either "
            "are needed to train. Check the endpoint's `positive` cells, or add patients."
        )
