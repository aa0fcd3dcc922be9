"""A number per patient in place of a censored time: pseudo-observations of the share still without the event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from theracast_models.logodds import Floats


def survival_shares(time: Floats, event: Floats, *, horizons: Sequence[float]) -> Floats:
    """Return (n, K) pseudo-observations of being without the event at each of K horizons.

    Their mean over all n is the Kaplan-Meier estimate, exactly; over a group of patients it estimates the group's
    share, as long as censoring does not depend on what makes the group. A single one may lie below 0 or above 1.

    Args:
        time, event: (n,) days, above 0; 1 event, 0 censored.
        horizons: K days.

    Source: Andersen, Klein, Rosthoj, Biometrika 2003;90:15-27; by the influence function in place of n estimates with
    one patient left out (infinitesimal jackknife: Parner, Andersen, Overgaard, Lifetime Data Anal 2023;29:654-671).
    """
    n = len(time)
    moments, place = np.unique(time, return_inverse=True)
    at_risk = n - np.searchsorted(np.sort(time), moments, side="left")
    events = np.bincount(place, weights=event, minlength=len(moments))
    hazard = events / at_risk
    survival = np.cumprod(1.0 - hazard)
    left = np.maximum(1.0 - hazard, 1e-12)  # the last one at risk died: nothing is left to share
    jump = n * event / (at_risk * left)[place]
    paid = np.cumsum(n * hazard / (at_risk * left))
    result = np.empty((n, len(horizons)))
    for column, horizon in enumerate(horizons):
        last = int(np.searchsorted(moments, horizon, side="right")) - 1
        if last < 0:
            result[:, column] = 1.0
            continue
        up_to = paid[np.minimum(place, last)]
        died = np.where(time <= horizon, jump, 0.0)
        result[:, column] = survival[last] * (1.0 - died + up_to)
    return result
