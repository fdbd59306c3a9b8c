"""The database for people who look: read-only by its own means, and there at once.

SQLite is reached through its driver alone, because SQLAlchemy takes a third of a second to import.
"""

import json
import math
import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from schemas.errors import SetupError, UsageError
from schemas.version import HEAD

BUSY_TIMEOUT_S = 30.0
STEPS_BETWEEN_SIGNALS = 100_000
"""Steps of SQLite's machine, some milliseconds, after which Python may see Ctrl-C."""

TIMEOUT_S, MOST_ROWS, MOST_BYTES = 60.0, 100_000, 256 * 2**20
"""What an answer may take, unless told: seconds, rows, and bytes of text, which all stand in memory at once."""

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

    dialect: str
    _connection: Any
    _explain: str
    """What stands before a statement to have its plan; no option may follow it, so that nothing is ever run."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def has_tables(self) -> bool:
        """Whether a Kosmograph has ever made this database."""

    @abstractmethod
    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        """The answer to a query of ours, with its parameters as `:name`, and lists where `in_list` stands."""

    def in_list(self, name: str) -> str:
        """What stands behind a column to ask whether it is in the list that `select` is given by this name."""
        return f"IN (SELECT value FROM json_each(:{name}))" if self.dialect == "sqlite" else f"= ANY(:{name})"

    @abstractmethod
    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, most_rows: int = MOST_ROWS) -> Answer:
        """The answer to one SELECT of a person, within the bounds (0: none).

        Raises UsageError, in one line, for all that is none, takes too long or is too much.
        """

    def explain(self, query: str, *, timeout_s: float = TIMEOUT_S) -> Answer:
        """How the database would go about one SELECT of a person, without doing it: a row a step, what serves it below.

        Raises UsageError as `ask` does: it is the same guard.
        """
        steps = self._steps(self.ask(f"{self._explain} {query}", timeout_s=timeout_s))
        if not steps:
            raise UsageError("the statement has no plan; sql --explain takes a SELECT")
        return Answer(["plan"], [(step,) for step in steps])

    @abstractmethod
    def _steps(self, plan: Answer) -> list[str]:
        """The lines of a plan as the database gives it."""

    def rest(self) -> None:
        """End the transaction: a server cuts off who stands idle in one, and keeps what it might still read."""
        self._connection.rollback()

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
    try:
        _require_tables(reader)
    except SetupError:
        reader.close()
        raise
    return reader


def _require_tables(reader: Reader) -> None:
    if not reader.has_tables():
        raise SetupError(f"{reader} holds no Kosmograph tables; kosmograph annotate FOLDER --db URL makes them")
    version = reader.select("SELECT version_num FROM alembic_version").rows
    if list(version) != [(HEAD,)]:
        (found_version,) = version[0] if version else ("none",)
        raise SetupError(
            f"{reader} has schema {found_version}, this Kosmograph needs {HEAD}; kosmograph annotate upgrades it"
        )


class _Sqlite(Reader):
    """A file, opened for reading."""

    dialect = "sqlite"
    _explain = "EXPLAIN QUERY PLAN"

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
        self._connection.create_function("ln", 1, _ln, deterministic=True)

    def __str__(self) -> str:
        return f"sqlite:///{self._path}"

    def has_tables(self) -> bool:
        try:
            return bool(self.select("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").rows)
        except sqlite3.DatabaseError as error:
            raise SetupError(f"{self} cannot be read: {error}; --db names another") from None

    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        every = (values or {}).items()
        packed = {name: json.dumps(value) if isinstance(value, list) else value for name, value in every}
        return _answer(self._connection.execute(query, packed))

    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, most_rows: int = MOST_ROWS) -> Answer:
        deadline = time.monotonic() + (timeout_s or float("inf"))
        self._connection.set_authorizer(_only_reads)
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_SIGNALS)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)  # of a value, and of a row
        try:
            cursor = self._connection.execute(query)
            return Answer(_columns(cursor), _bounded(cursor, most_rows))
        except (sqlite3.Error, sqlite3.Warning) as error:
            if str(error) != "interrupted":
                raise _refusal(error) from None
            if time.monotonic() > deadline:
                raise _too_long(timeout_s) from None
            raise KeyboardInterrupt from None  # Ctrl-C, in the progress handler
        finally:
            self._connection.set_authorizer(None)

    def _steps(self, plan: Answer) -> list[str]:
        depths: dict[int, int] = {}
        for step, above, *_ in plan.rows:
            depths[step] = depths.get(above, -1) + 1
        return [f"{'  ' * depths[step]}{told}" for step, *_, told in plan.rows]


def _ln(number: float | None) -> float | None:
    """The natural logarithm, for the view `cooccurrences`: SQLite may be built without it."""
    return math.log(number) if isinstance(number, int | float) and number > 0 else None


def _only_reads(action: int, *about: str | None) -> int:
    """SQLite asks before it prepares a statement: no ATTACH, PRAGMA, transaction or write gets past.

    Nor do the two functions that take code: some builds leave them on.
    """
    reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    harmless = action == sqlite3.SQLITE_FUNCTION and about[1] not in ("load_extension", "fts3_tokenizer")
    return sqlite3.SQLITE_OK if action in reads or harmless else sqlite3.SQLITE_DENY


class _Postgresql(Reader):
    """A session whose one transaction is read-only, as a role that may do nothing but read.

    The tables' owner can change nothing either, but may end the pipeline's own sessions (`pg_terminate_backend`), which
    come back: analysts have a role of their own.
    """

    dialect = "postgresql"
    _explain = "EXPLAIN (FORMAT TEXT)"

    def __init__(self, url: str) -> None:
        from sqlalchemy.exc import DBAPIError

        from schemas.database import Database

        self._database = Database(url)
        from psycopg import Error  # which is there: the database has looked

        try:
            self._connection = self._database.engine.raw_connection().driver_connection
        except (DBAPIError, Error) as error:
            said = _first_line(getattr(error, "orig", error))
            raise SetupError(f"{self} does not answer: {said}") from None
        self._connection.read_only = True

    def __str__(self) -> str:
        return str(self._database)

    def has_tables(self) -> bool:
        return self.select("SELECT to_regclass('alembic_version')").rows != [(None,)]

    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        from psycopg import Error

        try:
            return _answer(self._connection.execute(re.sub(r":(\w+)", r"%(\1)s", query), values or {}))
        except Error as error:
            raise SetupError(f"{self} cannot be read: {_first_line(error)}; check the role and its rights") from None

    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, most_rows: int = MOST_ROWS) -> Answer:
        from psycopg import Error
        from psycopg.errors import QueryCanceled

        if self.select(_POWERS).rows:
            raise UsageError(
                "sql does not work as a superuser, or as a member of one or of pg_read_server_files and its like, who "
                "reach files and programs of the server even in a read-only transaction; use a role that only reads: "
                "CREATE ROLE analyst LOGIN IN ROLE pg_read_all_data"
            )
        # the clock of a statement starts with it: changed within, the setting counts for the next, and there is none
        self.select("SELECT set_config('statement_timeout', :ms, false)", {"ms": str(round(timeout_s * 1000))})
        cursor = self._connection.cursor()
        try:
            # row by row, and by the protocol that takes one statement and no second one behind a semicolon
            rows = cursor.stream(query)
            found = _bounded(rows, most_rows)
            return Answer(_columns(cursor), found)
        except QueryCanceled:
            raise _too_long(timeout_s) from None
        except Error as error:
            raise _refusal(error) from None

    def _steps(self, plan: Answer) -> list[str]:
        return [row[0] for row in plan.rows]

    def rest(self) -> None:
        from psycopg import Error

        try:
            super().rest()
        except Error as error:
            raise SetupError(f"{self} does not answer: {_first_line(error)}") from None

    def close(self) -> None:
        super().close()
        self._database.close()


_POWERS = """
    SELECT 1 FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper OR rolname IN
    ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')) LIMIT 1
