"""How inner loops are compiled: by numba, kept on disk between runs, free of the interpreter's lock, on one core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return the function compiled at its first call; later processes read it from the cache."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
