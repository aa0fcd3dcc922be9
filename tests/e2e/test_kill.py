"""`theracast train` killed at random moments: run again, it goes on and ends where an uninterrupted one does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theracast_training.journal import finished_trials, open_journal


def _finished(place: Any) -> dict[str, int]:
    import optuna

    counts = {}
    for path in sorted((place.folder / "state" / "tuning").rglob("*.journal")):
        for _ in range(100):
            try:
                with open_journal(path) as storage:
                    for study in storage.get_all_studies():
                        loaded = optuna.load_study(study_name=study.study_name, storage=storage)
                        counts[path.name] = len(finished_trials(loaded))
                break
            except ValueError:  # an orphaned worker still holds it for a moment
                time.sleep(0.1)
    return counts


@pytest.mark.slow
def test_killed_training_loses_nothing_and_ends_the_same(new_workplace: Callable[..., Any]) -> None:
    place = new_workplace(patients=300)
    options = ("--trials", 6, "--set", "validation.scheme.outer=2", "--set", "report.bootstrap=100")
    rng = np.random.default_rng(11)
    kept: dict[str, int] = {}
    for _ in range(4):
        training = place.start("train", place.study, *options)
        time.sleep(float(rng.uniform(4.0, 9.0)))
        os.kill(training.pid, signal.SIGKILL)
        training.communicate()
        now = _finished(place)
        assert all(now.get(name, 0) >= count for name, count in kept.items())
        kept = now
    resumed = place.json("train", place.study, *options)
    fresh = new_workplace(patients=300)
    whole = fresh.json("train", fresh.study, *options, "--jobs", 1)
    for part in ("family", "choice", "cv", "external", "baselines", "single_modality"):
        assert resumed[part] == whole[part], part
