"""Whose chunks go next: jobs by priority, and those of one priority in equal shares."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select

from schemas.database import Database
from schemas.ledger.states import PENDING, QUEUED, RUNNING
from schemas.tables import chunks, jobs, unix_now

READY = PENDING & (chunks.c.retry_at <= unix_now())


@dataclass(frozen=True, slots=True)
class Standing:
    """A running job: whether it has chunks to send, how many are in the queue, and how many in work."""

    job_id: int
    priority: int
    ready: bool
    queued: int
    running: int


def standings(database: Database, queue: str, job_id: int | None = None) -> list[Standing]:
    """The running jobs of a queue (or this one), the highest priority first, then the oldest."""
    of_job = chunks.c.job_id == jobs.c.id
    wanted = select(
        jobs.c.id,
        jobs.c.priority,
        exists().where(of_job, READY),
        select(func.count()).where(of_job, QUEUED).scalar_subquery(),
        select(func.count()).where(of_job, RUNNING).scalar_subquery(),
    ).where(jobs.c.state == "running", jobs.c.queue == queue)
    if job_id is not None:
        wanted = wanted.where(jobs.c.id == job_id)
    with database.read() as connection:  # asked twice a second: no writer waits for the question
        rows = connection.execute(wanted.order_by(jobs.c.priority.desc(), jobs.c.id))
        return [Standing(*row) for row in rows]


def fair_shares(most: int, in_hand: Mapping[int, int]) -> dict[int, int]:
    """How many chunks each job gets of so many, that those with the fewest in hand catch up with the others."""
    heap = [(count, place, job) for place, (job, count) in enumerate(in_hand.items())]
    heapq.heapify(heap)
    shares = dict.fromkeys(in_hand, 0)
    for _ in range(most if heap else 0):
        count, place, job = heap[0]
        shares[job] += 1
        heapq.heapreplace(heap, (count + 1, place, job))
    return shares


def in_the_way(standing: Sequence[Standing], most_jobs: int) -> list[int]:
    """The jobs whose queued chunks stand before one that should have its turn.

    They are those of a lower priority than one that has chunks to send; and where one of the highest has nothing in the
    queue, its equals, with which it shares: unless there are more than `most_jobs` of them, where a turn for each is
    longer than the queue.
    """
    highest = max((one.priority for one in standing if one.ready), default=None)
    if highest is None:
        return []
    equals = [one for one in standing if one.priority == highest]
    kept_out = len(equals) <= most_jobs and any(one.ready and not one.queued for one in equals)
    return [
        one.job_id
        for one in standing
        if one.queued and (one.priority < highest or (kept_out and one.priority == highest))
    ]
