"""Questionnaires: what makes a score, beside the instrument, and the forms of patients as scored events.

An instrument is declared in the study by the names of its items, never by their text, which is often protected.

Sources: EORTC QLQ-C30 Scoring Manual, 3rd ed., 2001 (linear transform, half rule). Basch et al., Clin Trials
2021;18:104-114 (PRO-CTCAE composite grade; the mapping as its authors compute it in their package ProAE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from theracast_data.events.readers.chunks import Chunk, Encoding, read_chunks
from theracast_data.events.readers.times import TimeReader, TimeSpec, end_of_day, time_reader
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.section import Section
from theracast_data.spelling import CellTable, parse_number

Floats = npt.NDArray[np.float64]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"


class Scale(Section):
    """One score from several items.

    `sum` is the mean of the answered items times the number of items (the sum where all are answered), `mean` their mean,
    `linear` the mean from 0 to 100 of the possible range: ((mean - low) / (high - low)) * 100.
    """

    name: str = Field(pattern=NAME, description="Name of the score.")
    items: tuple[str, ...] = Field(min_length=1, description="Names of its items.")
    method: Literal["sum", "mean", "linear"] = Field(description="How the score is made of the items.")
    reverse: tuple[str, ...] = Field((), description="Items that count backwards: low + high - answer.")
    inverted: bool = Field(False, description="The score counts backwards, as the functional scales of the QLQ-C30.")
    min_answered: float = Field(
        0.5, gt=0, le=1, description="Share of the items that must be answered; 0.5 is the half rule, 1 all of them."
    )

    @model_validator(mode="after")
    def _check_items(self) -> Scale:
        unknown = [item for item in self.reverse if item not in self.items]
        if unknown or len(set(self.items)) != len(self.items):
            raise ValueError(f"name each item once, and in `reverse` only items of {self.name}")
        if self.inverted and self.method != "linear":
            raise ValueError("only a `linear` scale is inverted as a whole; name the items in `reverse`")
        return self


class CompositeGrade(Section):
    """The PRO-CTCAE grade 0 to 3 of one symptom from the items that were asked of it."""

    name: str = Field(pattern=NAME, description="Name of the symptom.")
    frequency: str | None = Field(None, description="Item on frequency.")
    severity: str | None = Field(None, description="Item on severity.")
    interference: str | None = Field(None, description="Item on interference, or on amount.")

    @model_validator(mode="after")
    def _check_items(self) -> CompositeGrade:
        if not self.items:
            raise ValueError("name at least one item: frequency, severity or interference")
        return self

    @property
    def items(self) -> tuple[str, ...]:
        """The items of the symptom, in the order frequency, severity, interference."""
        return tuple(item for item in (self.frequency, self.severity, self.interference) if item is not None)


class Instrument(Section):
    """A questionnaire: what may be answered, and the scores made of it."""

    name: str = Field(pattern=NAME, description="Name of the instrument, e.g. qlq_c30.")
    answers: tuple[float, float] = Field(description="Lowest and highest answer, e.g. [1, 4].")
    answers_of: dict[str, tuple[float, float]] = Field({}, description="The same of single items, where it differs.")
    levels: dict[str, float] = Field({}, description="Number of each answer, where the source holds words.")
    scales: tuple[Scale, ...] = Field((), description="Scores by sum, mean or linear transform.")
    grades: tuple[CompositeGrade, ...] = Field((), description="PRO-CTCAE grades.")
    single: tuple[str, ...] = Field((), description="Items that are in no score, to be kept as they are.")

    @model_validator(mode="after")
    def _check(self) -> Instrument:
        if self.grades and self.answers != (0, 4):
            raise ValueError("PRO-CTCAE items are answered from 0 to 4; write answers: [0, 4]")
        if any(low >= high for low, high in (self.answers, *self.answers_of.values())):
            raise ValueError("write the lowest answer before the highest")
        names = [scale.name for scale in self.scales] + [grade.name for grade in self.grades]
        twice = [name for name, count in Counter([*names, *self.items]).items() if count > 1]
        if twice:
            raise ValueError(f"scores and items need different names (found twice: {', '.join(twice)})")
        for scale in self.scales:
            if len({self.range_of(item) for item in scale.items}) > 1:
                raise ValueError(f"the items of {scale.name} are answered in different ranges; score them apart")
        return self

    @property
    def items(self) -> tuple[str, ...]:
        """All items, each once."""
        in_scales = [item for scale in self.scales for item in scale.items]
        in_grades = [item for grade in self.grades for item in grade.items]
        return tuple(dict.fromkeys([*in_scales, *in_grades, *self.single]))

    def range_of(self, item: str) -> tuple[float, float]:
        """Return the lowest and highest answer of an item."""
        return self.answers_of.get(item, self.answers)


class PromsOptions(Section):
    """A table of answered questionnaires, a form a row (wide) or an answer a row (long)."""

    kind: Literal["proms"] = "proms"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="CSV (also .gz) or Parquet file; ${VARIABLE} is taken from the environment.")
    subject: str = Field(description="Column that identifies the patient.")
    time: TimeSpec = Field(description="When the form was answered.")
    available_time: TimeSpec | None = Field(
        None, description="When it was known; by default at `time`, and at the end of the day for a date without clock."
    )
    item: str | None = Field(None, description="Long: column with the item's name.")
    answer: str | None = Field(None, description="Long: column with the answer.")
    columns: dict[str, str] = Field({}, description="Wide: item to its column, where the names differ.")
    instruments: tuple[Instrument, ...] = Field(min_length=1, description="The questionnaires, with their scores.")
    missing: tuple[str, ...] = Field((), description="Cells that mean `not answered`, beside empty ones.")
    keep_items: bool = Field(False, description="Give each answer as an event too, beside the scores.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Field separator of a CSV file.")
    encoding: Encoding = Field("utf-8", description="Text encoding of a CSV file.")

    @model_validator(mode="after")
    def _check(self) -> PromsOptions:
        if (self.item is None) != (self.answer is None):
            raise ValueError("write `item` and `answer` together (long table), or neither (wide table)")
        twice = [item for item, count in Counter(self.items).items() if count > 1]
        if twice:
            raise ValueError(f"two instruments have an item of the same name ({', '.join(twice)}); read them apart")
        return self

    @property
    def items(self) -> list[str]:
        """The items of all instruments."""
        return [item for instrument in self.instruments for item in instrument.items]


def scale_scores(answers: Mapping[str, Floats], scale: Scale, *, answered_from: tuple[float, float]) -> Floats:
    """Return the score of each form, NaN where too few items are answered.

    Args:
        answers: item to (n_forms,) answers, NaN where there is none.
        answered_from: lowest and highest answer.
    """
    low, high = answered_from
    columns = [low + high - answers[item] if item in scale.reverse else answers[item] for item in scale.items]
    table = np.stack(columns)
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    enough = count >= max(1, scale.min_answered * len(columns) - 1e-9)
    mean = np.where(known, table, 0).sum(axis=0) / np.maximum(count, 1)
    if scale.method == "sum":
        score = mean * len(columns)
    elif scale.method == "mean":
        score = mean
    else:
        score = (mean - low) / (high - low) * 100
        score = 100 - score if scale.inverted else score
    return np.where(enough, score, np.nan)


def composite_grade(
    *, frequency: Floats | None = None, severity: Floats | None = None, interference: Floats | None = None
) -> Floats:
    """Return the PRO-CTCAE composite grade (0 to 3) of each form, NaN where an item that was to be asked is missing.

    Where the first of the symptom's items is answered 0, the grade is 0, whether or not the others were asked: electronic
    forms then skip them (conditional branching).

    Args:
        frequency: (n_forms,) answers 0 to 4, NaN where there is none; None: the symptom has no such item.
        interference: also for items on amount.

    Source: Basch et al., Clin Trials 2021;18:104-114.
    """
    given = [answers for answers in (frequency, severity, interference) if answers is not None]
    present = "".join(
        sign for sign, answers in zip("FSI", (frequency, severity, interference), strict=True) if answers is not None
    )
    table = np.array(_GRADES[present], dtype=np.float64)
    stacked = np.stack(given)
    whole = np.isin(stacked, range(5)).all(axis=0)
    grades = np.full(stacked.shape[1], np.nan)
    grades[whole] = table[tuple(stacked[:, whole].astype(np.intp))]
    return np.where(given[0] == 0, 0.0, grades)


def _grades(text: str) -> list[Any]:
    """Return the grades by the first item's answer: blocks for it, words for the second item, digits for the third."""
    blocks = [[[int(digit) for digit in word] for word in block.split()] for block in text.split("|")]
    return blocks if len(blocks) > 1 else blocks[0] if len(blocks[0]) > 1 else blocks[0][0]


