"""The result of an audit: findings, attrition and missingness, as JSON and as plain text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from theracast_data.audit.findings import SEVERITIES, Finding, percent, plural
from theracast_data.cohort import AttritionStep

WIDTH = 110


@dataclass(frozen=True)
class AuditReport:
    """What the audit found.

    Attributes:
        findings: open findings, errors first.
        accepted: findings silenced by the study, each with its reason.
        attrition: rows left out while reading.
        missingness: share missing, (columns x sites).
        decisions: decisions at each site.
        development: sites that develop the model.
        external: sites that judge it.
    """

    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...]
    attrition: tuple[AttritionStep, ...]
    missingness: pd.DataFrame
    decisions: dict[str, int]
    development: tuple[str, ...] = ()
    external: tuple[str, ...] = ()

    @property
    def open_errors(self) -> tuple[Finding, ...]:
        """Errors that the study does not accept."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def of_severity(self, severity: str) -> tuple[Finding, ...]:
        """Return the open findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; shares rounded to four decimals."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "accepted": [finding.to_json() for finding in self.accepted],
            "attrition": [
                {"site": step.site, "reason": step.reason, "dropped": step.dropped, "left": step.left}
                for step in self.attrition
            ],
            "missingness": {
                str(column): {str(site): round(float(share), 4) for site, share in row.items()}
                for column, row in self.missingness.iterrows()
            },
            "decisions": dict(self.decisions),
            "summary": {severity: len(self.of_severity(severity)) for severity in SEVERITIES}
            | {"accepted": len(self.accepted)},
        }

    def to_text(self) -> str:
        """Return the report as plain text of at most 110 columns."""
        parts = [self._summary_text(), self._attrition_text()]
        parts += [self._findings_text(severity) for severity in SEVERITIES]
        parts += [self._accepted_text(), self._missingness_text()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary_text(self) -> str:
        rows = [
            f"  {site:<24} {count:>7,}  {_role(site, self.development, self.external)}".rstrip()
            for site, count in self.decisions.items()
        ]
        counts = ", ".join(plural(len(self.of_severity(severity)), severity) for severity in SEVERITIES)
        head = f"Audit of {plural(sum(self.decisions.values()), 'decision')}: {counts}, {len(self.accepted)} accepted"
        return "\n".join([head, "", *rows])

    def _attrition_text(self) -> str:
        if not self.attrition:
            return ""
        rows = [
            f"  {step.site:<24} {step.dropped:>7,} left out, {step.left:>7,} kept  {step.reason}"
            for step in self.attrition
        ]
        return "\n".join(["Rows left out while reading", *rows])

    def _findings_text(self, severity: str) -> str:
        chosen = self.of_severity(severity)
        if not chosen:
            return ""
        lines = [f"{severity.upper()}S ({len(chosen)})"]
        for group in grouped(chosen):
            lines += ["", f"{group[0].check}"]
            for where, message in statements(group):
                lines += _wrapped(f"{where}: {message}", "  - ", "    ")
            lines += _wrapped(f"Why: {group[0].why}", "  ", "       ")
            remedies = list(dict.fromkeys(finding.remedy for finding in group))
            for remedy in remedies[:3]:
                lines += _wrapped(f"Do:  {remedy}", "  ", "       ")
            if len(remedies) > 3:
                lines.append(f"       (and likewise for the {len(remedies) - 3} others)")
        return "\n".join(lines)

    def _accepted_text(self) -> str:
        if not self.accepted:
            return ""
        lines = [f"ACCEPTED BY THE STUDY ({len(self.accepted)})", ""]
        for finding in self.accepted:
            lines += _wrapped(f"{finding.check}, {place(finding)}: {finding.message}", "  - ", "    ")
            lines += _wrapped(f"Reason: {finding.accepted}", "    ", "    ")
        return "\n".join(lines)

    def _missingness_text(self) -> str:
        shown = self.missingness[(self.missingness > 0).any(axis=1)]
        if shown.empty:
            return ""
        sites = [str(site) for site in shown.columns]
        lines = ["Share missing", "  " + " " * 30 + "".join(f"{site[:13]:>14}" for site in sites)]
        for column, row in shown.iterrows():
            cells = "".join(f"{percent(float(share)) if share else '.':>14}" for share in row)
            lines.append(f"  {str(column)[:29]:<30}{cells}")
        return "\n".join(line[:WIDTH] for line in lines)


def grouped(findings: tuple[Finding, ...]) -> list[list[Finding]]:
    """Return findings of the same check and the same reason together, in order of appearance."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.check, finding.why), []).append(finding)
    return list(groups.values())


def statements(findings: list[Finding]) -> list[tuple[str, str]]:
    """Return where and what of each finding; columns of one site about which the same is said stand together."""
    together: dict[tuple[str | None, str], list[Finding]] = {}
    for finding in findings:
        together.setdefault((finding.site, finding.message), []).append(finding)
    stated = []
    for (site, message), same in together.items():
        columns = ", ".join(finding.column for finding in same if finding.column)
        where = place(same[0]) if len(same) == 1 else columns if site is None else f"{columns} at {site}"
        stated.append((where, message))
    return stated


def place(finding: Finding) -> str:
    """Return where a finding is, e.g. `albumin at Kato`."""
    if finding.column is None:
        return finding.site or "all sites"
    return finding.column if finding.site is None else f"{finding.column} at {finding.site}"


def _role(site: str, development: tuple[str, ...], external: tuple[str, ...]) -> str:
    return "development" if site in development else "external" if site in external else "in neither role"


def _wrapped(text: str, first: str, following: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)
