"""The figures of what a training asked of its own figures, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from theracast_training import figures, study_figures
from theracast_training.statistics_tables import leading_measure

Panel = dict[str, str]


def statistics_panels(statistics: Mapping[str, Any]) -> dict[str, list[Panel]]:
    """Return the figures of each block by its key; a question without a figure is left out."""
    found = {
        "learning-curve": _learning_curve(statistics.get("learning_curve")),
        "sites": _sites(statistics.get("sites")),
        "periods": _periods(statistics.get("periods")),
    }
    return {key: panels for key, panels in found.items() if panels}


def _learning_curve(found: Mapping[str, Any] | None) -> list[Panel]:
    if not found or not any(one["auc"] is not None for one in found["points"]):
        return []
    return [
        _panel(
            lambda figure: study_figures.draw_learning_curve(found, figure.subplots(), measure="auc"),
            width=5.6,
            height=2.9,
            title="Learning curve",
            words="Dots: mean AUC in held-out patients, bars: middle 95 % of splits. Line: fitted power law, dashed beyond what "
            "was learnt from; the upright line marks all patients.",
        )
    ]


def _sites(found: Mapping[str, Any] | None) -> list[Panel]:
    if not found:
        return []
    panels = []
    for name in (leading_measure(found["measures"]), "calibration_slope"):
        pooled = found["measures"][name]
        if pooled["value"] is None:
            continue
        panels.append(_site_panel(pooled, name))
    return panels


def _site_panel(pooled: Mapping[str, Any], name: str) -> Panel:
    return _panel(
        lambda figure: study_figures.draw_sites(pooled, figure.subplots(), measure=name),
        width=4.5,
        height=1.1 + 0.27 * (len(pooled["sites"]) + 2),
        title=f"{study_figures.LABELS[name]} of all sites together",
        words="",
    )


def _periods(found: Mapping[str, Any] | None) -> list[Panel]:
    if not found or len(found["periods"]) < 2:
        return []
    return [_period_panel(found, name) for name in ("auc", "observed_expected")]


def _period_panel(found: Mapping[str, Any], name: str) -> Panel:
    return _panel(
        lambda figure: study_figures.draw_periods(found, figure.subplots(), measure=name),
        width=4.4,
        height=2.5,
        title=f"{study_figures.LABELS[name]} by calendar year",
        words="",
    )


def _panel(draw: Callable[[Figure], object], *, width: float, height: float, title: str, words: str) -> Panel:
    return {"svg": figures.svg(draw, width=width, height=height, title=title), "words": words}
