"""The queue as the dispatcher sees it: how long it is, and a place to put messages."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from schemas.broker import CELERY_SETTINGS
from schemas.ledger.dispatch import Departure
from schemas.messages import TASK_NAME, ChunkMessage

BrokerErrors = (OperationalError, RedisError, OSError)
"""What a Redis that is away, full or restarting looks like from here."""


class Queue:
    """Celery's queues in one Redis."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._app = Celery("kosmograph", broker=url, set_as_current=False)
        at_once = CELERY_SETTINGS["broker_transport_options"] | {"max_retries": 1}  # the dispatcher comes again itself
        self._app.conf.update(CELERY_SETTINGS | {"broker_transport_options": at_once})
        self._connection: Any = self._app.connection_for_write()

    def length(self, queue: str) -> int:
        """How many messages wait. Raises one of BrokerErrors."""
        return int(self._connection.default_channel.client.llen(queue))

    def ping(self) -> None:
        """Raises one of BrokerErrors where the broker does not answer."""
        self._connection.default_channel.client.ping()

    def send(self, queue: str, departures: Sequence[Departure], failed: Callable[[Departure], object]) -> int:
        """Publish one message a chunk; how many went out.

        At the first error that chunk, which may have arrived all the same, and the rest are handed to `failed`.
        """
        for sent, departure in enumerate(departures):
            message = ChunkMessage(**asdict(departure))
            try:
                self._app.send_task(
                    TASK_NAME, kwargs=message.model_dump(), queue=queue, connection=self._connection, ignore_result=True
                )
            except BrokerErrors:
                for left in departures[sent:]:
                    failed(left)
                raise
        return len(departures)

    def close(self) -> None:
        self._connection.release()
        self._app.close()
