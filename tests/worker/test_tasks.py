"""A message from its arrival to its end, and a whole worker process under signals."""

import base64
import copy
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from kosmograph.workers import GAVE_UP
from producer.queue import Queue
from schemas.database import Database
from schemas.errors import EngineBroken
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.ledger.dispatch import Departure
from schemas.messages import TASK_NAME
from schemas.recipes import Recipe, queue_name
from schemas.results import Completion
from schemas.settings import Settings
from schemas.uris import file_uri
from worker.annotator import Annotator
from worker.images import LoadedImage
from worker.leases import Leases
from worker.null_engine import NullEngine
from worker.revision import resolve
from worker.service import TRY_AGAIN
from worker.tasks import ChunkTask

NULL = resolve("null")
RECIPE = Recipe(task="brief", prompt="p", model=NULL.name, revision=NULL.revision, dtype=NULL.dtype)


class Loader:
    """Every URI is a picture of its own."""

    def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
        future: Future[LoadedImage] = Future()
        pixels = np.zeros((224, 224, 3), np.uint8)
        future.set_result(LoadedImage(pixels, 9, 9, "PNG", 99, uri.rpartition("/")[2].rjust(64, "0"), "v"))
        return future


class Bench:
    """A task with a real database, and what one looks at afterwards."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.faults: list[BaseException] = []
        self.leases = Leases(database, "w", lease_s=60)
        settings = Settings()
        self.annotator = Annotator(database, Loader(), NullEngine(), settings, "here")
        self.task = ChunkTask("w", database, self.annotator, self.leases, settings, self.faults.append)

    def message(self, *names: str) -> dict[str, Any]:
        """A chunk on its way, as its message says."""
        job = jobs.open_job(self.database, "job", [RECIPE], listing="{}")
        items = [Item(f"s3://b/{name}", "v") for name in names]
        listing.register(self.database, job, items, cursor=None, chunk_size=64)
        (departure,) = dispatch.take_pending(self.database, job.queue, "here", 1)
        return {"chunk_id": departure.chunk_id, "fence": departure.fence, "images": departure.images}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    @property
    def chunks(self) -> list[tuple[Any, ...]]:
        return self.ask("SELECT state, crashes FROM chunks ORDER BY id")

    @property
    def outcomes(self) -> int:
        return int(self.ask("SELECT COUNT(*) FROM outcomes")[0][0])


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.leases.close()


def test_message_is_annotated(bench: Bench) -> None:
    bench.task(**bench.message("1", "2"))
    assert bench.chunks == [("done", 0)]
    assert bench.outcomes == 2


def test_claim_that_was_committed_and_not_answered_is_worked_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a database that goes away between its commit and its answer, then the chunk is not left to its lease."""
    answers = iter([OperationalError("", {}, ConnectionError("the connection is lost"))])

    def claim_chunk(*place: Any, **options: Any) -> Any:
        claim = work.claim_chunk(*place, **options)
        for error in answers:
            raise error
        return claim

    monkeypatch.setattr("worker.tasks.claim_chunk", claim_chunk)
    bench.task(**bench.message("1", "2"))
    assert bench.chunks == [("done", 0)]
    assert bench.outcomes == 2


def test_doubled_message_changes_nothing(bench: Bench) -> None:
    message = bench.message("1", "2")
    for _ in range(3):
        bench.task(**message)
    assert bench.chunks == [("done", 0)]
    assert bench.outcomes == 2


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"chunk_id": "1", "fence": 1, "images": 1},
        {"chunk_id": 1, "fence": True, "images": 1},
        {"chunk_id": 1, "fence": 1, "images": "7"},
        {"chunk_id": 1, "fence": 1, "images": 1, "recipe": "mine"},
        {"chunk_id": 2**70, "fence": 1, "images": 1},
        {"chunk_id": 1, "fence": 2**40, "images": 1},
        {"chunk_id": -1, "fence": 1, "images": 1},
        {"chunk_id": 1, "fence": 1, "images": 10_001},
        {"chunk_id": 99, "fence": 1, "images": 1},
        {"chunk_id": 1, "fence": 99, "images": 1},
    ],
)
def test_forged_message_is_refused(bench: Bench, forged: dict[str, Any]) -> None:
    message = bench.message("1")
    bench.task(**forged)
    assert bench.chunks == [("queued", 0)]
    assert not bench.faults
    bench.task(**message)
    assert bench.chunks == [("done", 0)]


def test_message_cannot_name_an_image(bench: Bench) -> None:
    bench.task(**bench.message("1") | {"uris": ["file:///etc/passwd"]})
    assert bench.chunks == [("queued", 0)]


def test_message_that_comes_during_a_stop_goes_back(bench: Bench) -> None:
    message = bench.message("1")
    bench.task.stopping.set()
    bench.task(**message)
    assert bench.chunks == [("pending", 0)]


@pytest.mark.parametrize("state", ["paused", "cancelled"])
def test_message_of_a_job_that_does_not_run_is_left_undone(bench: Bench, state: str) -> None:
    message = bench.message("1")
    with bench.database.write() as connection:
        connection.execute(text("UPDATE jobs SET state = :state"), {"state": state})
    bench.task(**message)
    assert bench.chunks == [("pending", 0)]
    assert bench.outcomes == 0


def raising(error: Exception) -> Callable[..., Completion]:
    def annotate(*_: Any) -> Completion:
        raise error

    return annotate


