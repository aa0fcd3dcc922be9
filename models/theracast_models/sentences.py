"""The sentences in which a model tells a doctor what it met: feature labels, never a patient's values."""

from __future__ import annotations

from collections.abc import Sequence

from theracast_features.specs import FeatureTable
from theracast_models.logodds import Gaps


def listed(labels: Sequence[str], *, most: int = 8) -> str:
    """Return labels as `a, b and c`; a long list is cut and the rest counted."""
    if len(labels) > most:
        return f"{', '.join(labels[: most - 1])} and {len(labels) - most + 1} more"
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]])) if labels else ""


def gap_sentences(gaps: Sequence[Gaps], table: FeatureTable) -> list[list[str]]:
    """Return per decision what was filled in and what was passed over, in the words of the catalogue."""
    labels = {spec.name: spec.label for spec in table.catalogue}
    return [
        _filled([labels[name] for name in gap.filled])
        + _unseen([labels[name] for name in gap.unseen])
        + _unharmonised([labels[name] for name in gap.unharmonised])
        + _unpictured([labels[name] for name in gap.unpictured])
        for gap in gaps
    ]


def _filled(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    return [f"Not known, so the typical value of the development patients stands in: {listed(labels)}."]


def _unseen(labels: Sequence[str]) -> list[str]:
    return [f"{label}: no development patient had this category; the model treats it as not known." for label in labels]


def _unharmonised(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    return [
        "The scanner is not known, or too few development patients were measured on it to allow for its differences; "
        f"used as measured: {listed(labels, most=4)}."
    ]


def _unpictured(labels: Sequence[str]) -> list[str]:
    return [f"Not there, so the answer does without it: {listed(labels, most=4)}."] if labels else []
