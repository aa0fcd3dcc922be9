"""Response by RECIST 1.1 as of a decision, from events that measure single lesions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from theracast_data.events.concepts import Concept
from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import coded_events, column_of, named_columns
from theracast_features.events.start import TreatmentStart, start_step, with_start
from theracast_features.events.therapy import RESPONSE_RANK
from theracast_features.events.visible import by_decision, dated, groups, require_columns, start_times, visible_events
from theracast_features.imaging.best_response import best_overall_response
from theracast_features.imaging.recist import STATUSES, RecistRules, time_points
from theracast_features.naming import label_from_name
from theracast_features.specs import FeatureSpec, feature_name

RecistColumn = Literal[
    "assessments",
    "targets",
    "baseline_mm",
    "last_mm",
    "nadir_mm",
    "change_mm",
    "change_percent",
    "change_mm_per_day",
    "from_nadir_mm",
    "from_nadir_percent",
    "interval_days",
    "days_since_last",
    "new_lesions",
    "response",
    "best_response",
    "progressed",
]
RECIST: tuple[RecistColumn, ...] = get_args(RecistColumn)
_SOURCE = "RECIST 1.1, Eisenhauer EA et al. Eur J Cancer 2009;45:228-247"
_ORDER = "4 complete, 3 partial, 2 stable, 1 progression"
# Label, unit, kind of each.
_MEANINGS: Mapping[RecistColumn, tuple[str, str | None, Kind]] = {
    "assessments": ("assessments, that of the baseline among them", None, "numeric"),
    "targets": ("target lesions", None, "numeric"),
    "baseline_mm": ("sum of diameters at baseline", "mm", "numeric"),
    "last_mm": ("last sum of diameters", "mm", "numeric"),
    "nadir_mm": ("smallest sum of diameters", "mm", "numeric"),
    "change_mm": ("change of the sum from baseline", "mm", "numeric"),
    "change_percent": ("change of the sum from baseline", "%", "numeric"),
    "change_mm_per_day": ("change of the sum from baseline per day", "mm/d", "numeric"),
    "from_nadir_mm": ("change of the sum from the smallest before", "mm", "numeric"),
    "from_nadir_percent": ("change of the sum from the smallest before", "%", "numeric"),
    "interval_days": ("time from baseline to the last sum", "d", "numeric"),
    "days_since_last": ("time since the last sum", "d", "numeric"),
    "new_lesions": ("new lesions so far", None, "boolean"),
    "response": (f"response at the last assessment ({_ORDER})", None, "numeric"),
    "best_response": (f"best response so far, unconfirmed ({_ORDER})", None, "numeric"),
    "progressed": ("progression so far", None, "boolean"),
}


class LesionCodes(Section):
    """One lesion and the events that measure it."""

    name: str = Field(description="Name of the lesion.")
    codes: tuple[str, ...] = Field(
        min_length=1, description="Its codes, SYSTEM//CODE; a final * stands for any ending."
    )
    kind: Literal["target", "non_target"] = Field("target", description="Whether its diameter enters the sum.")
    nodal: bool = Field(False, description="Whether it is a lymph node, whose value is the short axis.")


class RecistSection(Section):
    """Which events measure which lesion. Features are called `image.NAME.last_mm`, `image.NAME.response`, ..."""

    name: str = Field("recist", description="Name in the features.")
    lesions: tuple[LesionCodes, ...] = Field(min_length=1, description="Target and non-target lesions.")
    new_lesion_codes: tuple[str, ...] = Field(
        (), description="Codes of events each of which reports a new lesion; a final * stands for any ending."
    )
    start: TreatmentStart | None = Field(
        None, description="Start of the treatment, for the baseline; by default the first assessment is the baseline."
    )
    visit_days: float = Field(
        14.0, ge=0, description="Events up to this many days (d) after the first of an assessment belong to it."
    )
    columns: tuple[RecistColumn, ...] = Field(RECIST, min_length=1, description="Which become features.")
    min_stable_days: float = Field(
        42.0, ge=0, description="Least time (d) from the start (or the baseline) of stable disease as best."
    )
    rules: RecistRules = Field(default_factory=RecistRules, description="Thresholds, by default those of RECIST 1.1.")

    @field_validator("new_lesion_codes")
    @classmethod
    def _check_new_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_codes(codes)

    @model_validator(mode="after")
    def _check_lesions(self) -> RecistSection:
        _checked_codes(tuple(code for lesion in self.lesions for code in lesion.codes))
        names = [lesion.name for lesion in self.lesions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a lesion has one name and a name one lesion; these stand twice: {', '.join(twice)}")
        return self


def _checked_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [code for code in codes if "//" not in code]
    if wrong:
        raise ValueError(f"write codes as SYSTEM//CODE, e.g. LOINC//33728-7 (found {', '.join(wrong)})")
    return codes


@dataclass(frozen=True)
class RecistBuilder:
    """One `features.recist` of a study; see `EventBuilder`. `concepts` need hold only that of the section's `start`."""

    section: RecistSection
    concepts: Mapping[str, Concept]

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        return {
            str(column): FeatureSpec(
                name=feature_name("imaging", self.section.name, column),
                modality="imaging",
                kind=_MEANINGS[column][2],
                label=f"{label_from_name(self.section.name)}, {_MEANINGS[column][0]}",
                columns=tuple(lesion.name for lesion in self.section.lesions),
                unit=_MEANINGS[column][1],
                role="derived",
                source=_SOURCE,
            )
            for column in dict.fromkeys(self.section.columns)
        }

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the course by RECIST as of each decision."""
        asked = with_start(events, decisions, self.section.start, self.concepts)
        return named_columns(recist_features(self._coded(events), asked, self.section, since="start"), self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which events measure what, from when, and the rule."""
        spec = self._meanings[column_of(name, self._meanings)]
        lesions = [
            f"{one.name} ({one.kind}{', node' if one.nodal else ''}): {', '.join(one.codes)}"
            for one in self.section.lesions
        ]
        return (
            f"lesions: events of the codes of {'; '.join(lesions)}",
            f"new lesions: events of the codes {', '.join(self.section.new_lesion_codes) or '(none given)'}",
            "seen: those up to the decision that were available by then",
            f"assessments: events up to {self.section.visit_days:g} d after the first belong to it",
            start_step(self.section.start, self.concepts) + (", or the first" if self.section.start else ""),
            f"rule: {spec.source}",
        )

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the measurements from the baseline on that the features are made from."""
        asked = with_start(events, decisions, self.section.start, self.concepts)
        used = _assessed(self._coded(events), asked, self.section, since="start")
        return used.drop(columns=["lesion", "kind", "nodal", "visit", "status", "diameter_mm"])

    def _coded(self, events: pa.Table) -> pd.DataFrame:
        patterns = [code for lesion in self.section.lesions for code in lesion.codes] + [*self.section.new_lesion_codes]

        def wanted(code: str) -> bool:
            return bool(_matching(pd.Index([code]), tuple(patterns)))

        chosen: pd.DataFrame = coded_events(events, wanted).to_pandas()
        return chosen


def recist_features(
    events: pd.DataFrame, decisions: pd.DataFrame, section: RecistSection, *, since: str | None = None
) -> pd.DataFrame:
    """Return (n, 16) `RECIST` as of each decision.

    Lengths are in mm (values with the unit cm are converted), times in d. Responses are 4 complete, 3 partial, 2 stable,
    1 progression, and missing where not evaluable. Target lesions are those measured at the baseline; a lesion of another
    kind that is met later only does not count, unless one of `new_lesion_codes` reports it. Without a baseline all is
    missing but the number of assessments, 0.

    Args:
        events: subject_id, time, code, numeric_value; optionally text_value (a word of
            `theracast_features.imaging.recist.STATUSES`, e.g. TOO SMALL TO MEASURE), unit, available_time.
        since: column of `decisions` with the start of treatment: the baseline is the last assessment at or before it.
            Without it, or where it is missing, the first assessment is the baseline.
    """
    used = _assessed(events, decisions, section, since=since)
    frame = used[["decision", "visit", "lesion", "kind", "nodal", "diameter_mm", "status"]].set_axis(
        ["subject_id", "time", "lesion", "kind", "nodal", "diameter_mm", "status"], axis=1
    )
    if frame.empty:
        table = pd.DataFrame(columns=list(RECIST), dtype=np.float64)
    else:
        points = time_points(frame, rules=section.rules)
        starts = start_times(decisions, since)
        rows = {
            int(str(one)): _summary(mine, starts[int(str(one))], section)
            for one, mine in points.groupby("subject_id", sort=False)
        }
        table = pd.DataFrame.from_dict(rows, orient="index", columns=list(RECIST), dtype=np.float64)
        seen = used.groupby("decision")["index_time"].first()
        last = points[points["sum_mm"].notna()].groupby("subject_id")["time"].max()
        last.index = last.index.astype(np.int64)
        table["days_since_last"] = pd.to_timedelta(seen - last).dt.total_seconds() / 86_400
    table = by_decision(table, decisions)
    table["assessments"] = table["assessments"].fillna(0.0)
    return table


def _summary(points: pd.DataFrame, start: pd.Timestamp | None, section: RecistSection) -> tuple[float, ...]:
    """Return `RECIST` of the time points of one decision; the days since the last sum are added by the caller."""
    first, later = points.iloc[0], points.iloc[1:]
    measured = points[points["sum_mm"].notna()]
    last = measured.iloc[-1] if len(measured) else first
    answers = list(later["overall"])
    rank = {**RESPONSE_RANK, "NonCR/NonPD": RESPONSE_RANK["SD"]}
    treated = 0.0 if start is None else (start - first["time"]) / pd.Timedelta(days=1)
    best = best_overall_response(list(later["days"] - treated), answers, min_stable_days=section.min_stable_days)
    days = float(last["days"])
    change = float(last["change_mm"]) if days > 0 else np.nan
    return (
        float(len(points)),
        float(first["targets"]),
        float(first["sum_mm"]),
        float(last["sum_mm"]),
        float(measured["sum_mm"].min()) if len(measured) else np.nan,
        change,
        float(last["change_percent"]) if days > 0 else np.nan,
        change / days if days > 0 else np.nan,
        float(last["from_nadir_mm"]) if days > 0 else np.nan,
        float(last["from_nadir_percent"]) if days > 0 else np.nan,
        days,
        np.nan,
        float(later["new"].any()) if len(later) else np.nan,
        rank.get(answers[-1], np.nan) if answers else np.nan,
        rank.get(best, np.nan),
        float("PD" in answers) if answers else np.nan,
    )


def _assessed(
    events: pd.DataFrame, decisions: pd.DataFrame, section: RecistSection, *, since: str | None
) -> pd.DataFrame:
    """Return the visible events of lesions from the baseline on, one per decision, assessment (`visit`) and lesion.

    Of several in one assessment the last counts, of one moment the largest. Columns: those of the events, `decision`,
    `index_time`, `lesion`, `kind`, `nodal`, `visit` (time of its first event), `status`, `diameter_mm`.
    """
    require_columns(events, ("subject_id", "time", "code", "numeric_value"), what="events")
    named = _named(events, section)
    seen = dated(visible_events(named, decisions))
    seen = _with_sizes(seen).sort_values(
        ["decision", "time", "lesion", "diameter_mm"], na_position="first", kind="stable"
    )
    visit = pd.Series(_visits(seen, pd.Timedelta(days=section.visit_days)), index=seen.index, dtype=seen["time"].dtype)
    seen = seen.assign(visit=visit).drop_duplicates(["decision", "visit", "lesion"], keep="last")
    starts = start_times(decisions, since)
    kept = [seen.iloc[:0], *(_since_baseline(group, starts[decision]) for decision, group in groups(seen))]
    return pd.concat(kept).reset_index(drop=True)


def _since_baseline(seen: pd.DataFrame, start: pd.Timestamp | None) -> pd.DataFrame:
    """Return one decision's rows from the baseline on, of the lesions that were there and of those that are new since."""
    known = (seen["kind"] != "new").to_numpy()
    visits = seen.loc[known & (start is None or (seen["visit"] <= start).to_numpy()), "visit"]
    if visits.empty:
        return seen.iloc[:0]
    baseline = visits.min() if start is None else visits.max()
    there = (seen["visit"] == baseline) & ((seen["kind"] != "target") | seen["diameter_mm"].notna())
    same = seen["lesion"].isin(seen.loc[there, "lesion"]).to_numpy()
    # What a report calls new at the baseline is not new.
    kept: pd.DataFrame = seen[(seen["visit"] >= baseline).to_numpy() & (same == known)]
    return kept


