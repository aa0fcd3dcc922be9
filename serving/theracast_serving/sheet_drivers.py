"""What speaks for and against on the sheet: features with their values, and kinds of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from theracast_features.specs import FeatureSpec
from theracast_models.prediction import Prediction
from theracast_models.response_model import ResponseModel
from theracast_serving import sheet_svg as svg
from theracast_serving.answer_text import Told, strongest
from theracast_serving.clinical_text import hundredth, number_text, unit_text
from theracast_serving.describe import feature_range, level_share
from theracast_serving.sheet_rows import Driver, Group


def drivers_of(
    model: ResponseModel, prediction: Prediction, told: Told, *, most: int
) -> tuple[list[Driver], Driver | None]:
    """Return the strongest contributions to an answer, strongest first, and the sum of all others."""
    phi = told.answer.contributions.iloc[told.row].to_numpy(dtype=np.float64)
    shown = strongest(phi, most)
    others = [place for place in range(len(phi)) if place not in shown]
    rest = float(phi[others].sum()) if others else 0.0
    largest = max([abs(float(phi[place])) for place in shown] + [abs(rest), 1e-9])
    drivers = [_driver(model, prediction, told, place, largest=largest) for place in shown]
    spoken = sum(1 for place in others if phi[place] != 0)
    if not spoken:
        return drivers, None
    points = told.effect_text(rest)
    return drivers, Driver(
        label=f"{spoken} further {'entry' if spoken == 1 else 'entries'} together",
        group="",
        value="",
        unit="",
        measured=True,
        strip=Markup(),
        bar=svg.diverging_bar(rest, largest, label=_spoken(told, points)),
        points=points,
        direction=side_of(rest),
    )


def groups_of(told: Told) -> list[Group]:
    """Return what each kind of data contributes to an answer."""
    phi = told.answer.modalities.iloc[told.row]
    largest = max([abs(float(value)) for value in phi] + [1e-9])
    groups = []
    for name, value in phi.items():
        points = told.effect_text(float(value))
        groups.append(
            Group(
                label=modality_label(str(name)),
                bar=svg.diverging_bar(float(value), largest, label=_spoken(told, points), width=96),
                points=points,
                direction=side_of(float(value)),
            )
        )
    return groups


def side_of(phi: float) -> str:
    """Return to which side a contribution speaks: `for`, `against` or `none`."""
    return "for" if phi > 0 else "against" if phi < 0 else "none"


def modality_label(modality: str) -> str:
    """Return a kind of data as a doctor reads it."""
    return {"patient_reported": "Patient-reported", "lab": "Laboratory"}.get(modality, modality.capitalize())


def value_text(model: ResponseModel, spec: FeatureSpec, cell: Any) -> str:
    """Return a feature's value as a doctor reads it, without its unit; `not measured` where there is none."""
    if pd.isna(cell):
        return "not measured"
    if spec.kind == "categorical":
        return str(cell)
    value = float(cell)
    if spec.kind == "boolean" or spec.role == "indicator":
        return "yes" if value else "no"
    return _cap_sign(model, spec, value) + number_text(value)


def _driver(model: ResponseModel, prediction: Prediction, told: Told, place: int, *, largest: float) -> Driver:
    spec = prediction.features.catalogue[place]
    phi = float(told.answer.contributions.to_numpy(dtype=np.float64)[told.row, place])
    cell = prediction.features.frame[spec.name].iloc[told.row]
    measured = not pd.isna(cell)
    points = told.effect_text(phi)
    return Driver(
        label=spec.label,
        group=modality_label(spec.modality),
        value=value_text(model, spec, cell),
        unit=unit_text(spec.unit) if measured else "",
        measured=measured,
        strip=_strip(model, spec, cell if measured else None),
        bar=svg.diverging_bar(phi, largest, label=_spoken(told, points)),
        points=points,
        direction=side_of(phi),
    )


def _spoken(told: Told, points: str) -> str:
    return f"{points} {told.unit}".strip() if told.is_number else f"{points} points"


def _cap_sign(model: ResponseModel, spec: FeatureSpec, value: float) -> str:
    """Return `≥` where the value stands at the study's cap, so that the measured one may lie beyond it."""
    meaning = model.inputs.meanings.get(spec.columns[0]) if spec.role == "value" and spec.columns else None
    lower, upper = getattr(meaning, "cap_range", (None, None))
    if upper is not None and value >= upper:
        return "≥ "
    return "≤ " if lower is not None and value <= lower else ""


def _strip(model: ResponseModel, spec: FeatureSpec, cell: Any) -> Markup:
    """Return where the patient stands in the development cohort."""
    if spec.kind == "numeric" and spec.role != "indicator":
        quantiles = feature_range(model, spec.name)
        if quantiles is None:
            return Markup()
        low, _, high = quantiles
        texts = (number_text(low), number_text(high))
        value = None if cell is None else float(cell)
        return svg.range_strip(value, quantiles, texts, label=f"development cohort: {texts[0]} to {texts[1]}")
    share = None if cell is None else level_share(model, spec, cell)
    if share is None:
        return Markup()
    text = f"{hundredth(share)} %"
    return svg.share_strip(share, f"in {text}", label=f"the same in {text} of the development cohort")
