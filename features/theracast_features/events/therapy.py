"""Lines of therapy from drug events, and what a decision knows of them: how many, how long ago, which classes, what for.

A line is a set of drugs given together. A new line begins with a new drug, unless it comes within
`combination_days` of the line's start (it then belongs to the combination) or is a declared substitute; or with any drug
after a pause longer than `gap_days`. Stopping a drug, and going on with fewer, begins none.

The rules follow Hess LM et al. "Defining treatment regimens and lines of therapy using real-world data in oncology",
Future Oncol 2021;17:1865-1877: regimen within a window from the first drug, advance by a new drug or a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import coded_events, column_of, named_columns
from theracast_features.events.visible import by_decision, groups, require_columns, visible_events
from theracast_features.naming import label_from_name
from theracast_features.specs import FeatureSpec, feature_name

DAY = pd.Timedelta(days=1)
Response = Literal["CR", "PR", "SD", "PD"]
RESPONSE_RANK: Mapping[str, float] = {"CR": 4.0, "PR": 3.0, "SD": 2.0, "PD": 1.0}
SOURCE = "Hess LM et al. Future Oncol 2021;17:1865-1877"


class TherapySection(Section):
    """Drugs and rules by which their events become lines of therapy. Features are called `treat.therapy.prior_lines`, ..."""

    drugs: Mapping[str, tuple[str, ...]] = Field(
        min_length=1,
        description="Drug to its codes, SYSTEM//CODE; a final * stands for any ending. Others are no therapy.",
    )
    classes: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Class to its drugs, e.g. checkpoint_inhibitor: [nivolumab]."
    )
    substitutes: tuple[tuple[str, ...], ...] = Field(
        (), description="Drugs that replace one another within a line, e.g. [[cisplatin, carboplatin]]."
    )
    combination_days: float = Field(
        28.0, ge=0, description="A new drug up to this many days (d) after the line's start belongs to it."
    )
    gap_days: float = Field(120.0, gt=0, description="A pause of more days (d) than this ends a line.")
    responses: Mapping[Response, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Response to its codes; SYSTEM//CODE=TEXT where the event's text says it.",
    )

    @field_validator("drugs", "responses")
    @classmethod
    def _check_codes(cls, groups_of_codes: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        wrong = [code for codes in groups_of_codes.values() for code in codes if "//" not in code]
        if wrong:
            raise ValueError(f"write codes as SYSTEM//CODE, e.g. RxNorm//1597876 (found {', '.join(wrong)})")
        return groups_of_codes

    @model_validator(mode="after")
    def _check_drugs(self) -> TherapySection:
        named = [drug for drugs in (*self.classes.values(), *self.substitutes) for drug in drugs]
        unknown = sorted({drug for drug in named if drug not in self.drugs})
        if unknown:
            raise ValueError(f"{', '.join(unknown)} in `classes` or `substitutes` is no drug of `drugs`")
        return self


@dataclass
class Line:
    """One line of therapy.

    Attributes:
        start, end: first and last event of its drugs.
        drugs: in order of their first event, substitutes included.
    """

    start: pd.Timestamp
    end: pd.Timestamp
    drugs: list[str] = field(default_factory=list)


def therapy_lines(events: pd.DataFrame, section: TherapySection) -> pd.DataFrame:
    """Return every patient's lines: subject_id, line (from 1), start, end, drugs (joined by +, sorted).

    All events are used: as of a decision, give only those it may see (`theracast_features.events.visible`).

    Args:
        events: subject_id, time, code; events without time or of other drugs are passed over.
    """
    require_columns(events, ("subject_id", "time", "code"), what="events")
    doses = _named(events, section.drugs, "drug").dropna(subset=["time"])
    rows = [
        {
            "subject_id": subject,
            "line": number,
            "start": line.start,
            "end": line.end,
            "drugs": "+".join(sorted(line.drugs)),
        }
        for subject, mine in doses.groupby("subject_id")
        for number, line in enumerate(_lines(mine, section), start=1)
    ]
    return pd.DataFrame(rows, columns=["subject_id", "line", "start", "end", "drugs"])


def therapy_features(events: pd.DataFrame, decisions: pd.DataFrame, section: TherapySection) -> pd.DataFrame:
    """Return one row a decision on the therapy before it.

    What is given at the very index time is the treatment that is being decided, not history; so only events with
    `time < index_time` count, among those visible.

    Columns: `prior_lines` (number; 0 where no drug was seen), `prior_drugs` (number of different drugs),
    `days_since_last` and `days_since_first` dose (d), `last_line_days` (d, first to last dose of the last line),
    `CLASS.before` (1, 0), `CLASS.last_line` (1, 0; missing without a line), `best_response` over all lines and
    `best_response.last_line` (4 CR, 3 PR, 2 SD, 1 PD; missing where none was recorded). A response belongs to the line
    that had begun before it and is followed by no other yet.

    Args:
        events: subject_id, time, code; optionally available_time and text_value.
    """
    require_columns(events, ("subject_id", "time", "code"), what="events")
    doses, answers = therapy_history(events, decisions, section)
    responses = dict(groups(answers))
    rows = {
        decision: _summary(_lines(mine, section), mine, responses.get(decision), section)
        for decision, mine in groups(doses)
    }
    columns = list(_summary([], doses.iloc[:0], None, section))
    table = by_decision(pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=np.float64), decisions)
    nothing = ["prior_lines", "prior_drugs", *(f"{name}.before" for name in section.classes)]
    return table.fillna(dict.fromkeys(nothing, 0.0))


def therapy_history(
    events: pd.DataFrame, decisions: pd.DataFrame, section: TherapySection
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the doses (with `drug`) and the responses (with `response`) before each decision, as `visible_events` does."""
    codes = {str(name): codes for name, codes in section.responses.items()}
    return (
        _history(_named(events, section.drugs, "drug"), decisions),
        _history(_named(events, codes, "response"), decisions),
    )


