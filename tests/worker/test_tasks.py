"""A message from its arrival to its end, and a whole worker process under signals."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from schemas.database import Database
from schemas.errors import EngineBroken
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe
from schemas.results import Completion
from schemas.settings import Settings
from worker.annotator import Annotator
from worker.images import LoadedImage
from worker.leases import Leases
from worker.null_engine import NullEngine
from worker.revision import resolve
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
    """And is no fault of the chunk, which goes back if there is a way."""
    monkeypatch.setattr(bench.annotator, "annotate", raising(error))
    bench.task(**bench.message("1"))
    assert bench.faults == [error]
    assert bench.chunks == [("pending", 0)]


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

    def robbed(claim: Any, stopped: Callable[[], bool], leaving: Callable[[], bool]) -> Completion:
        dispatch.expire_worker(bench.database, "w")
        dispatch.reclaim_expired(bench.database)
        bench.leases.renew()
        assert stopped()
        assert not leaving()
        return annotate(claim)

    monkeypatch.setattr(bench.annotator, "annotate", robbed)
    bench.task(**bench.message("1"))
    assert bench.chunks == [("pending", 1)]
    assert bench.outcomes == 0
