"""Checks of how many outcomes there are, and how their frequency differs between sites."""

from __future__ import annotations

import numpy as np

from theracast_data.audit.chance import rates_p
from theracast_data.audit.context import AuditContext, endpoint_values, is_feature, own_labels, read_columns, site_rows
from theracast_data.audit.findings import Check, Finding, percent, plural
from theracast_data.cohort import Cohort

ENOUGH = 100
"""Events, and non-events, for a validation worth its name. Vergouwe et al., J Clin Epidemiol 2005;58:475-83."""
PER_COLUMN = 10


def check_prevalence(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a note for each external site where a binary outcome is more or less frequent than in development."""
    findings = []
    rows = site_rows(cohort)
    for endpoint in context.binary:
        label = endpoint_values(cohort, endpoint.name)
        if label is None:
            continue
        developed = label[cohort.decisions["site"].isin(context.development)]
        developed = developed[np.isfinite(developed)]
        for site in context.external:
            there = label[rows[site]] if site in rows else np.array([])
            there = there[np.isfinite(there)]
            if not len(there) or not len(developed):
                continue
            gap = float(there.mean() - developed.mean())
            totals = np.array([len(there), len(developed)], float)
            if abs(gap) < 0.1 or rates_p(np.array([there.sum(), developed.sum()]), totals) > 0.01:
                continue
            findings.append(
                Finding(
                    check="outcome-prevalence",
                    severity="note",
                    site=site,
                    column=endpoint.name,
                    message=f"Yes in {percent(float(there.mean()))} of {len(there)} decisions, against "
                    f"{percent(float(developed.mean()))} of {len(developed)} in development.",
                    why="Expect the predicted probabilities to be off by that difference, and AUPRC and net benefit "
                    "not "
                    "to be comparable between the sites.",
                    remedy="Ask whether patients or the rule of the endpoint differ; read the calibration intercept "
                    "there.",
                    count=len(there),
                )
            )
    return findings


def check_sample_sizes(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a note for each site with too few outcomes to validate on, and one for too many columns to learn from."""
    findings = []
    rows = site_rows(cohort)
    for endpoint in context.binary[:1]:
        label = endpoint_values(cohort, endpoint.name)
        if label is None:
            continue
        for site in context.external:
            there = label[rows[site]] if site in rows else np.array([])
            yes, no = int((there == 1).sum()), int((there == 0).sum())
            if min(yes, no) < ENOUGH and yes + no:
                findings.append(_too_few(site, endpoint.name, yes, no))
        developed = label[cohort.decisions["site"].isin(context.development)]
        fewer = int(min((developed == 1).sum(), (developed == 0).sum()))
        columns = sum(is_feature(cohort, name) for name in read_columns(cohort))
        if fewer < PER_COLUMN * columns and len(developed):
            findings.append(_too_many_columns(endpoint.name, fewer, columns))
    return findings


def check_missing_outcomes(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each binary endpoint and site with decisions whose outcome is not known."""
    findings = []
    for endpoint, label in own_labels(cohort, context):
        for site, at in site_rows(cohort).items():
            count = int((~np.isfinite(label[at])).sum())
            share = count / len(at)
            if not count:
                continue
            findings.append(
                Finding(
                    check="outcome-missing",
                    severity="warning" if share >= 0.1 and site in context.development + context.external else "note",
                    site=site,
                    column=endpoint.name,
                    message=f"The outcome of {count} of {plural(len(at), 'decision')} ({percent(share)}) is not known.",
                    why="They are in neither training nor validation. Who was too ill to be assessed is among them, so "
                    "the model sees a selection of patients.",
                    remedy="If `not evaluable` means no response, say `not_evaluable` and `not_evaluable_as: "
                    "negative`.",
                    count=count,
                )
            )
    return findings


def _too_few(site: str, name: str, yes: int, no: int) -> Finding:
    return Finding(
        check="small-sample",
        severity="note",
        site=site,
        column=name,
        message=f"{plural(yes, 'event')} and {plural(no, 'non-event')}; a validation needs about {ENOUGH} of each.",
        why="An AUC of so few patients has an interval of 0.1 or more, and calibration cannot be judged."
        if min(yes, no) >= 20
        else "Too few even for a rough AUC; calibration cannot be judged at all.",
        remedy="Read the interval, not the estimate; pool the site with others or wait for more patients.",
        count=min(yes, no),
    )


def _too_many_columns(name: str, events: int, columns: int) -> Finding:
    return Finding(
        check="small-sample",
        severity="note",
        site=None,
        column=name,
        message=f"{events} development decisions in the rarer class for {plural(columns, 'column')}: "
        f"{events / max(columns, 1):.1f} each.",
        why=f"Below about {PER_COLUMN} a column, a model without strong shrinkage learns noise (Riley et al., BMJ "
        "2020;368:m441).",
        remedy="Leave columns out by clinical knowledge, before looking at their effect, and trust shrinkage.",
        count=events,
    )


CHECKS: tuple[Check, ...] = (check_prevalence, check_sample_sizes, check_missing_outcomes)
