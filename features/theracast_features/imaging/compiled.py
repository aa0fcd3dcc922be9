"""How inner loops are compiled: by numba, kept on disk between runs, free of the interpreter's lock, on one core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger(__name__)


def compiled(function: F) -> F:
    """Return the function compiled at its first call; later processes read it from the cache."""
    return _compiled(function)


def inlined(function: F) -> F:
    """Return the function compiled into those that call it: where a call with many arrays costs as much as its work."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, *, forceinline: bool = False) -> F:
    try:
        return cast(F, numba.njit(cache=True, nogil=True, forceinline=forceinline)(function))
    except (
        RuntimeError
    ) as error:  # as in a container whose file system is read-only: numba finds no folder for its cache
        if "cannot cache" not in str(error):
            raise
        _tell_once()
        return cast(F, numba.njit(nogil=True, forceinline=forceinline)(function))


@cache
def _tell_once() -> None:
    logger.warning(
        "Compiled code cannot be kept, so each process compiles anew, for seconds at its first call. "
        "Set NUMBA_CACHE_DIR to a folder that this user may write."
    )
