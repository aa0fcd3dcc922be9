"""Cohorts from tables: a study's sheets and sources for training, one wide table for scoring, by the same rules."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc

from theracast_data.cells import subject_ids
from theracast_data.cohort import AttritionStep, Cohort, ReadingNote
from theracast_data.columns import include_rows, include_text, type_table
from theracast_data.decided import DecidedRows, decided_rows, outcomes_of_events, seen_as_decided, with_asked_events
from theracast_data.endpoint_values import endpoint_columns, read_endpoints
from theracast_data.endpoints import Endpoint, event_endpoints, table_endpoints
from theracast_data.errors import CohortError, SchemaError
from theracast_data.events.access import EVENTS_COLUMN, KEY, CohortEvents, events_of_cells, given_events, stored_events
from theracast_data.files import read_file, read_raw
from theracast_data.join import Joined, join_source
from theracast_data.paths import resolve_path
from theracast_data.rows import attrition_steps, decision_columns, site_of_rows
from theracast_data.source_read import SheetRead, SourceRead, header_hint, read_source
from theracast_data.sources import Cell, Inputs, TableSource
from theracast_data.spelling import Headers, listed

__all__ = ["cohort_from_frame", "read_cohort", "read_file", "read_raw"]

logger = logging.getLogger(__name__)

_FATAL = {"unreadable-value", "duplicate-subject", "repeated-header"}


def read_cohort(inputs: Inputs, endpoints: Sequence[Endpoint], *, base: Path, strict: bool = True) -> Cohort:
    """Return the decisions with the columns of all sources and the endpoints.

    The decisions follow from the events where the study says how (`decisions`), else they are the rows of the first source.

    Args:
        base: folder of the study file, to which paths are relative.
        strict: cells that cannot be read, patients in several rows and columns that no sheet has are an error;
            else they are missing, kept, and missing, each with a note.

    Raises:
        StudyError: an environment variable in a path is not set.
        CohortError: no patient is left.
        SchemaError: a file or sheet cannot be read; or, with all faults in one message, the tables are not what the
            study says.
    """
    faults: list[str] = []
    read = [read_source(source, base, faults) for source in inputs.sources]
    if faults:
        raise _schema_error(faults)
    events: CohortEvents | None = None
    if inputs.events is not None:
        folder = resolve_path(inputs.events.store, base=base)
        events = stored_events(folder, inputs.events)
    if inputs.decisions is not None and events is not None:
        rows, others = decided_rows(inputs, endpoints, events, store=folder), read
        joined = [join_source(rows, other, faults, among="among the decisions") for other in others]
    else:
        rows, others = _table_rows(read[0]), read[1:]
        joined = [join_source(rows, other, faults) for other in others]
    notes = [*rows.notes, *(note for one in joined for note in one.notes)]
    absent_notes, absent = _absent(read, everyone=list(dict.fromkeys(rows.sites)))
    asked_of_tables = table_endpoints(endpoints)
    raw: list[SourceRead | Joined] = [*joined] if inputs.decisions is not None else [read[0], *joined]
    endpoint_raw, endpoint_missing, endpoint_notes = _endpoint_raw(asked_of_tables, raw, len(rows.subjects))
    derived = read_endpoints(endpoint_raw, asked_of_tables, missing=endpoint_missing)
    if strict:
        faults += [
            _fault_text(sheet, note)
            for one in read
            for sheet in one.sheets
            for note in sheet.notes
            if note.kind in _FATAL
        ]
        faults += [note.message for note in (*absent_notes, *derived.notes)]
    if faults:
        raise _schema_error(faults)
    values = dict(rows.values)
    for one in joined:
        values |= one.values
    cohort = Cohort(
        decisions=rows.decisions,
        values=_value_frame(values, len(rows.subjects)),
        endpoints=pd.concat([derived.frame, rows.endpoints], axis=1),
        columns=inputs.meanings,
        attrition=rows.attrition,
        notes=(*notes, *absent_notes, *endpoint_notes, *derived.notes),
        absent=absent,
    )
    if events is not None:
        cohort = _with_stored_events(cohort, events, inputs, endpoints)
    logger.info("%d decisions at %d sites read, %d rows left out", len(cohort), len(cohort.sites), _dropped(cohort))
    return cohort


def _table_rows(first: SourceRead) -> DecidedRows:
    """Return the decisions of a table.

    Raises:
        CohortError: no patient is left.
    """
    if not len(first.subjects):
        reasons = listed([f"{step.dropped} {step.reason}" for sheet in first.sheets for step in sheet.rows.attrition])
        raise CohortError(
            f"{first.source.path}: no patient is left ({reasons or 'the table has no rows'}). Mend `include`."
        )
    decisions = {
        name: np.concatenate([sheet.decisions[name] for sheet in first.sheets]) for name in first.sheets[0].decisions
    }
    return DecidedRows(
        decisions=_decision_frame(first.subjects, first.sites, decisions),
        values={name: first.stacked(name) for name in first.source.meanings},
        endpoints=pd.DataFrame(index=pd.RangeIndex(len(first.subjects))),
        attrition=tuple(step for sheet in first.sheets for step in sheet.rows.attrition),
        notes=tuple(first.notes),
    )


def _with_stored_events(cohort: Cohort, events: CohortEvents, inputs: Inputs, endpoints: Sequence[Endpoint]) -> Cohort:
    """Return the cohort with its events and, where a table made its decisions, the endpoints that come from events."""
    if inputs.decisions is not None:
        return replace(cohort, events=seen_as_decided(events, inputs.decisions))
    keyed = cohort.decisions.assign(**{KEY: cohort.decisions["subject_id"]})
    cohort = replace(cohort, decisions=keyed, events=events)
    if not event_endpoints(endpoints):
        return cohort
    return replace(cohort, endpoints=pd.concat([cohort.endpoints, outcomes_of_events(cohort, endpoints)], axis=1))


def cohort_from_frame(
    frame: pd.DataFrame,
    inputs: Inputs,
    *,
    endpoints: Sequence[Endpoint] = (),
    site: str | None = None,
    require_subject: bool = False,
) -> Cohort:
    """Return the decisions of one wide raw table, as it arrives for scoring or external validation.

    Columns of all sources are looked up by header, aliases, name inside Theracast, and a spelling that differs in case
    or punctuation alone. What is absent or unreadable is missing, with a note. The sources' `include` is applied when
    endpoints are asked for (the rows are then a cohort to validate on), and only noted otherwise.

    Args:
        frame: (n, ...) raw cells.
        site: site of rows for which the table names none.
        require_subject: whether a table without patient ids is an error; else ids are the row numbers.

    Raises:
        SchemaError: a header stands twice, patient ids are required and not there, or the endpoints cannot be derived.
    """
    frame = _plain(frame)
    tables = inputs.tables
    first = tables[0]
    claimed = {header for source in tables for header in (*source.columns, source.subject)}
    headers = Headers(frame.columns, claimed=claimed)
    subjects, notes = _scored_subjects(frame, inputs, headers, required=require_subject)
    attrition: list[AttritionStep] = []
    sites = site_of_rows(frame, first, headers, default=site or "")
    sites[sites == ""] = site or ""
    keep, outside = _included(frame, inputs, headers, sites)
    if endpoints:
        attrition += outside
        rows = np.flatnonzero(keep)
        frame, subjects, sites = frame.iloc[rows], subjects[rows], sites[rows]
    elif not keep.all():
        rules = " and ".join(step.reason for step in outside)
        message = f"rows would not have been part of the study: {rules}."
        notes.append(
            ReadingNote("outside-inclusion", first.subject, None, tuple(np.flatnonzero(~keep).tolist()), message)
        )
    values: dict[str, npt.NDArray[Any]] = {}
    absent: set[str] = set()
    for source in tables:
        typed = type_table(frame, source, sites, headers=headers, by_name=True)
        values |= typed.values
        notes += typed.notes
        if inputs.decisions is None or source is not first:  # attributes are there as events
            notes += [_absent_when_scoring(name) for name in sorted(typed.absent)]
            absent |= typed.absent
    decisions, decision_notes = decision_columns(frame, first, headers)
    missing = {
        header: codes for source in reversed(tables) for header, codes in _missing_by_header(source, endpoints).items()
    }
    outcome = {
        header: frame[found.header].tolist()
        for header in endpoint_columns(endpoints)
        if (found := headers.find(header))
    }
    told = pd.DataFrame(outcome, index=range(len(frame)), dtype=object)
    derived = read_endpoints(told, table_endpoints(endpoints), missing=missing)
    faults = [note.message for note in derived.notes if note.kind != "unreadable-value"]
    if faults:
        raise _schema_error(faults)
    cohort = Cohort(
        decisions=_decision_frame(subjects, sites, decisions),
        values=_value_frame(values, len(frame)),
        endpoints=derived.frame,
        columns=inputs.meanings,
        attrition=tuple(attrition),
        notes=(*notes, *decision_notes, *derived.notes),
        absent={one: frozenset(absent) for one in dict.fromkeys(sites)} if absent else {},
    )
    return cohort if inputs.events is None else _with_given_events(cohort, frame, inputs, endpoints)


def _with_given_events(cohort: Cohort, frame: pd.DataFrame, inputs: Inputs, endpoints: Sequence[Endpoint]) -> Cohort:
    """Return the cohort with the events in the rows' own `events` cells, and what follows from them.

    A decision without index time is asked now: all that its row tells is known, up to the latest event.
    """
    assert inputs.events is not None
    concepts = inputs.events.concepts
    cells = frame[EVENTS_COLUMN].tolist() if EVENTS_COLUMN in frame.columns else [None] * len(cohort)
    events, faults = events_of_cells(cells)
    keyed = cohort.decisions.assign(**{KEY: [str(row) for row in range(len(cohort))]})
    if inputs.decisions is None and keyed["index_time"].isna().any():
        known = pc.max_element_wise(events["time"], events["available_time"]).to_pandas()
        latest = known.groupby(events["subject_id"].to_pandas()).max().reindex(keyed[KEY])
        keyed["index_time"] = keyed["index_time"].fillna(pd.Series(latest.to_numpy(), index=keyed.index))
    notes = tuple(
        ReadingNote("unreadable-value", EVENTS_COLUMN, None, (row,), f"{EVENTS_COLUMN}: {fault}")
        for row, fault in faults.items()
    )
    misread = [row for note in cohort.notes if note.column == "index_time" for row in note.rows]
    if misread:
        message = "The moment of the question could not be read; it is asked as of the latest fact."
        notes = (*notes, ReadingNote("asked-now", EVENTS_COLUMN, None, tuple(misread), message))
    cohort = replace(cohort, decisions=keyed, events=given_events(events, concepts), notes=(*cohort.notes, *notes))
    if inputs.decisions is not None:
        cohort = with_asked_events(cohort, events, inputs)
    if event_endpoints(endpoints):
        outcomes = outcomes_of_events(cohort, endpoints)
        cohort = replace(cohort, endpoints=pd.concat([cohort.endpoints, outcomes], axis=1))
    if inputs.decisions is not None and cohort.events is not None:
        cohort = replace(cohort, events=seen_as_decided(cohort.events, inputs.decisions))
    return cohort


def _absent(
    read: Sequence[SourceRead], *, everyone: Sequence[str]
) -> tuple[list[ReadingNote], dict[str, frozenset[str]]]:
    """Return a note for each column that no sheet has, and the columns that single sites of `everyone` lack."""
    notes: list[ReadingNote] = []
    by_site: dict[str, set[str]] = {}
    for one in read:
        everywhere = frozenset.intersection(*(sheet.typed.absent for sheet in one.sheets))
        lacking: dict[str, frozenset[str]] = {}
        for sheet in one.sheets:
            for site in dict.fromkeys(sheet.rows.sites):
                lacking[site] = lacking.get(site, sheet.typed.absent) & sheet.typed.absent
        for site in everyone:
            by_site.setdefault(site, set()).update(lacking.get(site, everywhere))
        raw_names = {spec_name: raw for raw, spec_name in _raw_names(one.source)}
        headers = Headers(dict.fromkeys(name for sheet in one.sheets for name in sheet.headers.names))
        for name in sorted(everywhere):
            raw = raw_names.get(name, name)
            file = Path(one.source.path).name
            message = f"{file}: no sheet has the column {raw!r}.{header_hint(headers, raw, one.source)}"
            notes.append(ReadingNote("absent-column", name, None, (), message))
    return notes, {site: frozenset(names) for site, names in by_site.items() if names}


def _raw_names(source: TableSource) -> Iterable[tuple[str, str]]:
    names = list(source.meanings)
    return zip(source.columns, names, strict=False)


def _endpoint_raw(
    endpoints: Sequence[Endpoint], sources: Sequence[SourceRead | Joined], length: int
) -> tuple[pd.DataFrame, dict[str, tuple[Cell, ...]], list[ReadingNote]]:
    """Return the raw outcome columns in the order of the decisions, their missing codes, notes on sites without."""
    columns: dict[str, list[Any]] = {}
    missing: dict[str, tuple[Cell, ...]] = {}
    notes: list[ReadingNote] = []
    for header in endpoint_columns(endpoints):
        for one in sources:
            cells = one.raw(header)
            if cells is None:
                continue
            columns[header] = cells
            missing[header] = _missing_of(one.source, header)
            for sheet in one.sheets if isinstance(one, SourceRead) else ():
                if sheet.headers.find(header) is None:
                    message = f"{sheet.where}: there is no column {header!r}; the endpoint is not known there."
                    site = str(sheet.rows.sites[0]) if len(sheet.rows.sites) else None
                    notes.append(ReadingNote("absent-column", header, site, (), message))
            break
    return pd.DataFrame(columns, index=range(length), dtype=object), missing, notes


def _missing_of(source: TableSource, header: str) -> tuple[Cell, ...]:
    spec = source.columns.get(header)
    return (*source.missing, *spec.missing) if spec is not None else source.missing


def _missing_by_header(source: TableSource, endpoints: Sequence[Endpoint]) -> dict[str, tuple[Cell, ...]]:
    return {header: _missing_of(source, header) for header in endpoint_columns(endpoints)}


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with trimmed text headers and an index that counts rows."""
    names = [str(name).strip() for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SchemaError(
            f"the columns {listed(repeated)} stand more than once in the table. Rename or remove the others."
        )
    plain = frame.set_axis(names, axis=1)
    return plain if pd.api.types.is_integer_dtype(plain.index.dtype) else plain.reset_index(drop=True)


def _scored_subjects(
    frame: pd.DataFrame, inputs: Inputs, headers: Headers, *, required: bool
) -> tuple[npt.NDArray[np.object_], list[ReadingNote]]:
    """Return the patient ids, row numbers where there are none."""
    wanted = [source.subject for source in inputs.tables]
    found = headers.find(wanted[0], "subject_id", *wanted[1:])
    numbers = np.array([str(number) for number in range(1, len(frame) + 1)], dtype=object)
    if found is None:
        if required:
            raise SchemaError(
                f"there is no column {wanted[0]!r} with the patient ids.{header_hint(headers, wanted[0], None)}"
            )
        message = f"there is no column {wanted[0]!r} with patient ids; rows are named by their number."
        return numbers, [ReadingNote("absent-column", wanted[0], None, (), message)]
    subjects = subject_ids(frame[found.header], missing=inputs.tables[0].missing)
    empty = np.flatnonzero(np.array([one is None for one in subjects], dtype=bool))
    if not len(empty):
        return subjects, []
    if required:
        raise SchemaError(f"column {found.header!r}: {len(empty)} rows have no patient id. Complete them in the table.")
    message = f"{len(empty)} rows have no patient id; they are named by their number."
    subjects[empty] = numbers[empty]
    return subjects, [ReadingNote("absent-column", found.header, None, tuple(empty.tolist()), message)]


def _included(
    frame: pd.DataFrame, inputs: Inputs, headers: Headers, sites: npt.NDArray[np.object_]
) -> tuple[npt.NDArray[np.bool_], list[AttritionStep]]:
    """Return which rows meet the first source's `include`, so far as its columns are there, and who is left out."""
    keep = np.ones(len(frame), dtype=bool)
    steps: list[AttritionStep] = []
    for raw, allowed in inputs.tables[0].include.items():
        found = headers.find(raw)
        if found is not None:
            left = keep & include_rows(frame[found.header], allowed)
            steps += attrition_steps(sites, keep, left, f"{raw} is not {include_text(allowed)}")
            keep = left
    return keep, steps


def _absent_when_scoring(name: str) -> ReadingNote:
    return ReadingNote("absent-column", name, None, (), f"the column of {name!r} is not there; read as not known.")


def _decision_frame(
    subjects: npt.NDArray[np.object_], sites: npt.NDArray[np.object_], decisions: Mapping[str, npt.NDArray[Any]]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": pd.array(subjects, dtype="str"),
            "site": pd.array(sites, dtype="str"),
            "index_time": decisions["index_time"],
            "treatment": pd.array(decisions["treatment"], dtype="str"),
            "calendar": decisions["calendar"],
        }
    )


def _value_frame(values: Mapping[str, npt.NDArray[Any]], length: int) -> pd.DataFrame:
    typed = {name: pd.array(cells, dtype="str") if cells.dtype == object else cells for name, cells in values.items()}
    return pd.DataFrame(typed, index=pd.RangeIndex(length))


def _fault_text(sheet: SheetRead, note: ReadingNote) -> str:
    return f"{sheet.where}: {note.message}"


def _schema_error(faults: Sequence[str]) -> SchemaError:
    if len(faults) == 1:
        return SchemaError(faults[0])
    return SchemaError(
        f"The tables are not what the study says ({len(faults)} faults):\n" + "\n".join(f"  {one}" for one in faults)
    )


def _dropped(cohort: Cohort) -> int:
    return sum(step.dropped for step in cohort.attrition)
