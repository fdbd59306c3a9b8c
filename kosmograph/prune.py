"""`prune`: old jobs go, and on request what no job refers to any more."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain

import typer

from kosmograph.display import amounts
from kosmograph.exits import DONE, INTERRUPTED, TROUBLE
from kosmograph.output import duration, say, say_json, say_table, warn
from schemas.database import Database
from schemas.environment import database_url
from schemas.errors import SetupError, UsageError
from schemas.ledger import jobs, pruning
from schemas.ledger.pruning import Ended
from schemas.locks import job_lock
from schemas.migrations import require_current
from schemas.signals import interruptible

Removed = Counter[str]
"""Rows by table."""
DONE_WITH = ("jobs", "outcomes", "chunks", "annotations", "images", "contents")


def prune(
    names: Sequence[str],
    *,
    older_s: float | None,
    annotations: bool,
    vacuum: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    db: str | None,
) -> int:
    """Say what goes, ask, and remove it; the exit code."""
    if names and older_s is not None:
        raise UsageError("name the jobs, or say with --older-than how old they are: not both")
    with closing(Database(database_url(db))) as database:
        require_current(database)
        _require_ended(database, names)
        _require_sense(database, vacuum)
        going = pruning.ended_jobs(database, names=names, older_s=older_s)
        if not (going or names or older_s is not None or annotations or vacuum):  # nor has an earlier one left any
            raise UsageError("say what is to go: --older-than 90d, names of jobs, or --annotations that no job has")
        unused = pruning.count_unused(database, [job.id for job in going]) if annotations else 0
        if not as_json:
            _say_what_goes(going, unused, older_s, annotations)
        removed, code = Removed(), DONE
        if not dry_run and (going or annotations or vacuum):
            _require_consent(yes, going, unused)
            removed, code = _remove(database, going, unused, annotations)
            if vacuum and code == DONE:
                code = _vacuum(database)
        free = pruning.reclaimable_bytes(database)
        if as_json:
            say_json(_document(going, unused, removed, free))
        elif not dry_run:
            _say_what_went(removed, free, code)
        return code


def _require_ended(database: Database, names: Sequence[str]) -> None:
    for name in names:
        job = jobs.find_job(database, name)
        if job.state not in ("finished", "cancelled"):
            raise SetupError(f"the job {name!r} is {job.state}: only what has ended can go; kosmograph cancel ends it")


def _require_sense(database: Database, vacuum: bool) -> None:
    if vacuum and not database.is_sqlite:
        raise UsageError("--vacuum is for SQLite: PostgreSQL's autovacuum makes the room free by itself")


def _say_what_goes(going: Sequence[Ended], unused: int, older_s: float | None, annotations: bool) -> None:
    if going:
        rows = [(job.name, job.state, _day(job), job.outcomes) for job in going]
        say_table(("job", "state", "ended", "outcomes"), rows)
        say(f"{len(going)} jobs with {sum(job.outcomes for job in going)} outcomes and their chunks")
    elif older_s is not None:
        say("no job that has ended is that old")
    if annotations:
        say(f"{unused} annotations that no job would have, with their boxes; the model would have to make them again")
    elif going:
        say("annotations stay, and are reused (--annotations removes those that no job refers to)")


def _day(job: Ended) -> str:
    ended = datetime.fromtimestamp(job.ended_at, UTC).strftime("%Y-%m-%d")
    return f"{ended}, {'being pruned' if job.is_marked else duration(job.ended_ago_s) + ' ago'}"


def _require_consent(yes: bool, going: Sequence[Ended], unused: int) -> None:
    if yes or not (going or unused):
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to ask: --yes removes it, --dry-run only looks")
    if not typer.confirm("remove it?", err=True):
        raise SetupError("nothing was removed")


def _remove(database: Database, going: Sequence[Ended], unused: int, annotations: bool) -> tuple[Removed, int]:
    removed, code = Removed(), DONE
    with interruptible() as stop:
        for job in going:
            if not stop.is_set() and not job.is_marked and not _marked(database, job):
                code = TROUBLE
        steps = pruning.remove_marked(database)
        if annotations:
            steps = chain(steps, pruning.remove_unused(database))
        with amounts("pruning", sum(job.outcomes for job in going) + unused) as more:
            for table, count in _politely(steps):
                removed[table] += count
                if table in ("outcomes", "annotations"):
                    more(count)
                if stop.is_set():
                    return removed, INTERRUPTED
    return removed, code


def _marked(database: Database, job: Ended) -> bool:
    """Whether it goes. One that somebody lists or runs again stays."""
    try:
        with job_lock(database, job.name):
            if pruning.mark(database, job):
                return True
        why = f"the job {job.name!r} has begun anew meanwhile"
    except SetupError as error:
        why = str(error)
    warn(f"{why}; it stays")
    return False


def _vacuum(database: Database) -> int:
    """The exit code: what was to go has gone in any case."""
    try:
        pruning.vacuum(database)
    except SetupError as error:
        warn(str(error))
        return TROUBLE
    return DONE


def _politely(steps: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The same, with as long a pause after each as it took: SQLite has no queue of writers, and others wait."""
    began = time.monotonic()
    for step in steps:
        yield step
        time.sleep(min(time.monotonic() - began, 1.0))
        began = time.monotonic()


def _say_what_went(removed: Removed, free: int | None, code: int) -> None:
    went = ", ".join(f"{removed[table]} {table}" for table in DONE_WITH if removed[table])
    say(f"removed: {went}" if went else "removed nothing")
    if code == INTERRUPTED:
        say("interrupted; kosmograph prune goes on with what is begun")
    elif free is None and removed.total():
        say("PostgreSQL's autovacuum makes that room free for new rows")
    elif free:
        say(f"{free / 2**20:.1f} MiB of the file are free for new rows; --vacuum gives them back to the disk")


def _document(going: Sequence[Ended], unused: int, removed: Removed, free: int | None) -> dict[str, object]:
    return {
        "jobs": [{"job": it.name, "state": it.state, "ended_at": it.ended_at, "outcomes": it.outcomes} for it in going],
        "unused_annotations": unused,
        "removed": {table: removed[table] for table in DONE_WITH},
        "free_bytes": free,
    }
