"""Decisions and endpoints from dated events: declared in the study, counted in the attrition table."""

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
