"""Make the synthetic cohort: draw patients and outcomes, hide values, write the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.errors import CohortError
from theracast_data.synthetic.faults import FAULTS, plant_faults
from theracast_data.synthetic.files import write_files
from theracast_data.synthetic.outcomes import draw_outcomes
from theracast_data.synthetic.patients import draw_latent, draw_patients, hide_values
from theracast_data.synthetic.truth import (
    DEVELOPMENT,
    DRIVERS,
    IMAGE_DRIVERS,
    INTERCEPT,
    LEVEL_EFFECTS,
    NOISE,
    PROXIES,
    SHIFT,
    SITES,
    Truth,
    expected_auc,
    probability_without_images,
    true_log_odds,
)

SITE_SHARES = {"Northfield": 0.48, "Harbour": 0.24, "Lakeside": 0.28}
FEWEST_PATIENTS = 60
FIRST_DAY = pd.Timestamp("2019-01-07")
LAST_DAY = pd.Timestamp("2024-06-28")


def generate(folder: Path, *, patients: int = 600, seed: int = 7, faults: bool = False) -> Truth:
    """Write the files of a multimodal oncology cohort at three sites into `folder`, and return what is true of it.

    Northfield and Harbour are for development, Lakeside is external: its patients respond less often than their values
    say (a shift of the intercept), and it has no wearables. The same arguments give the same files, byte for byte.

    Args:
        folder: made if need be; files of an earlier call are replaced.
        patients: over all sites, at least 60.
        seed: of everything that is drawn.
        faults: also plant faults for the audit to find, listed in `Truth.faults`.

    Raises:
        CohortError: too few patients.
    """
    if patients < FEWEST_PATIENTS:
        raise CohortError(f"{patients} patients are too few for three sites; ask for at least {FEWEST_PATIENTS}.")
    rng = np.random.default_rng(seed)
    decisions = _decisions(patients, rng)
    complete = draw_patients(decisions["site"], rng)
    decisions["treatment"] = complete["regimen"]
    # Of its own generator, so that the tables are those of a cohort without images.
    latent = draw_latent(patients, np.random.default_rng([seed, 1]))
    log_odds = true_log_odds(complete, latent, decisions["site"])
    probability = 1 / (1 + np.exp(-log_odds))
    outcomes = draw_outcomes(probability, decisions["index_time"], rng)
    values = hide_values(complete, decisions["site"], rng)
    planted = plant_faults(decisions, values, outcomes) if faults else None
    write_files(folder, planted or (decisions, values, outcomes), rng)
    return Truth(
        folder=folder,
        decisions=decisions,
        complete=complete,
        values=values,
        latent=latent,
        outcomes=outcomes,
        log_odds=log_odds,
        intercept=INTERCEPT,
        drivers=DRIVERS,
        image_drivers=IMAGE_DRIVERS,
        level_effects=LEVEL_EFFECTS,
        noise=NOISE,
        proxies=PROXIES,
        shift=dict(SHIFT),
        bayes_auc=_bayes_auc(decisions["site"], probability),
        bayes_auc_tables=_bayes_auc(decisions["site"], probability_without_images(log_odds, latent)),
        faults=FAULTS if faults else (),
    )


def _decisions(patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return n decisions: the sites one after the other, each in the order of its dates."""
    counts = [round(patients * SITE_SHARES[site]) for site in SITES]
    counts[0] += patients - sum(counts)
    parts = []
    for site, count in zip(SITES, counts, strict=True):
        days = np.sort(rng.integers(0, (LAST_DAY - FIRST_DAY).days + 1, size=count))
        ids = [f"{site[:2].upper()}-{number:04d}" for number in range(1, count + 1)]
        dates = FIRST_DAY + pd.to_timedelta(days, unit="D")
        parts.append(pd.DataFrame({"subject_id": ids, "site": site, "index_time": dates}))
    return pd.concat(parts, ignore_index=True)


def _bayes_auc(site: pd.Series, probability: NDArray[np.float64]) -> dict[str, float]:
    groups = {name: site == name for name in SITES} | {"development": site.isin(DEVELOPMENT)}
    return {name: expected_auc(probability[rows.to_numpy()]) for name, rows in groups.items()}
