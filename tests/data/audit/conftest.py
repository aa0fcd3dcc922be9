"""A clean cohort of three sites, drawn anew for each seed, into which the tests plant faults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.sources import ColumnSpec

SITES = {"North": 280, "South": 250, "East": 240}
MONTH = 30.4375


@pytest.fixture(scope="session")
def endpoints() -> list[Endpoint]:
    """Response, progression-free and overall survival."""
    adapter: TypeAdapter[list[Endpoint]] = TypeAdapter(list[Endpoint])
    return adapter.validate_python(
        [
            {"name": "response", "kind": "binary", "column": "Response"},
            {"name": "pfs", "kind": "time_to_event", "time": "PFS", "event": "PFS_Event"},
            {"name": "os", "kind": "time_to_event", "time": "OS", "event": "OS_Event"},
        ]
    )


@pytest.fixture(scope="session")
def clean() -> Callable[[int], Cohort]:
    """A function from a seed to a clean cohort: North and South develop, East judges."""
    return clean_cohort


def clean_cohort(seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    sites = np.repeat(list(SITES), list(SITES.values()))
    n = len(sites)
    mix = {site: rng.normal(0, 0.18, 20) for site in SITES}  # as far apart as the sites of the public ICB cohorts
    shift = np.array([mix[site] for site in sites])
    z = rng.normal(size=(n, 20)) + shift
    age = np.clip(np.round(62 + 11 * z[:, 0]), 19, 94)
    albumin = np.round(np.clip(3.9 + 0.45 * z[:, 1], 1.5, 5.4), 1)
    driver = 0.7 * z[:, 1] - 0.6 * z[:, 4] + 0.5 * z[:, 7] + rng.normal(0, 0.6, n)
    response = (rng.random(n) < 1 / (1 + np.exp(1.0 - driver))).astype(float)
    hazard = np.exp(-0.5 * driver - 1.0 * response + rng.normal(0, 0.3, n))
    progression = rng.exponential(5 * MONTH, n) / hazard + 40 * response
    death = progression + rng.exponential(8 * MONTH, n) / hazard
    calendar = rng.uniform(2015.0, 2019.0, n)
    end = np.minimum((2021.0 - calendar) * 365.25, rng.exponential(60 * MONTH, n) + 20)
    values = pd.DataFrame(
        {
            "age": age,
            "albumin": albumin,
            "haemoglobin": np.round(12.4 + 1.7 * z[:, 2], 1),
            "creatinine": np.round(np.exp(-0.1 + 0.3 * z[:, 3]), 2),
            "nlr": np.round(np.exp(1.4 + 0.75 * z[:, 4]), 2),
            "glucose": np.round(np.exp(4.65 + 0.22 * z[:, 5])),
            "crp": np.round(np.minimum(np.exp(2.2 + 1.2 * z[:, 6]), 400), 1),
            "tmb": np.round(np.where(rng.random(n) < 0.04, 0, np.exp(1.7 + 0.9 * z[:, 7])), 1),
            "weight": np.round(75 + 14 * z[:, 8], 1),
            "height": np.round(170 + 9 * z[:, 9]),
            "temperature": np.round(36.7 + 0.35 * z[:, 10], 1),
            "signature": np.round(0.8 * z[:, 11], 3),
            "pdl1": np.where(rng.random(n) < 0.4, 0, rng.choice([1, 5, 10, 20, 30, 50, 60, 70, 80, 90], n)).astype(
                float
            ),
            "sum_of_diameters": np.round(np.exp(4.1 + 0.6 * z[:, 12])),
            "diagnosis_months": np.round(np.exp(2.5 + 0.9 * z[:, 13])) + 1,
            "ecog": rng.choice([0.0, 1.0, 2.0, 3.0], n, p=[0.4, 0.42, 0.13, 0.05]),
            "prior_therapy": (rng.random(n) < 0.6).astype(float),
            "sex": rng.choice(["female", "male"], n),
            "stage": rng.choice(["II", "III", "IV"], n, p=[0.1, 0.25, 0.65]),
            "histology": rng.choice(["adeno", "squamous", "large cell", "other"], n, p=[0.55, 0.3, 0.1, 0.05]),
        }
    )
    for name, share in {"crp": 0.12, "pdl1": 0.35, "albumin": 0.03, "stage": 0.04, "signature": 0.2}.items():
        values.loc[rng.random(n) < share, name] = np.nan
    outcome = pd.DataFrame(
        {
            "response": response,
            "pfs.time": np.maximum(np.round(np.minimum(progression, end)), 1),
            "pfs.event": (progression <= end).astype(float),
            "os.time": np.maximum(np.round(np.minimum(death, end)), 1),
            "os.event": (death <= end).astype(float),
        }
    )
    decisions = pd.DataFrame(
        {
            "subject_id": [f"P{seed}-{number}" for number in range(n)],
            "site": sites.astype(str),
            "index_time": pd.Series(pd.NaT, index=range(n), dtype="datetime64[us]"),
            "treatment": "anti-PD-1",
            "calendar": np.round(calendar, 2),
        }
    )
    return Cohort(decisions=decisions, values=values, endpoints=outcome, columns=dict(SPECS))


SPECS = {
    "age": ColumnSpec(unit="a"),
    "albumin": ColumnSpec(modality="lab", code="LOINC:1751-7", unit="g/dL"),
    "haemoglobin": ColumnSpec(modality="lab", unit="g/dL"),
    "creatinine": ColumnSpec(modality="lab", unit="mg/dL"),
    "nlr": ColumnSpec(modality="lab"),
    "glucose": ColumnSpec(modality="lab", unit="mg/dL"),
    "crp": ColumnSpec(modality="lab", unit="mg/L"),
    "tmb": ColumnSpec(modality="genomic", unit="{mutations}/Mb"),
    "weight": ColumnSpec(unit="kg"),
    "height": ColumnSpec(unit="cm"),
    "temperature": ColumnSpec(unit="Cel"),
    "signature": ColumnSpec(modality="transcriptomic"),
    "pdl1": ColumnSpec(modality="pathology", unit="%", plausible=(0, 100)),
    "sum_of_diameters": ColumnSpec(modality="imaging", unit="mm"),
    "diagnosis_months": ColumnSpec(unit="mo"),
    "ecog": ColumnSpec(),
    "prior_therapy": ColumnSpec(levels={"no": 0, "yes": 1}),
    "sex": ColumnSpec(levels=("female", "male")),
    "stage": ColumnSpec(kind="categorical"),
    "histology": ColumnSpec(kind="categorical"),
}
