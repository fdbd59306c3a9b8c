"""Celery as the consumer of one queue: messages in, to the one task; no program around it."""

import signal
from collections.abc import Callable
from math import ceil
from typing import Any

from celery import Celery
from celery.app.trace import setup_worker_optimizations
from celery.worker import WorkController, state

from schemas.broker import CELERY_SETTINGS
from schemas.messages import TASK_NAME
from schemas.settings import Settings
from worker.probe import BrokerProbe
from worker.tasks import ChunkTask

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def consume(settings: Settings, task: ChunkTask, queue: str) -> None:
    """Work on what comes through the queue until SIGTERM or SIGINT, and until the last chunk is out."""

    def stop(*_: object) -> None:
        task.stopping.set()
        state.should_stop = 0  # Celery's loop looks at it, between events and while it tries to reconnect

    worker = Worker(
        app=make_app(settings.broker, task),
        hostname=f"kosmograph@{task.name}",
        pool_cls="threads",
        concurrency=chunk_tasks(settings),
        queues=[queue],
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    worker.start()


def make_app(broker: str, task: ChunkTask, probe: type[BrokerProbe] = BrokerProbe) -> Celery:
    """Celery with the one task and the probe."""
    app = Celery("kosmograph", broker=broker, set_as_current=False)
    app.conf.update(CELERY_SETTINGS)
    app.task(name=TASK_NAME, ignore_result=True)(_as_function(task))
    app.steps["consumer"].add(probe)
    return app


def chunk_tasks(settings: Settings) -> int:
    """How many chunks are in flight at once: one to load, one to compute, and at least three batches of images."""
    return max(2, ceil(3 * settings.batch_size / settings.chunk_size))


class Worker(WorkController):  # type: ignore[misc]
    """Celery's worker without its program, which has a banner, signals and advice for root of its own."""

    def on_before_init(self, **_: Any) -> None:
        setup_worker_optimizations(self.app, self.hostname)  # without it, tasks run in the wrong app


def _as_function(task: ChunkTask) -> Callable[..., None]:
    def annotate_chunk(**message: Any) -> None:
        task(**message)

    return annotate_chunk
