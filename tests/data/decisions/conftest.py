"""Events written as short lines."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pytest

from theracast_data.events.schema import EVENT_SCHEMA


@pytest.fixture(scope="session")
def table() -> Callable[..., pa.Table]:
    """A function from rows (patient, time, code, number, text, unit, available) to events; later cells may be left out."""
    return event_table


def event_table(*rows: tuple[object, ...]) -> pa.Table:
    filled = [(*row, *[None] * (7 - len(row))) for row in rows]
    columns = {name: [row[place] for row in filled] for place, name in enumerate(EVENT_SCHEMA.names)}
    for name in ("time", "available_time"):
        columns[name] = [None if one is None else pd.Timestamp(one).to_pydatetime() for one in columns[name]]
    return pa.table(columns, schema=EVENT_SCHEMA)
