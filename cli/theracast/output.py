"""How results leave a command: one JSON object or text on stdout, files whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from theracast_data.errors import TheracastError


def print_json(content: Any) -> None:
    """Print exactly one JSON object."""
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def tell(message: str) -> None:
    """Say something to the person at the terminal, beside the result."""
    print(message, file=sys.stderr)


def require_free(path: Path, *, overwrite: bool) -> None:
    """Raise TheracastError if `path` exists and may not be replaced, or its folder cannot be made."""
    if path.exists() and not overwrite:
        raise TheracastError(f"{path} exists. Give another name, or say --overwrite.")
    if path.is_dir():
        raise TheracastError(f"{path} is a folder. Name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TheracastError(f"{path.parent}: the folder cannot be made ({error.strerror}). Choose another.") from error


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file in one step, so that a stopped command leaves no half of it."""
    require_free(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
