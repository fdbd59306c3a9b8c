"""Pruning: jobs that ended long ago go, and on request what no job refers to any more.

A job is marked first, and no longer counts anything; then its chunks go, after which nobody can settle anything for it,
then its outcomes, then its row. Each step is many short transactions: a night that runs meanwhile waits for none of
them long, and whoever is killed between two leaves a job that the next pruning goes on with.

Annotations, images and contents are shared by all jobs, and are what makes the next night cheap. Those that no outcome
refers to are removed while nobody can begin to refer to them: SQLite has one writer anyway, and on PostgreSQL whoever
lists or completes a chunk holds a lock on `chunks` that `_alone` waits for. Who found an annotation earlier looks
again under that lock (`settlement`). Recipes with their canaries, and inputs, stay: they are few or small.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
    update,
)

from schemas.caption_search import unindex_captions
from schemas.database import BUSY_TIMEOUT_S, Database, patiently
from schemas.errors import BEING_PRUNED, SetupError
from schemas.ledger.bulk import VALUES, batches, plain, rows_where, run
from schemas.ledger.states import UNFINISHED
from schemas.tables import annotations, boxes, chunks, contents, entities, images, job_recipes, jobs, outcomes, unix_now

AT_ONCE = 5_000
"""Rows of a transaction that only a job has: for a tenth of a second nobody else writes on SQLite."""
SHARED_AT_ONCE = 1_000
"""Rows of one that takes away what jobs share: an annotation has many boxes, and words in an index."""
CANDIDATES = 100_000
"""What nothing refers to is looked up for so many rows at a time: a database may walk over much for it."""
ENDED: ColumnElement[bool] = jobs.c.state.in_(("finished", "cancelled"))
MARKED = and_(jobs.c.state == "cancelled", jobs.c.reason == BEING_PRUNED)
UNUSED: dict[Table, ColumnElement[bool]] = {
    annotations: ~exists().where(outcomes.c.annotation_id == annotations.c.id),
    images: ~exists().where(outcomes.c.image_id == images.c.id),
    contents: ~exists().where(annotations.c.content_id == contents.c.id)
    & ~exists().where(images.c.content_id == contents.c.id),
}
"""What of each table nothing refers to, in the order in which they go."""
STILL_UNUSED = {table: select(table.c.id).where(table.c.id.in_(VALUES), unused) for table, unused in UNUSED.items()}
DELETE = {table: delete(table).where(table.c.id.in_(VALUES)) for table in (chunks, *UNUSED)}
PARTS = [delete(table).where(table.c.annotation_id.in_(VALUES)) for table in (boxes, entities)]
"""Of annotations."""
UNDONE = select(chunks.c.id).where(UNFINISHED, chunks.c.job_id.in_(VALUES)).limit(AT_ONCE)
CHUNKS = (
    select(chunks.c.id)
    .where(chunks.c.id > bindparam("after"), chunks.c.job_id.in_(VALUES))
    .order_by(chunks.c.id)
    .limit(AT_ONCE)
)
OUTCOMES = (
    select(outcomes.c.image_id)
    .where(outcomes.c.job_id == bindparam("job"), outcomes.c.image_id > bindparam("after"))
    .order_by(outcomes.c.image_id)
    .offset(AT_ONCE)
    .limit(1)
)
FREE_PAGES = text("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size")


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that may go: how it ended and when (seconds since 1970, and ago), and how many outcomes it counts."""

    id: int
    name: str
    state: str
    ended_at: float
    ended_ago_s: float
    outcomes: int
    reason: str | None

    @property
    def is_marked(self) -> bool:
        """Whether an earlier pruning has begun with it."""
        return self.reason == BEING_PRUNED


def ended_jobs(database: Database, *, names: Sequence[str] = (), older_s: float | None = None) -> list[Ended]:
    """Jobs that have ended, oldest first: those of these names, or from so long ago, and all that are marked."""
    ended = func.coalesce(jobs.c.finished_at, jobs.c.started_at)
    wanted: ColumnElement[bool] = jobs.c.name.in_([plain(name) for name in names])
    if older_s is not None:
        wanted |= ended <= unix_now() - older_s
    times = (ended.label("ended_at"), (unix_now() - ended).label("ended_ago_s"))
    settled = (jobs.c.annotated + jobs.c.reused + jobs.c.failed).label("outcomes")
    columns = (jobs.c.id, jobs.c.name, jobs.c.state, *times, settled, jobs.c.reason)
    with database.read() as connection:
        rows = connection.execute(select(*columns).where(ENDED & (wanted | MARKED)).order_by(ended, jobs.c.id))
        return [Ended(**row._mapping) for row in rows]


def count_unused(database: Database, without: Sequence[int]) -> int:
    """How many annotations no job refers to once those of these ids are gone."""
    used = exists().where(outcomes.c.annotation_id == annotations.c.id, outcomes.c.job_id.not_in(without))
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(annotations).where(~used)).scalar_one()


