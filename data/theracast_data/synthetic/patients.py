"""The synthetic patients: correlated values with realistic distributions, and what of them was never measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Quantity:
    """A (log-)normal quantity: centre, spread, limits, decimals, and how it goes with frailty and tumour burden."""

    centre: float
    spread: float
    limits: tuple[float, float]
    decimals: int
    frailty: float = 0.0
    burden: float = 0.0
    log: bool = False


QUANTITIES = {
    "age": _Quantity(63, 11, (25, 90), 0),
    "bmi": _Quantity(25.5, 0.17, (15, 50), 1, log=True),
    "albumin": _Quantity(3.85, 0.45, (2.0, 5.4), 1, frailty=-0.4),
    "neutrophils": _Quantity(5.2, 0.42, (0.9, 28), 2, frailty=0.3, log=True),
    "lymphocytes": _Quantity(1.35, 0.42, (0.2, 6), 2, frailty=-0.3, log=True),
    "platelets": _Quantity(265, 0.33, (60, 900), 0, log=True),
    "haemoglobin": _Quantity(12.4, 1.6, (6.6, 17.8), 1, frailty=-0.4),
    "ldh": _Quantity(230, 0.42, (90, 3000), 0, burden=0.35, log=True),
    "crp": _Quantity(12, 1.05, (0.3, 320), 1, frailty=0.6, log=True),
    "tmb": _Quantity(6.5, 0.95, (0.3, 150), 1, log=True),
    "tumour_volume": _Quantity(48, 1.1, (1, 2500), 1, burden=0.6, log=True),
    "sum_of_diameters": _Quantity(78, 0.5, (10, 400), 0, burden=0.75, log=True),
    "fatigue": _Quantity(38, 22, (0, 100), 0, frailty=0.45),
    "quality_of_life": _Quantity(60, 20, (0, 100), 0, frailty=-0.5),
    "daily_steps": _Quantity(4200, 0.55, (200, 22000), 0, frailty=-0.4, log=True),
    "resting_heart_rate": _Quantity(76, 9, (45, 125), 0, frailty=0.2),
}
CATEGORIES = {
    "sex": {"F": 0.44, "M": 0.56},
    "stage": {"III": 0.18, "IV": 0.82},
    "smoking": {"never": 0.28, "former": 0.47, "current": 0.25},
    "cancer_type": {"NSCLC": 0.42, "Melanoma": 0.21, "Renal": 0.15, "Bladder": 0.12, "Head & Neck": 0.10},
    "driver_mutation": {"none": 0.5, "KRAS": 0.22, "BRAF": 0.16, "other": 0.12},
    "regimen": {"anti-PD-1": 0.55, "anti-PD-1 + chemotherapy": 0.28, "anti-PD-1 + anti-CTLA-4": 0.17},
}
ECOG_CUTS = (0.38, 0.82, 0.97)
PDL1_POWER = 2.2

# Share of patients for whom a whole modality is absent, by site; none of it depends on outcome or calendar time.
ABSENT_MODALITY = {
    "genomics": {"Northfield": 0.15, "Harbour": 0.22, "Lakeside": 0.18},
    "imaging": {"Northfield": 0.06, "Harbour": 0.12, "Lakeside": 0.08},
    "questionnaires": {"Northfield": 0.12, "Harbour": 0.20, "Lakeside": 0.15},
    "wearables": {"Northfield": 0.30, "Harbour": 0.40, "Lakeside": 1.0},
}
MODALITY_COLUMNS = {
    "genomics": ("tmb", "pdl1_tps", "msi", "driver_mutation"),
    "imaging": ("tumour_volume", "sum_of_diameters"),
    "questionnaires": ("fatigue", "quality_of_life"),
    "wearables": ("daily_steps", "resting_heart_rate"),
}
SCATTERED = {"crp": 0.08, "ldh": 0.04, "albumin": 0.03, "haemoglobin": 0.02, "bmi": 0.03, "smoking": 0.05}
NOT_STAINED = 0.25


def draw_patients(site: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Return every value of n patients, complete, rounded as a hospital rounds them."""
    count = len(site)
    frailty, burden = rng.standard_normal(count), rng.standard_normal(count)
    columns: dict[str, object] = {name: _draw(quantity, frailty, burden, rng) for name, quantity in QUANTITIES.items()}
    columns |= {
        name: pd.Series(rng.choice(list(shares), size=count, p=list(shares.values())), dtype="str")
        for name, shares in CATEGORIES.items()
    }
    ranks = norm.cdf(_mixed(0.5, 0.0, frailty, burden, rng))
    columns["ecog"] = np.searchsorted(ECOG_CUTS, ranks).astype(np.float64)
    columns["pdl1_tps"] = np.round(100 * rng.uniform(size=count) ** PDL1_POWER)
    tmb = (np.log(np.asarray(columns["tmb"], dtype=np.float64)) - np.log(6.5)) / 0.95
    columns["msi"] = (rng.uniform(size=count) < 1 / (1 + np.exp(3.0 - 1.2 * tmb))).astype(np.float64)
    treated = rng.uniform(size=count) < 0.55
    columns["systemic_therapy_history"] = treated.astype(np.float64)
    # One in five earlier treatments was adjuvant and does not count as a line.
    later = treated & (rng.uniform(size=count) < 0.8)
    columns["line_of_therapy"] = np.where(later, 2 + np.minimum(rng.poisson(0.5, size=count), 3), 1).astype(np.float64)
    return pd.DataFrame(columns)


def draw_latent(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return what only images show of n patients: `heterogeneity` of the tumour, standard normal."""
    return pd.DataFrame({"heterogeneity": rng.standard_normal(count)})


def hide_values(complete: pd.DataFrame, site: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Return the values as they were measured: whole modalities, PD-L1 stains and single laboratory values missing."""
    values = complete.copy()
    count = len(values)
    for modality, shares in ABSENT_MODALITY.items():
        absent = rng.uniform(size=count) < site.map(shares).to_numpy(dtype=np.float64)
        for name in MODALITY_COLUMNS[modality]:
            values[name] = values[name].where(~absent)
    values["pdl1_tps"] = values["pdl1_tps"].where(rng.uniform(size=count) >= NOT_STAINED)
    for name, share in SCATTERED.items():
        values[name] = values[name].where(rng.uniform(size=count) >= share)
    return values


def _draw(quantity: _Quantity, frailty: Floats, burden: Floats, rng: np.random.Generator) -> Floats:
    z = _mixed(quantity.frailty, quantity.burden, frailty, burden, rng)
    raw = quantity.centre * np.exp(quantity.spread * z) if quantity.log else quantity.centre + quantity.spread * z
    return np.asarray(np.round(np.clip(raw, *quantity.limits), quantity.decimals), dtype=np.float64)


def _mixed(on_frailty: float, on_burden: float, frailty: Floats, burden: Floats, rng: np.random.Generator) -> Floats:
    """Return standard normal values with these correlations to frailty and tumour burden."""
    own = np.sqrt(1 - on_frailty**2 - on_burden**2)
    return np.asarray(on_frailty * frailty + on_burden * burden + own * rng.standard_normal(len(frailty)))
