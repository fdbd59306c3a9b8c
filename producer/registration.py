"""From sources to chunks in the ledger, streamed: work begins while the listing still runs."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from producer.sources.source import Listed, Source
from schemas.database import Database, patiently
from schemas.items import Item
from schemas.ledger import listing
from schemas.ledger.jobs import Job

MOST_ITEMS = 1024
MOST_SECONDS = 1.0
"""A batch is one transaction: as large as pays, and soon enough that workers need not wait for it."""

Place = tuple[int, str | None, int]
"""Which source, its cursor, and how many items were taken so far: as JSON, the cursor of the job."""


@dataclass
class Totals:
    """What a listing has seen so far."""

    new: int = 0
    reused: int = 0
    known: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass
class _Batch:
    items: list[Item] = field(default_factory=list)
    skipped: int = 0
    began: float = field(default_factory=time.monotonic)

    def is_full(self, first: bool, chunk_size: int) -> bool:
        most = chunk_size if first else max(MOST_ITEMS, chunk_size)
        return len(self.items) >= most or time.monotonic() - self.began >= MOST_SECONDS


def register_sources(
    database: Database,
    job: Job,
    sources: Sequence[Source],
    *,
    chunk_size: int,
    limit: int | None = None,
    recheck: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[Totals], object] = lambda totals: None,
) -> Totals:
    """List the sources into the job's chunks, from the job's cursor if a listing was cut off.

    Ends early, with its cursor kept, once `stopped()` says so. Raises SourceError when a source cannot be listed.
    """
    totals, batch, first = Totals(), _Batch(), True
    waiting = listing.waiting_items(database, job) if job.listings else listing.NONE_WAITING

    def flush(place: Place) -> None:
        tries = count()

        def write() -> listing.Registered:
            return listing.register(
                database,
                job,
                batch.items,
                cursor=json.dumps(place),
                chunk_size=chunk_size,
                skipped=batch.skipped,
                recheck=recheck,
                waiting=waiting,
                again=next(tries) > 0,
            )

        done = patiently(write, stop=stopped)
        totals.new += done.new
        totals.reused += done.reused
        totals.known += done.known
        progress(totals)

    place: Place = (0, None, 0)
    for place, listed in _from_cursor(sources, job.cursor, limit):
        if listed.item is not None:
            batch.items.append(listed.item)
        elif listed.skip is not None:
            batch.skipped += 1
            totals.skipped[listed.skip] = totals.skipped.get(listed.skip, 0) + 1
        if batch.is_full(first, chunk_size):
            flush(place)
            batch, first = _Batch(), False
        if stopped():
            return totals
    if batch.items or batch.skipped:
        flush(place)
    patiently(partial(listing.finish_listing, database, job), stop=stopped)
    return totals


def _from_cursor(sources: Sequence[Source], cursor: str | None, limit: int | None) -> Iterator[tuple[Place, Listed]]:
    """What the sources list after the cursor, each with the place that continues behind it."""
    begin, after, taken = json.loads(cursor) if cursor else (0, None, 0)
    for number in range(begin, len(sources)):
        for listed in sources[number].list(after if number == begin else None):
            if limit is not None and taken >= limit:
                return
            taken += listed.item is not None
            yield (number, listed.cursor, taken), listed
