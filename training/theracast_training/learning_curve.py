"""How performance grows with the number of patients, and what more of them would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from theracast_data.errors import CohortError
from theracast_training import metrics
from theracast_training.refits import Fit, Floats, Rows, rows_by_patient
from theracast_training.resampling import number, percentile_interval

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
EXPONENTS = np.geomspace(0.1, 2.0, 60)
LEAST_POINTS = 3
BOOTSTRAP = 500


class Measure(Protocol):
    """A metric of probabilities, as in `metrics`."""

    def __call__(self, y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float: ...


MEASURES: Mapping[str, tuple[Measure, bool | None]] = {
    "auc": (metrics.auc, True),
    "brier": (metrics.brier, False),
    "calibration_slope": (metrics.calibration_slope, None),
}
"""Name to metric and whether more is better; None: neither, so no line is fitted through it."""


def learning_curve(
    fit: Fit,
    y: Floats,
    *,
    patients: Rows,
    weight: Floats | None = None,
    fractions: Sequence[float] = FRACTIONS,
    repeats: int = 20,
    held_out: float = 0.25,
    seed: int = 0,
) -> dict[str, Any]:
    """Return performance in held-out patients over growing numbers of patients to learn from, as plain JSON.

    Each repeat sets whole patients aside, spread over both outcomes, and learns from growing parts of the others: what a
    smaller part holds, a larger one holds too. `points` has the mean over the repeats with the range of their middle
    95 %, which is the spread of such splits, not the uncertainty of the cohort; `fits` the power law
    `limit -+ factor * patients^-exponent` of each metric with a better end, and a `sentence`.

    Args:
        fit: the procedure; see `refits.recipe_fit`.
        y: (n,) 0/1, all known.
        patients: (n,) a number for each decision's patient.
        weight: (n,) weights, by which the held-out decisions are judged.
        fractions: parts of the patients that are left to learn from, rising, each above 0 and at most 1.
        repeats: splits.
        held_out: share of patients that judge.
        seed: of the splits.

    Source: Figueroa et al., BMC Med Inform Decis Mak 2012;12:8 (inverse power law); Christodoulou et al., Diagn Progn Res
    2021;5:11 (adaptive sample size by learning curves).
    """
    if not fractions or list(fractions) != sorted(set(fractions)) or not 0 < fractions[0] <= fractions[-1] <= 1:
        raise ValueError(f"fractions must rise from above 0 to at most 1, not {', '.join(map(str, fractions))}")
    mass = np.ones(len(y)) if weight is None else weight
    members = rows_by_patient(patients)
    values = {name: np.full((repeats, len(fractions)), np.nan) for name in MEASURES}
    sizes = np.zeros((repeats, len(fractions), 3))
    failed = np.zeros(len(fractions), dtype=int)
    rng = np.random.default_rng(seed)
    for repeat in range(repeats):
        judging, learning = _split(members, y, held_out=held_out, rng=rng)
        asked = np.concatenate([members[one] for one in judging])
        for place, fraction in enumerate(fractions):
            part = learning[: max(1, round(fraction * len(learning)))]
            rows = np.sort(np.concatenate([members[one] for one in part]))
            sizes[repeat, place] = len(part), len(rows), y[rows].sum()
            try:
                p = fit(rows)(asked)
            except CohortError:
                failed[place] += 1
                continue
            for name, (measure, _) in MEASURES.items():
                values[name][repeat, place] = measure(y[asked], p, weight=mass[asked])
    return _told(values, sizes, failed, fractions=fractions, total=len(members), seed=seed)


def power_law(size: Floats, value: Floats, *, rising: bool) -> tuple[Floats, Floats, Floats]:
    """Return (R,) limits, factors and exponents of `limit -+ factor * size^-exponent` by least squares.

    Every exponent of a grid from 0.1 to 2 is tried; the other two have a closed form. The factor is not negative (more
    patients do not harm), the limit lies in [0, 1].

    Args:
        size: (m,) patients.
        value: (R, m) performance, R curves.
        rising: whether more is better.
    """
    sign = -1.0 if rising else 1.0
    best = np.full(len(value), np.inf)
    found = np.zeros((3, len(value)))
    for exponent in EXPONENTS:
        x = sign * (size / size[-1]) ** -exponent
        centred = x - x.mean()
        factor = np.maximum((value @ centred) / (centred @ centred), 0.0)
        limit = value.mean(axis=1) - factor * x.mean()
        bound = np.clip(limit, 0.0, 1.0)
        beyond = bound != limit
        pinned = np.maximum(((value - bound[:, None]) @ x) / (x @ x), 0.0)
        factor = np.where(beyond, pinned, factor)
        error = ((value - bound[:, None] - factor[:, None] * x) ** 2).sum(axis=1)
        better = error < best - 1e-15
        best = np.where(better, error, best)
        scaled = np.stack([bound, factor * size[-1] ** exponent, np.full(len(value), exponent)])
        found = np.where(better, scaled, found)
    return found[0], found[1], found[2]


def _split(members: list[Rows], y: Floats, *, held_out: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return patients who judge and patients to learn from, the latter so that every beginning holds both outcomes.

    A patient counts as an event if any of the decisions is one.
    """
    event = np.array([y[rows].max() > 0 for rows in members])
    judging: list[int] = []
    rank: list[tuple[float, int]] = []
    for outcome in (True, False):
        order = rng.permutation(np.flatnonzero(event == outcome))
        aside = max(1, round(held_out * len(order))) if len(order) > 1 else 0
        judging += [int(one) for one in order[:aside]]
        rest = order[aside:]
        rank += [((place + rng.random()) / len(rest), int(one)) for place, one in enumerate(rest)]
    if not judging or not rank:
        raise CohortError(
            "a learning curve needs at least two patients of either outcome. Add patients, or leave the curve out."
        )
    return judging, [one for _, one in sorted(rank)]


