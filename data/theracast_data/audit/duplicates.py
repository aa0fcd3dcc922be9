"""Checks for rows that stand in a table twice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from theracast_data.audit.context import AuditContext, Positions, read_columns, site_rows
from theracast_data.audit.findings import Check, Finding, listing, percent, plural
from theracast_data.audit.records import agreement, fields_of
from theracast_data.cohort import Cohort

MARGIN = 3.0
"""Natural logarithm of how much rarer than one in all pairs a chance agreement must be."""


def check_duplicate_rows(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each site with rows that agree in every value, date and outcome, beyond chance."""
    group = identical_rows(cohort)
    if len(np.unique(group)) == len(group):
        return []
    fields = fields_of(cohort, context)
    findings = []
    for site, at in site_rows(cohort).items():
        first_of: dict[int, int] = {}
        couples: list[tuple[int, int]] = []
        for row in at.tolist():
            if int(group[row]) in first_of:
                couples.append((first_of[int(group[row])], row))
            else:
                first_of[int(group[row])] = row
        if not couples or not fields:
            continue
        left, right = (np.array(side, dtype=np.intp) for side in zip(*couples, strict=True))
        weight, _, equal = agreement(fields, left, right)
        pairs = len(at) * (len(at) - 1) / 2
        surprising = np.flatnonzero((weight > np.log(pairs) + MARGIN) & (equal >= 3))
        if not len(surprising):
            continue
        names = cohort.decisions["subject_id"].astype(str).to_list()
        labels = [f"{site}/{names[left[one]]} = {site}/{names[right[one]]}" for one in surprising]
        findings.append(
            Finding(
                check="duplicate-row",
                severity="error" if len(surprising) >= max(5, 0.05 * len(at)) else "warning",
                site=site,
                column=None,
                message=f"{plural(len(surprising), 'row')} of {len(at)} ({percent(len(surprising) / len(at))}) repeat "
                f"another row of the site in every value, date and outcome; less than one such pair is expected by "
                f"chance. First: {listing(labels, limit=3)}.",
                why="The patient counts twice, and stands in the training and the test part of a split under two "
                "identifiers: performance looks too good.",
                remedy="Keep one row of each in the source.",
                count=len(surprising),
                subjects=tuple(labels[:200]),
            )
        )
    return findings


def identical_rows(cohort: Cohort) -> Positions:
    """Return a number for each row that it shares with the rows of the same values, dates and outcomes, (n,).

    Rows with fewer than three known values are never identical to another.
    """
    names = read_columns(cohort)
    dates = [name for name in ("index_time", "calendar", "treatment") if name in cohort.decisions]
    table = pd.concat([cohort.values[names], cohort.endpoints, cohort.decisions[dates]], axis=1)
    codes = np.column_stack([pd.factorize(table[name])[0] for name in table.columns])
    group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.intp)
    scarce = np.flatnonzero(cohort.values[names].notna().sum(axis=1).to_numpy() < 3)
    group[scarce] = group.max(initial=0) + 1 + np.arange(len(scarce))
    return group


CHECKS: tuple[Check, ...] = (check_duplicate_rows,)
