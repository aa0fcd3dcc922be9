"""The synthetic cohort's long files: the laboratory's results, and the days of the wearables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.synthetic.files import LABS, TIMES_TEN
from theracast_data.synthetic.outcomes import DAYS_PER_MONTH
from theracast_data.synthetic.patients import QUANTITIES
from theracast_data.synthetic.truth import Truth

Integers = NDArray[np.int64]

LAB_UNITS = {
    "albumin": "g/dL", "haemoglobin": "g/dL", "neutrophils": "10*9/L", "lymphocytes": "10*9/L",
    "platelets": "10*9/L", "ldh": "U/L", "crp": "mg/L",
}  # fmt: skip
# Days from the decision; the draw before the decision has the value of the cohort, the others are noise around it.
_DRAWS = (-42, -21, -2, 19, 40)
_LAST_DRAW = -2
_WORN_BEFORE, _WORN_AFTER = 28, 14
_WORN_SHARE = 0.9


def lab_results(truth: Truth, rng: np.random.Generator) -> pd.DataFrame:
    """Return the laboratory's export: patient, hospital, test, result, unit, collected, reported; in no order.

    What the cohort does not know was never measured. Nothing is measured after death or the last contact.
    """
    parts = []
    site = truth.decisions["site"].to_numpy()
    for name, test in LABS.items():
        numbers = truth.values[name].to_numpy(dtype=np.float64)
        times = np.where(site == TIMES_TEN.get(name), 10.0, 1.0)
        for draw in _DRAWS:
            noise = np.exp(0.12 * rng.standard_normal(len(numbers)))
            taken = (rng.uniform(size=len(numbers)) < 0.75) | (draw == _LAST_DRAW)
            decimals, limits = QUANTITIES[name].decimals, QUANTITIES[name].limits
            measured = numbers if draw == _LAST_DRAW else np.round(np.clip(numbers * noise, *limits), decimals)
            minutes = rng.integers(0, 120, size=len(numbers))
            collected = truth.decisions["index_time"] + pd.to_timedelta(draw * 1440 + 420 + minutes, unit="min")
            part = pd.DataFrame(
                {
                    "patient": truth.decisions["subject_id"],
                    "hospital": site,
                    "test": test,
                    "result": pd.Series(np.round(measured * times, decimals + 1)).astype(object),
                    "unit": np.where(times > 1, "g/L", LAB_UNITS[name]),
                    "collected": collected.dt.strftime("%Y-%m-%d %H:%M"),
                    "reported": (collected + pd.Timedelta(hours=3)).dt.strftime("%Y-%m-%d %H:%M"),
                }
            )
            parts.append(part[taken & np.isfinite(numbers) & (draw < _seen_days(truth))])
    results: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return results.iloc[rng.permutation(len(results))].reset_index(drop=True)


def wearable_days(truth: Truth, rng: np.random.Generator) -> pd.DataFrame:
    """Return one row per patient and day that was worn: patient, day, steps, resting_heart_rate, worn_minutes.

    The means over the days before the decision are the values of the cohort, exactly.
    """
    parts = []
    days = np.arange(-_WORN_BEFORE, _WORN_AFTER)
    columns = {"steps": ("daily_steps", 0.35), "resting_heart_rate": ("resting_heart_rate", 0.05)}
    for row, until in enumerate(_seen_days(truth)):
        means = {column: truth.values[name].iloc[row] for column, (name, _) in columns.items()}
        worn = days[(rng.uniform(size=len(days)) < _WORN_SHARE) & (days < until)]
        before = int((worn < 0).sum())
        if np.isnan(means["steps"]) or not before:
            continue
        day = truth.decisions["index_time"].iloc[row] + pd.to_timedelta(worn, unit="D")
        table = {"patient": truth.decisions["subject_id"].iloc[row], "day": day.strftime("%Y-%m-%d")}
        series = {
            column: _around(int(means[column]), len(worn), before, spread, rng)
            for column, (_, spread) in columns.items()
        }
        parts.append(pd.DataFrame(table | series | {"worn_minutes": rng.integers(640, 1300, size=len(worn))}))
    return pd.concat(parts, ignore_index=True)


def _around(mean: int, count: int, exact: int, spread: float, rng: np.random.Generator) -> Integers:
    """Return whole numbers around a mean, the first `exact` of which have it to the last digit."""
    numbers = np.round(mean * np.exp(spread * np.clip(rng.standard_normal(count), -2, 2))).astype(np.int64)
    over, rest = divmod(int(numbers[:exact].sum()) - mean * exact, exact)
    numbers[:exact] -= over
    numbers[:rest] -= 1
    return numbers


def _seen_days(truth: Truth) -> Integers:
    """Return (n,) days from the decision to death or the last contact."""
    return np.round(truth.outcomes["os_months"].to_numpy(dtype=np.float64) * DAYS_PER_MONTH).astype(np.int64)
