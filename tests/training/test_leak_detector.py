"""Leaks that were planted are caught, honest procedures pass, and every screen agrees with scikit-learn or a slow loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from theracast_data.errors import StudyError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.folds import stratified_folds
from theracast_training.develop import Task
from theracast_training.leak_detector import (
    concentration,
    permuted_order,
    permuted_outcomes,
    procedure_run,
    screen_features,
)
from theracast_training.refits import Floats, Rows, rows_by_patient
from theracast_training.study import SchemeSection, SearchSection, ValidationSection
from theracast_training.target import Target


def _table(seed: int = 0, n: int = 240, *, visits: int = 1, noise: int = 4) -> tuple[FeatureTable, Floats, Rows]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"lab.x{place}": rng.normal(size=n * visits) for place in range(noise)})
    frame["clin.tumour"] = pd.Series(rng.choice(["lung", "skin", "renal"], len(frame)), dtype="str")
    frame["lab.crp"] = np.where(rng.random(len(frame)) < 0.2, np.nan, rng.lognormal(2, 1, len(frame)))
    y = (rng.random(len(frame)) < expit(frame["lab.x0"].to_numpy() - 0.4)).astype(float)
    patients = np.repeat(np.arange(n), visits)
    decisions = pd.DataFrame(
        {"subject_id": patients.astype(str), "site": "A", "index_time": pd.NaT, "calendar": np.nan}
    )
    return FeatureTable(frame, tuple(_spec(name) for name in frame.columns), decisions), y, patients


def _spec(name: str) -> FeatureSpec:
    kind = "categorical" if name == "clin.tumour" else "numeric"
    return FeatureSpec(name, "clinical" if name.startswith("clin") else "lab", kind, name.upper(), (name,))


def _with(table: FeatureTable, name: str, values: object) -> FeatureTable:
    return FeatureTable(table.frame.assign(**{name: values}), (*table.catalogue, _spec(name)), table.decisions)


def test_auc_of_every_feature_is_that_of_scikit_learn() -> None:
    table, y, patients = _table(1)
    result = screen_features(table, y, bootstrap=50)
    json.dumps(result, allow_nan=False)
    assert {one["feature"] for one in result["features"]} == set(table.frame.columns)
    assert result["suspects"] == []
    folds = stratified_folds(patients, y, folds=5, seed=0)
    for row in result["features"]:
        column = table.frame[row["feature"]]
        if row["by"] == "value":
            known = column.notna().to_numpy()
            area = roc_auc_score(y[known], column[known])
            assert row["auc"] == pytest.approx(max(area, 1 - area), abs=1e-12)
            assert row["known"] == known.sum()
        elif row["feature"] == "clin.tumour":
            score = np.zeros(len(y))
            for train, test in folds:
                for row_ in test:
                    same = y[train][(column.iloc[train] == column.iloc[row_]).to_numpy()]
                    rate = y[train].mean()
                    score[row_] = (same.sum() + 5 * rate) / (len(same) + 5) - rate
            assert row["auc"] == pytest.approx(roc_auc_score(y, score.round(12)), abs=1e-3)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]


@pytest.mark.parametrize("how", ["after", "missing", "middle", "category"])
def test_a_feature_from_the_future_is_named(how: str) -> None:
    table, y, _ = _table(2, 300)
    rng = np.random.default_rng(5)
    planted = {
        "after": np.where(rng.random(300) < 0.02, 0, -2.0 * y) + rng.normal(0, 0.4, 300),  # falls in responders
        "missing": np.where(y == 1, rng.normal(size=300), np.nan),  # measured in responders only
        "middle": np.where(y == 1, rng.uniform(-1, 1, 300), rng.choice([-1, 1], 300) * rng.uniform(1.2, 3, 300)),
        "category": None,
    }[how]
    if how == "category":
        values = pd.array(
            np.where(y == 1, rng.choice(["CR", "PR"], 300), rng.choice(["SD", "PD"], 300)).tolist(), dtype="str"
        )
        frame = table.frame.assign(**{"clin.tumour": values})
        table, name = FeatureTable(frame, table.catalogue, table.decisions), "clin.tumour"
    else:
        table, name = _with(table, "lab.future", planted), "lab.future"
    result = screen_features(table, y, bootstrap=50)
    assert [one["feature"] for one in result["suspects"]] == [name]
    told = result["suspects"][0]
    assert told["auc"] > 0.95
    assert told["auc_low"] > 0.9
    assert f"({name}) alone gives an AUC of " in told["sentence"]
    assert "ask whether it was known at the decision" in told["sentence"]
    assert told["by"] == ("value" if how == "after" else "groups")


def test_a_lucky_feature_among_many_in_few_patients_is_no_suspect() -> None:
    rng = np.random.default_rng(3)
    names = [f"lab.x{place}" for place in range(1500)]
    y = np.r_[np.ones(8), np.zeros(12)]
    frame = pd.DataFrame(rng.normal(size=(20, 1500)), columns=names)
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(20)], "site": "A", "index_time": pd.NaT})
    result = screen_features(FeatureTable(frame, tuple(_spec(name) for name in names), decisions), y, bootstrap=20)
    assert result["features"][0]["auc"] > 0.9
    assert result["by_chance"] > 0.9
    assert len(result["suspects"]) <= 1


def test_too_few_patients_are_told() -> None:
    table, y, _ = _table(4, 30)
    y[:] = 0
    y[:3] = 1
    assert screen_features(table, y)["notes"] == ["needs features, and 5 patients of either outcome"]


def test_concentration_counts_shares_and_names_the_one() -> None:
    catalogue = tuple(_spec(f"lab.x{place}") for place in range(5))
    phi = np.array([[4.0, 0.5, -0.5, 0.0, 0.5], [-4.0, 0.5, 0.5, 0.0, 0.5]])
    found = concentration(phi, catalogue)
    assert found["features"][0] == {"feature": "lab.x0", "label": "LAB.X0", "share": pytest.approx(4 / 5.5)}
    assert found["suspect"]
    assert found["sentence"].startswith("73 % of what the model says rests on LAB.X0 (lab.x0) alone")
    even = concentration(np.ones((3, 5)), catalogue)
    assert even["effective"] == pytest.approx(5)
    assert not even["suspect"]
    assert not concentration(phi[:, :2], catalogue[:2])["suspect"]
    assert concentration(np.zeros((3, 5)), catalogue)["features"] == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=20), st.integers(0, 1000))
def test_an_order_moves_every_outcome_once_and_equal_patients_whole(sizes: list[int], seed: int) -> None:
    patients = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = permuted_order(rows_by_patient(patients), np.random.default_rng(seed))
    assert sorted(order) == list(range(len(patients)))
    if len(set(sizes)) == 1:
        for one in range(len(sizes)):
            assert len(set(patients[order[patients == one]])) == 1


def _judged_by(learn_from_all: bool, X: Floats, y: Floats):
    """Return a procedure that picks the best of many features, before the split or inside it."""

    def run(order: Rows, place: int) -> list[tuple[Rows, Floats]]:
        dealt = y[order]
        results = []
        for train, test in stratified_folds(np.arange(len(y)), dealt, folds=4, seed=place):
            seen = np.arange(len(y)) if learn_from_all else train
            match = (X[seen] - X[seen].mean(axis=0)).T @ (dealt[seen] - dealt[seen].mean())
            best = np.argsort(-np.abs(match))[:10]
            results.append((test, expit(X[test][:, best] @ np.sign(match[best]))))
        return results

    return run


def test_features_chosen_before_the_split_are_caught_and_chosen_inside_are_not() -> None:
    rng = np.random.default_rng(8)
    X, y = rng.normal(size=(120, 400)), rng.integers(0, 2, 120).astype(float)
    leaky = permuted_outcomes(_judged_by(True, X, y), y, patients=np.arange(120), times=10, seed=1)
    assert leaky["leak"]
    assert leaky["auc_low"] > 0.6
    assert "leak into what is learnt" in leaky["sentence"]
    honest = permuted_outcomes(_judged_by(False, X, y), y, patients=np.arange(120), times=20, seed=1)
    json.dumps(honest, allow_nan=False)
    assert honest["leak"] is False
    assert abs(honest["auc"] - 0.5) < 0.05
    with pytest.raises(ValueError, match="fewer than 3 dealings"):
        permuted_outcomes(_judged_by(False, X, y), y, patients=np.arange(120), times=2)


def test_the_whole_procedure_finds_nothing_in_outcomes_dealt_at_random(tmp_path: Path) -> None:
    table, y, patients = _table(6, 70, visits=2)
    task = Task(
        key="final",
        table=table,
        target=Target(y),
        learn=np.arange(len(y)),
        judged=np.array([], dtype=np.intp),
        families=("elasticnet", "lightgbm", "stack"),
        search=SearchSection(),
        validation=ValidationSection(scheme=SchemeSection(outer=2, inner=3)),
        trials=50,
        seed=3,
        journals=tmp_path / "own",
    )
    run = procedure_run(task, scratch=tmp_path / "scratch", trials=1)
    found = permuted_outcomes(run, y, patients=patients, times=5, seed=2)
    assert found["times"] == 5
    assert found["leak"] is False
    assert found["auc_low"] < 0.5 < found["auc_high"] + 0.05
    assert not (tmp_path / "own").exists()
    real = run(np.arange(len(y)), 99)  # with the true outcomes the same procedure does find something
    judged, p = (np.concatenate(part) for part in zip(*real, strict=True))
    assert roc_auc_score(y[judged], p) > 0.6
    without = Task(**{**vars(task), "validation": ValidationSection(scheme=SchemeSection(outer=0, inner=3))})
    with pytest.raises(StudyError, match=r"validation\.scheme\.outer to 2 or more"):
        procedure_run(without, scratch=tmp_path)
