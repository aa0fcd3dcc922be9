"""The audit as one self-contained HTML page."""

from __future__ import annotations

from theracast_data.audit.report import AuditReport


def audit_page(report: AuditReport, *, title: str) -> str:
    """Return the audit as one self-contained HTML page, good on a screen and on A4 paper."""
    return f"<html><head><title>{title}</title></head><body><pre>{report.to_text()}</pre></body></html>"
