"""A probe of the broker, against a hang of Celery's Redis transport.

After an outage in which tasks end, their acknowledgements fail, the delivery tags stay behind, and the consumer,
believing itself full, never asks Redis again. The probe sees both halves, the dead connection and the orphaned tags,
and restarts the consumer, which forgets the tags; the ledger puts back what they stood for.
"""

from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError


class BrokerProbe(bootsteps.StartStopStep):  # type: ignore[misc]
    """Every few seconds: is Redis there, and does each unacknowledged message belong to a task?"""

    interval_s = 3.0
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._timer: Any = None
        self._orphans: set[str] = set()

    def start(self, parent: Any) -> None:
        self._orphans = set()
        self._timer = parent.timer.call_repeatedly(self.interval_s, self._check, (parent,))

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _check(self, consumer: Any) -> None:
        channel = consumer.task_consumer.channel
        try:
            with channel.conn_or_acquire() as client:
                client.ping()
        except (RedisError, OperationalError, OSError) as error:
            raise ConnectionError(f"the broker does not answer: {error}") from error
        orphans = set(channel.qos._delivered) - set(channel.qos._dirty) - _owned_tags()
        again = self._orphans & orphans
        self._orphans = orphans
        if again:
            raise ConnectionError(f"{len(again)} messages were delivered that no task owns")


def _owned_tags() -> set[str]:
    requests = list(state.reserved_requests) + list(state.active_requests)
    return {request.delivery_info.get("delivery_tag", request.message.delivery_tag) for request in requests}
