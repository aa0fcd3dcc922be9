"""Performance at several sites taken together: the mean, how much sites differ, and what to expect of a new one.

A model that was judged at k sites has k figures, each with its own uncertainty. A random-effects meta-analysis says what
the mean is and, more to the point for whoever would take the model up, between which figures that of a new site is
expected (prediction interval).

Source: Debray et al., BMJ 2017;356:i6460; Snell et al., Stat Methods Med Res 2018;27:3505-3522 (which scale).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import chi2, t

from theracast_training.resampling import number

Floats = NDArray[np.float64]

NORMAL_95 = 1.959963984540054
LEAST_SITES = 2
LEAST_FOR_PREDICTION = 3
FEW_SITES = 5
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Scale:
    """A scale on which the figures of sites are about normal, and the way back."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    name: str


_LOGIT = Scale(lambda value: float(logit(value)), lambda value: float(expit(value)), "logit")
_LOG = Scale(lambda value: float(np.log(value)), lambda value: float(np.exp(value)), "log")
_AS_IS = Scale(float, float, "identity")
SCALES: Mapping[str, Scale] = {
    "auc": _LOGIT,
    "c_index": _LOGIT,
    "observed_expected": _LOG,
    "calibration_slope": _AS_IS,
    "calibration_intercept": _AS_IS,
}


def meta_analysis(
    evaluations: Mapping[str, Mapping[str, Any]],
    *,
    measures: Sequence[str] = ("auc", "calibration_slope", "calibration_intercept", "observed_expected"),
    method: Literal["reml", "dl"] = "reml",
) -> dict[str, Any]:
    """Return each metric over sites: mean, interval, prediction interval and heterogeneity, as plain JSON.

    Per metric: `value` with `low` and `high`, `prediction_low` and `prediction_high`, `tau2` (variance between sites on
    `scale`), `tau`, `i2`, `q` with `q_p_value`, `sites` (what each site contributed, with its `share` of the weight) and
    `notes`. A site's standard error is that of its 95 % interval on the scale on which sites are about normal: logit for
    AUC and C-index, log for observed / expected, the slope and the intercept as they are.

    Args:
        evaluations: site to its evaluation, as of `evaluate_binary`: NAME, NAME_low and NAME_high.
        measures: names of metrics that sites have in common.
        method: how the variance between sites is estimated; DerSimonian & Laird (`dl`) is too small with few sites.
    """
    return {name: _pooled(evaluations, name, method=method) for name in measures}


