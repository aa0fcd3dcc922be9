"""Feature tables and a small study for the tests of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_data.endpoints import BinaryEndpoint
from theracast_data.modality import Modality
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_models.logodds import Floats, expit
from theracast_models.response_model import ResponseModel

MakeTable = Callable[..., tuple[FeatureTable, Floats]]
MakeModel = Callable[..., ResponseModel]


def spec(name: str, modality: Modality, kind: Any, **more: Any) -> FeatureSpec:
    """Return a spec whose label is the bare name in capitals."""
    bare = name.split(".")[1]
    return FeatureSpec(name=name, modality=modality, kind=kind, label=bare.upper(), columns=(bare,), **more)


CATALOGUE = (
    spec("lab.albumin", "lab", "numeric", unit="g/dL"),
    spec("lab.crp", "lab", "numeric", transform="log1p"),
    spec("clin.age", "clinical", "numeric"),
    spec("clin.stage", "clinical", "boolean"),
    spec("clin.tumour", "clinical", "categorical"),
    spec("gen.tmb", "genomic", "numeric", transform="log1p"),
    spec("gen.msi", "genomic", "boolean"),
)
NEVER_MISSING = ("clin.age", "clin.stage")


def random_table(
    seed: int, n: int = 200, *, missing: float = 0.15, levels: tuple[str, ...] = ("lung", "skin", "renal")
) -> tuple[FeatureTable, Floats]:
    """Return n decisions, and outcomes that depend on albumin, TMB and the tumour; age and stage are never missing."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "lab.albumin": rng.normal(3.8, 0.5, n),
            "lab.crp": rng.lognormal(2, 1, n),
            "clin.age": rng.integers(30, 90, n).astype(float),
            "clin.stage": rng.integers(0, 2, n).astype(float),
            "clin.tumour": pd.Series(rng.choice(levels, n), dtype="str"),
            "gen.tmb": rng.lognormal(1.5, 1, n),
            "gen.msi": (rng.random(n) < 0.1).astype(float),
        }
    )
    eta = 1.5 * (frame["lab.albumin"] - 3.8) + 0.6 * np.log1p(frame["gen.tmb"]) - 1.8
    eta += 0.8 * (frame["clin.tumour"] == levels[0])
    y = (rng.random(n) < expit(eta.to_numpy())).astype(np.float64)
    y[:2] = (0.0, 1.0)
    for one in CATALOGUE:
        if one.name not in NEVER_MISSING:
            frame.loc[rng.random(n) < missing, one.name] = np.nan
    ids = [str(number) for number in range(n)]
    decisions = pd.DataFrame({"subject_id": ids, "site": "A", "index_time": pd.NaT})
    return FeatureTable(frame=frame, catalogue=CATALOGUE, decisions=decisions), y


def with_holes(table: FeatureTable, seed: int) -> FeatureTable:
    """Return the table with any value missing, and levels that no one has had."""
    rng = np.random.default_rng(seed)
    frame = table.frame.copy()
    frame["clin.tumour"] = frame["clin.tumour"].where(rng.random(len(frame)) > 0.3, "a new level")
    return FeatureTable(frame.mask(rng.random(frame.shape) < 0.3), table.catalogue, table.decisions)


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Return the maker of feature tables."""
    return random_table


@pytest.fixture(scope="session")
def make_holes() -> Callable[[FeatureTable, int], FeatureTable]:
    """Return the maker of holes."""
    return with_holes


STUDY_INPUTS: dict[str, Any] = {
    "sources": [
        {
            "path": "/somewhere/secret/cohort.csv",
            "subject": "ID",
            "site": "Hospital",
            "missing": ["NE"],
            "columns": {
                "Albumin": {"modality": "lab", "unit": "g/dL", "source_unit": "g/L", "plausible": [1, 6]},
                "TMB": {"modality": "genomic", "cap": 50, "transform": "log1p"},
                "MSI": {"modality": "genomic", "levels": {1: 1, 0: 0, "high": 1}},
                "Tumour": {"levels": {1: "lung", 2: "skin", 3: "renal"}, "label": "Tumour type"},
                "Age": {"role": "feature", "unit": "a"},
                "Centre code": {"role": "covariate"},
            },
        }
    ]
}


def raw_patients(seed: int, n: int = 240) -> tuple[pd.DataFrame, Floats]:
    """Return raw rows as a hospital would have them, and outcomes."""
    rng = np.random.default_rng(seed)
    albumin, tmb = rng.normal(38, 5, n), rng.lognormal(1.5, 1, n)
    y = (rng.random(n) < expit(0.15 * (albumin - 38) + 0.6 * np.log1p(tmb) - 1.8)).astype(np.float64)
    frame = pd.DataFrame(
        {
            "ID": [f"p{number}" for number in range(n)],
            "Hospital": rng.choice(["North", "South"], n),
            "Albumin": albumin,
            "TMB": pd.Series(tmb).where(rng.random(n) > 0.2),
            "MSI": rng.integers(0, 2, n),
            "Tumour": rng.integers(1, 4, n),
            "Age": rng.integers(30, 90, n),
        }
    )
    return frame, y


@pytest.fixture(scope="session")
def make_raw() -> Callable[..., tuple[pd.DataFrame, Floats]]:
    """Return the maker of raw rows."""
    return raw_patients


RECIPES = {
    "elasticnet": Recipe("elasticnet", {"c": 0.3, "l1_ratio": 0.5}),
    "lightgbm": Recipe("lightgbm", {"rounds": 30, "min_data_in_leaf": 10}),
    "stack": Recipe(
        "stack",
        {
            "members": [Recipe("elasticnet", {"c": 0.3}), Recipe("lightgbm", {"rounds": 20}, "genomic")],
            "folds": 3,
        },
    ),
}


def small_model(family: str = "elasticnet", **more: Any) -> ResponseModel:
    """Return a whole response model, made in a moment."""
    raw, y = raw_patients(1)
    inputs = Inputs.model_validate(STUDY_INPUTS)
    cohort = cohort_from_frame(raw, inputs)
    section = resolve_section(FeatureSection(), cohort)
    table = build_features(cohort, section)
    calibrated = fit_calibrated(
        RECIPES[family], table, y, folds=patient_folds(table, y, folds=3, seed=0), replicates=10, seed=3
    )
    endpoint = BinaryEndpoint(name="response", kind="binary", column="Response", positive=("CR", "PR"))
    evaluations = {"cv": {"auc": 0.7}, "external": {"South": {"n": 10}}, "baselines": {}, "single_modality": {}}
    parts: dict[str, Any] = {
        "card": {"name": "small", "created": "2026-01-02T03:04:05"},
        "inputs": inputs,
        "section": section,
        "endpoint": endpoint,
        "calibrated": calibrated,
        "table": table,
        "y": y,
        "evaluations": evaluations,
    }
    return ResponseModel.build(**(parts | more))


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return the maker of response models."""
    return small_model


@pytest.fixture(scope="session")
def model() -> ResponseModel:
    """Return one response model; tests do not change it."""
    return small_model()
