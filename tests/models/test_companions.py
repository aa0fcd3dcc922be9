"""What stands beside an answer: in every kind of endpoint, on disk and back, and the answer that is not given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theracast_data.endpoints import OrdinalEndpoint
from theracast_models.companions import Companions
from theracast_models.conformal import BinarySets, EventTimes, Intervals, OrdinalSets
from theracast_models.fitting import CalibratedModel, fit_calibrated, patient_folds
from theracast_models.head import Head
from theracast_models.links import OrdinalLink, level_probabilities
from theracast_models.neighbours import Neighbours, Outcomes
from theracast_models.novelty import Novelty
from theracast_models.outcomes import Continuous, Ordinal, Survival
from theracast_models.reference import Reference
from theracast_models.standing import FloorSection

from .conftest import RECIPES, small_model
from .test_heads import ASKED, ENDPOINTS, _outcome

VALIDATED = {
    "lab+genomic+clinical": {"n": 200, "events": 80, "auc": 0.8, "auc_low": 0.7, "auc_high": 0.9},
    "lab": {"n": 200, "events": 80, "auc": 0.55, "auc_low": 0.45, "auc_high": 0.65},
}


def _fitted(kind: str, table: Any) -> tuple[CalibratedModel, Any]:
    outcome = _outcome(kind, table.frame["lab.albumin"].fillna(3.8).to_numpy(dtype=float) - 3.8)
    folds = patient_folds(table, outcome.strata, folds=3, seed=0)
    return fit_calibrated(
        RECIPES["elasticnet"], table, outcome, folds=folds, replicates=10, seed=3, asked=ASKED
    ), outcome


def _companions(kind: str, table: Any, fitted: CalibratedModel, outcome: Any) -> Companions:
    estimates, linear = fitted.answers(table), fitted.log_odds(table)
    _, phi = fitted.explain(table)
    names, link = [spec.name for spec in table.catalogue], fitted.calibration
    conformal: Any
    if isinstance(outcome, Survival):
        days = np.array([100.0, 200.0, 365.0])
        conformal = EventTimes.learn(
            link.by(days, linear), outcome.time, outcome.event, horizons=days.tolist(), source="held_out",
            weight=np.ones(len(table)),
        )  # fmt: skip
        outcomes = Outcomes.survival(outcome.time, outcome.event, horizons=days.tolist())
    elif isinstance(outcome, Ordinal):
        conformal = OrdinalSets.learn(level_probabilities(estimates, main=link.main), outcome.level, source="held_out")
        outcomes = Outcomes.ordinal(outcome.level, levels=4)
    elif isinstance(outcome, Continuous):
        conformal = Intervals.learn(estimates[:, 0], outcome.y, source="held_out")
        outcomes = Outcomes.continuous(outcome.y)
    else:
        conformal = BinarySets.learn(estimates[:, 0], outcome.y, source="held_out", by_outcome=True)
        outcomes = Outcomes.binary(outcome.y)
    return Companions(conformal, Novelty.learn(table, phi), Neighbours.learn(phi, outcomes, names=names))


@pytest.mark.parametrize("kind", list(ENDPOINTS))
def test_every_kind_says_what_it_can_beside_its_answer(kind: str, make_table: Any, make_holes: Any) -> None:
    table, _ = make_table(0, n=300)
    fitted, outcome = _fitted(kind, table)
    companions = _companions(kind, table, fitted, outcome)
    again = Companions.from_json(json.loads(json.dumps(companions.to_json())))
    holes = make_holes(table, 1)
    told = [
        Head(ENDPOINTS[kind], fitted, Reference(0, 0, 0.5, (), {}), {"patterns": VALIDATED}, one)
        .answer(holes, holes.catalogue)
        .more
        for one in (companions, again)
    ]
    assert told[0] == told[1]
    json.dumps(told[0], allow_nan=False)
    first = told[0][0]
    assert set(first) == {"prediction_set", "rarely_seen", "similar", "validated"}
    assert first["similar"]["patients"] >= 10
    wanted = {
        "binary": {"set"},
        "ordinal": {"set"},
        "continuous": {"low", "high"},
        "time_to_event": {"not_before_day"},
    }[kind]
    assert set(first["prediction_set"]) == wanted | {"coverage", "basis"}


def test_sets_hold_what_happened_about_as_often_as_they_promise(make_table: Any) -> None:
    table, _ = make_table(0, n=900)
    learned, asked = np.arange(600), np.arange(600, 900)
    fitted, outcome = _fitted("ordinal", table.take(learned))
    truth = _outcome("ordinal", table.frame["lab.albumin"].fillna(3.8).to_numpy(dtype=float) - 3.8).take(asked)
    companions = _companions("ordinal", table.take(learned), fitted, outcome)
    head = Head(ENDPOINTS["ordinal"], fitted, Reference(0, 0, 0.5, (), {}), {}, companions)
    sets = [row["prediction_set"]["set"] for row in head.answer(table.take(asked), table.catalogue).more]
    endpoint = ENDPOINTS["ordinal"]
    assert isinstance(endpoint, OrdinalEndpoint)
    assert isinstance(truth, Ordinal)
    held = [endpoint.levels[int(level)] in names for level, names in zip(truth.level, sets, strict=True)]
    assert 0.84 < np.mean(held) < 0.97


def test_levels_add_up_from_the_chances_of_reaching_them() -> None:
    link = OrdinalLink(0.0, 1.0, (-1.0, 0.5, 2.0), main=1)
    reached = link.inverse(np.array([0.0, 3.0])[:, None] + link.offsets)
    levels = level_probabilities(reached, main=link.main)
    np.testing.assert_allclose(levels.sum(axis=1), 1.0)
    assert (levels > 0).all()
    np.testing.assert_allclose(levels[:, 2:].sum(axis=1), reached[:, 0])


def test_below_the_floor_no_answer_is_given_and_the_reason_is(make_raw: Any, tmp_path: Path) -> None:
    model = small_model(
        companions=Companions(floor=FloorSection(auc=0.7)),
        evaluations={"cv": {}, "external": {}, "patterns": VALIDATED},
    )
    model.save(tmp_path / "m")
    model = type(model).load(tmp_path / "m")
    raw, _ = make_raw(1)
    full, bare = raw.head(1), raw.head(1)[["ID", "Albumin"]]
    row = model.predict(full).rows()[0]
    assert "abstained" not in row
    assert row["validated"]["exact"]
    row = model.predict(bare).rows()[0]
    assert row["abstained"].startswith("No answer")
    assert row["probability"] is None
    assert row["contributions"] == {}
    assert "prediction_set" not in row
    assert model.predict(bare).answer.abstains(0) == row["abstained"]
