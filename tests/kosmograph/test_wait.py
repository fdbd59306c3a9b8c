"""`wait`: for the end of what others work on."""

import signal
import subprocess
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from kosmograph import wait as waiting
from schemas.database import Database
from schemas.errors import DatabaseAway
from schemas.items import Item
from schemas.ledger import jobs, listing
from schemas.recipes import Recipe
from tests.pipeline.conftest import Run

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")


@pytest.fixture
def wait(cli_here: Callable[..., Run], database: Database) -> Callable[..., Run]:
    url = database.url.render_as_string(hide_password=False)
    return lambda *arguments: cli_here("wait", *arguments, KOSMOGRAPH_DB=url)


def running(database: Database, name: str = "night") -> jobs.Job:
    job = jobs.open_job(database, name, [RECIPE], listing="{}")
    listing.register(database, job, [Item("s3://night/1", "v")], cursor=None, chunk_size=1)
    return job


def test_exit_code_is_that_of_the_end(wait: Callable[..., Run], database: Database, new_job: Any) -> None:
    new_job(database, "some failed", 2)
    run = wait("some failed")
    assert run.code == 3
    assert "some failed: 2 images, 1 annotated, 0 reused, 1 failed" in run.out
    assert "kosmograph failures 'some failed'" in run.out
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET failed = 0")
    run = wait("some failed")
    assert run.code == 0
    assert "2 images" in run.out
    quiet = wait("some failed", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_job_that_stands_still_is_said_with_the_reason(wait: Callable[..., Run], database: Database) -> None:
    job = running(database)
    jobs.pause_job(database, job.id, "a credential has expired")
    run = wait("night", "--quiet")
    assert run.code == 1
    assert "the job is paused: a credential has expired; then: kosmograph resume night" in run.err
    jobs.cancel_job(database, job.id)
    run = wait("night")
    assert run.code == 1
    assert "the job is cancelled" in run.err


def test_wait_ends_when_the_job_does(
    wait: Callable[..., Run], database: Database, wait_for: Callable[..., Any]
) -> None:
    job, runs = running(database), list[Run]()
    waiter = Thread(target=lambda: runs.append(wait("night")))
    waiter.start()
    try:
        assert waiter.is_alive()
    finally:
        jobs.cancel_job(database, job.id)
        waiter.join(30)
    assert runs[0].code == 1


def test_wait_gives_up_when_its_time_is_over(wait: Callable[..., Run], database: Database) -> None:
    running(database)
    run = wait("night", "--timeout", "0s")
    assert run.code == 1
    assert "still running after 0 s: night: 1 images" in run.err
    assert jobs.find_job(database, "night").state == "running"


def test_job_that_there_is_not_or_is_no_more_is_said(wait: Callable[..., Run], database: Database) -> None:
    run = wait("night")
    assert run.code == 2
    assert "there is no job 'night'" in run.err


def test_interrupted_wait_leaves_the_job_alone(kosmograph_waits: "subprocess.Popen[str]", database: Database) -> None:
    assert kosmograph_waits.stderr
    assert "job night" in kosmograph_waits.stderr.readline()
    kosmograph_waits.send_signal(signal.SIGINT)
    out, _ = kosmograph_waits.communicate(timeout=30)
    assert kosmograph_waits.returncode == 130
    assert "the job goes on" in out
    assert jobs.find_job(database, "night").state == "running"


@pytest.fixture
def kosmograph_waits(database: Database, tmp_path: Any) -> Any:
    import sys

    running(database)
    url = database.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "kosmograph", "wait", "night", "--db", url],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_database_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.01)
    answers = iter([DatabaseAway("away"), DatabaseAway("away"), None])

    def ask() -> str:
        if error := next(answers):
            raise error
        return "there"

    assert waiting._patiently(ask, stop=Event(), deadline=None) == "there"


def test_database_that_stays_away_ends_the_wait_when_its_time_is_over() -> None:
    def ask() -> str:
        raise DatabaseAway("away")

    with pytest.raises(DatabaseAway):
        waiting._patiently(ask, stop=Event(), deadline=0.0)