def test_stop_in_mid_chunk_puts_it_back_without_blame(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Loader.load

    def stopping(self: Loader, uri: str, **_: object) -> "Future[LoadedImage]":
        bench.task.stopping.set()
        return load(self, uri) if uri.endswith("1") else Future()

    monkeypatch.setattr(Loader, "load", stopping)
    monkeypatch.setattr("worker.flow.LOOK_S", 0.01)
    bench.task(**bench.message("1", "2"))
    assert bench.chunks == [("pending", 0)]


def test_unforeseen_error_counts_as_a_crash_of_the_chunk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.annotator, "annotate", raising(RuntimeError("what is this")))
    bench.task(**bench.message("1"))
    dispatch.reclaim_expired(bench.database)
    assert bench.chunks == [("pending", 1)]
    assert not bench.faults


def test_rows_that_the_database_does_not_take_are_the_chunks_doing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.annotator, "annotate", raising(DataError("", {}, Exception("value too long"))))
    bench.task(**bench.message("1"))
    dispatch.reclaim_expired(bench.database)
    assert bench.chunks == [("pending", 1)]
    assert not bench.faults


def test_broken_engine_stops_the_worker_and_blames_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    error = EngineBroken("no memory")
    monkeypatch.setattr(bench.annotator, "annotate", raising(error))
    bench.task(**bench.message("1"))
    assert bench.chunks == [("pending", 0)]
    assert bench.faults == [error]


@pytest.mark.parametrize(
    "error", [OperationalError("", {}, Exception("disk is full")), NoConnectionFree("QueuePool limit of size 5")]
)
def test_database_that_gives_out_stops_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And is no fault of the chunk, which is left to its lease."""
    monkeypatch.setattr(bench.annotator, "annotate", raising(error))
    bench.task(**bench.message("1"))
    assert bench.faults == [error]
    assert bench.chunks == [("running", 0)]


def test_database_that_is_away_for_a_moment_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = bench.database.write, itertools.count()

    def away_at_first() -> Any:
        if next(calls) in (0, 2):  # the claim, then the completion
            raise OperationalError("", {}, Exception("the connection is lost"))
        return write()

    message = bench.message("1")
    monkeypatch.setattr(bench.database, "write", away_at_first)
    bench.task(**message)
    assert bench.chunks == [("done", 0)]
    assert not bench.faults


def test_chunk_that_was_taken_away_is_not_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate = bench.annotator.annotate

    def robbed(claim: Any, stopped: Callable[[], bool]) -> Completion:
        dispatch.expire_worker(bench.database, "w")
        dispatch.reclaim_expired(bench.database)
        bench.leases.renew()
        assert stopped()
        return annotate(claim)

    monkeypatch.setattr(bench.annotator, "annotate", robbed)
    bench.task(**bench.message("1"))
    assert bench.chunks == [("pending", 1)]
    assert bench.outcomes == 0


# -- a whole process ---------------------------------------------------------------------------------------------------


def test_worker_whose_gpu_is_lost_says_that_another_may_do_better(tmp_path: Path) -> None:
    """A stand-in for the queue brings the fault: there is no GPU here to lose."""
    code = """
from schemas.errors import DeviceLost
from schemas.settings import load_settings
from worker import service
service.consume = lambda settings, task, *_: task.broken(DeviceLost("cuda:0 is lost to this process"))
service.os.kill = lambda *_: None
settings = load_settings(db="sqlite:///k.db", broker="redis://localhost/0", model="null")
service.run_worker(settings, revision=None, dtype=None)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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


def test_worker_lives_through_whatever_lies_in_its_queue(
    database: Database,
    database_url: str,
    broker: Any,
    start: Callable[..., Process],
    null_job: Callable[[int], jobs.Job],
    wait_for: Callable[..., Any],
) -> None:
    job, name = null_job(2), queue_name(NULL.name, NULL.revision, NULL.dtype)
    send(database, broker.url, most=1)
    with broker.client as client:
        good = json.loads(client.lindex(name, 0))
        for forged in forgeries(good):
            client.lpush(name, forged)
    send(database, broker.url, most=1)
    worker = start(database_url, broker.url, "--model", "null")
    wait_for(lambda: jobs.get_job(database, job.id).annotated == 2)
    with broker.client as client:
        wait_for(lambda: client.llen(name) == 0)
    worker.popen.terminate()
    assert worker.popen.wait(15) == 0


def forgeries(good: dict[str, Any]) -> list[bytes]:
    """A replay, two wrong tasks, pickle, a body that is none, arguments by place, wrong types, ten megabytes."""

    def forged(body: Any = None, **headers: Any) -> bytes:
        message = copy.deepcopy(good)
        message["headers"].update(headers)
        message["properties"]["delivery_tag"] = os.urandom(8).hex()
        if body is not None:
            message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
        return json.dumps(message).encode()

    pickled = json.loads(forged())
    pickled["content-type"] = "application/x-python-serialize"
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    big = {"chunk_id": 1, "fence": 1, "images": "x" * 10_000_000}
    return [
        forged(),
        forged(task="os.system"),
        forged(task=["os.system"]),
        json.dumps(pickled).encode(),
        forged("nonsense"),
        forged([[1, 2, 3], {}, embedded]),
        forged([[], {"chunk_id": "; DROP"}, embedded]),
        forged([[], big, embedded], task=TASK_NAME),
    ]


def test_worker_that_cannot_work_says_why_in_its_last_line(
    database_url: str, broker: Any, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start(database_url, broker.url, "--model", str(tmp_path / "no model here"))
    assert worker.popen.wait(30) in (1, 2)
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("kosmograph: ")
    assert "no model here" in last


def test_worker_ends_at_a_signal_while_redis_is_away(
    database_url: str, start: Callable[..., Process], wait_for: Callable[..., Any]
) -> None:
    worker = start(database_url, "redis://user:hunter2@127.0.0.1:1/0", "--model", "null")
    wait_for(lambda: worker.said("Cannot connect"))
    worker.popen.terminate()
    assert worker.popen.wait(15) == 0
    assert "hunter2" not in worker.log.read_text()
