"""The record of a run beside its output: what was done to which element of which file, and with which key and options."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from theracast_data.dicom.deidentify_dataset import Counts
from theracast_data.dicom.deidentify_keys import PseudonymKey
from theracast_data.errors import TheracastError

RECORD_FOLDER = "deidentification"
FORMAT_VERSION = 1


class DeidentifyError(TheracastError):
    """A folder cannot be de-identified as asked; nothing was written."""


class RunRecord:
    """The audit list (CSV, a row per file, element and action) and the summary (JSON) of one run.

    It holds no path of the source and no value of an element, only new names, tags, keywords and counts. The list grows
    with the files, so that a large archive needs no memory for it; both files get their names when the run ends.

    Raises:
        DeidentifyError: another key wrote into this folder, or it cannot be made.
    """

    def __init__(self, to: Path, key: PseudonymKey) -> None:
        self._key = key
        folder = to / RECORD_FOLDER
        runs = sorted(folder.glob("run-*.json"))
        for path in runs:
            _require_key(path, key, to)
        number = 1 + max((int(path.stem.removeprefix("run-")) for path in runs), default=0)
        self._list, self._summary = folder / f"run-{number:04d}.csv", folder / f"run-{number:04d}.json"
        self._partial = folder / f".run-{number:04d}.csv.{os.getpid()}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise DeidentifyError(f"{folder}: the record cannot be written ({error.strerror}).") from error
        self._table = csv.writer(self._file)
        self._table.writerow(["file", "tag", "keyword", "action", "elements"])

    def add(self, name: str, counts: Counts) -> None:
        """Note what was done to one file, by its new name."""
        self._table.writerows(
            (name, tag, keyword, str(action), count) for (tag, keyword, action), count in sorted(counts.items())
        )

    def close(self, summary: Mapping[str, Any]) -> None:
        """Put the list in place and, last, the summary."""
        self._file.close()
        self._partial.replace(self._list)
        content = {"format_version": FORMAT_VERSION, "key_fingerprint": self._key.fingerprint, **summary}
        write_whole(self._summary, (json.dumps(content, indent=1) + "\n").encode())


def write_whole(target: Path, content: bytes) -> None:
    """Write a file in one step, so that a stopped run leaves no half of it."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _require_key(path: Path, key: PseudonymKey, to: Path) -> None:
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8")).get("key_fingerprint")
    except (OSError, ValueError, AttributeError):
        raise DeidentifyError(f"{path} cannot be read. Choose a new folder.") from None
    if fingerprint != key.fingerprint:
        raise DeidentifyError(
            f"{to} holds files that another key made: the same patient would appear twice. Choose a new folder."
        )
