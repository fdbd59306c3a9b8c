"""`retry`: failed outcomes into new chunks. Until these settle, the failures neither count nor show."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, tuple_, update

from schemas.database import Database
from schemas.items import Item, pack_items
from schemas.ledger.bulk import batches
from schemas.ledger.jobs import Job, lock_job
from schemas.ledger.outcomes import add_to_job
from schemas.ledger.states import FIRST
from schemas.tables import chunks, images, jobs, outcomes, unix_now

MOST_AT_ONCE = 2000
"""Outcomes that one transaction puts back."""


def retry_failed(database: Database, job: Job, *, code: str | None = None, chunk_size: int = 64) -> int:
    """Put the job's failed outcomes (of one code, or all) back to work; how many there were. Reopens the job."""
    total, after = 0, ("", 0, 0)
    while True:
        with database.write() as connection:
            lock_job(connection, job.id)
            rows = _failed_after(connection, job.id, after, code)
            if not rows:
                return total
            _reopen(connection, job.id)
            _mark(connection, job.id, rows)
            _add_chunks(connection, job, rows, chunk_size)
            # the job's rate is that of what settles since it started: what it counted before does not go backwards
            add_to_job(connection, job.id, {"failed": -len(rows), "settled_before": -len(rows)})
        total, after = total + len(rows), (rows[-1].code, rows[-1].image_id, rows[-1].recipe_id)


def _failed_after(connection: Connection, job_id: int, after: tuple[str, int, int], code: str | None) -> Sequence[Any]:
    """The next failures in the order of their index, so that none is read twice."""
    place = (outcomes.c.code, outcomes.c.image_id, outcomes.c.recipe_id)
    failed = (
        select(*place, images.c.uri, images.c.version)
        .join(images, images.c.id == outcomes.c.image_id)
        .where(outcomes.c.job_id == job_id, outcomes.c.code.is_not(None), tuple_(*place) > after)
        .where(outcomes.c.retrying.is_(False), outcomes.c.superseded.is_(False))
        .order_by(*place)
        .limit(MOST_AT_ONCE)
    )
    return connection.execute(failed if code is None else failed.where(outcomes.c.code == code)).all()


def _mark(connection: Connection, job_id: int, rows: Sequence[Any]) -> None:
    this = (outcomes.c.image_id == bindparam("image"), outcomes.c.recipe_id == bindparam("recipe"))
    marked = update(outcomes).where(outcomes.c.job_id == job_id, *this).values(retrying=True)
    connection.execute(marked, [{"image": row.image_id, "recipe": row.recipe_id} for row in rows])


def _add_chunks(connection: Connection, job: Job, rows: Sequence[Any], chunk_size: int) -> None:
    """Chunks whose items all want the same recipes: a recipe that has succeeded is not done again."""
    items = {row.image_id: Item(row.uri, row.version) for row in rows}
    recipes_by_image: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        recipes_by_image[row.image_id].append(row.recipe_id)
    groups: dict[tuple[int, ...], list[Item]] = defaultdict(list)
    for image_id, wanted in recipes_by_image.items():
        groups[tuple(sorted(wanted))].append(items[image_id])
    new = [
        {
            "job_id": job.id,
            "item_list": pack_items(some),
            "size": len(some),
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
