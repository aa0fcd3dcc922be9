"""What is compared between two arms: a number for each patient, higher always better inside the learners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_data.endpoints import DAYS_PER, BinaryEndpoint, Endpoint, as_table_endpoint
from theracast_data.errors import StudyError
from theracast_training.effects.pseudo import Summary, pseudo_values
from theracast_training.effects.section import TreatmentSection

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Scale = Literal["risk", "mean", "restricted_mean", "survival"]
LEAST_AT_RISK = 10
"""Patients of each arm who must still be followed at the horizon: beyond them a curve says little."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of n patients.

    Attributes:
        name, label: of the endpoint.
        scale: `risk` (share of a yes), `mean`, `restricted_mean` (days free of the event up to the horizon) or
            `survival` (share free of it then).
        y: (n,) where nothing is censored, else None.
        time, event: (n,) days and 0/1 of a time to event, else None.
        horizon: days, of a time to event.
        better: which values are good.
    """

    name: str
    label: str
    scale: Scale
    better: Literal["higher", "lower"]
    y: Floats | None = None
    time: Floats | None = None
    event: Floats | None = None
    horizon: float | None = None

    @property
    def sign(self) -> float:
        """1, or -1 where lower values are good: what the learners see is the value times it."""
        return 1.0 if self.better == "higher" else -1.0

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) whose outcome, or time under observation, is known."""
        if self.y is not None:
            return ~np.isnan(self.y)
        assert self.time is not None
        assert self.event is not None
        return ~(np.isnan(self.time) | np.isnan(self.event))

    @property
    def labels(self) -> Floats:
        """(n,) what folds are stratified by, beside the arm: yes or no, event or none, above the median or not."""
        if self.event is not None:
            return self.event
        assert self.y is not None
        return self.y if self.scale == "risk" else (self.y > np.median(self.y)).astype(np.float64)

    def take(self, rows: Rows) -> Outcome:
        """Return the outcome of these patients."""
        cut = {key: None if (found := getattr(self, key)) is None else found[rows] for key in ("y", "time", "event")}
        return Outcome(self.name, self.label, self.scale, self.better, horizon=self.horizon, **cut)

    def values(self, treated: Floats) -> Floats:
        """Return (n,) the number that stands for each patient: the outcome, or its pseudo-value within the own arm.

        Within the arm, so that censoring may differ between arms.
        """
        if self.y is not None:
            return self.y
        assert self.time is not None
        assert self.event is not None
        assert self.horizon is not None
        summary: Summary = "survival" if self.scale == "survival" else "restricted_mean"
        found = np.empty(len(self.time))
        for arm in (0.0, 1.0):
            rows = treated == arm
            found[rows] = pseudo_values(self.time[rows], self.event[rows], horizon=self.horizon, summary=summary)
        return found


def read_outcome(cohort: Cohort, endpoint: Endpoint, section: TreatmentSection) -> Outcome:
    """Return the outcome of a cohort's decisions.

    An ordinal endpoint counts by its levels, 0 the worst. A binary endpoint from a follow-up, in which some are
    censored before its horizon, is the share free of the event then.

    Raises:
        StudyError: a time to event without horizon, or a horizon where it has no meaning.
    """
    plain = as_table_endpoint(endpoint)
    label = plain.label or plain.name.replace("_", " ")
    timed = f"{plain.name}.time" in cohort.endpoints
    if not timed:
        if section.horizon is not None:
            raise StudyError(f"treatment.horizon: the endpoint {plain.name!r} has no time; remove it.")
        y = cohort.endpoints[plain.name].to_numpy(dtype=np.float64)
        return Outcome(plain.name, label, "risk" if isinstance(plain, BinaryEndpoint) else "mean", section.better, y=y)
    time, event = (cohort.endpoints[f"{plain.name}.{part}"].to_numpy(dtype=np.float64) for part in ("time", "event"))
    if isinstance(plain, BinaryEndpoint):
        return _of_horizon(plain, time, event, label=label, section=section)
    if section.horizon_days is None:
        raise StudyError(
            f"treatment.horizon is missing: the endpoint {plain.name!r} is a time to event, and arms are compared by the mean "
            "time free of it up to a horizon. Give one that was fixed before the data were seen, e.g. `horizon: 730d`."
        )
    return Outcome(
        plain.name, label, section.summary, section.better, time=time, event=event, horizon=section.horizon_days
    )


def _of_horizon(
    endpoint: BinaryEndpoint, time: Floats, event: Floats, *, label: str, section: TreatmentSection
) -> Outcome:
    """Return a binary endpoint that comes from a follow-up as the share free of the event at its horizon.

    Whether that share should be high follows from which outcome the endpoint calls positive.
    """
    assert endpoint.follow_up is not None
    assert endpoint.horizon is not None
    if section.horizon is not None:
        raise StudyError(f"treatment.horizon: the endpoint {endpoint.name!r} has a horizon of its own; remove it.")
    days = endpoint.horizon * DAYS_PER[endpoint.follow_up.unit]
    turned: Literal["higher", "lower"] = "lower" if section.better == "higher" else "higher"
    better = turned if endpoint.positives == ("event",) else section.better
    return Outcome(endpoint.name, label, "survival", better, time=time, event=event, horizon=days)


def require_follow_up(outcome: Outcome, arm: NDArray[np.object_], *, arms: tuple[str, ...]) -> None:
    """Raise StudyError where an arm has too few patients under observation at the horizon.

    Patients with an event before it count: their outcome at the horizon is known.
    """
    if outcome.time is None or outcome.event is None or outcome.horizon is None:
        return
    for one in arms:
        rows = arm == one
        left = int((outcome.time[rows] >= outcome.horizon).sum())
        if left < LEAST_AT_RISK:
            longest = np.sort(outcome.time[rows])[-LEAST_AT_RISK] if rows.sum() >= LEAST_AT_RISK else 0.0
            raise StudyError(
                f"treatment.horizon: of arm {one!r} {left} patients are still followed at {outcome.horizon:g} days; at least "
                f"{LEAST_AT_RISK} are needed. A horizon of at most {np.floor(longest):g} days would do there."
            )
