"""What became of the synthetic patients: response, progression, death, and who was lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAYS_PER_MONTH = 30.4375
CUTOFF = pd.Timestamp("2025-12-31")
NOT_EVALUABLE = 0.04
# Months from the decision to progression: shortest, then mean of what is exponential beyond it.
PROGRESSION = {"CR": (6.0, 26.0), "PR": (4.0, 12.0), "SD": (2.8, 5.5), "PD": (1.0, 1.0), "NE": (0.4, 1.5)}
# Mean months from progression to death.
AFTER_PROGRESSION = {"CR": 26.0, "PR": 18.0, "SD": 11.0, "PD": 7.0, "NE": 3.0}
DEATH_WITHOUT_PROGRESSION = 0.08


def draw_outcomes(probability: Floats, index_time: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Return best response, and progression-free and overall survival in months, consistent with each other.

    Death ends both; progression never comes after death; who was lost is censored for both on the same day. Response is
    not a function of survival: the times of responders and of others overlap.
    """
    count = len(probability)
    recist = _best_response(probability, rng)
    shortest = recist.map({name: limits[0] for name, limits in PROGRESSION.items()}).to_numpy(dtype=np.float64)
    mean = recist.map({name: limits[1] for name, limits in PROGRESSION.items()}).to_numpy(dtype=np.float64)
    progression = shortest + rng.exponential(mean)
    gap = rng.exponential(recist.map(AFTER_PROGRESSION).to_numpy(dtype=np.float64))
    death = progression + np.where(rng.uniform(size=count) < DEATH_WITHOUT_PROGRESSION, 0.0, 0.2 + gap)
    lost = np.where(recist == "NE", 0.3 + rng.exponential(2.0, size=count), 6.2 + rng.exponential(70.0, size=count))
    until_cutoff = (CUTOFF - index_time).dt.days.to_numpy(dtype=np.float64) / DAYS_PER_MONTH
    follow_up = np.minimum(lost, until_cutoff)
    progressed, died = progression <= follow_up, death <= follow_up
    response = recist.map({"CR": 1.0, "PR": 1.0, "SD": 0.0, "PD": 0.0, "NE": np.nan})
    return pd.DataFrame(
        {
            "recist": recist,
            "response": response.astype(np.float64),
            "pfs_months": np.round(np.where(progressed, progression, follow_up), 2),
            "pfs_event": progressed.astype(np.float64),
            "os_months": np.round(np.where(died, death, follow_up), 2),
            "os_event": died.astype(np.float64),
        }
    )


def _best_response(probability: Floats, rng: np.random.Generator) -> pd.Series:
    count = len(probability)
    responds = rng.uniform(size=count) < probability
    deep, stable = rng.uniform(size=count) < 0.2, rng.uniform(size=count) < 0.45
    best = np.where(responds, np.where(deep, "CR", "PR"), np.where(stable, "SD", "PD"))
    return pd.Series(np.where(rng.uniform(size=count) < NOT_EVALUABLE, "NE", best), dtype="str")
