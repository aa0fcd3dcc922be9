"""What is tried of the families that fuse modalities late: `late` and `gated`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna


def suggest_late(trial: optuna.Trial) -> dict[str, Any]:
    """Draw the mixture of the penalty of the modalities' elastic nets; each chooses its own strength inside the fit."""
    return {"l1_ratio": trial.suggest_float("l1_ratio", 0.0, 1.0)}


def suggest_gated(trial: optuna.Trial) -> dict[str, Any]:
    """Draw how far slopes and gates are held back, how often a modality is left out, and whether columns may bend."""
    return {
        "decay": trial.suggest_float("decay", 3e-3, 1.0, log=True),
        "gate_decay": trial.suggest_float("gate_decay", 1e-2, 10.0, log=True),
        "dropout": trial.suggest_float("dropout", 0.1, 0.5),
        "hidden": trial.suggest_categorical("hidden", [0, 3]),
    }


SUGGEST: Mapping[str, Callable[[optuna.Trial], dict[str, Any]]] = {"late": suggest_late, "gated": suggest_gated}
"""To join `search.SEARCH_SPACES`."""
FIRST_TRIES: Mapping[str, dict[str, Any]] = {
    "late": {"l1_ratio": 0.5},
    "gated": {"decay": 0.1, "gate_decay": 1.0, "dropout": 0.3, "hidden": 0},
}
"""To join `search.FIRST_TRY`."""
TRIALS: Mapping[str, int] = {"late": 3, "gated": 12}
"""To join `search.MOST_TRIALS`: a late fusion tunes its members itself, a gated one trains a network in each fold."""
