"""The database for people who look: read-only by its own means, and there at once.

SQLite is reached through its driver alone, because SQLAlchemy takes a third of a second to import.
"""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from schemas.errors import SetupError, UsageError
from schemas.version import HEAD

BUSY_TIMEOUT_S = 30.0
STEPS_BETWEEN_SIGNALS = 100_000
"""Steps of SQLite's machine, some milliseconds, after which Python may see Ctrl-C."""

_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?P<path>[^?]+)")


@dataclass(frozen=True)
class Answer:
    """Columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Reader(ABC):
    """One connection. `str()` of it is its URL without secrets."""

    _connection: Any

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def has_tables(self) -> bool:
        """Whether a Kosmograph has ever made this database."""

    @abstractmethod
    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        """The answer to a query of ours, with its parameters as `:name`."""

    @abstractmethod
    def ask(self, query: str) -> Answer:
        """The answer to one SELECT of a person. Raises UsageError, in one line, for all that is none."""

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_reader(url: str) -> Reader:
    """The database at a URL. Raises SetupError when it is not there, or not of this version."""
    found = _SQLITE.fullmatch(url)
    reader = _Sqlite(Path(found["path"]).absolute()) if found else _Postgresql(url)
    if not reader.has_tables():
        raise SetupError(f"{reader} holds no Kosmograph tables; kosmograph annotate FOLDER --db URL makes them")
    version = reader.select("SELECT version_num FROM alembic_version").rows
    if list(version) != [(HEAD,)]:
        (found_version,) = version[0] if version else ("none",)
        raise SetupError(
            f"{reader} has schema {found_version}, this Kosmograph needs {HEAD}; kosmograph annotate upgrades it"
        )
    return reader


class _Sqlite(Reader):
    """A file, opened for reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            raise SetupError(
                f"there is no database at {path}; kosmograph annotate FOLDER makes one, --db names another"
            )
        try:
            self._connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
        except sqlite3.Error as error:
            raise SetupError(f"{self} cannot be opened: {error}; check its permissions") from None
        self._connection.set_progress_handler(lambda: None, STEPS_BETWEEN_SIGNALS)

    def __str__(self) -> str:
        return f"sqlite:///{self._path}"

    def has_tables(self) -> bool:
        try:
            return bool(self.select("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").rows)
        except sqlite3.DatabaseError as error:
            raise SetupError(f"{self} cannot be read: {error}; --db names another") from None

    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        return _answer(self._connection.execute(query, values or {}))

    def ask(self, query: str) -> Answer:
        self._connection.set_authorizer(_only_reads)
        try:
            return _answer(self._connection.execute(query))
        except (sqlite3.Error, sqlite3.Warning) as error:
            if str(error) == "interrupted":  # by Ctrl-C, in the progress handler
                raise KeyboardInterrupt from None
            raise _refusal(error) from None
        finally:
            self._connection.set_authorizer(None)


def _only_reads(action: int, *about: str | None) -> int:
    """SQLite asks before it prepares a statement: no ATTACH, PRAGMA, transaction or write gets past."""
    reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    harmless = action == sqlite3.SQLITE_FUNCTION and about[1] != "load_extension"
    return sqlite3.SQLITE_OK if action in reads or harmless else sqlite3.SQLITE_DENY


class _Postgresql(Reader):
    """A session whose one transaction is read-only, as a role that may do nothing but read."""

    def __init__(self, url: str) -> None:
        from sqlalchemy.exc import DBAPIError

        from schemas.database import Database

        self._database = Database(url)
        try:
            self._connection = self._database.engine.raw_connection().driver_connection
        except DBAPIError as error:
            raise SetupError(f"{self} does not answer: {_first_line(error.orig)}") from None
        self._connection.read_only = True

    def __str__(self) -> str:
        return str(self._database)

    def has_tables(self) -> bool:
        return self.select("SELECT to_regclass('alembic_version')").rows != [(None,)]

    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        return _answer(self._connection.execute(re.sub(r":(\w+)", r"%(\1)s", query), values or {}))

    def ask(self, query: str) -> Answer:
        from psycopg import Error

        if self.select("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").rows == [(True,)]:
            raise UsageError(
                "sql does not work as a superuser, who reads and runs files of the server even in a read-only "
                "transaction; use a role that only reads: CREATE ROLE analyst LOGIN IN ROLE pg_read_all_data"
            )
        try:
            # prepared, so that the server takes one statement and no second one behind a semicolon
            return _answer(self._connection.cursor().execute(query, prepare=True))
        except Error as error:
            raise _refusal(error) from None

    def close(self) -> None:
        super().close()
        self._database.close()


def _answer(cursor: Any) -> Answer:
    if cursor.description is None:
        raise UsageError("the statement answers nothing; sql takes a SELECT")
    return Answer([column[0] for column in cursor.description], cursor.fetchall())


def _refusal(error: Exception) -> UsageError:
    hint = "; sql reads one SELECT" if "not authorized" in str(error) else ""
    return UsageError(f"the database says: {_first_line(error)}{hint}")


def _first_line(error: object) -> str:
    return str(error).strip().split("\n")[0]
