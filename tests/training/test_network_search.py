"""The search of the network over pictures: off unless named, a few trials, and in the stack when it was searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_features.imaging.patch import encode_patch
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_training.develop import Task, run_task, searched_families
from theracast_training.search import FIRST_TRY, MOST_TRIALS, SEARCH_SPACES, recipe_of, trials_of
from theracast_training.study import SchemeSection, SearchSection, ValidationSection
from theracast_training.target import Target


def pictured(n: int = 48) -> tuple[FeatureTable, Target]:
    """Return n decisions whose pictures are bright in responders; the volume, which is harmonised, says nothing."""
    rng = np.random.default_rng(1)
    y = rng.permutation(np.arange(n) % 2).astype(float)
    intensity = rng.normal(100 + 40 * y[:, None, None, None], 20, (n, 8, 8, 8)).clip(0, 255)
    texts = [encode_patch(np.stack([one, np.ones_like(one)]).astype(np.uint8)) for one in intensity]
    catalogue = (
        FeatureSpec("image.ct.volume_ml", "imaging", "numeric", "Volume", ("ct.volume_ml",), batch="batch.images.ct"),
        FeatureSpec("image.ct.patch", "imaging", "boolean", "CT, picture", ("patch.ct",), role="picture"),
    )
    frame = pd.DataFrame({"image.ct.volume_ml": rng.normal(20, 4, n), "image.ct.patch": 1.0})
    decisions = pd.DataFrame(
        {
            "subject_id": [str(one) for one in range(n)],
            "site": "A",
            "index_time": pd.NaT,
            "calendar": np.nan,
            "batch.images.ct": pd.array(["a", "b"] * (n // 2), dtype="str"),
            "patch.ct": pd.array(texts, dtype="str"),
        }
    )
    return FeatureTable(frame, catalogue, decisions), Target(y)


def test_it_is_searched_where_it_is_named_and_nowhere_else() -> None:
    assert searched_families(("elasticnet", "lightgbm", "stack")) == ["elasticnet", "lightgbm"]
    assert searched_families(("stack",)) == ["elasticnet", "lightgbm"]
    assert searched_families(("cnn", "stack")) == ["elasticnet", "lightgbm", "cnn"]
    assert searched_families(("cnn",)) == ["cnn"]
    assert searched_families(("neural", "cnn", "stack")) == ["elasticnet", "lightgbm", "neural", "cnn"]
    assert not {"cnn", "neural"} & set(SearchSection().families)
    assert set(MOST_TRIALS) < set(SEARCH_SPACES) == set(FIRST_TRY)
    assert [trials_of("cnn", 50), trials_of("cnn", 2), trials_of("elasticnet", 50)] == [3, 2, 50]


@pytest.mark.slow
def test_a_search_with_few_trials_gives_a_stack_that_looks_at_pictures(tmp_path: Path) -> None:
    table, target = pictured()
    trials: list[int] = []
    task = Task(
        key="final",
        table=table,
        target=target,
        learn=np.arange(36),
        judged=np.arange(36, 48),
        families=("cnn", "stack"),
        search=SearchSection(one_standard_error=False),
        validation=ValidationSection(scheme=SchemeSection(outer=0, inner=2)),
        trials=4,
        seed=2,
        journals=tmp_path,
    )
    found = run_task(task, lambda: trials.append(1))
    assert len(trials) == task.expected_trials == 4 + 4 + 3
    assert sorted(found.choice.searches) == ["cnn", "stack"]
    assert len(found.choice.searches["cnn"].trials) == 3
    members = found.choice.searches["stack"].recipe.params["members"]
    assert [(one["family"], one.get("harmonise", False)) for one in members] == [
        ("elasticnet", True),
        ("lightgbm", True),
        ("cnn", False),
    ]
    right = (found.judgement.answers[:, 0] > 0.5) == (target.y[36:] == 1)
    assert right.mean() > 0.7


def test_its_recipe_is_not_harmonised() -> None:
    table, _ = pictured(20)
    assert not recipe_of("cnn", {}, table).harmonise
    assert recipe_of("elasticnet", {}, table).harmonise


@pytest.mark.slow
def test_curves_are_searched_for_times_to_an_event(tmp_path: Path) -> None:
    """A hazard that is high at both ends: of three families the one with curves has the least loss, and is chosen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    time = rng.exponential(size=240) * np.exp(-1.5 * (x[:, 0] ** 2 - 1)) * 300
    catalogue = tuple(FeatureSpec(f"lab.x{j}", "lab", "numeric", f"X{j}", (f"x{j}",)) for j in range(3))
    frame = pd.DataFrame(x, columns=[one.name for one in catalogue])
    ids = [str(one) for one in range(240)]
    decisions = pd.DataFrame({"subject_id": ids, "site": "A", "index_time": pd.NaT, "calendar": np.nan})
    event = (time < 900).astype(float)
    target = Target((time < 365).astype(float), np.minimum(time, 900), event, (365.0, 180.0), kind="time_to_event")
    task = Task(
        key="final",
        table=FeatureTable(frame, catalogue, decisions),
        target=target,
        learn=np.arange(200),
        judged=np.arange(200, 240),
        families=("elasticnet", "neural"),
        search=SearchSection(families=("elasticnet", "neural"), trials=3),
        validation=ValidationSection(scheme=SchemeSection(inner=3)),
        trials=3,
        seed=0,
        journals=tmp_path,
    )
    result = run_task(task)
    losses = {family: search.loss for family, search in result.choice.searches.items()}
    assert losses["neural"] < losses["elasticnet"] - 0.1
    assert result.choice.family == "neural"
    assert result.judgement is not None
    assert np.corrcoef(result.judgement.linear, x[200:, 0] ** 2)[0, 1] > 0.9
    assert (result.judgement.answers[:, 0] > result.judgement.answers[:, 1]).all()
