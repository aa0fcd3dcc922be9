"""Drafts of study files: what a table seems to hold, as YAML with comments for the user to edit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from theracast_data.cells import subject_ids
from theracast_data.column_guess import ColumnGuess, guess_column, header_words, one_hot_groups, text_twin
from theracast_data.endpoint_guess import EndpointDraft, guess_endpoints
from theracast_data.errors import SchemaError, StudyError
from theracast_data.files import is_text, read_file, readable_sheets, sheet_names, text_format
from theracast_data.quantities import known_quantity, unit_of
from theracast_data.sources import snake_case
from theracast_data.spelling import cell_key, cell_text, parse_number

_SUBJECT_TEXT = (
    "subject_id patient_id sample_id usubjid ptid trial_id subject patient subjectid patientid sampleid mrn pid id "
    "case_id patient_identifier clinical_trial_subject_id"
)
_SUBJECT_NAMES = tuple(_SUBJECT_TEXT.split())
_SITE_NAMES = {"site", "centre", "center", "hospital", "institution", "clinic", "cohort"}


@dataclass(frozen=True)
class _Table:
    """The sheets of a table that seem to hold the same patients' columns, and how the file is written."""

    path: Path
    sheets: dict[str, pd.DataFrame]
    subject: str
    left_out: dict[str, str]
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    decimal: str = "."
    repeated: tuple[str, ...] = ()

    @property
    def stacked(self) -> pd.DataFrame:
        return pd.concat([frame.astype(object) for frame in self.sheets.values()], ignore_index=True)


def draft_study(name: str, table: Path, *, base: Path | None = None) -> str:
    """Return a commented study file for the table, which reads it as it is and waits to be edited.

    Everything in it is a guess from headers and cells. It holds no value of a patient beyond the levels of categories.

    Args:
        base: folder where the study file will stand, by default the working directory; a table below it is named
            relative to it.

    Raises:
        StudyError: the name is not one for a study.
        SchemaError: the table cannot be read, or has no column that identifies patients or that could be an outcome.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise StudyError(f"{name!r} is no name for a study: use letters, digits, `-`, `_` and `.`, e.g. icb-response.")
    opened = _open(table)
    frame, guesses, special, outcomes, placeholder = _guess(opened)
    if not set(outcomes[0].headers) <= set.intersection(*(set(sheet.columns) for sheet in opened.sheets.values())):
        opened = _with_outcome(opened, outcomes[0])
        frame, guesses, special, outcomes, placeholder = _guess(opened)
    by_header = {guess.header: guess for guess in guesses}
    taken = {opened.subject, *special.values()}
    outcome_headers = {header for one in outcomes for header in one.headers}
    outcome_headers |= {guess.header for guess in guesses if guess.is_outcome and guess.header not in taken}
    lines = [*_head(name, opened), *_source(opened, special, base or Path.cwd())]
    features = [guess for guess in guesses if guess.header not in taken | outcome_headers]
    groups = one_hot_groups(frame, features)
    everywhere = _common_codes(features)
    if everywhere:
        lines.append(f"    missing: {yaml_text(everywhere)} # in several columns")
    lines += _columns(frame, features, groups, everywhere, next(iter(opened.sheets.values())).columns)
    lines += [f"    # left out: {header} (stands more than once in the header)" for header in opened.repeated]
    lines += _outcome_comment(by_header, outcome_headers, outcomes)
    lines += _endpoints(outcomes, placeholder)
    lines += _validation(opened, frame, special.get("site"))
    return "\n".join(lines) + "\n"


def _guess(
    table: _Table,
) -> tuple[pd.DataFrame, list[ColumnGuess], dict[str, str], list[EndpointDraft], bool]:
    """Return the stacked sheets and what their columns, the source's own columns and the endpoints seem to be."""
    frame = table.stacked
    guesses = [guess_column(header, frame[header], decimal=table.decimal) for header in frame.columns]
    special = _special_columns(table, guesses)
    taken = {table.subject, *special.values()}
    outcomes, placeholder = guess_endpoints([guess for guess in guesses if guess.header not in taken], frame)
    if not outcomes:
        raise SchemaError(f"{table.path}: no column could be an outcome. Add one, e.g. `response` with 1 and 0.")
    return frame, guesses, special, outcomes, placeholder


