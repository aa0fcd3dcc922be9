"""A published score as a model: its own numbers, finite where inputs are missing, explained exactly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from theracast_features.scores import PUBLISHED
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe, load_model
from theracast_models.fitting import fit_calibrated, patient_folds
from theracast_models.published import Published


def loris_table(n: int = 120, seed: int = 0, *, missing: float = 0.0) -> tuple[FeatureTable, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "gen.tmb": rng.lognormal(2, 1, n),
            "clin.systemic_therapy_history": rng.integers(0, 2, n).astype(float),
            "lab.albumin": rng.normal(3.8, 0.5, n),
            "lab.nlr": rng.lognormal(1.3, 0.6, n),
            "clin.age": rng.uniform(30, 90, n),
            "clin.cancer_type": pd.Series(rng.choice(["NSCLC", "Melanoma", "Renal"], n), dtype="str"),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < missing)
    modality = {"gen": "genomic", "clin": "clinical", "lab": "lab"}
    catalogue = tuple(
        FeatureSpec(
            name=name,
            modality=modality[name.split(".")[0]],
            kind="categorical" if name.endswith("type") else "numeric",
            label=name.split(".")[1],
            columns=(name.split(".")[1],),
        )
        for name in frame.columns
    )
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": pd.NaT})
    return FeatureTable(frame, catalogue, decisions), (rng.random(n) < 0.3).astype(float)


def test_gives_the_scores_own_log_odds() -> None:
    table, y = loris_table()
    bare = table.frame.rename(columns=lambda name: name.split(".")[1])
    expected = PUBLISHED["loris"].log_odds(bare)
    np.testing.assert_allclose(Published("loris").fit(table, y).log_odds(table), expected, atol=1e-12)


def test_what_is_missing_or_unknown_says_nothing_and_is_told() -> None:
    table, _ = loris_table(3)
    frame = table.frame.copy()
    frame.loc[0, ["lab.albumin", "gen.tmb"]] = np.nan
    frame.loc[1, "clin.cancer_type"] = "Thymoma"
    holes = FeatureTable(frame, table.catalogue, table.decisions)
    model = Published("loris")
    base, phi = model.contributions(holes)
    np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(holes), atol=1e-12)
    assert phi[0, 0] == phi[0, 2] == phi[1, 5] == 0
    told = model.handled(holes)
    assert "tmb and albumin" in told[0][0]
    assert "cancer_type: no development patient had this category" in told[1][0]
    assert told[2] == []


def test_its_interval_comes_from_the_calibration_that_is_learned(tmp_path) -> None:
    table, y = loris_table(missing=0.1)
    folds = patient_folds(table, y, folds=5, seed=0)
    model = fit_calibrated(Recipe("published", {"score": "loris"}), table, y, folds=folds, replicates=20, seed=0)
    low, high = model.interval(table)
    assert (high - low > 0.01).all()
    assert model.probability(table).mean() == pytest.approx(y.mean(), abs=1e-6)
    model.model.save(tmp_path / "m")
    assert np.array_equal(load_model(tmp_path / "m").log_odds(table), model.model.log_odds(table))
