"""What a dispatcher tells of itself, also while its database and its broker are away."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from producer.dispatcher import Dispatcher
from producer.metrics import DispatcherMetrics
from producer.queue import Queue
from producer.tally import LATE_S, STILL_S, Tally
from schemas.database import Database
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.ledger.census import Census, take_census
from schemas.recipes import Recipe
from schemas.settings import Settings

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
SETTINGS = Settings(requeue_grace_s=0, queue_low=4, queue_high=8, dispatch_interval_s=0.01)


def add_job(database: Database, name: str, chunks: int) -> jobs.Job:
    job = jobs.open_job(database, name, [RECIPE], listing="{}")
    listing.register(database, job, [Item(f"s3://{name}/{n}", "v") for n in range(chunks)], cursor=None, chunk_size=1)
    listing.finish_listing(database, job)
    return job


def scraped(metrics: DispatcherMetrics) -> dict[tuple[str, ...], float]:
    """The samples by name and labels' values."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@contextmanager
def running(dispatcher: Dispatcher) -> Iterator[None]:
    stop = Event()
    thread = Thread(target=dispatcher.run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def queue(broker: Any) -> Iterator[Queue]:
    made = Queue(broker.url, "here")
    yield made
    made.close()


def test_tally_counts_what_went_out_and_what_came_back(database: Database, queue: Queue, broker: Any) -> None:
    """Eight sent; two of them claimed by a worker that dies, and the rest lost by Redis."""
    add_job(database, "job", 10)
    dispatcher = Dispatcher(database, queue, SETTINGS)
    dispatcher.step()
    assert scraped(DispatcherMetrics(dispatcher.tally))["kosmograph_queue_length", RECIPE.queue] == 0
    with database.read() as connection:
        sent = connection.exec_driver_sql("SELECT id, fence FROM chunks ORDER BY id LIMIT 2").all()
    for chunk, fence in sent:
        assert work.claim_chunk(database, chunk, fence, worker="w", lease_s=60)
    dispatch.expire_worker(database, "w")
    with broker.client as client:
        client.flushall()
    dispatcher.step()
    found = scraped(DispatcherMetrics(dispatcher.tally))
    assert found["kosmograph_chunks_republished_total", "expired"] == 2
    assert found["kosmograph_chunks_republished_total", "lost"] == 6
    assert found["kosmograph_chunks_republished_total", "stale"] == 0
    assert found["kosmograph_chunks_sent_total",] == 8 + 8


def test_census_is_in_the_scrape(database: Database, wait_for: Callable[..., Any]) -> None:
    add_job(database, "night", 3)
    paused = add_job(database, "paused", 2)
    jobs.pause_job(database, paused.id, "x" * 500)
    metrics = DispatcherMetrics(Tally())
    with metrics.counting(database):
        wait_for(lambda: ("kosmograph_workers",) in scraped(metrics))
    found = scraped(metrics)
    assert found["kosmograph_chunks", "pending"] == 3
    assert (found["kosmograph_jobs", "running"], found["kosmograph_jobs", "paused"]) == (1, 1)
    assert found["kosmograph_job_images", "night", "pending"] == 3
    assert found["kosmograph_job_paused", "paused", "x" * 200] == 1
    assert found["kosmograph_oldest_lease_seconds",] == found["kosmograph_workers",] == 0


def test_scrape_does_not_wait_for_a_database_that_is_away() -> None:
    away = Database("postgresql://me@192.0.2.1:5432/nobody-answers-there")
    metrics = DispatcherMetrics(Tally())
    with metrics.counting(away):
        found = scraped(metrics)
    assert ("kosmograph_chunks_sent_total",) in found
    assert ("kosmograph_workers",) not in found
    away.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_ledger_that_is_away_for_long_is_forgotten(
    database: Database, wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a dispatcher that is cut off would tell of work that others have done."""
    away = Event()

    def census(database: Database) -> Census:
        if away.is_set():
            raise OperationalError("SELECT", {}, Exception("it is away"))
        return take_census(database)

    monkeypatch.setattr("producer.metrics.take_census", census)
    monkeypatch.setattr("producer.metrics.CENSUS_S", 0.01)
    monkeypatch.setattr("producer.metrics.FORGET_S", 0.05)
    metrics = DispatcherMetrics(Tally())
    with metrics.counting(database):
        wait_for(lambda: ("kosmograph_workers",) in scraped(metrics))
        away.set()
        wait_for(lambda: ("kosmograph_workers",) not in scraped(metrics))
        away.clear()
        wait_for(lambda: ("kosmograph_workers",) in scraped(metrics))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_dispatcher_without_a_job_misses_its_broker_too(
    database: Database, own_broker: Any, wait_for: Callable[..., Any]
) -> None:
    """Ready once it has reached both; an outage is one, however many steps it lasts; live all along."""
    queue, tally = Queue(own_broker.url, "here"), Tally()
    assert (tally.live(), tally.ready()) == ("", "the dispatcher has not begun")
    with running(Dispatcher(database, queue, SETTINGS, tally=tally)):
        wait_for(lambda: tally.ready() == "")
        os.kill(own_broker.pid, signal.SIGKILL)
        wait_for(lambda: tally.ready() == "waiting for database and broker")
        assert tally.live() == ""
        wait_for(own_broker.server.ensure)
        wait_for(lambda: tally.ready() == "")
    assert tally.outages == 1
    queue.close()


def test_step_that_takes_long_is_first_no_longer_ready_and_much_later_not_live() -> None:
    now = [1000.0]
    tally = Tally(reached=True, turned_at=1000.0, now=lambda: now[0])
    assert (tally.live(), tally.ready()) == ("", "")
    now[0] += LATE_S + 1
    assert (tally.live(), tally.ready()) == ("", "waiting for database and broker")
    now[0] += STILL_S
    assert tally.live() == "the dispatcher has stood still for 961 s"