def _open(path: Path) -> _Table:
    names = sheet_names(path) if path.is_file() else ()
    if not names:
        frame = read_file(path)
        delimiter, encoding = text_format(path) if is_text(path) else (",", "utf-8-sig")
        decimal = _decimal_of(frame) if is_text(path) and delimiter != "," else "."
        subject = _subject_of({path.stem: frame}, path)
        repeated = tuple(_repeated(frame))
        return _Table(path, {path.stem: _usable(frame, subject)}, subject, {}, delimiter, encoding, decimal, repeated)
    sheets: dict[str, pd.DataFrame] = {}
    readable = readable_sheets(path)
    left_out = dict.fromkeys([sheet for sheet in names if sheet not in readable], "no table")
    for sheet, frame in readable.items():
        first = next(iter(sheets.values()), frame)
        shared = set(frame.columns) & set(first.columns)
        if len(frame) == 0 or len(shared) * 2 < len(first.columns):
            left_out[sheet] = "empty" if len(frame) == 0 else "other columns"
        else:
            sheets[sheet] = frame
    if not sheets:
        raise SchemaError(f"{path}: no sheet holds a table with a header and rows.")
    subject = _subject_of(sheets, path)
    with_subject = {sheet: _usable(frame, subject) for sheet, frame in sheets.items() if subject in frame.columns}
    left_out |= dict.fromkeys([sheet for sheet in sheets if sheet not in with_subject], f"no column {subject}")
    repeated = tuple(dict.fromkeys(header for frame in sheets.values() for header in _repeated(frame)))
    return _Table(path, with_subject, subject, left_out, repeated=repeated)


