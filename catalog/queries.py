"""Questions to the database. Read-only, by the database's own means."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from schemas.database import Database
from schemas.errors import UsageError


@dataclass(frozen=True)
class Answer:
    """Columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def ask(database: Database, query: str) -> Answer:
    """The answer to one SELECT. Raises UsageError in one line for what the database refuses or does not understand."""
    try:
        with _read_only(database) as connection:
            result = connection.exec_driver_sql(_literal(query, database))
            if not result.returns_rows:
                raise UsageError("the statement answers nothing; sql takes a SELECT")
            return Answer(list(result.keys()), [tuple(row) for row in result])
    except DBAPIError as error:
        raise UsageError(f"the database says: {str(error.orig).strip().splitlines()[0]}") from None


def image_of(database: Database, image: str, uri: str, job: str | None) -> Answer | None:
    """The captions of an image by its URI or id, newest first: one row a job and recipe. None for an unknown image."""
    by_id = image.isdecimal()
    condition = "image_id = :id" if by_id else "uri = :uri"
    if job is not None:
        condition += " AND job = :job"
    values = {"id": int(image)} if by_id else {"uri": uri}
    query = f"SELECT * FROM captions WHERE {condition} ORDER BY annotation_id DESC"
    return _select(database, query, values | ({"job": job} if job else {}))


def failures_of(database: Database, image: str, uri: str) -> Answer | None:
    """The failures of an image by its URI or id."""
    by_id = image.isdecimal()
    query = f"SELECT job, code, message FROM failures WHERE {'image_id = :id' if by_id else 'uri = :uri'}"
    return _select(database, query, {"id": int(image)} if by_id else {"uri": uri})


def boxes_of(database: Database, annotation_id: int, job: str) -> Answer | None:
    """The boxes of an annotation in the order of its caption."""
    query = """
        SELECT DISTINCT entity, box, phrase, x1, y1, x2, y2, px1, py1, px2, py2, score, valid FROM groundings
        WHERE annotation_id = :annotation AND job = :job ORDER BY entity, box"""
    return _select(database, query, {"annotation": annotation_id, "job": job})


def _select(database: Database, query: str, values: dict[str, Any]) -> Answer | None:
    with database.read() as connection:
        result = connection.execute(text(query), values)
        columns = list(result.keys())
        rows = [tuple(row) for row in result]
    return Answer(columns, rows) if rows else None


@contextmanager
def _read_only(database: Database) -> Iterator[Connection]:
    """A connection on which a write fails in the database itself."""
    with database.read() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        else:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        try:
            yield connection
        finally:
            connection.rollback()
            if database.is_sqlite:
                connection.exec_driver_sql("PRAGMA query_only = OFF")


def _literal(query: str, database: Database) -> str:
    """The query for a driver that takes `%` for a placeholder."""
    return query if database.is_sqlite else query.replace("%", "%%")
