"""Which events a decision may see: those that had happened, and were known, by its index time."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from theracast_data.errors import SchemaError

_ORDER = ("decision", "time", "code", "concept", "numeric_value", "value", "text_value")


def visible_events(events: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Return every event once for every decision that may see it, sorted by decision, time, code and value.

    An event is visible iff `time <= index_time` and `coalesce(available_time, time) <= index_time`. One without a time
    is true of the patient at all times; it is visible unless it became known only later. What reads a window or an order
    leaves it out with `dated`. A decision without index time sees nothing.

    Args:
        events: subject_id, time, optionally available_time, and whatever else the builder reads.
        decisions: subject_id, index_time; several rows of one patient are several decisions.

    Returns:
        The columns of `events`, `decision` (row number in `decisions`, from 0) and `index_time`.

    Raises:
        SchemaError: a column is missing.
    """
    require_columns(events, ("subject_id", "time"), what="events")
    require_columns(decisions, ("subject_id", "index_time"), what="decisions")
    wanted = pd.DataFrame(
        {
            "subject_id": decisions["subject_id"].to_numpy(),
            "index_time": decisions["index_time"].to_numpy(),
            "decision": range(len(decisions)),
        }
    ).dropna(subset=["index_time"])
    joined = events.merge(wanted, on="subject_id", how="inner")
    known = joined["time"]
    if "available_time" in joined:
        known = joined["available_time"].fillna(known)
    happened = joined["time"].isna() | (joined["time"] <= joined["index_time"])
    seen = joined[happened & (known.isna() | (known <= joined["index_time"]))]
    order = [name for name in _ORDER if name in seen]
    return seen.sort_values(order, na_position="first", kind="stable").reset_index(drop=True)


def dated(seen: pd.DataFrame, *, window: pd.Timedelta | None = None) -> pd.DataFrame:
    """Return the rows of `visible_events` that have a time, in a window those with `index_time - window < time`."""
    inside = seen["time"].notna()
    if window is not None:
        inside &= seen["time"] > seen["index_time"] - window
    return seen[inside]


def require_columns(frame: pd.DataFrame, names: tuple[str, ...], *, what: str) -> None:
    """Return nothing if the frame has the columns.

    Raises:
        SchemaError: which of them are missing.
    """
    missing = [name for name in names if name not in frame]
    if missing:
        raise SchemaError(
            f"{what}: the column {', '.join(missing)} is missing. Columns here: {', '.join(map(str, frame.columns))}."
        )


def groups(seen: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the number of each decision that sees an event, and its rows of `visible_events`."""
    for decision, rows in seen.groupby("decision"):
        yield int(str(decision)), rows


def by_decision(rows: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Return rows indexed by decision number as one row for each decision, in order, with the index of `decisions`."""
    return rows.reindex(range(len(decisions))).set_axis(decisions.index, axis=0)


def start_times(decisions: pd.DataFrame, since: str | None) -> list[pd.Timestamp | None]:
    """Return for each decision the time in the column `since`; None where it is missing or no column is named.

    Raises:
        SchemaError: there is no such column.
    """
    if since is None:
        return [None] * len(decisions)
    require_columns(decisions, (since,), what="decisions")
    return [
        None if missing else pd.Timestamp(time)
        for time, missing in zip(decisions[since], decisions[since].isna(), strict=True)
    ]


def since_baseline(seen: pd.DataFrame, start: pd.Timestamp | None) -> pd.DataFrame:
    """Return one decision's dated rows from the last at or before `start` on; all of them without a start.

    Without a value before the start there is no baseline, and what came after it compares with nothing: no rows.
    """
    if start is None:
        return seen
    baseline = seen.loc[seen["time"] <= start, "time"].max()
    from_then: pd.DataFrame = seen[seen["time"] >= baseline]  # no row is at or after a missing time
    return from_then
