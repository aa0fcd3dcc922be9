"""What a loaded model is, expects and knows about its development cohort, as plain JSON and small look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from theracast_data.endpoints import ContinuousEndpoint, kind_of
from theracast_data.sources import ColumnSpec, OneHotSpec, TableSource
from theracast_features.specs import FeatureSpec
from theracast_models.artefact import VERSION
from theracast_models.head import Head
from theracast_models.outcomes import SCALES, Kind
from theracast_models.response_model import ResponseModel
from theracast_serving.clinical_text import number_text, of_hundred, unit_text


@dataclass(frozen=True)
class Development:
    """The cohort from which the model of one endpoint was learned.

    Attributes:
        n, events: decisions, and those with the outcome.
        rate: share with the outcome, by the leading horizon of a time to an event; the mean of a number.
        what: `patients` or `decisions`.
        kind: of the endpoint.
        unit: of a number.
        within: name of the leading horizon.
    """

    n: int
    events: int
    rate: float
    what: str = "patients"
    kind: Kind = "binary"
    unit: str = ""
    within: str = ""

    @property
    def text(self) -> str:
        """The response rate, or the mean, as a sentence's part, with the counts behind it."""
        if self.kind == "continuous":
            mean = f"{number_text(self.rate)} {self.unit}".strip()
            return f"{mean} on average in the development cohort ({self.n} {self.what})"
        if self.kind == "time_to_event":
            counts = f"{self.events} events among {self.n} {self.what}"
            return f"{of_hundred(self.rate)} of 100 in the development cohort within {self.within} ({counts})"
        return f"{of_hundred(self.rate)} of 100 in the development cohort ({self.events} of {self.n} {self.what})"


def development(model: ResponseModel) -> Development | None:
    """Return size and response rate of the development cohort, None where the model does not store them."""
    decisions = model.inputs.decisions
    several = decisions is not None and (decisions.landmarks is not None or decisions.trigger.occurrence == "each")
    return head_development(model.head, what="decisions" if several else "patients")


def head_development(head: Head, *, what: str = "patients") -> Development | None:
    """Return size and response rate of the development cohort of one endpoint, None where they are not stored."""
    reference = head.reference
    if not reference.n:
        return None
    unit = head.endpoint.unit if isinstance(head.endpoint, ContinuousEndpoint) else None
    kind = kind_of(head.endpoint)
    return Development(
        reference.n,
        reference.events,
        reference.prevalence,
        what,
        kind=kind,
        unit=unit_text(unit),
        within=head.asked[0].name if kind == "time_to_event" else "",
    )


def feature_range(model: ResponseModel, name: str) -> tuple[float, float, float] | None:
    """Return the 5 % quantile, the median and the 95 % quantile of a number in the development cohort."""
    known = model.reference.features.get(name)
    if known is None or not known.quantiles:
        return None
    return known.quantiles["p05"], known.quantiles["p50"], known.quantiles["p95"]


def level_share(model: ResponseModel, spec: FeatureSpec, cell: Any) -> float | None:
    """Return which share of the development cohort has this category, None where it is not stored (rare or unseen)."""
    known = model.reference.features.get(spec.name)
    if known is None:
        return None
    return known.levels.get(str(cell) if spec.kind == "categorical" else str(int(float(cell))))


def describe_model(model: ResponseModel) -> dict[str, Any]:
    """Return what `GET /v1/model` says: identity, card, endpoint, expected inputs, development cohort, evaluations."""
    reference = model.reference
    return {
        "model": model.identity,
        "format_version": VERSION,
        "card": model.card,
        "endpoint": model.endpoint.model_dump(mode="json"),
        "inputs": [entry for source in model.inputs.tables for entry in _source_inputs(model, source)],
        "features": [spec.to_json() for spec in model.catalogue],
        "development": {
            "n": reference.n,
            "events": reference.events,
            "prevalence": reference.prevalence,
            "sites": list(reference.sites),
        },
        "evaluations": model.evaluations,
        "endpoints": [describe_head(head) for head in model.heads],
    }


def describe_head(head: Head) -> dict[str, Any]:
    """Return what one endpoint is, what is told of it, whom it was learned from and how well it does."""
    base, kind = head_development(head), kind_of(head.endpoint)
    learned: dict[str, Any] = {"n": head.reference.n, "sites": list(head.reference.sites)}
    if base is not None:
        counts = {"mean": base.rate} if kind == "continuous" else {"events": base.events, "prevalence": base.rate}
        learned |= counts
    return {
        "name": head.endpoint.name,
        "label": head.label,
        "kind": kind,
        "scale": SCALES[kind],
        "unit": getattr(head.endpoint, "unit", None) if kind == "continuous" else None,
        "answers": [asking.to_json() for asking in head.asked],
        "endpoint": head.endpoint.model_dump(mode="json"),
        "development": learned,
        "evaluations": head.evaluations,
    }


def example_rows(model: ResponseModel) -> list[dict[str, Any]]:
    """Return the raw rows of the stored example patients."""
    return [dict(example["row"]) for example in model.examples]


def example_answers(model: ResponseModel) -> list[dict[str, Any]] | None:
    """Return the answers that the model gave for them when it was saved."""
    answers = [example.get("answer") for example in model.examples]
    return None if any(answer is None for answer in answers) else [dict(answer) for answer in answers if answer]


def _source_inputs(model: ResponseModel, source: TableSource) -> list[dict[str, Any]]:
    headers = [*source.columns, *(group.name for group in source.one_hot)]
    return [
        _input(model, header, name, spec)
        for header, (name, spec) in zip(headers, source.meanings.items(), strict=True)
        if spec.role == "feature"
    ]


def _input(model: ResponseModel, header: str, name: str, spec: ColumnSpec | OneHotSpec) -> dict[str, Any]:
    """Return what one raw column must hold, and what it held in the development cohort."""
    entry: dict[str, Any] = {
        "column": header,
        "name": name,
        "label": spec.label or name.replace("_", " "),
        "modality": spec.modality,
        "code": spec.code,
        "aliases": list(spec.aliases),
    }
    if isinstance(spec, OneHotSpec):
        entry |= {"kind": "categorical", "one_hot": dict(spec.columns), "levels": list(spec.columns.values())}
    else:
        entry |= {
            "kind": spec.resolved_kind,
            "unit": spec.source_unit or spec.unit,
            "site_units": dict(spec.site_units),
            "levels": _levels(spec),
            "plausible": spec.plausible,
            "cap": spec.cap_range,
        }
    feature = next((one for one in model.catalogue if one.role == "value" and one.columns == (name,)), None)
    known = model.reference.features.get(feature.name) if feature is not None else None
    if known is not None:
        entry["development"] = {
            "missing_rate": known.missing_rate,
            "low": known.low,
            "high": known.high,
            "quantiles": dict(known.quantiles),
            "levels": known.levels,
        }
    return entry


def _levels(spec: ColumnSpec) -> list[str] | dict[str, Any] | None:
    if isinstance(spec.levels, tuple):
        return list(spec.levels)
    return None if spec.levels is None else {str(cell): level for cell, level in spec.levels.items()}