def random_effects(
    estimate: Sequence[float] | Floats,
    variance: Sequence[float] | Floats,
    *,
    method: Literal["reml", "dl"] = "reml",
    at_least_normal: bool = True,
) -> dict[str, Any]:
    """Return the random-effects meta-analysis of k >= 2 estimates, as plain JSON on their own scale.

    The interval of the mean is Hartung and Knapp's (t, k - 1 degrees of freedom); the prediction interval is that of
    Higgins, Thompson and Spiegelhalter (t, k - 2), None below 3 estimates. With few sites the latter is somewhat short: in
    600 simulated sets of 8 it held a ninth in 91 % (Partlett & Riley, Stat Med 2017;36:301-317 find the same).

    Args:
        estimate: (k,).
        variance: (k,) of each, above 0.
        method: estimator of the variance between.
        at_least_normal: never let Hartung and Knapp's factor make the standard error smaller than the usual one, which
            it does where estimates agree by chance (IntHout et al., BMC Med Res Methodol 2014;14:25; Rover et al.,
            BMC Med Res Methodol 2015;15:99).

    Source: Viechtbauer, J Educ Behav Stat 2005;30:261-293 (REML); DerSimonian & Laird, Control Clin Trials 1986;7:177-188;
    Hartung & Knapp, Stat Med 2001;20:3875-3889; Higgins et al., J R Stat Soc A 2009;172:137-159.
    """
    y, v = np.asarray(estimate, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    k = len(y)
    if k < LEAST_SITES or len(v) != k or not (np.isfinite(y).all() and (v > 0).all() and np.isfinite(v).all()):
        raise ValueError(f"needs at least {LEAST_SITES} finite estimates, each with a variance above 0")
    tau2 = _reml(y, v) if method == "reml" else _dersimonian_laird(y, v)
    weight = 1 / (v + tau2)
    mean = float(weight @ y / weight.sum())
    usual = float(1 / weight.sum())
    factor = float(weight @ (y - mean) ** 2 / (k - 1))
    error = float(np.sqrt(usual * (max(factor, 1.0) if at_least_normal else factor)))
    half = t.ppf(0.975, k - 1) * error
    q, typical = _heterogeneity(y, v)
    result: dict[str, Any] = {
        "k": k,
        "method": method,
        "value": mean,
        "standard_error": error,
        "low": float(mean - half),
        "high": float(mean + half),
        "prediction_low": None,
        "prediction_high": None,
        "tau2": tau2,
        "tau": float(np.sqrt(tau2)),
        "i2": float(tau2 / (tau2 + typical)),
        "q": q,
        "q_p_value": float(chi2.sf(q, k - 1)),
        "share": [float(one) for one in weight / weight.sum()],
    }
    if k >= LEAST_FOR_PREDICTION:
        spread = t.ppf(0.975, k - 2) * np.sqrt(tau2 + error**2)
        result |= {"prediction_low": float(mean - spread), "prediction_high": float(mean + spread)}
    return result


def _pooled(
    evaluations: Mapping[str, Mapping[str, Any]], name: str, *, method: Literal["reml", "dl"]
) -> dict[str, Any]:
    scale = SCALES.get(name)
    if scale is None:
        raise ValueError(f"no scale is known for {name!r}; there are {', '.join(SCALES)}")
    sites, notes, used = [], [], []
    for site, record in evaluations.items():
        value, low, high = (record.get(key) for key in (name, f"{name}_low", f"{name}_high"))
        moved = _moved(value, low, high, scale)
        sites.append({"site": site, "value": value, "low": low, "high": high, "n": record.get("n"), "share": None})
        if isinstance(moved, str):
            notes.append(f"{site}: {moved}, and does not count")
        else:
            used.append((len(sites) - 1, *moved))
    result: dict[str, Any] = {"measure": name, "scale": scale.name, "k": len(used), "sites": sites, "notes": notes}
    keys = ("value", "low", "high", "prediction_low", "prediction_high", "tau2", "tau", "i2", "q", "q_p_value")
    result |= dict.fromkeys(keys)
    if len(used) < LEAST_SITES:
        notes.append(f"{len(used)} of {len(sites)} sites have an estimate with an interval: nothing to take together")
        return result
    places, estimates, errors = zip(*used, strict=True)
    found = random_effects(np.array(estimates), np.array(errors) ** 2, method=method)
    for place, share in zip(places, found["share"], strict=True):
        sites[place]["share"] = share
    for key in keys:
        on_scale = key in ("value", "low", "high", "prediction_low", "prediction_high") and found[key] is not None
        result[key] = number(scale.back(found[key])) if on_scale else found[key]
    if len(used) < LEAST_FOR_PREDICTION:
        notes.append("two sites say nothing of how a third may differ: no prediction interval")
    elif len(used) < FEW_SITES:
        notes.append(
            f"{len(used)} sites: how much sites differ is known only roughly, and the prediction interval is wide"
        )
    return result


def _moved(value: Any, low: Any, high: Any, scale: Scale) -> tuple[float, float] | str:
    """Return estimate and standard error on the scale, or why there are none."""
    if value is None:
        return "it cannot be estimated"
    if low is None or high is None:
        return "it has no interval"
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate, *bounds = (scale.to(one) for one in (value, low, high))
    error = (bounds[1] - bounds[0]) / (2 * NORMAL_95)
    if not np.isfinite([estimate, error]).all():
        return f"the estimate or its interval ends at the edge of the {scale.name} scale"
    if not error > 0:
        return "its interval has no width"
    return estimate, error


def _dersimonian_laird(y: Floats, v: Floats) -> float:
    weight = 1 / v
    mean = weight @ y / weight.sum()
    q = weight @ (y - mean) ** 2
    c = weight.sum() - (weight**2).sum() / weight.sum()
    return float(max(0.0, (q - (len(y) - 1)) / c))


def _reml(y: Floats, v: Floats) -> float:
    """Return the variance of largest restricted likelihood: Fisher scoring from several starts, the best end kept."""
    spread = float(np.var(y, ddof=1))
    ends = [_scored(y, v, start) for start in (0.0, _dersimonian_laird(y, v), spread)]
    return max(ends, key=lambda one: _restricted_likelihood(y, v, one))


def _scored(y: Floats, v: Floats, start: float) -> float:
    tau2 = start
    for _ in range(1000):
        weight = 1 / (v + tau2)
        total = weight.sum()
        gap = y - weight @ y / total
        gain = weight**2 @ gap**2 - (total - (weight**2).sum() / total)
        curvature = (weight**2).sum() - 2 * (weight**3).sum() / total + ((weight**2).sum() / total) ** 2
        step, likelihood = gain / curvature, _restricted_likelihood(y, v, tau2)
        moved = max(tau2 + step, 0.0)
        while _restricted_likelihood(y, v, moved) < likelihood - 1e-12 and abs(moved - tau2) > TOLERANCE:
            moved = (moved + tau2) / 2
        if abs(moved - tau2) <= TOLERANCE * (1 + tau2):
            return float(moved)
        tau2 = moved
    return float(tau2)


def _restricted_likelihood(y: Floats, v: Floats, tau2: float) -> float:
    weight = 1 / (v + tau2)
    gap = y - weight @ y / weight.sum()
    return float(0.5 * (np.log(weight).sum() - np.log(weight.sum()) - weight @ gap**2))


def _heterogeneity(y: Floats, v: Floats) -> tuple[float, float]:
    """Return Cochran's Q and the typical variance within (Higgins & Thompson, Stat Med 2002;21:1539-1558)."""
    weight = 1 / v
    mean = weight @ y / weight.sum()
    typical = (len(y) - 1) * weight.sum() / (weight.sum() ** 2 - (weight**2).sum())
    return float(weight @ (y - mean) ** 2), float(typical)