"""
"""What a role is or can become, by `set_config('role', …)` in the middle of a statement."""


def _answer(cursor: Any) -> Answer:
    return Answer(_columns(cursor), cursor.fetchall())


def _columns(cursor: Any) -> list[str]:
    if cursor.description is None:
        raise UsageError("the statement answers nothing; sql takes a SELECT")
    return [column[0] for column in cursor.description]


def _bounded(rows: Iterable[Sequence[Any]], most_rows: int) -> list[Sequence[Any]]:
    """All the rows. Raises UsageError where they are more than they may be: a part would pass for the whole."""
    kept: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        if most_rows and len(kept) >= most_rows:
            raise UsageError(f"the answer has more than {most_rows} rows; put a LIMIT on it, or --limit 0 for all")
        kept.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > MOST_BYTES:
            raise UsageError(f"the answer has more than {MOST_BYTES >> 20} MiB of text; ask for less of it at a time")
    return kept


def _too_long(timeout_s: float) -> UsageError:
    return UsageError(f"no answer within {timeout_s:g} s; ask for less, or say --timeout SECONDS (0: no limit)")


def _refusal(error: Exception) -> UsageError:
    hint = "; sql reads one SELECT" if "not authorized" in str(error) else ""
    return UsageError(f"the database says: {_first_line(error)}{hint}")


def _first_line(error: object) -> str:
    return str(error).strip().split("\n")[0]
