"""The figures of a study: functions that draw computed numbers on an Axes, and `svg`, which makes inline SVG."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
"""Okabe & Ito's colours, distinct for the colour-blind; yellow is left out because it is too pale for lines."""
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e7ec"
INTERNAL = "#4a5560"
RASTER_DPI = 200
VALUE_SCALE = LinearSegmentedColormap.from_list("low-high", ["#0072B2", "#b9c3cc", "#D55E00"])

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#9aa5b1",
    "ytick.color": "#9aa5b1",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "theracast",
}


def site_colours(sites: Sequence[str]) -> dict[str, str]:
    """Return one colour a site, the same wherever the same list is given; cross-validation (`cv`) is grey."""
    others = [site for site in sites if site != "cv"]
    return {"cv": INTERNAL} | {site: PALETTE[place % len(PALETTE)] for place, site in enumerate(others)}


def site_dashes(sites: Sequence[str]) -> dict[str, Any]:
    """Return one line style a site, so that lines are told apart without colour too."""
    others = [site for site in sites if site != "cv"]
    return {"cv": (0, (1, 1))} | {site: DASHES[place % len(DASHES)] for place, site in enumerate(others)}


def svg(draw: Callable[[Figure], object], *, width: float, height: float, title: str) -> str:
    """Return what `draw` puts on a figure of this size (inches) as inline SVG: no date, no outside reference.

    The same input gives the same text. Letters stay text and take the font of the page.
    """
    with mpl.rc_context(rc=STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, metadata=nothing)
    return _inline(buffer.getvalue(), title=title, width=width)


def roc(curves: Mapping[str, Mapping[str, Any]], ax: Axes, *, labels: Mapping[str, str], sites: Sequence[str]) -> Axes:
    """Draw the ROC curve of each site; `curves`: site to an answer of `curves()`, `labels`: site to legend text."""
    colours, dashes = site_colours(sites), site_dashes(sites)
    ax.plot([0, 1], [0, 1], color="#b6c0ca", linewidth=0.9, zorder=1)
    for site, curve in curves.items():
        if curve.get("roc"):
            points = curve["roc"]
            ax.plot(points["fpr"], points["tpr"], color=colours[site], linestyle=dashes[site], label=labels[site])
    ax.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    _legend(ax, loc="lower right")
    return grid(ax)


def precision_recall(
    curves: Mapping[str, Mapping[str, Any]], ax: Axes, *, labels: Mapping[str, str], sites: Sequence[str]
) -> Axes:
    """Draw precision against recall of each site, with its prevalence as a tick at the right edge."""
    colours, dashes = site_colours(sites), site_dashes(sites)
    for site, curve in curves.items():
        if curve.get("pr"):
            points = curve["pr"]
            recall, precision = [0.0, *points["recall"]], [points["precision"][0], *points["precision"]]
            style = {"color": colours[site], "linestyle": dashes[site], "label": labels[site]}
            ax.step(recall, precision, where="pre", **style)
            ax.plot([1.0, 1.03], [points["prevalence"]] * 2, color=colours[site], linewidth=2.2, clip_on=False)
    ax.set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    ax.set_aspect("equal")
    _legend(ax, loc="upper right")
    return grid(ax)


