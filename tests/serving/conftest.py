"""A small real model: an elastic net on a generated cohort, with folder, registry versions and raw rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from theracast_data.endpoints import (
    BinaryEndpoint,
    ContinuousEndpoint,
    Endpoint,
    OrdinalEndpoint,
    TimeToEventEndpoint,
    horizon_days,
)
from theracast_data.home import tracking_uri
from theracast_data.sources import ColumnSpec, Inputs, TableSource
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable
from theracast_models.companions import Companions
from theracast_models.conformal import BinarySets, Conformal, EventTimes, Intervals, OrdinalSets
from theracast_models.families import Recipe
from theracast_models.fitting import CalibratedModel, fit_calibrated
from theracast_models.folds import patient_folds
from theracast_models.head import Head
from theracast_models.links import Asked, OrdinalLink, level_probabilities
from theracast_models.neighbours import Neighbours, Outcomes
from theracast_models.novelty import Novelty
from theracast_models.outcomes import Binary, Continuous, Ordinal, Outcome, Survival
from theracast_models.reference import Reference
from theracast_models.response_model import ResponseModel
from theracast_models.standing import FloorSection

ALIEN = """
import mlflow


class Alien(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return model_input


mlflow.models.set_model(Alien())
"""
CENTRES = {"Berg": 240, "Tal": 60}


def raw_table(seed: int = 3) -> pd.DataFrame:
    """Return raw rows of two centres, with the outcome; albumin, NLR and stage drive it."""
    rng = np.random.default_rng(seed)
    n = sum(CENTRES.values())
    albumin, nlr, tmb = rng.normal(3.8, 0.5, n), rng.lognormal(1.3, 0.6, n), rng.lognormal(1.8, 0.9, n)
    stage, ecog = rng.integers(0, 2, n), rng.integers(0, 3, n)
    tumour = rng.choice(["Melanoma", "NSCLC", "Renal"], n, p=[0.4, 0.4, 0.2])
    log_odds = (
        -1 + 1.1 * (albumin - 3.8) - 0.12 * (nlr - 4) + 0.04 * (tmb - 8) - 0.4 * stage + 0.5 * (tumour == "Melanoma")
    )
    table = pd.DataFrame(
        {
            "ID": [f"P{number:04d}" for number in range(n)],
            "Centre": np.repeat(list(CENTRES), list(CENTRES.values())),
            "Drug": rng.choice(["pembrolizumab", "nivolumab"], n),
            "Albumin": np.round(albumin, 2),
            "NLR": np.round(nlr, 2),
            "TMB": np.round(tmb, 1),
            "Stage IV": stage,
            "ECOG": ecog,
            "Tumour": tumour,
            "Response": (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int),
        }
    )
    table.loc[rng.random(n) < 0.15, "TMB"] = np.nan
    return table


def study_inputs() -> Inputs:
    """Return what the columns of `raw_table` mean."""
    columns = {
        "Albumin": ColumnSpec(label="Albumin", modality="lab", unit="g/dL", aliases=("ALB",), plausible=(1, 7)),
        "NLR": ColumnSpec(label="Neutrophil-to-lymphocyte ratio", modality="lab", cap=25),
        "TMB": ColumnSpec(label="Tumour mutational burden", modality="genomic", unit="{mutations}/Mb", cap=50),
        "Stage IV": ColumnSpec(label="Stage IV", kind="boolean", levels={1: 1, 0: 0}),
        "ECOG": ColumnSpec(label="ECOG", name="ecog"),
        "Tumour": ColumnSpec(label="Tumour", levels=("Melanoma", "NSCLC", "Renal")),
    }
    source = TableSource(path="raw.csv", subject="ID", site="Centre", treatment="Drug", columns=columns)
    return Inputs(sources=(source,))


def figures(n: int, events: int, auc: float | None) -> dict[str, Any]:
    """Return an evaluation as training stores it."""
    known = auc is not None
    return {
        "n": n,
        "events": events,
        "prevalence": events / n,
        "mean_probability": 0.31,
        "auc": auc,
        "auc_low": auc - 0.06 if auc is not None else None,
        "auc_high": auc + 0.06 if auc is not None else None,
        "calibration_intercept": 0.0 if known else None,
        "calibration_intercept_low": -0.3 if known else None,
        "calibration_intercept_high": 0.3 if known else None,
        "calibration_slope": 1.0 if known else None,
        "calibration_slope_low": 0.8 if known else None,
        "calibration_slope_high": 1.2 if known else None,
    }


def fit_model(recipe: Recipe, *, evaluations: dict[str, Any], card: dict[str, Any]) -> ResponseModel:
    """Return a fitted model with everything that training would put into it."""
    raw, inputs = raw_table(), study_inputs()
    endpoint = BinaryEndpoint(kind="binary", name="response", label="objective response (CR or PR)", column="Response")
    cohort = cohort_from_frame(raw, inputs, endpoints=[endpoint])
    development = cohort.at(["Berg"])
    section = resolve_section(FeatureSection(), development)
    table, y = build_features(development, section), development.endpoints["response"].to_numpy(dtype=np.float64)
    folds = patient_folds(table, y, folds=4, seed=1)
    return ResponseModel.build(
        card=card,
        inputs=inputs,
        section=section,
        endpoint=endpoint,
        calibrated=fit_calibrated(recipe, table, y, folds=folds, replicates=10, seed=1),
        table=table,
        y=y,
        evaluations=evaluations,
    )


HEADS: dict[str, Endpoint] = {
    "response": BinaryEndpoint(
        kind="binary", name="response", label="objective response (CR or PR)", column="Response"
    ),
    "pfs": TimeToEventEndpoint(
        kind="time_to_event",
        name="pfs",
        label="Progression-free survival",
        time="PFS",
        event="PFS_E",
        horizons=(6, 12),
    ),
    "os": TimeToEventEndpoint(
        kind="time_to_event", name="os", label="Overall survival", time="OS", event="OS_E", horizons=(12, 6, 24)
    ),
    "relapse": TimeToEventEndpoint(
        kind="time_to_event",
        name="relapse",
        label="Relapse",
        time="R",
        event="R_E",
        competing=(2,),
        horizons=(12, 6),
        event_label="a relapse",
    ),
    "toxicity": BinaryEndpoint(kind="binary", name="toxicity", label="Grade 3 or worse toxicity", column="Tox"),
    "best": OrdinalEndpoint(
        kind="ordinal", name="best", label="Best response", column="Best", levels=("PD", "SD", "PR", "CR")
    ),
    "change": ContinuousEndpoint(
        kind="continuous", name="change", label="Change of the sum of diameters", column="C", unit="mm"
    ),
}
"""Endpoints of every kind."""
PATTERNS = {
    "lab+genomic+clinical": {"n": 200, "events": 80, "auc": 0.8, "auc_low": 0.7, "auc_high": 0.9},
    "lab": {"n": 180, "events": 70, "auc": 0.55, "auc_low": 0.45, "auc_high": 0.65},
}
"""Performance by pattern of modalities."""


def outcome_of(name: str, score: NDArray[np.float64]) -> Outcome:
    """Return what happened to n patients, the better the higher their score."""
    rng = np.random.default_rng(len(name))
    n, even = len(score), np.ones(len(score))
    endpoint = HEADS[name]
    if endpoint.kind == "time_to_event":
        typical = {"pfs": 240, "os": 600, "relapse": 500}[name]
        event, lost = rng.exponential(typical * np.exp(0.8 * score)), rng.uniform(200, 1500, n)
        if name == "relapse":  # which death forestalls
            death = rng.exponential(500, n)
            first = np.minimum(event, death)
            came = [(first <= lost) & (one == first) for one in (event, death)]
            return Survival(np.ceil(np.minimum(first, lost)), came[0].astype(float), even, came[1].astype(float))
        return Survival(np.ceil(np.minimum(event, lost)), (event <= lost).astype(float), even)
    if endpoint.kind == "ordinal":
        return Ordinal(np.digitize(score + rng.logistic(size=n), [-1.0, 0.5, 2.0]).astype(float), 4, even)
    if endpoint.kind == "continuous":
        return Continuous(-8 * score - 6 + rng.normal(0, 9, n), even)
    return Binary(((-score if name == "toxicity" else score) + rng.logistic(size=n) > 1).astype(float), even)


def head_of(name: str, table: FeatureTable) -> tuple[Head, NDArray[np.float64]]:
    """Return the model of one endpoint, and its outcome as the aggregate of patients tells it."""
    score = 1.1 * (table.frame["lab.albumin"].to_numpy(dtype=float) - 3.8) / 0.5
    outcome = outcome_of(name, score)
    told, asked = outcome.strata, Asked()
    if isinstance(outcome, Survival):
        asked = Asked(horizons=horizon_days(HEADS[name]))
        told = ((outcome.time <= asked.horizons[0]) & (outcome.event > 0)).astype(float)
    elif isinstance(outcome, Ordinal):
        asked = Asked(main_level=2)
        told = (outcome.level >= 2).astype(float)
    elif isinstance(outcome, Continuous):
        told = outcome.y
    recipe = Recipe("elasticnet", {"c": 0.5, "l1_ratio": 0.5})
    folds = patient_folds(table, outcome.strata, folds=3, seed=1)
    fitted = fit_calibrated(recipe, table, outcome, folds=folds, replicates=10, seed=1, asked=asked)
    judged = judgement(outcome.kind)
    evaluations = {"cv": judged, "external": {"Tal": judged}, "patterns": PATTERNS}
    companions = companions_of(table, fitted, outcome)
    return Head(HEADS[name], fitted, Reference.learn(table, told), evaluations, companions), told


def companions_of(table: FeatureTable, fitted: CalibratedModel, outcome: Outcome) -> Companions:
    """Return what stands beside the answers, learned from the development patients' own answers."""
    estimates, link = fitted.answers(table), fitted.calibration
    _, phi = fitted.explain(table)
    if fitted.rival is not None:
        return Companions()
    conformal: Conformal
    if isinstance(outcome, Survival):
        days = [90.0, 180.0, 365.25, 540.0]
        curve = fitted.by(np.array(days), fitted.log_odds(table), table)
        assert curve is not None
        even = np.ones(len(table))
        conformal = EventTimes.learn(curve, outcome.time, outcome.event, horizons=days, source="held_out", weight=even)
        outcomes = Outcomes.survival(outcome.time, outcome.event, horizons=days)
    elif isinstance(outcome, Ordinal):
        assert isinstance(link, OrdinalLink)
        conformal = OrdinalSets.learn(level_probabilities(estimates, main=link.main), outcome.level, source="held_out")
        outcomes = Outcomes.ordinal(outcome.level, levels=4)
    elif isinstance(outcome, Continuous):
        conformal = Intervals.learn(estimates[:, 0], outcome.y, source="held_out")
        outcomes = Outcomes.continuous(outcome.y)
    else:
        assert isinstance(outcome, Binary)
        conformal = BinarySets.learn(estimates[:, 0], outcome.y, source="held_out", by_outcome=True)
        outcomes = Outcomes.binary(outcome.y)
    names = [spec.name for spec in table.catalogue]
    return Companions(conformal, Novelty.learn(table, phi), Neighbours.learn(phi, outcomes, names=names))


def judgement(kind: str) -> dict[str, Any]:
    """Return an evaluation as training stores it for this kind of endpoint."""
    if kind == "continuous":
        return {
            "n": 60,
            "mean_outcome": -7.1,
            "mean_estimate": -6.2,
            "mae": 7.4,
            "spearman": 0.61,
            "spearman_low": 0.42,
            "spearman_high": 0.74,
        }
    c = {"n": 60, "events": 31, "c_harrell": 0.71, "c_harrell_low": 0.63, "c_harrell_high": 0.78}
    ordinal = {"n": 60, "c_ordinal": 0.69, "c_ordinal_low": 0.6, "c_ordinal_high": 0.77}
    more = {"time_to_event": {"survival": c}, "ordinal": {"ordinal": ordinal}}.get(kind, {})
    return figures(60, 24, 0.7) | more


def several(primary: str, further: Sequence[str], *, floor: FloorSection | None = None) -> ResponseModel:
    """Return a model of several endpoints of the patients of `raw_table`."""
    raw, inputs = raw_table(), study_inputs()
    cohort = cohort_from_frame(raw, inputs).at(["Berg"])
    section = resolve_section(FeatureSection(), cohort)
    table = build_features(cohort, section)
    head, told = head_of(primary, table)
    return ResponseModel.build(
        card={
            "name": "several",
            "question": "Immune checkpoint blockade, asked before the first dose",
            "family": "elasticnet",
            "created": "2026-11-20T10:00:00+00:00",
            "development": ["Berg"],
        },
        inputs=inputs,
        section=section,
        endpoint=head.endpoint,
        calibrated=head.calibrated,
        table=table,
        y=told,
        evaluations=head.evaluations,
        further=[head_of(name, table)[0] for name in further],
        companions=replace(head.companions, floor=floor),
    )


@pytest.fixture(scope="session")
def board_model() -> ResponseModel:
    """Response first, with progression-free and overall survival, toxicity, levels and a number beside it."""
    return several("response", ["pfs", "os", "toxicity", "best", "change"])


@pytest.fixture(scope="session")
def board_models(board_model: ResponseModel) -> dict[str, ResponseModel]:
    """A model for each kind of primary endpoint, by name of that endpoint."""
    return {"response": board_model} | {name: several(name, ["response"]) for name in ("os", "best", "change")}


@pytest.fixture(scope="session")
def model() -> ResponseModel:
    """The model, not registered."""
    return fit_model(
        Recipe("elasticnet", {"c": 0.5, "l1_ratio": 0.5}),
        evaluations={
            "cv": figures(240, 80, 0.74),
            "external": {"Tal": figures(60, 20, 0.71), "Au": figures(12, 2, None)},
        },
        card={
            "name": "demo",
            "question": "Response to immune checkpoint blockade, asked before the first dose",
            "family": "elasticnet",
            "created": "2026-11-20T10:00:00+00:00",
            "development": ["Berg"],
            "data_fingerprint": "0123456789abcdef0123",
        },
    )


@pytest.fixture(scope="session")
def raw() -> pd.DataFrame:
    """Raw rows to score, without the outcome."""
    return raw_table(seed=4).drop(columns="Response")


@pytest.fixture(scope="session")
def model_folder(model: ResponseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved model."""
    folder = tmp_path_factory.mktemp("models") / "response_model"
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def registry_home(model: ResponseModel, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a registry: `demo` 1 and 2 (champion), `fresh` without alias, `alien` not of Theracast."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # MLflow warns of its own type annotations when it is imported and when a model is logged.
        warnings.simplefilter("ignore")
        patch.setenv("THERACAST_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        _fill_registry(home, model, model_folder)
    return home


def _fill_registry(home: Path, model: ResponseModel, model_folder: Path) -> None:
    import mlflow

    from theracast_training import tracking

    client = tracking.connect()
    with tracking.as_global_store(tracking_uri()), tracking.study_run(client, "demo", tags={}) as run:
        tracking.register(client, run, "demo", model, model_folder, tags={})
        ours = client.get_model_version("demo", "1").source
        script = home / "alien.py"
        script.write_text(ALIEN, encoding="utf-8")
        with mlflow.start_run(run_id=run):
            alien = mlflow.pyfunc.log_model(name="alien", python_model=str(script), pip_requirements=["theracast"])
        client.create_model_version("demo", ours)
        for alias, version in (("challenger", "1"), ("champion", "2")):
            client.set_registered_model_alias("demo", alias, version)
        for name, source in (("fresh", ours), ("alien", alien.model_uri)):
            client.create_registered_model(name)
            client.create_model_version(name, source)


@pytest.fixture
def registry(registry_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder with the registry, as the present one."""
    monkeypatch.setenv("THERACAST_HOME", str(registry_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return registry_home
