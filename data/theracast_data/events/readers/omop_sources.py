"""Where an OMOP Common Data Model lies: a DuckDB file, a folder of Parquet files, or a PostgreSQL server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa

from theracast_data.errors import SchemaError

MEMORY_LIMIT = "512MB"
_PARQUET = ".parquet"


class OmopSource(Protocol):
    """The tables of one database, streamed; names of tables and columns are in lower case outside."""

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns of a table; none if the table is not there."""

    def batches(self, table: str, columns: Sequence[str], *, batch_rows: int) -> Iterator[pa.Table]:
        """Yield the rows of a table, at most `batch_rows` at a time."""

    def concepts(self, used: Mapping[str, Sequence[str]]) -> pa.Table:
        """Return concept_id, vocabulary_id and concept_code of the concepts in these columns: {table: columns}."""


@contextmanager
def open_omop(location: str | Path, *, database_schema: str | None) -> Iterator[OmopSource]:
    """Open the database for reading only.

    Args:
        location: a DuckDB file, a folder with `person.parquet` (or `person/*.parquet`) and so on, or
            `postgresql://user@host:port/database`, whose password is taken from the environment variable PGPASSWORD.
        database_schema: where the tables lie in a database; by default `main` (DuckDB) or `public` (PostgreSQL).

    Raises:
        SchemaError: nothing is there, or it is no such database.
    """
    if str(location).startswith(("postgresql://", "postgres://")):
        with _postgres(str(location), database_schema or "public") as source:
            yield source
        return
    path = Path(location)
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2}) as connection:
        if path.is_dir():
            yield _parquet_folder(connection, path)
        else:
            yield _duckdb_file(connection, path, database_schema or "main")


def used_concepts_query(used: Mapping[str, Sequence[str]], *, prefix: str, integer: str) -> str:
    """Return the SQL for the concepts that these columns name; `integer` is the cast function, with `{}` inside."""
    ids = " UNION ".join(
        f'SELECT {integer.format(column)} AS id FROM {prefix}"{table}"'
        for table, columns in used.items()
        for column in columns
    )
    own = integer.format("concept_id")
    return (
        f"SELECT {own} AS concept_id, vocabulary_id AS vocabulary_id, concept_code AS concept_code "
        f'FROM {prefix}"concept" WHERE {own} IN (SELECT id FROM ({ids}) AS named WHERE id <> 0)'
    )


