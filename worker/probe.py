"""A probe of the broker, against a hang of Celery's Redis transport.

After an outage in which tasks end, their acknowledgements fail, the delivery tags stay behind, and the consumer,
believing itself full, never asks Redis again. The probe sees both halves, the dead connection and the orphaned tags,
and restarts the consumer, which forgets the tags; the ledger puts back what they stood for.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError


class BrokerLink:
    """What the probe knows of the way to the broker, for whoever asks from another thread. Times are monotonic."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._connections = 0
        self._is_up = False
        self._turned_at = self._answered_at = -math.inf

    @property
    def reconnects(self) -> int:
        """How often the consumer has begun anew, with another connection."""
        return max(0, self._connections - 1)

    @property
    def silent_s(self) -> float:
        """How long ago the broker was last heard of; infinity without a connection."""
        return self._now() - self._answered_at if self._is_up else math.inf

    @property
    def still_s(self) -> float:
        """How long the consumer's loop has not turned. While it has no connection it waits for one: 0."""
        return self._now() - self._turned_at if self._is_up else 0.0

    def up(self) -> None:
        """There is a new connection, through which the broker has answered."""
        self._connections += 1
        self._turned_at = self._answered_at = self._now()
        self._is_up = True

    def turned(self) -> None:
        self._turned_at = self._now()

    def answered(self) -> None:
        self._answered_at = self._now()

    def down(self) -> None:
        self._is_up = False


class BrokerProbe(bootsteps.StartStopStep):  # type: ignore[misc]
    """Every few seconds: is Redis there, and does each unacknowledged message belong to a task?"""

    interval_s = 3.0
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._timer: Any = None
        self._orphans: set[str] = set()
        self._link: BrokerLink = parent.app.link

    def start(self, parent: Any) -> None:
        self._orphans = set()
        self._timer = parent.timer.call_repeatedly(self.interval_s, self._check, (parent,))
        self._link.up()

    def stop(self, parent: Any) -> None:
        self._link.down()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _check(self, consumer: Any) -> None:
        self._link.turned()
        channel = consumer.task_consumer.channel
        try:
            with channel.conn_or_acquire() as client:
                client.ping()
        except (RedisError, OperationalError, OSError) as error:
            raise ConnectionError(f"the broker does not answer: {error}") from error
        self._link.answered()
        orphans = set(channel.qos._delivered) - set(channel.qos._dirty) - _owned_tags()
        again = self._orphans & orphans
        self._orphans = orphans
        if again:
            raise ConnectionError(f"{len(again)} messages were delivered that no task owns")


def _owned_tags() -> set[str]:
    requests = list(state.reserved_requests) + list(state.active_requests)
    return {request.delivery_info.get("delivery_tag", request.message.delivery_tag) for request in requests}
