"""`retry`: failed outcomes into new chunks. Until these settle, the failures neither count nor show."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, tuple_, update

from schemas.database import Database
from schemas.errors import BEING_PRUNED, SetupError
from schemas.inputs import pack_input
from schemas.items import Item, pack_items
from schemas.ledger.bulk import batches
from schemas.ledger.jobs import Job, lock_job, recipes_of
from schemas.ledger.known import Key
from schemas.ledger.outcomes import THIS, add_to_job, these
from schemas.ledger.states import FIRST, STANDS, first_fence
from schemas.tables import chunks, images, inputs, jobs, outcomes, unix_now

MOST_AT_ONCE = 2000
"""Outcomes that one transaction puts back."""


def retry_failed(database: Database, job: Job, *, code: str | None = None, chunk_size: int = 64) -> int:
    """Put the job's failed outcomes (of one code, or all) back to work; how many there were. Reopens the job."""
    total, after = 0, ("", 0, 0, "")
    while True:
        with database.write() as connection:
            if lock_job(connection, job.id).reason == BEING_PRUNED:
                raise SetupError(f"the job {job.name!r} is being pruned: there is nothing of it to be tried again")
            rows = _failed_after(connection, job.id, after, code)
            if not rows:
                return total
            _reopen(connection, job.id)
            _mark(connection, job.id, rows)
            _add_chunks(connection, job, rows, chunk_size)
            # the job's rate is that of what settles since it started: what it counted before does not go backwards
            add_to_job(connection, job.id, {"failed": -len(rows), "settled_before": -len(rows)})
        total, after = total + len(rows), (rows[-1].code, *_key(rows[-1]))


def _failed_after(
    connection: Connection, job_id: int, after: tuple[str, int, int, str], code: str | None
) -> Sequence[Any]:
    """The next failures in the order of their index, so that none is read twice."""
    place = (outcomes.c.code, outcomes.c.image_id, outcomes.c.recipe_id, outcomes.c.input)
    failed = (
        select(*place, images.c.uri, images.c.version, inputs.c.value)
        .join(images, images.c.id == outcomes.c.image_id)
        .outerjoin(inputs, inputs.c.hash == outcomes.c.input)
        .where(outcomes.c.job_id == job_id, outcomes.c.code.is_not(None), tuple_(*place) > after)
        .where(STANDS)
        .order_by(*place)
        .limit(MOST_AT_ONCE)
    )
    return connection.execute(failed if code is None else failed.where(outcomes.c.code == code)).all()


def _key(row: Any) -> Key:
    return row.image_id, row.recipe_id, row.input


def _mark(connection: Connection, job_id: int, rows: Sequence[Any]) -> None:
    marked = update(outcomes).where(*THIS).values(retrying=True)
    connection.execute(marked, these(job_id, map(_key, rows)))


def _add_chunks(connection: Connection, job: Job, rows: Sequence[Any], chunk_size: int) -> None:
    """Chunks whose items all want the same recipes: what has succeeded is not done again."""
    fields = {id_: recipe.input for id_, recipe in recipes_of(connection, job.id).items()}
    by_item: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for row in rows:
        by_item[row.image_id, row.input].append(row)
    groups: dict[tuple[int, ...], list[Item]] = defaultdict(list)
    for some in by_item.values():
        brought = {field: some[0].value for row in some if (field := fields[row.recipe_id])}
        wanted = tuple(sorted(row.recipe_id for row in some))
        packed = pack_input(brought) if brought else ""
        groups[wanted].append(Item(some[0].uri, some[0].version, None, packed))
    new = [
        {
            "job_id": job.id,
            "item_list": pack_items(some),
            "size": len(some),
            "fence": first_fence(),
            "retry_at": FIRST,
            "recipe_ids": None if len(wanted) == job.recipes else json.dumps(wanted),
        }
        for wanted, group in groups.items()
        for some in batches(group, chunk_size)
    ]
    connection.execute(insert(chunks), new)


def _reopen(connection: Connection, job_id: int) -> None:
    """finished | cancelled → running; a paused job stays paused until `resume`."""
    settled = jobs.c.annotated + jobs.c.reused + jobs.c.failed
    reopened = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_(("finished", "cancelled")))
        .values(state="running", finished_at=None, started_at=unix_now(), settled_before=settled, source_faults=0)
    )
    connection.execute(reopened)
