"""Decisions and endpoints from dated events: declared in the study, counted in the attrition table.

The names are loaded when they are asked for: the sections belong to the study's inputs, which the rest builds upon.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theracast_data.decisions.attrition import merge_attrition
    from theracast_data.decisions.endpoints import derive_event_endpoints
    from theracast_data.decisions.section import DecisionSection, EventEndpoints
    from theracast_data.decisions.trigger import Decisions, derive_decisions

__all__ = [
    "DecisionSection",
    "Decisions",
    "EventEndpoints",
    "derive_decisions",
    "derive_event_endpoints",
    "merge_attrition",
]

_PLACES = {
    "DecisionSection": "section",
    "Decisions": "trigger",
    "EventEndpoints": "section",
    "derive_decisions": "trigger",
    "derive_event_endpoints": "endpoints",
    "merge_attrition": "attrition",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
