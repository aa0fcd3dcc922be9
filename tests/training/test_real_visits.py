"""I-SPY2 as a series of decisions: what an MRI adds, visit by visit, on patients who had it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from theracast_data.events.ingest import ingest, read_spec
from theracast_data.events.store import EventStore
from theracast_models.families import Recipe, build_model
from theracast_models.folds import patient_folds
from theracast_training.prepare import Prepared, prepare
from theracast_training.study import read_study

DAYS = (0, 21, 84, 140)
# A plain logistic regression in repeated 5-fold cross-validation on the same 263 patients: clinical and MRI up to T0 .. T3.
PLAIN = (0.697, 0.763, 0.807, 0.807)
SEEDS = range(1, 6)
RIDGE = Recipe("elasticnet", {"c": 0.03, "l1_ratio": 0.0})


@pytest.fixture(scope="module")
def prepared(repository: Path, shared_cohorts: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("ispy2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(shared_cohorts))
        patch.setenv("ISPY2_STORE", str(folder / "store"))
        spec = read_spec(repository / "studies" / "ingest" / "ispy2.yaml")
        store = EventStore.create(folder / "store", shards=4)
        ingest(spec, base=folder, store=store, now=datetime(2026, 1, 1, tzinfo=UTC))
        return prepare(read_study(repository / "studies" / "ispy2.yaml"), base=folder)


def test_everyone_is_asked_before_treatment_and_those_with_mri_at_each_visit(prepared: Prepared) -> None:
    day = prepared.cohort.values["landmark"].to_numpy()
    assert {int(one): int((day == one).sum()) for one in DAYS} == {0: 681, 21: 263, 84: 263, 140: 263}
    frame = prepared.table.frame
    for visit, asked in enumerate(DAYS):  # no decision sees a later visit, and each sees all earlier ones
        seen = frame[f"image.ftv_t{visit}.last.all"].notna().to_numpy()
        assert not seen[day < asked].any()
        assert seen[day >= max(asked, 1)].all()


def test_the_auc_rises_along_the_visits_and_reaches_a_plain_logistic_regression(prepared: Prepared) -> None:
    learn = prepared.learn
    table, y = prepared.table.take(learn), prepared.target.y[learn]
    day = prepared.cohort.values["landmark"].to_numpy()[learn]
    imaged = table.frame["image.ftv.last.all"].notna().to_numpy()
    found = []
    for seed in SEEDS:
        log_odds = np.zeros(len(y))
        for train, test in patient_folds(table, y, folds=5, seed=seed):
            model = build_model(RIDGE, seed=0).fit(table.take(train), y[train])
            log_odds[test] = model.log_odds(table.take(test))
        found.append([roc_auc_score(y[at], log_odds[at]) for at in (imaged & (day == one) for one in DAYS)])
    mean = np.mean(found, axis=0)
    assert mean[0] < mean[1] < mean[2] <= mean[3] + 0.01
    assert (mean >= np.array(PLAIN) - 0.005).all(), mean
