"""Items of a reporting checklist or an appraisal tool, answered from a run; as rows of a file or of a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from theracast_training.content import ReportContent

OPEN = "not answered"


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        number: of the item, e.g. `12c`.
        part: section or domain.
        applies: `D` development, `E` evaluation, `D;E` both.
        topic: a few words.
        asks: what is asked, in words of our own.
        answer: what the run says, or `not answered: ...`; of a signalling question it begins with its verdict.
        source: where in the run the answer stands.
    """

    number: str
    part: str
    applies: str
    topic: str
    asks: str
    answer: str
    source: str

    @property
    def answered(self) -> bool:
        """Whether the run says anything."""
        return not self.answer.startswith(OPEN)


def from_statement(content: ReportContent, key: str) -> tuple[str, str]:
    """Return what people said of their study under a key of `statement`, and where; else that nobody said it."""
    told = (content.study.get("statement") or {}).get(key)
    if told:
        return str(told), f"study file, statement.{key}"
    return f"{OPEN}: no data tell this. Say it in statement.{key} of the study file.", ""


def with_statement(content: ReportContent, key: str, found: str, source: str) -> tuple[str, str]:
    """Return what the run found, with what people said under a key of `statement` after it."""
    told, where = from_statement(content, key)
    return (f"{found} {told}", f"{source}; {where}") if where else (found, source)


def items_json(items: Sequence[Item]) -> str:
    """Return the items as JSON."""
    rows = [asdict(item) | {"answered": item.answered} for item in items]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def items_csv(items: Sequence[Item]) -> str:
    """Return the items as CSV with a head; a cell never starts like a formula of a spreadsheet."""
    buffer = io.StringIO()
    names = ["number", "part", "applies", "topic", "asks", "answered", "answer", "source"]
    writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for item in items:
        row = asdict(item) | {"answered": "yes" if item.answered else "no"}
        writer.writerow({name: _plain(str(row[name])) for name in names})
    return buffer.getvalue()


def _plain(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
