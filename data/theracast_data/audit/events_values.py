"""Checks of what events say: results that stand there twice, units not understood, values that no living patient has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from theracast_data.audit.events_times import by_code, coded, named
from theracast_data.audit.findings import Finding, Severity, figure, listing, percent, plural
from theracast_data.decisions.section import EventSelector
from theracast_data.decisions.selection import Selection
from theracast_data.decisions.windows import UNDATED, EventArrays
from theracast_data.events.concepts import Concept
from theracast_data.events.normalise import NoteKind, UnitNote, concept_events


def check_duplicate_results(arrays: EventArrays) -> list[Finding]:
    """Return a warning for each code with numbers that stand there twice: same patient, moment, number and unit."""
    measured = np.flatnonzero(np.isfinite(arrays.number) & (arrays.time != UNDATED))
    rows = pd.DataFrame(
        {
            "subject": arrays.subject[measured],
            "time": arrays.time[measured],
            "code": arrays.code[measured],
            "number": arrays.number[measured],
            "unit": arrays.units(measured),
        }
    )
    repeated = np.zeros(len(arrays), np.bool_)
    repeated[measured] = rows.duplicated().to_numpy()
    findings = []
    for code, again in by_code(arrays, repeated):
        total = int((arrays.code[measured] == arrays.codes.index(code)).sum())
        findings.append(
            Finding(
                check="duplicated-result",
                severity="warning",
                site=None,
                column=code,
                message=f"{plural(len(again), 'result')} of {total:,} ({percent(len(again) / total)}) repeat another of "
                "the same patient, moment, number and unit.",
                why="A repeated row counts twice in counts, means and slopes; a doubled export doubles a whole hospital.",
                remedy="Remove the repetition in the source, e.g. the join that made it, or ingest each file once.",
                count=len(again),
                subjects=named(arrays, again),
            )
        )
    return findings


def check_implausible_values(arrays: EventArrays, concepts: Mapping[str, Concept]) -> list[Finding]:
    """Return a warning for each concept with numbers outside its plausible range, in the concept's unit."""
    findings = []
    for name, concept in concepts.items():
        if concept.plausible is None:
            continue
        low, high = concept.plausible
        rows = np.flatnonzero(coded(arrays, concept.codes) & np.isfinite(arrays.number))
        numbers = _in_unit(arrays, name, concept)[rows]
        with np.errstate(invalid="ignore"):
            below, above = rows[numbers < low], rows[numbers > high]
        outside = np.concatenate([below, above])
        if not len(outside):
            continue
        units = Counter(str(unit or "none given") for unit in arrays.units(outside))
        written = [f"{unit} ({count})" for unit, count in units.most_common()]
        findings.append(
            Finding(
                check="implausible-value",
                severity="warning",
                site=None,
                column=name,
                message=f"{plural(len(outside), 'value')} of {len(rows):,} lie outside {figure(low)} to {figure(high)}"
                f"{f' {concept.unit}' if concept.unit else ''}: {len(below)} below, {len(above)} above; "
                f"units as written: {listing(written)}.",
                why="No living patient has such a value: it is another unit, a code for `not known`, or a typing error. "
                "It is not used.",
                remedy="Look the rows up; correct the unit in the source or `assume_unit`, or widen `plausible`.",
                count=len(outside),
                subjects=named(arrays, outside),
            )
        )
    return findings


def check_units(events: pa.Table, concepts: Mapping[str, Concept]) -> list[Finding]:
    """Return a finding for each concept with values that are not used, assumed or mixed, because of their units."""
    by_concept: dict[tuple[str, NoteKind], list[UnitNote]] = {}
    for note in concept_events(events, concepts)[1]:
        if note.kind != "implausible":
            by_concept.setdefault((note.concept, note.kind), []).append(note)
    return [
        Finding(
            check=check,
            severity=severity,
            site=None,
            column=name,
            message=f"{plural(sum(note.count for note in notes), 'value')} {words}: "
            f"{listing([f'{note.unit} ({note.count})' for note in notes]) if notes[0].unit else notes[0].message}",
            why=why,
            remedy=" ".join(dict.fromkeys(note.message[:1].upper() + note.message[1:] for note in notes)),
            count=sum(note.count for note in notes),
        )
        for (name, kind), notes in by_concept.items()
        for check, severity, words, why in [_UNIT_FINDINGS[kind]]
    ]


_LOST = "The feature is missing for these patients, or made from the rest of their values."
_UNIT_FINDINGS: dict[NoteKind, tuple[str, Severity, str, str]] = {
    "no_unit": ("unit-missing", "warning", "have no unit and are not used", _LOST),
    "refused": ("unit-not-convertible", "warning", "have a unit that cannot be converted, and are not used", _LOST),
    "mixed": (
        "mixed-units",
        "error",
        "stand in several units side by side",
        "A model would read the unit of the hospital as the patient's state.",
    ),
    "assumed": (
        "unit-assumed",
        "note",
        "have no unit and are taken in the one that the study assumes",
        "If a hospital writes another unit, its values are wrong by a factor.",
    ),
}


def _in_unit(arrays: EventArrays, name: str, concept: Concept) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the numbers of the concept's events in its unit, (n,); NaN elsewhere and where not convertible."""
    return Selection(arrays, {name: concept}).numbers(EventSelector(concept=name))
