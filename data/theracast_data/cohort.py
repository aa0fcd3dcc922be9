"""Decisions and what is known about them: what every reader returns and every builder starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from theracast_data.sources import ColumnSpec, OneHotSpec

if TYPE_CHECKING:
    from theracast_data.events.access import CohortEvents


@dataclass(frozen=True)
class AttritionStep:
    """How many rows one rule left out, and why."""

    site: str
    reason: str
    dropped: int
    left: int


NO_LONGER_AT_RISK = "no-longer-at-risk"
"""Kind of the note on rows whose endpoint has come already."""


@dataclass(frozen=True)
class ReadingNote:
    """Something the reader met and how it dealt with it.

    `rows` are positions in the cohort. `kind` is one of `unreadable-value`, `unknown-level`, `other-spelling`,
    `converted-unit`, `absent-column`, `contradictory-one-hot`, `duplicate-subject`, `unmatched-subject`,
    `repeated-header`, `outside-inclusion`, `no-longer-at-risk`. The message never holds a patient's value.
    """

    kind: str
    column: str
    site: str | None
    rows: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class Cohort:
    """n decisions with their typed values and, for training, their endpoints. All tables share one RangeIndex.

    Attributes:
        decisions: (n, ...) `subject_id` str, `site` str, `index_time` datetime64 (NaT where unknown), `treatment` str,
            `calendar` float (year, with decimals for a date; NaN where unknown).
        values: (n, n_columns) by the names of `columns`: float64 for numeric (in the spec's unit, not capped) and
            boolean (0/1), str for categorical; missing is NaN.
        endpoints: (n, ...) `NAME` float64 (0/1/NaN) for binary; `NAME.time` float64 days and `NAME.event` float64
            0/1 (2 a competing event) for time-to-event and for a binary endpoint with a horizon; `NAME` float64 for
            continuous; for ordinal `NAME` float64, 0 = worst.
        columns: name to spec.
        attrition: rows left out while reading, in order.
        notes: what the reader met.
        absent: site to the names of columns that its table does not have.
        events: dated facts of the patients, found by the `event_key` of the decisions; None in a study of tables alone.
    """

    decisions: pd.DataFrame
    values: pd.DataFrame
    endpoints: pd.DataFrame
    columns: Mapping[str, ColumnSpec | OneHotSpec]
    attrition: tuple[AttritionStep, ...] = ()
    notes: tuple[ReadingNote, ...] = ()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    events: CohortEvents | None = None

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def sites(self) -> list[str]:
        """Sites in the order in which they were read."""
        return list(dict.fromkeys(self.decisions["site"]))

    def at(self, sites: Sequence[str]) -> Cohort:
        """Return the decisions made at these sites."""
        return self.take(np.flatnonzero(self.decisions["site"].isin(list(sites))))

    def take(self, rows: Any) -> Cohort:
        """Return the decisions at these positions, renumbered from 0; notes keep only their rows."""
        positions = np.asarray(rows, dtype=np.intp)
        new_place = {int(old): new for new, old in enumerate(positions)}
        kept = tuple(
            replace(note, rows=tuple(new_place[row] for row in note.rows if row in new_place))
            for note in self.notes
            if not note.rows or any(row in new_place for row in note.rows)
        )
        return replace(
            self,
            decisions=self.decisions.iloc[positions].reset_index(drop=True),
            values=self.values.iloc[positions].reset_index(drop=True),
            endpoints=self.endpoints.iloc[positions].reset_index(drop=True),
            notes=kept,
        )
