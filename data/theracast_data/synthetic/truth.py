"""What is true of the synthetic patients: which features matter, how strongly, what a perfect model would reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SITES = ("Northfield", "Harbour", "Lakeside")
DEVELOPMENT = ("Northfield", "Harbour")
EXTERNAL = ("Lakeside",)
INTERCEPT = -0.75
SHIFT = {"Northfield": 0.0, "Harbour": 0.0, "Lakeside": -0.8}


@dataclass(frozen=True)
class Driver:
    """One quantity that truly changes the chance of response.

    Attributes:
        name: name of the feature, e.g. `nlr`.
        coefficient: log-odds per standard deviation.
        columns: the column it is read from; of two columns the first divided by the second.
        log: whether it acts on the logarithm.
        centre, spread: mean and standard deviation in the population, on the scale on which it acts.
    """

    name: str
    coefficient: float
    columns: tuple[str, ...]
    log: bool
    centre: float
    spread: float

    def standardised(self, values: pd.DataFrame) -> Floats:
        """Return (n,) values in standard deviations from the population's mean; NaN where missing."""
        raw = values[self.columns[0]]
        for divisor in self.columns[1:]:
            raw = raw / values[divisor]
        numbers = raw.to_numpy(dtype=np.float64)
        return ((np.log(numbers) if self.log else numbers) - self.centre) / self.spread


_NLR_CENTRE = float(np.log(5.2 / 1.35))
_NLR_SPREAD = float(np.sqrt(2 * 0.42**2 * (1 + 0.3**2)))

DRIVERS = (
    Driver("albumin", 0.50, ("albumin",), log=False, centre=3.85, spread=0.45),
    Driver("nlr", -0.50, ("neutrophils", "lymphocytes"), log=True, centre=_NLR_CENTRE, spread=_NLR_SPREAD),
    Driver("tmb", 0.60, ("tmb",), log=True, centre=float(np.log(6.5)), spread=0.95),
    Driver("pdl1_tps", 0.45, ("pdl1_tps",), log=False, centre=31.25, spread=29.6),
    Driver("tumour_volume", -0.40, ("tumour_volume",), log=True, centre=float(np.log(48)), spread=1.1),
    Driver("ldh", -0.35, ("ldh",), log=True, centre=float(np.log(230)), spread=0.42),
    Driver("systemic_therapy_history", -0.40, ("systemic_therapy_history",), log=False, centre=0.55, spread=0.4975),
    Driver("ecog", -0.30, ("ecog",), log=False, centre=0.83, spread=0.79),
    Driver("fatigue", -0.20, ("fatigue",), log=False, centre=38, spread=22),
    Driver("daily_steps", 0.20, ("daily_steps",), log=True, centre=float(np.log(4200)), spread=0.55),
)
IMAGE_DRIVERS = (Driver("heterogeneity", -0.9, ("heterogeneity",), log=False, centre=0.0, spread=1.0),)
"""What no table holds: how uneven a tumour is inside, which only its images show."""
LEVEL_EFFECTS = {
    "cancer_type": {"NSCLC": 0.0, "Melanoma": 0.35, "Renal": 0.2, "Bladder": -0.1, "Head & Neck": -0.35},
}
NOISE = ("age", "sex", "bmi", "stage", "smoking", "platelets", "driver_mutation", "resting_heart_rate", "regimen")
PROXIES = ("crp", "haemoglobin", "sum_of_diameters", "quality_of_life", "msi", "line_of_therapy")


@dataclass(frozen=True)
class PlantedFault:
    """One fault put into the files on purpose, by the audit's name for it."""

    check: str
    site: str
    column: str | None


@dataclass(frozen=True)
class Truth:
    """What the generator knows. All tables have one row per patient, in the order of the clinic's file.

    Attributes:
        folder: where the files are.
        decisions: `subject_id`, `site`, `index_time`, `treatment`.
        complete: every value by its name inside Theracast, in the study's units, before anything went missing.
        values: the same as the files hold it; missing is NaN.
        latent: `heterogeneity`, which acts on the outcome, is in no table, and can be measured in images only; in standard
            deviations, and independent of everything in the tables.
        outcomes: `recist` (CR, PR, SD, PD, NE), `response` (0/1, NaN for NE), `pfs_months`, `pfs_event`, `os_months`,
            `os_event`.
        log_odds: (n,) of response, the site's shift included.
        intercept: log-odds at the population's mean.
        drivers: what matters in the tables, per standard deviation, the strongest not necessarily first.
        image_drivers: what matters of `latent`.
        level_effects: log-odds by category.
        noise: columns without any effect.
        proxies: columns without an effect of their own that go along with drivers.
        shift: log-odds added at each site.
        bayes_auc: AUC of the true probabilities, expected over responses, by site and for `development`.
        bayes_auc_tables: the same of the best that can be known without images.
        faults: what was planted.
    """

    folder: Path
    decisions: pd.DataFrame
    complete: pd.DataFrame
    values: pd.DataFrame
    latent: pd.DataFrame
    outcomes: pd.DataFrame
    log_odds: Floats
    intercept: float
    drivers: tuple[Driver, ...]
    image_drivers: tuple[Driver, ...]
    level_effects: dict[str, dict[str, float]]
    noise: tuple[str, ...]
    proxies: tuple[str, ...]
    shift: dict[str, float]
    bayes_auc: dict[str, float]
    bayes_auc_tables: dict[str, float]
    faults: tuple[PlantedFault, ...] = ()


def true_log_odds(complete: pd.DataFrame, latent: pd.DataFrame, site: pd.Series) -> Floats:
    """Return (n,) log-odds of response."""
    total = INTERCEPT + site.map(SHIFT).to_numpy(dtype=np.float64)
    for drivers, values in ((DRIVERS, complete), (IMAGE_DRIVERS, latent)):
        for driver in drivers:
            total = total + driver.coefficient * driver.standardised(values)
    for name, effects in LEVEL_EFFECTS.items():
        total = total + complete[name].map(effects).to_numpy(dtype=np.float64)
    return np.asarray(total, dtype=np.float64)


def probability_without_images(log_odds: Floats, latent: pd.DataFrame) -> Floats:
    """Return (n,) the mean probability over what the images would show, which is standard normal, given all else.

    By Gauss-Hermite quadrature; the error is below 1e-6.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    seen = log_odds.copy()
    for driver in IMAGE_DRIVERS:
        seen -= driver.coefficient * driver.standardised(latent)
    spread = float(np.sqrt(sum(driver.coefficient**2 for driver in IMAGE_DRIVERS)))
    chances = 1 / (1 + np.exp(-(seen[:, None] + spread * nodes)))
    return np.asarray(chances @ (weights / weights.sum()), dtype=np.float64)


def expected_auc(probability: Floats) -> float:
    """Return the AUC that the true probabilities reach, expected over the responses they give.

    A pair counts by the chance that its first member responds and its second does not.
    """
    order = np.sort(probability)
    misses = np.cumsum(1 - order)
    below = np.concatenate([[0.0], misses[:-1]])
    concordant = float((order * below).sum())
    discordant = float(((1 - order) * (np.cumsum(order) - order)).sum())
    return concordant / (concordant + discordant)
