"""The dispatcher, on a real Redis and on both databases."""

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from producer.dispatcher import Dispatcher
from producer.queue import BrokerErrors, Queue
from schemas.database import Database
from schemas.items import Item, unpack_items
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe
from schemas.settings import Settings

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
SETTINGS = Settings(requeue_grace_s=0, queue_low=4, queue_high=8, dispatch_interval_s=0.01)


def add_job(database: Database, name: str, chunks: int, priority: int = 0, recipe: Recipe = RECIPE) -> jobs.Job:
    """A listed job of so many chunks of one item."""
    job = jobs.open_job(database, name, [recipe], listing="{}", priority=priority)
    items = [Item(f"s3://{name}/{number}", "v") for number in range(chunks)]
    listing.register(database, job, items, cursor=None, chunk_size=1)
    listing.finish_listing(database, job)
    return job


def states(database: Database, job: jobs.Job | None = None) -> dict[str, int]:
    condition = f"WHERE job_id = {job.id}" if job else ""
    with database.read() as connection:
        rows = connection.execute(text(f"SELECT state, COUNT(*) FROM chunks {condition} GROUP BY state"))
        return dict(map(tuple, rows))


def message_of(element: bytes) -> dict[str, Any]:
    """What an element of the queue says."""
    return dict(json.loads(base64.b64decode(json.loads(element)["body"]))[1])


def waiting(broker: Any, recipe: Recipe = RECIPE) -> list[int]:
    """The chunks of the messages that wait, the next one first."""
    with broker.client as client:
        return [message_of(one)["chunk_id"] for one in reversed(client.lrange(recipe.queue, 0, -1))]


def first_uri(database: Database, chunk_id: int) -> str:
    with database.read() as connection:
        packed = connection.execute(text(f"SELECT item_list FROM chunks WHERE id = {chunk_id}")).scalar_one()
    return unpack_items(packed)[0].uri


@pytest.fixture
def queue(broker: Any):
    queue = Queue(broker.url, "here")
    yield queue
    queue.close()


@pytest.fixture
def dispatcher(database: Database, queue: Queue) -> Dispatcher:
    return Dispatcher(database, queue, SETTINGS)


def test_queue_is_filled_to_the_high_watermark_and_again_only_below_the_low_one(
    database: Database, dispatcher: Dispatcher, broker: Any
) -> None:
    add_job(database, "job", 20)
    assert [dispatcher.step(), dispatcher.step()] == [8, 0]
    with broker.client as client:
        client.rpop(RECIPE.queue, 4)  # 4 left: not below 4
        assert dispatcher.step() == 0
        client.rpop(RECIPE.queue, 1)
        assert dispatcher.step() == 5
    assert states(database) == {"pending": 7, "queued": 13}


def test_jobs_go_by_priority_then_in_turn_and_chunks_in_their_order(
    database: Database, dispatcher: Dispatcher, broker: Any
) -> None:
    add_job(database, "old", 2)
    add_job(database, "new", 2)
    add_job(database, "urgent", 2, priority=5)
    dispatcher.step()
    in_turn = [f"s3://{name}/{number}" for number in (0, 1) for name in ("old", "new")]
    expected = ["s3://urgent/0", "s3://urgent/1", *in_turn]
    assert [first_uri(database, chunk) for chunk in waiting(broker)] == expected


def served(database: Database, broker: Any, count: int) -> list[str]:
    """The jobs of the next chunks that a worker could claim; messages that are refused do not count."""
    names: list[str] = []
    with broker.client as client:
        while len(names) < count and (message := client.rpop(RECIPE.queue)):
            chunk = message_of(message)
            claim = work.claim_chunk(database, chunk["chunk_id"], chunk["fence"], worker="w", lease_s=60)
            names += [claim.items[0].uri.split("/")[2]] if claim else []
    return names


def test_a_job_of_higher_priority_does_not_wait_for_a_full_queue(
    database: Database, dispatcher: Dispatcher, broker: Any
) -> None:
    """Given a queue full of one job's chunks, when a more urgent job comes, then its chunks are the next to be done."""
    add_job(database, "old", 20)
    dispatcher.step()
    add_job(database, "urgent", 3, priority=1)
    dispatcher.step()
    assert served(database, broker, 5) == ["urgent", "urgent", "urgent", "old", "old"]
    assert states(database) == {"running": 5, "queued": 3, "pending": 15}


