"""One process at a time lists and runs a job: a lock that goes with the process that has it, however it dies."""

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from schemas.database import Database
from schemas.errors import SetupError

CLASS = 0x6B6F
"""The first of the two numbers of our advisory locks; the second is the job's."""
CHECK_S = 5.0


@contextmanager
def job_lock(database: Database, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a job. Raises SetupError when another process has it.

    A PostgreSQL that was restarted has forgotten its locks: who works for long calls what this yields, as often as it
    likes. It takes the lock again, and raises SetupError where another process was quicker.
    """
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    path = database.path
    held = _file_lock(path.with_name(path.name + ".lock"), key) if path else _advisory_lock(database, key)
    with held as is_ours:

        def require() -> None:
            if not is_ours():
                raise SetupError(
                    f"the job {name!r} is at work in another process; wait for it, or name this one with --job"
                )

        require()
        yield require


@contextmanager
def _file_lock(path: Path, key: int) -> Iterator[Callable[[], bool]]:
    """One byte of a file beside the database, for each job."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; the database needs a folder of yours") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, key)
        except OSError:
            yield lambda: False
        else:
            yield lambda: True


@contextmanager
def _advisory_lock(database: Database, key: int) -> Iterator[Callable[[], bool]]:
    lock = _AdvisoryLock(database, key)
    lock.take()
    try:
        yield lock.is_ours
    finally:
        lock.close()


class _AdvisoryLock:
    """A session's lock: it lives as long as its connection."""

    def __init__(self, database: Database, key: int) -> None:
        self._engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._values = {"class": CLASS, "key": key}
        self._connection: Connection | None = None
        self._checked_at = 0.0
        self._ours = False

    def take(self) -> None:
        self._connection = self._engine.connect()
        tried = self._connection.execute(text("SELECT pg_try_advisory_lock(:class, :key)"), self._values)
        self._ours, self._checked_at = bool(tried.scalar()), time.monotonic()

    def is_ours(self) -> bool:
        """Looks at the connection every few seconds. A database that is away takes nothing from anybody meanwhile."""
        if self._ours and time.monotonic() - self._checked_at > CHECK_S:
            self._checked_at = time.monotonic()
            try:
                if self._connection is None:
                    self.take()
                else:
                    self._connection.execute(text("SELECT 1"))
            except DBAPIError:
                self.close()
        return self._ours

    def close(self) -> None:
        """Ends the session: its connection does not go back to the pool with the lock still on it."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
