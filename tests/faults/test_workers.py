"""Workers that are killed, stopped, told to end, doubled, or left without work."""

import os
import signal

import psutil
from sqlalchemy import text

from schemas.ledger import dispatch
from tests.faults.invariants import assert_sound
from tests.faults.night import EITHER_SIGNAL, EITHER_SIGNAL_AND_DATABASE, ON_POSTGRESQL, ON_SQLITE, Night, is_gone


def test_chunks_of_a_killed_worker_are_done_by_another(night: Night) -> None:
    """Given two workers in mid-chunk, when one is killed, then the other one does its chunks."""
    uris = night.job(120)
    quick = {"KOSMOGRAPH_LEASE_S": "4"}
    first, second = night.worker("w1", 0.03, **quick), night.worker("w2", 0.03, **quick)
    night.until(lambda: first.said("worker ready") and second.said("worker ready"))
    night.dispatcher()
    night.until(lambda: night.count("outcomes") and night.count("chunks WHERE worker = 'w1'"))
    first.kill()
    assert night.count("chunks WHERE worker = 'w1'")
    night.finish(uris)


@ON_SQLITE  # no database sees what Redis does
def test_message_that_redis_gave_to_a_stopped_worker_is_sent_again(night: Night) -> None:
    """The lost BRPOP: Redis has sent it, nobody has written down that it was received, and the worker is killed."""
    uris = night.job(100, chunk_size=4)
    first = night.worker("w1")
    night.until(lambda: "brpop" in night.asked_of_redis)

    def taken() -> bool:
        """Redis gives a message to the stopped worker, unless that worker's last question has just run out."""
        first.send(signal.SIGSTOP)
        night.until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
        night.publish(1)
        if night.waiting == 0:
            return True
        first.send(signal.SIGCONT)
        night.until(lambda: night.waiting == 0 and not night.unacknowledged)
        return False

    night.until(taken)
    first.kill()
    assert not night.unacknowledged
    assert night.count("chunks WHERE state = 'queued'") == 1
    night.worker("w2")
    night.dispatcher()
    night.finish(uris)
    assert not night.blamed()


@EITHER_SIGNAL_AND_DATABASE
def test_worker_under_load_commits_what_is_finished_and_leaves(night: Night, number: int) -> None:
    """The signal goes to its whole group, as from a terminal or Slurm. What is left of a chunk is a chunk."""
    uris = night.job(160, chunk_size=16)
    night.publish()
    first = night.worker("w1", 0.1)
    night.until(night.is_mid_chunk)
    family = first.family()
    os.killpg(first.pid, number)
    assert first.ends() == 0, first.log.read_text()
    assert is_gone(family)
    assert 0 < night.count("outcomes") < len(uris)
    assert night.count("chunks WHERE state = 'running' OR lease_until IS NOT NULL OR worker IS NOT NULL") == 0
    assert not night.blamed()
    assert night.ask("SELECT MAX(tries) FROM chunks") == [(0,)]
    night.worker("w2")
    night.dispatcher()
    night.finish(uris)


@ON_SQLITE
@EITHER_SIGNAL
def test_signal_to_every_process_of_a_worker_blames_no_image(night: Night, number: int) -> None:
    """Loaders too, as systemd does it."""
    uris = night.job(160, chunk_size=16)
    night.publish()
    first = night.worker("w1", 0.1)
    night.until(night.is_mid_chunk)
    for process in first.family():
        process.send_signal(number)
    assert first.ends() == 0, first.log.read_text()
    night.worker("w2")
    night.dispatcher()
    night.finish(uris)
    assert not night.blamed()


def test_doubled_messages_are_done_once(night: Night) -> None:
    """Each message five times, to two workers."""
    uris = night.job(200)
    sent = night.publish(times=5)
    night.worker("w1")
    night.worker("w2")
    night.until(lambda: night.count("chunks WHERE state = 'done'") == 25 and night.waiting == 0)
    night.dispatcher()
    night.finish(uris)
    assert night.ask("SELECT id, fence FROM chunks ORDER BY id") == sorted((it.chunk_id, it.fence) for it in sent)
    assert not night.blamed()


def test_worker_that_comes_back_after_its_lease_changes_nothing(night: Night) -> None:
    """It was stopped with finished images in hand; another worker has done them meanwhile."""
    uris = night.job(40, chunk_size=20)
    quick = {"KOSMOGRAPH_LEASE_S": "3"}
    night.dispatcher()
    first = night.worker("w1", 0.15, **quick)
    night.until(lambda: night.count("chunks WHERE worker = 'w1'") == 2)
    first.send(signal.SIGSTOP)
    night.worker("w2", **quick)
    night.finish(uris)
    stands = night.ask("SELECT * FROM outcomes ORDER BY image_id"), night.ask("SELECT * FROM chunks ORDER BY id")
    first.send(signal.SIGCONT)
    night.until(lambda: first.said("chunk is not ours any more") or first.said("chunk lost to another worker"))
    first.send(signal.SIGTERM)
    assert first.ends() == 0
    assert stands == (
        night.ask("SELECT * FROM outcomes ORDER BY image_id"),
        night.ask("SELECT * FROM chunks ORDER BY id"),
    )
    assert_sound(night.database, uris)


def test_image_that_kills_its_worker_ends_alone(night: Night) -> None:
    """Given a poison among others, when workers die of it again and again, then all others are annotated."""
    uris = night.job(48, first=0)
    night.dispatcher()
    worker = night.worker("w0", 0.01, FAULTS_POISON="yes")
    deaths = 0

    def over() -> bool:
        """Replaces a dead worker, as `annotate` and the services do."""
        nonlocal worker, deaths
        if worker.code is not None:
            assert worker.code == -signal.SIGKILL, worker.log.read_text()
            dispatch.expire_worker(night.database, f"w{deaths}")
            deaths += 1
            worker = night.worker(f"w{deaths}", 0.01, FAULTS_POISON="yes")
        return night.is_over()

    night.until(over, 120)
    assert_sound(night.database, uris, codes=["crashed_worker"])
    failures = night.ask("SELECT uri, code FROM failures")
    assert failures == [(uris[0], "crashed_worker")]
    assert deaths == 4


@ON_POSTGRESQL
def test_worker_that_sat_idle_through_everything_is_fed_again(night: Night) -> None:
    """Its connections to Redis and PostgreSQL are cut while it has nothing to do, and Redis is restarted."""
    first = night.job(40)
    worker, dispatcher = night.worker(), night.dispatcher()
    night.until(night.is_over)
    with night.broker.client as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with night.database.engine.connect() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        cut = connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")).all()
    assert cut
    os.kill(night.broker.pid, signal.SIGKILL)
    night.until(night.broker.server.ensure)
    second = night.job(40, name="later", first=100)
    night.until(night.is_over)
    assert worker.code is None
    assert dispatcher.code is None
    assert_sound(night.database, first, job="job")
    assert_sound(night.database, second, job="later")