def _named(events: pd.DataFrame, section: RecistSection) -> pd.DataFrame:
    """Return the events of lesions with `lesion`, `kind` and `nodal`; a code that is named twice is the first one's."""
    codes = pd.Index(events["code"].dropna().unique())
    meaning: dict[str, tuple[str, str, bool]] = {}
    wanted = [(one.name, one.kind, one.nodal, one.codes) for one in section.lesions]
    for name, kind, nodal, patterns in wanted:
        for code in _matching(codes, patterns):
            meaning.setdefault(code, (name, kind, nodal))
    for code in _matching(codes, section.new_lesion_codes):
        meaning.setdefault(code, (f"new lesion {code}", "new", False))
    chosen = events[events["code"].isin(list(meaning))]
    parts = [meaning[code] for code in chosen["code"]]
    return chosen.assign(
        lesion=[name for name, _, _ in parts],
        kind=[kind for _, kind, _ in parts],
        nodal=np.array([nodal for _, _, nodal in parts], dtype=bool),
    )


def _matching(codes: pd.Index, patterns: tuple[str, ...]) -> list[str]:
    return [
        code
        for code in codes
        if any(code.startswith(one[:-1]) if one.endswith("*") else code == one for one in patterns)
    ]


_WORDS = {word: meaning for meaning, words in STATUSES.items() for word in words if word}
_TO_MM = {"mm": 1.0, "": 1.0, "cm": 10.0, "m": 1000.0}


