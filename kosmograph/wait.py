"""`wait`: until a job that others work on has ended."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from threading import Event
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from kosmograph.display import Display
from kosmograph.exits import INTERRUPTED, TROUBLE
from kosmograph.output import duration, say, warn
from kosmograph.summary import counts, print_end
from schemas.database import PATIENCE_S, Database, patiently
from schemas.errors import DatabaseAway, SetupError
from schemas.ledger import jobs
from schemas.ledger.jobs import Job
from schemas.migrations import require_current
from schemas.settings import Settings
from schemas.signals import interruptible

T = TypeVar("T")
LOOK_S = 1.0


def wait(name: str, settings: Settings, display: Display, *, timeout_s: float | None, quiet: bool) -> int:
    """Show the job's progress until it ends or pauses, the time is over, or the user interrupts; the exit code.

    A database that is away is waited for, as workers do: ten minutes, unless the time is over before.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with interruptible() as interrupted, closing(Database(settings.db)) as database:
        ask = partial(_patiently, stop=interrupted, deadline=deadline)
        try:
            ask(lambda: require_current(database))
            job = ask(lambda: jobs.find_job(database, name))
            with display.showing(name):
                while job.state == "running" and not interrupted.is_set() and not _is_over(deadline):
                    display.update(job, listed=job.listed_at is not None)
                    interrupted.wait(LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic()))
                    job = ask(partial(jobs.get_job, database, job.id))
                display.update(job, listed=job.listed_at is not None)
            if job.state == "running":
                return _left_running(job, interrupted, timeout_s, quiet=quiet)
            news = ask(partial(jobs.news_of, database, job.id))
        except NoResultFound:
            raise SetupError(f"the job {name!r} was pruned meanwhile") from None
        except (DBAPIError, NoConnectionFree, DatabaseAway):
            if interrupted.is_set():
                return INTERRUPTED
            raise
    return print_end(job, settings, news=news, quiet=quiet, again="wait again")


def _left_running(job: Job, interrupted: Event, timeout_s: float | None, *, quiet: bool) -> int:
    if interrupted.is_set():
        if not quiet:
            say(counts(job))
            say("interrupted; the job goes on without this command, and the same command waits again")
        return INTERRUPTED
    warn(f"still running after {duration(timeout_s or 0)}: {counts(job)}; it goes on, and so may the same command")
    return TROUBLE


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _patiently(work: Callable[[], T], *, stop: Event, deadline: float | None) -> T:
    """What `work` returns, once the database is there."""
    limit_s = PATIENCE_S if deadline is None else max(min(PATIENCE_S, deadline - time.monotonic()), 0.0)
    until = time.monotonic() + limit_s
    while True:
        try:
            return patiently(work, limit_s=until - time.monotonic(), stop=stop.is_set)
        except DatabaseAway:
            if stop.wait(LOOK_S) or time.monotonic() >= until:
                raise
