"""Bulk statements that SQLite and PostgreSQL share."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, Dialect, Insert, Select, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
MOST_VALUES = 1000
"""How many values one IN list holds: below every database's limit of parameters."""


VALUES: BindParameter[Any] = bindparam("values", expanding=True)
"""Stands in a SELECT's `IN` for the values that `rows_where` is given."""


def insert_into(dialect: str, table: Table) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def insert_missing(dialect: str, table: Table) -> Any:
    """An INSERT of rows whose unique keys are not there yet."""
    return insert_into(dialect, table).on_conflict_do_nothing()


def insert_rows(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that all have the same keys. They come sorted by key, or two writers could deadlock.

    The statement is compiled once and the rows go to the driver as they are: SQLAlchemy's own way through each value
    takes longer than the databases do.
    """
    if rows:
        sql, order = _compiled(connection.dialect, statement, tuple(rows[0]))
        connection.exec_driver_sql(sql, [tuple(map(row.__getitem__, order)) for row in rows] if order else list(rows))


@cache
def _compiled(dialect: Dialect, statement: Insert, columns: tuple[str, ...]) -> tuple[str, list[str] | None]:
    compiled = statement.compile(dialect=dialect, column_keys=list(columns))
    return str(compiled), compiled.positiontup


def rows_where(
    connection: Connection, statement: Select[Any], values: Iterable[Any], **parameters: Any
) -> Iterator[Any]:
    """The rows of a SELECT that has `IN VALUES`, for these values."""
    for some in batches(values, MOST_VALUES):
        yield from connection.execute(statement, {"values": some, **parameters})


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