_NEVER = "00000"
# F frequency, S severity, I interference. The first answer 0: grade 0 whatever the others say.
_GRADES: dict[str, list[Any]] = {
    "F": _grades("01123"),
    "S": _grades("01233"),
    "I": _grades("01122"),
    "FS": _grades(f"{_NEVER} 11122 11222 11233 11233"),
    "FI": _grades(f"{_NEVER} 11122 11122 11233 11233"),
    "SI": _grades(f"{_NEVER} 11122 11223 12233 22233"),
    "FSI": _grades(
        f"{' '.join([_NEVER] * 5)}"
        "|01122 11122 12223 22233 22333"
        "|01122 11122 22233 22233 22333"
        "|11122 11122 22233 22333 22333"
        "|11122 11223 22233 22333 22333"
    ),
}


def read_proms(
    path: Path, *, options: PromsOptions, report: IngestReport, base: Path | None = None, batch_rows: int = 50_000
) -> Iterator[pa.Table]:
    """Return the scores of each form as events with code `PRO//instrument//score`, and answers where they are kept.

    A score that cannot be made, since too few items are answered, is counted in the report; one of whose items none is
    answered was not asked, and is not. A wide table is read batch by batch; of a long one the answers are held until its
    end, since a form's answers may lie apart.

    Args:
        base: what a relative path of an origin table counts from; by default the folder of the file.

    Raises:
        SchemaError: a file is missing, is no table, or lacks a column.
    """
    reader = _Reader(path, options, report, path.parent if base is None else base)
    forms = reader.wide(batch_rows) if options.item is None else reader.long(batch_rows)
    for form in forms:
        events = reader.events(form)
        report.written += events.num_rows
        yield events


