"""How far to trust an answer: what the model says of it beside the chance, in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from theracast_models.sentences import listed
from theracast_serving.answer_text import Told, days_text, share_text
from theracast_serving.clinical_text import data_words, percent_text
from theracast_serving.sheet_curves import Curve, survival_panel

Record = Mapping[str, Any]
BOTH = 2
NO_RANGE = "No range can be given."


@dataclass(frozen=True)
class Trust:
    """One line of `how far to trust this answer`: what it is on, what it says, and whether it calls for care."""

    title: str
    text: str
    care: bool = False
    drawing: Markup = field(default_factory=Markup)


def trust_lines(told: Told, record: Record) -> list[Trust]:
    """Return what a row's record says of its answer; nothing for what it does not hold."""
    makers: dict[str, Callable[[Told, Record], Trust | None]] = {
        "prediction_set": _prediction_set,
        "similar": _similar,
        "validated": _validated,
        "rarely_seen": _rarely_seen,
    }
    lines = [make(told, record[name]) for name, make in makers.items() if record.get(name)]
    return [line for line in lines if line is not None]


def refusal(record: Record) -> str | None:
    """Return why the model does not answer, as a sentence; None where it does."""
    sentence = record.get("abstained")
    if not sentence:
        return None
    reason = str(sentence).removeprefix("No answer: ")
    return f"The model does not answer: {reason}" if reason != sentence else str(sentence)


def _prediction_set(told: Told, record: Record) -> Trust | None:
    """Say which outcomes, or between which ends the outcome, is to be expected with a stated assurance."""
    group, n = record.get("group"), record.get("n")
    basis = str(record.get("basis") or "")
    if basis.startswith("no threshold"):
        return None
    if n:
        basis = f"{n} development patients{f' of {group}' if group else ''}"
    who, pooled, _ = basis.partition(", since")
    learned = f" (set by {who}{', not for this site alone' if pooled else ''})" if who else ""
    true = f"Such a statement comes true in {round(100 * float(record.get('coverage', 0.9)))} of 100 patients{learned}."
    if "set" in record:
        text, care = _set_words(told, [str(one) for one in record["set"]])
    else:
        text, care = _ends(told, record.get("not_before_day", record.get("low")), record.get("high"))
    return Trust("To be expected", f"{text} {true}", care=care)


def _set_words(told: Told, levels: Sequence[str]) -> tuple[str, bool]:
    """Return what is in a set, and whether that calls for care."""
    if not levels:
        return "Nothing fits: this patient is unlike the development patients of every outcome.", True
    if told.answer.kind == "binary" and len(levels) == BOTH:
        return "Yes and no both remain possible: the data cannot tell.", True
    named = " or ".join(filter(None, [", ".join(levels[:-1]), levels[-1]]))
    return f"{named[:1].upper()}{named[1:]}.", False


def _ends(told: Told, low: float | None, high: float | None) -> tuple[str, bool]:
    """Return between which ends a number lies, or before when an event does not come."""
    if told.answer.kind == "time_to_event":
        return (
            (f"No {told.event.removeprefix('the ')} before {days_text(float(low))}.", False)
            if low
            else (NO_RANGE, True)
        )
    if low is None and high is None:
        return NO_RANGE, True
    if low is None or high is None:
        side, end = ("above", low) if high is None else ("below", high)
        return f"A number {side} {told.amount(float(end or 0.0))}.", False
    return f"Within {told.between(float(low), float(high))} {told.unit}".rstrip() + ".", False


def _rarely_seen(_: Told, record: Record) -> Trust | None:
    percentile = record.get("percentile")
    if not record.get("rare"):
        return None
    if record.get("sentence"):
        return Trust("Rarely seen", str(record["sentence"]), care=True)
    because = [data_words(str(one)) for one in record.get("because") or ()]
    reason = f" What makes it so: {listed(because, most=4)}." if because else ""
    than = "" if percentile is None else f": more unusual than {percent_text(float(percentile) / 100)} of them"
    return Trust("Rarely seen", f"Patients like this one were rarely seen in development{than}.{reason}", care=True)


