"""How much there is to do and who does it, at a cost that is bounded however large the archive: for dashboards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, distinct, func, literal_column, select

from schemas.database import Database
from schemas.ledger.states import PENDING, QUEUED, RUNNING
from schemas.tables import JOB_STATES, chunks, jobs, unix_now

MOST_CHUNKS = 100_000
"""Of a state are counted: where there are more, it is known that there are so many at least."""
MOST_JOBS = 50


class Unfinished(NamedTuple):
    """A job that runs or is paused: why that is, and its outcomes so far."""

    name: str
    state: str
    reason: str | None
    annotated: int
    reused: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True)
class Census:
    """The ledger at one moment."""

    chunks: Mapping[str, int]
    """Unfinished chunks of running jobs, by state."""
    jobs: Mapping[str, int]
    """How many jobs are in each state."""
    unfinished: Sequence[Unfinished]
    """The newest of them."""
    oldest_lease_s: float
    """For how long the chunk has been with its worker that has been there for longest; 0 where none is."""
    workers: int
    """How many hold a lease."""


def _of_running_jobs(state: ColumnElement[bool]) -> Select[Any]:
    running = select(jobs.c.id).where(jobs.c.state == "running")
    some: Select[Any] = select(literal_column("1")).where(state, chunks.c.job_id.in_(running)).limit(MOST_CHUNKS)
    return select(func.count()).select_from(some.subquery())


_SETTLED = jobs.c.annotated + jobs.c.reused + jobs.c.failed
# in the order of the leases' index: SQLite would else walk over all that is unfinished
_LEASES = (
    select(chunks.c.claimed_at, chunks.c.worker)
    .where(RUNNING)
    .order_by(chunks.c.lease_until)
    .limit(MOST_CHUNKS)
    .subquery()
)

CHUNKS = {
    "pending": _of_running_jobs(PENDING),
    "queued": _of_running_jobs(QUEUED),
    "running": _of_running_jobs(RUNNING),
}
JOBS: Select[Any] = select(jobs.c.state, func.count()).group_by(jobs.c.state)
UNFINISHED: Select[Any] = (
    select(
        *(jobs.c[name] for name in Unfinished._fields[:-1]),
        (jobs.c.images * jobs.c.recipes - _SETTLED).label("pending"),
    )
    .where(jobs.c.state.in_(("running", "paused")))
    .order_by(jobs.c.id.desc())
    .limit(MOST_JOBS)
)
LEASES = select(unix_now() - func.min(_LEASES.c.claimed_at), func.count(distinct(_LEASES.c.worker)))


def take_census(database: Database) -> Census:
    """The ledger now. It waits for no writer."""
    with database.read() as connection:
        oldest_s, workers = connection.execute(LEASES).one()
        by_state = {row[0]: row[1] for row in connection.execute(JOBS)}
        return Census(
            chunks={state: connection.execute(counted).scalar_one() for state, counted in CHUNKS.items()},
            jobs=dict.fromkeys(JOB_STATES, 0) | by_state,
            unfinished=[Unfinished(*row) for row in connection.execute(UNFINISHED)],
            oldest_lease_s=max(0.0, oldest_s or 0.0),
            workers=workers,
        )
