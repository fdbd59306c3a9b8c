"""Outcomes: one for each image, recipe and job. How they are written, replaced and counted.

Whoever writes outcomes of a job has its row locked (`lock_job`). Each mention of an image in a listing brings exactly
one count for each recipe: at every moment `images × recipes` is the sum of the counters and of what waits in chunks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select, update

from schemas.ledger.bulk import insert_into, plain, rows_where
from schemas.tables import images, jobs, outcomes, unix_now

Counts = Counter[Literal["images", "annotated", "reused", "failed"]]
"""What a transaction adds to the counters of its job."""


class Outcome(NamedTuple):
    """What became of an image under a recipe: an annotation, made or reused, or a failure with its code."""

    image_id: int
    recipe_id: int
    annotation_id: int | None = None
    reused: bool = False
    code: str | None = None
    message: str | None = None
    tries: int = 1

    @property
    def key(self) -> tuple[int, int]:
        return self.image_id, self.recipe_id

    @property
    def kind(self) -> Literal["annotated", "reused", "failed"]:
        """The counter of the job that it belongs to."""
        if self.code is not None:
            return "failed"
        return "reused" if self.reused else "annotated"


class Version(NamedTuple):
    """An image as a row: one version of a URI."""

    id: int
    key: bytes
    uri: str


def versions_of(connection: Connection, uris: Iterable[str]) -> list[Version]:
    """All images of these URIs. With the job locked, nobody else adds one of them to the job."""
    versions = select(images.c.id, images.c.key, images.c.uri)
    return [Version(*row) for row in rows_where(connection, versions, images.c.uri, dict.fromkeys(map(plain, uris)))]


def write_outcomes(connection: Connection, job_id: int, new: Sequence[Outcome], versions: Sequence[Version]) -> Counts:
    """Write outcomes, and say by how much the job's counters change: by one for each of `new`.

    One that stands stays, unless it is a failure and an annotation has come; what comes second counts as reused. One
    that `retry` has put back is replaced. `versions` are all those of the URIs of `new`: a job shows one version of a
    URI, the latest it read, and the others are superseded.
    """
    if not new:
        return Counts()
    counts = Counts()
    standing = _standing(connection, job_id, {outcome.image_id for outcome in new})
    written: dict[tuple[int, int], Outcome] = {}
    for outcome in new:
        before = written.get(outcome.key) or standing.get(outcome.key)
        if before is None:
            counts[outcome.kind] += 1
        else:
            counts["reused"] += 1
            if before.code is None or outcome.code is not None:
                continue
            counts[before.kind] -= 1
            counts[outcome.kind] += 1
        written[outcome.key] = outcome
    _upsert(connection, job_id, [written[key] for key in sorted(written)])
    counts.update(_supersede(connection, job_id, new, versions))
    return counts


def add_to_job(connection: Connection, job_id: int, counts: Mapping[Any, int]) -> None:
    """Raise the job's counters."""
    changes = {name: jobs.c[name] + value for name, value in counts.items() if value}
    if changes:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(changes))


_COLUMNS = [outcomes.c[name] for name in Outcome._fields]


def _standing(connection: Connection, job_id: int, image_ids: set[int]) -> dict[tuple[int, int], Outcome]:
    """The outcomes that count: not those that wait for a retry, and not those of an older version."""
    standing = select(*_COLUMNS).where(
        outcomes.c.job_id == job_id, outcomes.c.retrying.is_(False), outcomes.c.superseded.is_(False)
    )
    rows = rows_where(connection, standing, outcomes.c.image_id, sorted(image_ids))
    return {(row[0], row[1]): Outcome(*row) for row in rows}


def _upsert(connection: Connection, job_id: int, rows: Sequence[Outcome]) -> None:
    if not rows:
        return
    insert = insert_into(connection, outcomes).values(
        job_id=job_id, input="", retrying=False, superseded=False, settled_at=unix_now()
    )
    replaced = (*Outcome._fields[2:], "retrying", "superseded", "settled_at")
    upsert = insert.on_conflict_do_update(
        index_elements=["job_id", "image_id", "recipe_id", "input"],
        set_={name: insert.excluded[name] for name in replaced},
    )
    connection.execute(upsert, [row._asdict() for row in rows])


def _supersede(connection: Connection, job_id: int, new: Sequence[Outcome], versions: Sequence[Version]) -> Counts:
    """Take the outcomes of other versions of these URIs out of the job's view.

    What stood counts as reused from now on, as every earlier mention of a URI does. What waited for a retry was out of
    the counters already: its chunk will bring its count.
    """
    uris = {version.id: version.uri for version in versions}
    many = {uri for uri, times in Counter(uris.values()).items() if times > 1}
    if not many:
        return Counts()
    latest = {(uris[outcome.image_id], outcome.recipe_id): outcome.image_id for outcome in new}
    shown = select(*_COLUMNS, outcomes.c.retrying).where(outcomes.c.job_id == job_id, outcomes.c.superseded.is_(False))
    rows = rows_where(connection, shown, outcomes.c.image_id, [id_ for id_, uri in uris.items() if uri in many])
    older = [row for row in rows if latest.get((uris[row.image_id], row.recipe_id), row.image_id) != row.image_id]
    this = (
        outcomes.c.job_id == job_id,
        outcomes.c.image_id == bindparam("image"),
        outcomes.c.recipe_id == bindparam("recipe"),
    )
    _each(connection, delete(outcomes).where(*this), [row for row in older if row.retrying])
    gone = [row for row in older if not row.retrying]
    _each(connection, update(outcomes).where(*this).values(superseded=True), gone)
    counts = Counts({"reused": len(gone)})
    for row in gone:
        counts[Outcome(*row[:-1]).kind] -= 1
    return counts


def _each(connection: Connection, statement: Any, rows: Sequence[Any]) -> None:
    if rows:
        connection.execute(statement, [{"image": row.image_id, "recipe": row.recipe_id} for row in rows])
