"""The dispatcher's part of a chunk's life: out to the queue, and back when the queue or a worker has lost it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, zip_longest
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from schemas.database import Database
from schemas.errors import Code
from schemas.ledger.bulk import run
from schemas.ledger.jobs import pause_job
from schemas.ledger.settlement import complete
from schemas.ledger.shares import READY, Standing, fair_shares, in_the_way, standings
from schemas.ledger.states import BACK_TO_PENDING, PENDING, QUEUED, RUNNING
from schemas.ledger.work import PUT_BACK, RELEASE, UNREADABLE, Claim, claim_of, unreadable
from schemas.results import Completion, Failure, Later, Settled
from schemas.tables import chunks, jobs, unix_now

MOST_CRASHES = 2
"""Running leases that may expire before a chunk is taken apart, and before a single image is given up."""

EXPIRED = RUNNING & (chunks.c.lease_until < unix_now())


@dataclass(frozen=True, slots=True)
class Departure:
    """A chunk that is on its way to the queue, under its new fence.

    `alone` is for one that a worker has died over: should it die again, no other chunk is to be suspected.
    """

    chunk_id: int
    fence: int
    images: int
    alone: bool = False


def open_queues(database: Database, job_id: int | None = None) -> list[str]:
    """The queues that running jobs (or this one) want fed."""
    wanted = select(jobs.c.queue).where(jobs.c.state == "running").distinct()
    if job_id is not None:
        wanted = wanted.where(jobs.c.id == job_id)
    with database.read() as connection:
        return list(connection.execute(wanted).scalars())


def take_pending(database: Database, queue: str, broker: str, most: int, job_id: int | None = None) -> list[Departure]:
    """pending → queued for at most so many chunks of a queue: jobs by priority, in turn where that is the same.

    The chunks of a job go in their order, those that were put back for later when it is time. Only what is committed
    here may be published; what is lost between the two, `requeue_lost` puts back.
    """
    ready = [one for one in standings(database, queue, job_id) if one.ready]
    departures: list[Departure] = []
    for _, equals in groupby(ready, key=attrgetter("priority")):
        departures += _take_in_turn(database, list(equals), broker, most - len(departures))
    return departures


def count_queued(database: Database, queue: str, broker: str) -> int:
    """How many chunks the ledger has in a queue, or on their way out of it."""
    with_jobs = select(jobs.c.id).where(jobs.c.queue == queue)
    counted = select(func.count()).where(QUEUED, chunks.c.broker == broker, chunks.c.job_id.in_(with_jobs))
    with database.read() as connection:
        return connection.execute(counted).scalar_one()


def make_way(database: Database, queue: str, broker: str, most_jobs: int) -> int:
    """queued → pending for chunks that stand before those of a job which should have its turn (see `in_the_way`).

    Their messages are refused when they arrive, and all of them are dispatched anew, in the right order.
    """
    ids = in_the_way(standings(database, queue), most_jobs)
    return _change(database, QUEUED & (chunks.c.broker == broker) & chunks.c.job_id.in_(ids), BACK_TO_PENDING)


def put_back(database: Database, chunk_id: int, fence: int) -> bool:
    """queued → pending for a chunk that could not be published, or not be begun."""
    with database.write() as connection:
        return run(connection, PUT_BACK, chunk=chunk_id, named=fence).rowcount == 1


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
    """running → done for a chunk that has crashed too often. One that has been renewed meanwhile is left alone.

    One that this version cannot read goes back, and pauses its job.
    """
    claim, why = None, ""
    with database.write() as connection:
        hold = update(chunks).where(chunks.c.id == chunk_id, EXPIRED).values(fence=chunks.c.fence + 1)
        row = connection.execute(hold.returning(chunks)).first()
        if row is None:
            return False
        try:
            claim = replace(claim_of(connection, row), crashes=0)
        except UNREADABLE as error:
            run(connection, RELEASE, chunk=chunk_id, named=row.fence)
            why = unreadable(chunk_id, error)
    if claim is None:
        return pause_job(database, row.job_id, why)
    return complete(database, claim, _apart(claim), breaker_images=1) is not None


def _apart(claim: Claim) -> Completion:
    if len(claim.items) > 1:
        return Completion(later=[Later([item], tries=claim.tries) for item in claim.items])
    said = f"{MOST_CRASHES} times a worker died, or failed in a way of its own, over this image alone; see its log"
    failure = Failure(Code.CRASHED_WORKER, said)
    (item,) = claim.items
    return Completion(settled=[Settled(item, item.version, None, dict.fromkeys(claim.recipes, failure))])


def _take_in_turn(database: Database, equals: Sequence[Standing], broker: str, most: int) -> list[Departure]:
    """Chunks of jobs of one priority, one of each in turn, until there are so many or no more."""
    in_hand = {one.job_id: one.queued + one.running for one in equals}
    taken: dict[int, list[Departure]] = {job_id: [] for job_id in in_hand}
    while most > 0 and in_hand:
        for job_id, share in fair_shares(most, in_hand).items():
            with database.write() as connection:
                some = _take_from(connection, job_id, broker, share) if share else []
            taken[job_id] += some
            most -= len(some)
            in_hand[job_id] += len(some)
            if len(some) < share:
                del in_hand[job_id]
    in_turn = chain.from_iterable(zip_longest(*taken.values()))
    return [departure for departure in in_turn if departure is not None]


def _take_from(connection: Connection, job_id: int, broker: str, most: int) -> list[Departure]:
    running = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "running").exists()
    in_order = (chunks.c.retry_at, chunks.c.id)
    ready = select(chunks.c.id).where(chunks.c.job_id == job_id, running, READY).order_by(*in_order).limit(most)
    taken = (
        update(chunks)
        .where(chunks.c.id.in_(_locked(ready)), PENDING)
        .values(state="queued", fence=chunks.c.fence + 1, broker=broker, queued_at=unix_now())
        .returning(*in_order, chunks.c.fence, chunks.c.size, chunks.c.crashes)
    )
    rows = sorted(connection.execute(taken).all())
    return [Departure(id_, fence, size, alone=crashes > 0) for _, id_, fence, size, crashes in rows]


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
