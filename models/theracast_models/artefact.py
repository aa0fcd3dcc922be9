"""The folder of a saved model: plain files, listed with their hashes, audited before anything is made of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from theracast_data.errors import ArtifactError

FORMAT = "theracast-response-model"
VERSION = 3
OLDEST_READABLE = 1
INDEX = "format.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_LARGEST_INDEX = 4_000_000


def write_artefact(folder: Path, write: Callable[[Path], None], *, created: str | None) -> str:
    """Write a model folder in one step and return its digest: all of it is there, or nothing.

    Args:
        folder: must not exist.
        write: writes the model's files into an empty folder.
        created: ISO time that the index carries.

    Raises:
        ArtifactError: the folder exists.
    """
    if folder.exists() or folder.is_symlink():
        raise ArtifactError(f"{folder}: there is something already. Choose another folder, or remove this one first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".saving", dir=folder.parent))
    try:
        write(draft)
        content = _index_content(draft, created=created)
        (draft / INDEX).write_bytes(_rendered(content))
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: could not be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return str(content["digest"])


def audit_artefact(folder: Path) -> dict[str, Any]:
    """Return the index of a model folder after every file in it was found as it was saved.

    Raises:
        ArtifactError: not a model folder; saved by a newer Theracast; damaged, incomplete or added to.
    """
    content = _read_index(folder)
    _check_version(folder, content)
    _check_digest(folder, content)
    listed: dict[str, Any] = content["files"]
    present = _files_in(folder)
    faults = [f"{name} is missing" for name in sorted(set(listed) - set(present))]
    faults += [f"{name} does not belong to it" for name in sorted(set(present) - set(listed))]
    faults += [
        f"{name} {fault}"
        for name in sorted(set(listed) & set(present))
        if (fault := _fault(present[name], listed[name]))
    ]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ArtifactError(
            f"{folder}: this is not the folder that was saved: {'; '.join(faults[:5])}{more}. "
            "Take the model from where it was saved or from the registry again."
        )
    return content


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: there is no such folder. Name the folder of a saved model.")
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"{folder}: this is not a Theracast model, for it has no {INDEX}. Name the folder that `train` wrote, or a "
            "models:/ URI."
        )
    damaged = f"{path}: damaged or not by Theracast. Take the model from where it was saved again."
    if path.stat().st_size > _LARGEST_INDEX:
        raise ArtifactError(damaged)
    raw = path.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(damaged) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(
            f"{folder}: this is not a Theracast model; its {INDEX} does not say {FORMAT!r}. Name the folder that "
            "`train` wrote, or a models:/ URI."
        )
    number = content.get("version")
    if isinstance(number, int) and number <= VERSION and raw != _rendered(content):
        raise ArtifactError(damaged)
    return content


def _check_version(folder: Path, content: dict[str, Any]) -> None:
    number = content.get("version")
    if not isinstance(number, int) or isinstance(number, bool) or number < OLDEST_READABLE:
        raise ArtifactError(
            f"{folder}: the format version in {INDEX} is not one that this Theracast reads "
            f"({OLDEST_READABLE} to {VERSION}). Take the model from where it was saved again, or train it again."
        )
    if number > VERSION:
        writer = content.get("theracast")
        needed = writer if isinstance(writer, str) and re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", writer) else "a newer one"
        raise ArtifactError(
            f"{folder}: saved in format {number} by Theracast {needed}; this is Theracast "
            f"{installed_version('theracast')}, which reads formats up to {VERSION}. Use Theracast {needed} or later."
        )


def _check_digest(folder: Path, content: dict[str, Any]) -> None:
    if set(content) != {"format", "version", "theracast", "created", "files", "digest"}:
        raise ArtifactError(f"{folder / INDEX}: damaged; entries are missing or were added. Take the model again.")
    if content["digest"] != _digest(content):
        raise ArtifactError(
            f"{folder / INDEX}: damaged or changed by hand, for its digest is another. Take the model from where it "
            "was saved or from the registry again."
        )
    files = content["files"]
    if not isinstance(files, dict) or not all(_safe(name) and _entry(entry) for name, entry in files.items()):
        raise ArtifactError(f"{folder / INDEX}: lists files that no model has. Do not use this folder.")


def _safe(name: str) -> bool:
    """Return whether a listed name stays inside the folder: plain parts, no `..`, no absolute path."""
    return _NAME.fullmatch(name) is not None and ".." not in name.split("/") and name != INDEX


def _entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)


def _index_content(folder: Path, *, created: str | None) -> dict[str, Any]:
    files = {name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for name, path in _files_in(folder).items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "theracast": installed_version("theracast"),
        "created": created,
        "files": dict(sorted(files.items())),
    }
    return content | {"digest": _digest(content)}


def _files_in(folder: Path) -> dict[str, Path]:
    """Return every file below the folder but the index; links and other things that are no plain files are refused."""
    found = {}
    for root, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ArtifactError(f"{folder}: {relative} is a link or no plain file. A model holds plain files only.")
            if path.is_file() and relative != INDEX:
                found[relative] = path
    return found


def _fault(path: Path, entry: dict[str, Any]) -> str | None:
    size = path.stat().st_size
    if size != entry["bytes"]:
        return "is cut short" if size < entry["bytes"] else "is longer than it was"
    return None if _sha256(path) == entry["sha256"] else "was changed"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: dict[str, Any]) -> str:
    protected = {key: value for key, value in content.items() if key != "digest"}
    canonical = json.dumps(protected, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _rendered(content: dict[str, Any]) -> bytes:
    """Return the one way in which an index is written, so that no byte of it can differ unnoticed."""
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode("ascii")
