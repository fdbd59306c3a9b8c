"""The database for people who look: read-only by its own means, and there at once.

SQLite is reached through its driver alone, because SQLAlchemy takes a third of a second to import.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from schemas.errors import KosmographError, SetupError, UsageError
from schemas.version import HEAD

TIMEOUT_S, MOST_ROWS, MOST_BYTES = 60.0, 100_000, 256 * 2**20
"""What an answer may take, unless told: seconds, rows, and bytes of text, which all stand in memory at once."""

_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?P<path>[^?]+)(\?.*)?")


@dataclass(frozen=True)
class Answer:
    """Columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Interrupted(KosmographError):
    """A question was given up before it was answered."""

    def __init__(self) -> None:
        super().__init__("the question was given up before it was answered; ask for something rarer")


class Reader(ABC):
    """One connection. `str()` of it is its URL without secrets."""

    dialect: str
    _connection: Any
    _interrupted = False
    _explain: str
    """What stands before a statement to have its plan; no option may follow it, so that nothing is ever run."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def has_tables(self) -> bool:
        """Whether a Kosmograph has ever made this database."""

    def select(self, query: str, values: dict[str, Any] | None = None) -> Answer:
        """The answer to a query of ours, with its parameters as `:name`, and lists where `in_list` stands."""
        if self._interrupted:
            raise Interrupted
        return self._select(query, values or {})

    @abstractmethod
    def _select(self, query: str, values: dict[str, Any]) -> Answer:
        """The same. Raises Interrupted where it is `_cancel` that ends it."""

    def step_by_step(self) -> None:
        """Have `select`, until the next `rest`, take row by row what it needs of an ordered index, and then stop.

        PostgreSQL else prepares for all rows where it expects few, and sets several processes to it, which read ahead.
        """
        return

    @abstractmethod
    def expected(self, table: str, condition: str, values: dict[str, Any]) -> float:
        """About how many rows fulfil a condition, without reading them all."""

    def interrupt(self) -> None:
        """Called in another thread: `select` ends now, and until the next `rest`, with Interrupted."""
        self._interrupted = True
        self._cancel()

    @abstractmethod
    def _cancel(self) -> None:
        """Have the database end what it does for us."""

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
        self._interrupted = False
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_reader(url: str) -> Reader:
    """The database at a URL. Raises SetupError when it is not there, or not of this version."""
    from catalog.postgresql import PostgresqlReader
    from catalog.sqlite import SqliteReader

    found = _SQLITE.fullmatch(url)
    reader = SqliteReader(Path(found["path"]).absolute()) if found else PostgresqlReader(url)
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


def answer_of(cursor: Any) -> Answer:
    return Answer(columns_of(cursor), cursor.fetchall())


def columns_of(cursor: Any) -> list[str]:
    if cursor.description is None:
        raise UsageError("the statement answers nothing; sql takes a SELECT")
    return [column[0] for column in cursor.description]


def bounded(rows: Iterable[Sequence[Any]], most_rows: int) -> list[Sequence[Any]]:
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


def too_long(timeout_s: float) -> UsageError:
    return UsageError(f"no answer within {timeout_s:g} s; ask for less, or say --timeout SECONDS (0: no limit)")


def refusal(error: Exception) -> UsageError:
    hint = "; sql reads one SELECT" if "not authorized" in str(error) else ""
    return UsageError(f"the database says: {first_line(error)}{hint}")


def first_line(error: object) -> str:
    return str(error).strip().split("\n")[0]
