"""Values without their identity: dates shifted in every form they are written in, text without names and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

CUT = "[cut]"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"(?:{'|'.join(_MONTHS)})[a-z]*"
_DA = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")
_DT = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})((?:\d{2}){0,3}(?:\.\d{1,6})?))?)?([+-]\d{4})?")
_TM = re.compile(r"\d{2}:?(\d{2}:?(\d{2}(\.\d{1,6})?)?)?|[+-]\d{4}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_NUMBERS = re.compile(rb"[0-9eE+\-. \\\0]*")
# Titles, and what studies and phantoms write for a name; to cut these words out would take anatomy out of the headers.
_NOT_NAMES = frozenset(
    {
        "dr",
        "mr",
        "mrs",
        "ms",
        "md",
        "phd",
        "prof",
        "jr",
        "sr",
        "ii",
        "iii",
        "anonymous",
        "anonymized",
        "patient",
        "phantom",
    }
    | {"test", "unknown", "none", "removed", "head", "neck", "brain", "breast", "chest", "lung", "liver", "abdomen"}
    | {"pelvis", "prostate", "spine", "mri", "ct", "pet", "pilot", "study", "trial", "research", "siemens", "philips"}
    | {"toshiba", "canon", "ge", "hitachi"}
)
_SUSPECT = re.compile(
    r"(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://\S+)"
    r"|(?P<uid>\b\d+(?:\.\d+){4,})"
    r"|(?P<iso>(?<!\d)(?:18|19|20)\d{2}(?P<between>[-./])(?:0?[1-9]|1[0-2])(?P=between)(?:0?[1-9]|[12]\d|3[01])(?!\d))"
    r"|(?P<compact>(?<!\d)(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d))"
    rf"|(?P<words>(?<!\d)\d{{1,2}}[-. ]{{0,2}}{_MONTH}[-., ]{{0,2}}(?:(?:18|19|20)\d{{2}}|\d{{2}})(?!\d)"
    rf"|(?<![A-Za-z]){_MONTH}[-. ]{{0,2}}\d{{1,2}}(?:st|nd|rd|th)?[-., ]{{1,2}}(?:18|19|20)\d{{2}}(?!\d))"
    r"|(?P<short>(?<!\d)\d{1,2}(?P<slash>[-./])\d{1,2}(?P=slash)(?:\d{4}|\d{2})(?!\d))"
    r"|(?P<digits>\d(?:[ -]?\d){5,})",
    re.IGNORECASE,
)


def shift_date(text: str, *, days: int) -> str | None:
    """Return a DA value (`YYYYMMDD`, or the older `YYYY.MM.DD`) moved by `days`, or None if it is not a date."""
    found = _DA.fullmatch(text.strip())
    if not found:
        return None
    year, dot, month, day = found.groups()
    moved = _moved(int(year), int(month), int(day), days)
    return _written(moved, dot) if moved else None


def shift_datetime(text: str, *, days: int) -> str | None:
    """Return a DT value moved by `days`, its time and its offset from UTC untouched, or None if it is not one.

    A value of a month or a year stays as coarse as it was; it is taken as its first day.
    """
    found = _DT.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, time, offset = found.groups()
    moved = _moved(int(year), int(month or 1), int(day or 1), days)
    if moved is None:
        return None
    written = _written(moved, "")[: 8 if day else 6 if month else 4]
    return written + (time or "") + (offset or "")


def is_time(text: str) -> bool:
    """Return whether a text is a TM value, or an offset from UTC."""
    return bool(_TM.fullmatch(text.strip()))


def is_numbers(raw: bytes) -> bool:
    """Return whether the bytes of a DS or IS element are numbers and nothing else."""
    return bool(_NUMBERS.fullmatch(raw))


def capped_age(text: str, *, cap: bool) -> str | None:
    """Return an AS value; 090Y for all ages over 89 years if `cap`, or None if it is not an age.

    Source: 45 CFR 164.514(b)(2)(i)(C), ages over 89 as one category of 90 or older.
    """
    found = _AGE.fullmatch(text.strip())
    if not found:
        return None
    return "090Y" if cap and found[2] == "Y" and int(found[1]) > 89 else found[0]


@dataclass(frozen=True)
class Identity:
    """The words that point to one patient, gathered over all files of this patient before the first one is written.

    Attributes:
        names: parts of person names, of the patient and of those who treated them.
        numbers: identifiers as they stand: patient, accession, admission, order.
        phrases: addresses, institutions and the like, matched as a whole.
    """

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    phrases: frozenset[str] = frozenset()

    def __or__(self, other: Identity) -> Identity:
        return Identity(self.names | other.names, self.numbers | other.numbers, self.phrases | other.phrases)

    def cut(self, text: str, *, shortest: int = 2) -> str:
        """Return the text with every word of the identity of at least `shortest` characters cut out."""
        pattern = self._loose if shortest < 4 else self._strict
        return pattern.sub(CUT, text) if pattern else text

    def is_one(self, text: str) -> bool:
        """Return whether the whole text is a name or an identifier."""
        return text.strip().casefold() in self._whole

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """The names and identifiers to look for in the bytes of a finished file; short ones occur by chance."""
        words = [word for word in self.names | self.numbers if len(word) >= 6 and not word.isdigit()]
        return tuple({form for word in words for form in (word.encode(), word.encode("latin-1", "ignore")) if form})

    @cached_property
    def digits(self) -> tuple[bytes, ...]:
        """The identifiers of digits alone, to look for in compressed frames; among numbers of a header they say nothing."""
        return tuple(word.encode() for word in self.numbers if len(word) >= 6 and word.isdigit())

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(word.casefold() for word in self.names | self.numbers | self.phrases if len(word) > 2)

    @cached_property
    def _loose(self) -> re.Pattern[str] | None:
        return _pattern(self.names | self.numbers | self.phrases, shortest=2)

    @cached_property
    def _strict(self) -> re.Pattern[str] | None:
        return _pattern(self.names | self.numbers | self.phrases, shortest=4)


def clean_text(text: str, *, identity: Identity, days: int) -> str:
    """Return free text without the patient's identity: names and numbers cut, unambiguous dates shifted by `days`.

    Dates with the year first or the month in words are shifted and written in the same form. Others (12/03/01), UIDs,
    mail and web addresses and numbers of six and more digits are cut.
    """
    return _SUSPECT.sub(lambda found: _replaced(found, days), identity.cut(text))


def name_parts(name: str) -> Iterable[str]:
    """Return the parts of a PN value (all component groups) that can stand alone in a text."""
    parts = re.split(r"[\^=,;\s]+", name)
    parts += [half for part in parts if "-" in part for half in part.split("-") if len(half) > 3]
    return [part for part in parts if len(part) > 1 and part.strip(".").casefold() not in _NOT_NAMES]


def tells(word: str) -> bool:
    """Return whether an identifier or phrase is long and peculiar enough to be looked for in other text."""
    return len(word) > 3 and word.casefold() not in _NOT_NAMES


def _replaced(found: re.Match[str], days: int) -> str:
    text = found[0]
    if found["iso"]:
        separator = found["between"]
        year, month, day = (int(part) for part in text.split(separator))
        moved = _moved(year, month, day, days)
        return _written(moved, separator) if moved else CUT
    if found["compact"]:
        return shift_date(text, days=days) or CUT
    if found["words"]:
        return _shift_words(text, days) or CUT
    return CUT


def _shift_words(text: str, days: int) -> str | None:
    """Return `12 Mar 2001` or `March 12, 2001` moved, as `DD Mon YYYY`; None if it is no date or has a short year."""
    month_found = re.search("|".join(_MONTHS), text, re.IGNORECASE)
    numbers = re.findall(r"\d+", text)
    if month_found is None or len(numbers) != 2 or len(numbers[1]) != 4:
        return None
    moved = _moved(int(numbers[1]), _MONTHS.index(month_found[0].lower()) + 1, int(numbers[0]), days)
    return f"{moved.day:02d} {_MONTHS[moved.month - 1].title()} {moved.year}" if moved else None


def _moved(year: int, month: int, day: int, days: int) -> date | None:
    try:
        return date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def _written(day: date, separator: str) -> str:
    return f"{day.year:04d}{separator}{day.month:02d}{separator}{day.day:02d}"


def _pattern(words: Iterable[str], *, shortest: int) -> re.Pattern[str] | None:
    """Return what finds the words: short ones and numbers as whole words only, words of five letters also inside others."""
    parts = []
    for word in sorted({word for word in words if len(word) >= shortest}, key=len, reverse=True):
        escaped = re.escape(word)
        alone = len(word) < 5 or word.isdigit()
        parts.append(rf"(?<![^\W_]){escaped}(?![^\W_])" if alone else escaped)
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None
