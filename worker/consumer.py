"""Celery as the consumer of one queue: messages in, to the one task; no program around it."""

import warnings
from collections.abc import Callable
from functools import partial
from queue import Empty
from threading import Event, Thread
from typing import Any

import structlog
from celery import Celery, Task
from celery.app.trace import setup_worker_optimizations
from celery.bootsteps import StartStopStep
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import ResponseError

from schemas.broker import CELERY_SETTINGS
from schemas.errors import SetupError
from schemas.messages import TASK_NAME
from schemas.settings import Settings
from schemas.signals import STOP_SIGNALS, hear
from worker.prefetch import Target, prefetch_of
from worker.probe import BrokerLink, BrokerProbe
from worker.tasks import ChunkTask

log = structlog.get_logger()
FAREWELL_S = 3.0
"""How long a worker that is through with its chunks waits for a broker which does not answer."""


def consume(
    settings: Settings, task: ChunkTask, queue: str, slots: int, link: BrokerLink, abandon: Callable[[], object]
) -> None:
    """Work on what comes through the queue until SIGTERM or SIGINT, and until the last chunk is out.

    So much is taken at a time as keeps an engine of so many slots busy. `abandon` is to end the process: it is called,
    in another thread, where all is done but Celery's loop hangs on a broker that does not answer.
    """
    target, over = Target(slots), Event()
    worker = Worker(
        app=make_app(settings.broker, task, link, BrokerProbe, prefetch_of(target)),
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
    heard = hear(*STOP_SIGNALS)

    def leave() -> None:
        heard.get()
        task.stopping.set()
        state.should_stop = 0  # Celery's loop looks at it, between events and while it tries to reconnect
        task.turns.wait_until_over()
        if not over.wait(FAREWELL_S):
            abandon()

    Thread(target=leave, name="farewell", daemon=True).start()
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # advice for version 6 at every lost connection
    try:
        worker.start()
    finally:
        over.set()
    if worker.exitcode:
        raise SetupError("the consumer of the queue gave out; the log above says how")


def make_app(broker: str, task: ChunkTask, link: BrokerLink, *steps: type[StartStopStep]) -> Celery:
    """Celery with the one task, and with these steps of ours in its consumer, of which one may tell `link`."""
    app = Celery("kosmograph", broker=broker, set_as_current=False)
    app.conf.update(CELERY_SETTINGS)
    app.task(name=TASK_NAME, base=AnyArguments, ignore_result=True, shared=False)(_as_function(task))
    app.refuse, app.link = task.refuse, link
    app.steps["consumer"].update([WireGuard, *steps])
    return app


class AnyArguments(Task):  # type: ignore[misc]
    """For whatever arguments a message brings, one named `self` too: they are the function's business."""

    def __call__(self, /, *arguments: Any, **message: Any) -> Any:
        return self.run(*arguments, **message)


class Worker(WorkController):  # type: ignore[misc]
    """Celery's worker without its program, which has a banner, signals and advice for root of its own."""

    def on_before_init(self, **_: Any) -> None:
        setup_worker_optimizations(self.app, self.hostname)  # without it, tasks run in the wrong app


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer, which a malformed message does not end, nor fill its log."""

    def refuse(self, why: object, message: Any = None) -> None:
        """Drop what came, and say so."""
        self.app.refuse(str(why))
        if message is not None:
            message.reject_log_error(log, self.connection_errors)

    def is_of_the_broker(self, error: Exception) -> bool:
        """Whether the connection fails, or Redis says no. A KeyError, though kombu counts it so, is the message's."""
        return isinstance(error, (ResponseError, *self.connection_errors)) and not isinstance(error, KeyError)

    def update_strategies(self) -> None:
        """For our task alone: those that Celery brings with it are nobody's business here."""
        super().update_strategies()
        for name in self.strategies.keys() - {TASK_NAME}:
            del self.strategies[name]

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self.refuse(exc, message)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self.refuse("it names no task", message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self.refuse(f"unknown task {exc}", message)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self.refuse(exc, message)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        receive = super().create_task_handler(*arguments, **options)

        def receive_or_refuse(message: Any) -> None:
            try:
                receive(message)
            except Exception as error:
                if self.is_of_the_broker(error):
                    raise
                self.refuse(f"{type(error).__name__}: {error}", message)

        return receive_or_refuse


class WireGuard(StartStopStep):  # type: ignore[misc]
    """Drops elements of the queue that are no messages at all. kombu raises while it reads them, in Celery's loop.

    What Redis itself says (it is full, or a replica by now) is no message: Celery makes a new connection for it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        handlers = parent.task_consumer.channel.handlers  # of this connection: there are others after the next
        handlers["BRPOP"] = partial(_read_or_drop, parent, handlers["BRPOP"])


def _read_or_drop(consumer: Consumer, read: Callable[..., Any], **options: Any) -> Any:
    try:
        return read(**options)
    except Empty:
        raise
    except Exception as error:
        if consumer.is_of_the_broker(error):
            raise
        # taken out of the list already, and in no other: there is nothing to acknowledge
        consumer.refuse(f"{type(error).__name__} while it was read")
        return True


def _as_function(task: ChunkTask) -> Callable[..., None]:
    def annotate_chunk(*forged: Any, **message: Any) -> None:
        if forged:
            task.refuse("it has arguments by place")
        else:
            task(**message)

    return annotate_chunk
