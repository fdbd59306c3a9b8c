"""One process at a time lists and runs a job: a lock that goes with the process that has it, however it dies."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from schemas.database import Database
from schemas.errors import SetupError


@contextmanager
def job_lock(database: Database, name: str) -> Iterator[None]:
    """Hold the lock of a job. Raises SetupError when another process has it."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
    path = database.path
    held = _file_lock(path.with_name(path.name + ".lock"), key) if path else _advisory_lock(database, key)
    with held as got_it:
        if not got_it:
            raise SetupError(
                f"the job {name!r} is at work in another process; wait for it, or name this one with --job"
            )
        yield


@contextmanager
def _file_lock(path: Path, key: int) -> Iterator[bool]:
    """One byte of a file beside the database, for each job."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; the database needs a folder of yours") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, key)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def _advisory_lock(database: Database, key: int) -> Iterator[bool]:
    """A session's lock: it lives as long as this connection."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        got_it = connection.execute(text("SELECT pg_try_advisory_lock(:class, :key)"), {"class": 0x6B6F, "key": key})
        try:
            yield bool(got_it.scalar())
        finally:
            connection.invalidate()  # closed, not returned to the pool with the lock still on it
