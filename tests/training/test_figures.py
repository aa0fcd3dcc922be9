"""Figures: what is drawn is what was given, and the SVG is small, clean and always the same."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theracast_training import figures, panels
from theracast_training.content import ReportContent


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def _text(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_every_site_keeps_one_colour_in_all_figures(report_content: ReportContent) -> None:
    sites = panels.site_order(report_content)
    colours = figures.site_colours(sites)
    assert len(set(colours.values())) == len(sites)
    for drawn in (panels.roc_panel(report_content), panels.precision_recall_panel(report_content)):
        assert all(colours[site].lower() in drawn for site in sites)
    for site, panel in zip(sites, panels.calibration_panels(report_content), strict=True):
        others = {colour for name, colour in colours.items() if name != site} - {figures.INTERNAL}
        assert colours[site].lower() in panel["svg"]
        assert not any(other.lower() in panel["svg"] for other in others)


def test_more_sites_than_colours_still_differ_by_line() -> None:
    sites = [f"site {place}" for place in range(9)]
    colours, dashes = figures.site_colours(sites), figures.site_dashes(sites)
    assert len({(colours[site], str(dashes[site])) for site in sites}) == 9


def test_svg_is_the_same_every_time_and_names_no_date_or_outside(report_content: ReportContent) -> None:
    first, again = (panels.roc_panel(report_content) for _ in range(2))
    assert first == again
    for forbidden in ("<metadata", "dc:date", "<!--", "<!DOCTYPE", "<?xml", "<style"):
        assert forbidden not in first
    assert set(re.findall(r'https?://[^"]+', first)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert len(first) < 60_000


def test_svg_rounds_positions_but_never_the_text() -> None:
    drawn = figures.svg(
        lambda figure: figure.text(0.1234567, 0.5, "loss 0.5432 & more"), width=2, height=1, title="a <b>"
    )
    assert "loss 0.5432 & more" in _text(drawn)
    assert 'aria-label="a &lt;b&gt;"' in drawn
    assert not re.search(r'[xy]="\d+\.\d{3}', drawn)


def test_roc_and_precision_recall_draw_the_curves_that_exist(ax: Axes, report_content: ReportContent) -> None:
    given = dict(report_content.curves) | {"Hill": {"roc": None, "pr": None}}
    labels = {site: site.upper() for site in given}
    assert figures.roc(given, ax, labels=labels, sites=list(given)) is ax
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [labels[site] for site in given if site != "Hill"]
    north = next(line for line in ax.lines if line.get_label() == "NORTH LATER")
    assert np.asarray(north.get_xdata()) == pytest.approx(given["North later"]["roc"]["fpr"])
    other = Figure().subplots()
    assert figures.precision_recall(given, other, labels=labels, sites=list(given)) is other


def test_calibration_shows_groups_intervals_and_counts(report_content: ReportContent) -> None:
    above, below = Figure().subplots(2, 1)
    curve = report_content.curves["Harbour"]
    assert figures.calibration(curve, above, colour="#123456", title="Harbour", counts=below) is above
    points = [line for line in above.lines if line.get_marker() == "o"]
    assert len(points) == len(curve["calibration"]["groups"])
    assert len(below.patches) == 2
    highest = max(curve["histogram"]["events"] + curve["histogram"]["others"])
    assert [label.get_text() for label in below.get_yticklabels()] == [str(highest), "0", str(highest)]


def test_calibration_without_a_smooth_line_still_draws(ax: Axes, report_content: ReportContent) -> None:
    curve = dict(report_content.curves["Hill"])
    curve["calibration"] = {"groups": curve["calibration"]["groups"], "smooth": None}
    assert figures.calibration(curve, ax, colour="#123456", title="Hill") is ax


def test_decision_curve_has_model_all_and_nobody(ax: Axes, report_content: ReportContent) -> None:
    curve = report_content.curves["North later"]
    figures.decision(curve, ax, colour="#123456", title="", legend=True)
    named = {str(line.get_label()): line for line in ax.lines}
    assert {"treat nobody", "treat everyone", "treat by the model"} <= set(named)
    assert named["treat by the model"].get_ydata() == pytest.approx(curve["decision"]["net_benefit"])


def test_forest_draws_what_is_known_and_leaves_out_what_is_not(ax: Axes) -> None:
    rows: list[dict[str, Any]] = [
        {"label": "A", "value": 0.7, "low": 0.6, "high": 0.8, "colour": "#000000", "text": "0.70"},
        {
            "label": "score",
            "value": 0.6,
            "low": None,
            "high": None,
            "colour": "#000000",
            "text": "0.60",
            "hollow": True,
        },
        {"label": "B", "value": None, "low": None, "high": None, "colour": "#000000", "text": "not estimable"},
    ]
    assert figures.forest(rows, ax, xlabel="AUC") is ax
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["A", "score", "B"]
    assert sum(line.get_marker() == "s" for line in ax.lines) == 2
    assert figures.forest([], Figure().subplots(), xlabel="AUC") is not None


def test_explanation_draws_one_dot_a_decision(ax: Axes, report_content: ReportContent) -> None:
    features = report_content.explanation["features"][:4]
    assert figures.explanation(features, ax, xlabel="log-odds") is ax
    dots = sum(len(found.get_offsets()) for found in ax.collections)
    assert dots == sum(len(feature["phi"]) for feature in features)
    assert figures.importance(features, Figure().subplots(), xlabel="") is not None


def test_swarm_keeps_dots_within_their_row_and_apart() -> None:
    offset = figures.swarm(np.random.default_rng(0).normal(size=300))
    assert np.abs(offset).max() <= 0.38
    assert len(np.unique(figures.swarm(np.zeros(7)))) == 7
    assert len(figures.swarm(np.empty(0))) == 0


def test_tuning_line_is_the_best_so_far(ax: Axes) -> None:
    losses = [0.6, 0.62, 0.55, None, 0.57]
    trials = [{"number": place, "loss": loss, "state": "COMPLETE"} for place, loss in enumerate(losses)]
    figures.tuning({"elasticnet": {"trials": trials}, "stack": {"trials": []}}, ax, chosen="elasticnet")
    best = next(line for line in ax.lines if line.get_label() == "elasticnet (chosen)")
    assert list(best.get_ydata()) == [0.6, 0.6, 0.55, 0.55]
