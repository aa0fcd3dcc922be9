"""How many patients a study needs before it trains, by Riley's criteria, and what it can expect of those it has.

The criteria are those of a regression without a penalty. A penalty shrinks for the analyst, but how much is itself
estimated from the same few patients, so that it does not replace them (Riley et al., J Clin Epidemiol 2021;132:88-96);
trees need more still (van der Ploeg et al., BMC Med Res Methodol 2014;14:137).

Source of all criteria: Riley et al., BMJ 2020;368:m441; Stat Med 2019;38:1262-1275 (continuous) and 1276-1296 (binary
and time-to-event).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import chi2, norm, t

from theracast_data.section import Section
from theracast_features.specs import FeatureSpec, FeatureTable

Floats = NDArray[np.float64]

SHRINKAGE = 0.9
NAGELKERKE_UNKNOWN = 0.15
"""What to anticipate of a model of which nothing is known: Riley et al., BMJ 2020, box 2."""
SMALL = 0.05
"""Allowed optimism of (Nagelkerke's) R2, and allowed error of the overall risk."""
Z = 1.96  # as the papers and their software round it
MOST = 10_000_000
DAYS_A_YEAR = 365.25


class SampleSizeSection(Section):
    """What a study anticipates of its model: at most one of the four; else a Nagelkerke R2 of 0.15."""

    auc: float | None = Field(None, gt=0.5, lt=1, description="Anticipated AUC (C-index where time counts).")
    r2_cox_snell: float | None = Field(None, gt=0, lt=1, description="Anticipated Cox-Snell R2, optimism taken off.")
    r2_nagelkerke: float | None = Field(None, gt=0, lt=1, description="Anticipated Nagelkerke R2, optimism taken off.")
    r2: float | None = Field(None, gt=0, lt=1, description="Anticipated R2 of a continuous endpoint.")
    shrinkage: float = Field(SHRINKAGE, gt=0.5, lt=1, description="Shrinkage that is still accepted.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        named = [name for name in ("auc", "r2_cox_snell", "r2_nagelkerke", "r2") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} say the same thing twice; keep one")
        return self


def sample_size_of_study(
    table: FeatureTable,
    *,
    kind: Literal["binary", "time_to_event", "continuous", "ordinal"],
    y: Floats | None = None,
    time: Floats | None = None,
    event: Floats | None = None,
    horizon: float | None = None,
    anticipated: SampleSizeSection | None = None,
) -> dict[str, Any]:
    """Return what the development decisions would need and what they can give, before anything is fitted, as plain JSON.

    `candidates` (of `candidate_parameters`), `needed` (of `sample_size_...`) and `achieved` (of `achieved`), the last two
    None with a note where nothing can be said. How frequent the event is, how long the follow-up, or how the endpoint
    spreads, is taken from the decisions themselves. Decisions count, not patients: several of one patient say less.

    Args:
        table: the development decisions.
        kind: of the endpoint.
        y: (n,) 0/1 of a binary endpoint or values of a continuous one; NaN is left out.
        time, event: (n,) follow-up in days and 0/1 of a time-to-event endpoint; NaN is left out.
        horizon: days, of a time-to-event endpoint.
        anticipated: what the study expects of the model.
    """
    candidates = candidate_parameters(table)
    result: dict[str, Any] = {"candidates": candidates, "needed": None, "achieved": None, "note": None}
    parameters = candidates["parameters"]
    if kind == "ordinal":
        return result | {"note": "no criterion of sample size is published for an ordinal endpoint"}
    if parameters == 0:
        return result | {"note": "no feature varies among the development decisions"}
    if kind == "time_to_event":
        if time is None or event is None or horizon is None:
            raise ValueError("a time-to-event endpoint needs time, event and horizon")
        known = ~(np.isnan(time) | np.isnan(event))
        years = time[known] / DAYS_A_YEAR
        if not event[known].sum() or not years.sum() > 0:
            return result | {"note": "no event is known"}
        needed = sample_size_time_to_event(
            parameters=parameters,
            rate=float(event[known].sum() / years.sum()),
            follow_up=float(years.mean()),
            horizon=horizon / DAYS_A_YEAR,
            anticipated=anticipated,
        )
        return result | {"needed": needed, "achieved": achieved(needed, n=int(known.sum()))}
    if y is None:
        raise ValueError(f"a {kind} endpoint needs y")
    own = y[~np.isnan(y)]
    if len(own) < 2 or np.ptp(own) == 0:
        return result | {"note": "all known outcomes are the same"}
    needed = (
        sample_size_binary(parameters=parameters, prevalence=float(own.mean()), anticipated=anticipated)
        if kind == "binary"
        else sample_size_continuous(
            parameters=parameters, mean=float(own.mean()), sd=float(own.std(ddof=1)), anticipated=anticipated
        )
    )
    return result | {"needed": needed, "achieved": achieved(needed, n=len(own))}


def sample_size_binary(
    *, parameters: int, prevalence: float, anticipated: SampleSizeSection | None = None
) -> dict[str, Any]:
    """Return the least number of patients for a yes-or-no endpoint, criterion by criterion, as plain JSON.

    `mean_absolute_error` (van Smeden et al., Stat Methods Med Res 2019;28:2455-2474: the mean error of a probability at
    most 0.05) was found by simulation of up to 30 parameters; it stands beside the others and does not count in `needed`.

    Args:
        parameters: candidate parameters, at least 1; see `candidate_parameters`.
        prevalence: anticipated share of events, between 0 and 1.
        anticipated: what is expected of the model.
    """
    _check_counts(parameters, prevalence=prevalence)
    expected = anticipated or SampleSizeSection()
    largest = largest_r2_binary(prevalence)
    r2, told = _anticipated_r2(expected, largest, lambda auc: r2_from_auc(auc, prevalence))
    risk = _whole((Z / SMALL) ** 2 * prevalence * (1 - prevalence))
    result = _likelihood_criteria(parameters, r2, largest, expected.shrinkage, told, kind="binary")
    result["criteria"].append(_criterion("overall_risk", risk, "the overall risk is known to within 0.05"))
    return _concluded(result, events_each=min(prevalence, 1 - prevalence)) | {
        "prevalence": float(prevalence),
        "mean_absolute_error": _smeden(parameters, prevalence),
    }


def sample_size_time_to_event(
    *, parameters: int, rate: float, follow_up: float, horizon: float, anticipated: SampleSizeSection | None = None
) -> dict[str, Any]:
    """Return the least number of patients for a time-to-event endpoint, criterion by criterion, as plain JSON.

    Args:
        parameters: candidate parameters, at least 1.
        rate: events per patient and unit of time (a year, say).
        follow_up: mean follow-up in the same unit.
        horizon: time at which the risk is of interest, in the same unit.
        anticipated: what is expected of the model; an `auc` is taken as Harrell's C.
    """
    _check_counts(parameters, rate=rate, follow_up=follow_up, horizon=horizon)
    expected = anticipated or SampleSizeSection()
    events_each = rate * follow_up
    largest = largest_r2_time_to_event(events_each)
    r2, told = _anticipated_r2(expected, largest, lambda c: r2_from_c_index(c, events_each))

    def error(n: int) -> float:
        half = Z * np.sqrt(rate / (n * follow_up))
        bounds = 1 - np.exp(-np.array([max(rate - half, 0.0), rate + half]) * horizon)
        return float(np.abs(bounds - (1 - np.exp(-rate * horizon))).max())

    result = _likelihood_criteria(parameters, r2, largest, expected.shrinkage, told, kind="time_to_event")
    risk = _least(lambda n: error(n) <= SMALL, start=1)
    result["criteria"].append(_criterion("overall_risk", risk, "the risk by the horizon is known to within 0.05"))
    return _concluded(result, events_each=events_each) | {
        "rate": float(rate),
        "follow_up": float(follow_up),
        "horizon": float(horizon),
    }


def sample_size_continuous(
    *,
    parameters: int,
    mean: float,
    sd: float,
    anticipated: SampleSizeSection | None = None,
    margin: float = 1.1,
) -> dict[str, Any]:
    """Return the least number of patients for a continuous endpoint, criterion by criterion, as plain JSON.

    Args:
        parameters: candidate parameters, at least 1.
        mean, sd: anticipated mean and standard deviation of the endpoint.
        anticipated: its `r2` is the expected one, optimism taken off; without it 0.15.
        margin: factor within which residual spread and mean are to be known.
    """
    _check_counts(parameters, sd=sd)
    expected = anticipated or SampleSizeSection()
    r2 = NAGELKERKE_UNKNOWN if expected.r2 is None else expected.r2
    told = f"R2 of {r2:g}, as the study anticipates" if expected.r2 else f"R2 of {r2:g}, since nothing is known"

    def spread_known(n: int) -> bool:
        free = n - parameters - 1
        worst = max(free / chi2.ppf(0.025, free), chi2.ppf(0.975, free) / free)
        return bool(np.sqrt(worst) <= margin)

    def mean_known(n: int) -> bool:
        half = np.sqrt(sd**2 * (1 - r2) / n) * t.ppf(0.975, n - parameters - 1)
        return bool(half <= (margin - 1) * abs(mean))

    fewest = parameters + 2
    shrunk = _least(lambda n: shrinkage_continuous(n, parameters, r2) >= expected.shrinkage, start=fewest)
    optimism = _whole(1 + parameters * (1 - r2) / SMALL)
    criteria = [
        _criterion("shrinkage", shrunk, f"shrinkage of at least {expected.shrinkage:g}"),
        _criterion("optimism", optimism, "R2 is too high by at most 0.05"),
        _criterion("residual_spread", _least(spread_known, start=fewest), _factor("the residual spread", margin)),
    ]
    notes = []
    if mean > 0 and mean_known(MOST):
        criteria.append(_criterion("mean", _least(mean_known, start=fewest), _factor("the mean", margin)))
    else:
        notes.append("a factor around a mean near 0 or below says nothing: the criterion of the mean is left out")
    result = {
        "kind": "continuous",
        "parameters": parameters,
        "accepted_shrinkage": expected.shrinkage,
        "r2": float(r2),
        "anticipated": told,
    }
    return _concluded(result | {"criteria": criteria, "notes": notes}, events_each=None)


def achieved(needed: dict[str, Any], *, n: int) -> dict[str, Any]:
    """Return what n patients can give where `needed` (of `sample_size_...`) was asked: as plain JSON.

    `shrinkage` is what to expect of a model with all candidate parameters, None where a linear model has none to expect;
    `most_parameters` how many meet every criterion; `warning` a sentence, None where n is enough.
    """
    parameters, kind = int(needed["parameters"]), needed["kind"]
    asked = float(needed.get("accepted_shrinkage", SHRINKAGE))
    if kind == "continuous":
        found = shrinkage_continuous(n, parameters, needed["r2"]) if n > parameters + 1 else float("nan")
        shrinkage = found if 0 < found <= 1 else None
    else:
        shrinkage = expected_shrinkage(n, parameters, needed["r2_cox_snell"])
    most = _most_parameters(needed, n, asked)
    short = [one["name"] for one in needed["criteria"] if one["n"] > n]
    result = {
        "n": int(n),
        "needed": needed["needed"],
        "enough": not short,
        "short_of": short,
        "shrinkage": shrinkage,
        "most_parameters": most,
        "parameters": parameters,
        "events_per_parameter": None
        if needed.get("events_each") is None
        else float(n * needed["events_each"] / parameters),
    }
    return result | {"warning": _warning(result, needed)}


def candidate_parameters(table: FeatureTable) -> dict[str, Any]:
    """Return how many parameters the features of the development decisions stand for, as plain JSON.

    A number, a yes-or-no and an indicator count 1, a category its levels less 1 (those that the study fixes, else those
    that occur), what never varies 0. Pictures are counted in `pictures` alone: a network's weights are no candidates in
    Riley's sense, and no formula says how many patients it needs.
    """
    counted: dict[str, int] = {}
    pictures = 0
    for spec in table.catalogue:
        if spec.role == "picture":
            pictures += 1
        else:
            counted[spec.name] = _parameters_of(spec, table)
    by_modality: dict[str, int] = {}
    for spec in table.catalogue:
        if spec.name in counted:
            by_modality[spec.modality] = by_modality.get(spec.modality, 0) + counted[spec.name]
    return {
        "parameters": sum(counted.values()),
        "features": len(counted),
        "by_modality": by_modality,
        "categories": {name: count for name, count in counted.items() if count > 1},
        "pictures": pictures,
    }


def largest_r2_binary(prevalence: float) -> float:
    """Return the largest Cox-Snell R2 that a yes-or-no endpoint of this prevalence allows."""
    return float(1 - np.exp(2 * (prevalence * np.log(prevalence) + (1 - prevalence) * np.log(1 - prevalence))))


def largest_r2_time_to_event(events_each: float) -> float:
    """Return the largest Cox-Snell R2 where there are so many events per patient (exponential model without covariates)."""
    return float(1 - np.exp(2 * (events_each * np.log(events_each) - events_each)))


def r2_from_auc(auc: float, prevalence: float) -> float:
    """Return the Cox-Snell R2 of a model with this AUC, its linear predictor normal among events and among the others.

    With means 0 and m = sqrt(2) * quantile(AUC) and variance 1 the log-odds are `logit(prevalence) + m x - m^2 / 2`,
    so that the expected gain in likelihood is an integral, taken here by quadrature; the paper simulates it.

    Source: Riley, Van Calster, Collins, Stat Med 2021;40:859-864.
    """
    shift = np.sqrt(2) * norm.ppf(auc)
    node, mass = np.polynomial.hermite_e.hermegauss(200)
    mass = mass / mass.sum()
    base = logit(prevalence) - shift**2 / 2
    event = prevalence * (mass @ np.log(expit(base + shift * (node + shift))))
    other = (1 - prevalence) * (mass @ np.log(expit(-(base + shift * node))))
    none = prevalence * np.log(prevalence) + (1 - prevalence) * np.log(1 - prevalence)
    return float(1 - np.exp(-2 * (event + other - none)))


def r2_from_c_index(c: float, events_each: float) -> float:
    """Return the Cox-Snell R2 of a proportional hazards model with this C-index, by way of Royston's D.

    It errs to the safe side: of simulated patients without censoring it was 0.28 for 0.30 at a C of 0.67, and 0.43 for
    0.46 at 0.73.

    Source: Jinks, Royston, Parmar, BMC Med Res Methodol 2015;15:82 (D from C); Royston & Sauerbrei, Stat Med
    2004;23:723-748 (R2 of D); Riley et al., Stat Med 2019;38:1276-1296 (from there to Cox-Snell).
    """
    above = c - 0.5
    d = 5.50 * above + 10.26 * above**3
    r2_d = (np.pi / 8 * d**2) / (np.pi**2 / 6 + np.pi / 8 * d**2)
    r2_oq = (np.pi**2 / 6 * r2_d) / (1 - (1 - np.pi**2 / 6) * r2_d)
    return float(1 - (1 - r2_oq) ** events_each)


def expected_shrinkage(n: int, parameters: int, r2: float) -> float:
    """Return the shrinkage to expect of n patients, solved from Riley's criterion.

    The number needed rises with the shrinkage asked for, from 0 at a shrinkage of R2: with very few patients the answer
    is near R2, which means that hardly anything of what is learnt would hold.
    """
    low, high = r2 * (1 + 1e-12), 1 - 1e-12
    if n <= needed_for_shrinkage(low, parameters, r2):
        return float(r2)
    return float(brentq(lambda s: np.log(needed_for_shrinkage(s, parameters, r2)) - np.log(n), low, high, xtol=1e-12))


def needed_for_shrinkage(shrinkage: float, parameters: int, r2: float) -> float:
    """Return the number of patients (not rounded) for this expected shrinkage at this Cox-Snell R2."""
    return float(parameters / ((shrinkage - 1) * np.log1p(-r2 / shrinkage)))


def shrinkage_continuous(n: int, parameters: int, r2: float) -> float:
    """Return the expected shrinkage of a linear model; NaN below parameters + 2 patients."""
    if n < parameters + 2:
        return float("nan")
    apparent = (r2 * (n - parameters - 1) + parameters) / (n - 1)
    return float(1 + (parameters - 2) / (n * np.log1p(-apparent)))


def _anticipated_r2(
    expected: SampleSizeSection, largest: float, from_auc: Callable[[float], float]
) -> tuple[float, str]:
    """Return the Cox-Snell R2 to reckon with and the words for it."""
    if expected.r2 is not None:
        raise ValueError("r2 is that of a continuous endpoint; say auc, r2_cox_snell or r2_nagelkerke here")
    if expected.r2_cox_snell is not None:
        r2, told = expected.r2_cox_snell, f"Cox-Snell R2 of {expected.r2_cox_snell:g}, as the study anticipates"
    elif expected.r2_nagelkerke is not None:
        r2, told = (
            expected.r2_nagelkerke * largest,
            f"Nagelkerke R2 of {expected.r2_nagelkerke:g}, as the study anticipates",
        )
    elif expected.auc is not None:
        r2, told = from_auc(expected.auc), f"AUC of {expected.auc:g}, as the study anticipates"
    else:
        r2, told = NAGELKERKE_UNKNOWN * largest, f"Nagelkerke R2 of {NAGELKERKE_UNKNOWN:g}, since nothing is known"
    if not 0 < r2 < min(largest, expected.shrinkage):
        raise ValueError(
            f"a Cox-Snell R2 of {r2:.3f} cannot be: at this frequency of the event it stays below {largest:.3f}. "
            "Say r2_nagelkerke, which lies between 0 and 1, or lower what is anticipated"
        )
    return r2, told


def _likelihood_criteria(
    parameters: int, r2: float, largest: float, shrinkage: float, told: str, *, kind: str
) -> dict[str, Any]:
    optimism = r2 / (r2 + SMALL * largest)
    return {
        "kind": kind,
        "parameters": parameters,
        "accepted_shrinkage": shrinkage,
        "r2_cox_snell": float(r2),
        "r2_largest": largest,
        "r2_nagelkerke": float(r2 / largest),
        "anticipated": told,
        "criteria": [
            _criterion(
                "shrinkage",
                _whole(needed_for_shrinkage(shrinkage, parameters, r2)),
                f"shrinkage of at least {shrinkage:g}",
            ),
            _criterion(
                "optimism",
                _whole(needed_for_shrinkage(optimism, parameters, r2)),
                "Nagelkerke's R2 is too high by at most 0.05",
            ),
        ],
        "notes": [],
    }


def _concluded(result: dict[str, Any], *, events_each: float | None) -> dict[str, Any]:
    needed = max(one["n"] for one in result["criteria"])
    decisive = next(one["name"] for one in result["criteria"] if one["n"] == needed)
    parameters = result["parameters"]
    result |= {"needed": needed, "decided_by": decisive, "patients_per_parameter": needed / parameters}
    if events_each is None:
        return result
    events = needed * events_each
    return result | {
        "events_each": float(events_each),
        "events_needed": float(events),
        "events_per_parameter": float(events / parameters),
    }


def _smeden(parameters: int, prevalence: float) -> dict[str, Any]:
    if parameters > 30:
        return {"n": None, "note": "simulated for up to 30 parameters"}
    rarer = min(prevalence, 1 - prevalence)
    log_n = (-0.508 + 0.259 * np.log(rarer) + 0.504 * np.log(parameters) - np.log(SMALL)) / 0.544
    return {"n": _whole(float(np.exp(log_n))), "note": None}


def _most_parameters(needed: dict[str, Any], n: int, asked: float) -> int:
    """Return the largest number of parameters for which n patients meet every criterion; 0 where none does."""
    rest = [one["n"] for one in needed["criteria"] if one["name"] in ("overall_risk", "mean")]
    if rest and max(rest) > n:
        return 0
    if needed["kind"] != "continuous":
        r2 = needed["r2_cox_snell"]
        strictest = max(asked, r2 / (r2 + SMALL * needed["r2_largest"]))
        return int(np.floor(n / needed_for_shrinkage(strictest, 1, r2) + 1e-9))
    r2, count = needed["r2"], 0
    spread = next(one["n"] for one in needed["criteria"] if one["name"] == "residual_spread") - needed["parameters"]
    while (
        n >= count + 1 + spread
        and shrinkage_continuous(n, count + 1, r2) >= asked
        and 1 + (count + 1) * (1 - r2) / SMALL <= n
    ):
        count += 1
    return count


def _warning(found: dict[str, Any], needed: dict[str, Any]) -> str | None:
    if found["enough"]:
        return None
    shrinkage = (
        "not even a usable model"
        if found["shrinkage"] is None
        else f"to shrink what the model learns by {100 * (1 - found['shrinkage']):.0f} %"
    )
    most = found["most_parameters"]
    return (
        f"{found['n']:,} decisions for {found['parameters']} candidate parameters are too few: at least "
        f"{found['needed']:,} are needed ({needed['anticipated']}). Expect {shrinkage}. "
        f"{f'At most {most} parameters' if most else 'No parameter'} can be learnt from so many; name fewer columns in "
        "features.include, or add patients."
    ).replace("Expect to", "One has to")


def _parameters_of(spec: FeatureSpec, table: FeatureTable) -> int:
    present = table.frame[spec.name].dropna()
    distinct = present.nunique()
    if spec.kind != "categorical":
        return int(distinct > 1 or (distinct == 1 and len(present) < len(table)))
    return max(len(spec.levels) if spec.levels else int(distinct), 1) - 1


def _check_counts(parameters: int, **positive: float) -> None:
    if parameters < 1:
        raise ValueError(f"there must be at least one candidate parameter, not {parameters}")
    wrong = [name for name, value in positive.items() if not value > 0 or (name == "prevalence" and value >= 1)]
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)} must be above 0{', and prevalence below 1' if 'prevalence' in wrong else ''}"
        )


def _criterion(name: str, n: int, meaning: str) -> dict[str, Any]:
    return {"name": name, "n": n, "meaning": meaning}


def _factor(what: str, margin: float) -> str:
    return f"{what} is known to within {100 * (margin - 1):.0f} %"


def _whole(value: float) -> int:
    return int(np.ceil(value - 1e-9))


def _least(fits: Callable[[int], bool], *, start: int) -> int:
    """Return the smallest n from `start` on that fits; once it fits, every larger n does."""
    high = start
    while not fits(high):
        high *= 2
        if high > MOST:
            raise ValueError(f"more than {MOST:,} patients would be needed: lower what is asked")
    low = start - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
