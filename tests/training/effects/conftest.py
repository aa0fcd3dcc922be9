"""Simulated trials whose effects are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_training.effects.outcome import Outcome

Floats = NDArray[np.float64]
Kind = Literal["none", "constant", "strong"]


@dataclass(frozen=True)
class Trial:
    """n patients, their arm, their outcome and the effect that each of them truly has."""

    table: FeatureTable
    treated: Floats
    outcome: Outcome
    effect: Floats


def feature_table(X: Floats) -> FeatureTable:
    names = [f"clin.x{place}" for place in range(X.shape[1])]
    specs = tuple(FeatureSpec(name, "clinical", "numeric", name, (name,)) for name in names)
    decisions = pd.DataFrame({"subject_id": [str(row) for row in range(len(X))], "site": "here"})
    return FeatureTable(pd.DataFrame(X, columns=names), specs, decisions)


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Trial]:
    """Makes a trial with a yes or no outcome; the true average effect is 0, 0.15 or 0.1."""

    def make(seed: int, kind: Kind, *, n: int = 400, features: int = 3, confounded: bool = False) -> Trial:
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(n, features))
        chance = 1 / (1 + np.exp(-1.2 * X[:, 1])) if confounded else np.full(n, 0.5)
        treated = (rng.random(n) < chance).astype(float)
        effect = {"none": np.zeros(n), "constant": np.full(n, 0.15), "strong": 0.1 + 0.25 * np.tanh(2 * X[:, 0])}[kind]
        p = np.clip(0.4 + 0.12 * np.tanh(X[:, 1]) + treated * effect, 0, 1)
        y = (rng.random(n) < p).astype(float)
        return Trial(feature_table(X), treated, Outcome("y", "y", "risk", "higher", y=y), effect)

    return make
