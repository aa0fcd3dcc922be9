"""The figures of an endpoint by its kind: curves by risk group, calibration by a horizon, levels, numbers; as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from theracast_training import figures, outcome_figures, survival_figures
from theracast_training.endpoint_content import EndpointContent
from theracast_training.wording import calibration_verdict, count, interval, percent, plural, site_label

Panel = dict[str, str]
Draw = Callable[[Figure], None]

LIMIT_STEP = 0.05
LONGEST_LEVEL = 10


def risk_panels(endpoint: EndpointContent) -> list[Panel]:
    """Return for each site the curves by risk group over the numbers at risk."""
    found = []
    for site, curves in _survival(endpoint).items():
        if not curves["risk_groups"]:
            continue
        title = f"{endpoint.terms.label} by risk group at {site_label(site)}"
        found.append(
            {
                "svg": figures.svg(_risk_drawing(curves, title=site_label(site)), width=4.4, height=3.9, title=title),
                "words": f"{count(curves['n'])} decisions, {plural(curves['events'], 'event')}; "
                f"C-index {interval(endpoint.performance[site]['survival'], 'c_harrell')}",
            }
        )
    return found


def _risk_drawing(curves: Mapping[str, Any], *, title: str) -> Draw:
    def draw(figure: Figure) -> None:
        rows = len(curves["risk_groups"])
        above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3.4, 0.28 * rows + 0.15]})
        survival_figures.risk_group_curves(curves, above, table=below, event="the event")
        above.set_title(title)

    return draw


def horizon_panels(endpoint: EndpointContent) -> list[dict[str, Any]]:
    """Return for each horizon its words and the calibration of every site, the leading horizon first."""
    shown = _survival(endpoint)
    colours = figures.site_colours(list(endpoint.performance))
    leading = endpoint.terms.first_horizon
    order = sorted(endpoint.terms.horizons.items(), key=lambda one: (one[1] != leading, one[0]))
    blocks = []
    for day, words in order:
        at = {
            site: one
            for site, curves in shown.items()
            for one in curves["calibration"]
            if abs(one["horizon"] - day) < 1e-6 and one["groups"]
        }
        limit = _limit(at)
        panels = [
            {
                "svg": figures.svg(
                    _horizon_drawing(one, colour=colours[site], title=site_label(site), limit=limit),
                    width=2.95,
                    height=3.5,
                    title=f"Calibration by {words} at {site_label(site)}",
                ),
                "words": _horizon_words(endpoint.performance[site], day, verdict=words == leading),
            }
            for site, one in at.items()
        ]
        blocks.append({"words": words, "panels": panels})
    return [block for block in blocks if block["panels"]]


def _horizon_drawing(curve: Mapping[str, Any], *, colour: str, title: str, limit: float) -> Draw:
    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3.1, 1]}, sharex=True)
        survival_figures.calibration_at_horizon(curve, above, colour=colour, title=title, limit=limit, counts=below)

    return draw


def _horizon_words(record: Mapping[str, Any], day: float, *, verdict: bool) -> str:
    row = next((one for one in record["survival"]["horizons"] if abs(one["horizon"] - day) < 1e-6), None)
    observed = "" if row is None else f"{percent(row['observed'])} observed, {percent(row['predicted'])} predicted"
    return f"{observed}; {calibration_verdict(record)}" if verdict else observed


def _limit(curves: Mapping[str, Mapping[str, Any]]) -> float:
    """Return where the axes of all sites end, so that they can be compared."""
    highest = 0.4
    for one in curves.values():
        line = (one["smooth"] or {}).get("observed") or []
        highest = max([highest, *(value for value in line if value is not None)])
        highest = max([highest, *(group["high"] for group in one["groups"] if group["high"] is not None)])
        edges, events, others = (one["histogram"][name] for name in ("edges", "events", "others"))
        filled = [edge for edge, came, rest in zip(edges[1:], events, others, strict=True) if came + rest]
        highest = max([highest, *filled[-1:]])
    return min(1.0, round(highest + LIMIT_STEP, 1)) if highest < 1 else 1.0


def auc_panels(endpoint: EndpointContent) -> list[Panel]:
    """Return the AUC over the days of every site."""
    colours = figures.site_colours(list(endpoint.performance))
    return [
        {
            "svg": figures.svg(
                _auc_drawing(curves, colour=colours[site], title=site_label(site)),
                width=2.95,
                height=2.6,
                title=f"AUC over time at {site_label(site)}",
            ),
            "words": "",
        }
        for site, curves in _survival(endpoint).items()
        if curves["auc"]
    ]


def _auc_drawing(curves: Mapping[str, Any], *, colour: str, title: str) -> Draw:
    def draw(figure: Figure) -> None:
        ax = survival_figures.auc_over_time(curves, figure.subplots(), colour=colour)
        ax.set(title=title, ylabel="AUC")

    return draw


def level_panels(endpoint: EndpointContent) -> list[Panel]:
    """Return for each site the counts of observed against most probable levels, and how often each was expected."""
    colours = figures.site_colours(list(endpoint.performance))
    labels = [name if len(name) <= LONGEST_LEVEL else f"{name[: LONGEST_LEVEL - 1]}…" for name in endpoint.terms.levels]
    return [
        {
            "svg": figures.svg(
                _level_drawing(record["ordinal"], labels=labels, colour=colours[site]),
                width=9.2 if len(endpoint.performance) == 1 else 7.4,
                height=3.0,
                title=f"Levels of {endpoint.terms.label} at {site_label(site)}",
            ),
            "words": f"{site_label(site)}: {count(record['ordinal']['n'])} decisions. Left: how many of each observed level "
            "got which most probable level. Right: share of each level observed (bars, 95 % intervals) and expected.",
        }
        for site, record in endpoint.performance.items()
        if record.get("ordinal")
    ]


def _level_drawing(record: Mapping[str, Any], *, labels: list[str], colour: str) -> Draw:
    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.5]})
        outcome_figures.confusion(record, left, labels=labels)
        outcome_figures.level_calibration(record, right, labels=labels, colour=colour)

    return draw


def number_panels(endpoint: EndpointContent) -> list[Panel]:
    """Return for each site the mean outcome of groups of rising estimate: no single patient is drawn."""
    colours = figures.site_colours(list(endpoint.performance))
    unit = endpoint.terms.unit or "unit of the endpoint"
    return [
        {
            "svg": figures.svg(
                _number_drawing(record, colour=colours[site], title=site_label(site), unit=unit),
                width=2.95,
                height=2.95,
                title=f"Observed against estimated {endpoint.terms.label} at {site_label(site)}",
            ),
            "words": f"{count(record['n'])} decisions; {calibration_verdict(record)}",
        }
        for site, record in endpoint.performance.items()
        if record.get("groups")
    ]


def _number_drawing(record: Mapping[str, Any], *, colour: str, title: str, unit: str) -> Draw:
    def draw(figure: Figure) -> None:
        ax = outcome_figures.group_means(record, figure.subplots(), colour=colour, unit=unit)
        ax.set_title(title)

    return draw


def _survival(endpoint: EndpointContent) -> dict[str, Mapping[str, Any]]:
    return {
        site: endpoint.curves[site]["survival"]
        for site in endpoint.performance
        if (endpoint.curves.get(site) or {}).get("survival")
    }
