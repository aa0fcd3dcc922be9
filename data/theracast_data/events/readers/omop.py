"""OMOP Common Data Model to events: persons, visits, conditions, drugs, procedures, measurements, observations, deaths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from theracast_data.errors import SchemaError
from theracast_data.events.codes import system_name
from theracast_data.events.readers.omop_sources import MEMORY_LIMIT, OmopSource, open_omop
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA
from theracast_data.section import Section

TableName = Literal[
    "person",
    "visit_occurrence",
    "condition_occurrence",
    "drug_exposure",
    "procedure_occurrence",
    "measurement",
    "observation",
    "death",
]
ALL_TABLES: tuple[TableName, ...] = get_args(TableName)


class OmopOptions(Section):
    """An OMOP Common Data Model (5.3 or 5.4)."""

    kind: Literal["omop"] = "omop"
    path: str = Field(description="DuckDB file, folder of Parquet files, or postgresql://user@host:port/database.")
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    tables: tuple[TableName, ...] = Field(ALL_TABLES, description="Tables to read.")
    database_schema: str | None = Field(
        None, description="Schema of the tables in a database; by default `main` (DuckDB) or `public` (PostgreSQL)."
    )
    local_system: str = Field("local", description="SYSTEM of source values that have no concept: local//CODE.")


@dataclass(frozen=True)
class _Table:
    """How one clinical table says what happened, when, and with which value. SQL over the alias `b` and its joins."""

    key: str
    concept: str
    date: str
    source_concept: str | None = None
    source_value: str | None = None
    datetime: str | None = None
    number: str | None = None
    unit: str | None = None
    text: str = "NULL"
    others: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, where the table has it."""
        named = (self.key, "person_id", self.concept, self.date, self.source_concept, self.source_value, self.datetime)
        values = ("unit_concept_id", self.unit) if self.unit else ()
        return tuple(dict.fromkeys(name for name in (*named, self.number, *values, *self.others) if name))


def _clinical(
    name: str, prefix: str, *, on: str | None = None, text: str = "NULL", others: tuple[str, ...] = ()
) -> _Table:
    """Return a table whose columns are named as the common data model names them.

    Args:
        name: of the table, and of its key.
        prefix: of the concepts.
        on: of the dates, where it is another.
        text, others: as in `_Table`.
    """
    dated = on or prefix
    return _Table(
        key=f"{name}_id",
        concept=f"{prefix}_concept_id",
        source_concept=f"{prefix}_source_concept_id",
        source_value=f"{prefix}_source_value",
        date=f"{dated}_date",
        datetime=f"{dated}_datetime",
        text=text,
        others=others,
    )


# Standard concept ids of OMOP's type, operator and gender vocabularies (https://athena.ohdsi.org); they hold even where
# a database leaves these concepts out of its concept table, as Eunomia does.
_DRUG_TYPE = """CASE TRY_CAST(b.drug_type_concept_id AS BIGINT)
    WHEN 38000177 THEN 'ordered' WHEN 32838 THEN 'ordered'
    WHEN 38000175 THEN 'dispensed' WHEN 32825 THEN 'dispensed' WHEN 581452 THEN 'dispensed'
    WHEN 38000180 THEN 'administered' WHEN 38000179 THEN 'administered' WHEN 32818 THEN 'administered' END"""
_OPERATOR = """CASE TRY_CAST(b.operator_concept_id AS BIGINT)
    WHEN 4171756 THEN '<' WHEN 4171754 THEN '<=' WHEN 4171755 THEN '>=' WHEN 4172704 THEN '>' END"""
_VALUE_CONCEPT = "v.vocabulary_id || '//' || v.concept_code"

