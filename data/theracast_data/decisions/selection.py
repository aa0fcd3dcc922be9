"""Which events a selector of the study means: by code, number and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from theracast_data.decisions.section import EventSelector, ValueCondition
from theracast_data.decisions.windows import Booleans, EventArrays
from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_data.units import UnitError, convert


@dataclass
class Selection:
    """Events of one shard, the study's concepts, and what could not be decided on the way.

    Attributes:
        notes: words to the number of events concerned; never a patient's value.
    """

    arrays: EventArrays
    concepts: Mapping[str, Concept] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def of(self, selector: EventSelector) -> Booleans:
        """Return which events the selector means, (n,).

        Raises:
            StudyError: the selector names a concept that the study does not have.
        """
        concept = self._concept(selector)
        wanted = concept.codes if concept is not None else selector.codes
        chosen = self.coded(wanted)
        if selector.texts:
            allowed = {text.casefold() for text in selector.texts}
            at = np.flatnonzero(chosen)
            chosen[at] = [
                isinstance(text, str) and text.strip().casefold() in allowed for text in self.arrays.texts(at)
            ]
        if selector.value is not None:
            at = np.flatnonzero(chosen)
            name = selector.concept or wanted[0]
            chosen[at] = _meets(self._numbers(at, selector.value, concept, name), selector.value)
        return chosen

    def coded(self, patterns: tuple[str, ...]) -> Booleans:
        """Return which events have one of these codes, (n,)."""
        per_code = np.array([matching(code, patterns) is not None for code in self.arrays.codes], dtype=np.bool_)
        return np.asarray(per_code[self.arrays.code], dtype=np.bool_)

    def numbers(self, selector: EventSelector) -> npt.NDArray[np.float64]:
        """Return the numbers of these events in the unit of their concept, (n,); NaN elsewhere and where not known."""
        concept = self._concept(selector)
        result = np.full(len(self.arrays), np.nan)
        at = np.flatnonzero(self.of(selector))
        condition = selector.value or ValueCondition(at_least=0.0)
        result[at] = self._numbers(at, condition, concept, selector.concept or selector.codes[0])
        return result

    def numbers_at(
        self, at: npt.NDArray[np.intp], selector: EventSelector, condition: ValueCondition
    ) -> npt.NDArray[np.float64]:
        """Return the numbers of the events at these positions in the unit of the condition; NaN where not known."""
        return self._numbers(at, condition, self._concept(selector), selector.concept or selector.codes[0])

    def _concept(self, selector: EventSelector) -> Concept | None:
        if selector.concept is None:
            return None
        if selector.concept not in self.concepts:
            raise StudyError(
                f"the concept {selector.concept!r} is not declared; add it under `concepts`, or give `codes` "
                f"(declared: {', '.join(sorted(self.concepts)) or 'none'})"
            )
        return self.concepts[selector.concept]

    def _numbers(
        self, at: npt.NDArray[np.intp], condition: ValueCondition, concept: Concept | None, name: str
    ) -> npt.NDArray[np.float64]:
        """Return the numbers of the events at these positions in the unit of the condition, NaN where not known."""
        numbers = self.arrays.number[at].copy()
        unit = condition.unit or (concept.unit if concept is not None else None)
        if unit is None:
            return numbers
        assumed = condition.assume_unit or (concept.assume_unit if concept is not None else None)
        quantity = condition.quantity or (concept.quantity if concept is not None else None)
        written = np.array([one or assumed or "" for one in self.arrays.units(at)], dtype=object)
        for source in sorted(set(written)):
            here = (written == source) & np.isfinite(numbers)
            if not here.any():
                continue
            if not source:
                self.notes[f"{name}: no unit given, so not compared; say `assume_unit`"] += int(here.sum())
                numbers[here] = np.nan
                continue
            try:
                numbers[here] = _converted(numbers[here], source, unit, quantity=quantity, name=name)
            except UnitError:
                self.notes[f"{name}: cannot be converted from {source} to {unit}, so not compared"] += int(here.sum())
                numbers[here] = np.nan
        return numbers


def matching(code: str, patterns: tuple[str, ...]) -> str | None:
    """Return the pattern that fits a code best: itself, else the longest with a wildcard; None where none fits."""
    if code in patterns:
        return code
    fitting = [pattern for pattern in patterns if pattern.endswith("*") and code.startswith(pattern[:-1])]
    return max(fitting, key=len, default=None)


def treatment_names(codes: tuple[str, ...], treatment: Mapping[str, str] | str | None) -> list[str]:
    """Return the treatment that each code stands for; the code itself where nothing is said."""
    if isinstance(treatment, str):
        return [treatment] * len(codes)
    named = dict(treatment or {})
    found = [matching(code, tuple(named)) for code in codes]
    return [code if pattern is None else named[pattern] for code, pattern in zip(codes, found, strict=True)]


def _converted(
    numbers: npt.NDArray[np.float64], source: str, unit: str, *, quantity: str | None, name: str
) -> npt.NDArray[np.float64]:
    if source == unit:
        return numbers
    try:
        return convert(numbers, source, unit, quantity=name)
    except UnitError:
        if quantity is None:
            raise
        from theracast_data.events.molar import analyte_factor

        return numbers * analyte_factor(source, unit, quantity=quantity)


def _meets(numbers: npt.NDArray[np.float64], condition: ValueCondition) -> Booleans:
    """Return which numbers keep all limits; an unknown number keeps none."""
    meets = ~np.isnan(numbers)
    if condition.below is not None:
        meets &= numbers < condition.below
    if condition.at_most is not None:
        meets &= numbers <= condition.at_most
    if condition.above is not None:
        meets &= numbers > condition.above
    if condition.at_least is not None:
        meets &= numbers >= condition.at_least
    return meets
