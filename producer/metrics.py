"""The metrics of a dispatcher: what it does, and how the ledger stands."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from producer.tally import Tally
from schemas.database import Database
from schemas.ledger.census import Census, take_census
from schemas.metrics import new_registry

log = structlog.get_logger()
CENSUS_S = 5.0
"""How old the ledger's figures are at most, while it is there."""
MOST_SHARE = 0.05
"""Of the time may go into counting: a database for which that is much is asked less often."""
FORGET_S = 300.0
"""A ledger that nobody reached for so long may be quite another by now: nothing more is said of it."""
JOIN_S = 2.0
"""How long the end waits for a census, which may itself wait for a database that is away."""
MOST_REASON = 200
"""Characters of why a job is paused: it is a label."""


class DispatcherMetrics(Collector):
    """A registry of a dispatcher's tally and of the last census, which a thread of its own takes.

    So no scrape ever asks the database: while that is away, the figures stay as they were, for some minutes.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._census: Census | None = None
        self.registry = new_registry()
        self.registry.register(self)

    @contextmanager
    def counting(self, database: Database) -> Iterator[None]:
        """A census is taken every few seconds while the block runs."""
        over = Event()
        thread = Thread(target=self._count, args=[database, over], name="census", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(JOIN_S)

    def _count(self, database: Database, over: Event) -> None:
        wait_s, taken_at = 0.0, time.monotonic()
        while not over.wait(wait_s):
            began = time.monotonic()
            try:
                self._census, taken_at = take_census(database), began
            except (DBAPIError, NoConnectionFree) as error:
                if began - taken_at > FORGET_S:
                    self._census = None
                log.debug("the ledger was not counted", error=str(getattr(error, "orig", error)).split("\n")[0])
            wait_s = max(CENSUS_S, (time.monotonic() - began) / MOST_SHARE)

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        yield CounterMetricFamily("kosmograph_chunks_sent", "Chunks sent to a queue.", tally.sent)
        yield CounterMetricFamily("kosmograph_outages", "Spells without database or broker.", tally.outages)
        yield _labelled(
            CounterMetricFamily("kosmograph_chunks_republished", "Chunks that went back.", labels=["why"]),
            {(why,): count for why, count in tally.republished.items()},
        )
        yield _labelled(
            GaugeMetricFamily("kosmograph_queue_length", "Messages that wait.", labels=["queue"]),
            {(queue,): length for queue, length in dict(tally.lengths).items()},
        )
        if self._census:
            yield from _of_ledger(self._census)


def _of_ledger(census: Census) -> Iterator[Metric]:
    oldest_s, workers = census.oldest_lease_s, census.workers
    yield GaugeMetricFamily("kosmograph_oldest_lease_seconds", "Of the chunk that is longest in work.", oldest_s)
    yield GaugeMetricFamily("kosmograph_workers", "Workers that hold a lease.", workers)
    yield _labelled(
        GaugeMetricFamily("kosmograph_chunks", "Unfinished chunks of running jobs, to 100,000.", labels=["state"]),
        {(state,): count for state, count in census.chunks.items()},
    )
    yield _labelled(
        GaugeMetricFamily("kosmograph_jobs", "Jobs.", labels=["state"]),
        {(state,): count for state, count in census.jobs.items()},
    )
    yield _labelled(
        GaugeMetricFamily("kosmograph_job_images", "Outcomes of unfinished jobs.", labels=["job", "outcome"]),
        {
            (job.name, outcome): getattr(job, outcome)
            for job in census.unfinished
            for outcome in ("annotated", "reused", "failed", "pending")
        },
    )
    yield _labelled(
        GaugeMetricFamily("kosmograph_job_paused", "1, and why.", labels=["job", "reason"]),
        {(job.name, (job.reason or "")[:MOST_REASON]): 1 for job in census.unfinished if job.state == "paused"},
    )


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: dict[tuple[str, ...], float]
) -> CounterMetricFamily | GaugeMetricFamily:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
