"""Checks of times to events: their unit, their order, and a response that is nothing but survival."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from theracast_data.audit.chance import auc, auc_bounds
from theracast_data.audit.context import (
    AuditContext,
    Booleans,
    Floats,
    Positions,
    endpoint_values,
    own_labels,
    site_rows,
)
from theracast_data.audit.findings import Check, Finding, Severity, figure, percent, plural
from theracast_data.audit.limits import TIME_FACTORS
from theracast_data.cohort import Cohort
from theracast_data.endpoints import DAYS_PER, BinaryEndpoint, FollowUp

DEATH = re.compile(r"(^|[^a-z])(os|overall survival|death|mortality)([^a-z]|$)", re.IGNORECASE)
PROGRESSION = re.compile(
    r"(^|[^a-z])(pfs|dfs|rfs|efs|ttp|ttr|progression.*|relapse.*|recurrence.*|disease.free.*)([^a-z]|$)", re.IGNORECASE
)
DAY = 1.0
ROUNDING_DAYS = 3.0
"""Months to two decimals, or dates known to the month's third, may put progression this much after death."""
EARLY_DAYS = 14.0
CENTURY_DAYS = 100 * 365.25
HORIZON_MONTHS = (3, 6, 9, 12, 18, 24, 36, 60)


@dataclass(frozen=True)
class Course:
    """One follow-up: its name, label, (n,) days and event flags, and whether 2 may flag a competing event."""

    name: str
    label: str
    time: Floats
    event: Floats
    is_label: bool
    competing: bool = False

    @property
    def to_death(self) -> bool:
        """Whether the event is death."""
        return bool(DEATH.search(f"{self.name} | {self.label}")) and not self.to_progression

    @property
    def to_progression(self) -> bool:
        """Whether the event is progression or death, whichever comes first."""
        return bool(PROGRESSION.search(f"{self.name} | {self.label}"))


def courses(cohort: Cohort, context: AuditContext) -> list[Course]:
    """Return all follow-ups of the endpoints that the cohort holds."""
    found = []
    for endpoint in context.endpoints:
        time, event = (endpoint_values(cohort, f"{endpoint.name}.{part}") for part in ("time", "event"))
        if time is not None and event is not None:
            binary = endpoint.kind == "binary"
            followed = endpoint.follow_up if isinstance(endpoint, BinaryEndpoint) else endpoint
            competing = isinstance(followed, FollowUp) and bool(followed.competing)
            found.append(Course(endpoint.name, endpoint.label or "", time, event, binary, competing))
    return found


