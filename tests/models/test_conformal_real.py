"""Conformal sets on real patients who were never seen. The full table: `bench/conformal.py`."""

from __future__ import annotations

import numpy as np
import pytest

from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_models.calibration import AffineCalibration
from theracast_models.conformal import BinarySets
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated, out_of_fold, patient_folds
from theracast_models.folds import patient_numbers
from theracast_models.logodds import expit
from theracast_training.study import read_study

RECIPE = Recipe("elasticnet", {"c": 0.1, "l1_ratio": 0.5})


@pytest.mark.parametrize("name", ["icb", "ispy2_baseline"])
def test_coverage_on_patients_never_seen(shared_cohorts, repository, monkeypatch, name: str) -> None:
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    study = read_study(repository / "studies" / f"{name}.yaml")
    cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
    y = cohort.endpoints[study.endpoint.name].to_numpy(dtype=np.float64)
    table, sites = build_features(cohort, resolve_section(study.features, cohort)), cohort.decisions["site"].astype(str)
    rng = np.random.default_rng(1)
    held, each, by_site = [], [], []
    for seed in range(8):
        order = rng.permutation(len(y))
        learn, ask = order[: 2 * len(y) // 3], order[2 * len(y) // 3 :]
        train = table.take(learn)
        folds = patient_folds(train, y[learn], folds=5, seed=seed)
        fitted = fit_calibrated(RECIPE, train, y[learn], folds=folds, replicates=0, seed=seed)
        honest = out_of_fold(RECIPE, train, y[learn], folds, seed=seed)
        p = expit(AffineCalibration.fit(honest, y[learn]).apply(honest))
        known = {"patients": patient_numbers(train.decisions), "source": "out_of_fold"}
        asked, row, outcome = fitted.probability(table.take(ask)), np.arange(len(ask)), y[ask].astype(int)
        held.append(BinarySets.learn(p, y[learn], **known).sets(asked)[row, outcome].mean())
        inside = BinarySets.learn(p, y[learn], by_outcome=True, **known).sets(asked)
        each.append([inside[outcome == one, one].mean() for one in (0, 1)])
        mondrian = BinarySets.learn(p, y[learn], groups=sites[learn].tolist(), **known)
        own = mondrian.sets(asked, groups=sites[ask].tolist())[row, outcome]
        by_site.append([own[sites[ask].to_numpy() == site].mean() for site in sites.value_counts().index[:3]])
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)
    assert np.mean(each, axis=0) == pytest.approx([0.9, 0.9], abs=0.03)
    assert np.mean(by_site, axis=0) == pytest.approx(np.full(len(by_site[0]), 0.9), abs=0.035)
