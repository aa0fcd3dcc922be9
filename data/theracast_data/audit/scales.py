"""Checks of units and scales: one site against the agreement of the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from theracast_data.audit.chance import distance
from theracast_data.audit.context import AuditContext, Floats, continuous_columns, site_rows
from theracast_data.audit.findings import Check, Finding, Severity, figure, percent
from theracast_data.audit.limits import COMMON_FACTORS, PLAIN_FACTORS, known_factors, plausible_range, quantity_of
from theracast_data.cohort import Cohort

LEAST_FOR_SHAPE = 20
LEAST = 12
"""Values at a site below which its distribution is not judged."""
GRID_STEPS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
WHY_UNIT = (
    "The model would read every patient of this site as far outside, or at a wrong place inside, the range it learnt; "
    "validation there would judge the unit, not the model."
)
LOGARITHMS = {
    "the natural logarithm": np.log,
    "the logarithm to base 2": np.log2,
    "the logarithm to base 10": np.log10,
    "the natural logarithm of 1 + x": np.log1p,
    "the logarithm of 1 + x to base 2": lambda x: np.log2(1 + x),
    "the logarithm of 1 + x to base 10": lambda x: np.log10(1 + x),
}


@dataclass(frozen=True)
class Comparison:
    """One column at one site, and at the other sites that agree with each other.

    `shift` is the difference of the median logarithms (plain values where the column is not positive), `spread` the
    robust standard deviation inside sites on the same scale, `error` the standard error of the shift. `steps` are the
    grids (`grid_step`) of the site and of each other site; `each` are the values of each other site.
    """

    site: str
    column: str
    values: Floats
    others: Floats
    logarithmic: bool
    shift: float
    spread: float
    error: float
    steps: tuple[float | None, tuple[float | None, ...]]
    each: tuple[Floats, ...]

    @property
    def shift_in_spreads(self) -> float:
        """Shift as a multiple of what patients of one site differ by."""
        return abs(self.shift) / self.spread


def compare_sites(cohort: Cohort, context: AuditContext) -> Iterator[Comparison]:
    """Yield each continuous column at each site with enough values, against the sites that agree with each other."""
    rows = site_rows(cohort)
    for name, values in continuous_columns(cohort):
        finite = {site: values[at][np.isfinite(values[at])] for site, at in rows.items()}
        finite = {site: inside for site, inside in finite.items() if len(inside) >= LEAST and np.ptp(inside) > 0}
        if len(finite) < 2:
            continue
        logarithmic = all(_mostly_positive(inside) for inside in finite.values())
        on_scale = {site: np.log(inside[inside > 0]) if logarithmic else inside for site, inside in finite.items()}
        medians = {site: float(np.median(inside)) for site, inside in on_scale.items()}
        spread = max(float(np.median([_robust_spread(inside) for inside in on_scale.values()])), 1e-9)
        grids = {site: grid_step(inside) for site, inside in finite.items()}
        centre = _agreed_centre(cohort, context, name, medians, {site: len(one) for site, one in on_scale.items()})
        agreeing = [site for site in medians if abs(medians[site] - centre) <= max(spread, 0.2 if logarithmic else 0)]
        for site in finite:
            others = [other for other in agreeing if other != site]
            if not others or (len(finite) == 2 and abs(medians[site] - centre) < 1e-12):
                continue
            joined = np.concatenate([on_scale[other] for other in others])
            shift = medians[site] - float(np.median(joined))
            error = 1.25 * spread * float(np.sqrt(1 / len(on_scale[site]) + 1 / len(joined)))
            plain = np.concatenate([finite[other] for other in others])
            each = tuple(inside for other, inside in finite.items() if other != site)
            steps = grids[site], tuple(grids[other] for other in grids if other != site)
            yield Comparison(site, name, finite[site], plain, logarithmic, shift, spread, error, steps, each)


def check_scales(cohort: Cohort, context: AuditContext) -> list[Finding]:
    """Return a finding for each column that a site seems to hold in another unit, on another scale, or far off."""
    comparisons = list(compare_sites(cohort, context))
    usual = _usual_shift(comparisons)
    findings = []
    for comparison in comparisons:
        finding = (
            logarithm_finding(comparison)
            or affine_finding(cohort, comparison)
            or factor_finding(cohort, comparison, usual=usual)
            or location_finding(comparison, usual=usual)
        )
        if finding is not None:
            findings.append(finding)
    known = {(finding.site, finding.column) for finding in findings if finding.check == "unit-shift"}
    return findings + impossible_unit_findings(cohort, known)


def factor_finding(cohort: Cohort, comparison: Comparison, *, usual: float) -> Finding | None:
    """Return a finding if a known factor explains the shift: an error where the distributions hardly overlap.

    `usual` is the shift between sites, in spreads, that the other columns of the cohort show.
    """
    if not comparison.logarithmic:
        return None
    spec = cohort.columns[comparison.column]
    surprise = abs(comparison.shift) / float(np.hypot(usual * comparison.spread, comparison.error))
    candidates = known_factors(comparison.column, spec)
    words = min(candidates, key=lambda one: abs(comparison.shift - np.log(candidates[one][0])))
    factor, unit = candidates[words]
    # Sites round to tenths or wholes at will, but hardly ever to even numbers: that grid weighs more than the median.
    on_grid = _grid_speaks(comparison, factor)
    halved_or_doubled = on_grid and abs(abs(np.log2(factor)) - 1) < 0.01
    miss = abs(comparison.shift - np.log(factor))
    loose = 0.08 + 2.5 * comparison.error + 2 * usual * comparison.spread
    tolerance = abs(np.log(factor)) * 0.75 if halved_or_doubled else min(loose, 0.45 * abs(np.log(factor)))
    here, elsewhere = comparison.values[comparison.values > 0], comparison.others[comparison.others > 0]
    before, after = distance(here, elsewhere), distance(here / factor, elsewhere)
    if miss > tolerance or surprise < (0.8 if halved_or_doubled else 3.5):
        return None
    if before < 0.12 or after > (0.95 if halved_or_doubled else 0.6) * before:
        return None
    severity: Severity = "error" if comparison.shift_in_spreads >= 2.0 or halved_or_doubled else "warning"
    either = " With two sites alone it may as well be the other one." if len(comparison.steps[1]) == 1 else ""
    grid = " Its values also lie on the grid that the factor gives." if on_grid else ""
    return _unit_finding(
        comparison,
        severity,
        f"{_medians(comparison)}: ratio {figure(float(np.exp(comparison.shift)))}, close to {figure(factor)} ({words})."
        f"{grid} After that conversion the distributions differ by {after:.2f} instead of {before:.2f} "
        f"(Kolmogorov-Smirnov distance).{either}",
        f"Ask the site for unit and definition. {_declaration(comparison.site, unit)} If patients truly differ so "
        "much, "
        "accept the finding with the reason.",
    )


def affine_finding(cohort: Cohort, comparison: Comparison) -> Finding | None:
    """Return a finding if the site uses a unit with another zero, such as degrees Fahrenheit."""
    spec = cohort.columns[comparison.column]
    quantity = quantity_of(comparison.column, spec)
    if quantity is None or comparison.shift_in_spreads < 2.0:
        return None
    before = distance(comparison.values, comparison.others)
    for unit, (slope, intercept) in quantity.affine.items():
        for there, back in (
            (unit, (comparison.values - intercept) / slope),
            (next(iter(quantity.units)), comparison.values * slope + intercept),
        ):
            after = distance(back, comparison.others)
            if after > 0.35 or after > 0.5 * before:
                continue
            return _unit_finding(
                comparison,
                "error",
                f"{_medians(comparison)}: as if {quantity.name} were in {there} here. After conversion the "
                f"distributions differ by {after:.2f} instead of {before:.2f} (Kolmogorov-Smirnov distance).",
                f'Declare it for this column: `site_units: {{{comparison.site}: "{there}"}}`.',
            )
    return None


def logarithm_finding(comparison: Comparison) -> Finding | None:
    """Return a finding if the site holds the logarithm of what most other sites hold, or the reverse."""
    judged = [other for other in comparison.each if len(other) >= LEAST_FOR_SHAPE]
    if len(comparison.values) < LEAST_FOR_SHAPE or not judged:
        return None
    relations = [relation for other in judged if (relation := _log_relation(comparison.values, other)) is not None]
    if 2 * len(relations) <= len(judged):
        return None
    after, before, words = min(relations)
    return _unit_finding(
        comparison,
        "error",
        f"{_medians(comparison)}; the site seems to hold {words}. On one scale the distributions differ by {after:.2f} "
        f"instead of {before:.2f} (Kolmogorov-Smirnov distance).",
        f"Put the column of {comparison.site} back on the scale of the other sites in the source, or leave the column "
        f"out (`features: {{exclude: [{comparison.column}]}}`). The study's `transform` is applied later, to all "
        "sites.",
    )


def _log_relation(values: Floats, other: Floats) -> tuple[float, float, str] | None:
    """Return distance after and before a logarithm that makes two sites alike, and its words; None where none does.

    A change of unit that makes them more alike still speaks against it; where the two overlap, so does any other factor,
    because patients may differ by that.
    """
    before = distance(values, other)
    if before < 0.28:
        return None
    found = []
    for words, logarithm in LOGARITHMS.items():
        logs_here, logs_there = _applied(logarithm, values), _applied(logarithm, other)
        if logs_there is not None:
            found.append((distance(values, logs_there), before, f"{words} of the values elsewhere"))
        if logs_here is not None:
            found.append((distance(logs_here, other), before, f"values of which the others hold {words}"))
    if not found:
        return None
    best = min(found)
    chance = 1.2 * float(np.sqrt(1 / len(values) + 1 / len(other)))
    if best[0] > 0.2 + chance or best[0] > max(0.5 * before, before - 0.25):
        return None
    factors = [*PLAIN_FACTORS.values(), *COMMON_FACTORS.values()]
    rescaled = min(distance(values * factor, other) for one in factors for factor in (one, 1 / one))
    same_signs = (values < 0).any() == (other < 0).any()
    if before < 0.6 and same_signs:
        ratio = float(np.median(other) / (np.median(values) or 1.0))
        rescaled = min(rescaled, distance(values * ratio, other)) - 0.06
    return best if best[0] < rescaled else None


def location_finding(comparison: Comparison, *, usual: float) -> Finding | None:
    """Return a note, or a warning where it is extreme, if the site lies far from the others for no known factor."""
    surprise = abs(comparison.shift) / float(np.hypot(usual * comparison.spread, comparison.error))
    if surprise < 4.0 or comparison.shift_in_spreads < 0.8:
        return None
    return Finding(
        check="location-shift",
        severity="warning" if comparison.shift_in_spreads >= 3.0 else "note",
        site=comparison.site,
        column=comparison.column,
        message=f"{_medians(comparison)}: {comparison.shift_in_spreads:.1f} within-site standard deviations apart. No "
        "known factor explains it.",
        why="Other patients, another assay, or an unknown unit: the model may answer for a range it hardly knows.",
        remedy="Ask the site for the assay and its unit (`source_unit`, `site_units`), or read the results there with "
        "this in mind.",
        count=len(comparison.values),
    )


def impossible_unit_findings(cohort: Cohort, known: set[tuple[str | None, str | None]]) -> list[Finding]:
    """Return an error for each column and site, not `known` yet, whose values are possible only in another unit."""
    findings = []
    rows = site_rows(cohort)
    for name, values in continuous_columns(cohort):
        spec = cohort.columns[name]
        limits = plausible_range(name, spec)
        if limits is None:
            continue
        for site, at in rows.items():
            inside = values[at][np.isfinite(values[at])]
            possible = _share_within(inside, limits)
            if len(inside) < LEAST or (site, name) in known or possible >= 0.5:
                continue
            fitting = (
                (words, factor, unit)
                for words, (factor, unit) in known_factors(name, spec).items()
                if _share_within(inside / factor, limits) >= 0.95
            )
            for words, factor, unit in itertools.islice(fitting, 1):
                findings.append(
                    Finding(
                        check="unit-shift",
                        severity="error",
                        site=site,
                        column=name,
                        message=f"{percent(1 - possible)} of {len(inside)} values lie outside {figure(limits[0])} to "
                        f"{figure(limits[1])}; divided by {figure(factor)} ({words}) they lie inside.",
                        why=WHY_UNIT,
                        remedy=f"Ask for the unit in the file. {_declaration(site, unit)}",
                        count=len(inside),
                    )
                )
    return findings


def _agreed_centre(
    cohort: Cohort, context: AuditContext, name: str, medians: dict[str, float], sizes: dict[str, int]
) -> float:
    """Return the centre on which sites agree; of two, that of the possible one, else of development or the larger."""
    if len(medians) > 2:
        return float(np.median(list(medians.values())))
    limits = plausible_range(name, cohort.columns[name])
    ranked = sorted(medians, key=lambda site: (site not in context.development, -sizes[site]))
    if limits is not None:
        rows = site_rows(cohort)
        values = cohort.values[name].to_numpy(dtype=np.float64, na_value=np.nan)
        shares = {site: _share_within(values[rows[site]][np.isfinite(values[rows[site]])], limits) for site in medians}
        ranked.sort(key=lambda site: shares[site] < 0.5)
    return medians[ranked[0]]


def _usual_shift(comparisons: list[Comparison]) -> float:
    shifts = [comparison.shift_in_spreads for comparison in comparisons]
    return float(np.clip(1.4826 * np.median(shifts), 0.12, 0.4)) if len(shifts) >= 3 else 0.2


def _grid_speaks(comparison: Comparison, factor: float) -> bool:
    """Return whether the other sites share one grid, and the site's is wider or narrower by the factor."""
    here, elsewhere = comparison.steps
    if here is None or len(set(elsewhere)) != 1 or elsewhere[0] is None:
        return False
    return abs(here / elsewhere[0] / factor - 1) < 0.01


