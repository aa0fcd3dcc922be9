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
    assert "cnn" not in SearchSection().families
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
