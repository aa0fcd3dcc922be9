"""The first thing on the sheet: the leading answer of the primary endpoint, in words and as a drawing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from theracast_data.endpoints import level_names
from theracast_models.links import HazardLink, OrdinalLink, level_probabilities
from theracast_serving import sheet_svg as svg
from theracast_serving.answer_text import Told, share_text
from theracast_serving.clinical_text import (
    hundredth,
    of_hundred,
    percent_text,
    range_of_hundred,
)
from theracast_serving.describe import Development
from theracast_serving.sheet_curves import Curve, level_bar, level_shade, number_scale, survival_panel

SCALE_WIDTH = 480
BESIDE_A_CURVE = 400
UNSTATED = "The response rate of the development cohort is not stored with this model"


@dataclass(frozen=True)
class Headline:
    """The sentence with the leading answer, what it is to be compared with, and its drawings.

    Attributes:
        opening, strong, closing, range: the sentence in its parts; `strong` is what stands large.
        compare: sentences below it.
        picture, picture_width: what stands at its left, 0 where there is nothing.
        scale: the answer with its interval on its scale.
        patient: how the answer is called in the legend.
        average: whether the scale shows the development cohort.
        levels: a bar of all levels; empty for other kinds.
        level_texts: (colour, name with its share) of each level.
        legend: whether the picture needs a legend of its two lines.
    """

    opening: str
    strong: str
    closing: str
    range: str
    compare: list[str]
    picture: Markup
    picture_width: int
    scale: Markup
    patient: str
    average: bool
    levels: Markup = field(default_factory=Markup)
    level_texts: list[tuple[str, str]] = field(default_factory=list)
    legend: bool = False


def headline(told: Told, base: Development | None) -> Headline:
    """Return the leading answer of the primary endpoint."""
    if told.is_number:
        return _number(told, base)
    if told.answer.kind == "time_to_event":
        return _time(told, base)
    return _ordinal(told, base) if told.answer.kind == "ordinal" else _chance(told, base)


def _chance(told: Told, base: Development | None, *, width: int = SCALE_WIDTH) -> Headline:
    low, high = told.interval
    count = of_hundred(told.estimate)
    about = "about " if count.isdigit() else ""
    return Headline(
        opening=f"Of 100 patients like this one, {about}",
        strong=count,
        closing=told.verb(),
        range=f"({range_of_hundred(low, high)}).",
        compare=[f"For comparison: {base.text}." if base is not None else f"{UNSTATED}."],
        picture=svg.icon_array(hundredth(told.estimate), label=f"{count} of 100 dots are filled"),
        picture_width=150,
        scale=svg.probability_scale(
            told.estimate,
            low,
            high,
            None if base is None else base.rate,
            label=f"{count} of 100, 95 % interval {range_of_hundred(low, high)}",
            width=width,
        ),
        patient=percent_text(told.estimate),
        average=base is not None,
    )


def _others(told: Told, *, closing: str) -> str:
    """Return the answers beside the leading one as one sentence."""
    parts = [
        f"{closing.format(told.answer.asked[place].name)} {told.said(place)} ({told.said_range(place)})"
        for place in range(1, len(told.answer.asked))
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _time(told: Told, base: Development | None) -> Headline:
    plain = _chance(told, base, width=BESIDE_A_CURVE)
    others = _others(told, closing="within {}")
    shown = f"with {told.event}" if told.competes else told.spared
    return Headline(
        **{
            name: value
            for name, value in vars(plain).items()
            if name not in ("compare", "picture", "picture_width", "legend")
        },
        compare=[text for text in (*plain.compare, others, told.forestalled() or "") if text],
        picture=survival_panel(
            patient_curve(told),
            label=f"Share {shown} over time: this patient and the average one",
            heading=f"{shown}, of 100",
        ),
        picture_width=236,
        legend=True,
    )


def patient_curve(told: Told) -> Curve:
    """Return the patient's share without the event over the days that are told, and that of the average patient.

    Where another event may come first it is the share with the event, for who is without it may have had the other one.
    """
    link = told.head.calibrated.calibration
    assert isinstance(link, HazardLink)
    grid = np.array(link.grid)
    last = min(float(grid[-1]), 1.3 * max(link.horizons))
    days = np.append(grid[grid < last], last)
    both, answer, row = told.chances_by(days), told.answer, told.row
    parts = [part[row] for part in (answer.estimates, answer.low, answer.high)]
    if not told.competes:
        both, parts = 1.0 - both, [1.0 - part for part in (parts[0], parts[2], parts[1])]
    marks = [
        (horizon, float(share), float(low), float(high))
        for horizon, share, low, high in zip(link.horizons, *parts, strict=True)
    ]
    return Curve(days.tolist(), both[0].tolist(), both[1].tolist(), marks)


def _ordinal(told: Told, base: Development | None) -> Headline:
    plain = _chance(told, base)
    names, shares = level_shares(told)
    texts = [
        (level_shade(place, len(names)), f"{name} {share_text(share)}")
        for place, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
    others = _others(told, closing="{}:")
    return Headline(
        **{name: value for name, value in vars(plain).items() if name not in ("compare", "levels", "level_texts")},
        compare=[text for text in (*plain.compare, others) if text],
        levels=level_bar(names, shares, label="; ".join(text for _, text in texts)),
        level_texts=texts,
    )


def level_shares(told: Told) -> tuple[list[str], list[float]]:
    """Return the levels, worst first, with the chance of each."""
    names = list(level_names(told.head.endpoint))
    link = told.head.calibrated.calibration
    assert isinstance(link, OrdinalLink)
    return names, level_probabilities(told.answer.estimates[[told.row]], main=link.main)[0].tolist()


def _number(told: Told, base: Development | None) -> Headline:
    low, high = told.interval
    single = told.single_patients()
    average = None if base is None else base.rate
    spread = getattr(told.head.calibrated.calibration, "spread", 0.0)
    shown = [low, high, told.estimate - spread, told.estimate + spread] + ([] if average is None else [average])
    pad = 0.15 * (max(shown) - min(shown)) or 1.0
    return Headline(
        opening="For patients like this one the model expects ",
        strong=told.number(told.estimate),
        closing=told.unit,
        range=f"({told.said_range()}).",
        compare=[text for text in (f"For comparison: {base.text}." if base is not None else "", single or "") if text],
        picture=Markup(),
        picture_width=0,
        scale=number_scale(
            told.estimate,
            low,
            high,
            average,
            (min(shown) - pad, max(shown) + pad),
            label=f"{told.said()}, 95 % interval {told.said_range()}",
            width=680,
        ),
        patient=told.said(),
        average=average is not None,
    )