def test_a_job_that_becomes_more_urgent_goes_first(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    add_job(database, "old", 20)
    late = add_job(database, "late", 3, priority=-1)
    dispatcher.step()
    assert jobs.set_priority(database, late.id, 1)
    dispatcher.step()
    assert served(database, broker, 4) == ["late", "late", "late", "old"]


def test_priority_acts_on_jobs_that_share_the_queue(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    add_job(database, "old", 20)
    new = add_job(database, "new", 20)
    dispatcher.step()
    assert jobs.set_priority(database, new.id, 1)
    dispatcher.step()
    assert served(database, broker, 4) == 4 * ["new"]
    dispatcher.step()
    assert served(database, broker, 8) == 8 * ["new"]


def test_jobs_of_equal_priority_share_from_the_moment_that_the_second_comes(
    database: Database, dispatcher: Dispatcher, broker: Any
) -> None:
    add_job(database, "old", 50)
    dispatcher.step()
    assert served(database, broker, 2) == ["old", "old"]
    add_job(database, "new", 50)
    dispatcher.step()
    assert sorted(served(database, broker, 8)) == 5 * ["new"] + 3 * ["old"]  # now each has had five
    dispatcher.step()
    assert served(database, broker, 8) == 4 * ["old", "new"]


def test_a_job_of_lower_priority_waits_its_turn(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    add_job(database, "old", 12)
    dispatcher.step()
    add_job(database, "idle", 2, priority=-1)
    dispatcher.step()
    assert served(database, broker, 8) == 8 * ["old"]


def test_chunks_do_not_make_way_again_and_again(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    add_job(database, "old", 20)
    dispatcher.step()
    for priority in (1, 2):
        add_job(database, f"urgent-{priority}", 9, priority=priority)
        dispatcher.step()
    with broker.client as client:
        assert client.llen(RECIPE.queue) == 8 + 8  # they made way once; the next time is some seconds away


def test_after_an_outage_of_the_database_workers_renew_their_leases_before_anyone_is_blamed(
    database: Database, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=-1)
    stop = Event()

    def away() -> int:
        stop.set()
        raise OperationalError("SELECT 1", {}, ConnectionError("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(dispatcher, "step", away)
        dispatcher.run(stop)
    dispatcher.step()
    assert states(database) == {"running": 1}
    work.renew_leases(database, "w", [departure.chunk_id], 60)
    monkeypatch.setattr("producer.dispatcher.time.monotonic", lambda: 1e12)
    dispatcher.step()
    assert states(database) == {"running": 1}


@pytest.mark.parametrize("silence", ["a start", "an hour's sleep"])
def test_after_a_silence_workers_renew_their_leases_before_anyone_is_blamed(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch, silence: str
) -> None:
    """A dispatcher that was away cannot know whether the database was, too; nor one whose machine has slept."""
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=-1)
    dispatcher, stop = Dispatcher(database, queue, SETTINGS), Event()
    if silence == "a start":
        stop.set()
        dispatcher.run(stop)  # which has made no step yet
    else:
        real = time.time
        monkeypatch.setattr("producer.dispatcher.time.time", lambda: real() + 3600)
    dispatcher.step()
    assert states(database) == {"running": 1}
    monkeypatch.setattr("producer.dispatcher.time.monotonic", lambda: 1e12)
    dispatcher.step()
    assert states(database) == {"queued": 1}


def test_rounds_that_are_always_late_bring_back_what_a_dead_worker_held(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silence before each of them keeps nobody waiting for ever."""
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=-1)
    dispatcher = Dispatcher(database, queue, SETTINGS)
    clock = 1e12
    for name in ("time", "monotonic"):
        monkeypatch.setattr(f"producer.dispatcher.time.{name}", lambda: clock)
    dispatcher.step()
    assert states(database) == {"running": 1}
    clock += 60
    dispatcher.step()
    assert states(database) == {"queued": 1}


def test_an_outage_of_redis_does_not_put_off_what_a_dead_worker_held(
    database: Database, own_broker: Any, wait_for: Callable[..., Any]
) -> None:
    """Leases are renewed in the database: whoever did not, while Redis alone was away, is dead."""
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    queue, stop = Queue(own_broker.url, "here"), Event()
    os.kill(own_broker.pid, signal.SIGKILL)
    wait_for(lambda: own_broker.server._child.code is not None)
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=1)
    settings = SETTINGS.model_copy(update={"lease_s": 4.0})
    thread = Thread(target=Dispatcher(database, queue, settings).run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: states(database) == {"pending": 1})
    finally:
        stop.set()
        thread.join()
        queue.close()


def test_each_model_has_a_queue_of_its_own(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    other = RECIPE.model_copy(update={"model": "other"})
    add_job(database, "one", 20)
    add_job(database, "two", 3, recipe=other)
    assert dispatcher.step() == 8 + 3
    assert len(waiting(broker)) == 8
    assert len(waiting(broker, other)) == 3


def test_chunk_is_not_sent_before_its_time(database: Database, dispatcher: Dispatcher) -> None:
    add_job(database, "job", 1)
    with database.write() as connection:
        connection.execute(text("UPDATE chunks SET retry_at = 4000000000"))
    assert dispatcher.step() == 0
    with database.write() as connection:
        connection.execute(text("UPDATE chunks SET retry_at = 1"))
    assert dispatcher.step() == 1


@pytest.mark.parametrize("how", [lambda d, id_: jobs.pause_job(d, id_, "by hand"), jobs.cancel_job])
def test_paused_and_cancelled_jobs_are_not_sent(
    database: Database, dispatcher: Dispatcher, how: Callable[..., bool]
) -> None:
    job = add_job(database, "job", 1)
    assert how(database, job.id)
    assert dispatcher.step() == 0


def test_dispatcher_of_one_job_leaves_every_other_alone(database: Database, queue: Queue, broker: Any) -> None:
    mine, other, done = add_job(database, "mine", 1), add_job(database, "other", 1), add_job(database, "done", 0)
    Dispatcher(database, queue, SETTINGS, mine.id).step()
    assert [first_uri(database, chunk) for chunk in waiting(broker)] == ["s3://mine/0"]
    assert states(database, other) == {"pending": 1}
    assert jobs.get_job(database, done.id).state == "running"


@pytest.mark.parametrize("loss", ["flushall", "popped"])
def test_messages_that_redis_lost_are_sent_again(
    database: Database, dispatcher: Dispatcher, broker: Any, loss: str
) -> None:
    add_job(database, "job", 3)
    dispatcher.step()
    with broker.client as client:
        client.flushall() if loss == "flushall" else client.rpop(RECIPE.queue, 3)
    assert dispatcher.step() == 3
    assert len(waiting(broker)) == 3


def test_queue_that_is_empty_for_a_moment_has_lost_nothing(database: Database, queue: Queue, broker: Any) -> None:
    patient = Dispatcher(database, queue, SETTINGS.model_copy(update={"requeue_grace_s": 1000}))
    add_job(database, "job", 3)
    patient.step()
    with broker.client as client:
        client.rpop(RECIPE.queue, 3)
    assert [patient.step(), patient.step()] == [0, 0]


def test_chunks_that_run_are_not_taken_for_lost(database: Database, dispatcher: Dispatcher, broker: Any) -> None:
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    assert work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
    assert dispatcher.step() == 0
    assert states(database) == {"running": 1}


def test_chunk_of_an_expired_lease_is_sent_again_under_a_new_fence(
    database: Database, dispatcher: Dispatcher, broker: Any
) -> None:
    add_job(database, "job", 1)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=-1)
    assert dispatcher.step() == 1
    assert work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60) is None


def test_chunks_that_cannot_be_published_go_back_at_once(database: Database, queue: Queue, broker: Any) -> None:
    dispatcher = Dispatcher(database, queue, SETTINGS)
    add_job(database, "job", 3)
    with broker.client as client:  # full: it counts its lists, and takes no new message
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerErrors):
                dispatcher.step()
        finally:
            client.config_set("maxmemory", 0)
    assert states(database) == {"pending": 3}
    assert dispatcher.step() == 3


def test_finished_job_is_told_once(database: Database, dispatcher: Dispatcher) -> None:
    job = add_job(database, "job", 0)
    dispatcher.step()
    assert jobs.get_job(database, job.id).state == "finished"


@pytest.mark.parametrize("how", ["killed", "not there yet"])
def test_redis_that_was_away_is_served_again(
    database: Database, own_broker: Any, wait_for: Callable[..., Any], how: str
) -> None:
    queue, stop = Queue(own_broker.url, "here"), Event()
    if how == "killed":
        queue.length(RECIPE.queue)  # a connection that will break
    os.kill(own_broker.pid, signal.SIGKILL)
    wait_for(lambda: own_broker.server._child.code is not None)
    add_job(database, "job", 3)
    thread = Thread(target=Dispatcher(database, queue, SETTINGS).run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: states(database) == {"pending": 3})
        assert own_broker.server.ensure()
        wait_for(lambda: len(waiting(own_broker)) == 3)
        assert states(database) == {"queued": 3}
    finally:
        stop.set()
        thread.join()
        queue.close()


def test_dispatcher_ends_soon_while_redis_is_away(database: Database, wait_for: Callable[..., Any]) -> None:
    add_job(database, "job", 1)
    queue, stop = Queue("redis://127.0.0.1:1/0", "here"), Event()
    thread = Thread(target=Dispatcher(database, queue, SETTINGS).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    queue.close()


def test_database_that_is_away_is_waited_for(database: Database, queue: Queue, wait_for: Callable[..., Any]) -> None:
    dispatcher, stop = Dispatcher(database, queue, SETTINGS), Event()
    seen: list[int] = []
    step = dispatcher.step

    def away_first() -> int:
        seen.append(1)
        if len(seen) < 3:
            raise OperationalError("", {}, Exception("database is locked"))
        return step()

    dispatcher.step = away_first  # type: ignore[method-assign]
    thread = Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    job = add_job(database, "job", 0)
    wait_for(lambda: jobs.get_job(database, job.id).state == "finished")
    stop.set()
    thread.join()


def test_error_of_a_statement_ends_the_dispatcher(database: Database, dispatcher: Dispatcher) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE chunks RENAME TO elsewhere")
    add = Event()
    with pytest.raises(DBAPIError):
        dispatcher.run(add)


def test_two_dispatchers_send_every_chunk_once(database: Database, broker: Any) -> None:
    add_job(database, "job", 60)
    settings = SETTINGS.model_copy(update={"queue_low": 1000, "queue_high": 1000, "requeue_grace_s": 1000})
    queues = [Queue(broker.url, "here") for _ in range(2)]
    threads = [Thread(target=Dispatcher(database, queue, settings).step) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for queue in queues:
        queue.close()
    sent = waiting(broker)
    assert len(sent) == len(set(sent)) == 60