def _similar(told: Told, record: Record) -> Trust | None:
    """Say what became of the development patients who are most like this one."""
    n, rate = record.get("n"), record.get("rate")
    if not n:
        return None
    like = f"the {n} most similar development patients"
    far = " Even these are unlike this patient." if record.get("far") else ""
    drawing, text = Markup(), None
    if record.get("levels"):
        text = f"Among {like}: {', '.join(f'{name} {share_text(share)}' for name, share in record['levels'].items())}."
    elif told.is_number:
        mean = record.get("mean", rate)
        text = None if mean is None else f"{told.amount(float(mean))} on average in {like}{_between(told, record)}."
    elif record.get("curve"):
        curve = _known_curve(record["curve"])
        if curve.days:
            text, drawing = _spared_text(told, curve, like), _small_curve(told, curve)
    elif rate is not None:
        events = record.get("events", round(float(rate) * int(n)))
        text = f"Of {like} {events} {told.past()} ({share_text(float(rate))}{_between(told, record)})."
    return None if text is None else Trust("Similar patients", text + far, care=bool(far), drawing=drawing)


def _between(told: Told, record: Record) -> str:
    low, high = record.get("low"), record.get("high")
    if low is None or high is None:
        return ""
    if told.is_number:
        return f" ({told.between(float(low), float(high))})"
    return f", {share_text(float(low)).removesuffix(' %')} to {share_text(float(high))}"


def _known_curve(record: Record) -> Curve:
    """Return the shares without the event as far as they are told, from all of them on day 0."""
    shares = record.get("event_free", record.get("survival")) or ()
    lows, highs = (record.get(name) or [None] * len(shares) for name in ("low", "high"))
    points = [
        point for point in zip(record.get("days") or (), shares, lows, highs, strict=True) if point[1] is not None
    ]
    days, patient = [float(point[0]) for point in points], [float(point[1]) for point in points]
    marks = [point for point in points if point[2] is not None and point[3] is not None]
    start = [] if not days or days[0] == 0 else [0.0]
    return Curve([*start, *days], [1.0 for _ in start] + patient, marks=marks)


def _spared_text(told: Told, curve: Curve, like: str) -> str:
    """Return how many of them had no event by the leading horizon, or by the last day that is told before it."""
    asked = told.answer.asked[0].horizon or curve.days[-1]
    day = min(asked, curve.days[-1])
    share = float(np.interp(day, curve.days, curve.patient))
    mark = next((one for one in curve.marks if abs(one[0] - day) < 1), None)
    between = "" if mark is None else f" ({share_text(mark[2]).removesuffix(' %')} to {share_text(mark[3])})"
    return f"Of {like} {share_text(share)} were {told.spared} at {days_text(day)}{between}."


def _small_curve(told: Told, curve: Curve) -> Markup:
    label = f"Share {told.spared} among similar patients"
    return survival_panel(Curve(curve.days, curve.patient), label=label, width=170, height=62, small=True)


def _validated(_: Told, record: Record) -> Trust:
    auc, pattern, absent = record.get("auc"), record.get("pattern") or (), record.get("absent") or ()
    care = auc is None or record.get("exact") is False
    if record.get("sentence"):
        return Trust("These data", str(record["sentence"]), care=care)
    have = listed([data_words(str(one)) for one in pattern]) or "nothing known"
    without = f", without {listed([data_words(str(one)) for one in absent])}" if absent else ""
    if auc is None:
        return Trust("These data", f"How well the model does with {have}{without} was not tested.", care=True)
    low, high = record.get("auc_low"), record.get("auc_high")
    between = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    tested = "" if record.get("n") is None else f" in {record['n']} patients"
    beside = "" if record.get("exact", True) else " The nearest data that were tested, not the very same."
    return Trust("These data", f"Tested with {have}{without}: AUC {auc:.2f}{between}{tested}.{beside}", care=care)
