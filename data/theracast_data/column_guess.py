"""What the columns of an unknown table probably are: the guesses behind a drafted study file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from theracast_data.cells import MissingCodes, type_times
from theracast_data.modality import Modality
from theracast_data.sources import snake_case
from theracast_data.spelling import cell_key, cell_text, is_empty, parse_number

_MISSING_TEXT = (
    ". ? - -- ne nd nk unk unknown missing notdone notavailable notevaluable notapplicable toosmalltomeasure"
)
MISSING_WORDS = frozenset(_MISSING_TEXT.split())
_SENTINELS = frozenset({-1.0, -8.0, -9.0, -99.0, -999.0, 99.0, 999.0, 9999.0})
_YES, _NO = {"yes", "y", "true", "positive", "pos"}, {"no", "n", "false", "negative", "neg"}
_OUTCOME_TEXT = (
    "response responder resp recist bcor bor orr dcr pcr rcb outcome remission relapse recurrence "
    "os pfs dfs efs rfs ttp dor ttf survival died dead death deceased vital "
    "event cnsr censor censored cens progression progressed followup"
)
_OUTCOME_PART = re.compile(r"^(os|pfs|dfs|efs)\d|discharge|mortality|surviv")
BARE_OUTCOMES = frozenset({"time", "status", "futime", "fustat"})
_OUTCOME = frozenset(_OUTCOME_TEXT.split())
_MODALITY_WORDS: tuple[tuple[Modality, str], ...] = (
    ("treatment", "arm drug chemo dose regimen treatment trt therapy line cycles taxane"),
    ("transcriptomic", "rna tpm expression gsva ssgsea signature danaher tide"),
    (
        "genomic",
        "tmb btmb msi hla loh mut mutation mutations mutated cnv fcna hed hrd kras egfr alk tp53 dna allele",
    ),
    ("pathology", "pdl1 ihc grade histology hist ki67 er pr her2 hr tps cps stain biopsy"),
    ("imaging", "mri ct pet suv volume sphericity lesion diameter image radiomic bpe"),
    ("patient_reported", "qol pain fatigue eortc promis questionnaire"),
    ("wearable", "steps actigraphy heartrate sleep"),
)
MAX_LEVELS = 30

ColumnKind = Literal["numeric", "boolean", "categorical", "time", "text", "constant", "empty"]


@dataclass(frozen=True)
class ColumnGuess:
    """What one raw column seems to be.

    Attributes:
        levels: different cells in the order of their frequency, for categories and flags.
        missing: text cells that seem to mean `not known`.
        limits: text cells such as `<5` in a column of numbers.
        sentinels: numbers such as -99 that may mean `not known`.
        distinct: number of different cells.
        known: number of cells that say something.
        median: of the numbers.
    """

    header: str
    kind: ColumnKind
    levels: tuple[Any, ...] = ()
    missing: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    sentinels: tuple[float, ...] = ()
    distinct: int = 0
    known: int = 0
    median: float = float("nan")
    words: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_outcome(self) -> bool:
        """Whether the header speaks of what happens after the decision."""
        plain = self.header.lower()
        return bool(self.words & _OUTCOME) or plain in BARE_OUTCOMES or bool(_OUTCOME_PART.search(plain))

    @property
    def modality(self) -> Modality:
        """Modality by the words of the header."""
        for modality, words in _MODALITY_WORDS:
            if self.words & set(words.split()):
                return modality
        if any(word.endswith("mut") for word in self.words):
            return "genomic"
        return "clinical"


def guess_column(header: str, cells: pd.Series, *, decimal: str = ".") -> ColumnGuess:
    """Return what a raw column seems to be."""
    words = header_words(header)
    codes = MissingCodes()
    counts = Counter(cell for cell in map(_plain, cells.tolist()) if not is_empty(cell) and cell not in codes)
    texts_only = [cell for cell in counts if isinstance(cell, str)]
    missing = tuple(cell for cell in texts_only if cell_key(cell) in MISSING_WORDS)
    counts = Counter({cell: count for cell, count in counts.items() if cell not in missing})
    known = sum(counts.values())
    shared: dict[str, Any] = {"missing": missing, "distinct": len(counts), "known": known, "words": words}
    if not counts:
        return ColumnGuess(header, "empty", **shared)
    numbers = {cell: number for cell in counts if (number := _number(cell, decimal)) is not None}
    texts = [cell for cell in counts if cell not in numbers]
    if numbers and sum(counts[cell] for cell in numbers) >= 0.8 * known and len(texts) <= 10:
        return _guess_numbers(header, counts, numbers, texts, shared)
    if all(type_times(pd.Series([cell], dtype=object)).unreadable == () for cell in list(counts)[:50]):
        return ColumnGuess(header, "time", **shared)
    levels = tuple(cell for cell, _ in counts.most_common())
    if len(counts) == 1:
        return ColumnGuess(header, "constant", levels=levels, **shared)
    keys = {cell_key(cell) for cell in counts}
    if keys <= _YES | _NO and keys & _YES and keys & _NO:
        return ColumnGuess(header, "boolean", levels=levels, **shared)
    if len(counts) > MAX_LEVELS or len(counts) * 2 > known > 10:
        return ColumnGuess(header, "text", **shared)
    return ColumnGuess(header, "categorical", levels=levels, **shared)


def header_words(header: str) -> frozenset[str]:
    """Return the words of a header, split at punctuation and at changes of case."""
    camel = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", header)
    return frozenset({word.lower() for word in camel} | set(snake_case(header).split("_")))


def one_hot_groups(frame: pd.DataFrame, guesses: Sequence[ColumnGuess]) -> dict[str, list[str]]:
    """Return prefix to columns: at least three 0/1 columns sharing a prefix; each row has a 1 in one of them."""
    groups: dict[str, list[str]] = {}
    for guess in guesses:
        if guess.kind in ("boolean", "constant") and {cell_text(level) for level in guess.levels} <= {"0", "1"}:
            stem = re.fullmatch(r"(.*?[^\d._ -])[._ -]*\d+|(.+)[._ -][^._ -]+", guess.header)
            if stem is not None:
                groups.setdefault(stem.group(1) or stem.group(2), []).append(guess.header)
    found = {}
    for prefix, headers in groups.items():
        if len(headers) < 3:
            continue
        ones = frame[headers].map(lambda cell: cell_key(cell) == "1").sum(axis=1)
        if ones.max() == 1 and (ones == 1).mean() >= 0.95:
            found[prefix] = headers
    return found


def text_twin(frame: pd.DataFrame, headers: Sequence[str], guesses: Sequence[ColumnGuess]) -> dict[str, str] | None:
    """Return the category of each one-hot column by a text column that says the same; its header under ``""``."""
    hot = frame[list(headers)].map(lambda cell: cell_key(cell) == "1")
    which = hot.idxmax(axis=1).where(hot.any(axis=1))
    for guess in guesses:
        if (
            guess.kind != "categorical"
            or guess.distinct < 2
            or not all(isinstance(level, str) for level in guess.levels)
        ):
            continue
        pairs = pd.DataFrame({"column": which, "text": frame[guess.header]}).dropna().drop_duplicates()
        if len(pairs) == pairs["column"].nunique() == pairs["text"].nunique() and len(pairs) >= 2:
            return {"": guess.header} | {str(row.column): str(row.text).strip() for row in pairs.itertuples()}
    return None


def _guess_numbers(
    header: str, counts: Counter[Any], numbers: dict[Any, float], texts: list[Any], shared: dict[str, Any]
) -> ColumnGuess:
    values = np.repeat(list(numbers.values()), [counts[cell] for cell in numbers])
    different = sorted(set(numbers.values()))
    shared = shared | {"limits": tuple(str(cell) for cell in texts), "median": float(np.median(values))}
    if len(different) == 1 and not texts:
        return ColumnGuess(header, "constant", levels=(_whole(different[0]),), **shared)
    if set(different) <= {0.0, 1.0}:
        return ColumnGuess(header, "boolean", levels=(0, 1), **shared)
    if different == [-1.0, 1.0]:
        return ColumnGuess(header, "boolean", levels=(-1, 1), **shared)
    levels = tuple(_whole(number) for number in different) if len(different) <= 6 else ()
    return ColumnGuess(header, "numeric", levels=levels, sentinels=_sentinels(different), **shared)


def _sentinels(different: list[float]) -> tuple[float, ...]:
    """Return numbers such as -99 that stand far from all others."""
    found = []
    for number in (different[0], different[-1]):
        rest = [other for other in different if other != number]
        far = rest and (number < 0 <= rest[0] or number > 5 * max(rest[-1], 1.0))
        if number in _SENTINELS and far:
            found.append(number)
    return tuple(found)


def _plain(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else cell


def _number(cell: Any, decimal: str) -> float | None:
    if isinstance(cell, str):
        return parse_number(cell, decimal)
    return float(cell) if isinstance(cell, (bool, int, float, np.number)) else None


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number
