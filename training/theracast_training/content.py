"""What a study report and a model card say, as plain numbers: no identifiers, no files, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec
from theracast_training.endpoint_content import HEADLINES, EndpointContent, Headline, Terms

Floats = NDArray[np.float64]

NESTED = "cv"
"""Key of the nested cross-validation beside the sites, in `curves` and `comparisons`."""
SHOWN = 300
LEAST_AT_LEVEL = 10
"""Categories with fewer decisions are not listed one by one."""


@dataclass(frozen=True)
class ReportContent:
    """Everything that the study report and the model card show. All mappings and sequences are plain JSON values.

    Attributes:
        name: name of the study, which is also the name of the model.
        question: the study's question, a sentence.
        endpoint: label of what is predicted, as it reads after "probability of", e.g. `objective response (CR or PR)`.
        model: how the model is called up, e.g. `models:/icb-response/3`.
        family: family that was chosen, a key of `searches` where it was tuned.
        choice: why, a sentence (the one-standard-error rule with its figures).
        made: day of the report.
        seed: seed of the run.
        development: sites that developed the model.
        external: sites that took no part, in the order of the study.
        cohort: one record a site: `site`, `decisions`, `known` (decisions with a known outcome, or that were followed),
            `events` (those with the outcome, or the event; None where the endpoint is a number).
        attrition: `AuditReport.to_json()["attrition"]`: `site`, `reason`, `dropped`, `left`.
        findings: `AuditReport.to_json()["findings"]`: `check`, `severity`, `site`, `column`, `message`, `why`,
            `remedy`, `accepted` (the reason, or None); the accepted ones are among them.
        searches: family to `loss`, `standard_error` (log loss over inner folds), `params`, `trials` (records with
            `number`, `loss`, `state`; may be empty).
        evaluations: the model's own: `{"cv": {...}, "external": {site: {...}}, "baselines": {name: {site: {...}}},
            "single_modality": {modality: {site: {...}}}, "without_modality": {modality: {site: {...}}},
            "by_day": {site: {day: {...}}}, "statistics": {...}}`, each innermost one an answer of `evaluate_target`, the last
            as of `study_statistics`. `cv` may be empty; a missing part counts as empty. Sites of baselines and modalities
            may include `cv`.
        curves: site (or `cv`) to its curves; see `endpoint_curves.site_curves`.
        comparisons: one record a comparison: `against` (name of a baseline or modality), `kind` (`baseline`,
            `modality` or `without`), `site` (or `cv`), `calibrated` (False for a score that only ranks), and the answer of
            `compare_paired(y, p_model, p_other)` merged in.
        explanation: the answer of `explanation_summary`.
        catalogue: one record a feature: `FeatureSpec.to_json()` and `missing`, a mapping from site to the fraction
            (0 to 1) missing there.
        scheme: `outer`, `inner`, `repeats`, `by`, `trials` (a family), `bootstrap`, `replicates`.
        versions: software to version.
        fingerprint: hash of the sources and the resolved study.
        limits: sentences beyond those that follow from the numbers.
        seconds: duration of the training, None where not measured.
        terms: the words for the primary endpoint; by default it is a yes or no named by `endpoint`.
        further: the other endpoints that the model answers.
        study: what the study file says and no figure shows: `statement` (key to sentence), `thresholds`, `include`,
            `calendar` (first and last year of the development decisions, or None), `treatments`, `baselines`, `gates`,
            `sources`, `transforms`, `harmonised`, `indicators`, `fairness`; a missing part counts as empty.
    """

    name: str
    question: str
    endpoint: str
    model: str
    family: str
    choice: str
    made: date
    seed: int
    development: Sequence[str]
    external: Sequence[str]
    cohort: Sequence[Mapping[str, Any]]
    attrition: Sequence[Mapping[str, Any]]
    findings: Sequence[Mapping[str, Any]]
    searches: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Any]
    curves: Mapping[str, Mapping[str, Any]]
    comparisons: Sequence[Mapping[str, Any]]
    explanation: Mapping[str, Any]
    catalogue: Sequence[Mapping[str, Any]]
    scheme: Mapping[str, Any]
    versions: Mapping[str, str]
    fingerprint: str
    limits: Sequence[str] = field(default=())
    seconds: float | None = None
    terms: Terms | None = None
    further: Sequence[EndpointContent] = ()
    study: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> Terms:
        """The words for the primary endpoint."""
        return self.terms or Terms(label=self.endpoint, leading=self.endpoint)

    @property
    def headline(self) -> Headline:
        """The figure that leads for the primary endpoint."""
        return HEADLINES[self.asked.kind]

    @property
    def statistics(self) -> Mapping[str, Any]:
        """What was asked of the figures; empty where nothing was."""
        patterns = self.evaluations.get("patterns")
        return {**(self.evaluations.get("statistics") or {}), **({"patterns": patterns} if patterns else {})}

    @property
    def primary(self) -> EndpointContent:
        """The primary endpoint, in the form of the others."""
        return EndpointContent(
            "primary", self.asked, self.family, self.choice, self.performance, self.curves, self.statistics
        )

    @property
    def performance(self) -> dict[str, Mapping[str, Any]]:
        """Nested cross-validation (key `cv`, where there is one) and every external site, each as evaluated."""
        nested = self.evaluations.get("cv") or {}
        external = self.evaluations.get("external") or {}
        return ({NESTED: nested} if nested else {}) | {
            site: external[site] for site in self.external if external.get(site)
        }

    @property
    def features(self) -> list[Mapping[str, Any]]:
        """The catalogue without missing indicators."""
        return [spec for spec in self.catalogue if spec.get("role") != "indicator"]


def explanation_summary(
    contributions: pd.DataFrame,
    values: pd.DataFrame,
    catalogue: Sequence[FeatureSpec],
    *,
    limit: int = SHOWN,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how the model uses its features over n decisions, as plain JSON without identifiers or raw values.

    `n`, and `features` in falling importance, each with `name`, `label`, `unit`, `modality`, `kind`, `mean_abs` (mean
    |SHAP value|, log-odds), `direction` (rank correlation of value and SHAP value, None for a category), `levels`
    (categories with at least 10 decisions: `level`, `n`, `mean_phi`), and, for the same random decisions in random
    order, `phi` and `scaled` (the value's rank, 0 to 1; None where missing or a category).

    Args:
        contributions: (n, p) SHAP values by feature name (`Prediction.contributions`).
        values: (n, p) feature values (`Prediction.features.frame`), same rows.
        catalogue: p specs.
        limit: decisions shown.
        seed: of the sample.
    """
    n = len(contributions)
    shown = np.random.default_rng(seed).permutation(n)[:limit]
    specs = {spec.name: spec for spec in catalogue}
    features: list[dict[str, Any]] = []
    for name in contributions.columns:
        phi = contributions[name].to_numpy(dtype=np.float64)
        spec = specs[str(name)]
        column = values[name].reset_index(drop=True)
        category = spec.kind == "categorical"
        scaled = np.full(n, np.nan) if category else _unit_ranks(column)
        features.append(
            {
                "name": spec.name,
                "label": spec.label,
                "unit": spec.unit,
                "modality": spec.modality,
                "kind": spec.kind,
                "mean_abs": float(np.abs(phi).mean()) if n else 0.0,
                "direction": None if category else _direction(scaled, phi),
                "levels": _levels(column, phi) if category else [],
                "phi": [round(float(one), 4) for one in phi[shown]],
                "scaled": [None if np.isnan(one) else round(float(one), 3) for one in scaled[shown]],
            }
        )
    return {"n": n, "features": sorted(features, key=lambda one: -float(one["mean_abs"]))}


def _unit_ranks(column: pd.Series) -> Floats:
    """Return mid-ranks between 0 and 1, NaN where missing."""
    numbers = pd.to_numeric(column, errors="coerce")
    ranks = numbers.rank(method="average")
    low, high = ranks.min(), ranks.max()
    scaled = (ranks - low) / (high - low) if high > low else ranks * 0 + 0.5
    return np.asarray(scaled, dtype=np.float64)


def _direction(scaled: Floats, phi: Floats) -> float | None:
    present = ~np.isnan(scaled)
    if present.sum() < 3 or np.ptp(scaled[present]) == 0 or np.ptp(phi[present]) == 0:
        return None
    ranks = pd.Series(phi[present]).rank().to_numpy()
    return float(np.corrcoef(scaled[present], ranks)[0, 1])


def _levels(column: pd.Series, phi: Floats) -> list[dict[str, Any]]:
    grouped = pd.Series(phi).groupby(column.astype("str").where(column.notna()).to_numpy())
    rows: list[dict[str, Any]] = [
        {"level": str(level), "n": len(part), "mean_phi": float(part.mean())}
        for level, part in grouped
        if len(part) >= LEAST_AT_LEVEL
    ]
    return sorted(rows, key=lambda row: -float(row["mean_phi"]))
