"""What the reader noted, as findings."""

from __future__ import annotations

from collections import defaultdict

from theracast_data.audit.context import AuditContext, site_rows
from theracast_data.audit.findings import Check, Finding, Severity, percent, plural
from theracast_data.cohort import Cohort

BULK = 0.2
"""Share of a site's decisions from which unreadable values are no slip of single cells any more."""

WHY: dict[str, str] = {
    "unreadable-value": "A cell that is no number is read as missing. If it is a code such as `<5` or `ND`, the "
    "patients "
    "at one end of the scale disappear.",
    "unknown-level": "A category that the study does not list is either another spelling, which splits one level in two, "
    "or one that no model has learnt.",
    "contradictory-one-hot": "More than one category at once: at least one of the columns is wrong.",
    "other-spelling": "The header was matched by its spelling without case and punctuation.",
    "converted-unit": "The values were converted into the unit in which the model works.",
}
REMEDY: dict[str, str] = {
    "unreadable-value": "Correct the cells, or declare the codes under `missing` of the column (or of the source).",
    "unknown-level": "Add the cells to `levels` of the column (as a mapping, where they are another spelling), or to "
    "`missing`.",
    "contradictory-one-hot": "Correct the 0/1 columns in the source.",
    "other-spelling": "Nothing, if it is the right column; else name it exactly in the study.",
    "converted-unit": "Nothing, if the unit in the file is as declared (`source_unit`, `site_units`).",
}


def check_reading_notes(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return the reader's notes as findings, one a kind, column and site; absent columns have their own check."""
    merged: dict[tuple[str, str, str | None], list[tuple[int, str]]] = defaultdict(list)
    for note in cohort.notes:
        if note.kind != "absent-column":
            merged[note.kind, note.column, note.site].append((len(note.rows), note.message))
    sizes = {site: len(rows) for site, rows in site_rows(cohort).items()}
    findings = []
    for (kind, column, site), parts in merged.items():
        count = sum(rows for rows, _ in parts)
        total = len(cohort) if site is None else sizes.get(site, len(cohort))
        share = count / total if total else 0.0
        messages = " ".join(dict.fromkeys(message.rstrip(". ") + "." for _, message in parts))
        concerned = f" Concerns {count} of {plural(total, 'decision')} ({percent(share)})." if count else ""
        findings.append(
            Finding(
                check=kind,
                severity=_severity(kind, share),
                site=site,
                column=column,
                message=messages + concerned,
                why=WHY.get(kind, "The reader had to decide something that the study does not say."),
                remedy=REMEDY.get(kind, "Say in the study what is meant."),
                count=count or None,
            )
        )
    return findings


def _severity(kind: str, share: float) -> Severity:
    if kind == "unreadable-value" and share >= BULK:
        return "error"
    return "warning" if kind in ("unreadable-value", "unknown-level", "contradictory-one-hot") else "note"


CHECKS: tuple[Check, ...] = (check_reading_notes,)
