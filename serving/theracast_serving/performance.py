"""How the model did where it was tested, in the words and counts of the board sheet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from theracast_serving import sheet_svg as svg
from theracast_serving.clinical_text import calibration_words, hundredth, separation_words


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


def performance_rows(
    evaluations: Mapping[str, Any], site: str | None, *, developed_at: Collection[str]
) -> tuple[list[SitePerformance], str]:
    """Return the tested sites, this patient's first, and a sentence on what they mean for this patient.

    Args:
        evaluations: those that travel in the model.
        site: of the patient.
        developed_at: sites from which the model was learned.
    """
    home = site is not None and site in developed_at
    external = {str(name): part for name, part in dict(evaluations.get("external") or {}).items() if part}
    cross_validated = evaluations.get("cv") or {}
    order = sorted(external, key=lambda name: (name != site, -int(external[name].get("n") or 0), name))
    rows = [_row(name, external[name], here=name == site) for name in order]
    if cross_validated.get("auc") is not None:
        rows.insert(1 if rows and rows[0].here else 0, _row("Development (CV)", cross_validated, here=home))
    return rows, _note(external, site, home=home, tested=bool(rows))


def _row(name: str, evaluation: Mapping[str, Any], *, here: bool) -> SitePerformance:
    auc, low, high = (evaluation.get(key) for key in ("auc", "auc_low", "auc_high"))
    patients = evaluation.get("n")
    events = evaluation.get("events")
    interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return SitePerformance(
        site=name,
        here=here,
        patients="" if patients is None else f"{int(patients)}" + ("" if events is None else f" ({int(events)})"),
        auc="not estimable" if auc is None else f"{auc:.2f}{interval}",
        separation=separation_words(auc),
        dot=svg.interval_dot(auc, low, high, label="not estimable" if auc is None else f"AUC {auc:.2f}{interval}"),
        counts=_counts(evaluation),
        calibration=calibration_words(evaluation),
    )


def _counts(evaluation: Mapping[str, Any]) -> str:
    predicted, observed = evaluation.get("mean_probability"), evaluation.get("prevalence")
    if predicted is None or observed is None:
        return "–"
    return f"{hundredth(predicted)} → {hundredth(observed)}"


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
