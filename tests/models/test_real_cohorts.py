"""On every patient of the four real cohorts: explanations add up, also with columns taken away, and saving changes no bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated, patient_folds
from theracast_models.response_model import ResponseModel
from theracast_training.study import read_study

MIXED = Recipe(
    "stack",
    {"members": [Recipe("elasticnet", {"c": 0.05}), Recipe("lightgbm", {"rounds": 40})], "folds": 3},
)


@pytest.mark.parametrize("name", ["icb_full", "ispy2_baseline", "oak", "transneo"])
def test_adds_up_on_every_patient(shared_cohorts, repository, monkeypatch, tmp_path, name: str) -> None:
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    study = read_study(repository / "studies" / f"{name}.yaml")
    cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
    outcome = cohort.endpoints[study.endpoint.name].to_numpy(dtype=np.float64)
    developing = cohort.decisions["site"].isin(study.validation.development or cohort.sites).to_numpy()
    learn = np.flatnonzero(developing & np.isfinite(outcome))
    development, y = cohort.take(learn), outcome[learn]
    section = resolve_section(study.features, development)
    table = build_features(development, section)
    folds = patient_folds(table, y, folds=3, seed=0)
    model = ResponseModel.build(
        card={"name": name},
        inputs=study.inputs,
        section=section,
        endpoint=study.endpoint,
        calibrated=fit_calibrated(MIXED, table, y, folds=folds, replicates=10, seed=0),
        table=table,
        y=y,
    )
    holes = np.random.default_rng(0).random(cohort.values.shape) < 0.3
    values = pd.DataFrame({c: cohort.values[c].mask(holes[:, n]) for n, c in enumerate(cohort.values)})
    model.save(tmp_path / "m")
    again = ResponseModel.load(tmp_path / "m")
    for known in (cohort.values, values):
        asked = type(cohort)(cohort.decisions, known, cohort.endpoints, cohort.columns)
        found, repeated = model.predict_cohort(asked), again.predict_cohort(asked)
        log_odds = np.log(found.probability / (1 - found.probability))
        assert np.abs(found.base + found.contributions.sum(axis=1) - log_odds).max() < 1e-6
        assert np.array_equal(found.probability, repeated.probability)
        assert found.contributions.equals(repeated.contributions)