def _told(
    values: dict[str, Floats],
    sizes: Floats,
    failed: Any,
    *,
    fractions: Sequence[float],
    total: int,
    seed: int,
) -> dict[str, Any]:
    points = []
    for place, fraction in enumerate(fractions):
        patients, decisions, events = sizes[:, place].mean(axis=0)
        point: dict[str, Any] = {
            "fraction": float(fraction),
            "patients": float(patients),
            "decisions": float(decisions),
            "events": float(events),
            "fits": len(sizes) - int(failed[place]),
        }
        for name, found in values.items():
            column = found[:, place]
            known = column[np.isfinite(column)]
            low, high = percentile_interval(column) if len(known) else (None, None)
            centre = float(np.median(known) if name == "calibration_slope" else known.mean()) if len(known) else None
            point |= {name: centre, f"{name}_low": low, f"{name}_high": high}
        points.append(point)
    notes = [
        f"{int(count)} of {len(sizes)} parts of {100 * fraction:.0f} % of the patients were too few to learn from"
        for fraction, count in zip(fractions, failed, strict=True)
        if count
    ]
    fits: dict[str, Any] = {}
    for name, (_, rising) in MEASURES.items():
        if rising is not None:
            fits[name] = _fitted(
                values[name], sizes[:, :, 0].mean(axis=0), name=name, rising=rising, total=total, seed=seed
            )
            notes += [fits[name]["note"]] if fits[name]["note"] else []
    return {"patients": total, "repeats": len(sizes), "points": points, "fits": fits, "notes": notes}


def _fitted(value: Floats, size: Floats, *, name: str, rising: bool, total: int, seed: int) -> dict[str, Any]:
    """Return the power law through the means, with what it gives for all patients, half as many again and twice as many."""
    whole = np.isfinite(value).sum(axis=0) >= max(2, len(value) // 2)
    nothing: dict[str, Any] = {"limit": None, "factor": None, "exponent": None, "expected": [], "sentence": None}
    if whole.sum() < LEAST_POINTS:
        return nothing | {"note": f"{name}: fewer than {LEAST_POINTS} sizes could be judged, so that no line is fitted"}
    value, size = value[:, whole], size[whole]
    complete = value[np.isfinite(value).all(axis=1)]
    if len(complete) < 2:
        return nothing | {
            "note": f"{name}: fewer than 2 splits could be judged at every size, so that no line is fitted"
        }
    rng = np.random.default_rng([seed, 1])
    drawn = complete[rng.integers(0, len(complete), (BOOTSTRAP, len(complete)))].mean(axis=1)
    curves = power_law(size, np.vstack([complete.mean(axis=0), drawn]), rising=rising)
    sign = -1.0 if rising else 1.0

    def at(patients: float) -> Floats:
        return np.asarray(curves[0] + sign * curves[1] * patients ** -curves[2])

    expected = []
    for factor in (1.0, 1.5, 2.0):
        found = at(factor * total)
        low, high = percentile_interval(found[1:])
        gain_low, gain_high = percentile_interval(found[1:] - at(total)[1:])
        expected.append(
            {
                "patients": round(factor * total),
                name: number(found[0]),
                f"{name}_low": low,
                f"{name}_high": high,
                "gain": number(found[0] - at(total)[0]),
                "gain_low": gain_low,
                "gain_high": gain_high,
            }
        )
    return {
        "limit": float(curves[0][0]),
        "factor": float(curves[1][0]),
        "exponent": float(curves[2][0]),
        "expected": expected,
        "sentence": _sentence(name, size, complete.mean(axis=0), expected[-1], limit=float(curves[0][0]), total=total),
        "note": None,
    }


def _sentence(name: str, size: Floats, mean: Floats, doubled: dict[str, Any], *, limit: float, total: int) -> str:
    label = {"auc": "AUC", "brier": "Brier score"}[name]
    seen = (
        f"From {size[0]:.0f} to {size[-1]:.0f} patients to learn from, the {label} in held-out patients went from "
        f"{mean[0]:.3f} to {mean[-1]:.3f}."
    )
    if abs(doubled["gain"]) < 0.0005:
        return f"{seen} It is level: more patients like these are not seen to help."
    change, word = (doubled["gain"], "more") if name == "auc" else (-doubled["gain"], "less")
    bounds = sorted(doubled[f"gain_{end}"] * (1 if name == "auc" else -1) for end in ("low", "high"))
    return (
        f"{seen} Going on like this, {doubled['patients']} patients would give {doubled[name]:.3f}, {change:.3f} "
        f"({bounds[0]:.3f} to {bounds[1]:.3f}) {word} than the {total} there are, and any number of them {limit:.3f}."
    )
