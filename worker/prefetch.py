"""How many messages a worker takes: enough that the engine never waits, and no more, since others could do them.

Celery counts messages, but a message is a chunk of one image or of ten thousand. So the rule that Celery's Redis
transport asks before each message is replaced, as Celery's own `worker_disable_prefetch` replaces it: it counts the
images of what was delivered and is not acknowledged, anew at every look. There is no count to be kept, none to be lost
with a connection, and what no task owns is for the probe to find, as before. The number of messages stays bounded by
Celery's own prefetch count, which is the size of the pool.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import bootsteps

LEAST_CHUNKS = 2
"""One to load while one is computed, however large they are."""
MOST_CHUNKS = 128
"""Each has a thread: enough for an engine of as many slots when every chunk is one image, as after a crash."""
TARGET_SLOTS = 3
"""Images in hand for each slot: one that is computed, one that waits loaded, one that is being loaded."""


@dataclass(frozen=True)
class Target:
    """What should be in hand of a worker whose engine computes `slots` rows at once."""

    slots: int

    @property
    def images(self) -> int:
        return TARGET_SLOTS * self.slots

    @property
    def most_chunks(self) -> int:
        return min(self.images, MOST_CHUNKS)

    def wants_more(self, chunks: int, images: int) -> bool:
        """Whether another chunk is to be taken by who has these in hand, in work or on their way into it."""
        return chunks < LEAST_CHUNKS or images < self.images


def prefetch_of(target: Target) -> type[bootsteps.StartStopStep]:
    """A step of the consumer: with each connection it puts the rule in place."""

    class Prefetch(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Any) -> None:
            qos = parent.task_consumer.channel.qos
            qos.can_consume = by_images(qos, target)

    return Prefetch


def by_images(qos: Any, target: Target) -> Callable[[], bool]:
    """The rule for one channel: Celery's own, and the target."""
    within_messages = qos.can_consume

    def can_consume() -> bool:
        if not within_messages():
            return False
        in_hand = [message for tag, message in list(qos._delivered.items()) if tag not in qos._dirty]
        return target.wants_more(len(in_hand), sum(map(images_in, in_hand)))

    return can_consume


def images_in(message: Any) -> int:
    """How many images a message is about; 0 where it is not one of ours. Celery has decoded it, or refused it."""
    match message.payload:
        case [_, {"images": int(images)}, *_]:
            return images
    return 0