def _with_sizes(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the events with `diameter_mm` and `status`; a value that cannot be read makes a lesion not evaluable."""
    unit = seen["unit"].fillna("").str.strip() if "unit" in seen else pd.Series("", index=seen.index)
    size = seen["numeric_value"].astype("float64") * unit.map(_TO_MM).astype("float64")
    size = size.where(np.isfinite(size) & (size >= 0))
    texts = seen["text_value"] if "text_value" in seen else pd.Series(None, index=seen.index, dtype="str")
    words = texts.astype("str").fillna("").str.strip().str.upper()
    state = words.where(words.isin(list(_WORDS)), "")
    # A report of a new lesion says that it is there; of the others nothing is known without number or word.
    silent = (state == "") & size.isna() & (seen["kind"] != "new")
    return seen.assign(diameter_mm=size, status=state.mask(silent, "NOT EVALUABLE"))


def _visits(seen: pd.DataFrame, width: pd.Timedelta) -> list[pd.Timestamp]:
    """Return the time of the first event of each event's assessment; rows are sorted by decision and time."""
    visits: list[pd.Timestamp] = []
    current: tuple[int, pd.Timestamp] | None = None
    for decision, time in zip(seen["decision"], seen["time"], strict=True):
        if current is None or decision != current[0] or time - current[1] > width:
            current = (decision, time)
        visits.append(current[1])
    return visits
