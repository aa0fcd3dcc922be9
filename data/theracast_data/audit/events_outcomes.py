"""Checks for the outcome, or what follows from it, among the events that a feature may see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from theracast_data.audit.events_times import SHOWN, by_code, coded
from theracast_data.audit.findings import Finding, Severity, listing, percent, plural
from theracast_data.audit.section import OutcomeCodes
from theracast_data.decisions.windows import EventArrays, pairs_in_window, parse_window, subject_positions


def check_outcome_in_lookback(
    arrays: EventArrays, decisions: pd.DataFrame, outcomes: Sequence[OutcomeCodes]
) -> list[Finding]:
    """Return a finding for each outcome whose codes, synonyms or follow-up lie, visible, in the look-back.

    Args:
        decisions: `subject_id` and `index_time`.
    """
    findings = []
    for outcome in outcomes:
        kinds: tuple[tuple[tuple[str, ...], str, Severity], ...] = (
            (outcome.codes, "outcome-in-lookback", "error"),
            (outcome.synonyms, "outcome-synonym-in-lookback", "error"),
            (outcome.follow_up, "outcome-follow-up-in-lookback", "warning"),
        )
        for patterns, check, severity in kinds:
            found = _finding(arrays, decisions, outcome, patterns, check=check, severity=severity)
            if found is not None:
                findings.append(found)
    return findings


def _finding(
    arrays: EventArrays,
    decisions: pd.DataFrame,
    outcome: OutcomeCodes,
    patterns: tuple[str, ...],
    *,
    check: str,
    severity: Severity,
) -> Finding | None:
    index = decisions["index_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    subject = subject_positions(arrays, decisions["subject_id"].to_numpy())
    at = np.flatnonzero(coded(arrays, patterns))
    window = parse_window(outcome.lookback)
    decision, event = pairs_in_window(subject, index, arrays.subject[at], arrays.time[at], window)
    visible = arrays.known[at[event]] <= index[decision]
    decision, event = decision[visible], at[event[visible]]
    if not len(decision):
        return None
    chosen = np.zeros(len(arrays), np.bool_)
    chosen[event] = True
    codes = [f"{code} ({len(rows)})" for code, rows in by_code(arrays, chosen)]
    concerned = np.unique(decision)
    kind = {"outcome-in-lookback": "codes of", "outcome-synonym-in-lookback": "synonyms of"}.get(
        check, "drugs or procedures that follow"
    )
    return Finding(
        check=check,
        severity=severity,
        site=None,
        column=outcome.name,
        message=f"{plural(len(concerned), 'decision')} of {len(decisions):,} "
        f"({percent(len(concerned) / len(decisions))}) have {kind} {outcome.name} in the look-back: {listing(codes)}.",
        why="The patient had the outcome before the decision, or it is dated too early: a feature on these codes tells "
        "the model what it is asked to predict.",
        remedy="Exclude such decisions with an `exclude` rule on these codes, correct the dates, or begin the look-back "
        "after the earlier episode; if the history is meant, accept the finding with that reason.",
        count=len(concerned),
        subjects=tuple(decisions["subject_id"].iloc[concerned[:SHOWN]].astype(str)),
    )
