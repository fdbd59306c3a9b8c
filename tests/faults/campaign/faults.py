"""The faults: one function for each kind. Each does its harm at once, and says what undoes it, and when.

A fault that finds nothing to hit raises Missed; it is thrown again later.
"""

import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import psutil
from celery import Celery
from sqlalchemy import Row, select

from producer.queue import Queue
from schemas.broker import broker_name
from schemas.database import Database
from schemas.ledger.dispatch import Departure
from schemas.tables import chunks
from tests.faults.campaign.job import Progress
from tests.faults.campaign.places import PostgresqlPlace, SqlitePlace
from tests.faults.campaign.topology import LEASE_S, Service, Topology

DATABASE, REDIS, DISPATCHER, ANNOTATE = "database", "redis", "dispatcher", "annotate"


class Missed(Exception):
    """There was nothing to hit."""


class Undo(NamedTuple):
    """What ends a fault, and after how many seconds."""

    after_s: float
    action: Callable[[], object]


@dataclass(frozen=True)
class Scene:
    """What a fault is thrown into."""

    topology: Topology
    random: Random
    job: str
    progress: Progress

    def worker(self) -> Service:
        """One that runs and has not been stopped."""
        able = [worker for worker in self.topology.workers if worker.pid and not worker.stopped]
        if not able:
            raise Missed
        return self.random.choice(able)

    def dispatcher(self) -> Service:
        if not self.topology.dispatcher.pid:
            raise Missed
        return self.topology.dispatcher

    def annotate(self) -> Service:
        if self.topology.annotate is None or not self.topology.annotate.pid:
            raise Missed
        return self.topology.annotate

    def loader(self) -> psutil.Process:
        """A loader process of one of them."""
        children = self.worker().descendants()
        if not children:
            raise Missed
        return self.random.choice(children)

    def chunk(self, *states: str) -> Row[tuple[object, ...]]:
        """A chunk of the job in one of these states, that has been on its way once."""
        wanted = select(chunks).where(chunks.c.job_id == self.progress.id, chunks.c.state.in_(states))
        database = Database(self.topology.place.url)
        try:
            with database.read() as connection:
                rows = connection.execute(wanted.order_by(chunks.c.id).limit(50)).all()
        finally:
            database.close()
        if not rows:
            raise Missed
        return self.random.choice(rows)

    def publish(self, *departures: Departure) -> None:
        queue = Queue(self.topology.broker_url, broker_name(self.topology.broker_url))
        try:
            queue.send(self.progress.queue, departures, lambda left: None)
        finally:
            queue.close()

    def command(self, *arguments: str) -> None:
        """One that must succeed for the fault to count."""
        done = self.topology.run(*arguments)
        if done.returncode != 0:
            raise Missed(f"{arguments}: {done.stderr}")


def kill_worker(scene: Scene) -> None:
    scene.worker().signal(signal.SIGKILL)


def terminate_worker(scene: Scene) -> None:
    scene.worker().signal(signal.SIGTERM)


def stop_worker(scene: Scene) -> Undo:
    """For longer than its lease: others have its chunks when it comes back."""
    worker = scene.worker()
    worker.signal(signal.SIGSTOP)
    return Undo(LEASE_S + 2, lambda: worker.signal(signal.SIGCONT))


def signal_worker_group(scene: Scene) -> None:
    """As systemd and Slurm do: the worker and all that it has started, each by itself."""
    worker, number = scene.worker(), scene.random.choice((signal.SIGTERM, signal.SIGINT))
    children = worker.descendants()
    worker.signal(number)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def kill_loader(scene: Scene) -> None:
    _signal(scene.loader(), signal.SIGKILL)


def stop_loader(scene: Scene) -> Undo:
    """For less than an image may take: nothing fails."""
    loader = scene.loader()
    _signal(loader, signal.SIGSTOP)
    return Undo(3, lambda: _signal(loader, signal.SIGCONT))


