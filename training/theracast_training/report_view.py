"""What the page of a study shows of endpoints, statistics and checklists: tables as data and figures as safe markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from theracast_training import outcome_panels, panels
from theracast_training.checklist import Item
from theracast_training.content import NESTED, ReportContent
from theracast_training.endpoint_content import EndpointContent
from theracast_training.performance_tables import calibration_table, glance_table, performance_tables
from theracast_training.probast import probast_items
from theracast_training.statistics_panels import statistics_panels
from theracast_training.statistics_tables import statistics_blocks
from theracast_training.summary import answers_words
from theracast_training.tables import Table
from theracast_training.tripod import tripod_items
from theracast_training.wording import interval, sentence, site_label


def endpoint_view(endpoint: EndpointContent) -> dict[str, Any]:
    """Return tables and figures of an endpoint; what its kind does not have is empty."""
    kind = endpoint.terms.kind
    probable = kind in ("binary", "ordinal") and bool(endpoint.curves)
    shown: dict[str, Any] = {
        "tables": performance_tables(endpoint),
        "calibration_table": calibration_table(endpoint),
        "of": f" of {endpoint.terms.leading}" if kind == "ordinal" else "",
        "outside": any(site != NESTED for site in endpoint.performance),
        "roc": Markup(panels.roc_panel(endpoint)) if probable else None,
        "pr": Markup(panels.precision_recall_panel(endpoint)) if probable else None,
        "calibration": safe(panels.calibration_panels(endpoint)) if probable else [],
        "levels": safe(outcome_panels.level_panels(endpoint)) if kind == "ordinal" else [],
        "numbers": safe(outcome_panels.number_panels(endpoint)) if kind == "continuous" else [],
    }
    timed = kind == "time_to_event"
    return shown | {
        "risk": safe(outcome_panels.risk_panels(endpoint)) if timed else [],
        "auc": safe(outcome_panels.auc_panels(endpoint)) if timed else [],
        "horizons": [block | {"panels": safe(block["panels"])} for block in outcome_panels.horizon_panels(endpoint)]
        if timed
        else [],
    }


def safe(found: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return panels whose drawing is markup and whose words are not."""
    return [one | {"svg": Markup(one["svg"])} for one in found]


def glance(content: ReportContent) -> Table | None:
    """Return the table of the summary with the colour of each site, None where nothing was judged."""
    if not content.performance:
        return None
    colours = {one["label"]: one["colour"] for one in panels.legend_of(content)}
    table = glance_table(content.primary)
    return replace(table, rows=[replace(row, colour=colours[row.cells[0]]) for row in table.rows])


def further_views(content: ReportContent) -> list[dict[str, Any]]:
    """Return the sections of the endpoints beside the primary one."""
    return [
        {
            "label": one.terms.label,
            "words": f"For this endpoint the model {answers_words(one.terms)}. {_judged(one)} {_chosen(one)}",
            "view": endpoint_view(one),
            "blocks": statistics_blocks(one.statistics),
        }
        for one in content.further
    ]


def _judged(endpoint: EndpointContent) -> str:
    lead = endpoint.headline
    found = [
        f"{interval(lead.of(record), lead.name)} {'in nested cross-validation' if site == NESTED else f'at {site_label(site)}'}"
        for site, record in endpoint.performance.items()
    ]
    return f"Its {lead.label} is {', '.join(found)}." if found else "It has not been judged."


def _chosen(endpoint: EndpointContent) -> str:
    return sentence(f"Family: {endpoint.family} ({endpoint.choice.rstrip('.')})")


def statistics_view(content: ReportContent) -> list[dict[str, Any]]:
    """Return the questions that were asked of the figures, each with its words, tables and figures."""
    drawn = statistics_panels(content.statistics)
    return [
        {
            "title": block.title,
            "words": block.words,
            "table": block.table,
            "folded": block.folded,
            "notes": block.notes,
            "panels": safe(drawn.get(block.key, [])),
        }
        for block in statistics_blocks(content.statistics)
    ]


def checklist_views(content: ReportContent) -> list[dict[str, Any]]:
    """Return both tools with their items."""
    return [
        _checklist(
            "TRIPOD+AI",
            "27 items with their sub-items; D: concerns development, E: evaluation (Collins et al., BMJ 2024;385:e078378).",
            tripod_items(content),
        ),
        _checklist(
            "PROBAST+AI",
            "Signalling questions on the quality of the development (D) and the risk of bias of the evaluation (E), by domain; "
            "their numbers are ours. A verdict stands only where the run is evidence; domains and applicability are for people to rate "
            "(Moons et al., BMJ 2025;388:e082505).",
            probast_items(content),
        ),
    ]


def _checklist(title: str, words: str, items: Sequence[Item]) -> dict[str, Any]:
    return {"title": title, "words": words, "rows": items, "answered": sum(item.answered for item in items)}
