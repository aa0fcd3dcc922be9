"""The pictures of regions: one feature that says where there is one, and the pictures themselves beside the decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.errors import ImageError
from theracast_features.events.texts import last_texts
from theracast_features.imaging.patch import decode_patch
from theracast_features.imaging.section import PATCH, ImageFeatures, measure_code
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable, feature_name


def picture_spec(name: str, section: ImageFeatures) -> FeatureSpec:
    """Return the feature to which the share of a picture belongs; its value says only that there is one."""
    return FeatureSpec(
        name=feature_name("imaging", name, PATCH),
        modality="imaging",
        kind="boolean",
        label=f"{section.label or name}, picture of the region",
        columns=(picture_column(name),),
        role="picture",
    )


def picture_column(name: str) -> str:
    """Return the column of the decisions that holds the pictures of a kind of image."""
    return f"{PATCH}.{name}"


def picture_specs(catalogue: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """Return the features of a catalogue that stand for pictures."""
    return [spec for spec in catalogue if spec.role == "picture"]


def with_pictures(table: FeatureTable, cohort: Cohort, section: FeatureSection) -> FeatureTable:
    """Return the table whose decisions hold, as text, the picture of the last scan that each may see; None without.

    Raises:
        ImageError: a text is no picture of the study's size; a request may bring any.
    """
    columns = {}
    for name, images in section.images.items():
        if images.patch is None:
            continue
        texts = last_texts(cohort, measure_code(name, images.measures, PATCH))
        for subject, text in zip(cohort.decisions["subject_id"], texts, strict=True):
            if text is not None:
                _check(text, images.patch.voxels, where=f"features.images.{name}: patient {subject}")
        columns[picture_column(name)] = pd.array(texts.tolist(), dtype="str")
    return replace(table, decisions=table.decisions.assign(**columns)) if columns else table


def _check(text: str, voxels: int, *, where: str) -> None:
    try:
        found = decode_patch(text).shape[-1]
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error
    if found != voxels:
        raise ImageError(
            f"{where}: the picture has {found} voxels along an edge, the study asks for {voxels}. Extract it anew."
        )
