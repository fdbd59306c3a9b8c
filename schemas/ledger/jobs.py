"""Jobs: named runs of sources through recipes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, exists, func, insert, select, update

from schemas.database import Database
from schemas.errors import BEING_PRUNED, SetupError, UsageError
from schemas.ledger.bulk import VALUES, Rows, insert_into, plain, rows_where, run
from schemas.ledger.states import BACK_TO_PENDING, QUEUED, STANDS, UNFINISHED
from schemas.recipes import Recipe
from schemas.tables import chunks, job_recipes, jobs, outcomes, recipes, unix_now

OWED = "owed"
"""What `announced` says of an end or a pause that nobody has been told: see `announcements`."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was read."""

    id: int
    name: str
    queue: str
    state: str
    reason: str | None
    priority: int
    strict: bool
    listing: str
    cursor: str | None
    listings: int
    listed_at: float | None
    skipped: int
    recipes: int
    images: int
    annotated: int
    reused: int
    failed: int

    @property
    def settled(self) -> int:
        """Outcomes that stand."""
        return self.annotated + self.reused + self.failed

    @property
    def pending(self) -> int:
        """Outcomes that are still to come, of the images listed so far."""
        return self.images * self.recipes - self.settled


@dataclass(frozen=True, slots=True)
class News:
    """What a job has settled since it began, or began again after an end."""

    settled: int
    failed: int


RECIPES = Rows(recipes, ("hash", "task", "prompt", "model", "revision", "spec", "verify"))
RECIPE_IDS = select(recipes.c.hash, recipes.c.id).where(recipes.c.hash.in_(VALUES))
OF_JOB = (
    select(recipes.c.id, recipes.c.spec)
    .join(job_recipes, job_recipes.c.recipe_id == recipes.c.id)
    .where(job_recipes.c.job_id == bindparam("job"))
    .order_by(job_recipes.c.ordinal)
)
NEWS = select(
    jobs.c.annotated + jobs.c.reused + jobs.c.failed - jobs.c.settled_before,
    select(func.count())
    .where(outcomes.c.job_id == jobs.c.id, outcomes.c.code.is_not(None), outcomes.c.settled_at >= jobs.c.started_at)
    .where(STANDS)
    .scalar_subquery(),
).where(jobs.c.id == bindparam("job"))
LOCK = select(jobs).where(jobs.c.id == bindparam("job")).with_for_update(key_share=True)
_COLUMNS = [jobs.c[name] for name in Job.__slots__]  # the dataclass is the list of columns


def find_job(database: Database, name: str) -> Job:
    """The job of that name. Raises UsageError when there is none, naming those there are."""
    with database.read() as connection:
        row = connection.execute(_by(jobs.c.name == plain(name))).first()
        if row is None:
            names = connection.execute(select(jobs.c.name).order_by(jobs.c.id.desc()).limit(5)).scalars().all()
            known = f"the latest are {', '.join(names)}" if names else "there are none yet"
            raise UsageError(f"there is no job {name!r}; {known}")
        return _job(row)


def get_job(database: Database, job_id: int) -> Job:
    """The job of that id, as it stands."""
    with database.read() as connection:
        return _job(connection.execute(_by(jobs.c.id == job_id)).one())


def news_of(database: Database, job_id: int) -> News:
    """What is new since the job last ended, or all of it."""
    with database.read() as connection:
        return News(*connection.execute(NEWS, {"job": job_id}).one())


