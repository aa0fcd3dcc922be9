"""What a doctor should know before trusting one answer: sentences per decision, without the patient's values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from theracast_data.cohort import NO_LONGER_AT_RISK, Cohort
from theracast_data.sources import ColumnSpec
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.logodds import Gaps
from theracast_models.preprocess import numeric_values
from theracast_models.reference import Reference
from theracast_models.sentences import gap_sentences, listed

_MODALITY_WORDS = {"lab": "laboratory", "patient_reported": "patient-reported", "wearable": "wearable-device"}

_NOTE_SENTENCES = {
    "unreadable-value": "{label}: the entry could not be read and is treated as not known.",
    "contradictory-one-hot": "{label}: several categories are marked at once; it is treated as not known.",
    "other-spelling": "{label}: taken from a column of another name; check that it is the same quantity.",
    "repeated-header": "{label}: the table has this column more than once; check which one was meant.",
    "outside-inclusion": "The model is not meant for such a decision: it does not meet the study's inclusion rules.",
    "duplicate-subject": "This patient id stands in more than one row.",
}
# Told in other words by the lists of what is missing, or as the study means it to be.
_SILENT_NOTES = frozenset({"absent-column", "converted-unit", NO_LONGER_AT_RISK})


def warnings_of(
    cohort: Cohort,
    table: FeatureTable,
    *,
    gaps: Sequence[Gaps],
    reference: Reference,
    validated: Collection[str],
) -> list[list[str]]:
    """Return per decision its warnings, the weightiest first.

    Args:
        gaps: what the model had to fill in or pass over.
        reference: the development patients.
        validated: sites at which the model was validated.
    """
    told: list[list[str]] = [[] for _ in range(len(table))]
    if not told:
        return told
    _tell_notes(told, cohort, table, kinds={"outside-inclusion"})
    _tell_sites(told, table, known={*reference.sites, *validated, ""})
    _tell_units(told, cohort, table, known={*reference.sites, *validated})
    spoken_of = _tell_modalities(told, table)
    rest = [
        gap._replace(
            filled=tuple(name for name in gap.filled if name not in names),
            unpictured=tuple(name for name in gap.unpictured if name not in names),
        )
        for gap, names in zip(gaps, spoken_of, strict=True)
    ]
    for row, sentences in enumerate(gap_sentences(rest, table)):
        told[row] += sentences
    _tell_range(told, table, reference)
    _tell_caps(told, cohort, table)
    _tell_notes(told, cohort, table, kinds=None)
    return [list(dict.fromkeys(sentences)) for sentences in told]


def _tell_sites(told: list[list[str]], table: FeatureTable, *, known: Collection[str]) -> None:
    """Add a sentence where the site is named but took no part in development or validation."""
    for row, site in enumerate(table.decisions["site"].astype(str)):
        if site not in known:
            told[row].append("This site took no part in developing or validating the model.")


def _tell_units(told: list[list[str]], cohort: Cohort, table: FeatureTable, *, known: Collection[str]) -> None:
    """Add a sentence where the unit of a value hangs on the site, and the site is not one whose units are known."""
    labels = _column_labels(table.catalogue)
    for name, meaning in cohort.columns.items():
        if not isinstance(meaning, ColumnSpec) or not meaning.site_units or name not in labels:
            continue
        present = cohort.values[name].notna().to_numpy()
        for row, site in enumerate(table.decisions["site"].astype(str)):
            if present[row] and site not in known and site not in meaning.site_units:
                unit = meaning.source_unit or meaning.unit
                told[row].append(
                    f"{labels[name]}: sites report it in different units and the site is not a known one; it was read as {unit}."
                )


def _tell_modalities(told: list[list[str]], table: FeatureTable) -> list[set[str]]:
    """Add a sentence where nothing at all of one kind of data is known; return per decision the features it covers."""
    covered: list[set[str]] = [set() for _ in told]
    values = [spec for spec in table.catalogue if spec.role != "indicator"]
    unknown = table.absent([spec.name for spec in values])
    nothing = unknown.all(axis=1)
    for row in np.flatnonzero(nothing):
        told[row].append("Nothing that the model asks for is known: this is the answer for a typical patient.")
        covered[row] |= {spec.name for spec in values}
    for modality in dict.fromkeys(spec.modality for spec in values):
        own = [spec for spec in values if spec.modality == modality]
        rows = unknown[:, [spec.modality == modality for spec in values]].all(axis=1) & ~nothing
        if len(own) == len(values):
            continue
        labels = listed([spec.label for spec in own])
        word = _MODALITY_WORDS.get(modality, modality)
        for row in np.flatnonzero(rows):
            told[row].append(f"No {word} data at all ({labels}): the answer rests on the other data.")
            covered[row] |= {spec.name for spec in own}
    return covered


def _tell_range(told: list[list[str]], table: FeatureTable, reference: Reference) -> None:
    """Add a sentence where a value lies outside what was seen in development."""
    known = [(spec, reference.features.get(spec.name)) for spec in table.catalogue if spec.kind == "numeric"]
    ranges = [(spec, seen.low, seen.high) for spec, seen in known if seen is not None and seen.low is not None]
    names = [spec.name for spec, _, _ in ranges]
    values = table.numbers(names)
    below = values < np.array([low for _, low, _ in ranges], dtype=np.float64)
    above = values > np.array([high for _, _, high in ranges], dtype=np.float64)
    for row, column in zip(*np.nonzero(below | above), strict=True):
        side = "below" if below[row, column] else "above"
        told[row].append(f"{ranges[column][0].label} lies {side} everything seen in the development patients.")


def _tell_caps(told: list[list[str]], cohort: Cohort, table: FeatureTable) -> None:
    """Add a sentence where a value was cut to the study's cap."""
    for spec in table.catalogue:
        meaning = cohort.columns.get(spec.columns[0]) if len(spec.columns) == 1 else None
        if spec.role != "value" or not isinstance(meaning, ColumnSpec) or spec.kind != "numeric":
            continue
        lower, upper = meaning.cap_range
        values = numeric_values(cohort.values, spec.columns[0])
        for side, limit, rows in (
            ("below the model's lower limit", lower, values < (-np.inf if lower is None else lower)),
            ("above the model's upper limit", upper, values > (np.inf if upper is None else upper)),
        ):
            if limit is not None:
                for row in np.flatnonzero(rows):
                    told[row].append(f"{spec.label} is {side} and counts as that limit.")


