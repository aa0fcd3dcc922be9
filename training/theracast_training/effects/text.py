"""A comparison of treatments in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_training import wording

LEARNERS = {"dr": "DR learner", "x": "X learner", "t": "T learner"}


def amount(value: float | None, scale: str, *, signed: bool = False) -> str:
    """Return a value of the outcome with its unit: per cent, days, or a plain number."""
    if value is None:
        return "–"
    if scale in {"risk", "survival"}:
        unit = " points" if signed else " %"
        return wording.number(100 * value, digits=1, signed=signed) + unit
    digits = 0 if abs(value) >= 20 else 1 if abs(value) >= 2 else 2
    unit = " days" if scale == "restricted_mean" else ""
    return wording.number(value, digits=digits, signed=signed) + unit


def interval(estimate: Mapping[str, Any], scale: str, *, signed: bool = True, bare: bool = False) -> str:
    """Return `estimate (low to high)` of an estimate with `value`, `low` and `high`; `bare` leaves the unit out."""
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return wording.NOT_ESTIMABLE
    if scale in {"risk", "survival"}:
        digits, factor, unit = 1, 100.0, " points" if signed else " %"
    else:
        largest = max(abs(value), abs(low), abs(high))
        digits, factor = 0 if largest >= 20 else 1 if largest >= 2 else 2, 1.0
        unit = " days" if scale == "restricted_mean" else ""
    unit = "" if bare else unit
    told = [wording.number(factor * one, digits=digits, signed=signed) for one in (value, low, high)]
    return f"{told[0]}{unit} ({told[1]} to {told[2]})"


def ratio(hazard: Mapping[str, Any] | None) -> str:
    """Return `0.73 (0.62 to 0.86)` of a hazard ratio."""
    return "–" if hazard is None else wording.interval(hazard, "hazard_ratio")


def unit_of(scale: str) -> str:
    """Return the unit of a difference, for a caption."""
    return {"risk": "percentage points", "survival": "percentage points", "restricted_mean": "days"}.get(scale, "")


def measure(content: Mapping[str, Any]) -> str:
    """Return what is compared, e.g. `mean time free of the event up to 730 days`."""
    return {
        "risk": "share with the outcome",
        "mean": "mean",
        "restricted_mean": f"mean time free of the event up to {content['horizon_days'] or 0:g} days",
        "survival": f"share free of the event at {content['horizon_days'] or 0:g} days",
    }[content["scale"]]


def plain_arm(name: str) -> str:
    """Return an arm as it is printed."""
    return name.replace("_", " ")


def comparison_text(content: Mapping[str, Any]) -> str:
    """Return the comparison as the terminal shows it."""
    lines = [f"{content['study']}: {content['label']}, {measure(content)}", ""]
    for arm in content["arms"]:
        told = {"value": arm["value"], "low": arm["value_low"], "high": arm["value_high"]}
        events = "" if arm["events"] is None else f", {arm['events']} events"
        lines.append(
            f"  {plain_arm(arm['arm'])}: {interval(told, content['scale'], signed=False)}, {arm['n']} patients{events}"
        )
    lines += [f"  {count} patients: {reason}" for reason, count in content["left_out"].items()]
    lines += _effect_lines(content) if content["kind"] == "effects" else _prognosis_lines(content)
    lines += ["", *(f"Note: {wording.sentence(note)}" for note in content["notes"])]
    return "\n".join(lines)


def _effect_lines(content: Mapping[str, Any]) -> list[str]:
    lines = [""]
    if content["justification"]:
        lines += ["Not randomised. Called effects because, the study says:", f"  {content['justification']}", ""]
    scale = content["scale"]
    for one in content["comparisons"]:
        lines.append(f"{plain_arm(one['arm'])} against {plain_arm(one['control'])}")
        lines.append(f"  average effect, unadjusted   {interval(one['unadjusted'], scale)}")
        lines.append(f"  average effect, adjusted     {interval(one['adjusted'], scale)}")
        if one["hazard"]:
            lines.append(f"  hazard ratio                 {ratio(one['hazard']['unstratified'])}")
        if one["hazard"] and one["hazard"]["stratified"]:
            strata = wording.listed(one["hazard"]["strata"])
            lines.append(f"  hazard ratio, stratified     {ratio(one['hazard']['stratified'])} by {strata}")
        for sub in one["subgroups"]:
            told = ratio(sub["hazard"]) if sub["hazard"] else interval(sub["difference"] or {}, scale)
            lines.append(f"    {sub['name']}: {told}, {sub['n_treated'] + sub['n_control']} patients")
        judged = one["overlap"]
        lines.append(
            f"  arms told apart before treatment by AUC {judged['auc']:.2f} ({judged['auc_low']:.2f} to {judged['auc_high']:.2f})"
        )
        lines.append(f"  {one['verdict']}")
        for name, found in one["learners"].items():
            gain = found["policy"]
            lines.append(
                f"    {LEARNERS[name]}: AUTOC {interval(found['autoc'], scale)}, Qini {interval(found['qini'], scale)}; "
                f"treating the {gain['share_treated']:.0%} with a predicted benefit gains {interval(gain['against_all'], scale)} "
                f"over treating all, {interval(gain['against_none'], scale)} over none"
            )
        lines.append("")
    return lines[:-1]


def _prognosis_lines(content: Mapping[str, Any]) -> list[str]:
    scale = content["scale"]
    lines = ["", "PROGNOSIS UNDER EACH TREATMENT, NOT AN EFFECT", content["warning"], ""]
    for one in content["prognoses"]:
        own, found = one["own_patients"], one["discrimination"]
        lines.append(
            f"  {plain_arm(one['arm'])}: median {amount(own['q50'], scale)} (middle half {amount(own['q25'], scale)} to "
            f"{amount(own['q75'], scale)}) in its own patients; {found['measure']} {wording.number(found['value'])}"
        )
    lines += [
        f"  overlap of {plain_arm(one['arm'])} and {plain_arm(one['control'])}: AUC {one['auc']:.2f}, {one['outside']:.0%} outside "
        f"{one['limits'][0]:g} to {one['limits'][1]:g}; weighted, {one['n_treated']} and {one['n_control']} patients count as "
        f"{one['effective_treated']:.0f} and {one['effective_control']:.0f}"
        for one in content["overlaps"]
    ]
    return lines