def kill_dispatcher(scene: Scene) -> None:
    scene.dispatcher().signal(signal.SIGKILL)


def terminate_dispatcher(scene: Scene) -> None:
    scene.dispatcher().signal(signal.SIGTERM)


def stop_dispatcher(scene: Scene) -> Undo:
    dispatcher = scene.dispatcher()
    dispatcher.signal(signal.SIGSTOP)
    return Undo(3, lambda: dispatcher.signal(signal.SIGCONT))


def add_dispatcher(scene: Scene) -> Undo:
    """A second one beside the first, for some seconds."""
    second = scene.topology.service("dispatcher-2", "dispatch")
    second.start()
    return Undo(4, second.end)


def kill_annotate(scene: Scene) -> Undo:
    """The command that does the job, and the same again a moment later."""
    annotate = scene.annotate()
    annotate.signal(signal.SIGKILL)
    return Undo(0.5, annotate.start)


def interrupt_annotate(scene: Scene) -> Undo:
    """Ctrl-C, and the same command again."""
    annotate = scene.annotate()
    annotate.signal(signal.SIGINT)

    def again() -> None:
        annotate.end()
        annotate.start()

    return Undo(0.5, again)


def kill_redis(scene: Scene) -> Undo:
    scene.topology.kill_redis()
    return Undo(0.5, scene.topology.start_redis)


def empty_redis(scene: Scene) -> Undo:
    """It comes back without its data."""
    scene.topology.kill_redis()
    return Undo(0.5, lambda: scene.topology.start_redis(emptied=True))


def take_redis_away(scene: Scene) -> Undo:
    """For ten seconds: the tasks in work end meanwhile, and cannot acknowledge."""
    scene.topology.kill_redis()
    return Undo(10, scene.topology.start_redis)


def flush_redis(scene: Scene) -> None:
    with scene.topology.redis as client:
        client.flushall()


def stop_redis(scene: Scene) -> Undo:
    """SIGSTOP: connections stand, and nobody answers."""
    redis = psutil.Process(scene.topology.redis_pid)
    redis.suspend()
    return Undo(3, redis.resume)


def cut_redis_clients(scene: Scene) -> None:
    with scene.topology.redis as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def fill_redis(scene: Scene) -> Undo:
    """No memory left, and nothing may be evicted: every write is refused."""

    def set_memory(amount: str) -> None:
        with scene.topology.redis as client:
            client.config_set("maxmemory", amount)

    set_memory("1")
    return Undo(2, lambda: set_memory("0"))


def stop_postgresql(scene: Scene) -> Undo:
    place = scene.topology.place
    assert isinstance(place, PostgresqlPlace)
    place.stop_at_once()
    return Undo(1.5, place.start)


def suspend_postgresql(scene: Scene) -> Undo:
    place = scene.topology.place
    assert isinstance(place, PostgresqlPlace)
    place.suspend()
    return Undo(3, place.resume)


def cut_postgresql_clients(scene: Scene) -> None:
    place = scene.topology.place
    assert isinstance(place, PostgresqlPlace)
    if not place.terminate_backends():
        raise Missed


def lock_sqlite(scene: Scene) -> Undo:
    """Another process holds the write lock, for longer than a lease."""
    place = scene.topology.place
    assert isinstance(place, SqlitePlace)
    locker = place.lock()
    return Undo(10, locker.communicate)


def repeat_message(scene: Scene) -> None:
    """The same message five times, of a chunk that is on its way."""
    chunk = scene.chunk("queued", "running")
    scene.publish(*[_departure(chunk, chunk.fence)] * 5)


def replay_stale_message(scene: Scene) -> None:
    """A message of long ago: its chunk is done, or has a newer fence."""
    done, current = scene.chunk("done"), scene.chunk("queued", "running", "done")
    scene.publish(_departure(done, done.fence), _departure(current, max(current.fence - 1, 1)))


