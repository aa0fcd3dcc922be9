"""Tuning: an interrupted search ends where an uninterrupted one does, and loses no finished trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from theracast_data.errors import TheracastError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.outcomes import Binary
from theracast_training import journal as journals
from theracast_training.develop import choose
from theracast_training.search import FamilySearch, Recipe, cut_folds, mean_loss, tune
from theracast_training.splits import make_folds
from theracast_training.target import Target


def make_table(n: int = 160, *, seed: int = 0) -> tuple[FeatureTable, Target]:
    rng = np.random.default_rng(seed)
    catalogue = tuple(
        FeatureSpec(name=f"lab.x{i}", modality="lab", kind="numeric", label=f"x{i}", columns=(f"x{i}",))
        for i in range(4)
    )
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=[spec.name for spec in catalogue])
    y = (rng.random(n) < 1 / (1 + np.exp(0.5 - 1.5 * frame["lab.x0"]))).to_numpy(dtype=float)
    decisions = pd.DataFrame(
        {"subject_id": [str(i) for i in range(n)], "site": "A", "index_time": pd.NaT, "calendar": np.nan}
    )
    return FeatureTable(frame, catalogue, decisions), Target(y)


def _folds():  # type: ignore[no-untyped-def]
    table, target = make_table()
    return cut_folds(table, target, make_folds(table.decisions, target.y, by="subject", folds=3, seed=1))


@pytest.mark.parametrize("family", ["elasticnet", "lightgbm"])
def test_a_search_in_pieces_equals_a_search_in_one(family: str, tmp_path: Path) -> None:
    whole = tune(family, _folds(), trials=14, seed=5, journal=tmp_path / "whole.journal")
    for trials in (1, 2, 9, 14):
        pieces = tune(family, _folds(), trials=trials, seed=5, journal=tmp_path / "pieces.journal")
    strip = [{k: v for k, v in trial.items() if k != "seconds"} for trial in whole.trials]
    assert strip == [{k: v for k, v in trial.items() if k != "seconds"} for trial in pieces.trials]
    assert whole.recipe == pieces.recipe
    assert whole.fold_losses == pieces.fold_losses


def test_a_finished_search_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    tune("elasticnet", _folds(), trials=5, seed=5, journal=path)
    tune("elasticnet", _folds(), trials=5, seed=5, journal=path)
    with journals.open_journal(path) as storage:
        assert len(optuna.load_study(study_name="elasticnet", storage=storage).trials) == 5


def test_a_line_cut_off_by_a_kill_costs_only_the_trial_that_was_running(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    whole = tune("elasticnet", _folds(), trials=6, seed=5, journal=path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(len(content) // 3, len(content) - 1, 12):
        path.write_bytes(content[:cut])
        resumed = tune("elasticnet", _folds(), trials=6, seed=5, journal=path)
        assert resumed.recipe == whole.recipe
        assert [t["loss"] for t in resumed.trials] == [t["loss"] for t in whole.trials]


def test_two_processes_cannot_hold_one_journal(tmp_path: Path) -> None:
    with (
        journals.open_journal(tmp_path / "s.journal"),
        pytest.raises(TheracastError, match="another `theracast train`"),
        journals.open_journal(tmp_path / "s.journal"),
    ):
        pass


def test_sigkill_loses_no_finished_trial(tmp_path: Path) -> None:
    """Kill a searching process at random moments; what it had finished is there, and the end is the same."""
    script = tmp_path / "search.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
            from pathlib import Path
            from test_search import _folds
            from theracast_training.search import tune
            tune("elasticnet", _folds(), trials=40, seed=5, journal=Path({str(tmp_path / "k.journal")!r}),
                 on_trial=lambda: print("trial", flush=True))
            """
        )
    )
    rng = np.random.default_rng(3)
    finished = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.02, 0.25)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with journals.open_journal(tmp_path / "k.journal") as storage:
            study = optuna.load_study(study_name="elasticnet", storage=storage)
            now = len(journals.finished_trials(study))
        assert now >= finished
        finished = now
    resumed = tune("elasticnet", _folds(), trials=40, seed=5, journal=tmp_path / "k.journal")
    whole = tune("elasticnet", _folds(), trials=40, seed=5, journal=tmp_path / "whole.journal")
    assert resumed.recipe == whole.recipe
    assert [t["loss"] for t in resumed.trials] == [t["loss"] for t in whole.trials]


def test_the_loss_of_yes_or_no_is_the_weighted_log_loss() -> None:
    y = np.array([1.0, 0.0, 1.0])
    p = np.array([0.9, 0.2, 0.6])
    w = np.array([1.0, 2.0, 1.0])
    expected = -np.average(np.where(y == 1, np.log(p), np.log(1 - p)), weights=w)
    assert mean_loss(Binary(y, w), np.log(p / (1 - p))) == pytest.approx(expected)


def _search(family: str, losses: list[float]) -> FamilySearch:
    return FamilySearch(Recipe(family, {"members": []} if family == "stack" else {}), tuple(losses))


def test_one_standard_error_prefers_the_simpler_family() -> None:
    searches = {
        "elasticnet": _search("elasticnet", [0.52, 0.50, 0.54]),
        "lightgbm": _search("lightgbm", [0.49, 0.50, 0.56]),
        "stack": _search("stack", [0.48, 0.49, 0.55]),
    }
    assert choose(searches, one_standard_error=True).family == "elasticnet"
    assert choose(searches, one_standard_error=False).family == "stack"


def test_a_family_that_is_clearly_worse_is_not_chosen_for_being_simple() -> None:
    searches = {
        "elasticnet": _search("elasticnet", [0.70, 0.71, 0.70]),
        "lightgbm": _search("lightgbm", [0.50, 0.51, 0.50]),
    }
    assert choose(searches, one_standard_error=True).family == "lightgbm"
