"""OMOP databases as events: a real one, Parquet files with faults, and a PostgreSQL server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from theracast_data.errors import SchemaError
from theracast_data.events.readers.omop import OmopOptions, read_omop
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA, empty_events

LAST = timedelta(days=1) - timedelta(microseconds=1)

CONCEPTS = [
    (3013682, "LOINC", "1751-7"), (201826, "SNOMED", "44054006"), (44054007, "ICD10CM", "E11"),
    (1125315, "RxNorm", "161"), (8713, "UCUM", "g/dL"), (9189, "SNOMED", "260385009"), (8527, "Race", "5"),
]  # fmt: skip
TABLES: dict[str, list[dict[str, Any]]] = {
    "concept": [dict(zip(("concept_id", "vocabulary_id", "concept_code"), row, strict=True)) for row in CONCEPTS],
    "person": [
        {"person_id": 1, "year_of_birth": 1950, "month_of_birth": 4, "day_of_birth": 12, "gender_concept_id": 8532,
         "gender_source_value": "w", "race_concept_id": 8527, "race_source_value": None, "care_site_id": 4},
        {"person_id": 2, "year_of_birth": 1961, "month_of_birth": None, "day_of_birth": None, "gender_concept_id": 0,
         "gender_source_value": None, "race_concept_id": 0, "race_source_value": None},
        {"person_id": 3, "year_of_birth": None, "month_of_birth": None, "day_of_birth": None, "gender_concept_id": 8507,
         "gender_source_value": None, "race_concept_id": None, "race_source_value": "asian"},
    ],
    "condition_occurrence": [
        {"condition_occurrence_id": 10, "person_id": 1, "condition_concept_id": 201826, "condition_source_concept_id": 0,
         "condition_start_date": "2020-01-05", "condition_source_value": "E11"},
        {"condition_occurrence_id": 11, "person_id": 1, "condition_concept_id": 0,
         "condition_source_concept_id": 44054007, "condition_start_date": "2020-01-06", "condition_source_value": "E11"},
        {"condition_occurrence_id": 12, "person_id": 1, "condition_concept_id": 0, "condition_source_concept_id": 0,
         "condition_start_date": "2020-01-07", "condition_source_value": "own-17"},
        {"condition_occurrence_id": 13, "person_id": 1, "condition_concept_id": 0, "condition_source_concept_id": 0,
         "condition_start_date": "2020-01-08", "condition_source_value": " "},
        {"condition_occurrence_id": 14, "person_id": 1, "condition_concept_id": 777, "condition_source_concept_id": 0,
         "condition_start_date": "sometime", "condition_source_value": None},
        {"condition_occurrence_id": 15, "person_id": 1, "condition_concept_id": 777, "condition_source_concept_id": 0,
         "condition_start_date": None, "condition_source_value": None},
        {"condition_occurrence_id": 16, "person_id": 1, "condition_concept_id": 777, "condition_source_concept_id": 0,
         "condition_start_date": "2020-01-09", "condition_source_value": None},
    ],
    "measurement": [
        {"measurement_id": 20 + number, "person_id": 1, "measurement_concept_id": 3013682,
         "measurement_date": "2020-02-01", "measurement_datetime": moment, "value_as_number": value,
         "unit_concept_id": unit, "unit_source_value": "g/l", "value_as_concept_id": coded, "operator_concept_id": sign,
         "value_source_value": "raw"}
        for number, (moment, value, unit, coded, sign) in enumerate([
            ("2020-02-01 07:30:00", "4.1", 8713, 0, 0), ("2020-02-01 00:00:00", "39", 0, 0, 4171756),
            (None, None, 0, 9189, 0), (None, "haemolysed", 0, 0, 0), (None, None, 0, 0, 0), (None, "NaN", 0, 0, 0),
        ])
    ],
    "drug_exposure": [
        {"drug_exposure_id": 30, "person_id": 1, "drug_concept_id": 1125315, "drug_type_concept_id": 38000180,
         "drug_exposure_start_date": "2020-03-01"},
        {"drug_exposure_id": 31, "person_id": None, "drug_concept_id": 1125315, "drug_type_concept_id": 38000177,
         "drug_exposure_start_date": "2020-03-01"},
    ],
    "observation": [
        {"observation_id": 40, "person_id": 1, "observation_concept_id": 3013682, "observation_date": "2020-04-01",
         "value_as_number": None, "value_as_string": "seen"},
    ],
    "death": [{"person_id": 1, "death_date": "2021-05-06", "cause_concept_id": 201826}],
}  # fmt: skip
REFUSED = {
    ("person", "no date of birth"): (1, "person, person_id 3"),
    ("person", "no gender"): (1, "person, person_id 2"),
    ("person", "no race"): (1, "person, person_id 2"),
    ("visit_occurrence", "the table is not there"): (1, "table visit_occurrence"),
    ("procedure_occurrence", "the table is not there"): (1, "table procedure_occurrence"),
    ("condition_occurrence", "no concept and no source value"): (1, "condition_occurrence, condition_occurrence_id 13"),
    ("condition_occurrence", "date is not understood"): (1, "condition_occurrence, condition_occurrence_id 14"),
    ("condition_occurrence", "no date"): (1, "condition_occurrence, condition_occurrence_id 15"),
    ("measurement", "value_as_number is not a number"): (2, "measurement, measurement_id 23"),
    ("measurement", "value beyond a limit, kept as text"): (1, "measurement, measurement_id 21"),
    ("drug_exposure", "no person_id"): (1, "drug_exposure, drug_exposure_id 31"),
}


def day(text: str) -> datetime:
    return datetime.fromisoformat(text)


def dated(
    code: str, text: str, number: float | None = None, note: str | None = None, unit: str | None = None
) -> tuple[Any, ...]:
    """An event of person 1 on a day without clock time: known at the end of that day."""
    return ("1", day(text), code, number, note, unit, day(text) + LAST)


EXPECTED = [
    ("1", day("1950-04-12"), "MEDS_BIRTH", None, None, None, None),
    ("2", day("1961-07-01"), "MEDS_BIRTH", None, None, None, None),
    ("1", None, "Gender//F", None, "w", None, None),
    ("3", None, "Gender//M", None, "M", None, None),
    ("1", None, "Race//5", None, "5", None, None),
    ("3", None, "Race//asian", None, "asian", None, None),
    ("1", None, "Organization//4", None, "4", None, None),
    dated("SNOMED//44054006", "2020-01-05"),
    dated("ICD10CM//E11", "2020-01-06"),
    dated("local//own-17", "2020-01-07"),
    dated("OMOP//777", "2020-01-09"),
    ("1", day("2020-02-01 07:30"), "LOINC//1751-7", 4.1, None, "g/dL", None),
    dated("LOINC//1751-7", "2020-02-01", None, "<39", "g/l"),
    dated("LOINC//1751-7", "2020-02-01", None, "SNOMED//260385009", "g/l"),
    dated("LOINC//1751-7", "2020-02-01", None, "raw", "g/l"),
    dated("RXNORM//161", "2020-03-01", None, "administered"),
    dated("LOINC//1751-7", "2020-04-01", None, "seen"),
    dated("MEDS_DEATH", "2021-05-06", None, "SNOMED//44054006"),
]


def read(location: str | Path, **options: Any) -> tuple[pa.Table, IngestReport]:
    """Return all events and the report."""
    report = IngestReport("omop")
    batches = list(read_omop(location, options=OmopOptions(path=str(location), **options), report=report, batch_rows=3))
    assert all(batch.schema == EVENT_SCHEMA for batch in batches)
    events = pa.concat_tables([empty_events(), *batches])
    assert report.written == events.num_rows
    return events, report


def rows(events: pa.Table) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in events.to_pylist()), key=repr)


def check(events: pa.Table, report: IngestReport) -> None:
    """Compare with what the tables above say."""
    assert rows(events) == sorted(EXPECTED, key=repr)
    assert {key: (count, report.first[key]) for key, count in report.refused.items()} == REFUSED
    assert report.read == sum(len(table) for name, table in TABLES.items() if name != "concept")


def arrow(name: str) -> pa.Table:
    return pa.Table.from_pylist(TABLES[name])


def test_parquet_folder_one_file_or_a_folder_a_table(tmp_path: Path) -> None:
    """Every fault is counted with its place, every other row is an event."""
    for name in TABLES:
        if name == "measurement":
            (tmp_path / name).mkdir()
            pq.write_table(arrow(name).slice(0, 2), tmp_path / name / "a.parquet")
            pq.write_table(arrow(name).slice(2), tmp_path / name / "b.parquet")
        else:
            pq.write_table(arrow(name), tmp_path / f"{name.upper()}.parquet")
    check(*read(tmp_path))


def test_duckdb_file_in_a_schema_of_its_own(tmp_path: Path) -> None:
    """Names in capitals, a schema that is not the default."""
    with duckdb.connect(tmp_path / "hospital.duckdb") as connection:
        connection.execute("CREATE SCHEMA cdm")
        for name in TABLES:
            connection.register("rows", arrow(name))
            connection.execute(f'CREATE TABLE cdm."{name.upper()}" AS FROM rows')
    check(*read(tmp_path / "hospital.duckdb", database_schema="cdm"))
    with pytest.raises(SchemaError, match="`database_schema`"):
        read(tmp_path / "hospital.duckdb")


def test_without_concepts_codes_are_ids_and_it_is_told(tmp_path: Path) -> None:
    """OMOP//ID says what it is; the report says why."""
    pq.write_table(arrow("drug_exposure").slice(0, 1), tmp_path / "drug_exposure.parquet")
    events, report = read(tmp_path, tables=("drug_exposure",))
    assert events["code"].to_pylist() == ["OMOP//1125315"]
    assert list(report.refused) == [("concept", "the table is not there; codes are OMOP//ID")]


