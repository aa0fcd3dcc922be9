"""How the model did where it was tested, in the words and counts of the board sheet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from theracast_models.outcomes import Kind
from theracast_serving import sheet_svg as svg
from theracast_serving.clinical_text import calibration_words, hundredth, number_text, separation_words

CROSS_VALIDATED = "Development (CV)"


@dataclass(frozen=True)
class Discrimination:
    """How well patients are told apart: the AUC of a chance, the C of times and levels, the rank correlation of numbers."""

    name: str
    value: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The figure with its interval."""
        if self.value is None:
            return "not estimable"
        interval = f" ({self.low:.2f} to {self.high:.2f})" if self.low is not None and self.high is not None else ""
        return f"{self.value:.2f}{interval}".replace("-", "−")

    @property
    def as_auc(self) -> tuple[float | None, float | None, float | None]:
        """Value and interval where 0.5 is chance and 1 perfect."""
        if self.name != "rank correlation":
            return self.value, self.low, self.high
        value, low, high = (None if one is None else (1 + one) / 2 for one in (self.value, self.low, self.high))
        return value, low, high


@dataclass(frozen=True)
class SitePerformance:
    """One tested site: how well patients were told apart, and whether the predicted counts came true."""

    site: str
    here: bool
    patients: str
    auc: str
    separation: str
    dot: Markup
    counts: str
    calibration: str


def discrimination(evaluation: Mapping[str, Any], kind: Kind) -> Discrimination:
    """Return how well patients were told apart at one site."""
    places: dict[Kind, tuple[str, Mapping[str, Any], str]] = {
        "binary": ("AUC", evaluation, "auc"),
        "time_to_event": ("C", evaluation.get("survival") or {}, "c_harrell"),
        "ordinal": ("C", evaluation.get("ordinal") or {}, "c_ordinal"),
        "continuous": ("rank correlation", evaluation, "spearman"),
    }
    name, record, key = places[kind]
    if kind in ("time_to_event", "ordinal") and record.get(key) is None and evaluation.get("auc") is not None:
        name, record, key = "AUC", evaluation, "auc"
    return Discrimination(name, *(record.get(f"{key}{end}") for end in ("", "_low", "_high")))


def is_tested(evaluation: Mapping[str, Any], kind: Kind) -> bool:
    """Return whether anything is known of how well patients were told apart."""
    return discrimination(evaluation, kind).value is not None


def performance_rows(
    evaluations: Mapping[str, Any],
    site: str | None,
    *,
    developed_at: Collection[str],
    kind: Kind = "binary",
    unit: str = "",
) -> tuple[list[SitePerformance], str]:
    """Return the tested sites, this patient's first, and a sentence on what they mean for this patient.

    Args:
        evaluations: those that travel in the model.
        site: of the patient.
        developed_at: sites from which the model was learned.
        kind: of the endpoint.
        unit: of a number.
    """
    home = site is not None and site in developed_at
    external = _external(evaluations)
    cross_validated = evaluations.get("cv") or {}
    rows = [_row(name, external[name], kind, unit, here=name == site) for name in _order(external, site)]
    if is_tested(cross_validated, kind):
        at = 1 if rows and rows[0].here else 0
        rows.insert(at, _row(CROSS_VALIDATED, cross_validated, kind, unit, here=home))
    return rows, _note(external, site, home=home, tested=bool(rows))


def closest_test(
    evaluations: Mapping[str, Any], site: str | None, *, developed_at: Collection[str], kind: Kind
) -> tuple[str, Discrimination] | None:
    """Return the test that says most of this patient: at the own site, else at the largest other one, else cross-validation."""
    external, cross_validated = _external(evaluations), evaluations.get("cv") or {}
    tests = [(name, external[name]) for name in _order(external, site)]
    tests.insert(0 if site is not None and site in developed_at else len(tests), ("cross-validation", cross_validated))
    found = [(name, discrimination(one, kind)) for name, one in tests if is_tested(one, kind)]
    return found[0] if found else None


def _external(evaluations: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(name): part for name, part in dict(evaluations.get("external") or {}).items() if part}


def _order(external: Mapping[str, Mapping[str, Any]], site: str | None) -> list[str]:
    return sorted(external, key=lambda name: (name != site, -int(external[name].get("n") or 0), name))


def _row(name: str, evaluation: Mapping[str, Any], kind: Kind, unit: str, *, here: bool) -> SitePerformance:
    found = discrimination(evaluation, kind)
    followed = evaluation.get("survival") or evaluation
    patients, events = followed.get("n"), followed.get("events")
    auc, low, high = found.as_auc
    label = f"{found.name} {found.text}" if found.value is not None else found.text
    return SitePerformance(
        site=name,
        here=here,
        patients="" if patients is None else f"{int(patients)}" + ("" if events is None else f" ({int(events)})"),
        auc=found.text,
        separation=separation_words(auc),
        dot=svg.interval_dot(auc, low, high, label=label),
        counts=_counts(evaluation, kind),
        calibration=_error_words(evaluation, unit) if kind == "continuous" else calibration_words(evaluation),
    )


def _counts(evaluation: Mapping[str, Any], kind: Kind) -> str:
    names = ("mean_estimate", "mean_outcome") if kind == "continuous" else ("mean_probability", "prevalence")
    predicted, observed = (evaluation.get(name) for name in names)
    if predicted is None or observed is None:
        return "–"
    if kind == "continuous":
        return f"{number_text(predicted)} → {number_text(observed)}"
    return f"{hundredth(predicted)} → {hundredth(observed)}"


def _error_words(evaluation: Mapping[str, Any], unit: str) -> str:
    error = evaluation.get("mae")
    return "not estimable" if error is None else f"off by {number_text(error)} {unit}".strip()


def _note(external: Mapping[str, Any], site: str | None, *, home: bool, tested: bool) -> str:
    if not tested:
        return "This model carries no evaluation: how well it does is not known. Do not rely on it."
    if not external:
        sentence = "The model was tested by cross-validation only, at no other site."
    elif home:
        sentence = f"This patient's site ({site}) is one from which the model was learned; cross-validation judges it."
    elif site is None:
        sentence = "The site of this patient is not stated."
    elif site in external:
        sentence = f"This patient's site ({site}) is among the tested ones."
    else:
        sentence = f"This patient's site ({site}) is not among the external test sites; the others show what may vary."
    return sentence
