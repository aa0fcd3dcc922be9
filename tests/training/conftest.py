"""A report content as a training makes it, from simulated patients at a development site and four others."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from theracast_features.specs import FeatureSpec
from theracast_training.content import ReportContent, explanation_summary
from theracast_training.evaluation import compare_paired, curves, evaluate_binary

LEVELS = ("melanoma", "NSCLC", "renal", "bladder", "sarcoma")
LEVEL_EFFECT = dict(zip(LEVELS, (0.7, 0.0, 0.3, -0.2, -0.7), strict=True))
SPECS = (
    FeatureSpec("gen.tmb", "genomic", "numeric", "Tumour mutational burden", ("tmb",), "{mutations}/Mb"),
    FeatureSpec("lab.albumin", "lab", "numeric", "Albumin", ("albumin",), "g/dL", code="LOINC:1751-7"),
    FeatureSpec("lab.nlr", "lab", "numeric", "Neutrophil-lymphocyte ratio", ("nlr",), None, role="derived"),
    FeatureSpec("clin.age", "clinical", "numeric", "Age", ("age",), "a"),
    FeatureSpec("clin.systemic_therapy", "clinical", "boolean", "Systemic therapy before", ("systemic_therapy",)),
    FeatureSpec("clin.cancer_type", "clinical", "categorical", "Cancer type", ("cancer_type",)),
    FeatureSpec("lab.albumin.missing", "lab", "boolean", "Albumin not measured", ("albumin",), role="indicator"),
)
SITES = {
    "North": (900, 0.0, 1.0),
    "North later": (500, -0.1, 1.0),
    "Harbour": (430, -0.5, 0.8),
    "Lakeside": (190, 0.1, 0.5),
    "Hill": (34, 0.0, 1.0),
}


def _patients(rng: np.random.Generator, n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gen.tmb": np.minimum(rng.lognormal(1.6, 1.0, n), 50),
            "lab.albumin": np.where(rng.random(n) < 0.06, np.nan, rng.normal(3.8, 0.45, n)),
            "lab.nlr": rng.lognormal(1.3, 0.7, n),
            "clin.age": rng.normal(63, 11, n).clip(20, 90),
            "clin.systemic_therapy": rng.integers(0, 2, n).astype(float),
            "clin.cancer_type": pd.Series(rng.choice(LEVELS, n, p=(0.25, 0.4, 0.15, 0.14, 0.06)), dtype="str"),
            "lab.albumin.missing": np.zeros(n),
        }
    )


def _contributions(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gen.tmb": 0.045 * (frame["gen.tmb"] - 8),
            "lab.albumin": (0.75 * (frame["lab.albumin"] - 3.8)).fillna(0.0),
            "lab.nlr": -0.05 * (frame["lab.nlr"] - 4.5),
            "clin.age": 0.003 * (frame["clin.age"] - 63),
            "clin.systemic_therapy": -0.85 * (frame["clin.systemic_therapy"] - 0.5),
            "clin.cancer_type": frame["clin.cancer_type"].map(LEVEL_EFFECT).astype(float),
            "lab.albumin.missing": np.zeros(len(frame)),
        }
    )


def _site(rng: np.random.Generator, name: str) -> dict[str, Any]:
    n, shift, slope = SITES[name]
    frame = _patients(rng, n)
    truth = -0.95 + _contributions(frame).sum(axis=1).to_numpy()
    y = (rng.random(n) < expit(shift + slope * truth)).astype(float)
    noise = rng.normal(0, 0.1, n)
    return {
        "frame": frame,
        "y": y,
        "p": expit(truth + noise),
        "score": expit(logit(expit(truth)) * 0.8 + 0.9 + rng.normal(0, 0.45, n)),
        "lab": expit(-0.95 + _contributions(frame)[["lab.albumin", "lab.nlr"]].sum(axis=1).to_numpy()),
        "genomic": expit(-0.95 + _contributions(frame)["gen.tmb"].to_numpy()),
    }


def _searches(rng: np.random.Generator) -> dict[str, Any]:
    def trials(best: float, spread: float) -> list[dict[str, Any]]:
        losses = best + spread * rng.exponential(1.0, 50) * np.exp(-np.arange(50) / 40)
        return [{"number": i, "loss": float(loss), "state": "COMPLETE"} for i, loss in enumerate(losses)]

    return {
        "elasticnet": {
            "loss": 0.5432,
            "standard_error": 0.0121,
            "params": {"c": 0.0831, "l1_ratio": 0.62},
            "trials": trials(0.5432, 0.01),
        },
        "lightgbm": {
            "loss": 0.5511,
            "standard_error": 0.0143,
            "params": {
                "n_estimators": 85,
                "learning_rate": 0.0512,
                "num_leaves": 4,
                "min_child_samples": 31,
                "reg_lambda": 7.21,
            },
            "trials": trials(0.5511, 0.02),
        },
        "stack": {
            "loss": 0.5419,
            "standard_error": 0.0124,
            "params": {"members": [{"family": "elasticnet"}, {"family": "lightgbm"}], "weights": [0.71, 0.34]},
            "trials": [],
        },
    }


FINDINGS = [
    {
        "check": "constant-at-site",
        "severity": "error",
        "site": "Hill",
        "column": "lab.albumin",
        "message": "All 34 values are the same.",
        "why": "A constant is an imputed value in disguise: the site did not measure it.",
        "remedy": "List the value under `missing` of the column.",
        "accepted": "The site sent no laboratory values; the model is judged there without them.",
    },
    {
        "check": "missing-by-calendar",
        "severity": "warning",
        "site": "North",
        "column": "pdl1_tps",
        "message": "Missing in 62 % before 2016 and 11 % after.",
        "why": "Missingness then stands for time, and the outcome changed with time as well.",
        "remedy": "Leave the column out, or use the later years only.",
        "accepted": None,
    },
    {
        "check": "unseen-level",
        "severity": "warning",
        "site": "Harbour",
        "column": "cancer_type",
        "message": "1 level occurs in 4 decisions and never in development.",
        "why": "The model can only treat it as unknown.",
        "remedy": "Map it to a known level, or leave these decisions out.",
        "accepted": None,
    },
    {
        "check": "duplicate-row",
        "severity": "note",
        "site": "North",
        "column": None,
        "message": "2 rows agree in every column.",
        "why": "They may be one patient twice.",
        "remedy": "Look at rows 17 and 803 in the source.",
        "accepted": None,
    },
]


@pytest.fixture(scope="session")
def report_content() -> ReportContent:
    """A complete content: a good site, a miscalibrated one, a flat one, and one with some thirty patients."""
    rng = np.random.default_rng(11)
    found = {name: _site(rng, name) for name in SITES}
    external = [name for name in SITES if name != "North"]
    judged = {"cv": found["North"]} | {name: found[name] for name in external}
    performance = {name: evaluate_binary(one["y"], one["p"], bootstrap=200) for name, one in judged.items()}
    comparisons = [
        {"against": other, "kind": kind, "site": name, "calibrated": kind == "modality"}
        | compare_paired(judged[name]["y"], judged[name]["p"], judged[name][key], bootstrap=200)
        for kind, other, key in (
            ("baseline", "loris", "score"),
            ("modality", "lab", "lab"),
            ("modality", "genomic", "genomic"),
        )
        for name in judged
    ]
    frame = found["North"]["frame"]
    return ReportContent(
        name="checkpoint-response",
        question="Objective response to immune checkpoint blockade, asked before the first dose",
        endpoint="objective response (CR or PR)",
        model="models:/checkpoint-response/3",
        family="elasticnet",
        choice="stack has the least inner log loss (0.5419 ± 0.0124); elasticnet is simpler, within one SE.",
        made=date(2026, 11, 21),
        seed=7,
        development=("North",),
        external=tuple(external),
        cohort=[
            {"site": name, "decisions": len(one["y"]) + 3, "known": len(one["y"]), "events": int(one["y"].sum())}
            for name, one in found.items()
        ],
        attrition=[
            {"site": "North", "reason": "not in the cohort: another treatment", "dropped": 41, "left": 903},
            {"site": "Harbour", "reason": "no index time", "dropped": 0, "left": 433},
        ],
        findings=FINDINGS,
        searches=_searches(rng),
        evaluations={
            "cv": performance["cv"],
            "external": {name: performance[name] for name in external},
            "baselines": {
                "loris": {name: evaluate_binary(one["y"], one["score"], bootstrap=200) for name, one in judged.items()}
            },
        },
        curves={name: curves(one["y"], one["p"], bootstrap=100) for name, one in judged.items()},
        comparisons=comparisons,
        explanation=explanation_summary(_contributions(frame), frame, SPECS, seed=3),
        catalogue=[
            spec.to_json() | {"missing": {name: _missing(one["frame"], spec.name, name) for name, one in found.items()}}
            for spec in SPECS
        ],
        scheme={
            "outer": 5,
            "inner": 5,
            "repeats": 1,
            "by": "subject",
            "trials": 50,
            "bootstrap": 1000,
            "replicates": 40,
        },
        versions={"python": "3.11.7", "theracast": "0.1.0", "scikit-learn": "1.9.1", "lightgbm": "4.6.0"},
        fingerprint="d7ad5c4aeb1033d9b36e520d63acfd8efdc5f6e3f5d52ae0f9abf0d6fe922218",
        seconds=312.4,
    )


def _missing(frame: pd.DataFrame, name: str, site: str) -> float:
    return 1.0 if site == "Hill" and name == "lab.albumin" else float(frame[name].isna().mean())
