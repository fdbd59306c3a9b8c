"""Seeing and changing the state of jobs."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from catalog.queries import failures_in, progress_of, require_job
from catalog.reader import Reader, open_reader
from kosmograph.output import say, say_json, say_table
from schemas.environment import database_url
from schemas.errors import Code, SetupError, UsageError

if TYPE_CHECKING:
    from schemas.database import Database
    from schemas.ledger.jobs import Job

MOST_BROUGHT = 80
"""Characters of what a row of a manifest brought: a table has room for no more."""
COLUMNS = ("job", "state", "images", "recipes", "annotated", "reused", "failed", "pending", "images_per_s")
HEADINGS = {"images_per_s": "images/s"}


def show_status(job: str | None, *, watch: bool, as_json: bool, db: str | None) -> int:
    """Print the progress of all jobs, or of one; go on looking while one of them runs if wanted; the exit code."""
    with open_database(db) as reader:
        if job is not None:
            require_job(reader, job)
        rows = progress_of(reader, job).records
    if watch and any(row["state"] == "running" for row in rows):
        from kosmograph.watch import watch as keep_looking

        return keep_looking(job, as_json=as_json, db=db)
    if as_json:
        say_json(rows)
    else:
        _say_progress(rows)
    return 0


def _say_progress(rows: list[dict[str, Any]]) -> None:
    if not rows:
        say("no jobs yet; kosmograph annotate FOLDER makes one")
        return
    shown = [name for name in COLUMNS if name != "recipes" or any(row["recipes"] > 1 for row in rows)]
    say_table([HEADINGS.get(name, name) for name in shown], [[row[name] for name in shown] for row in rows])
    for row in rows:
        if row["reason"]:
            say(f"{row['job']} is {row['state']}: {row['reason']}")
        elif row["state"] == "running" and row["pending"] and not row["running"]:
            say(f"{row['job']} waits: {_what_it_waits_for(row)}")


def _what_it_waits_for(row: dict[str, Any]) -> str:
    """Who is missing where nothing is in work. For a moment that is so at the start and the end of every job."""
    if row["queued"]:
        return f"no worker has any of its {row['queued']} queued chunks; kosmograph worker, with the job's model, does"
    said = "none of its chunks is queued: they are to be tried again in a moment, or no dispatcher runs"
    return f"{said}; kosmograph dispatch feeds it, or the annotate command that began it"


def pause(name: str, db: str | None) -> int:
    """running → paused."""
    from schemas.ledger.jobs import pause_job

    with _job_to_change(name, db) as (database, job):
        if not pause_job(database, job.id, "by hand"):
            raise SetupError(f"the job {name!r} is {job.state}; only a running one can be paused")
    say(f"{name}: paused; kosmograph resume {name} goes on")
    return 0


def resume(name: str, db: str | None, *, new_canary: bool = False) -> int:
    """paused → running; with `new_canary` the next worker's answers are those that count."""
    from schemas.ledger.canaries import resume_with_new_canaries
    from schemas.ledger.jobs import resume_job

    with _job_to_change(name, db) as (database, job):
        if not (resume_with_new_canaries if new_canary else resume_job)(database, job.id):
            raise SetupError(f"the job {name!r} is {job.state}; only a paused one can be resumed")
    say(f"{name}: running; a dispatcher feeds it, or the `annotate` command that began it")
    if new_canary:
        say("what the next worker says of the canaries counts from now on; what is annotated stays as it is")
    return 0


def set_priority(name: str, priority: int, db: str | None) -> int:
    """Whose chunks go first, from now on."""
    from schemas.ledger import jobs

    with _job_to_change(name, db) as (database, job):
        if not jobs.set_priority(database, job.id, priority):
            raise SetupError(f"the job {name!r} is {job.state}; only a running or paused one has a priority")
    say(f"{name}: priority {priority}; the highest goes first, equal ones share")
    return 0


def cancel(name: str, db: str | None) -> int:
    """running | paused → cancelled."""
    from schemas.ledger.jobs import cancel_job

    with _job_to_change(name, db) as (database, job):
        if not cancel_job(database, job.id):
            raise SetupError(f"the job {name!r} is {job.state}; only a running or paused one can be cancelled")
    say(f"{name}: cancelled; {job.settled} outcomes stay, {job.pending} are left undone")
    return 0


def retry(name: str, code: str | None, db: str | None) -> int:
    """Failed outcomes back to work."""
    from schemas.ledger.retries import retry_failed
    from schemas.settings import load_settings

    if code is not None and code not in list(Code):
        raise UsageError(f"unknown code {code!r}; codes are {', '.join(Code)}")
    with _job_to_change(name, db) as (database, job):
        count = retry_failed(database, job, code=code, chunk_size=load_settings().chunk_size)
    if not count:
        say(f"{name}: nothing has failed" + (f" with {code}" if code else ""))
        return 0
    say(f"{name}: {count} failed outcomes go back to work; a dispatcher feeds them, or the same annotate command")
    return 0


def show_failures(name: str, *, as_json: bool, db: str | None) -> int:
    """Print a job's failures; the exit code."""
    with open_database(db) as reader:
        require_job(reader, name)
        rows = failures_in(reader, name).records
    if as_json:
        say_json(rows)
    elif rows:
        columns = ("code", "uri", "asked", "message", "tries")
        say_table(columns, [[r["code"], r["uri"], asked(r), r["message"], r["tries"]] for r in rows])
        say(f"{len(rows)} failed; kosmograph retry {name} tries them again, --code CODE those of one code")
    else:
        say(f"{name}: nothing has failed")
    return 0


def asked(row: Mapping[str, Any]) -> str:
    """What an image was asked, by the task and what its row of a manifest brought to it, which may be long."""
    brought = shorten(row["input"] or "", MOST_BROUGHT, placeholder=" …")
    return f"{row['task']}: {brought}" if brought else str(row["task"])


def open_database(db: str | None) -> Reader:
    """The database of the settings, for reading; it must be there and of this version."""
    return open_reader(database_url(db))


@contextmanager
def _job_to_change(name: str, db: str | None) -> "Iterator[tuple[Database, Job]]":
    """The database for writing, and the job of that name."""
    from schemas.database import Database
    from schemas.ledger.jobs import find_job
    from schemas.migrations import require_current

    with closing(Database(database_url(db))) as database:
        require_current(database)
        yield database, find_job(database, name)