_CLINICAL: dict[str, _Table] = {
    "visit_occurrence": _clinical("visit_occurrence", "visit", on="visit_start"),
    "condition_occurrence": _clinical("condition_occurrence", "condition", on="condition_start"),
    "drug_exposure": _clinical(
        "drug_exposure", "drug", on="drug_exposure_start", text=_DRUG_TYPE, others=("drug_type_concept_id",)
    ),
    "procedure_occurrence": _clinical("procedure_occurrence", "procedure"),
    "measurement": replace(
        _clinical("measurement", "measurement"),
        number="value_as_number",
        unit="unit_source_value",
        text=f"COALESCE({_VALUE_CONCEPT}, {_OPERATOR} || CAST(b.value_as_number AS VARCHAR), "
        "IF(b.value_as_number IS NULL, b.value_source_value, NULL))",
        others=("value_as_concept_id", "operator_concept_id", "value_source_value"),
    ),
    "observation": replace(
        _clinical("observation", "observation"),
        number="value_as_number",
        unit="unit_source_value",
        text=f"COALESCE({_VALUE_CONCEPT}, b.value_as_string)",
        others=("value_as_concept_id", "value_as_string"),
    ),
    "death": _Table(
        key="person_id", concept="cause_concept_id", date="death_date", datetime="death_datetime",
        source_value="cause_source_value",
    ),
}  # fmt: skip
_PERSON = (
    "person_id", "birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth",
    "gender_concept_id", "gender_source_value", "race_concept_id", "race_source_value",
    "care_site_id",
)  # fmt: skip


def read_omop(
    path: str | Path, *, options: OmopOptions, report: IngestReport, batch_rows: int = 200_000
) -> Iterator[pa.Table]:
    """Yield the events of an OMOP database, at most about `batch_rows` at a time (four times as many for persons).

    Codes are VOCABULARY//CODE of the standard concept; where that is 0, of the source concept; where that is 0 too, the
    source value as local//VALUE. A concept that the concept table lacks is OMOP//ID. What has none of these is refused.
    Persons give MEDS_BIRTH (year alone: 1 July) and, true at all times, Gender//*, Race//* and Organization//* (care
    site); deaths give MEDS_DEATH with the cause as text. Of a drug exposure its start is read, with `ordered`,
    `dispensed` or `administered` as text where the type says so; a coded result is VOCABULARY//CODE as text, one
    beyond a limit (`<5`) text too, since no number is right for it; end dates
    are not read.

    A time at midnight is OMOP's way to say that only the day is known: such an event is available at the end of its day.

    Raises:
        SchemaError: no such database, or none of the tables is in it.
    """
    with open_omop(path, database_schema=options.database_schema) as source:
        yield from _read_tables(source, options=options, report=report, batch_rows=batch_rows)


def _read_tables(
    source: OmopSource, *, options: OmopOptions, report: IngestReport, batch_rows: int
) -> Iterator[pa.Table]:
    chosen: dict[str, tuple[str, ...]] = {}
    table: str
    for table in options.tables:
        missing = _missing_columns(source, table)
        if missing:
            report.refuse(table, missing, position=f"table {table}")
        else:
            present = source.columns(table)
            chosen[table] = tuple(name for name in _columns(table) if name in present)
    if not chosen:
        raise SchemaError(
            f"{options.path}: none of the tables {', '.join(options.tables)} can be read. "
            "Check the path, and `database_schema` for a database."
        )
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2}) as connection:
        connection.execute("CREATE TABLE concepts (concept_id BIGINT, vocabulary_id VARCHAR, concept_code VARCHAR)")
        if {"concept_id", "vocabulary_id", "concept_code"} <= source.columns("concept"):
            used = {table: [name for name in names if name.endswith("concept_id")] for table, names in chosen.items()}
            concepts = source.concepts({table: names for table, names in used.items() if names})
            names_of = {name: system_name(name) for name in concepts["vocabulary_id"].unique().to_pylist() if name}
            connection.register("used", concepts)
            connection.register("systems", pa.table({"written": list(names_of), "name": list(names_of.values())}))
            connection.execute(
                "INSERT INTO concepts SELECT concept_id, name, concept_code FROM used JOIN systems ON vocabulary_id = written"
            )
        else:
            report.refuse("concept", "the table is not there; codes are OMOP//ID", position="table concept")
        for table, names in chosen.items():
            query = _person_query(names) if table == "person" else _clinical_query(table, names, options.local_system)
            for batch in source.batches(table, names, batch_rows=batch_rows):
                report.read += batch.num_rows
                connection.register("batch", batch)
                events = _accepted(connection.sql(query).to_arrow_table(), table, report)
                connection.unregister("batch")
                report.written += events.num_rows
                if events.num_rows:
                    yield events


