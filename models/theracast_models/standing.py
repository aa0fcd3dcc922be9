"""How well a model was validated for the modalities that a patient has, and when that is too little for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from theracast_data.section import Section
from theracast_models.presence import NOTHING, modalities_of
from theracast_models.sentences import listed

WORDS: Mapping[str, str] = {
    "lab": "laboratory values",
    "clinical": "clinical data",
    "genomic": "genomic data",
    "transcriptomic": "gene expression",
    "pathology": "pathology",
    "imaging": "imaging",
    "treatment": "the treatment",
    "patient_reported": "patient-reported data",
    "wearable": "wearable data",
}
"""The modalities as a doctor reads them."""


class FloorSection(Section):
    """Below what the model gives no answer. What is not given is not asked for."""

    auc: float | None = Field(
        None, ge=0.5, le=1, description="Least AUC, validated for the modalities that the patient has."
    )
    auc_lower: float | None = Field(None, ge=0, le=1, description="Least lower bound of its 95 % interval.")
    modalities: int = Field(0, ge=0, description="Least number of modalities of which anything is known.")
    validated: bool = Field(
        False, description="Whether the very pattern of modalities must have been validated, not only one beside it."
    )


@dataclass(frozen=True)
class Standing:
    """What stands behind an answer for one pattern of modalities.

    Attributes:
        pattern: the modalities that the patient has.
        nearest: the validated pattern whose performance is shown; None where none was validated.
        record: its performance, as `validate_patterns` gives it.
        says: a sentence on it.
        abstains: why no answer is given, as a sentence; None where one is.
    """

    pattern: str
    nearest: str | None
    record: Mapping[str, Any] | None
    says: str
    abstains: str | None

    @property
    def exact(self) -> bool:
        """Whether the pattern itself was validated."""
        return self.nearest == self.pattern


def standing(
    pattern: str, validated: Mapping[str, Mapping[str, Any]], *, floor: FloorSection | None = None
) -> Standing:
    """Return the validated performance for a patient with this pattern, and whether it is enough for an answer.

    Args:
        pattern: as `pattern_of` gives it.
        validated: pattern to performance; those without an AUC do not count.
        floor: of the study.
    """
    known = {name: record for name, record in validated.items() if record.get("auc") is not None}
    nearest = nearest_pattern(pattern, known)
    record = None if nearest is None else known[nearest]
    return Standing(pattern, nearest, record, _says(pattern, nearest, record), _below(pattern, nearest, record, floor))


def nearest_pattern(pattern: str, validated: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the validated pattern that speaks for this one; None where there is none.

    The pattern itself; else the one with the most of the patient's modalities among those with no other, for what was
    reached with less may be expected with more; else the one that differs least. Of equals the one of more decisions.
    """
    if pattern in validated:
        return pattern
    here = set(modalities_of(pattern))

    def distance(name: str) -> tuple[bool, int, int, str]:
        there = set(modalities_of(name))
        return bool(there - here), len(there ^ here), -int(validated[name].get("n", 0)), name

    return min(validated, key=distance) if validated else None


def _says(pattern: str, nearest: str | None, record: Mapping[str, Any] | None) -> str:
    if nearest is None or record is None:
        return "How well the model does for patients with such data was not validated."
    figures = (
        f"AUC {record['auc']:.2f}{_interval(record)} in {record['n']} decisions, {record['events']} with the event"
    )
    if nearest == pattern:
        return f"Validated for patients with {_named(pattern)}: {figures}."
    less, more = _difference(pattern, nearest), _difference(nearest, pattern)
    beside = " and ".join(filter(None, [less and f"without {less}", more and f"with {more}"]))
    return f"Not validated for just these data; the nearest that was, {beside}: {figures}."


def _below(
    pattern: str, nearest: str | None, record: Mapping[str, Any] | None, floor: FloorSection | None
) -> str | None:
    if floor is None:
        return None
    have = len(modalities_of(pattern))
    if have < floor.modalities:
        return (
            f"No answer: {_named(pattern)} known, and the study asks for at least {floor.modalities} kinds of data. "
            "Add what is missing."
        )
    if record is None:
        asked = floor.validated or floor.auc is not None or floor.auc_lower is not None
        return "No answer: the model was not validated for patients with such data." if asked else None
    if floor.validated and nearest != pattern:
        return f"No answer: the model was not validated for patients with {_named(pattern)} and nothing else."
    for name, least, title in (("auc", floor.auc, "AUC"), ("auc_low", floor.auc_lower, "lower bound of the AUC")):
        reached = record.get(name)
        if least is not None and (reached is None or reached < least):
            found = "could not be estimated" if reached is None else f"was {reached:.2f}"
            return f"No answer: for such data the validated {title} {found}; the study asks for at least {least:.2f}."
    return None


def _interval(record: Mapping[str, Any]) -> str:
    low, high = record.get("auc_low"), record.get("auc_high")
    return "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f})"


def _named(pattern: str) -> str:
    return "nothing" if pattern == NOTHING else listed([WORDS.get(one, one) for one in modalities_of(pattern)])


def _difference(pattern: str, other: str) -> str:
    return listed([WORDS.get(one, one) for one in modalities_of(pattern) if one not in modalities_of(other)])