@dataclass(frozen=True)
class TherapyBuilder:
    """The `features.therapy` of a study; see `EventBuilder`."""

    section: TherapySection

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        every = tuple(self.section.drugs)
        meanings = {
            "prior_lines": _spec("prior_lines", "Lines of therapy before", every),
            "prior_drugs": _spec("prior_drugs", "Different drugs before", every),
            "days_since_last": _spec("days_since_last", "Days since the last dose", every, unit="d"),
            "days_since_first": _spec("days_since_first", "Days since the first dose", every, unit="d"),
            "last_line_days": _spec("last_line_days", "Length of the last line of therapy", every, unit="d"),
        }
        for name, drugs in self.section.classes.items():
            label = label_from_name(name)
            meanings[f"{name}.before"] = _spec(f"{name}.before", f"{label} before", drugs, kind="boolean")
            meanings[f"{name}.last_line"] = _spec(
                f"{name}.last_line", f"{label} in the last line", drugs, kind="boolean"
            )
        if self.section.responses:
            scale = "(4 CR, 3 PR, 2 SD, 1 PD)"
            meanings["best_response"] = _spec("best_response", f"Best response before {scale}", every)
            meanings["best_response.last_line"] = _spec(
                "best_response.last_line", f"Best response to the last line {scale}", every
            )
        return meanings

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the therapy before each decision."""
        return named_columns(therapy_features(self._own(events), decisions, self.section), self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which codes are drugs, and how doses become lines."""
        rule = self.section
        column = column_of(name, self._meanings)
        steps = [
            f"{drug}: events of the codes {', '.join(rule.drugs[drug])}" for drug in self._meanings[column].columns
        ]
        if column.startswith("best_response"):
            steps += [f"{answer}: events of the codes {', '.join(codes)}" for answer, codes in rule.responses.items()]
        steps += [
            "seen: those before the decision that were available by then; what is given at its very moment is decided on",
            f"a line begins with a new drug more than {rule.combination_days:g} d after the line's start, or after a pause "
            f"of more than {rule.gap_days:g} d ({SOURCE})",
        ]
        return tuple(steps)

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the doses with their drug; for a class before, those of its drugs; for responses, these too."""
        column = column_of(name, self._meanings)
        doses, responses = therapy_history(self._own(events), decisions, self.section)
        if column.endswith(".before"):
            return doses[doses["drug"].isin(self._meanings[column].columns)]
        if not column.startswith("best_response"):
            return doses
        return pd.concat([doses, responses]).sort_values(["decision", "time"], kind="stable")

    def _own(self, events: pa.Table) -> pd.DataFrame:
        named = (*self.section.drugs.values(), *self.section.responses.values())
        patterns = [pattern.partition("=")[0] for codes in named for pattern in codes]
        exact = {pattern for pattern in patterns if not pattern.endswith("*")}
        starts = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
        own: pd.DataFrame = coded_events(events, lambda code: code in exact or code.startswith(starts)).to_pandas()
        return own


def _spec(
    column: str, label: str, drugs: tuple[str, ...], *, unit: str | None = None, kind: Kind = "numeric"
) -> FeatureSpec:
    return FeatureSpec(
        name=feature_name("treatment", "therapy", column),
        modality="treatment",
        kind=kind,
        label=label,
        columns=drugs,
        unit=unit,
        role="derived",
        source=SOURCE,
    )


def _history(events: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the visible events before the index time of each decision; those without time have no place in an order."""
    seen = visible_events(events, decisions)
    return seen[seen["time"] < seen["index_time"]]


