"""The dispatcher's part of a chunk's life: out to the queue, and back when the queue or a worker has lost it."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select, update

from schemas.database import Database
from schemas.errors import Code
from schemas.items import unpack_items
from schemas.ledger.settlement import complete
from schemas.ledger.states import BACK_TO_PENDING, PENDING, QUEUED, RUNNING
from schemas.ledger.work import Claim, claim_of
from schemas.results import Completion, Failure, Later, Settled
from schemas.tables import chunks, jobs, unix_now

MOST_CRASHES = 2
"""Running leases that may expire before a chunk is taken apart, and before a single image is given up."""

READY = PENDING & (chunks.c.retry_at <= unix_now())
EXPIRED = RUNNING & (chunks.c.lease_until < unix_now())


@dataclass(frozen=True, slots=True)
class Departure:
    """A chunk that is on its way to the queue, under its new fence."""

    chunk_id: int
    fence: int
    uris: list[str]


def open_queues(database: Database, job_id: int | None = None) -> list[str]:
    """The queues that running jobs (or this one) want fed."""
    wanted = select(jobs.c.queue).where(jobs.c.state == "running").distinct()
    if job_id is not None:
        wanted = wanted.where(jobs.c.id == job_id)
    with database.read() as connection:
        return list(connection.execute(wanted).scalars())


def take_pending(database: Database, queue: str, broker: str, most: int, job_id: int | None = None) -> list[Departure]:
    """pending → queued for at most so many chunks of a queue: jobs by priority, then age; chunks in their order.

    Only what is committed here may be published; what is lost between the two, `requeue_lost` puts back.
    """
    waiting = select(chunks.c.id).where(chunks.c.job_id == jobs.c.id, READY).exists()
    wanted = select(jobs.c.id).where(jobs.c.state == "running", jobs.c.queue == queue, waiting)
    if job_id is not None:
        wanted = wanted.where(jobs.c.id == job_id)
    with database.read() as connection:  # asked twice a second: no writer waits for the question
        ids = connection.execute(wanted.order_by(jobs.c.priority.desc(), jobs.c.id)).scalars().all()
    departures: list[Departure] = []
    for id_ in ids:
        if len(departures) < most:
            with database.write() as connection:
                departures += _take_from(connection, id_, broker, most - len(departures))
    return departures


def put_back(database: Database, departure: Departure) -> bool:
    """queued → pending for a chunk that could not be published."""
    back = (
        update(chunks)
        .where(chunks.c.id == departure.chunk_id, chunks.c.fence == departure.fence, QUEUED)
        .values(BACK_TO_PENDING)
    )
    with database.write() as connection:
        return connection.execute(back).rowcount == 1


def requeue_stale(database: Database, stale_s: float, job_id: int | None = None) -> int:
    """queued → pending for what no worker has claimed for so long, through whichever broker: nobody reads it there."""
    stale = QUEUED & (chunks.c.queued_at <= unix_now() - stale_s)
    return _change(database, stale if job_id is None else stale & (chunks.c.job_id == job_id), BACK_TO_PENDING)


def requeue_lost(database: Database, queue: str, broker: str, grace_s: float) -> int:
    """queued → pending for what should be in a queue that has been empty for so long: Redis has lost it."""
    with_jobs = select(jobs.c.id).where(jobs.c.queue == queue)
    overdue = (chunks.c.broker == broker) & (chunks.c.queued_at <= unix_now() - grace_s)
    return _change(database, QUEUED & overdue & chunks.c.job_id.in_(with_jobs), BACK_TO_PENDING)


def reclaim_broker(database: Database, job_id: int, broker_prefix: str) -> int:
    """queued | running → pending for a job's chunks of a broker that is gone with its run. Nobody is to blame."""
    gone = (chunks.c.job_id == job_id) & chunks.c.broker.startswith(broker_prefix, autoescape=True)
    return sum(_change(database, state & gone, BACK_TO_PENDING) for state in (QUEUED, RUNNING))


def expire_worker(database: Database, worker: str) -> int:
    """End the leases of a worker that is known to be dead, so that `reclaim_expired` need not wait for them."""
    return _change(database, RUNNING & (chunks.c.worker == worker), {"lease_until": unix_now() - 1})


def reclaim_expired(database: Database, job_id: int | None = None) -> int:
    """running → pending for leases that have expired; how many there were.

    Each counts as a crash. At the second one a chunk is taken apart into single images; an image that is alone, and
    crashes again twice, has failed as `crashed_worker`.
    """
    expired = EXPIRED if job_id is None else EXPIRED & (chunks.c.job_id == job_id)
    last = chunks.c.crashes + 1 >= MOST_CRASHES
    reclaimed = _change(database, expired & ~last, BACK_TO_PENDING | {"crashes": chunks.c.crashes + 1})
    with database.read() as connection:
        ids = connection.execute(select(chunks.c.id).where(expired & last)).scalars().all()
    return reclaimed + sum(_take_apart(database, id_) for id_ in ids)


def _take_apart(database: Database, chunk_id: int) -> bool:
    """running → done for a chunk that has crashed too often. One that has been renewed meanwhile is left alone."""
    with database.write() as connection:
        hold = update(chunks).where(chunks.c.id == chunk_id, EXPIRED).values(fence=chunks.c.fence + 1)
        row = connection.execute(hold.returning(chunks)).first()
        if row is None:
            return False
        claim = replace(claim_of(connection, row), crashes=0)
    return complete(database, claim, _apart(claim), breaker_images=1)


def _apart(claim: Claim) -> Completion:
    if len(claim.items) > 1:
        return Completion(later=[Later([item], tries=claim.tries) for item in claim.items])
    failure = Failure(Code.CRASHED_WORKER, f"the worker died {MOST_CRASHES} times while it had this image alone")
    (item,) = claim.items
    return Completion(settled=[Settled(item, item.version, None, dict.fromkeys(claim.recipes, failure))])


def _take_from(connection: Connection, job_id: int, broker: str, most: int) -> list[Departure]:
    running = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "running")
    ready = select(chunks.c.id).where(chunks.c.job_id.in_(running), READY).order_by(chunks.c.id).limit(most)
    taken = (
        update(chunks)
        .where(chunks.c.id.in_(_locked(ready)), PENDING)
        .values(state="queued", fence=chunks.c.fence + 1, broker=broker, queued_at=unix_now())
        .returning(chunks.c.id, chunks.c.fence, chunks.c.item_list)
    )
    rows = sorted(connection.execute(taken).all())
    return [Departure(id_, fence, [item.uri for item in unpack_items(items)]) for id_, fence, items in rows]


def _change(database: Database, condition: ColumnElement[bool], values: dict[str, Any]) -> int:
    """How many chunks met the condition and were changed."""
    affected = select(chunks.c.id).where(condition)
    with database.read() as connection:
        if connection.execute(affected.limit(1)).first() is None:
            return 0
    # the sum keeps SQLite from walking the whole table in the order of its ids
    ordered = affected.order_by(chunks.c.id + 0)
    changed = update(chunks).where(chunks.c.id.in_(_locked(ordered))).values(values).returning(chunks.c.id)
    with database.write() as connection:
        return len(connection.execute(changed).all())  # sqlite3 has no row count for a statement that begins WITH


def _locked(some: Select[Any]) -> Select[Any]:
    """The same ids, held: two dispatchers pass each other by instead of waiting in a circle (PostgreSQL).

    As a CTE, which PostgreSQL evaluates once; a plain subquery may run again, and take more than its limit.
    """
    locked = some.with_for_update(skip_locked=True).cte("locked")
    return select(locked.c.id)
