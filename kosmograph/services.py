"""The services: a dispatcher, and workers, until SIGTERM; and the schema that they need."""

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import structlog

from kosmograph.workers import WorkerPool, devices_for
from schemas.errors import TRY_AGAIN, DatabaseAway, UsageError
from schemas.settings import Settings
from schemas.signals import interruptible

if TYPE_CHECKING:
    from producer.tally import Tally
    from producer.targets import Target
    from schemas.database import Database

LOOK_S = 1.0
LAST_WORDS_S = 5.0
"""How long a dispatcher that is to end waits for what it has begun to tell."""


def migrate(settings: Settings) -> int:
    """Bring the database's schema up to date, or make it; the exit code."""
    from kosmograph.output import say
    from schemas.database import Database
    from schemas.migrations import upgrade
    from schemas.version import HEAD

    database = Database(settings.db)
    try:
        upgrade(database)
    except DatabaseAway as error:
        structlog.get_logger().critical("migration ended", why=str(error))
        return TRY_AGAIN
    say(f"{database} has schema {HEAD}")
    database.close()
    return 0


def run_dispatcher(settings: Settings) -> int:
    """Feed the queue of every running job; the exit code."""
    from kosmograph.exposure import warn_of_open_broker
    from producer.metrics import DispatcherMetrics
    from producer.tally import Tally
    from producer.targets import target_of
    from schemas.broker import broker_name
    from schemas.database import Database
    from schemas.logs import configure_logs
    from schemas.metrics import serving
    from schemas.migrations import upgrade

    _require_broker(settings)
    name = broker_name(settings.broker)
    target = target_of(settings.notify, settings.db) if settings.notify else None
    configure_logs(settings)
    tally = Tally()
    metrics = DispatcherMetrics(tally)
    with (
        serving(settings, metrics.registry, live=tally.live, ready=tally.ready),
        closing(Database(settings.db)) as database,
    ):
        warn_of_open_broker(settings.broker)
        try:
            upgrade(database)
        except DatabaseAway as error:
            structlog.get_logger().critical("dispatcher ended", why=str(error))
            return TRY_AGAIN
        with metrics.counting(database) if settings.metrics_port else nullcontext():
            _dispatch(database, settings, name, tally, target)
    return 0


def _dispatch(database: "Database", settings: Settings, broker: str, tally: "Tally", target: "Target | None") -> None:
    """Dispatch until SIGTERM or SIGINT."""
    from producer.dispatcher import Dispatcher
    from producer.notices import Notifier
    from producer.queue import Queue

    notifier = Notifier(database, target) if target else None

    with closing(Queue(settings.broker, broker)) as queue, interruptible() as stop:
        structlog.get_logger().info("dispatcher ready", database=str(database), broker=broker)
        Dispatcher(database, queue, settings, tally=tally, notifier=notifier).run(stop)
        if notifier:
            notifier.finish(LAST_WORDS_S)


def run_one_worker(settings: Settings, *, revision: str | None, dtype: str | None, name: str | None) -> int:
    """A worker in this process; the exit code."""
    from kosmograph.exposure import warn_of_open_broker
    from schemas.logs import configure_logs
    from worker.service import new_name, run_worker

    _require_broker(settings)
    name = name or new_name()
    configure_logs(settings, worker=name)
    warn_of_open_broker(settings.broker)
    run_worker(settings, revision=revision, dtype=dtype, name=name)
    return 0


def run_workers(settings: Settings, *, revision: str | None, dtype: str | None, gpus: str) -> int:
    """One worker process for each GPU, each replaced when it dies; the exit code."""
    from schemas.logs import configure_logs
    from worker.revision import resolve

    _require_broker(settings)
    configure_logs(settings)
    model = resolve(settings.model, revision, dtype)  # once: one that is replaced tonight must be what it was
    pool = WorkerPool(settings, devices_for(settings, gpus), None, revision=model.revision, dtype=model.dtype)
    with interruptible() as stop:
        try:
            while not stop.wait(LOOK_S):
                pool.check()
        finally:
            pool.stop()
    return 0


def _require_broker(settings: Settings) -> None:
    if not settings.broker:
        raise UsageError("a service needs a Redis that all share: --broker redis://HOST:6379/0, or KOSMOGRAPH_BROKER")