def open_job(
    database: Database,
    name: str,
    job_recipes_wanted: Sequence[Recipe],
    *,
    listing: str,
    roots: Sequence[str] | None = None,
    priority: int | None = None,
    strict: bool = False,
) -> Job:
    """The job of that name, made or reopened, running, and ready to be listed.

    `roots` are the folders whose local files may be read for it (None: any); one that is reopened keeps those that it
    had, for the chunks that wait. A listing that was cut off keeps its cursor when it is asked for again in the same
    words, and a job its priority where none is given. Raises UsageError when the job exists with other recipes: its
    outcomes would mean two things.
    """
    if name != plain(name):
        raise UsageError(f"{name!r} cannot be a job's name: no database stores it; give another with --job")
    with database.write() as connection:
        wanted = store_recipes(connection, job_recipes_wanted)
        (queue,) = {recipe.queue for recipe in job_recipes_wanted}  # one worker serves the whole job
        job_id = _create(connection, name, wanted, queue=queue, listing=listing, roots=roots)
        if job_id is None:
            row = connection.execute(_by(jobs.c.name == name).with_for_update(key_share=True)).first()
            if row is None or row.reason == BEING_PRUNED:
                raise SetupError(f"the job {name!r} is being pruned: let kosmograph prune end, or take another --job")
            job = _job(row)
            _refuse_other_recipes(connection, job, wanted)
            _reopen(connection, job, listing)
            _add_roots(connection, job.id, roots)
            job_id = job.id
        wished = {"strict": strict} | ({} if priority is None else {"priority": priority})
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(wished))
        return _job(connection.execute(_by(jobs.c.id == job_id)).one())


def lock_job(connection: Connection, job_id: int) -> Row[Any]:
    """The job's row, which nobody else changes before this transaction ends. Rows that refer to it are still added."""
    return run(connection, LOCK, job=job_id).one()


def recipes_of(connection: Connection, job_id: int) -> dict[int, Recipe]:
    """The recipes of a job by their row ids, in the order in which they were given."""
    return {id_: Recipe.from_json(spec) for id_, spec in run(connection, OF_JOB, job=job_id)}


def store_recipes(connection: Connection, wanted: Sequence[Recipe]) -> list[int]:
    """The row ids of these recipes, each once, which are stored if they are new."""
    rows = {(one.id, one.task, one.prompt, one.model, one.revision, one.canonical, one.verify) for one in wanted}
    RECIPES.insert(connection, sorted(rows))
    ids: dict[str, int] = dict(map(tuple, rows_where(connection, RECIPE_IDS, [recipe.id for recipe in wanted])))
    return list(dict.fromkeys(ids[recipe.id] for recipe in wanted))


def pause_job(database: Database, job_id: int, reason: str) -> bool:
    """running → paused. What waits in the queue goes back to pending, so that `resume` and others find it there."""
    with database.write() as connection:
        return pause_within(connection, job_id, reason)


def pause_within(connection: Connection, job_id: int, reason: str) -> bool:
    """`pause_job` as part of a transaction."""
    running = (jobs.c.id == job_id, jobs.c.state == "running")
    paused = update(jobs).where(*running).values(state="paused", reason=plain(reason), announced=OWED)
    if connection.execute(paused).rowcount != 1:
        return False
    _take_back_queued(connection, job_id)
    return True


def resume_job(database: Database, job_id: int) -> bool:
    """paused → running, with the breaker's count at nought."""
    with database.write() as connection:
        return resume_within(connection, job_id)


def resume_within(connection: Connection, job_id: int) -> bool:
    """`resume_job` as part of a transaction."""
    paused = (jobs.c.id == job_id, jobs.c.state == "paused")
    resumed = update(jobs).where(*paused).values(state="running", reason=None, source_faults=0)
    return connection.execute(resumed).rowcount == 1


def set_priority(database: Database, job_id: int, priority: int) -> bool:
    """Whose chunks go first, from now on. False for a job that has ended."""
    changed = update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(("running", "paused")))
    with database.write() as connection:
        return connection.execute(changed.values(priority=priority)).rowcount == 1


def cancel_job(database: Database, job_id: int) -> bool:
    """running | paused → cancelled. What is annotated stays; what is pending stays unsettled."""
    cancelled = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_(("running", "paused")))
        .values(state="cancelled", reason=None, finished_at=unix_now(), announced=OWED)
    )
    with database.write() as connection:
        if connection.execute(cancelled).rowcount != 1:
            return False
        _take_back_queued(connection, job_id)
        return True