def _usable(frame: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Return the frame without rows that have no patient id, and without headers that stand more than once."""
    known = [one is not None for one in subject_ids(frame[subject])]
    repeated = _repeated(frame)
    return frame.loc[known, [header for header in frame.columns if header.split(" (repeated ")[0] not in repeated]]


def _repeated(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(str(one).split(" (repeated ")[0] for one in frame.columns if " (repeated " in str(one)))


def _decimal_of(frame: pd.DataFrame) -> str:
    cells = [str(cell) for header in frame.columns for cell in frame[header].dropna().head(200)]
    comma = sum(bool(re.fullmatch(r"-?\d+,\d+", cell.strip())) for cell in cells)
    point = sum(bool(re.fullmatch(r"-?\d+\.\d+", cell.strip())) for cell in cells)
    return "," if comma > point else "."


def _subject_of(sheets: dict[str, pd.DataFrame], path: Path) -> str:
    """Return the column that identifies patients: known by its name, else the first without gaps and repeats."""
    first = next(iter(sheets.values()))

    def unique(header: str) -> bool:
        ids = [one for frame in sheets.values() if header in frame.columns for one in [subject_ids(frame[header])]]
        return all(len({*one} - {None}) == sum(two is not None for two in one) > 0 for one in ids)

    repeated = _repeated(first)
    headers = [str(header) for header in first.columns if str(header).split(" (repeated ")[0] not in repeated]
    named = [header for wanted in _SUBJECT_NAMES for header in headers if snake_case(header) == wanted]
    named += [header for header in headers if header_words(header) & {"id", "subject", "patient", "identifier"}]
    rest = [header for header in headers if not header.startswith("(column ") and first[header].notna().all()]
    rest = [header for header in rest if not _has_fractions(first[header])]
    for header in [*named, *rest]:
        if unique(header):
            return header
    raise SchemaError(
        f"{path}: no column identifies the patients (each has gaps or repeats). Add a column with one id a row."
    )


def _has_fractions(cells: pd.Series) -> bool:
    numbers = [parse_number(cell_text(cell)) for cell in cells.head(200)]
    return any(number is not None and not number.is_integer() for number in numbers)


def _special_columns(table: _Table, guesses: Sequence[ColumnGuess]) -> dict[str, str]:
    """Return the columns that seem to be site, index time and calendar year, by their keys in a source."""
    special: dict[str, str] = {}
    for guess in guesses:
        if guess.header == table.subject or guess.is_outcome:
            continue
        words = guess.words
        is_site = guess.kind == "categorical" and words & _SITE_NAMES and guess.distinct <= 50
        if is_site and len(table.sheets) == 1 and guess.known == len(table.stacked):
            special.setdefault("site", guess.header)
        elif guess.kind == "time" and words & {"index", "start", "decision", "baseline", "treatment"}:
            special.setdefault("index_time", guess.header)
        elif guess.kind == "numeric" and words & {"year"} and 1950 <= guess.median <= 2100 and "birth" not in words:
            special.setdefault("calendar", guess.header)
    return special


def _with_outcome(table: _Table, primary: EndpointDraft) -> _Table:
    """Return the table without sheets that lack the primary endpoint."""
    dropped = {
        sheet: f"no {', '.join(header for header in primary.headers if header not in frame.columns)}"
        for sheet, frame in table.sheets.items()
        if not set(primary.headers) <= set(frame.columns)
    }
    kept = {sheet: frame for sheet, frame in table.sheets.items() if sheet not in dropped}
    return replace(table, sheets=kept, left_out=table.left_out | dropped)


def _head(name: str, table: _Table) -> list[str]:
    rows = sum(len(frame) for frame in table.sheets.values())
    return [
        f"# Draft of a study, made from {table.path.name} ({rows} rows). Everything here is a guess: read each line.",
        "# The most important check: remove every column that is known only after the decision.",
        "# What each key means: theracast schema.   Next: theracast check STUDY, then theracast train STUDY.",
        f"study: {yaml_text(name)}",
        "question: Will this patient respond to the treatment, asked before it starts? # say it in your own words",
        "sources:",
    ]


def _source(table: _Table, special: dict[str, str], base: Path) -> list[str]:
    path, folder = table.path.resolve(), base.resolve()
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    lines = [
        "  - kind: table",
        f"    path: {yaml_text(path.as_posix())} # ${{VARIABLE}} is taken from the environment",
    ]
    if sheet_names(table.path):
        lines.append(f"    sheets: {yaml_text(list(table.sheets))}")
        lines += [f"    # sheet {sheet} is left out: {why}" for sheet, why in table.left_out.items()]
    lines.append(f"    subject: {yaml_text(table.subject)}")
    if len(table.sheets) > 1:
        lines.append("    site: $sheet")
    lines += [f"    {key}: {yaml_text(header)}" for key, header in special.items()]
    if is_text(table.path):
        if table.delimiter != ",":
            lines.append(f'    delimiter: "{table.delimiter}"'.replace("\t", "\\t"))
        if table.decimal != ".":
            lines.append(f"    decimal: {yaml_text(table.decimal)}")
        if table.encoding != "utf-8-sig":
            lines.append(f"    encoding: {table.encoding}")
    return lines


def _columns(
    frame: pd.DataFrame,
    guesses: Sequence[ColumnGuess],
    groups: dict[str, list[str]],
    everywhere: Sequence[str],
    first_sheet: Iterable[str],
) -> list[str]:
    first_sheet = set(first_sheet)
    twins = {prefix: text_twin(frame, headers, guesses) or {} for prefix, headers in groups.items()}
    hidden = {header for headers in groups.values() for header in headers} | {
        twin[""] for twin in twins.values() if twin
    }
    names: set[str] = set()
    lines: list[str] = []
    left_out: list[str] = []
    for guess in guesses:
        if guess.header in hidden:
            continue
        why = _why_left_out(guess, len(frame))
        if why is None and guess.header not in first_sheet:
            why = "the first sheet, taken for development, does not have it"
        if why is not None:
            left_out.append(f"      # left out: {guess.header} ({why})")
        else:
            lines += _column(guess, _free_name(snake_case(guess.header), names), everywhere)
    group_lines: list[str] = []
    for prefix, headers in groups.items():
        twin = twins[prefix]
        group_name = _free_name(snake_case(prefix), names)
        group_lines += [f"      - name: {yaml_text(group_name)}", f"        label: {yaml_text(_label(prefix))}"]
        if twin:
            group_lines.append(f"        aliases: {yaml_text([twin['']])} # the same as text")
        group_lines.append("        columns:")
        for header in headers:
            if not (frame[header].map(cell_key) == "1").any():
                left_out.append(f"      # left out: {header} (0 in every row)")
                continue
            suffix = header[len(prefix) :].strip("._- ") or header
            group_lines.append(f"          {yaml_text(header)}: {yaml_text(twin.get(header, suffix))}")
    out = ["    columns:", *lines] if lines else ["    columns: {}"]
    out += left_out
    return out + (["    one_hot: # 0/1 columns of which each row has one 1", *group_lines] if group_lines else [])


def _common_codes(guesses: Sequence[ColumnGuess]) -> list[str]:
    """Return the texts that seem to mean `not known` in at least two columns."""
    counts = Counter(code for guess in guesses for code in set(guess.missing))
    return sorted(code for code, count in counts.items() if count >= 2)


def _why_left_out(guess: ColumnGuess, rows: int) -> str | None:
    if guess.kind in ("empty", "constant"):
        return "no values" if guess.kind == "empty" else "the same in every row"
    if guess.kind == "time":
        return "a date; name it index_time or calendar of the source if it is that of the decision"
    if guess.kind == "text":
        return "text that differs from row to row: an identifier, or free text"
    is_id = guess.words & {"id", "identifier", "mrn"} and guess.distinct > 0.5 * guess.known
    if (
        is_id
        or guess.header.startswith("(column ")
        or (guess.distinct == rows > 20 and guess.header.lower() in {"index", "row", "nr", "no"})
    ):
        return "an identifier or row number"
    if len(guess.limits) and guess.distinct < 2:
        return "hardly any numbers"
    return None


def _column(guess: ColumnGuess, name: str, everywhere: Sequence[str]) -> list[str]:
    quantity = known_quantity(guess.header) if guess.kind == "numeric" or guess.levels == (0, 1) else None
    pairs: list[tuple[str, str]] = []
    if name != snake_case(guess.header):
        pairs.append(("name", yaml_text(name)))
    pairs.append(("label", yaml_text(quantity.label if quantity else _label(guess.header))))
    pairs.append(("modality", quantity.modality if quantity else guess.modality))
    if quantity is not None:
        unit, said = unit_of(quantity, guess.header, guess.median)
        if quantity.code:
            pairs.append(("code", quantity.code))
        if unit is None:
            pairs.append(("unit", f'"1" # CHECK: in {quantity.unit} the values would be unusual'))
        else:
            pairs.append(("unit", yaml_text(quantity.unit)))
            if unit != quantity.unit:
                pairs.append(
                    (
                        "source_unit",
                        f"{yaml_text(unit)} # {'as the header says' if said else 'CHECK: by the size of the values'}",
                    )
                )
            pairs.append(("plausible", f"[{quantity.plausible[0]:g}, {quantity.plausible[1]:g}]"))
    pairs += _type_of(guess) if quantity is None else [("kind", "numeric")]
    codes = [*(code for code in guess.missing if code not in everywhere), *guess.limits]
    if codes:
        pairs.append(
            (
                "missing",
                yaml_text(codes) + (" # CHECK: limits of detection are read as not known" if guess.limits else ""),
            )
        )
    if guess.sentinels:
        shown = ", ".join(f"{one:g}" for one in guess.sentinels)
        pairs.append(("# missing", f"[{shown}] # CHECK: do these numbers mean not known?"))
    return [f"      {yaml_text(guess.header)}:", *(f"        {key}: {value}" for key, value in pairs)]


def _type_of(guess: ColumnGuess) -> list[tuple[str, str]]:
    if guess.kind == "boolean":
        return [("levels", "{1: 1, -1: 0}")] if guess.levels == (-1, 1) else [("kind", "boolean")]
    if guess.kind == "categorical":
        levels = sorted({cell_text(level) for level in guess.levels})
        return [("kind", "categorical"), ("levels", yaml_text(levels))]
    if guess.levels:
        return [("kind", f"numeric # only {', '.join(map(str, guess.levels))}: categorical, if these are codes")]
    return [("kind", "numeric")]


def _outcome_comment(
    guesses: dict[str, ColumnGuess], headers: Iterable[str], outcomes: Sequence[EndpointDraft]
) -> list[str]:
    used = {header for one in outcomes for header in one.headers}
    rest = [header for header in guesses if header in set(headers) - used]
    if not rest:
        return []
    return ["# Left out because they look like outcomes:", *(f"#   {header}" for header in rest)]


def _endpoints(outcomes: Sequence[EndpointDraft], placeholder: bool) -> list[str]:
    lines = ["endpoints: # the first one is trained"]
    if placeholder:
        lines.append(
            "  # CHECK: no outcome was recognised by its name. This column stands here in its place: choose another."
        )
    for one in outcomes:
        (first, second), *rest = one.items
        lines.append(f"  - {first}: {second}")
        lines += [f"    {key}: {value}" for key, value in rest]
    return lines


def _validation(table: _Table, frame: pd.DataFrame, site: str | None) -> list[str]:
    if len(table.sheets) > 1:
        sites = list(table.sheets)
    elif site is not None:
        sites = [cell_text(cell) for cell in frame[site].value_counts().index]
    else:
        return [
            "validation:",
            "  scheme: {outer: 5, inner: 5} # no external site: nested cross-validation is the evidence",
        ]
    return [
        "validation:",
        f"  development: {yaml_text(sites[:1])}",
        f"  external: {yaml_text(sites[1:])} # never seen before the model is final",
        "  scheme: {outer: 5, inner: 5}",
    ]


def _label(header: str) -> str:
    words = " ".join(re.sub(r"[._]+", " ", header).split())
    return words[:1].upper() + words[1:]


def _free_name(name: str, names: set[str]) -> str:
    free, number = name, 2
    while free in names:
        free, number = f"{name}_{number}", number + 1
    names.add(free)
    return free


def yaml_text(value: Any) -> str:
    """Return a value as YAML on one line, quoted where YAML would read it as something else."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.strip().removesuffix("...").strip()
