"""The model card: every section, the same numbers as the report, and Markdown that cannot be broken by a name."""

from __future__ import annotations

import re
from dataclasses import replace

from theracast_training.card import model_card
from theracast_training.content import ReportContent
from theracast_training.limits import derived_limits
from theracast_training.wording import interval

SECTIONS = (
    "Intended use",
    "Not for",
    "Data",
    "Performance",
    "Calibration",
    "Further endpoints",
    "How far the figures hold",
    "Limits",
    "Explanation",
    "Ethical notes",
    "Versions",
)


def test_card_has_every_section_in_order(report_content: ReportContent) -> None:
    assert tuple(re.findall(r"^## (.+)$", model_card(report_content), flags=re.MULTILINE)) == SECTIONS


def test_card_tells_the_figures_and_limits_of_the_report(report_content: ReportContent) -> None:
    card = model_card(report_content)
    for record in report_content.performance.values():
        assert interval(record, "auc") in card
        assert interval(record, "calibration_slope") in card
    assert all(limit in card for limit in derived_limits(report_content))
    assert "LORIS" in card
    assert report_content.fingerprint in card
    assert card == model_card(report_content)


def test_every_table_row_has_as_many_cells_as_its_head(report_content: ReportContent) -> None:
    odd = replace(report_content, versions={"a|b": "1 | <i>", "python": "3.11"}, question="Why | not\nnow?")
    blocks = re.findall(r"(?:^\|.*\n)+", model_card(odd), flags=re.MULTILINE)
    assert len(blocks) >= 7
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "&lt;i>" in model_card(odd)


def test_card_without_outside_patients_says_so(report_content: ReportContent) -> None:
    alone = replace(report_content, external=(), evaluations={"cv": report_content.evaluations["cv"]}, comparisons=[])
    card = model_card(alone)
    assert "has not been judged on patients from anywhere else" in card
    assert "Against published scores" not in card
