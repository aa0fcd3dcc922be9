"""What a development is held against: models of parts of the features, and the performance by day of decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_data.decisions.section import LANDMARK
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_training.comparisons import Judged, evaluate_by_day, part_rival
from theracast_training.develop import run_task, simplicity
from theracast_training.development import families_for, final_task, part_tasks
from theracast_training.metrics import auc
from theracast_training.prepare import Prepared, prepare
from theracast_training.study import parse_study

STUDY = """
study: parts
question: Which part of the data tells?
sources:
  - path: table.csv
    subject: id
    site: hospital
    columns:
      albumin: {modality: lab}
      age: {modality: clinical}
      tmb: {modality: genomic}
endpoints: [{name: response, kind: binary, column: response}]
features: {missing_indicators: none}
validation: {development: [A], external: [B], scheme: {outer: 2, inner: 2}}
search: {families: [elasticnet, lightgbm], trials: 2, replicates: 10}
report: {bootstrap: 100}
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Patients of whom albumin alone tells who responds."""
    monkeypatch.setenv("THERACAST_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(6)
    n = 300
    albumin = rng.normal(4, 0.5, n)
    frame = pd.DataFrame(
        {
            "id": [f"P{number}" for number in range(n)],
            "hospital": np.where(np.arange(n) % 3 == 0, "B", "A"),
            "albumin": albumin,
            "age": rng.normal(60, 9, n),
            "tmb": rng.lognormal(1, 1, n),
            "response": (rng.random(n) < 1 / (1 + np.exp(-4 * (albumin - 4)))).astype(int),
        }
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    return prepare(parse_study(STUDY, base=tmp_path), base=tmp_path)


def test_each_modality_has_a_model_alone_and_one_of_all_others(prepared: Prepared) -> None:
    final = final_task(prepared)
    parts = part_tasks(prepared, final)
    seen = {part.tasks[0].key: [spec.modality for spec in part.tasks[0].table.catalogue] for part in parts}
    assert seen == {
        "only-lab": ["lab"],
        "only-clinical": ["clinical"],
        "only-genomic": ["genomic"],
        "without-lab": ["clinical", "genomic"],
        "without-clinical": ["lab", "genomic"],
        "without-genomic": ["lab", "clinical"],
    }
    assert {part.tasks[0].families for part in parts} == {("elasticnet",)}
    assert all(len(part.tasks) == 1 for part in parts), "an external site judges"
    inside = part_tasks(replace(prepared, external={}), final)
    assert all(len(part.tasks) == 3 for part in inside), "nested cross-validation judges"
    two = replace(prepared, table=prepared.table.without_modality("genomic"))
    assert [part.kind for part in part_tasks(two, final)] == ["modality", "modality"]
    one = replace(prepared, table=prepared.table.of_modality("lab"))
    assert part_tasks(one, final) == []


def test_without_what_tells_nothing_is_left(prepared: Prepared) -> None:
    final = final_task(prepared)
    found = {}
    for part in part_tasks(prepared, final):
        if part.kind == "without":
            result = run_task(part.tasks[0])
            rival = part_rival(
                result, part.of(prepared.table), prepared, name=part.modality, kind=part.kind, nested=None
            )
            assert (rival.kind, set(rival.judged)) == ("without", {"B"})
            rows = rival.judged["B"].rows
            found[rival.name] = auc(prepared.target.y[rows], rival.judged["B"].probability)
    assert found["lab"] < 0.65
    assert min(found["clinical"], found["genomic"]) > 0.85


def test_performance_is_told_by_day_of_decision(prepared: Prepared) -> None:
    rows = prepared.external["B"]
    y = prepared.target.y[rows]
    probability = np.where(y == 1, 0.7, 0.3)
    days = np.full(len(prepared.cohort), 0.0)
    days[rows[::2]] = 21.0
    probability[::2] = 1 - probability[::2]
    days[rows[y == 1][:1]] = 99.0  # one outcome alone: no day that could be judged
    days[rows[1]] = np.nan
    values = prepared.cohort.values.assign(**{LANDMARK: days})
    landmarks = replace(prepared, cohort=replace(prepared.cohort, values=values))
    found = evaluate_by_day({"B": Judged(rows, probability)}, landmarks)
    assert set(found) == {"B"}
    assert set(found["B"]) == {"0", "21"}
    assert found["B"]["0"]["auc"] == 1.0
    assert found["B"]["21"]["auc"] == 0.0
    assert found["B"]["21"]["n"] == int((days[rows] == 21).sum())
    assert evaluate_by_day({"B": Judged(rows, probability)}, prepared) == {}


def test_where_kinds_of_data_are_often_absent_their_fusion_counts_as_the_simplest() -> None:
    table = _kinds(np.array([[1.0, 2.0]] * 20))
    assert simplicity(table)[0] == "elasticnet"
    lacking = np.array([[1.0, 2.0]] * 20)
    lacking[0, 1] = np.nan
    assert simplicity(_kinds(lacking))[0] == "late"
    assert sorted(simplicity(_kinds(lacking))) == sorted(simplicity(table))


def test_kinds_are_fused_only_where_there_are_several() -> None:
    both = _kinds(np.ones((3, 2)))
    assert families_for(both, ("elasticnet", "late")) == ("elasticnet", "late")
    one = both.of_modality("lab")
    assert families_for(one, ("elasticnet", "late", "gated")) == ("elasticnet",)
    assert families_for(one, ("late",)) == ("late",)


def _kinds(values: np.ndarray) -> FeatureTable:
    catalogue = tuple(
        FeatureSpec(name=f"{kind}.a", modality=kind, kind="numeric", label=kind, columns=(kind,))
        for kind in ("lab", "imaging")
    )
    frame = pd.DataFrame(values, columns=[spec.name for spec in catalogue])
    ids = [str(row) for row in range(len(values))]
    return FeatureTable(frame, catalogue, pd.DataFrame({"subject_id": ids, "site": "A", "index_time": pd.NaT}))
