"""Bulk statements that SQLite and PostgreSQL share."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Insert, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
MOST_VALUES = 1000
"""How many values one IN list holds: below every database's limit of parameters."""


def insert_into(connection: Connection, table: Table) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_missing(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose unique keys are not there yet. Rows come sorted by key, or two writers could deadlock."""
    if rows:
        statement: Insert = insert_into(connection, table).on_conflict_do_nothing()
        connection.execute(statement, list(rows))


def rows_where(
    connection: Connection, statement: Select[Any], column: Column[Any], values: Iterable[Any]
) -> Iterator[Any]:
    """The rows of a SELECT whose `column` has one of these values."""
    for some in batches(values, MOST_VALUES):
        yield from connection.execute(statement.where(column.in_(some)))


def ids_by(connection: Connection, column: Column[Any], values: Iterable[T]) -> dict[T, int]:
    """The ids of the rows whose unique `column` has one of these values."""
    return dict(map(tuple, rows_where(connection, select(column, column.table.c.id), column, values)))


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def plain(text: str) -> str:
    """The text as every database can hold it: PostgreSQL has no NUL, and no half of a surrogate pair is UTF-8."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