def grid_step(values: Floats) -> float | None:
    """Return the widest round step on which nearly all values lie; None where there is none, or too few values."""
    if len(values) < 20 or len(np.unique(values)) < 8:
        return None
    for step in GRID_STEPS:
        scaled = values / step
        if (np.abs(scaled - np.round(scaled)) < 1e-6 * np.maximum(1.0, np.abs(scaled))).mean() >= 0.97:
            return step
    return None


def _mostly_positive(values: Floats) -> bool:
    """Return whether a column has no negative values, and positive ones enough to be compared without its zeros."""
    positive = values > 0
    return bool((values >= 0).all() and positive.mean() >= 0.2 and positive.sum() >= LEAST)


def _robust_spread(values: Floats) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(max((high - low) / 1.349, 0.3 * values.std(), 1e-9))


def _share_within(values: Floats, limits: tuple[float, float]) -> float:
    return float(((values >= limits[0]) & (values <= limits[1])).mean()) if len(values) else 1.0


def _applied(logarithm: object, values: Floats) -> Floats | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.asarray(logarithm(values), dtype=np.float64)  # type: ignore[operator]
    finite = np.isfinite(result)
    return result[finite] if finite.mean() > 0.8 else None


def _medians(comparison: Comparison) -> str:
    return (
        f"Median {figure(float(np.median(comparison.values)))} in {len(comparison.values)} decisions against "
        f"{figure(float(np.median(comparison.others)))} in {len(comparison.others):,} elsewhere"
    )


def _declaration(site: str, unit: str | None) -> str:
    if unit is not None:
        return f'If it is {unit}, declare it for this column: `site_units: {{{site}: "{unit}"}}`.'
    return f'Declare its UCUM unit for this column, `site_units: {{{site}: "UNIT"}}`, or put it right in the source.'


def _unit_finding(comparison: Comparison, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(
        check="unit-shift",
        severity=severity,
        site=comparison.site,
        column=comparison.column,
        message=message,
        why=WHY_UNIT,
        remedy=remedy,
        count=len(comparison.values),
    )


CHECKS: tuple[Check, ...] = (check_scales,)
