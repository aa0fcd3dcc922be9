"""The figures of a study beyond those of a model: how much more patients would give, sites together, groups, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from theracast_training.figures import INK, INTERNAL, MUTED, PALETTE, forest, grid

LABELS = {
    "auc": "AUC",
    "c_index": "C-index",
    "brier": "Brier score",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept (log-odds)",
    "observed_expected": "Observed / expected",
}
REFERENCES = {
    "auc": 0.5,
    "c_index": 0.5,
    "calibration_slope": 1.0,
    "calibration_intercept": 0.0,
    "observed_expected": 1.0,
}


def draw_learning_curve(curve: Mapping[str, Any], ax: Axes, *, measure: str) -> Axes:
    """Draw performance in held-out patients over patients to learn from, and the fitted line to twice all patients.

    `curve` is an answer of `learning_curve`, `measure` a metric of it.
    """
    points = [point for point in curve["points"] if point[measure] is not None]
    for point in points:
        if point[f"{measure}_low"] is not None:
            bounds = [point[f"{measure}_low"], point[f"{measure}_high"]]
            ax.plot([point["patients"]] * 2, bounds, color=PALETTE[0], linewidth=1.1)
    ax.plot(
        [point["patients"] for point in points],
        [point[measure] for point in points],
        "o",
        color=PALETTE[0],
        markersize=4.5,
        zorder=3,
    )
    line = curve["fits"].get(measure)
    if line and line["limit"] is not None:
        sign = -1.0 if line["expected"][0]["gain"] <= line["expected"][-1]["gain"] else 1.0
        start, end = points[0]["patients"], line["expected"][-1]["patients"]
        for style, (low, high) in (
            ("solid", (start, points[-1]["patients"])),
            ((0, (3, 2)), (points[-1]["patients"], end)),
        ):
            size = np.linspace(low, high, 60)
            ax.plot(size, line["limit"] + sign * line["factor"] * size ** -line["exponent"], color=INK, linestyle=style)
        ax.axvline(curve["patients"], color="#b6c0ca", linewidth=0.9, zorder=1)
    ax.set(xlabel="Patients to learn from", ylabel=f"{LABELS.get(measure, measure)}, held-out patients")
    ax.set_xlim(left=0)
    return grid(ax)


def draw_sites(pooled: Mapping[str, Any], ax: Axes, *, measure: str) -> Axes:
    """Draw a metric of each site, their mean, and where that of a new site is expected (95 % prediction interval).

    `pooled` is one metric's part of an answer of `meta_analysis`.
    """
    rows = [{"label": one["site"], "colour": INTERNAL, "text": _written(one, "value")} | one for one in pooled["sites"]]
    if pooled["value"] is not None:
        rows.append(
            {
                "label": "All sites",
                "value": pooled["value"],
                "low": pooled["low"],
                "high": pooled["high"],
                "colour": PALETTE[0],
                "text": _written(pooled, "value"),
            }
        )
    if pooled["value"] is not None and pooled["prediction_low"] is not None:
        low, high = pooled["prediction_low"], pooled["prediction_high"]
        rows.append(
            {
                "label": "A new site",
                "value": pooled["value"],
                "low": low,
                "high": high,
                "colour": PALETTE[1],
                "text": f"({low:.2f} to {high:.2f})".replace("-", "−"),
                "hollow": True,
            }
        )
    forest(rows, ax, xlabel=LABELS.get(measure, measure), reference=REFERENCES.get(measure))
    if pooled["value"] is not None:
        ax.axvline(pooled["value"], color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
    return ax


def draw_periods(periods: Mapping[str, Any], ax: Axes, *, measure: str) -> Axes:
    """Draw a metric over the calendar, one point a period with its interval; `periods` is an answer of `by_period`."""
    shown = [one for one in periods["periods"] if one["performance"] and one["performance"].get(measure) is not None]
    for one in shown:
        middle, found = (one["start"] + one["end"]) / 2, one["performance"]
        ax.plot([one["start"], one["end"]], [found[measure]] * 2, color=PALETTE[0], linewidth=1.6)
        if found[f"{measure}_low"] is not None:
            ax.plot([middle] * 2, [found[f"{measure}_low"], found[f"{measure}_high"]], color=PALETTE[0], linewidth=1.1)
        ax.plot(middle, found[measure], "o", color=PALETTE[0], markersize=4.5)
    if measure in REFERENCES:
        ax.axhline(REFERENCES[measure], color="#b6c0ca", linewidth=0.9, zorder=1)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set(xlabel="Calendar year of the decision", ylabel=LABELS.get(measure, measure))
    return grid(ax)


def _written(record: Mapping[str, Any], name: str) -> str:
    if record[name] is None:
        return "not estimable"
    if record["low"] is None:
        return f"{record[name]:.2f}"
    return f"{record[name]:.2f} ({record['low']:.2f} to {record['high']:.2f})".replace("-", "−")
