"""What names look like to people: labels made from names, and the nearest name for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ABBREVIATIONS = """
    ALK ALP ALT AST BMI BRAF BRCA1 BRCA2 CNA CRP CT CTLA-4 DNA ECOG EGFR ER FCNA HED HER2 HGB HLA HR KRAS LDH LOH MRI
    MSAF MSI NLR PD-1 PD-L1 PLR PR QoL RNA TIL TMB TP53 TPS WBC
"""
_WRITTEN = {name.lower().replace("-", ""): name for name in _ABBREVIATIONS.split()}


def label_from_name(name: str) -> str:
    """Return a name as a person would write it: `pdl1_tps` gives `PD-L1 TPS`, `albumin` gives `Albumin`."""
    words = [_WRITTEN.get(word, word) for word in name.split("_") if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known name resembles this one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
