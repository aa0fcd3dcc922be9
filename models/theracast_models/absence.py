"""What a late fusion does about modalities that are absent: learn from those who have them, and say what it does without."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_features.specs import FeatureTable
from theracast_models.logodds import Floats, Gaps
from theracast_models.preprocess import CategoryColumn, LinearInputs, NumericColumn
from theracast_models.presence import present_modalities


def learn_where_present(table: FeatureTable, *, weight: Floats) -> LinearInputs:
    """Return the step to the design matrix, each modality's part learned from the decisions that have the modality."""
    there = present_modalities(table)
    columns: dict[str, NumericColumn | CategoryColumn] = {}
    for place, modality in enumerate(table.modalities):
        own = table.of_modality(modality)
        mass = weight * there[:, place]
        learned = LinearInputs.learn(own, weight=mass if mass.any() else weight)
        columns |= {spec.name: column for spec, column in zip(own.catalogue, learned.columns, strict=True)}
    return LinearInputs(tuple(columns[spec.name] for spec in table.catalogue))


def offset_shares(
    phi: Floats, there: NDArray[np.bool_], feature_modality: NDArray[np.intp], *, weight: Floats
) -> Floats:
    """Return (p,) how the features of each modality share what it adds by being there: as the variances of their phi.

    They sum to 1 over a modality. A feature that never speaks has no share, unless none of the modality speaks.

    Args:
        phi: (n, p) of the training decisions.
        there: (n, n_modalities).
        feature_modality: (p,) positions among the modalities.
    """
    shares = np.zeros(phi.shape[1])
    for place in range(there.shape[1]):
        own = np.flatnonzero(feature_modality == place)
        mass = weight * there[:, place]
        spread = np.zeros(len(own))
        if mass.any():
            centre = np.average(phi[:, own], axis=0, weights=mass)
            spread = np.average((phi[:, own] - centre) ** 2, axis=0, weights=mass)
        total = spread.sum()
        shares[own] = spread / total if total > 0 else 1.0 / max(1, len(own))
    return shares


def told_gaps(gaps: Sequence[Gaps], table: FeatureTable, *, heard: Collection[str]) -> list[Gaps]:
    """Return the gaps, where nothing is filled in for a modality that is absent: the answer does without it.

    Args:
        gaps: of the models of the modalities.
        heard: the modalities that count where they are there; of the others nothing is told.
    """
    names = table.modalities
    of = {
        name: [spec.name for spec in table.catalogue if spec.modality == name and spec.role != "indicator"]
        for name in names
    }
    told = []
    for gap, here in zip(gaps, present_modalities(table).tolist(), strict=True):
        absent = [name for name, there in zip(names, here, strict=True) if not there]
        own = {name for modality in absent for name in of[modality]}
        filled = tuple(name for name in gap.filled if name not in own)
        without = [name for modality in absent if modality in heard for name in of[modality]]
        told.append(gap._replace(filled=filled, unpictured=tuple(dict.fromkeys([*gap.unpictured, *without]))))
    return told
