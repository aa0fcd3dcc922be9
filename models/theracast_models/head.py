"""One endpoint of a model: what is predicted, by what, how well, and among whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.endpoints import (
    DAYS_PER,
    ContinuousEndpoint,
    Endpoint,
    EndpointKind,
    TimeToEventEndpoint,
    kind_of,
    level_names,
)
from theracast_data.errors import ArtifactError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.companions import Companions
from theracast_models.fitting import CalibratedModel
from theracast_models.links import HazardLink, OrdinalLink
from theracast_models.logodds import Floats
from theracast_models.prediction import Answer, Asking
from theracast_models.reference import Reference

ADDITIVITY = 1e-6


@dataclass(frozen=True)
class Head:
    """The model of one endpoint over the features that all endpoints of a study share.

    Attributes:
        endpoint: what is predicted.
        calibrated: the model of the features.
        reference: what the development patients were like.
        evaluations: performance, `{"cv": {...}, "external": {site: {...}}, "baselines": ..., "single_modality": ...,
            "patterns": {pattern of modalities: {...}}}`.
        companions: what stands beside an answer.
    """

    endpoint: Endpoint
    calibrated: CalibratedModel
    reference: Reference
    evaluations: dict[str, Any] = field(default_factory=dict)
    companions: Companions = field(default_factory=Companions)

    @property
    def label(self) -> str:
        """What the tumour board reads."""
        return self.endpoint.label or self.endpoint.name.replace("_", " ")

    @property
    def kind(self) -> EndpointKind:
        """What is predicted."""
        return kind_of(self.endpoint)

    @property
    def asked(self) -> tuple[Asking, ...]:
        """The K answers, the leading one first."""
        link = self.calibrated.calibration
        if isinstance(link, HazardLink):
            return tuple(Asking(horizon_name(days, self.endpoint), horizon=days) for days in link.horizons)
        if isinstance(link, OrdinalLink):
            levels = level_names(self.endpoint)
            return tuple(
                Asking(
                    levels[-1] if place + 2 == len(levels) else f"{levels[place + 1]} or better",
                    level=levels[place + 1],
                )
                for place in link.order
            )
        return (Asking(self.label),)

    def answer(self, table: FeatureTable, catalogue: Sequence[FeatureSpec]) -> Answer:
        """Return the answers for the decisions of a table.

        Raises:
            ArtifactError: an explanation does not add up.
        """
        link = self.calibrated.calibration
        base, phi = self.calibrated.explain(table)
        linear = self.calibrated.log_odds(table)
        _check_sum(base, phi, linear)
        low, high = self.calibrated.intervals_around(linear, table)
        names = [spec.name for spec in catalogue]
        modalities = np.array([spec.modality for spec in catalogue])
        by_modality = {str(one): phi[:, modalities == one].sum(axis=1) for one in table.modalities}
        estimates = self.calibrated.answers_of(linear, table)
        more = self.companions.records(
            table,
            link=link,
            linear=linear,
            estimates=estimates,
            phi=phi,
            levels=level_names(self.endpoint),
            validated=self.evaluations.get("patterns") or {},
        )
        return Answer(
            endpoint=self.endpoint.name,
            label=self.label,
            kind=self.kind,
            asked=self.asked,
            estimates=estimates,
            low=low,
            high=high,
            base=base + link.offsets[0],
            contributions=pd.DataFrame(phi, columns=names),
            modalities=pd.DataFrame(by_modality, index=range(len(table))),
            more=more,
            unit=self.endpoint.unit if isinstance(self.endpoint, ContinuousEndpoint) else None,
            competing=self._competing(linear, table),
        )

    def _competing(self, linear: Floats, table: FeatureTable) -> Floats | None:
        """Return (n, K) chances of the competing event by each horizon."""
        link = self.calibrated.calibration
        if self.calibrated.rival is None or not isinstance(link, HazardLink):
            return None
        return self.calibrated.incidences(linear, table, np.array(link.horizons))[1]


def horizon_name(days: float, endpoint: Endpoint) -> str:
    """Return a horizon in the unit of the endpoint, e.g. `12 months`."""
    unit = endpoint.unit if isinstance(endpoint, TimeToEventEndpoint) else "day"
    number = days / DAYS_PER[unit]
    text = f"{round(number, 1):g}"
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"


def _check_sum(base: Floats, phi: Floats, linear: Floats) -> None:
    gap = float(np.abs(base + phi.sum(axis=1) - linear).max(initial=0.0))
    if not gap < ADDITIVITY:
        raise ArtifactError(
            f"an explanation does not add up to its answer (off by {gap:.1e} on its scale; {ADDITIVITY:.0e} is "
            "allowed). The model must not be used; report it with the model's identity and the versions installed."
        )
