"""`kosmograph worker` as a process: how it starts, drains and ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import make_url, text

from kosmograph.workers import GAVE_UP
from producer.queue import Queue
from schemas.database import Database
from schemas.errors import TRY_AGAIN
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing
from schemas.ledger.dispatch import Departure
from schemas.recipes import Recipe, queue_name
from schemas.uris import file_uri
from tests.faults.night import EITHER_SIGNAL_AND_DATABASE
from worker.revision import resolve

NULL = resolve("null")
RECIPE = Recipe(task="brief", prompt="p", model=NULL.name, revision=NULL.revision, dtype=NULL.dtype)


def test_worker_whose_gpu_is_lost_says_that_another_may_do_better(tmp_path: Path) -> None:
    """A stand-in for the queue brings the fault: there is no GPU here to lose."""
    code = """
from schemas.errors import DeviceLost
from schemas.logs import configure_logs
from schemas.settings import load_settings
from worker import service
service.consume = lambda settings, task, *_: task.broken(DeviceLost("cuda:0 is lost to this process"))
service.os.kill = lambda *_: None
settings = load_settings(db="sqlite:///k.db", broker="redis://localhost/0", model="null")
configure_logs(settings)
service.run_worker(settings, revision=None, dtype=None, name="w")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == TRY_AGAIN
    assert ended.returncode not in GAVE_UP
    assert "cuda:0 is lost to this process" in ended.stderr


class Process:
    """`kosmograph worker --model null` as a process, with its log."""

    def __init__(self, folder: Path, db: str, broker: str, *options: str, **variables: str) -> None:
        self.log = folder / "worker.log"
        command = [sys.executable, "-P", "-m", "kosmograph", "worker", "--name", "w", *options]
        known = {"KOSMOGRAPH_DB": db, "KOSMOGRAPH_BROKER": broker, "KOSMOGRAPH_LOADER_PROCESSES": "1"}
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                command, cwd=folder, env=os.environ | known | variables, stdout=output, stderr=output
            )

    def said(self, words: str) -> bool:
        assert self.popen.poll() is None, self.log.read_text()
        return words in self.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: Any, **variables: str) -> Process:
        started.append(Process(tmp_path, *arguments, **variables))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.wait()


@pytest.fixture
def null_job(database: Database, tmp_path: Path) -> Callable[[int], jobs.Job]:
    """A listed job of so many chunks of pictures on disk, for the null model."""

    def make(count: int) -> jobs.Job:
        job = jobs.open_job(database, "job", [RECIPE], listing="{}")
        for number in range(count):
            path = tmp_path / f"{number}.png"
            Image.new("RGB", (32, 32), (number, 0, 0)).save(path)
            listing.register(database, job, [Item(file_uri(path))], cursor=None, chunk_size=1)
        listing.finish_listing(database, job)
        return job

    return make


def send(database: Database, broker: str, most: int = 100) -> list[Departure]:
    queue = Queue(broker, "here")
    name = queue_name(NULL.name, NULL.revision, NULL.dtype)
    departures = dispatch.take_pending(database, name, "here", most)
    queue.send(name, departures, pytest.fail)
    queue.close()
    return departures


@EITHER_SIGNAL_AND_DATABASE
def test_worker_drains_at_a_signal_and_leaves_nothing_leased(
    database: Database,
    database_url: str,
    broker: Any,
    start: Callable[..., Process],
    null_job: Callable[[int], jobs.Job],
    wait_for: Callable[..., Any],
    number: int,
) -> None:
    job = null_job(150)
    worker = start(database_url, broker.url, "--model", "null")
    wait_for(lambda: worker.said("worker ready"))
    send(database, broker.url, most=150)
    wait_for(lambda: jobs.get_job(database, job.id).annotated > 5)
    worker.popen.send_signal(number)
    assert worker.popen.wait(15) == 0
    assert "Warm shutdown" not in worker.log.read_text()
    assert "busy_share" in worker.log.read_text()
    with database.read() as connection:
        rows = connection.execute(text("SELECT state, crashes, lease_until FROM chunks")).all()
    assert {row.state for row in rows} <= {"done", "pending", "queued"}
    assert all(row.crashes == 0 and row.lease_until is None for row in rows)
    assert 5 < jobs.get_job(database, job.id).annotated <= 150


def test_worker_that_cannot_work_says_why_in_its_last_line(
    database_url: str, broker: Any, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start(database_url, broker.url, "--model", str(tmp_path / "no model here"))
    assert worker.popen.wait(30) in (1, 2)
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("kosmograph: ")
    assert "no model here" in last


def test_worker_that_finds_its_database_away_says_that_another_may_do_better(
    broker: Any, start: Callable[..., Process]
) -> None:
    """Else a pool that replaces one in such a moment would give its device up."""
    worker = start("postgresql://me:hunter2@127.0.0.1:1/x", broker.url, "--model", "null")
    assert worker.popen.wait(30) == TRY_AGAIN
    said = worker.log.read_text()
    assert "cannot use" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_worker_that_its_database_refuses_says_that_no_other_will_do_better(
    database_url: str, broker: Any, start: Callable[..., Process]
) -> None:
    unknown = make_url(database_url).set(database="nothing_of_the_kind").render_as_string(hide_password=False)
    worker = start(unknown, broker.url, "--model", "null")
    assert worker.popen.wait(30) == 1
    assert "cannot use" in worker.log.read_text().splitlines()[-1]


def test_worker_ends_at_a_signal_while_redis_is_away(
    database_url: str, start: Callable[..., Process], wait_for: Callable[..., Any]
) -> None:
    worker = start(database_url, "redis://user:hunter2@127.0.0.1:1/0", "--model", "null")
    wait_for(lambda: worker.said("Cannot connect"))
    worker.popen.terminate()
    assert worker.popen.wait(15) == 0
    assert "hunter2" not in worker.log.read_text()
