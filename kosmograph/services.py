"""The services: a dispatcher, and workers, until SIGTERM."""

import structlog

from kosmograph.workers import WorkerPool, devices_for
from schemas.errors import TRY_AGAIN, DatabaseAway, UsageError
from schemas.settings import Settings
from schemas.signals import interruptible

LOOK_S = 1.0


def run_dispatcher(settings: Settings) -> int:
    """Feed the queue of every running job; the exit code."""
    from kosmograph.exposure import warn_of_open_broker
    from producer.dispatcher import Dispatcher
    from producer.queue import Queue
    from schemas.broker import broker_name
    from schemas.database import Database
    from schemas.logs import configure_logs
    from schemas.migrations import upgrade

    _require_broker(settings)
    name = broker_name(settings.broker)
    configure_logs(settings)
    warn_of_open_broker(settings.broker)
    database = Database(settings.db)
    try:
        upgrade(database)
    except DatabaseAway as error:
        structlog.get_logger().critical("dispatcher ended", why=str(error))
        return TRY_AGAIN
    queue = Queue(settings.broker, name)
    with interruptible() as stop:
        structlog.get_logger().info("dispatcher ready", database=str(database), broker=name)
        Dispatcher(database, queue, settings).run(stop)
    queue.close()
    database.close()
    return 0


def run_one_worker(settings: Settings, *, revision: str | None, dtype: str | None, name: str | None) -> int:
    """A worker in this process; the exit code."""
    from kosmograph.exposure import warn_of_open_broker
    from schemas.logs import configure_logs
    from worker.service import run_worker

    _require_broker(settings)
    configure_logs(settings)
    warn_of_open_broker(settings.broker)
    run_worker(settings, revision=revision, dtype=dtype, name=name)
    return 0


def run_workers(settings: Settings, *, revision: str | None, dtype: str | None, gpus: str) -> int:
    """One worker process for each GPU, each replaced when it dies; the exit code."""
    from worker.revision import resolve

    _require_broker(settings)
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
