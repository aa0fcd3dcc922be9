"""The answer of a model: calibrated probabilities with interval, exact explanation and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """n answered decisions. `logit(probability) = base + contributions.sum(axis=1)`, checked before it is handed out.

    Attributes:
        model: name of the model that answered, as `models:/NAME/VERSION` or the folder's identity.
        subject_id: n identifiers.
        probability: (n,) calibrated probability of the positive endpoint.
        low, high: (n,) 95 % interval of `probability`.
        base: (n,) log-odds of the calibrated model before any feature speaks.
        contributions: (n, n_features) exact SHAP values in calibrated log-odds, by feature name.
        modalities: (n, n_modalities) the same, summed by modality.
        missing: n lists of feature names that were not measured (indicators not among them).
        warnings: n lists of sentences.
        features: the feature values that were scored, for display.
    """

    model: str
    subject_id: list[str]
    probability: Floats
    low: Floats
    high: Floats
    base: Floats
    contributions: pd.DataFrame
    modalities: pd.DataFrame
    missing: list[list[str]]
    warnings: list[list[str]]
    features: FeatureTable

    def __len__(self) -> int:
        return len(self.subject_id)

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready record per decision: the contract of `score --json`, REST and the MLflow model."""
        contributions = self.contributions.to_dict("records")
        modalities = self.modalities.to_dict("records")
        return [
            {
                "subject_id": self.subject_id[row],
                "probability": float(self.probability[row]),
                "low": float(self.low[row]),
                "high": float(self.high[row]),
                "base": float(self.base[row]),
                "contributions": contributions[row],
                "modalities": modalities[row],
                "missing": self.missing[row],
                "warnings": self.warnings[row],
            }
            for row in range(len(self))
        ]

    def to_json(self) -> dict[str, Any]:
        """Return `{"model", "rows"}`."""
        return {"model": self.model, "rows": self.rows()}
