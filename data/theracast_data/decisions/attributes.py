"""Facts about a patient as of a moment: what events say, as cells, which are read as the cells of a table are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.cells import type_column
from theracast_data.cohort import ReadingNote
from theracast_data.decisions.section import AttributeColumn, AttributeSection, ValueCondition
from theracast_data.decisions.selection import Selection
from theracast_data.decisions.windows import DAY, UNDATED, Booleans, Integers, Window, pairs_in_window
from theracast_data.sources import ColumnSpec, OneHotSpec

PAST = Window(None, 0, closed_start=False, closed_end=True)
YEAR = 365.25 * DAY

Cells = npt.NDArray[np.object_]


@dataclass(frozen=True)
class TypedAttributes:
    """The attributes of n decisions.

    Attributes:
        values: name to (n,) float64, or str with NaN, as in `Cohort.values`.
        notes: what was met; rows are positions.
    """

    values: dict[str, npt.NDArray[Any]]
    notes: tuple[ReadingNote, ...]


def type_attributes(
    cells: pd.DataFrame, attributes: Mapping[str, AttributeColumn], specs: Mapping[str, ColumnSpec | OneHotSpec]
) -> TypedAttributes:
    """Return attributes as typed values.

    Args:
        cells: (n, ...) what `attribute_cells` found, by the names of the attributes.
        attributes: the attributes by name.
        specs: what each attribute means as a column (`Inputs.meanings`).
    """
    values: dict[str, npt.NDArray[Any]] = {}
    notes: list[ReadingNote] = []
    for name in attributes:
        spec = specs[name]
        assert isinstance(spec, ColumnSpec)
        typed = type_column(cells[name], spec, missing=())
        values[name] = typed.values
        if typed.unknown:
            kept = "read as not known" if spec.resolved_kind == "boolean" else "kept as they are"
            message = (
                f"attribute {name!r}: events of {len(typed.unknown)} decisions say what is not among its `levels`; "
                f"{kept}. Add it to `levels`."
            )
            notes.append(ReadingNote("unknown-level", name, None, typed.unknown, message))
    return TypedAttributes(values, tuple(notes))


def with_words_for_missing(
    values: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, AttributeColumn]
) -> dict[str, npt.NDArray[Any]]:
    """Return the values with the attribute's own word in place of what is not known, where it has one."""
    words = {name: one.missing for name, one in attributes.items() if one.missing is not None}
    return {
        name: np.where(pd.isna(column), words[name], column) if name in words else column
        for name, column in values.items()
    }


def attribute_cells(selection: Selection, attribute: AttributeColumn, subject: Integers, index: Integers) -> Cells:
    """Return what the events visible at each index time say of the attribute, None where they say nothing.

    Args:
        selection: the events.
        attribute: what is asked.
        subject: (n,) patients as positions in the selection's subjects, -1 for those without events.
        index: (n,) index times, microseconds.
    """
    if attribute.take == "years_since":
        return _years_since(selection, attribute, subject, index)
    return said_at(selection, attribute, subject, index)


def said_at(selection: Selection, section: AttributeSection, subject: Integers, index: Integers) -> Cells:
    """Return what the last visible event says at each index time, None where there is none."""
    arrays = selection.arrays
    decision, event = _visible(selection, selection.of(section), subject, index)
    if section.take == "number":
        numbers = _numbers(selection, section, event)
        said, usable = numbers.astype(object), np.isfinite(numbers)
    elif section.take == "code":
        endings = np.array([code.rsplit("//", 1)[-1] for code in arrays.codes], dtype=object)
        said, usable = endings[arrays.code[event]], np.ones(len(event), np.bool_)
    else:
        said = arrays.texts(event)
        usable = np.array([isinstance(one, str) and bool(one.strip()) for one in said], dtype=np.bool_)
    decision, time, said = decision[usable], arrays.time[event][usable], said[usable]
    # Ties at one moment are broken by what is said, so that the order of the rows decides nothing.
    _, rank = np.unique(said, return_inverse=True)
    order = np.lexsort((rank, time, decision))
    last = order[np.r_[decision[order][1:] != decision[order][:-1], True]] if len(order) else order
    result = np.full(len(index), None, dtype=object)
    result[decision[last]] = said[last]
    return result


def _years_since(selection: Selection, attribute: AttributeColumn, subject: Integers, index: Integers) -> Cells:
    """Return the years from the first visible dated event to each index time."""
    arrays = selection.arrays
    dated = selection.of(attribute) & (arrays.time != UNDATED)
    decision, event = _visible(selection, dated, subject, index)
    first = np.full(len(index), np.iinfo(np.int64).max)
    np.minimum.at(first, decision, arrays.time[event])
    known = np.zeros(len(index), np.bool_)
    known[decision] = True
    result = np.full(len(index), None, dtype=object)
    result[known] = ((index[known] - first[known]) / YEAR).tolist()
    return result


def _visible(
    selection: Selection, chosen: Booleans, subject: Integers, index: Integers
) -> tuple[Integers, npt.NDArray[np.intp]]:
    """Return (decision, event) for the chosen events that had happened and were known."""
    arrays = selection.arrays
    at = np.flatnonzero(chosen)
    decision, event = pairs_in_window(subject, index, arrays.subject[at], arrays.time[at], PAST)
    found = at[event]
    visible = arrays.known[found] <= index[decision]
    return decision[visible], found[visible]


def _numbers(selection: Selection, section: AttributeSection, event: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the numbers of these events in the attribute's unit, NaN where it is not known or not possible."""
    if not isinstance(section, AttributeColumn):
        return selection.arrays.number[event]
    concept = selection.concepts.get(section.concept or "")
    unit = section.unit or (concept.unit if concept is not None else None)
    asked = ValueCondition(
        at_least=0.0, unit=unit, assume_unit=section.assume_unit if unit else None, quantity=section.quantity
    )
    distinct, place = np.unique(event, return_inverse=True)
    numbers = selection.numbers_at(distinct, section, asked)
    if concept is not None and concept.plausible is not None and concept.unit == unit:
        low, high = concept.plausible
        numbers = np.where((numbers >= low) & (numbers <= high), numbers, np.nan)
    return np.asarray(numbers[place], dtype=np.float64)
