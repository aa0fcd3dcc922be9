"""Hazard ratios and the log-rank test, as trials report them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

Floats = NDArray[np.float64]
Z = float(norm.ppf(0.975))
MOST_STEPS = 40


class CoxFit(NamedTuple):
    """Coefficients (p,), their covariance (p, p), and the log partial likelihood at them."""

    beta: Floats
    covariance: Floats
    log_likelihood: float


def fit_cox(X: Floats, time: Floats, event: Floats, *, strata: NDArray[Any] | None = None) -> CoxFit:
    """Return the proportional-hazards fit by Newton's method, with Efron's treatment of ties.

    Raises:
        ValueError: no event, or a covariate that separates the events so that no finite maximum exists.

    Source: Cox, J R Stat Soc B 1972;34:187-220; Efron, J Am Stat Assoc 1977;72:557-565.
    """
    groups = [np.arange(len(time))]
    if strata is not None:
        numbers = np.unique(strata, return_inverse=True)[1]
        groups = [np.flatnonzero(numbers == one) for one in range(int(numbers.max()) + 1)]
    centred = X - X.mean(axis=0)
    parts = [_sorted(centred[rows], time[rows], event[rows]) for rows in groups if event[rows].any()]
    if not parts:
        raise ValueError("there is no event from which a hazard ratio could be estimated")
    beta = np.zeros(X.shape[1])
    value, gradient, information = _likelihood(beta, parts)
    for _ in range(MOST_STEPS):
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        while True:
            moved = _likelihood(beta + size * step, parts)
            if moved[0] >= value - 1e-12 * abs(value) or size < 1e-8:
                break
            size /= 2
        beta = beta + size * step
        value, gradient, information = moved
        # Under separation the gradient vanishes too, but the steps do not: each is about one.
        still = np.abs(size * step).max() < 1e-6 * (1 + np.abs(beta).max())
        if still and np.abs(gradient).max() < 1e-8 * max(1.0, abs(value)):
            covariance = np.linalg.inv(information).astype(np.float64)
            return CoxFit(beta, covariance, value)
    raise ValueError("no finite hazard ratio exists: one group has all the events, or a covariate is constant")


def hazard_ratio(treated: Floats, time: Floats, event: Floats, *, strata: NDArray[Any] | None = None) -> dict[str, Any]:
    """Return the hazard ratio of treated against control with its Wald interval and p value; None where there is none."""
    try:
        fit = fit_cox(treated[:, None], time, event, strata=strata)
    except ValueError:
        return {"hazard_ratio": None, "hazard_ratio_low": None, "hazard_ratio_high": None, "p_value": None}
    beta, error = float(fit.beta[0]), float(np.sqrt(fit.covariance[0, 0]))
    return {
        "hazard_ratio": float(np.exp(beta)),
        "hazard_ratio_low": float(np.exp(beta - Z * error)),
        "hazard_ratio_high": float(np.exp(beta + Z * error)),
        "p_value": float(2 * norm.sf(abs(beta / error))),
    }


def log_rank(treated: Floats, time: Floats, event: Floats, *, strata: NDArray[Any] | None = None) -> dict[str, float]:
    """Return chi square (1 degree of freedom) and p value of the log-rank test, stratified where asked.

    Source: Mantel, Cancer Chemother Rep 1966;50:163-170; variance by the hypergeometric distribution.
    """
    numbers = np.zeros(len(time), dtype=int) if strata is None else np.unique(strata, return_inverse=True)[1]
    difference = variance = 0.0
    for one in range(int(numbers.max()) + 1):
        rows = numbers == one
        t, e, w = time[rows], event[rows], treated[rows]
        moments = np.unique(t[e == 1])
        order, own = np.sort(t), np.sort(t[w == 1])
        at_risk = len(order) - np.searchsorted(order, moments, side="left")
        treated_at_risk = len(own) - np.searchsorted(own, moments, side="left")
        died = np.array([((t == moment) & (e == 1)).sum() for moment in moments], dtype=float)
        treated_died = np.array([((t == moment) & (e == 1) & (w == 1)).sum() for moment in moments], dtype=float)
        share = treated_at_risk / at_risk
        difference += float((treated_died - died * share).sum())
        ties = np.where(at_risk > 1, (at_risk - died) / np.maximum(at_risk - 1, 1), 0.0)
        variance += float((died * share * (1 - share) * ties).sum())
    statistic = difference**2 / variance if variance > 0 else 0.0
    return {"chi_square": statistic, "p_value": float(chi2.sf(statistic, 1))}


class _Part(NamedTuple):
    """One stratum: covariates from the longest time to the shortest, and for each moment of events its rows."""

    X: Floats
    at_risk: NDArray[np.intp]
    tied: list[NDArray[np.intp]]


def _sorted(X: Floats, time: Floats, event: Floats) -> _Part:
    order = np.argsort(-time, kind="stable")
    falling, happened = time[order], event[order]
    moments = np.unique(falling[happened == 1])
    at_risk = np.searchsorted(-falling, -moments, side="right")
    tied = [np.flatnonzero((falling == moment) & (happened == 1)) for moment in moments]
    return _Part(X[order], at_risk.astype(np.intp), tied)


def _likelihood(beta: Floats, parts: list[_Part]) -> tuple[float, Floats, Floats]:
    """Return log partial likelihood, gradient (p,) and information (p, p)."""
    p = len(beta)
    value, gradient, information = 0.0, np.zeros(p), np.zeros((p, p))
    for part in parts:
        eta = part.X @ beta
        shift = float(eta.max())
        risk = np.exp(eta - shift)
        first = risk[:, None] * part.X
        second = first[:, :, None] * part.X[:, None, :]
        sums = np.cumsum(risk), np.cumsum(first, axis=0), np.cumsum(second, axis=0)
        for at_risk, tied in zip(part.at_risk, part.tied, strict=True):
            d, last = len(tied), at_risk - 1
            own = risk[tied].sum(), first[tied].sum(axis=0), second[tied].sum(axis=0)
            value += float(eta[tied].sum())
            gradient += part.X[tied].sum(axis=0)
            for number in range(d):
                share = number / d
                s0, s1, s2 = (total[last] - share * mine for total, mine in zip(sums, own, strict=True))
                mean = s1 / s0
                value -= float(np.log(s0)) + shift
                gradient -= mean
                information += s2 / s0 - np.outer(mean, mean)
    return value, gradient, information
