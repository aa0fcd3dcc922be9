"""Checks of what is missing: whole columns, and missingness that depends on site, calendar or outcome."""

from __future__ import annotations

import numpy as np

from theracast_data.audit.chance import adjusted, association_p, average_ranks, martingale_residuals, rates_p
from theracast_data.audit.context import (
    AuditContext,
    Booleans,
    Floats,
    Positions,
    endpoint_values,
    is_feature,
    lacks,
    missing,
    read_columns,
    site_rows,
)
from theracast_data.audit.findings import Check, Finding, percent, plural
from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint, Endpoint, TimeToEventEndpoint

SITE_GAP = 0.25
CALENDAR_GAP = 0.10
OUTCOME_GAP = 0.08
FALSE_DISCOVERY = 0.002
"""Share of false findings tolerated among those that rest on a test; low, because an audit is run again and again."""


def check_absent_columns(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column that a site does not have, or has without a single value."""
    findings = []
    rows = site_rows(cohort)
    for name in read_columns(cohort):
        absent = missing(cohort, name)
        empty = [site for site, at in rows.items() if lacks(cohort, site, name, absent[at])]
        developed = [site for site in context.development if site in rows and site not in empty]
        for site in empty:
            in_table = name not in cohort.absent.get(site, frozenset())
            count = len(rows[site])
            state = "is in the table but empty" if in_table else "is not in the table"
            finding = Finding(
                check="absent-column",
                severity="warning" if is_feature(cohort, name) and len(empty) < len(rows) else "note",
                site=site,
                column=name,
                message=f"The column {state} for all {plural(count, 'decision')}.",
                why="A model that leans on this column works without it at this site: its performance there says "
                "little "
                "about sites that measure it, and the reverse."
                if developed
                else "No development site has this column, so no model can learn from it.",
                remedy="Check the header under `columns`; if it was truly not measured, compare with a model without "
                "it "
                f"(`features: {{exclude: [{name}]}}`) or accept the finding."
                if developed
                else f"Leave it out (`features: {{exclude: [{name}]}}`) or add a development site that measures it.",
                count=count,
            )
            findings.append(finding)
    return findings


def check_high_missingness(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each feature that is missing in most development decisions."""
    rows = np.flatnonzero(cohort.decisions["site"].isin(context.development))
    findings = []
    for name in read_columns(cohort):
        if not is_feature(cohort, name) or not len(rows):
            continue
        count = int(missing(cohort, name)[rows].sum())
        share = count / len(rows)
        if share < 0.5 or share == 1.0:
            continue
        findings.append(
            Finding(
                check="high-missingness",
                severity="warning" if share >= 0.9 else "note",
                site=None,
                column=name,
                message=f"Missing in {count} of {len(rows)} development decisions ({percent(share)}).",
                why="What the model learns of it rests on the few who were measured, and whether it was measured at "
                "all "
                "may say more than the value.",
                remedy=f"Keep its missing indicator, or leave it out with `features: {{exclude: [{name}]}}`.",
                count=count,
            )
        )
    return findings


def check_missing_by_site(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column and site that is missing far more, or less, often than at the other sites."""
    findings = []
    rows = site_rows(cohort)
    for name in read_columns(cohort):
        absent = missing(cohort, name)
        sites = [site for site, at in rows.items() if len(at) >= 15 and not lacks(cohort, site, name, absent[at])]
        if len(sites) < 2:
            continue
        shares = {site: float(absent[rows[site]].mean()) for site in sites}
        for site in sites:
            others = [other for other in sites if other != site]
            usual = float(np.median([shares[other] for other in others]))
            gap = shares[site] - usual
            if abs(gap) < SITE_GAP or (len(sites) == 2 and site in context.development):
                continue
            counts = np.array([absent[rows[site]].sum(), sum(absent[rows[other]].sum() for other in others)], float)
            totals = np.array([len(rows[site]), sum(len(rows[other]) for other in others)], float)
            if rates_p(counts, totals) > 1e-4:
                continue
            findings.append(
                Finding(
                    check="missing-by-site",
                    severity="warning" if abs(gap) >= 0.4 and is_feature(cohort, name) else "note",
                    site=site,
                    column=name,
                    message=f"Missing in {percent(shares[site])} of {len(rows[site])} decisions; at the other sites "
                    f"in {percent(usual)} (median).",
                    why="Who was measured differs between sites, so the column and its missing indicator carry the "
                    "site "
                    "into the model.",
                    remedy="Ask the site why. Judge the model also without the missing indicator "
                    "(`features: {missing_indicators: none}`).",
                    count=int(counts[0]),
                )
            )
    return findings


def check_missing_by_calendar(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column and site whose missingness follows the calendar."""
    calendar = np.asarray(cohort.decisions["calendar"].to_numpy(dtype=np.float64, na_value=np.nan))
    tested: list[tuple[float, str, str, float, float, int]] = []
    for site, rows in site_rows(cohort).items():
        dated = rows[np.isfinite(calendar[rows])]
        if len(dated) < 30 or len(np.unique(calendar[dated])) < 2:
            continue
        when = average_ranks(calendar[dated])
        early, late = _early_and_late(calendar[dated])
        for name in read_columns(cohort):
            absent = missing(cohort, name)[dated]
            if min(absent.sum(), (~absent).sum()) < 5:
                continue
            p_value, _ = association_p(absent, when, np.zeros(len(dated), dtype=np.intp))
            tested.append((p_value, site, name, float(absent[early].mean()), float(absent[late].mean()), len(dated)))
    if not tested:
        return []
    findings = []
    for p_value, (_, site, name, early_share, late_share, count) in zip(
        adjusted(np.array([one[0] for one in tested])), tested, strict=True
    ):
        if p_value > FALSE_DISCOVERY or abs(early_share - late_share) < CALENDAR_GAP:
            continue
        findings.append(
            Finding(
                check="missing-by-calendar",
                severity="warning" if is_feature(cohort, name) else "note",
                site=site,
                column=name,
                message=f"Missing in {percent(early_share)} of the earliest and {percent(late_share)} of the latest of "
                f"{plural(count, 'decision')} (trend over calendar time, p {_p_text(p_value)} after adjustment for "
                f"{len(tested)} tests).",
                why="Its missing indicator is a hidden date: the model learns how care and follow-up changed with the "
                "years, and that does not hold for the next patient.",
                remedy="Leave its indicator out (name the wanted ones in `features: {missing_indicators: [...]}`), and "
                "judge with `validation: {scheme: {by: time}}`.",
                count=count,
            )
        )
    return findings


def check_missing_by_outcome(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column whose missingness depends on an endpoint, within sites."""
    site_codes = np.unique(cohort.decisions["site"].to_numpy(dtype=str), return_inverse=True)[1].astype(np.intp)
    tested: list[tuple[float, str, str, str, int]] = []
    for endpoint in context.endpoints:
        score = outcome_score(cohort, endpoint)
        if score is None:
            continue
        known = np.isfinite(score)
        for name in read_columns(cohort):
            absent = missing(cohort, name)[known]
            if min(absent.sum(), (~absent).sum()) < 10:
                continue
            p_value, difference = association_p(absent, score[known], site_codes[known])
            if abs(difference) >= OUTCOME_GAP * _score_scale(endpoint, score[known]):
                text = _outcome_text(endpoint, absent, score[known], difference)
                tested.append((p_value, endpoint.name, name, text, int(absent.sum())))
            else:
                tested.append((1.0, endpoint.name, name, "", 0))
    if not tested:
        return []
    found: dict[str, Finding] = {}
    for p_value, (_, endpoint_name, name, text, count) in zip(
        adjusted(np.array([one[0] for one in tested])), tested, strict=True
    ):
        if p_value > FALSE_DISCOVERY or name in found:
            continue
        found[name] = Finding(
            check="missing-by-outcome",
            severity="warning" if is_feature(cohort, name) else "note",
            site=None,
            column=name,
            message=f"Whether it is missing goes with {endpoint_name}: {text} (within sites, p {_p_text(p_value)} "
            "after "
            f"adjustment for {len(tested)} tests).",
            why="Either the value was looked up after the outcome was known, or being measured marks other patients. "
            "In the first case its missing indicator is a leak.",
            remedy="Find out when and for whom it was measured. If not before the decision, exclude it "
            f"(`features: {{exclude: [{name}]}}`); else accept the finding with the reason.",
            count=count,
        )
    return list(found.values())


def outcome_score(cohort: Cohort, endpoint: Endpoint) -> Floats | None:
    """Return one number a decision that grows with the outcome, NaN where unknown; martingale residuals for times."""
    if isinstance(endpoint, TimeToEventEndpoint):
        time = endpoint_values(cohort, f"{endpoint.name}.time")
        event = endpoint_values(cohort, f"{endpoint.name}.event")
        if time is None or event is None:
            return None
        score = np.full(len(cohort), np.nan)
        for rows in site_rows(cohort).values():
            known = rows[np.isfinite(time[rows]) & np.isfinite(event[rows])]
            if len(known):
                score[known] = martingale_residuals(time[known], (event[known] == 1).astype(np.float64))
        return score
    return endpoint_values(cohort, endpoint.name)


def _score_scale(endpoint: Endpoint, score: Floats) -> float:
    return 1.0 if isinstance(endpoint, BinaryEndpoint) else 2.0 * float(score.std() or 1.0)


def _outcome_text(endpoint: Endpoint, absent: Booleans, score: Floats, difference: float) -> str:
    if isinstance(endpoint, BinaryEndpoint):
        return (
            f"yes in {percent(float(score[absent].mean()))} where missing and {percent(float(score[~absent].mean()))} "
            "where measured"
        )
    if isinstance(endpoint, TimeToEventEndpoint):
        return f"{'more' if difference > 0 else 'fewer'} events than expected where it is missing"
    return f"{'higher' if difference > 0 else 'lower'} where it is missing"


def _early_and_late(calendar: Floats) -> tuple[Positions, Positions]:
    low, high = np.quantile(calendar, [1 / 3, 2 / 3])
    early, late = np.flatnonzero(calendar <= low), np.flatnonzero(calendar >= high)
    if low == high:
        early, late = np.flatnonzero(calendar < high), np.flatnonzero(calendar > low)
        early = early if len(early) else np.flatnonzero(calendar <= low)
        late = late if len(late) else np.flatnonzero(calendar >= high)
    return early, late


def _p_text(p_value: float) -> str:
    return "< 0.0001" if p_value < 1e-4 else f"= {p_value:.4f}"


CHECKS: tuple[Check, ...] = (
    check_absent_columns,
    check_high_missingness,
    check_missing_by_site,
    check_missing_by_calendar,
    check_missing_by_outcome,
)