def finish_jobs(database: Database, job_id: int | None = None) -> list[str]:
    """running → finished for each job (or this one) that is listed and has no unfinished chunk; their names."""
    unfinished = exists().where(chunks.c.job_id == jobs.c.id, UNFINISHED)
    complete = and_(jobs.c.state == "running", jobs.c.listed_at.is_not(None), ~unfinished)
    if job_id is not None:
        complete = and_(complete, jobs.c.id == job_id)
    with database.read() as connection:  # this is asked often, and mostly in vain: no writer waits for the question
        ids = connection.execute(select(jobs.c.id).where(complete).order_by(jobs.c.id)).scalars().all()
    return [name for id_ in ids if (name := _finish(database, id_, complete))]


def _finish(database: Database, job_id: int, complete: ColumnElement[bool]) -> str | None:
    ended = {"state": "finished", "finished_at": unix_now(), "announced": OWED}
    finished = update(jobs).where(jobs.c.id == job_id, complete).values(ended)
    with database.write() as connection:
        # Whoever adds chunks holds this lock. The next statement sees them; had it waited itself, it would not. The job
        # may have been pruned since.
        run(connection, LOCK, job=job_id)
        return connection.execute(finished.returning(jobs.c.name)).scalar()


def _by(condition: Any) -> Select[Any]:
    return select(*_COLUMNS).where(condition)


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)


def _create(
    connection: Connection,
    name: str,
    recipe_ids: list[int],
    *,
    queue: str,
    listing: str,
    roots: Sequence[str] | None,
) -> int | None:
    """The id of the new job, None where the name is taken."""
    row = {
        "name": name,
        "queue": queue,
        "state": "running",
        "listing": listing,
        "roots": _packed(roots),
        "recipes": len(recipe_ids),
        "created_at": unix_now(),
        "started_at": unix_now(),
    }
    add = insert_into(connection.dialect.name, jobs).values(row).on_conflict_do_nothing().returning(jobs.c.id)
    job_id: int | None = connection.execute(add).scalar()
    if job_id is None:
        return None
    links = [{"job_id": job_id, "recipe_id": id_, "ordinal": ordinal} for ordinal, id_ in enumerate(recipe_ids)]
    connection.execute(insert(job_recipes), links)
    return job_id


def _refuse_other_recipes(connection: Connection, job: Job, wanted: list[int]) -> None:
    present = recipes_of(connection, job.id)
    if set(present) == set(wanted):
        return
    tasks = ", ".join(f"{recipe.task} ({recipe.model})" for recipe in present.values())
    raise UsageError(
        f"the job {job.name!r} exists with other recipes: {tasks}. Give this run a name of its own with --job, "
        "or repeat the model, prompts and options of the first run"
    )


def _reopen(connection: Connection, job: Job, listing: str) -> None:
    """Any state → running, to be listed: from the cursor if that listing was cut off, else from the start."""
    cut_off = job.listed_at is None and job.listing == listing
    values: dict[str, Any] = {"state": "running", "reason": None, "source_faults": 0, "listed_at": None}
    values |= {"finished_at": None}
    if not cut_off:  # from the start: what is listed already must not count a second time
        again = max(job.listings, 1) if job.images else 0
        values |= {"listing": listing, "cursor": None, "skipped": 0, "listings": again}
    if job.state in ("finished", "cancelled"):  # its rate counts from now
        values |= {"started_at": unix_now(), "settled_before": job.settled}
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(values))


def _add_roots(connection: Connection, job_id: int, roots: Sequence[str] | None) -> None:
    """The roots of a new listing beside those that the job has. A job that may read anything still may."""
    had: str | None = connection.execute(select(jobs.c.roots).where(jobs.c.id == job_id)).scalar()
    if had is not None:
        union = None if roots is None else [*json.loads(had), *roots]
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(roots=_packed(union)))


def _packed(roots: Sequence[str] | None) -> str | None:
    return None if roots is None else json.dumps(sorted(set(roots)))


def _take_back_queued(connection: Connection, job_id: int) -> None:
    """queued → pending for one job; its messages are refused by their fence when they arrive."""
    queued = select(chunks.c.id).where(chunks.c.job_id == job_id, QUEUED).order_by(chunks.c.id).with_for_update()
    connection.execute(update(chunks).where(chunks.c.id.in_(queued), QUEUED).values(BACK_TO_PENDING))
