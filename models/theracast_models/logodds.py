"""What every model family gives: log-odds that are a sum over features."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from theracast_features.specs import FeatureTable

Floats = NDArray[np.float64]

__all__ = ["Floats", "LogOddsModel", "expit", "logit"]


class LogOddsModel(Protocol):
    """A model family. Constructors only store their parameters; `fit` learns everything, preprocessing included.

    A fitted model is deterministic and accepts tables with any value missing and any level unseen.
    """

    family: ClassVar[str]

    def fit(self, table: FeatureTable, y: Floats, *, weight: Floats | None = None) -> Self:
        """Learn from n decisions; `y` (n,) is 0/1, `weight` (n,) non-negative."""
        ...

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) log-odds, not calibrated."""
        ...

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p) in the order of `catalogue`; `base + phi.sum(1) = log_odds`."""
        ...

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision what had to be filled in or passed over, as sentences without the patient's values."""
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted model as plain files (JSON, LightGBM text) into a new folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote."""
        ...
