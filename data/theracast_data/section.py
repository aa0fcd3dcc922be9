"""The common ground of every section of the study file: strict, frozen, and helpful about misspelt keys."""

from __future__ import annotations

import difflib
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """One section of a study file. An unknown key is an error; a section never changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, populate_by_name=True)


def describe_faults(error: ValidationError, section: type[Section]) -> str:
    """Return every fault of a section as lines `place: what is wrong`, with the nearest known key for a misspelt one."""
    faults = error.errors()
    places = [fault["loc"] for fault in faults]

    def echoes(fault: Any) -> bool:
        """Return whether a list is only called too short because an item of it is faulty."""
        own = fault["loc"]
        return fault["type"] == "too_short" and any(place[: len(own)] == own and place != own for place in places)

    told = [fault for fault in faults if not echoes(fault)]
    return "\n".join(f"  {_place(fault['loc'])}: {_fault_text(fault, section)}" for fault in told)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(the whole file)"


def _fault_text(fault: Any, section: type[Section]) -> str:
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        known = _known_keys(section, fault["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}."
        return f"unknown key {key!r}. {hint}"
    if fault["type"] == "missing":
        return f"the key {str(fault['loc'][-1])!r} is missing. Add it."
    found = fault.get("input")
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}{shown}"


def _known_keys(section: type[Section], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at `path`, over all alternatives of a union (its tag in the path is passed over)."""
    candidates: list[Any] = [section]
    for part in path:
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(part, str) and _is_section(candidate) and part in candidate.model_fields:
                following += _alternatives(candidate.model_fields[part].annotation)
        candidates = following or candidates
    return [name for candidate in candidates if _is_section(candidate) for name in candidate.model_fields]


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, list):
        return [inner for part in get_args(annotation) for inner in _alternatives(part)]
    if origin is not None:
        return _alternatives(get_args(annotation)[-1])
    return [annotation]
