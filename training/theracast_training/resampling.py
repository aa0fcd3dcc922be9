"""Bootstrap resamples as counts: how often each decision was drawn, and the intervals that follow from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CHUNK_CELLS = 2_000_000
"""Resamples are made in blocks of about this many counts (16 MB)."""
LEAST_ESTIMABLE = 0.9
"""Below this fraction of resamples in which a metric exists, no interval is given."""


def resample_counts(n: int, *, resamples: int, seed: int, group: ArrayLike | None = None) -> Iterator[Floats]:
    """Yield blocks (r, n) of counts, `resamples` rows in all; each row draws with replacement.

    Without `group`, n decisions are drawn; with it (n identifiers), as many whole groups as there are, so that
    decisions of one patient stay together. The outcome is not stratified: how many events a cohort of this size happens
    to hold is part of the uncertainty of everything that depends on prevalence (Brier, calibration-in-the-large, net
    benefit). Resamples without an event are left out of the metrics that need one.
    """
    member = np.arange(n) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    drawn = int(member.max()) + 1 if n else 0
    rng = np.random.default_rng(seed)
    block = max(1, CHUNK_CELLS // max(n, 1))
    for start in range(0, resamples if n else 0, block):
        rows = min(block, resamples - start)
        picks = rng.integers(0, drawn, size=(rows, drawn)) + drawn * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * drawn).reshape(rows, drawn).astype(np.float64)
        yield counts if group is None else counts[:, member]


def percentile_interval(values: Floats) -> tuple[float | None, float | None]:
    """Return the 2.5th and 97.5th percentile of resampled values (R,); None where it is unbounded or too few exist.

    Infinite values (the slope of a resample that is separated) keep their place in the order.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    present = np.sort(values[~np.isnan(values)])
    if len(values) == 0 or len(present) < LEAST_ESTIMABLE * len(values):
        return None, None
    low, high = np.quantile(present, [0.025, 0.975], method="nearest")
    return number(low), number(high)


def two_sided_p(differences: Floats) -> float | None:
    """Return twice the smaller share of resampled differences on either side of 0 (each share counting 0 itself).

    One is added to count and total, so that p is never 0.

    Source: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.
    """
    present = differences[np.isfinite(differences)]
    if len(differences) == 0 or len(present) < LEAST_ESTIMABLE * len(differences):
        return None
    smaller = min(int((present <= 0).sum()), int((present >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(present) + 1))


def with_interval(name: str, estimate: float | None, resampled: Floats) -> dict[str, float | None]:
    """Return the estimate beside its percentile interval over resamples (R,), as `name`, `name_low` and `name_high`."""
    low, high = percentile_interval(resampled) if estimate is not None else (None, None)
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def with_difference(name: str, first: float | None, second: float | None, resampled: Floats) -> dict[str, float | None]:
    """Return two estimates, `name_a` and `name_b`, their difference with interval and two-sided p over resamples (R,)."""
    known = first is not None and second is not None
    low, high = percentile_interval(resampled) if known else (None, None)
    return {
        f"{name}_a": first,
        f"{name}_b": second,
        f"{name}_difference": first - second if first is not None and second is not None else None,
        f"{name}_difference_low": low,
        f"{name}_difference_high": high,
        f"{name}_p_value": two_sided_p(resampled) if known else None,
    }


def number(value: float) -> float | None:
    """Return the value as a plain float for JSON, None where it is not finite."""
    return float(value) if np.isfinite(value) else None
