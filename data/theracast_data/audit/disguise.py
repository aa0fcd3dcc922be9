"""Checks of missing data in disguise: constants, one value repeated too often, codes for `not known`, coarse grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theracast_data.audit.chance import upper_binomial_p
from theracast_data.audit.context import (
    AuditContext,
    Floats,
    continuous_columns,
    is_feature,
    kind_of,
    missing,
    numbers,
    read_columns,
    site_rows,
)
from theracast_data.audit.findings import Check, Finding, Severity, figure, percent, plural
from theracast_data.audit.limits import plausible_range
from theracast_data.cohort import Cohort

CHANCE = 1e-4
"""Probability, at the rates of the other sites, below which a constant or a spike is not put down to chance."""
HIGH_CODES = (99.0, 98.0, 88.0, 77.0, 999.0, 998.0, 888.0, 777.0, 9999.0, 9998.0, 8888.0, 99999.0, 999999.0)
NEGATIVE_CODES = (-1.0, -2.0, -7.0, -8.0, -9.0, -77.0, -88.0, -99.0, -777.0, -888.0, -999.0, -9999.0, -99999.0)
DIGIT_CODES = (9.0, 8.0)


def check_constants(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column with one value at a site where the others vary, and for constants everywhere."""
    findings = []
    rows = site_rows(cohort)
    for name in read_columns(cohort):
        known = ~missing(cohort, name)
        column = cohort.values[name].to_numpy(dtype=object)
        if known.sum() >= 10 and len(set(column[known])) == 1:
            findings.append(_constant_everywhere(cohort, name, int(known.sum())))
            continue
        numeric = kind_of(cohort, name) == "numeric" and len(set(column[known])) > 3
        for site, at in rows.items():
            here = column[at][known[at]]
            elsewhere = np.delete(column, at)[np.delete(known, at)]
            if len(here) < 5 or len(set(here)) != 1 or len(elsewhere) < 10:
                continue
            usual = float((elsewhere == here[0]).mean())
            chance = (max(usual, 1 / len(elsewhere))) ** len(here)
            if chance > CHANCE:
                continue
            value = figure(float(here[0])) if kind_of(cohort, name) != "categorical" else repr(str(here[0]))
            findings.append(
                Finding(
                    check="constant-at-site",
                    severity="warning" if numeric and is_feature(cohort, name) else "note",
                    site=site,
                    column=name,
                    message=f"All {plural(len(here), 'known value')} are {value}; elsewhere {percent(usual)} of "
                    f"{len(elsewhere):,} are.",
                    why="A measured quantity is never the same in every patient: the column was filled in. It counts "
                    "as "
                    "known, and performance at this site is judged on a number that nobody measured."
                    if numeric
                    else "The column cannot tell the patients of this site apart, so its effect is not tested there.",
                    remedy=_constant_remedy(site, value, shared=usual > 0)
                    if numeric
                    else "If all patients there are so by selection, accept the finding with that reason.",
                    count=len(here),
                )
            )
    return findings