def check_time_units(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return an error for each follow-up whose times at a site are in another unit than elsewhere, or impossible."""
    findings = []
    rows = site_rows(cohort)
    for course in courses(cohort, context):
        logs = {site: np.log(course.time[at][course.time[at] > 0]) for site, at in rows.items()}
        logs = {site: values for site, values in logs.items() if len(values) >= 15}
        medians = {site: float(np.median(values)) for site, values in logs.items()}
        flagged = set()
        for site, values in logs.items():
            beyond = float((values > np.log(CENTURY_DAYS / 2)).mean())
            if beyond >= 0.1:
                flagged.add(site)
                findings.append(_impossible_time(site, course, beyond, len(values)))
        spreads = [float(np.ptp(np.quantile(values, [0.25, 0.75]))) / 1.349 for values in logs.values()]
        for site in logs:
            others = [medians[other] for other in medians if other != site and other not in flagged]
            if site in flagged or not others:
                continue
            if len(others) == 1 and site in context.development:
                continue
            shift = medians[site] - float(np.median(others))
            factor, words = min(
                ((sign * np.log(value), name) for name, value in TIME_FACTORS.items() for sign in (1, -1)),
                key=lambda one: abs(one[0] - shift),
            )
            spread = max(float(np.median(spreads)), 0.3)
            if abs(shift) < max(1.3, 1.3 * spread) or abs(shift - factor) > 0.55:
                continue
            findings.append(
                _other_time_unit(
                    course, site, count=len(logs[site]), shift=shift, factor=factor, words=words, spread=spread
                )
            )
    return findings


def check_times(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return findings on negative and zero times, flags other than 0 and 1, and times without a flag or the reverse."""
    findings = []
    for course in courses(cohort, context):
        for site, at in site_rows(cohort).items():
            time, event = course.time[at], course.event[at]
            known = int(np.isfinite(time).sum())
            flags, named = ((0.0, 1.0, 2.0), "0, 1 and 2") if course.competing else ((0.0, 1.0), "0 and 1")
            cases: tuple[tuple[Booleans, str, Severity], ...] = (
                (time < 0, "have a negative time", "error"),
                (np.isfinite(event) & ~np.isin(event, flags), f"have an event flag other than {named}", "error"),
                (time == 0, "have the time 0", "note"),
                (np.isfinite(time) != np.isfinite(event), "have a time without an event flag, or the reverse", "note"),
            )
            for wrong, words, severity in cases:
                count = int(wrong.sum())
                if not count:
                    continue
                gross = severity != "error" or count >= max(3, 0.01 * known)
                findings.append(
                    _contradiction(
                        course.name,
                        site,
                        severity if gross else "warning",
                        message=f"{count} of {plural(len(at), 'decision')} {words}.",
                        why="Survival models drop or misread such patients.",
                        remedy="Correct the dates in the source; 0 may mean an event on the day of the decision.",
                        count=count,
                    )
                )
    return findings


def check_order_of_events(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return findings where progression comes after death, or a death does not end progression-free time."""
    found = courses(cohort, context)
    findings = []
    for early in (one for one in found if one.to_progression):
        for late in (one for one in found if one.to_death):
            for site, at in site_rows(cohort).items():
                findings += _order_findings(early, late, site, at)
    return findings


def check_response_against_course(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return findings where responders progress at once, or live shorter than non-responders."""
    findings = []
    for endpoint, label in own_labels(cohort, context):
        for course in courses(cohort, context):
            if course.is_label or not (course.to_progression or course.to_death):
                continue
            for site, at in site_rows(cohort).items():
                findings += _response_findings(endpoint.name, label, course, at=at, site=site)
    return findings


def check_label_is_survival(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return an error for each site where a binary endpoint is, but for a few, a follow-up time past a horizon."""
    findings = []
    for endpoint, label in own_labels(cohort, context):
        for course in courses(cohort, context):
            if course.is_label:
                continue
            for site, at in site_rows(cohort).items():
                finding = _survival_label(endpoint.name, label[at], course, course.time[at], site)
                findings += [] if finding is None else [finding]
    return findings


def check_censoring_direction(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a warning for each follow-up where events come later than censoring, as if the flag were reversed."""
    findings = []
    rows = site_rows(cohort)
    for course in courses(cohort, context):
        areas: dict[str, tuple[float, float, float]] = {}
        for site, at in rows.items():
            known = at[np.isfinite(course.time[at]) & np.isin(course.event[at], (0.0, 1.0))]
            event = course.event[known] == 1
            if min(event.sum(), (~event).sum()) >= 10:
                area = auc(course.time[known], event)
                areas[site] = (area, auc_bounds(area, int(event.sum()), int((~event).sum()))[0], float(event.mean()))
        for site, (area, low, rate) in areas.items():
            others = [one[0] for other, one in areas.items() if other != site]
            alone = low > 0.65
            against = bool(others) and low > 0.55 and area - float(np.median(others)) > 0.25
            if not (alone or against):
                continue
            findings.append(
                _contradiction(
                    course.name,
                    site,
                    "warning",
                    message=f"Events ({percent(rate)}) come later than censoring: a patient with the event was "
                    "followed longer "
                    f"than one without in {percent(area)} of the pairs.",
                    why="In nearly every cohort those without the event are followed longest. The flag may mark "
                    "censoring "
                    "instead of the event, which turns the endpoint upside down.",
                    remedy="Look at the coding; if 1 means censored, say `censored:` instead of `event:`.",
                    count=None,
                )
            )
    return findings


def _order_findings(early: Course, late: Course, site: str, at: Positions) -> list[Finding]:
    known = np.isfinite(early.time[at]) & np.isfinite(late.time[at])
    total = int(known.sum())
    if not total:
        return []
    slack = np.maximum(ROUNDING_DAYS, 0.01 * late.time[at])
    after = known & (early.time[at] > late.time[at] + slack)
    uncounted = (
        known & (late.event[at] == 1) & (early.event[at] == 0) & (early.time[at] >= late.time[at] - DAY) & ~after
    )
    findings = []
    for wrong, words, remedy in (
        (
            after,
            f"{early.name} ends after {late.name}",
            "Correct the dates in the source; if all are concerned, check the `unit` of both endpoints.",
        ),
        (
            uncounted,
            f"the patient has died ({late.name}) on the day on which {early.name} is censored",
            f"Death ends {early.name}: count it as an event in the source, or name the endpoint for what it is.",
        ),
    ):
        count = int(wrong.sum())
        if count:
            findings.append(
                _contradiction(
                    early.name,
                    site,
                    _gross(count, total),
                    message=f"In {count} of {plural(total, 'decision')} ({percent(count / total)}) {words}.",
                    why="One of the two dates or flags is wrong, and so is every endpoint made from it.",
                    remedy=remedy,
                    count=count,
                )
            )
    return findings


def _response_findings(name: str, label: Floats, course: Course, *, at: Positions, site: str) -> list[Finding]:
    findings = []
    label, time, event = label[at], course.time[at], course.event[at]
    early = (label == 1) & (event == 1) & (time <= EARLY_DAYS)
    count, responders = int(early.sum()), int((label == 1).sum())
    if count and course.to_progression:
        findings.append(
            _contradiction(
                name,
                site,
                "error" if count >= 5 and count >= 0.1 * responders else "warning",
                message=f"{count} of {plural(responders, 'responder')} progressed or died within {EARLY_DAYS:.0f} days "
                f"({course.name}).",
                why="A response is confirmed after weeks; nobody responds and progresses at once. Label or date is "
                "wrong.",
                remedy="Look these patients up in the source.",
                count=count,
            )
        )
    known = np.isfinite(label) & np.isfinite(time)
    positive = label[known] == 1
    if min(positive.sum(), (~positive).sum()) < 10:
        return findings
    area = auc(time[known], positive)
    high = auc_bounds(area, int(positive.sum()), int((~positive).sum()), level_z=2.58)[1]
    if high < 0.45:
        findings.append(
            _contradiction(
                name,
                site,
                "error" if high < 0.4 else "warning",
                message=f"Responders do worse than the others: the follow-up of {course.name} is longer in a "
                "responder than in "
                f"a non-responder in only {percent(area)} of the pairs.",
                why="The label is probably coded the other way round at this site; the model would be judged upside "
                "down.",
                remedy="Check `positive` of the endpoint against the coding of this site.",
                count=None,
            )
        )
    return findings


def _survival_label(name: str, label: Floats, course: Course, time: Floats, site: str) -> Finding | None:
    known = np.isfinite(label) & np.isfinite(time)
    positive, days = label[known] == 1, time[known]
    smaller = int(min(positive.sum(), (~positive).sum()))
    if smaller < 8:
        return None
    area = auc(days, positive)
    direction = 1 if area >= 0.5 else -1
    area = max(area, 1 - area)
    threshold, wrong = _best_threshold(days * direction, positive)
    if area < 0.985 or wrong > max(1, 0.15 * smaller):
        return None
    severity: Severity = "error" if area >= 0.995 and wrong <= max(0.02 * len(days), 0.05 * smaller) else "warning"
    months = abs(threshold) / DAYS_PER["month"]
    near = min(HORIZON_MONTHS, key=lambda one: abs(one - months))
    horizon = f"{near} months" if abs(near - months) < 0.06 * near + 0.1 else f"{months:.1f} months"
    return Finding(
        check="label-is-survival",
        severity=severity,
        site=site,
        column=name,
        message=f"`{course.name} {'later' if direction > 0 else 'earlier'} than about {horizon}` gives the label of "
        f"{len(days) - wrong} of {plural(len(days), 'decision')} (AUC of the time alone {area:.3f}).",
        why="The label is survival past a horizon and no assessment of response: it mixes prognosis with the effect of "
        "the treatment, and patients censored before the horizon were given a label that nobody knows.",
        remedy="Use the assessed response as `column`. If survival at the horizon is the question, declare it so: "
        "`follow_up` and `horizon`, which weights censored patients rightly.",
        count=len(days),
    )


def _best_threshold(score: Floats, positive: Booleans) -> tuple[float, int]:
    """Return the cut above which the label is yes with the fewest errors, and their number."""
    order = np.argsort(score)
    sorted_score, sorted_label = score[order], positive[order]
    wrong = np.concatenate([[0], np.cumsum(sorted_label)]) + np.concatenate([np.cumsum(~sorted_label[::-1])[::-1], [0]])
    allowed = np.concatenate([[True], np.diff(sorted_score) > 0, [True]])
    best = int(np.where(allowed, wrong, len(score) + 1).argmin())
    low = sorted_score[max(best - 1, 0)]
    high = sorted_score[min(best, len(score) - 1)]
    return float((low + high) / 2), int(wrong[best])


def _other_time_unit(
    course: Course, site: str, *, count: int, shift: float, factor: float, words: str, spread: float
) -> Finding:
    reverse = "the reverse of " if factor < 0 else ""
    return Finding(
        check="time-unit",
        severity="error" if abs(shift) >= 1.8 * spread else "warning",
        site=site,
        column=course.name,
        message=f"The median follow-up of {plural(count, 'decision')} is {figure(float(np.exp(shift)))} times that of "
        "the "
        f"other sites, close to {figure(float(np.exp(factor)))} ({reverse}{words}).",
        why="Times in another unit make every patient of this site an early or a late event.",
        remedy="Convert the column in the source, or read this site as a source of its own; the `unit` of an endpoint "
        "holds for all sites.",
        count=count,
    )


def _impossible_time(site: str, course: Course, beyond: float, count: int) -> Finding:
    return Finding(
        check="time-unit",
        severity="error",
        site=site,
        column=course.name,
        message=f"{percent(beyond)} of {plural(count, 'time')} exceed 50 years: days, or weeks, read as the unit that "
        "the "
        "study declares.",
        why="Times in another unit make every patient of this site an early or a late event.",
        remedy=f"Correct `unit` of the endpoint {course.name} (e.g. `unit: day`), or convert the column at this site.",
        count=count,
    )


def _gross(count: int, total: int) -> Severity:
    return "error" if count >= 5 and count >= 0.05 * total else "warning"


def _contradiction(
    column: str, site: str, severity: Severity, *, message: str, why: str, remedy: str, count: int | None
) -> Finding:
    return Finding(
        check="outcome-contradiction",
        severity=severity,
        site=site,
        column=column,
        message=message,
        why=why,
        remedy=remedy,
        count=count,
    )


CHECKS: tuple[Check, ...] = (
    check_time_units,
    check_times,
    check_order_of_events,
    check_response_against_course,
    check_label_is_survival,
    check_censoring_direction,
)
