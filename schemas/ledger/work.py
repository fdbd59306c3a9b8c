"""A worker's part of a chunk's life: claim, renew, release."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Double, Row, bindparam, select, update

from schemas.database import Database
from schemas.items import Item, unpack_items
from schemas.ledger.bulk import OTHERS, VALUES, rows_where, run
from schemas.ledger.jobs import pause_within, recipes_of
from schemas.ledger.states import BACK_TO_PENDING, QUEUED, RUNNING
from schemas.recipes import Recipe
from schemas.tables import annotations, chunks, contents, jobs, unix_now

NAME_AND_ROOTS = select(jobs.c.name, jobs.c.roots).where(jobs.c.id == bindparam("job"))
NAMED = (chunks.c.id == bindparam("chunk"), chunks.c.fence == bindparam("named"))
"""This chunk, under this fence: what every transition of a chunk that somebody has asks first."""
PUT_BACK = update(chunks).where(*NAMED, QUEUED).values(BACK_TO_PENDING)
RELEASE = update(chunks).where(*NAMED, RUNNING).values(BACK_TO_PENDING)
ABANDON = update(chunks).where(*NAMED, RUNNING).values(lease_until=unix_now() - 1, worker=None)
CLAIM = (
    update(chunks)
    .where(*NAMED, QUEUED)
    .where(select(jobs.c.id).where(jobs.c.id == chunks.c.job_id, jobs.c.state == "running").exists())
    .values(
        state="running",
        worker=bindparam("by"),
        lease_until=unix_now() + bindparam("lasting", type_=Double),
        claimed_at=unix_now(),
    )
    .returning(chunks)
)
OURS = select(chunks).where(*NAMED, RUNNING, chunks.c.worker == bindparam("by"))
ANNOTATED = (
    select(contents.c.sha256, annotations.c.recipe_id, annotations.c.input, annotations.c.id)
    .join(annotations, annotations.c.content_id == contents.c.id)
    .where(contents.c.sha256.in_(VALUES), annotations.c.recipe_id.in_(OTHERS))
)


UNREADABLE = (ValueError, KeyError, TypeError)
"""What `claim_of` raises for a chunk that another version has written."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk that is ours to work on until its lease ends, under its fence."""

    chunk_id: int
    fence: int
    job_id: int
    items: list[Item]
    recipes: Mapping[int, Recipe]
    roots: Sequence[str] | None
    """The folders whose local files may be read; None: any, as in jobs of before there were roots."""
    recipe_ids: str | None
    tries: int
    crashes: int
    job: str = ""
    """The job's name, for people."""

    @property
    def attempt(self) -> int:
        """The how many-th time these images are worked on: after failures that may pass, and workers that died."""
        return self.tries + self.crashes + 1


def claim_chunk(
    database: Database, chunk_id: int, fence: int, *, worker: str, lease_s: float, again: bool = False
) -> Claim | None:
    """queued → running. None for a late or doubled message, or when the job does not run now.

    A chunk that this version cannot read pauses its job: message after message would say the same, and blame nobody.
    `again` says that this worker has tried before and never got the answer: the chunk may be its own by now.
    """
    with database.write() as connection:
        row = run(connection, CLAIM, chunk=chunk_id, named=fence, by=worker, lasting=lease_s).first()
        if row is None and again:
            row = run(connection, OURS, chunk=chunk_id, named=fence, by=worker).first()
        if row is None:
            # a paused job's chunk must not stay queued: its message is gone after this
            run(connection, PUT_BACK, chunk=chunk_id, named=fence)
            return None
        try:
            return claim_of(connection, row)
        except UNREADABLE as error:
            run(connection, RELEASE, chunk=chunk_id, named=fence)
            why = unreadable(chunk_id, error)
    with database.write() as connection:  # one of its own: whoever pauses takes the job's row before those of chunks
        pause_within(connection, row.job_id, why)
    return None


def unreadable(chunk_id: int, error: Exception) -> str:
    """Why its job pauses."""
    return f"its chunk {chunk_id} cannot be read: {type(error).__name__}; a worker of this job's version may"


def renew_leases(database: Database, worker: str, chunk_ids: Collection[int], lease_s: float) -> dict[int, str]:
    """Extend the leases of a worker's running chunks: the state of the job of each that is still ours."""
    if not chunk_ids:
        return {}
    renewed = (
        update(chunks)
        .where(chunks.c.id.in_(chunk_ids), chunks.c.worker == worker, RUNNING)
        .values(lease_until=unix_now() + lease_s)
        .returning(chunks.c.id, chunks.c.job_id)
    )
    with database.write() as connection:
        ours = connection.execute(renewed).all()
        wanted = {row.job_id for row in ours}
        states = dict(connection.execute(select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(wanted))).all())
    return {row.id: states[row.job_id] for row in ours}


def release_chunk(database: Database, claim: Claim) -> bool:
    """running → pending, with nothing done and nobody blamed."""
    with database.write() as connection:
        return run(connection, RELEASE, chunk=claim.chunk_id, named=claim.fence).rowcount == 1


def abandon_chunk(database: Database, claim: Claim) -> bool:
    """End our lease on a chunk that failed in a way nobody foresaw: `reclaim_expired` counts it as a crash."""
    with database.write() as connection:
        return run(connection, ABANDON, chunk=claim.chunk_id, named=claim.fence).rowcount == 1


def find_annotations(
    database: Database, sha256s: Collection[str], recipe_ids: Collection[int]
) -> dict[tuple[str, int, str], int]:
    """The annotations of these contents under these recipes: (sha256, recipe id, hash of the input) → annotation id."""
    with database.ask() as connection:
        return annotations_of(connection, sha256s, recipe_ids)


def annotations_of(
    connection: Connection, sha256s: Iterable[str], recipe_ids: Iterable[int]
) -> dict[tuple[str, int, str], int]:
    """`find_annotations` as part of a transaction."""
    rows = rows_where(connection, ANNOTATED, dict.fromkeys(sha256s), others=list(recipe_ids))
    return {(sha256, recipe, input_): id_ for sha256, recipe, input_, id_ in rows}


def claim_of(connection: Connection, row: Row[Any]) -> Claim:
    """The claim on a chunk that is running, from its row."""
    recipes = recipes_of(connection, row.job_id)
    wanted = set(json.loads(row.recipe_ids)) if row.recipe_ids else set(recipes)
    name, roots = run(connection, NAME_AND_ROOTS, job=row.job_id).one()
    return Claim(
        chunk_id=row.id,
        fence=row.fence,
        job_id=row.job_id,
        items=unpack_items(row.item_list),
        recipes={id_: recipe for id_, recipe in recipes.items() if id_ in wanted},
        roots=None if roots is None else json.loads(roots),
        recipe_ids=row.recipe_ids,
        tries=row.tries,
        crashes=row.crashes,
        job=name,
    )
