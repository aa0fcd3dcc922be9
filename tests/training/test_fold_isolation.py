"""No fit of any family sees a decision that it will judge: poison in the judged rows changes nothing that was learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.boosting import Boosting
from theracast_models.combat import Combat
from theracast_models.elasticnet import ElasticNet
from theracast_models.families import FAMILIES, Recipe
from theracast_models.fitting import build_model, fit_calibrated, out_of_fold, patient_folds
from theracast_models.preprocess import LinearInputs
from theracast_models.stack import Stack
from theracast_training.develop import Task, run_task
from theracast_training.fold_isolation import NEVER_SEEN, fold_isolation, poisoned
from theracast_training.refits import Floats, Rows
from theracast_training.study import SchemeSection, SearchSection, ValidationSection
from theracast_training.target import Target

BATCH = "batch.scanner"
LINEAR = Recipe("elasticnet", {"c": 0.5, "l1_ratio": 0.5}, harmonise=True)
TREES = Recipe("lightgbm", {"rounds": 15, "min_data_in_leaf": 8}, harmonise=True)
RECIPES = {
    "elasticnet": replace(LINEAR, harmonise=False),
    "lightgbm": replace(TREES, harmonise=False),
    "harmonised": LINEAR,
    "harmonised trees": TREES,
    "restricted": replace(LINEAR, modality="imaging"),
    "stack": Recipe(
        "stack",
        {"folds": 3, "members": [LINEAR.to_json(), TREES.to_json(), Recipe("elasticnet", {"c": 0.3}, "lab").to_json()]},
    ),
    "published": Recipe("published", {"score": "loris"}),
    "late": Recipe("late", {"folds": 3}, harmonise=True),
    "gated": Recipe("gated", {"hidden": 0}),
    "neural": Recipe("neural", {"width": 2}),
}


def _table(seed: int, n: int = 120) -> tuple[FeatureTable, Floats]:
    """Return decisions with the inputs of LORIS and two image features of three scanners, some missing."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "gen.tmb": rng.lognormal(2, 1, n),
            "clin.systemic_therapy_history": rng.integers(0, 2, n).astype(float),
            "lab.albumin": rng.normal(3.8, 0.5, n),
            "lab.nlr": rng.lognormal(1.3, 0.6, n),
            "clin.age": rng.uniform(30, 90, n),
            "clin.cancer_type": pd.Series(rng.choice(["NSCLC", "Melanoma", "Renal"], n), dtype="str"),
            "image.ct.volume": rng.lognormal(3, 0.5, n),
            "image.ct.mean": rng.normal(size=n),
        }
    )
    y = (rng.random(n) < expit(frame["image.ct.mean"] + frame["lab.albumin"] - 4.2)).to_numpy(dtype=float)
    y[:4] = (0, 1, 0, 1)
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    modality = {"gen": "genomic", "clin": "clinical", "lab": "lab", "image": "imaging"}
    catalogue = tuple(
        FeatureSpec(
            name=name,
            modality=modality[name.split(".", maxsplit=1)[0]],
            kind="categorical" if name == "clin.cancer_type" else "numeric",
            label=name,
            columns=(name.split(".", 1)[1],),
            transform="log1p" if name == "image.ct.volume" else "none",
            batch=BATCH if name.startswith("image") else None,
        )
        for name in frame.columns
    )
    decisions = pd.DataFrame(
        {
            "subject_id": [str(one // 2) for one in range(n)],
            "site": "A",
            "index_time": pd.NaT,
            "calendar": np.nan,
            BATCH: pd.array(rng.choice(["north", "south", "east"], n).tolist(), dtype="str"),
        }
    )
    return FeatureTable(frame, catalogue, decisions), y


def _sides(table: FeatureTable, y: Floats, seed: int) -> tuple[Rows, Rows]:
    return patient_folds(table, y, folds=4, seed=seed)[0]


def test_every_family_but_pictures_is_asked() -> None:
    asked = {recipe.family for recipe in RECIPES.values()} | {"harmonised", "restricted"}
    assert asked == set(FAMILIES) - {"cnn"}


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_out_of_fold_scores_do_not_depend_on_other_judged_decisions(name: str, seed: int) -> None:
    table, y = _table(seed)
    train, test = _sides(table, y, seed)

    def judge(all_of_them: FeatureTable, outcome: Floats, learn: Rows, asked: Rows) -> Floats:
        return out_of_fold(RECIPES[name], all_of_them, outcome, [(learn, asked)], seed=1)[asked]

    found = fold_isolation(judge, table, y, train=train, test=test, times=2, seed=seed)
    assert found["isolated"], found


@pytest.mark.parametrize("name", RECIPES)
def test_the_fitted_calibrated_model_is_the_same_file_by_file(name: str, tmp_path: Path) -> None:
    table, y = _table(3)
    train, test = _sides(table, y, 3)
    poison = poisoned(table, test, np.random.default_rng(0))
    saved = []
    for place, whole in enumerate((table, poison)):
        outcome = y if place == 0 else np.where(np.isin(np.arange(len(y)), test), 1 - y, y)
        own, own_y = whole.take(train), outcome[train]
        fitted = fit_calibrated(
            RECIPES[name], own, own_y, folds=patient_folds(own, own_y, folds=3, seed=0), replicates=2, seed=4
        )
        fitted.save(tmp_path / str(place))
        files = sorted(path for path in (tmp_path / str(place)).rglob("*") if path.is_file())
        saved.append({str(path.relative_to(tmp_path / str(place))): path.read_bytes() for path in files})
        saved[-1]["answers"] = fitted.probability(table.take(train)).tobytes()
    assert saved[0] == saved[1]


def _task(table: FeatureTable, y: Floats, learn: Rows, judged: Rows, journals: Path) -> Task:
    return Task(
        key="outer",
        table=table,
        target=Target(y),
        learn=learn,
        judged=judged,
        families=("elasticnet", "lightgbm", "stack"),
        search=SearchSection(one_standard_error=False),
        validation=ValidationSection(scheme=SchemeSection(outer=0, inner=3)),
        trials=2,
        seed=2,
        journals=journals,
    )


def test_the_whole_search_chooses_and_answers_the_same(tmp_path: Path) -> None:
    table, y = _table(5)
    train, test = _sides(table, y, 5)
    chosen: list[Any] = []

    def judge(all_of_them: FeatureTable, outcome: Floats, learn: Rows, asked: Rows) -> Floats:
        found = run_task(_task(all_of_them, outcome, learn, asked, tmp_path / str(len(chosen))))
        losses = {family: search.fold_losses for family, search in found.choice.searches.items()}
        chosen.append((found.choice.recipe.to_json(), losses))
        return found.judgement.answers[:, 0]

    found = fold_isolation(judge, table, y, train=train, test=test, times=2)
    assert found["isolated"], found
    assert chosen[0] == chosen[1] == chosen[2]


def test_every_fit_within_a_search_sees_learning_patients_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, y = _table(6)
    train, test = _sides(table, y, 6)
    poison = poisoned(table, test, np.random.default_rng(1))
    forbidden = set(table.decisions["subject_id"].iloc[test])
    watched: list[str] = []

    def watch(owner: Any, method: str) -> None:
        own = getattr(owner, method)

        def seen(*args: Any, **kwargs: Any) -> Any:
            for one in args:
                if isinstance(one, FeatureTable):
                    watched.append(f"{owner.__name__}.{method}")
                    assert not set(one.decisions["subject_id"]) & forbidden
                    assert NEVER_SEEN not in set(one.frame["clin.cancer_type"].dropna())
                elif owner is Combat and isinstance(one, np.ndarray):
                    watched.append("Combat.learn")
                    assert np.nanmax(one) < 1e3
            return own(*args, **kwargs)

        monkeypatch.setattr(
            owner, method, staticmethod(seen) if isinstance(owner.__dict__[method], classmethod) else seen
        )

    for owner in (ElasticNet, Boosting, Stack):
        watch(owner, "fit")
    watch(LinearInputs, "learn")
    watch(Combat, "learn")
    run_task(_task(poison, y, train, test, tmp_path))
    assert {"ElasticNet.fit", "Boosting.fit", "LinearInputs.learn", "Combat.learn"} <= set(watched)


def _leaks() -> dict[str, Any]:
    """Return procedures that estimate one thing on all decisions."""

    def scaled(table: FeatureTable, y: Floats, learn: Rows, asked: Rows) -> Floats:
        values = table.numbers(["lab.albumin"])[:, 0]
        filled = np.where(np.isnan(values), np.nanmedian(values), values)
        return (filled[asked] - filled.mean()) / filled.std()

    def levels(table: FeatureTable, y: Floats, learn: Rows, asked: Rows) -> Floats:
        codes, _ = pd.factorize(table.frame["clin.cancer_type"], sort=True)
        return np.asarray(codes[asked] / max(codes.max(), 1), dtype=float)

    def outcomes(table: FeatureTable, y: Floats, learn: Rows, asked: Rows) -> Floats:
        return np.full(len(asked), y.mean())

    def harmonised(table: FeatureTable, y: Floats, learn: Rows, asked: Rows) -> Floats:
        values = np.nan_to_num(table.numbers(["image.ct.mean"]))
        scanners = table.decisions[BATCH].tolist()
        moved = Combat.learn(values, scanners, features=["m"]).apply(values, scanners)
        model = build_model(Recipe("elasticnet", {"c": 1.0}, "imaging"), 0)
        moved_table = replace(table, frame=table.frame.assign(**{"image.ct.mean": moved[:, 0]}))
        return model.fit(moved_table.take(learn), y[learn]).log_odds(moved_table.take(asked))

    return {"scaled": scaled, "levels": levels, "outcomes": outcomes, "harmonised": harmonised}


@pytest.mark.parametrize("name", ["scaled", "levels", "outcomes", "harmonised"])
def test_what_is_estimated_before_the_split_is_caught(name: str) -> None:
    table, y = _table(7)
    train, test = _sides(table, y, 7)
    found = fold_isolation(_leaks()[name], table, y, train=train, test=test)
    assert not found["isolated"]
    assert found["largest_change"] is None or found["largest_change"] > 0
    assert "estimated before the split" in found["sentence"]


def test_poison_reaches_every_cell_of_its_rows_and_no_other() -> None:
    table, y = _table(8)
    rows = np.arange(10, 30)
    found = poisoned(table, rows, np.random.default_rng(0))
    others = np.setdiff1d(np.arange(len(y)), rows)
    pd.testing.assert_frame_equal(found.frame.iloc[others], table.frame.iloc[others])
    pd.testing.assert_frame_equal(found.decisions.drop(columns=BATCH), table.decisions.drop(columns=BATCH))
    before, after = table.frame.iloc[rows], found.frame.iloc[rows]
    changed = (before != after) & ~(before.isna() & after.isna())
    assert (changed | before.isna()).to_numpy().all()
    assert after.isna().to_numpy().any()
    assert (found.decisions[BATCH].iloc[rows] != table.decisions[BATCH].iloc[rows]).any()
