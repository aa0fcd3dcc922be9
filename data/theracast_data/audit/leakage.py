"""Checks of columns that know the outcome: by how well each predicts alone, and by its name."""

from __future__ import annotations

import re

import numpy as np

from theracast_data.audit.chance import auc, auc_bounds
from theracast_data.audit.context import (
    AuditContext,
    Booleans,
    Floats,
    endpoint_values,
    is_feature,
    kind_of,
    missing,
    numbers,
    read_columns,
)
from theracast_data.audit.findings import Check, Finding, Severity, listing
from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint, Endpoint, OrdinalEndpoint, TimeToEventEndpoint

SUSPECT = 0.90
DEFINITE = 0.95
OUTCOME_TOKENS = re.compile(
    r"respon(se|der|ders)|recist|bor|bcor|orr|survival|surv|os|pfs|dfs|efs|rfs|ttp|death|dead|died|deceased|mortality|"
    r"progress(ion|ed)?|relapsed?|recurrence|outcome|followup|pcr|rcb|cycles|numcycles|event|censor(ed)?|cnsr|discontinued"
)
BEFORE_TOKENS = re.compile(r"prior|previous|past|history|hist|family|baseline|before|pre|last|bl|screening")
WHY = (
    "A column that nearly decides the outcome alone is almost always the outcome in another form, or was written down "
    "after it. The model would look brilliant and be useless for the next patient."
)


def check_single_columns(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each feature, or its missingness, that predicts an endpoint too well on its own."""
    developed = np.asarray(cohort.decisions["site"].isin(context.development).to_numpy(), dtype=np.bool_)
    findings: dict[str, Finding] = {}
    for endpoint in context.endpoints:
        label = outcome_label(cohort, endpoint)
        if label is None:
            continue
        for name in read_columns(cohort):
            if not is_feature(cohort, name) or name in findings:
                continue
            for scope, words in ((developed, "in development"), (~developed, "at the other sites")):
                finding = _column_finding(cohort, name, endpoint, label, scope=scope, words=words)
                if finding is not None:
                    findings[name] = finding
                    break
    return list(findings.values())


def check_names(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a warning for each feature whose name speaks of what comes after the decision."""
    findings = []
    for name in read_columns(cohort):
        tokens = name.lower().split("_")
        if not is_feature(cohort, name) or any(BEFORE_TOKENS.fullmatch(token) for token in tokens):
            continue
        telling = [token for token in tokens if OUTCOME_TOKENS.fullmatch(token)]
        if telling:
            findings.append(
                Finding(
                    check="leaking-column",
                    severity="warning",
                    site=None,
                    column=name,
                    message=f"By its name ({listing(telling)}) the column may be known only after the decision.",
                    why="What is recorded after the decision cannot be used to make it.",
                    remedy=f"If so: `features: {{exclude: [{name}]}}` or `role: covariate`. If it is known before, "
                    "accept the finding.",
                )
            )
    return findings


def outcome_label(cohort: Cohort, endpoint: Endpoint) -> Floats | None:
    """Return an endpoint as 0/1/NaN: event by the median follow-up for a time, above the median for a number."""
    if isinstance(endpoint, BinaryEndpoint):
        return endpoint_values(cohort, endpoint.name)
    if isinstance(endpoint, TimeToEventEndpoint):
        time = endpoint_values(cohort, f"{endpoint.name}.time")
        event = endpoint_values(cohort, f"{endpoint.name}.event")
        if time is None or event is None or not np.isfinite(time).any():
            return None
        middle = float(np.nanmedian(time))
        return np.where(time > middle, 0.0, np.where(event == 1, 1.0, np.nan))
    values = endpoint_values(cohort, endpoint.name)
    if values is None or not np.isfinite(values).any():
        return None
    cut = float(np.nanmedian(values))
    high = values >= cut if isinstance(endpoint, OrdinalEndpoint) and (values > cut).sum() == 0 else values > cut
    return np.where(np.isfinite(values), high.astype(float), np.nan)


def _column_finding(
    cohort: Cohort, name: str, endpoint: Endpoint, label: Floats, *, scope: Booleans, words: str
) -> Finding | None:
    known = scope & np.isfinite(label)
    absent = missing(cohort, name)
    measured = known & ~absent
    best: tuple[float, float, str, int] | None = None
    for score, rows, subject in (
        (_score(cohort, name, measured, label), measured, "The column"),
        (absent[known].astype(float), known, "Whether the column is missing"),
    ):
        positive = label[rows] == 1
        if min(positive.sum(), (~positive).sum()) < 10:
            continue
        area = auc(score, positive)
        if kind_of(cohort, name) != "categorical" or subject != "The column":
            area = max(area, 1 - area)
        low = auc_bounds(area, int(positive.sum()), int((~positive).sum()))[0]
        if area >= SUSPECT and low >= SUSPECT - 0.05 and (best is None or area > best[0]):
            best = area, low, subject, len(positive)
    if best is None:
        return None
    area, low, subject, count = best
    severity: Severity = "error" if low >= DEFINITE or (area >= 0.97 and low >= 0.92) else "warning"
    return Finding(
        check="leaking-column",
        severity=severity,
        site=None,
        column=name,
        message=f"{subject} alone tells {endpoint.name} apart with an AUC of {area:.3f} (95 % interval from {low:.3f}; "
        f"{count} decisions {words}).",
        why=WHY,
        remedy=f"Leave it out (`features: {{exclude: [{name}]}}`) unless you can show that it was known before the "
        "decision.",
        count=count,
    )


def _score(cohort: Cohort, name: str, rows: Booleans, label: Floats) -> Floats:
    """Return a numeric column as it is, a category as the outcome rate of the *other* decisions with the same level."""
    if kind_of(cohort, name) != "categorical":
        return numbers(cohort, name)[rows]
    if not rows.any():
        return np.array([])
    _, codes = np.unique(cohort.values[name].to_numpy(dtype=object)[rows].astype(str), return_inverse=True)
    inside = label[rows]
    totals, events = np.bincount(codes), np.bincount(codes, weights=inside)
    mean = float(inside.mean())
    return np.asarray((events[codes] - inside + mean) / (totals[codes] - 1 + 1))


CHECKS: tuple[Check, ...] = (check_single_columns, check_names)
