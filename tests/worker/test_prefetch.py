"""How many messages a worker takes: by the images in them, not by their number."""

import json
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from producer.queue import Queue
from schemas.ledger.dispatch import Departure
from worker.prefetch import MOST_CHUNKS, Target, images_in, prefetch_of

SLOTS = 4
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")


@pytest.fixture
def worker(consuming: Callable[..., Any]) -> Any:
    """One that wants twelve images."""
    return consuming(prefetch_of(Target(SLOTS)), concurrency=Target(SLOTS).most_chunks)


def send(broker: Any, *sizes: int, first: int = 1) -> None:
    """A chunk of each size, with ids in a row."""
    queue = Queue(broker.url, "here")
    chunks = [Departure(number, 1, size) for number, size in enumerate(sizes, first)]
    queue.send("gated", chunks, pytest.fail)
    queue.close()


def settled(worker: Any, wait_for: Callable[..., Any]) -> None:
    """The worker has asked itself some times since whether to take more."""
    looks: list[int] = []
    timer = worker.timer.call_repeatedly(0.1, lambda: looks.append(1))
    wait_for(lambda: len(looks) >= 5)
    timer.cancel()


def left(broker: Any) -> int:
    with broker.client as client:
        return int(client.llen("gated"))


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([1] * 20, 12),  # small chunks: as many as it takes
        ([5] * 6, 3),  # the last goes over the mark
        ([1000] * 5, 2),  # large ones: one to load while one is computed, and the rest for others
        ([1, 1000, 1, 1], 2),
        ([1] * 5 + [1000] + [1] * 5, 6),
    ],
)
def test_messages_are_taken_until_there_are_images_enough(
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any], sizes: list[int], taken: int
) -> None:
    send(own_broker, *sizes)
    wait_for(lambda: len(task.begun) == taken)
    settled(worker, wait_for)
    assert len(task.begun) == taken
    assert left(own_broker) == len(sizes) - taken


def test_every_chunk_that_ends_makes_room_for_its_images(
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any]
) -> None:
    send(own_broker, 6, 6, *[1] * 20)
    wait_for(lambda: len(task.begun) == 2)
    task.gate.release(1)
    wait_for(lambda: len(task.begun) == 2 + 6)
    task.gate.release(1000)
    wait_for(lambda: len(task.ended) == 22)


def test_worker_takes_as_much_after_redis_was_killed(
    own_broker: Any, worker: Any, task: Any, wait_for: Callable[..., Any]
) -> None:
    """Of the new ones as many as before, whether or not those that could not be acknowledged come once more."""
    send(own_broker, *[1] * 3)
    wait_for(lambda: len(task.begun) == 3)
    os.kill(own_broker.pid, signal.SIGKILL)
    task.gate.release(3)
    wait_for(lambda: len(task.ended) == 3)
    wait_for(own_broker.server.ensure)
    send(own_broker, *[4] * 9, first=100)
    wait_for(lambda: sum(number >= 100 for number in task.begun) == 3)
    settled(worker, wait_for)
    assert left(own_broker) == 6


def test_target_is_three_images_a_slot_in_two_chunks_at_least() -> None:
    assert Target(64).images == 192
    assert Target(1).wants_more(chunks=1, images=10_000)
    assert not Target(1).wants_more(chunks=2, images=3)
    assert Target(64).wants_more(chunks=100, images=191)
    assert (Target(1).most_chunks, Target(512).most_chunks) == (3, MOST_CHUNKS)


@pytest.mark.parametrize(
    "body", [None, 7, "images", [], [[]], [[], {}], [[], {"images": "7"}], [[], {"images": None}], {"args": []}]
)
def test_message_that_is_not_ours_counts_no_images(body: Any) -> None:
    assert images_in(SimpleNamespace(payload=json.loads(json.dumps(body)))) == 0
