"""The study report: one self-contained HTML page."""

from __future__ import annotations

from theracast_training.content import ReportContent, explanation_summary

__all__ = ["ReportContent", "explanation_summary"]
