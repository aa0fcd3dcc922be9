"""The kinds of data that models and explanations are grouped by."""

from __future__ import annotations

from typing import Literal

Modality = Literal[
    "clinical", "lab", "genomic", "transcriptomic", "pathology", "imaging", "treatment", "patient_reported", "wearable"
]

MODALITY_PREFIX: dict[Modality, str] = {
    "clinical": "clin",
    "lab": "lab",
    "genomic": "gen",
    "transcriptomic": "rna",
    "pathology": "path",
    "imaging": "image",
    "treatment": "treat",
    "patient_reported": "pro",
    "wearable": "wear",
}