def mark(database: Database, job: Ended) -> bool:
    """finished | cancelled → cancelled, being pruned. From now on it counts nothing, and nobody reopens it.

    False for one that runs again, or has ended anew, since it was read.
    """
    nothing = dict.fromkeys(("images", "annotated", "reused", "failed", "settled_before", "skipped"), 0)
    as_it_was = (jobs.c.id == job.id, ENDED, func.coalesce(jobs.c.finished_at, jobs.c.started_at) == job.ended_at)
    marked = update(jobs).where(*as_it_was).values(state="cancelled", reason=BEING_PRUNED, announced=None, **nothing)
    with database.write() as connection:
        return connection.execute(marked).rowcount == 1


def remove_marked(database: Database) -> Iterator[tuple[str, int]]:
    """Takes away what is marked; after each transaction the table and how many of its rows went."""
    with database.read() as connection:
        ids = connection.execute(select(jobs.c.id).where(MARKED).order_by(jobs.c.id)).scalars().all()
    if not ids:
        return
    # until none is left: whoever drains one of them meanwhile leaves others in its place
    while gone := patiently(partial(_remove_chunks, database, UNDONE, ids)):
        yield "chunks", len(gone)
    last = 0
    while gone := patiently(partial(_remove_chunks, database, CHUNKS, ids, after=last)):
        yield "chunks", len(gone)
        last = gone[-1]
    for id_ in ids:
        after: int | None = 0
        while after is not None:
            count, after = patiently(partial(_remove_outcomes, database, id_, after))
            yield "outcomes", count
        yield "jobs", patiently(partial(_remove_job, database, id_))


def remove_unused(database: Database) -> Iterator[tuple[str, int]]:
    """Takes away annotations, images and contents that nothing refers to; yields as `remove_marked` does."""
    for table in UNUSED:
        after = 0
        while ids := patiently(partial(_candidates, database, table, after)):
            for some in batches(ids, SHARED_AT_ONCE):
                yield table.name, patiently(partial(_remove_rows, database, table, some))
            after = ids[-1]


def reclaimable_bytes(database: Database) -> int | None:
    """What an SQLite file holds for rows to come, and VACUUM gives back to the disk; None on PostgreSQL."""
    if not database.is_sqlite:
        return None
    with database.read() as connection:
        return int(connection.execute(FREE_PAGES).scalar_one())


def vacuum(database: Database) -> None:
    """Write an SQLite file anew without its free pages. Nobody else writes meanwhile. Raises SetupError."""
    with closing(sqlite3.connect(str(database.path), timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log is as large, and stays where others read
        except sqlite3.Error as error:
            raise SetupError(f"the file stays as large as it is: {error}; --vacuum can do it another time") from None


def keep_off_pruning(connection: Connection) -> None:
    """What this transaction reads of annotations and images stays until it ends. Whoever writes `chunks` has this."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE chunks IN ROW EXCLUSIVE MODE")


def _alone(connection: Connection) -> None:
    """Nobody refers to what is shared before this transaction ends. To wait long for it would hold up all others."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'")
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = auto")  # else each row's foreign keys are planned anew
        connection.exec_driver_sql("LOCK TABLE chunks IN SHARE ROW EXCLUSIVE MODE")


def _remove_chunks(database: Database, which: Select[Any], job_ids: Sequence[int], **more: int) -> list[int]:
    """The ids of those that went, in the order of the statement."""
    with database.write() as connection:
        ids = [row[0] for row in rows_where(connection, which, job_ids, **more)]
        if ids:
            run(connection, DELETE[chunks], values=ids)
    return ids


def _remove_outcomes(database: Database, job_id: int, after: int) -> tuple[int, int | None]:
    """How many went, and up to which image; None when there are no more."""
    of_job = [outcomes.c.job_id == job_id, outcomes.c.image_id > after]
    with database.write() as connection:
        last = run(connection, OUTCOMES, job=job_id, after=after).scalar()
        if last is not None:
            of_job.append(outcomes.c.image_id <= last)
        return connection.execute(delete(outcomes).where(*of_job)).rowcount, last


def _remove_job(database: Database, job_id: int) -> int:
    with database.write() as connection:
        connection.execute(delete(job_recipes).where(job_recipes.c.job_id == job_id))
        return connection.execute(delete(jobs).where(jobs.c.id == job_id, MARKED)).rowcount


def _candidates(database: Database, table: Table, after: int) -> list[int]:
    """Ids of rows that nothing refers to now, found while others write."""
    ids = select(table.c.id).where(table.c.id > after, UNUSED[table]).order_by(table.c.id).limit(CANDIDATES)
    with database.read() as connection:
        return list(connection.execute(ids).scalars())


def _remove_rows(database: Database, table: Table, ids: list[int]) -> int:
    """How many of these rows went: those that still nothing refers to."""
    with database.write() as connection:
        _alone(connection)
        going = [row[0] for row in rows_where(connection, STILL_UNUSED[table], ids)]
        if going and table is annotations:
            unindex_captions(connection, going)
            for part in PARTS:
                run(connection, part, values=going)
        if going:
            run(connection, DELETE[table], values=going)
    return len(going)