def calibration(
    curve: Mapping[str, Any], ax: Axes, *, colour: str, title: str, limit: float = 1.0, counts: Axes | None = None
) -> Axes:
    """Draw observed against predicted: groups with Wilson intervals, smooth line with band; the counts on `counts`.

    `curve` is an answer of `curves()`; `limit` ends both axes. Counts: events upward, non-events downward.
    """
    ax.plot([0, 1], [0, 1], color="#b6c0ca", linewidth=0.9, zorder=1)
    found = curve.get("calibration") or {"groups": [], "smooth": None}
    line = found["smooth"]
    if line:
        if line["low"]:
            ax.fill_between(line["p"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        ax.plot(line["p"], line["observed"], color=colour)
    for point in found["groups"]:
        x = point["mean_probability"]
        ax.plot([x, x], [point["low"], point["high"]], color=INK, linewidth=0.8, zorder=3)
        ax.plot(x, point["observed"], "o", color=INK, markersize=3.6, zorder=4)
    ax.set(xlim=(0, limit), ylim=(0, limit), ylabel="Observed", title=title)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if counts is not None:
        ax.tick_params(labelbottom=False)
        score_distribution(curve, counts, colour=colour, limit=limit)
    else:
        ax.set_xlabel("Predicted")
    return grid(ax)


def score_distribution(curve: Mapping[str, Any], ax: Axes, *, colour: str, limit: float = 1.0) -> Axes:
    """Draw how many decisions got which probability: events upward, non-events downward."""
    histogram = curve["histogram"]
    edges = np.asarray(histogram["edges"])
    ax.stairs(histogram["events"], edges, fill=True, color=colour, linewidth=0)
    ax.stairs(-np.asarray(histogram["others"]), edges, fill=True, color="#aab4be", linewidth=0)
    ax.axhline(0, color="#9aa5b1", linewidth=0.7)
    highest = max([*histogram["events"], *histogram["others"], 1])
    ax.set(xlim=(0, limit), ylim=(-1.08 * highest, 1.08 * highest), xlabel="Predicted", ylabel="Count")
    ax.set_yticks([-highest, 0, highest], [str(highest), "0", str(highest)])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return ax


def decision(curve: Mapping[str, Any], ax: Axes, *, colour: str, title: str, legend: bool = False) -> Axes:
    """Draw net benefit over the threshold against treating all and treating none."""
    threshold = curve["decision"]["threshold"]
    found = {
        name: np.array([np.nan if one is None else one for one in values], dtype=np.float64)
        for name, values in curve["decision"].items()
        if isinstance(values, list)
    }
    ax.axhline(0, color=MUTED, linewidth=1.0, label="treat nobody")
    ax.plot(
        threshold, found["treat_all"], color="#9aa5b1", linewidth=1.2, linestyle=(0, (4, 1.5)), label="treat everyone"
    )
    if len(found["net_benefit_low"]):
        ax.fill_between(
            threshold, found["net_benefit_low"], found["net_benefit_high"], color=colour, alpha=0.15, linewidth=0
        )
    ax.plot(threshold, found["net_benefit"], color=colour, label="treat by the model")
    heights = found["net_benefit_high"] if len(found["net_benefit_high"]) else found["net_benefit"]
    top = float(np.nanmax(heights)) if np.isfinite(heights).any() else 0.1
    ax.set(xlim=(threshold[0], threshold[-1]), ylim=(-0.12 * max(top, 0.1), 1.08 * max(top, 0.1)), title=title)
    ax.set(xlabel="Threshold probability", ylabel="Net benefit")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if legend:
        _legend(ax, loc="upper right")
    return grid(ax)


def forest(
    rows: Sequence[Mapping[str, Any]], ax: Axes, *, xlabel: str, reference: float | None = 0.5, percent: bool = False
) -> Axes:
    """Draw estimates with intervals, one row each from the top.

    A row has `label`, `value`, `low`, `high`, `colour`, `text` (written at the right) and optionally `hollow` (a
    comparator, nearer to the row above it).
    """
    places = -np.cumsum([0.62 if row.get("hollow") else 1.0 for row in rows])
    if reference is not None:
        ax.axvline(reference, color="#b6c0ca", linewidth=0.9, zorder=1)
    for place, row in zip(places, rows, strict=True):
        if row["value"] is None:
            continue
        if row["low"] is not None and row["high"] is not None:
            ax.plot([row["low"], row["high"]], [place, place], color=row["colour"], linewidth=1.5)
        face = "white" if row.get("hollow") else row["colour"]
        ax.plot(row["value"], place, "s", color=row["colour"], markerfacecolor=face, markersize=5.5, zorder=3)
    ax.set_yticks(places, [str(row["label"]) for row in rows])
    ax.tick_params(axis="y", length=0)
    for tick, place, row in zip(ax.get_yticklabels(), places, rows, strict=True):
        tone = MUTED if row.get("hollow") else INK
        tick.set_color(tone)
        ax.text(1.02, place, row["text"], transform=ax.get_yaxis_transform(), va="center", fontsize=8.5, color=tone)
    ax.spines["left"].set_visible(False)
    ax.set(xlabel=xlabel, ylim=(places[-1] - 0.7, places[0] + 0.7) if len(rows) else (-1, 0))
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return grid(ax, axis="x")


def explanation(features: Sequence[Mapping[str, Any]], ax: Axes, *, xlabel: str) -> Axes:
    """Draw each feature's contributions as a swarm, the most important on top, low values blue, high ones orange."""
    places = -np.arange(len(features), dtype=float)
    ax.axvline(0, color="#9aa5b1", linewidth=0.9, zorder=1)
    for place, feature in zip(places, features, strict=True):
        phi = np.asarray(feature["phi"], dtype=np.float64)
        scaled = np.asarray([np.nan if one is None else one for one in feature["scaled"]], dtype=np.float64)
        height = place + swarm(phi)
        known = ~np.isnan(scaled)
        ax.scatter(phi[~known], height[~known], s=5, color="#8a949e", linewidth=0, rasterized=True)
        ax.scatter(
            phi[known],
            height[known],
            s=5,
            c=scaled[known],
            cmap=VALUE_SCALE,
            vmin=0,
            vmax=1,
            linewidth=0,
            rasterized=True,
        )
    ax.set_yticks(places, [str(feature["label"]) for feature in features])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlabel=xlabel, ylim=(places[-1] - 0.6 if len(features) else -1, 0.6))
    return grid(ax, axis="x")


def importance(features: Sequence[Mapping[str, Any]], ax: Axes, *, xlabel: str) -> Axes:
    """Draw the mean absolute contribution of each feature as a bar, the most important on top."""
    places = -np.arange(len(features), dtype=float)
    ax.barh(places, [feature["mean_abs"] for feature in features], height=0.62, color="#7b93a8")
    ax.set_yticks(places, [""] * len(features))
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=xlabel, ylim=(places[-1] - 0.6 if len(features) else -1, 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(3))
    return grid(ax, axis="x")


def tuning(searches: Mapping[str, Mapping[str, Any]], ax: Axes, *, chosen: str) -> Axes:
    """Draw the loss of every finished trial (dots) and the best so far (line) for each family."""
    colours = site_colours(list(searches))
    best: list[float] = []
    highest: list[float] = []
    for family, search in searches.items():
        finished = [trial for trial in search.get("trials") or [] if trial.get("loss") is not None]
        numbers = np.asarray([trial["number"] for trial in finished], dtype=float)
        losses = np.asarray([trial["loss"] for trial in finished], dtype=float)
        if not len(losses):
            continue
        order = np.argsort(numbers)
        numbers, losses = numbers[order], losses[order]
        ax.plot(numbers, losses, "o", color=colours[family], markersize=2.6, alpha=0.45)
        label = f"{family} (chosen)" if family == chosen else family
        ax.step(numbers, np.minimum.accumulate(losses), where="post", color=colours[family], label=label)
        best.append(float(losses.min()))
        highest.append(float(np.quantile(losses, 0.85)))
    ax.set(xlabel="Trial", ylabel="Log loss, inner folds")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if best:
        span = max(max(highest) - min(best), 1e-4)
        ax.set_ylim(min(best) - 0.08 * span, max(highest) + 0.1 * span)
        _legend(ax, loc="upper right")
    return grid(ax)


def swarm(values: np.ndarray[Any, np.dtype[np.float64]], *, width: float = 0.38, bins: int = 80) -> Any:
    """Return a vertical offset for each value so that near ones lie beside each other, within `width` of 0."""
    if not len(values):
        return values
    span = np.ptp(values) or 1.0
    place = np.floor((values - values.min()) / span * (bins - 1)).astype(int)
    offset = np.zeros(len(values))
    for index in np.unique(place):
        members = np.flatnonzero(place == index)
        rank = np.arange(len(members))
        offset[members] = np.where(rank % 2 == 0, 1, -1) * ((rank + 1) // 2)
    return offset / max(np.abs(offset).max(), 5.0) * width


def _legend(ax: Axes, *, loc: Literal["lower right", "upper right"]) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc=loc, handlelength=2.2, borderaxespad=0.2, labelspacing=0.35)


def grid(ax: Axes, *, axis: Any = "both") -> Axes:
    ax.grid(True, axis=axis, color=GRID, linewidth=0.7)
    return ax


def _inline(text: str, *, title: str, width: float) -> str:
    """Return matplotlib's SVG without header, comments, unused ids and fixed size, with an accessible name."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", text)
    text = re.sub(r"font: (?:bold|700) ([0-9.]+px)[^;\"]*", r"font-weight: bold; font-size: \1", text)
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag.group(0)), text)
    text = re.sub(r" ?\n *", " ", text).replace("> <", "><")
    name = html.escape(title, quote=True)
    box = re.search(r'viewBox="[^"]*"', text)
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    head += f'{box.group(0) if box else ""} role="img" aria-label="{name}" class="figure" '
    head += f'style="width:{width * 72:.0f}pt;stroke-linejoin:round">'
    return head + text[text.index(">") + 1 :]
