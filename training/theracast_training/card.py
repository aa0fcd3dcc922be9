"""The model card: what the model is for, how well it holds and where it ends, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_training.content import ReportContent
from theracast_training.limits import derived_limits
from theracast_training.panels import SCALES
from theracast_training.performance_tables import calibration_table, performance_tables
from theracast_training.report import page_environment
from theracast_training.report_view import further_words
from theracast_training.statistics_tables import statistics_blocks
from theracast_training.summary import summary_sentences

SHOWN_FEATURES = 10


def model_card(content: ReportContent) -> str:
    """Return the model card as Markdown, from the same numbers as the study report.

    Sections follow Mitchell et al., Model Cards for Model Reporting, FAT* 2019, with the calibration and intended use
    that TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) asks for.
    """
    environment = page_environment(autoescape=False)
    environment.filters["cell"] = _cell
    return environment.get_template("model_card.md.j2").render(
        c=content,
        summary=summary_sentences(content),
        limits=derived_limits(content),
        tables=performance_tables(content.primary),
        calibration=calibration_table(content.primary),
        further=[
            {
                "label": one.terms.label,
                "words": further_words(one),
                "tables": performance_tables(one),
                "calibration": calibration_table(one),
            }
            for one in content.further
        ],
        blocks=statistics_blocks(content.statistics),
        scale=SCALES[content.asked.kind],
        important=_important(content),
        modalities=list(dict.fromkeys(str(spec["modality"]).replace("_", " ") for spec in content.features)),
    )


def _important(content: ReportContent) -> list[Mapping[str, Any]]:
    features = content.explanation.get("features") or []
    return [one for one in features if one["mean_abs"] > 0][:SHOWN_FEATURES]


def _cell(text: object) -> str:
    """Return the text so that it cannot end a cell of a Markdown table or start markup."""
    plain = " ".join(str(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("`", "'")
