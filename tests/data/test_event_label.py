"""What happens at the end of a time, in the words of the tumour board."""

from __future__ import annotations

import pytest

from theracast_data.endpoints import Endpoint, as_table_endpoint, endpoint_from_json, event_label


def endpoint(name: str, **more: object) -> Endpoint:
    return endpoint_from_json({"name": name, "kind": "time_to_event", "time": "T", "event": "E"} | more)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("os", {}, "death"), ("PFS", {}, "progression or death"), ("ttnt", {}, "the event"),
     ("os", {"event_label": "death from any cause"}, "death from any cause")],
)  # fmt: skip
def test_well_known_times_need_no_words(name: str, given: dict[str, str], expected: str) -> None:
    assert event_label(endpoint(name, **given)) == expected


def test_an_endpoint_from_events_keeps_its_words() -> None:
    first = endpoint_from_json(
        {"name": "next", "kind": "first_event", "events": [{"codes": ["RX//b"]}], "event_label": "a new treatment"}
    )
    assert event_label(first) == event_label(as_table_endpoint(first)) == "a new treatment"
