"""Dispatchers that are killed at the worst moment, or are several; and jobs that people change while they run."""

import os
import signal

from schemas.items import Item
from schemas.ledger import jobs, listing
from tests.faults.invariants import assert_sound
from tests.faults.night import ON_POSTGRESQL, ON_SQLITE, RECIPE, Night

SOON_S = 10.0
"""How soon a command must be seen to act: five seconds are promised, and the machine may be busy."""


def test_dispatcher_killed_between_its_commit_and_its_messages_loses_nothing(night: Night) -> None:
    """Redis stops after it was asked how long the queue is: the chunks are queued, their messages never come."""
    uris = night.job(200, chunk_size=4)
    with night.nobody_writes():
        dispatcher = night.dispatcher()
        night.until(lambda: "llen" in night.asked_of_redis)
        redis = night.broker.pid
        os.kill(redis, signal.SIGSTOP)
    try:
        night.until(lambda: night.count("chunks WHERE state = 'queued'") == 50)
        dispatcher.kill()
    finally:
        os.kill(redis, signal.SIGCONT)
    night.until(lambda: night.waiting <= 1)  # one message was on its way
    night.worker()
    night.dispatcher("d2")
    night.finish(uris)
    assert not night.blamed()


@ON_SQLITE
def test_dispatcher_killed_after_its_messages_sends_none_twice(night: Night) -> None:
    uris = night.job(200, chunk_size=4)
    dispatcher = night.dispatcher()
    night.until(lambda: night.waiting == 50)
    fences = night.ask("SELECT id, fence FROM chunks ORDER BY id")
    dispatcher.kill()
    night.worker()
    night.until(lambda: night.count("chunks WHERE state = 'done'") == 50)
    night.dispatcher("d2")
    night.finish(uris)
    assert night.ask("SELECT id, fence FROM chunks ORDER BY id") == fences


def test_two_dispatchers_of_which_one_is_killed_again_and_again(night: Night) -> None:
    """Both take from the same chunks, take back the same leases, and finish the same job."""
    uris = night.job(400, chunk_size=2)
    small = {"KOSMOGRAPH_QUEUE_LOW": "8", "KOSMOGRAPH_QUEUE_HIGH": "16", "KOSMOGRAPH_DISPATCH_INTERVAL_S": "0.02"}
    night.dispatcher("d0", **small)
    night.worker("w1", 0.01)
    night.worker("w2", 0.01)
    night.until(lambda: night.count("outcomes"))
    for number in range(1, 4):
        other, before = night.dispatcher(f"d{number}", **small), night.count("outcomes")
        night.until(lambda other=other: other.said("dispatcher ready"))
        night.until(lambda before=before: night.count("outcomes") > before or night.is_over())
        other.kill()
    night.finish(uris)
    assert not night.blamed()


# -- jobs that people change while they run


@ON_SQLITE
def test_paused_job_stops_soon_and_goes_on_when_it_is_resumed(night: Night) -> None:
    """Over a night in which Redis and the worker are new."""
    uris = night.job(400)
    worker = night.worker(image_s=0.05)
    night.dispatcher()
    night.until(night.is_mid_chunk)
    night.run("pause", "job")
    night.until(lambda: not night.count("chunks WHERE state IN ('queued', 'running')"), SOON_S)
    assert 0 < night.count("outcomes") < len(uris)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    os.kill(night.broker.pid, signal.SIGKILL)
    night.until(night.broker.server.ensure)
    night.worker("w2")
    before = night.count("outcomes")
    night.run("resume", "job")
    night.until(lambda: night.count("outcomes") > before, SOON_S)
    night.finish(uris)
    assert not night.blamed()


@ON_POSTGRESQL
def test_cancelled_job_stops_soon_and_keeps_what_it_has(night: Night) -> None:
    uris = night.job(400)
    night.worker(image_s=0.05)
    night.dispatcher()
    night.until(night.is_mid_chunk)
    night.run("cancel", "job")
    night.until(lambda: not night.count("chunks WHERE state IN ('queued', 'running')"), SOON_S)
    annotated, images = night.ask("SELECT annotated, images FROM jobs")[0]
    assert night.count("outcomes") == annotated < images == len(uris)


@ON_POSTGRESQL
def test_job_that_becomes_urgent_is_begun_soon_though_the_queue_is_full(night: Night) -> None:
    """What waits there of the other job makes room for it."""
    uris = night.job(398, chunk_size=2)
    urgent = night.job(20, name="urgent", first=400, chunk_size=2, priority=-1)
    night.worker(image_s=0.04)
    night.dispatcher(KOSMOGRAPH_QUEUE_LOW="16", KOSMOGRAPH_QUEUE_HIGH="32")
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    assert not night.count("chunks WHERE job_id = 2 AND state <> 'pending'")
    night.run("priority", "urgent", "9")
    night.until(lambda: night.count("chunks WHERE job_id = 2 AND state IN ('running', 'done')"), SOON_S)
    assert night.count("jobs WHERE state = 'running'") == 2
    night.until(night.is_over)
    assert_sound(night.database, uris, job="job")
    assert_sound(night.database, urgent, job="urgent")


@ON_SQLITE
def test_redis_stays_small_though_nobody_works(night: Night) -> None:
    """The watermark bounds it, whatever is registered: 200,000 URIs stand for a million."""
    job = jobs.open_job(night.database, "archive", [RECIPE], listing="{}")
    for batch in range(20):
        items = [Item(f"s3://archive/2024/summer/photographs/{batch:03}/{number:06}.jpg") for number in range(10_000)]
        listing.register(night.database, job, items, cursor=None, chunk_size=64)
    dispatcher = night.dispatcher()
    with night.broker.client as client:
        night.until(lambda: night.waiting == 256)
        rounds = client.info("commandstats")["cmdstat_llen"]["calls"]
        night.until(lambda: client.info("commandstats")["cmdstat_llen"]["calls"] > rounds + 10)
        assert night.waiting == 256
        assert client.info("memory")["used_memory"] < 20e6
    assert dispatcher.code is None
