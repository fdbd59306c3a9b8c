"""The dispatcher: the only code that enqueues. Any number may run; the ledger keeps them apart."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

import structlog
from sqlalchemy.exc import DBAPIError

from producer.notices import Notifier
from producer.queue import BrokerErrors, Queue
from producer.tally import Tally
from schemas.broker import CELERY_SETTINGS
from schemas.caption_search import AT_ONCE, index_captions
from schemas.database import Database, is_passing
from schemas.ledger import dispatch, jobs
from schemas.settings import Settings

log = structlog.get_logger()
MAKE_WAY_S = 3.0
"""How often chunks are taken back from the queue for the sake of others: each time they are all sent again."""
MOST_TIMES_HIGH = 4
"""So many times the high watermark is what a queue may hold, messages included that will be refused."""
MOST_PAUSES = 4
"""So many times the usual pause is the one between rounds while database or broker are away."""
INDEX_S = 2.0
"""How far the index of the captions' words may lie behind: on SQLite, where it is brought up to date in pieces."""
SILENCE_S = 20.0
"""So long a silence takes from workers the time to renew their leases, and so long they get to do it afterwards."""
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
    tally: Tally = field(default_factory=Tally)
    notifier: Notifier | None = None
    _empty_since: dict[str, float] = field(default_factory=dict)
    _made_way: dict[str, float] = field(default_factory=dict)
    _asked_at: float = field(default_factory=time.time)
    _blame_from: float = 0.0
    _index_at: float = 0.0
    _held: bool = False

    def run(self, stop: Event) -> None:
        """Step until told to stop. A database or a Redis that is away is waited for."""
        if self.job_id is None:
            self._asked_at = 0.0  # whatever has kept us away may have kept the workers from their leases
        while not stop.is_set():
            self.tally.turned_at = self.tally.now()
            try:
                self.step()
                if self.tally.reached is False:
                    log.info("back to work")
                self.tally.reached = True
            except (*BrokerErrors, DBAPIError) as error:
                if isinstance(error, DBAPIError) and not is_passing(error):
                    raise
                # to wait for Redis alone keeps nobody from renewing
                self._asked_at = 0.0 if isinstance(error, DBAPIError) else time.time()
                if self.tally.reached is not False:
                    log.warning("waiting for database and broker", error=_first_line(error))
                    self.tally.outages += 1
                self.tally.reached = False
            stop.wait(self.settings.dispatch_interval_s * (1 if self.tally.reached else MOST_PAUSES))

    def step(self) -> int:
        """One round; how many chunks were sent."""
        republished = self.tally.republished
        if stale := dispatch.requeue_stale(self.database, STALE_S, self.job_id):
            republished["stale"] += stale
            log.warning("chunks that no worker took go back", chunks=stale)
        if self._may_blame() and (crashed := dispatch.reclaim_expired(self.database, self.job_id)):
            republished["expired"] += crashed
            log.warning("leases expired", chunks=crashed)
        finished = jobs.finish_jobs(self.database, self.job_id)
        for name in finished:
            log.info("job finished", job=name)
        if self.notifier is not None:
            self.notifier.look()
        self._index_captions(whole=bool(finished))
        queues = dispatch.open_queues(self.database, self.job_id)
        self._forget_all_but(queues)
        return sum(map(self._feed, queues))

    def _may_blame(self) -> bool:
        """Whether a lease that has expired tells of a dead worker.

        After an outage of the database, a start or a machine's sleep, those that live get the time to renew theirs.
        """
        now, silence_s = time.time(), min(SILENCE_S, self.settings.lease_s / 2)
        in_time_s = silence_s + MOST_PAUSES * self.settings.dispatch_interval_s
        late = now - self._asked_at > in_time_s  # by the clock on the wall, which goes on while a machine sleeps
        # rounds that are always late would else wait for ever
        if not self._asked_at or (late and not self._held):
            self._blame_from = time.monotonic() + silence_s
        self._asked_at, self._held = now, time.monotonic() < self._blame_from
        return not self._held

    def _index_captions(self, *, whole: bool) -> None:
        """So that captions are found by their words: some of them now and then, and all when a job ends."""
        now = time.monotonic()
        if not whole and now < self._index_at:
            return
        while index_captions(self.database) == AT_ONCE and whole:
            pass
        self._index_at = time.monotonic() + INDEX_S

    def _feed(self, queue: str) -> int:
        low, high = self.settings.queue_low, max(self.settings.queue_high, self.settings.queue_low)
        length = self.tally.lengths[queue] = self.queue.length(queue)
        self._put_back_lost(queue, length)
        if self.job_id is None:
            self._make_way(queue)
        if low <= length < MOST_TIMES_HIGH * high:  # some of these messages may be refused by now
            length = min(length, dispatch.count_queued(self.database, queue, self.queue.name))
        if length >= low:
            return 0
        departures = dispatch.take_pending(self.database, queue, self.queue.name, high - length, self.job_id)
        sent = self.queue.send(
            queue, departures, lambda left: dispatch.put_back(self.database, left.chunk_id, left.fence)
        )
        self.tally.sent += sent
        return sent

    def _make_way(self, queue: str) -> None:
        """A job that should have its turn does not wait until the queue is through with the others."""
        now = time.monotonic()
        if now - self._made_way.get(queue, -MAKE_WAY_S) < MAKE_WAY_S:
            return
        if back := dispatch.make_way(self.database, queue, self.queue.name, most_jobs=self.settings.queue_low):
            self._made_way[queue] = now
            log.info("chunks make way for another job", chunks=back, queue=queue)

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
            self.tally.republished["lost"] += lost
            log.warning("chunks lost by the broker go back", chunks=lost, queue=queue)

    def _forget_all_but(self, queues: Sequence[str]) -> None:
        """Where no queue has to be fed, the broker is asked all the same, lest it be missed when one has."""
        self.tally.lengths = {name: length for name, length in self.tally.lengths.items() if name in queues}
        if not queues:
            self.queue.ping()


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]
