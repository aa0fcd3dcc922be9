"""Figures of a time to event, in the style of `figures`: they draw answers of `survival_curves`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from theracast_training import figures
from theracast_training.figures import DASHES, GRID, INK, PALETTE

Floats = NDArray[np.float64]

RISK_COLOURS = {
    1: (PALETTE[0],),
    2: (PALETTE[0], PALETTE[1]),
    3: (PALETTE[0], PALETTE[4], PALETTE[1]),
    4: (PALETTE[0], PALETTE[5], PALETTE[4], PALETTE[1]),
}
"""From the lowest risk (blue) to the highest (vermilion)."""
IDEAL = "#b6c0ca"


def risk_group_curves(curves: Mapping[str, Any], ax: Axes, *, table: Axes | None = None, event: str = "event") -> Axes:
    """Draw survival (with competing events: cumulative incidence) by risk group with bands; numbers at risk on `table`.

    `curves` is an answer of `survival_curves`; `event` names the event on the axis.
    """
    axis, incidence = curves["axis"], curves["kind"] == "incidence"
    for curve, colour, dash in _groups(curves):
        time = _days(curve["time"], axis)
        value, low, high = (_values(curve[name]) for name in ("value", "low", "high"))
        ax.fill_between(time, low, high, step="post", color=colour, alpha=0.13, linewidth=0)
        ax.step(time, value, where="post", color=colour, linestyle=dash, label=f"{curve['name']} risk (n={curve['n']})")
    ax.set(ylim=(-0.01, 1.01), ylabel=f"Cumulative incidence of {event}" if incidence else f"Free of {event}")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.legend(loc="upper left" if incidence else "best", handlelength=2.2, borderaxespad=0.2, labelspacing=0.35)
    _time_axis(ax, axis, label=table is None)
    if table is not None:
        ax.tick_params(labelbottom=False)
        at_risk_table(curves, table)
    return _grid(ax)


def at_risk_table(curves: Mapping[str, Any], ax: Axes) -> Axes:
    """Write how many of each risk group are at risk at each tick, under the same time axis."""
    axis, found = curves["axis"], curves["at_risk"]
    count = len(found["counts"])
    places = -np.arange(count, dtype=float)
    for place, counts, (_, colour, _dash) in zip(places, found["counts"], _groups(curves), strict=True):
        for day, number in zip(_days(found["time"], axis), counts, strict=True):
            ax.text(day, place, str(number), ha="center", va="center", fontsize=8, color=colour)
    ax.set_yticks(places, [f"{curve['name']}" for curve in curves["risk_groups"]])
    for label, (_, colour, _dash) in zip(ax.get_yticklabels(), _groups(curves), strict=True):
        label.set_color(colour)
    ax.set(ylim=(-count + 0.4, 0.6), title="Number at risk")
    ax.title.set_fontsize(8.5)
    ax.tick_params(axis="y", length=0, pad=12)
    ax.spines["left"].set_visible(False)
    _time_axis(ax, axis, label=True)
    return ax


def calibration_at_horizon(
    curve: Mapping[str, Any], ax: Axes, *, colour: str, title: str, limit: float = 1.0, counts: Axes | None = None
) -> Axes:
    """Draw observed against predicted probability by one horizon: groups with intervals, smooth line with band.

    `curve` is one of `calibration` of `survival_curves`. The counts show who had the event by the horizon upward, all
    others, whose state may not be known, downward.
    """
    groups = [
        {"mean_probability": one["predicted"], "observed": one["observed"]}
        | {name: one["observed"] if one[name] is None else one[name] for name in ("low", "high")}
        for one in curve["groups"]
        if one["observed"] is not None
    ]
    adapted = {"calibration": {"groups": groups, "smooth": curve["smooth"]}, "histogram": curve["histogram"]}
    return figures.calibration(adapted, ax, colour=colour, title=title, limit=limit, counts=counts)


def auc_over_time(curves: Mapping[str, Any], ax: Axes, *, colour: str) -> Axes:
    """Draw the cumulative/dynamic AUC by each day with its band; 0.5 is chance."""
    axis, found = curves["axis"], curves["auc"]
    ax.axhline(0.5, color=IDEAL, linewidth=0.9, zorder=1)
    lowest = 0.5
    if found:
        time = _days(found["time"], axis)
        if found["low"]:
            low, high = _values(found["low"]), _values(found["high"])
            ax.fill_between(time, low, high, color=colour, alpha=0.15, linewidth=0)
            lowest = min(lowest, float(np.nanmin(low)))
        ax.plot(time, _values(found["auc"]), color=colour)
        lowest = min(lowest, float(np.nanmin(_values(found["auc"]))))
        ax.set_xlim(0, 1.02 * time[-1])
    ax.set(ylim=(lowest - 0.03, 1.0), xlabel=axis["unit"], ylabel="AUC of events by this time")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    return _grid(ax)


def observed_and_predicted_incidence(curves: Mapping[str, Any], ax: Axes, *, colour: str) -> Axes:
    """Draw the observed cumulative incidence (Aalen-Johansen, with band) and the mean predicted one."""
    axis, found = curves["axis"], curves["incidence"]
    observed, predicted = found["observed"], found["predicted"]
    time = _days(observed["time"], axis)
    low, high = _values(observed["low"]), _values(observed["high"])
    ax.fill_between(time, low, high, step="post", color=INK, alpha=0.13, linewidth=0)
    ax.step(time, _values(observed["value"]), where="post", color=INK, label="observed")
    top = float(np.nanmax(np.r_[high, _values(observed["value"])]))
    if predicted:
        value = _values(predicted["value"])
        ax.plot(_days(predicted["time"], axis), value, color=colour, linestyle=DASHES[1], label="mean predicted")
        top = max(top, float(value.max()))
    ax.set(xlim=(0, 1.02 * time[-1]), ylim=(0, min(1.01, 1.08 * top + 0.01)))
    ax.set(xlabel=axis["unit"], ylabel="Cumulative incidence")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.legend(loc="upper left", handlelength=2.2, borderaxespad=0.2, labelspacing=0.35)
    return _grid(ax)


def _groups(curves: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str, Any]]:
    """Return each risk group with its colour and line style."""
    found = curves["risk_groups"]
    colours = RISK_COLOURS.get(len(found)) or tuple(PALETTE[one % len(PALETTE)] for one in range(len(found)))
    return [(one, colours[place], DASHES[place % len(DASHES)]) for place, one in enumerate(found)]


def _days(days: Sequence[float], axis: Mapping[str, Any]) -> Floats:
    return np.asarray(days, dtype=np.float64) / float(axis["days_per_unit"])


def _values(values: Sequence[float | None]) -> Floats:
    return np.asarray([np.nan if one is None else one for one in values], dtype=np.float64)


def _time_axis(ax: Axes, axis: Mapping[str, Any], *, label: bool) -> None:
    end = axis["end"] / axis["days_per_unit"]
    ax.set_xticks(_days(axis["ticks"], axis))
    ax.set_xlim(-0.02 * end, 1.02 * end)
    if label:
        ax.set_xlabel(axis["unit"])


def _grid(ax: Axes) -> Axes:
    ax.grid(True, color=GRID, linewidth=0.7)
    return ax