def check_repeated_values(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each continuous column and site with one far too frequent value, or a too coarse grid."""
    findings = []
    rows = site_rows(cohort)
    for name, values in continuous_columns(cohort):
        for site, at in rows.items():
            here = values[at][np.isfinite(values[at])]
            if len(here) < 20 or np.ptp(here) == 0:
                continue
            elsewhere = np.delete(values, at)
            elsewhere = elsewhere[np.isfinite(elsewhere)]
            coarse = _coarse_grid(here, elsewhere)
            spike = None if coarse is not None else _spike(here, elsewhere)
            if coarse is not None:
                findings.append(_coarse_finding(site, name, len(here), *coarse))
            if spike is not None:
                findings.append(_spike_finding(cohort, site, name, here, spike))
    return findings


def check_sentinels(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each numeric column and site that holds a customary code for `not known`."""
    findings = []
    rows = site_rows(cohort)
    for name in read_columns(cohort):
        if kind_of(cohort, name) != "numeric":
            continue
        values = numbers(cohort, name)
        codes = _sentinel_codes(values[np.isfinite(values)], plausible_range(name, cohort.columns[name]))
        for code in codes:
            for site, at in rows.items():
                count = int((values[at] == code).sum())
                known = int(np.isfinite(values[at]).sum())
                if not count or count == known:
                    continue
                findings.append(
                    Finding(
                        check="sentinel-value",
                        severity="warning",
                        site=site,
                        column=name,
                        message=f"{count} of {known} values ({percent(count / known)}) are {figure(code)}, apart from "
                        "all others: a customary code for `not known`.",
                        why="Read as a number it is the most extreme patient of the cohort, and it counts as measured.",
                        remedy=f"Declare it: `missing: [{code:g}]` of this column.",
                        count=count,
                    )
                )
    return findings


@dataclass(frozen=True)
class _Spike:
    value: float
    count: int
    expected: float
    at_edge: bool


def _spike(here: Floats, elsewhere: Floats) -> _Spike | None:
    """Return the most frequent value if it is too frequent against the other sites, or else its own neighbours."""
    distinct, counts = np.unique(here, return_counts=True)
    top = int(counts.argmax())
    value, count = float(distinct[top]), int(counts[top])
    if count < 6 or count / len(here) < 0.05:
        return None
    if count >= 0.5 * len(here) and len(elsewhere) >= 50:
        rate = float((elsewhere == value).mean())
        return _Spike(value, count, len(here) * rate, at_edge=False) if rate < 0.25 else None
    nearby = np.delete(counts[max(0, top - 6) : top + 7], min(top, 6))
    local = float(np.sort(nearby)[-3:].mean()) if len(nearby) >= 4 else float(count)
    rivals = np.sort(counts)[-2] if len(counts) > 1 else 0
    usual = float((elsewhere == value).mean()) if len(elsewhere) >= 50 else None
    at_edge = top in (0, len(distinct) - 1)
    if usual is not None:
        # Rounding differs between sites, so the neighbours must agree that the value stands out.
        rate = max(3 * usual + 0.02, (local + 2 * np.sqrt(local)) / len(here))
    else:
        rate = max((2.5 * local + 2) / len(here), 1.5 * rivals / len(here))
    if rate >= 1 or upper_binomial_p(count, len(here), rate) > CHANCE / 10:
        return None
    expected = len(here) * usual if usual is not None else local
    return _Spike(value, count, expected, at_edge)


def _spike_finding(cohort: Cohort, site: str, name: str, here: Floats, spike: _Spike) -> Finding:
    rank = float((here < spike.value).mean() + (here <= spike.value).mean()) / 2
    rest = here[here != spike.value]
    central = abs(spike.value - np.median(rest)) <= 0.35 * max(np.ptp(np.quantile(rest, [0.25, 0.75])), 1e-12)
    mean = abs(spike.value - rest.mean()) <= 0.1 * rest.std()
    severity: Severity = "note" if spike.at_edge or not is_feature(cohort, name) else "warning"
    if spike.at_edge:
        suspicion = "it is the end of the range: a detection limit, a cap, or a true zero"
    elif central or mean:
        suspicion = (
            f"it lies at the {'middle' if central else 'mean'} of the others, where imputation puts missing values"
        )
    else:
        suspicion = f"{percent(rank)} of the site's values lie below it"
    return Finding(
        check="repeated-value",
        severity=severity,
        site=site,
        column=name,
        message=f"{spike.count} of {len(here)} values ({percent(spike.count / len(here))}) are exactly "
        f"{figure(spike.value)}, where about {spike.expected:.0f} would be expected; {suspicion}.",
        why="Values below a limit are known only as `below`; a linear model reads them as measured."
        if spike.at_edge
        else "Missing values that were filled in count as measured: missingness looks lower than it is, and the spread "
        "of the column shrinks.",
        remedy="Nothing, if it is a true zero or limit; if it is a cap, say so with `cap`."
        if spike.at_edge
        else f"Ask the site. If it was filled in, undo it in the source or declare `missing: [{spike.value:.6g}]` of "
        "this "
        "column (that takes true measurements of the value too).",
        count=spike.count,
    )


def _coarse_grid(here: Floats, elsewhere: Floats) -> tuple[int, float] | None:
    """Return how many distinct values the site has and how many as many decisions elsewhere would; None if alike."""
    if len(elsewhere) < 50 or len(here) < 30:
        return None
    _, counts = np.unique(elsewhere, return_counts=True)
    expected = float((1 - (1 - counts / len(elsewhere)) ** len(here)).sum())
    counts_here = np.sort(np.unique(here, return_counts=True)[1])
    distinct = len(counts_here)
    one_spike = counts_here[-1] > 3 * counts_here[-2]
    return (distinct, expected) if distinct <= 25 and expected >= 4 * distinct and not one_spike else None


def _coarse_finding(site: str, name: str, known: int, distinct: int, expected: float) -> Finding:
    return Finding(
        check="coarser-at-site",
        severity="note",
        site=site,
        column=name,
        message=f"{known} values take only {distinct} different numbers; as many decisions elsewhere would take about "
        f"{expected:.0f}. The site rounds or groups them.",
        why="Grouped values blur the effect of the column and weaken the validation a little.",
        remedy="Ask for the ungrouped values; otherwise accept the finding.",
        count=known,
    )


def _sentinel_codes(known: Floats, limits: tuple[float, float] | None) -> list[float]:
    """Return the values of a numeric column that are customary codes and stand apart from all others."""
    distinct, counts = np.unique(known, return_counts=True)
    if len(distinct) < 4:
        return []
    share = dict(zip(distinct.tolist(), (counts / len(known)).tolist(), strict=True))
    codes = [
        code for code in HIGH_CODES if code in share and share[code] < 0.6 and _above_all(known, code, share[code])
    ]
    codes += [
        code
        for code in NEGATIVE_CODES
        if code in share and code <= -7 and share[code] < 0.6 and _below_all(known, code)
    ]
    negative = distinct[(distinct < 0) & ~np.isin(distinct, codes)]
    if len(negative) and set(negative.tolist()) <= set(NEGATIVE_CODES):
        rest = distinct[distinct >= 0]
        graded = len(rest) >= 7 or (len(negative) == 1 and len(rest) >= 3)
        codes += negative.tolist() if graded else []
    if 0.0 in share and 0.0 not in codes and _zero_impossible(known[~np.isin(known, codes)], limits):
        codes.append(0.0)
    return codes + [code for code in DIGIT_CODES if code in share and _beyond_grades(distinct, code)]


def _above_all(known: Floats, code: float, share: float) -> bool:
    """Return whether a high code stands apart: far above the rest, or frequent where its neighbours are not."""
    rest = known[~np.isin(known, HIGH_CODES) | (known < code / 5)]
    rest = rest[rest < code]
    if len(rest) < 0.3 * len(known) or len(np.unique(rest)) < 3:
        return False
    low, middle, high = np.quantile(rest, [0.25, 0.5, 0.99])
    if code > rest.max() + max(2.0 * (rest.max() - rest.min()), 5 * (high - low)):
        return True
    nearby = int(((known != code) & (np.abs(known - code) <= 0.05 * code)).sum())
    count = round(share * len(known))
    return bool(count >= 3 and count > 3 * (nearby + 1) and code > high and code > 1.5 * middle)


def _below_all(known: Floats, code: float) -> bool:
    """Return whether a negative code lies far below a column that is negative by nature, or among positive values."""
    rest = known[~np.isin(known, NEGATIVE_CODES) | (known > code / 5)]
    return len(rest) >= 0.3 * len(known) and bool(code < rest.min() - 2.0 * max(np.ptp(rest), 1e-9))


def _zero_impossible(known: Floats, limits: tuple[float, float] | None) -> bool:
    positive = known[known > 0]
    if len(positive) < 10 or (known < 0).any() or len(np.unique(positive)) < 8:
        return False
    if limits is not None and limits[0] > 0:
        return True
    return bool(positive.min() > 0.3 * np.median(positive) and np.quantile(positive, 0.01) > 0.35 * np.median(positive))


def _beyond_grades(distinct: Floats, code: float) -> bool:
    """Return whether a grade such as ECOG 0 to 4 is followed by a lone 8 or 9."""
    grades = distinct[distinct < 8]
    whole = bool((grades == np.round(grades)).all())
    return bool(
        whole and len(distinct) <= DISTINCT_GRADES and len(grades) and grades.max() <= 5 and distinct.max() <= 9
    )


DISTINCT_GRADES = 8


def _constant_remedy(site: str, value: str, *, shared: bool) -> str:
    if shared:
        return f"Treat it as missing: empty the cells of {site} in the source (other sites do measure {value})."
    return f"Treat it as missing: `missing: [{value}]` of this column (no other site has {value})."


def _constant_everywhere(cohort: Cohort, name: str, known: int) -> Finding:
    return Finding(
        check="constant-column",
        severity="note",
        site=None,
        column=name,
        message=f"All {known:,} known values of the cohort are the same.",
        why="It tells no patient from another.",
        remedy=f"Leave it out with `features: {{exclude: [{name}]}}`.",
        count=known,
    )


CHECKS: tuple[Check, ...] = (check_constants, check_repeated_values, check_sentinels)
