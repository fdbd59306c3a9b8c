"""The lock of a job, between real processes, on both databases."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from schemas.database import Database
from schemas.errors import SetupError
from schemas.locks import CLASS, job_lock

HOLDER = """
import sys
from schemas.database import Database
from schemas.locks import job_lock
with job_lock(Database(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""

Holder = "subprocess.Popen[str]"


@pytest.fixture
def hold(database_url: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a process that has the lock of a job when this returns."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLDER, database_url, name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_job_is_run_by_one_process_at_a_time(database: Database, hold: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = hold("job")
    with pytest.raises(SetupError, match="the job 'job' is at work in another process"), job_lock(database, "job"):
        pytest.fail("two have it")
    with job_lock(database, "other"):
        pass
    process.communicate()
    with job_lock(database, "job"):
        pass


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_lock_that_a_restarted_server_forgot_is_taken_again_or_given_up(
    database: Database,
    database_url: str,
    hold: Callable[..., "subprocess.Popen[str]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schemas.locks.CHECK_S", 0.0)
    other = Database(database_url)

    def forget() -> None:
        held = "FROM pg_locks WHERE locktype = 'advisory' AND classid = :class"
        with other.write() as connection:
            assert connection.execute(text(f"SELECT pg_terminate_backend(pid) {held}"), {"class": CLASS}).all()
            while connection.execute(text(f"SELECT 1 {held}"), {"class": CLASS}).all():
                time.sleep(0.01)

    with job_lock(database, "job") as require:
        forget()
        require()  # sees that the connection is gone
        require()  # takes it again
        with pytest.raises(SetupError, match="at work in another process"), job_lock(other, "job"):
            pytest.fail("two have it")
        forget()
        require()
        hold("job")
        with pytest.raises(SetupError, match="at work in another process"):
            require()
    other.close()


def test_lock_goes_with_its_process_however_it_dies(
    database: Database, hold: Callable[..., "subprocess.Popen[str]"], wait_for: Callable[..., object]
) -> None:
    process = hold("job")
    process.kill()
    process.wait()

    def got_it() -> bool:
        try:
            with job_lock(database, "job"):
                return True
        except SetupError:  # PostgreSQL needs a moment to see that the connection is gone
            return False

    wait_for(got_it)


def test_lock_is_free_after_an_error_in_its_block(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), job_lock(database, "job"):
            raise ZeroDivisionError


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "k.db.lock").mkdir()
    database = Database(f"sqlite:///{tmp_path}/k.db")
    with pytest.raises(SetupError, match=r"k\.db\.lock cannot be written"), job_lock(database, "job"):
        pytest.fail("no lock")
