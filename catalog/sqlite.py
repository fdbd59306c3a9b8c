"""SQLite, for reading."""

import json
import math
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from catalog.reader import (
    MOST_BYTES,
    MOST_ROWS,
    TIMEOUT_S,
    Answer,
    Interrupted,
    Reader,
    answer_of,
    bounded,
    columns_of,
    refusal,
    too_long,
)
from schemas.errors import SetupError

BUSY_TIMEOUT_S = 30.0
COUNT_TO = 50_000
"""Rows that are counted in some milliseconds."""
STEPS_BETWEEN_SIGNALS = 100_000
"""Steps of SQLite's machine, some milliseconds, after which Python may see Ctrl-C."""


class SqliteReader(Reader):
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

    def _select(self, query: str, values: dict[str, Any]) -> Answer:
        packed = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            return answer_of(self._connection.execute(query, packed))
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise (Interrupted if self._interrupted else KeyboardInterrupt) from None
            raise

    def expected(self, table: str, condition: str, values: dict[str, Any]) -> float:
        """As far as they are counted: SQLite keeps no statistics."""
        query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT {COUNT_TO}) counted"
        return float(self.select(query, values).rows[0][0])

    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, most_rows: int = MOST_ROWS) -> Answer:
        deadline = time.monotonic() + (timeout_s or math.inf)
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_SIGNALS)
        self._connection.set_authorizer(_only_reads)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)  # of a value, and of a row
        try:
            cursor = self._connection.execute(query)
            return Answer(columns_of(cursor), bounded(cursor, most_rows))
        except (sqlite3.Error, sqlite3.Warning) as error:
            if str(error) != "interrupted":
                raise refusal(error) from None
            raise (too_long(timeout_s) if time.monotonic() > deadline else KeyboardInterrupt) from None
        finally:
            self._connection.set_authorizer(None)

    def _cancel(self) -> None:
        self._connection.interrupt()

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
