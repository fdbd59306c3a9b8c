"""The hang of Celery's Redis transport: Redis goes away while every slot is full, and tasks end in the gap."""

import os
import signal
from collections.abc import Callable, Iterator
from threading import Event, Semaphore, Thread
from typing import Any

import pytest
from celery.worker import state

from producer.queue import Queue
from schemas.broker import CELERY_SETTINGS
from schemas.ledger.dispatch import Departure
from worker.consumer import Consumer, Worker, make_app
from worker.probe import BrokerProbe

QUEUE = "probed"
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")


class QuickProbe(BrokerProbe):
    """Looks often, so that the tests need not wait."""

    interval_s = 0.2


class Gated:
    """A task that begins when it likes and ends when the test lets it."""

    name = "probed"

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gate = Semaphore(0)

    def __call__(self, chunk_id: int, **_: Any) -> None:
        self.begun.append(chunk_id)
        self.gate.acquire()
        self.ended.append(chunk_id)


@pytest.fixture
def task() -> Gated:
    return Gated()


@pytest.fixture
def worker(own_broker: Any, task: Gated, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A real worker of two slots in a thread of this process. It gives up a dead connection soon."""
    quick = {"socket_timeout": 2, "socket_connect_timeout": 1}
    options = CELERY_SETTINGS["broker_transport_options"] | quick
    app = make_app(own_broker.url, task, QuickProbe)  # type: ignore[arg-type]
    app.conf.broker_transport_options = options
    worker = Worker(
        app=app,
        hostname="probed@here",
        pool_cls="threads",
        concurrency=2,
        queues=[QUEUE],
        consumer_cls=Consumer,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    monkeypatch.setattr(state, "should_stop", None)
    thread = Thread(target=worker.start)
    thread.start()
    yield worker
    state.should_stop = 0
    task.gate.release(100)
    thread.join(30)
    assert not thread.is_alive()


def send(broker: Any, *numbers: int) -> None:
    queue = Queue(broker.url, "here")
    queue.send(QUEUE, [Departure(number, 1, []) for number in numbers], pytest.fail)
    queue.close()


def killed_and_back(broker: Any, task: Gated, wait_for: Callable[..., Any]) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    task.gate.release(2)
    wait_for(lambda: len(task.ended) == 2)
    wait_for(broker.server.ensure)


def stopped_and_back(broker: Any, task: Gated, wait_for: Callable[..., Any]) -> None:
    pid, restarted = broker.pid, Event()
    os.kill(pid, signal.SIGSTOP)
    try:
        task.gate.release(2)
        wait_for(lambda: len(task.ended) == 2)
        restarted.wait(3)  # longer than the socket's timeout: the acknowledgements fail
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("outage", [killed_and_back, stopped_and_back])
def test_worker_consumes_again_after_tasks_ended_while_redis_was_away(
    own_broker: Any, worker: Worker, task: Gated, wait_for: Callable[..., Any], outage: Callable[..., None]
) -> None:
    send(own_broker, 1, 2)
    wait_for(lambda: len(task.begun) == 2)
    outage(own_broker, task, wait_for)
    send(own_broker, 3, 4)
    task.gate.release(10)
    wait_for(lambda: {3, 4} <= set(task.ended))


def test_message_that_no_task_owns_restarts_the_consumer(
    own_broker: Any, worker: Worker, task: Gated, wait_for: Callable[..., Any]
) -> None:
    """As an acknowledgement that was lost leaves it: with two of them, no further message would be asked for."""
    wait_for(lambda: worker.consumer.task_consumer)
    consumer = worker.consumer.task_consumer
    for tag in "ab":
        consumer.channel.qos._delivered[tag] = object()
    wait_for(lambda: worker.consumer.task_consumer not in (None, consumer))
    send(own_broker, 1)
    wait_for(lambda: task.begun == [1])


def test_worker_whose_tasks_run_long_is_left_alone(
    own_broker: Any, worker: Worker, task: Gated, wait_for: Callable[..., Any]
) -> None:
    send(own_broker, 1, 2)
    wait_for(lambda: len(task.begun) == 2)
    restarts, looks = worker.consumer.restart_count, []
    worker.timer.call_repeatedly(0.2, lambda: looks.append(1))
    wait_for(lambda: len(looks) >= 5)
    assert worker.consumer.restart_count == restarts
