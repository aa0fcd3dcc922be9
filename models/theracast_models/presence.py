"""Which modalities are there for a decision, and the same decision with some of them taken away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureSpec, FeatureTable

NOTHING = "none"
"""The pattern of a decision of which no modality is known."""


def present_modalities(table: FeatureTable) -> NDArray[np.bool_]:
    """Return (n, n_modalities), in the order of `table.modalities`, where anything of the modality is known.

    A value or a picture speaks for its modality. That something was not measured does not, and what is derived from columns
    which stand in the table themselves does not either: a count of no values is no value.
    """
    measured = {column for spec in table.catalogue if spec.role == "value" for column in spec.columns}
    speaking = [spec for spec in table.catalogue if _speaks(spec, measured)]
    known = ~table.absent([spec.name for spec in speaking]) if speaking else np.zeros((len(table), 0), dtype=bool)
    there = np.zeros((len(table), len(table.modalities)), dtype=bool)
    for place, modality in enumerate(table.modalities):
        there[:, place] = known[:, [spec.modality == modality for spec in speaking]].any(axis=1)
    return there


def pattern_of(table: FeatureTable) -> list[str]:
    """Return per decision the modalities that are there, as `clinical+lab` in the order of the catalogue, or `none`."""
    names = table.modalities
    rows, which = np.unique(present_modalities(table), axis=0, return_inverse=True)
    texts = [pattern_name([name for name, here in zip(names, row, strict=True) if here]) for row in rows.tolist()]
    return [texts[place] for place in which.ravel().tolist()]


def pattern_name(modalities: Sequence[str]) -> str:
    """Return the name of the pattern in which just these modalities are there."""
    return "+".join(modalities) or NOTHING


def modalities_of(pattern: str) -> tuple[str, ...]:
    """Return the modalities that are there in a pattern."""
    return () if pattern == NOTHING else tuple(pattern.split("+"))


def without(table: FeatureTable, modalities: Collection[str]) -> FeatureTable:
    """Return the decisions as if nothing of these modalities had been measured."""
    return masked(table, np.tile([modality in modalities for modality in table.modalities], (len(table), 1)))


def masked(table: FeatureTable, gone: NDArray[np.bool_]) -> FeatureTable:
    """Return each decision as if nothing of its modalities in `gone` (n, n_modalities) had been measured.

    Numbers and categories are missing, counts are 0, what says that something was not measured is 1, pictures are gone; so
    is what other modalities derive from the columns taken away.
    """
    names = list(table.modalities)
    measured: dict[str, int] = {
        column: names.index(spec.modality)
        for spec in table.catalogue
        if spec.role == "value"
        for column in spec.columns
    }
    frame, decisions = table.frame.copy(), table.decisions
    for spec in table.catalogue:
        sources = {names.index(spec.modality)}
        if spec.role == "derived":
            sources |= {measured[column] for column in spec.columns if column in measured}
        rows = np.asarray(gone[:, sorted(sources)].any(axis=1), dtype=bool)
        if not rows.any():
            continue
        if spec.role == "picture":
            column = decisions[spec.columns[0]].astype(object)
            decisions = decisions.assign(**{spec.columns[0]: column.mask(rows, None)})
        frame[spec.name] = frame[spec.name].mask(rows, _when_absent(spec))
    return replace(table, frame=frame, decisions=decisions)


def _when_absent(spec: FeatureSpec) -> float:
    if spec.role == "indicator":
        return 1.0
    return 0.0 if _counts(spec) else np.nan


def _speaks(spec: FeatureSpec, measured: Collection[str]) -> bool:
    if spec.role == "derived":
        return not any(column in measured for column in spec.columns)
    return spec.role != "indicator"


def _counts(spec: FeatureSpec) -> bool:
    """Return whether a feature of events is 0, and not missing, where there are none."""
    return spec.role == "derived" and any(part in ("count", "exists") for part in spec.name.split(".")[2:])
