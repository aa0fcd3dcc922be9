"""Follow-up cut into intervals: who was at risk in each, and in which the event came."""

from __future__ import annotations

import numpy as np

from theracast_models.outcomes import Floats

MOST_INTERVALS = 15
EVENTS_AN_INTERVAL = 5


def interval_ends(time: Floats, event: Floats) -> Floats:
    """Return the (m,) rising ends of intervals that hold about as many events each; the last one ends with the last event.

    Args:
        time, event: (n,) days, and 1 event, 0 censored; without events one interval holds all.
    """
    moments = time[event == 1] if (event == 1).any() else time.max(initial=0.0, keepdims=True)
    count = min(max(len(moments) // EVENTS_AN_INTERVAL, 1), MOST_INTERVALS)
    ends = np.quantile(moments, np.arange(1, count + 1) / count, method="inverted_cdf")
    return np.unique(ends.astype(np.float64))


def exposure(time: Floats, event: Floats, ends: Floats) -> tuple[Floats, Floats]:
    """Return who is at risk in each interval, and in which the event comes: both (n, m), 0/1.

    A patient who is censored counts as at risk in an interval of which at least half was lived through. One whose event comes
    after the last interval has lived through all.

    Source: Gensheimer and Narasimhan, PeerJ 2019;7:e6257.
    """
    starts = np.concatenate([[0.0], ends[:-1]])
    place = np.searchsorted(ends, time, side="left")
    columns = np.arange(len(ends))
    comes = ((event == 1)[:, None] & (place[:, None] == columns)).astype(np.float64)
    lived = time[:, None] >= (starts + ends) / 2
    until = columns <= place[:, None]
    return np.where((event == 1)[:, None], until, lived).astype(np.float64), comes
