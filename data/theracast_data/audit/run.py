"""The audit: every check on one cohort, acceptances applied, one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
import pyarrow as pa

from theracast_data.audit import (
    disguise,
    duplicates,
    leakage,
    levels,
    linkage,
    missingness,
    outcomes,
    ranges,
    reading,
    scales,
    survival,
)
from theracast_data.audit.context import AuditContext, missing, read_columns, site_rows
from theracast_data.audit.findings import SEVERITIES, Check, Finding
from theracast_data.audit.report import AuditReport
from theracast_data.audit.section import Acceptance, OutcomeCodes
from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.events.access import KEY
from theracast_data.events.schema import empty_events

MOST_EVENTS = 5_000_000
CHECKS: tuple[Check, ...] = (
    *scales.CHECKS,
    *ranges.CHECKS,
    *survival.CHECKS,
    *outcomes.CHECKS,
    *leakage.CHECKS,
    *linkage.CHECKS,
    *duplicates.CHECKS,
    *reading.CHECKS,
    *disguise.CHECKS,
    *levels.CHECKS,
    *missingness.CHECKS,
)

EXPLAINED_BY: dict[str, tuple[str, ...]] = {
    "implausible-range": ("unit-shift", "sentinel-value"),
    "location-shift": ("unit-shift", "constant-at-site"),
    "coarser-at-site": ("unit-shift",),
    "repeated-value": ("sentinel-value",),
    "small-sample": ("outcome-missing",),
}
"""Checks whose finding says nothing new where another one has spoken on the same column and site."""


def audit(
    cohort: Cohort,
    *,
    development: Sequence[str],
    external: Sequence[str],
    endpoints: Sequence[Endpoint],
    accept: Sequence[Acceptance] = (),
    outcomes: Sequence[OutcomeCodes] = (),
    made: Callable[[], Sequence[Finding]] = tuple,
) -> AuditReport:
    """Return what a careful statistician would find in the cohort before modelling.

    Args:
        cohort: read with `strict=False`, so that unreadable cells are reported here instead of raised.
        development: sites that develop the model; empty for all that are not external.
        external: sites that judge it.
        endpoints: what is predicted, the primary one first.
        accept: findings that the study knows and accepts; one that matches nothing gives the note
            `unused-acceptance`.
        outcomes: how the outcomes show themselves in the events.
        made: gives what is wrong with the features and folds made from the cohort, by those who make them.
    """
    context = AuditContext.of(cohort, development=development, external=external, endpoints=endpoints)
    found = _without_explained([finding for check in CHECKS for finding in check(cohort, context)])
    found += [*event_findings(cohort, outcomes), *made()]
    still_open, accepted = apply_acceptances(found, accept)
    return AuditReport(
        findings=tuple(sorted(still_open, key=lambda finding: SEVERITIES.index(finding.severity))),
        accepted=tuple(accepted),
        attrition=cohort.attrition,
        missingness=missingness_table(cohort),
        decisions={site: len(rows) for site, rows in site_rows(cohort).items()},
        development=context.development,
        external=context.external,
    )


def event_findings(cohort: Cohort, outcomes: Sequence[OutcomeCodes] = ()) -> list[Finding]:
    """Return what is wrong with the events of a cohort; whole shards, until there are enough of them to judge by."""
    if cohort.events is None:
        return []
    from theracast_data.audit.events import audit_events  # the study of tables alone needs none of it

    taken: list[pa.Table] = []
    left_out = 0
    for shard in cohort.events.shards():
        if sum(part.num_rows for part in taken) < MOST_EVENTS:
            taken.append(shard)
        else:
            left_out += shard.num_rows
    events = pa.concat_tables(taken) if taken else empty_events()
    decisions = cohort.decisions.assign(subject_id=cohort.decisions[KEY])
    found = audit_events(events, concepts=cohort.events.concepts, decisions=decisions, outcomes=outcomes)
    if left_out:
        found.append(
            Finding(
                check="events-in-part",
                severity="note",
                site=None,
                column=None,
                message=f"{events.num_rows:,} events were audited, {left_out:,} were not: whole patients, in no order.",
                why="A fault that is rare or of one hospital alone may lie in the rest.",
                remedy="Audit such a hospital's events in a store of their own.",
            )
        )
    return found


def missingness_table(cohort: Cohort) -> pd.DataFrame:
    """Return the share missing, (columns x sites)."""
    rows = site_rows(cohort)
    shares = {
        name: {site: float(missing(cohort, name)[positions].mean()) for site, positions in rows.items()}
        for name in read_columns(cohort)
    }
    return pd.DataFrame.from_dict(shares, orient="index", columns=list(rows), dtype="float64")


def apply_acceptances(findings: Sequence[Finding], accept: Sequence[Acceptance]) -> tuple[list[Finding], list[Finding]]:
    """Return open and accepted findings; an acceptance that matches nothing becomes a note among the open ones."""
    still_open: list[Finding] = []
    accepted: list[Finding] = []
    used: set[int] = set()
    for finding in findings:
        matching = [number for number, acceptance in enumerate(accept) if _matches(acceptance, finding)]
        used.update(matching)
        if matching:
            accepted.append(replace(finding, accepted=accept[matching[0]].reason))
        else:
            still_open.append(finding)
    still_open += [_unused(acceptance) for number, acceptance in enumerate(accept) if number not in used]
    return still_open, accepted


def _matches(acceptance: Acceptance, finding: Finding) -> bool:
    return (
        acceptance.check == finding.check
        and acceptance.column in (None, finding.column)
        and acceptance.site in (None, finding.site)
    )


def _unused(acceptance: Acceptance) -> Finding:
    return Finding(
        check="unused-acceptance",
        severity="note",
        site=acceptance.site,
        column=acceptance.column,
        message=f"The study accepts {acceptance.check}, but the audit does not find it here.",
        why="An acceptance that outlives its finding would silence a later, different fault.",
        remedy="Remove the entry from `accept`, or correct its check, column or site.",
    )


def _without_explained(findings: Sequence[Finding]) -> list[Finding]:
    spoken = {(finding.check, finding.site, finding.column) for finding in findings}
    return [
        finding
        for finding in findings
        if not any(
            (explanation, finding.site, finding.column) in spoken for explanation in EXPLAINED_BY.get(finding.check, ())
        )
    ]
