"""The one way to the database: SQLite or PostgreSQL behind `read()` and `write()`."""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree  # all of the pool are taken, and stayed so
from sqlalchemy.pool import ConnectionPoolEntry

from schemas.errors import SetupError, UsageError

T = TypeVar("T")
PATIENCE_S = 600.0
"""How long whoever has work in hand waits for a database that is away."""
LAST_PATIENCE_S = 5.0
"""How long once he is to end."""
LOOK_S = 0.25
"""How soon he who waits sees that he is to end."""
BUSY_TIMEOUT_S = 30.0
ONE_STATE = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
ONE_STATEMENT = {"isolation_level": "AUTOCOMMIT"}

CONNECTIONS = 4
"""The most that a process has, however many threads: a transaction takes milliseconds."""
WAIT_FOR_ONE_S = 60.0
ASK_AFTER_S = 5.0
"""A connection that was idle for so long is asked whether it is still there, before it is used."""
LINK = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c plan_cache_mode=force_custom_plan -c idle_in_transaction_session_timeout=60s"
    " -c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}
"""After half a minute without a word from a PostgreSQL's machine, it is away: else a call waits for hours. The URL's
own values come first. A server that is stopped on a machine that lives answers for itself: that one is waited for.
By the options the server does the same with us: a worker that is stopped, or whose machine has lost power, within a
transaction, holds its job's row no longer than a minute."""

REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied for database",
    "is not permitted to log in",
    "is not currently accepting connections",
)
"""What a PostgreSQL says to whom it will refuse the next time too: no code comes with it."""


class Database:
    """A database by URL. Opening connects to nothing; `schemas.migrations.upgrade` makes the tables."""

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)
        self._reader = self._engine.execution_options(**({} if self.is_sqlite else ONE_STATE))
        self._asker = self._engine.execution_options(**({} if self.is_sqlite else ONE_STATEMENT))
        self._writer = self._engine.execution_options(writes=True)

    def __str__(self) -> str:
        """The URL without its secrets: a password may stand among the options as well."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    __repr__ = __str__

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.url.database).absolute() if self.is_sqlite and self.url.database else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database, writes nothing, and waits for no writer."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def ask(self) -> Iterator[Connection]:
        """A connection for one SELECT, which is a transaction by itself: a third of the way to the server and back."""
        with self._asker.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: it commits when the block ends, and rolls back when the block raises."""
        with self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def patiently(work: Callable[[], T], *, limit_s: float = PATIENCE_S, stop: Callable[[], bool] = lambda: False) -> T:
    """What `work` returns; while the database is away, deadlocked or busy it is called again, with growing pauses.

    Raises the last error after `limit_s` seconds, or `LAST_PATIENCE_S` after `stop()` has said so. `work` must be one
    whole transaction.
    """
    deadline, pause, leaving = time.monotonic() + limit_s, 0.1, False
    while True:
        try:
            return work()
        except (DBAPIError, NoConnectionFree) as error:
            if not leaving and stop():
                leaving, pause = True, 0.1
                deadline = min(deadline, time.monotonic() + LAST_PATIENCE_S)
            passing = isinstance(error, NoConnectionFree) or is_passing(error)
            if not passing or time.monotonic() + pause > deadline:
                raise
        left = pause
        while left > 0 and (leaving or not stop()):
            time.sleep(min(left, LOOK_S))
            left -= LOOK_S
        pause = min(2 * pause, 1.0 if leaving else 5.0)


def is_passing(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed later: a lost connection, a lock, a deadlock."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(("08", "25P03", "40", "53300", "55P03", "57P01", "57P02", "57P03", "57P05"))
    if not isinstance(error, OperationalError | InterfaceError):
        return False  # the statement or its values: they would be the same
    message = str(error.orig).lower()
    if type(error.orig).__module__.startswith("psycopg"):  # which tells no state where a connection was not made
        return not any(refusal in message for refusal in REFUSALS)
    return error.connection_invalidated or "connection" in message or "is locked" in message


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # the text may hold a password: it is not repeated
        raise UsageError("the database URL is not of the form sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise SetupError("PostgreSQL needs psycopg: pip install 'kosmograph[postgres]'")
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise UsageError("an SQLite database must be a file that all processes share: sqlite:///FILE")
        return parsed.set(drivername="sqlite")
    raise UsageError(f"databases are sqlite:///FILE and postgresql://USER@HOST/NAME, not {backend}")


def _postgresql_engine(url: URL) -> Engine:
    link = {name: value for name, value in LINK.items() if name not in url.query}
    engine = _engine(url, link)
    event.listen(engine, "checkin", _note_return)
    event.listen(engine, "checkout", _ask_if_idle)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    folder = Path(url.database or "").absolute().parent
    if not folder.is_dir():
        raise SetupError(f"the folder of the database does not exist: {folder}")
    engine = _engine(url, {"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    return create_engine(
        url,
        connect_args=connect_args,
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=WAIT_FOR_ONE_S,
    )


def _note_return(_: Any, record: ConnectionPoolEntry) -> None:
    record.info["returned"] = time.monotonic()


def _ask_if_idle(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Asking each time would be a tenth of what a chunk costs."""
    if time.monotonic() - record.info.get("returned", math.inf) > ASK_AFTER_S:
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise InvalidatePoolError from error  # the others are no younger


def _configure_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    # ours are explicit: the driver's own BEGIN is deferred, and fails at once when a reader turns writer
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
