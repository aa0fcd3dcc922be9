"""Checks for one patient under two identifiers, by probabilistic linkage over whatever quasi-identifiers there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theracast_data.audit.context import AuditContext, Booleans, Floats, Positions, site_rows
from theracast_data.audit.duplicates import identical_rows
from theracast_data.audit.findings import Check, Finding, Severity, listing, percent, plural
from theracast_data.audit.records import agreement, candidate_pairs, fields_of
from theracast_data.cohort import Cohort

SURE = 0.99
LIKELY = 0.95
SHARE = 0.45
"""Least share of the information that two rows could have in common; keeps dependent columns from faking a match."""
SHOWN = 200


@dataclass(frozen=True)
class Matches:
    """Pairs of rows that are probably one patient.

    Attributes:
        left: positions, (k,).
        right: positions, (k,).
        posterior: probability that the pair is one patient, (k,).
        pairs: how many pairs were compared in all.
    """

    left: Positions
    right: Positions
    posterior: Floats
    pairs: int


def check_linkage(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each two sites that share patients, and for each site with one patient twice."""
    fields = fields_of(cohort, context)
    if len(fields) < 2:
        return []
    left, right = candidate_pairs(fields)
    if not len(left):
        return []
    weight, share, equal = agreement(fields, left, right)
    sites = cohort.decisions["site"].to_numpy(dtype=object)
    subjects = cohort.decisions["subject_id"].to_numpy(dtype=object)
    across = np.asarray(sites[left] != sites[right], dtype=np.bool_)
    inside_pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in site_rows(cohort).values())
    all_pairs = len(cohort) * (len(cohort) - 1) // 2
    other_subject = np.asarray(subjects[left] != subjects[right], dtype=np.bool_)
    weight = weight - dependence_allowance(weight[~across & other_subject], inside_pairs)
    wide = (share >= SHARE) & (equal >= 3)
    between = _matches(left, right, weight, eligible=wide & across, pairs=all_pairs - inside_pairs)
    inside = _matches(left, right, weight, eligible=wide & ~across & other_subject, pairs=inside_pairs)
    inside = _without_identical(cohort, inside)
    by_chance = len(inside.left) * between.pairs / max(inside.pairs, 1)
    names = [field.name for field in fields]
    return _between_findings(cohort, context, between, by_chance, names) + _inside_findings(cohort, inside)


def dependence_allowance(weight: Floats, pairs: int) -> float:
    """Return by how much the weights overstate the evidence because columns depend on each other.

    Among pairs of different patients, at most `pairs * exp(-w)` can have a weight of w or more if the columns are
    independent. How far the pairs inside sites exceed that, below the weights of certain matches, is the allowance.
    """
    if pairs < 2:
        return 0.0
    top = float(np.log(pairs))
    doubtful = np.sort(weight[weight < top + 4.0])
    levels = np.linspace(top - 5.0, top + 1.0, 13)
    counts = len(doubtful) - np.searchsorted(doubtful, levels)
    excess = counts / np.maximum(pairs * np.exp(-levels), 1.0)
    return float(np.log(max(1.0, excess.max())))


def _matches(left: Positions, right: Positions, weight: Floats, *, eligible: Booleans, pairs: int) -> Matches:
    """Return the likely pairs; the share of matches among all pairs is estimated together with their posteriors."""
    inside = weight[eligible]
    if pairs < 1:
        return Matches(left[:0], right[:0], weight[:0], 0)
    matches = 0.5
    posterior = np.zeros(len(inside))
    for _ in range(30):
        prior = np.log(matches / max(pairs - matches, 0.5))
        posterior = 1 / (1 + np.exp(-np.clip(inside + prior, -700, 700)))
        following = min(float(posterior.sum()) + 0.5, 0.25 * pairs)
        if abs(following - matches) < 1e-6:
            break
        matches = following
    likely = posterior >= LIKELY
    return Matches(left[eligible][likely], right[eligible][likely], posterior[likely], pairs)


