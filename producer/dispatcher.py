"""The dispatcher: the only code that enqueues. Any number may run; the ledger keeps them apart."""

import time
from dataclasses import dataclass, field
from threading import Event

import structlog
from sqlalchemy.exc import DBAPIError

from producer.queue import BrokerErrors, Queue
from schemas.broker import CELERY_SETTINGS
from schemas.database import Database, is_passing
from schemas.ledger import dispatch, jobs
from schemas.settings import Settings

log = structlog.get_logger()
STALE_S = float(CELERY_SETTINGS["broker_transport_options"]["visibility_timeout"])
"""A queued chunk this old was lost from a queue that is never empty, or waits in a Redis that nobody reads any more."""


@dataclass
class Dispatcher:
    """Keeps each queue between a low and a high watermark, and puts back what Redis or a worker has lost.

    With `job_id` it serves that job alone, as `annotate` does for its own.
    """

    database: Database
    queue: Queue
    settings: Settings
    job_id: int | None = None
    _empty_since: dict[str, float] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Step until told to stop. A database or a Redis that is away is waited for."""
        away = False
        while not stop.is_set():
            try:
                self.step()
                if away:
                    log.info("back to work")
                away = False
            except (*BrokerErrors, DBAPIError) as error:
                if isinstance(error, DBAPIError) and not is_passing(error):
                    raise
                if not away:
                    log.warning("waiting for database and broker", error=_first_line(error))
                away = True
            stop.wait(self.settings.dispatch_interval_s * (4 if away else 1))

    def step(self) -> int:
        """One round; how many chunks were sent."""
        if stale := dispatch.requeue_stale(self.database, STALE_S, self.job_id):
            log.warning("chunks that no worker took go back", chunks=stale)
        if crashed := dispatch.reclaim_expired(self.database, self.job_id):
            log.warning("leases expired", chunks=crashed)
        for name in jobs.finish_jobs(self.database, self.job_id):
            log.info("job finished", job=name)
        return sum(self._feed(queue) for queue in dispatch.open_queues(self.database, self.job_id))

    def _feed(self, queue: str) -> int:
        length = self.queue.length(queue)
        self._put_back_lost(queue, length)
        if length >= self.settings.queue_low:
            return 0
        room = max(self.settings.queue_high, self.settings.queue_low) - length
        departures = dispatch.take_pending(self.database, queue, self.queue.name, room, self.job_id)
        return self.queue.send(queue, departures, lambda left: dispatch.put_back(self.database, left))

    def _put_back_lost(self, queue: str, length: int) -> None:
        """A queue that stays empty while the ledger says that chunks are in it: Redis has lost them."""
        now = time.monotonic()
        if length:
            self._empty_since.pop(queue, None)
            return
        grace_s = self.settings.requeue_grace_s
        if now - self._empty_since.setdefault(queue, now) < grace_s:
            return
        if lost := dispatch.requeue_lost(self.database, queue, self.queue.name, grace_s):
            log.warning("chunks lost by the broker go back", chunks=lost, queue=queue)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]