@pytest.mark.parametrize("name", ["nothing.duckdb", "text.duckdb", "empty"])
def test_what_is_no_database_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.duckdb").write_text("no database")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SchemaError, match=name):
        read(tmp_path / name)


def test_a_damaged_file_and_a_password_in_the_address_are_told(tmp_path: Path) -> None:
    (tmp_path / "person.parquet").write_text("no Parquet")
    with pytest.raises(SchemaError, match=r"person\.parquet: .*Export it again"):
        read(tmp_path)
    pytest.importorskip("pg8000.dbapi", reason="pip install 'theracast[server]'")
    with pytest.raises(SchemaError, match="PGPASSWORD") as told:
        read("postgresql://reader:hush@127.0.0.1/postgres")
    assert "hush" not in str(told.value)


def test_eunomia_agrees_with_plain_queries(shared_cohorts: Path) -> None:
    """Counts by table and by code, and the first rows, against SQL that knows nothing of the reader."""
    path = shared_cohorts / "ehr" / "omop_eunomia" / "eunomia.duckdb"
    report = IngestReport("eunomia")
    batches = read_omop(path, options=OmopOptions(path=str(path)), report=report)
    events = pa.concat_tables(batches)
    assert dict(report.refused) == {("death", "the table lacks the column death_date, person_id"): 1}
    with duckdb.connect(path, read_only=True) as connection:
        query = """SELECT replace(vocabulary_id, 'RxNorm', 'RXNORM') || '//' || concept_code, count(*) FROM (
            SELECT condition_concept_id AS id FROM condition_occurrence UNION ALL
            SELECT drug_concept_id FROM drug_exposure UNION ALL SELECT procedure_concept_id FROM procedure_occurrence
            UNION ALL SELECT measurement_concept_id FROM measurement UNION ALL
            SELECT observation_concept_id FROM observation UNION ALL SELECT visit_concept_id FROM visit_occurrence)
            JOIN concept ON concept_id = id GROUP BY ALL"""
        expected = dict(connection.execute(query).fetchall())
        persons = connection.execute("SELECT count(*) FROM person").fetchall()[0][0]
    counted = events.group_by("code").aggregate([("code", "count")]).to_pylist()
    found = {row["code"]: row["code_count"] for row in counted}
    assert found.pop("MEDS_BIRTH") == found.pop("Gender//F") + found.pop("Gender//M") == persons == 2694
    assert sum(found.pop(code) for code in list(found) if code.startswith("Race//")) == persons
    assert found == expected
    assert set(events["available_time"].is_valid().to_pylist()) == {True, False}


def test_postgresql_through_a_server_side_cursor(
    postgres: Callable[..., contextlib.AbstractContextManager[Any]],
) -> None:
    """The same tables, typed as PostgreSQL types them, give the same events; nothing can be written."""
    with postgres("reader") as database:
        connection, port = database.connect(), database.port
        cursor = connection.cursor()
        for name, table in TABLES.items():
            words = {key for row in table for key, value in row.items() if isinstance(value, str)}
            cells = {key: "text" if key in words else "integer" for key in table[0]}
            cursor.execute(f"CREATE TABLE {name} ({', '.join(f'{key} {kind}' for key, kind in cells.items())})")
            for row in table:
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        cursor.execute("ALTER TABLE death ALTER death_date TYPE date USING CAST(death_date AS date)")
        connection.commit()
        connection.close()
        url = f"postgresql://reader@127.0.0.1:{port}/postgres"
        check(*read(url))
        with pytest.raises(SchemaError, match="user in it"):
            read(f"postgresql://reader@127.0.0.1:{port}/absent")
