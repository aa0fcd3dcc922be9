"""The leakage auditor for cohorts made from events: `audit_events(...)` gives its findings, most severe first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.audit.events_features import Compute, check_future_rows, check_identifiers, check_site_proxy
from theracast_data.audit.events_folds import Fit, Split, check_folds, check_preprocessing
from theracast_data.audit.events_outcomes import check_outcome_in_lookback
from theracast_data.audit.events_times import (
    check_after_death,
    check_available_time,
    check_before_birth,
    check_result_before_specimen,
)
from theracast_data.audit.events_values import check_duplicate_results, check_implausible_values, check_units
from theracast_data.audit.findings import SEVERITIES, Finding
from theracast_data.audit.section import OutcomeCodes
from theracast_data.decisions.windows import SameDay, event_arrays
from theracast_data.events.concepts import Concept


def audit_events(
    events: pa.Table,
    *,
    concepts: Mapping[str, Concept] | None = None,
    death: Sequence[str] = ("MEDS_DEATH",),
    birth: Sequence[str] = ("MEDS_BIRTH",),
    decisions: pd.DataFrame | None = None,
    outcomes: Sequence[OutcomeCodes] = (),
    features: pd.DataFrame | None = None,
    label: npt.ArrayLike | None = None,
    splits: Sequence[Split] = (),
    compute: Compute | None = None,
    fit: Fit | None = None,
    same_day: SameDay = "hidden",
) -> list[Finding]:
    """Return what is wrong with the events, and with what was made from them, most severe first.

    What is not given is not checked.

    Args:
        events: with the columns of `EVENT_SCHEMA`.
        concepts: concepts of the study by name, for plausible ranges and for what is reported late.
        death: codes of death.
        birth: codes of birth.
        decisions: n decisions with `subject_id`, `index_time`, `site`.
        outcomes: how the outcomes show themselves in the events.
        features: (n, ...) features in the order of the decisions.
        label: (n,) outcome as 0/1, NaN where not known.
        splits: positions of the training and of the test decisions, for each fold of the validation.
        compute: events and decisions to features, to see whether they need the future.
        fit: features and positions of the training rows to the fitted state of the preprocessing.
        same_day: whether what carries a date without clock time is known on that day.
    """
    arrays = event_arrays(events, same_day=same_day, assume_dates=False)
    known = concepts or {}
    findings = [
        *check_result_before_specimen(arrays),
        *check_available_time(arrays, known),
        *check_after_death(arrays, death),
        *check_before_birth(arrays, birth),
        *check_duplicate_results(arrays),
        *check_implausible_values(arrays, known),
        *check_units(events, known),
    ]
    if decisions is not None:
        findings += check_outcome_in_lookback(arrays, decisions, outcomes)
        if compute is not None:
            findings += check_future_rows(events, decisions, compute, same_day=same_day)
        findings += check_folds(decisions, splits)
        if features is not None:
            findings += check_identifiers(features, decisions)
            if label is not None:
                findings += check_site_proxy(features, decisions, label)
    if features is not None and fit is not None:
        findings += check_preprocessing(features, splits, fit)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