@dataclass(frozen=True)
class _Forms:
    """n forms: patient, moment, and item to (n,) answers."""

    subject: npt.NDArray[Any]
    time: npt.NDArray[Any]
    available: npt.NDArray[Any]
    answers: dict[str, Floats]
    position: Any


class _Reader:
    """Reads forms and scores them; counts what is wrong in the report."""

    def __init__(self, path: Path, options: PromsOptions, report: IngestReport, base: Path) -> None:
        self.path, self.options, self.report = path, options, report
        self.time = time_reader(options.time, base=base)
        self.available = time_reader(options.available_time, base=base) if options.available_time else None
        self.levels = {one.name: CellTable(one.levels) for one in options.instruments}
        self.owner = {item: instrument for instrument in options.instruments for item in instrument.items}

    def wide(self, batch_rows: int) -> Iterator[_Forms]:
        """Return the forms of a table with one form a row."""
        column_of = {item: self.options.columns.get(item, item) for item in self.options.items}
        for chunk in self._chunks(list(column_of.values()), batch_rows):
            kept, subject, time, available = self._heads(chunk)
            rows = np.flatnonzero(kept)
            answers = {}
            for item, column in column_of.items():
                cells = chunk.table[column].to_pandas().to_numpy(dtype=object)
                answers[item] = self._numbers(cells, np.full(len(cells), item), chunk, kept)[rows]
            yield _Forms(
                subject[rows], time[rows], available[rows], answers, lambda n, c=chunk, r=rows: c.position(int(r[n]))
            )

    def long(self, batch_rows: int) -> Iterator[_Forms]:
        """Return the forms of a table with one answer a row: the answers of one patient at one time."""
        assert self.options.item is not None
        assert self.options.answer is not None
        parts = []
        for chunk in self._chunks([self.options.item, self.options.answer], batch_rows):
            kept, subject, time, available = self._heads(chunk)
            items = chunk.table[self.options.item].to_pandas().str.strip().to_numpy(dtype=object)
            for row in np.flatnonzero(kept & ~np.isin(items.astype(str), self.options.items)):
                kept[row] = False
                self.report.refuse("(item)", "the item is of no declared instrument", position=chunk.position(int(row)))
            numbers = self._numbers(
                chunk.table[self.options.answer].to_pandas().to_numpy(dtype=object), items, chunk, kept
            )
            kept &= ~np.isnan(numbers)
            frame = {"subject": subject, "time": time, "available": available, "item": items, "answer": numbers}
            parts.append(pd.DataFrame(frame)[kept])
        if not parts:
            return
        whole = pd.concat(parts, ignore_index=True)
        keys = ["subject", "time", "item"]
        several = whole.groupby(keys, sort=False)["answer"].agg(["count", "nunique"])
        repeated = several[several["count"] > 1]
        for item, count, different in zip(
            repeated.index.get_level_values("item"), repeated["count"], repeated["nunique"], strict=True
        ):
            how = "alike" if different == 1 else "differently; not used"
            reason = f"answered twice on one form, {how}"
            self.report.refuse(self._code(str(item)), reason, position=self.path.name, count=int(count) - 1)
        one = whole.groupby(keys, sort=False).agg(answer=("answer", "first"), available=("available", "max"))
        one.loc[several["nunique"] > 1, "answer"] = np.nan
        table = one["answer"].unstack("item")
        heads = one["available"].groupby(["subject", "time"]).max().reindex(table.index)
        answers = {
            item: table[item].to_numpy(np.float64) if item in table else np.full(len(table), np.nan)
            for item in self.options.items
        }
        subject = table.index.get_level_values("subject").to_numpy(dtype=object)
        time = table.index.get_level_values("time").to_numpy().astype("datetime64[us]")
        available = heads.to_numpy().astype("datetime64[us]")
        yield _Forms(subject, time, available, answers, lambda n: f"{self.path.name}, form {n + 1} by patient and time")

    def events(self, forms: _Forms) -> pa.Table:
        """Return the scores of the forms, and the answers where they are kept."""
        tables = []
        for instrument in self.options.instruments:
            for scale in instrument.scales:
                score = scale_scores(forms.answers, scale, answered_from=instrument.range_of(scale.items[0]))
                tables.append(self._scored(forms, f"PRO//{instrument.name}//{scale.name}", scale.items, score))
            for grade in instrument.grades:
                score = composite_grade(
                    frequency=forms.answers[grade.frequency] if grade.frequency else None,
                    severity=forms.answers[grade.severity] if grade.severity else None,
                    interference=forms.answers[grade.interference] if grade.interference else None,
                )
                tables.append(self._scored(forms, f"PRO//{instrument.name}//{grade.name}", grade.items, score))
            kept = instrument.items if self.options.keep_items else instrument.single
            tables += [self._scored(forms, self._code(item), (item,), forms.answers[item]) for item in kept]
        return pa.concat_tables(tables) if tables else EVENT_SCHEMA.empty_table()

    def _scored(self, forms: _Forms, code: str, items: tuple[str, ...], score: Floats) -> pa.Table:
        asked = ~np.all([np.isnan(forms.answers[item]) for item in items], axis=0)
        lacking = np.flatnonzero(asked & np.isnan(score))
        if lacking.size:
            where = forms.position(int(lacking[0]))
            self.report.refuse(code, "too few items answered for a score", position=where, count=int(lacking.size))
        rows = np.flatnonzero(~np.isnan(score))
        return pa.table(
            [
                pa.array(forms.subject[rows], pa.string()),
                pa.array(forms.time[rows], pa.timestamp("us")),
                pa.repeat(pa.scalar(code), len(rows)),
                pa.array(score[rows]),
                pa.nulls(len(rows), pa.string()),
                pa.repeat(pa.scalar("{score}"), len(rows)),
                pa.array(forms.available[rows], pa.timestamp("us")),
            ],
            schema=EVENT_SCHEMA,
        )

    def _chunks(self, columns: list[str], batch_rows: int) -> Iterator[Chunk]:
        options = self.options
        times = [spec.column for spec in (options.time, options.available_time) if spec is not None]
        wanted = list(dict.fromkeys([options.subject, *times, *columns]))
        yield from read_chunks(
            self.path, wanted, report=self.report, batch_rows=batch_rows,
            delimiter=options.delimiter, encoding=options.encoding,
        )  # fmt: skip

    def _heads(
        self, chunk: Chunk
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Return which rows have a patient and a time, patient, time, and when the answers were known."""
        named = chunk.table[self.options.subject]
        subject = named.to_pandas().str.strip().to_numpy(dtype=object)
        time, dated = self.time.read(chunk.table[self.options.time.column], named)
        known = np.where(dated, end_of_day(time), np.datetime64("NaT", "us"))
        if self.available is not None:
            said, whole_day = self._known(self.available, chunk)
            known = np.where(np.isnat(said), known, np.where(whole_day, end_of_day(said), said))
        faults = [
            (named.is_null().to_numpy(), "no patient"),
            (np.isnat(time), "no time, or one that was not understood"),
        ]
        if self.available is not None:
            unread = np.isnat(said) & chunk.table[self.available.spec.column].is_valid().to_numpy()
            faults.append((unread, "available_time was not understood"))
        kept = np.ones(len(subject), dtype=bool)
        for wrong, reason in faults:
            rows = np.flatnonzero(wrong & kept)
            if rows.size:
                self.report.refuse("(form)", reason, position=chunk.position(int(rows[0])), count=int(rows.size))
            kept &= ~wrong
        return kept, subject, time, known

    def _known(self, reader: TimeReader, chunk: Chunk) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return reader.read(chunk.table[reader.spec.column], chunk.table[self.options.subject])

    def _numbers(
        self, cells: npt.NDArray[Any], items: npt.NDArray[Any], chunk: Chunk, kept: npt.NDArray[np.bool_]
    ) -> Floats:
        """Return the answers as numbers, NaN where there is none or where it is none of the item's."""
        numbers = np.full(len(cells), np.nan)
        rows = np.flatnonzero(kept)
        # Few different answers in many rows: each is understood once.
        cell_of, words = pd.factorize(cells[rows])
        item_of, named = pd.factorize(items[rows])
        known = np.flatnonzero(cell_of >= 0)
        pairs, first, place, counts = np.unique(
            item_of[known] * (len(words) + 1) + cell_of[known],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        understood = np.full(len(pairs), np.nan)
        for at in np.argsort(first):
            item, cell = str(named[pairs[at] // (len(words) + 1)]), str(words[pairs[at] % (len(words) + 1)]).strip()
            if not cell or cell in self.options.missing:
                continue
            understood[at], fault = self._understood(item, cell)
            if fault:
                where = chunk.position(int(rows[known[first[at]]]))
                self.report.refuse(self._code(item), fault, position=where, count=int(counts[at]))
        numbers[rows[known]] = understood[place]
        return numbers

    def _understood(self, item: str, cell: str) -> tuple[float, str | None]:
        """Return the number that an answer says, or NaN and why it says none."""
        instrument = self.owner[item]
        said = self.levels[instrument.name].get(cell)
        number = float(said) if said is not None else parse_number(cell)
        low, high = instrument.range_of(item)
        if number is None:
            return np.nan, "the answer is no number"
        if not low <= number <= high:
            return np.nan, f"the answer is outside {low:g} to {high:g}"
        if instrument.grades and number % 1:
            return np.nan, "the answer lies between two grades"
        return number, None

    def _code(self, item: str) -> str:
        return f"PRO//{self.owner[item].name}//{item}"
