"""The answer of a model: calibrated estimates with interval, exact explanation and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_models.outcomes import SCALES, Kind

Floats = NDArray[np.float64]

CAUSE_SPECIFIC = "log cause-specific hazard"
"""The scale of explanations where a competing event may come first."""


@dataclass(frozen=True)
class Asking:
    """One of the K answers of an endpoint: its name, and the horizon (days) or the level of which it is the probability."""

    name: str
    horizon: float | None = None
    level: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the name with what is not None."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """The answers of n decisions for one endpoint. On its scale the leading one is `base + contributions.sum(axis=1)`.

    Attributes:
        endpoint: name.
        label: what the tumour board reads.
        kind: of the endpoint; the scale follows from it: log-odds, log cumulative hazard, or the number.
        asked: K, the leading one first.
        estimates, low, high: (n, K) calibrated probabilities (of yes; of the event by a horizon; of a level or a better one)
            or numbers, with 95 % intervals.
        base: (n,) the leading answer on its scale before any feature speaks.
        contributions: (n, n_features) exact SHAP values on that scale, by feature name.
        modalities: (n, n_modalities) the same, summed by modality.
        more: n records of what else is said of this endpoint: conformal sets, similar patients, validated performance.
        unit: of a number.
        competing: (n, K) chances that the competing event comes first and by each horizon, where there is one. The
            explanation is then of the log cumulative hazard of this event alone, of which `estimates` are no function:
            what it adds up to is told beside them, as `on_scale`.
    """

    endpoint: str
    label: str
    kind: Kind
    asked: tuple[Asking, ...]
    estimates: Floats
    low: Floats
    high: Floats
    base: Floats
    contributions: pd.DataFrame
    modalities: pd.DataFrame
    more: Sequence[dict[str, Any]] = ()
    unit: str | None = None
    competing: Floats | None = None

    @property
    def estimate(self) -> Floats:
        """(n,) the leading answer."""
        return self.estimates[:, 0]

    @property
    def estimate_name(self) -> str:
        """`probability`, or `value` of a number."""
        return "value" if self.kind == "continuous" else "probability"

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready record per decision."""
        contributions, modalities = _records(self.contributions), _records(self.modalities)
        more = self.more or [{}] * len(self.base)
        return [
            self._abstained(row)
            if "abstained" in more[row]
            else {
                self.estimate_name: float(self.estimates[row, 0]),
                "low": float(self.low[row, 0]),
                "high": float(self.high[row, 0]),
                "base": float(self.base[row]),
                "contributions": contributions[row],
                "modalities": modalities[row],
            }
            | self._beyond_yes_or_no(row)
            | more[row]
            for row in range(len(self.base))
        ]

    def abstains(self, row: int) -> str | None:
        """Return why the model gives no answer for a decision, None where it gives one."""
        return self.more[row].get("abstained") if self.more else None

    def _abstained(self, row: int) -> dict[str, Any]:
        """Return a record without an answer: why, and what was validated."""
        kept = {key: self.more[row][key] for key in ("abstained", "validated", "rarely_seen") if key in self.more[row]}
        nothing: dict[str, Any] = {self.estimate_name: None, "low": None, "high": None, "base": None}
        return nothing | {"contributions": {}, "modalities": {}} | kept

    def _beyond_yes_or_no(self, row: int) -> dict[str, Any]:
        if self.kind == "binary":
            return {}
        told = [
            asking.to_json()
            | {
                self.estimate_name: float(self.estimates[row, place]),
                "low": float(self.low[row, place]),
                "high": float(self.high[row, place]),
            }
            for place, asking in enumerate(self.asked)
        ]
        found: dict[str, Any] = {"kind": self.kind, "scale": SCALES[self.kind], "answers": told}
        if self.competing is not None:
            for place, one in enumerate(told):
                one["competing"] = float(self.competing[row, place])
            on_scale = float(self.base[row] + self.contributions.to_numpy()[row].sum())
            found |= {"scale": CAUSE_SPECIFIC, "on_scale": on_scale}
        return found | ({} if self.unit is None else {"unit": self.unit})


def _records(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Return one mapping a row; what pandas does is dear for one row."""
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in frame.to_numpy(dtype=np.float64).tolist()]


@dataclass(frozen=True)
class Prediction:
    """n answered decisions. What each answer adds up to is checked before it is handed out.

    Attributes:
        model: name of the model that answered, as `models:/NAME/VERSION` or the folder's identity.
        subject_id: n identifiers.
        answer: of the primary endpoint.
        missing: n lists of feature names that were not measured (indicators not among them).
        warnings: n lists of sentences.
        features: the feature values that were scored, for display.
        further: answers of the other endpoints.
    """

    model: str
    subject_id: list[str]
    answer: Answer
    missing: list[list[str]]
    warnings: list[list[str]]
    features: FeatureTable
    further: tuple[Answer, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.subject_id)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The primary answer and the others."""
        return (self.answer, *self.further)

    @property
    def probability(self) -> Floats:
        """(n,) leading answer of the primary endpoint: a calibrated probability, or the number."""
        return self.answer.estimate

    @property
    def low(self) -> Floats:
        """(n,) lower end of its 95 % interval."""
        return self.answer.low[:, 0]

    @property
    def high(self) -> Floats:
        """(n,) upper end of its 95 % interval."""
        return self.answer.high[:, 0]

    @property
    def base(self) -> Floats:
        """(n,) the primary answer on its scale before any feature speaks."""
        return self.answer.base

    @property
    def contributions(self) -> pd.DataFrame:
        """(n, n_features) exact SHAP values of the primary answer."""
        return self.answer.contributions

    @property
    def modalities(self) -> pd.DataFrame:
        """(n, n_modalities) the same, summed by modality."""
        return self.answer.modalities

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready record per decision: the contract of `score --json`, REST and the MLflow model."""
        answers = self.answer.rows()
        further = {answer.endpoint: answer.rows() for answer in self.further}
        return [
            {"subject_id": self.subject_id[row]}
            | answers[row]
            | {"missing": self.missing[row], "warnings": self.warnings[row]}
            | ({"endpoints": {name: rows[row] for name, rows in further.items()}} if further else {})
            for row in range(len(self))
        ]

    def to_json(self) -> dict[str, Any]:
        """Return `{"model", "rows"}`."""
        return {"model": self.model, "rows": self.rows()}
