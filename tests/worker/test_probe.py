"""The hang of Celery's Redis transport: Redis goes away while every slot is full, and tasks end in the gap."""

import os
import signal
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from producer.queue import Queue
from schemas.ledger.dispatch import Departure
from worker.prefetch import Target, prefetch_of
from worker.probe import BrokerProbe

pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")


class QuickProbe(BrokerProbe):
    """Looks often, so that the tests need not wait."""

    interval_s = 0.2


@pytest.fixture
def worker(consuming: Callable[..., Any]) -> Any:
    """A worker of two slots, and of more images than any test here sends."""
    return consuming(QuickProbe, prefetch_of(Target(100)), concurrency=2)


def send(broker: Any, *numbers: int) -> None:
    queue = Queue(broker.url, "here")
    queue.send("gated", [Departure(number, 1, 1) for number in numbers], pytest.fail)
    queue.close()


def killed_and_back(broker: Any, task: Any, wait_for: Callable[..., Any]) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    task.gate.release(2)
    wait_for(lambda: len(task.ended) == 2)
    wait_for(broker.server.ensure)


def stopped_and_back(broker: Any, task: Any, wait_for: Callable[..., Any]) -> None:
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
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any], outage: Callable[..., None]
) -> None:
    send(own_broker, 1, 2)
    wait_for(lambda: len(task.begun) == 2)
    outage(own_broker, task, wait_for)
    send(own_broker, 3, 4)
    task.gate.release(10)
    wait_for(lambda: {3, 4} <= set(task.ended))


def test_message_that_no_task_owns_restarts_the_consumer(
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any]
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
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any]
) -> None:
    send(own_broker, 1, 2)
    wait_for(lambda: len(task.begun) == 2)
    restarts, looks = worker.consumer.restart_count, []
    worker.timer.call_repeatedly(0.2, lambda: looks.append(1))
    wait_for(lambda: len(looks) >= 5)
    assert worker.consumer.restart_count == restarts
