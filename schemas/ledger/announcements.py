"""Announcements: the ends and pauses of jobs that somebody is still to be told.

Whatever ends or pauses a job owes an announcement from the same moment on. One of all dispatchers claims it, tells it,
and writes down what was told:

    announced:  null ─(the job ends or pauses)→ owed → telling since … → finished at …
                telling ─(too long: who told it has died)→ telling, by another

So each is told at least once, and twice only where somebody died between telling it and saying so; one that could not
be told before the next one came gives way to that. What ended before there were announcements stays null, and a job
that runs again owes nothing until it ends again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, text, update

from schemas.database import Database
from schemas.ledger.bulk import run
from schemas.ledger.jobs import NEWS, OWED, News
from schemas.ledger.states import STANDS
from schemas.tables import jobs, outcomes, unix_now

TELLING = "telling since "
LEASE_S = 600.0
"""Who has begun to tell has died after so long."""
NEWS_S = 12 * 3600.0
"""What ended so long ago is no news, should somebody only now want to be told. A pause is, as long as it lasts."""

DUE = (
    select(jobs.c.id, jobs.c.announced, unix_now())
    .where(jobs.c.state != "running", or_(jobs.c.announced == OWED, jobs.c.announced.startswith(TELLING)))
    .where(or_(jobs.c.finished_at.is_(None), jobs.c.finished_at > unix_now() - NEWS_S))
    .order_by(jobs.c.id)
)
CHANGE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.announced == bindparam("before"))
    .values(announced=bindparam("now"))
)
CLAIM = CHANGE.where(jobs.c.state != "running")
FACTS = text("SELECT j.*, p.pending, p.images_per_s FROM jobs j JOIN progress p ON p.job = j.name WHERE j.id = :job")
FAILURES = (
    select(outcomes.c.code, func.count())
    .where(outcomes.c.job_id == bindparam("job"), outcomes.c.code.is_not(None))
    .where(STANDS)
    .group_by(outcomes.c.code)
    .order_by(outcomes.c.code)
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What there is to tell of a job, as it stood when it was claimed. Times are seconds since 1970."""

    job_id: int
    claim: str
    job: str
    state: str
    reason: str | None
    images: int
    annotated: int
    reused: int
    failed: int
    pending: int
    failures: Mapping[str, int]
    news: News
    started_at: float
    finished_at: float | None
    images_per_s: float


def claim_announcement(database: Database, job_id: int | None = None) -> Announcement | None:
    """One that is owed, by any job or this one, and is now ours to tell; None where there is none."""
    due = DUE if job_id is None else DUE.where(jobs.c.id == job_id)
    with database.read() as connection:  # asked in every round, and mostly in vain
        rows = connection.execute(due).all()
    for id_, before, now in rows:
        if before == OWED or float(before.removeprefix(TELLING).partition(",")[0]) + LEASE_S < now:
            ours = f"{TELLING}{now:.0f}, {token_hex(8)}"
            with database.write() as connection:
                if run(connection, CLAIM, job=id_, before=before, now=ours).rowcount == 1:
                    return _announcement(connection, id_, ours)
    return None


def is_ours(database: Database, one: Announcement) -> bool:
    """Whether it is still for us to tell: the job has not ended or paused anew, and nobody took us for dead."""
    with database.read() as connection:
        return connection.execute(select(jobs.c.announced).where(jobs.c.id == one.job_id)).scalar() == one.claim


def note_told(database: Database, told: Announcement) -> bool:
    """It was told, or nobody could be. False where the job has ended anew meanwhile, or another was faster."""
    now = f"{told.state} at {told.finished_at:.3f}" if told.finished_at else f"{told.state}: {told.reason}"
    return _change(database, told, now)


def owe_again(database: Database, untold: Announcement) -> bool:
    """It is for somebody else to tell, at once."""
    return _change(database, untold, OWED)


def _change(database: Database, one: Announcement, now: str) -> bool:
    with database.write() as connection:
        return run(connection, CHANGE, job=one.job_id, before=one.claim, now=now).rowcount == 1


def _announcement(connection: Connection, job_id: int, claim: str) -> Announcement:
    row = connection.execute(FACTS, {"job": job_id}).mappings().one()
    failures: dict[str, int] = dict(map(tuple, run(connection, FAILURES, job=job_id)))
    news = News(*connection.execute(NEWS, {"job": job_id}).one())
    named = ("state", "reason", "images", "annotated", "reused", "failed", "pending")
    facts: dict[str, Any] = {name: row[name] for name in (*named, "started_at", "finished_at", "images_per_s")}
    return Announcement(job_id=job_id, claim=claim, job=row["name"], failures=failures, news=news, **facts)