def _columns(table: str) -> tuple[str, ...]:
    return _PERSON if table == "person" else _CLINICAL[table].columns


def _missing_columns(source: OmopSource, table: str) -> str | None:
    """Return why a table cannot be read, or None."""
    present = source.columns(table)
    if not present:
        return "the table is not there"
    needed = {"person_id"}
    if table != "person":
        own = _CLINICAL[table]
        needed |= {own.key} if table == "death" else {own.key, own.concept}
        if own.datetime not in present:
            needed.add(own.date)
    lacking = sorted(needed - present)
    return f"the table lacks the column {', '.join(lacking)}" if lacking else None


def _accepted(mapped: pa.Table, table: str, report: IngestReport) -> pa.Table:
    """Return the rows without a reason against them; the others are counted."""
    _count(mapped, "reason", table, report)
    mapped = mapped.filter(pc.is_null(mapped["reason"]))
    if "note" in mapped.column_names:
        _count(mapped, "note", table, report)
    return mapped.select(list(COLUMNS)).cast(EVENT_SCHEMA)


def _count(mapped: pa.Table, column: str, table: str, report: IngestReport) -> None:
    """Add to the report what the column says of the rows, with the key of the first of each kind."""
    told = mapped.filter(pc.is_valid(mapped[column]))
    groups = told.group_by(column, use_threads=False).aggregate([(column, "count"), ("key", "first")])
    for row in groups.to_pylist():
        position = f"{table}, {_key(table)} {row['key_first']}"
        report.refuse(table, row[column], position=position, count=row[f"{column}_count"])


def _key(table: str) -> str:
    return "person_id" if table == "person" else _CLINICAL[table].key


def _clinical_query(table: str, present: Sequence[str], local_system: str) -> str:
    """Return the SQL from one batch of a clinical table to events with a reason against each that is refused."""
    own = _CLINICAL[table]
    lacking = [name for name in own.columns if name not in present]
    rows = f"SELECT *{''.join(f', NULL AS {name}' for name in lacking)} FROM batch"
    local = local_system.replace("'", "''")
    coded = f"""COALESCE(
        c.vocabulary_id || '//' || c.concept_code,
        s.vocabulary_id || '//' || s.concept_code,
        'OMOP//' || NULLIF(TRY_CAST(b.{own.concept} AS BIGINT), 0),
        '{local}//' || NULLIF(trim(CAST({_column(own.source_value)} AS VARCHAR)), ''))"""
    code, text = ("'MEDS_DEATH'", coded) if table == "death" else (coded, own.text)
    number = f"TRY_CAST(b.{own.number} AS DOUBLE)" if own.number else "CAST(NULL AS DOUBLE)"
    no_number = f"b.{own.number} IS NOT NULL AND NOT COALESCE(isfinite(number), false)" if own.number else "false"
    beyond = f"b.{own.number} IS NOT NULL AND ({_OPERATOR}) IS NOT NULL" if _OPERATOR in own.text else "false"
    unit = "CASE WHEN u.vocabulary_id = 'UCUM' THEN u.concept_code ELSE NULLIF(trim(b.unit_source_value), '') END"
    joins = [("c", f"b.{own.concept}"), ("s", _column(own.source_concept))]
    joins += [("u", "b.unit_concept_id")] if own.unit else []
    joins += [("v", "b.value_as_concept_id")] if "value_as_concept_id" in own.others else []
    joined = "\n".join(
        f"LEFT JOIN concepts {name} ON {name}.concept_id = TRY_CAST({on} AS BIGINT)" for name, on in joins
    )
    return f"""
        SELECT *, CASE WHEN clock = TIME '00:00:00' THEN time + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND END
            AS available_time, IF(beyond, 'value beyond a limit, kept as text', NULL) AS note
        FROM (SELECT *, CAST(time AS TIME) AS clock, CASE
            WHEN subject_id IS NULL THEN 'no person_id'
            WHEN time IS NULL AND no_date THEN 'no date'
            WHEN time IS NULL THEN 'date is not understood'
            WHEN code IS NULL THEN 'no concept and no source value'
            WHEN no_number THEN 'value_as_number is not a number' END AS reason
        FROM (SELECT b.{own.key} AS key, CAST(TRY_CAST(b.person_id AS BIGINT) AS VARCHAR) AS subject_id,
            COALESCE(TRY_CAST({_column(own.datetime)} AS TIMESTAMP), TRY_CAST(b.{own.date} AS TIMESTAMP)) AS time,
            COALESCE(CAST({_column(own.datetime)} AS VARCHAR), CAST(b.{own.date} AS VARCHAR)) IS NULL AS no_date,
            {code} AS code, {number} AS number, {beyond} AS beyond, IF(beyond, NULL, number) AS numeric_value,
            {no_number} AS no_number,
            CAST({text} AS VARCHAR) AS text_value, {unit if own.unit else "NULL"} AS unit
        FROM ({rows}) b {joined}))"""


