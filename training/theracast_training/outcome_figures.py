"""Figures of ordered and continuous outcomes, in the style of `figures`: they draw what an evaluation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from theracast_training.figures import DASHES, GRID, INK, PALETTE

Floats = NDArray[np.float64]

IDEAL = "#b6c0ca"


def confusion(evaluation: Mapping[str, Any], ax: Axes, *, labels: Sequence[str]) -> Axes:
    """Write the counts of observed against most probable levels, shaded by the share of the observed level's row.

    `evaluation` is an answer of `evaluate_ordinal`; `labels` name the levels.
    """
    counts = np.asarray(evaluation["confusion"], dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    for row, column in np.ndindex(counts.shape):
        shade = share[row, column]
        tile = {"facecolor": PALETTE[0], "alpha": 0.85 * shade, "linewidth": 0}
        ax.fill(
            [column - 0.5, column + 0.5, column + 0.5, column - 0.5],
            [row - 0.5, row - 0.5, row + 0.5, row + 0.5],
            **tile,
        )
        tone = "white" if shade > 0.6 else INK
        ax.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=tone)
    places = np.arange(len(counts))
    ax.set_xticks(places, list(labels))
    ax.set_yticks(places, list(labels))
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5), aspect="equal")
    ax.set(xlabel="Most probable level", ylabel="Observed level")
    return ax


def level_calibration(evaluation: Mapping[str, Any], ax: Axes, *, labels: Sequence[str], colour: str) -> Axes:
    """Draw how often each level was observed, with interval, beside how often it was expected."""
    for row in evaluation["levels"]:
        place = row["level"]
        ax.bar(place, row["observed"] or 0.0, width=0.62, color="#c9d2da", linewidth=0)
        if row["low"] is not None:
            ax.plot([place, place], [row["low"], row["high"]], color=INK, linewidth=0.9)
        if row["predicted"] is not None:
            ax.plot(place, row["predicted"], "D", color=colour, markersize=5.5, zorder=4)
    ax.plot([], [], "D", color=colour, markersize=5.5, linestyle="none", label="expected")
    ax.bar([0], [0], width=0, color="#c9d2da", label="observed")
    ax.legend(loc="best", borderaxespad=0.2)
    ax.set_xticks(range(len(labels)), list(labels))
    ax.set_ylabel("Share of decisions")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return _grid(ax, axis="y")


def observed_against_estimate(
    y: Floats, estimate: Floats, evaluation: Mapping[str, Any], ax: Axes, *, colour: str, unit: str
) -> Axes:
    """Draw each decision, the groups' means with intervals and the calibration line over the line of identity.

    `evaluation` is an answer of `evaluate_continuous` on the same decisions.
    """
    known = ~np.isnan(y) & ~np.isnan(estimate)
    both = np.r_[y[known], estimate[known]] if known.any() else np.array([0.0, 1.0])
    margin = 0.04 * (float(np.ptp(both)) or 1.0)
    ends = np.array([both.min() - margin, both.max() + margin])
    ax.plot(ends, ends, color=IDEAL, linewidth=0.9, zorder=1)
    ax.scatter(estimate[known], y[known], s=7, color=colour, alpha=0.35, linewidth=0, rasterized=True)
    if evaluation["calibration_slope"] is not None:
        reach = np.array([estimate[known].min(), estimate[known].max()])
        line = evaluation["calibration_intercept"] + evaluation["calibration_slope"] * reach
        ax.plot(reach, line, color=colour, linestyle=DASHES[1])
    for one in evaluation["groups"]:
        if one["low"] is not None:
            ax.plot([one["predicted"]] * 2, [one["low"], one["high"]], color=INK, linewidth=0.9, zorder=3)
        ax.plot(one["predicted"], one["observed"], "o", color=INK, markersize=3.8, zorder=4)
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"Estimate ({unit})", ylabel=f"Observed ({unit})")
    return _grid(ax)


def group_means(evaluation: Mapping[str, Any], ax: Axes, *, colour: str, unit: str) -> Axes:
    """Draw the means of groups of rising estimate with intervals, and the calibration line, over the line of identity.

    `evaluation` is an answer of `evaluate_continuous`: its groups hold ten decisions or more, so that none is shown alone.
    """
    groups = evaluation["groups"]
    reach = [one["predicted"] for one in groups]
    bounds = [one[end] for one in groups for end in ("low", "high", "observed") if one[end] is not None]
    margin = 0.06 * ((max(reach + bounds) - min(reach + bounds)) or 1.0)
    ends = np.array([min(reach + bounds) - margin, max(reach + bounds) + margin])
    ax.plot(ends, ends, color=IDEAL, linewidth=0.9, zorder=1)
    if evaluation["calibration_slope"] is not None and len(groups) > 1:
        x = np.array([min(reach), max(reach)])
        line = evaluation["calibration_intercept"] + evaluation["calibration_slope"] * x
        ax.plot(x, line, color=colour, linestyle=DASHES[1])
    for one in groups:
        if one["low"] is not None:
            ax.plot([one["predicted"]] * 2, [one["low"], one["high"]], color=INK, linewidth=0.9, zorder=3)
        ax.plot(one["predicted"], one["observed"], "o", color=INK, markersize=3.8, zorder=4)
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"Estimate ({unit})", ylabel=f"Observed ({unit})")
    return _grid(ax)


def _grid(ax: Axes, *, axis: Literal["both", "y"] = "both") -> Axes:
    ax.grid(True, axis=axis, color=GRID, linewidth=0.7)
    return ax
