"""Checks of values that no living patient can have."""

from __future__ import annotations

import numpy as np

from theracast_data.audit.context import AuditContext, kind_of, numbers, read_columns, site_rows
from theracast_data.audit.findings import Check, Finding, figure, percent
from theracast_data.audit.limits import plausible_range
from theracast_data.cohort import Cohort
from theracast_data.sources import ColumnSpec


def check_plausible_ranges(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column and site with values outside the possible range."""
    findings = []
    rows = site_rows(cohort)
    for name in read_columns(cohort):
        spec = cohort.columns[name]
        limits = plausible_range(name, spec)
        if limits is None or kind_of(cohort, name) != "numeric":
            continue
        given = "the study gives" if isinstance(spec, ColumnSpec) and spec.plausible else "a living patient can have"
        unit = f" {spec.unit}" if isinstance(spec, ColumnSpec) and spec.unit else ""
        for site, at in rows.items():
            inside = numbers(cohort, name)[at]
            low, high = int((inside < limits[0]).sum()), int((inside > limits[1]).sum())
            if not low + high:
                continue
            known = int(np.isfinite(inside).sum())
            findings.append(
                Finding(
                    check="implausible-range",
                    severity="warning",
                    site=site,
                    column=name,
                    message=f"{low + high} of {known} values ({percent((low + high) / known)}) lie outside "
                    f"{figure(limits[0])} to {figure(limits[1])}{unit}, the range {given}: {low} below, {high} above.",
                    why="Slips of the pen, codes for `not known` and other units all look like extreme patients, and a "
                    "linear model follows extremes.",
                    remedy="Correct them in the source, declare codes under `missing`, or widen `plausible` if they "
                    "are "
                    "real; `cap` limits what the model sees.",
                    count=low + high,
                )
            )
    return findings


def check_boolean_values(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return an error for each boolean column that holds anything but 0 and 1."""
    findings = []
    for name in read_columns(cohort):
        if kind_of(cohort, name) != "boolean":
            continue
        values = numbers(cohort, name)
        for site, at in site_rows(cohort).items():
            wrong = int((np.isfinite(values[at]) & ~np.isin(values[at], (0.0, 1.0))).sum())
            if wrong:
                findings.append(
                    Finding(
                        check="implausible-range",
                        severity="error",
                        site=site,
                        column=name,
                        message=f"{wrong} values of a yes-or-no column are neither 0 nor 1.",
                        why="The model would read them as more than yes.",
                        remedy="Map the cells under `levels`, or list them under `missing`.",
                        count=wrong,
                    )
                )
    return findings


CHECKS: tuple[Check, ...] = (check_plausible_ranges, check_boolean_values)