def _named(events: pd.DataFrame, names: Mapping[str, tuple[str, ...]], column: str) -> pd.DataFrame:
    """Return the events whose code has a name, once for each of its names."""
    texts = events["text_value"] if "text_value" in events else pd.Series(None, index=events.index, dtype=object)
    parts = []
    for name, patterns in names.items():
        matching = pd.Series(False, index=events.index)
        for pattern in patterns:
            code, _, text = pattern.partition("=")
            found = events["code"].str.startswith(code[:-1]) if code.endswith("*") else events["code"] == code
            matching |= (found & (texts == text)) if text else found
        parts.append(events[matching.to_numpy(dtype=bool)].assign(**{column: name}))
    return pd.concat(parts) if parts else events.iloc[:0].assign(**{column: ""})


def _lines(doses: pd.DataFrame, section: TherapySection) -> list[Line]:
    """Return the lines of one patient's doses, which need no order."""
    alike = {drug: set(group) for group in section.substitutes for drug in group}
    lines: list[Line] = []
    ordered = doses.sort_values(["time", "drug"])
    for time, drug in zip(ordered["time"], ordered["drug"], strict=True):
        line = lines[-1] if lines else None
        if line is None or (time - line.end) / DAY > section.gap_days:
            lines.append(Line(time, time, [drug]))
            continue
        belongs = drug in line.drugs or (time - line.start) / DAY <= section.combination_days
        if not belongs and alike.get(drug, set()).isdisjoint(line.drugs):
            lines.append(Line(time, time, [drug]))
            continue
        line.end = time
        if drug not in line.drugs:
            line.drugs.append(drug)
    return lines


def _summary(
    lines: list[Line], doses: pd.DataFrame, responses: pd.DataFrame | None, section: TherapySection
) -> dict[str, float]:
    """Return the columns of one decision."""
    last = lines[-1] if lines else None
    row = {
        "prior_lines": float(len(lines)),
        "prior_drugs": float(doses["drug"].nunique()),
        "days_since_last": np.nan,
        "days_since_first": np.nan,
        "last_line_days": np.nan,
    }
    if last:
        index_time = doses["index_time"].iloc[0]
        row["days_since_last"] = float((index_time - last.end) / DAY)
        row["days_since_first"] = float((index_time - lines[0].start) / DAY)
        row["last_line_days"] = float((last.end - last.start) / DAY)
    given = set(doses["drug"])
    for name, drugs in section.classes.items():
        row[f"{name}.before"] = float(not given.isdisjoint(drugs))
        row[f"{name}.last_line"] = float(not set(last.drugs).isdisjoint(drugs)) if last else np.nan
    row["best_response"] = _best(responses, lines[0].start if last else None)
    row["best_response.last_line"] = _best(responses, last.start if last else None)
    return row


def _best(responses: pd.DataFrame | None, after: pd.Timestamp | None) -> float:
    """Return the rank of the best response later than `after`; NaN without one."""
    if responses is None or after is None:
        return np.nan
    return float(responses.loc[responses["time"] > after, "response"].map(RESPONSE_RANK).max())
