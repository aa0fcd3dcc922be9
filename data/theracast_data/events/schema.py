"""One event: a dated fact about one patient. The Medical Event Data Standard with a unit and the time it became known.

Source: https://github.com/Medical-Event-Data-Standard/meds (schema 0.4: subject_id, time, code, numeric_value, text_value).
"""

from __future__ import annotations

import pyarrow as pa

EVENT_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us")),  # null: true of the patient at all times, e.g. sex
        pa.field("code", pa.string(), nullable=False),  # SYSTEM//CODE, e.g. LOINC//1751-7
        pa.field("numeric_value", pa.float64()),
        pa.field("text_value", pa.string()),
        pa.field("unit", pa.string()),  # UCUM where the source says it
        pa.field("available_time", pa.timestamp("us")),  # when the value was known; null: at `time`
    ]
)
"""Order within a shard: subject_id, time (null first), code, numeric_value, text_value."""

COLUMNS = tuple(EVENT_SCHEMA.names)


def empty_events() -> pa.Table:
    """Return no events, with all columns."""
    return EVENT_SCHEMA.empty_table()
