"""Celery as the consumer of one queue: messages in, to the one task; no program around it."""

import signal
import warnings
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.app.trace import setup_worker_optimizations
from celery.bootsteps import StartStopStep
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer as CeleryConsumer

from schemas.broker import CELERY_SETTINGS
from schemas.errors import SetupError
from schemas.messages import TASK_NAME
from schemas.settings import Settings
from worker.prefetch import Target, prefetch_of
from worker.probe import BrokerProbe
from worker.tasks import ChunkTask

log = structlog.get_logger()
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def consume(settings: Settings, task: ChunkTask, queue: str, slots: int) -> None:
    """Work on what comes through the queue until SIGTERM or SIGINT, and until the last chunk is out.

    So much is taken at a time as keeps an engine of so many slots busy.
    """
    target = Target(slots)

    def stop(*_: object) -> None:
        task.stopping.set()
        state.should_stop = 0  # Celery's loop looks at it, between events and while it tries to reconnect

    worker = Worker(
        app=make_app(settings.broker, task, BrokerProbe, prefetch_of(target)),
        hostname=f"kosmograph@{task.name}",
        pool_cls="threads",
        concurrency=target.most_chunks,
        queues=[queue],
        consumer_cls=Consumer,
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # advice for version 6 at every lost connection
    worker.start()
    if worker.exitcode:
        raise SetupError("the consumer of the queue gave out; the log above says how")


def make_app(broker: str, task: ChunkTask, *steps: type[StartStopStep]) -> Celery:
    """Celery with the one task, and with these steps of ours in its consumer."""
    app = Celery("kosmograph", broker=broker, set_as_current=False)
    app.conf.update(CELERY_SETTINGS)
    app.task(name=TASK_NAME, ignore_result=True, shared=False)(_as_function(task))
    app.steps["consumer"].update(steps)
    return app


class Worker(WorkController):  # type: ignore[misc]
    """Celery's worker without its program, which has a banner, signals and advice for root of its own."""

    def on_before_init(self, **_: Any) -> None:
        setup_worker_optimizations(self.app, self.hostname)  # without it, tasks run in the wrong app


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer, which a malformed message does not end."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        receive = super().create_task_handler(*arguments, **options)

        def receive_or_refuse(message: Any) -> None:
            try:
                receive(message)
            except self.connection_errors:
                raise
            except Exception as error:
                log.error("message refused", why=f"{type(error).__name__}: {error}")
                message.reject_log_error(log, self.connection_errors)

        return receive_or_refuse


def _as_function(task: ChunkTask) -> Callable[..., None]:
    def annotate_chunk(**message: Any) -> None:
        task(**message)

    return annotate_chunk