def _tell_notes(told: list[list[str]], cohort: Cohort, table: FeatureTable, *, kinds: set[str] | None) -> None:
    """Add what the reader met, of these kinds or of all."""
    labels = _column_labels(table.catalogue)
    for note in cohort.notes:
        if note.kind in _SILENT_NOTES or (kinds is not None and note.kind not in kinds):
            continue
        label = labels.get(note.column)
        if note.kind == "unknown-level":
            _tell_unknown_level(told, note.rows, cohort, note.column, label)
            continue
        pattern = _NOTE_SENTENCES.get(note.kind, note.message)
        if label is None and "{label}" in pattern:
            continue
        for row in note.rows or range(len(told)):
            told[row].append(pattern.replace("{label}", label or ""))


def _tell_unknown_level(
    told: list[list[str]], rows: Sequence[int], cohort: Cohort, column: str, label: str | None
) -> None:
    """Add a sentence where an answer was not understood; a category that was kept is the model's to speak of."""
    if label is None or column not in cohort.values:
        return
    lost = cohort.values[column].isna().to_numpy()
    for row in rows:
        if lost[row]:
            told[row].append(f"{label}: the entry is none of the known answers and is treated as not known.")


def _column_labels(catalogue: Sequence[FeatureSpec]) -> dict[str, str]:
    """Return the label of each column that the model uses; of a column that has no feature of its own, its user's."""
    labels: dict[str, str] = {}
    for spec in sorted(catalogue, key=lambda spec: spec.role != "value"):
        for column in spec.columns:
            labels.setdefault(column, spec.label)
    return labels
