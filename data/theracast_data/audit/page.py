"""The audit as one self-contained HTML page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from theracast_data.audit.findings import SEVERITIES, Finding, percent
from theracast_data.audit.report import AuditReport, grouped, place, statements

SEVERITY_WORDS = {
    "error": ("Errors", "Going on would give a wrong model or a wrong validation."),
    "warning": ("Warnings", "To be acted on, or accepted with a reason."),
    "note": ("Notes", "Good to know when reading the results."),
}


@dataclass(frozen=True)
class Card:
    """Findings of one check that share a reason."""

    check: str
    statements: tuple[tuple[str, str], ...]
    why: str
    remedies: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Cell:
    """One share of the missingness table: text, and the strength of its colour from 0 to 1."""

    text: str
    strength: float


def audit_page(report: AuditReport, *, title: str) -> str:
    """Return the audit as one self-contained HTML page, good on a screen and on A4 paper."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["coded"] = coded
    source = files("theracast_data.audit").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title,
        report=report,
        total=sum(report.decisions.values()),
        sites=[(site, count, _role(report, site)) for site, count in report.decisions.items()],
        sections=[
            (severity, *SEVERITY_WORDS[severity], _cards(report.of_severity(severity)))
            for severity in SEVERITIES
            if report.of_severity(severity)
        ],
        counts={severity: len(report.of_severity(severity)) for severity in SEVERITIES},
        accepted=[(finding.check, place(finding), finding.message, finding.accepted) for finding in report.accepted],
        missing=_missing_rows(report),
        complete=[str(name) for name, row in report.missingness.iterrows() if not (row > 0).any()],
    )


def coded(text: str) -> Markup:
    """Return a message as HTML, escaped, with the parts in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _cards(findings: tuple[Finding, ...]) -> list[Card]:
    cards = []
    for group in grouped(findings):
        remedies = list(dict.fromkeys(finding.remedy for finding in group))
        cards.append(
            Card(
                check=group[0].check,
                statements=tuple(statements(group)),
                why=group[0].why,
                remedies=tuple(remedies[:2]),
                more=max(0, len(remedies) - 2),
            )
        )
    return cards


def _missing_rows(report: AuditReport) -> list[tuple[str, list[Cell]]]:
    shown = report.missingness[(report.missingness > 0).any(axis=1)]
    return [
        (str(name), [Cell(percent(float(share)) if share else "", round(float(share), 3)) for share in row])
        for name, row in shown.iterrows()
    ]


def _role(report: AuditReport, site: str) -> str:
    if site in report.development:
        return "development"
    return "external" if site in report.external else "in neither role"
