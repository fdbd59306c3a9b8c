"""Seeing and changing the state of jobs."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from kosmograph.output import say, say_json, say_table
from schemas.database import Database
from schemas.errors import Code, SetupError, UsageError
from schemas.ledger import jobs
from schemas.ledger.retries import retry_failed
from schemas.migrations import require_current
from schemas.settings import load_settings

WATCH_S = 2.0
COLUMNS = ("job", "state", "images", "recipes", "annotated", "reused", "failed", "pending", "images_per_s")


def show_status(job: str | None, *, watch: bool, as_json: bool, db: str | None) -> int:
    """Print the progress of all jobs, or of one; the exit code."""
    database = open_database(db)
    while True:
        rows = _progress(database, job)
        if as_json:
            say_json(rows)
        elif rows:
            say_table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
            for row in rows:
                if row["reason"]:
                    say(f"{row['job']} is {row['state']}: {row['reason']}")
        else:
            say("no jobs yet; kosmograph annotate FOLDER makes one")
        if not watch:
            return 0
        time.sleep(WATCH_S)


def pause(name: str, db: str | None) -> int:
    """running → paused."""
    database = open_database(db)
    job = jobs.find_job(database, name)
    if not jobs.pause_job(database, job.id, "by hand"):
        raise SetupError(f"the job {name!r} is {job.state}; only a running one can be paused")
    say(f"{name}: paused; kosmograph resume {name} goes on")
    return 0


def resume(name: str, db: str | None) -> int:
    """paused → running."""
    database = open_database(db)
    job = jobs.find_job(database, name)
    if not jobs.resume_job(database, job.id):
        raise SetupError(f"the job {name!r} is {job.state}; only a paused one can be resumed")
    say(f"{name}: running; a dispatcher feeds it, or the `annotate` command that began it")
    return 0


def cancel(name: str, db: str | None) -> int:
    """running | paused → cancelled."""
    database = open_database(db)
    job = jobs.find_job(database, name)
    if not jobs.cancel_job(database, job.id):
        raise SetupError(f"the job {name!r} is {job.state}; only a running or paused one can be cancelled")
    say(f"{name}: cancelled; {job.settled} outcomes stay, {job.pending} are left undone")
    return 0


def retry(name: str, code: str | None, db: str | None) -> int:
    """Failed outcomes back to work."""
    if code is not None and code not in list(Code):
        raise UsageError(f"unknown code {code!r}; codes are {', '.join(Code)}")
    settings = load_settings(db=db)
    database = open_database(db)
    job = jobs.find_job(database, name)
    count = retry_failed(database, job, code=code, chunk_size=settings.chunk_size)
    if not count:
        say(f"{name}: nothing has failed" + (f" with {code}" if code else ""))
        return 0
    say(f"{name}: {count} failed outcomes go back to work; a dispatcher feeds them, or the same annotate command")
    return 0


def show_failures(name: str, *, as_json: bool, db: str | None) -> int:
    """Print a job's failures, streamed; the exit code."""
    database = open_database(db)
    jobs.find_job(database, name)
    query = text(
        "SELECT uri, task, code, message, tries, failed_at FROM failures WHERE job = :job ORDER BY code, image_id"
    )
    with database.read() as connection:
        rows = [dict(row) for row in connection.execute(query, {"job": name}).mappings()]
    if as_json:
        say_json(rows)
    elif rows:
        say_table(("code", "uri", "message", "tries"), [[r["code"], r["uri"], r["message"], r["tries"]] for r in rows])
        say(f"{len(rows)} failures; kosmograph retry {name} tries them again, --code CODE those of one code")
    else:
        say(f"{name}: nothing has failed")
    return 0


def open_database(db: str | None) -> Database:
    """The database of the settings, which must be there and of this version."""
    database = Database(load_settings(db=db).db)
    require_current(database)
    return database


def _progress(database: Database, job: str | None) -> list[Mapping[str, Any]]:
    if job is not None:
        jobs.find_job(database, job)
    query = (
        "SELECT p.*, j.reason, j.priority FROM progress p JOIN jobs j ON j.name = p.job"
        f"{' WHERE p.job = :job' if job else ''} ORDER BY j.id"
    )
    with database.read() as connection:
        return [dict(row) for row in connection.execute(text(query), {"job": job} if job else {}).mappings()]
