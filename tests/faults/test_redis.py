"""Redis killed, restarted, emptied, silent and full, in the middle of a job."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.night import ON_SQLITE, Night

pytestmark = ON_SQLITE  # no database sees what Redis does


def kill(night: Night) -> None:
    os.kill(night.broker.pid, signal.SIGKILL)
    night.until(lambda: night.broker.server._child.code is not None)


def restarted(night: Night) -> None:
    """With AOF: what was in it is there again."""
    kill(night)
    assert night.broker.server.ensure()


def restarted_empty(night: Night) -> None:
    """As one without AOF."""
    folder = Path(night.broker.url.removeprefix("redis+socket://").partition("?")[0]).parent
    kill(night)
    shutil.rmtree(folder / "appendonlydir")
    assert night.broker.server.ensure()
    assert night.waiting == 0


def flushed(night: Night) -> None:
    with night.broker.client as client:
        client.flushall()


@pytest.mark.parametrize("fault", [restarted, restarted_empty, flushed])
def test_job_goes_on_after_redis_was(night: Night, fault: Callable[[Night], None]) -> None:
    """Messages wait in it, and others are in work."""
    uris = night.job(300, chunk_size=4)
    worker, dispatcher = night.worker(image_s=0.01), night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    fault(night)
    night.finish(uris)
    assert worker.code is None
    assert dispatcher.code is None
    assert not night.blamed()


def test_job_goes_on_after_redis_was_restarted_ten_times(night: Night) -> None:
    uris = night.job(300, chunk_size=4)
    night.worker(image_s=0.03)
    night.dispatcher()
    for _ in range(10):
        before = night.count("outcomes")
        night.until(lambda before=before: night.count("outcomes") > before or night.is_over())
        restarted(night)
    night.finish(uris)
    assert not night.blamed()


def test_worker_whose_chunks_all_ended_while_redis_was_away_asks_again(night: Night) -> None:
    """Celery's hang: every slot is full, the acknowledgements fail, and the tags that stay behind fill the slots."""
    uris = night.job(400, chunk_size=8)
    night.worker(image_s=0.02)
    night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    kill(night)
    night.until(lambda: not night.count("chunks WHERE state = 'running'"))
    assert night.count("outcomes") < len(uris)
    assert night.broker.server.ensure()
    night.finish(uris)
    assert not night.blamed()


def test_redis_that_says_nothing_is_given_up_and_found_again(night: Night) -> None:
    """Half-open: it holds its connections and does not answer. The worker waits 3 s for it here, and 30 as a rule."""
    uris = night.job(300, chunk_size=4)
    worker = night.worker(image_s=0.01, FAULTS_SOCKET_TIMEOUT_S="3")
    night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    redis = night.broker.pid
    os.kill(redis, signal.SIGSTOP)
    night.until(lambda: worker.said("Couldn't ack"))
    os.kill(redis, signal.SIGCONT)
    night.finish(uris)
    assert not night.blamed()


def test_worker_leaves_though_redis_says_nothing(night: Night) -> None:
    """Celery's loop would wait half a minute for each acknowledgement, one after the other."""
    uris = night.job(300, chunk_size=4)
    worker = night.worker(image_s=0.01)
    night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    redis = night.broker.pid
    os.kill(redis, signal.SIGSTOP)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert worker.said("worker ended without its broker")
    assert not night.count("chunks WHERE state = 'running'")
    os.kill(redis, signal.SIGCONT)
    night.worker("w2")
    night.finish(uris)
    assert not night.blamed()


def test_redis_that_is_a_replica_for_a_while_loses_nothing(night: Night) -> None:
    """As after a failover, before the new address is known: it answers, and refuses every write and BRPOP."""
    uris = night.job(300, chunk_size=4)
    worker, dispatcher = night.worker(image_s=0.01), night.dispatcher()
    night.until(lambda: night.is_mid_chunk() and night.waiting)
    with night.broker.client as client:
        client.replicaof("127.0.0.1", 1)
        night.until(lambda: worker.said("read only replica"))
        client.replicaof("NO", "ONE")
    night.finish(uris)
    assert (worker.code, dispatcher.code) == (None, None)
    assert not worker.said("message refused")
    assert not night.blamed()


def test_redis_that_is_full_loses_nothing(night: Night) -> None:
    """It refuses what makes it larger (noeviction), such as the note that a message was received."""
    uris = night.job(300, chunk_size=4)
    worker = night.worker(image_s=0.01)
    dispatcher = night.dispatcher(KOSMOGRAPH_QUEUE_LOW="8", KOSMOGRAPH_QUEUE_HIGH="16")
    night.until(night.is_mid_chunk)
    with night.broker.client as client:
        client.config_set("maxmemory", 1)
        night.until(lambda: worker.said("maxmemory"))
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # one that comes back finds it full
        night.until(lambda: worker.said("Cannot connect"))
        client.config_set("maxmemory", 0)
    night.finish(uris)
    assert (worker.code, dispatcher.code) == (None, None)
    assert not worker.said("message refused")
    assert not night.blamed()
