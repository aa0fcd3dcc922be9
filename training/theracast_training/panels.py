"""The figures of one report, drawn from its content as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure

from theracast_training import figures
from theracast_training.content import NESTED, ReportContent
from theracast_training.endpoint_content import Headline
from theracast_training.wording import (
    NESTED_LABEL,
    calibration_verdict,
    count,
    interval,
    number,
    rival_label,
    site_label,
)

SHOWN_FEATURES = 12
SCALES = {"binary": "log-odds", "time_to_event": "log-hazard", "ordinal": "log-odds", "continuous": "estimate"}
"""What contributions add up to, by kind of endpoint."""


class Judged(Protocol):
    """What was judged at sites, with its curves: a whole report, or one of its endpoints."""

    @property
    def performance(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def curves(self) -> Mapping[str, Mapping[str, Any]]: ...


def site_order(content: Judged) -> list[str]:
    """Return the sites in the order that fixes their colours: cross-validation first, then as in the study."""
    return list(content.performance)


def forest_panel(content: ReportContent) -> str:
    """Return the leading figure of the model (filled) and of each published score (hollow) at every site."""
    sites, lead = site_order(content), content.headline
    colours = figures.site_colours(sites)
    baselines = content.evaluations.get("baselines") or {}
    rows: list[dict[str, Any]] = []
    for site in sites:
        own = content.performance[site]
        rows.append(_forest_row(site_label(site), own, lead, colour=colours[site]))
        for name, judged in baselines.items():
            if judged.get(site):
                rows.append(_forest_row(rival_label(name), judged[site], lead, colour=colours[site], hollow=True))
    nothing = "no better than the mean" if content.asked.kind == "continuous" else "chance"
    label = f"{lead.label[:1].upper()}{lead.label[1:]}"

    def draw(figure: Figure) -> None:
        xlabel = f"{label} with 95 % interval ({lead.chance:g} is {nothing})"
        figures.forest(rows, figure.subplots(), xlabel=xlabel, reference=lead.chance)

    title = f"{label} with 95 % interval at every site"
    return figures.svg(draw, width=9.2, height=0.75 + 0.26 * len(rows), title=title)


def _forest_row(
    label: str, record: Mapping[str, Any], lead: Headline, *, colour: str, hollow: bool = False
) -> dict[str, Any]:
    found = lead.of(record)
    keys = {key: found.get(f"{lead.name}{end}") for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))}
    return {"label": label, "colour": colour, "hollow": hollow, "text": interval(found, lead.name), **keys}


def roc_panel(content: Judged) -> str:
    """Return the ROC curves of all sites."""
    shown = _shown_curves(content)
    labels = {site: f"{_short(site)}  {number(content.performance[site].get('auc'))}" for site in shown}

    def draw(figure: Figure) -> None:
        figures.roc(shown, figure.subplots(), labels=labels, sites=site_order(content))

    return figures.svg(draw, width=4.4, height=4.2, title="ROC curves of all sites")


def precision_recall_panel(content: Judged) -> str:
    """Return the precision-recall curves of all sites."""
    shown = _shown_curves(content)
    labels = {site: f"{_short(site)}  {number(content.performance[site].get('auprc'))}" for site in shown}

    def draw(figure: Figure) -> None:
        figures.precision_recall(shown, figure.subplots(), labels=labels, sites=site_order(content))

    return figures.svg(draw, width=4.4, height=4.2, title="Precision-recall curves of all sites")


def calibration_panels(content: Judged) -> list[dict[str, str]]:
    """Return for each site its calibration plot over the counts, with a line of words."""
    shown = _shown_curves(content)
    colours = figures.site_colours(site_order(content))
    limit = _shared_limit(shown)
    return [
        {
            "svg": figures.svg(
                _calibration_drawing(curve, colour=colours[site], title=site_label(site), limit=limit),
                width=2.95,
                height=3.5,
                title=f"Calibration at {site_label(site)}",
            ),
            "words": f"{count(curve['n'])} decisions; {calibration_verdict(content.performance[site])}",
        }
        for site, curve in shown.items()
    ]


def _calibration_drawing(curve: Mapping[str, Any], *, colour: str, title: str, limit: float) -> Any:
    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3.1, 1]}, sharex=True)
        figures.calibration(curve, above, colour=colour, title=title, limit=limit, counts=below)

    return draw


def _shared_limit(shown: Mapping[str, Mapping[str, Any]]) -> float:
    """Return where the axes of all calibration plots end, so that they can be compared."""
    highest = 0.4
    for curve in shown.values():
        histogram = curve["histogram"]
        filled = [
            edge
            for edge, one, other in zip(histogram["edges"][1:], histogram["events"], histogram["others"], strict=True)
            if one + other
        ]
        found = curve.get("calibration") or {}
        line = (found.get("smooth") or {}).get("observed") or []
        highest = max([highest, *filled[-1:], *line, *(point["high"] for point in found.get("groups") or [])])
    return min(1.0, round(highest + 0.05, 1) if highest < 1 else 1.0)


def decision_panels(content: Judged) -> list[dict[str, str]]:
    """Return the decision curve of each site."""
    shown = {site: curve for site, curve in _shown_curves(content).items() if curve.get("decision")}
    colours = figures.site_colours(site_order(content))
    return [
        {
            "svg": figures.svg(
                _decision_drawing(curve, colour=colours[site], title=site_label(site), legend=place == 0),
                width=2.95,
                height=2.7,
                title=f"Decision curve at {site_label(site)}",
            ),
            "words": "",
        }
        for place, (site, curve) in enumerate(shown.items())
    ]


def _decision_drawing(curve: Mapping[str, Any], *, colour: str, title: str, legend: bool) -> Any:
    def draw(figure: Figure) -> None:
        figures.decision(curve, figure.subplots(), colour=colour, title=title, legend=legend)

    return draw


def tuning_panel(content: ReportContent) -> str | None:
    """Return the losses of all trials, None where no family was tuned by trials."""
    if not any(search.get("trials") for search in content.searches.values()):
        return None

    def draw(figure: Figure) -> None:
        figures.tuning(content.searches, figure.subplots(), chosen=content.family)

    return figures.svg(draw, width=9.2, height=2.7, title="Loss of every trial")


def explanation_panel(content: ReportContent) -> str | None:
    """Return the swarm of contributions and their mean size for the most important features, None without any."""
    features = [one for one in content.explanation.get("features") or [] if one["mean_abs"] > 0][:SHOWN_FEATURES]
    if not features:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3.2, 1]})
        figures.explanation(features, left, xlabel=f"Contribution to the {SCALES[content.asked.kind]}")
        figures.importance(features, right, xlabel="Mean size")

    return figures.svg(
        draw, width=9.2, height=0.7 + 0.34 * len(features), title="Contributions of the most important features"
    )


def modality_panel(content: ReportContent) -> str | None:
    """Return the AUC difference to each single modality at each site, None where there is nothing to compare."""
    sites = site_order(content)
    colours = figures.site_colours(sites)
    records = [one for one in content.comparisons if one["kind"] == "modality" and one["site"] in sites]
    if not records:
        return None
    rows = [
        {
            "label": f"{rival_label(str(one['against']))}, {_short(str(one['site']))}",
            "colour": colours[str(one["site"])],
            "value": one.get("auc_difference"),
            "low": one.get("low"),
            "high": one.get("high"),
            "text": _difference(one),
        }
        for one in records
    ]

    def draw(figure: Figure) -> None:
        figures.forest(
            rows, figure.subplots(), xlabel="AUC of all modalities minus AUC of this one alone", reference=0.0
        )

    return figures.svg(draw, width=9.2, height=0.75 + 0.24 * len(rows), title="Gain over single modalities")


def _difference(record: Mapping[str, Any]) -> str:
    named = {"d": record.get("auc_difference"), "d_low": record.get("low"), "d_high": record.get("high")}
    return interval(named, "d", signed=True)


def _shown_curves(content: Judged) -> dict[str, Mapping[str, Any]]:
    return {site: content.curves[site] for site in site_order(content) if content.curves.get(site)}


def _short(site: str) -> str:
    return "Cross-validation" if site == NESTED else site


def legend_of(content: ReportContent) -> Sequence[Mapping[str, str]]:
    """Return label and colour of every site, for a legend in HTML."""
    colours = figures.site_colours(site_order(content))
    return [
        {"label": NESTED_LABEL if site == NESTED else site, "colour": colours[site]} for site in site_order(content)
    ]