def publish_garbage(scene: Scene) -> None:
    """What no dispatcher of ours has sent."""
    raw = scene.random.choice((b"\x80 no JSON", b"[]", b"null", b'{"body": 7}', b""))
    with scene.topology.redis as client:
        client.lpush(scene.progress.queue, raw)
    app = Celery(broker=scene.topology.broker_url, set_as_current=False)
    app.conf.task_publish_retry = False
    with app.connection_for_write() as connection:
        for name, arguments in (("kosmograph.annotate_chunk", {"chunk_id": "x"}), ("os.system", {"command": "true"})):
            app.send_task(name, kwargs=arguments, queue=scene.progress.queue, connection=connection)
    app.close()


def pause(scene: Scene) -> Undo:
    scene.command("pause", scene.job)

    def resume() -> None:
        done = scene.topology.run("resume", scene.job)
        # an `annotate` that was just starting has let it run again
        assert done.returncode == 0 or "is running" in done.stderr, done.stderr

    return Undo(1, resume)


def retry(scene: Scene) -> None:
    """What has failed goes back to work while the rest is still in it."""
    scene.command("retry", scene.job)


def kill_submit(scene: Scene) -> None:
    """Thrown by the campaign itself, which has the command in hand: see run.py."""
    raise Missed


def _departure(chunk: Row[tuple[object, ...]], fence: int) -> Departure:
    return Departure(chunk.id, fence, chunk.size)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it needs to itself while it lasts, and the databases that know it."""

    name: str
    throw: Callable[[Scene], Undo | None]
    needs: frozenset[str] = frozenset()
    databases: Sequence[str] = ("sqlite", "postgresql")


def _kind(name: str, throw: Callable[[Scene], Undo | None], *needs: str, only: str | None = None) -> Kind:
    return Kind(name, throw, frozenset(needs), (only,) if only else Kind.databases)


SUBMIT_KILLED = _kind("submit killed in its listing", kill_submit)
KINDS = (
    _kind("worker SIGKILL", kill_worker),
    _kind("worker SIGTERM", terminate_worker),
    _kind("worker stopped past its lease", stop_worker),
    _kind("worker's group signalled", signal_worker_group),
    _kind("loader SIGKILL", kill_loader),
    _kind("loader stopped 3 s", stop_loader),
    _kind("dispatcher SIGKILL", kill_dispatcher, DISPATCHER),
    _kind("dispatcher SIGTERM", terminate_dispatcher, DISPATCHER),
    _kind("dispatcher stopped 3 s", stop_dispatcher, DISPATCHER),
    _kind("second dispatcher", add_dispatcher, "second dispatcher"),
    _kind("annotate SIGKILL, again", kill_annotate, ANNOTATE),
    _kind("annotate Ctrl-C, again", interrupt_annotate, ANNOTATE),
    _kind("Redis SIGKILL, AOF", kill_redis, REDIS),
    _kind("Redis restarted empty", empty_redis, REDIS),
    _kind("Redis away 10 s", take_redis_away, REDIS),
    _kind("Redis FLUSHALL", flush_redis, REDIS),
    _kind("Redis stopped 3 s", stop_redis, REDIS),
    _kind("Redis clients cut", cut_redis_clients, REDIS),
    _kind("Redis full 2 s", fill_redis, REDIS),
    _kind("PostgreSQL immediate stop", stop_postgresql, DATABASE, only="postgresql"),
    _kind("PostgreSQL stopped 3 s", suspend_postgresql, DATABASE, only="postgresql"),
    _kind("PostgreSQL clients cut", cut_postgresql_clients, DATABASE, only="postgresql"),
    _kind("SQLite locked 10 s", lock_sqlite, DATABASE, only="sqlite"),
    _kind("message five times", repeat_message, REDIS, DATABASE),
    _kind("stale message", replay_stale_message, REDIS, DATABASE),
    _kind("garbage in the queue", publish_garbage, REDIS),
    SUBMIT_KILLED,
    _kind("pause and resume", pause, DATABASE, ANNOTATE),
    _kind("retry while running", retry, DATABASE),
)
