"""Bulk statements that SQLite and PostgreSQL share."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, Select, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
MOST_VALUES = 1000
"""How many values one IN list holds: below every database's limit of parameters."""


VALUES: BindParameter[Any] = bindparam("values", expanding=True)
"""Stands in a SELECT's `IN` for the values that `rows_where` is given."""


def insert_into(dialect: str, table: Table) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT. What is built on it is kept: building takes longer than sending."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def insert_missing(dialect: str, table: Table) -> Any:
    """An INSERT of rows whose unique keys are not there yet. Give it rows sorted by key, or two writers could deadlock."""
    return insert_into(dialect, table).on_conflict_do_nothing()


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
