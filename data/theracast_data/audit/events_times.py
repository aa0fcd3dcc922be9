"""Checks of the times of events: results before their specimens, facts after death or before birth, unknown report times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from theracast_data.audit.findings import Finding, figure, listing, percent, plural
from theracast_data.decisions.selection import matching
from theracast_data.decisions.windows import DAY, UNDATED, Booleans, EventArrays, Integers
from theracast_data.events.concepts import Concept

SHOWN = 20
REPORTED_LATER = frozenset({"lab", "genomic", "transcriptomic", "pathology", "imaging"})
"""Kinds of data whose result is known hours to weeks after the specimen or the image was taken."""
NEVER = np.iinfo(np.int64).max


def check_result_before_specimen(arrays: EventArrays) -> list[Finding]:
    """Return an error for each code with results that were known before their specimen was taken."""
    early = (arrays.time != UNDATED) & (arrays.available != UNDATED) & (arrays.available < arrays.time)
    # A report date without clock time, on the day of the specimen, is no contradiction.
    early &= ~((arrays.available % DAY == 0) & (arrays.available // DAY == arrays.time // DAY))
    findings = []
    for code, rows in by_code(arrays, early):
        hours = (arrays.time[rows] - arrays.available[rows]) / (DAY / 24)
        findings.append(
            Finding(
                check="result-before-specimen",
                severity="error",
                site=None,
                column=code,
                message=f"{plural(len(rows), 'result')} were available before their time, by "
                f"{figure(float(np.median(hours)))} hours in the median.",
                why="One of the two times is wrong. If the later is right, features see results that nobody had.",
                remedy="Correct the columns of `time` and `available_time` in the reader's mapping (swapped columns and "
                "time zones are the usual causes).",
                count=len(rows),
                subjects=named(arrays, rows),
            )
        )
    return findings


def check_available_time(arrays: EventArrays, concepts: Mapping[str, Concept]) -> list[Finding]:
    """Return a warning for each code of results, by the modality of its concept, without the time they became known."""
    awaited = tuple(
        code for concept in concepts.values() if concept.modality in REPORTED_LATER for code in concept.codes
    )
    chosen = coded(arrays, awaited) & (arrays.time != UNDATED)
    lacking = chosen & (arrays.available == UNDATED)
    findings = []
    for code, rows in by_code(arrays, lacking):
        total = int((chosen & (arrays.code == arrays.codes.index(code))).sum())
        findings.append(
            Finding(
                check="missing-available-time",
                severity="warning",
                site=None,
                column=code,
                message=f"{plural(len(rows), 'result')} of {total:,} ({percent(len(rows) / total)}) do not say when they "
                "became known.",
                why="A result counts as known at the time of its specimen then, hours or weeks before anybody had it.",
                remedy="Map the report time to `available_time` in the source, or let the reader add the usual delay.",
                count=len(rows),
            )
        )
    return findings


def check_after_death(arrays: EventArrays, death: Sequence[str], *, allowed: Sequence[str] = ()) -> list[Finding]:
    """Return a warning for each code with events after the patient's death.

    Args:
        death: codes of death; without clock time it is taken as the end of its day.
        allowed: codes that may follow death, such as an autopsy.
    """
    deaths = coded(arrays, death) & (arrays.time != UNDATED)
    ends = np.where(arrays.date_only, arrays.time + DAY, arrays.time)
    died = np.full(len(arrays.subjects), NEVER)
    np.minimum.at(died, arrays.subject[deaths], ends[deaths])
    late = (arrays.time != UNDATED) & (arrays.time > died[arrays.subject]) & ~coded(arrays, allowed)
    return _beside_life(
        arrays,
        late,
        check="after-death",
        words="after the patient's death",
        why="The date of death or of the event is wrong, or two patients share an identifier; a death that is dated too "
        "early also shortens the follow-up.",
    )


def check_before_birth(arrays: EventArrays, birth: Sequence[str]) -> list[Finding]:
    """Return a warning for each code with events before the patient's birth."""
    births = coded(arrays, birth) & (arrays.time != UNDATED)
    born = np.full(len(arrays.subjects), UNDATED)
    np.maximum.at(born, arrays.subject[births], (arrays.time[births] // DAY) * DAY)
    early = (arrays.time != UNDATED) & (arrays.time < born[arrays.subject])
    return _beside_life(
        arrays,
        early,
        check="before-birth",
        words="before the patient's birth",
        why="The date is a default such as 1900-01-01, or belongs to somebody else (a mother's history in her child's "
        "record).",
    )


def coded(arrays: EventArrays, patterns: Iterable[str]) -> Booleans:
    """Return which events have one of these codes, (n,)."""
    wanted = tuple(patterns)
    per_code = np.array([matching(code, wanted) is not None for code in arrays.codes], dtype=np.bool_)
    return np.asarray(per_code[arrays.code], dtype=np.bool_) if len(arrays) else np.zeros(0, np.bool_)


def by_code(arrays: EventArrays, chosen: Booleans) -> list[tuple[str, Integers]]:
    """Return the rows of the chosen events code by code, most frequent first."""
    rows = np.flatnonzero(chosen)
    found, inverse = np.unique(arrays.code[rows], return_inverse=True)
    groups = [(arrays.codes[code], rows[inverse == number]) for number, code in enumerate(found)]
    return sorted(groups, key=lambda group: (-len(group[1]), group[0]))


def named(arrays: EventArrays, rows: Integers) -> tuple[str, ...]:
    """Return the first identifiers of the patients of these events."""
    return tuple(str(one) for one in arrays.subjects[np.unique(arrays.subject[rows])[:SHOWN]])


def _beside_life(arrays: EventArrays, chosen: Booleans, *, check: str, words: str, why: str) -> list[Finding]:
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return []
    codes = [f"{code} ({len(own)})" for code, own in by_code(arrays, chosen)]
    patients = len(np.unique(arrays.subject[rows]))
    return [
        Finding(
            check=check,
            severity="warning",
            site=None,
            column=None,
            message=f"{plural(len(rows), 'event')} of {plural(patients, 'patient')} {words}: {listing(codes)}.",
            why=why,
            remedy="Correct the dates in the source or refuse these rows in the reader; the patients are under "
            "`subjects` of the JSON report.",
            count=len(rows),
            subjects=named(arrays, rows),
        )
    ]
