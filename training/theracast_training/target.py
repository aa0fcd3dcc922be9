"""The binary target of a study: who responded, who is unknown, and how censored patients are weighted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.decisions.section import BestResponse, FirstEvent
from theracast_data.endpoints import DAYS_PER, BinaryEndpoint, Endpoint, TrainableEndpoint, is_binary
from theracast_data.errors import CohortError, StudyError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Target:
    """The target of n decisions.

    Attributes:
        y: (n,) 1 yes, 0 no, NaN not known.
        time, event: (n,) days and 0/1 where the endpoint is a horizon of a follow-up, else None.
        horizon_days: that horizon.
    """

    y: Floats
    time: Floats | None = None
    event: Floats | None = None
    horizon_days: float | None = None

    def take(self, rows: Rows) -> Target:
        """Return the target of these decisions."""
        return Target(
            self.y[rows],
            None if self.time is None else self.time[rows],
            None if self.event is None else self.event[rows],
            self.horizon_days,
        )

    @property
    def known(self) -> Rows:
        """Positions of the decisions whose outcome is known."""
        return np.flatnonzero(~np.isnan(self.y))

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
        learn = reference or self
        assert learn.time is not None
        assert learn.event is not None
        uncensored = _censoring_survival(learn.time, learn.event)
        seen_until = np.minimum(self.time, self.horizon_days)
        had_event = (self.event == 1) & (self.time <= self.horizon_days)
        share = np.where(had_event, uncensored(seen_until, before=True), uncensored(seen_until, before=False))
        return np.where(known > 0, 1.0 / np.maximum(share, 0.05), 0.0)


class _Uncensored(Protocol):
    def __call__(self, when: Floats, *, before: bool) -> Floats: ...


def _censoring_survival(time: Floats, event: Floats) -> _Uncensored:
    """Return the Kaplan-Meier estimate of remaining uncensored, as a function of time (left limit with `before`)."""
    valid = ~(np.isnan(time) | np.isnan(event))
    time, event = time[valid], event[valid]
    moments = np.unique(time[event == 0])
    at_risk = np.array([(time > t).sum() + ((time == t) & (event == 0)).sum() for t in moments], dtype=float)
    censored = np.array([((time == t) & (event == 0)).sum() for t in moments], dtype=float)
    survival = np.cumprod(1.0 - censored / at_risk) if len(moments) else np.array([])
    steps = np.concatenate([[1.0], survival])

    def at(when: Floats, *, before: bool) -> Floats:
        share: Floats = steps[np.searchsorted(moments, when, side="left" if before else "right")]
        return share

    return at


def binary_endpoint(endpoint: Endpoint) -> TrainableEndpoint:
    """Return the endpoint.

    Raises:
        StudyError: it is not yes or no; other kinds cannot be trained yet.
    """
    if isinstance(endpoint, BinaryEndpoint | FirstEvent | BestResponse) and is_binary(endpoint):
        return endpoint
    made = {
        "first_event": "give it a `horizon`, e.g. 180d",
        "best_response": "give it the levels that are `positive`, e.g. [PR, CR]",
    }.get(endpoint.kind, "make one from a follow-up: {kind: binary, follow_up: {...}, horizon: 12}")
    raise StudyError(
        f"endpoint {endpoint.name!r} is {endpoint.kind}; this version trains binary endpoints only. Name a binary one "
        f"with `primary:`, or {made}."
    )


def binary_target(cohort: Cohort, endpoint: TrainableEndpoint) -> Target:
    """Return the target of a cohort's decisions."""
    y = cohort.endpoints[endpoint.name].to_numpy(dtype=float)
    horizon = _horizon_days(endpoint)
    if horizon is None:
        return Target(y)
    return Target(
        y,
        cohort.endpoints[f"{endpoint.name}.time"].to_numpy(dtype=float),
        cohort.endpoints[f"{endpoint.name}.event"].to_numpy(dtype=float),
        horizon,
    )


def _horizon_days(endpoint: TrainableEndpoint) -> float | None:
    if isinstance(endpoint, FirstEvent):
        return endpoint.horizon_days
    if isinstance(endpoint, BestResponse) or endpoint.follow_up is None or endpoint.horizon is None:
        return None
    return endpoint.horizon * DAYS_PER[endpoint.follow_up.unit]


def require_both_outcomes(target: Target, *, where: str, least: int = 8) -> None:
    """Raise CohortError unless at least `least` decisions of either outcome are known."""
    known = target.y[target.known]
    events = int(known.sum())
    if min(events, len(known) - events) < least:
        raise CohortError(
            f"{where}: {len(known)} decisions with a known outcome, {events} of them positive; at least {least} of either "
            "are needed to train. Check the endpoint's `positive` cells, or add patients."
        )
