"""Validated performance for each pattern of missing modalities, on decisions that the model has not seen."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.families import Recipe, build_model
from theracast_models.folds import patient_folds
from theracast_models.presence import masked, without
from theracast_models.standing import FloorSection, standing
from theracast_training.evaluation import evaluate_binary
from theracast_training.metrics import auc
from theracast_training.patterns import (
    HeldOut,
    answers_by_pattern,
    pattern_records,
    patterns_to_judge,
    pooled,
    validate_patterns,
)

MODALITIES = ("clinical", "lab", "genomic")


def patients(n: int, seed: int) -> tuple[FeatureTable, np.ndarray]:
    """Return decisions in which genomic values matter most and clinical ones not at all."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = (rng.random(n) < expit(x @ [0.0, 0.8, 1.6] - 0.5)).astype(float)
    names = [f"{one}.x" for one in MODALITIES]
    catalogue = tuple(
        FeatureSpec(name, one, "numeric", one, (name,)) for name, one in zip(names, MODALITIES, strict=True)
    )
    decisions = pd.DataFrame({"subject_id": [str(k) for k in range(n)], "site": "A", "index_time": pd.NaT})
    return FeatureTable(pd.DataFrame(x, columns=names), catalogue, decisions), y


@pytest.fixture(scope="module")
def judged():
    """Decisions of which a fifth lack the laboratory and seven lack all but it, and models of five folds."""
    table, y = patients(500, 0)
    gone = np.zeros((500, 3), dtype=bool)
    gone[:100, 1] = True
    gone[100:107, [0, 2]] = True
    table = masked(table, gone)
    held_out = []
    for train, test in patient_folds(table, y, folds=5, seed=0):
        model = build_model(Recipe("late", {"folds": 3}), 0).fit(table.take(train), y[train])
        held_out.append(HeldOut(lambda part, model=model: expit(model.log_odds(part)), test))
    return table, y, held_out


def test_judges_what_is_found_and_each_dropped_modality(judged) -> None:
    table, y, _ = judged
    planned = ["clinical+lab+genomic", "lab+genomic", "clinical+genomic", "clinical+lab"]
    assert patterns_to_judge(table, y, least=10) == planned
    assert patterns_to_judge(table, y, least=7) == [*planned, "lab"]
    unknown = np.where(np.arange(500) < 107, np.nan, y)
    assert patterns_to_judge(table, unknown, least=1) == planned


def test_records_are_those_of_a_slow_loop(judged) -> None:
    table, y, held_out = judged
    records = validate_patterns(held_out, table, y, least=7, bootstrap=0)
    json.dumps(records, allow_nan=False)
    lacking = np.arange(500) < 100
    p = np.zeros(500)
    for one in held_out:
        p[one.rows] = one.answer(table.take(one.rows))
    found = records["clinical+genomic"]
    assert (found["how"], found["n"], found["found"]) == ("found", 100, 100)
    assert found["auc"] == pytest.approx(auc(y[lacking], p[lacking]))
    assert found["absent"] == ["lab"]
    having = ~lacking & ~((np.arange(500) >= 100) & (np.arange(500) < 107))
    taken = np.zeros(500)
    for one in held_out:
        taken[one.rows] = one.answer(without(table.take(one.rows), ["genomic"]))
    dropped = records["clinical+lab"]
    assert (dropped["how"], dropped["n"], dropped["found"]) == ("taken_away", int(having.sum()), 0)
    assert dropped["auc"] == pytest.approx(auc(y[having], taken[having]))
    assert dropped["brier"] == pytest.approx(np.mean((taken[having] - y[having]) ** 2))
    assert dropped["auc_lost"]["difference"] == pytest.approx(auc(y[having], p[having]) - auc(y[having], taken[having]))


def test_what_matters_most_is_missed_most(judged) -> None:
    table, y, held_out = judged
    records = validate_patterns(held_out, table, y, least=7, bootstrap=200)
    full = records["clinical+lab+genomic"]
    assert full["auc_low"] < full["auc"] < full["auc_high"]
    assert records["clinical+lab"]["auc"] < records["clinical+genomic"]["auc"] < full["auc"] + 0.02
    assert records["clinical+lab"]["auc_lost"]["low"] > 0
    assert abs(records["lab+genomic"]["auc_lost"]["difference"]) < 0.03
    assert 0.6 < records["clinical+lab"]["calibration_slope"] < 1.6, "calibrated where a modality is gone"
    floor = FloorSection(auc=0.75)
    assert standing("clinical+lab+genomic", records, floor=floor).abstains is None
    assert "No answer" in standing("clinical+lab", records, floor=floor).abstains


def test_external_sites_are_judged_by_the_one_final_model(judged) -> None:
    _, _, held_out = judged
    others, outcome = patients(300, 1)
    answers = answers_by_pattern(HeldOut(held_out[0].answer, np.arange(300)), others, ["clinical+lab"])
    records = pattern_records(answers, others, outcome, bootstrap=0)
    expected = evaluate_binary(outcome, held_out[0].answer(without(others, ["genomic"])), bootstrap=0)
    assert records["clinical+lab"]["auc"] == expected["auc"]


def test_repeats_count_by_their_mean(judged) -> None:
    table, _, held_out = judged
    first, second = held_out[0], HeldOut(held_out[1].answer, held_out[0].rows)
    parts = [answers_by_pattern(one, table, ["clinical+lab"]) for one in (first, second)]
    found = pooled(parts)
    for pattern in ("", "clinical+lab"):
        np.testing.assert_array_equal(found[pattern], (parts[0][pattern] + parts[1][pattern]) / 2)
        assert np.isnan(np.delete(found[pattern], first.rows)).all()


def test_weights_and_unknown_outcomes(judged) -> None:
    table, y, held_out = judged
    weight = np.where(np.arange(500) < 300, 0.0, 1.0)
    unknown = np.where(np.arange(500) >= 450, np.nan, y)
    records = validate_patterns(held_out, table, unknown, weight=weight, bootstrap=0)
    assert records["clinical+lab+genomic"]["n"] == 150


def test_a_pattern_of_one_outcome_has_no_auc_and_no_error(judged) -> None:
    table, _, held_out = judged
    records = validate_patterns(held_out, table, np.zeros(500), bootstrap=0)
    assert all(record["auc"] is None for record in records.values())
    assert standing("lab", records, floor=FloorSection(auc=0.6)).abstains
