"""What every model family gives: a score that is a sum over features, the log-odds where the endpoint is yes or no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from theracast_features.specs import FeatureTable
from theracast_models.outcomes import Learnable

Floats = NDArray[np.float64]

__all__ = ["Floats", "Gaps", "Learnable", "LoadModel", "LogOddsModel", "ReplicableModel", "expit", "logit"]


class Gaps(NamedTuple):
    """Names of the features of one decision that a model could not take as they were.

    Attributes:
        filled: missing, a typical value stands in.
        unseen: categories that training never saw.
        unharmonised: measured on a scanner from which training had nothing to learn, used as they are.
        unpictured: no picture of the region is there, so what a network would say of it is left out.
    """

    filled: tuple[str, ...]
    unseen: tuple[str, ...]
    unharmonised: tuple[str, ...] = ()
    unpictured: tuple[str, ...] = ()


class LogOddsModel(Protocol):
    """A model family. Constructors only store their parameters; `fit` learns everything, preprocessing included.

    A fitted model is deterministic and accepts tables with any value missing and any level unseen. A class method
    `load(folder)` gives back what `save` wrote; where the model holds other models, `load(folder, load_member)`.
    """

    family: ClassVar[str]

    def fit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None) -> Self:
        """Learn from n decisions; `y` (n,) is 0/1 with `weight` (n,) non-negative, or outcomes that have their weights."""
        ...

    def log_odds(self, table: FeatureTable) -> Floats:
        """Return (n,) scores, not calibrated: log-odds, or what `outcomes.SCALES` names for the kind that was learned."""
        ...

    def contributions(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return base (n,) and exact SHAP values (n, p) in the order of `catalogue`; `base + phi.sum(1) = log_odds`."""
        ...

    def handled(self, table: FeatureTable) -> list[list[str]]:
        """Return per decision what had to be filled in or passed over, as sentences without the patient's values."""
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted model as plain files (JSON, LightGBM text, safetensors) into a new folder."""
        ...


LoadModel = Callable[[Path], "ReplicableModel"]
"""The model in a folder, whatever its family: what a model of models needs to load its members."""


class ReplicableModel(LogOddsModel, Protocol):
    """A family that can be refitted on resampled decisions, which gives the interval of each probability.

    A replicate keeps what the fitted model learned about the inputs (scales, codes, fill-in values, fusion weights)
    and learns coefficients or trees anew; so it is cheap, small, and sees the inputs exactly as the model does.
    """

    def refit(self, table: FeatureTable, y: Learnable, *, weight: Floats | None = None, seed: int = 0) -> Self:
        """Return a replicate learned from other decisions; `seed` tells replicates apart."""
        ...

    def gaps(self, table: FeatureTable) -> list[Gaps]:
        """Return per decision what `handled` puts into sentences."""
        ...

    def replicate_log_odds(self, replicates: Sequence[Self], table: FeatureTable) -> Floats:
        """Return (n_replicates, n) log-odds, not calibrated."""
        ...

    def save_replicates(self, replicates: Sequence[Self], folder: Path) -> None:
        """Write the replicates as plain files into a new folder."""
        ...

    def load_replicates(self, folder: Path) -> list[Self]:
        """Return the replicates that `save_replicates` wrote."""
        ...