def _column(name: str | None) -> str:
    return f"b.{name}" if name else "NULL"


def _person_query(present: Sequence[str]) -> str:
    """Return the SQL from one batch of persons to their birth, gender and race."""
    lacking = [name for name in _PERSON if name not in present]
    rows = f"SELECT *{''.join(f', NULL AS {name}' for name in lacking)} FROM batch"
    return f"""
        WITH b AS (SELECT *, CAST(TRY_CAST(person_id AS BIGINT) AS VARCHAR) AS subject FROM ({rows})),
        born AS (SELECT *, COALESCE(TRY_CAST(birth_datetime AS TIMESTAMP), TRY_CAST(
            CAST(year_of_birth AS VARCHAR) || '-' || COALESCE(CAST(month_of_birth AS VARCHAR), '7') || '-' ||
            IF(month_of_birth IS NULL, '1', COALESCE(CAST(day_of_birth AS VARCHAR), '15')) AS TIMESTAMP)) AS birth FROM b),
        facts AS (
            SELECT person_id, subject, birth AS time, 'MEDS_BIRTH' AS code, NULL AS text,
                CASE WHEN birth IS NULL THEN 'no date of birth' END AS reason FROM born
            UNION ALL BY NAME SELECT person_id, subject, 'Gender//' || COALESCE(
                CASE TRY_CAST(gender_concept_id AS BIGINT) WHEN 8507 THEN 'M' WHEN 8532 THEN 'F' END, c.concept_code,
                NULLIF(trim(CAST(gender_source_value AS VARCHAR)), '')) AS code,
                COALESCE(CAST(gender_source_value AS VARCHAR), split_part(code, '//', 2)) AS text,
                CASE WHEN code IS NULL THEN 'no gender' END AS reason
            FROM b LEFT JOIN concepts c ON c.concept_id = TRY_CAST(b.gender_concept_id AS BIGINT)
            UNION ALL BY NAME SELECT person_id, subject, 'Race//' || COALESCE(c.concept_code,
                NULLIF(trim(CAST(race_source_value AS VARCHAR)), '')) AS code,
                COALESCE(CAST(race_source_value AS VARCHAR), split_part(code, '//', 2)) AS text,
                CASE WHEN code IS NULL THEN 'no race' END AS reason
            FROM b LEFT JOIN concepts c ON c.concept_id = TRY_CAST(b.race_concept_id AS BIGINT)
            UNION ALL BY NAME SELECT person_id, subject, 'Organization//' || CAST(care_site_id AS VARCHAR) AS code,
                CAST(care_site_id AS VARCHAR) AS text FROM b WHERE care_site_id IS NOT NULL)
        SELECT person_id AS key, subject AS subject_id, time, code, CAST(NULL AS DOUBLE) AS numeric_value,
            text AS text_value, CAST(NULL AS VARCHAR) AS unit, CAST(NULL AS TIMESTAMP) AS available_time,
            CASE WHEN subject IS NULL THEN 'no person_id' ELSE reason END AS reason
        FROM facts"""