def _between_findings(
    cohort: Cohort, context: AuditContext, matches: Matches, by_chance: float, names: list[str]
) -> list[Finding]:
    sites = cohort.decisions["site"].to_numpy(dtype=object)
    findings = []
    rank = {site: number for number, site in enumerate(site_rows(cohort))}
    couples = sorted(
        {
            tuple(sorted((sites[a], sites[b]), key=rank.__getitem__))
            for a, b in zip(matches.left, matches.right, strict=True)
        }
    )
    for first, second in couples:
        chosen = np.flatnonzero(
            ((sites[matches.left] == first) & (sites[matches.right] == second))
            | ((sites[matches.left] == second) & (sites[matches.right] == first))
        )
        posterior = matches.posterior[chosen]
        sure = int((posterior >= SURE).sum())
        mistaken = float((1 - posterior).sum())
        crossing = (first in context.development) != (second in context.development)
        unspecific = by_chance >= 0.2 * len(matches.left)
        severity: Severity = "error" if sure and crossing and not unspecific else "warning"
        where = second if first in context.development else first
        other = first if where == second else second
        labels = _labels(cohort, matches, chosen)
        doubt = (
            f" Pairs inside sites look alike about as often ({by_chance:.1f} expected here by that rate), so these "
            "may be "
            "chance."
            if unspecific
            else ""
        )
        findings.append(
            Finding(
                check="same-patient-at-two-sites",
                severity=severity,
                site=where,
                column=None,
                message=f"{plural(len(chosen), 'pair')} of decisions at {other} and {where} look like one patient "
                "under "
                f"two identifiers: {sure} with a probability above {percent(SURE)}, lowest "
                f"{_probability(float(posterior.min()))}; "
                f"{_small(mistaken)} of them expected to be chance, out of {matches.pairs:,} pairs compared over "
                f"{len(names)} columns ({listing(names)}).{doubt} First: {listing(labels, limit=3)}.",
                why="The model has seen these patients in development: the validation on them is no validation."
                if crossing
                else "The patient counts twice, and may stand in the training and the test part of one split.",
                remedy=f"Look the pairs up and keep one row of each, e.g. with `include` on a column that marks them "
                "at "
                f"{where}; the identifiers are under `subjects` of the JSON report.",
                count=len(chosen),
                subjects=tuple(labels[:SHOWN]),
            )
        )
    return findings


def _inside_findings(cohort: Cohort, matches: Matches) -> list[Finding]:
    sites = cohort.decisions["site"].to_numpy(dtype=object)
    findings = []
    for site in site_rows(cohort):
        chosen = np.flatnonzero(sites[matches.left] == site)
        if not len(chosen):
            continue
        posterior = matches.posterior[chosen]
        labels = _labels(cohort, matches, chosen)
        findings.append(
            Finding(
                check="same-patient-twice",
                severity="warning",
                site=site,
                column=None,
                message=f"{plural(len(chosen), 'pair')} of decisions look like one patient under two identifiers, "
                "though "
                f"not every value is the same (lowest probability {_probability(float(posterior.min()))}, "
                f"{_small(float((1 - posterior).sum()))} expected to be chance). First: {listing(labels, limit=3)}.",
                why="The patient counts twice, and may stand in the training and the test part of one split.",
                remedy="Give both rows the same identifier, or keep one; the pairs are under `subjects` of the JSON "
                "report.",
                count=len(chosen),
                subjects=tuple(labels[:SHOWN]),
            )
        )
    return findings


def _without_identical(cohort: Cohort, matches: Matches) -> Matches:
    if not len(matches.left):
        return matches
    group = identical_rows(cohort)
    kept = group[matches.left] != group[matches.right]
    return Matches(matches.left[kept], matches.right[kept], matches.posterior[kept], matches.pairs)


def _labels(cohort: Cohort, matches: Matches, chosen: Positions) -> list[str]:
    names = (cohort.decisions["site"].astype(str) + "/" + cohort.decisions["subject_id"].astype(str)).to_list()
    order = chosen[np.argsort(-matches.posterior[chosen], kind="stable")]
    return [f"{names[matches.left[one]]} = {names[matches.right[one]]}" for one in order]


def _probability(value: float) -> str:
    return "over 0.999" if value > 0.999 else f"{value:.3f}"


def _small(number: float) -> str:
    return "fewer than 0.01" if number < 0.01 else f"{number:.2f}"


CHECKS: tuple[Check, ...] = (check_linkage,)
