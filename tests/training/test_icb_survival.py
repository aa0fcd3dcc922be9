"""Survival after checkpoint blockade: Cox's model learned at one site against LORIS, by figures that are published or known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_training.comparisons import Judged, baseline_rival, compare_with, evaluate_rival
from theracast_training.develop import Judgement
from theracast_training.prepare import Prepared, prepare, prepare_endpoint
from theracast_training.study import read_study
from theracast_training.survival_metrics import c_harrell

RIDGE = Recipe("elasticnet", {"c": 0.1, "l1_ratio": 0.0})


@pytest.fixture(scope="module")
def prepared(shared_cohorts: Path, repository: Path) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(shared_cohorts))
        study = read_study(repository / "studies" / "icb_survival.yaml", overrides=["report.bootstrap=100"])
        return prepare(study, base=repository / "studies")


def _ridge(prepared: Prepared) -> dict[str, Judged]:
    table, target = prepared.table.take(prepared.learn), prepared.target.take(prepared.learn)
    folds = patient_folds(table, target.strata, folds=5, seed=0)
    fitted = fit_calibrated(RIDGE, table, target.outcome(), folds=folds, replicates=0, seed=0, asked=target.asked)
    return {
        site: Judged.of(rows, Judgement.by(fitted, prepared.table.take(rows)))
        for site, rows in prepared.external.items()
    }


def test_the_published_score_ranks_survival_as_published_and_the_model_ranks_it_better(prepared: Prepared) -> None:
    rival = baseline_rival(prepared.study.published[0], prepared, (), seed=7)
    figures = evaluate_rival(rival, prepared)
    # Known C-indices of LORIS for overall survival; a higher score is a lower hazard.
    assert round(figures["Chowell_test"]["survival"]["c_harrell"], 3) == 0.677
    assert round(figures["MSK1"]["survival"]["c_harrell"], 3) == 0.696
    assert figures["Shim_NSCLC"]["survival"]["n"] == 190, "eight patients lack an input"
    for record in compare_with([rival], _ridge(prepared), prepared):
        found = record["survival"]
        if record["site"] in ("Chowell_test", "MSK1"):
            assert found["c_harrell_a"] >= (0.725 if record["site"] == "Chowell_test" else 0.73)
            assert found["c_harrell_difference_low"] > 0
            assert found["c_harrell_b"] == pytest.approx(figures[record["site"]]["survival"]["c_harrell"])


def test_the_score_tells_chances_of_death_that_are_calibrated(prepared: Prepared) -> None:
    rival = baseline_rival(prepared.study.published[0], prepared, (), seed=7)
    rows = rival.judged["Chowell_train"].rows
    answers, linear = rival.judged["Chowell_train"].answers, rival.judged["Chowell_train"].linear
    assert answers is not None
    assert linear is not None
    target = prepared.target.take(rows)
    assert target.horizons == (365.25, 730.5)
    for place, days in enumerate(target.horizons):
        assert answers[:, place].mean() == pytest.approx(_dead_by(target.time, target.event, days), abs=0.02)
    values = prepared.table.take(rows).frame["lab.albumin"].to_numpy()
    assert np.corrcoef(values, linear)[0, 1] < -0.3, "more albumin, a higher score, a lower hazard"


def test_progression_is_ranked_as_known(prepared: Prepared) -> None:
    pfs = prepare_endpoint(prepared, prepared.study.trained[1])
    for site, judged in _ridge(pfs).items():
        if site in ("Chowell_test", "MSK1"):
            target = pfs.target.take(judged.rows)
            assert c_harrell(target.time, target.event, judged.linear) >= 0.67


def _dead_by(time: np.ndarray, event: np.ndarray, days: float) -> float:
    """Return one less the product-limit estimate, by a slow loop."""
    alive = 1.0
    for moment in np.unique(time[(event == 1) & (time <= days)]):
        alive *= 1 - ((time == moment) & (event == 1)).sum() / (time >= moment).sum()
    return 1 - alive
