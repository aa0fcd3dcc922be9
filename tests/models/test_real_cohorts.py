"""On every patient of the real cohorts: explanations add up, also with columns taken away, and saving changes no bit."""

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
from theracast_training.target import target_of

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


FURTHER = [("icb_survival", "pfs"), ("oak", "os"), ("transneo", "rcb"), ("actg175_cd4", "cd4_change")]


@pytest.mark.parametrize("asked", FURTHER, ids=" ".join)
def test_times_levels_and_numbers_add_up_on_every_patient(
    shared_cohorts, repository, monkeypatch, tmp_path, asked: tuple[str, str]
) -> None:
    """As above, for the other kinds of endpoint: on its own scale each leading answer is the base and its shares."""
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    name, endpoint = asked
    study = read_study(repository / "studies" / f"{name}.yaml")
    cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
    asked_of = next(one for one in study.endpoints if one.name == endpoint)
    target = target_of(cohort, asked_of)
    learn = np.intersect1d(
        target.known, np.flatnonzero(cohort.decisions["site"].isin(study.validation.development or cohort.sites))
    )
    section = resolve_section(study.features, cohort.take(learn))
    table, known = build_features(cohort.take(learn), section), target.take(learn)
    folds = patient_folds(table, known.strata, folds=3, seed=0)
    fitted = fit_calibrated(MIXED, table, known.outcome(), folds=folds, replicates=10, seed=0, asked=target.asked)
    model = ResponseModel.build(
        card={"name": name},
        inputs=study.inputs,
        section=section,
        endpoint=asked_of,
        calibrated=fitted,
        table=table,
        y=known.told,
        weight=known.weight(),
    )
    model.save(tmp_path / "m")
    found, repeated = model.predict_cohort(cohort), ResponseModel.load(tmp_path / "m").predict_cohort(cohort)
    answer = found.answer
    on_scale = fitted.calibration.scale_of(answer.estimate)
    assert np.abs(answer.base + answer.contributions.sum(axis=1) - on_scale).max() < 1e-6
    assert np.array_equal(answer.estimates, repeated.answer.estimates)
    assert (answer.low <= answer.estimates).all()
    assert (answer.estimates <= answer.high).all()
    if asked_of.kind == "time_to_event":
        later = np.argsort(target.horizons)
        assert (np.diff(answer.estimates[:, later], axis=1) >= 0).all(), "chances of an event never fall"
    if asked_of.kind == "ordinal":
        better = answer.estimates[:, fitted.calibration.order.index(2)]
        assert (better <= answer.estimate).all(), "no better level is likelier than at least the leading one"
