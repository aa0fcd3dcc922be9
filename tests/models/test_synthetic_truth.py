"""The models against the truth of the synthetic cohort: from its files to the drivers, and to the shifted site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.optimize import brentq
from scipy.special import expit, logit

from theracast_data.cohort import Cohort
from theracast_data.synthetic import Truth, generate
from theracast_data.synthetic.truth import probability_without_images
from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.specs import FeatureTable
from theracast_models.fitting import CalibratedModel, Recipe, fit_calibrated
from theracast_training.metrics import auc, calibration_intercept, calibration_slope
from theracast_training.study import Study

RECIPES: list[Recipe] = [
    Recipe("elasticnet", {"c": 0.05, "l1_ratio": 0.5}),
    Recipe("lightgbm", {"rounds": 150, "learning_rate": 0.05, "num_leaves": 4}),
]
Made = tuple[Truth, Cohort, FeatureTable]


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A large cohort, read from its files and made into features as the demo study says."""
    truth = generate(tmp_path_factory.mktemp("cohort"), patients=4000, seed=5)
    study = Study.model_validate(
        yaml.safe_load((repository / "studies" / "demo_table.yaml").read_text(encoding="utf-8"))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(truth.folder))
        cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
    section = resolve_section(study.features, cohort.at(study.validation.development))
    return truth, cohort, build_features(cohort, section)


@pytest.fixture(scope="module", params=RECIPES, ids=lambda recipe: recipe.family)
def fitted(made: Made, request: Any) -> CalibratedModel:
    """The model of one family, fitted and calibrated on the development sites."""
    _, cohort, table = made
    rows = known_rows(cohort, ["Northfield", "Harbour"])
    fold = np.arange(len(rows)) % 5
    folds = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    outcome = cohort.endpoints["response"].to_numpy()[rows]
    return fit_calibrated(request.param, table.take(rows), outcome, folds=folds, replicates=0, seed=1)


def known_rows(cohort: Cohort, sites: list[str]) -> np.ndarray:
    """Return the positions of the evaluable decisions of these sites."""
    here = cohort.decisions["site"].isin(sites) & cohort.endpoints["response"].notna()
    return np.flatnonzero(here)


def shift_in_tables(truth: Truth, site: str) -> float:
    """The site's shift as a model without images sees it: smaller, for it averages over what they would show."""
    moved, unmoved = (
        probability_without_images(truth.log_odds - less, truth.latent)[(truth.decisions["site"] == site).to_numpy()]
        for less in (0.0, truth.shift[site])
    )

    def excess(shift: float) -> float:
        return float((moved - expit(logit(unmoved) + shift)).sum())

    return float(brentq(excess, -3, 3))


def test_the_model_recovers_the_drivers(made: Made, fitted: CalibratedModel) -> None:
    """What speaks most on average are true drivers, in the true direction; noise hardly speaks."""
    truth, _, table = made
    _, contributions = fitted.explain(table)
    phi = pd.DataFrame(contributions, columns=[spec.name for spec in table.catalogue])
    loudness = phi.abs().mean().rename(lambda name: name.split(".")[1]).groupby(level=0).sum()
    drivers = {driver.name: driver.coefficient for driver in truth.drivers}
    strong = [name for name, coefficient in drivers.items() if abs(coefficient) >= 0.35]
    assert set(loudness.nlargest(6).index) <= {*drivers, *truth.level_effects}
    assert loudness[[*truth.noise]].max() < loudness[strong].min()
    for driver in truth.drivers:
        name = next(spec.name for spec in table.catalogue if spec.name.endswith(f".{driver.name}"))
        direction = np.corrcoef(table.frame[name].fillna(table.frame[name].median()), phi[name])[0, 1]
        assert np.sign(direction) == np.sign(driver.coefficient), driver.name


def test_the_calibration_shift_is_detected(made: Made, fitted: CalibratedModel) -> None:
    """At the shifted site the ranks are as right as elsewhere, the probabilities too high by about the shift."""
    truth, cohort, table = made
    rows = known_rows(cohort, ["Lakeside"])
    outcome = cohort.endpoints["response"].to_numpy()[rows]
    probability = fitted.probability(table.take(rows))
    assert calibration_intercept(outcome, probability) == pytest.approx(shift_in_tables(truth, "Lakeside"), abs=0.25)
    assert 0.8 < calibration_slope(outcome, probability) < 1.25
    best = truth.bayes_auc_tables["Lakeside"]  # this study has no images
    assert best - 0.08 < auc(outcome, probability) < best + 0.02
