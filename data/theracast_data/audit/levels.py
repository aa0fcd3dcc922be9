"""Checks of categories: levels that development never saw, rare ones, and levels that mean `not known`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from theracast_data.audit.context import AuditContext, is_feature, kind_of, read_columns, site_rows
from theracast_data.audit.findings import Check, Finding, listing, percent, plural
from theracast_data.cohort import Cohort

RARE = 10
UNKNOWN_WORDS = re.compile(
    r"^(\?+|\.|-+|#?n/?a#?|nan|none given|null|unk|unknown|not (done|known|evaluable|available|reported|assessed)"
    r"|missing|nd|ne|-?9{1,4}|-1)$",
    re.IGNORECASE,
)


def check_unseen_levels(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each external site and column with categories that no development decision has."""
    rows = site_rows(cohort)
    developed = np.flatnonzero(cohort.decisions["site"].isin(context.development))
    findings = []
    for name in _categorical(cohort):
        column = cohort.values[name]
        known = set(column.iloc[developed].dropna())
        for site in context.external:
            if site not in rows or not known:
                continue
            there = column.iloc[rows[site]].dropna()
            counts = there[~there.isin(known)].value_counts()
            if not len(counts):
                continue
            total = int(counts.sum())
            parts = [f"{level} ({count})" for level, count in counts.items()]
            findings.append(
                Finding(
                    check="unseen-level",
                    severity="warning" if is_feature(cohort, name) else "note",
                    site=site,
                    column=name,
                    message=f"{plural(total, 'decision')} of {len(there)} ({percent(total / len(there))}) in levels "
                    "that "
                    f"no development decision has: {listing(parts)}.",
                    why="The model has learnt nothing about these patients; what it answers for them comes from the "
                    "rest "
                    "of their values alone.",
                    remedy="If it is another spelling, map it under `levels` of the column; else judge these patients "
                    "apart or leave them out with `include`.",
                    count=total,
                )
            )
    return findings


def check_rare_levels(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a note for each categorical feature with levels held by fewer than ten development decisions."""
    developed = np.flatnonzero(cohort.decisions["site"].isin(context.development))
    findings = []
    for name in _categorical(cohort):
        if not is_feature(cohort, name):
            continue
        counts = cohort.values[name].iloc[developed].dropna().value_counts()
        rare = counts[counts < RARE]
        if not len(rare):
            continue
        parts = [f"{level} ({count})" for level, count in rare.items()]
        findings.append(
            Finding(
                check="rare-level",
                severity="note",
                site=None,
                column=name,
                message=f"{len(rare)} of {plural(len(counts), 'level')} have fewer than {RARE} development decisions: "
                f"{listing(parts)}.",
                why="Their effect is estimated from a handful of patients.",
                remedy="Join them to a clinically similar level by a mapping under `levels`, or leave it to shrinkage.",
                count=int(rare.sum()),
            )
        )
    return findings


def check_unknown_words(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each categorical column and site with a level that reads like `not known`."""
    findings = []
    for name in _categorical(cohort):
        column = cohort.values[name]
        for site, rows in site_rows(cohort).items():
            there = column.iloc[rows].dropna()
            suspect = [str(level) for level in pd.unique(there) if UNKNOWN_WORDS.match(str(level).strip())]
            if not suspect:
                continue
            count = int(there.isin(suspect).sum())
            findings.append(
                Finding(
                    check="sentinel-value",
                    severity="note",
                    site=site,
                    column=name,
                    message=f"{plural(count, 'decision')} of {len(there)} hold "
                    f"{listing([repr(one) for one in suspect])}, "
                    "which reads like `not known`, as a category of its own.",
                    why="Missing data that count as a level hide from every figure on missingness.",
                    remedy="List it under `missing` of the column, unless the level is meant.",
                    count=count,
                )
            )
    return findings


def _categorical(cohort: Cohort) -> list[str]:
    return [name for name in read_columns(cohort) if kind_of(cohort, name) == "categorical"]


CHECKS: tuple[Check, ...] = (check_unseen_levels, check_rare_levels, check_unknown_words)