class _DuckdbSource:
    """Tables or views that one DuckDB connection sees."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str], prefix: str) -> None:
        self._connection = connection
        self._tables = tables  # lower case to the name as it is spelt
        self._prefix = prefix

    def columns(self, table: str) -> frozenset[str]:
        if table not in self._tables:
            return frozenset()
        return frozenset(name.lower() for name in self._connection.sql(f"FROM {self._named(table)}").columns)

    def batches(self, table: str, columns: Sequence[str], *, batch_rows: int) -> Iterator[pa.Table]:
        chosen = ", ".join(f'"{column}" AS {column}' for column in columns)
        # A cursor of its own: a second query on the same connection would end this stream.
        with self._connection.cursor() as cursor:
            query = cursor.sql(f"SELECT {chosen} FROM {self._named(table)}")
            for batch in query.to_arrow_reader(batch_rows):
                yield pa.Table.from_batches([batch])

    def concepts(self, used: Mapping[str, Sequence[str]]) -> pa.Table:
        spelt = {self._tables[table]: columns for table, columns in used.items()}
        query = used_concepts_query(spelt, prefix=self._prefix, integer="TRY_CAST({} AS BIGINT)")
        return self._connection.sql(query).to_arrow_table()

    def _named(self, table: str) -> str:
        return f'{self._prefix}"{self._tables[table]}"'


def _duckdb_file(connection: duckdb.DuckDBPyConnection, path: Path, schema: str) -> OmopSource:
    if not path.is_file():
        raise SchemaError(
            f"{path}: no such file or folder. Give a DuckDB file, a folder of Parquet files, or postgresql://..."
        )
    try:
        connection.execute(f"ATTACH {_quoted(path)} AS cdm (READ_ONLY)")
    except duckdb.Error as error:
        raise SchemaError(
            f"{path}: not a DuckDB file that can be read ({type(error).__name__}). "
            "Close the program that writes to it, or export the tables as Parquet into a folder."
        ) from error
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'cdm' AND table_schema = ?", [schema]
    ).fetchall()
    return _DuckdbSource(connection, {name.lower(): name for (name,) in found}, f'cdm."{schema}".')


def _parquet_folder(connection: duckdb.DuckDBPyConnection, folder: Path) -> OmopSource:
    tables = {}
    for entry in sorted(folder.iterdir()):
        pattern = entry / f"*{_PARQUET}" if entry.is_dir() else entry
        if entry.suffix == _PARQUET or (entry.is_dir() and any(entry.glob(f"*{_PARQUET}"))):
            name = entry.stem.lower()
            query = f'CREATE VIEW "{name}" AS FROM read_parquet({_quoted(pattern)}, union_by_name = true)'
            try:
                connection.execute(query)
            except duckdb.Error as error:
                raise SchemaError(
                    f"{entry}: not Parquet, or damaged ({type(error).__name__}). Export it again."
                ) from error
            tables[name] = name
    return _DuckdbSource(connection, tables, "")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


class _PostgresSource:
    """Tables of one schema on a server, through a server-side cursor; every cell comes as text."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._cursor = connection.cursor()
        self._schema = schema
        self._cursor.execute(
            "SELECT lower(table_name), lower(column_name) FROM information_schema.columns WHERE table_schema = %s",
            (schema,),
        )
        self._columns: dict[str, set[str]] = {}
        for table, column in self._cursor.fetchall():
            self._columns.setdefault(table, set()).add(column)

    def columns(self, table: str) -> frozenset[str]:
        return frozenset(self._columns.get(table, ()))

    def batches(self, table: str, columns: Sequence[str], *, batch_rows: int) -> Iterator[pa.Table]:
        chosen = ", ".join(f"CAST({column} AS text) AS {column}" for column in columns)
        schema = pa.schema([(column, pa.string()) for column in columns])
        self._cursor.execute(f'DECLARE omop NO SCROLL CURSOR FOR SELECT {chosen} FROM "{self._schema}"."{table}"')
        try:
            while True:
                self._cursor.execute(f"FETCH FORWARD {batch_rows} FROM omop")
                rows = self._cursor.fetchall()
                if not rows:
                    return
                cells = [pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)]
                yield pa.Table.from_arrays(cells, schema=schema)
        finally:
            self._cursor.execute("CLOSE omop")

    def concepts(self, used: Mapping[str, Sequence[str]]) -> pa.Table:
        self._cursor.execute(used_concepts_query(used, prefix=f'"{self._schema}".', integer="CAST({} AS bigint)"))
        rows = self._cursor.fetchall()
        names = ("concept_id", "vocabulary_id", "concept_code")
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        types = (pa.int64(), pa.string(), pa.string())
        return pa.table({name: pa.array(cells, kind) for name, cells, kind in zip(names, columns, types, strict=True)})


@contextmanager
def _postgres(url: str, schema: str) -> Iterator[OmopSource]:
    try:
        import pg8000.dbapi  # type: ignore[import-untyped]  # it brings no types
    except ImportError as error:
        raise SchemaError(
            "Reading OMOP from PostgreSQL needs the package pg8000: pip install 'theracast[server]'."
        ) from error
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or 5432}{parts.path}"
    if parts.password is not None:
        raise SchemaError(
            f"PostgreSQL at {where}: take the password out of the address, where it would end in records of the study, "
            "and set it in the environment variable PGPASSWORD."
        )
    user = unquote(parts.username or os.environ.get("PGUSER", ""))
    try:
        connection = pg8000.dbapi.connect(
            user,
            host=parts.hostname or "localhost",
            database=parts.path.lstrip("/") or None,
            port=parts.port or 5432,
            password=os.environ.get("PGPASSWORD"),
        )
    except (pg8000.Error, OSError) as error:
        raise SchemaError(
            f"PostgreSQL at {where} cannot be opened ({type(error).__name__}). "
            "Check the address, the user in it, and the password in the environment variable PGPASSWORD."
        ) from error
    try:
        # One snapshot for all tables, and no way to change the hospital's database.
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield _PostgresSource(connection, schema)
    finally:
        connection.close()
