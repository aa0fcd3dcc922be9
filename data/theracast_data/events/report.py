"""What a reader understood and what it did not: counts by code and reason, never a patient's value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class IngestReport:
    """Counts of one ingestion; readers add to it as they stream.

    Attributes:
        source: name of the source.
        read: records met (rows, resources, lines).
        written: events given on.
        refused: (code or resource type, reason) to how many records were not understood.
        first: (code or resource type, reason) to the position of the first of them, e.g. `labs.csv line 17`.
        note: why nothing was read, if so.
    """

    source: str
    read: int = 0
    written: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    note: str = ""

    def refuse(self, code: str, reason: str, *, position: str, count: int = 1) -> None:
        """Count records that were not understood; `position` says where the first of them stands."""
        self.refused[code, reason] += count
        self.first.setdefault((code, reason), position)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON, most frequent refusal first."""
        return {
            "source": self.source,
            "read": self.read,
            "written": self.written,
            "note": self.note,
            "refused": [
                {"code": code, "reason": reason, "count": count, "first": self.first[code, reason]}
                for (code, reason), count in self.refused.most_common()
            ],
        }

    def to_text(self) -> str:
        """Return the report as lines to read."""
        if self.note:
            return f"{self.source}: {self.note}"
        lines = [f"{self.source}: {self.read} records read, {self.written} events written"]
        lines += [
            f"  not understood: {count} x {code}: {reason} (first: {self.first[code, reason]})"
            for (code, reason), count in self.refused.most_common()
        ]
        return "\n".join(lines)
