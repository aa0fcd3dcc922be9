"""What is tried of late and gated fusion can be built, and the first try is one that may be drawn."""

from __future__ import annotations

import optuna
import pytest

from theracast_models.families import Recipe, build_model
from theracast_training.fusion_search import FIRST_TRIES, SUGGEST, TRIALS


@pytest.mark.parametrize("family", list(SUGGEST))
def test_every_draw_is_a_recipe(family: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(FIRST_TRIES[family])
    drawn = []
    for _ in range(5):
        trial = study.ask()
        drawn.append(SUGGEST[family](trial))
        assert build_model(Recipe(family, drawn[-1]), 0).family == family
        study.tell(trial, 0.0)
    assert drawn[0] == FIRST_TRIES[family]
    assert drawn[1] != drawn[0]
    assert TRIALS[family] >= 1
